"""The pieces of an HRNet: residual units, fusion unit, module, transition.

Attribute names are those of the official code, so that a state dict of ours is one of theirs.
Shapes: B images, C_r channels, H_r and W_r height and width of branch r.
"""

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from ..arch import BOTTLENECK_EXPANSION, StageSpec


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """A convolution without bias that halves exactly at stride 2, and its BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*conv_bn(inputs, outputs, kernel, stride), nn.ReLU(inplace=True))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the identity: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(channels, channels, 3)
        self.conv2, self.bn2 = conv_bn(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + x, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut: (B, inputs, H, W) -> (B, 4 * width, H, W)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        outputs = width * BOTTLENECK_EXPANSION
        self.conv1, self.bn1 = conv_bn(inputs, width, 1)
        self.conv2, self.bn2 = conv_bn(width, width, 3)
        self.conv3, self.bn3 = conv_bn(width, outputs, 1)
        same = inputs == outputs
        self.downsample = nn.Identity() if same else nn.Sequential(*conv_bn(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x), inplace=True)


def resize(x: Tensor, like: Tensor, mode: str, align_corners: bool) -> Tensor:
    """Enlarge (B, C, h, w) to the height and width of `like`, whatever they are."""
    corners = align_corners if mode == "bilinear" else None
    return F.interpolate(x, size=like.shape[-2:], mode=mode, align_corners=corners)


def _down(inputs: int, outputs: int, steps: int) -> nn.Sequential:
    """`steps` convolutions of stride 2; only the last changes the width and has no ReLU."""
    convs = [conv_bn_relu(inputs, inputs, 3, stride=2) for _ in range(steps - 1)]
    return nn.Sequential(*convs, nn.Sequential(*conv_bn(inputs, outputs, 3, stride=2)))


class Fusion(nn.ModuleList):
    """A fusion unit: every output map is the sum of all input maps, resized (section 3.2).

    Output i from input j is the identity for j = i; a 1x1 convolution with BatchNorm, then
    enlarged, for j > i; i - j strided 3x3 convolutions for j < i; ReLU follows the sum. The
    paper's text enlarges before the 1x1 convolution, the official code after it, as here.

    Args:
        channels: C_r of each branch.
        num_outputs: How many maps to put out, from the highest resolution down.
        upsample: "nearest" or "bilinear".
        align_corners: Convention of "bilinear".
    """

    def __init__(
        self, channels: tuple[int, ...], num_outputs: int, upsample: str, align_corners: bool
    ) -> None:
        super().__init__(
            nn.ModuleList(self._path(channels, i, j) for j in range(len(channels)))
            for i in range(num_outputs)
        )
        self.upsample, self.align_corners = upsample, align_corners

    @staticmethod
    def _path(channels: tuple[int, ...], i: int, j: int) -> nn.Module:
        if j == i:
            return nn.Identity()
        if j > i:
            return nn.Sequential(*conv_bn(channels[j], channels[i], 1))
        return _down(channels[j], channels[i], i - j)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        """A list of (B, C_r, H_r, W_r) in, one of its first `num_outputs` shapes out."""
        return [self._fuse(i, cast(nn.ModuleList, paths), xs) for i, paths in enumerate(self)]

    def _fuse(self, i: int, paths: Iterable[nn.Module], xs: list[Tensor]) -> Tensor:
        total: Tensor | None = None
        for j, (path, x) in enumerate(zip(paths, xs, strict=True)):
            y = path(x)
            if j > i:
                y = resize(y, xs[i], self.upsample, self.align_corners)
            total = y if total is None else total + y
        assert total is not None
        return F.relu(total)


class HRModule(nn.Module):
    """Parallel branches of residual units, then a fusion unit or nothing.

    Args:
        stage: Widths and units of the branches.
        fusion: The unit that follows them, or None to pass each branch's own output on.
    """

    def __init__(self, stage: StageSpec, fusion: Fusion | None) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(channels) for _ in range(blocks)))
            for channels, blocks in zip(stage.num_channels, stage.num_blocks, strict=True)
        )
        self.fuse_layers = fusion

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        ys = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        return ys if self.fuse_layers is None else self.fuse_layers(ys)


class Transition(nn.ModuleList):
    """From the maps of one stage to those of the next, which has one branch more.

    An existing branch takes its own map, through a 3x3 convolution where the width changes; the
    new branch takes the lowest-resolution map through a 3x3 convolution of stride 2.
    """

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        kept = [
            nn.Identity() if old == new else conv_bn_relu(old, new, 3)
            for old, new in zip(before, after, strict=False)
        ]
        # The official code nests the new branch once more; its names are kept.
        new = nn.Sequential(conv_bn_relu(before[-1], after[-1], 3, stride=2))
        super().__init__([*kept, new])

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self, [*xs, xs[-1]], strict=True)]


__all__ = ["BasicBlock", "Bottleneck", "Fusion", "HRModule", "Transition", "conv_bn_relu", "resize"]
