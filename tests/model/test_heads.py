"""Every head: shapes at odd sizes, gradients, and what its settings change."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrnet_search.arch import ArchSpec, hrnet
from hrnet_search.blueprint import HEADS
from hrnet_search.errors import InputError
from hrnet_search.model import Network, build, init_weights

BATCH, OUTPUTS = 2, 3
PYRAMIDS = ("v1p", "v1hp", "v2p", "v2p_s2")
SIZES = [(97, 131), (480, 854)]


def tiny(**arguments: Any) -> ArchSpec:
    small = {"width": 3, "num_modules": 1, "num_blocks": 1, "stage1_blocks": 1, "stage1_width": 2}
    return hrnet(**{**small, "stem_width": 4, **arguments})


def network(head: str, **arguments: Any) -> Network:
    net = build(tiny(**arguments), head=head, num_outputs=OUTPUTS)
    init_weights(net, seed=0)
    return net


def image(height: int, width: int, *, batch: int = BATCH) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def leaves(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


def shapes(head: str, batch: int, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """What the head puts out: maps at stride 4, classes, or a pyramid."""
    quarter = [-(-side // 4) for side in size]  # halved twice, rounded up
    if head.startswith("cls"):
        return [(batch, OUTPUTS)]
    if head in PYRAMIDS:
        levels = [[side // 2**level for side in quarter] for level in range(5)]  # pools round down
        if head == "v2p_s2":
            levels = [[-(-side // 2) for side in level] for level in levels]
        return [(batch, OUTPUTS, *level) for level in levels]
    return [(batch, OUTPUTS, *quarter)] * (2 if head == "ocr" else 1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_learns_at_any_size(head: str, size: tuple[int, int]) -> None:
    net = network(head)
    for parameter in net.parameters():  # a last layer near zero would hide the others
        parameter.data.add_(0.01)
    batch = 1 if size == (480, 854) else BATCH
    outputs = leaves(net(image(*size, batch=batch)))
    assert [tuple(y.shape) for y in outputs] == shapes(head, batch, size)
    sum((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum() for y in outputs).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_the_levels_of_a_pyramid_have_the_strides_of_the_paper() -> None:
    x = image(256, 128, batch=1)
    for head in PYRAMIDS:
        strides = (8, 16, 32, 64, 128) if head == "v2p_s2" else (4, 8, 16, 32, 64)
        with torch.no_grad():
            levels = network(head).eval()(x)
        assert [tuple(y.shape[2:]) for y in levels] == [(256 // s, 128 // s) for s in strides]


def test_ocr_puts_out_coarse_and_final_scores() -> None:
    net = network("ocr").eval()
    with torch.no_grad():
        maps = net.body(image(64, 64))
        coarse, final = net.head(maps)
        joined = torch.cat(
            [
                maps[0],
                *(nn.functional.interpolate(y, size=(16, 16), mode="bilinear") for y in maps[1:]),
            ],
            dim=1,
        )
        assert torch.equal(coarse, net.head.aux_head(joined))
    assert not torch.equal(coarse, final)


def test_ocr_gathers_regions_as_means_weighted_by_the_coarse_scores() -> None:
    # Without any preference for places each region is the mean of all pixels, so that attention
    # cannot tell regions apart and every pixel gets the same context.
    net = network("ocr").eval()
    seen = []
    block = net.head.ocr_distri_head.object_context_block
    block["f_up"].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.no_grad():
        net.head.aux_head[3].weight.zero_()
        net(image(64, 64))
        (context,) = seen
        assert torch.allclose(context, context[:, :, :1, :1].expand_as(context), atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_images_of_one_channel_are_refused(head: str) -> None:
    with pytest.raises(InputError) as caught:
        network(head)(torch.zeros(1, 1, 64, 64))
    assert str(caught.value) == "input: (1, 1, 64, 64): must be images of shape (B, 3, H, W)"


@pytest.mark.parametrize("head", HEADS)
def test_images_that_are_too_small_are_refused(head: str) -> None:
    least = 64 if head in PYRAMIDS else 32
    net = network(head).eval()
    net(image(least, least))
    with pytest.raises(InputError) as caught:
        net(image(least, least - 1))
    rule = f"must be at least {least} x {least} pixels for this network and head {head}"
    assert str(caught.value) == f"input_size: {(least, least - 1)}: {rule}"


@pytest.mark.parametrize("head", HEADS)
def test_align_corners_changes_the_heads_that_enlarge_maps(head: str) -> None:
    x = image(64, 96)
    with torch.no_grad():
        first, second = (
            leaves(network(head, align_corners=corners).eval()(x))[-1] for corners in (False, True)
        )
    assert torch.equal(first, second) is (head not in ("v2", "ocr", "v2p", "v2p_s2", "v2r"))


def test_v1h_widens_one_map_to_the_channels_of_v2() -> None:
    first, _, _, last = network("v1h").head.last_layer
    assert (first.in_channels, first.out_channels) == (3, 3 + 6 + 12 + 24)
    assert (last.in_channels, last.out_channels) == (45, OUTPUTS)


@pytest.mark.parametrize("change", [{"final": False}, {"width_ratios": (1, 2, 4, 16)}])
def test_the_width_of_v1h_does_not_hang_on_other_branches(change: dict[str, Any]) -> None:
    assert network("v1h", **change).head.last_layer[0].out_channels == 45


def test_v1h_reads_the_map_that_is_asked_for() -> None:
    net = network("v1h", output_branch=1)
    assert net.head.last_layer[0].in_channels == 6
    assert net.eval()(image(64, 64)).shape == (BATCH, OUTPUTS, 8, 8)


def test_v1hp_widens_one_map_and_v1p_takes_it_as_it_is() -> None:
    for head, width in (("v1p", 3), ("v1hp", 45)):
        reduce = network(head).head.reduction_conv[0]
        assert (reduce.in_channels, reduce.out_channels) == (width, OUTPUTS)
    widen, norm, relu = network("v1hp", output_branch=1).head.widening_conv
    assert (widen.in_channels, widen.out_channels, norm.num_features) == (6, 90, 90)
    assert isinstance(relu, nn.ReLU)


def test_the_pyramid_of_v1_is_that_of_its_map() -> None:
    """Section 3.3's steps, written out: widen, reduce, pool, convolve."""
    net = network("v1hp").eval()
    x = image(64, 96)
    with torch.no_grad():
        (y,) = net.body(x)
        conv, norm, _ = net.head.widening_conv
        y = F.relu(norm(F.conv2d(y, conv.weight, conv.bias)))
        reduce = net.head.reduction_conv[0]
        y = F.conv2d(y, reduce.weight, reduce.bias)
        for level, (found, last) in enumerate(zip(net(x), net.head.fpn_conv, strict=True)):
            pooled = F.avg_pool2d(y, 2**level)
            expected = F.conv2d(pooled, last.weight, last.bias, padding=1)
            assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output_branch", range(4))
def test_v1_reads_the_map_that_is_asked_for(output_branch: int) -> None:
    net = network("v1", output_branch=output_branch).eval()
    assert net.body.strides == (4 * 2**output_branch,)
    side = 16 // 2**output_branch
    assert net(image(64, 64)).shape == (BATCH, OUTPUTS, side, side)


@pytest.mark.parametrize("output_bias", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_only_the_last_layer_may_lose_its_bias(head: str, output_bias: bool) -> None:
    def biases(net: Network) -> set[str]:
        return {n for n, _ in net.head.named_parameters() if n.endswith("bias")}

    lasts = {"v1": "final_layer", "v2": "last_layer.3", "v1h": "last_layer.3"}
    last = "classifier" if head.startswith("cls") else lasts.get(head)
    lost = {f"{last}.bias"} if last else set()
    lost = {"cls_head.bias", "aux_head.3.bias"} if head == "ocr" else lost
    kept = biases(network(head, output_bias=output_bias))
    assert biases(network(head)) - kept == (set() if output_bias else lost)


@pytest.mark.parametrize("head", HEADS)
def test_an_exported_program_puts_out_the_same(head: str) -> None:
    net = network(head, num_stages=3, upsample="bilinear", num_branches=2).eval()
    x = image(97, 131, batch=1)
    with torch.no_grad():
        expected = leaves(net(x))
        outputs = leaves(torch.export.export(net, (x,)).module()(x))
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
