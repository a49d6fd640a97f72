"""Arms of several runs side by side: means, places, and figures that join them by lines.

Runs are given by name, in the order that they are shown in; arms belong together by name, and a
run may lack some of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..ranks import Correlation
from ..result import metric
from ..stats import LEVEL, MIN_PAIRS, mean_and_deviation, t_interval
from .figures import Style, blank_figure, escape
from .frame import Run
from .tables import MINUS, NONE, Column, spread, with_deviation

SPREAD = 0.24  # width over which the arms of a run stand side by side, in distances of runs

Runs = Mapping[str, Run]


def scores(run: Run) -> dict[str, dict[int, float]]:
    """Arm -> seed -> value of the metric that decides, turned so that larger is better."""
    sign = metric(run.study.accuracy).sign
    return {
        arm.name: {seed: sign * value for seed, value in arm.values(run.study.accuracy).items()}
        for arm in run.arms
    }


def means(run: Run) -> dict[str, float]:
    """Arm -> mean of its scores, of the arms that were measured."""
    found = scores(run).items()
    return {arm: mean_and_deviation(values.values())[0] for arm, values in found if values}


def best(run: Run) -> str | None:
    """The arm with the best mean, None if none was measured."""
    found = means(run)
    return max(found, key=lambda arm: found[arm], default=None)


def places(run: Run) -> dict[str, float]:
    """Arm -> its place by mean, 1 the best; equal ones share the mean of their places."""
    return dict(pd.Series(means(run), dtype=float).rank(ascending=False))


def correlation(found: Correlation) -> str:
    """As in "0.50", with its interval on a second line if it has one."""
    if found.low is None or found.high is None:
        return number(found.value)
    return f"{number(found.value)}\n[{number(found.low)}, {number(found.high)}]"


def number(value: float | None) -> str:
    """A correlation with two digits."""
    if value is None:
        return NONE
    return f"{value:.2f}".replace("-", MINUS)


def mean_columns(runs: Runs) -> list[Column]:
    """A heading for each run, of what `mean_rows` puts below it."""
    titles = {name: metric(run.study.accuracy).title for name, run in runs.items()}
    return [Column(name, "number", f"{title}; place") for name, title in titles.items()]


def mean_rows(runs: Runs, names: Sequence[str]) -> list[list[str]]:
    """For each arm its name, and in each run mean, deviation, seeds, and place."""
    cells = [_mean_cells(run) for run in runs.values()]
    return [[name, *(column.get(name, NONE) for column in cells)] for name in names]


def _mean_cells(run: Run) -> dict[str, str]:
    key, place = run.study.accuracy, places(run)
    return {
        arm.name: with_deviation(metric(key), *spread(arm, key), len(arm.values(key)))
        + f"; {place[arm.name]:g}"
        for arm in run.arms
        if arm.name in place
    }


def means_figure(runs: Runs, drawn: Mapping[str, Style], x: str) -> go.Figure | None:
    """Each arm's mean and its 95 % t interval in every run; None if nothing was measured.

    Args:
        runs: All with the same metric.
        drawn: Arm -> how it is drawn; no others are.
        x: What the runs are.
    """
    shown = metric(next(iter(runs.values())).study.accuracy)
    points = {}
    for name in drawn:
        found = [_interval(run, name) for run in runs.values()]
        points[name] = [tuple(shown.scale * v for v in p) if p else None for p in found]
    figure = _slopes(runs, drawn, points, x, shown.title)
    if figure is not None:
        figure.update_traces(hovertemplate="%{fullData.name}<br>%{y:.3g}<extra></extra>")
    return figure


def places_figure(runs: Runs, drawn: Mapping[str, Style], x: str) -> go.Figure | None:
    """Each arm's place in every run, the best on top; None if nothing was measured."""
    found = [places(run) for run in runs.values()]
    points: dict[str, list[Any]] = {
        name: [(place[name], 0.0, 0.0) if name in place else None for place in found]
        for name in drawn
    }
    figure = _slopes(runs, drawn, points, x, "Place", width=0)
    if figure is not None:
        figure.update_yaxes(autorange="reversed", dtick=max(1, len(points) // 10))
        figure.update_traces(hovertemplate="%{fullData.name}<br>place %{y}<extra></extra>")
    return figure


def _interval(run: Run, name: str) -> tuple[float, float, float] | None:
    """Mean, and how far its 95 % t interval reaches down and up; no interval of a single seed."""
    arm = next((arm for arm in run.arms if arm.name == name), None)
    values = list(arm.values(run.study.accuracy).values()) if arm else []
    if not values:
        return None
    mean, _ = mean_and_deviation(values)
    low, high = t_interval(values, level=LEVEL) if len(values) >= MIN_PAIRS else (mean, mean)
    return mean, mean - low, high - mean


def _slopes(
    runs: Runs,
    drawn: Mapping[str, Style],
    points: Mapping[str, list[Any]],
    x: str,
    y: str,
    *,
    width: float = SPREAD,
) -> go.Figure | None:
    """A line for each arm over the runs; `points` are arm -> (value, down, up) in each."""
    if not any(point for each in points.values() for point in each):
        return None
    figure = blank_figure(x, y)
    shifts = np.linspace(-width / 2, width / 2, len(points)) if len(points) > 1 else [0.0]
    for (name, each), shift in zip(points.items(), shifts, strict=True):
        measured = [(place, point) for place, point in enumerate(each) if point]
        style = drawn[name]
        reach = {"color": style.colour, "width": 4, "thickness": 1.5, "type": "data"}
        if any(up for _, (_, _, up) in measured):
            reach |= {
                "array": [up for _, (_, _, up) in measured],
                "arrayminus": [down for _, (_, down, _) in measured],
            }
        figure.add_trace(
            go.Scatter(
                x=[place + shift for place, _ in measured],
                y=[value for _, (value, _, _) in measured],
                error_y=reach,
                mode="lines+markers",
                name=escape(name),
                line={"color": style.colour, "dash": style.dash, "width": 2},
                marker={"color": style.colour, "symbol": style.symbol, "size": 9},
            )
        )
    ticks = [escape(name) for name in runs]
    figure.update_xaxes(
        tickvals=list(range(len(runs))), ticktext=ticks, range=[-0.3, len(runs) - 0.7]
    )
    return figure
