"""Faster R-CNN and Mask R-CNN, and what every framework that looks at regions is made of.

Both behave as torchvision's own networks but for images whose padded sides are no multiples of
the largest stride: there torchvision guesses the strides from the maps' sizes; here they are the
backbone's. Shapes: see `base`; R regions, C channels of a map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from ..errors import InputError
from ..frameworks import DetectorSpec
from .base import Detector, Features, Found, Losses, Target
from .pyramid import Pyramid

BOX_SIDE, MASK_SIDE = 7, 14  # places of a region that its class and its mask are read from
SAMPLING = 2  # points along each side of such a place (torchvision, mmdetection)
POOLED_LEVELS = 4  # regions are read from the finest maps (FPN, eq. 1)
# IoU with an object from which an anchor is one, below which it is none; share of objects among
# the samples; overlap of proposals (Ren et al.; torchvision and mmdetection agree).
RPN_FOREGROUND, RPN_BACKGROUND, RPN_POSITIVE, RPN_NMS = 0.7, 0.3, 0.5, 0.7
ROI_IOU, ROI_POSITIVE = 0.5, 0.25
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the four numbers that refine a box
MASK_LAYERS = 4  # 3x3 convolutions before a mask (He et al.)
# Deviations of weights at first: Ren et al. and torchvision's RPN; mmdetection's box layers;
# Detectron2's mask output.
RPN_STD = 0.01
OUTPUT_STDS = {"cls_score": 0.01, "bbox_pred": 0.001, "mask_fcn_logits": 0.001}


class Anchors(AnchorGenerator):
    """Boxes of one side and several shapes at every place of every level.

    Args:
        strides: Of the levels.
        scale: Side of an anchor in strides.
        ratios: Height over width.

    Raises:
        InputError: Anchors have no area.
    """

    def __init__(self, strides: Sequence[int], scale: float, ratios: Sequence[float]) -> None:
        super().__init__([(scale * stride,) for stride in strides], tuple(ratios))
        self.strides = [(stride, stride) for stride in strides]
        if any((cell[:, 2:] <= cell[:, :2]).any() for cell in self.cell_anchors):
            raise InputError("makes anchors without area", key="anchor_scale", value=scale)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """For each image (A, 4), all its anchors, level by level."""
        return [self.of(feature_maps)] * len(image_list.image_sizes)

    def of(self, maps: list[Tensor]) -> Tensor:
        """(A, 4): the anchors of an image that has these maps."""
        self.set_cell_anchors(torch.float32, maps[0].device)
        grids = [list(x.shape[-2:]) for x in maps]
        return torch.cat(self.grid_anchors(grids, self.strides))


def refined(coder: BoxCoder, deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (B, A, 4) of refinements (B, A, 4) of anchors (A, 4)."""
    boxes = coder.decode_single(deltas.flatten(0, 1), anchors.expand_as(deltas).flatten(0, 1))
    return boxes.unflatten(0, deltas.shape[:2])


class ProposalHead(RPNHead):
    """torchvision's, with float32 at its end: in half precision boxes would be off by pixels."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [y.float() for y in logits], [y.float() for y in deltas]


class BoxPredictor(FastRCNNPredictor):
    """Scores (R, K + 1) and refinements (R, 4 * boxes) of regions' features, in float32.

    Args:
        inputs: Features of a region.
        classes: K + 1.
        boxes: K + 1, or 1 for one box that serves all classes.
    """

    def __init__(self, inputs: int, classes: int, boxes: int) -> None:
        super().__init__(inputs, classes)
        self.bbox_pred = nn.Linear(inputs, boxes * 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


def region_pool(strides: Sequence[int], side: int) -> MultiScaleRoIAlign:
    """(maps, boxes of each image, sizes) -> (R, C, side, side), each from the level of its size.

    torchvision would take the strides from the first images that it sees, unpadded.
    """
    used = strides[:POOLED_LEVELS]
    pool = MultiScaleRoIAlign([str(level) for level in range(len(used))], side, SAMPLING)
    finest, coarsest = (int(stride).bit_length() - 1 for stride in (used[0], used[-1]))
    pool.scales = [1 / stride for stride in used]
    pool.map_levels = initLevelMapper(finest, coarsest)
    return pool


def proposal_network(backbone: Pyramid, spec: DetectorSpec) -> RegionProposalNetwork:
    """(images, maps, targets) -> proposals of each image, losses by name."""
    anchors = Anchors(backbone.strides, spec.anchor_scale, spec.anchor_ratios)
    counts = {"training": spec.train_proposals, "testing": spec.test_proposals}
    return RegionProposalNetwork(
        anchors,
        ProposalHead(backbone.out_channels, len(spec.anchor_ratios)),
        RPN_FOREGROUND,
        RPN_BACKGROUND,
        spec.rpn_samples,
        RPN_POSITIVE,
        counts,
        counts,
        RPN_NMS,
    )


def region_heads(
    backbone: Pyramid,
    spec: DetectorSpec,
    *,
    iou: float = ROI_IOU,
    sharper: int = 1,
    one_box: bool = False,
) -> RoIHeads:
    """What classifies proposals and refines their boxes.

    Args:
        iou: With an object, from which a proposal is taken for it.
        sharper: Times `BOX_WEIGHTS`, where boxes already fit better.
        one_box: Does one box serve all classes?
    """
    classes = spec.num_classes + 1
    return RoIHeads(
        region_pool(backbone.strides, BOX_SIDE),
        TwoMLPHead(backbone.out_channels * BOX_SIDE**2, spec.hidden),
        BoxPredictor(spec.hidden, classes, 1 if one_box else classes),
        iou,
        iou,
        spec.roi_samples,
        ROI_POSITIVE,
        tuple(sharper * weight for weight in BOX_WEIGHTS),
        spec.score,
        spec.nms,
        spec.detections,
    )


def mask_layers(channels: int, classes: int) -> tuple[MaskRCNNHeads, MaskRCNNPredictor]:
    """(R, C, 14, 14) -> the same shape, and from there (R, K + 1, 28, 28)."""
    body = MaskRCNNHeads(channels, [channels] * MASK_LAYERS, 1)
    return body, MaskRCNNPredictor(channels, channels, classes)


class TwoStage(Detector):
    """A network that proposes regions, and a second stage, which subclasses add."""

    backbone: Pyramid

    def __init__(self, backbone: Pyramid, spec: DetectorSpec) -> None:
        super().__init__(backbone, spec)
        self.rpn = proposal_network(backbone, spec)

    def losses(self, images: ImageList, features: Features, targets: list[Target]) -> Losses:
        proposals, losses = self.rpn(images, features, targets)
        return losses | self.region_losses(features, proposals, images.image_sizes, targets)

    def find(self, images: ImageList, features: Features) -> list[Found]:
        proposals, _ = self.rpn(images, features)
        return self.find_in(features, proposals, images.image_sizes)

    def dense(self, features: Features) -> dict[str, Tensor]:
        """Of the first stage alone, whose regions the second looks at.

        `objectness` (B, A), logits, and `proposals` (B, A, 4) in pixels, of A anchors, level by
        level; and the maps that the second stage reads, `level_0` (B, C, h, w) and so on.
        """
        maps = list(features.values())
        objectness, deltas = concat_box_prediction_layers(*self.rpn.head(maps))
        shape = (maps[0].shape[0], -1)
        proposals = refined(
            self.rpn.box_coder, deltas.unflatten(0, shape), self.rpn.anchor_generator.of(maps)
        )
        found = {"objectness": objectness.unflatten(0, shape)[..., 0], "proposals": proposals}
        return found | {f"level_{name}": x for name, x in features.items()}

    def region_losses(
        self,
        features: Features,
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: list[Target],
    ) -> Losses:
        """Losses of the second stage by name."""
        raise NotImplementedError

    def find_in(
        self, features: Features, proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[Found]:
        """What the second stage finds in each image; see `forward`."""
        raise NotImplementedError

    def run_layers(self, images: Tensor, *, regions: int, masked: int) -> None:
        features = self.backbone(images)
        self.rpn.head(list(features.values()))
        self.run_regions(features, regions, masked)

    def run_regions(self, features: Features, regions: int, masked: int) -> None:
        """The second stage of `run_layers`."""
        raise NotImplementedError

    def blank(self, features: Features, regions: int, side: int) -> Tensor:
        """(R, C, side, side): stands for the features of regions where nothing but costs matter."""
        shape = (regions, self.backbone.out_channels, side, side)
        return features["0"].new_zeros(shape)

    def initial(self, name: str, layer: nn.Module) -> tuple[float, float] | None:
        if name.startswith("rpn."):
            return RPN_STD, 0.0
        last = name.rpartition(".")[2]
        if last in OUTPUT_STDS:
            return OUTPUT_STDS[last], 0.0
        if isinstance(layer, nn.Linear):  # Xavier's, as in mmdetection
            return (2.0 / (layer.in_features + layer.out_features)) ** 0.5, 0.0
        return None


class FasterRCNN(TwoStage):
    """Classes and boxes of proposals (Ren et al., NeurIPS 2015; Lin et al., CVPR 2017)."""

    def __init__(self, backbone: Pyramid, spec: DetectorSpec) -> None:
        super().__init__(backbone, spec)
        self.roi_heads = region_heads(backbone, spec)

    def region_losses(
        self,
        features: Features,
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: list[Target],
    ) -> Losses:
        return self.roi_heads(features, proposals, sizes, targets)[1]

    def find_in(
        self, features: Features, proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[Found]:
        return self.roi_heads(features, proposals, sizes)[0]

    def run_regions(self, features: Features, regions: int, masked: int) -> None:
        heads = self.roi_heads
        heads.box_predictor(heads.box_head(self.blank(features, regions, BOX_SIDE)))


class MaskRCNN(FasterRCNN):
    """The same with a mask of each class inside every box (He et al., ICCV 2017)."""

    def __init__(self, backbone: Pyramid, spec: DetectorSpec) -> None:
        super().__init__(backbone, spec)
        heads = self.roi_heads
        layers = mask_layers(backbone.out_channels, spec.num_classes + 1)
        heads.mask_roi_pool = region_pool(backbone.strides, MASK_SIDE)
        heads.mask_head, heads.mask_predictor = layers

    def run_regions(self, features: Features, regions: int, masked: int) -> None:
        super().run_regions(features, regions, masked)
        heads = self.roi_heads
        heads.mask_predictor(heads.mask_head(self.blank(features, masked, MASK_SIDE)))
