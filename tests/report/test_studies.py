"""The page that compares studies, of runs made up here; rank figures are scipy's."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from test_fronts import ONE, TWO
from test_report import HOSTILE, PLOTLY, TABLE12, Page, make_run, text_of
from test_search import make_search

from hrnet_search.errors import InputError
from hrnet_search.files import read_json_lines
from hrnet_search.report import write_report, write_studies
from hrnet_search.report.frame import read_run
from hrnet_search.report.fronts import fronts_data
from hrnet_search.report.orders import places, scores
from hrnet_search.report.studies import (
    arms_table,
    changes_data,
    compare_studies,
    differing_table,
    drawn,
    means_figure,
    orders_data,
    pairs_data,
    pairs_tables,
    places_figure,
    studies_table,
    summary,
)

# By mean, the best first: +within, +across, final; and +across, +within, final.
SHORT = {"final": [0.10, 0.11, 0.12], "+across": [0.20, 0.22, 0.21], "+within": [0.31, 0.30, 0.32]}
LONG = {"final": [0.15, 0.17, 0.16], "+across": [0.55, 0.56, 0.57], "+within": [0.40, 0.44, 0.42]}
SEGMENTATION = {
    "task": {"kind": "segmentation"},
    "data": {
        "kind": "segmentation_folder",
        "root": "/home/somebody/camvid",
        "label_set": "camvid",
        "crop_size": [64, 64],
    },
}
FACES = {
    "task": {"kind": "pose", "metric": "nme"},
    "data": {
        "kind": "coco_pose",
        "root": "/home/somebody/faces",
        "train_annotations": "train.json",
        "val_annotations": "val.json",
        "train_images": "images",
        "val_images": "images",
        "input_size": [64, 64],
        "keypoints": {
            "names": ["left", "right", "mouth"],
            "sigmas": [0.1, 0.1, 0.1],
            "flip_pairs": [["left", "right"]],
            "normalise_by": ["left", "right"],
        },
    },
}


@pytest.fixture(autouse=True)
def small_pages(request, monkeypatch):
    if request.node.get_closest_marker("browser") is None:
        monkeypatch.setattr("hrnet_search.report.page.get_plotlyjs", lambda: PLOTLY)


def make(folder, name, values, *, arms=TABLE12, metric="ap", checksum=None, **study):
    """A run folder `name`; its trials measured `values` of a metric."""
    train = {"steps": 20, "batch_size": 4, "lr": 0.001}
    study = {"name": name, "train": train, **study}
    run = make_run(folder / "runs" / name, arms, values, history=False, **study)
    lines = read_json_lines(run / "results.jsonl")
    for line in lines:
        line["metrics"] = {metric: line["metrics"]["ap"]} if line["metrics"] else {}
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if checksum:
        record = json.loads((run / "environment.json").read_text())
        (run / "environment.json").write_text(json.dumps(record | {"data": {"checksum": checksum}}))
    return run


def compared(*runs):
    return compare_studies({run.name: read_run(run) for run in runs})


def short_and_long(folder):
    train = {"steps": 90, "batch_size": 4, "lr": 0.001}
    return make(folder, "short", SHORT), make(folder, "long", LONG, train=train)


def test_reports_are_enough_where_the_runs_are_gone(tmp_path):
    """Failures, copies, names with line breaks, knobs of lists and truth values, searches."""
    breaks = {"a\nb": TABLE12["final"], "c\r\nd": TABLE12["+across"], " ": TABLE12["+within"]}
    values = {"a\nb": [None, 0.2, 0.3], "c\r\nd": [0.3, 0.5, 0.4], " ": [0.5, 0.6, 0.8]}
    others = dict(zip(values, LONG.values(), strict=True))
    of_failures = {"arms": breaks, "match": {"profile.macs": "reference"}}
    vary = {
        "num_modules": {"choices": [[1, 1, 1], [1, 2, 1]]},
        "within": {"choices": [True, False]},
    }
    goals = {"vary": vary, "objectives": ["metrics.ap", "profile.macs"]}
    networks = [
        ({"num_modules": modules, "within": within}, [0.1 * place], early)
        for place, (modules, within, early) in enumerate(
            (([1, 1, 1], True, None), ([1, 2, 1], True, None), ([1, 2, 1], False, 10))
        )
    ]
    kinds = {
        "grids": [
            make(tmp_path / "g", name, each, **of_failures)
            for name, each in (("a", values), ("b", others))
        ],
        "searches": [
            make_search(tmp_path / "s" / name, networks, name=name, **goals) for name in "ab"
        ],
    }
    for kind, runs in kinds.items():
        reports = [write_report(run, tmp_path / "sent" / kind / run.name).parent for run in runs]
        pages = [
            write_studies(folders, tmp_path / "pages" / kind / name).parent
            for name, folders in (("runs", runs), ("reports", reports))
        ]
        of_runs, of_reports = (
            {file.name: file.read_bytes() for file in page.iterdir()} for page in pages
        )
        assert of_runs == of_reports


@pytest.mark.parametrize(
    ("file", "old", "new", "rule"),
    [
        ("results.csv", None, "", "results.csv: is no table of trials"),
        ("results.csv", None, "foo\nbar\n", "results.csv: is no table of trials"),
        ("results.csv", "complete", "compleat", "results.csv: is damaged in row 1"),
        ("results.csv", "complete", "x" * 200_000, "results.csv: cannot be read (field larger"),
        ("environment.json", None, "[1]", "environment.json: must hold names and values"),
        ("environment.json", None, "{", "environment.json: is not JSON"),
    ],
)
def test_a_damaged_report_is_told(tmp_path, file, old, new, rule):
    report = write_report(make(tmp_path, "a", SHORT), tmp_path / "sent" / "a").parent
    text = (report / file).read_text()
    (report / file).write_text(text.replace(old, new, 1) if old else new)
    with pytest.raises(InputError) as caught:
        read_run(report)
    assert rule in str(caught.value)


def test_a_report_tells_whether_its_search_was_at_its_end(tmp_path):
    """Ten networks are asked for, and the sampler found no more than these."""
    for state, planned in (("finished", 4), ("interrupted", 10)):
        run = make_search(tmp_path / state, ONE, status={"state": state, "reason": "/home/me"})
        report = write_report(run, tmp_path / "sent" / state).parent
        assert read_run(run).planned == read_run(report).planned == planned
        assert "/home" not in (report / "status.json").read_text()


def test_a_failure_without_a_cause_is_an_error_in_a_report(tmp_path):
    run = make(tmp_path, "a", {"final": [None]})
    report = write_report(run, tmp_path / "sent" / "a").parent
    assert read_run(report).results[0].error == {"cause": "error"}


def test_a_damaged_environment_of_a_run_is_told(tmp_path):
    run = make(tmp_path, "a", SHORT)
    (run / "environment.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_run(run)


def words(found):
    return summary(found, fronts_data(found.runs))


def means(values):
    return [sum(each) / len(each) for each in values.values()]


def test_the_order_of_arms_in_two_studies(tmp_path):
    found = compared(*short_and_long(tmp_path))
    row = orders_data(found).iloc[0]
    assert row["spearman"] == pytest.approx(stats.spearmanr(means(SHORT), means(LONG)).statistic)
    assert row["kendall"] == pytest.approx(stats.kendalltau(means(SHORT), means(LONG)).statistic)
    # Every pair has a t interval without zero in both studies (scipy).
    for values in (SHORT, LONG):
        for one, two in (("final", "+across"), ("final", "+within"), ("+across", "+within")):
            assert stats.ttest_rel(values[one], values[two]).pvalue < 0.05
    told = ("pairs", "told.first", "told.second", "told.both", "same_order", "opposite_order")
    assert [row[name] for name in told] == [3, 3, 3, 3, 2, 1]
    pairs = pairs_data(found)
    assert list(pairs["order"]) == ["opposite", "same", "same"]
    assert list(pairs.iloc[0][["arm", "other"]]) == ["+within", "+across"]  # better in the first
    assert pairs.iloc[0]["difference.first"] == pytest.approx(0.10)
    assert pairs.iloc[0]["difference.second"] == pytest.approx(-0.14)
    (table,) = pairs_tables(found).values()
    assert [column.title for column in table.columns[2:4]] == ["in short", "in long"]
    limits = stats.ttest_rel(LONG["+within"], LONG["+across"]).confidence_interval(0.95)
    low, high = (f"{100 * abs(end):.1f}" for end in limits)
    assert table.rows[0][3] == f"\N{MINUS SIGN}14.0 AP\n[\N{MINUS SIGN}{low}, \N{MINUS SIGN}{high}]"


def test_the_words_say_who_wins_and_what_changed(tmp_path):
    assert words(compared(*short_and_long(tmp_path))) == (
        "2 studies: short (pose estimation, AP) and long (pose estimation, AP). 3 arms are in "
        "both.\n\n"
        "The arm with the best mean is not the same in all: +within in short (told apart from all "
        "others) and +across in long (told apart from all others).\n\n"
        "short and long: Spearman's rho 0.50 [0.50, 0.50]; of 3 pairs of arms both tell 3 apart, 2 "
        "in the same order, 1 in the opposite.\n\n"
        "long minus short, seed by seed: +5.0 to +35.0 AP, shown for 3 of 3 arms."
    )


def test_differences_are_paired_by_seed_and_judged_as_one_table(tmp_path):
    longer = {**LONG, "final": [0.11, 0.10, 0.14]}
    third = {arm: [v - 0.01 * s for s, v in enumerate(each)] for arm, each in LONG.items()}
    runs = [make(tmp_path, n, v) for n, v in (("a", SHORT), ("b", longer), ("c", third))]
    data = changes_data(compared(*runs))
    assert list(zip(data["study"], data["arm"], strict=True)) == [
        (study, arm) for study in "bc" for arm in TABLE12
    ]
    assert set(data["minus"]) == {"a"}
    p = []
    for row, (study, arm) in zip(
        data.to_dict("records"), zip(data["study"], data["arm"], strict=True), strict=True
    ):
        test = stats.ttest_rel({"b": longer, "c": third}[study][arm], SHORT[arm])
        limits = test.confidence_interval(0.95)
        assert (row["t.low"], row["t.high"]) == pytest.approx((limits.low, limits.high))
        p.append(test.pvalue)
    assert list(data["p"]) == pytest.approx(p)
    assert list(data["p.table"]) == pytest.approx(multipletests(p, method="holm")[1])
    assert data["verdict"][0] == "not shown"


def test_seeds_that_only_one_study_has_pair_with_nothing(tmp_path):
    """Five seeds beside three, a failed trial, and an arm without any."""
    more = {"final": [0.2, 0.3, 0.4, 0.9, 0.9], "+across": [None, 0.5, 0.6, 0.9, 0.9]}
    found = compared(make(tmp_path, "a", SHORT), make(tmp_path, "b", more, seeds=5))
    data = changes_data(found).set_index("arm")
    assert list(data["n"]) == [3, 2, 0]
    assert data.loc["final", "difference"] == pytest.approx(0.19)
    assert data.loc["+across", "difference"] == pytest.approx((0.28 + 0.39) / 2)
    assert data.loc["+within", "verdict"] == "too few seeds"
    row = orders_data(found).iloc[0]
    # Of the two arms measured in both: seeds 0 to 2 of a; 1 to 4 of b.
    assert (row["arms"], row["seeds.first"], row["seeds.second"]) == (2, 3, 4)
    # a tells all three pairs apart, of which one is measured in b.
    assert (row["pairs"], row["told.first"], row["told.second"]) == (1, 1, 0)


def test_arms_without_a_seed_in_common_have_no_order(tmp_path):
    apart = {"final": [0.1, None], "+across": [None, 0.2]}
    found = compared(make(tmp_path, "a", apart, seeds=2), make(tmp_path, "b", LONG))
    assert orders_data(found)["spearman"].isna().all()
    said = "a and b: no rank correlation, since in one of them no seed has all 2 arms."
    assert said in words(found)


def test_a_single_seed_shows_nothing(tmp_path):
    one = {arm: values[:1] for arm, values in SHORT.items()}
    found = compared(make(tmp_path, "a", one, seeds=1), make(tmp_path, "b", LONG))
    assert set(changes_data(found)["verdict"]) == {"too few seeds"}
    assert "AP, with one seed, which cannot tell that from chance." in words(found)
    assert "+within in a (not told apart from final and +across)" in words(found)


def test_other_metrics_and_data_have_orders_but_no_differences(tmp_path):
    pose = make(tmp_path, "pose", SHORT)
    camvid = make(tmp_path, "camvid", LONG, metric="miou", **SEGMENTATION)
    data = {"kind": "synthetic_pose", "num_train": 99, "num_val": 8, "input_size": [64, 32]}
    other = make(tmp_path, "other", LONG, data=data, checksum="4567")
    found = compared(pose, camvid, other)
    assert found.left_out == {
        "camvid": "measures mIoU where pose measures AP",
        "other": "has other data than pose",
    }
    assert changes_data(found).empty
    assert list(orders_data(found)["spearman"]) == pytest.approx([0.5, 0.5, 1.0])
    assert means_figure(found) is None
    assert [list(trace.y) for trace in places_figure(found).data] == [
        [3, 3, 3],
        [2, 1, 1],
        [1, 2, 2],
    ]
    page = text_of(write_studies([pose, camvid, other], tmp_path / "out").read_text())
    assert "No differences for camvid, which measures mIoU where pose measures AP." in page
    assert "No differences for other, which has other data than pose." in page


def test_a_checksum_says_whether_data_is_the_same_and_without_one_the_settings(tmp_path):
    kind = {"kind": "synthetic_pose", "num_val": 8, "input_size": [64, 32]}
    runs = [
        make(tmp_path, name, SHORT, data=kind | {"num_train": number})
        for name, number in (("a", 64), ("b", 64), ("c", 65))
    ]
    moved = make(tmp_path, "d", SHORT, data=kind | {"num_train": 64}, checksum="4567")
    assert compared(*runs, moved).left_out == {"d": "has other data than a"}
    for run in runs:
        (run / "environment.json").unlink()
    assert compared(*runs).left_out == {"c": "has other data than a"}


def test_a_report_without_a_checksum_has_the_data_of_its_run(tmp_path):
    """Reports do not keep the folder that the data's folder lies in."""
    own, other = (make(tmp_path, name, SHORT, metric="miou", **SEGMENTATION) for name in "ab")
    for run in (own, other):
        (run / "environment.json").unlink()
    report = write_report(other, tmp_path / "sent" / "b").parent
    assert compared(own, report).left_out == {}
    moved = SEGMENTATION["data"] | {"root": "/home/somebody/cityscapes"}
    third = make(tmp_path, "c", SHORT, metric="miou", **{**SEGMENTATION, "data": moved})
    (third / "environment.json").unlink()
    assert compared(report, third).left_out == {"c": "has other data than b"}


def test_an_error_is_better_where_it_is_smaller(tmp_path):
    """The arms of an NME that are best by AP: the order is the same, though the numbers are not."""
    errors = {arm: [1 - value for value in values] for arm, values in SHORT.items()}
    faces = make(tmp_path, "faces", errors, metric="nme", **FACES)
    found = compared(make(tmp_path, "pose", SHORT), faces)
    row = orders_data(found).iloc[0]
    assert (row["spearman"], row["same_order"], row["opposite_order"]) == (1, 3, 0)
    pairs = pairs_data(found)
    assert (pairs["difference.first"] > 0).all()
    assert (pairs["difference.second"] < 0).all()
    assert places(found.shared["faces"]) == {"final": 3, "+across": 2, "+within": 1}
    assert scores(found.shared["faces"])["final"][0] == pytest.approx(-0.9)
    assert "is the same in all: +within in pose" in words(found)


def test_the_table_of_arms(tmp_path):
    found = compared(*short_and_long(tmp_path))
    table = arms_table(found)
    assert [column.title for column in table.columns] == ["Arm", "short", "long", "GMACs"]
    assert table.rows[0] == ["final", "11.0 ± 1.0 (3); 3", "16.0 ± 1.0 (3); 3", "0.02"]
    costs = make(tmp_path, "costs", LONG, objectives=["metrics.ap", "profile.params"])
    table = arms_table(compared(tmp_path / "runs" / "short", costs))
    notes = [(column.title, column.note) for column in table.columns[3:]]
    assert notes == [("GMACs", "in short"), ("Params", "in costs")]
    assert table.rows[1][3:] == ["0.021", "0.1"]


def test_arms_of_one_study_alone_are_listed(tmp_path):
    arms = {"+within": TABLE12["+within"], "own": {"final": False, "across": False}}
    other = make(tmp_path, "b", {"+within": [0.5, 0.6, 0.7], "own": [0.9] * 3}, arms=arms)
    found = compared(make(tmp_path, "a", SHORT), other)
    assert found.arms == ["+within"]
    assert found.alone == {"a": ["final", "+across"], "b": ["own"]}
    # One arm has no order; it is first among the shared ones, whatever else the studies have.
    assert orders_data(found)["spearman"].isna().all()
    assert places(found.shared["b"]) == {"+within": 1}
    said = words(found)
    assert "1 arm is in both, 3 in one alone." in said
    assert "+within in a (alone measured)" in said
    page = text_of(write_studies(sorted((tmp_path / "runs").iterdir()), tmp_path / "o").read_text())
    assert "a final, +across b own" in page


def test_studies_without_a_shared_arm(tmp_path):
    arms = {"own": TABLE12["+within"], "own too": TABLE12["final"]}
    other = make(tmp_path, "b", {"own": [0.5], "own too": [0.6]}, arms=arms)
    run = make(tmp_path, "a", SHORT)
    assert words(compared(run, other)).endswith(
        "No arm is in two of them, so there is nothing to compare."
    )
    page = text_of(write_studies([run, other], tmp_path / "out").read_text())
    assert "No arm is in two of these studies" in page
    assert "Do the orders agree?" not in page
    assert "What differs between the studies" in page
    assert (tmp_path / "out" / "table.csv").read_text().count("\n") == 1


def test_three_studies_share_arms_in_part(tmp_path):
    """An arm that two of three have is shared; n/a stands where the third has none."""
    arms = {name: TABLE12[name] for name in ("final", "+across")}
    found = compared(*short_and_long(tmp_path), make(tmp_path, "c", SHORT, arms=arms))
    assert found.arms == ["final", "+across", "+within"]
    assert arms_table(found).rows[2][3] == "n/a"
    assert list(orders_data(found)["arms"]) == [3, 2, 2]
    assert "3 arms are in two of them or more." in words(found)
    ends = [len(trace.x) for trace in places_figure(found).data]
    assert ends == [3, 3, 2]


def test_many_studies_are_summed_up(tmp_path):
    runs = [make(tmp_path, f"s{n}", SHORT if n % 2 else LONG) for n in range(4)]
    assert "Spearman's rho of 6 pairs of studies is 0.50 to 1.00." in words(compared(*runs))


def test_what_is_shown_stays_so_when_another_study_gets_its_first_results(tmp_path):
    a, b = make(tmp_path, "a", SHORT), make(tmp_path, "b", LONG)
    plan = {"train": {"steps": 30, "batch_size": 4, "lr": 0.001}}
    before = changes_data(compared(a, b, make(tmp_path, "c", {}, **plan)))
    after = changes_data(compared(a, b, make(tmp_path / "later", "c", SHORT, **plan)))
    assert list(before["study"]) == ["b"] * 3
    assert len(after) == 6
    assert list(before["p.table"]) == list(after[after["study"] == "b"]["p.table"])
    p = [stats.ttest_rel(LONG[arm], SHORT[arm]).pvalue for arm in SHORT]
    corrected = multipletests([*p, 1, 1, 1], method="holm")[1][:3]
    assert list(before["p.table"]) == pytest.approx(list(corrected))


def test_a_study_without_a_finished_trial_and_one_that_learnt_nothing(tmp_path):
    zero = {arm: [0.0, 0.0, 0.0] for arm in SHORT}
    runs = [make(tmp_path, "a", SHORT), make(tmp_path, "b", {}), make(tmp_path, "z", zero)]
    found = compared(*runs)
    assert found.left_out == {"b": "has no arm that is measured with a seed of a"}
    said = words(found)
    assert "In b no shared arm is measured yet." in said
    assert "Nothing was learnt in z." in said
    assert "a and z: no rank correlation, since all means of one are equal." in said
    page = text_of(write_studies(runs, tmp_path / "out").read_text())
    assert "18 of 27 trials complete" in page
    assert "No differences for b" in page


def test_nothing_was_measured_at_all(tmp_path):
    runs = [make(tmp_path, "a", {}), make(tmp_path, "b", {arm: [None] for arm in SHORT})]
    page = text_of(write_studies(runs, tmp_path / "out").read_text())
    assert "0 of 18 trials complete, 3 failed" in page
    assert "In a and b no shared arm is measured yet." in page


def test_matched_copies_and_adaptive_seeds(tmp_path):
    more = {"match": {"profile.macs": "reference"}}
    runs = [make(tmp_path, name, {}, **more) for name in "ab"]
    assert compared(*runs).arms == [
        "final", "final, matched", "+across", "+across, matched", "+within",
    ]  # fmt: skip
    values = {"final": [0.1] * 3, "+across": [0.5, 0.3] * 3, "+within": [0.4] * 6}
    adaptive = {"adaptive": {"most": 6, "step": 3}}
    run = make(tmp_path, "c", values, **adaptive)
    found = compared(make(tmp_path, "a", SHORT), run)
    assert list(changes_data(found)["n"]) == [3, 3, 3]
    assert studies_table(found).rows[1][4] == "3 to 6"
    page = write_studies([tmp_path / "runs" / "a", run], tmp_path / "out").read_text()
    assert "which these p values take no account of" in page


def test_arms_of_one_name_that_are_other_networks_are_told(tmp_path):
    base = {"width": 16, "num_modules": [1, 2, 2], "num_blocks": 2, "stage1_blocks": 1}
    wide = {"base": base, "vary": {"fusion": {"arms": TABLE12}}}
    found = compared(make(tmp_path, "a", SHORT), make(tmp_path, "b", LONG, space=wide))
    assert found.unlike == list(TABLE12)
    assert compared(*short_and_long(tmp_path)).unlike == []


SIZES = {name: {"data": {"num_train": number}} for name, number in (("few", 16), ("many", 64))}
BY_SIZE = {"few": [0.1, 0.12, 0.11], "many": [0.3, 0.31, 0.33]}


def by_size(folder, name, **study):
    return make(folder, name, BY_SIZE, arms={"w8": {"width": 8}}, variants=SIZES, **study)


def test_the_data_of_each_variant_decides_whether_arms_can_be_compared(tmp_path):
    kind = {"kind": "synthetic_pose", "num_val": 8, "input_size": [64, 32]}
    runs = [
        by_size(tmp_path, "a", data=kind | {"num_train": 32}),
        by_size(tmp_path, "b", data=kind | {"num_train": 48}),  # which no variant has
        by_size(tmp_path, "c", data=kind | {"num_train": 32, "num_val": 9}),
    ]
    for run in runs:
        (run / "environment.json").unlink()
    found = compared(*runs)
    assert found.left_out == {"c": "has other data than a"}
    assert [(change.study, change.arm) for change in found.changes] == [("b", "few"), ("b", "many")]
    for run, few in zip(runs, ("1", "2", "1"), strict=True):
        parts = {name: {"data": {"checksum": sum_}} for name, sum_ in (("few", few), ("many", "3"))}
        (run / "environment.json").write_text(json.dumps({"variants": parts}))
    assert compared(*runs).left_out == {"b": "has other data than a"}


def test_a_network_under_several_variants_is_no_one_network_of_a_search(tmp_path):
    search = make_search(tmp_path / "runs" / "search")
    space = {
        "base": {"num_modules": [1, 2, 2], "num_blocks": 2, "stage1_blocks": 1},
        "vary": {"width": {"choices": [8, 16]}},
    }
    values = {"width=8, few": [0.1], "width=8, many": [0.9]}
    grid = make(tmp_path, "grid", values, space=space, variants=SIZES)
    found = compared(search, grid)
    assert not found.by_network
    assert found.arms == []
    write_studies([search, grid], tmp_path / "out")


def test_the_head_of_an_arm_is_that_of_its_variant(tmp_path):
    heads = {name: {"task": {"head": name}} for name in ("v1", "v2")}
    base = {"num_modules": [1, 2, 2], "num_blocks": 1, "stage1_blocks": 1}
    arms = {"w8": {"width": 8}}
    one = make(tmp_path, "a", {}, arms=arms, variants=heads)
    wide = {"base": base, "vary": {"net": {"arms": {"w8": {"width": 12}}}}}
    two = make(tmp_path, "b", {}, space=wide, variants=heads)
    turned = {"v1": heads["v2"], "v2": heads["v1"]}
    assert compared(one, two).unlike == ["v1", "v2"]
    assert compared(one, make(tmp_path, "c", {}, arms=arms, variants=turned)).unlike == []


def test_settings_that_differ_and_no_others(tmp_path):
    train = {"steps": 90, "batch_size": 4, "lr": 0.001, "pretrained": "/home/somebody/w32.pth"}
    runs = [make(tmp_path, "a", SHORT, title="x"), make(tmp_path, "b", LONG, train=train)]
    out = tmp_path / "out"
    page = write_studies(runs, out).read_text()
    rows = (out / "table.md").read_text().partition("## Settings that differ")[2].split("##")[0]
    shown = [line.replace("\\", "") for line in rows.splitlines() if line.startswith("| ")]
    assert shown[2:] == ["| train.steps | 20 | 90 |", "| train.pretrained |  | w32.pth |"]
    assert "/home/somebody" not in page + rows
    table = differing_table({"a": {"x": {"y": 1}, "z": [1]}, "b": {"z": [1], "name": "b"}})
    assert table.rows == [["x.y", "1", "n/a"]]


def test_the_page_its_files_and_what_it_leaves_alone(tmp_path):
    runs = short_and_long(tmp_path)
    reports = tmp_path / "reports"
    write_report(runs[0], reports / "short")
    before = {file: file.read_bytes() for file in reports.rglob("*") if file.is_file()}
    page = write_studies(runs, reports / "short+long")
    assert {file.name for file in page.parent.iterdir()} == {
        *("index.html", "table.md", "table.tex", "table.csv", "orders.csv", "pairs.csv"),
        *("differences.csv", "studies.csv"),
    }
    assert all(file.read_bytes() == content for file, content in before.items())
    addresses = Page(page.read_text()).addresses
    assert "../short/index.html" in addresses
    assert "../long/index.html" not in addresses  # there is none
    shown = text_of(page.read_text())
    assert "hrnet-search report short long" in shown
    assert "18 of 18 trials complete" in shown
    rows = list(csv.DictReader((page.parent / "table.csv").open()))
    assert [(row["arm"], row["study"], row["place"]) for row in rows[:2]] == [
        ("final", "short", "3.0"),
        ("final", "long", "3.0"),
    ]
    assert [float(row["mean"]) for row in rows[:2]] == pytest.approx([0.11, 0.16])
    assert len(pd.read_csv(page.parent / "differences.csv")) == 3


def test_pages_may_share_plotlys_code(tmp_path):
    runs = short_and_long(tmp_path)
    page = write_studies(runs, tmp_path / "reports" / "short+long", shared=True).read_text()
    assert PLOTLY not in page
    assert (tmp_path / "reports" / "plotly.min.js").read_text() == PLOTLY


def test_hostile_names_stay_text(tmp_path):
    values = {arm: [0.1 + n, 0.2 + n, 0.4 + n] for n, arm in enumerate(HOSTILE)}
    bad = "<script>alert(2)<"
    runs = [make(tmp_path, name, values, arms=HOSTILE) for name in ("a", "b")]
    runs[1] = runs[1].rename(runs[1].with_name(bad))
    page = write_studies(runs, tmp_path / "out").read_text()
    assert "<script>alert" not in page
    # Plotly, the page's own, two figures.
    assert Page(page).tags.count("script") == 2 + 2
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert not any("<" in line for line in lines)


def test_many_arms_are_folded_and_the_best_are_drawn(tmp_path):
    space = {
        "base": {"num_modules": [1, 1, 1], "num_blocks": 1, "stage1_blocks": 1},
        "vary": {"width": {"low": 4, "high": 128, "step": 4}},
    }
    names = [f"width={width}" for width in range(4, 132, 4)]
    values = {name: [0.01 * n, 0.01 * n + 0.001] for n, name in enumerate(names)}
    runs = [make(tmp_path, name, values, space=space, seeds=2) for name in "ab"]
    found = compared(*runs)
    assert list(drawn(found)) == names[-12:]
    page = write_studies(runs, tmp_path / "out").read_text()
    assert "Shared arms: 32 rows" in page
    assert "Of 32 arms these are the 12 with the best mean place." in text_of(page)


# --- searches ------------------------------------------------------------------------------------


def test_networks_of_searches_belong_together_whatever_their_name(tmp_path):
    """The second space has `within` fixed, so that the same networks have other names."""
    vary = {"width": {"choices": [8, 16, 32]}}
    space = {"base": {"num_modules": [1, 2, 2], "num_blocks": 2, "stage1_blocks": 1}, "vary": vary}
    networks = [({"width": width}, values, early) for width, values, early in TWO]
    one = make_search(tmp_path / "one", ONE, name="one")
    two = make_search(tmp_path / "two", networks, name="two", space=space)
    found = compared(one, two)
    assert found.arms == ["width=8, within=true", "width=16, within=true"]
    assert found.alone["two"] == ["width=32"]
    page = text_of(write_studies([one, two], tmp_path / "out").read_text())
    assert "belong together if they are the same network" in page
    assert "GMACs against" not in page
    assert "% of the joint front's" in page


def test_searches_that_have_not_begun(tmp_path):
    runs = [make_search(tmp_path / name, [], name=name) for name in ("one", "two")]
    page = text_of(write_studies(runs, tmp_path / "out").read_text())
    assert "No network is in two of them" in page
    assert Path(tmp_path / "out" / "pairs.csv").exists()


# --- in a browser --------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("width", [1300, 390])
def test_the_page_draws_its_figures_and_does_not_scroll_sideways(tmp_path, chromium, width):
    page = write_studies(list(short_and_long(tmp_path)), tmp_path / "out")
    tab = chromium.new_page(viewport={"width": width, "height": 900})
    errors = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(page.as_uri())
    for name in ("means", "places"):
        tab.locator(f"#{name} .main-svg").first.wait_for()
    assert errors == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.close()
