"""Average precision of boxes and masks: pycocotools on the same file, closed forms, baselines."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_files import rectangle
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hrnet_search.settings import CocoDetection, SyntheticDetection
from hrnet_search.tasks import detection_data, synthetic_scenes
from hrnet_search.tasks.detection_metrics import average_precision, trivial_baseline

SIZE = (100, 120)
AREAS = (32**2, 96**2)


def runs_of(box: tuple[float, ...]) -> dict[str, Any]:
    """A full box as run lengths."""
    (runs,) = coco_mask.frPyObjects([rectangle(*box)], *SIZE)
    return {"size": list(SIZE), "counts": runs["counts"].decode()}


def thing(image: int, category: int, box: tuple[float, ...], **more: Any) -> dict[str, Any]:
    entry = {"image_id": image, "category_id": category, "bbox": list(box)}
    return {**entry, "segmentation": runs_of(box), **more}


def truth_of(*objects: dict[str, Any], categories: int = 2) -> dict[str, Any]:
    """Images 1 and 2, categories 1, 2, ..., and these objects."""
    annotations = []
    for number, entry in enumerate(objects, start=1):
        area = float(coco_mask.area(entry["segmentation"]))
        annotations.append({"id": number, "area": area, "iscrowd": 0, **entry})
    return {
        "info": {},
        "images": [{"id": n, "height": SIZE[0], "width": SIZE[1]} for n in (1, 2)],
        "annotations": annotations,
        "categories": [{"id": n, "name": f"c{n}"} for n in range(1, categories + 1)],
    }


TWO = (thing(1, 1, (10, 10, 20, 20)), thing(2, 2, (30, 30, 60, 50)))


def as_found(entry: dict[str, Any], score: float = 0.9, **more: Any) -> dict[str, Any]:
    kept = {key: entry[key] for key in ("image_id", "category_id", "bbox", "segmentation")}
    return {**kept, "score": score, **more}


def one(*names: Any) -> Any:
    """1 for each of these, but for rounding."""
    return pytest.approx(dict.fromkeys(names, 1.0))


# --- closed forms --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_what_is_found_exactly_has_precision_one_at_the_sizes_that_occur(kind: Any) -> None:
    found = average_precision([as_found(entry) for entry in TWO], truth_of(*TWO), AREAS, kind)
    # 20 x 20 is small, 60 x 50 medium; nothing is large.
    assert found.values == one("ap", "ap50", "ap75", "aps", "apm")
    assert found.by_class == one(1, 2)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_an_overlap_of_two_thirds_counts_at_four_of_ten_thresholds(kind: Any) -> None:
    # 20 x 20 moved by 4: 16 of 24 columns are common; thresholds 0.5, 0.55, 0.6, 0.65 are met.
    whole = thing(1, 1, (10, 10, 20, 20))
    moved = as_found(thing(1, 1, (14, 10, 20, 20)))
    values = average_precision([moved], truth_of(whole), AREAS, kind).values
    assert values == pytest.approx({"ap": 0.4, "ap50": 1.0, "ap75": 0.0, "aps": 0.4})


def test_boxes_and_masks_are_compared_each_with_their_own() -> None:
    whole = thing(1, 1, (10, 10, 20, 20))
    half = as_found(whole, segmentation=runs_of((10, 10, 20, 8)))
    assert average_precision([half], truth_of(whole), AREAS, "box").values["ap"] == pytest.approx(1)
    assert average_precision([half], truth_of(whole), AREAS, "mask").values["ap50"] == 0


def test_half_of_the_objects_found_is_a_recall_of_one_half() -> None:
    truth = truth_of(*TWO, thing(1, 2, (5, 60, 30, 30)))
    found = average_precision([as_found(entry) for entry in TWO], truth, AREAS)
    assert found.by_class == pytest.approx({1: 1.0, 2: 51 / 101})  # recalls 0, 0.01, ..., 0.5
    assert found.values["ap"] == pytest.approx((1 + 51 / 101) / 2)


def test_limits_of_sizes_are_those_given() -> None:
    found = average_precision([as_found(TWO[0])], truth_of(*TWO), (19**2, 30**2))
    assert found.values["apm"] == pytest.approx(1)  # 20 x 20
    assert found.values["apl"] == 0.0  # 60 x 50
    assert "aps" not in found.values


def test_crowds_are_neither_right_nor_wrong() -> None:
    crowd = thing(1, 1, (60, 10, 50, 50), iscrowd=1)
    inside = as_found(thing(1, 1, (70, 20, 10, 10)), 0.99)
    found = average_precision([inside, as_found(TWO[0])], truth_of(TWO[0], crowd), AREAS)
    assert found.values["ap"] == pytest.approx(1)
    wrong = average_precision([inside, as_found(TWO[0])], truth_of(TWO[0]), AREAS)
    assert wrong.values["ap"] == pytest.approx(0.5)


def test_classes_that_do_not_occur_are_left_out() -> None:
    found = average_precision([as_found(TWO[0])], truth_of(TWO[0], categories=3), AREAS)
    assert found.by_class == one(1)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_nothing_found_has_precision_zero(kind: Any) -> None:
    found = average_precision([], truth_of(*TWO), AREAS, kind)
    assert set(found.values.values()) == {0.0}
    assert found.by_class == {1: 0.0, 2: 0.0}


def test_results_and_truth_are_not_written_into() -> None:
    results, truth = [as_found(entry) for entry in TWO], truth_of(*TWO)
    before = json.dumps([results, truth])
    for kind in ("box", "mask"):
        average_precision(results, truth, AREAS, kind)  # type: ignore[arg-type]
    assert json.dumps([results, truth]) == before


# --- pycocotools on the same files ---------------------------------------------------------------


def jittered(truth: dict[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    """Results that are right more or less, some of another class, some twice."""
    rng, sizes = np.random.default_rng(seed), {i["id"]: i for i in truth["images"]}
    results = []
    categories = [category["id"] for category in truth["categories"]]
    for entry in truth["annotations"] * 2:
        image = sizes[entry["image_id"]]
        x, y, width, height = np.array(entry["bbox"]) + rng.normal(0, 0.08, 4) * entry["bbox"][2]
        box = [x, y, max(width, 1.0), max(height, 1.0)]
        runs = coco_mask.frPyObjects([rectangle(*box)], image["height"], image["width"])[0]
        wrong = rng.random() < 0.2
        results.append(
            {
                "image_id": entry["image_id"],
                "category_id": int(rng.choice(categories)) if wrong else entry["category_id"],
                "bbox": box,
                "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
                "score": float(rng.random()),
            }
        )
    return results


def theirs(truth: Path, results: list[Any], folder: Path, kind: str) -> list[float]:
    """The twelve figures of pycocotools on files, as its own demo takes them."""
    dropped = "bbox" if kind == "segm" else "segmentation"
    file = folder / f"{kind}.json"
    file.write_text(json.dumps([{k: v for k, v in r.items() if k != dropped} for r in results]))
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO(str(truth))
        evaluation = COCOeval(annotated, annotated.loadRes(str(file)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def test_real_images_have_the_figures_of_pycocotools(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    root = real_data("coco_mini")
    data = CocoDetection(kind="coco_detection", root=str(root), image_size=[320, 512])
    prepared = detection_data.prepare(data, True, lambda done, total: None)
    truth, areas = prepared.json("truth"), prepared.json("about")["areas"]
    results = jittered(truth)
    file = root / "annotations" / "instances_val2017.json"
    for kind, theirs_kind in (("box", "bbox"), ("mask", "segm")):
        ours = average_precision(results, truth, areas, kind)  # type: ignore[arg-type]
        expected = theirs(file, results, tmp_path, theirs_kind)[:6]
        assert 0.05 < expected[0] < 0.9
        names = ("ap", "ap50", "ap75", "aps", "apm", "apl")
        assert ours.values == dict(zip(names, expected, strict=True))
        assert np.mean(list(ours.by_class.values())) == pytest.approx(expected[0], rel=1e-9)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_the_truth_of_real_and_drawn_images_scores_one(
    real_data: Callable[[str], Path], kind: Any
) -> None:
    coco = {"kind": "coco_detection", "image_size": [320, 512]}
    scenes = {"kind": "synthetic_detection", "image_size": [96, 128]}
    for prepared in (
        detection_data.prepare(
            CocoDetection(**coco, root=str(real_data("coco_mini"))), True, lambda *_: None
        ),
        synthetic_scenes.prepare(
            SyntheticDetection(**scenes, num_train=1, num_val=40), lambda *_: None
        ),
    ):
        truth, areas = prepared.json("truth"), prepared.json("about")["areas"]
        results = [as_found(entry) for entry in truth["annotations"] if not entry["iscrowd"]]
        found = average_precision(results, truth, areas, kind)
        assert found.values == one("ap", "ap50", "ap75", "aps", "apm", "apl")


# --- the trivial baseline ------------------------------------------------------------------------


def test_the_trivial_baseline_is_the_mean_box_of_the_most_frequent_class() -> None:
    truth = truth_of(
        thing(1, 1, (0, 0, 90, 90)),
        thing(1, 2, (10, 10, 20, 10)),
        thing(2, 2, (50, 50, 40, 20)),
        thing(1, 1, (5, 5, 3, 3), iscrowd=1),
    )
    results = trivial_baseline(truth)
    assert len(results) == 2 * 100
    assert {result["category_id"] for result in results} == {2}
    assert results[0]["bbox"] == [6 - 15, 5 - 7.5, 30, 15]
    assert results[99]["bbox"] == [114 - 15, 95 - 7.5, 30, 15]


def test_the_trivial_baseline_finds_next_to_nothing_of_the_scenes() -> None:
    data = SyntheticDetection(
        kind="synthetic_detection", num_train=1, num_val=60, image_size=[96, 128]
    )
    prepared = synthetic_scenes.prepare(data, lambda done, total: None)
    truth, areas = prepared.json("truth"), prepared.json("about")["areas"]
    assert average_precision(trivial_baseline(truth), truth, areas).values["ap"] < 0.002
