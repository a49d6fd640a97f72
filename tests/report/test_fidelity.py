"""The page about a study's scales, of runs made up here; expected numbers are worked by hand."""

import csv
import json

import pytest
from test_report import PLOTLY, TABLE12, make_run, text_of

from hrnet_search.report import write_fidelity
from hrnet_search.report.fidelity import (
    cheapest,
    compare_scales,
    means_figure,
    places_figure,
    summary,
)
from hrnet_search.report.frame import read_run
from hrnet_search.report.orders import places

SCALES = {"short": {"train": {"steps": 4}}, "medium": {"train": {"steps": 8}}}
# Places by mean, the best first: +within, +across, final at medium and full; at short the first
# two are exchanged.
FULL = {"final": [0.30, 0.31, 0.32], "+across": [0.40, 0.42, 0.41], "+within": [0.51, 0.50, 0.52]}
MEDIUM = {"final": [0.20, 0.21, 0.22], "+across": [0.25, 0.26, 0.27], "+within": [0.30, 0.31, 0.32]}
SHORT = {"final": [0.10, 0.11, 0.12], "+across": [0.16, 0.17, 0.18], "+within": [0.13, 0.14, 0.15]}


@pytest.fixture(autouse=True)
def small_pages(request, monkeypatch):
    if request.node.get_closest_marker("browser") is None:
        monkeypatch.setattr("hrnet_search.report.page.get_plotlyjs", lambda: PLOTLY)


def make_scales(folder, *, short=SHORT, medium=MEDIUM, full=FULL):
    """Folders of runs by scale, as `hrnet-search fidelity` leaves them."""
    values = {"short": (short, 4), "medium": (medium, 8), "full": (full, 20)}
    runs = {}
    for name, (measured, steps) in values.items():
        own = "made_up" if name == "full" else f"made_up-{name}"
        train = {"steps": steps, "batch_size": 4, "lr": 0.001, "evaluations": 2}
        more = {"scales": SCALES} if name == "full" else {}
        runs[name] = make_run(folder / own, TABLE12, measured, name=own, train=train, **more)
        record = json.loads((runs[name] / "environment.json").read_text())
        (runs[name] / "environment.json").write_text(json.dumps(record | {"steps": steps}))
    return runs


def compared(folder, **values):
    runs = make_scales(folder, **values)
    return compare_scales({name: read_run(run) for name, run in runs.items()})


def test_each_scale_beside_the_full_one(tmp_path):
    short, medium, full = scales = compared(tmp_path)
    assert full.agreement is None
    assert short.agreement.spearman.value == pytest.approx(0.5)
    assert (short.agreement.kept, short.agreement.reversed) == (2, 1)
    assert medium.agreement.keeps_order
    # 3 passes x (20 + 21 + 22)e6 multiply-adds x 4 images x 3 seeds, times the steps.
    each = 3 * 63e6 * 4 * 3
    assert [scale.macs for scale in scales] == [each * 4, each * 8, each * 20]
    assert cheapest(scales) is medium
    assert (short.chosen, medium.chosen) == ("+across", "+within")
    assert short.regret == pytest.approx(0.51 - 0.41)
    assert medium.regret == 0
    assert places(short.run) == {"final": 3, "+across": 1, "+within": 2}
    assert summary(scales) == (
        "3 arms, trained as the study has it (scale full) and at 2 smaller scales. "
        "At full the seeds tell 3 of 3 pairs of arms apart. "
        "short: Spearman's rho 0.50 [0.50, 0.50]; of these pairs it keeps 2 and reverses 1. "
        "medium: Spearman's rho 1.00 [1.00, 1.00]; of these pairs it keeps 3 and reverses 0. "
        "The cheapest scale that keeps the order is medium, with 40 % of the computation of full."
    )


def test_computation_counts_the_seeds_that_undecided_arms_have_got(tmp_path):
    """Six seeds for an arm that is undecided and for the reference, three for the other one."""
    values = {"final": [0.1, 0.11, 0.1], "+across": [0.5, 0.3] * 3, "+within": [0.4] * 6}
    run = make_run(tmp_path, TABLE12, values, adaptive={"most": 6, "step": 3})
    (tmp_path / "environment.json").write_text(json.dumps({"steps": 20}))
    (scale,) = compare_scales({"full": read_run(run)})
    # 3 passes x multiply-adds of each arm times its seeds, x 4 images x 20 steps.
    assert scale.macs == 3 * (3 * 20e6 + 6 * 21e6 + 6 * 22e6) * 4 * 20


def test_no_scale_may_keep_the_order(tmp_path):
    scales = compared(tmp_path, medium=SHORT)
    assert cheapest(scales) is None
    assert summary(scales).endswith("No smaller scale keeps the order of full.")


def test_where_the_full_scale_decides_nothing_nothing_is_concluded(tmp_path):
    noisy = {"final": [0.3, 0.5, 0.4], "+across": [0.5, 0.3, 0.41], "+within": [0.4, 0.4, 0.2]}
    scales = compared(tmp_path, full=noisy)
    assert cheapest(scales) is None
    text = summary(scales)
    assert "tell none of 3 pairs" in text
    assert "cannot be concluded from these seeds." in text


def test_a_scale_that_costs_more_is_not_the_cheapest(tmp_path):
    runs = make_scales(tmp_path)
    for name in ("short", "medium"):
        record = {"steps": 30}
        (runs[name] / "environment.json").write_text(json.dumps(record))
    assert cheapest(compare_scales({name: read_run(run) for name, run in runs.items()})) is None


def test_figures_join_each_arm_over_the_scales(tmp_path):
    scales = compared(tmp_path)
    figure = means_figure(scales)
    assert [trace.name for trace in figure.data] == list(TABLE12)
    assert list(figure.layout.xaxis.ticktext) == ["short", "medium", "full"]
    final = figure.data[0]
    assert list(final.y) == pytest.approx([11, 21, 31])  # AP times 100
    # Standard deviation 1, so t(0.975, 2) / sqrt(3) = 4.3027 / 1.7321.
    assert list(final.error_y.array) == pytest.approx([2.4841] * 3, abs=1e-4)
    assert list(final.error_y.arrayminus) == pytest.approx([2.4841] * 3, abs=1e-4)
    assert [list(t.y) for t in places_figure(scales).data] == [[3, 3, 3], [1, 2, 2], [2, 1, 1]]


def test_the_page_and_its_tables(tmp_path):
    runs = make_scales(tmp_path / "runs")
    out = tmp_path / "reports" / "made_up"
    (tmp_path / "reports" / "made_up-short").mkdir(parents=True)
    (tmp_path / "reports" / "made_up-short" / "index.html").write_text("")
    record = {"command": "hrnet-search run studies/made_up.yaml --set seeds=3"}
    (runs["full"] / "environment.json").write_text(json.dumps(record | {"steps": 20}))
    page = write_fidelity(runs, out)
    assert page == out / "fidelity.html"
    assert {file.name for file in out.iterdir()} == {
        "fidelity.html", "fidelity.md", "fidelity.csv",
    }  # fmt: skip
    html = page.read_text()
    shown = text_of(html)
    assert "hrnet-search fidelity studies/made_up.yaml --set seeds=3" in shown
    assert "The cheapest scale that keeps the order is medium" in shown
    assert "27 of 27 trials complete" in shown
    assert '<a href="../made_up-short/index.html">short</a>' in html
    assert "made_up-medium/index.html" not in html  # there is none
    rows = list(csv.DictReader((out / "fidelity.csv").open()))
    assert [row["scale"] for row in rows] == ["short", "medium", "full"]
    assert [row["cheapest"] for row in rows] == ["False", "True", "False"]
    assert [row["kept"] for row in rows] == ["2", "3", ""]
    assert "| short | 0.50 [0.50, 0.50] |" in (out / "fidelity.md").read_text().replace("\\", "")


def test_a_page_of_failed_and_missing_trials(tmp_path):
    """An arm that failed at a scale, and a scale without any trial."""
    failed = {**SHORT, "+within": [None, None, None]}
    runs = make_scales(tmp_path / "runs", short=failed, medium={})
    page = write_fidelity(runs, tmp_path / "out")
    shown = text_of(page.read_text())
    assert "15 of 27 trials complete, 3 failed" in shown
    assert "medium: no rank correlation" in shown
    assert "No smaller scale keeps the order" in shown


def test_a_page_of_nothing(tmp_path):
    runs = make_scales(tmp_path / "runs", short={}, medium={}, full={})
    (runs["full"] / "environment.json").write_text(json.dumps({"steps": 20}))
    shown = text_of(write_fidelity(runs, tmp_path / "out").read_text())
    assert "cannot be concluded" in shown
    assert "The run did not record its command." in shown
