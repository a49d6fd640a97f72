"""Backbones of detectors: maps by name, parts of which may be frozen.

Shapes: B images of (H, W) pixels, C channels of every map. Level i, named str(i), has the stride
`strides[i]`: place (y, x) of it lies at pixel (y, x) times that.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError
from ..model import Network
from ..model.heads import HeadV2p


class Pyramid(nn.Module):
    """What all backbones share.

    Attributes:
        out_channels: C.
        strides: Of each level, with respect to the images.
        norm_eval: Are the statistics of BatchNorm as they were before training?
        frozen_stages: Number of stages that do not learn, from the first on.
    """

    norm_eval = False
    frozen_stages = 0

    def __init__(self, out_channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.out_channels, self.strides = out_channels, tuple(strides)

    def stages(self) -> list[list[nn.Module]]:
        """The backbone's modules, from the stem, which goes with stage 1, to the last stage."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Pyramid":
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        for module in self.frozen():
            module.eval()
        return self

    def frozen(self) -> list[nn.Module]:
        """The modules that do not learn."""
        return [module for stage in self.stages()[: self.frozen_stages] for module in stage]


P = TypeVar("P", bound=Pyramid)


def frozen(backbone: P, *, norm_eval: bool, stages: int) -> P:
    """The same backbone, parts of which do not learn (mmdetection's norm_eval, frozen_stages).

    Args:
        norm_eval: BatchNorm takes no statistics, in training as in a test; its weights learn.
        stages: 1: the stem and stage 1 learn nothing at all; 2: stage 2 neither; 0: all learn.

    Raises:
        InputError: It has fewer stages.
    """
    most = len(backbone.stages())
    if not 0 <= stages <= most:
        rule = f"must be 0 to {most}, the stages of this backbone"
        raise InputError(rule, key="task.frozen_stages", value=stages)
    backbone.norm_eval, backbone.frozen_stages = norm_eval, stages
    for module in backbone.frozen():
        module.requires_grad_(False)
    return backbone.train(backbone.training)  # type: ignore[return-value]


class HRPyramid(Pyramid):
    """HRNet with HRNetV2p, or with one map (CenterNet), as a backbone.

    Args:
        network: With the head "v1p", "v1hp", "v2p", "v2p_s2" or "v2r".
        gradient_checkpointing: Keep for the backward pass what enters each stage of the body
            alone, and compute the rest again: less memory, the same gradients.
    """

    def __init__(self, network: Network, *, gradient_checkpointing: bool = False) -> None:
        convs = [module for module in network.head.modules() if isinstance(module, nn.Conv2d)]
        super().__init__(convs[-1].out_channels, _strides(network))
        self.network = network
        network.body.checkpointing = gradient_checkpointing

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        """(B, 3, H, W) -> (B, C, h, w) of each level, "0" first."""
        maps = self.network(images)
        maps = [maps] if isinstance(maps, Tensor) else maps
        return OrderedDict((str(level), x) for level, x in enumerate(maps))

    def stages(self) -> list[list[nn.Module]]:
        body = self.network.body
        parts: list[list[nn.Module]] = [[body.conv1, body.bn1, body.conv2, body.bn2, body.layer1]]
        for index in range(1, body.num_parallel_stages + 1):
            names = (f"transition{index}", f"stage{index + 1}")
            parts.append([body.get_submodule(name) for name in names])
        return parts


def _strides(network: Network) -> list[int]:
    first, head = network.body.strides[0], network.head
    if not isinstance(head, HeadV2p):
        return [first]
    convs = [module for module in head.fpn_conv if isinstance(module, nn.Conv2d)]
    pairs = zip(head.pools, convs, strict=True)
    return [first * pool * conv.stride[0] for pool, conv in pairs]


class FPN(Pyramid):
    """A ResNet with torchvision's feature pyramid as a backbone.

    Args:
        network: torchvision's `BackboneWithFPN` of a ResNet: (B, 3, H, W) -> maps by name.
        strides: Of its levels.
    """

    def __init__(self, network: nn.Module, strides: Sequence[int]) -> None:
        super().__init__(network.out_channels, strides)  # type: ignore[arg-type]
        self.network = network

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        """(B, 3, H, W) -> (B, C, h, w) of each level, "0" first."""
        maps = self.network(images).values()
        return OrderedDict((str(level), x) for level, x in enumerate(maps))

    def stages(self) -> list[list[nn.Module]]:
        body = self.network.get_submodule("body")
        first = [body.get_submodule(name) for name in ("conv1", "bn1", "layer1")]
        rest = [body.get_submodule(f"layer{number}") for number in (2, 3, 4)]
        return [first, *([stage] for stage in rest)]
