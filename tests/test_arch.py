"""The plain description of a network: expansion of its few numbers, rules, round trips."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrnet_search.arch import ArchSpec, StageSpec, hrnet
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


def test_each_flag_removes_the_units_of_its_places() -> None:
    def fusions(**flags: bool) -> list[tuple[bool, ...]]:
        return [stage.fusions for stage in hrnet(**flags).stages]

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
    assert [stage.num_blocks for stage in spec.stages] == [(4,) * 2, (4,) * 3, (4,) * 4]
    assert [s.num_channels for s in spec.stages[:2]] == [(32, 64), (32, 64, 128)]
    assert (spec.upsample, spec.align_corners) == ("nearest", False)


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
    assert [s.num_blocks for s in spec.stages] == [(4, 4), (3, 3, 3), (2, 2, 2, 2)]


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
    assert [stage.fusions for stage in spec.stages] == [(True,), (True, True, True, False)]


@given(arguments)
def test_a_spec_survives_json(given_arguments: dict[str, Any]) -> None:
    spec = hrnet(**given_arguments)
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
SIZED = ("width", "num_modules", "num_blocks", "stage1_blocks", "stage1_width", "stem_width")
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


@pytest.mark.parametrize("name", ["width", "num_modules", "num_blocks"])
@pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
def test_entries_of_lists_must_be_counts(name: str, value: object) -> None:
    assert str(refusal(lambda: hrnet(**{name: [8, value, 8]}))) == f"{name}: {value!r}: {COUNT}"


@pytest.mark.parametrize("name", ["within", "across", "final", "align_corners"])
@pytest.mark.parametrize("value", [1, 0, "yes", None], ids=repr)
def test_flags_must_be_booleans(name: str, value: object) -> None:
    error = refusal(lambda: hrnet(**{name: value}))
    assert str(error) == f"{name}: {value!r}: must be true or false"


STAGES = "the number of stages must be 2 to 4"
CHOICE = "must be one of nearest, bilinear"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"num_modules": 10**20}, f"num_modules: {10**20}: must be at most 10000"),
        ({"width": [8, 8, 10_001]}, "width: 10001: must be at most 10000"),
        ({"num_stages": 7}, f"num_stages: 7: {STAGES}"),
        ({"num_stages": 1}, f"num_stages: 1: {STAGES}"),
        ({"num_stages": True}, "num_stages: True: must be a whole number"),
        ({"num_stages": 3.0}, "num_stages: 3.0: must be a whole number"),
        ({"upsample": "biliner"}, f"upsample: 'biliner': {CHOICE}; did you mean 'bilinear'?"),
        ({"upsample": "neares"}, f"upsample: 'neares': {CHOICE}; did you mean 'nearest'?"),
        ({"upsample": "cubic"}, f"upsample: 'cubic': {CHOICE}"),
        ({"upsample": ["nearest"]}, f"upsample: ['nearest']: {CHOICE}; did you mean 'nearest'?"),
        (
            {"width": [8, 16]},
            "width: [8, 16]: must be a number or a list with an entry for each of 3 stages",
        ),
        (
            {"num_modules": [], "num_stages": 2},
            "num_modules: []: must be a number or a list with an entry for each of 1 stages",
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


def without(data: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(ArchSpec)])
def test_from_dict_refuses_a_missing_field(field: str) -> None:
    error = refusal(lambda: ArchSpec.from_dict(without(tiny(), field)))
    assert str(error) == f"{field}: is missing"


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(StageSpec)])
def test_from_dict_refuses_a_missing_field_of_a_stage(field: str) -> None:
    stage = without(tiny()["stages"][0], field)
    assert f"{field}: is missing" in str(
        refusal(lambda: ArchSpec.from_dict(changed(stages=[stage])))
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (changed(upsampel="nearest"), "upsampel: unknown field; did you mean 'upsample'?"),
        (with_stage(fusion=[True]), "fusion: unknown field; did you mean 'fusions'?"),
        (changed(stages={}), "stages: {}: must be a list of stages"),
        (changed(stages="abc"), "stages: 'abc': must be a list of stages"),
        (changed(stages=[3]), "stages: [3]: must be a list of stages"),
        (changed(stages=[]), f"stages: 1: {STAGES}"),
        (with_stage(fusions=True), "stages.fusions: True: must be a list"),
        (with_stage(num_blocks=4), "stages.num_blocks: 4: must be a list"),
        (with_stage(fusions=[1]), "fusions: 1: must be true or false"),
        (with_stage(fusions=[]), "fusions: []: must have at least one module"),
        (with_stage(num_channels=[4, True]), f"num_channels: True: {COUNT}"),
        (with_stage(num_blocks=[4]), "num_blocks: [4]: must have one entry per branch (2)"),
        (
            with_stage(num_channels=[4, 8, 16], num_blocks=[1, 1, 1]),
            "stages: [4, 8, 16]: stage 2 must have 2 branches",
        ),
        (changed(stem_channels=0), f"stem_channels: 0: {COUNT}"),
        (changed(stage1_blocks=1.5), f"stage1_blocks: 1.5: {COUNT}"),
        (changed(stage1_channels="64"), f"stage1_channels: '64': {COUNT}"),
        (changed(align_corners=0), "align_corners: 0: must be true or false"),
        (changed(upsample=None), f"upsample: None: {CHOICE}"),
    ],
)
def test_from_dict_refuses_what_breaks_a_rule(data: dict[str, Any], text: str) -> None:
    assert str(refusal(lambda: ArchSpec.from_dict(data))) == text


@pytest.mark.parametrize("data", [[], "spec", None, 3])
def test_from_dict_refuses_what_is_no_mapping(data: Any) -> None:
    error = refusal(lambda: ArchSpec.from_dict(data))
    assert str(error) == f"{data!r}: must be a mapping of fields to values"


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        hrnet().upsample = "bilinear"  # type: ignore[misc]
