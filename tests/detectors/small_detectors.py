"""Detectors that run in a moment, and a batch for them."""

from typing import Any

import torch
from torch import Tensor

from hrnet_search.arch import ArchSpec, hrnet
from hrnet_search.detectors import Detector, HRPyramid, build_detector, init_detector
from hrnet_search.frameworks import DetectorSpec
from hrnet_search.model import build

CLASSES = 3
LEAN = {"hidden": 32, "rpn_samples": 32, "roi_samples": 16}
LEAN |= {"train_proposals": 50, "test_proposals": 20}


def tiny_arch(num_stages: int = 2, **arguments: Any) -> ArchSpec:
    small = {"width": 4, "num_modules": 1, "num_blocks": 1, "stage1_blocks": 1, "stage1_width": 4}
    return hrnet(**{**small, "stem_width": 8, "num_stages": num_stages, **arguments})


def tiny_spec(framework: str, **settings: Any) -> DetectorSpec:
    values = {"num_classes": CLASSES, "channels": 16, **LEAN, **settings}
    return DetectorSpec(framework=framework, **values)


def tiny_detector(framework: str, *, seed: int = 0, **settings: Any) -> Detector:
    """Initialised, in training mode."""
    spec = tiny_spec(framework, **settings)
    net = build(tiny_arch(), head=spec.pyramid, num_outputs=spec.channels)
    detector = build_detector(HRPyramid(net), spec)
    init_detector(detector, seed=seed)
    return detector


def batch(masks: bool = True) -> tuple[Tensor, ...]:
    """Two images of 64x96, the second without its last 14 rows and 16 columns: two objects each."""
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    images[1, :, 50:], images[1, :, :, 80:] = 0, 0
    sizes = torch.tensor([[64, 96], [50, 80]])
    boxes = torch.tensor(
        [
            [[8.0, 8.0, 40.0, 40.0], [50.0, 10.0, 90.0, 60.0]],
            [[4.0, 4.0, 30.0, 48.0], [40.0, 12.0, 72.0, 44.0]],
        ]
    )
    labels = torch.tensor([[1, 3], [2, 1]])
    if not masks:
        return images, sizes, boxes, labels
    return images, sizes, boxes, labels, filled(boxes, 64, 96)


def filled(boxes: Tensor, height: int, width: int) -> Tensor:
    """(B, M, 4) -> masks (B, M, H, W) of everything inside the boxes."""
    rows, cols = torch.arange(height)[:, None], torch.arange(width)
    x1, y1, x2, y2 = boxes[..., None, None].unbind(2)
    return ((rows >= y1) & (rows < y2) & (cols >= x1) & (cols < x2)).byte()
