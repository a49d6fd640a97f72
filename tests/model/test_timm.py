"""Our HRNet-C is timm's: names, shapes and numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hrnet_search.model import build
from hrnet_search.presets import preset
from hrnet_search.weights import load_state

timm = pytest.importorskip("timm")

TOLERANCE = 1e-5  # of the output's largest magnitude
CLASSES = 10  # a small last layer; timm's is as wide
NETWORKS = {
    "hrnet_w18_small": "w18-small-v1",
    "hrnet_w18_small_v2": "w18-small-v2",
    **{f"hrnet_w{width}": f"w{width}" for width in (18, 30, 32, 40, 44, 48, 64)},
}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def create(name: str, **arguments: Any) -> nn.Module:
    """timm's network, with weights that keep values moderate."""
    with torch.device("meta"):
        net = timm.create_model(name, pretrained=False, **arguments)
    net = net.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(1)
    for key, entry in net.state_dict().items():
        fill(key, entry, generator)
    return net


def fill(name: str, entry: Tensor, generator: torch.Generator) -> None:
    """Variance kept by convolutions, BatchNorm off its initial 1 and 0."""
    if not entry.is_floating_point():
        entry.fill_(7)
    elif entry.ndim > 1:
        # Uniform: half the time of normal numbers, of which W64 takes 128 million.
        entry.uniform_(-1, 1, generator=generator).mul_((6 / entry[0].numel()) ** 0.5)
    elif name.endswith("bias") or name.endswith("running_mean"):
        entry.normal_(0, 0.1, generator=generator)
    elif name.endswith("running_var"):
        entry.uniform_(0.5, 1.5, generator=generator)
    else:
        entry.uniform_(0.25, 0.75, generator=generator)


def difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def ours(name: str, head: str, num_outputs: int) -> nn.Module:
    with torch.device("meta"):
        net = build(
            preset(NETWORKS[name], task="classification"), head=head, num_outputs=num_outputs
        )
    return net.to_empty(device="cpu").eval()


@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_classification(name: str) -> None:
    theirs = create(name, num_classes=CLASSES)
    net = ours(name, "cls", CLASSES)
    loaded = load_state(net, theirs.state_dict())
    assert len(loaded.matched) == len(net.state_dict())
    assert (loaded.convention, loaded.missing, loaded.ignored) == ("official", (), ())
    expected = theirs(IMAGES)
    assert 1e-3 < expected.abs().max() < 1e6
    assert difference(expected[0], expected[1]) > 1e-3  # so there is something to compare
    assert difference(net(IMAGES), expected) <= TOLERANCE


@torch.inference_mode()
def test_maps_of_the_body() -> None:
    theirs = create("hrnet_w18_small", features_only=True, feature_location="")
    net = ours("hrnet_w18_small", "v2", 3)
    loaded = load_state(net, theirs.state_dict(), parts="body")
    assert loaded.ignored == ()
    maps = theirs(IMAGES)[-4:]  # the first one is the stem's
    for mine, expected in zip(net.body(IMAGES), maps, strict=True):
        assert difference(mine, expected) <= TOLERANCE
