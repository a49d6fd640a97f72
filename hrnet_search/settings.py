"""The sections of a study file that say what is trained, on what, and how."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from .errors import InputError, nearest_name
from .frameworks import FRAMEWORKS, DetectorSpec
from .joints import COCO, MPII, JointSet
from .labels import LABEL_SETS, SYNTHETIC_CLASSES, VOC_CLASSES
from .space import Strict

JOINT_SCORE = 0.2  # official `TEST.IN_VIS_THRE`
BOX_PADDING = 1.25  # of a person's box (official `lib/dataset/coco.py`, `mpii.py`)
PADDED = 32  # pixels: sides of a detector's images are multiples (section 6; mmdetection)
BOX_METRICS = ("box_ap", "box_ap50", "box_ap75", "box_aps", "box_apm", "box_apl")
MASK_METRICS = ("mask_ap", "mask_ap50", "mask_ap75", "mask_aps", "mask_apm", "mask_apl")
MIN_INPUT = 32  # pixels: stride of the fourth branch (section 3.1); more branches want more


def _two_or_none(size: list[int]) -> list[int]:
    if len(size) not in (0, 2):
        raise InputError("must be [height, width], or [] for none", value=size)
    return size


Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=MIN_INPUT)]
Size = Annotated[list[Pixels], Field(min_length=2, max_length=2)]
AnySize = Annotated[list[Pixels], AfterValidator(_two_or_none)]
Names = Annotated[list[str], Field(min_length=2, max_length=2)]


def refuse_unused(section: Strict, keys: tuple[str, ...], rule: str) -> None:
    """Refuse settings that would change nothing; defaults pass, as dumped studies name them all.

    Args:
        section: Of the study.
        keys: In there, of values that are not looked at.
        rule: What they are for.

    Raises:
        InputError: One has another value than its default.
    """
    for key in keys:
        value = getattr(section, key)
        if value != type(section).model_fields[key].default:
            raise InputError(rule, key=key, value=value)


class PoseAugmentation(Strict):
    """How training crops of people vary; the defaults are the paper's for COCO (section 4)."""

    flip: Share = Field(default=0.5, description="Share of crops that are mirrored.")
    scale: float = Field(
        default=0.35, ge=0, lt=1, description="The box is scaled by N(1, scale), cut at 1 ± scale."
    )
    rotation: float = Field(
        default=45, ge=0, le=180, description="Degrees: N(0, rotation), cut at twice that."
    )
    rotation_share: Share = Field(default=0.6, description="Share of crops that are rotated.")
    half_body: Share = Field(
        default=0.3, description="Share of well visible people shown by one half of the body."
    )
    half_body_joints: int = Field(
        default=8, ge=0, description="Well visible: more than so many labelled joints."
    )

    @model_validator(mode="after")
    def _all_used(self) -> "PoseAugmentation":
        if not self.half_body:
            refuse_unused(self, ("half_body_joints",), "is for half_body above 0")
        if not self.rotation:
            refuse_unused(self, ("rotation_share",), "is for rotation above 0")
        return self


class PoseTest(Strict):
    """How a trained pose network is tested; the defaults are the paper's (section 4)."""

    flip: bool = Field(default=True, description="Average with the mirrored image's heatmaps.")
    shift: bool = Field(
        default=True, description="Move the mirrored image's heatmaps by one pixel, as official."
    )
    joint_score: float | None = Field(
        default=None,
        ge=0,
        description="A person's score is the mean of joints above this; none: 0.2 as official, or "
        "0 with loss cross_entropy, as the peaks of a softmax are low.",
    )
    oks_nms: float = Field(
        default=0.9, gt=0, le=1, description="Of people so much alike by OKS the best is kept."
    )

    @model_validator(mode="after")
    def _all_used(self) -> "PoseTest":
        if not self.flip:
            refuse_unused(self, ("shift",), "is for flip true")
        return self


class PoseTask(Strict):
    """Top-down pose estimation: one heatmap per joint, from the crop around one person."""

    kind: Literal["pose"]
    head: Literal["v1", "v1h", "v2"] = Field(default="v1", description="Representation head.")
    loss: Literal["mse", "ohkm", "cross_entropy"] = Field(
        default="mse",
        description="mse: the paper's, on Gaussian heatmaps. ohkm: the same over each person's "
        "worst joints. cross_entropy: a softmax over all positions against the same Gaussians; "
        "learns in far fewer steps.",
    )
    ohkm_joints: int = Field(default=8, ge=1, description="Worst joints that `ohkm` keeps.")
    sigma: float = Field(
        default=2.0,
        gt=0,
        description="Spread of the Gaussians, heatmap pixels; 2 at 256x192, 3 at 384x288.",
    )
    subpixel: bool = Field(
        default=False,
        description="Centre the Gaussians where the joints are, not at the nearest pixel as the "
        "official code does.",
    )
    decoder: Literal["quarter", "parabola", "dark"] = Field(
        default="quarter",
        description="quarter: the paper's quarter of a pixel towards the higher neighbour. "
        "parabola: through the logarithms of three values per axis, exact for subpixel Gaussians. "
        "dark: heatmap smoothed, then a second-order step (Zhang et al., CVPR 2020).",
    )
    metric: Literal["oks", "pckh", "nme"] = Field(
        default="oks",
        description="oks: COCO's AP and AR. pckh: MPII's PCKh@0.5. nme: mean error over the "
        "distance of two joints, for landmarks of faces.",
    )
    augmentation: PoseAugmentation = PoseAugmentation()
    test: PoseTest = PoseTest()

    @model_validator(mode="after")
    def _all_used(self) -> "PoseTask":
        if self.loss != "ohkm":
            refuse_unused(self, ("ohkm_joints",), "is for loss ohkm")
        if self.metric != "oks":
            try:
                refuse_unused(self.test, ("joint_score", "oks_nms"), "is for metric oks")
            except InputError as error:
                raise error.within(key="test") from None
        return self

    @property
    def least_score(self) -> float:
        """What `test.joint_score` comes to."""
        if self.test.joint_score is not None:
            return self.test.joint_score
        return 0.0 if self.loss == "cross_entropy" else JOINT_SCORE

    @property
    def metrics(self) -> tuple[str, ...]:
        names = {
            "oks": ("ap", "ap50", "ap75", "apm", "apl", "ar"),
            "pckh": ("pckh", "pckh01"),
            "nme": ("nme",),
        }
        return tuple(f"metrics.{name}" for name in names[self.metric])


class SegmentationAugmentation(Strict):
    """How training crops vary; the defaults are the paper's (section 5)."""

    flip: Share = Field(default=0.5, description="Share of crops that are mirrored.")
    scale: Annotated[
        list[Annotated[float, Field(gt=0, le=10)]], Field(min_length=2, max_length=2)
    ] = Field(default=[0.5, 2.0], description="[least, largest] scale of the image, uniform.")
    resize: AnySize = Field(
        default=[],
        description="[height, width] that images are brought to first, their shape not kept.",
    )
    photometric: bool = Field(
        default=False, description="Vary brightness, contrast, saturation and hue."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "SegmentationAugmentation":
        if self.scale[0] > self.scale[1]:
            raise InputError("must be [least, largest]", key="scale", value=self.scale)
        return self


class SegmentationTest(Strict):
    """How a trained network is tested; one scale, not mirrored, whole images by default."""

    scales: Annotated[list[Annotated[float, Field(gt=0, le=10)]], Field(min_length=1)] = Field(
        default=[1.0], description="Scales whose class probabilities are averaged."
    )
    flip: bool = Field(default=False, description="Average with the mirrored image as well.")
    resize: AnySize = Field(
        default=[],
        description="[height, width] that images are brought to first, their shape not kept; "
        "classes are compared at the size of the labels.",
    )
    window: AnySize = Field(
        default=[], description="Slide a window of [height, width]; none: whole images."
    )
    overlap: float = Field(
        default=1 / 3, ge=0, lt=1, description="Share of a window that the next one covers again."
    )

    @model_validator(mode="after")
    def _all_used(self) -> "SegmentationTest":
        if not self.window:
            refuse_unused(self, ("overlap",), "is for tests by a window")
        return self


class SegmentationTask(Strict):
    """Semantic segmentation: a class per pixel, mean intersection over union."""

    kind: Literal["segmentation"]
    head: Literal["v1", "v1h", "v2", "ocr"] = Field(
        default="v2", description="Representation head; ocr: HRNetV2 + OCR, trained by two losses."
    )
    loss: Literal["cross_entropy", "ohem"] = Field(
        default="cross_entropy",
        description="ohem: cross-entropy of the hard pixels alone (official code).",
    )
    ohem_threshold: Share = Field(
        default=0.9, description="Hard: the true class has less than this probability."
    )
    ohem_pixels: int = Field(
        default=131072,
        ge=1,
        description="So many pixels are kept at least of each part of a batch: of each process, "
        "as of each GPU in the official code, and of each accumulated part.",
    )
    coarse_weight: float = Field(
        default=0.4, ge=0, description="Weight of the coarse output's loss with head ocr."
    )
    class_weights: list[Annotated[float, Field(gt=0)]] = Field(
        default=[],
        description="Weight of each class in the loss, none for equal weights. The official "
        "Cityscapes code has fixed ones.",
    )
    augmentation: SegmentationAugmentation = SegmentationAugmentation()
    test: SegmentationTest = SegmentationTest()

    @model_validator(mode="after")
    def _all_used(self) -> "SegmentationTask":
        if self.loss != "ohem":
            refuse_unused(self, ("ohem_threshold", "ohem_pixels"), "is for loss ohem")
        if self.head != "ocr":
            refuse_unused(self, ("coarse_weight",), "is for head ocr")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("metrics.miou", "metrics.pixel_accuracy", "metrics.class_accuracy")


class ClassificationAugmentation(Strict):
    """How training crops vary; the defaults are those of the ResNet recipe (appendix)."""

    flip: Share = Field(default=0.5, description="Share of crops that are mirrored.")
    least_area: float = Field(
        default=0.08, gt=0, le=1, description="Smallest share of the image in a crop."
    )


class ClassificationTask(Strict):
    """Image classification with the -C heads: top-1 and top-5 accuracy."""

    kind: Literal["classification"]
    head: Literal["cls", "cls_i", "cls_ii"] = Field(
        default="cls", description="Representation head."
    )
    augmentation: ClassificationAugmentation = ClassificationAugmentation()

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("metrics.top1", "metrics.top5")


class DetectionAugmentation(Strict):
    """How training images vary; the default is the paper's (section 6)."""

    flip: Share = Field(default=0.5, description="Share of images that are mirrored.")
    short_edges: list[Pixels] = Field(
        default=[],
        max_length=2,
        description="[least, largest] short edge, uniform, for training at several scales; none: "
        "data.image_size.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> "DetectionAugmentation":
        if len(self.short_edges) == 1 or self.short_edges != sorted(self.short_edges):
            rule = "must be [least, largest], or [] for none"
            raise InputError(rule, key="short_edges", value=self.short_edges)
        return self


class DetectionTest(Strict):
    """How a trained detector is tested; the defaults are the paper's (section 6)."""

    score: Share = Field(default=0.05, description="Least score of what is found.")
    nms: float = Field(
        default=0.5, gt=0, le=1, description="Of two boxes that overlap by more one is kept."
    )
    detections: int = Field(default=100, ge=1, description="Most objects of an image.")


class DetectionTask(Strict):
    """Object detection, and with some frameworks instance segmentation, on HRNetV2p."""

    kind: Literal["detection"]
    framework: Literal[
        "faster_rcnn",
        "cascade_rcnn",
        "mask_rcnn",
        "cascade_mask_rcnn",
        "htc",
        "fcos",
        "centernet",
        "retinanet",
    ] = Field(default="faster_rcnn", description="What stands on the pyramid.")
    pyramid: Literal["v1p", "v1hp", "v2p", "v2p_s2", "v2r"] | None = Field(
        default=None,
        description="Made of the highest resolution alone (v1p), of the same widened (v1hp), or of "
        "all maps (v2p). By default the framework's own.",
    )
    channels: int = Field(default=256, ge=8, description="Channels of each map of the pyramid.")
    hidden: int = Field(
        default=1024, ge=8, description="Width of the layers that classify a region."
    )
    anchor_scale: float = Field(
        default=8.0,
        gt=0,
        description="Side of an anchor in strides of its map; half of that in retinanet.",
    )
    anchor_ratios: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        default=[0.5, 1.0, 2.0], description="Height over width of the anchors."
    )
    rpn_samples: int = Field(
        default=256, ge=2, description="Anchors of an image that the proposals' loss is of."
    )
    roi_samples: int = Field(
        default=512, ge=2, description="Proposals of an image that each stage learns from."
    )
    train_proposals: int = Field(
        default=2000, ge=1, description="Proposals kept of an image in training."
    )
    test_proposals: int = Field(default=1000, ge=1, description="Proposals kept in a test.")
    norm_on_bbox: bool = Field(
        default=False,
        description="fcos: learn distances in strides of the map by GIoU, not exponentials by IoU.",
    )
    centerness_on_box: bool = Field(
        default=False, description="fcos: read centre-ness from the boxes' tower."
    )
    semantic: bool = Field(
        default=True, description="htc: a branch that segments the whole image as well."
    )
    norm_eval: bool = Field(
        default=False,
        description="Keep the statistics of the backbone's BatchNorm as they are (the paper's, "
        "with pretrained weights).",
    )
    frozen_stages: int = Field(
        default=0,
        ge=0,
        description="Backbone parts that do not learn: 1 is the stem with stage 1, 2 stage 2 too.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Keep less for the backward pass and compute it again; needs norm_eval.",
    )
    augmentation: DetectionAugmentation = DetectionAugmentation()
    test: DetectionTest = DetectionTest()

    @model_validator(mode="after")
    def _consistent(self) -> "DetectionTask":
        if self.gradient_checkpointing and not self.norm_eval:
            rule = "needs norm_eval, as statistics would be taken twice"
            raise InputError(rule, key="gradient_checkpointing", value=True)
        if self.framework != "fcos":
            refuse_unused(self, ("norm_on_bbox", "centerness_on_box"), "is for framework fcos")
        if self.framework != "htc":
            refuse_unused(self, ("semantic",), "is for framework htc")
        self.detector(1)  # raises what is wrong with the pyramid
        return self

    @property
    def head(self) -> str:
        return self.pyramid or FRAMEWORKS[self.framework].pyramids[0]

    @property
    def metrics(self) -> tuple[str, ...]:
        names = [*BOX_METRICS, *(MASK_METRICS if FRAMEWORKS[self.framework].masks else ())]
        return tuple(f"metrics.{name}" for name in names)

    def detector(self, num_classes: int) -> DetectorSpec:
        """The detector without its backbone."""
        shared = {field.name for field in dataclasses.fields(DetectorSpec)}
        values = {key: value for key, value in self if key in shared}
        test = {key: value for key, value in self.test if key in shared}
        own = {"pyramid": self.head, "anchor_ratios": tuple(self.anchor_ratios)}
        return DetectorSpec(**{**values, **test, **own}, num_classes=num_classes)


class Files(Strict):
    """What all data in files has in common."""

    root: str = Field(min_length=1, description="The data set's folder.")
    cache_gib: float = Field(
        default=4.0,
        ge=0,
        description="Decoded images are kept, shared by all trials, if they take no more than "
        "this many GiB; else every trial decodes them as it goes.",
    )


class People(Strict):
    """What all pose data has in common."""

    input_size: Size = Field(description="[height, width] of a person's crop in pixels.")

    @property
    def padding(self) -> float:
        """A crop shows so many times a person's box."""
        return BOX_PADDING

    @property
    def joints(self) -> JointSet:
        return COCO

    @property
    def num_outputs(self) -> int:
        return len(self.joints.names)

    @property
    def size(self) -> tuple[int, int]:
        return self.input_size[0], self.input_size[1]


class SyntheticPose(People):
    """Drawn people with COCO's keypoints, made from a seed on this machine."""

    kind: Literal["synthetic_pose"]
    num_train: int = Field(ge=1, description="Training images.")
    num_val: int = Field(ge=1, description="Validation images.")
    seed: int = Field(default=0, ge=0, description="Seed of the pictures.")


class Keypoints(Strict):
    """The joints of a data set other than COCO's people."""

    names: list[str] = Field(min_length=1, description="In the order of the annotations.")
    skeleton: list[Names] = Field(default=[], description="Pairs joined in drawings.")
    flip_pairs: list[Names] = Field(
        default=[], description="Pairs that change places in a mirrored image."
    )
    sigmas: list[Annotated[float, Field(gt=0)]] = Field(
        default=[], description="OKS spread of each joint; for metric oks."
    )
    upper_body: list[str] = Field(default=[], description="Upper half, for half-body crops.")
    normalise_by: list[str] = Field(
        default=[], description="Two joints whose distance scales the error; for metric nme."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Keypoints":
        if len(set(self.names)) < len(self.names):
            raise InputError("must not repeat a name", key="names")
        if self.sigmas and len(self.sigmas) != len(self.names):
            rule = f"must have one value for each of {len(self.names)} joints"
            raise InputError(rule, key="sigmas", value=len(self.sigmas))
        for key in ("skeleton", "flip_pairs"):
            for place, pair in enumerate(getattr(self, key)):
                self._check(pair, f"{key}.{place}")
        paired = [name for pair in self.flip_pairs for name in pair]
        for name in paired:
            if paired.count(name) > 1:
                raise InputError("must not repeat a joint", key="flip_pairs", value=name)
        self._check(self.upper_body, "upper_body")
        self._check(self.normalise_by, "normalise_by")
        if self.normalise_by and not len({*self.normalise_by}) == len(self.normalise_by) == 2:
            rule = "must be two joints"
            raise InputError(rule, key="normalise_by", value=self.normalise_by)
        return self

    def _check(self, names: list[str], key: str) -> None:
        for name in names:
            if name not in self.names:
                near = nearest_name(name, self.names)
                raise InputError("must be one of names", key=key, value=name, nearest=near)

    def to_set(self) -> JointSet:
        return JointSet(
            names=tuple(self.names),
            skeleton=tuple((a, b) for a, b in self.skeleton),
            flip_pairs=tuple((a, b) for a, b in self.flip_pairs),
            sigmas=tuple(self.sigmas),
            upper_body=tuple(self.upper_body),
            normalise_by=tuple(self.normalise_by),
        )


class CocoPose(People, Files):
    """COCO's person keypoints, or any data in COCO's format."""

    kind: Literal["coco_pose"]
    train_annotations: str = Field(
        default="annotations/person_keypoints_train2017.json", description="COCO JSON file."
    )
    train_images: str = Field(default="train2017", description="Folder, or .zip, of images.")
    val_annotations: str = Field(
        default="annotations/person_keypoints_val2017.json", description="COCO JSON file."
    )
    val_images: str = Field(default="val2017", description="Folder, or .zip, of images.")
    val_boxes: str = Field(
        default="",
        description="A detector's boxes for testing, in COCO's results format; none: the boxes "
        "of the annotations.",
    )
    box_padding: float = Field(
        default=BOX_PADDING,
        ge=1,
        le=3,
        description="Crop around a box, its shape corrected, times this.",
    )
    keypoints: Keypoints | None = Field(default=None, description="Joints, if not COCO's 17.")

    @property
    def padding(self) -> float:
        return self.box_padding

    @property
    def joints(self) -> JointSet:
        return self.keypoints.to_set() if self.keypoints else COCO


class MpiiPose(People, Files):
    """MPII Human Pose in the files of the official code."""

    kind: Literal["mpii_pose"]
    train_annotations: str = Field(default="annot/train.json", description="List of people.")
    val_annotations: str = Field(default="annot/valid.json", description="List of people.")
    val_truth: str = Field(
        default="annot/gt_valid.mat", description="Head boxes and joints for PCKh."
    )
    images: str = Field(default="images", description="Folder, or .zip, of images.")

    @property
    def joints(self) -> JointSet:
        return MPII


class Labelled(Files):
    """What all segmentation data has in common."""

    label_set: str = Field(default="", description="Fills in the next four keys, e.g. cityscapes.")
    class_names: list[str] = Field(
        default=[], description="Names of labels 0, 1, ...; needed without a label set."
    )
    ignore_label: int = Field(default=255, ge=0, le=255, description="Label left out of all.")
    label_map: list[Annotated[int, Field(ge=0, le=255)]] = Field(
        default=[],
        max_length=256,
        description="Class (or ignore_label) of value 0, 1, ... of the label images; none: as is.",
    )
    flip_pairs: list[Names] = Field(
        default=[], description="Classes that change places in a mirrored image (left, right)."
    )
    crop_size: Size = Field(description="Training crop, [height, width] in pixels.")
    base_length: int = Field(
        default=0,
        ge=0,
        description="Longer side, in pixels, of an image at scale 1; 0: as it is. Not beside "
        "resize of task.augmentation or task.test.",
    )

    @property
    def num_outputs(self) -> int:
        return len(self.class_names)

    @property
    def size(self) -> tuple[int, int]:
        return self.crop_size[0], self.crop_size[1]

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, raw: Any) -> Any:
        name = raw.get("label_set") if isinstance(raw, dict) else None
        if not name or not isinstance(name, str):
            return raw
        if name not in LABEL_SETS:
            rule = f"must be one of {', '.join(LABEL_SETS)}"
            near = nearest_name(name, LABEL_SETS)
            raise InputError(rule, key="label_set", value=name, nearest=near)
        return {**LABEL_SETS[name].to_settings(), **raw}

    @model_validator(mode="after")
    def _consistent(self) -> "Labelled":
        count = len(self.class_names)
        if not count:
            raise InputError("is missing", key="class_names")
        if count < 2:
            raise InputError(
                "must have at least 2 items", key="class_names", value=self.class_names
            )
        if len(set(self.class_names)) < count:
            raise InputError("must not repeat a name", key="class_names")
        if self.ignore_label < count:
            rule = f"must not be the number of a class (0 to {count - 1})"
            raise InputError(rule, key="ignore_label", value=self.ignore_label)
        for place, label in enumerate(self.label_map):
            if label >= count and label != self.ignore_label:
                rule = f"must be 0 to {count - 1}, or ignore_label ({self.ignore_label})"
                raise InputError(rule, key=f"label_map.{place}", value=label)
        for place, pair in enumerate(self.flip_pairs):
            for name in pair:
                if name not in self.class_names:
                    near = nearest_name(name, self.class_names)
                    rule = "must be one of class_names"
                    raise InputError(rule, key=f"flip_pairs.{place}", value=name, nearest=near)
        paired = [name for pair in self.flip_pairs for name in pair]
        for name in paired:
            if paired.count(name) > 1:
                raise InputError("must not repeat a class", key="flip_pairs", value=name)
        return self


class SegmentationFolder(Labelled):
    """Folders of images and of label images with the same names; CamVid's are the defaults."""

    kind: Literal["segmentation_folder"]
    train_images: str = Field(default="train", description="Folder of training images.")
    train_labels: str = Field(default="trainannot", description="Their label images.")
    val_images: str = Field(default="val", description="Folder of validation images.")
    val_labels: str = Field(default="valannot", description="Their label images.")
    image_suffix: str = Field(
        default="", description="What an image's name ends with beyond its label's, e.g. .jpg."
    )
    label_suffix: str = Field(
        default="", description="What a label's name ends with, e.g. _gtFine_labelIds.png."
    )


class SegmentationList(Labelled):
    """Text files with an image and its label image per line, as of the official code."""

    kind: Literal["segmentation_list"]
    train_list: str = Field(min_length=1, description="List of training images.")
    val_list: str = Field(min_length=1, description="List of validation images.")
    image_folder: str = Field(
        default=".", description="What the images' paths in the lists are relative to."
    )
    label_folder: str = Field(
        default=".", description="What the label images' paths in the lists are relative to."
    )


class ImageFolders(Files):
    """A folder per class, as ImageNet is laid out."""

    kind: Literal["image_folders"]
    train: str = Field(default="train", description="Folder with a folder of images per class.")
    val: str = Field(default="val", description="The same for validation.")
    num_classes: int = Field(ge=2, description="How many classes there are.")
    input_size: Size = Field(description="[height, width] of a crop in pixels.")

    @property
    def num_outputs(self) -> int:
        return self.num_classes

    @property
    def size(self) -> tuple[int, int]:
        return self.input_size[0], self.input_size[1]


class Objects(Strict):
    """What all detection data has in common."""

    image_size: Size = Field(
        description="[short, long] edge: images are scaled, their shape kept, until one is met.",
    )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of a full image lying down, padded to a multiple of `PADDED`."""
        short, long = sorted(self.image_size)
        return -(-short // PADDED) * PADDED, -(-long // PADDED) * PADDED


class SyntheticDetection(Objects):
    """Drawn objects of several classes and sizes, made from a seed on this machine."""

    kind: Literal["synthetic_detection"]
    num_train: int = Field(ge=1, description="Training images.")
    num_val: int = Field(ge=1, description="Validation images.")
    seed: int = Field(default=0, ge=0, description="Seed of the pictures.")

    @property
    def num_outputs(self) -> int:
        return len(SYNTHETIC_CLASSES)


class CocoDetection(Objects, Files):
    """COCO's instances, or any data in COCO's format."""

    kind: Literal["coco_detection"]
    train_annotations: str = Field(
        default="annotations/instances_train2017.json", description="COCO JSON file."
    )
    train_images: str = Field(default="train2017", description="Folder, or .zip, of images.")
    val_annotations: str = Field(
        default="annotations/instances_val2017.json", description="COCO JSON file."
    )
    val_images: str = Field(default="val2017", description="Folder, or .zip, of images.")
    num_classes: int = Field(default=80, ge=1, description="Categories of the annotations.")
    use_empty: bool = Field(default=False, description="Train on images without objects, too.")

    @property
    def num_outputs(self) -> int:
        return self.num_classes


class VocDetection(Objects, Files):
    """Pascal VOC's folders: JPEGImages, Annotations, ImageSets/Main."""

    kind: Literal["voc_detection"]
    train_set: str = Field(default="train", description="Name of a list in ImageSets/Main.")
    val_set: str = Field(default="val", description="Name of a list in ImageSets/Main.")
    class_names: Annotated[list[str], Field(min_length=1)] = Field(
        default=list(VOC_CLASSES), description="Names in the annotations."
    )
    use_empty: bool = Field(default=False, description="Train on images without objects, too.")

    @property
    def num_outputs(self) -> int:
        return len(self.class_names)


class Train(Strict):
    """How each network is trained."""

    steps: int | None = Field(default=None, ge=1, description="Optimiser steps; or say epochs.")
    epochs: int | None = Field(
        default=None, ge=1, description="Passes through the data; or say steps."
    )
    batch_size: int = Field(ge=2, description="Images per step, over all processes.")
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = Field(gt=0, description="Largest learning rate.")
    head_lr: float = Field(
        default=1.0, gt=0, description="The head's learning rate is this times `lr`."
    )
    weight_decay: float = Field(default=0.0, ge=0)
    nesterov: bool = Field(default=False, description="Nesterov momentum, with sgd.")
    schedule: Literal["one_cycle", "poly", "cosine", "step", "constant"] = Field(
        default="one_cycle",
        description="poly: power 0.9, as the paper's segmentation (section 5). step: a tenth after "
        "each milestone. one_cycle has its own warm-up.",
    )
    milestones: list[Annotated[int, Field(ge=1)]] = Field(
        default=[], description="For schedule step, in steps, or in epochs if `epochs` is given."
    )
    warmup: int = Field(default=0, ge=0, description="Steps of linear warm-up from a third.")
    clip_norm: float = Field(
        default=0.0, ge=0, description="Largest norm of the gradient; 0: not clipped."
    )
    accumulate: int = Field(
        default=1, ge=1, description="Parts that a batch is cut into, to need less memory."
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay of the moving average of the weights, which is what is tested and "
        "kept; 0: none.",
    )
    pretrained: str = Field(
        default="", description="Checkpoint whose body every network starts from."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="auto: bfloat16 where the hardware has it, else float16 on a GPU.",
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        default="auto", description="auto: channels_last, the faster one on CPU and GPU."
    )
    processes: int = Field(
        default=1, ge=1, description="Processes (one GPU each) that share each batch of a trial."
    )
    workers: int = Field(
        default=0, ge=0, description="Processes that load data ahead, for each of these."
    )
    checkpoint_minutes: float = Field(
        default=10.0, ge=0, description="How often training is saved, to go on from there."
    )
    keep_checkpoints: bool = Field(
        default=False, description="Keep every checkpoint, not the last one alone."
    )
    evaluations: int = Field(
        default=5, ge=1, description="Evaluations, evenly spaced, last at end."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Train":
        if self.steps and self.epochs:
            rule = "cannot be given beside steps; --set train.epochs=null leaves it out"
            raise InputError(rule, key="epochs", value=self.epochs)
        length = self.steps or self.epochs
        if length is None:
            raise InputError("is missing", key="steps")
        unit = "steps" if self.steps else "epochs"
        if self.steps and self.evaluations > self.steps:
            rule = f"cannot be more than steps ({self.steps})"
            raise InputError(rule, key="evaluations", value=self.evaluations)
        if self.steps and self.warmup >= self.steps:
            rule = f"must be less than steps ({self.steps})"
            raise InputError(rule, key="warmup", value=self.warmup)
        if self.warmup and self.schedule == "one_cycle":
            raise InputError("one_cycle has its own", key="warmup", value=self.warmup)
        if self.nesterov and self.optimizer != "sgd":
            raise InputError("is for optimizer sgd", key="nesterov", value=True)
        self._check_milestones(length, unit)
        parts = self.accumulate * self.processes
        if self.batch_size % parts or self.batch_size // parts < 2:
            rule = f"must make {parts} equal parts (accumulate x processes) of 2 or more images"
            raise InputError(rule, key="batch_size", value=self.batch_size)
        return self

    def _check_milestones(self, length: int, unit: str) -> None:
        if bool(self.milestones) != (self.schedule == "step"):
            rule = "are for schedule step" if self.milestones else "are needed for schedule step"
            raise InputError(rule, key="milestones", value=self.milestones)
        if self.milestones != sorted(set(self.milestones)) or any(
            stone >= length for stone in self.milestones
        ):
            rule = f"must rise and stay below {unit} ({length})"
            raise InputError(rule, key="milestones", value=self.milestones)

    def total_steps(self, num_train: int) -> int:
        """Optimiser steps on `num_train` samples; the last batch of all may reach beyond."""
        return self.steps or -(-(self.epochs or 0) * num_train // self.batch_size)


Task = Annotated[
    PoseTask | SegmentationTask | DetectionTask | ClassificationTask,
    Field(discriminator="kind"),
]
Data = Annotated[
    SyntheticPose
    | CocoPose
    | MpiiPose
    | SegmentationFolder
    | SegmentationList
    | SyntheticDetection
    | CocoDetection
    | VocDetection
    | ImageFolders,
    Field(discriminator="kind"),
]
DATA_KINDS: dict[str, tuple[str, ...]] = {  # of each kind of task
    "pose": ("synthetic_pose", "coco_pose", "mpii_pose"),
    "segmentation": ("segmentation_folder", "segmentation_list"),
    "detection": ("synthetic_detection", "coco_detection", "voc_detection"),
    "classification": ("image_folders",),
}
