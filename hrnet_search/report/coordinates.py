"""A search's networks as lines across the axes of their knobs, cost and accuracy.

These are parallel coordinates of plain lines. Plotly has a trace for them, but it makes code as it
runs, which the page forbids: names on it are its users', and it is sent to others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..result import Metric, metric
from ..space import Value
from .figures import LOG_RATIO, NEUTRAL, blank_figure, escape, shortened
from .frame import Run

MAX_LINES = 300  # networks: the front, then the best
MAX_TICKS = 12  # of an axis whose values are named
FEW_TICKS = 5  # of an axis of numbers
AXIS_WIDTH = 96  # pixels, at least: the page scrolls where there are fewer
# From the worst to the best; all of it is seen on a light and on a dark page.
GRADIENT = ((91, 127, 219), (194, 93, 154), (224, 138, 0))
SHADES = 9  # colours told apart: a trace for each


@dataclass(frozen=True)
class Axis:
    """One axis, from 0 to 1.

    Args:
        title: Name of a knob, or title of a metric.
        places: Of each network.
        texts: What each network has there.
        ticks: Place and text.
    """

    title: str
    places: list[float]
    texts: list[str]
    ticks: list[tuple[float, str]]


def lines_data(run: Run, data: pd.DataFrame) -> pd.DataFrame:
    """The networks drawn: those compared that have both numbers, at most `MAX_LINES`."""
    key, cost = run.study.accuracy, run.study.cost
    has = [
        bool(compared) and _is_number(value) and _is_number(paid)
        for compared, value, paid in zip(data["compared"], data[key], data[cost], strict=True)
    ]
    return data[has].head(MAX_LINES)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def axes(run: Run, lines: pd.DataFrame) -> list[Axis]:
    """An axis for each knob, then cost and accuracy. `lines` is from `lines_data`."""
    params = {arm.name: arm.results[0].params for arm in run.arms}
    own = [params[name] for name in lines["arm"]]
    found = [
        _knob_axis(name, knob.values(), [one[name] for one in own])
        for name, knob in run.study.space.vary.items()
    ]
    keys = dict.fromkeys([run.study.cost, run.study.accuracy])
    return [*found, *(_metric_axis(metric(key), lines[key].astype(float).tolist()) for key in keys)]


def _knob_axis(name: str, values: Sequence[Value], own: Sequence[Value]) -> Axis:
    """All values of the space, also those that no network has; numbers to scale."""
    texts = [_text(value) for value in own]
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values):
        low, high = min(numbers), max(numbers)
        at = {v: (v - low) / (high - low) if high > low else 0.5 for v in numbers}
        ticks = [(at[value], _text(value)) for value in _some(sorted(numbers))]
        return Axis(name, [at[value] for value in own], texts, ticks)  # type: ignore[index]
    named = list(dict.fromkeys(map(_text, values)))
    places = {t: n / (len(named) - 1) if len(named) > 1 else 0.5 for n, t in enumerate(named)}
    return Axis(name, [places[t] for t in texts], texts, [(places[t], t) for t in _some(named)])


def _some(values: Sequence[Any]) -> list[Any]:
    """All, or of many so many at equal distances, the first and the last among them."""
    if len(values) <= MAX_TICKS:
        return list(values)
    last, steps = len(values) - 1, FEW_TICKS - 1
    return [values[round(last * step / steps)] for step in range(FEW_TICKS)]


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _metric_axis(shown: Metric, values: list[float]) -> Axis:
    """From the smallest to the largest, logarithmic where costs are far apart."""
    low, high = min(values), max(values)
    texts = [shown.show(value) for value in values]
    if low == high:
        return Axis(shown.label, [0.5] * len(values), texts, [(0.5, shown.show(low))])
    is_log = shown.key.startswith("profile.") and low > 0 and high / low > LOG_RATIO
    first, last = (math.log(low), math.log(high)) if is_log else (low, high)
    places = [((math.log(v) if is_log else v) - first) / (last - first) for v in values]
    ticks = []
    for step in range(FEW_TICKS):
        place = step / (FEW_TICKS - 1)
        value = first + place * (last - first)
        ticks.append((place, shown.show(math.exp(value) if is_log else value)))
    return Axis(shown.label, places, texts, ticks)


def figure(run: Run, lines: pd.DataFrame) -> go.Figure | None:
    """A line for each network, coloured by its accuracy; None with fewer than two.

    Args:
        run: The search.
        lines: From `lines_data`.
    """
    if len(lines) < 2:
        return None
    found = axes(run, lines)
    drawn = blank_figure("", "", named=False)
    drawn.update_layout(height=460, hovermode="closest", dragmode=False)  # dragging scrolls the box
    drawn.update_layout(margin={"l": 8, "r": 8, "t": 44, "b": 16})
    common = {"fixedrange": True, "showgrid": False, "showline": False, "ticks": ""}
    titles = [f"<b>{escape(shortened(axis.title))}</b>" for axis in found]
    drawn.update_xaxes(side="top", tickvals=list(range(len(found))), ticktext=titles, **common)
    drawn.update_xaxes(range=[-0.75, len(found) - 0.75], tickangle=0, title=None)
    drawn.update_yaxes(range=[-0.05, 1.05], showticklabels=False, title=None, **common)
    drawn.add_traces(_lines(run, lines, found))
    for place in range(len(found)):
        line = {"color": NEUTRAL, "width": 1}
        drawn.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line=line)
    drawn.add_trace(_ticks(found))
    return drawn


def _lines(run: Run, lines: pd.DataFrame, found: list[Axis]) -> list[go.Scatter]:
    """A trace for each colour, the best last, so on top."""
    shown = metric(run.study.accuracy)
    sign = shown.sign
    values = sign * lines[shown.key].astype(float)
    span = values.max() - values.min()
    shares = (values - values.min()) / span if span else values * 0 + 1.0
    shades = (shares * (SHADES - 1)).round().astype(int).tolist()
    rows = lines.to_dict("records")
    # Every point has its text, so it is short.
    heads = [
        f"network {escape(row['network'])}, {shown.label} {shown.show(row[shown.key])}"
        for row in rows
    ]
    traces = []
    for shade in sorted(set(shades)):
        x: list[int | None] = []
        y: list[float | None] = []
        texts: list[str] = []
        for n in reversed([n for n, own in enumerate(shades) if own == shade]):
            x += [*range(len(found)), None]
            y += [*(round(axis.places[n], 4) for axis in found), None]
            own = [f"{escape(axis.title)}: {escape(axis.texts[n])}" for axis in found]
            texts += [*(f"{heads[n]}; {text}" for text in own), ""]
        traces.append(
            go.Scatter(
                x=x,
                y=y,
                mode="lines",
                line={"color": _colour(shade / (SHADES - 1)), "width": 1.6},
                opacity=0.75 if len(rows) <= 100 else 0.45,
                hovertext=texts,
                hoverinfo="text",
                showlegend=False,
            )
        )
    return traces


def _colour(share: float) -> str:
    """Of the gradient, 0 to 1."""
    place = share * (len(GRADIENT) - 1)
    start = min(int(place), len(GRADIENT) - 2)
    ends = zip(GRADIENT[start], GRADIENT[start + 1], strict=True)
    mixed = [round(a + (b - a) * (place - start)) for a, b in ends]
    return f"rgb({', '.join(map(str, mixed))})"


def _ticks(found: list[Axis]) -> go.Scatter:
    """Their texts stand left of the axes."""
    ticks = [(n, *tick) for n, axis in enumerate(found) for tick in axis.ticks]
    return go.Scatter(
        x=[n - 0.03 for n, _, _ in ticks],
        y=[place for _, place, _ in ticks],
        text=[escape(shortened(text)) for _, _, text in ticks],
        mode="text",
        textposition="middle left",
        textfont={"size": 11},
        hoverinfo="skip",
        showlegend=False,
    )


def width(run: Run) -> int:
    """Pixels that the figure needs at least."""
    return AXIS_WIDTH * (len(run.study.space.vary) + 2)
