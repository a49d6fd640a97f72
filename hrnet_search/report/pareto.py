"""The metric against each cost, and its Pareto front: one figure whose cost axis can be switched.

A figure is drawn once for each cost. The page gets the first, and of the others what differs, which
its script puts in place.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..arch import TASK_DEFAULTS, ArchSpec
from ..blueprint import canonical
from ..pareto import front
from ..presets import PRESETS, preset
from ..result import METRICS, Metric, Result, count, metric
from ..rivals import Rival
from ..stats import mean_and_deviation
from .figures import (
    MAX_NAMED,
    NEUTRAL,
    Style,
    blank_figure,
    escape,
    front_trace,
    spread_costs,
    styles,
)
from .frame import Arm, Run
from .search import label, leaders
from .tables import spread

COSTS = ("profile.macs", "profile.params", "profile.latency", "profile.memory")
HOVER_COSTS = ("profile.params", "profile.macs", "profile.latency")
FAINT = 0.35  # opacity of what others beat
SWITCHED = ("x", "y", "opacity", "marker.opacity", "marker.size")  # what costs change in a trace
DIGITS = 6  # significant ones of coordinates

Places = Mapping[str, int]  # arm -> number of its drawing on the page


def costs(run: Run) -> list[Metric]:
    """The study's own cost, then the others that were measured."""
    keys = dict.fromkeys([run.study.cost, *COSTS])
    return [METRICS[key] for key in keys if any(arm.values(key) for arm in run.arms)]


def pareto_data(run: Run, cost: str) -> pd.DataFrame:
    """Mean cost, mean metric and its deviation of each arm that has both, and is it on the front?

    The front holds the arms that no other arm beats in one of the two and equals in the other.
    """
    accuracy = run.study.accuracy
    rows = []
    for arm in run.arms:
        values, (x, _) = arm.values(accuracy), spread(arm, cost)
        if x is not None and values:
            rows.append((arm.name, x, *mean_and_deviation(values.values()), len(values)))
    return _with_front(rows, metric(cost), metric(accuracy))


def networks_data(run: Run, data: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The same of a search's networks compared; `data` is `search.networks_data`."""
    arms = {arm.name: arm for arm in run.arms}
    accuracy = run.study.accuracy
    rows = []
    for row in data[data["compared"]].to_dict("records"):
        x, _ = spread(arms[row["arm"]], cost)
        if x is not None:
            deviation = row[f"{accuracy}.deviation"]
            rows.append((row["arm"], x, row[accuracy], deviation, row["seeds"]))
    return _with_front(rows, metric(cost), metric(accuracy))


def _with_front(rows: list[tuple[Any, ...]], cost: Metric, accuracy: Metric) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["arm", "cost", "mean", "deviation", "seeds"])
    frame = frame.astype({"deviation": float})  # None of one seed
    signs = [-shown.sign for shown in (cost, accuracy)]
    points = zip(frame["cost"] * signs[0], frame["mean"] * signs[1], strict=True)
    frame["front"] = front(list(points))
    return frame


def grid_figure(run: Run, places: Places) -> go.Figure | None:
    """Of each arm a small point per seed and a large one for the mean; None without any."""
    style, known = styles(run), published(run.arms)

    def draw(x: Metric) -> go.Figure:
        y, data = metric(run.study.accuracy), pareto_data(run, x.key)
        figure = blank_figure(x.title, y.title, named=len(run.arms) <= MAX_NAMED)
        figure.add_trace(front_trace(data, x, y))
        for arm in run.arms:
            if arm.values(y.key):
                ahead = arm.name in set(data["arm"][data["front"]])
                place = places.get(arm.name)
                figure.add_traces(_arm_points(arm, style[arm.name], x, y, place, faint=not ahead))
        figure.add_traces(_published_points(known, data, x, y))
        spread_costs(figure, data)
        return figure

    return _switched(run, draw, lambda key: pareto_data(run, key))


def search_figure(run: Run, data: pd.DataFrame, places: Places) -> go.Figure | None:
    """A point for each network compared, large on the front; None without any.

    Args:
        run: The search.
        data: From `search.networks_data`.
        places: Of the networks that are drawn on the page.
    """
    found = styles(leaders(run, data))
    names = list(data["arm"][data["compared"]])[::-1]  # the front last, so on top
    arms = {arm.name: arm for arm in run.arms}
    known = published(arms[name] for name in names)
    colours = [found[n].colour if n in found else NEUTRAL for n in (label(arms[a]) for a in names)]

    def draw(x: Metric) -> go.Figure:
        y, points = metric(run.study.accuracy), networks_data(run, data, x.key)
        figure = blank_figure(x.title, y.title)
        figure.add_trace(front_trace(points, x, y))
        if run.study.seeds > 1:
            figure.add_trace(_deviations(points, names, x, y))
        trace = _points(points, names, x, y)
        trace.update(
            customdata=[places.get(name) for name in names],
            hovertext=[hover(arms[name], f"network {label(arms[name])}", y) for name in names],
            marker_color=colours,
        )
        figure.add_trace(trace)
        figure.add_traces(_published_points(known, points, x, y))
        spread_costs(figure, points)
        return figure

    return _switched(run, draw, lambda key: networks_data(run, data, key))


@functools.cache
def _presets(head: str) -> dict[str, str]:
    """Hash of a published network -> its name."""
    specs = {n: [preset(n, task=task) for task in TASK_DEFAULTS] for n in PRESETS}
    return {canonical(spec, head).key: name for name, own in specs.items() for spec in own}


def published(arms: Iterable[Arm]) -> dict[str, str]:
    """Arm -> its name in `PRESETS`, of those that are networks of the paper or its code."""
    named: dict[str, str] = {}
    for arm in arms:
        if isinstance(arm.network, ArchSpec):
            head = str(arm.arguments["head"])
            name = _presets(head).get(canonical(arm.network, head).key)
            named |= {arm.name: name} if name else {}
    return named


def _published_points(
    known: Mapping[str, str], data: pd.DataFrame, x: Metric, y: Metric
) -> list[go.Scatter]:
    """A ring with a name around each network that others know; no trace without any."""
    if not known:
        return []
    rows = data.set_index("arm")
    ring = go.Scatter(
        x=[_at(rows, "cost", name, x) for name in known],
        y=[_at(rows, "mean", name, y) for name in known],
        text=[name.upper() for name in known.values()],
        textposition="top center",
        mode="markers+text",
        name="published",
        hoverinfo="skip",
        marker={"symbol": "circle-open", "size": 20, "color": NEUTRAL, "line": {"width": 2}},
    )
    return [ring]


def _points(data: pd.DataFrame, names: list[str], x: Metric, y: Metric) -> go.Scatter:
    """A point for each name; one without that cost has no place."""
    rows = data.set_index("arm")
    ahead = [bool(name in rows.index and rows["front"][name]) for name in names]
    return go.Scatter(
        x=[_at(rows, "cost", name, x) for name in names],
        y=[_at(rows, "mean", name, y) for name in names],
        mode="markers",
        showlegend=False,
        hoverinfo="text",
        marker={
            "opacity": [1.0 if is_ahead else FAINT for is_ahead in ahead],
            "size": [12 if is_ahead else 7 for is_ahead in ahead],
        },
    )


def _deviations(data: pd.DataFrame, names: list[str], x: Metric, y: Metric) -> go.Scatter:
    """Bars of standard deviations, of the front alone: hundreds would hide it.

    The lengths are those of all networks: with another cost on the axis others are in front.
    """
    rows = data[data["front"]].set_index("arm")
    spreads = dict(zip(data["arm"], map(float, data["deviation"]), strict=True))
    known = [value if math.isfinite(value := spreads.get(name, 0.0)) else 0.0 for name in names]
    return go.Scatter(
        x=[_at(rows, "cost", name, x) for name in names],
        y=[_at(rows, "mean", name, y) for name in names],
        mode="markers",
        showlegend=False,
        hoverinfo="skip",
        marker={"opacity": 0},
        error_y={
            "array": [value * y.scale for value in known],
            "color": NEUTRAL,
            "thickness": 1,
            "width": 4,
        },
    )


def _at(rows: pd.DataFrame, column: str, name: str, shown: Metric) -> float | None:
    return float(rows[column][name]) * shown.scale if name in rows.index else None


def _arm_points(
    arm: Arm, style: Style, x: Metric, y: Metric, place: int | None, *, faint: bool
) -> list[go.Scatter]:
    """One arm: a small point for each seed, a large one for the mean."""
    common: dict[str, Any] = {"mode": "markers", "legendgroup": escape(arm.name)}
    common |= {"name": escape(arm.name), "hoverinfo": "text", "opacity": FAINT if faint else 1.0}
    paid, values = arm.values(x.key), arm.values(y.key)
    measured = [result for result in arm.results if result.seed in values]
    cost, (mean, deviation) = spread(arm, x.key)[0], mean_and_deviation(values.values())
    small = go.Scatter(
        x=[paid[r.seed] * x.scale if r.seed in paid else None for r in measured],
        y=[values[r.seed] * y.scale for r in measured],
        customdata=[place] * len(measured),
        hovertext=[_hover(arm, arm.name, y, [r], f"seed {r.seed}") for r in measured],
        marker={"color": style.colour, "symbol": style.symbol, "size": 6, "opacity": 0.5},
        showlegend=False,
        **common,
    )
    large = go.Scatter(
        x=[None if cost is None else cost * x.scale],
        y=[mean * y.scale],
        error_y={"array": [(deviation or 0.0) * y.scale], "color": style.colour, "width": 5},
        customdata=[place],
        hovertext=[hover(arm, arm.name, y)],
        marker={"color": style.colour, "symbol": style.symbol, "size": 13},
        **common,
    )
    return [small, large]


def hover(arm: Arm, name: str, accuracy: Metric) -> str:
    """Name, and means over what was measured, a line each."""
    values = arm.values(accuracy.key)
    measured = [result for result in arm.results if result.seed in values]
    return _hover(arm, name, accuracy, measured, f"mean of {count(len(values), 'seed')}")


def _hover(arm: Arm, name: str, accuracy: Metric, results: list[Result], which: str) -> str:
    lines = [f"<b>{escape(name)}</b>, {which}"]
    for shown in (accuracy, *(METRICS[cost] for cost in HOVER_COSTS)):
        every = (result.value(shown.key) for result in results)
        found = [value for value in every if value is not None and math.isfinite(value)]
        mean = mean_and_deviation(found)[0] if found else None
        lines.append(f"{escape(shown.title)}: {shown.show(mean)}")
    own = [escape(arm.network.title)] if isinstance(arm.network, Rival) else []
    return "<br>".join([*lines, *own])


def _switched(
    run: Run, draw: Callable[[Metric], go.Figure], data: Callable[[str], pd.DataFrame]
) -> go.Figure | None:
    """The figure of the first cost, with what differs for each in `layout.meta`."""
    drawn = {cost.label: draw(cost) for cost in costs(run) if not data(cost.key).empty}
    if not drawn:
        return None
    figure = next(iter(drawn.values()))
    changes = {name: _changes(other) for name, other in drawn.items()}
    figure.update_layout(meta={"costs": changes})
    return figure


def _changes(figure: go.Figure) -> dict[str, Any]:
    """What `Plotly.restyle` and `Plotly.relayout` need to make it."""
    axis = figure.layout.xaxis
    traces = {name: [_plain(trace[name]) for trace in figure.data] for name in SWITCHED}
    changed = {name: found for name, found in traces.items() if any(v is not None for v in found)}
    layout = {"xaxis.title.text": axis.title.text, "xaxis.type": axis.type or "linear"}
    return {"traces": changed, "layout": layout | {"xaxis.autorange": True}}


def _plain(value: Any) -> Any:
    """An attribute as JSON, numbers as short as they may be."""
    if value is None:
        return None
    if isinstance(value, int | float):
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() else short
    return [_plain(entry) for entry in value]
