"""Detection frameworks as plain data: what a detector has beyond its backbone.

A detector is a backbone, a pyramid of maps made of it (`blueprint.HEADS`) and a framework.
`hrnet_search.detectors` builds it; this is what studies, records and exported folders say of it.
Standard library only.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InputError, nearest_name


@dataclass(frozen=True)
class Framework:
    """What the package knows of a framework.

    Args:
        title: Its name in the paper.
        source: Where it was published.
        pyramids: Representation heads that can make its maps of an HRNet, keys of
            `blueprint.HEADS`; the first is usual.
        masks: Does it find the pixels of each object too?
    """

    title: str
    source: str
    pyramids: tuple[str, ...] = ("v2p", "v1p", "v1hp")  # strides 4 to 64 (Fig. 10b)
    masks: bool = False


FRAMEWORKS: Mapping[str, Framework] = {
    "faster_rcnn": Framework("Faster R-CNN", "Ren et al., NeurIPS 2015"),
    "cascade_rcnn": Framework("Cascade R-CNN", "Cai and Vasconcelos, CVPR 2018"),
    "mask_rcnn": Framework("Mask R-CNN", "He et al., ICCV 2017", masks=True),
    "cascade_mask_rcnn": Framework(
        "Cascade Mask R-CNN", "Cai and Vasconcelos, CVPR 2018", masks=True
    ),
    "htc": Framework("Hybrid Task Cascade", "Chen et al., CVPR 2019", masks=True),
    "fcos": Framework("FCOS", "Tian et al., ICCV 2019", pyramids=("v2p_s2",)),
    "centernet": Framework("CenterNet", "Duan et al., ICCV 2019", pyramids=("v2r",)),
    "retinanet": Framework("RetinaNet", "Lin et al., ICCV 2017", pyramids=("v2p_s2",)),
}


def framework_of(name: str) -> Framework:
    """The framework of that name.

    Raises:
        InputError: There is none.
    """
    if name not in tuple(FRAMEWORKS):
        rule = f"must be one of {', '.join(FRAMEWORKS)}"
        near = nearest_name(name, FRAMEWORKS)
        raise InputError(rule, key="framework", value=name, nearest=near)
    return FRAMEWORKS[name]


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """All of a detector but its backbone; the defaults are the paper's (section 6).

    Args:
        framework: A key of `FRAMEWORKS`.
        num_classes: K, without background.
        pyramid: Of the framework's `pyramids`: representation head of an HRNet under it. None
            is given as the usual one.
        channels: Of each map of the pyramid.
        hidden: Width of the fully connected layers that classify a region.
        anchor_scale: Side of an anchor in strides of its map; two-stage frameworks. RetinaNet's
            maps have twice their strides: half of it there, so that sides are the same.
        anchor_ratios: Height over width of the anchors.
        rpn_samples: Anchors of an image that the proposals' loss is of.
        roi_samples: Proposals of an image that the regions' loss is of, of each stage.
        train_proposals: Proposals that are kept of an image, and looked at of each level.
        test_proposals: The same in a test.
        norm_on_bbox: FCOS: distances are learnt in strides, not as logarithms of pixels.
        centerness_on_box: FCOS: centre-ness is read from the boxes' tower, not the classes'.
        semantic: Hybrid Task Cascade: has it a branch that segments the whole image?
        score: Least score of what is found.
        nms: Of two boxes of a class that overlap by more, the better is kept.
        detections: Most objects of an image.
    """

    framework: str
    num_classes: int
    pyramid: str = ""
    channels: int = 256
    hidden: int = 1024
    anchor_scale: float = 8.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_samples: int = 256
    roi_samples: int = 512
    train_proposals: int = 2000
    test_proposals: int = 1000
    norm_on_bbox: bool = False
    centerness_on_box: bool = False
    semantic: bool = True
    score: float = 0.05
    nms: float = 0.5
    detections: int = 100

    def __post_init__(self) -> None:
        pyramids = framework_of(self.framework).pyramids
        if not self.pyramid:
            object.__setattr__(self, "pyramid", pyramids[0])
        if self.pyramid not in pyramids:
            rule = f"must be {' or '.join(pyramids)} under {self.framework}"
            raise InputError(rule, key="pyramid", value=self.pyramid)
        for field in dataclasses.fields(self):
            value, rule = getattr(self, field.name), ""
            if field.type is int and (type(value) is not int or value < 1):
                rule = "must be a whole number of at least 1"
            if field.type is bool and type(value) is not bool:
                rule = "must be true or false"
            if field.type is float and not _is_number(value):
                rule = "must be a number of at least 0"
            if rule:
                raise InputError(rule, key=field.name, value=value)
        ratios = self.anchor_ratios
        if not isinstance(ratios, tuple) or not ratios or not all(map(_is_number, ratios)):
            raise InputError("must be numbers of at least 0", key="anchor_ratios", value=ratios)

    @property
    def masks(self) -> bool:
        return FRAMEWORKS[self.framework].masks

    def least_drawn(self, asked: float | None, *, usual: float) -> float:
        """Least score of an object that is drawn.

        Args:
            asked: What `--score` says, or None.
            usual: Otherwise it is this, or more if the detector finds nothing so unsure.

        Raises:
            InputError: Less is asked for than the detector finds.
        """
        if asked is None:
            return max(usual, self.score)
        if not asked >= self.score:  # nor is NaN
            rule = f"must be {self.score} or more, the least score of what this network finds"
            raise InputError(rule, key="--score", value=asked)
        return asked

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {**values, "anchor_ratios": list(self.anchor_ratios)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DetectorSpec":
        """The opposite of `to_dict`.

        Raises:
            InputError: A key is unknown or missing, or a value breaks a rule.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise InputError("unknown key", key=key, nearest=nearest_name(key, known))
        for key in ("framework", "num_classes"):
            if key not in values:
                raise InputError("is missing", key=key)
        ratios = values.get("anchor_ratios", cls.anchor_ratios)
        if isinstance(ratios, list):
            ratios = tuple(ratios)
        return cls(**{**values, "anchor_ratios": ratios})


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf
