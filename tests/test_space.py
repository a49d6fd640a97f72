"""Search spaces: what varies, in which order, and what is refused."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hrnet_search.arch import hrnet
from hrnet_search.errors import InputError
from hrnet_search.space import DEFAULTS, MAX_GRID, Space
from hrnet_search.study import load_space

SMALL = {"width": 4, "num_stages": 2, "num_modules": 1, "num_blocks": 1}
FUSION = {
    "final": {"final": True, "across": False, "within": False},
    "+across": {"final": True, "across": True, "within": False},
    "+within": {"final": True, "across": True, "within": True},
}


def space(vary: dict[str, Any], **base: Any) -> Space:
    return Space.model_validate({"base": base, "vary": vary})


def refusal(tmp_path: Path, content: dict[str, Any]) -> str:
    """What loading says, without the name of the file."""
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as caught:
        load_space(file).grid("v2")
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix(f"{file}: ")


def test_the_grid_counts_like_an_odometer_in_the_order_of_the_file() -> None:
    grid = space(
        {
            "width": {"choices": [8, 4]},
            "num_blocks": {"low": 1, "high": 2},
            "upsample": {"choices": ["bilinear", "nearest"]},
        }
    ).grid("v2")
    assert [tuple(params.values()) for params in grid] == [
        (8, 1, "bilinear"),
        (8, 1, "nearest"),
        (8, 2, "bilinear"),
        (8, 2, "nearest"),
        (4, 1, "bilinear"),
        (4, 1, "nearest"),
        (4, 2, "bilinear"),
        (4, 2, "nearest"),
    ]
    assert all(list(params) == ["width", "num_blocks", "upsample"] for params in grid)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 20))
def test_a_range_holds_every_step_up_to_high(low: int, length: int, step: int) -> None:
    knob = space({"width": {"low": low, "high": low + length, "step": step}}).vary["width"]
    values = knob.values()
    assert values[0] == low
    assert low + length - step < values[-1] <= low + length
    assert {b - a for a, b in pairwise(values)} <= {step}


def test_neighbours_are_a_step_away_in_one_knob() -> None:
    """Counted by hand: up to two of a knob in order, all others of one that is not."""
    made = space(
        {
            "width": {"low": 4, "high": 10, "step": 2},
            "num_blocks": {"choices": [4, 2, 1]},
            "stage1_width": {"choices": [8, 64, 16]},
            "final": {"choices": [True, False]},
            "fusion": {"arms": {"a": {"fuse": "sum"}, "b": {"fuse": "multiply"}}},
        }
    )
    here = {"width": 4, "num_blocks": 2, "stage1_width": 8, "final": True, "fusion": "a"}
    found = [
        [(name, value) for name, value in params.items() if value != here[name]]
        for params in made.neighbours(here)
    ]
    assert found == [
        [("width", 6)],
        *([("num_blocks", 4)], [("num_blocks", 1)]),
        *([("stage1_width", 64)], [("stage1_width", 16)]),
        [("final", False)],
        [("fusion", "b")],
    ]


@given(st.data())
def test_neighbours_are_mutual(data: st.DataObject) -> None:
    made = load_space(Path(__file__).parents[1] / "spaces" / "search_tiny.yaml")
    here = {name: data.draw(st.sampled_from(knob.values())) for name, knob in made.vary.items()}
    for there in made.neighbours(here):
        assert sum(there[name] != value for name, value in here.items()) == 1
        assert here in list(made.neighbours(there))


def test_of_combinations_that_build_the_same_network_the_first_is_kept() -> None:
    # Without a third stage there is nothing between stages, and one module has no inside.
    spaces = space(
        {"across": {"choices": [True, False]}, "within": {"choices": [True, False]}},
        num_stages=2,
        num_modules=2,
    )
    assert spaces.size == 4
    assert spaces.grid("v2") == [
        {"across": True, "within": True},
        {"across": True, "within": False},
    ]
    assert space({"within": {"choices": [False, True]}}, num_modules=1).grid("v2") == [
        {"within": False}
    ]


def test_which_combinations_are_equal_depends_on_the_head() -> None:
    # The enlarged maps that align_corners is about are the fusions' and those of the head.
    vary = {
        "align_corners": {"choices": [False, True]},
        "output_branch": {"choices": [0, 1]},
        "output_bias": {"choices": [True, False]},
    }
    varied = space(vary, **SMALL)
    grids = {head: varied.grid(head=head) for head in ("v1", "v2", "v2p", "cls")}
    assert {head: len(grid) for head, grid in grids.items()} == {
        **{"v1": 4, "v2": 4, "v2p": 2, "cls": 2}
    }
    assert all(params["align_corners"] is False for params in grids["v1"])
    assert all(params["output_branch"] == 0 for params in grids["v2"])
    assert [tuple(params.values()) for params in grids["v2p"]] == [
        (False, 0, True),
        (True, 0, True),
    ]


def test_an_unknown_head_of_a_grid_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        space({"width": {"choices": [4]}}).grid(head="v22")
    assert str(caught.value).startswith("head: 'v22': must be one of v1, ")
    assert str(caught.value).endswith("; did you mean 'v2'?")


def test_lists_in_lists_can_vary() -> None:
    varied = space({"num_blocks": {"choices": [4, [[4, 4], [4, 4, 0]]]}}, num_stages=3)
    params = varied.grid("v2")
    assert [varied.arm(p) for p in params] == [
        "num_blocks=4",
        "num_blocks=[[4, 4], [4, 4, 0]]",
    ]
    assert varied.arch(params[1]).stages[1].modules[0].num_blocks == (4, 4, 0)


def test_arms_are_named_bundles_of_arguments() -> None:
    fusion = space({"fusion": {"arms": FUSION}})
    assert [fusion.arm(params) for params in fusion.grid("v2")] == ["final", "+across", "+within"]
    assert [fusion.arch(params).num_fusions for params in fusion.grid("v2")] == [1, 3, 8]


@pytest.mark.parametrize(
    ("vary", "names"),
    [
        ({"width": {"choices": [4, 8]}}, ["width=4", "width=8"]),
        ({"across": {"choices": [True, False]}}, ["across=true", "across=false"]),
        (
            {"num_modules": {"choices": [[1, 2, 2], [1, 4, 3]]}},
            ["num_modules=[1, 2, 2]", "num_modules=[1, 4, 3]"],
        ),
        ({"upsample": {"choices": ["nearest"]}}, ["upsample=nearest"]),
        (
            {"width": {"choices": [4, 8]}, "across": {"choices": [False]}},
            ["width=4, across=false", "width=8, across=false"],
        ),
        (
            {"fusion": {"arms": {"a": {"final": False}}}, "width": {"low": 4, "high": 5}},
            ["fusion=a, width=4", "fusion=a, width=5"],
        ),
    ],
)
def test_arms_are_named_by_what_varies(vary: dict[str, Any], names: list[str]) -> None:
    varied = space(vary)
    assert [varied.arm(params) for params in varied.grid("v2")] == names


def test_arguments_are_defaults_then_base_then_knobs() -> None:
    varied = space({"width": {"choices": [4]}}, width=8, num_blocks=2)
    assert varied.arguments({"width": 4}) == {**DEFAULTS, "num_blocks": 2, "width": 4}
    assert varied.arch({"width": 4}) == hrnet(width=4, num_blocks=2)


def test_a_grid_of_max_grid_is_the_largest_accepted() -> None:
    vary = {"width": {"low": 1, "high": 100}, "stem_width": {"low": 1, "high": MAX_GRID // 100}}
    assert space(vary, **{k: v for k, v in SMALL.items() if k != "width"}).size == MAX_GRID
    vary["stem_width"]["high"] += 1
    large = space(vary)
    with pytest.raises(InputError) as caught:
        large.grid("v2")
    assert str(caught.value) == "space.vary: 10100: a grid may have at most 10000 combinations"


ARGUMENTS = (
    "is not an argument of hrnet (task, width, width_ratios, num_stages, num_branches, "
    "num_modules, num_blocks, unit, stage1_blocks, stage1_width, stem_width, within, across, "
    "final, edges, fuse, upsample, projection, downsample, align_corners, bn_momentum, "
    "output_branch, output_bias)"
)
COUNT = "must be a whole number of at least 1"
ENTRIES = "must be one value or a list with an entry for each of 3 stages"
KNOB = "must be a mapping with choices, with low and high, or with arms"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"base": {}}, "vary: is missing"),
        ({"vary": {}}, "vary: {}: must have at least 1 item"),
        ({"vary": {"width": [8]}}, f"vary.width: [8]: {KNOB}"),
        ({"vary": {"width": {}}}, f"vary.width: {{}}: {KNOB}"),
        ({"vary": {"width": {"choices": []}}}, "vary.width.choices: []: must have at least 1 item"),
        ({"vary": {"width": {"choices": 8}}}, "vary.width.choices: 8: must be a list"),
        (
            {"vary": {"width": {"choices": [8], "low": 3}}},
            "vary.width.low: unknown key",
        ),
        (
            {"vary": {"width": {"low": 8, "hihg": 9}}},
            "vary.width.hihg: unknown key; did you mean 'high'?",
        ),
        ({"vary": {"width": {"low": 8}}}, "vary.width.high: is missing"),
        (
            {"vary": {"width": {"low": True, "high": 3}}},
            "vary.width.low: True: must be a whole number",
        ),
        (
            {"vary": {"width": {"low": 9, "high": 8}}},
            "vary.width.high: 8: must be at least low (9)",
        ),
        (
            {"vary": {"width": {"low": 1, "high": 9, "step": 0}}},
            "vary.width.step: 0: must be greater than or equal to 1",
        ),
        (
            {"vary": {"width": {"low": 1, "high": 10**9}}},
            "vary.width.high: 1000000000: makes more than 10000 values with this low and step",
        ),
        ({"vary": {"width": {"low": 0, "high": 3}}}, f"vary.width: 0: {COUNT}"),
        ({"vary": {"width": {"choices": [8, "8"]}}}, f"vary.width: '8': {COUNT}"),
        (
            {"vary": {"widht": {"choices": [8]}}},
            f"vary.widht: {ARGUMENTS}; did you mean 'width'?",
        ),
        (
            {"vary": {"within": {"choices": [1, 0]}}},
            "vary.within: 1: must be true or false",
        ),
        (
            {"vary": {"f": {"arms": {"a": {"finl": True}}}}},
            f"vary.f.arms.a.finl: {ARGUMENTS}; did you mean 'final'?",
        ),
        (
            {"vary": {"f": {"arms": {"a": {"final": 3}}}}},
            "vary.f.arms.a.final: 3: must be true or false",
        ),
        ({"vary": {"f": {"arms": {"a": 3}}}}, "vary.f.arms.a: 3: must be a mapping"),
        ({"vary": {"f": {"arms": {}}}}, "vary.f.arms: {}: must have at least 1 item"),
        (
            {"base": {"num_stages": 9}, "vary": {"width": {"choices": [8]}}},
            "base.num_stages: 9: the number of stages must be 2 to 8",
        ),
        (
            {"base": {"upsample": "linear"}, "vary": {"width": {"choices": [8]}}},
            "base.upsample: 'linear': must be one of nearest, bilinear; did you mean 'bilinear'?",
        ),
        (
            {"base": {"num_modules": [1, 2]}, "vary": {"num_stages": {"choices": [3, 4]}}},
            f"base.num_modules: [1, 2]: {ENTRIES}",
        ),
        (
            {"base": {"width": None}, "vary": {"num_blocks": {"choices": [1]}}},
            "base.width: None: must be true or false, a number, text, or a list of these",
        ),
        (
            {"base": {"stem": 3}, "vary": {"width": {"choices": [8]}}},
            f"base.stem: {ARGUMENTS}; did you mean 'stem_width'?",
        ),
    ],
)
def test_refusals_name_key_value_and_rule(
    tmp_path: Path, content: dict[str, Any], text: str
) -> None:
    assert refusal(tmp_path, content) == text


def test_values_that_clash_only_together_are_refused(tmp_path: Path) -> None:
    content = {
        "vary": {
            "num_stages": {"choices": [2, 4]},
            "width": {"choices": [[8, 8, 8], [8]]},
        },
        "base": {"num_stages": 2},
    }
    assert refusal(tmp_path, content) == f"vary.width: [8]: {ENTRIES}"


def test_two_knobs_may_not_set_one_argument(tmp_path: Path) -> None:
    content = {
        "vary": {
            "fusion": {"arms": {"a": {"width": 8}, "b": {"width": 16}}},
            "width": {"choices": [24, 32]},
        }
    }
    text = "vary.width: 'width': is set by the knob fusion too"
    assert refusal(tmp_path, content) == text


def test_values_that_fit_only_together_are_accepted(tmp_path: Path) -> None:
    content = {
        "vary": {
            "num_stages": {"choices": [2, 3]},
            "num_blocks": {"choices": [1]},
            "width": {"choices": [[8, 16], [16, 32]]},
        }
    }
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(content))
    assert len(load_space(file).grid("v2")) == 4
