"""Multiply-adds by part; expected numbers are worked out by hand or counted apart from it."""

import itertools
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_report import make_result, make_run, text_of

from hrnet_search.arch import hrnet
from hrnet_search.cost import cost
from hrnet_search.report import networks, parts, write_report
from hrnet_search.report.frame import Arm, read_run
from hrnet_search.result import Result
from hrnet_search.space import Space
from hrnet_search.study import load

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "spaces").glob("*.yaml")) + sorted((ROOT / "studies").glob("*.yaml"))


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr("hrnet_search.report.page.get_plotlyjs", lambda: "")


def test_parts_of_w32_are_the_sums_done_by_hand():
    found = parts.grouped(cost(hrnet(), head="v1", num_outputs=17, input_size=(256, 192)))
    assert list(found) == [
        *("stem", "stage 1", "branch 1/4", "branch 1/8", "branch 1/16", "branch 1/32"),
        *("fusion and transitions", "head"),
    ]
    quarter = 64 * 48
    assert found["stem"] == 27 * 64 * 128 * 96 + 9 * 64 * 64 * quarter
    assert found["head"] == 32 * 17 * quarter
    # Of n modules with four units of two 3x3 convolutions; half the height and width, twice the
    # channels, so as many multiply-adds.
    unit = 4 * 2 * 9 * 32 * 32 * quarter
    assert found["branch 1/4"] == 8 * unit
    assert found["branch 1/8"] == 8 * unit
    assert found["branch 1/16"] == 7 * unit
    assert found["branch 1/32"] == 3 * unit
    bottleneck = (64 * 64 + 9 * 64 * 64 + 64 * 256, 256 * 64 + 9 * 64 * 64 + 64 * 256)
    assert found["stage 1"] == (bottleneck[0] + 64 * 256 + 3 * bottleneck[1]) * quarter
    assert sum(found.values()) == 7_645_003_776  # the official code's


def test_a_fusion_by_concatenation_mixes_in_the_fusion_unit():
    """Its 1x1 convolution belongs to no branch's units."""
    spec, like = hrnet(width=8, fuse="concat"), hrnet(width=8)
    found, other = (
        parts.grouped(cost(one, head="v1", num_outputs=17, input_size=(64, 64)))
        for one in (spec, like)
    )
    fusion = parts.FUSION
    assert {n: m for n, m in found.items() if n != fusion} == {
        n: m for n, m in other.items() if n != fusion
    }
    assert found[fusion] > other[fusion]


def drawn(space):
    """All its combinations, or 200 of many."""
    if space.size <= 200:
        names = list(space.vary)
        every = itertools.product(*(knob.values() for knob in space.vary.values()))
        return [dict(zip(names, values, strict=True)) for values in every]
    return list(itertools.islice(space.draws(random.Random(0)), 200))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_the_parts_of_all_that_is_shipped_add_up(file):
    loaded = load(file)
    if isinstance(loaded, Space):
        specs = [(loaded.arch(params), "v2") for params in drawn(loaded)]
    else:
        specs = [
            (loaded.network(params), loaded.under(params).task.head)
            for params in (loaded.arms() if loaded.search.is_grid else drawn(loaded.space))
        ]
    for spec, head in specs:
        if not hasattr(spec, "stages"):
            continue  # a rival
        counted = cost(spec, head=head, num_outputs=7, input_size=(128, 96))
        assert sum(parts.grouped(counted).values()) == counted.macs


def test_the_page_and_the_record_have_the_same_sum(tmp_path):
    run = read_run(make_run(tmp_path / "run", rivals=["simple_baseline_resnet50"]))
    for arm in run.arms[:-1]:
        params = next(p for p in run.study.arms() if run.study.arm(p) == arm.name)
        assert sum(parts.parts_of(run, arm).values()) == run.study.costs(params)["profile.macs"]
    assert parts.parts_of(run, run.arms[-1]) == {}  # without a record nothing is known of it
    text = text_of(write_report(tmp_path / "run", tmp_path / "out").read_text())
    assert "Where multiply-adds arise" in text


def test_a_rival_is_one_part(tmp_path):
    values = {"final": [0.1], "simple_baseline_resnet50": [0.2]}
    rivals = ["simple_baseline_resnet50"]
    run = read_run(make_run(tmp_path / "run", values=values, rivals=rivals))
    assert parts.parts_of(run, run.arms[-1]) == {"whole network": 23_000_000}  # its record's


def test_a_detector_is_what_the_record_has_beyond_the_maps(tmp_path):
    from hrnet_search.detectors.pyramid import HRPyramid
    from hrnet_search.model import build
    from hrnet_search.profiling.detectors import pyramid_cost

    study = load(ROOT / "studies" / "detection_fusion_ablation.yaml")
    params = study.arms()[0]
    spec, head = study.network(params), study.task.head
    net = build(spec, head=head, num_outputs=study.head_outputs)
    backbone = pyramid_cost(HRPyramid(net), study.input_size)[0]  # torch's count
    counted = cost(spec, head=head, num_outputs=study.head_outputs, input_size=study.input_size)
    found = parts.grouped(counted, parts.NECK)
    assert sum(found.values()) == backbone
    assert list(found)[-1] == "neck"
    for beyond in (1_000_000, 0):
        result = make_result(study, params, 0, 0, 0.5, trial=0)
        result["profile"]["macs"] = backbone + beyond
        arm = Arm(
            name=study.arm(params),
            arguments={},
            network=spec,
            results=(Result.from_dict(result),),
            paper=None,
            matched=False,
            variant="",
        )
        run = SimpleNamespace(study=study)  # all that is asked of it
        rest = {"detector": beyond} if beyond else {}
        assert parts.parts_of(run, arm) == found | rest


def test_the_bars_are_those_of_the_networks_drawn(tmp_path, monkeypatch):
    run = read_run(make_run(tmp_path / "run"))
    shown = networks.of_grid(run, None)
    data = parts.parts_data(run, shown)
    assert list(dict.fromkeys(data["network"])) == [one.name for one in shown.shown]
    figure, table = parts.figure(data), parts.table(run, data)
    for row, arm in enumerate(run.arms):
        bars = [dict(zip(trace.y, trace.x, strict=True)).get(row, 0) for trace in figure.data]
        own = parts.parts_of(run, arm)
        assert sum(bars) == pytest.approx(sum(own.values()) / 1e9)
        shares = [float(cell) for cell in table.rows[row][2:] if cell]
        assert sum(shares) == pytest.approx(100, abs=0.5)
    monkeypatch.setattr(parts, "MAX_ROWS", 2)
    assert len(set(parts.parts_data(run, shown)["network"])) == 2
