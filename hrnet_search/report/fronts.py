"""The fronts of several studies beside each other: how far each has got, and after how long.

Of searches the networks compared; of grids, such as plain scaling, the arms with as many seeds as
any. At least one is a search.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..errors import InputError
from ..pareto import front, hypervolume, hypervolumes, reference_point
from ..result import count, joined, metric
from ..search.baselines import RANDOM, SCALING
from . import search
from .figures import blank_figure, escape, front_trace, named_styles, spread_costs
from .frame import Run, incomparable, read_run
from .tables import NONE, Column, TextTable

COLUMNS = ["study", "network", "arm", "cost", "mean", "deviation", "front", "joint", "hours"]
SECONDS = 3600  # of an hour
Runs = Mapping[str, Run]  # by what they are called on the page; the first decides the axes


def fronts_data(runs: Runs) -> pd.DataFrame:
    """The networks that each study compares, in the units of the records.

    `front` says whether one is on the front of its own study, `joint` whether it is on that of all,
    `hours` how long the trials of its study had trained by the end of its last one. Empty if no
    study is a search, or one has other objectives or data than the first, or accuracy alone.
    """
    name, base = next(iter(runs.items()))
    goals, is_grid = base.study.goals, [run.study.search.is_grid for run in runs.values()]
    alike = [run.study.goals == goals for run in runs.values()]
    alike += [not incomparable(run, base, name) for run in runs.values()]
    if len(goals) < 2 or all(is_grid) or not all(alike):
        return pd.DataFrame(columns=COLUMNS)
    cost, accuracy = base.study.cost, base.study.accuracy
    names = {cost: "cost", accuracy: "mean", f"{accuracy}.deviation": "deviation"}
    parts = []
    for study, run in runs.items():
        trained = dataclasses.replace(run, arms=tuple(arm for arm in run.arms if arm.results))
        data = search.networks_data(trained)
        kept = data[data["compared"] & data[cost].notna()].rename(columns=names)
        parts.append(kept.assign(study=study, hours=kept["arm"].map(_hours(run))))
    frame = pd.concat(parts, ignore_index=True).assign(joint=False)[COLUMNS]
    return frame.assign(joint=front(_points(runs, frame).tolist()))


def _hours(run: Run) -> dict[str, float]:
    """Arm -> hours of training of all trials that had ended with its last one."""
    passed, found = 0.0, {}
    for result in sorted(run.results, key=lambda result: (result.ended, result.trial)):
        passed += result.seconds / SECONDS
        found[result.arm] = passed
    return found


def _points(runs: Runs, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Cost and accuracy, turned so that smaller is better."""
    accuracy = metric(next(iter(runs.values())).study.accuracy)
    sign = -accuracy.sign
    return np.column_stack([frame["cost"], sign * frame["mean"].astype(float)]).astype(float)


def _shares(runs: Runs, frame: pd.DataFrame) -> dict[str, list[tuple[float, float]]]:
    """Study -> hours passed, and hypervolume by then as a share of the joint front's."""
    points = _points(runs, frame)
    if not len(points):
        return {}
    reference = reference_point(points)
    whole, found = hypervolume(points.tolist(), reference), {}
    for study in runs:
        own = frame[frame["study"] == study].sort_values("hours")
        volumes = hypervolumes(points[own.index].tolist(), reference)
        found[study] = [
            (hours, volume / whole)
            for hours, volume in zip(own["hours"], volumes, strict=True)
            if whole
        ]
    return found


def fronts_table(runs: Runs, frame: pd.DataFrame) -> TextTable:
    """How much of what all studies have found each has found by itself."""
    columns = [Column("Study"), Column("Networks", "number", "compared")]
    columns += [Column("Its front", "number", "networks"), Column("Joint front", "number", "of it")]
    columns += [Column("Hypervolume", "number", "% of the joint front's")]
    columns += [Column("Hours", "number", "of training")]
    rows = []
    for study, shares in _shares(runs, frame).items():
        own = frame[frame["study"] == study]
        share = f"{100 * shares[-1][1]:.3g}" if shares else NONE
        hours = sum(result.seconds for result in runs[study].results) / SECONDS
        cells = [study, str(len(own)), str(int(own["front"].sum())), str(int(own["joint"].sum()))]
        rows.append([*cells, share, f"{hours:.2g}"])
    return TextTable(columns, rows)


def fronts_figure(runs: Runs, frame: pd.DataFrame) -> go.Figure | None:
    """The networks of all studies and the front of each; None if there is nothing to draw."""
    if frame.empty:
        return None
    study = next(iter(runs.values())).study
    x, y = metric(study.cost), metric(study.accuracy)
    figure = blank_figure(x.title, y.title)
    for name, style in named_styles(runs).items():
        own = frame[frame["study"] == name]
        line = front_trace(own, x, y)
        shown = escape(name)
        line.update(name=shown, legendgroup=shown, showlegend=False)
        line.line.color = style.colour
        figure.add_trace(line)
        figure.add_trace(
            go.Scatter(
                x=list(own["cost"] * x.scale),
                y=list(own["mean"] * y.scale),
                mode="markers",
                name=shown,
                legendgroup=shown,
                marker={
                    "color": style.colour,
                    "symbol": style.symbol,
                    "size": [11 if is_front else 6 for is_front in own["front"]],
                    "opacity": [1.0 if is_front else 0.35 for is_front in own["front"]],
                },
                hovertext=[
                    f"<b>{shown}</b>, network {escape(network)}<br>"
                    f"{escape(y.label)} {y.show(mean)}, {x.show(cost)} {x.label}"
                    for network, mean, cost in zip(
                        own["network"], own["mean"], own["cost"], strict=True
                    )
                ],
                hoverinfo="text",
            )
        )
    spread_costs(figure, frame)
    return figure


def growth_figure(runs: Runs, frame: pd.DataFrame) -> go.Figure | None:
    """The hypervolume of each study over its hours of training; None without any."""
    found = _shares(runs, frame)
    if not any(found.values()):
        return None
    figure = blank_figure("Hours of training", "Hypervolume (% of the joint front's)")
    figure.update_layout(height=300).update_xaxes(rangemode="tozero")
    for name, style in named_styles(runs).items():
        if shares := found[name]:
            hours, values = zip(*shares, strict=True)
            line = {"shape": "hv", "color": style.colour, "width": 2, "dash": style.dash}
            marker = {"color": style.colour, "symbol": style.symbol, "size": 5}
            percent = [100 * value for value in values]
            template = "%{y:.3g} % after %{x:.2g} h"
            figure.add_trace(
                go.Scatter(
                    x=hours, y=percent, name=escape(name), line=line, marker=marker,
                    mode="lines+markers", hovertemplate=template,
                )
            )  # fmt: skip
    return figure


def baselines(folder: Path, run: Run) -> tuple[Runs, list[str]]:
    """A search and those of its `search.baselines` that were trained beside it.

    Args:
        folder: Of the run.
        run: The search.

    Returns:
        The runs by name, and in words why one that is there is left out.
    """
    found, notes = {run.study.name: run}, []
    if len(run.study.goals) < 2:
        return found, ["A search for accuracy alone has no front to set beside others."]
    for baseline in (RANDOM, SCALING):
        name = f"{run.study.name}-{baseline}"
        if not (folder.parent / name / "results.jsonl").exists():
            continue
        try:
            other = read_run(folder.parent / name)
        except InputError as error:
            notes.append(f"{name} is left out, as it cannot be read: {error}.")
            continue
        parts = ["task", "train", "seeds", *(["space"] if baseline == RANDOM else [])]
        differ = [part for part in parts if getattr(other.study, part) != getattr(run.study, part)]
        if differ:
            notes.append(f"{name} is left out, as it has other settings of {joined(differ)}.")
        else:
            found[name] = other
    return found, notes


def front_words(runs: Runs, frame: pd.DataFrame) -> list[str]:
    """Whose networks the joint front has."""
    ahead = frame[frame["joint"].astype(bool)]
    if ahead.empty:
        return []
    each = [f"{int((ahead['study'] == study).sum())} of {study}" for study in runs]
    study = next(iter(runs.values())).study
    which = f"{metric(study.accuracy).label} against {metric(study.cost).label}"
    shown = f"Their joint Pareto front of {which}"
    return [f"{shown} has {count(len(ahead), 'network')}: {joined(each)}."]
