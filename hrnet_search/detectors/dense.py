"""What one-stage frameworks share: from scores at every place of every level to what is found.

Shapes: B images, P places (or anchors) of all levels one after the other, K classes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from ..frameworks import DetectorSpec
from .base import Found

CANDIDATES = 1000  # of a level that boxes are made of (RetinaNet, FCOS, torchvision)
# Every layer starts small, and classes as if one place in a hundred had an object: the focal loss
# would else be swamped by the others (Lin et al., ICCV 2017, section 4.1; FCOS does the same).
INITIAL_STD = 0.01
INITIAL_CLASS_BIAS = -math.log(0.99 / 0.01)
GROUPS, GROUP_CHANNELS = 32, 8  # GroupNorm's 32 groups of 256 channels


def groups_of(channels: int) -> int:
    """Groups of GroupNorm: 32, fewer for narrow maps, whose groups would have next to nothing."""
    return math.gcd(GROUPS, channels, max(1, channels // GROUP_CHANNELS))


def initial_of(name: str) -> tuple[float, float]:
    """Deviation of a layer's weights and its bias at first; see `Detector.initial`."""
    return INITIAL_STD, INITIAL_CLASS_BIAS if name.endswith("cls_logits") else 0.0


def found_in_levels(
    boxes: Tensor,
    scores: Tensor,
    counts: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    spec: DetectorSpec,
) -> list[Found]:
    """What is in each image, as torchvision's one-stage networks choose it.

    Args:
        boxes: (B, P, 4).
        scores: (B, P, K).
        counts: Places of each level, P in sum.
        sizes: (height, width) of each image.
        spec: Its `score`, `nms` and `detections` count.
    """
    found = []
    for image, size in enumerate(sizes):
        levels = zip(boxes[image].split(counts), scores[image].split(counts), strict=True)
        parts = [_best(*level, spec.score) for level in levels]
        some, values, labels = (torch.cat(column) for column in zip(*parts, strict=True))
        found.append(suppressed(clip_boxes_to_image(some, size), values, labels, spec))
    return found


def _best(boxes: Tensor, scores: Tensor, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """The best candidates of a level: boxes (N, 4), scores (N,), labels (N,) from 1 on."""
    values, classes = scores.flatten(), scores.shape[-1]
    enough = torch.where(values > least)[0]
    values, order = values[enough].topk(min(CANDIDATES, len(enough)))
    chosen = enough[order]
    return boxes[chosen // classes], values, chosen % classes + 1


def suppressed(boxes: Tensor, scores: Tensor, labels: Tensor, spec: DetectorSpec) -> Found:
    """The best of boxes of a class that overlap, by falling score, and no more than asked for."""
    kept = batched_nms(boxes, scores, labels, spec.nms)[: spec.detections]
    return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
