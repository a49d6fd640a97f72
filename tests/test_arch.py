"""The plain description of a network: expansion of its few numbers, rules, round trips."""

import dataclasses
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_networks import draw_network

from hrnet_search.arch import ArchSpec, ModuleSpec, StageSpec, edge_set, hrnet
from hrnet_search.errors import InputError

counts = st.integers(1, 5)
per_stage = counts | st.lists(counts, min_size=3, max_size=4)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "width": st.integers(1, 300) | st.lists(st.integers(1, 300), min_size=3, max_size=5),
        "num_stages": st.integers(2, 4),
        "num_modules": per_stage,
        "num_blocks": per_stage,
        "stage1_blocks": counts,
        "stage1_width": st.integers(1, 300),
        "stem_width": st.integers(1, 300),
        "within": st.booleans(),
        "across": st.booleans(),
        "final": st.booleans(),
        "upsample": st.sampled_from(["nearest", "bilinear"]),
        "align_corners": st.booleans(),
    },
)


@pytest.mark.parametrize(
    ("final", "across", "within", "fusions"),
    [
        (True, False, False, 1),  # Table 12 (a)
        (True, True, False, 3),  # (b)
        (True, True, True, 8),  # (c)
        (False, False, False, 0),
        (False, True, True, 7),
        (False, False, True, 5),
    ],
)
def test_fusion_counts_are_those_of_table_12(
    final: bool, across: bool, within: bool, fusions: int
) -> None:
    assert hrnet(final=final, across=across, within=within).num_fusions == fusions


def placed(spec: ArchSpec) -> list[tuple[bool, ...]]:
    """Stage by stage, which modules end in a fusion unit."""
    return [tuple(bool(module.edges) for module in stage.modules) for stage in spec.stages]


def blocks(spec: ArchSpec) -> list[list[tuple[int, ...]]]:
    return [[module.num_blocks for module in stage.modules] for stage in spec.stages]


def test_each_flag_removes_the_units_of_its_places() -> None:
    def fusions(**flags: bool) -> list[tuple[bool, ...]]:
        return placed(hrnet(**flags))

    off = {"final": False, "across": False, "within": False}
    inside = [(False,), (True, True, True, False), (True, True, False)]
    between = [(True,), (False, False, False, True), (False, False, False)]
    last = [(False,), (False,) * 4, (False, False, True)]
    assert fusions(**off | {"within": True}) == inside
    assert fusions(**off | {"across": True}) == between
    assert fusions(**off | {"final": True}) == last


def test_the_default_is_w32_of_the_paper() -> None:
    spec = hrnet()
    assert spec.channels == (32, 64, 128, 256)
    assert spec.strides == (4, 8, 16, 32)
    assert (spec.stem_channels, spec.stage1_blocks, spec.stage1_channels) == (64, 4, 64)
    assert [stage.num_modules for stage in spec.stages] == [1, 4, 3]
    assert [stage.num_branches for stage in spec.stages] == [2, 3, 4]
    assert blocks(spec) == [[(4,) * 2], [(4,) * 3] * 4, [(4,) * 4] * 3]
    assert [s.num_channels for s in spec.stages[:2]] == [(32, 64), (32, 64, 128)]
    assert (spec.upsample, spec.align_corners, spec.bn_momentum) == ("nearest", False, 0.1)
    assert (spec.unit, spec.fuse, spec.projection) == ("basic", "sum", "before")
    assert (spec.downsample, spec.output_branch, spec.output_bias) == ("strided_conv", 0, True)


@pytest.mark.parametrize(
    ("num_stages", "channels", "strides"),
    [(2, (18, 36), (4, 8)), (3, (18, 36, 72), (4, 8, 16)), (4, (18, 36, 72, 144), (4, 8, 16, 32))],
)
def test_widths_and_strides_double_per_branch(
    num_stages: int, channels: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    spec = hrnet(width=18, num_stages=num_stages)
    assert (spec.channels, spec.strides) == (channels, strides)
    assert len(spec.stages) == num_stages - 1


def test_lists_give_one_entry_per_stage() -> None:
    spec = hrnet(width=[8, 12, 16], num_modules=[1, 2, 3], num_blocks=[4, 3, 2])
    assert [s.num_channels for s in spec.stages] == [(8, 16), (12, 24, 48), (16, 32, 64, 128)]
    assert [s.num_modules for s in spec.stages] == [1, 2, 3]
    assert blocks(spec) == [[(4, 4)], [(3, 3, 3)] * 2, [(2, 2, 2, 2)] * 3]


def test_one_number_stands_for_all_stages() -> None:
    assert hrnet(width=8, num_modules=2, num_blocks=3) == hrnet(
        width=(8, 8, 8), num_modules=(2, 2, 2), num_blocks=(3, 3, 3)
    )


def test_entries_of_stages_that_do_not_exist_are_left_out() -> None:
    short = hrnet(num_stages=2, width=[8], num_modules=[2], num_blocks=[1])
    long = hrnet(num_stages=2, width=[8, 9, 10, 11], num_modules=[2, 3, 4], num_blocks=[1, 5, 5])
    assert short == long
    assert short.key == long.key


def test_the_last_stage_has_the_final_fusion_whatever_the_number_of_stages() -> None:
    spec = hrnet(num_stages=3, final=False)
    assert placed(spec) == [(True,), (True, True, True, False)]


def test_lists_in_lists_give_one_entry_per_branch() -> None:
    spec = hrnet(width=[[5, 6], [7, 8, 9], 4], num_blocks=[[0, 1], 2, [3, 2, 1, 0]], num_modules=1)
    assert [s.num_channels for s in spec.stages] == [(5, 6), (7, 8, 9), (4, 8, 16, 32)]
    assert blocks(spec) == [[(0, 1)], [(2, 2, 2)], [(3, 2, 1, 0)]]


def test_surplus_entries_of_branches_and_modules_are_left_out() -> None:
    short = hrnet(num_stages=2, width=[[5, 6]], num_blocks=[[1, 2]], edges=[["all"]])
    long = hrnet(
        num_stages=2, width=[[5, 6, 7, 8]], num_blocks=[[1, 2, 3]], edges=[["all", "none"]]
    )
    assert short == long


def test_width_ratios_are_rounded_and_at_least_one() -> None:
    spec = hrnet(width=18, width_ratios=(1, 1.5, 0.01, 4))
    assert spec.channels == (18, 27, 1, 72)


@pytest.mark.parametrize(
    ("num_branches", "branches"),
    [
        (4, (4, 4, 4)),  # all resolutions from the start
        (1, (1, 1, 1)),  # the high resolution alone, section 7
        ([1, 2, 6], (1, 2, 6)),
        ([2, 3, 3, 6], (2, 3, 3)),
    ],
)
def test_stages_have_the_branches_that_are_asked_for(
    num_branches: Any, branches: tuple[int, ...]
) -> None:
    spec = hrnet(num_branches=num_branches)
    assert tuple(stage.num_branches for stage in spec.stages) == branches
    assert spec.strides == (4, 8, 16, 32, 64, 128)[: branches[-1]]


@pytest.mark.parametrize("num_stages", range(2, 9))
def test_eight_stages_with_six_branches_are_the_most(num_stages: int) -> None:
    spec = hrnet(num_stages=num_stages, num_modules=1)
    assert [stage.num_branches for stage in spec.stages] == [2, 3, 4, 5, 6, 6, 6][: num_stages - 1]


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("all", {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}),
        ("neighbours", {(0, 1), (1, 0), (1, 2), (2, 1)}),
        ("high_to_low", {(0, 1), (0, 2), (1, 2)}),
        ("low_to_high", {(1, 0), (2, 0), (2, 1)}),
        ("none", set()),
        ("2>0", {(2, 0)}),
        ("1>0 0>1 1>0", {(0, 1), (1, 0)}),
    ],
)
def test_sets_of_edges_are_those_of_their_name(name: str, pairs: set[tuple[int, int]]) -> None:
    assert edge_set(name, 3) == tuple(sorted(pairs))


def test_edges_are_given_for_all_per_stage_or_per_module() -> None:
    spec = hrnet(num_modules=(1, 2, 1), edges=["1>0", ["0>2", "neighbours"], "none"])
    edges = [[module.edges for module in stage.modules] for stage in spec.stages]
    assert edges == [[((1, 0),)], [((0, 2),), ((0, 1), (1, 0), (1, 2), (2, 1))], [()]]


@pytest.mark.parametrize(
    ("task", "choices"),
    [  # official code: pose_hrnet.py, cls_hrnet.py, seg_hrnet.py, seg_hrnet_ocr.py, hrnet.py
        ("pose", ("nearest", 0.1)),
        ("classification", ("nearest", 0.1)),
        ("segmentation", ("bilinear", 0.01)),
        ("segmentation_ocr", ("bilinear", 0.1)),
        ("detection", ("nearest", 0.1)),
    ],
)
def test_a_task_has_its_official_defaults(task: str, choices: tuple[str, float]) -> None:
    spec = hrnet(task=task)
    assert (spec.upsample, spec.bn_momentum) == choices
    assert spec.align_corners is (task == "segmentation_ocr")
    told = hrnet(task=task, upsample="bilinear", align_corners=False, bn_momentum=1)
    assert (told.upsample, told.align_corners, told.bn_momentum) == ("bilinear", False, 1.0)


@given(arguments)
def test_a_spec_survives_json(given_arguments: dict[str, Any]) -> None:
    assert_survives_json(hrnet(**given_arguments))


@given(st.randoms(use_true_random=False))
def test_a_spec_of_any_options_survives_json(rng: random.Random) -> None:
    assert_survives_json(draw_network(rng).spec)


def assert_survives_json(spec: ArchSpec) -> None:
    again = ArchSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.key == spec.key
    assert hash(again) == hash(spec)


@given(arguments, arguments)
def test_keys_are_equal_exactly_where_specs_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = hrnet(**one), hrnet(**other)
    assert (first.key == second.key) == (first == second)


@given(arguments)
def test_channels_strides_and_fusions_follow_from_the_arguments(given: dict[str, Any]) -> None:
    spec = hrnet(**given)
    stages = given.get("num_stages", 4)
    width = given.get("width", 32)
    last_width = width if isinstance(width, int) else width[stages - 2]
    assert spec.channels == tuple(last_width * 2**r for r in range(stages))
    assert spec.strides == tuple(2 ** (r + 2) for r in range(stages))
    total = sum(stage.num_modules for stage in spec.stages)
    kept = (
        given.get("final", True)
        + given.get("across", True) * (stages - 2)
        + given.get("within", True) * (total - (stages - 1))
    )
    assert spec.num_fusions == kept


COUNT = "must be a whole number of at least 1"
BLOCKS = "must be a whole number of at least 0"  # units of a branch: none passes its map on
SIZED = ("width", "num_modules", "num_branches", "stage1_blocks", "stage1_width", "stem_width")
NOT_COUNTS = [0, -3, True, 2.0, "8", None, float("nan")]


def refusal(make: Callable[[], object]) -> InputError:
    with pytest.raises(InputError) as caught:
        make()
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
def test_sizes_must_be_counts(name: str, value: object) -> None:
    error = refusal(lambda: hrnet(**{name: value}))
    assert str(error) == f"{name}: {value!r}: {COUNT}"


@pytest.mark.parametrize("name", ["width", "num_modules"])
@pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
def test_entries_of_lists_must_be_counts(name: str, value: object) -> None:
    assert str(refusal(lambda: hrnet(**{name: [8, value, 8]}))) == f"{name}: {value!r}: {COUNT}"


@pytest.mark.parametrize("value", NOT_COUNTS[1:], ids=repr)
def test_numbers_of_units_must_be_counts_or_zero(value: object) -> None:
    for entry in (value, [4, value, 4], [4, [4, value, 4], 4]):
        error = refusal(lambda entry=entry: hrnet(num_blocks=entry))
        assert str(error) == f"num_blocks: {value!r}: {BLOCKS}"


@pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
def test_widths_of_branches_must_be_counts(value: object) -> None:
    error = refusal(lambda: hrnet(width=[8, [8, value, 8], 8]))
    assert str(error) == f"width: {value!r}: {COUNT}"


@pytest.mark.parametrize("name", ["within", "across", "final", "align_corners", "output_bias"])
@pytest.mark.parametrize("value", [1, 0, "yes", None], ids=repr)
def test_flags_must_be_booleans(name: str, value: object) -> None:
    if name == "align_corners" and value is None:  # the task's own
        assert hrnet(align_corners=None) == hrnet()
        return
    error = refusal(lambda: hrnet(**{name: value}))
    assert str(error) == f"{name}: {value!r}: must be true or false"


STAGES = "the number of stages must be 2 to 8"
SETS = "must be one of all, neighbours, high_to_low, low_to_high, none"
PAIRS = f"{SETS}, or pairs such as '3>2 2>1'"
SHRINK = "must not shrink from stage to stage, and be at most 6"
RATIOS = "must be numbers above 0 and at most 10000"
TASKS = "must be one of pose, classification, segmentation, segmentation_ocr, detection"
MULTIPLE = "must be a multiple of 4 in branches of bottleneck units"
MOMENTUM = "must be a number above 0 and at most 1"
CHOICE = "must be one of nearest, bilinear"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"num_modules": 10**20}, f"num_modules: {10**20}: must be at most 10000"),
        ({"num_modules": [1, 101, 1]}, "num_modules: 101: must be at most 100"),
        ({"stage1_blocks": 101}, "stage1_blocks: 101: must be at most 100"),
        ({"width": [8, 8, 10_001]}, "width: 10001: must be at most 10000"),
        ({"num_stages": 9}, f"num_stages: 9: {STAGES}"),
        ({"num_stages": 1}, f"num_stages: 1: {STAGES}"),
        ({"num_stages": True}, "num_stages: True: must be a whole number"),
        ({"num_stages": 3.0}, "num_stages: 3.0: must be a whole number"),
        ({"upsample": "biliner"}, f"upsample: 'biliner': {CHOICE}; did you mean 'bilinear'?"),
        ({"upsample": "neares"}, f"upsample: 'neares': {CHOICE}; did you mean 'nearest'?"),
        ({"upsample": "cubic"}, f"upsample: 'cubic': {CHOICE}"),
        ({"upsample": ["nearest"]}, f"upsample: ['nearest']: {CHOICE}; did you mean 'nearest'?"),
        (
            {"width": [8, 16]},
            "width: [8, 16]: must be one value or a list with an entry for each of 3 stages",
        ),
        (
            {"num_modules": [], "num_stages": 2},
            "num_modules: []: must be one value or a list with an entry for each of 1 stages",
        ),
        (
            {"width": [8, [8, 16], 8]},
            "width: [8, 16]: must be a number or a list with one for each of 3 branches",
        ),
        (
            {"num_blocks": [[4], 4, 4]},
            "num_blocks: [4]: must be a number or a list with one for each of 2 branches",
        ),
        ({"num_blocks": 10_001}, "num_blocks: 10001: must be at most 10000"),
        ({"num_branches": [2, 1, 4]}, f"num_branches: [2, 1, 4]: {SHRINK}"),
        ({"num_branches": 7}, f"num_branches: 7: {SHRINK}"),
        (
            {"width_ratios": 2},
            "width_ratios: 2: must be a list with a number for each of 4 branches",
        ),
        (
            {"width_ratios": [1, 2, 4]},
            "width_ratios: [1, 2, 4]: must be a list with a number for each of 4 branches",
        ),
        ({"width_ratios": [1, 0, 4, 8]}, f"width_ratios: 0: {RATIOS}"),
        ({"width_ratios": [1, True, 4, 8]}, f"width_ratios: True: {RATIOS}"),
        ({"width_ratios": [1, float("nan"), 4, 8]}, f"width_ratios: nan: {RATIOS}"),
        ({"width_ratios": [1, float("inf"), 4, 8]}, f"width_ratios: inf: {RATIOS}"),
        ({"edges": "neighbors"}, f"edges: 'neighbors': {PAIRS}; did you mean 'neighbours'?"),
        ({"edges": ""}, f"edges: '': {SETS}"),
        ({"edges": "0>1>2"}, f"edges: '0>1>2': {PAIRS}"),
        ({"edges": "1>"}, f"edges: '1>': {PAIRS}"),
        ({"edges": 3}, "edges: 3: must be a set of edges or a list with one for each of 1 modules"),
        (
            {"edges": ["all", ["all"], "all"]},
            "edges: ['all']: must be a set of edges or a list with one for each of 4 modules",
        ),
        ({"edges": [[3], "all", "all"]}, f"edges: 3: {PAIRS}"),
        (
            {"edges": "3>2"},
            "edges: '3>2': must join two different branches; 2 here, 0 to 1",
        ),
        (
            {"edges": "1>1"},
            "edges: '1>1': must join two different branches; 2 here, 0 to 1",
        ),
        ({"task": "pos"}, f"task: 'pos': {TASKS}; did you mean 'pose'?"),
        (
            {"fuse": "summ"},
            "fuse: 'summ': must be one of sum, multiply, concat, weighted; did you mean 'sum'?",
        ),
        (
            {"unit": "bottelneck"},
            "unit: 'bottelneck': must be one of basic, bottleneck; did you mean 'bottleneck'?",
        ),
        (
            {"projection": "befor"},
            "projection: 'befor': must be one of before, after; did you mean 'before'?",
        ),
        (
            {"downsample": "avgpool"},
            "downsample: 'avgpool': must be one of strided_conv, bilinear, avg_pool; "
            "did you mean 'avg_pool'?",
        ),
        ({"unit": "bottleneck", "width": 18}, f"width: 18: {MULTIPLE}"),
        ({"bn_momentum": 0}, f"bn_momentum: 0: {MOMENTUM}"),
        ({"bn_momentum": 1.5}, f"bn_momentum: 1.5: {MOMENTUM}"),
        ({"bn_momentum": float("nan")}, f"bn_momentum: nan: {MOMENTUM}"),
        ({"bn_momentum": True}, f"bn_momentum: True: {MOMENTUM}"),
        ({"output_branch": -1}, "output_branch: -1: must be a whole number of at least 0"),
        (
            {"output_branch": 4},
            "output_branch: 4: must be a branch of the last stage (0 to 3)",
        ),
    ],
)
def test_other_refusals_name_key_value_and_rule(given: dict[str, Any], text: str) -> None:
    assert str(refusal(lambda: hrnet(**given))) == text


def tiny() -> dict[str, Any]:
    return hrnet(width=4, num_stages=2, num_modules=1).to_dict()


def changed(**fields: object) -> dict[str, Any]:
    return {**tiny(), **fields}


def with_stage(**fields: object) -> dict[str, Any]:
    return changed(stages=[{**tiny()["stages"][0], **fields}])


def with_module(**fields: object) -> dict[str, Any]:
    return with_stage(modules=[{**tiny()["stages"][0]["modules"][0], **fields}])


def one_branch() -> dict[str, Any]:
    return {"num_channels": [4], "modules": [{"num_blocks": [4], "edges": []}]}


def without(data: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(ArchSpec)])
def test_from_dict_refuses_a_missing_field(field: str) -> None:
    error = refusal(lambda: ArchSpec.from_dict(without(tiny(), field)))
    assert str(error) == f"{field}: is missing"


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(StageSpec)])
def test_from_dict_refuses_a_missing_field_of_a_stage(field: str) -> None:
    stage = without(tiny()["stages"][0], field)
    error = refusal(lambda: ArchSpec.from_dict(changed(stages=[stage])))
    assert str(error) == f"stages.0.{field}: is missing"


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(ModuleSpec)])
def test_from_dict_refuses_a_missing_field_of_a_module(field: str) -> None:
    module = without(tiny()["stages"][0]["modules"][0], field)
    error = refusal(lambda: ArchSpec.from_dict(with_stage(modules=[module])))
    assert str(error).endswith(f"{field}: is missing")


MAPPING = "must be a mapping of fields to values"
BETWEEN = "must be two different branches of 0 to 1"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (changed(upsampel="nearest"), "upsampel: unknown field; did you mean 'upsample'?"),
        (with_stage(module=[]), "stages.0.module: unknown field; did you mean 'modules'?"),
        (with_module(edge=[]), "stages.0.modules.0.edge: unknown field; did you mean 'edges'?"),
        (changed(stages={}), "stages: {}: must be a list"),
        (changed(stages="abc"), "stages: 'abc': must be a list"),
        (changed(stages=[3]), f"stages.0: 3: {MAPPING}"),
        (changed(stages=[]), f"stages: 1: {STAGES}"),
        (with_stage(modules=True), "stages.0.modules: True: must be a list"),
        (with_stage(modules=[]), "stages.0.modules: []: must have at least one module"),
        (with_stage(modules=[4]), f"stages.0.modules.0: 4: {MAPPING}"),
        (with_module(num_blocks=4), "stages.0.modules.0.num_blocks: 4: must be a list"),
        (with_module(num_blocks=[4, -1]), f"stages.0.modules.0.num_blocks: -1: {BLOCKS}"),
        (
            with_module(num_blocks=[4], edges=[]),
            "stages.0.modules.num_blocks: [4]: must have one entry per branch (2)",
        ),
        (with_module(edges=True), "stages.0.modules.0.edges: True: must be a list"),
        (with_module(edges=[3]), "stages.0.modules.0.edges: 3: must be a list"),
        (with_module(edges=[[0, 2]]), f"stages.0.modules.0.edges: (0, 2): {BETWEEN}"),
        (with_module(edges=[[1, 1]]), f"stages.0.modules.0.edges: (1, 1): {BETWEEN}"),
        (with_module(edges=[[0, True]]), f"stages.0.modules.0.edges: (0, True): {BETWEEN}"),
        (with_module(edges=[[0]]), f"stages.0.modules.0.edges: (0,): {BETWEEN}"),
        (
            with_module(edges=[[0, 1], [0, 1]]),
            "stages.0.modules.0.edges: [(0, 1), (0, 1)]: must not repeat a pair",
        ),
        (
            with_stage(num_channels=[4, True]),
            "stages.0.num_channels: True: must be a whole number of at least 0",
        ),
        (
            with_stage(num_channels=[4, 0]),
            "stages.0.modules.num_blocks: [4, 4]: must be 0 for branch 1, which has no channels",
        ),
        (
            with_stage(num_channels=[]),
            "stages.0.num_channels: []: must have 1 to 6 branches",
        ),
        (
            changed(stages=[tiny()["stages"][0], one_branch()]),
            "stages: [4]: stage 3 must have at least the 2 branches before it",
        ),
        (changed(stem_channels=0), f"stem_channels: 0: {COUNT}"),
        (changed(stage1_blocks=1.5), f"stage1_blocks: 1.5: {COUNT}"),
        (changed(stage1_channels="64"), f"stage1_channels: '64': {COUNT}"),
        (changed(align_corners=0), "align_corners: 0: must be true or false"),
        (changed(output_bias=None), "output_bias: None: must be true or false"),
        (changed(upsample=None), f"upsample: None: {CHOICE}"),
        (changed(bn_momentum="0.1"), f"bn_momentum: '0.1': {MOMENTUM}"),
        (changed(output_branch=2), "output_branch: 2: must be a branch of the last stage (0 to 1)"),
        (with_stage(num_channels=[4, 6]) | {"unit": "bottleneck"}, f"stages: 6: {MULTIPLE}"),
    ],
)
def test_from_dict_refuses_what_breaks_a_rule(data: dict[str, Any], text: str) -> None:
    assert str(refusal(lambda: ArchSpec.from_dict(data))) == text


@pytest.mark.parametrize("data", [[], "spec", None, 3])
def test_from_dict_refuses_what_is_no_mapping(data: Any) -> None:
    error = refusal(lambda: ArchSpec.from_dict(data))
    assert str(error) == f"{data!r}: {MAPPING}"


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        hrnet().upsample = "bilinear"  # type: ignore[misc]
