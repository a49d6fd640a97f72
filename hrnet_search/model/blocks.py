"""The pieces of an HRNet: residual units, fusion unit, module, transition.

Which layers a piece has is said in `blueprint`; here they become modules, and are given their
order of computation. Attribute names are those of the official code, so that a state dict of
ours is one of theirs. Shapes: B images, C_r channels, H_r and W_r height and width of branch r.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import blueprint
from ..arch import ArchSpec, ModuleSpec, StageSpec
from ..blueprint import Conv, Path, Unit

Maps = list[Tensor | None]  # one per branch, from high to low resolution; None: absent


def conv_bn(conv: Conv) -> list[nn.Module]:
    """The convolution, padded to keep or halve the size, and its BatchNorm if it has one."""
    layer = nn.Conv2d(
        conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.kernel // 2, bias=conv.bias
    )
    return [layer, nn.BatchNorm2d(conv.outputs)] if conv.norm else [layer]


def conv_bn_relu(conv: Conv) -> list[nn.Module]:
    """The same, and its ReLU if it has one."""
    return [*conv_bn(conv), nn.ReLU(inplace=True)] if conv.relu else conv_bn(conv)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the identity: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(unit.convs[0])
        self.conv2, self.bn2 = conv_bn(unit.convs[1])

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + x, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(unit.convs[0])
        self.conv2, self.bn2 = conv_bn(unit.convs[1])
        self.conv3, self.bn3 = conv_bn(unit.convs[2])
        short = unit.shortcut
        self.downsample = nn.Identity() if short is None else nn.Sequential(*conv_bn(short))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x), inplace=True)


def residual(unit: Unit) -> nn.Module:
    return BasicBlock(unit) if len(unit.convs) == 2 else Bottleneck(unit)


def resize(x: Tensor, like: Tensor, mode: str, align_corners: bool) -> Tensor:
    """Bring (B, C, h, w) to the height and width of `like`, whatever they are."""
    corners = align_corners if mode == "bilinear" else None
    return F.interpolate(x, size=like.shape[-2:], mode=mode, align_corners=corners)


def _path(path: Path) -> nn.Module:
    """Names as in the official code: a strided path nests its convolutions, others do not."""
    if path.resize:
        return nn.Sequential(*conv_bn(path.convs[0]))
    return nn.Sequential(*(nn.Sequential(*conv_bn_relu(conv)) for conv in path.convs))


class FusionRow(nn.ModuleList):
    """One output of a fusion unit: all maps that lead to it, resized, joined, ReLU.

    Entry j is the path from branch j, the identity for the branch itself and where no edge is.
    """

    weight: nn.Parameter

    def __init__(self, spec: ArchSpec, channels: Sequence[int], target: int, sources: list[int]):
        how = blueprint.resizing(spec)
        self.paths = {
            j: blueprint.path(how, channels[j], channels[target], j, target)
            for j in sources
            if j != target
        }
        super().__init__(
            _path(self.paths[j]) if j in self.paths else nn.Identity() for j in range(len(channels))
        )
        self.target, self.sources = target, sources
        self.fuse, self.align_corners = spec.fuse, spec.align_corners
        if self.fuse == "concat":
            self.mix = nn.Sequential(*conv_bn(blueprint.mix(len(sources), channels[target])))
        if self.fuse == "weighted":
            self.weight = nn.Parameter(torch.ones(len(sources)))

    def forward(self, xs: Maps) -> Tensor:
        """Every (B, C_r, H_r, W_r) -> (B, C_i, H_i, W_i) of its target i."""
        like = cast(Tensor, xs[self.target])
        if self.fuse == "concat":
            return F.relu(self.mix(torch.cat([self._reach(j, xs, like) for j in self.sources], 1)))
        total: Tensor | None = None
        for place, j in enumerate(self.sources):
            y = self._reach(j, xs, like)
            if self.fuse == "weighted":
                y = self.weight[place] * y
            if total is None:
                total = y
            elif self.fuse == "multiply":
                total = total * y
            else:
                total = total + y
        assert total is not None
        return F.relu(total)

    def _reach(self, j: int, xs: Maps, like: Tensor) -> Tensor:
        x = cast(Tensor, xs[j])
        if j == self.target:
            return x
        path = self.paths[j]
        if path.resize_first:
            return self[j](self._resize(j, x, like))
        y = self[j](x)
        return self._resize(j, y, like) if path.resize else y

    def _resize(self, j: int, x: Tensor, like: Tensor) -> Tensor:
        mode = self.paths[j].resize
        if mode == "avg_pool":  # sizes of branches halve, rounded up, and so does this
            window = 2 ** (self.target - j)
            return F.avg_pool2d(x, window, ceil_mode=True, count_include_pad=False)
        return resize(x, like, mode, self.align_corners)


class Fusion(nn.ModuleList):
    """A fusion unit: one row per branch; a branch that no edge leads to passes on (section 3.2).

    Output i from input j is the identity for j = i; a 1x1 convolution with BatchNorm and an
    enlargement for j > i; i - j strided 3x3 convolutions for j < i; ReLU follows the sum. The
    paper's text enlarges before the 1x1 convolution, the official code after it; both, and
    other ways of resizing and joining, are fields of the spec.
    """

    def __init__(self, spec: ArchSpec, channels: Sequence[int], module: ModuleSpec) -> None:
        rows: list[nn.Module] = []
        for i in range(len(channels)):
            sources = sorted({i} | {source for source, target in module.edges if target == i})
            fused = len(sources) > 1
            rows.append(FusionRow(spec, channels, i, sources) if fused else nn.ModuleList())
        super().__init__(rows)

    def forward(self, xs: Maps) -> Maps:
        """A list of (B, C_r, H_r, W_r) in, one of the same shapes out."""
        return [row(xs) if isinstance(row, FusionRow) else xs[i] for i, row in enumerate(self)]


class HRModule(nn.Module):
    """Parallel branches of residual units, then a fusion unit or nothing."""

    def __init__(self, spec: ArchSpec, stage: StageSpec, module: ModuleSpec) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(residual(blueprint.unit(spec.unit, width)) for _ in range(blocks)))
            for width, blocks in zip(stage.num_channels, module.num_blocks, strict=True)
        )
        self.fuse_layers = Fusion(spec, stage.num_channels, module) if module.edges else None

    def forward(self, xs: Maps) -> Maps:
        ys = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        return ys if self.fuse_layers is None else self.fuse_layers(ys)


class Transition(nn.ModuleList):
    """From the maps of one stage to those of the next (`blueprint.transition`)."""

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        steps = blueprint.transition(before, after)
        super().__init__(
            self._layers(branch >= len(before), step[1] if step else ())
            for branch, step in enumerate(steps)
        )
        self.sources = [None if step is None else step[0] for step in steps]

    @staticmethod
    def _layers(new: bool, convs: tuple[Conv, ...]) -> nn.Module:
        if new:  # The official code nests a new branch once more; its names are kept.
            return nn.Sequential(*(nn.Sequential(*conv_bn_relu(conv)) for conv in convs))
        return nn.Sequential(*conv_bn_relu(convs[0])) if convs else nn.Identity()

    def forward(self, xs: Maps) -> Maps:
        return [
            None if source is None else layer(xs[source])
            for source, layer in zip(self.sources, self, strict=True)
        ]


__all__ = [
    "BasicBlock",
    "Bottleneck",
    "Fusion",
    "FusionRow",
    "HRModule",
    "Transition",
    "conv_bn",
    "conv_bn_relu",
    "residual",
    "resize",
]
