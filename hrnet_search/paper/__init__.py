"""Figures of the paper that studies are set beside, with their place in it.

Source: Wang et al., arXiv 1908.07919v2 (13 March 2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One row: the arguments of `hrnet` that make it, and its printed figures."""

    label: str
    arguments: Mapping[str, Any]
    values: Mapping[str, float]


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
            if all(arguments.get(name) == value for name, value in row.arguments.items()):
                return row
        return None


def _fusion(label: str, across: bool, within: bool, pose_ap: float, seg_miou: float) -> Row:
    arguments = {"final": True, "across": across, "within": within}
    return Row(label, arguments, {"pose_ap": pose_ap, "segmentation_miou": seg_miou})


TABLES: Mapping[str, Table] = {
    # Which units each row keeps follows from the counts 1, 3, 8 that the text gives (section 7).
    "table12": Table(
        title="Table 12: where fusion units are needed",
        columns={
            "pose_ap": ("metrics.ap", "HRNetV1-W32, COCO val2017, 256x192, from scratch"),
            "segmentation_miou": ("metrics.miou", "HRNetV2-W48, Cityscapes val, from scratch"),
        },
        rows=(
            _fusion("(a) final", False, False, 0.708, 0.748),
            _fusion("(b) final + across", True, False, 0.719, 0.754),
            _fusion("(c) final + across + within", True, True, 0.734, 0.764),
        ),
    ),
}
