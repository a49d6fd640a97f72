"""BatchNorm folded into convolutions, on every head and framework."""

import copy

import pytest
import torch
from torch import nn

from hrnet_search.arch import hrnet
from hrnet_search.blueprint import HEADS
from hrnet_search.detectors import HRPyramid, build_detector
from hrnet_search.folding import folded
from hrnet_search.frameworks import FRAMEWORKS, DetectorSpec
from hrnet_search.model import build

SMALL = {
    "width": 4, "num_stages": 3, "num_modules": 1, "num_blocks": 1, "stage1_blocks": 1,
    "stage1_width": 4, "stem_width": 8,
}  # fmt: skip


def stirred(net: nn.Module) -> nn.Module:
    """Statistics and weights of BatchNorm are drawn, so that each of the four matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean):
                    assert tensor is not None
                    tensor.copy_(torch.randn(tensor.shape, generator=generator))
                assert module.running_var is not None
                module.running_var.copy_(
                    0.5 + torch.rand(module.running_var.shape, generator=generator)
                )
    return net.eval()


def flat(output: object) -> list[torch.Tensor]:
    return [output] if isinstance(output, torch.Tensor) else list(output)  # type: ignore[call-overload]


def require_alike(one: object, other: object) -> None:
    for a, b in zip(flat(one), flat(other), strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-5 * (a.max() - a.min())
        assert a.max() > a.min()


@pytest.mark.parametrize("head", HEADS)
def test_a_folded_network_has_no_batchnorm_and_the_same_outputs(head: str) -> None:
    net = stirred(build(hrnet(**SMALL), head=head, num_outputs=5))
    image = torch.randn(2, 3, 97, 131, generator=torch.Generator().manual_seed(1))
    fast = folded(copy.deepcopy(net))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    with torch.inference_mode():
        require_alike(net(image), fast(image))
        last = fast.to(memory_format=torch.channels_last)
        require_alike(net(image), last(image.to(memory_format=torch.channels_last)))


@pytest.mark.parametrize("how", [{"fuse": "concat"}, {"unit": "bottleneck"}])
def test_other_fusions_and_units_are_folded_too(how: dict[str, str]) -> None:
    net = stirred(build(hrnet(**SMALL, **how), head="v2", num_outputs=5))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    fast = folded(copy.deepcopy(net))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    with torch.inference_mode():
        require_alike(net(image), fast(image))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_folded_detector_has_the_same_outputs_before_the_choice(framework: str) -> None:
    spec = DetectorSpec(framework=framework, num_classes=3, channels=16, hidden=32)
    net = build(hrnet(**SMALL), head=spec.pyramid, num_outputs=spec.channels)
    detector = stirred(build_detector(HRPyramid(net), spec))
    fast = folded(copy.deepcopy(detector))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        one, other = (d.dense(d.backbone(image)) for d in (detector, fast))  # type: ignore[operator]
    assert list(one) == list(other)
    require_alike(one.values(), other.values())


def test_folding_is_exact_but_for_rounding() -> None:
    """In float64 nothing of it is left, not even after the attention of OCR."""
    net = stirred(build(hrnet(**SMALL), head="ocr", num_outputs=5)).double()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    fast = folded(copy.deepcopy(net))
    with torch.inference_mode():
        for a, b in zip(net(image), fast(image), strict=True):
            assert (a - b).abs().max() <= 1e-11 * (a.max() - a.min())


def test_a_network_in_training_is_not_folded() -> None:
    net = build(hrnet(**SMALL), head="v1", num_outputs=5)
    with pytest.raises(ValueError, match=r"call net\.eval\(\) before"):
        folded(net)
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
