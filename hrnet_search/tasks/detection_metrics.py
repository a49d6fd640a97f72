"""Metrics of objects found in images: COCO's average precision of boxes and of masks."""

import contextlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# Places of the metrics in `COCOeval.stats`.
STATS = {"ap": 0, "ap50": 1, "ap75": 2, "aps": 3, "apm": 4, "apl": 5}
IOU_TYPES = {"box": "bbox", "mask": "segm"}  # `COCOeval`'s names
LARGEST = 1e10  # square pixels, `COCOeval`'s own end of the large objects
GRID = 10  # boxes of the trivial baseline along each side

Kind = Literal["box", "mask"]


@dataclass(frozen=True)
class Precision:
    """What came out, fractions.

    Args:
        values: By the keys of `STATS`, without sizes that no object of the truth has.
        by_class: Average precision by number of the category, without those that do not occur.
    """

    values: Mapping[str, float]
    by_class: Mapping[int, float]


def average_precision(
    results: Sequence[Mapping[str, Any]],
    truth: Mapping[str, Any],
    areas: Sequence[float],
    kind: Kind = "box",
) -> Precision:
    """COCO's average precision by pycocotools, of the 100 best objects of each image.

    Args:
        results: In COCO's results format.
        truth: In COCO's annotation format.
        areas: Square pixels: largest of the small objects, and of the medium ones.
        kind: Which of an object's two outlines is compared.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        annotated = _loaded(truth)
        evaluation = COCOeval(annotated, _found(annotated, results, kind), IOU_TYPES[kind])
        evaluation.params.areaRng = [list(limits) for limits in size_limits(areas).values()]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = {name: float(evaluation.stats[place]) for name, place in STATS.items()}
    return Precision(
        {name: value for name, value in values.items() if value >= 0}, _by_class(evaluation)
    )


def size_limits(areas: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Least and largest area of the objects that a metric is of, square pixels, all sizes first.

    Args:
        areas: As in `average_precision`.
    """
    small, medium = areas
    limits = {"aps": (0.0, small), "apm": (small, medium), "apl": (medium, LARGEST)}
    return {"ap": (0.0, LARGEST), **limits}


def _found(annotated: COCO, results: Sequence[Mapping[str, Any]], kind: Kind) -> COCO:
    """The results as pycocotools wants them: copies, as it writes into them."""
    if not results:  # it would ask for the first one
        return _loaded({**annotated.dataset, "annotations": []})
    # Of results that have a box too, it would take the box's area for the mask's.
    dropped = "segmentation" if kind == "box" else "bbox"
    copies = [{k: v for k, v in result.items() if k != dropped} for result in results]
    return annotated.loadRes(copies)


def _loaded(truth: Mapping[str, Any]) -> COCO:
    loaded = COCO()
    loaded.dataset = {**truth, "annotations": [dict(entry) for entry in truth["annotations"]]}
    loaded.createIndex()
    return loaded


def _by_class(evaluation: COCOeval) -> dict[int, float]:
    """Mean over thresholds and recalls, of all sizes and most detections, as `summarize` does."""
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # thresholds, recalls, classes
    means = precision.reshape(-1, precision.shape[2]).mean(0)
    numbers = map(int, evaluation.params.catIds)
    # A class is -1 throughout if nothing of it can be found.
    return {n: float(mean) for n, mean in zip(numbers, means, strict=True) if mean >= 0}


def trivial_baseline(truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Results that need no look at an image: the mean box of the most frequent class everywhere.

    A grid of `GRID` x `GRID` of them over each image, all with one score: as many as COCO's
    evaluation looks at.

    Args:
        truth: In COCO's annotation format.
    """
    things = [entry for entry in truth["annotations"] if not entry["iscrowd"]]
    ((category, _),) = Counter(entry["category_id"] for entry in things).most_common(1)
    boxes = np.array([e["bbox"] for e in things if e["category_id"] == category])
    width, height = boxes[:, 2:].mean(0).tolist()
    places = (np.arange(GRID) + 0.5) / GRID
    return [
        {
            "image_id": image["id"],
            "category_id": category,
            "bbox": [
                *(x * image["width"] - width / 2, y * image["height"] - height / 2),
                *(width, height),
            ],
            "score": 1.0,
        }
        for image in truth["images"]
        for y in places.tolist()
        for x in places.tolist()
    ]
