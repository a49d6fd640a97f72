"""The body: an image in, parallel maps of several resolutions out."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .. import blueprint
from ..arch import ArchSpec
from .blocks import HRModule, Maps, Transition, conv_bn, residual


class HRNet(nn.Module):
    """The body of an HRNet (section 3.1, Table 14), built from its spec.

    Args:
        spec: The network.
        reads: The branches whose maps are put out, all if not given.

    Attributes:
        channels: C_r of each map that is put out.
        strides: Its stride with respect to the input.
        checkpointing: Keep for the backward pass what enters each stage alone, and compute the
            rest again. Statistics of BatchNorm in training mode would be taken twice.
    """

    checkpointing = False

    def __init__(self, spec: ArchSpec, *, reads: Sequence[int] | None = None) -> None:
        super().__init__()
        self.reads = tuple(range(len(spec.channels)) if reads is None else reads)
        self.channels = tuple(spec.channels[branch] for branch in self.reads)
        self.strides = tuple(spec.strides[branch] for branch in self.reads)
        first, second = blueprint.stem(spec)
        self.conv1, self.bn1 = conv_bn(first)
        self.conv2, self.bn2 = conv_bn(second)
        self.layer1 = nn.Sequential(*map(residual, blueprint.stage1(spec)))
        channels: tuple[int, ...] = (blueprint.stage1_outputs(spec),)
        self.num_parallel_stages = len(spec.stages)
        for index, stage in enumerate(spec.stages):
            modules = [HRModule(spec, stage, module) for module in stage.modules]
            self.add_module(f"transition{index + 1}", Transition(channels, stage.num_channels))
            self.add_module(f"stage{index + 2}", nn.Sequential(*modules))
            channels = stage.num_channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one (B, C_r, ceil(H / stride_r), ceil(W / stride_r)) per map."""
        xs: Maps = [x]
        for stage in self._stages():
            again = self.checkpointing and torch.is_grad_enabled()
            xs = checkpoint(stage, xs, use_reentrant=False) if again else stage(xs)
        return [cast(Tensor, xs[branch]) for branch in self.reads]

    def _stages(self) -> Iterator[Callable[[Maps], Maps]]:
        yield self._first
        for index in range(self.num_parallel_stages):
            yield partial(self._parallel, index)

    def _first(self, xs: Maps) -> Maps:
        x = F.relu(self.bn1(self.conv1(cast(Tensor, xs[0]))), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return [self.layer1(x)]

    def _parallel(self, index: int, xs: Maps) -> Maps:
        xs = self.get_submodule(f"transition{index + 1}")(xs)
        return self.get_submodule(f"stage{index + 2}")(xs)
