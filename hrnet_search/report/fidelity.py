"""How well a study's smaller scales predict it: data, tables, figures and words of that page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..ranks import Agreement, Correlation, agree
from ..result import count, metric
from . import figures, orders
from .frame import Run
from .tables import NONE, TIMES, Column, TextTable

TRAINING = 3  # multiply-adds of a training step in forward passes: the backward pass takes two
TERA = 1e12


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One scale as it was run.

    Args:
        name: As the study calls it, or `full`.
        run: What its folder holds.
        agreement: With the full scale; None for that one itself.
        macs: Multiply-adds that training all its trials takes, None if they are not known yet.
        seconds: What its complete trials took, each by itself.
        chosen: The arm with the best mean, None if none was measured.
        regret: By how much the chosen arm is worse at the full scale than the best one there.
    """

    name: str
    run: Run
    agreement: Agreement | None
    macs: float | None
    seconds: float
    chosen: str | None
    regret: float | None

    def share(self, full: "Scale") -> float | None:
        """Computation beside that of the full scale."""
        return self.macs / full.macs if self.macs and full.macs else None


def compare_scales(runs: Mapping[str, Run]) -> list[Scale]:
    """All scales beside the last, which the others are to predict."""
    *_, full = runs.values()
    return [_scale(name, run, full) for name, run in runs.items()]


def _scale(name: str, run: Run, full: Run) -> Scale:
    is_full = run is full
    chosen, best = orders.best(run), orders.best(full)
    there = orders.means(full)
    regret = abs(there[best] - there[chosen]) if best and chosen in there else None
    return Scale(
        name=name,
        run=run,
        agreement=None if is_full else agree(orders.scores(run), orders.scores(full)),
        macs=_macs(run),
        seconds=sum(r.seconds for r in run.results if r.state == "complete"),
        chosen=chosen,
        regret=regret,
    )


def cheapest(scales: Sequence[Scale]) -> Scale | None:
    """The scale that keeps the order with the least computation, if less than the full one's."""
    full = scales[-1]
    able = [
        scale
        for scale in scales[:-1]
        if scale.agreement and scale.agreement.keeps_order and (scale.share(full) or 1) < 1
    ]
    return min(able, key=lambda scale: scale.macs or math.inf, default=None)


def _macs(run: Run) -> float | None:
    """Steps x images x multiply-adds x 3, over all arms and the seeds that each has."""
    found = {arm.name: next(iter(arm.values("profile.macs").values()), None) for arm in run.arms}
    seeds = run.seeds_wanted()
    each = [macs * seeds[name] for name, macs in found.items() if macs is not None]
    steps = run.environment.get("steps")
    if steps is None or len(each) < len(found):
        return None
    return TRAINING * sum(each) * steps * run.study.train.batch_size


# --- tables ----------------------------------------------------------------------------------


def scales_data(scales: Sequence[Scale]) -> pd.DataFrame:
    """One row per scale, in base units; what was not measured is empty."""
    chosen = cheapest(scales)
    rows = [_row(scale, scales[-1]) | {"cheapest": scale is chosen} for scale in scales]
    whole = ("steps", "seeds_compared", "arms", "pairs", "decided", "kept", "reversed")
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _row(scale: Scale, full: Scale) -> dict[str, Any]:
    run, found = scale.run, scale.agreement
    height, width = run.study.input_size
    row = {
        "scale": scale.name,
        "study": run.study.name,
        "steps": run.environment.get("steps"),
        "batch_size": run.study.train.batch_size,
        "height": height,
        "width": width,
        "seeds": run.study.seeds,
        "trials": sum(result.state == "complete" for result in run.results),
        "training_macs": scale.macs,
        "share": scale.share(full),
        "seconds": scale.seconds,
        "arms": found.arms if found else None,
        "seeds_compared": found.seeds[0] if found else None,
    }
    for name in ("spearman", "kendall"):
        value: Correlation | None = getattr(found, name) if found else None
        row |= {
            name: value.value if value else None,
            f"{name}.low": value.low if value else None,
            f"{name}.high": value.high if value else None,
        }
    for name in ("pairs", "decided", "kept", "reversed"):
        row[name] = getattr(found, name) if found else None
    row |= {"chosen": scale.chosen, "regret": scale.regret}
    return row | {"keeps_order": found.keeps_order if found else None}


def scales_table(scales: Sequence[Scale]) -> TextTable:
    """What each scale trains, and what that takes."""
    columns = [
        Column("Scale"),
        Column("Steps", "number"),
        Column("Batch", "number", "images"),
        Column("Input", "number", "height, width"),
        Column("Seeds", "number"),
        Column("Trials", "number", "complete"),
        Column("Training", "number", "1e12 multiply-adds"),
        Column("of full", "number"),
        Column("Hours", "number", "of all trials"),
    ]
    rows = [_scales_cells(row) for row in scales_data(scales).to_dict("records")]
    return TextTable(columns, rows)


def _scales_cells(row: Mapping[Any, Any]) -> list[str]:
    share = NONE if pd.isna(row["share"]) else f"{100 * row['share']:.3g} %"
    macs = NONE if pd.isna(row["training_macs"]) else f"{row['training_macs'] / TERA:.3g}"
    steps = NONE if pd.isna(row["steps"]) else str(row["steps"])
    size = f"{row['height']} {TIMES} {row['width']}"
    cells = [row["scale"], steps, str(row["batch_size"]), size, str(row["seeds"])]
    return [*cells, str(row["trials"]), macs, share, f"{row['seconds'] / 3600:.2g}"]


def agreement_table(scales: Sequence[Scale]) -> TextTable:
    """How well each smaller scale predicts the full one."""
    full = scales[-1]
    shown = metric(full.run.study.accuracy)
    columns = [
        Column("Scale"),
        Column("Spearman's rho", "number", "95 % interval"),
        Column("Kendall's tau", "number", "95 % interval"),
        Column("Kept", "number", "pairs"),
        Column("Reversed", "number", "pairs"),
        Column("Undecided", "number", "pairs"),
        Column("Its best arm", "arm"),
        Column("Loss by it", "number", f"{shown.title} at {full.name}"),
        Column("Keeps the order", "verdict"),
    ]
    rows = []
    for scale in scales[:-1]:
        found = scale.agreement
        assert found is not None
        pairs = [found.kept, found.reversed, found.pairs - found.kept - found.reversed]
        row = [scale.name, *map(orders.correlation, (found.spearman, found.kendall))]
        row += [*map(str, pairs), scale.chosen or NONE, shown.show(scale.regret)]
        rows.append([*row, "yes" if found.keeps_order else "no" if found.decided else "open"])
    return TextTable(columns, rows)


def arms_table(scales: Sequence[Scale]) -> TextTable:
    """Each arm at each scale: mean, deviation, and its place."""
    runs = _runs(scales)
    names = [arm.name for arm in scales[-1].run.arms]
    columns = [Column("Arm", "arm"), *orders.mean_columns(runs)]
    return TextTable(columns, orders.mean_rows(runs, names))


# --- figures ---------------------------------------------------------------------------------


def means_figure(scales: Sequence[Scale]) -> go.Figure | None:
    """Each arm's mean and its 95 % t interval at every scale; None if nothing was measured."""
    return orders.means_figure(_runs(scales), _drawn(scales), "Scale")


def places_figure(scales: Sequence[Scale]) -> go.Figure | None:
    """Each arm's place at every scale, the best on top; None if nothing was measured."""
    return orders.places_figure(_runs(scales), _drawn(scales), "Scale")


def _runs(scales: Sequence[Scale]) -> dict[str, Run]:
    return {scale.name: scale.run for scale in scales}


def _drawn(scales: Sequence[Scale]) -> dict[str, figures.Style]:
    """The arms that are drawn, as in the report of the full scale."""
    full = scales[-1].run
    style = figures.styles(full)
    return {arm.name: style[arm.name] for arm in figures.named_arms(full)}


# --- words -----------------------------------------------------------------------------------


def summary(scales: Sequence[Scale]) -> str:
    """What was trained, what the full scale decides, how well each predicts it, and the answer."""
    full = scales[-1]
    arms = count(len(full.run.arms), "arm")
    smaller = count(len(scales) - 1, "smaller scale")
    what = f"{arms}, trained as the study has it (scale {full.name}) and at {smaller}."
    return " ".join([what, _decides(scales), *map(_predicts, scales[:-1]), _answer(scales)])


def progress(scales: Sequence[Scale]) -> str:
    """As in "12 of 18 trials complete, 1 failed", over all scales."""
    results = [result for scale in scales for result in scale.run.results]
    complete = sum(result.state == "complete" for result in results)
    failed = sum(result.state == "failed" for result in results)
    planned = sum(scale.run.planned for scale in scales)
    return f"{complete} of {planned} trials complete" + (f", {failed} failed" if failed else "")


def _decided(scales: Sequence[Scale]) -> tuple[int, int]:
    """Pairs of arms that the full scale tells apart, and all."""
    found = scales[0].agreement
    assert found is not None
    return found.decided, found.pairs


def _decides(scales: Sequence[Scale]) -> str:
    decided, pairs = _decided(scales)
    return f"At {scales[-1].name} the seeds tell {decided or 'none'} of {_pairs(pairs)} apart."


def _pairs(number: int) -> str:
    return f"{count(number, 'pair')} of arms"


def _predicts(scale: Scale) -> str:
    found = scale.agreement
    assert found is not None
    rho = found.spearman
    if rho.value is None:
        return f"{scale.name}: no rank correlation (too few arms are measured, or all are equal)."
    text = f"{scale.name}: Spearman's rho {' '.join(orders.correlation(rho).split())}"
    if not found.decided:
        return f"{text}."
    return f"{text}; of these pairs it keeps {found.kept} and reverses {found.reversed}."


def _answer(scales: Sequence[Scale]) -> str:
    full, found = scales[-1], cheapest(scales)
    if not _decided(scales)[0]:
        return (
            f"So there is no order to keep: whether a smaller scale predicts {full.name} cannot be "
            "concluded from these seeds."
        )
    if found is None:
        return f"No smaller scale keeps the order of {full.name}."
    share = 100 * (found.share(full) or 1)
    return (
        f"The cheapest scale that keeps the order is {found.name}, "
        f"with {share:.2g} % of the computation of {full.name}."
    )
