"""The report's tables: `..._data` computes in the units of the records, `..._table` words it.

Every table on the page is a `TextTable`; the page and Markdown only lay it out.
"""

import functools
import html
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from ..arch import ArchSpec
from ..comparisons import compared, families, level
from ..result import METRICS, Metric, metric
from ..stats import MAX_PAIRS, POWER, Comparison, Interval, mean_and_deviation, turned
from .frame import Arm, Run, paper_table

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


@dataclass(frozen=True)
class Compared:
    """Comparisons that were judged together.

    Args:
        title: What their arms have in common, empty where a study has one such table.
        pairs: The arms, the first minus the second, and what became of it.
    """

    title: str
    pairs: list[tuple[Arm, Arm, Comparison]]


@functools.lru_cache(maxsize=1)
def comparisons(run: Run) -> list[Compared]:
    """Each family of comparisons of the study's main metric."""
    arms = {arm.name: arm for arm in run.arms}
    values = run.looked_at()
    paper = {arm.name: arm.paper for arm in run.arms if arm.paper is not None}
    return [
        Compared(
            family.title,
            [
                (arms[one], arms[other], found)
                for (one, other), found in zip(
                    family.pairs, compared(run.study, family, values, paper), strict=True
                )
            ],
        )
        for family in families(run.study)
    ]


def comparison(run: Run, arm: Arm, other: Arm) -> Comparison | None:
    """That of these two arms, either way round; None if they were not compared."""
    for family in comparisons(run):
        for one, two, found in family.pairs:
            if (one, two) == (arm, other):
                return found
            if (two, one) == (arm, other):
                return turned(found)
    return None


def confidence(run: Run) -> str:
    """Of the intervals, as in "95 %"."""
    return f"{100 * (1 - level(run.study)):.4g} %"


def pairs_table(run: Run, family: Compared) -> TextTable:
    """The comparisons in words."""
    shown = metric(run.study.accuracy)
    paper = paper_table(run.study) is not None
    columns = [
        Column("Arm", "arm"),
        Column("minus", "arm"),
        Column("Difference", "number", shown.title),
        Column(f"{confidence(run)} interval", "number", "t; bootstrap"),
        Column("p", "number", "of the table; t test alone; signs flipped"),
        Column("Pairs", "number", "seeds"),
        Column("Verdict", "verdict"),
        Column("Detectable", "number", f"{POWER:.0%} of the time"),
    ]
    if paper:
        columns += [
            Column("Paper", "number", "difference"),
            Column("Seeds for that", "number", f"{POWER:.0%} of the time"),
        ]
    rows = [_pair_cells(shown, *pair, paper=paper) for pair in family.pairs]
    return TextTable(columns, rows)


def _pair_cells(shown: Metric, arm: Arm, other: Arm, one: Comparison, *, paper: bool) -> list[str]:
    row = [arm.name, other.name, signed(shown, one.difference)]
    row.append(f"{interval(shown, one.interval)}\n{interval(shown, one.bootstrap)}")
    row.append(f"{probability(one.p_table)}\n{probability(one.p)}; {probability(one.p_flipped)}")
    row += [str(one.n), one.verdict, NONE if one.detectable is None else shown.show(one.detectable)]
    if not paper:
        return row
    needed = f"over {MAX_PAIRS}" if one.detectable is not None and one.paper else NONE
    return [*row, signed(shown, one.paper), str(one.needed or needed)]


def comparisons_data(run: Run) -> pd.DataFrame:
    """One row per comparison, in the units of the records."""
    columns = ["family", "arm", "minus", "n", "difference", "confidence", "t.low", "t.high"]
    columns += ["bootstrap.low", "bootstrap.high", "p", "p.flipped", "p.table", "verdict"]
    columns += ["detectable", "paper", "needed"]
    rows = []
    for family in comparisons(run):
        for arm, other, one in family.pairs:
            row: dict[str, Any] = {"family": family.title, "arm": arm.name, "minus": other.name}
            row |= {"n": one.n, "difference": one.difference, "confidence": 1 - level(run.study)}
            for name, limits in (("t", one.interval), ("bootstrap", one.bootstrap)):
                low, high = limits or (None, None)
                row |= {f"{name}.low": low, f"{name}.high": high}
            row |= {"p": one.p, "p.flipped": one.p_flipped, "p.table": one.p_table}
            row |= {"verdict": one.verdict, "detectable": one.detectable}
            rows.append(row | {"paper": one.paper, "needed": one.needed})
    return pd.DataFrame(rows, columns=columns).astype({"needed": "Int64"})


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
    other = run.set_beside(arm)
    if run.study.variants:
        row["minus"] = None if other is arm else other.name
    if other is arm:
        row |= {"difference": None, "low": None, "high": None, "p": None, "pairs": None}
        row |= {"verdict": "reference", "paper": arm.paper, "paper_difference": None}
    elif (result := comparison(run, arm, other)) is not None:
        low, high = result.interval or (None, None)
        row |= {"difference": result.difference, "low": low, "high": high}
        row |= {"p": result.p_table, "pairs": result.n, "verdict": result.verdict}
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
        Column(to_reference(run), "number", f"{confidence(run)} interval"),
        Column("Verdict", "verdict"),
    ]
    if paper_trained(run):
        columns.append(Column(f"Paper: {shown.label}", "number", to_reference(run)))
    records = ablation_data(run).to_dict("records")
    return TextTable(columns, [_ablation_cells(run, record) for record in records])


def to_reference(run: Run) -> str:
    """What differences of the ablation table are to: one arm, or the one that belongs to each."""
    others = {run.set_beside(arm).name for arm in run.arms}
    return "to its reference" if len(others) > 1 else f"to {run.reference.name}"


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
    limits = "" if pd.isna(row["low"]) else f"\n{interval(shown, (row['low'], row['high']))}"
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
    rows = [[name, value] for name, value in dotted(settings) if name != "command"]
    return TextTable([Column("Setting"), Column("Value")], rows)


def dotted(settings: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings as dotted name and value as text."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{name}.")
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


def interval(shown: Metric, limits: Interval | None) -> str:
    """As in "[+0.3, +1.9]"."""
    return NONE if limits is None else f"[{', '.join(signed(shown, end) for end in limits)}]"


def probability(p: float | None) -> str:
    """A p value with two digits, as in "0.031" and "<0.001"."""
    if p is None:
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


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


LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # this and "*" at the begin of a row would belong to the end of the one before
    "]": "{]}",
    "*": "{*}",
    MINUS: "$-$",
    TIMES: r"$\times$",
    "±": r"$\pm$",
    "\N{CHECK MARK}": r"\checkmark{}",
    "\N{EN DASH}": r"\textendash{}",
}
LATEX_NEEDS = "% \\usepackage[T1]{fontenc}, \\usepackage{booktabs}, \\usepackage{amssymb}\n"


def latex(table: TextTable, caption: str) -> str:
    """The table in LaTeX with booktabs' rules; names cannot break out of their cells."""
    heads = [tex(column.title) for column in table.columns]
    notes = [tex(column.note) for column in table.columns]
    lines = [heads, notes] if any(notes) else [heads]
    columns = "".join("r" if column.kind == "number" else "l" for column in table.columns)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{tex(caption)}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{_tex_rows(lines)}"
        f"\\midrule\n{_tex_rows([[tex(cell) for cell in row] for row in table.rows])}"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )


def _tex_rows(rows: list[list[str]]) -> str:
    return "".join(f"{' & '.join(row)} \\\\\n" for row in rows)


def tex(text: str) -> str:
    """Text that LaTeX sets as it is, on one line and without control characters."""
    flat = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    escaped = "".join(LATEX.get(letter, letter) for letter in flat)
    return re.sub("-(?=-)", "-{}", escaped)  # two are no dash, three no longer one


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
    if value is None or (isinstance(value, float) and math.isnan(value)):  # of a table, NaN is none
        return NONE
    if isinstance(value, bool):
        return "\N{CHECK MARK}" if value else "\N{EN DASH}"
    return str(value)
