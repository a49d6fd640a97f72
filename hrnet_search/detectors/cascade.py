"""Cascade R-CNN and Cascade Mask R-CNN (Cai and Vasconcelos, CVPR 2018).

Three second stages in a row: each refines the boxes of the one before, and learns from proposals
that fit an object better. Shapes: see `base`; R regions, C channels of a map, K classes.
Where the paper leaves it open this is as mmdetection has it, but that boxes of objects that were
added to one stage's proposals go on, refined, into the next.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import MultiScaleRoIAlign, box_iou
from torchvision.ops.boxes import clip_boxes_to_image, remove_small_boxes

from ..frameworks import DetectorSpec
from .base import Features, Found, Losses, Target, targets_of
from .pyramid import Pyramid
from .two_stage import (
    BOX_SIDE,
    MASK_SIDE,
    TwoStage,
    mask_layers,
    region_heads,
    region_pool,
)

IOUS = (0.5, 0.6, 0.7)  # with an object, from which a stage takes a proposal for it
SHARPER = (1, 2, 3)  # times the weights of the four numbers that refine a box (mmdetection's stds)
LOSS_WEIGHTS = (1.0, 0.5, 0.25)  # of the stages (mmdetection)
LEAST_SIDE = 0.01  # pixels: smaller boxes are dropped, as in torchvision's `RoIHeads`
Sizes = list[tuple[int, int]]


class Samples(NamedTuple):
    """What a stage learns from, for each image: R boxes (R, 4) and what they should become.

    Args:
        boxes: (R, 4).
        objects: (R,): index of the object that each fits best.
        labels: (R,): its class, or 0.
        refinements: (R, 4): from the boxes to that object's.
    """

    boxes: list[Tensor]
    objects: list[Tensor]
    labels: list[Tensor]
    refinements: list[Tensor]

    def positive(self) -> "Samples":
        """Those that are taken for an object."""
        kept = [labels > 0 for labels in self.labels]
        return Samples(*([x[k] for x, k in zip(values, kept, strict=True)] for values in self))


class CascadeRCNN(TwoStage):
    """Classes and boxes of proposals, three times."""

    def __init__(self, backbone: Pyramid, spec: DetectorSpec) -> None:
        super().__init__(backbone, spec)
        self.stages = nn.ModuleList(
            region_heads(backbone, spec, iou=iou, sharper=times, one_box=True)
            for iou, times in zip(IOUS, SHARPER, strict=True)
        )

    def stage(self, index: int) -> RoIHeads:
        return cast(RoIHeads, self.stages[index])

    def region_losses(
        self, features: Features, proposals: list[Tensor], sizes: Sizes, targets: list[Target]
    ) -> Losses:
        features = self.extended(features)
        losses = self.map_losses(features, sizes, targets)
        for index, weight in enumerate(LOSS_WEIGHTS):
            samples = self.sample(index, proposals, targets)
            scores, deltas = self.classify(index, features, samples.boxes, sizes)
            proposals = [large(x) for x in self.refine(index, deltas, samples.boxes, sizes)]
            found = box_losses(scores, deltas, samples)
            found |= self.mask_losses(index, features, samples, proposals, sizes, targets)
            losses |= {f"{name}_{index + 1}": weight * loss for name, loss in found.items()}
        return losses

    def find_in(self, features: Features, proposals: list[Tensor], sizes: Sizes) -> list[Found]:
        """The mean of all stages' probabilities, the boxes of the last."""
        features = self.extended(features)
        rounds = list(self.rounds(features, proposals, sizes))
        means = torch.stack([scores.softmax(-1) for _, scores, _ in rounds]).mean(0)
        logs = means.clamp_min(torch.finfo(means.dtype).tiny).log()
        boxes, _, deltas = rounds[-1]
        everywhere = deltas.repeat(1, means.shape[-1])  # one box serves every class
        found = self.stage(-1).postprocess_detections(logs, everywhere, boxes, sizes)
        return [{"boxes": b, "scores": s, "labels": n} for b, s, n in zip(*found, strict=True)]

    def rounds(
        self, features: Features, proposals: list[Tensor], sizes: Sizes
    ) -> Iterator[tuple[list[Tensor], Tensor, Tensor]]:
        """Of each stage the boxes that enter it, their scores (R, K + 1), refinements (R, 4)."""
        for index in range(len(self.stages)):
            scores, deltas = self.classify(index, features, proposals, sizes)
            yield proposals, scores, deltas
            proposals = self.refine(index, deltas, proposals, sizes)

    @torch.no_grad()
    def sample(self, index: int, proposals: list[Tensor], targets: list[Target]) -> Samples:
        """What stage `index` learns from of the proposals and the objects themselves."""
        return Samples(*self.stage(index).select_training_samples(list(proposals), targets))

    def classify(
        self, index: int, features: Features, boxes: list[Tensor], sizes: Sizes
    ) -> tuple[Tensor, Tensor]:
        """Scores (R, K + 1) and refinements (R, 4) of the boxes of all images."""
        stage = self.stage(index)
        regions = self.pooled(stage.box_roi_pool, features, boxes, sizes)
        return stage.box_predictor(stage.box_head(regions))

    @torch.no_grad()
    def refine(self, index: int, deltas: Tensor, boxes: list[Tensor], sizes: Sizes) -> list[Tensor]:
        """The boxes of each image after stage `index`, inside the image."""
        moved = self.stage(index).box_coder.decode(deltas, boxes).reshape(-1, 4)
        parts = moved.split([len(x) for x in boxes])
        return [clip_boxes_to_image(x, size) for x, size in zip(parts, sizes, strict=True)]

    def pooled(
        self, pool: MultiScaleRoIAlign, features: Features, boxes: list[Tensor], sizes: Sizes
    ) -> Tensor:
        """(R, C, side, side): what is read of the boxes of all images."""
        return pool(features, boxes, sizes)

    def extended(self, features: Features) -> Features:
        """The maps that regions are read from; subclasses may add some."""
        return features

    def map_losses(self, features: Features, sizes: Sizes, targets: list[Target]) -> Losses:
        """Losses of what was added to the maps."""
        return {}

    def mask_losses(
        self,
        index: int,
        features: Features,
        samples: Samples,
        refined: list[Tensor],
        sizes: Sizes,
        targets: list[Target],
    ) -> Losses:
        """Loss of the masks of stage `index`, if there are masks.

        Args:
            samples: What the stage's boxes learn from.
            refined: Those boxes after the stage.
        """
        return {}

    def run_regions(self, features: Features, regions: int, masked: int) -> None:
        self.extended(features)
        for index in range(len(self.stages)):
            stage = self.stage(index)
            stage.box_predictor(stage.box_head(self.blank(features, regions, BOX_SIDE)))


class CascadeMaskRCNN(CascadeRCNN):
    """The same with a mask of each class inside every box, of each stage."""

    def __init__(self, backbone: Pyramid, spec: DetectorSpec) -> None:
        super().__init__(backbone, spec)
        self.mask_pool = region_pool(backbone.strides, MASK_SIDE)
        layers = [mask_layers(backbone.out_channels, spec.num_classes + 1) for _ in IOUS]
        self.mask_heads = nn.ModuleList(head for head, _ in layers)
        self.mask_predictors = nn.ModuleList(predictor for _, predictor in layers)

    def masks(self, regions: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        """Logits (R, K + 1, 28, 28) of each wanted stage, from (R, C, 14, 14)."""
        return [self.mask_predictors[i](self.mask_heads[i](regions)) for i in wanted]

    def mask_losses(
        self,
        index: int,
        features: Features,
        samples: Samples,
        refined: list[Tensor],
        sizes: Sizes,
        targets: list[Target],
    ) -> Losses:
        good = samples.positive()
        regions = self.pooled(self.mask_pool, features, good.boxes, sizes)
        (logits,) = self.masks(regions, [index])
        masks, labels = ([target[key] for target in targets] for key in ("masks", "labels"))
        return {"loss_mask": maskrcnn_loss(logits, good.boxes, masks, labels, good.objects)}

    def find_in(self, features: Features, proposals: list[Tensor], sizes: Sizes) -> list[Found]:
        found = super().find_in(features, proposals, sizes)
        boxes, labels = ([one[key] for one in found] for key in ("boxes", "labels"))
        regions = self.pooled(self.mask_pool, self.extended(features), boxes, sizes)
        stages = [maskrcnn_inference(x, labels) for x in self.masks(regions, range(len(IOUS)))]
        means = [torch.stack(masks).mean(0) for masks in zip(*stages, strict=True)]
        return [{**one, "masks": masks} for one, masks in zip(found, means, strict=True)]

    def run_regions(self, features: Features, regions: int, masked: int) -> None:
        super().run_regions(features, regions, masked)
        self.masks(self.blank(features, masked, MASK_SIDE), range(len(IOUS)))


def box_losses(scores: Tensor, deltas: Tensor, samples: Samples) -> Losses:
    """Cross-entropy of all samples, smooth L1 of those of objects, both per sample.

    Args:
        scores: (R, K + 1).
        deltas: (R, 4): one box for all classes.
        samples: R in all images together.
    """
    labels, refinements = torch.cat(samples.labels), torch.cat(samples.refinements)
    count, positive = max(len(labels), 1), labels > 0
    boxes = F.smooth_l1_loss(deltas[positive], refinements[positive], reduction="sum", beta=1.0)
    classes = F.cross_entropy(scores, labels, reduction="sum")
    return {"loss_classifier": classes / count, "loss_box_reg": boxes / count}


def large(boxes: Tensor) -> Tensor:
    """Without boxes that shrank to nothing, from which no way leads to an object's."""
    return boxes[remove_small_boxes(boxes, LEAST_SIDE)]


@torch.no_grad()
def stage_ious(
    detector: CascadeRCNN, images: Tensor, sizes: Tensor, boxes: Tensor, labels: Tensor
) -> list[float]:
    """Mean overlap with the nearest object of what enters stages 1, 2 and 3, and leaves 3.

    Over the proposals that overlap an object by at least 0.5 of the union. The arguments are
    those of `Detector.forward`.

    Args:
        detector: In evaluation mode.
    """
    shapes = [(int(h), int(w)) for h, w in sizes.tolist()]
    maps = detector.backbone(images)
    proposals, _ = detector.rpn(ImageList(images, shapes), maps)
    rounds = list(detector.rounds(detector.extended(maps), proposals, shapes))
    entered = [entering for entering, _, _ in rounds]
    last, _, deltas = rounds[-1]
    entered.append(detector.refine(len(rounds) - 1, deltas, last, shapes))
    targets = targets_of(boxes, labels, None)
    overlaps = [nearest(candidates, targets) for candidates in entered]
    good = overlaps[0] >= IOUS[0]
    return [float(overlap[good].mean()) for overlap in overlaps]


def nearest(boxes: list[Tensor], targets: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Largest overlap of each box of all images with an object of its image; of none, 0."""
    tables = [box_iou(x, target["boxes"]) for x, target in zip(boxes, targets, strict=True)]
    return torch.cat([F.pad(table, (0, 1)).amax(dim=1) for table in tables])
