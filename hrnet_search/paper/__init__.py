"""Figures of the paper that studies are set beside, with their place in it.

Source: Wang et al., arXiv 1908.07919v2 (13 March 2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One row: the arguments of `hrnet` that make it, and its printed figures.

    Args:
        label: What was changed; a bound that the paper gives in place of a figure.
        arguments: Argument -> value; of lists by stage, a tuple with stages 2, 3, 4 of the paper.
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
}
