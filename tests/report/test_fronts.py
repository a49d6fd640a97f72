"""Fronts of several studies beside each other, and of a search and its baselines."""

import json

import pytest
from test_report import PLOTLY, make_run, text_of
from test_search import make_search

from hrnet_search.report import write_report, write_studies
from hrnet_search.report.frame import read_run
from hrnet_search.report.fronts import (
    baselines,
    front_words,
    fronts_data,
    fronts_figure,
    fronts_table,
    growth_figure,
)

ONE = [(8, [0.30], None), (16, [0.50], None), (24, [0.45], None), (20, [0.55], 10)]
TWO = [(8, [0.20], None), (16, [0.60], None), (32, [0.70], None)]


GOALS = ["metrics.ap", "profile.macs"]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr("hrnet_search.report.page.get_plotlyjs", lambda: PLOTLY)


def searches(folder, **two):
    one = make_search(folder / "one", ONE, name="one", objectives=GOALS)
    return one, make_search(folder / "two", TWO, name="two", **{"objectives": GOALS, **two})


def read(*runs):
    return {run.name: read_run(run) for run in runs}


def test_fronts_of_searches_beside_each_other(tmp_path):
    found = read(*searches(tmp_path))
    frame = fronts_data(found)
    shown = frame[["study", "cost", "mean", "front", "joint"]].to_dict("split")["data"]
    assert shown == [
        ["one", 8e6, 0.3, True, True],
        ["one", 16e6, 0.5, True, False],
        ["one", 24e6, 0.45, False, False],
        ["two", 8e6, 0.2, True, False],
        ["two", 16e6, 0.6, True, True],
        ["two", 32e6, 0.7, True, True],
    ]
    # From the reference 35.2e6 and 0.18, a tenth beyond the worst: one has (16 - 8) x (0.3 - 0.18)
    # + (35.2 - 16) x (0.5 - 0.18); two (16 - 8) x 0.02 + (32 - 16) x 0.42 + (35.2 - 32) x 0.52;
    # both the same but for 0.12 in the place of 0.02.
    one, two = 0.96 + 6.144, 0.16 + 6.72 + 1.664
    both = two + 0.8
    assert fronts_table(found, frame).rows == [
        ["one", "3", "2", "1", f"{100 * one / both:.3g}", "0.014"],
        ["two", "3", "3", "2", f"{100 * two / both:.3g}", "0.01"],
    ]
    figure = fronts_figure(found, frame)
    assert [len(trace.x) for trace in figure.data] == [2, 3, 3, 3]
    assert front_words(found, frame) == [
        "Their joint Pareto front of AP against GMACs has 3 networks: 1 of one and 2 of two."
    ]


def test_the_hypervolume_grows_with_the_hours_of_all_trials(tmp_path):
    found = read(*searches(tmp_path))
    one, two = growth_figure(found, fronts_data(found)).data
    # Each trial took 12.34 s; what was ended early (the fourth of one) adds nothing after it.
    assert list(one.x) == pytest.approx([n * 12.34 / 3600 for n in (1, 2, 3)])
    whole = 0.16 + 6.72 + 1.664 + 0.8  # as above
    first = (35.2 - 8) * (0.30 - 0.18)
    assert list(one.y) == pytest.approx([100 * v / whole for v in (first, 7.104, 7.104)])
    assert two.y[-1] == pytest.approx(100 * 8.544 / whole)


def grid(folder, **study):
    """Plain scaling: two arms that cost 8e6 and 16e6, and one that failed."""
    arms = {f"x{n}": {"width": 8 * n} for n in (1, 2, 3)}
    values = {"x1": [0.1], "x2": [0.65], "x3": [None]}
    run = make_run(folder, arms, values, name=folder.name, seeds=1, **study)
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    for line, macs in zip(lines, (8e6, 16e6, 24e6), strict=True):
        line["profile"]["macs"] = macs
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_a_grid_has_a_front_beside_a_search(tmp_path):
    one, _ = searches(tmp_path)
    found = read(one, grid(tmp_path / "one-scaling", objectives=GOALS))
    frame = fronts_data(found)
    ahead = frame[frame["joint"].astype(bool)]
    assert list(ahead["study"]) == ["one", "one-scaling"]
    assert list(ahead["cost"]) == [8e6, 16e6]
    assert list(frame["network"][frame["study"] == "one-scaling"]) == ["x1", "x2"]


def test_grids_alone_have_no_fronts(tmp_path):
    runs = [grid(tmp_path / name, objectives=GOALS) for name in ("one", "two")]
    found = read(*runs)
    assert fronts_data(found).empty
    assert fronts_figure(found, fronts_data(found)) is None
    assert growth_figure(found, fronts_data(found)) is None
    assert fronts_table(found, fronts_data(found)).rows == []


def test_a_search_is_set_against_the_baselines_that_were_trained(tmp_path):
    one, _ = searches(tmp_path / "runs")
    train = read_run(one).study.train.model_dump(mode="json")
    assert baselines(one, read_run(one))[0].keys() == {"one"}
    page = text_of(write_report(one, tmp_path / "out").read_text())
    assert "Not known yet: hrnet-search baselines" in page
    grid(tmp_path / "runs" / "one-scaling", objectives=GOALS, train=train)
    make_search(tmp_path / "runs" / "one-random", TWO, name="one-random", objectives=GOALS)
    found, notes = baselines(one, read_run(one))
    assert (list(found), notes) == (["one", "one-random", "one-scaling"], [])
    page = text_of(write_report(one, tmp_path / "out").read_text())
    assert "has 3 networks: 1 of one, 1 of one-random and 1 of one-scaling." in page
    assert "Not known yet" not in page


def test_baselines_that_do_not_compare_are_left_out_and_told(tmp_path):
    one, _ = searches(tmp_path / "runs")
    train = {"steps": 140, "batch_size": 4, "lr": 0.001}
    make_search(
        tmp_path / "runs" / "one-random", TWO, name="one-random", objectives=GOALS, train=train
    )
    scaling = grid(tmp_path / "runs" / "one-scaling", objectives=GOALS)
    (scaling / "study.yaml").write_text("name: one-scaling\nnonsense: 1\n")
    found, notes = baselines(one, read_run(one))
    assert list(found) == ["one"]
    assert notes[0] == "one-random is left out, as it has other settings of train."
    assert notes[1].startswith("one-scaling is left out, as it cannot be read: ")
    page = text_of(write_report(one, tmp_path / "out").read_text())
    assert "Not known yet" not in page
    assert notes[0] in page


def test_a_search_for_accuracy_alone_is_told_so(tmp_path):
    goals = {"objectives": GOALS[:1]}
    one = make_search(tmp_path / "runs" / "one", ONE, name="one", **goals)
    make_search(tmp_path / "runs" / "one-random", TWO, name="one-random", **goals)
    page = text_of(write_report(one, tmp_path / "out").read_text())
    assert "A search for accuracy alone has no front to set beside others." in page
    assert "Not known yet" not in page


def test_baselines_that_have_not_ended_a_trial_are_there(tmp_path):
    one, _ = searches(tmp_path / "runs")
    make_search(tmp_path / "runs" / "one-random", [], name="one-random", objectives=GOALS)
    page = text_of(write_report(one, tmp_path / "out").read_text())
    assert "2 of one and 0 of one-random." in page


@pytest.mark.parametrize(
    "other",
    [
        {"objectives": ["metrics.ap50", "profile.macs"]},
        {"objectives": ["metrics.ap", "profile.params"]},
        {"objectives": ["metrics.ap"]},
        {
            "seeds": 1,
            "data": {
                "kind": "synthetic_pose",
                "num_train": 65,
                "num_val": 8,
                "input_size": [64, 32],
            },
        },
    ],
)
def test_searches_of_other_objectives_or_data_have_no_joint_front(tmp_path, other):
    runs = searches(tmp_path, **other)
    assert fronts_data(read(*runs)).empty
    write_studies(list(runs), tmp_path / "out")
