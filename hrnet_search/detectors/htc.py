"""Hybrid Task Cascade (Chen et al., CVPR 2019).

Cascade Mask R-CNN whose masks are of the boxes that the same stage refined (interleaved
execution), get the features of the stage before (mask information flow), and see, like the
boxes, a map that is trained to segment the whole image (semantic branch). Layers are those of
mmdetection's `HTCMaskHead` and `FusedSemanticHead`. There the map learns COCO's stuff classes
as well; here it learns the objects' classes, from their masks.
Shapes: see `base`; R regions, C channels of a map, (h, w) places of the map of stride 8.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import MultiScaleRoIAlign, roi_align

from ..frameworks import DetectorSpec
from .base import Features, Losses, Target
from .cascade import IOUS, CascadeMaskRCNN, Samples, Sizes
from .pyramid import Pyramid
from .two_stage import OUTPUT_STDS, SAMPLING

LEVEL = 1  # whose size the semantic map has: stride 8
SEMANTIC_LAYERS = 4  # 3x3 convolutions of the branch
SEMANTIC_WEIGHT = 0.2  # of its loss
IGNORED = -1  # class of places that are outside the image


class HybridTaskCascade(CascadeMaskRCNN):
    """Masks that flow from stage to stage, and a semantic map beside the regions."""

    def __init__(self, backbone: Pyramid, spec: DetectorSpec) -> None:
        super().__init__(backbone, spec)
        channels = backbone.out_channels
        self.mask_flows = nn.ModuleList(conv_relu(channels, 1) for _ in IOUS[1:])
        self.semantic = None
        if spec.semantic:
            self.semantic = SemanticBranch(channels, len(backbone.strides), spec.num_classes + 1)

    def masks(self, regions: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        """Logits of each wanted stage; every stage up to the last of them runs."""
        before: Tensor | None = None
        logits = []
        for index in range(max(wanted) + 1):
            x = regions if before is None else regions + self.mask_flows[index - 1](before)
            before = self.mask_heads[index](x)
            if index in wanted:
                logits.append(self.mask_predictors[index](before))
        return logits

    def mask_losses(
        self,
        index: int,
        features: Features,
        samples: Samples,
        refined: list[Tensor],
        sizes: Sizes,
        targets: list[Target],
    ) -> Losses:
        again = self.sample(index, refined, targets)
        return super().mask_losses(index, features, again, refined, sizes, targets)

    def extended(self, features: Features) -> Features:
        """The maps and, if there is the branch, its features and its classes' scores."""
        if self.semantic is None or "semantic" in features:
            return features
        embedded, scores = self.semantic(list(features.values()))
        return {**features, "semantic": embedded, "semantic_scores": scores}

    def pooled(
        self, pool: MultiScaleRoIAlign, features: Features, boxes: list[Tensor], sizes: Sizes
    ) -> Tensor:
        regions = super().pooled(pool, features, boxes, sizes)
        if self.semantic is None:
            return regions
        scale = 1 / self.backbone.strides[LEVEL]
        side = pool.output_size
        return regions + roi_align(features["semantic"], boxes, side, scale, SAMPLING)

    def map_losses(self, features: Features, sizes: Sizes, targets: list[Target]) -> Losses:
        if self.semantic is None:
            return {}
        scores, stride = features["semantic_scores"], self.backbone.strides[LEVEL]
        pairs = zip(targets, sizes, strict=True)
        wanted = [semantic_target(target, size, stride, scores) for target, size in pairs]
        loss = F.cross_entropy(scores.float(), torch.stack(wanted), ignore_index=IGNORED)
        return {"loss_semantic": SEMANTIC_WEIGHT * loss}

    def initial(self, name: str, layer: nn.Module) -> tuple[float, float] | None:
        if name == "semantic.logits":
            return OUTPUT_STDS["mask_fcn_logits"], 0.0
        return super().initial(name, layer)


class SemanticBranch(nn.Module):
    """All levels brought to one size and added, then convolutions.

    Args:
        channels: C.
        levels: Number of maps.
        classes: With background.
    """

    def __init__(self, channels: int, levels: int, classes: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_relu(channels, 1) for _ in range(levels))
        self.convs = nn.Sequential(*(conv_relu(channels, 3) for _ in range(SEMANTIC_LAYERS)))
        self.embedding = conv_relu(channels, 1)
        self.logits = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Every (B, C, H_i, W_i) -> features (B, C, h, w) and scores (B, K + 1, h, w)."""
        size = maps[LEVEL].shape[-2:]
        same = (F.interpolate(x, size, mode="bilinear", align_corners=True) for x in maps)
        total = sum(lateral(x) for lateral, x in zip(self.laterals, same, strict=True))
        x = self.convs(total)
        return self.embedding(x), self.logits(x)


def conv_relu(channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, kernel, padding=kernel // 2), nn.ReLU())


def semantic_target(target: Target, size: tuple[int, int], stride: int, like: Tensor) -> Tensor:
    """(h, w): class of the smallest object at each place, 0 where none is, `IGNORED` outside.

    Args:
        target: Labels (N,), masks (N, H, W).
        size: Height and width of the image without padding.
        stride: Pixels between places.
        like: (B, K + 1, h, w).
    """
    masks, labels = target["masks"], target["labels"]
    height, width = masks.shape[1:]
    rows, cols = (
        (torch.arange(count, device=like.device) * stride + stride // 2).clamp(max=side - 1)
        for count, side in zip(like.shape[2:], (height, width), strict=True)
    )
    small = masks[:, rows][:, :, cols] > 0
    order = small.flatten(1).sum(1).argsort(stable=True)
    ground = small.new_ones(1, len(rows), len(cols))
    first = torch.cat([small[order], ground]).byte().argmax(0)
    classes = F.pad(labels[order], (0, 1))[first]
    inside = (rows < size[0])[:, None] & (cols < size[1])
    return torch.where(inside, classes, IGNORED)
