"""Reports of searches made up here; expected numbers are worked out by hand."""

import json
import re

import pandas as pd
import pytest
import yaml
from test_report import Page, text_of

from hrnet_search.export import choose_winner
from hrnet_search.report import pareto, search, write_report
from hrnet_search.report.frame import read_run
from hrnet_search.result import Result
from hrnet_search.study import dump_study, load_study

PLOTLY = "/* 4.8 MB of plotly.js */"
WIDTHS = list(range(4, 44, 4))
# Width, accuracy of each seed (None: failed), the step that it was ended early at.
NETWORKS = [
    (8, [0.30], None),  # front
    (16, [0.50], None),  # front
    (24, [0.45], None),  # beaten by width 16
    (20, [0.55], 10),  # ended early
    (12, [None], None),
    (32, [0.60], None),  # front
    (28, [0.20], None),  # beaten
]


@pytest.fixture(autouse=True)
def small_pages(request, monkeypatch):
    if request.node.get_closest_marker("browser") is None:
        monkeypatch.setattr("hrnet_search.report.page.get_plotlyjs", lambda: PLOTLY)


def make_search(folder, networks=NETWORKS, *, vary=None, search=None, status=None, **study):
    """A run folder of a search; each network costs a million multiply-adds per width."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "name": "made_up_search",
        "task": {"kind": "pose", "loss": "cross_entropy"},
        "data": {"kind": "synthetic_pose", "num_train": 64, "num_val": 8, "input_size": [64, 32]},
        "space": {
            "base": {"num_modules": [1, 2, 2], "num_blocks": 2, "stage1_blocks": 1},
            "vary": vary or {"width": {"choices": WIDTHS}, "within": {"choices": [True, False]}},
        },
        "train": {"steps": 20, "batch_size": 4, "lr": 0.001, "evaluations": 2},
        "seeds": 1,
        "search": {"sampler": "tpe", "networks": 10, "scheduler": "asha", **(search or {})},
        **study,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    plan = load_study(folder / "study.yaml")
    (folder / "study.yaml").write_text(dump_study(plan))
    records = []
    for proposal, (width, values, early) in enumerate(networks):
        params = width if isinstance(width, dict) else {"width": width, "within": True}
        for seed, value in enumerate(values):
            records.append(make_record(plan, params, proposal, seed, value, early, len(records)))
    lines = [json.dumps(record.to_dict()) + "\n" for record in records]
    (folder / "results.jsonl").write_text("".join(lines))
    if status:
        (folder / "status.json").write_text(json.dumps(status))
    return folder


def make_record(study, params, proposal, seed, value, early, trial):
    arch = study.network(params)
    state = "failed" if value is None else "pruned" if early else "complete"
    last = 5 if value is None else early or 20
    history = [{"step": s, "loss": 1 / s, "ap": (value or 0) * s / last} for s in (5, 10, 20)]
    error = {"type": "Diverged", "message": "<b>nan</b>", "traceback": "", "cause": "diverged"}
    cost = params.get("width", 8 + proposal)
    return Result(
        study=study.name,
        trial=trial,
        state=state,
        arm=study.arm(params),
        params=params,
        seed=seed,
        key=arch.key,
        arch=arch.to_dict(),
        profile={"params": cost * 1e4, "macs": cost * 1e6, "latency": 0.004},
        metrics={} if value is None else {"ap": value, "ap50": value},
        history=[point for point in history if point["step"] <= last],
        seconds=12.34,
        attempt=1,
        started="2026-01-02T03:04:05+00:00",
        ended=f"2026-01-02T04:{trial // 60 % 60:02}:{trial % 60:02}+00:00",
        error=error if value is None else None,
        proposal=proposal,
    )


def data_of(run):
    read = read_run(run)
    return read, search.networks_data(read)


def test_networks_stand_in_order(tmp_path):
    run, data = data_of(make_search(tmp_path / "run"))
    # The front by cost; the rest by accuracy; ended early; failed.
    assert list(data["params.width"]) == [8, 16, 32, 24, 28, 20, 12]
    assert list(data["network"]) == ["0", "1", "5", "2", "6", "3", "4"]
    assert list(data["front"]) == [True] * 3 + [False] * 4
    assert list(data["compared"]) == [True] * 5 + [False] * 2
    assert list(data["state"]) == ["complete"] * 5 + ["ended early", "failed"]
    assert list(data["step"].dropna()) == [10]
    assert run.planned == 10
    assert run.strays == 0


def test_what_was_ended_early_is_not_compared(tmp_path):
    networks = [(8, [0.3], None), (4, [0.9], 10)]  # cheaper and better, but after half the steps
    run, data = data_of(make_search(tmp_path / "run", networks))
    assert list(data["front"]) == [True, False]
    assert pd.isna(data["metrics.ap"][1])
    assert data["profile.macs"][1] == 4e6  # its cost is known all the same
    figure = pareto.search_figure(run, data, {})
    assert [list(trace.y) for trace in figure.data] == [[30.0], [30.0]]


def test_only_networks_with_as_many_seeds_are_compared(tmp_path):
    networks = [
        (8, [0.3, 0.5], None),
        (16, [0.9], None),  # its second seed is to come
        (12, [0.9, None], None),
        (20, [0.6, 0.6], None),
    ]
    run, data = data_of(make_search(tmp_path / "run", networks, seeds=2))
    assert list(data["params.width"]) == [8, 20, 16, 12]
    assert list(data["compared"]) == [True, True, False, False]
    states = ["complete", "complete", "1 complete, 1 not trained", "1 complete, 1 failed"]
    assert list(data["state"]) == states
    text = search.summary(run, data)
    assert "The best mean AP is 60.0 ± 0.0 over 2 seeds, by network 3 (width=20, within=true)" in (
        text
    )
    assert "4 of 10 networks were trained, with 2 seeds each" in text
    assert "6 of 20 trials complete, 1 failed, 13 not finished yet." in text
    # What is exported comes from the same network.
    assert choose_winner(run.results, run.study.accuracy).params["width"] == 20


def test_the_winner_is_no_trial_that_was_ended_early(tmp_path):
    networks = [(8, [0.3], None), (4, [0.9], 10), (16, [None], None)]
    run, data = data_of(make_search(tmp_path / "run", networks))
    winner = choose_winner(run.results, run.study.accuracy)
    assert winner.arm == data["arm"][0] == "width=8, within=true"
    only = [result for result in run.results if result.state != "complete"]
    assert choose_winner(only, run.study.accuracy) is None


def test_the_summary(tmp_path):
    run, data = data_of(make_search(tmp_path / "run"))
    text = search.summary(run, data)
    for words in (
        "A search among 20 combinations of knob values for pose estimation by a tree-structured "
        "Parzen estimator (seed 0); each network is trained for 20 steps with 4 images per step",
        "; ASHA may end it early.",
        "7 of 10 networks were trained, with 1 seed each: 5 of 10 trials complete, 1 ended early, "
        "1 failed, 3 not finished yet.",
        "Failed: 1 (training diverged).",
        "The best AP is 60.0 over 1 seed, by network 5 (width=32, within=true); one seed cannot "
        "tell its lead from chance.",
        "The Pareto front of AP against GMACs has 3 of the 5 networks compared: from AP 30.0 at "
        "0.008 GMACs (network 0) to AP 60.0 at 0.032 GMACs (network 5).",
    ):
        assert words in text, words
    assert "roposal" not in text  # no status.json


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {"proposals": {"new": 7, "duplicate": 2, "infeasible": 1}, "state": "running"},
            "The sampler made 10 proposals: 7 new, 2 made before, 1 not possible.",
        ),
        ({"proposals": {"new": 1, "duplicate": 0}}, "The sampler made 1 proposal: 1 new."),
        ({"state": "paused", "reason": "budget of 2h."}, "The search was paused: budget of 2h."),
        ({"state": "interrupted", "reason": ""}, "The search was interrupted."),
    ],
)
def test_what_the_driver_told(tmp_path, status, words):
    run, data = data_of(make_search(tmp_path / "run", status=status))
    assert words in search.summary(run, data)


def test_growth(tmp_path):
    run, data = data_of(make_search(tmp_path / "run"))
    growth = search.growth_data(run, data)
    assert list(growth["trials"]) == [1, 2, 3, 6, 7]  # the fourth and fifth were not complete
    assert list(growth["best"]) == pytest.approx([0.3, 0.5, 0.5, 0.6, 0.6])
    # Reference: 1.1 * 32 wide, accuracy 0.9 * 0.2.
    first = (35.2 - 8) * (0.30 - 0.18)
    second = first + (35.2 - 16) * (0.50 - 0.30)
    last = second + (35.2 - 32) * (0.60 - 0.50)
    shares = [first / last, second / last, second / last, 1, 1]
    assert list(growth["hypervolume"]) == pytest.approx(shares)


def test_with_one_objective_there_is_no_hypervolume(tmp_path):
    run, data = data_of(make_search(tmp_path / "run", objectives=["metrics.ap"]))
    figures = search.growth_figures(run, data)
    assert figures["hypervolume"] is None
    assert list(figures["best"].data[0].y) == pytest.approx([30, 50, 50, 60, 60, 60])


def test_curves_end_where_trials_were_stopped(tmp_path):
    run, data = data_of(make_search(tmp_path / "run"))
    figure = search.curves_figure(run, data, "ap", "AP", 100)
    names = ["other networks", "ended early", "ended early"]
    names += [f"network {number}" for number in (0, 0, 1, 1, 5, 5)]
    assert [trace.name for trace in figure.data] == names
    other, early, cross = figure.data[:3]
    assert list(other.x) == [5, 10, 20, None] * 2
    assert list(early.x) == [5, 10, None]
    assert (list(cross.x), list(cross.y)) == ([10], [pytest.approx(55)])


def test_the_files(tmp_path):
    out = tmp_path / "out"
    write_report(make_search(tmp_path / "run"), out)
    table = pd.read_csv(out / "table.csv")
    assert list(table["network"]) == [0, 1, 5, 2, 6, 3, 4]
    assert list(table["metrics.ap"][:3]) == [0.3, 0.5, 0.6]
    assert list(table["profile.macs"][:3]) == [8e6, 16e6, 32e6]
    results = pd.read_csv(out / "results.csv")
    assert list(results["proposal"]) == list(range(7))
    assert results["ended"][6] == "2026-01-02T04:00:06+00:00"
    assert list(results["state"]) == [*["complete"] * 3, "pruned", "failed", *["complete"] * 2]
    assert results["error.cause"][4] == "diverged"
    markdown = (out / "table.md").read_text()
    assert markdown.index("## Pareto front") < markdown.index("| 5 | 60.0 (1) |")
    assert markdown.index("## Best networks beside the front") < markdown.index("| 2 | 45.0 (1) |")
    tex = (out / "table.tex").read_text()
    assert tex.index(": Pareto front}") < tex.index("\n5 & 60.0 (1) & ")
    assert tex.index(": best networks beside the front}") < tex.index("\n2 & 45.0 (1) & ")


def test_the_page(tmp_path):
    page = write_report(
        make_search(tmp_path / "run", title="A headline"), tmp_path / "out"
    ).read_text()
    text = text_of(page)
    for words in (
        "A headline",
        "5 of 10 trials complete, 1 ended early, 1 failed",
        "Pareto front of AP against GMACs",
        "Best networks beside the front",
        "2 more networks",
        "ended early (step 10)",
        "training diverged Diverged <b>nan</b>",
        "search.sampler",
        "sampler: tpe",
    ):
        assert words in text, words
    for words in ("Ablation", "What the seeds can show", "the paper", "Verdict", " arm"):
        assert words not in text, words
    names = {"table.md", "table.tex", "table.csv", "results.csv"}
    assert set(Page(page).addresses) == {"data:,", *names}


@pytest.mark.parametrize(
    "networks",
    [[], [(8, [None], None)], [(8, [0.3], 10)], [(8, [0.3], None)], [(8, [0.0], None)]],
    ids=["none", "failed", "early", "one", "zero"],
)
def test_early_in_a_search(tmp_path, networks):
    run = make_search(tmp_path / "run", networks)
    text = text_of(write_report(run, tmp_path / "out").read_text())
    assert f"{len(networks)} of 10 networks were trained" in text
    compared = [values for _, values, early in networks if values != [None] and not early]
    assert ("there is nothing to compare" in text) is not compared
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) == len(networks)


FACES = {
    "task": {"kind": "pose", "metric": "nme", "augmentation": {"half_body": 0.0}},
    "data": {
        "kind": "coco_pose",
        "root": "faces",
        "input_size": [64, 64],
        "keypoints": {"names": ["left", "right"], "normalise_by": ["left", "right"]},
    },
    "objectives": ["metrics.nme", "profile.params"],
}


def test_a_metric_that_should_be_low(tmp_path):
    networks = [(8, [0.3], None), (16, [0.2], None), (24, [0.25], None)]
    run = make_search(tmp_path / "run", networks, **FACES)
    text = (run / "results.jsonl").read_text().replace('"ap"', '"nme"')
    (run / "results.jsonl").write_text(text)
    read, data = data_of(run)
    assert list(data["params.width"]) == [8, 16, 24]
    assert list(data["front"]) == [True, True, False]
    assert "The best NME is 20.00 over 1 seed, by network 1" in search.summary(read, data)
    assert list(search.growth_data(read, data)["best"]) == [0.3, 0.2, 0.2]


HOSTILE = ["<script>alert(1)</script>", 'a|b\n"d" <b>x</b> %{y} </script>']


def test_hostile_names_stay_text(tmp_path):
    vary = {"<i>": {"arms": {name: {"width": 8 * n} for n, name in enumerate(HOSTILE, 1)}}}
    networks = [({"<i>": HOSTILE[0]}, [0.3], None), ({"<i>": HOSTILE[1]}, [0.1], None)]
    run = make_search(tmp_path / "run", networks, vary=vary, title="<script>alert(1)</script>")
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    lines = [json.dumps(line | {"proposal": None}) + "\n" for line in lines]
    (run / "results.jsonl").write_text("".join(lines))
    (run / "status.json").write_text(json.dumps({"state": "paused", "reason": "<img src=x>"}))
    page = write_report(run, tmp_path / "out").read_text()
    assert "<script>alert(1)" not in page
    assert "img" not in Page(page).tags
    assert Page(page).tags.count("script") == 2 + 8  # Plotly, the page's own, eight figures
    for source in re.findall(r"data-figure=\"\w+\">(.*?)</script>", page, re.DOTALL):
        json.loads(source)
    markdown = (tmp_path / "out" / "table.md").read_text()
    assert not any("<" in line for line in markdown.splitlines())


def test_records_of_other_knobs_are_strays(tmp_path):
    run = make_search(tmp_path / "run")
    lines = (run / "results.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    lines += [json.dumps(first | {"trial": 90, "arm": "old", "params": {"width": 8}})]
    other = {"trial": 91, "arm": "older", "params": {"width": 999, "within": True}}
    lines += [json.dumps(first | other)]
    (run / "results.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert read_run(run).strays == 2
    text = text_of(write_report(run, tmp_path / "out").read_text())
    assert "Left out: 2 record(s) of networks that this study does not have." in text


def test_the_winner_is_linked(tmp_path):
    run, out = make_search(tmp_path / "run"), tmp_path / "out"
    (out / "winner").mkdir(parents=True)
    source = {"source": {"trial": 5, "started": "2026-01-02T03:04:05+00:00"}}
    (out / "winner" / "arch.json").write_text(json.dumps(source))
    text = text_of(write_report(run, out).read_text())
    assert "The best seed of the best network stands in winner/" in text
    assert "# width=32, within=true, seed 0 (trial 5): AP 60.0" in text


def test_many_networks(tmp_path):
    count = 700
    vary = {"width": {"low": 8, "high": 8 + count}}
    accuracy = [0.1 + 0.8 * (n * 7919 % count) / count for n in range(count)]
    networks = [
        ({"width": 8 + n}, [None if n % 10 == 3 else accuracy[n]], 10 if n % 2 else None)
        for n in range(count)
    ]
    run = make_search(tmp_path / "run", networks, vary=vary, search={"networks": count})
    page = write_report(run, tmp_path / "out").read_text()
    read, data = data_of(run)
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) == count
    unfolded = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    assert Page(unfolded).tags.count("tr") < 300
    assert Page(page).tags.count("tr") < 300 + 3 * search.MAX_ROWS
    assert len(search.growth_data(read, data)) == search.MAX_POINTS
    curves = search.curves_figure(read, data, "ap", "AP")
    assert list(curves.data[1].x).count(None) == search.MAX_FAINT


@pytest.mark.browser
def test_in_a_browser(tmp_path, chromium):
    from playwright.sync_api import expect

    knobs = {"width": {"choices": WIDTHS}, "within": {"choices": [True, False]}}
    vary = {**knobs, "stage1_width": {"choices": [8, 16]}, "final": {"choices": [True, False]}}
    networks = [
        ({"width": w, "within": w > 8, "stage1_width": 8, "final": True}, [0.2 + w / 100] * 2, e)
        for w, e in zip(
            WIDTHS, [None, None, 10, None, None, 5, None, None, None, None], strict=True
        )
    ]
    run = make_search(tmp_path / "run", networks, vary=vary, seeds=2)
    write_report(run, tmp_path / "out")
    page = chromium.new_page(viewport={"width": 360, "height": 800}, color_scheme="dark")
    problems = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((tmp_path / "out" / "index.html").as_uri())
    drawn = ("parts", "timeline", "coordinates", "pareto", "best", "hypervolume", "metric", "loss")
    for name in drawn:
        page.locator(f"#{name} .main-svg").first.wait_for()
    assert problems == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    accuracy = page.locator("tbody tr").first.locator("td").first
    assert accuracy.text_content() == "24.0 ± 0.0 (2)"
    tick = page.locator("#coordinates .textpoint text").first
    expect(tick).to_have_css("fill", "rgb(228, 231, 236)")
    scroll = page.locator(".scroll", has=page.locator("#coordinates"))
    sizes = scroll.evaluate("box => [box.scrollWidth, box.clientWidth]")
    assert sizes[0] >= 6 * 96 > 360 > sizes[1]  # four knobs, cost and accuracy; in its own box
    assert page.locator("#coordinates .lines .js-line").count() >= 2
    assert page.locator("#timeline .bars .point").count() == 20
    assert page.locator("#parts .bars .point").count() > len(WIDTHS)
    page.emulate_media(color_scheme="light")
    expect(tick).to_have_css("fill", "rgb(29, 33, 41)")
    box = accuracy.bounding_box()
    assert box["x"] + box["width"] <= 360  # seen without scrolling
    page.close()


def test_where_nothing_was_learnt_no_network_is_the_best(tmp_path):
    run, data = data_of(make_search(tmp_path / "run", [(8, [0.0], None), (16, [0.0], None)]))
    text = search.summary(run, data)
    assert "AP is 0 in every complete trial, so no network is the best." in text
    assert "The best AP" not in text
