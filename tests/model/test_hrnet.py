"""The body as the paper has it: sizes, transitions, fusions, costs; and what the ablation removes.

That it is the official one, number by number, is said in `tests/test_golden.py`.
"""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hrnet_search.arch import ArchSpec, hrnet
from hrnet_search.blueprint import basic, bottleneck
from hrnet_search.errors import InputError
from hrnet_search.model import HRNet, Network, build, init_weights
from hrnet_search.model.blocks import BasicBlock, Bottleneck, FusionRow


def tiny(**arguments: Any) -> ArchSpec:
    """A spec of all four stages that runs in milliseconds."""
    small = {"width": 4, "num_modules": 1, "num_blocks": 1}
    return hrnet(**{**small, "stage1_blocks": 1, "stage1_width": 4, "stem_width": 8, **arguments})


def on_meta(spec: ArchSpec, head: str, num_outputs: int) -> Network:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return build(spec, head=head, num_outputs=num_outputs)


def num_params(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def initialised(spec: ArchSpec, *, head: str = "v1", seed: int = 0) -> Network:
    net = build(spec, head=head, num_outputs=3)
    init_weights(net, seed=seed)
    return net


def image(height: int, width: int, *, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


FINAL = {"final": True, "across": False, "within": False}
ACROSS = {"final": True, "across": True, "within": False}


@pytest.mark.parametrize(
    ("arguments", "millions"),
    [  # Table 1 and the official code; the arms of Table 12 with fuse layers removed
        ({"width": 32}, 28.536113),
        ({"width": 48}, 63.595745),
        ({"width": 32, **FINAL}, 26.332),
        ({"width": 32, **ACROSS}, 26.506),
        ({"width": 48, **FINAL}, 58.645),
        ({"width": 48, **ACROSS}, 59.036),
    ],
)
def test_parameters_of_the_pose_networks(arguments: dict[str, Any], millions: float) -> None:
    count = num_params(on_meta(hrnet(**arguments), "v1", 17))
    digits = len(str(millions).partition(".")[2])
    assert round(count / 1e6, digits) == millions


@pytest.mark.parametrize(
    ("arguments", "count"),
    [  # official segmentation code, 19 classes
        ({"width": 48}, 65_859_379),
        ({"width": 18}, 9_641_119),
        ({"width": 40}, 45_894_435),
    ],
)
def test_parameters_of_the_segmentation_networks(arguments: dict[str, Any], count: int) -> None:
    assert num_params(on_meta(hrnet(**arguments, upsample="bilinear"), "v2", 19)) == count


SIZES = [(97, 131), (33, 47), (64, 48), (32, 32)]


def ceil_div(value: int, divisor: int) -> int:
    return -(-value // divisor)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_maps_of_any_input_size_are_rounded_up(size: tuple[int, int], upsample: str) -> None:
    body = HRNet(tiny(upsample=upsample)).eval()
    maps = body(image(*size))
    assert [tuple(y.shape) for y in maps] == [
        (1, channels, ceil_div(size[0], stride), ceil_div(size[1], stride))
        for channels, stride in zip((4, 8, 16, 32), (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("head", ["v1", "v2"])
def test_every_parameter_learns_at_any_input_size(head: str, size: tuple[int, int]) -> None:
    net = build(tiny(), head=head, num_outputs=5)
    y = net(image(*size, batch=2))
    assert tuple(y.shape) == (2, 5, ceil_div(size[0], 4), ceil_div(size[1], 4))
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_an_image_smaller_than_the_largest_stride_is_refused() -> None:
    net = build(tiny(), head="v2", num_outputs=5).eval()
    assert net(image(32, 32)).shape == (1, 5, 8, 8)
    with pytest.raises(InputError) as caught:
        net(image(64, 31))
    rule = "must be at least 32 x 32 pixels for this network and head v2"
    assert str(caught.value) == f"input_size: (64, 31): {rule}"


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 4, 64, 64), (3, 64, 64)], ids=str)
def test_images_have_three_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as caught:
        build(tiny(), head="v1", num_outputs=5)(torch.zeros(shape))
    assert str(caught.value) == f"input: {shape}: must be images of shape (B, 3, H, W)"


@pytest.mark.parametrize(("num_stages", "branches"), [(2, 2), (3, 3), (4, 4)])
def test_the_body_has_a_branch_per_stage_and_tells_channels_and_strides(
    num_stages: int, branches: int
) -> None:
    spec = tiny(num_stages=num_stages)
    body = HRNet(spec)
    maps = body(image(64, 64))
    assert body.channels == tuple(y.shape[1] for y in maps) == (4, 8, 16, 32)[:branches]
    assert body.strides == tuple(64 // y.shape[2] for y in maps) == (4, 8, 16, 32)[:branches]
    one = HRNet(spec, reads=[0])
    assert (one.channels, one.strides) == ((4,), (4,))
    assert [y.shape for y in one(image(64, 64))] == [(1, 4, 16, 16)]
    last = HRNet(spec, reads=[branches - 1])
    assert (last.channels, last.strides) == (body.channels[-1:], body.strides[-1:])
    assert [y.shape for y in last(image(64, 64))] == [maps[-1].shape]


@pytest.mark.parametrize("num_stages", [2, 3, 4])
@pytest.mark.parametrize("head", ["v1", "v2"])
def test_only_the_last_fusion_of_v1_computes_output_0_alone(num_stages: int, head: str) -> None:
    net = on_meta(tiny(num_stages=num_stages, num_modules=2), head, 3)
    stages = [net.body.get_submodule(f"stage{s}") for s in range(2, num_stages + 1)]
    outputs = [
        [sum(isinstance(row, FusionRow) for row in module.fuse_layers) for module in stage]
        for stage in stages
    ]
    complete = [[number + 2] * 2 for number in range(num_stages - 1)]
    if head == "v1":
        complete[-1][-1] = 1
    assert outputs == complete


def test_fusion_units_stand_exactly_where_the_spec_has_them() -> None:
    spec = hrnet(final=False, across=True, within=False)
    net = on_meta(spec, "v1", 17)
    for number, stage in enumerate(spec.stages, start=2):
        modules = net.body.get_submodule(f"stage{number}")
        placed = [module.fuse_layers is not None for module in modules]
        assert placed == [bool(module.edges) for module in stage.modules]
    assert spec.num_fusions == 2


# --- transitions -------------------------------------------------------------------------------


def test_a_changed_width_takes_each_branch_through_its_own_convolution() -> None:
    body = HRNet(tiny(width=(8, 12, 16)))
    for number, (before, after) in enumerate(pairwise([(8, 16), (12, 24, 48), (16, 32, 64, 128)])):
        layers = body.get_submodule(f"transition{number + 2}")
        convs = [next(m for m in layer.modules() if isinstance(m, nn.Conv2d)) for layer in layers]
        assert [c.in_channels for c in convs] == [*before, before[-1]]
        assert [c.out_channels for c in convs] == list(after)
        assert [c.stride for c in convs] == [(1, 1)] * len(before) + [(2, 2)]


def test_an_existing_branch_takes_its_own_map_into_the_next_stage() -> None:
    # Distinct resolutions: the official slip, all branches from the lowest map, changes sizes.
    body = HRNet(tiny(width=(8, 12, 16))).eval()
    transition = body.get_submodule("transition3")
    maps = [torch.randn(1, 12 * 2**r, 16 // 2**r, 16 // 2**r) for r in range(3)]
    with torch.inference_mode():
        out = transition(maps)
        assert [tuple(y.shape[1:]) for y in out] == [
            (16, 16, 16),
            (32, 8, 8),
            (64, 4, 4),
            (128, 2, 2),
        ]
        for branch in range(3):
            changed = [x + (i == branch) for i, x in enumerate(maps)]
            moved = [not torch.equal(a, b) for a, b in zip(out, transition(changed), strict=True)]
            # The lowest-resolution map also makes the new branch.
            assert moved == [branch == 0, branch == 1, branch == 2, branch == 2]


def test_an_unchanged_width_passes_the_map_on_as_it_is() -> None:
    transition = HRNet(tiny()).eval().get_submodule("transition2")
    maps = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
    out = transition(maps)
    assert out[0] is maps[0]
    assert out[1] is maps[1]
    assert out[2].shape == (1, 16, 2, 2)


# --- what removed fusions disconnect -----------------------------------------------------------


def moved_by_branch(spec: ArchSpec, head: str, branch: int) -> bool:
    """Does the output change with the stage-2 weights of one branch, if it is built at all?"""
    net = initialised(spec, head=head).eval()
    if branch >= net.spec.stages[0].num_branches:
        return False
    x = image(64, 64)
    with torch.inference_mode():
        before = net(x)
        for parameter in net.body.get_submodule(f"stage2.0.branches.{branch}").parameters():
            parameter.add_(1.0)
        return not torch.equal(net(x), before)


OFF = {"within": False, "across": False, "final": False}


@pytest.mark.parametrize(
    ("flags", "head", "moved"),
    [
        (OFF, "v1", False),
        (OFF, "v2", True),  # the head itself joins the branches
        ({**OFF, "within": True}, "v1", True),
        ({**OFF, "across": True}, "v1", True),
        ({**OFF, "final": True}, "v1", True),
    ],
)
def test_without_fusion_units_branches_stay_apart(
    flags: dict[str, bool], head: str, moved: bool
) -> None:
    spec = tiny(num_modules=2, **flags)
    assert moved_by_branch(spec, head, branch=1) is moved
    assert moved_by_branch(spec, head, branch=0)


# --- initial weights ---------------------------------------------------------------------------


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = initialised(tiny(), seed=5)
    torch.manual_seed(2)
    assert states_equal(first, initialised(tiny(), seed=5))
    other = initialised(tiny(), seed=6)
    for (name, one), two in zip(first.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two) == (one.ndim == 1), name


def test_arms_of_an_ablation_share_the_values_of_their_common_parameters() -> None:
    full = initialised(tiny(num_modules=2), seed=3).state_dict()
    final = initialised(tiny(num_modules=2, **FINAL), seed=3).state_dict()
    assert final.keys() < full.keys()
    assert all(torch.equal(final[name], full[name]) for name in final)


@pytest.mark.parametrize("head", ["v1", "v2"])
def test_initial_scales_are_kaiming_fan_out_and_a_small_last_layer(head: str) -> None:
    net = initialised(hrnet(width=16, num_modules=1), head=head)
    convs = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    last = {"v1": "head.final_layer", "v2": "head.last_layer.3"}[head]
    assert last in convs
    for name, conv in convs.items():
        kernel = conv.kernel_size[0] * conv.kernel_size[1]
        expected = 0.001 if name == last else (2 / (kernel * conv.out_channels)) ** 0.5
        count = conv.weight.numel()
        # The deviation of a sample deviation is sigma / sqrt(2 n), that of a mean sigma / sqrt(n).
        assert conv.weight.std().item() == pytest.approx(expected, rel=5 / (2 * count) ** 0.5), name
        assert abs(conv.weight.mean().item()) < 5 * expected / count**0.5, name
        assert conv.bias is None or conv.bias.eq(0).all(), name
    for name, norm in net.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.weight.eq(1).all(), name
            assert norm.bias.eq(0).all(), name


def test_parameters_of_equal_shape_start_with_different_values() -> None:
    net = initialised(hrnet(width=8, num_modules=1))
    weights = [p for p in net.parameters() if p.ndim == 4]
    sums = {round(p.double().sum().item(), 9) for p in weights}
    assert len(sums) == len(weights)


# --- pieces ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inputs", "projected"), [(64, False), (16, True)])
def test_a_bottleneck_projects_its_shortcut_only_where_the_width_changes(
    inputs: int, projected: bool
) -> None:
    block = Bottleneck(bottleneck(inputs, 64))
    assert isinstance(block.downsample, nn.Sequential) is projected
    assert block(torch.randn(1, inputs, 4, 4)).shape == (1, 64, 4, 4)
    halving = Bottleneck(bottleneck(inputs, 64, stride=2))
    assert isinstance(halving.downsample, nn.Sequential)
    assert halving(torch.randn(1, inputs, 5, 5)).shape == (1, 64, 3, 3)


def test_a_basic_unit_has_two_3x3_convolutions_and_keeps_its_map() -> None:
    block = BasicBlock(basic(6))
    assert [conv.weight.shape for conv in (block.conv1, block.conv2)] == [(6, 6, 3, 3)] * 2
    assert block(torch.randn(1, 6, 5, 4)).shape == (1, 6, 5, 4)


@pytest.mark.parametrize("head", ["v1", "v2"])
def test_align_corners_changes_bilinear_enlargements_alone(head: str) -> None:
    x = image(64, 64)

    def output(**arguments: Any) -> Tensor:
        net = initialised(tiny(**arguments), head=head).eval()
        with torch.inference_mode():
            return net(x)

    assert not torch.equal(
        output(upsample="bilinear"), output(upsample="bilinear", align_corners=True)
    )
    assert torch.equal(output(), output(align_corners=True)) is (head == "v1")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"head": "v2pp"},
            "head: 'v2pp': must be one of v1, v1h, v2, ocr, v1p, v1hp, v2p, v2p_s2, v2r, cls, "
            "cls_i, cls_ii; did you mean 'v2p'?",
        ),
        ({"num_outputs": 0}, "num_outputs: 0: must be a whole number of at least 1"),
        ({"num_outputs": True}, "num_outputs: True: must be a whole number of at least 1"),
    ],
)
def test_build_refuses_what_it_does_not_know(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        build(tiny(), **{"head": "v1", "num_outputs": 3, **given})
    assert str(caught.value) == text
