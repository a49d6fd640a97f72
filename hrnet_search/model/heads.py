"""Representation heads, and the network that joins one to a body."""

import torch
from torch import Tensor, nn

from ..arch import ArchSpec
from .blocks import resize
from .hrnet import HRNet


class HeadV1(nn.Module):
    """HRNetV1: a 1x1 convolution on the highest-resolution map (section 3.3, Fig. 4a)."""

    multi_scale = False

    def __init__(self, spec: ArchSpec, num_outputs: int) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(spec.channels[0], num_outputs, 1)

    def forward(self, xs: list[Tensor]) -> Tensor:
        """(B, C_0, H/4, W/4) -> (B, num_outputs, H/4, W/4)."""
        return self.final_layer(xs[0])


class HeadV2(nn.Module):
    """HRNetV2: all maps enlarged and concatenated, then two 1x1 convolutions (Fig. 4b)."""

    multi_scale = True

    def __init__(self, spec: ArchSpec, num_outputs: int) -> None:
        super().__init__()
        total = sum(spec.channels)
        self.align_corners = spec.align_corners
        self.last_layer = nn.Sequential(
            nn.Conv2d(total, total, 1),
            nn.BatchNorm2d(total),
            nn.ReLU(inplace=True),
            nn.Conv2d(total, num_outputs, 1),
        )

    def forward(self, xs: list[Tensor]) -> Tensor:
        """Every (B, C_r, H_r, W_r) -> (B, num_outputs, H/4, W/4)."""
        enlarged = [resize(x, xs[0], "bilinear", self.align_corners) for x in xs[1:]]
        return self.last_layer(torch.cat([xs[0], *enlarged], dim=1))


HEADS: dict[str, type[HeadV1] | type[HeadV2]] = {"v1": HeadV1, "v2": HeadV2}


class Network(nn.Module):
    """A body and a head.

    Args:
        spec: The body.
        head: A key of `HEADS`.
        num_outputs: Channels of the output: joints or classes.
    """

    def __init__(self, spec: ArchSpec, *, head: str, num_outputs: int) -> None:
        super().__init__()
        head_class = HEADS[head]
        self.body = HRNet(spec, multi_scale_output=head_class.multi_scale)
        self.head = head_class(spec, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, num_outputs, ceil(H / 4), ceil(W / 4))."""
        return self.head(self.body(x))


def build(spec: ArchSpec, *, head: str, num_outputs: int) -> Network:
    """The network of `spec` with a head for `num_outputs` joints or classes.

    Raises:
        ValueError: There is no such head.
    """
    if head not in HEADS:
        raise ValueError(f"head: {head!r}: must be one of {', '.join(HEADS)}")
    return Network(spec, head=head, num_outputs=num_outputs)
