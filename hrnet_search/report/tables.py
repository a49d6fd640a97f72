"""The report's tables: `..._data` computes in the units of the records, `..._table` words it.

Every table on the page is a `TextTable`; the page and Markdown only lay it out.
"""

import html
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from ..arch import ArchSpec
from ..result import METRICS, Metric, metric
from ..stats import Comparison, compare, mean_and_deviation
from .frame import Arm, Run, paper_table

ALL_PAIRS = 4  # arms; with more, each is compared with the reference alone
COSTS = ("profile.params", "profile.macs", "profile.paper_gflops")
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
NONE = "n/a"
STATES = {"complete": "complete", "pruned": "ended early", "failed": "failed"}


@dataclass(frozen=True)
class Column:
    """A heading, the small print under it, and how cells look: text, number, arm or verdict."""

    title: str
    kind: str = "text"
    note: str = ""


@dataclass(frozen=True)
class TextTable:
    """A table ready to be laid out.

    Args:
        columns: One for each cell of a row.
        rows: Their cells.
    """

    columns: list[Column]
    rows: list[list[str]]


def pairs_data(run: Run) -> list[tuple[Arm, Arm, Comparison]]:
    """All pairs of at most `ALL_PAIRS` arms, otherwise each arm with the reference."""
    others = [arm for arm in run.arms if arm is not run.reference]
    # The reference comes last, so that it is what others are compared with in every table.
    pairs: Iterable[tuple[Arm, Arm]] = itertools.combinations([*others, run.reference], 2)
    if len(run.arms) > ALL_PAIRS:
        pairs = [(arm, run.reference) for arm in others]
    return [(arm, other, compare_arms(run, arm, other)) for arm, other in pairs]


def compare_arms(run: Run, arm: Arm, other: Arm) -> Comparison:
    """The paired difference of the study's main metric, and the paper's if it has both."""
    paper = None if arm.paper is None or other.paper is None else arm.paper - other.paper
    key = run.study.accuracy
    return compare(arm.values(key), other.values(key), paper=paper)


def pairs_table(run: Run) -> TextTable:
    """The comparisons in words."""
    shown = metric(run.study.accuracy)
    paper = paper_table(run.study) is not None
    columns = [
        Column("Arm", "arm"),
        Column("minus", "arm"),
        Column("Difference", "number", shown.title),
        Column("95 % interval", "number"),
        Column("Pairs", "number", "seeds"),
        Column("Verdict", "verdict"),
    ]
    columns += [Column("Paper", "number", "difference")] if paper else []
    rows = []
    for arm, other, result in pairs_data(run):
        row = [arm.name, other.name, signed(shown, result.difference)]
        row += [interval(shown, result.low, result.high), str(result.n), result.verdict]
        rows.append(row + ([signed(shown, result.paper)] if paper else []))
    return TextTable(columns, rows)


def ablation_data(run: Run) -> pd.DataFrame:
    """One row per arm, in the units of the records; what was not measured is empty."""
    frame = pd.DataFrame([_ablation_row(run, arm) for arm in run.arms])
    # Whole numbers in CSV, although the reference has no pairs and a rival no fusion units.
    return frame.astype({"pairs": "Int64", "fusion_units": "Int64"})


def _ablation_row(run: Run, arm: Arm) -> dict[str, Any]:
    key = run.study.accuracy
    mean, deviation = spread(arm, key)
    row: dict[str, Any] = {"arm": arm.name}
    row |= {name: arm.arguments.get(name) for name in paper_arguments(run)}
    network = arm.network
    row["fusion_units"] = network.num_fusions if isinstance(network, ArchSpec) else None
    row |= {cost: spread(arm, cost)[0] for cost in _costs(run)}
    row |= {key: mean, f"{key}.deviation": deviation, "seeds": len(arm.values(key))}
    if arm is run.reference:
        row |= {"difference": None, "low": None, "high": None, "pairs": None}
        row |= {"verdict": "reference", "paper": arm.paper, "paper_difference": None}
    else:
        result = compare_arms(run, arm, run.reference)
        row |= {"difference": result.difference, "low": result.low, "high": result.high}
        row |= {"pairs": result.n, "verdict": result.verdict}
        row |= {"paper": arm.paper, "paper_difference": result.paper}
    return row | {"paper_trained": paper_trained(run)}


def ablation_table(run: Run) -> TextTable:
    """The table in the paper's layout, its figures beside ours."""
    shown = metric(run.study.accuracy)
    arguments = paper_arguments(run)
    columns = [Column("Arm", "arm"), *(Column(name, "tick") for name in arguments)]
    columns += [Column("Fusion units", "number")]
    columns += [Column(METRICS[c].label, "number", METRICS[c].unit) for c in _costs(run)]
    columns += [
        Column(shown.label, "number", "mean ± sd (seeds)"),
        Column(f"to {run.reference.name}", "number", "95 % interval"),
        Column("Verdict", "verdict"),
    ]
    if paper_trained(run):
        columns.append(Column(f"Paper: {shown.label}", "number", f"to {run.reference.name}"))
    records = ablation_data(run).to_dict("records")
    return TextTable(columns, [_ablation_cells(run, record) for record in records])


def _ablation_cells(run: Run, row: dict[Any, Any]) -> list[str]:
    key = run.study.accuracy
    shown = metric(key)
    cells = [row["arm"], *(tick(row[name]) for name in paper_arguments(run))]
    units = row["fusion_units"]
    cells += [
        NONE if pd.isna(units) else str(units),
        *(METRICS[c].show(row[c]) for c in _costs(run)),
    ]
    cells.append(with_deviation(shown, row[key], row[f"{key}.deviation"], row["seeds"]))
    reference = row["verdict"] == "reference"
    ours, theirs = signed(shown, row["difference"]), signed(shown, row["paper_difference"])
    limits = "" if pd.isna(row["low"]) else f"\n{interval(shown, row['low'], row['high'])}"
    cells += ["" if reference else ours + limits, row["verdict"]]
    paper = shown.show(row["paper"]) + ("" if reference else f"\n{theirs}")
    return [*cells, paper] if row["paper_trained"] else cells


def paper_arguments(run: Run) -> list[str]:
    """The arguments of `hrnet` that tell the rows of the paper's table apart."""
    table = paper_table(run.study)
    rows = table.rows if table else ()
    return list(dict.fromkeys(name for row in rows for name in row.arguments))


def paper_trained(run: Run) -> str:
    """What the paper trained for its figures, empty if none are set beside ours."""
    table = paper_table(run.study)
    return table.columns[run.study.paper.column][1] if table and run.study.paper else ""


def metrics_table(run: Run) -> TextTable:
    """Every other number that was measured: mean and deviation over seeds."""
    taken = {run.study.accuracy, *_costs(run)}
    measured = [m for k, m in METRICS.items() if any(arm.values(k) for arm in run.arms)]
    others = [m for m in measured if m.key not in taken]
    columns = [Column(m.label, "number", m.unit) for m in others]
    rows = [[arm.name, *(_cell_or_cost(arm, m) for m in others)] for arm in run.arms]
    return TextTable([Column("Arm", "arm"), *columns], rows if others else [])


def _cell_or_cost(arm: Arm, shown: Metric) -> str:
    """A cost is measured once per network, so it has no deviation over seeds."""
    if not shown.key.startswith("profile."):
        return _cell(arm, shown)
    return next((shown.show(value) for value in arm.values(shown.key).values()), NONE)


CLASS_NOTES = {"segmentation": "IoU", "detection": "box AP"}
CLASS_TITLES = {
    "segmentation": "Intersection over union of each class",
    "detection": "Box AP of each class",
}


def classes_table(run: Run) -> TextTable:
    """Each class's intersection over union, or box AP, mean over seeds."""
    arms = [(arm, [r.classes for r in arm.results if r.classes]) for arm in run.arms]
    measured = [(arm, found) for arm, found in arms if found]
    names = list(measured[0][1][0]) if measured else []
    note = CLASS_NOTES.get(run.study.task.kind, "")
    columns = [Column("Class"), *(Column(arm.name, "number", note) for arm, _ in measured)]
    shown = METRICS["metrics.miou"]  # times 100, as an AP is shown
    rows = [
        [name, *(shown.show(fmean(found[name] for found in each)) for _, each in measured)]
        for name in names
    ]
    return TextTable(columns, rows)


def trials_table(run: Run) -> TextTable:
    """One row per trial."""
    shown = metric(run.study.accuracy)
    columns = [Column("Trial", "number"), Column("Arm", "arm"), Column("Seed", "number")]
    columns += [Column(shown.label, "number", shown.unit), Column("Seconds", "number")]
    columns += [Column("State")]
    rows = []
    for result in run.results:
        value = shown.show(result.value(shown.key))
        row = [str(result.trial), result.arm, str(result.seed), value]
        rows.append([*row, f"{result.seconds:.1f}", STATES[result.state]])
    return TextTable(columns, rows)


def failures_table(run: Run) -> TextTable:
    """The failed trials with what stopped them."""
    columns = [Column("Trial", "number"), Column("Arm", "arm"), Column("Seed", "number")]
    columns += [Column("Error"), Column("Message")]
    rows = []
    for result in (r for r in run.results if r.state == "failed"):
        error = result.error or {}
        cause = [error.get("type", "unknown"), error.get("message", "")]
        rows.append([str(result.trial), result.arm, str(result.seed), *cause])
    return TextTable(columns, rows)


def settings_table(settings: dict[str, Any]) -> TextTable:
    """Nested settings as dotted name and value."""
    rows = [[name, value] for name, value in _dotted(settings) if name != "command"]
    return TextTable([Column("Setting"), Column("Value")], rows)


def _dotted(settings: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)


def with_deviation(shown: Metric, mean: float | None, deviation: float | None, n: int) -> str:
    """As in "73.4 ± 0.2 (3)"; one seed has no deviation."""
    if not n:
        return NONE
    if pd.isna(deviation):
        return f"{shown.show(mean)} ({n})"
    # A deviation is itself uncertain: two significant digits where the metric sets none.
    spread = shown.show(deviation) if shown.digits is not None else f"{deviation * shown.scale:.2g}"
    return f"{shown.show(mean)} ± {spread} ({n})"


def signed(shown: Metric, difference: float | None) -> str:
    """A difference in display units with its sign, also where it rounds to zero."""
    if difference is None or pd.isna(difference):
        return NONE
    text = shown.show(abs(difference))
    return f"{MINUS}{text}" if difference < 0 else f"+{text}"


def interval(shown: Metric, low: float | None, high: float | None) -> str:
    """As in "[+0.3, +1.9]"."""
    return NONE if low is None else f"[{signed(shown, low)}, {signed(shown, high)}]"


def markdown(table: TextTable) -> str:
    """The table in Markdown; names cannot break out of their cells."""
    titles = [f"{c.title} ({c.note})" if c.note else c.title for c in table.columns]
    rule = ["---:" if column.kind == "number" else "---" for column in table.columns]
    lines = [map(plain, titles), rule, *(map(plain, row) for row in table.rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    flat = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", flat)


def _costs(run: Run) -> list[str]:
    return list(dict.fromkeys([*COSTS, run.study.cost]))


def spread(arm: Arm, key: str) -> tuple[float | None, float | None]:
    """Mean over seeds and its deviation, None where not measured."""
    values = arm.values(key).values()
    return mean_and_deviation(values) if values else (None, None)


def _cell(arm: Arm, shown: Metric) -> str:
    return with_deviation(shown, *spread(arm, shown.key), len(arm.values(shown.key)))


def tick(value: Any) -> str:
    """A tick or a dash for true or false, any other value as it is, a dash for none."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "\N{CHECK MARK}" if value else "\N{EN DASH}"
    return str(value)
