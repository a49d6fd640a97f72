"""Figures of the paper that studies are set beside, with their place in it.

Source: Wang et al., arXiv 1908.07919v2 (13 March 2020); but for `cvpr_figure6`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One row: what makes it, and its printed figures.

    Args:
        label: What was changed; a bound that the paper gives in place of a figure.
        arguments: Argument of `hrnet` -> value, of lists by stage a tuple with stages 2, 3, 4 of
            the paper; and what is around the network: `head`, `input_size` (H, W), or `rival`, the
            name of another network in its place.
        values: Column -> fraction, for the columns that the paper has a figure in.
    """

    label: str
    arguments: Mapping[str, Any]
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """One table: where it stands, what its columns mean, its rows.

    Args:
        title: What and where, for headings.
        columns: Column -> (metric key, what was trained), metric values as fractions.
        rows: In the paper's order.
    """

    title: str
    columns: Mapping[str, tuple[str, str]]
    rows: tuple[Row, ...]

    def row(self, arguments: Mapping[str, Any]) -> Row | None:
        """The first row whose every argument has this value, if there is one."""
        for row in self.rows:
            if all(_is(arguments.get(name), value) for name, value in row.arguments.items()):
                return row
        return None


def _is(given: Any, wanted: Any) -> bool:
    """Does an argument mean this? One number stands for all stages, surplus stages for none."""
    if not isinstance(wanted, tuple):
        return bool(given == wanted)
    stages = given if isinstance(given, (list, tuple)) else (given,) * len(wanted)
    return tuple(stages[: len(wanted)]) == wanted


def _both(pose_ap: float, segmentation_miou: float) -> Mapping[str, float]:
    return {"pose_ap": pose_ap, "segmentation_miou": segmentation_miou}


def _fusion(label: str, across: bool, within: bool, values: Mapping[str, float]) -> Row:
    return Row(label, {"final": True, "across": across, "within": within}, values)


def _sized(network: str, rival: str | None, figures: Mapping[tuple[int, int], float]) -> list[Row]:
    """A network at several input sizes."""
    return [
        Row(
            f"{network}, {height}x{width}",
            {"rival": rival, "input_size": (height, width)},
            {"pose_ap": value},
        )
        for (height, width), value in figures.items()
    ]


def _operator(label: str, downsample: str, fuse: str, values: Mapping[str, float]) -> Row:
    return Row(label, {"downsample": downsample, "fuse": fuse}, values)


SCRATCH: Mapping[str, tuple[str, str]] = {
    "pose_ap": ("metrics.ap", "HRNetV1-W32, COCO val2017, 256x192, from scratch"),
    "segmentation_miou": ("metrics.miou", "HRNetV2-W48, Cityscapes val, from scratch"),
}
PRETRAINED = "COCO val2017, 256x192, from ImageNet weights"

TABLES: Mapping[str, Table] = {
    # Which units each row keeps follows from the counts 1, 3, 8 that the text gives (section 7).
    "table12": Table(
        title="Table 12: where fusion units are needed",
        columns=SCRATCH,
        rows=(
            _fusion("(a) final", False, False, _both(0.708, 0.748)),
            _fusion("(b) final + across", True, False, _both(0.719, 0.754)),
            _fusion("(c) final + across + within", True, True, _both(0.734, 0.764)),
        ),
    ),
    # That these were trained from scratch is not said; the figures they are set beside were.
    "fusion_operator": Table(
        title="Section 7, text: how fusion units reduce and join maps",
        columns=SCRATCH,
        rows=(
            _operator("bilinear downsampling", "bilinear", "sum", _both(0.726, 0.742)),
            _operator("multiplication", "strided_conv", "multiply", _both(0.547, 0.660)),
            _operator("strided convolution and sum", "strided_conv", "sum", _both(0.734, 0.764)),
        ),
    ),
    # The second one's cost is said to be similar; its widths are not given (section 7).
    "resolution": Table(
        title="Section 7, text: when the lower resolutions start",
        columns=SCRATCH,
        rows=(
            Row('high resolution alone ("much lower")', {"num_branches": (1, 1, 1)}),
            Row("four from the beginning", {"num_branches": (4, 4, 4)}, _both(0.725, 0.757)),
            Row("one more in each stage", {"num_branches": (2, 3, 4)}, _both(0.734, 0.764)),
        ),
    ),
    # Whether the four outputs were trained together is not said.
    "figure9": Table(
        title="Fig. 9: joints from the maps of each resolution",
        columns={
            "pose_ap": ("metrics.ap", f"HRNetV1-W32, {PRETRAINED}"),
            "pose_w48_ap": ("metrics.ap", f"HRNetV1-W48, {PRETRAINED}"),
        },
        rows=(
            Row("1x", {"output_branch": 0}, {"pose_ap": 0.744, "pose_w48_ap": 0.751}),
            Row("2x", {"output_branch": 1}, {"pose_ap": 0.689, "pose_w48_ap": 0.696}),
            Row("4x", {"output_branch": 2}, {"pose_ap": 0.550, "pose_w48_ap": 0.554}),
            Row("8x (below 10 AP)", {"output_branch": 3}),
        ),
    ),
    # Read from the lines of the figure, which prints no figures; those of pose are the text's. What
    # segmentation started from is not said: W48 with V2 is at the figures of Tables 3 and 5, from
    # ImageNet.
    "figure10": Table(
        title="Fig. 10: representation heads",
        columns={
            "cityscapes_w18_miou": ("metrics.miou", "HRNet-W18, Cityscapes val"),
            "cityscapes_w48_miou": ("metrics.miou", "HRNet-W48, Cityscapes val"),
            "pascal_context_w18_miou": ("metrics.miou", "HRNet-W18, PASCAL-Context"),
            "pascal_context_w48_miou": ("metrics.miou", "HRNet-W48, PASCAL-Context"),
            "pose_ap": ("metrics.ap", "HRNet-W32, COCO val2017, 256x192, from scratch"),
        },
        rows=(
            Row(
                "HRNetV1",
                {"head": "v1"},
                {
                    "cityscapes_w18_miou": 0.785,
                    "cityscapes_w48_miou": 0.810,
                    "pascal_context_w18_miou": 0.472,
                    "pascal_context_w48_miou": 0.526,
                    "pose_ap": 0.734,
                },
            ),
            Row(
                "HRNetV1h",
                {"head": "v1h"},
                {
                    "cityscapes_w18_miou": 0.791,
                    "cityscapes_w48_miou": 0.810,
                    "pascal_context_w18_miou": 0.474,
                    "pascal_context_w48_miou": 0.529,
                },
            ),
            Row(
                "HRNetV2",
                {"head": "v2"},
                {
                    "cityscapes_w18_miou": 0.795,
                    "cityscapes_w48_miou": 0.811,
                    "pascal_context_w18_miou": 0.495,
                    "pascal_context_w48_miou": 0.540,
                    "pose_ap": 0.736,
                },
            ),
        ),
    ),
    # Fig. 10b, read from its lines; those of V2p are Table 8's Faster R-CNN.
    "figure10_detection": Table(
        title="Fig. 10: representation heads of detectors",
        columns={
            f"{width}_{schedule}x_box_ap": (
                "metrics.box_ap",
                f"HRNet-{width.upper()}, Faster R-CNN, COCO val2017, {schedule}x schedule",
            )
            for width in ("w18", "w32")
            for schedule in (1, 2)
        },
        rows=tuple(
            Row(
                label,
                {"head": head},
                {
                    "w18_1x_box_ap": figures[0],
                    "w18_2x_box_ap": figures[1],
                    "w32_1x_box_ap": figures[2],
                    "w32_2x_box_ap": figures[3],
                },
            )
            for label, head, figures in (
                ("HRNetV1", "v1p", (0.320, 0.344, 0.372, 0.389)),
                ("HRNetV1h", "v1hp", (0.336, 0.363, 0.382, 0.401)),
                ("HRNetV2p", "v2p", (0.362, 0.380, 0.396, 0.409)),
            )
        ),
    ),
    # Sun et al., CVPR 2019 (arXiv 1902.09212), Fig. 6, read from its lines. At 256x192 and 384x288
    # it is at the figures that Table 1 has from ImageNet weights.
    "cvpr_figure6": Table(
        title="CVPR 2019, Fig. 6: input sizes",
        columns={
            "pose_ap": (
                "metrics.ap",
                "HRNet-W32 and SimpleBaseline-ResNet-50, COCO val2017, from ImageNet weights",
            )
        },
        rows=(
            *_sized(
                "HRNet-W32",
                None,
                {
                    (128, 96): 0.655,
                    (192, 128): 0.709,
                    (256, 192): 0.744,
                    (320, 224): 0.744,
                    (352, 256): 0.746,
                    (384, 288): 0.758,
                },
            ),
            *_sized(
                "SimpleBaseline-ResNet-50",
                "simple_baseline_resnet50",
                {
                    (128, 96): 0.592,
                    (192, 128): 0.667,
                    (256, 192): 0.704,
                    (320, 224): 0.717,
                    (352, 256): 0.718,
                    (384, 288): 0.722,
                },
            ),
        ),
    ),
}
