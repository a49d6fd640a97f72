"""All verdicts of a folder of reports, and those of the reports that are shipped."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from test_report import AP, PAPER, make_run

from hrnet_search.errors import InputError
from hrnet_search.report import write_report
from hrnet_search.report.figures import differences_figure
from hrnet_search.report.frame import read_run
from hrnet_search.report.tables import MINUS
from hrnet_search.report.verdicts import BEGIN, END, update, verdicts
from hrnet_search.study import load_study

SHIPPED = Path(__file__).parents[2] / "reports"


def listed(*arguments: str) -> list[str]:
    """What git says of files; nothing where there is no git."""
    done = subprocess.run(
        ["git", "ls-files", *arguments], cwd=SHIPPED.parent,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return sorted(done.stdout.splitlines())


def shipped() -> list[Path]:
    """The reports of the repository, none that was made here; none at all if one was made anew."""
    if listed("--modified", "reports/*/*"):
        return []
    return [(SHIPPED.parent / line).parent for line in listed("reports/*/study.yaml")]


REPORTS = shipped()
CLEAR = {"final": [0.31, 0.32, 0.30], "+across": [0.36, 0.37, 0.36], "+within": [0.51, 0.53, 0.51]}


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of a table under a heading, without its two first lines."""
    part = text.partition(f"### {heading}\n")[2].partition("###")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_comparisons_with_the_paper_and_beyond_it(tmp_path: Path) -> None:
    for name, more in (("one", PAPER), ("two", {})):
        run = make_run(tmp_path / name, name=name, values=CLEAR, **more)
        write_report(run, tmp_path / "reports" / name, shared=True)
    text = verdicts([tmp_path / "reports" / name for name in ("one", "two")])
    against, beyond = rows(text, "Against the paper"), rows(text, "Beyond it")
    assert [row[:2] for row in against] == [
        ["one", "final to +across"],
        ["one", "final to +within"],
        ["one", "+across to +within"],
    ]
    assert [row[0] for row in beyond] == ["two"] * 3
    # Differences .05 .05 .06: mean .0533, deviation .00577, t(.975, 2) = 4.303 and n = 3.
    assert against[0][2].replace("\\", "").replace(MINUS, "-") == "-5.3 AP [-6.8, -3.9]"
    assert against[0][4:] == ["3", "reproduced", f"{MINUS}1.1"]
    assert beyond[0][4:] == ["3", "shown"]
    reports = rows(text, "The reports")
    assert [row[2] for row in reports] == ["9", "9"]
    assert reports[0][4] == f"{9 * 12.34 / 3600:.2g}"


def test_the_readme_keeps_what_stands_around_them(tmp_path: Path) -> None:
    write_report(make_run(tmp_path / "run", **PAPER), tmp_path / "reports" / "made_up")
    readme = tmp_path / "reports" / "README.md"
    readme.write_text(f"before\n{BEGIN}old\n{END}after\n")
    update(tmp_path / "reports")
    update(tmp_path / "reports")
    text = readme.read_text()
    assert text == f"before\n{BEGIN}{verdicts([tmp_path / 'reports' / 'made_up'])}{END}after\n"
    readme.write_text("no marks")
    with pytest.raises(InputError, match="must hold the lines"):
        update(tmp_path / "reports")
    assert readme.read_text() == "no marks"


def test_differences_are_drawn_with_intervals_and_the_papers(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path, values=CLEAR, **PAPER))
    figure = json.loads(differences_figure(run).to_json())
    ours, paper = figure["data"]
    assert (ours["name"], paper["name"]) == ("reproduced", "the paper")
    assert ours["y"] == paper["y"] == [3, 2, 1]
    assert ours["x"] == pytest.approx([-16 / 3, -62 / 3, -46 / 3])
    assert paper["x"] == pytest.approx([-1.1, -2.6, -1.5])
    half = 4.302652729911275 * 0.5773502691896258 / 3**0.5
    for side in ("array", "arrayminus"):
        assert ours["error_x"][side][0] == pytest.approx(half)


def test_without_intervals_nothing_is_drawn(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path, values={arm: values[:1] for arm, values in AP.items()}))
    assert differences_figure(run) is None


# --- the shipped reports -------------------------------------------------------------------------


@pytest.mark.skipif(not REPORTS, reason="no git, or a report was made anew here")
def test_the_readme_has_the_verdicts_of_the_shipped_reports() -> None:
    text = (SHIPPED / "README.md").read_text()
    grids = [one for one in REPORTS if load_study(one / "study.yaml").search.is_grid]
    assert text.partition(BEGIN)[2].partition(END)[0] == verdicts(grids)


@pytest.mark.parametrize("folder", REPORTS, ids=lambda folder: folder.name)
def test_a_shipped_report_is_whole_and_can_be_replayed(folder: Path) -> None:
    study = load_study(folder / "study.yaml")
    trials = pd.read_csv(folder / "results.csv")
    assert study.name == folder.name
    trained = set(zip(trials["arm"], trials["key"], strict=True))
    files = ["index.html", "table.md", "table.csv", "environment.json"]
    if study.search.is_grid:
        files.append("comparisons.csv")
        assert trained == {(study.arm(p), study.key(p)) for p in study.arms()}
    else:  # a search: nothing infeasible and no network under two names
        possible = [p for p in study.space.params() if study.is_feasible(p)]
        assert trained <= {(study.arm(p), study.key(p)) for p in possible}
        assert len(trained) == trials["key"].nunique()
    assert set(trials["state"]) <= {"complete", "failed"}
    counts = trials.groupby("arm")["seed"].nunique()
    assert study.seeds <= counts.min() <= counts.max() <= study.most_seeds
    for name in files:
        assert (folder / name).exists(), name
    page = (folder / "index.html").read_text()
    assert len(page) < 1_000_000
    assert "../plotly.min.js" in page
