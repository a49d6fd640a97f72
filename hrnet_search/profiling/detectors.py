"""What a detector costs: counted layer by layer on a pass without data, with so many regions.

How many regions a test looks at, and how many masks it makes, depends on the image; costs are
those of given numbers.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..cost import Size
from ..detectors import Detector, Pyramid
from .base import meta_copy


def detector_cost(
    detector: Detector, input_size: Size, *, regions: int, masked: int
) -> tuple[int, int]:
    """Parameters, and multiply-adds of convolutions and linear layers for one image.

    Args:
        detector: Any.
        input_size: (H, W) in pixels.
        regions: Proposals that each stage of a two-stage framework looks at.
        masked: Regions whose masks are made.
    """
    macs = layer_macs(detector, input_size, regions=regions, masked=masked)
    return sum(p.numel() for p in detector.parameters()), sum(macs.values())


def layer_macs(
    detector: Detector, input_size: Size, *, regions: int, masked: int, at_output: bool = False
) -> Counter[str]:
    """Multiply-adds of each convolution and linear layer by name, biases left out.

    Args:
        detector: Any.
        input_size: (H, W) in pixels.
        regions: Proposals that each stage looks at.
        masked: Regions whose masks are made.
        at_output: Count a transposed convolution's weights at every place that it puts out, as
            the official code does, and not at every place that it takes in.
    """

    def run(net: nn.Module, images: Tensor) -> None:
        cast(Detector, net).run_layers(images, regions=regions, masked=masked)

    return _counted(detector, input_size, run, at_output=at_output)


def pyramid_cost(pyramid: Pyramid, input_size: Size) -> tuple[int, tuple[Size, ...]]:
    """Multiply-adds of a detector's backbone alone, and the sizes (h, w) of its maps.

    Args:
        pyramid: Any.
        input_size: (H, W) in pixels.
    """
    sizes: list[Size] = []

    def run(net: nn.Module, images: Tensor) -> None:
        sizes.extend((x.shape[2], x.shape[3]) for x in net(images).values())

    return sum(_counted(pyramid, input_size, run).values()), tuple(sizes)


class GivenMaps(Pyramid):
    """Stands for a backbone and costs nothing, so that what is on top is counted alone.

    Args:
        sizes: (h, w) of each map.
        strides: Of each with respect to the images.
        channels: C.
    """

    def __init__(self, sizes: Sequence[Size], strides: Sequence[int], channels: int) -> None:
        super().__init__(channels, strides)
        self.sizes = tuple(sizes)

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        """(B, 3, H, W) -> (B, C, h, w) of each level, "0" first."""
        shapes = [(len(images), self.out_channels, *size) for size in self.sizes]
        maps = ((str(level), images.new_zeros(shape)) for level, shape in enumerate(shapes))
        return OrderedDict(maps)

    def stages(self) -> list[list[nn.Module]]:
        return []


def _counted(
    net: nn.Module,
    input_size: Size,
    run: Callable[[nn.Module, Tensor], None],
    *,
    at_output: bool = False,
) -> Counter[str]:
    """Multiply-adds of each layer in a run of a copy without data; see `layer_macs`."""
    found: Counter[str] = Counter()

    def count(name: str, layer: nn.Module) -> None:
        def add(_: nn.Module, inputs: Any, output: Tensor) -> None:
            wide = inputs[0] if isinstance(layer, nn.ConvTranspose2d) and not at_output else output
            places = wide.numel() // wide.shape[1]  # of all regions, or of the image
            found[name] += layer.get_parameter("weight").numel() * places

        layer.register_forward_hook(add)

    copied = meta_copy(net)
    for name, layer in copied.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            count(name, layer)
    images = torch.empty(1, 3, *input_size, device="meta")
    with torch.no_grad():
        run(copied, images)
    return found
