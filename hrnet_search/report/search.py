"""What only the report of a search has: its networks in order, their front, how it got there.

`networks_data` puts the networks in order once; tables, figures and sentences are made from it.
"""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..pareto import front, hypervolumes, reference_point
from ..result import CAUSES, METRICS, count, metric
from .figures import (
    COLOURS,
    NEUTRAL,
    arm_curves,
    blank_figure,
    broken_line,
    curves_data,
    styles,
)
from .frame import Arm, Run
from .summary import learnt_nothing, nothing_words, progress, task_words, training_words, where
from .tables import (
    STATES,
    Column,
    TextTable,
    metrics_table,
    spread,
    tick,
    trials_table,
    with_deviation,
)

FRONT_ROWS, BEST_ROWS = 100, 20  # networks that are listed unfolded
MAX_ROWS = 500  # of a folded list; the files hold all
MAX_FAINT = 100  # networks of a kind among the learning curves
MAX_POINTS = 200  # of a curve over trials
COSTS = ("profile.params", "profile.macs", "profile.latency")
SAMPLERS = {
    "random": "random sampling",
    "qmc": "quasi-Monte Carlo sampling",
    "tpe": "a tree-structured Parzen estimator",
    "gp": "a Gaussian process",
    "nsga2": "evolution (NSGA-II)",
    "nsga3": "evolution (NSGA-III)",
    "local": "local search",
    "evolution": "regularised evolution",
}
SCHEDULERS = {"asha": "ASHA", "hyperband": "Hyperband", "median": "the median rule"}


def label(arm: Arm) -> str:
    """A network's short name: the number of its proposal."""
    number = arm.results[0].proposal
    return arm.name if number is None else str(number)


def networks_data(run: Run) -> pd.DataFrame:
    """One row per network, in the units of the records: the front by cost, then best first.

    `compared` are the networks with as many complete trainings as any, none of them ended early:
    a mean over fewer could be ahead by luck. `front` are those of them that no other beats in cost
    or accuracy and equals in the other.
    """
    cost, accuracy = run.study.cost, run.study.accuracy
    frame = pd.DataFrame([_row(run, arm) for arm in run.arms], columns=_columns(run))
    most = max([1, *frame["seeds"]])
    frame["compared"] = (frame["seeds"] == most) & frame["step"].isna()
    points = frame[frame["compared"] & frame[cost].notna()]
    on_front = front(list(zip(points[cost], points[accuracy] * _sign(run), strict=True)))
    frame["front"] = frame.index.isin(points.index[on_front])
    return _ordered(run, frame)


def _columns(run: Run) -> list[str]:
    columns = ["network", "arm", "state", "front", "compared"]
    columns += [f"params.{name}" for name in run.study.space.vary]
    accuracy = run.study.accuracy
    columns += [*_costs(run), accuracy, f"{accuracy}.deviation", "seeds", "step", "trials"]
    return columns


def _costs(run: Run) -> list[str]:
    return list(dict.fromkeys([run.study.cost, *COSTS]))


def _sign(run: Run) -> int:
    """What turns an accuracy into a number of which smaller is better."""
    return -metric(run.study.accuracy).sign


def _row(run: Run, arm: Arm) -> dict[str, Any]:
    key = run.study.accuracy
    mean, deviation = spread(arm, key)
    row: dict[str, Any] = {"network": label(arm), "arm": arm.name, "state": _state(run, arm)}
    row |= {f"params.{name}": value for name, value in arm.results[0].params.items()}
    row |= {cost: spread(arm, cost)[0] for cost in _costs(run)}
    row |= {key: mean, f"{key}.deviation": deviation, "seeds": len(arm.values(key))}
    early = [r.history[-1]["step"] if r.history else 0 for r in arm.results if r.state == "pruned"]
    row["step"] = max(early) if early else None
    return row | {"trials": " ".join(str(result.trial) for result in arm.results)}


def _state(run: Run, arm: Arm) -> str:
    """One word where all seeds ended alike, otherwise how many ended how."""
    states = Counter(STATES[result.state] for result in arm.results)
    missing = run.study.seeds - len(arm.results)
    if missing > 0:
        states["not trained"] = missing
    if len(states) == 1:
        return next(iter(states))
    return ", ".join(f"{number} {state}" for state, number in states.items())


def _ordered(run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    """The front by cost, the others compared, those with fewer seeds, ended early, failed."""
    value, step = frame[run.study.accuracy].astype(float), frame["step"].astype(float)
    is_front, is_compared = frame["front"].to_numpy(bool), frame["compared"].to_numpy(bool)
    measured, early = value.notna().to_numpy(), step.notna().to_numpy()
    group = np.select([is_front, is_compared, measured, early], [0, 1, 2, 3], 4)
    cost = frame[run.study.cost].astype(float)
    within = np.select([is_front, measured, early], [cost, value * _sign(run), -step], 0.0)
    ordered = frame.iloc[np.lexsort([within, group])]
    return ordered.reset_index(drop=True).astype({"step": "Int64"})


def network_tables(run: Run, data: pd.DataFrame) -> dict[str, TextTable]:
    """The front, the best beside it, and the rest, which is cut at `MAX_ROWS`."""
    ahead = data.index[data["front"]][:FRONT_ROWS]
    best = data.index[data["compared"] & ~data["front"]][:BEST_ROWS]
    rest = data.drop(ahead).drop(best)
    parts = {"front": data.loc[ahead], "best": data.loc[best], "rest": rest.head(MAX_ROWS)}
    return {name: networks_table(run, part) for name, part in parts.items()}


def networks_table(run: Run, data: pd.DataFrame) -> TextTable:
    """Some of the networks in words; what matters most stands leftmost, for narrow screens."""
    shown, costs = metric(run.study.accuracy), _costs(run)
    columns = [Column("Network", "arm"), Column(shown.label, "number", "mean ± sd (seeds)")]
    columns += [Column(METRICS[c].label, "number", METRICS[c].unit) for c in costs]
    columns += [Column("State"), *(Column(name, "tick") for name in run.study.space.vary)]
    columns += [Column("Trials", "number")]
    return TextTable(columns, [_cells(run, costs, row) for row in data.to_dict("records")])


def _cells(run: Run, costs: list[str], row: dict[Any, Any]) -> list[str]:
    key = run.study.accuracy
    mean = with_deviation(metric(key), row[key], row[f"{key}.deviation"], row["seeds"])
    step = "" if pd.isna(row["step"]) else f" (step {row['step']})"
    return [
        row["network"],
        mean,
        *(METRICS[cost].show(row[cost]) for cost in costs),
        f"{row['state']}{step}",
        *(tick(row[f"params.{name}"]) for name in run.study.space.vary),
        row["trials"],
    ]


def trials(run: Run) -> TextTable:
    """The first `MAX_ROWS` trials."""
    table = trials_table(run)
    labels = {arm.name: label(arm) for arm in run.arms}
    rows = [[trial, labels[arm], *rest] for trial, arm, *rest in table.rows[:MAX_ROWS]]
    return TextTable([table.columns[0], Column("Network", "arm"), *table.columns[2:]], rows)


def failures(run: Run) -> TextTable:
    """The first `MAX_ROWS` failed trials with what stopped them."""
    columns = [Column("Trial", "number"), Column("Network", "arm"), Column("Seed", "number")]
    columns += [Column("Cause"), Column("Error"), Column("Message")]
    failed = [(a, r) for a in run.arms for r in a.results if r.state == "failed"]
    rows = []
    for arm, result in sorted(failed, key=lambda pair: pair[1].trial)[:MAX_ROWS]:
        error = result.error or {}
        row = [str(result.trial), label(arm), str(result.seed), _cause(error)]
        rows.append([*row, error.get("type", "unknown"), error.get("message", "")])
    return TextTable(columns, rows)


def _cause(error: dict[str, str]) -> str:
    cause = error.get("cause", "unknown")
    return CAUSES.get(cause, cause)


def others(run: Run, data: pd.DataFrame) -> TextTable:
    """Every other number that was measured of the networks listed first."""
    table = metrics_table(_only(run, data[data["compared"]].head(BEST_ROWS)))
    return TextTable([Column("Network", "arm"), *table.columns[1:]], table.rows)


def _only(run: Run, data: pd.DataFrame) -> Run:
    """The run with some of its networks alone, in the order of the data, under short names."""
    arms = {arm.name: arm for arm in run.arms}
    chosen = [arms[name] for name in data["arm"]]
    named = tuple(dataclasses.replace(arm, name=label(arm)) for arm in chosen)
    return dataclasses.replace(run, arms=named)


def leaders(run: Run, data: pd.DataFrame) -> Run:
    """The run with the best networks of the front alone: as many as there are colours but grey."""
    ahead = data[data["front"]].sort_values(run.study.accuracy, ascending=_sign(run) > 0)
    return _only(run, ahead.head(len(COLOURS) - 1).sort_values(run.study.cost))


def curves_figure(
    run: Run, data: pd.DataFrame, name: str, title: str, scale: float = 1.0
) -> go.Figure | None:
    """The leaders in colour, others faint, those ended early up to where they were stopped."""
    figure = blank_figure("Step", title)
    figure.update_xaxes(rangemode="tozero")
    chosen = leaders(run, data)
    named = {arm.results[0].arm for arm in chosen.arms}
    is_early = data["step"].notna()
    is_other = (data["seeds"] > 0) & ~is_early & ~data["arm"].isin(named)
    for part, words in ((data[is_other], "other networks"), (data[is_early], "ended early")):
        figure.add_traces(_faint(_curves(_only(run, _thinned(part)), name, scale), words))
    style = styles(chosen)
    for arm in chosen.arms:
        curves = _curves(dataclasses.replace(chosen, arms=(arm,)), name, scale)
        if not curves.empty:
            figure.add_traces(arm_curves(f"network {arm.name}", curves, style[arm.name]))
    return figure if figure.data else None


def _curves(run: Run, name: str, scale: float) -> pd.DataFrame:
    data = curves_data(run, name)
    data["value"] *= scale
    return data


def _thinned(data: pd.DataFrame) -> pd.DataFrame:
    """At most `MAX_FAINT` of the networks, from best to worst at equal distances."""
    places = np.linspace(0, len(data) - 1, min(len(data), MAX_FAINT)).round().astype(int)
    return data.iloc[places]


def _faint(data: pd.DataFrame, words: str) -> list[go.Scatter]:
    """Thin grey lines; a cross ends those that were ended early."""
    if data.empty:
        return []
    x, y = broken_line(data, ["arm", "seed"])
    common: dict[str, Any] = {"name": words, "legendgroup": words, "hoverinfo": "skip"}
    common |= {"opacity": 0.45}
    early = words == STATES["pruned"]
    line = {"color": NEUTRAL, "width": 1, "dash": "dot" if early else "solid"}
    traces = [go.Scatter(x=x, y=y, mode="lines", line=line, **common)]
    if early:
        last = data.groupby(["arm", "seed"], sort=False).last()
        marker = {"color": NEUTRAL, "symbol": "x-thin-open", "size": 7}
        ends = {"x": list(last["step"]), "y": list(last["value"])}
        traces.append(go.Scatter(**ends, mode="markers", marker=marker, showlegend=False, **common))
    return traces


FEW_TRIALS = 10  # each has a mark on its axis


def growth_data(run: Run, data: pd.DataFrame) -> pd.DataFrame:
    """Trials that had ended, the best accuracy by then, and the hypervolume as a share of the last.

    A network counts from the end of its last training on. The reference of the hypervolume is the
    `reference_point` of the costs and accuracies compared. At most `MAX_POINTS` rows, and a
    hypervolume only where the study has two objectives.
    """
    in_time = sorted(run.results, key=lambda result: (result.ended, result.trial))
    ended = {result.arm: place for place, result in enumerate(in_time, start=1)}
    points = data[data["compared"] & data[run.study.cost].notna()]
    points = points.assign(ended=points["arm"].map(ended)).sort_values("ended")
    values = np.column_stack(
        [points[run.study.accuracy].astype(float) * _sign(run), points[run.study.cost]]
    ).astype(float)
    places = np.linspace(1, len(points), min(len(points), MAX_POINTS)).round().astype(int)
    frame = pd.DataFrame({"trials": points["ended"].to_numpy()[places - 1]})
    frame["best"] = np.minimum.accumulate(values[:, 0])[places - 1] * _sign(run)
    frame["hypervolume"] = _volumes(values, places) if len(run.study.goals) > 1 else np.nan
    return frame


def _volumes(values: np.ndarray[Any, Any], places: np.ndarray[Any, Any]) -> list[float]:
    """The hypervolume of the first so many points each, as a share of the last."""
    if not len(values):
        return []
    found = np.array(hypervolumes(values.tolist(), reference_point(values)))
    return [volume / found[-1] if found[-1] else np.nan for volume in found[places - 1]]


def growth_figures(run: Run, data: pd.DataFrame) -> dict[str, go.Figure | None]:
    """The best accuracy, and the hypervolume in percent, over trials."""
    shown, frame = metric(run.study.accuracy), growth_data(run, data)
    titles = {
        "best": (f"Best {shown.title}", shown.scale),
        "hypervolume": ("Hypervolume (% of the last)", 100.0),
    }
    return {
        name: _growth(frame.dropna(subset=[name]), name, title, scale, ended=len(run.results))
        for name, (title, scale) in titles.items()
    }


def _growth(
    frame: pd.DataFrame, name: str, title: str, scale: float, *, ended: int
) -> go.Figure | None:
    """Steps that reach to the last trial that has ended, whatever became of it."""
    if frame.empty:
        return None
    values = list(frame[name] * scale)
    figure = blank_figure("Trials ended", title, named=False)
    figure.update_layout(height=300).update_xaxes(rangemode="tozero")
    if ended <= FEW_TRIALS:
        figure.update_xaxes(dtick=1)  # there are no halves
    figure.add_trace(
        go.Scatter(
            x=[*frame["trials"], ended],
            y=[*values, values[-1]],
            mode="lines" if ended > 1 else "markers",
            line={"shape": "hv", "color": COLOURS[0], "width": 2},
            hovertemplate="%{y:.3g} after %{x} trials<extra></extra>",
        )
    )
    return figure


def summary(run: Run, data: pd.DataFrame) -> str:
    """Who proposed what, what became of it, the best network, and where the front lies."""
    done = [_what(run), _proposals(run), _how_often(run, data), _failures(run), _stopped(run)]
    found = [best(run, data), _front(run, data)]
    if learnt_nothing(run):
        found = [nothing_words(run)]
    paragraphs = ([*done, where(run)], found)
    return "\n\n".join(" ".join(filter(None, sentences)) for sentences in paragraphs)


def _what(run: Run) -> str:
    search, study = run.study.search, run.study
    by = f"{SAMPLERS[search.sampler]} (seed {search.seed})"
    size = f"{study.space.size} combinations of knob values"
    early = (
        f"; {SCHEDULERS[search.scheduler]} may end it early" if search.scheduler != "none" else ""
    )
    each = f"each network is {training_words(study)}{early}"
    return f"A search among {size} for {task_words(study)} by {by}; {each}."


def _proposals(run: Run) -> str:
    """What became of the sampler's proposals, where the driver has told."""
    told = run.status.get("proposals") or {}
    total = sum(told.values())
    if not total:
        return ""
    words = {"new": "new", "duplicate": "made before", "infeasible": "not possible"}
    parts = [f"{told[name]} {text}" for name, text in words.items() if told.get(name)]
    return f"The sampler made {count(total, 'proposal')}: {', '.join(parts)}."


def _how_often(run: Run, data: pd.DataFrame) -> str:
    planned = count(run.study.search.networks or 0, "network")
    each = f"{len(data)} of {planned} were trained, with {count(run.study.seeds, 'seed')} each"
    missing = run.planned - len(run.results)
    left = f", {missing} not finished yet" if missing > 0 else ""
    return f"{each}: {progress(run)}{left}."


def _failures(run: Run) -> str:
    """As in "Failed: 3 (training diverged), 1 (memory ran out)."."""
    failed = Counter(_cause(r.error or {}) for r in run.results if r.state == "failed")
    parts = [f"{number} ({cause})" for cause, number in failed.most_common()]
    return f"Failed: {', '.join(parts)}." if parts else ""


def _stopped(run: Run) -> str:
    """Why the search is not at its end, where the driver has told."""
    state, reason = run.status.get("state"), run.status.get("reason")
    if state not in ("interrupted", "paused", "stopped"):
        return ""
    why = f": {reason.rstrip('.')}" if reason else ""
    return f"The search was {state}{why}."


def best(run: Run, data: pd.DataFrame) -> str:
    """The network with the best mean, and how far that can be trusted."""
    shown = metric(run.study.accuracy)
    compared = data[data["compared"]]
    if compared.empty:
        return f"No trial has measured {shown.label} yet, so there is nothing to compare."
    values = compared[shown.key].to_numpy(dtype=float)
    best = compared.iloc[int(np.argmin(values * _sign(run)))]
    seeds = int(best["seeds"])
    numbers = with_deviation(shown, best[shown.key], best[f"{shown.key}.deviation"], seeds)
    what = "mean " if seeds > 1 else ""
    text = f"The best {what}{shown.label} is {numbers.rpartition(' (')[0]} over "
    text += f"{count(seeds, 'seed')}, by network {best['network']} ({best['arm']})"
    if seeds == 1:
        return f"{text}; one seed cannot tell its lead from chance."
    return f"{text}; the best of {len(compared)} is so by luck too, so its mean flatters it."


def _front(run: Run, data: pd.DataFrame) -> str:
    x, y = metric(run.study.cost), metric(run.study.accuracy)
    ahead = data[data["front"]]
    if ahead.empty:
        return ""
    ends = [
        f"{y.label} {y.show(row[y.key])} at {x.show(row[x.key])} {x.label} (network {name})"
        for name, row in ahead.iloc[[0, -1]].set_index("network").iterrows()
    ]
    of = f"{len(ahead)} of the {count(int(data['compared'].sum()), 'network')} compared"
    lies = f"from {ends[0]} to {ends[1]}" if len(ahead) > 1 else f"at {ends[0]}"
    return f"The Pareto front of {y.label} against {x.label} has {of}: {lies}."
