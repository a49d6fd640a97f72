"""The cost columns of the paper's tables as printed, and what of this package is the same network.

Sources: tables and appendix D of Wang et al., arXiv 1908.07919v2; Fig. 6 and Table 4 of Sun et
al., CVPR 2019, arXiv 1902.09212; the READMEs of HRNet-Image-Classification and
HRNet-Semantic-Segmentation. Figures are text, digit for digit. Sizes are (height, width).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..frameworks import FRAMEWORKS, DetectorSpec
from . import TABLES

Size = tuple[int, int]
UNITS: Mapping[str, int] = {"M": 10**6, "2^20": 2**20, "10^9": 10**9, "2^30": 2**30}

POSE, POSE_LARGE = (256, 192), (384, 288)
CITYSCAPES, CITYSCAPES_CROP = (1024, 2048), (512, 1024)
PASCAL, PASCAL_OCR, LIP = (480, 480), (520, 520), (473, 473)
FACE, IMAGENET = (256, 256), (224, 224)
DETECTION, DETECTION_TRAINING = (800, 1216), (800, 1333)  # 800x1200, padded to a multiple of 32
KEYPOINTS = (511, 511)  # CenterNet
GPUS = 4  # of one training run; the printed memory is one GPU's


@dataclass(frozen=True)
class HRNet:
    """A network of this package.

    Args:
        preset: A key of `presets.PRESETS`.
        task: A key of `arch.TASK_DEFAULTS`.
        head: A key of `blueprint.HEADS`.
        num_outputs: Joints, landmarks or classes.
        arguments: Arguments of `hrnet` that replace the preset's.
    """

    preset: str
    task: str
    head: str
    num_outputs: int
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Baseline:
    """A network of others: a name and the number of outputs for `baselines.rival`."""

    rival: str
    num_outputs: int


@dataclass(frozen=True)
class Counting:
    """What the printed cost of a detector holds; it was counted in several ways.

    Args:
        regions: Proposals that each stage looks at.
        masked: Regions whose masks are made.
        norms: Are BatchNorm's among the #Params?
        predictor: Are the layers that classify and fit a region among the GFLOPs?
        at_output: Is a transposed convolution counted at every place that it puts out?
        semantic: Classes of the branch that segments the image, of Hybrid Task Cascade.
        stride_first: Has a ResNet's bottleneck its stride in the first 1x1 convolution (He et
            al.), not in the 3x3?
    """

    regions: int = 0
    masked: int = 0
    norms: bool = True
    predictor: bool = True
    at_output: bool = False
    semantic: int = 0
    stride_first: bool = False


@dataclass(frozen=True)
class Detector:
    """A detector of this package.

    Args:
        backbone: A key of `presets.PRESETS` or of `rivals.RIVALS`.
        spec: The rest.
        counting: How the paper counted it.
    """

    backbone: str
    spec: DetectorSpec
    counting: Counting


@dataclass(frozen=True)
class Training:
    """Memory of a training step.

    Args:
        memory: As printed, G.
        input_size: Of one image.
        images: On one GPU.
    """

    memory: str
    input_size: Size
    images: int


@dataclass(frozen=True)
class CostRow:
    """One row: what is printed, "" where nothing is, and what makes the same network here.

    Args:
        network: Method and backbone.
        input_size: What the GFLOPs are for.
        params: As printed.
        gflops: As printed.
        ours: The same network, or None; the note says why.
        note: What a reader should know of this row alone.
        reasons: "params" or "gflops" -> what is known of a figure that differs from ours.
        training: Memory, where it is printed.
        params_unit: Of the printed #Params, a key of `UNITS`.
        gflops_unit: Of the printed GFLOPs, a key of `UNITS`.
    """

    network: str
    input_size: Size | None
    params: str
    gflops: str
    ours: HRNet | Baseline | Detector | None = None
    note: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)
    training: Training | None = None
    params_unit: str = "M"
    gflops_unit: str = "2^30"


@dataclass(frozen=True)
class PrintedCosts:
    """The cost columns of one table.

    Args:
        title: Where it stands and what it shows.
        rows: In the printed order.
        remark: What holds for all rows.
    """

    title: str
    rows: tuple[CostRow, ...]
    remark: str = ""


# --- what is known of figures that differ -------------------------------------------------------

NOT_BUILT = "not a network of this package"
NO_HOURGLASS = "CenterNet's hourglass backbones are not built"
DECONVOLUTIONS = (
    "SimpleBaseline's GFLOPs count transposed convolutions four times, here as in the official "
    "code; without that ResNet-50, 101, 152 have 5.05, 8.44, 11.83 at 256x192."
)
DETECTION_UNITS = (
    "The paper does not say how detectors were counted: units, input, proposals and what is left "
    "out are those with which the figures come out, see the notes. Ours are for 80 classes at the "
    "input given, which is 800x1200 padded to a multiple of 32 but for CenterNet's."
)
COUNTED_FASTER = (
    "#Params / 2^20 without BatchNorm's; GFLOPs / 2^30 with 512 proposals, without the two layers "
    "that classify and fit them (0.2)"
)
COUNTED_STAGES = "#Params in M; GFLOPs / 10^9 with 1000 proposals in each stage"
COUNTED_MASKS = (
    "#Params in M; GFLOPs / 10^9 with 1000 proposals in each stage and masks of 100 regions; "
    "transposed convolutions count four times, as in Table 1"
)
COUNTED_FCOS = "#Params in M; GFLOPs / 10^9"
COUNTED: Mapping[str, str] = {
    "cascade_rcnn": COUNTED_STAGES,
    "mask_rcnn": COUNTED_MASKS,
    "cascade_mask_rcnn": COUNTED_MASKS,
    "htc": f"{COUNTED_MASKS}; 183 classes, COCO-Stuff's, in the branch that segments the image",
}
COUNTED_CENTERNET = "#Params in M; GFLOPs / 2^30"
COUNTED_W48 = "#Params / 2^20 with BatchNorm's; GFLOPs / 2^30"
MEMORY = (
    f"Printed memory is taken for that of one of {GPUS} GPUs: 32 images of 256x192 (pose), 2 of "
    "512x1024 (segmentation), 2 of 800x1333 (detection). Ours is the closed form for as many, "
    "without the optimiser's state and the libraries' scratch memory, so there is no verdict."
)
MEMORY_GAP = "2.9 times our estimate; not known why"
PLOTTED = "The figures of this plot are read from its vector graphics."
NO_COST = "The paper prints no cost here."

R50 = {
    "gflops": "the official network itself has 8.99; Fig. 6 of CVPR 2019 prints 9.0 for the same"
}
HOURGLASS = {
    "params": "not known",
    "gflops": "not known; one residual unit less per hourglass at H/4 gives 14.3, but 23.7 M",
}
HOURGLASS_MPII = "see Table 1, where 256x192 pixels have 3/4 of these GFLOPs"
BOTH = ("params", "gflops")
UNETPP = dict.fromkeys(BOTH, "the library's decoder; the paper does not describe its own")
XCEPTION = {
    "params": "timm drops a shortcut's convolution where the stride is taken out",
    "gflops": "not known",
}
PSPNET = {"gflops": "not known; with a 7x7 stem ours is lower still"}
W40 = dict.fromkeys(
    BOTH,
    "the official code gives ours; no change of one width, block or module count gives both "
    "figures; the gap is that of 0.7 M parameters at 1/16 resolution",
)
LANDMARKS = {"params": "the official code gives ours; not known"}
LIP_SCALED = {
    "gflops": "scaled by area: 696.18 x 473^2 / (1024 x 2048) = 74.27; ours is of the network run"
}
README_PASCAL = (
    "printed in the README of HRNet-Semantic-Segmentation, not in the paper; GFLOPs scaled by "
    "area: 696.18 x 480^2 / (1024 x 2048) = 76.48"
)
README_LIP = "printed in the README of HRNet-Semantic-Segmentation, not in the paper"
ELEMENTWISE = {
    "gflops": "not known; as much as BatchNorm, ReLU and pooling, not counted here, would add, or "
    "twice that"
}
FROZEN = {
    "params": "without what a fine-tuned ResNet freezes, BatchNorm, stem and first stage, "
    "ResNet-50 has 32.02 and ResNet-101 50.96"
}
W48_KEYPOINTS = {"gflops": "not known; the figure for W64 comes out in the same way"}
SCALED_MPII = {"gflops": "15.7 x 4 / 3, from 256x192: rounded before it was scaled"}


# --- rows ---------------------------------------------------------------------------------------

R50_FPN, R101_FPN, X101_FPN = "ResNet-50-FPN", "ResNet-101-FPN", "ResNeXt-101-64x4d-FPN"
W18, W32, W48, W64 = (f"HRNetV2p-W{width}" for width in (18, 32, 48, 64))
BACKBONES: Mapping[str, str] = {  # of detectors, as printed -> a key of `PRESETS` or `RIVALS`
    R50_FPN: "resnet50_fpn",
    R101_FPN: "resnet101_fpn",
    X101_FPN: "resnext101_64x4d_fpn",
    W18: "w18",
    W32: "w32",
    W48: "w48",
    W64: "w64",
}
FASTER = Counting(regions=512, norms=False, predictor=False, stride_first=True)
STAGES = Counting(regions=1000, masked=100, at_output=True, semantic=183)  # COCO-Stuff's
ONE_STAGE = Counting(stride_first=True)


def _pose(network: str, preset: str, size: Size, params: str, gflops: str) -> CostRow:
    return CostRow(network, size, params, gflops, HRNet(preset, "pose", "v1", 17))


def _segmentation(
    network: str,
    preset: str,
    params: str = "",
    gflops: str = "",
    *,
    size: Size = CITYSCAPES,
    num_outputs: int = 19,
    note: str = "",
    reasons: Mapping[str, str] | None = None,
    training: Training | None = None,
) -> CostRow:
    ours = HRNet(preset, "segmentation", "v2", num_outputs)
    return CostRow(network, size, params, gflops, ours, note, reasons or {}, training)


def _ocr(
    params: str = "",
    gflops: str = "",
    *,
    network: str = "HRNetV2 + OCR, HRNetV2-W48",
    size: Size = CITYSCAPES,
    num_outputs: int = 19,
    note: str = "",
) -> CostRow:
    ours = HRNet("w48", "segmentation_ocr", "ocr", num_outputs)
    return CostRow(network, size, params, gflops, ours, note)


def _cls(network: str, preset: str, params: str, gflops: str, head: str = "cls") -> CostRow:
    return CostRow(network, IMAGENET, params, gflops, HRNet(preset, "classification", head, 1000))


def _resnet(depth: int, params: str, gflops: str) -> CostRow:
    return CostRow(f"ResNet-{depth}", IMAGENET, params, gflops, Baseline(f"resnet{depth}", 1000))


def _simple_baseline(
    depth: int,
    size: Size,
    params: str,
    gflops: str,
    *,
    network: str = "",
    reasons: Mapping[str, str] | None = None,
    training: Training | None = None,
) -> CostRow:
    name = network or f"SimpleBaseline, ResNet-{depth}"
    ours = Baseline(f"simple_baseline_resnet{depth}", 17)
    return CostRow(name, size, params, gflops, ours, reasons=reasons or {}, training=training)


def _cityscapes_rival(
    network: str,
    rival: str,
    params: str,
    gflops: str,
    *,
    reasons: Mapping[str, str] | None = None,
    training: Training | None = None,
) -> CostRow:
    ours = Baseline(rival, 19)
    return CostRow(
        network, CITYSCAPES, params, gflops, ours, reasons=reasons or {}, training=training
    )


def _printed(network: str, size: Size | None, params: str, gflops: str) -> CostRow:
    return CostRow(network, size, params, gflops, note=NOT_BUILT)


def _detector(
    framework: str,
    backbone: str,
    params: str,
    gflops: str,
    *,
    note: str,
    counting: Counting,
    size: Size = DETECTION,
    params_unit: str = "M",
    gflops_unit: str = "10^9",
    reasons: Mapping[str, str] | None = None,
) -> CostRow:
    """A row of Table 7; `backbone` is a key of `BACKBONES`."""
    spec = DetectorSpec(framework=framework, num_classes=80)
    ours = Detector(BACKBONES[backbone], spec, counting)
    name = f"{FRAMEWORKS[framework].title}, {backbone}"
    units = params_unit, gflops_unit
    return CostRow(name, size, params, gflops, ours, note, reasons or {}, None, *units)


def _faster_rcnn(
    backbone: str, params: str = "", gflops: str = "", *, network: str = "", memory: str = ""
) -> CostRow:
    row = _detector(
        "faster_rcnn",
        backbone,
        params,
        gflops,
        note=COUNTED_FASTER,
        counting=FASTER,
        params_unit="2^20",
        gflops_unit="2^30",
    )
    training = Training(memory, DETECTION_TRAINING, 8 // GPUS) if memory else None
    return replace(row, network=network or row.network, training=training)


def _stages(
    framework: str, figures: Iterable[tuple[str, str, str]], *, reasons: Mapping[str, str]
) -> Iterator[CostRow]:
    """Rows of a two-stage framework but Faster R-CNN: (backbone, #Params, GFLOPs) each."""
    note = COUNTED[framework]
    for backbone, params, gflops in figures:
        yield _detector(
            framework, backbone, params, gflops, note=note, counting=STAGES, reasons=reasons
        )


def _fcos(backbone: str, params: str, gflops: str, reasons: Mapping[str, str]) -> CostRow:
    return _detector(
        "fcos", backbone, params, gflops, note=COUNTED_FCOS, counting=ONE_STAGE, reasons=reasons
    )


def _centernet(
    backbone: str,
    params: str,
    gflops: str,
    *,
    note: str,
    unit: str,
    reasons: Mapping[str, str] | None = None,
) -> CostRow:
    return _detector(
        "centernet",
        backbone,
        params,
        gflops,
        note=note,
        counting=ONE_STAGE,
        size=KEYPOINTS,
        params_unit=unit,
        gflops_unit="2^30",
        reasons=reasons,
    )


def _hourglass(depth: int, params: str, gflops: str) -> CostRow:
    return CostRow(f"CenterNet, Hourglass-{depth}", KEYPOINTS, params, gflops, note=NO_HOURGLASS)


def _pose_memory(memory: str) -> Training:
    return Training(memory, POSE, 128 // GPUS)


def _segmentation_memory(memory: str) -> Training:
    return Training(memory, CITYSCAPES_CROP, 8 // GPUS)


def _arms(title: str, size: Size, network: HRNet) -> list[CostRow]:
    """The three networks of Table 12."""
    rows = []
    for row in TABLES["table12"].rows:
        ours = replace(network, arguments=row.arguments)
        rows.append(CostRow(f"{row.label}: {title}", size, "", "", ours))
    return rows


def _landmarks(dataset: str, num_outputs: int) -> CostRow:
    ours = HRNet("w18", "segmentation", "v2", num_outputs)
    name = f"HRNetV2-W18, {dataset} ({num_outputs} landmarks)"
    return CostRow(name, FACE, "9.3", "4.3", ours, reasons=LANDMARKS)


def _plotted(
    name: str, ours: HRNet | Baseline, figures: Iterable[tuple[Size, str]]
) -> list[CostRow]:
    return [CostRow(name, size, "", gflops, ours) for size, gflops in figures]


# --- tables -------------------------------------------------------------------------------------

_CPN = ("27.0", "6.20")

TABLE1 = PrintedCosts(
    "Table 1: COCO val2017, pose",
    (
        CostRow(
            "8-stage Hourglass", POSE, "25.1", "14.3", Baseline("hourglass_8", 17), "", HOURGLASS
        ),
        _printed("CPN, ResNet-50", POSE, *_CPN),
        _printed("CPN + OHKM, ResNet-50", POSE, *_CPN),
        _simple_baseline(50, POSE, "34.0", "8.90", reasons=R50),
        _simple_baseline(101, POSE, "53.0", "12.4"),
        _simple_baseline(152, POSE, "68.6", "15.7"),
        _pose("HRNetV1-W32, from scratch", "w32", POSE, "28.5", "7.10"),
        _pose("HRNetV1-W32", "w32", POSE, "28.5", "7.10"),
        _pose("HRNetV1-W48", "w48", POSE, "63.6", "14.6"),
        _simple_baseline(152, POSE_LARGE, "68.6", "35.6"),
        _pose("HRNetV1-W32", "w32", POSE_LARGE, "28.5", "16.0"),
        _pose("HRNetV1-W48", "w48", POSE_LARGE, "63.6", "32.9"),
    ),
    DECONVOLUTIONS,
)

TABLE2 = PrintedCosts(
    "Table 2: COCO test-dev, pose",
    (
        _printed("G-RMI, ResNet-101", (353, 257), "42.6", "57.0"),
        _printed("Integral Pose Regression, ResNet-101", (256, 256), "45.0", "11.0"),
        _printed("G-RMI + extra data, ResNet-101", (353, 257), "42.6", "57.0"),
        _printed("RMPE, PyraNet", (320, 256), "28.1", "26.7"),
        _simple_baseline(152, POSE_LARGE, "68.6", "35.6"),
        _pose("HRNetV1-W32", "w32", POSE_LARGE, "28.5", "16.0"),
        _pose("HRNetV1-W48", "w48", POSE_LARGE, "63.6", "32.9"),
        _pose("HRNetV1-W48 + extra data", "w48", POSE_LARGE, "63.6", "32.9"),
    ),
    f"Rows for which the paper prints a cost. {DECONVOLUTIONS}",
)

TABLE3 = PrintedCosts(
    "Table 3: Cityscapes val",
    (
        _cityscapes_rival(
            "UNet++, ResNet-101", "unetplusplus_resnet101", "59.5", "748.5", reasons=UNETPP
        ),
        _cityscapes_rival("Dilated-ResNet, D-ResNet-101", "dilated_resnet101", "52.1", "1661.6"),
        _cityscapes_rival("DeepLabv3, D-ResNet-101", "deeplabv3_resnet101", "58.0", "1778.7"),
        _cityscapes_rival(
            "DeepLabv3+, D-Xception-71",
            "deeplabv3plus_xception71",
            "43.5",
            "1444.6",
            reasons=XCEPTION,
        ),
        _cityscapes_rival(
            "PSPNet, D-ResNet-101", "pspnet_resnet101", "65.9", "2017.6", reasons=PSPNET
        ),
        _segmentation("HRNetV2-W40", "w40", "45.2", "493.2", reasons=W40),
        _segmentation("HRNetV2-W48", "w48", "65.9", "696.2"),
        _ocr("70.3", "1206.3", note="the products of the attention, 2.375 more, are not counted"),
    ),
)

TABLE4 = PrintedCosts(
    "Table 4: Cityscapes test",
    (
        _segmentation("HRNetV2-W48, trained on train", "w48"),
        _segmentation("HRNetV2-W48, trained on train + val", "w48"),
        _ocr(network="HRNetV2-W48 + OCR, trained on train + val"),
    ),
    NO_COST,
)

TABLE5 = PrintedCosts(
    "Table 5: PASCAL-Context",
    tuple(
        _segmentation(
            f"HRNetV2-W48, {classes} classes",
            "w48",
            "65.8",
            "76.5",
            size=PASCAL,
            num_outputs=classes,
            note=README_PASCAL,
        )
        for classes in (59, 60)
    )
    + tuple(
        _ocr(
            network=f"HRNetV2-W48 + OCR, {classes} classes",
            size=PASCAL_OCR,
            num_outputs=classes,
            note="at the size of the official configuration",
        )
        for classes in (59, 60)
    ),
    NO_COST,
)

TABLE6 = PrintedCosts(
    "Table 6: LIP",
    (
        _segmentation(
            "HRNetV2-W48",
            "w48",
            "65.8",
            "74.3",
            size=LIP,
            num_outputs=20,
            note=README_LIP,
            reasons=LIP_SCALED,
        ),
        _ocr(network="HRNetV2-W48 + OCR", size=LIP, num_outputs=20),
    ),
    NO_COST,
)

TABLE7 = PrintedCosts(
    "Table 7: COCO, detection",
    (
        _faster_rcnn(R50_FPN, "39.8", "172.3"),
        _faster_rcnn(W18, "26.2", "159.1"),
        _faster_rcnn(R101_FPN, "57.8", "239.4"),
        _faster_rcnn(W32, "45.0", "245.3"),
        _faster_rcnn(X101_FPN, "94.9", "381.8"),
        _faster_rcnn(W48, "79.4", "399.1"),
        *_stages(
            "cascade_rcnn",
            (
                (R50_FPN, "69.4", "226.2"),
                (W18, "55.1", "207.8"),
                (R101_FPN, "88.4", "298.7"),
                (W32, "74.9", "300.8"),
                (X101_FPN, "127.3", "448.3"),
                (W48, "111.0", "466.5"),
            ),
            reasons=ELEMENTWISE,
        ),
        _fcos(R50_FPN, "32.0", "190.0", FROZEN),
        _fcos(W18, "17.5", "180.3", ELEMENTWISE),
        _fcos(R101_FPN, "51.0", "261.2", FROZEN),
        _fcos(W32, "37.3", "273.3", ELEMENTWISE),
        _hourglass(52, "104.8", "227.0"),
        _centernet(W48, "73.6", "217.1", note=COUNTED_W48, unit="2^20", reasons=W48_KEYPOINTS),
        _hourglass(104, "210.1", "388.4"),
        _centernet(W64, "127.7", "318.5", note=COUNTED_CENTERNET, unit="M"),
        *_stages(
            "cascade_mask_rcnn",
            (
                (R50_FPN, "77.3", "431.7"),
                (W18, "63.1", "413.1"),
                (R101_FPN, "96.3", "504.1"),
                (W32, "82.9", "506.2"),
                (X101_FPN, "135.2", "653.7"),
                (W48, "118.9", "671.9"),
            ),
            reasons=ELEMENTWISE,
        ),
        *_stages(
            "htc",
            (
                (R50_FPN, "80.3", "476.9"),
                (W18, "66.1", "458.3"),
                (R101_FPN, "99.3", "549.2"),
                (W32, "85.9", "551.4"),
                (X101_FPN, "138.2", "698.9"),
                (W48, "121.9", "717.0"),
            ),
            reasons=ELEMENTWISE,
        ),
        *_stages(
            "mask_rcnn",
            (
                (R50_FPN, "44.4", "266.5"),
                (W18, "30.1", "247.9"),
                (R101_FPN, "63.4", "338.8"),
                (W32, "49.9", "341.0"),
            ),
            reasons=ELEMENTWISE,
        ),
    ),
    DETECTION_UNITS,
)

TABLE12 = PrintedCosts(
    "Table 12: where fusion units are needed",
    (
        *_arms("pose, HRNetV1-W32", POSE, HRNet("w32", "pose", "v1", 17)),
        *_arms("segmentation, HRNetV2-W48", CITYSCAPES, HRNet("w48", "segmentation", "v2", 19)),
    ),
    NO_COST,
)

TABLE13 = PrintedCosts(
    "Table 13: memory",
    (
        _simple_baseline(
            152, POSE, "", "", network="Pose: SB-ResNet-152", training=_pose_memory("14.8")
        ),
        CostRow(
            "Pose: HRNetV1-W48",
            POSE,
            "",
            "",
            HRNet("w48", "pose", "v1", 17),
            training=_pose_memory("7.3"),
        ),
        _cityscapes_rival(
            "Segmentation: PSPNet",
            "pspnet_resnet101",
            "",
            "",
            training=_segmentation_memory("14.4"),
        ),
        _cityscapes_rival(
            "Segmentation: DeepLabV3",
            "deeplabv3_resnet101",
            "",
            "",
            training=_segmentation_memory("13.3"),
        ),
        _segmentation(
            "Segmentation: HRNetV2-W48",
            "w48",
            note=MEMORY_GAP,
            training=_segmentation_memory("13.9"),
        ),
        _faster_rcnn(R101_FPN, network="Detection: ResNet-101", memory="5.4"),
        _faster_rcnn(X101_FPN, network="Detection: ResNeXt-101", memory="9.5"),
        _faster_rcnn(W32, network="Detection: HRNetV2p-W32", memory="8.5"),
        _faster_rcnn(W48, network="Detection: HRNetV2p-W48", memory="11.3"),
    ),
    f"{MEMORY} The printed seconds are a V100's and have no counterpart here.",
)

TABLE15 = PrintedCosts(
    "Table 15: ImageNet",
    (
        _resnet(38, "28.3", "3.80"),
        _cls("HRNet-W18-C", "w18", "21.3", "3.99"),
        _resnet(72, "48.4", "7.46"),
        _cls("HRNet-W30-C", "w30", "37.7", "7.55"),
        _resnet(106, "64.9", "11.1"),
        _cls("HRNet-W40-C", "w40", "57.6", "11.8"),
        _resnet(50, "25.6", "3.82"),
        _cls("HRNet-W44-C, bottleneck units", "w44-c", "21.9", "3.90"),
        _resnet(101, "44.6", "7.30"),
        _cls("HRNet-W76-C, bottleneck units", "w76-c", "40.8", "7.30"),
        _resnet(152, "60.2", "10.7"),
        _cls("HRNet-W96-C, bottleneck units", "w96-c", "57.5", "10.2"),
    ),
)

TABLE16 = PrintedCosts(
    "Table 16: ImageNet, classification heads",
    (
        _cls("HRNet-W27-Ci", "w27", "21.4", "5.55", "cls_i"),
        _cls("HRNet-W25-Cii", "w25", "21.7", "5.04", "cls_ii"),
        _cls("HRNet-W18-C", "w18", "21.3", "3.99"),
        _cls("HRNet-W36-Ci", "w36", "37.5", "9.00", "cls_i"),
        _cls("HRNet-W34-Cii", "w34", "36.7", "8.29", "cls_ii"),
        _cls("HRNet-W30-C", "w30", "37.7", "7.55"),
        _cls("HRNet-W45-Ci", "w45", "58.2", "13.4", "cls_i"),
        _cls("HRNet-W43-Cii", "w43", "56.3", "12.5", "cls_ii"),
        _cls("HRNet-W40-C", "w40", "57.6", "11.8"),
    ),
)

TABLE17 = PrintedCosts(
    "Table 17: pose, cost and memory",
    (
        _simple_baseline(50, POSE, "34.0", "8.90", reasons=R50, training=_pose_memory("11.9")),
        _simple_baseline(101, POSE, "53.0", "12.4", training=_pose_memory("13.2")),
        _simple_baseline(152, POSE, "68.6", "15.7", training=_pose_memory("14.8")),
        replace(_pose("HRNetV1-W32", "w32", POSE, "28.5", "7.10"), training=_pose_memory("5.7")),
        replace(_pose("HRNetV1-W48", "w48", POSE, "63.6", "14.6"), training=_pose_memory("7.3")),
    ),
    f"{DECONVOLUTIONS} {MEMORY}",
)

TABLE18 = PrintedCosts(
    "Table 18: segmentation, cost and memory",
    (
        _cityscapes_rival(
            "Dilated-ResNet, D-ResNet-101",
            "dilated_resnet101",
            "52.1",
            "1661.6",
            training=_segmentation_memory("12.4"),
        ),
        _cityscapes_rival(
            "PSPNet, D-ResNet-101",
            "pspnet_resnet101",
            "65.9",
            "2017.6",
            reasons=PSPNET,
            training=_segmentation_memory("14.4"),
        ),
        _cityscapes_rival(
            "DeepLabv3, D-ResNet-101",
            "deeplabv3_resnet101",
            "58.0",
            "1778.7",
            training=_segmentation_memory("13.3"),
        ),
        _segmentation(
            "HRNetV2-W48",
            "w48",
            "65.9",
            "696.2",
            note=MEMORY_GAP,
            training=_segmentation_memory("13.9"),
        ),
    ),
    MEMORY,
)

TABLE19 = PrintedCosts(
    "Table 19: detection, cost and memory (Faster R-CNN)",
    tuple(
        _faster_rcnn(backbone, params, gflops, network=backbone, memory=memory)
        for backbone, params, gflops, memory in (
            (R50_FPN, "39.77", "172.34", "3.4"),
            (R101_FPN, "57.83", "239.37", "5.4"),
            (X101_FPN, "94.85", "381.83", "9.5"),
            (W18, "26.18", "159.06", "6.2"),
            (W32, "45.04", "245.33", "8.5"),
            (W48, "79.42", "399.12", "11.3"),
        )
    ),
    DETECTION_UNITS,
)

ZOO = PrintedCosts(
    "Model zoo of the official code: READMEs of HRNet-Image-Classification (-C) and "
    "HRNet-Semantic-Segmentation (V2)",
    (
        _cls("HRNet-W18-C-Small-v1", "w18-small-v1", "13.2", "1.49"),
        _cls("HRNet-W18-C-Small-v2", "w18-small-v2", "15.6", "2.42"),
        _cls("HRNet-W18-C", "w18", "21.3", "3.99"),
        _cls("HRNet-W30-C", "w30", "37.7", "7.55"),
        _cls("HRNet-W32-C", "w32", "41.2", "8.31"),
        _cls("HRNet-W40-C", "w40", "57.6", "11.8"),
        _cls("HRNet-W44-C, basic units", "w44", "67.1", "13.9"),
        _cls("HRNet-W48-C", "w48", "77.5", "16.1"),
        _cls("HRNet-W64-C", "w64", "128.1", "26.9"),
        _segmentation("HRNetV2-W18-Small-v1", "w18-small-v1", "1.5", "31.1"),
        _segmentation("HRNetV2-W18-Small-v2", "w18-small-v2", "3.9", "71.6"),
    ),
)

LANDMARKS_TABLE = PrintedCosts(
    "Appendix D: facial landmarks",
    (
        _landmarks("WFLW", 98),
        _landmarks("AFLW", 19),
        _landmarks("COFW", 29),
        _landmarks("300W", 68),
    ),
    "The paper prints one cost for all data sets.",
)

CVPR_FIGURE6 = PrintedCosts(
    "CVPR 2019, Fig. 6: input sizes",
    (
        *_plotted(
            "SimpleBaseline, ResNet-50",
            Baseline("simple_baseline_resnet50", 17),
            (
                ((128, 96), "2.2"),
                ((192, 128), "4.5"),
                ((256, 192), "9.0"),
                ((320, 224), "13.1"),
                ((352, 256), "16.5"),
                ((384, 288), "20.2"),
            ),
        ),
        *_plotted(
            "HRNet-W32",
            HRNet("w32", "pose", "v1", 17),
            (
                ((128, 96), "1.7"),
                ((192, 128), "3.5"),
                ((256, 192), "7.1"),
                ((320, 224), "10.3"),
                ((352, 256), "13.0"),
                ((384, 288), "16.0"),
            ),
        ),
    ),
    f"{PLOTTED} {DECONVOLUTIONS}",
)

MPII_SIZE = (256, 256)

CVPR_TABLE4 = PrintedCosts(
    "CVPR 2019, Table 4: MPII test, pose",
    (
        _printed("Insafutdinov et al.", None, "42.6", "41.2"),
        CostRow(
            "8-stage Hourglass (Newell et al.)", MPII_SIZE, "25.1", "19.1", note=HOURGLASS_MPII
        ),
        _printed("Yang et al.", None, "28.1", "21.3"),
        _printed("Tang et al.", None, "15.5", "15.6"),
        CostRow(
            "SimpleBaseline, ResNet-152",
            MPII_SIZE,
            "68.6",
            "20.9",
            Baseline("simple_baseline_resnet152", 16),
            reasons=SCALED_MPII,
        ),
        CostRow("HRNet-W32", MPII_SIZE, "28.5", "9.5", HRNet("w32", "pose", "v1", 16)),
    ),
    DECONVOLUTIONS,
)

COSTS: Mapping[str, PrintedCosts] = {
    "1": TABLE1,
    "2": TABLE2,
    "3": TABLE3,
    "4": TABLE4,
    "5": TABLE5,
    "6": TABLE6,
    "7": TABLE7,
    "12": TABLE12,
    "13": TABLE13,
    "15": TABLE15,
    "16": TABLE16,
    "17": TABLE17,
    "18": TABLE18,
    "19": TABLE19,
    "face": LANDMARKS_TABLE,
    "zoo": ZOO,
    "cvpr-fig6": CVPR_FIGURE6,
    "cvpr-table4": CVPR_TABLE4,
}
