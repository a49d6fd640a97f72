"""Metrics of joints found in whole images: COCO's AP over OKS, MPII's PCKh, landmarks' NME.

Shapes: N people, K joints; found joints are (N, K, 3): x, y in pixels of the image, score.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..joints import MPII

NOT_IN_PCKH = ("pelvis", "thorax")  # left out of the mean (official `lib/dataset/mpii.py`)
# Places of the metrics in `COCOeval.stats` for keypoints.
STATS = {"ap": 0, "ap50": 1, "ap75": 2, "apm": 3, "apl": 4, "ar": 5}
# Least and largest area of the people that they are of, square pixels (`Params.setKpParams`).
ALL_SIZES = (0, 1e10)
SIZES = {"apm": (32**2, 96**2), "apl": (96**2, 1e10)}


def person_scores(joints: np.ndarray, boxes: np.ndarray, *, least: float) -> np.ndarray:
    """(N,): the score of a person's box times the mean score of its joints (section 4).

    Args:
        joints: (N, K, 3): x, y, score.
        boxes: (N,): scores of the boxes.
        least: Joints of no higher score do not count; nobody's joints: the person's score is 0.
    """
    means = [
        scores[scores > least].mean() if (scores > least).any() else 0.0
        for scores in joints[..., 2]
    ]
    return boxes * np.array(means, dtype=np.float64)


def oks(one: np.ndarray, others: np.ndarray, areas: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """(N,): object keypoint similarity of a person (K, 2) and others (N, K, 2), all joints.

    Args:
        one: x, y of one person's joints.
        others: x, y of the others'.
        areas: (N,): what distances are measured by, square pixels.
        sigmas: (K,): spread of each joint as COCO defines it.
    """
    squares = ((others - one) ** 2).sum(-1)
    similar = np.exp(-squares / (2 * (areas[:, None] + np.spacing(1)) * (2 * sigmas) ** 2))
    return np.asarray(similar.mean(-1))


def oks_nms(
    joints: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    sigmas: Sequence[float],
    *,
    limit: float,
) -> list[int]:
    """Which people of one image to keep, best first: none too much like a better one.

    Official `oks_nms` (`lib/nms/nms.py`).

    Args:
        joints: (N, K, 2 or more): x, y.
        scores: (N,).
        areas: (N,): of the crops' extents, square pixels; two people are compared by the mean.
        sigmas: K spreads.
        limit: Of two whose OKS is above this the better is kept.
    """
    places, spreads = joints[..., :2].astype(np.float64), np.asarray(sigmas)
    kept, left = [], np.argsort(-scores, kind="stable")
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        between = (areas[best] + areas[left]) / 2
        left = left[oks(places[best], places[left], between, spreads) <= limit]
    return kept


def keypoint_ap(
    results: Sequence[Mapping[str, Any]], truth: Mapping[str, Any], sigmas: Sequence[float]
) -> dict[str, float]:
    """COCO's AP and AR by pycocotools, fractions; sizes that no person of the truth has left out.

    Args:
        results: In COCO's results format.
        truth: In COCO's annotation format.
        sigmas: Spread of each joint.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        annotated = COCO()
        annotated.dataset = dict(truth)
        annotated.createIndex()
        # It writes into the results, so it is given a copy of each.
        found = annotated.loadRes([dict(result) for result in results])
        evaluation = COCOeval(annotated, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = {name: float(evaluation.stats[place]) for name, place in STATS.items()}
    return {name: value for name, value in values.items() if value >= 0}


def pckh(found: np.ndarray, joints: np.ndarray, heads: np.ndarray) -> tuple[dict[str, float], Any]:
    """MPII's PCKh at 0.5 and 0.1 of the head's size, and at 0.5 by joint; fractions.

    The mean is over all labelled joints but pelvis and thorax, as the official code's
    (`lib/dataset/mpii.py`), whose "Mean@0.1" however is at 0.11.

    Args:
        found: (N, 16, 2 or more): x, y.
        joints: (N, 16, 3): x, y, whether labelled.
        heads: (N,): sizes of the heads in pixels.
    """
    distances = np.linalg.norm(found[..., :2] - joints[..., :2], axis=-1) / heads[:, None]
    labelled = joints[..., 2] > 0
    counted = labelled & [name not in NOT_IN_PCKH for name in MPII.names]
    means = {
        name: float((distances <= limit)[counted].mean())
        for name, limit in (("pckh", 0.5), ("pckh01", 0.1))
    }
    by_joint = {
        name: float((distances[:, place] <= 0.5)[labelled[:, place]].mean())
        for place, name in enumerate(MPII.names)
        if labelled[:, place].any()
    }
    return means, by_joint


def nme(found: np.ndarray, joints: np.ndarray, pair: tuple[int, int]) -> float:
    """Normalised mean error, a fraction: mean over people of the mean over labelled joints.

    Args:
        found: (N, K, 2 or more): x, y.
        joints: (N, K, 3): x, y, whether labelled.
        pair: Places of the two joints whose distance errors are divided by. People of whom they
            are not both labelled, apart from each other, are left out.
    """
    first, second = (joints[:, place] for place in pair)
    unit = np.linalg.norm(first[:, :2] - second[:, :2], axis=-1)
    known = (first[:, 2] > 0) & (second[:, 2] > 0) & (unit > 0)
    labelled = joints[known, :, 2] > 0
    errors = np.linalg.norm(found[known, :, :2] - joints[known, :, :2], axis=-1)
    means = (errors * labelled).sum(1) / labelled.sum(1)
    return float((means / unit[known]).mean())
