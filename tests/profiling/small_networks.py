"""Networks that are built, counted and run in a moment."""

from typing import Any

from torch import nn

from hrnet_search.arch import ArchSpec, hrnet
from hrnet_search.cost import Cost, cost
from hrnet_search.model import build

# Multiply-adds of convolutions and linear layers by the official code's `get_model_summary`.
W32_POSE_256X192 = 7_645_003_776


def tiny(**arguments: Any) -> ArchSpec:
    small = {"width": 4, "num_modules": 1, "num_blocks": 1}
    return hrnet(**{**small, "stage1_blocks": 1, "stage1_width": 4, "stem_width": 8, **arguments})


VARIED = {  # head, spec
    "v1": ("v1", tiny(width=5, num_stages=3)),
    "v2": ("v2", tiny(width=[4, 6, 8], num_stages=3, upsample="bilinear", within=False)),
    "v2 corners": ("v2", tiny(width=7, num_stages=2, upsample="bilinear", align_corners=True)),
    "ocr": ("ocr", tiny(num_stages=2, upsample="bilinear")),
    "v2p": ("v2p", tiny(num_stages=3, fuse="concat")),
    "cls": ("cls", tiny(num_stages=2)),
    "cls_i": ("cls_i", tiny(num_stages=3, output_bias=False, fuse="weighted")),
}


def network(name: str, num_outputs: int = 5) -> nn.Module:
    head, spec = VARIED[name]
    return build(spec, head=head, num_outputs=num_outputs)


def cost_of(name: str, size: tuple[int, int], num_outputs: int = 5) -> Cost:
    head, spec = VARIED[name]
    return cost(spec, head=head, num_outputs=num_outputs, input_size=size)
