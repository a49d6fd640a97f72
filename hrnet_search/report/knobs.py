"""What the report of a search says of its knobs: what each did, and the way to the winner.

Both are made from the ledger alone. `importance_data` and `way` compute in the units of the
records; tables, figures and sentences are made from them.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from ..result import METRICS, count, metric
from ..space import Value
from .figures import COLOURS, NEUTRAL, blank_figure, escape
from .frame import Run
from .summary import learnt_nothing
from .tables import NONE, Column, TextTable, signed, tick

if TYPE_CHECKING:  # Optuna comes with them
    from ..search.additive import Additive
    from ..search.path import Step

MAX_NETWORKS = 500  # that importances are of: Optuna takes some 10 ms for each
MAX_BARS = 12  # knobs in a figure; tables have all
ROW_HEIGHT, AXIS_HEIGHT = 30, 70  # pixels of a figure: for each bar, and for the axis below them
GAIN, LOSS = COLOURS[0], COLOURS[1]
IMPORTANCE = [
    *("metric", "knob", "networks", "importance", "error", "chance"),
    *("effect", "effect_chance", "clear"),
]
PATH = ("step", "knobs", "from", "to", "state", "value", "gain", "error", "cost")
THIN = {"color": NEUTRAL, "thickness": 1, "width": 4}  # of error bars


def importance_data(run: Run, data: pd.DataFrame) -> pd.DataFrame:
    """One row per knob for the accuracy, then for the cost, most important first.

    Args:
        run: The search.
        data: Its `networks_data`; only the networks compared count, and of more than
            `MAX_NETWORKS` so many drawn at random, the same ones each time.
    """
    from ..search.importance import importances  # Optuna, which reports of grids do without

    rows = []
    for key in (run.study.accuracy, run.study.cost):
        points = _points(run, data, key)
        if len(points) > MAX_NETWORKS:
            points = points.sample(MAX_NETWORKS, random_state=0).sort_index()
        found = importances(
            run.study.space,
            _params(run, points),
            points[key].astype(float).tolist(),
            maximize=metric(key).direction == "maximize",
        )
        for one in found:
            row = (key, one.knob, len(points), one.share, one.error, one.chance)
            rows.append((*row, one.effect, one.effect_chance, one.is_clear))
    return pd.DataFrame(rows, columns=IMPORTANCE)


def _points(run: Run, data: pd.DataFrame, key: str) -> pd.DataFrame:
    """The networks compared, in the order of their proposals; of a run at zero no accuracies."""
    if key == run.study.accuracy and learnt_nothing(run):
        return data.head(0)
    places = {arm.name: place for place, arm in enumerate(run.arms)}
    return data[data["compared"] & data[key].notna()].sort_values(
        "arm", key=lambda a: a.map(places)
    )


def _params(run: Run, points: pd.DataFrame) -> list[dict[str, Value]]:
    found = {arm.name: arm.results[0].params for arm in run.arms}
    return [found[name] for name in points["arm"]]


def importance_table(importance: pd.DataFrame) -> TextTable:
    """Importances in percent, the knobs in the order of those of the accuracy."""
    columns = [Column("Knob", "arm")]
    for key in dict.fromkeys(importance["metric"]):
        label = METRICS[key].label
        columns += [
            Column(label, "number", "% ± s.e."),
            Column("Effect", "number", "% of variance"),
            Column("Clear", "tick"),
        ]
    parts = [part.set_index("knob") for _, part in importance.groupby("metric", sort=False)]
    names = list(parts[0].index) if parts else []
    rows = [[name, *(text for part in parts for text in _shares(part.loc[name]))] for name in names]
    return TextTable(columns, rows)


def _shares(row: pd.Series) -> list[str]:
    effect = NONE if pd.isna(row["effect"]) else f"{100 * row['effect']:.0f}"
    share = f"{100 * row['importance']:.0f} ± {100 * row['error']:.0f}"
    return [share, effect, tick(bool(row["clear"]))]


def importance_words(run: Run, data: pd.DataFrame, importance: pd.DataFrame) -> list[str]:
    """What is to be believed: a sentence each for the accuracy and the cost."""
    words = []
    for key in (run.study.accuracy, run.study.cost):
        part = importance[importance["metric"] == key]
        words.append(_told(key, part) if len(part) else _why_not(run, data, key))
    return words


def _told(key: str, part: pd.DataFrame) -> str:
    label, clear = METRICS[key].label, list(part.loc[part["clear"], "knob"])
    of = f"over {part['networks'].iloc[0]} networks"
    if not clear:
        return f"{label} {of}: no knob did more than chance could, so nothing can be told."
    verb = "does" if len(clear) == 1 else "do"
    return f"{label} {of}: {_listed(clear)} {verb} more than chance; of the others nothing is told."


def _why_not(run: Run, data: pd.DataFrame, key: str) -> str:
    from ..search.importance import LEAST

    label, number = METRICS[key].label, len(_points(run, data, key))
    if key == run.study.accuracy and learnt_nothing(run):
        return f"{label}: nothing was learnt, so no knob did anything."
    if number < LEAST:
        return f"{label}: too few networks: {number} are compared, at least {LEAST} are needed."
    return f"{label}: the networks do not differ enough to tell the best from the others."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def importance_figure(importance: pd.DataFrame, key: str) -> go.Figure | None:
    """A bar for each knob, faint where chance may have made it, with what chance came to."""
    part = importance[importance["metric"] == key].head(MAX_BARS)
    if part.empty:
        return None
    names = [escape(name) for name in part["knob"]]
    figure = _bars_figure(f"Importance for {METRICS[key].label} (%)", names)
    shares, errors = 100 * part["importance"], 100 * part["error"]
    opacity = [1.0 if is_clear else 0.45 for is_clear in part["clear"]]
    below = list(errors.clip(upper=shares))  # a share is not below 0
    figure.add_trace(
        go.Bar(
            x=list(shares),
            y=names,
            orientation="h",
            marker={"color": COLOURS[0], "opacity": opacity},
            error_x={"array": list(errors), "arrayminus": below, **THIN},
            hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=list(100 * part["chance"]),
            y=names,
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 16, "color": LOSS, "line": {"width": 2}},
            hovertemplate="%{y}: up to %{x:.0f} % by chance<extra></extra>",
        )
    )
    return figure.update_xaxes(rangemode="tozero")


def _bars_figure(title: str, names: list[str]) -> go.Figure:
    """An empty figure for horizontal bars, the first at the top."""
    figure = blank_figure(title, "", named=False)
    figure.update_layout(height=AXIS_HEIGHT + ROW_HEIGHT * len(names), bargap=0.35)
    order = {"categoryorder": "array", "categoryarray": names, "autorange": "reversed"}
    return figure.update_yaxes(type="category", ticks="", dtick=1, showgrid=False, **order)


@dataclass(frozen=True, kw_only=True)
class Way:
    """The way from the default to the winner, with what predicted its untrained networks.

    Args:
        start: Knob values of the default.
        steps: The networks; none if it is not known what the default reaches.
        model: None if there are too few networks for one.
        networks: Number of those compared.
        winner: Short name of the best of them.
    """

    start: dict[str, Value]
    steps: list["Step"]
    model: "Additive | None"
    networks: int
    winner: str


def way(run: Run, data: pd.DataFrame) -> Way | None:
    """The way to the best of the networks compared; None if there are none, or nothing was learnt.

    Args:
        run: The search.
        data: Its `networks_data`.
    """
    from ..search import additive
    from ..search.importance import LEAST
    from ..search.path import ablation_path, default_params

    key = run.study.accuracy
    points, maximize = _points(run, data, key), metric(key).direction == "maximize"
    if points.empty:
        return None
    values, params = points[key].astype(float).tolist(), _params(run, points)
    best = values.index(max(values) if maximize else min(values))
    start = default_params(run.study, [arm.results[0].params for arm in run.arms])
    keys = [run.study.network(one).key for one in params]
    model = additive.fit(params, values) if len(values) >= LEAST else None
    steps = ablation_path(
        run.study,
        start,
        params[best],
        measured=dict(zip(keys, values, strict=True)),
        model=model if model and model.is_useful else None,
        maximize=maximize,
    )
    winner = points["network"].iloc[best]
    return Way(start=start, steps=steps, model=model, networks=len(values), winner=winner)


def path_data(run: Run, found: Way | None) -> pd.DataFrame:
    """One row per network of the way.

    `error` is that of the value: none where it was measured, else the root mean square error of
    the model at networks left out. `cost` is that of the record, or counted.
    """
    rows: list[tuple[Any, ...]] = []
    steps = found.steps if found else []
    for number, (before, step) in enumerate(zip([None, *steps], steps, strict=False)):
        gain = step.value - before.value if before else None
        changes = [_values(one, step.knobs) for one in (before, step)]
        error = found.model.error if found and found.model and step.kind == "predicted" else None
        row = (number, ", ".join(step.knobs), *changes, step.kind, step.value, gain, error)
        rows.append((*row, _cost(run, step)))
    return pd.DataFrame(rows, columns=list(PATH))


def _values(step: "Step | None", knobs: tuple[str, ...]) -> str:
    return ", ".join(_text(step.params[name]) for name in knobs) if step else ""


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cost(run: Run, step: "Step") -> float | None:
    """The network's cost as it was recorded, or else counted, where that is the same number."""
    study = run.study
    for result in run.results:
        if result.key == step.key and result.value(study.cost) is not None:
            return result.value(study.cost)
    return None if study.detector else study.costs(step.params).get(study.cost)


def path_table(run: Run, path: pd.DataFrame) -> TextTable:
    """The way in words, a network in each row."""
    shown, cost = metric(run.study.accuracy), metric(run.study.cost)
    columns = [Column("Change", "arm"), Column("Gain", "number", shown.title)]
    columns += [Column(shown.label, "number", "± error of the model"), Column("Value")]
    columns += [Column(cost.label, "number", cost.unit)]
    rows = []
    for row in path.to_dict("records"):
        value = shown.show(row["value"])
        value += "" if pd.isna(row["error"]) else f" ± {shown.show(row['error'])}"
        gain = signed(shown, row["gain"]) if row["step"] else ""
        rows.append([_change(row), gain, value, row["state"], cost.show(row["cost"])])
    return TextTable(columns, rows)


def _change(row: dict[Any, Any]) -> str:
    """As in "width: 8 to 16"."""
    return f"{row['knobs']}: {row['from']} to {row['to']}" if row["step"] else "default"


def path_words(run: Run, found: Way | None) -> str:
    """Where the way begins and ends, and how far it can be trusted."""
    shown = metric(run.study.accuracy)
    if not found:
        return "No network is the best, so there is no way to it."
    default = f"the default ({run.study.arm(found.start)})"
    if not found.steps:
        return f"What {default} reaches is not known: {_unknown(run, found)}."
    first, last = found.steps[0], found.steps[-1]
    if len(found.steps) == 1:
        return f"The best network is {default} itself."
    ends = f"From {default}, {shown.label} {shown.show(first.value)}, to network {found.winner}"
    ends += f", {shown.show(last.value)}: {signed(shown, last.value - first.value)} in all."
    predicted = sum(step.kind == "predicted" for step in found.steps)
    trust = f" All {len(found.steps)} networks of the way were trained."
    if predicted:
        trust = f" Predicted, not trained: {predicted} of {len(found.steps)} networks on the way, "
        trust += f"by a model that adds the knobs up. {_model_words(run, found)}"
    elif any(len(step.knobs) > 1 for step in found.steps):
        trust = f" What is changed together cannot be told apart: {_unknown(run, found)}."
    return ends + trust


def _model_words(run: Run, found: Way) -> str:
    """How far off the model is."""
    shown, model = metric(run.study.accuracy), found.model
    if not model or model.error is None:
        return ""
    off, apart = shown.show(model.error), shown.show(model.spread)
    return f"It is off by {off} at networks left out (rms), where the networks spread by {apart}."


def _unknown(run: Run, found: Way) -> str:
    """Why untrained networks have no predictions."""
    from ..search.importance import LEAST

    model = found.model
    if not model:
        return (
            f"networks between were not trained, and {count(found.networks, 'network')} are too "
            f"few to predict them (at least {LEAST})"
        )
    if model.error is None:
        return "networks between were not trained, and the others are too unlike to predict them"
    if not model.is_useful:
        off, apart = (METRICS[run.study.accuracy].show(v) for v in (model.error, model.spread))
        return (
            "networks between were not trained, and a model that adds the knobs up is off by "
            f"{off} where the networks spread by {apart}, so nothing can be told"
        )
    return "networks between were not trained, and some have values that no other network shows"


def path_figure(run: Run, path: pd.DataFrame) -> go.Figure | None:
    """Each change as a bar from the value before to that after; hatched where predicted."""
    if len(path) < 2:
        return None
    shown = metric(run.study.accuracy)
    names = [escape(_change(row)) for row in path.to_dict("records")]
    figure = _bars_figure(shown.title, names)
    values = path["value"] * shown.scale
    sign = shown.sign
    changes, is_predicted = path[1:], path["state"] == "predicted"
    figure.add_trace(
        go.Bar(
            base=list(values[:-1]),
            x=list(values.diff()[1:]),
            y=names[1:],
            orientation="h",
            marker={
                "color": [GAIN if gain * sign >= 0 else LOSS for gain in changes["gain"]],
                "opacity": [0.5 if predicted else 1.0 for predicted in is_predicted[1:]],
            },
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=list(values),
            y=names,
            mode="markers",
            marker={
                "symbol": ["circle-open" if p else "circle" for p in is_predicted],
                "size": 9,
                "color": NEUTRAL,
                "line": {"width": 2},
            },
            error_x={"array": list(path["error"].astype(float).fillna(0) * shown.scale), **THIN},
            hovertemplate="%{y}: %{x:.4g}<extra></extra>",
        )
    )
    return figure
