"""Reports of runs made up here; expected numbers are worked out apart from the package."""

import csv
import json
import re
import statistics
from html.parser import HTMLParser

import pandas as pd
import pytest
import yaml
from plotly.offline import get_plotlyjs
from scipy import stats
from statsmodels.stats.multitest import multipletests

from hrnet_search.files import read_json_lines
from hrnet_search.report import write_report
from hrnet_search.report.figures import named_arms, styles
from hrnet_search.report.frame import read_run
from hrnet_search.report.pareto import pareto_data
from hrnet_search.report.summary import summary
from hrnet_search.report.tables import classes_table, tex
from hrnet_search.result import Result
from hrnet_search.study import load_study

TABLE12 = {
    "final": {"final": True, "across": False, "within": False},
    "+across": {"final": True, "across": True, "within": False},
    "+within": {"final": True, "across": True, "within": True},
}
AP = {"final": [0.31, 0.33, 0.30], "+across": [0.33, 0.34, 0.325], "+within": [0.37, 0.36, 0.365]}
HOSTILE = {
    "<script>alert(1)</script>": {"within": True},
    'a|b\nc,"d" <b>x</b> %{y} </script>': {"within": False},
    "=1+1 `*_[x](javascript:alert(1))": {"across": False},
}


PLOTLY = "/* 4.8 MB of plotly.js */"


@pytest.fixture(autouse=True)
def small_pages(request, monkeypatch):
    """Pages without Plotly's code, which takes most of the time; a browser gets the real one."""
    if request.node.get_closest_marker("browser") is None:
        monkeypatch.setattr("hrnet_search.report.page.get_plotlyjs", lambda: PLOTLY)


def make_run(folder, arms=TABLE12, values=AP, *, history=True, environment=True, **study):
    """A run folder; `values` holds for each arm its AP by seed, None for a failed trial."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "name": "made_up",
        "task": {"kind": "pose", "loss": "cross_entropy"},
        "data": {"kind": "synthetic_pose", "num_train": 64, "num_val": 8, "input_size": [64, 32]},
        "space": {
            "base": {"width": 8, "num_modules": [1, 2, 2], "num_blocks": 2, "stage1_blocks": 1},
            "vary": {"fusion": {"arms": arms}},
        },
        "train": {"steps": 20, "batch_size": 4, "lr": 0.001},
        "seeds": 3,
        **study,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    plan = load_study(folder / "study.yaml")
    lines = []
    for place, params in enumerate(plan.arms()):
        for seed, value in enumerate(values.get(plan.arm(params), [])):
            record = make_result(plan, params, place, seed, value, trial=len(lines))
            if not history:
                record["history"] = []
            lines.append(json.dumps(record) + "\n")
    (folder / "results.jsonl").write_text("".join(lines))
    if environment:
        record = {
            "command": "hrnet-search run studies/made_up.yaml --set seeds=3",
            "versions": {"torch": "9.8.7"},
            "device": "cpu",
            "precision": "float32",
            "threads_per_trial": 1,
            "data": {"checksum": "0123abcd"},
            "git": None,
        }
        (folder / "environment.json").write_text(json.dumps(record))
    return folder


def make_result(study, params, place, seed, value, *, trial):
    arch = study.network(params)
    failed = value is None
    history = [
        {"step": step, "loss": 1 / step, "ap": (value or 0) * step / 20} for step in (10, 20)
    ]
    return Result(
        study=study.name,
        trial=trial,
        state="failed" if failed else "complete",
        arm=study.arm(params),
        params=params,
        seed=seed,
        key=study.key(params),
        arch=arch.to_dict(),
        profile={"params": 1e5 + place, "macs": 2e7 + 1e6 * place, "latency": 0.004},
        metrics={} if failed else {"ap": value, "ap50": min(1.0, value * 2)},
        history=[{"step": 5, "loss": 3.0}, *history],
        seconds=12.34,
        attempt=1,
        started="2026-01-02T03:04:05+00:00",
        error={"type": "Diverged", "message": "the <b>loss</b> is nan"} if failed else None,
    ).to_dict()


def report(tmp_path, **run):
    return write_report(make_run(tmp_path / "run", **run), tmp_path / "out").read_text()


PAPER = {"paper": {"table": "table12", "column": "pose_ap"}}


class Page(HTMLParser):
    """The tags of a page, the addresses they name, and the text outside scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.parts, self.hidden = [], [], [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = [value for name, value in attrs if name in ("src", "href")]
        # What drawings are made of stands in the page itself.
        self.addresses += [value for value in found if not value.startswith("#net-")]
        self.hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style")

    def handle_data(self, data):
        self.parts += [] if self.hidden else [data]


def text_of(page):
    """What a reader sees, in single spaces."""
    return " ".join("".join(Page(page).parts).split())


def test_table_csv_holds_the_numbers(tmp_path):
    report(tmp_path, **PAPER)
    table = pd.read_csv(tmp_path / "out" / "table.csv").set_index("arm")
    assert list(table.index) == ["final", "+across", "+within"]
    assert list(table["fusion_units"]) == [1, 3, 5]
    for arm, row in table.iterrows():
        assert row["metrics.ap"] == pytest.approx(statistics.mean(AP[arm]))
        assert row["metrics.ap.deviation"] == pytest.approx(statistics.stdev(AP[arm]))
        assert row["seeds"] == 3
    order = [("final", "+across"), ("final", "+within"), ("+across", "+within")]
    corrected = multipletests(
        [stats.ttest_rel(AP[a], AP[b]).pvalue for a, b in order], method="holm"
    )
    p = dict(zip(order, corrected[1], strict=True))
    for arm, paper in (("final", 0.708), ("+across", 0.719)):
        limits = stats.ttest_rel(AP[arm], AP["+within"]).confidence_interval(0.95)
        row = table.loc[arm]
        assert (row["low"], row["high"]) == pytest.approx((limits.low, limits.high))
        assert row["paper"] == paper
        assert row["paper_difference"] == pytest.approx(paper - 0.734)
        assert limits.high < 0  # but there are three comparisons
        assert row["p"] == pytest.approx(p[arm, "+within"])
        assert row["p"] > 0.05
        assert row["verdict"] == "not shown"
    assert table.loc["+within", "verdict"] == "reference"
    assert list(table["profile.macs"]) == [2e7, 2.1e7, 2.2e7]
    assert list(table["within"]) == [False, False, True]


def test_results_csv_reads_back(tmp_path):
    report(tmp_path, **PAPER)
    frame = pd.read_csv(tmp_path / "out" / "results.csv")
    assert len(frame) == 9
    again = {arm: list(rows["metrics.ap"]) for arm, rows in frame.groupby("arm", sort=False)}
    assert again == AP
    assert list(frame["params.fusion"]) == list(frame["arm"])
    assert set(frame["state"]) == {"complete"}
    assert list(frame["seed"]) == [0, 1, 2] * 3


def test_the_page_says_what_was_done(tmp_path):
    text = text_of(report(tmp_path, title="A headline", description="Some words.", **PAPER))
    for words in (
        "A headline",
        "Some words.",
        "9 of 9 trials complete",
        "3 networks for pose estimation",
        "The best mean AP is 36.5 ± 0.5 over 3 seeds, by +within",
        "The means are in the paper's order (final < +across < +within).",
        "HRNetV1-W32, COCO val2017, 256x192, from scratch",
        "hrnet-search run studies/made_up.yaml --set seeds=3",
        "cross_entropy",
        "float32",
        "0123abcd",
        "9.8.7",
        "after Holm's correction for all comparisons of its table",
    ):
        assert words in text, words
    assert "winner" not in text


def test_another_order_is_not_called_the_papers(tmp_path):
    values = {"final": [0.5, 0.51], "+across": [0.3, 0.3], "+within": [0.4, 0.41]}
    text = text_of(report(tmp_path, values=values, **PAPER))
    expected = "not in the paper's order: +across < +within < final here, final < +across"
    assert expected in text
    assert "contradicted" in text
    assert "6 of 9 trials complete, 3 not finished yet." in text


def test_seeds_that_the_study_has_no_more_are_left_out(tmp_path):
    run = read_run(make_run(tmp_path, seeds=2))
    assert [sorted(arm.values("metrics.ap")) for arm in run.arms] == [[0, 1]] * 3
    assert (len(run.results), run.planned, run.strays) == (6, 6, 0)


def test_equal_means_are_called_equal(tmp_path):
    values = {arm: [0.1, 0.1, 0.1] for arm in AP}
    text = text_of(report(tmp_path, values=values, **PAPER))
    assert "not in the paper's order: final = +across = +within here" in text
    assert "(95 % interval [+0.0, +0.0], p 1.00 of the table), not shown by these seeds" in text


def test_no_network_is_the_best_where_nothing_was_learnt(tmp_path):
    values = {"final": [0.0, 0.0, None], "+across": [0.0, 0.0, 0.0], "+within": [0.0]}
    words = summary(read_run(make_run(tmp_path / "run", values=values, **PAPER)))
    nothing = "Nothing was learnt: AP is 0 in every complete trial, so no network is the best."
    assert words.endswith(f" Trained on: cpu, float32, 1 thread per trial. {nothing}")
    values["+across"] = [0.0, 0.001, 0.0]
    words = summary(read_run(make_run(tmp_path / "run", values=values, **PAPER)))
    assert "Nothing was learnt" not in words
    assert "The best mean AP is 0.0 ± 0.1 over 3 seeds, by +across;" in words


def test_an_exported_network_that_has_learnt_nothing_is_not_called_the_winner(tmp_path):
    run, out = make_run(tmp_path / "run", values={"final": [0.0, 0.2]}), tmp_path / "out"
    (out / "winner").mkdir(parents=True)
    for trial, heading in ((0, "An exported network"), (1, "The winner")):
        source = {"trial": trial, "started": "2026-01-02T03:04:05+00:00"}
        (out / "winner" / "arch.json").write_text(json.dumps({"source": source}))
        page = write_report(run, out).read_text()
        assert f"<h2>{heading}</h2>" in page
        assert ("has learnt nothing, so it is not the best one" in page) is (trial == 0)
        assert page.count("The best seed of the best arm") == trial
        assert "python example.py" in text_of(page)


def test_the_lead_is_told_with_its_interval(tmp_path):
    text = text_of(report(tmp_path))
    limits = stats.ttest_rel(AP["+within"], AP["+across"]).confidence_interval(0.95)
    low, high = f"{limits.low * 100:+.1f}", f"{limits.high * 100:+.1f}"
    # Of p values .038 .042 .053 the smallest, times three.
    words = f"+3.3 (95 % interval [{low}, {high}], p 0.11 of the table), not shown by these seeds."
    assert words in text


def test_only_the_metric_of_the_papers_column_is_compared(tmp_path):
    text = text_of(report(tmp_path, objectives=["metrics.ap50"], **PAPER))
    assert "The paper's column is not AP50" in text
    assert "reproduced 70.8" not in text


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    page = report(tmp_path, **PAPER)
    assert set(Page(page).addresses) == {
        *("data:,", "table.md", "table.tex", "table.csv", "results.csv", "comparisons.csv")
    }
    assert "default-src 'none'" in page
    assert page.count(PLOTLY) == 1


def test_pages_may_share_plotlys_code(tmp_path):
    run, out = make_run(tmp_path / "run"), tmp_path / "reports" / "made_up"
    page = write_report(run, out, shared=True).read_text()
    assert PLOTLY not in page
    assert (out.parent / "plotly.min.js").read_text() == PLOTLY
    assert "../plotly.min.js" in Page(page).addresses
    assert "default-src 'none'; script-src 'unsafe-inline' 'self' file:;" in page


def test_plotlys_code_cannot_end_its_script():
    assert "</script" not in get_plotlyjs().lower()


@pytest.mark.parametrize(("trial", "linked"), [(4, True), (99, False)])
def test_winner_is_linked_if_it_comes_from_this_run(tmp_path, trial, linked):
    run, out = make_run(tmp_path / "run"), tmp_path / "out"
    (out / "winner").mkdir(parents=True)
    started = read_json_lines(run / "results.jsonl")[4]["started"]
    source = {"source": {"trial": trial, "started": started}}
    (out / "winner" / "arch.json").write_text(json.dumps(source))
    page = write_report(run, out).read_text()
    assert ('href="winner/"' in page) is linked
    assert ("python example.py" in text_of(page)) is linked


def test_hostile_names_stay_text(tmp_path):
    values = {arm: [0.1, 0.2, 0.3] for arm in HOSTILE}
    title = "<script>alert(1)</script>"
    page = report(tmp_path, arms=HOSTILE, values=values, title=title, description="<img src=x>")
    assert "<script>alert(1)" not in page
    assert "img" not in Page(page).tags
    assert Page(page).tags.count("script") == 2 + 6  # Plotly, the page's own, six figures
    for source in re.findall(r"data-figure=\"\w+\">(.*?)</script>", page, re.DOTALL):
        json.loads(source)
    assert "<title>&lt;script&gt;alert(1)&lt;/script&gt;</title>" in page


def test_hostile_names_stay_in_their_cells(tmp_path):
    report(tmp_path, arms=HOSTILE, values={arm: [0.1, 0.2] for arm in HOSTILE})
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) == 2 * 2 + 3 + 3  # two headings with rules, three arms, three pairs
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    assert len(set(cells[:5])) == len(set(cells[5:])) == 1
    assert not any("<" in line for line in lines)
    for name in ("table.csv", "results.csv"):
        with (tmp_path / "out" / name).open(newline="") as file:
            arms = {row["arm"] for row in csv.DictReader(file)}
        assert arms == set(HOSTILE)


def test_hostile_names_stay_in_their_cells_in_latex(tmp_path):
    title = "50% of $x_1$ & {more}"
    report(tmp_path, arms=HOSTILE, values={arm: [0.1, 0.2] for arm in HOSTILE}, title=title)
    text = (tmp_path / "out" / "table.tex").read_text()
    assert r"\caption{50\% of \$x\_1\$ \& \{more\}}" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    cells = [len(re.findall(r"(?<!\\)&", row)) for row in rows]
    assert cells == [7] * 5 + [7] * 5  # two lines of headings, three arms; likewise of the pairs
    first, second, third = (row.partition(" & ")[0] for row in rows[2:5])
    assert first == r"\textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{}"
    assert second == (
        r"a\textbar{}b c,\textquotedbl{}d\textquotedbl{} \textless{}b\textgreater{}x"
        r"\textless{}/b\textgreater{} \%\{y\} \textless{}/script\textgreater{}"
    )
    assert third == r"=1+1 \textasciigrave{}{*}\_{[}x{]}(javascript:alert(1))"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("\\input{/x}", r"\textbackslash{}input\{/x\}"),
        ("a--b---~c^d#e", r"a-{}-b-{}-{}-\textasciitilde{}c\textasciicircum{}d\#e"),
        ("*a\x07\n[b]", "{*}a {[}b{]}"),
        (
            "\u22121.0 ± 2 \u00d7 \u2713 \u2013",
            r"$-$1.0 $\pm$ 2 $\times$ \checkmark{} \textendash{}",
        ),
        ("人", "人"),
    ],
)
def test_text_for_latex(text, escaped):
    assert tex(text) == escaped


@pytest.mark.parametrize(
    ("processes", "text"), [(4, "4 processes per trial."), (1, "1 thread per trial.")]
)
def test_the_processes_that_share_a_trial_are_no_threads(tmp_path, processes, text):
    run = make_run(tmp_path / "run", history=False)
    file = run / "environment.json"
    record = json.loads(file.read_text())
    record |= {"processes": processes, "threads_per_trial": processes}
    file.write_text(json.dumps(record))
    assert f"Trained on: cpu, float32, {text}" in summary(read_run(run))


@pytest.mark.parametrize("present", [True, False])
def test_no_results(tmp_path, present):
    run = make_run(tmp_path / "run", values={}, environment=False)
    if not present:
        (run / "results.jsonl").unlink()
    text = text_of(write_report(run, tmp_path / "out").read_text())
    assert "0 of 9 trials complete, 9 not finished yet." in text
    assert "No trial has measured AP yet" in text
    assert "No trial has finished yet." in text
    assert "no environment.json" in text
    assert pd.read_csv(tmp_path / "out" / "results.csv").empty


def test_one_trial(tmp_path):
    text = text_of(report(tmp_path, values={"+across": [0.3]}, **PAPER))
    assert "1 of 9 trials complete" in text
    assert "30.0 over 1 seed, by +across; no other arm has results" in text
    assert "Too few arms of the paper's table have results" in text
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert list(table["seeds"]) == [0, 1, 0]


def test_one_seed(tmp_path):
    text = text_of(report(tmp_path, values={k: v[:1] for k, v in AP.items()}, seeds=1, **PAPER))
    assert "3 of 3 trials complete." in text
    assert "too few seeds to tell its lead over +across from chance" in text
    assert "3 too few seeds" in text


def test_all_failed(tmp_path):
    values = {arm: [None] * 3 for arm in AP}
    page = report(tmp_path, values=values)
    assert "0 of 9 trials complete, 9 failed" in text_of(page)
    assert "the <b>loss</b> is nan" in text_of(page)
    assert "the &lt;b&gt;loss" in page
    frame = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(frame["error.type"]) == {"Diverged"}


def test_a_metric_that_was_not_measured(tmp_path):
    text = text_of(report(tmp_path, objectives=["metrics.ar"]))
    assert "No trial has measured AR yet" in text
    assert "n/a" in text


def test_an_arm_without_results_and_a_failed_seed(tmp_path):
    values = {"final": [0.31, None, 0.30], "+within": [0.37, 0.36, 0.365]}
    report(tmp_path, values=values, **PAPER)
    table = pd.read_csv(tmp_path / "out" / "table.csv").set_index("arm")
    limits = stats.ttest_rel([0.31, 0.30], [0.37, 0.365]).confidence_interval(0.95)
    assert (table.loc["final", "low"], table.loc["final", "pairs"]) == pytest.approx(
        (limits.low, 2)
    )
    assert table.loc["+across", "verdict"] == "too few seeds"
    assert pd.isna(table.loc["+across", "metrics.ap"])
    assert table.loc["+across", "fusion_units"] == 3


def test_no_history(tmp_path):
    text = text_of(report(tmp_path, history=False))
    assert "nothing to draw: AP over training steps" in text
    assert "nothing to draw: Training loss" in text


def test_many_arms(tmp_path):
    arms = {f"w{width}": {"width": width} for width in range(8, 24)}
    values = {f"w{width}": [width / 100, width / 100 + 0.01] for width in range(8, 24)}
    run = make_run(tmp_path / "run", arms=arms, values=values, reference="w8")
    text = text_of(write_report(run, tmp_path / "out").read_text())
    assert "Each arm is compared with the reference w8 alone" in text
    assert "Of 16 arms these are the 11 best and the reference." in text
    read = read_run(run)
    assert [arm.name for arm in named_arms(read)] == ["w8", *(f"w{w}" for w in range(13, 24))]
    assert len(set(styles(read).values())) == 16


SEGMENTATION = {
    "task": {"kind": "segmentation"},
    "data": {
        "kind": "segmentation_folder",
        "root": "/home/someone/secret/roads",
        "class_names": ["sky", "road"],
        "crop_size": [64, 64],
    },
    "train": {"epochs": 3, "batch_size": 4, "lr": 0.001, "pretrained": "/home/someone/w.pth"},
    "objectives": ["metrics.miou", "profile.macs"],
}


def test_the_classes_of_a_segmentation_stand_beside_each_other(tmp_path):
    arms = {"a": {"within": False}, "b": {"within": True}}
    values = {"a": [0.5, 0.6, None], "b": [0.7]}
    run = make_run(tmp_path / "run", arms=arms, values=values, **SEGMENTATION)
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    ious = iter([{"sky": 0.2, "road": 0.8}, {"sky": 0.4, "road": 0.8}, {"sky": 1.0, "road": 0.0}])
    for line in lines:
        line["metrics"] = {"miou": line["metrics"].get("ap", 0.0)}
        if line["state"] == "complete":
            line["classes"] = next(ious)
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = classes_table(read_run(run))
    assert [column.title for column in table.columns] == ["Class", "a", "b"]
    assert table.rows == [["sky", "30.0", "100.0"], ["road", "80.0", "0.0"]]
    text = text_of(write_report(run, tmp_path / "out").read_text())
    assert "2 networks for semantic segmentation, trained for 3 epochs with 4 images" in text
    assert "on labelled images in roads, in crops of 64" in text
    assert "Intersection over union of each class" in text
    assert "someone" not in text  # whose machine it was is nobody's business


HEADS = {name: {"task": {"head": name}} for name in ("v1", "v1h", "v2")}
FIGURE10 = {
    "arms": {"w8": {"width": 8}},
    "values": {"v1": [0.30, 0.31, 0.32], "v1h": [0.31, 0.30, 0.33], "v2": [0.34, 0.349, 0.361]},
    "variants": HEADS,
    "paper": {"table": "figure10", "column": "pose_ap"},
}


def test_variants_stand_beside_the_papers_figures_of_their_head(tmp_path):
    text = text_of(report(tmp_path, **FIGURE10))
    assert "1 network under 3 variants for pose estimation" in text
    assert "the variants change task.head." in text
    assert "The means are in the paper's order (v1 < v2)" in text
    assert "Differences are to v2, seed by seed" in text
    assert "Between variants: those of the same network" in text
    assert "Between networks" not in text
    assert "variants.v1h.task.head v1h" in text  # among the settings
    table = pd.read_csv(tmp_path / "out" / "table.csv").set_index("arm")
    assert list(table["head"]) == ["v1", "v1h", "v2"]
    assert list(table["minus"].fillna("")) == ["v2", "v2", ""]
    assert table["paper"].fillna(0).tolist() == [0.734, 0, 0.736]
    assert table.loc["v1", "paper_difference"] == pytest.approx(-0.002)
    ours = statistics.mean([0.30 - 0.34, 0.31 - 0.349, 0.32 - 0.361])
    assert table.loc["v1", "difference"] == pytest.approx(ours)
    found = pd.read_csv(tmp_path / "out" / "comparisons.csv")
    assert set(found["family"]) == {"between variants"}
    p = [stats.ttest_rel(FIGURE10["values"][a], FIGURE10["values"][b]).pvalue
         for a, b in (("v1", "v1h"), ("v1", "v2"), ("v1h", "v2"))]  # fmt: skip
    assert found["p.table"].tolist() == pytest.approx(multipletests(p, method="holm")[1].tolist())


@pytest.mark.parametrize(
    ("order", "there"),
    [
        (["256", "320", "352"], "256 = 320 < 352"),
        (["320", "256", "352"], "320 = 256 < 352"),
        (["256", "352", "320"], None),
    ],
)
def test_arms_that_are_equal_in_the_paper_may_stand_either_way(tmp_path, order, there):
    """Its AP is 74.4, 74.4 and 74.6 at these sizes."""
    sizes = {"256": [256, 192], "320": [320, 224], "352": [352, 256]}
    variants = {name: {"data": {"input_size": size}} for name, size in sizes.items()}
    values = {name: [0.1 * place] for place, name in enumerate(order, start=1)}
    paper = {"table": "cvpr_figure6", "column": "pose_ap"}
    arms = {"w8": {"width": 8}}
    run = make_run(tmp_path, arms=arms, values=values, variants=variants, paper=paper)
    words = summary(read_run(run))
    if there:
        assert f"The means are in the paper's order ({there})." in words
    else:
        assert "not in the paper's order: 256 < 352 < 320 here, 256 = 320 < 352 there." in words


def test_a_rival_is_told_by_its_name_and_not_by_the_head(tmp_path):
    figure6 = {"paper": {"table": "cvpr_figure6", "column": "pose_ap"}}
    size = {"data": {"input_size": [128, 96]}}
    changes = {"rivals": ["simple_baseline_resnet50"], "variants": {"own": {}, "paper": size}}
    for paper, figures in ((FIGURE10, [0.734, 0.734, 0, 0]), (figure6, [0, 0.655, 0, 0.592])):
        report(tmp_path, **{**FIGURE10, **changes, "values": {}, "paper": paper["paper"]})
        table = pd.read_csv(tmp_path / "out" / "table.csv").set_index("arm")
        rival = "simple_baseline_resnet50"
        assert list(table.index) == ["w8, own", "w8, paper", f"{rival}, own", f"{rival}, paper"]
        assert table["paper"].fillna(0).tolist() == figures
        assert not re.search(r"\| (nan|None) \|", (tmp_path / "out" / "table.md").read_text())


def test_networks_and_variants_are_compared_in_tables_of_their_own(tmp_path):
    values = {
        f"{width}, {head}": [0.3 + 0.01 * a + 0.02 * b + 0.001 * ((a + b * seed) % 3)
                             for seed in range(3)]
        for a, width in enumerate(("w8", "w9")) for b, head in enumerate(HEADS)
    }  # fmt: skip
    arms = {"w8": {"width": 8}, "w9": {"width": 9}}
    text = text_of(report(tmp_path, arms=arms, values=values, variants=HEADS))
    assert "2 networks under 3 variants" in text
    assert "Differences are to the same network under the reference's variant" in text
    found = pd.read_csv(tmp_path / "out" / "comparisons.csv")
    assert found["family"].tolist() == ["between networks"] * 3 + ["between variants"] * 6
    table = pd.read_csv(tmp_path / "out" / "table.csv").set_index("arm")
    assert table["minus"].fillna("").to_dict() == {
        "w8, v1": "w8, v2", "w8, v1h": "w8, v2", "w8, v2": "w9, v2",
        "w9, v1": "w9, v2", "w9, v1h": "w9, v2", "w9, v2": "",
    }  # fmt: skip
    assert table["verdict"].tolist().count("reference") == 1
    own = statistics.mean(a - b for a, b in zip(values["w8, v1"], values["w8, v2"], strict=True))
    assert table.loc["w8, v1", "difference"] == pytest.approx(own)


def test_what_variants_say_of_files_is_told_without_folders(tmp_path):
    variants = {"v1": {}, "other": {"train": {"pretrained": "/home/me/<b>x.pth"}}}
    run = make_run(tmp_path / "run", **{**FIGURE10, "values": {"v1": [0.3]}, "variants": variants})
    part = {"data": {"folder": "/home/me/cache", "checksum": "0123"}, "pretrained": None}
    environment = {"command": "x", "device": "cpu", "variants": {"v1": part, "other": part}}
    (run / "environment.json").write_text(json.dumps(environment))
    page = write_report(run, tmp_path / "out").read_text()
    kept = json.loads((tmp_path / "out" / "environment.json").read_text())
    without = {"data": {"checksum": "0123"}, "pretrained": None}
    assert kept["variants"] == {"v1": without, "other": without}
    assert "/home/me" not in page + (tmp_path / "out" / "study.yaml").read_text()
    assert "<b>x" not in page
    assert "variants.other.train.pretrained <b>x.pth" in text_of(page)


def test_one_arm(tmp_path):
    text = text_of(report(tmp_path, arms={"only": {}}, values={"only": [0.1, 0.2]}))
    assert "The study has one arm, so there is nothing to compare." in text


def test_front(tmp_path):
    values = {"final": [0.3], "+across": [0.2], "+within": [0.4]}
    run = read_run(make_run(tmp_path / "run", values=values))
    data = pareto_data(run, "profile.macs")
    assert dict(zip(data["arm"], data["front"], strict=True)) == {
        "final": True,
        "+across": False,
        "+within": True,
    }


def test_the_last_record_of_an_arm_and_seed_counts_and_strays_are_told(tmp_path):
    run = make_run(tmp_path / "run")
    lines = (run / "results.jsonl").read_text().splitlines()
    again = json.loads(lines[0]) | {"metrics": {"ap": 0.9}, "trial": 9}
    stray = json.loads(lines[0]) | {"arm": "unknown"}
    lines += [json.dumps(again), json.dumps(stray)]
    (run / "results.jsonl").write_text("".join(f"{line}\n" for line in lines))
    text = text_of(write_report(run, tmp_path / "out").read_text())
    assert "9 of 9 trials complete" in text
    assert "Left out: 1 record(s)" in text
    assert read_run(run).arms[0].values("metrics.ap")[0] == 0.9


@pytest.mark.browser
def test_in_a_browser(tmp_path, chromium):
    from playwright.sync_api import expect

    values = {arm: [0.1, 0.2, 0.25] for arm in HOSTILE}
    run = make_run(tmp_path / "run", arms=HOSTILE, values=values, title="<script>alert(1)</script>")
    write_report(run, tmp_path / "out")
    page = chromium.new_page(viewport={"width": 360, "height": 800}, color_scheme="dark")
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "out" / "index.html").as_uri())
    # Waiting through locators: wait_for_function polls by eval, which the page forbids.
    for name in ("pareto", "parts", "timeline", "metric", "loss"):
        page.locator(f"#{name} .main-svg").first.wait_for()
    text = page.locator("#loss .legendtext").first
    expect(text).to_have_css("fill", "rgb(228, 231, 236)")
    page.emulate_media(color_scheme="light")  # the figures follow without a reload
    expect(text).to_have_css("fill", "rgb(29, 33, 41)")
    assert problems == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests)
    assert page.locator("#pareto .point").count() >= 12  # nine seeds and three means
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    legend = page.locator("#metric .legendtext").all_text_contents()
    assert [text.replace("\xa0", " ") for text in legend] == [" ".join(a.split()) for a in HOSTILE]
    page.close()


def test_channels_of_copies_are_told(tmp_path):
    arms = {"bare": {"within": False, "across": False}, "whole": {"within": True}}
    run = make_run(tmp_path / "run", arms, {}, match={"profile.macs": "reference"})
    study = load_study(run / "study.yaml")
    widened = study.network(study.arms()[1]).stages[-1].num_channels
    assert widened > (8, 16, 32, 64)
    line = f"bare, matched: {', '.join(map(str, widened))} instead of 8, 16, 32, 64."
    page = write_report(run, tmp_path / "report")
    assert line in text_of(page.read_text())
    assert line in page.with_name("table.md").read_text()
    without = write_report(make_run(tmp_path / "other", arms, {}), tmp_path / "plain")
    assert "instead of" not in text_of(without.read_text())


def test_the_command_names_no_folder_of_the_machine(tmp_path):
    run = make_run(tmp_path / "run")
    record = json.loads((run / "environment.json").read_text())
    given = "hrnet-search run s.yaml --set 'data.root=/home/me/my photos' --set name=a/b --jobs 1"
    (run / "environment.json").write_text(json.dumps(record | {"command": given}))
    text = write_report(run, tmp_path / "report").read_text()
    assert "/home/me" not in text
    shown = "hrnet-search run s.yaml --set 'data.root=my photos' --set name=a/b --jobs 1"
    assert shown in text_of(text)
