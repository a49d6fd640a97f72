"""Sets of classes of segmentation data: names, label numbers, mirrored pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IGNORED = 255


@dataclass(frozen=True)
class LabelSet:
    """The classes of one data set.

    Args:
        class_names: Names of classes 0, 1, ...
        label_map: Class, or `IGNORED`, of value 0, 1, ... of the label images; empty: as is.
        flip_pairs: Names of classes that change places in a mirrored image.
        ignore_label: Value of label images that is left out of all.
    """

    class_names: tuple[str, ...]
    label_map: tuple[int, ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] = ()
    ignore_label: int = IGNORED

    def to_settings(self) -> dict[str, Any]:
        """The keys of a study's `data` that this stands for."""
        return {
            "class_names": list(self.class_names),
            "label_map": list(self.label_map),
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            "ignore_label": self.ignore_label,
        }


CAMVID = LabelSet(
    class_names=(
        *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
        *("pedestrian", "cyclist"),
    ),
    ignore_label=11,
)

LABEL_SETS: Mapping[str, LabelSet] = {"camvid": CAMVID}
