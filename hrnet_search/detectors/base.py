"""What all detectors share: how they are called, and what they give.

Shapes: B images of (H, W) pixels, padded below and to the right to one size; M objects at most
in one of them; K classes, numbered from 1; boxes are x1, y1, x2, y2 in pixels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from ..errors import InputError
from ..frameworks import DetectorSpec

Losses = dict[str, Tensor]
Found = dict[str, Tensor]
Target = dict[str, Tensor]
Features = Mapping[str, Tensor]


class Detector(nn.Module):
    """A backbone with its pyramid, and a framework on top.

    Args:
        backbone: (B, 3, H, W) -> maps by name, see `pyramid`.
        spec: The rest.
    """

    def __init__(self, backbone: nn.Module, spec: DetectorSpec) -> None:
        super().__init__()
        self.backbone, self.spec = backbone, spec

    def forward(
        self,
        images: Tensor,
        sizes: Tensor | None = None,
        boxes: Tensor | None = None,
        labels: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Any:
        """Losses in training, else what is found.

        Args:
            images: (B, 3, H, W), normalised and padded.
            sizes: (B, 2): height and width of each without padding; (H, W) if not given.
            boxes: (B, M, 4): of the objects; those without a label or area are none.
            labels: (B, M): classes, 0 for no object.
            masks: (B, M, H, W), 0 or 1, where the framework has masks.

        Returns:
            In training, losses by name, to be added up. Else for each image boxes (N, 4) inside
            it, scores (N,) from high to low, labels (N,), and with a framework that has them
            masks (N, 1, 28, 28): probabilities inside each box.
        """
        features = self.backbone(images)
        whole = [tuple(images.shape[-2:])] * len(images)
        listed = ImageList(images, whole if sizes is None else list(map(tuple, sizes.tolist())))
        if not self.training:
            return self.find(listed, features)
        assert boxes is not None
        assert labels is not None
        return self.losses(listed, features, targets_of(boxes, labels, masks))

    def losses(self, images: ImageList, features: Features, targets: list[Target]) -> Losses:
        """Losses by name; see `targets_of`."""
        raise NotImplementedError

    def find(self, images: ImageList, features: Features) -> list[Found]:
        """What is in each image; see `forward`."""
        raise NotImplementedError

    def dense(self, features: Features) -> dict[str, Tensor]:
        """What there is at every place before boxes are chosen, by name; images are a batch B.

        It is as far as `model.onnx` of an exported detector goes: the choice has loops whose
        lengths depend on the image.
        """
        raise NotImplementedError

    def run_layers(self, images: Tensor, *, regions: int, masked: int) -> None:
        """Every layer that a test runs, as often as for so many regions: for counting.

        Args:
            images: (1, 3, H, W), perhaps on the meta device.
            regions: Proposals that each stage of a two-stage framework looks at.
            masked: Regions whose masks are made.
        """
        raise NotImplementedError

    def initial(self, name: str, layer: nn.Module) -> "tuple[float, float] | None":
        """Deviation of a layer's weights and value of its bias at first.

        None: Kaiming's, with bias 0. Layers of the backbone are not asked for.
        """
        raise NotImplementedError


def targets_of(boxes: Tensor, labels: Tensor, masks: Tensor | None) -> list[Target]:
    """For each image boxes (N, 4), labels (N,), and if given masks (N, H, W), of its N objects.

    A box without area is no object: nothing overlaps it, not even itself.

    Raises:
        InputError: A box is not finite.
    """
    objects = labels > 0
    if not bool(torch.isfinite(boxes[objects]).all()):
        raise InputError("must be finite numbers", key="boxes")
    objects &= (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    targets = []
    for place, real in enumerate(objects):
        target = {"boxes": boxes[place][real], "labels": labels[place][real]}
        if masks is not None:
            target["masks"] = masks[place][real]
        targets.append(target)
    return targets
