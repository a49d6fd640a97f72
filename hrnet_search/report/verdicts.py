"""All verdicts of a folder of reports in one place: `make verdicts`.

It reads what each report has left (`study.yaml`, `comparisons.csv`, `results.csv`), and writes the
tables into the folder's `README.md`, between two marks.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..errors import InputError
from ..files import write_atomic
from ..result import METRICS, Metric, metric
from ..stats import Interval
from ..study import Study, load_study
from .tables import NONE, Column, TextTable, interval, markdown, plain, probability, signed

BEGIN, END = "<!-- verdicts -->\n", "<!-- end of verdicts -->\n"
NEEDED = ("study.yaml", "comparisons.csv", "results.csv")


def verdicts(folders: Sequence[Path]) -> str:
    """Comparisons with the paper, then those beyond it, then the reports, as Markdown.

    Args:
        folders: Reports of grids.
    """
    paper: list[list[str]] = []
    beyond: list[list[str]] = []
    for folder in folders:
        study = load_study(folder / "study.yaml")
        for row in pd.read_csv(folder / "comparisons.csv").to_dict("records"):
            has_paper = pd.notna(row["paper"])
            (paper if has_paper else beyond).append(_cells(study, folder, row, has_paper))
    columns = [
        *(Column("Study"), Column("Arms"), Column("Difference", "number", "interval")),
        *(Column("p", "number", "of its table"), Column("Pairs", "number"), Column("Verdict")),
    ]
    against = TextTable([*columns, Column("Paper", "number")], paper)
    parts = ["### Against the paper\n", markdown(against) if paper else "None yet.\n"]
    parts += ["### Beyond it\n", markdown(TextTable(columns, beyond)) if beyond else "None yet.\n"]
    return "\n".join([*parts, *_reports(folders)])


def _cells(study: Study, folder: Path, row: dict, has_paper: bool) -> list[str]:  # type: ignore[type-arg]
    shown = metric(study.accuracy)
    family = f" ({row['family']})" if isinstance(row["family"], str) else ""
    limits = None if pd.isna(row["t.low"]) else (row["t.low"], row["t.high"])
    cells = [
        f"{folder.name}{family}",
        f"{row['arm']} to {row['minus']}",
        _difference(shown, row["difference"], limits),
        NONE if pd.isna(row["p.table"]) else probability(row["p.table"]),
        str(row["n"]),
        row["verdict"],
    ]
    return [*cells, signed(shown, row["paper"])] if has_paper else cells


def _difference(shown: Metric, value: float, limits: Interval | None) -> str:
    if math.isnan(value):
        return NONE
    text = f"{signed(shown, value)} {shown.label}"
    return text if limits is None else f"{text} {interval(shown, limits)}"


def _reports(folders: Sequence[Path]) -> list[str]:
    """What the studies took, as a table of their own."""
    rows = []
    for folder in folders:
        study, trials = load_study(folder / "study.yaml"), pd.read_csv(folder / "results.csv")
        shown = METRICS["profile.macs"]
        macs = trials.get(shown.key, pd.Series(dtype=float))
        cells = [f"[{folder.name}]({folder.name}/index.html)", plain(study.title), str(len(trials))]
        cells += [f"{shown.show(macs.min())} to {shown.show(macs.max())}"]
        rows.append([*cells, f"{trials['seconds'].sum() / 3600:.2g}"])
    columns = ["Report", "Title", "Trials", "GMACs", "Core hours"]
    lines = [columns, ["---", "---", "---:", "---:", "---:"], *rows]
    return ["### The reports\n", "".join(f"| {' | '.join(line)} |\n" for line in lines)]


def update(reports: Path) -> None:
    """Put the verdicts of all reports of a folder into its `README.md`.

    Raises:
        InputError: It has no marks for them.
    """
    file = reports / "README.md"
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"must hold the lines {BEGIN.strip()} and {END.strip()}", file=file)
    folders = [one for one in sorted(reports.iterdir()) if is_report(one)]
    write_atomic(file, f"{before}{BEGIN}{verdicts(folders)}{END}{after}")


def is_report(folder: Path) -> bool:
    """Whether it has what a grid's report leaves."""
    return all((folder / name).exists() for name in NEEDED)


if __name__ == "__main__":
    update(Path(sys.argv[1]))
