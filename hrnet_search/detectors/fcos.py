"""FCOS: every place says what lies over it and how far the four sides are.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, on strides 8 to
128. Two versions, of which `DetectorSpec` chooses; the paper's is the first:

* The original, as HRNet's own code (HRNet-FCOS) has it: distances are exponentials, in pixels,
  of outputs times a learnt factor of their level; the loss is -ln IoU, weighted by centre-ness;
  centre-ness is read from the classes' tower.
* The later one, torchvision's: `norm_on_bbox`: distances are outputs, if positive, in strides of
  the level, with the loss 1 - GIoU, that learns nothing from boxes as small as exponentials
  start with; `centerness_on_box`: centre-ness is read from the boxes' tower.

Both learn from places near an object's centre alone, as torchvision and FCOS since 2019-12 do;
HRNet-FCOS took all places inside the box. FCOS' own threshold of suppression is 0.6: a study
sets `task.test.nms`. Shapes: as in `dense`; M objects, C channels.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSRegressionHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from ..frameworks import DetectorSpec
from .base import Detector, Features, Found, Losses, Target
from .dense import found_in_levels, groups_of, initial_of
from .pyramid import Pyramid

CENTRE_RADIUS = 1.5  # strides around an object's centre that learn it (torchvision, FCOS)
# A level answers for objects whose farthest side is 4 to 8 strides away: 64, 128, 256 and 512
# pixels part levels of strides 8 to 128 (FCOS, section 3.2).
NEAREST, FARTHEST = 4, 8
MOST_PIXELS = 1e4  # no distance is more: exponentials would overflow


class Places(NamedTuple):
    """Where the places of all levels lie, and which objects they may learn.

    Args:
        points: (P, 2): x, y in pixels.
        strides: (P, 1): of their level.
        nearest: (P, 1): pixels to the farthest side of an object, at least.
        farthest: (P, 1): at most.
    """

    points: Tensor
    strides: Tensor
    nearest: Tensor
    farthest: Tensor


class Answers(NamedTuple):
    """What the head says of every place.

    Args:
        classes: (B, P, K): logits.
        distances: (B, P, 4): pixels to left, top, right and bottom.
        centerness: (B, P): logits.
    """

    classes: Tensor
    distances: Tensor
    centerness: Tensor


def places_of(maps: Sequence[Tensor], strides: Sequence[int]) -> Places:
    """The places of maps (B, C, h, w); each stands for the middle of its stride's square."""
    levels = []
    for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        ys, xs = (torch.arange(side, device=x.device) * stride for side in x.shape[-2:])
        y, x_ = torch.meshgrid(ys, xs, indexing="ij")
        points = torch.stack([x_.flatten(), y.flatten()], dim=1) + stride // 2
        nearest = 0.0 if level == 0 else NEAREST * stride
        farthest = math.inf if level == len(strides) - 1 else FARTHEST * stride
        row = torch.tensor([stride, nearest, farthest], device=x.device)
        levels.append(torch.cat([points.float(), row.expand(len(points), 3)], dim=1))
    return Places(*torch.cat(levels).split([2, 1, 1, 1], dim=1))


def distances_to(points: Tensor, boxes: Tensor) -> Tensor:
    """(..., 2) and (..., 4) -> (..., 4): from points to left, top, right and bottom."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def boxes_at(points: Tensor, distances: Tensor) -> Tensor:
    """The opposite of `distances_to`."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def assign(places: Places, boxes: Tensor) -> Tensor:
    """(M, 4) -> (P,): which object each place learns, the smallest of several; -1 for none."""
    if not len(boxes):
        return torch.full((len(places.points),), -1, device=boxes.device)
    points = places.points[:, None]
    distances = distances_to(
        points.expand(-1, len(boxes), 2), boxes[None].expand(len(points), -1, 4)
    )
    reach = distances.amax(dim=2)
    fits = (distances.amin(dim=2) > 0) & (reach >= places.nearest) & (reach <= places.farthest)
    off_centre = (points - (boxes[:, :2] + boxes[:, 2:]) / 2).abs().amax(dim=2)
    fits &= off_centre < CENTRE_RADIUS * places.strides
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    smallest, which = torch.where(fits, areas, math.inf).min(dim=1)
    return torch.where(smallest.isinf(), -1, which)


def centerness_of(distances: Tensor) -> Tensor:
    """(N, 4) -> (N,): 1 in the centre of a box, 0 at its sides (FCOS, eq. 3)."""
    across, down = distances[:, 0::2], distances[:, 1::2]
    share = [side.amin(dim=1) / side.amax(dim=1) for side in (across, down)]
    return (share[0] * share[1]).sqrt()


def log_iou_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Distances (N, 4) and (N, 4) from the same points -> (N,): -ln IoU.

    One pixel is added to both areas (official code), so that it is finite.
    """
    smaller = torch.minimum(found, wanted)
    areas = [(d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3]) for d in (smaller, found, wanted)]
    union = areas[1] + areas[2] - areas[0]
    return -((areas[0] + 1) / (union + 1)).log()


class FCOSHead(nn.Module):
    """Two towers that all levels share; layers are named and made as torchvision's.

    Args:
        channels: C.
        strides: Of the levels.
        spec: Classes, and which version.
    """

    def __init__(self, channels: int, strides: Sequence[int], spec: DetectorSpec) -> None:
        super().__init__()
        norm = partial(nn.GroupNorm, groups_of(channels))
        self.classification_head = FCOSClassificationHead(
            channels, 1, spec.num_classes, norm_layer=norm
        )
        self.regression_head = FCOSRegressionHead(channels, 1, norm_layer=norm)
        self.scales = nn.Parameter(torch.ones(len(strides)))
        self.strides, self.spec = tuple(strides), spec

    def forward(self, maps: Sequence[Tensor]) -> Answers:
        """(B, C, h, w) of each level -> answers of all its places, in float32."""
        rows = [self._level(x, level) for level, x in enumerate(maps)]
        parts = [torch.cat(part, dim=1) for part in zip(*rows, strict=True)]
        return Answers(parts[0], parts[1], parts[2].squeeze(2))

    def _level(self, x: Tensor, level: int) -> list[Tensor]:
        classes, boxes = self.classification_head, self.regression_head
        class_tower, box_tower = classes.conv(x), boxes.conv(x)
        seen = box_tower if self.spec.centerness_on_box else class_tower
        outputs = (
            classes.cls_logits(class_tower),
            boxes.bbox_reg(box_tower),
            boxes.bbox_ctrness(seen),
        )
        logits, raw, centerness = (y.flatten(2).transpose(1, 2).float() for y in outputs)
        return [logits, self._distances(raw * self.scales[level], level), centerness]

    def _distances(self, raw: Tensor, level: int) -> Tensor:
        """In pixels."""
        if self.spec.norm_on_bbox:
            return F.relu(raw) * self.strides[level]
        return raw.clamp(max=math.log(MOST_PIXELS)).exp()


class FCOS(Detector):
    """Boxes and classes at every place of five maps."""

    backbone: Pyramid

    def __init__(self, backbone: Pyramid, spec: DetectorSpec) -> None:
        super().__init__(backbone, spec)
        self.head = FCOSHead(backbone.out_channels, backbone.strides, spec)

    def losses(self, images: ImageList, features: Features, targets: list[Target]) -> Losses:
        maps = list(features.values())
        answers, places = self.head(maps), places_of(maps, self.backbone.strides)
        which = torch.stack([assign(places, target["boxes"]) for target in targets])
        objects = which >= 0
        chosen = [(t, w[w >= 0]) for t, w in zip(targets, which, strict=True)]
        labels = torch.cat([target["labels"][found] for target, found in chosen])
        boxes = torch.cat([target["boxes"][found] for target, found in chosen])
        points = places.points.expand(len(which), -1, 2)[objects]
        count = max(1, len(boxes))
        classes = torch.zeros_like(answers.classes)
        classes[(*torch.where(objects), labels - 1)] = 1.0
        centerness = centerness_of(distances_to(points, boxes))
        return {
            "classification": sigmoid_focal_loss(answers.classes, classes, reduction="sum") / count,
            "bbox_regression": self._box_loss(points, answers.distances[objects], boxes),
            "bbox_ctrness": F.binary_cross_entropy_with_logits(
                answers.centerness[objects], centerness, reduction="sum"
            )
            / count,
        }

    def _box_loss(self, points: Tensor, distances: Tensor, boxes: Tensor) -> Tensor:
        """Of N places that learn an object: (N, 2), (N, 4), (N, 4) -> ()."""
        if self.spec.norm_on_bbox:
            found = boxes_at(points, distances)
            return generalized_box_iou_loss(found, boxes, reduction="sum") / max(1, len(boxes))
        wanted = distances_to(points, boxes)
        weights = centerness_of(wanted)
        least = torch.finfo(weights.dtype).eps  # for no places
        return (log_iou_loss(distances, wanted) * weights).sum() / weights.sum().clamp(min=least)

    def find(self, images: ImageList, features: Features) -> list[Found]:
        dense = self.dense(features)
        counts = [x.shape[2] * x.shape[3] for x in features.values()]
        return found_in_levels(
            dense["boxes"], dense["scores"], counts, images.image_sizes, self.spec
        )

    def dense(self, features: Features) -> dict[str, Tensor]:
        """`boxes` (B, P, 4) in pixels and `scores` (B, P, K), level by level."""
        maps = list(features.values())
        answers, places = self.head(maps), places_of(maps, self.backbone.strides)
        scores = (answers.classes.sigmoid() * answers.centerness.sigmoid()[..., None]).sqrt()
        return {"boxes": boxes_at(places.points, answers.distances), "scores": scores}

    def run_layers(self, images: Tensor, *, regions: int, masked: int) -> None:
        self.head(list(self.backbone(images).values()))

    def initial(self, name: str, layer: nn.Module) -> tuple[float, float] | None:
        return initial_of(name)
