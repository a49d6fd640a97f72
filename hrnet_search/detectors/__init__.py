"""Detectors on any backbone: the frameworks of the paper's Table 7, and how they start.

`model/` and torchvision are all that this package needs; export copies it.
"""

from collections.abc import Mapping

from torch import nn

from ..frameworks import DetectorSpec
from ..model.init import init_layers, kaiming
from .base import Detector, Found, Losses
from .cascade import CascadeMaskRCNN, CascadeRCNN
from .centernet import CenterNet
from .fcos import FCOS
from .htc import HybridTaskCascade
from .pyramid import HRPyramid, Pyramid
from .retinanet import RetinaNet
from .two_stage import FasterRCNN, MaskRCNN

DETECTORS: Mapping[str, type[Detector]] = {  # a key of `FRAMEWORKS` -> its network
    "faster_rcnn": FasterRCNN,
    "cascade_rcnn": CascadeRCNN,
    "mask_rcnn": MaskRCNN,
    "cascade_mask_rcnn": CascadeMaskRCNN,
    "htc": HybridTaskCascade,
    "fcos": FCOS,
    "centernet": CenterNet,
    "retinanet": RetinaNet,
}


def build_detector(backbone: Pyramid, spec: DetectorSpec) -> Detector:
    """The detector of `spec` on a backbone, which `init_detector` gives its first weights.

    Raises:
        InputError: A setting does not fit the backbone.
    """
    return DETECTORS[spec.framework](backbone, spec)


def init_detector(model: Detector, *, seed: int) -> None:
    """Weights that depend on the seed and each layer's name alone; see `init_weights`.

    The backbone's are Kaiming's, the framework's those of `Detector.initial`.
    """

    def rule(name: str, layer: nn.Module) -> tuple[float, float]:
        inside = name.startswith("backbone.")
        special = None if inside else model.initial(name, layer)
        return special or (kaiming(layer), 0.0)

    init_layers(model, rule, seed=seed)


__all__ = [
    "DETECTORS",
    "Detector",
    "Found",
    "HRPyramid",
    "Losses",
    "Pyramid",
    "build_detector",
    "init_detector",
]
