"""What a report says of a search's knobs; scores are a formula, so the answers are known."""

import random

import pandas as pd
import pytest
from test_report import text_of
from test_search import data_of, make_search, small_pages  # noqa: F401

from hrnet_search.report import knobs, write_report
from hrnet_search.report.tables import tick
from hrnet_search.space import Space

VARY = {
    "width": {"low": 4, "high": 16, "step": 4},
    "within": {"choices": [True, False]},
    "stage1_width": {"choices": [8, 16, 32]},
    "size": {"arms": {"shallow": {"num_blocks": 1}, "deep": {"num_blocks": 2}}},
}
SPACE = {"base": {"num_modules": [1, 2, 2], "stage1_blocks": 1}, "vary": VARY}
START = {"width": 4, "within": False, "stage1_width": 8, "size": "shallow"}
BEST = {"width": 16, "within": True, "stage1_width": 32, "size": "shallow"}


def score(params):
    """Two knobs of the four: 0.05 for each step of `width`, 0.1 for `within`."""
    return round(0.2 + 0.05 * params["width"] / 4 + 0.1 * params["within"], 6)


def networks(number):
    """The default, the best, of equals the first, and others that are drawn, none twice."""
    rng = random.Random(5)
    space = Space.model_validate(SPACE)
    others = [p for p in space.params() if p not in (START, BEST)]
    chosen = [START, BEST, *rng.sample(others, number - 2)]
    return [(p, [score(p)], None) for p in chosen]


def searched(folder, found, **search):
    given = {"start": [START], "networks": len(found) or 1, "scheduler": "none", **search}
    return make_search(folder, found, space=SPACE, search=given)


def test_the_importance_of_each_knob(tmp_path):
    run, data = data_of(searched(tmp_path / "run", networks(40)))
    frame = knobs.importance_data(run, data)
    assert list(frame) == knobs.IMPORTANCE
    ours = frame[frame["metric"] == "metrics.ap"].set_index("knob")
    assert list(ours.index[:2]) == ["width", "within"]
    assert list(ours.index[ours["clear"]]) == ["width", "within"]
    # Variances: 0.05^2 (4^2 - 1) / 12 = 0.003125 and 0.1^2 / 4 = 0.0025.
    assert ours.loc["width", "effect"] == pytest.approx(0.003125 / 0.005625, abs=1e-4)
    assert ours.loc["size", "effect"] == pytest.approx(0, abs=1e-6)
    cost = frame[frame["metric"] == "profile.macs"]  # which the made-up records have from the width
    assert next(iter(cost["knob"])) == "width"
    assert knobs.importance_words(run, data, frame)[0] == (
        "AP over 40 networks: width and within do more than chance; of the others nothing is told."
    )
    table = knobs.importance_table(frame)
    assert [row[0] for row in table.rows] == list(ours.index)
    assert [row[3] for row in table.rows] == [tick(True)] * 2 + [tick(False)] * 2


def test_of_many_networks_some_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(knobs, "MAX_NETWORKS", 25)
    run, data = data_of(searched(tmp_path / "run", networks(40)))
    frame = knobs.importance_data(run, data)
    assert set(frame["networks"]) == {25}
    assert frame.equals(knobs.importance_data(run, data))  # the same ones
    words = knobs.importance_words(run, data, frame)
    assert words[0].startswith("AP over 25 networks: ")


def test_the_figure_has_a_bar_for_each_knob(tmp_path):
    run, data = data_of(searched(tmp_path / "run", networks(40)))
    frame = knobs.importance_data(run, data)
    bars, chance = knobs.importance_figure(frame, "metrics.ap").data
    assert list(bars.y)[:2] == list(chance.y)[:2] == ["width", "within"]
    assert sum(bars.x) == pytest.approx(100)
    assert list(bars.marker.opacity) == [1.0, 1.0, 0.45, 0.45]
    assert all(low <= share for low, share in zip(bars.error_x.arrayminus, bars.x, strict=True))


def test_the_way_to_the_best(tmp_path):
    run, data = data_of(searched(tmp_path / "run", networks(40)))
    found = knobs.way(run, data)
    path = knobs.path_data(run, found)
    assert list(path["knobs"]) == ["", "width", "within", "stage1_width"]
    assert list(path["gain"][1:]) == pytest.approx([0.15, 0.1, 0.0], abs=1e-9)
    assert sum(path["gain"][1:]) == pytest.approx(score(BEST) - score(START))
    assert (path["from"][1], path["to"][1]) == ("4", "16")
    for _, row in path.iterrows():  # predicted values have the model's error, measured ones none
        assert pd.isna(row["error"]) == (row["state"] == "measured")
    table = knobs.path_table(run, path)
    assert [row[0] for row in table.rows] == [
        "default",
        "width: 4 to 16",
        "within: false to true",
        "stage1_width: 8 to 32",
    ]
    assert [row[1] for row in table.rows[:3]] == ["", "+15.0", "+10.0"]
    text = knobs.path_words(run, found)
    assert "AP 25.0, to network 1, 50.0: +25.0 in all." in text
    bars, dots = knobs.path_figure(run, path).data
    assert list(bars.base) == pytest.approx([25, 40, 50])
    assert list(bars.x) == pytest.approx([15, 10, 0], abs=1e-6)
    assert list(dots.x) == pytest.approx([25, 40, 50, 50])


def test_too_few_networks(tmp_path):
    run, data = data_of(searched(tmp_path / "run", networks(19)))
    frame = knobs.importance_data(run, data)
    assert frame.empty
    assert knobs.importance_words(run, data, frame)[0] == (
        "AP: too few networks: 19 are compared, at least 20 are needed."
    )
    assert knobs.importance_figure(frame, "metrics.ap") is None
    found = knobs.way(run, data)
    assert {step.kind for step in found.steps} == {"measured"}
    if any(len(step.knobs) > 1 for step in found.steps):
        assert "19 networks are too few to predict them" in knobs.path_words(run, found)


def test_what_failed_or_was_ended_early_does_not_count(tmp_path):
    found = networks(24)
    spoilt = [*found[:19], *((p, [None], None) for p, _, _ in found[19:21])]
    spoilt += [(p, [0.99], 10) for p, _, _ in found[21:]]
    run, data = data_of(searched(tmp_path / "run", spoilt, scheduler="asha"))
    assert knobs.importance_data(run, data).empty  # 19 of 24 are left
    assert knobs.way(run, data).winner == "1"


def test_of_noise_nothing_is_told(tmp_path):
    rng = random.Random(2)
    found = [(p, [0.3 + 0.01 * rng.random()], None) for p, _, _ in networks(48)]
    found[1] = (BEST, [0.4], None)
    # Nothing beside the default was trained, so its neighbours would have to be predicted.
    found = [one for one in found if sum(one[0][name] != START[name] for name in START) != 1]
    run, data = data_of(searched(tmp_path / "run", found))
    frame = knobs.importance_data(run, data)
    assert not frame[frame["metric"] == "metrics.ap"]["clear"].any()
    assert "no knob did more than chance could" in knobs.importance_words(run, data, frame)[0]
    text = knobs.path_words(run, knobs.way(run, data))
    assert "so nothing can be told" in text


@pytest.mark.parametrize("found", [[], [(START, [0.0], None)], [(START, [None], None)]])
def test_nothing_to_compare(tmp_path, found):
    run = searched(tmp_path / "run", found)
    text = text_of(write_report(run, tmp_path / "out").read_text())
    assert "No network is the best, so there is no way to it." in text
    assert pd.read_csv(tmp_path / "out" / "importance.csv").empty
    assert pd.read_csv(tmp_path / "out" / "path.csv").empty


def test_the_files_and_the_page(tmp_path):
    out = tmp_path / "out"
    text = text_of(write_report(searched(tmp_path / "run", networks(40)), out).read_text())
    for words in ("What the knobs did", "width and within do more", "From the default", "clear"):
        assert words.lower() in text.lower(), words
    frame = pd.read_csv(out / "importance.csv")
    assert len(frame) == 8
    assert list(pd.read_csv(out / "path.csv")["step"]) == [0, 1, 2, 3]
    markdown = (out / "table.md").read_text()
    assert markdown.index("## What the knobs did") < markdown.index("## From the default")
    again = tmp_path / "again"
    write_report(tmp_path / "run", again)
    for name in ("importance.csv", "path.csv", "table.md"):
        assert (again / name).read_bytes() == (out / name).read_bytes()
