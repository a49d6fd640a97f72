"""Sets of keypoints: names, skeleton, mirrored pairs and OKS spreads of COCO and MPII."""

import itertools
from dataclasses import dataclass


@dataclass(frozen=True)
class JointSet:
    """The joints that one data set labels.

    Args:
        names: In the order of the annotations.
        skeleton: Pairs of names to join by a line in drawings.
        flip_pairs: (left, right) names that change places in a mirrored image.
        sigmas: Spread of each joint for OKS, as COCO defines it; empty where OKS is not used.
        upper_body: Joints of the upper half, for half-body augmentation; empty for none.
        normalise_by: Two joints whose distance errors are divided by for NME; empty for none.
    """

    names: tuple[str, ...]
    skeleton: tuple[tuple[str, str], ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] = ()
    sigmas: tuple[float, ...] = ()
    upper_body: tuple[str, ...] = ()
    normalise_by: tuple[str, ...] = ()

    def index(self, pairs: tuple[tuple[str, str], ...]) -> list[tuple[int, int]]:
        """Pairs of names as pairs of places."""
        return [(self.names.index(a), self.names.index(b)) for a, b in pairs]


def _both_sides(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"left_{name}", f"right_{name}") for name in names)


def _chains(*chains: str) -> tuple[tuple[str, str], ...]:
    rows = [chain.split() for chain in chains]
    return tuple(pair for row in rows for pair in itertools.pairwise(row))


# Names, order and skeleton as in COCO's annotation files; sigmas are pycocotools' own
# (`Params.setKpParams`); the halves are the official code's (`lib/dataset/coco.py`).
COCO = JointSet(
    names=(
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
        *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
        *("left_wrist", "right_wrist", "left_hip", "right_hip"),
        *("left_knee", "right_knee", "left_ankle", "right_ankle"),
    ),
    skeleton=_chains(
        "left_ankle left_knee left_hip",
        "right_ankle right_knee right_hip",
        "left_hip right_hip",
        "left_shoulder left_hip",
        "right_shoulder right_hip",
        "left_shoulder right_shoulder",
        "left_shoulder left_elbow",
        "right_shoulder right_elbow",
        "left_elbow left_wrist",
        "right_elbow right_wrist",
        "left_eye right_eye",
        "nose left_eye",
        "nose right_eye",
        "left_eye left_ear",
        "right_eye right_ear",
        "left_ear left_shoulder",
        "right_ear right_shoulder",
    ),
    flip_pairs=_both_sides("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
    sigmas=(
        *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
        *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
    ),
    upper_body=(
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder"),
        *("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    ),
)

# Order of the official code's annotation files (`lib/dataset/mpii.py`).
MPII = JointSet(
    names=(
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("pelvis", "thorax", "upper_neck", "head_top", "right_wrist", "right_elbow"),
        *("right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    ),
    skeleton=_chains(
        "right_ankle right_knee right_hip pelvis left_hip left_knee left_ankle",
        "pelvis thorax upper_neck head_top",
        "right_wrist right_elbow right_shoulder thorax left_shoulder left_elbow left_wrist",
    ),
    flip_pairs=_both_sides("ankle", "knee", "hip", "wrist", "elbow", "shoulder"),
    upper_body=(
        *("thorax", "upper_neck", "head_top", "right_wrist", "right_elbow"),
        *("right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    ),
)
