"""RetinaNet: nine anchors at every place of five maps, classified by the focal loss.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, on strides 8 to 128, of
torchvision's parts. Its towers have GroupNorm as those of torchvision's second version: without
it, and with its small first weights, it learns next to nothing that is not pretrained.

Anchors: `DetectorSpec.anchor_scale` counts strides of a pyramid that starts at stride 4, as in
the two-stage frameworks, where that of RetinaNet starts at 8. So the default of 8 makes both of
32 to 512 pixels, RetinaNet's own 4 strides; beside each stand two, 2^(1/3) and 2^(2/3) as large.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou

from ..frameworks import DetectorSpec
from .base import Detector, Features, Found, Losses, Target
from .dense import found_in_levels, groups_of, initial_of
from .pyramid import Pyramid
from .two_stage import Anchors, refined

OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # sides of anchors at a place (section 4)
SCALE = 0.5  # of `anchor_scale`: see above
FOREGROUND, BACKGROUND = 0.5, 0.4  # IoU from which an anchor is an object, below which none
BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # of the four numbers that refine a box (torchvision)


class OctaveAnchors(Anchors):
    """Boxes of three sides, and several shapes, at every place of every level.

    Sides are cut to whole pixels, as torchvision's. Arguments as of `Anchors`.
    """

    def __init__(self, strides: Sequence[int], scale: float, ratios: Sequence[float]) -> None:
        super().__init__(strides, scale, ratios)
        self.sizes = tuple(
            tuple(max(1, int(scale * stride * octave)) for octave in OCTAVES) for stride in strides
        )
        shapes = zip(self.sizes, self.aspect_ratios, strict=True)
        self.cell_anchors = [self.generate_anchors(sides, shape) for sides, shape in shapes]


class RetinaNet(Detector):
    """Classes and boxes of anchors of five maps."""

    backbone: Pyramid

    def __init__(self, backbone: Pyramid, spec: DetectorSpec) -> None:
        super().__init__(backbone, spec)
        channels = backbone.out_channels
        self.anchors = OctaveAnchors(
            backbone.strides, SCALE * spec.anchor_scale, spec.anchor_ratios
        )
        self.per_place = len(OCTAVES) * len(spec.anchor_ratios)
        norm = partial(nn.GroupNorm, groups_of(channels))
        self.head = RetinaNetHead(channels, self.per_place, spec.num_classes, norm_layer=norm)
        self.matcher = Matcher(FOREGROUND, BACKGROUND, allow_low_quality_matches=True)
        self.coder = BoxCoder(BOX_WEIGHTS)

    def losses(self, images: ImageList, features: Features, targets: list[Target]) -> Losses:
        maps = list(features.values())
        anchors = self.anchors(images, maps)
        matched = [self._matched(t["boxes"], a) for t, a in zip(targets, anchors, strict=True)]
        zero_based = [{**target, "labels": target["labels"] - 1} for target in targets]
        return self.head.compute_loss(zero_based, self._outputs(maps), anchors, matched)

    def _outputs(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """The head's, in float32: class logits (B, A, K), refinements (B, A, 4) of A anchors."""
        return {name: y.float() for name, y in self.head(maps).items()}

    def _matched(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """(M, 4), (A, 4) -> (A,): which object each anchor is, -1 none, -2 does not count."""
        if not len(boxes):
            return torch.full((len(anchors),), -1, device=anchors.device)
        return self.matcher(box_iou(boxes, anchors))

    def find(self, images: ImageList, features: Features) -> list[Found]:
        dense = self.dense(features)
        counts = [x.shape[2] * x.shape[3] * self.per_place for x in features.values()]
        return found_in_levels(
            dense["boxes"], dense["scores"], counts, images.image_sizes, self.spec
        )

    def dense(self, features: Features) -> dict[str, Tensor]:
        """`boxes` (B, A, 4) in pixels and `scores` (B, A, K) of A anchors, level by level."""
        maps = list(features.values())
        outputs = self._outputs(maps)
        boxes = refined(self.coder, outputs["bbox_regression"], self.anchors.of(maps))
        return {"boxes": boxes, "scores": outputs["cls_logits"].sigmoid()}

    def run_layers(self, images: Tensor, *, regions: int, masked: int) -> None:
        self.head(list(self.backbone(images).values()))

    def initial(self, name: str, layer: nn.Module) -> tuple[float, float] | None:
        return initial_of(name)
