"""The canonical form: equal networks have equal keys, and leaving out never changes an output."""

import random
import zlib
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import draw_network
from torch import Tensor, nn

from hrnet_search.arch import EDGE_SETS, ArchSpec, hrnet, pruned
from hrnet_search.blueprint import HEADS, canonical, check_input, min_size, reads
from hrnet_search.errors import InputError
from hrnet_search.model import HRNet, build, init_weights

SMALL = {"width": 4, "num_blocks": 1, "stage1_blocks": 1, "stage1_width": 4, "stem_width": 8}
randoms = st.randoms(use_true_random=False)


def tiny(**arguments: Any) -> ArchSpec:
    return hrnet(**{**SMALL, "num_modules": 1, **arguments})


def key(head: str, **arguments: Any) -> str:
    return canonical(tiny(**arguments), head).key


# --- equal networks, equal keys ----------------------------------------------------------------

EQUAL: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # head, settings, others
    "within needs two modules in a stage": ("v2", {"within": True}, {"within": False}),
    "across needs two stages": (
        "v2",
        {"num_stages": 2, "across": True},
        {"num_stages": 2, "across": False},
    ),
    "widths of absent branches": (
        "v2",
        {"num_stages": 2, "width": [[4, 6]]},
        {"num_stages": 2, "width": [[4, 6, 9], 3, 5]},
    ),
    "units of absent branches": (
        "v2",
        {"num_stages": 2, "num_blocks": [[1, 2]]},
        {"num_stages": 2, "num_blocks": [[1, 2, 3]]},
    ),
    "ratios of absent branches": ("v2", {"width_ratios": (1, 2, 4, 8)}, {}),
    "edges of absent modules": ("v2", {"edges": "all"}, {"edges": [["all", "none"]] * 3}),
    "upsample without an edge that enlarges": (
        "v2",
        {"edges": "high_to_low", "upsample": "nearest"},
        {"edges": "high_to_low", "upsample": "bilinear"},
    ),
    "projection without an edge that enlarges": (
        "v2",
        {"edges": "0>1", "projection": "before"},
        {"edges": "0>1", "projection": "after"},
    ),
    "downsample without an edge that reduces": (
        "v2",
        {"edges": "low_to_high", "downsample": "strided_conv"},
        {"edges": "low_to_high", "downsample": "avg_pool"},
    ),
    "downsample where reduced maps are not read": (
        "v1",
        {"num_stages": 2, "downsample": "strided_conv"},
        {"num_stages": 2, "downsample": "bilinear"},
    ),
    "fuse without edges": (
        "v2",
        {"edges": "none", "fuse": "sum"},
        {"edges": "none", "fuse": "weighted"},
    ),
    "fuse where no unit is kept": (
        "v2",
        {"across": False, "final": False, "fuse": "sum"},
        {"across": False, "final": False, "fuse": "concat"},
    ),
    "kind of unit without units": (
        "v2",
        {"num_blocks": 0, "unit": "basic"},
        {"num_blocks": 0, "unit": "bottleneck"},
    ),
    "align_corners with nearest": (
        "v1",
        {"align_corners": False},
        {"align_corners": True},
    ),
    "align_corners where the head reads one map": (
        "v2",
        {"num_branches": 1, "align_corners": False},
        {"num_branches": 1, "align_corners": True},
    ),
    "align_corners where the head pools": (
        "cls_i",
        {"align_corners": False},
        {"align_corners": True},
    ),
    "output_branch with all maps read": ("v2", {"output_branch": 0}, {"output_branch": 3}),
    "output_bias without a last layer": (
        "v2p",
        {"output_bias": True},
        {"output_bias": False},
    ),
    "modules that do nothing": (
        "v2",
        {"num_blocks": 0, "num_modules": 1},
        {"num_blocks": 0, "num_modules": 3, "within": False},
    ),
    "edges to maps that are not read": (
        "v1",
        {"num_stages": 2, "edges": "low_to_high"},
        {"num_stages": 2, "edges": "all"},
    ),
    "widths of maps that lead nowhere": (
        "v1",
        {"final": False, "width": [4, 4, [4, 8, 16, 32]]},
        {"final": False, "width": [4, 4, [4, 7, 9, 5]]},
    ),
    "units of maps that lead nowhere": (
        "v1",
        {"final": False, "num_blocks": [1, 1, [1, 1, 1, 1]]},
        {"final": False, "num_blocks": [1, 1, [1, 2, 0, 3]]},
    ),
    "the last map of a stage that leads nowhere": (
        "v1",
        {"final": False, "num_branches": (2, 3, 4)},
        {"final": False, "num_branches": (2, 3, 3)},
    ),
    "a single branch": ("v1", {"edges": "high_to_low"}, {"num_branches": 1}),
    "no edges": ("v1", {"edges": "none"}, {"edges": "high_to_low"}),
    "flags for no edges": (
        "v2",
        {"edges": "none"},
        {"within": False, "across": False, "final": False},
    ),
    "a task's defaults and the same told": (
        "v2",
        {"task": "segmentation"},
        {"upsample": "bilinear", "bn_momentum": 0.01},
    ),
}


@pytest.mark.parametrize("what", EQUAL)
def test_what_cannot_matter_does_not_change_the_key(what: str) -> None:
    head, one, other = EQUAL[what]
    assert key(head, **one) == key(head, **other)


@pytest.mark.parametrize("what", EQUAL)
def test_networks_that_should_have_equal_keys_are_equal(what: str) -> None:
    head, *arguments = EQUAL[what]
    assert_equal_networks(*(tiny(**given) for given in arguments), head)


FOLDED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "modules of one stage or of two alike": (
        {"num_branches": 4, "num_stages": 4, "num_modules": 1},
        {"num_branches": 4, "num_stages": 3, "num_modules": [1, 2]},
    ),
    "units of one module or of two with nothing between": (
        {"num_modules": 2, "within": False},
        {"num_modules": 1, "num_blocks": 2},
    ),
    "a last stage with nothing to do": (
        {"num_stages": 3, "num_blocks": [1, 0], "across": False, "final": False},
        {"num_stages": 2, "final": False},
    ),
}


@pytest.mark.parametrize("what", FOLDED)
def test_networks_that_compute_the_same_have_one_key_whatever_their_names(what: str) -> None:
    one, other = FOLDED[what]
    assert key("v1", **one) == key("v1", **other)
    nets = [build(tiny(**given), head="v1", num_outputs=3) for given in (one, other)]
    init_weights(nets[0], seed=1)
    values = list(nets[0].state_dict().values())
    names = nets[1].state_dict()
    # The first network's order is by module, so units of one branch must be matched by shape.
    for name, entry in names.items():
        place = next(i for i, v in enumerate(values) if v.shape == entry.shape)
        entry.copy_(values.pop(place))
        assert nets[1].state_dict()[name].shape == entry.shape
    assert not values
    with torch.no_grad():
        first, second = (net.eval()(image(64, 64)) for net in nets)
    assert torch.equal(first, second)


def assert_equal_networks(
    one: ArchSpec, other: ArchSpec, head: str, size: tuple[int, int] = (64, 96)
) -> None:
    """Names, shapes, initial weights, and the output in training and evaluation."""
    nets = [build(spec, head=head, num_outputs=3) for spec in (one, other)]
    first, second = (net.state_dict() for net in nets)
    assert [(k, v.shape) for k, v in first.items()] == [(k, v.shape) for k, v in second.items()]
    outputs = []
    x = image(*size)
    for net in nets:
        init_weights(net, seed=1)
        torch.manual_seed(0)  # dropout
        with torch.no_grad():
            outputs.append([*leaves(net.train()(x)), *leaves(net.eval()(x))])
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def leaves(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


def image(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


UNEQUAL: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("v2", {"num_modules": 2, "within": True}, {"num_modules": 2, "within": False}),
    ("v2", {"upsample": "nearest"}, {"upsample": "bilinear"}),
    ("v2", {"projection": "before"}, {"projection": "after"}),
    ("v2", {"downsample": "strided_conv"}, {"downsample": "avg_pool"}),
    ("v2", {"fuse": "sum"}, {"fuse": "weighted"}),
    ("v2", {"unit": "basic"}, {"unit": "bottleneck"}),
    ("v2", {"align_corners": False}, {"align_corners": True}),
    ("v1", {"upsample": "bilinear"}, {"upsample": "bilinear", "align_corners": True}),
    (
        "cls",
        {"downsample": "bilinear", "edges": "high_to_low"},
        {"downsample": "bilinear", "edges": "high_to_low", "align_corners": True},
    ),
    ("v1", {"output_branch": 0}, {"output_branch": 1}),
    ("v1", {"output_bias": True}, {"output_bias": False}),
    ("v1", {"bn_momentum": 0.1}, {"bn_momentum": 0.01}),
    ("v1", {"final": True}, {"final": False}),
    ("v1", {"edges": "low_to_high"}, {"edges": "all"}),
    ("v1", {"num_stages": 3}, {"num_stages": 4}),
]


@pytest.mark.parametrize(("head", "one", "other"), UNEQUAL)
def test_what_matters_changes_the_key(
    head: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert key(head, **one) != key(head, **other)


@given(randoms)
def test_surplus_settings_never_change_the_key(rng: random.Random) -> None:
    network = draw_network(rng)
    told = network.arguments
    surplus = {
        "width": [*told["width"], 5],
        "num_modules": [*told["num_modules"], 2],
        "num_blocks": [*told["num_blocks"], [7]],
        "num_branches": [*told["num_branches"], 6],
        "edges": [[*e, "none"] if isinstance(e, list) else e for e in told["edges"]],
    }
    assert hrnet(**{**told, **surplus}).key == hrnet(**told).key


FREE: dict[str, tuple[Any, ...]] = {  # arguments, and values that any network can take
    "within": (True, False),
    "across": (True, False),
    "final": (True, False),
    "edges": EDGE_SETS,
    "fuse": ("sum", "multiply", "concat", "weighted"),
    "upsample": ("nearest", "bilinear"),
    "projection": ("before", "after"),
    "downsample": ("strided_conv", "bilinear", "avg_pool"),
    "align_corners": (True, False),
    "output_bias": (True, False),
    "output_branch": (0,),
    "num_blocks": (0,),
}


@given(randoms)
@settings(max_examples=40)
def test_equal_keys_are_equal_networks(rng: random.Random) -> None:
    network = draw_network(rng)
    head = network.head
    one = canonical(network.spec, head)
    for name, values in FREE.items():
        changed = hrnet(**{**network.arguments, name: rng.choice(values)})
        other = canonical(changed, head)
        assert (one.key == other.key) == (one == other)
        if network.spec != changed and one.key == other.key:
            assert_equal_networks(network.spec, changed, head, network.input_size)
            return


@given(randoms)
def test_the_canonical_form_is_its_own(rng: random.Random) -> None:
    network = draw_network(rng)
    spec = canonical(network.spec, network.head)
    assert canonical(spec, network.head) == spec
    assert ArchSpec.from_dict(spec.to_dict()) == spec


# --- leaving out never changes an output -------------------------------------------------------


def fill(net: nn.Module) -> None:
    """Every entry has values of its own, BatchNorm's statistics too."""
    for name, entry in net.state_dict().items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        if entry.ndim >= 2:
            scale = (2 / entry[0].numel()) ** 0.5
            entry.copy_(torch.randn(entry.shape, generator=generator) * scale)
        elif entry.is_floating_point():
            entry.copy_(0.3 + 0.4 * torch.rand(entry.shape, generator=generator))


def in_full(spec: ArchSpec, head: str, name: str) -> str:
    """The name in the whole body of an entry of the body that is built.

    Modules that have become empty are not built, and those behind them have moved up.
    """
    first, _, rest = name.partition(".")
    if not first.startswith("stage"):
        return name
    number, _, rest = rest.partition(".")
    modules = pruned(spec, reads(spec, head)).stages[int(first[5:]) - 2].modules
    kept = [i for i, m in enumerate(modules) if m.edges or any(m.num_blocks)]
    return f"{first}.{(kept or [0])[int(number)]}.{rest}"


@given(randoms)
@settings(max_examples=60)
def test_the_output_is_that_of_the_whole_body(rng: random.Random) -> None:
    network = draw_network(rng)
    assume(network.input_size != (128, 161))  # six branches
    spec, head = network.spec, rng.choice(["v1", "v1h", network.head])
    assert_output_is_that_of_the_whole_body(spec, head)


@pytest.mark.parametrize("output_branch", range(4))
@pytest.mark.parametrize("edges", [*EDGE_SETS, "3>1 1>0", "0>3 3>2"])
def test_the_output_of_v1_is_that_of_the_whole_body(edges: str, output_branch: int) -> None:
    spec = tiny(num_branches=4, num_modules=2, edges=edges, output_branch=output_branch)
    assert_output_is_that_of_the_whole_body(spec, "v1")


def assert_output_is_that_of_the_whole_body(spec: ArchSpec, head: str) -> None:
    whole = HRNet(spec).eval()
    fill(whole)
    net = build(spec, head=head, num_outputs=3).eval()
    fill(net)
    theirs = whole.state_dict()
    for name, entry in net.body.state_dict().items():
        entry.copy_(theirs[in_full(spec, head, name)])
    x = image(64, 96)[:1]
    with torch.no_grad():
        maps = whole(x)
        expected = leaves(net.head([maps[branch] for branch in reads(spec, head)]))
        outputs = leaves(net(x))
    assert all(torch.isfinite(y).all() for y in expected)
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))


def test_under_v1_nothing_is_built_that_leads_nowhere() -> None:
    net = build(tiny(final=False), head="v1", num_outputs=3)
    assert set(net.spec.channels) == {4, 0}
    assert [
        name for name, _ in net.body.stage4.named_parameters() if "branches.0" not in name
    ] == []
    assert list(net.body.transition3.parameters()) == []


@given(randoms)
@settings(max_examples=25)
def test_every_parameter_that_is_built_has_a_gradient(rng: random.Random) -> None:
    network = draw_network(rng)
    assume(network.input_size != (128, 161))  # six branches
    net = build(network.spec, head=network.head, num_outputs=3)
    init_weights(net, seed=0)
    sum(y.sum() for y in leaves(net(image(64, 96)))).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


# --- sizes and refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "arguments", "least"),
    [
        ("v1", {}, 32),
        ("v2", {"num_branches": 6}, 128),
        ("v2", {"num_branches": 1}, 4),
        ("v1", {"edges": "none"}, 4),  # the other branches are not built
        ("v1", {"final": False}, 16),  # nor the fourth
        ("v1", {"edges": "none", "output_branch": 2}, 16),
        ("v2p", {}, 64),  # the fifth level is pooled by 16 at stride 4
        ("v2p_s2", {"num_branches": 1}, 64),
        ("v1hp", {"edges": "none"}, 64),
        ("v1p", {"output_branch": 2}, 256),  # its first level is at stride 16
        ("v2p", {"num_branches": 6}, 128),
        ("v2r", {}, 32),
    ],
)
def test_an_image_has_a_place_on_the_lowest_map(
    head: str, arguments: dict[str, Any], least: int
) -> None:
    spec = canonical(tiny(**arguments), head)
    assert min_size(spec, head) == least
    check_input(spec, head, (least, least))
    build(spec, head=head, num_outputs=3).eval()(image(least, least))
    for size in ((least - 1, least), (least, least - 1)):
        with pytest.raises(InputError) as caught:
            check_input(spec, head, size)
        rule = f"must be at least {least} x {least} pixels for this network and head {head}"
        assert str(caught.value) == f"input_size: {size}: {rule}"


def test_a_head_cannot_read_a_map_that_was_left_out() -> None:
    spec = canonical(tiny(final=False), "v1")
    with pytest.raises(InputError) as caught:
        build(spec, head="v2", num_outputs=3)
    rule = "has no branch 1, which the head v2 reads"
    assert str(caught.value) == f"stages: {list(spec.channels)}: {rule}"


def test_an_unknown_head_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError) as caught:
        canonical(tiny(), "cls_iii")
    names = ", ".join(HEADS)
    assert str(caught.value) == f"head: 'cls_iii': must be one of {names}; did you mean 'cls_ii'?"
