"""Backbones: maps by name at any size, and what of them learns."""

from collections.abc import Callable

import pytest
import torch
from small_detectors import tiny_arch
from torch import Tensor, nn
from torch.nn import functional as F

from hrnet_search.baselines import rival_pyramid
from hrnet_search.detectors.pyramid import HRPyramid, Pyramid, frozen
from hrnet_search.errors import InputError
from hrnet_search.model import build, init_weights

CHANNELS = 8


def hr(head: str = "v2p", num_stages: int = 3, *, checkpointing: bool = False) -> HRPyramid:
    net = build(tiny_arch(num_stages), head=head, num_outputs=CHANNELS)
    init_weights(net, seed=0)
    return HRPyramid(net, gradient_checkpointing=checkpointing)


def image(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(64, 96), (97, 131)], ids=str)
@pytest.mark.parametrize("num_stages", [2, 3, 4])
@pytest.mark.parametrize(("head", "stride"), [("v2p", 1), ("v2p_s2", 2)])
def test_maps_are_those_of_the_paper_at_any_size(
    head: str, stride: int, num_stages: int, size: tuple[int, int]
) -> None:
    # Section 3.3 and the official hrfpn.py, written out: enlarge, join, reduce, pool, convolve.
    backbone = hr(head, num_stages).eval()
    with torch.no_grad():
        maps = backbone.network.body(image(*size))
        assert len(maps) == num_stages
        enlarged = [F.interpolate(x, maps[0].shape[2:], mode="bilinear") for x in maps]
        joined = backbone.network.head.reduction_conv(torch.cat(enlarged, dim=1))
        levels = backbone(image(*size))
    assert list(levels) == ["0", "1", "2", "3", "4"]
    assert (backbone.out_channels, backbone.strides) == (
        CHANNELS,
        tuple(4 * stride * 2**level for level in range(5)),
    )
    for level, (x, conv) in enumerate(
        zip(levels.values(), backbone.network.head.fpn_conv, strict=True)
    ):
        pooled = F.avg_pool2d(joined, 2**level, 2**level)
        with torch.no_grad():
            expected = F.conv2d(pooled, conv.weight, conv.bias, stride=stride, padding=1)
        assert torch.allclose(x, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


def test_centernet_reads_one_map_of_stride_4() -> None:
    backbone = hr("v2r").eval()
    levels = backbone(image(64, 96))
    assert {name: tuple(x.shape) for name, x in levels.items()} == {"0": (2, CHANNELS, 16, 24)}
    assert (backbone.out_channels, backbone.strides) == (CHANNELS, (4,))


@pytest.fixture(scope="module")
def resnet() -> Pyramid:
    return rival_pyramid("resnet50_fpn", "v2p", CHANNELS)


@pytest.fixture(params=["hrnet", "resnet"])
def backbone(request: pytest.FixtureRequest, resnet: Pyramid) -> Pyramid:
    net = hr() if request.param == "hrnet" else resnet
    net.requires_grad_(True)
    return frozen(net, norm_eval=False, stages=0).train()


def batch_norms(module: nn.Module) -> dict[str, nn.BatchNorm2d]:
    found = module.named_modules()
    return {name: norm for name, norm in found if isinstance(norm, nn.BatchNorm2d)}


def test_norm_eval_keeps_statistics_and_lets_weights_learn(backbone: Pyramid) -> None:
    norms = batch_norms(frozen(backbone, norm_eval=True, stages=0).train())
    before = {name: norm.running_var.clone() for name, norm in norms.items()}
    assert backbone.training
    backbone.zero_grad()
    sum(x.square().mean() for x in backbone(image(64, 64)).values()).backward()
    for name, norm in norms.items():
        assert torch.equal(norm.running_var, before[name]), name
        assert norm.weight.grad is not None, name
    frozen(backbone, norm_eval=False, stages=0)
    assert all(norm.training for norm in norms.values())


STAGES: dict[str, list[tuple[str, ...]]] = {
    "HRPyramid": [
        ("network.body.conv", "network.body.bn", "network.body.layer1."),
        ("network.body.transition1.", "network.body.stage2."),
        ("network.body.transition2.", "network.body.stage3."),
    ],
    "FPN": [
        ("network.body.conv1", "network.body.bn1", "network.body.layer1."),
        *((f"network.body.layer{number}.",) for number in (2, 3, 4)),
    ],
}


def test_frozen_stages_learn_nothing_and_take_no_statistics(backbone: Pyramid) -> None:
    names = STAGES[type(backbone).__name__]
    for count in range(len(names) + 1):
        backbone.requires_grad_(True)
        frozen(backbone, norm_eval=False, stages=count).train()
        prefixes = tuple(prefix for stage in names[:count] for prefix in stage)
        assert backbone.training
        for name, parameter in backbone.named_parameters():
            assert parameter.requires_grad is not name.startswith(prefixes), (count, name)
        for name, norm in batch_norms(backbone).items():
            assert norm.training is not name.startswith(prefixes), (count, name)


def test_more_frozen_stages_than_there_are_is_one_line(backbone: Pyramid) -> None:
    most = len(STAGES[type(backbone).__name__])
    with pytest.raises(InputError) as caught:
        frozen(backbone, norm_eval=True, stages=most + 1)
    rule = f"must be 0 to {most}, the stages of this backbone"
    assert str(caught.value) == f"task.frozen_stages: {most + 1}: {rule}"


def gradients(backbone: HRPyramid) -> list[Tensor]:
    frozen(backbone, norm_eval=True, stages=1).train()
    levels = backbone(image(64, 96)).values()
    sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in levels).backward()
    return [p.grad for p in backbone.parameters() if p.requires_grad]


def test_checkpointing_gives_the_same_gradients_from_less(one_thread: None) -> None:
    calls: dict[bool, int] = {}
    found = {}
    for checkpointing in (False, True):
        backbone = hr(checkpointing=checkpointing)
        calls[checkpointing] = 0

        def count(*_: object, again: bool = checkpointing) -> None:
            calls[again] += 1

        backbone.network.body.stage2.register_forward_pre_hook(count)
        found[checkpointing] = gradients(backbone)
    assert calls == {False: 1, True: 2}
    assert all(torch.equal(a, b) for a, b in zip(found[False], found[True], strict=True))


def test_nothing_is_computed_again_in_a_test() -> None:
    backbone = hr(checkpointing=True).eval()
    with torch.no_grad():
        levels = backbone(image(64, 96))
    assert not any(x.requires_grad for x in levels.values())


@pytest.mark.parametrize(("head", "first"), [("v2p", 4), ("v2p_s2", 8)])
def test_rivals_have_the_strides_of_the_head(head: str, first: int) -> None:
    with torch.device("meta"):
        backbone = rival_pyramid("resnet50_fpn", head, CHANNELS).eval()
        levels = backbone(torch.empty(1, 3, 256, 512))
    assert backbone.strides == tuple(first * 2**level for level in range(5))
    assert [tuple(x.shape) for x in levels.values()] == [
        (1, CHANNELS, 256 // stride, 512 // stride) for stride in backbone.strides
    ]
    assert list(levels) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: rival_pyramid("resnet50_fpn", "v2r", CHANNELS),
            "head: 'v2r': is for HRNets alone (CenterNet reads one map)",
        ),
        (
            lambda: rival_pyramid("resnet50", "v2p", CHANNELS),
            "rival: 'resnet50': must be one of resnet50_fpn, resnet101_fpn, "
            "resnext101_64x4d_fpn; did you mean 'resnet50_fpn'?",
        ),
    ],
)
def test_what_is_no_pyramid_is_one_line(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
