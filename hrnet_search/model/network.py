"""The network that joins a body and a head."""

from typing import Any

from torch import Tensor, nn

from ..arch import ArchSpec
from ..blueprint import IMAGE_CHANNELS, canonical, check_input, head_of, reads
from ..errors import InputError
from .heads import MODULES
from .hrnet import HRNet


class Network(nn.Module):
    """A body and a head.

    Args:
        spec: The body; what cannot reach the head's output is not built.
        head: A key of `blueprint.HEADS`.
        num_outputs: Joints or classes; channels of each level of a pyramid.

    Attributes:
        spec: What was built, in its canonical form.
        body: An `HRNet`, which states `channels` and `strides` of the maps it puts out.
        head: A module on the list of those maps.
    """

    def __init__(self, spec: ArchSpec, *, head: str, num_outputs: int) -> None:
        super().__init__()
        self.spec, self.head_name = canonical(spec, head), head
        layers = head_of(head).layers(self.spec, num_outputs)
        self.body = HRNet(self.spec, reads=reads(self.spec, head))
        resizing = (self.spec.align_corners,) if head_of(head).resizes else ()
        self.head = MODULES[head](layers, *resizing)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.spec.bn_momentum

    def forward(self, x: Tensor) -> Any:
        """(B, 3, H, W) -> what the head puts out: a tensor, OCR two, a pyramid five.

        Raises:
            InputError: The images have another number of channels, or are too small.
        """
        if x.ndim != 4 or x.shape[1] != IMAGE_CHANNELS:
            rule = f"must be images of shape (B, {IMAGE_CHANNELS}, H, W)"
            raise InputError(rule, key="input", value=tuple(x.shape))
        check_input(self.spec, self.head_name, (x.shape[-2], x.shape[-1]))
        return self.head(self.body(x))


def build(spec: ArchSpec, *, head: str, num_outputs: int) -> Network:
    """The network of `spec` with a head for `num_outputs` joints or classes.

    Args:
        spec: The body, from `hrnet`, `preset` or `ArchSpec.from_dict`.
        head: "v1", "v1h", "v2", "ocr", "v1p", "v1hp", "v2p", "v2p_s2", "v2r", "cls", "cls_i" or
            "cls_ii"; see `blueprint.HEADS`.
        num_outputs: Joints or classes; channels of each map of a pyramid (256 in the paper).

    Raises:
        InputError: There is no such head, `num_outputs` is no whole number of at least 1, or
            the spec lacks a map that the head reads.
    """
    if type(num_outputs) is not int or num_outputs < 1:
        raise InputError(
            "must be a whole number of at least 1", key="num_outputs", value=num_outputs
        )
    return Network(spec, head=head, num_outputs=num_outputs)
