"""The report's figures: `..._data` computes what is drawn, `..._figure` draws it.

Colours of text and grid come from the page, which knows whether it is light or dark.
"""

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..result import Metric, count, metric
from ..stats import Comparison, Verdict, mean_and_deviation
from .frame import Arm, Run
from .tables import comparisons, probability

# Okabe and Ito's palette for all kinds of colour vision, without the black and the yellow that
# vanish on a dark or a light page; grey in their place.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MAX_NAMED = 12  # arms in a legend and among the learning curves
LOG_RATIO = 10  # costs further apart than this are drawn on a logarithmic axis
NEUTRAL = "#888888"  # readable on both pages
VERDICT_COLOURS: Mapping[Verdict, str] = {
    "reproduced": "#009E73",
    "contradicted": "#D55E00",
    "shown": "#0072B2",
    "not shown": NEUTRAL,
}


@dataclass(frozen=True)
class Style:
    """How an arm is drawn, alike in every figure."""

    colour: str
    symbol: str
    dash: str


def styles(run: Run) -> dict[str, Style]:
    """Arm -> its style."""
    return named_styles(arm.name for arm in run.arms)


def named_styles(names: Iterable[str]) -> dict[str, Style]:
    """Name -> its style; colours repeat after seven names, with another symbol and dash."""
    found = {}
    for place, name in enumerate(names):
        again, colour = divmod(place, len(COLOURS))
        again %= len(SYMBOLS)
        found[name] = Style(COLOURS[colour], SYMBOLS[again], DASHES[again])
    return found


def spread_costs(figure: go.Figure, data: pd.DataFrame) -> None:
    """A logarithmic axis for costs far apart; plain numbers, as "273µ" GMACs would be no unit."""
    figure.update_xaxes(exponentformat="none")
    if data["cost"].min() > 0 and data["cost"].max() / data["cost"].min() > LOG_RATIO:
        figure.update_xaxes(type="log")


def front_trace(data: pd.DataFrame, x: Metric, y: Metric) -> go.Scatter:
    """The staircase of the front; `data` as `pareto.pareto_data` makes it."""
    ahead = data[data["front"]].sort_values("cost")
    return go.Scatter(
        x=list(ahead["cost"] * x.scale),
        y=list(ahead["mean"] * y.scale),
        mode="lines",
        name="Pareto front",
        line={"shape": "hv", "color": NEUTRAL, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )


def differences_figure(run: Run) -> go.Figure | None:
    """Each comparison's difference with its interval, and the paper's; None without intervals."""
    shown = metric(run.study.accuracy)
    found = [pair for family in comparisons(run) for pair in family.pairs if pair[2].interval]
    if not found:
        return None
    # Names may repeat, so rows are numbers; Plotly counts them upwards.
    rows = list(range(len(found), 0, -1))
    figure = blank_figure(f"Difference ({shown.title})", "")
    for verdict in dict.fromkeys(one.verdict for _, _, one in found):
        own = [(y, pair) for y, pair in zip(rows, found, strict=True) if pair[2].verdict == verdict]
        figure.add_trace(_differences(shown, verdict, own))
    paper = [(y, one.paper) for y, (_, _, one) in zip(rows, found, strict=True) if one.paper]
    if paper:
        figure.add_trace(
            go.Scatter(
                x=[value * shown.scale for _, value in paper],
                y=[y for y, _ in paper],
                mode="markers",
                name="the paper",
                marker={"color": NEUTRAL, "symbol": "diamond-open", "size": 9},
                hovertemplate="the paper: %{x:+.1f}<extra></extra>",
            )
        )
    names = [escape(f"{arm.name} \N{MINUS SIGN} {other.name}") for arm, other, _ in found]
    figure.update_layout(height=120 + 34 * len(found))
    figure.update_yaxes(tickvals=rows, ticktext=names, range=[0.4, len(found) + 0.6])
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 1, "dash": "dot"})
    return figure


def _differences(
    shown: Metric, verdict: Verdict, found: list[tuple[int, tuple[Arm, Arm, Comparison]]]
) -> go.Scatter:
    """The comparisons of one verdict."""
    rows = [(y, one.difference or 0.0, one.interval or (0.0, 0.0)) for y, (_, _, one) in found]
    return go.Scatter(
        x=[d * shown.scale for _, d, _ in rows],
        y=[y for y, _, _ in rows],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [(high - d) * shown.scale for _, d, (_, high) in rows],
            "arrayminus": [(d - low) * shown.scale for _, d, (low, _) in rows],
            "thickness": 2,
            "width": 5,
        },
        mode="markers",
        name=verdict,
        marker={"color": VERDICT_COLOURS[verdict], "size": 10},
        hovertext=[
            f"{escape(arm.name)} minus {escape(other.name)}<br>{count(one.n, 'pair')}, "
            f"p {probability(one.p_table)}"
            for _, (arm, other, one) in found
        ],
        hovertemplate="%{hovertext}<br>%{x:+.1f}<extra>%{fullData.name}</extra>",
    )


def curves_data(run: Run, name: str) -> pd.DataFrame:
    """Arm, seed, step, value: what `name` measured in every trial that did not fail."""
    rows = [
        (result.arm, result.seed, point["step"], point[name])
        for result in run.results
        if result.state != "failed"
        for point in result.history
        if math.isfinite(point.get(name, math.nan))
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "value"])


def curves_figure(run: Run, name: str, title: str, scale: float = 1.0) -> go.Figure | None:
    """Thin lines for seeds and a thick one for their mean; None if nothing was measured."""
    data = curves_data(run, name)
    data["value"] *= scale
    if data.empty:
        return None
    figure = blank_figure("Step", title)
    figure.update_xaxes(rangemode="tozero")
    style = styles(run)
    for arm in named_arms(run):
        figure.add_traces(arm_curves(arm.name, data[data["arm"] == arm.name], style[arm.name]))
    return figure


def named_arms(run: Run) -> list[Arm]:
    """The arms that figures with lines show: all, or of many the best and the reference."""
    if len(run.arms) <= MAX_NAMED:
        return list(run.arms)
    sign = -metric(run.study.accuracy).sign
    means = {
        arm.name: sign * mean_and_deviation(values.values())[0]
        for arm in run.arms
        if (values := arm.values(run.study.accuracy))
    }
    best = sorted(means, key=lambda name: means[name])[: MAX_NAMED - 1]
    return [arm for arm in run.arms if arm.name in best or arm is run.reference]


def broken_line(data: pd.DataFrame, by: list[str]) -> tuple[list[float | None], list[float | None]]:
    """Steps and values of several curves, with a gap after each: one trace draws them all."""
    x: list[float | None] = []
    y: list[float | None] = []
    for _, curve in data.groupby(by, sort=False):
        x += [*curve["step"], None]
        y += [*curve["value"], None]
    return x, y


def arm_curves(name: str, data: pd.DataFrame, style: Style) -> list[go.Scatter]:
    """An arm's curves: a thin line for each seed, a thick one for their mean."""
    x, y = broken_line(data, ["seed"])
    mean = _mean_curve(data)
    # A single point makes no line.
    mode = "lines" if data["step"].nunique() > 1 else "markers"
    common: dict[str, Any] = {"mode": mode, "name": escape(name), "legendgroup": escape(name)}
    line = {"color": style.colour, "dash": style.dash}
    thin = go.Scatter(
        x=x,
        y=y,
        line=line | {"width": 1},
        opacity=0.55,
        showlegend=False,
        hoverinfo="skip",
        **common,
    )
    thick = go.Scatter(
        x=list(mean.index),
        y=list(mean),
        line=line | {"width": 2.5},
        # The name is looked up, not pasted: a template would read "%{...}" in it.
        hovertemplate="%{fullData.name}<br>step %{x}: %{y:.3g}<extra></extra>",
        **common,
    )
    return [thin, thick]


def _mean_curve(data: pd.DataFrame) -> pd.Series:
    """Step -> mean, at the steps that every seed has."""
    steps = data.groupby("step")["value"]
    return steps.mean()[steps.count() == data["seed"].nunique()]


def escape(text: str) -> str:
    """A name as Plotly shows it; it takes some HTML for markup."""
    return html.escape(" ".join(text.split()), quote=False)


MAX_LETTERS = 18  # of a name on an axis: more would leave no room on a narrow screen


def shortened(name: str) -> str:
    """A name for an axis, on one line; where it is cut, the whole one is to be in the hover."""
    flat = " ".join(name.split())
    if len(flat) <= MAX_LETTERS:
        return flat
    return f"{flat[: MAX_LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def blank_figure(x: str, y: str, *, named: bool = True) -> go.Figure:
    """A figure with titles of its axes and nothing in it; with a legend if `named`."""
    axis = {"zeroline": False, "automargin": True, "ticks": "outside", "tickcolor": NEUTRAL}
    return go.Figure(
        layout={
            "template": "none",
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"size": 13},
            "margin": {"l": 8, "r": 24, "t": 8, "b": 8},
            "height": 420,
            "showlegend": named,
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "hoverlabel": {"align": "left", "namelength": -1},
            "xaxis": axis | {"title": {"text": escape(x)}},
            "yaxis": axis | {"title": {"text": escape(y)}},
        }
    )
