"""The detection task: what batches show, and what becomes of what is found."""

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detection_files import HEIGHT, WIDTH, coco_content, coco_object, coco_set, voc_set
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny import TINY_POSE_STUDY
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from hrnet_search import tasks
from hrnet_search.errors import InputError
from hrnet_search.labels import SYNTHETIC_CLASSES
from hrnet_search.objects import own_boxes
from hrnet_search.settings import CocoDetection, DetectionTask, Objects
from hrnet_search.study import Study, load_study
from hrnet_search.tasks import detection as detection_module
from hrnet_search.tasks import detection_data
from hrnet_search.tasks.base import MEAN, STD
from hrnet_search.tasks.detection import Detection, pasted, resized
from hrnet_search.tasks.images import Images
from hrnet_search.views import fitted_size, padded_size


def detection(data: Any, *, framework: str = "mask_rcnn", **more: Any) -> Detection:
    """The task on such data, prepared."""
    settings = {"kind": "detection", "framework": framework, "augmentation": more}
    task = DetectionTask.model_validate(settings)
    masks = framework == "mask_rcnn"
    return Detection(task, data, detection_data.prepare(data, masks, lambda done, total: None))


def one_image(**more: Any) -> dict[str, Any]:
    """The content of a file with the first image alone."""
    content = coco_content()
    return {
        **content,
        "images": content["images"][:1],
        "annotations": content["annotations"][:2],
        **more,
    }


def scenes_study(**more: Any) -> Study:
    """Drawn objects, of which nothing is trained."""
    return Study.model_validate(
        {
            "name": "scenes",
            "task": {"kind": "detection", "framework": "mask_rcnn"},
            "data": {
                "kind": "synthetic_detection",
                "num_train": 12,
                "num_val": 6,
                "image_size": [72, 100],
            },
            "space": TINY_POSE_STUDY["space"],
            "train": {"steps": 1, "batch_size": 2, "lr": 1e-3, "evaluations": 1},
            **more,
        }
    )


def drawn(**more: Any) -> Detection:
    study = scenes_study(**more)
    task = tasks.load_task(study, tasks.prepare(study, lambda done, total: None))
    assert isinstance(task, Detection)
    return task


def extent(mask: Tensor) -> list[float]:
    """x1, y1, x2, y2 of a mask (H, W)."""
    rows, columns = torch.nonzero(mask.any(1)), torch.nonzero(mask.any(0))
    return [*(int(v.min()) for v in (columns, rows)), *(int(v.max()) + 1 for v in (columns, rows))]


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [  # by hand, from mmdetection's rule for (1333, 800)
        ((480, 640), (800, 1067)),  # 1066.67
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),  # 1199.06
        ((300, 900), (444, 1333)),  # the long edge is met first: 444.33
        ((800, 1333), (800, 1333)),
        ((1600, 1600), (800, 800)),
        ((1, 5000), (1, 1333)),  # never less than a pixel
    ],
)
def test_images_are_scaled_until_an_edge_is_met(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitted_size(size, 800, 1333) == expected


def test_sides_are_padded_to_multiples() -> None:
    assert padded_size((800, 1199), 32) == (800, 1216)
    assert padded_size((1, 33), 32) == (32, 64)


# --- batches -------------------------------------------------------------------------------------


def test_a_batch_by_hand(tmp_path: Path) -> None:
    """60 x 80 becomes 120 x 160, padded to 128 x 160."""
    task = detection(coco_set(tmp_path, one_image(), image_size=[120, 200]), flip=0)
    (images, sizes, boxes, labels, masks), target = task.batch(0, size=2, seed=0)
    assert target == ()
    assert images.shape == (2, 3, 128, 160)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert not images[:, :, 120:].any()  # padding is 0 where images are normalised
    assert images[:, :, :120].std() > 0.5
    assert sizes.tolist() == [[120, 160]] * 2
    expected = [[20, 40, 80, 72], [96, 8, 136, 88]]
    assert boxes.tolist() == [expected] * 2
    assert labels.tolist() == [[1, 2]] * 2
    assert masks.shape == (2, 2, 128, 160)
    assert masks.dtype == torch.uint8
    for mask, box in zip(masks[0], expected, strict=True):
        assert extent(mask) == box
        assert mask.sum() == (box[2] - box[0]) * (box[3] - box[1])  # all of it


def test_a_mirrored_batch_by_hand(tmp_path: Path) -> None:
    data = coco_set(tmp_path, one_image(), image_size=[120, 200])
    plain, _ = detection(data, flip=0).batch(0, size=2, seed=0)
    (images, _, boxes, labels, masks), _ = detection(data, flip=1).batch(0, size=2, seed=0)
    # x becomes 160 - x, of an image that is 160 wide.
    expected = [[80, 40, 140, 72], [24, 8, 64, 88]]
    assert boxes.tolist() == [expected] * 2
    assert labels.tolist() == [[1, 2]] * 2
    assert torch.equal(images, plain[0].flip(3))
    assert [extent(mask) for mask in masks[0]] == expected


def test_mirrored_images_are_padded_on_the_same_side(tmp_path: Path) -> None:
    data = coco_set(tmp_path, one_image(), image_size=[70, 93])  # 70 x 93: scale 1.1625
    (images, sizes, boxes, _, masks), _ = detection(data, flip=1).batch(0, size=2, seed=0)
    assert sizes[0].tolist() == [70, 93]
    assert images.shape[-2:] == (96, 96)
    assert not images[..., 93:].any()
    assert not masks[..., 93:].any()
    scale = 93 / 80
    wanted = [93 - 40 * scale, 20 * 70 / 60, 93 - 10 * scale, 36 * 70 / 60]
    assert boxes[0, 0].tolist() == pytest.approx(wanted, rel=1e-5)
    assert extent(masks[0, 0]) == pytest.approx(wanted, abs=0.6)  # pixels, by their centres


def test_an_image_of_its_own_size_is_shown_as_it_is(tmp_path: Path) -> None:
    task = detection(coco_set(tmp_path, one_image(), image_size=[60, 80]), flip=0)
    (images, *_), _ = task.batch(0, size=2, seed=0)
    pixels = torch.from_numpy(np.array(Images(task.prepared, "train")[0])).float()
    assert torch.equal(images[0, :, :60, :80], ((pixels - MEAN) / STD).permute(2, 0, 1))


def test_lying_and_upright_images_share_a_size(tmp_path: Path) -> None:
    task = detection(coco_set(tmp_path, image_size=[60, 80]), framework="faster_rcnn", flip=0)
    (images, sizes, boxes, labels), _ = task.batch(0, size=2, seed=0)
    assert images.shape == (2, 3, 96, 96)
    order = sizes.tolist().index([HEIGHT, WIDTH])
    assert sizes[1 - order].tolist() == [WIDTH, HEIGHT]
    assert labels[order].tolist() == [1, 2]
    assert labels[1 - order].tolist() == [2, 0]
    assert boxes[1 - order].tolist() == [[8, 30, 32, 60], [0, 0, 0, 0]]


def test_images_without_objects_have_a_row_that_is_none(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] = content["annotations"][:1]
    task = detection(coco_set(tmp_path, content, use_empty=True), flip=0)
    for step in range(4):
        (_, _, boxes, labels, masks), _ = task.batch(step, size=1, seed=0)
        assert boxes.shape == (1, 1, 4)
        assert masks.shape[:2] == (1, 1)
        assert bool(labels.any()) == bool(boxes.any()) == bool(masks.any())


def test_short_edges_are_drawn_within_their_range(tmp_path: Path) -> None:
    data = coco_set(tmp_path, one_image(), image_size=[64, 120])
    task = detection(data, framework="faster_rcnn", short_edges=[64, 96])
    seen = set()
    for step in range(8):
        (images, sizes, boxes, _), _ = task.batch(step, size=8, seed=0)
        assert images.shape[-2:] == padded_size(tuple(sizes.amax(0).tolist()), 32)
        for (height, width), (x1, y1, x2, y2) in zip(
            sizes.tolist(), boxes[:, 0].tolist(), strict=True
        ):
            assert (y1, y2) == pytest.approx((20 * height / 60, 36 * height / 60))
            assert x2 - x1 == pytest.approx(30 * width / 80, rel=1e-5)
            seen.add((height, width))
    heights = {height for height, _ in seen}
    assert min(heights) < 70
    assert max(heights) == 90  # 120 is the longest edge
    assert len(heights) > 15
    assert {width for _, width in seen} <= set(range(85, 121))


def test_batches_follow_from_step_and_seed_alone() -> None:
    task = drawn()
    first, again = (task.batch(3, size=4, seed=1)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (task.batch(4, size=4, seed=1)[0], task.batch(3, size=4, seed=2)[0]):
        assert not torch.equal(other[0], first[0])


def test_parts_of_a_batch_are_the_whole(tmp_path: Path) -> None:
    data = coco_set(tmp_path)
    task = detection(data, short_edges=[64, 96])
    for step in range(3):
        whole, _ = task.batch(step, size=6, seed=0)
        for rank in range(3):
            part, _ = task.batch(step, size=6, seed=0, part=(rank, 3))
            images, sizes, boxes, labels, masks = part
            rows = labels.shape[1]
            assert torch.equal(images, whole[0][rank::3])  # of the whole batch's padded size
            assert torch.equal(sizes, whole[1][rank::3])
            for ours, theirs in ((boxes, whole[2]), (labels, whole[3]), (masks, whole[4])):
                assert torch.equal(ours, theirs[rank::3, :rows])
            assert not whole[3][rank::3, rows:].any()  # what is left out is no object


def test_every_image_is_seen_once_an_epoch(tmp_path: Path) -> None:
    task = detection(coco_set(tmp_path), framework="faster_rcnn")
    assert task.num_train == 2
    sizes = [task.batch(step, size=1, seed=0)[0][1][0].tolist() for step in range(6)]
    for start in (0, 2, 4):
        assert sizes[start] != sizes[start + 1]


def test_drawn_masks_fit_their_boxes() -> None:
    task = drawn(task={"kind": "detection", "framework": "htc", "augmentation": {"flip": 0.5}})
    (images, sizes, boxes, labels, masks), _ = task.batch(0, size=12, seed=0)
    assert images.shape[-2:] == (96, 128)
    assert sizes.tolist() == [[72, 100]] * 12
    assert labels.max() <= len(SYNTHETIC_CLASSES)
    for image in range(12):
        for row in range(labels.shape[1]):
            if labels[image, row]:
                assert extent(masks[image, row]) == boxes[image, row].tolist()


def test_more_than_a_thousand_objects_and_an_image_of_one_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    content = one_image()
    content["images"].append({"id": 12, "file_name": "row.png", "height": 1, "width": 300})
    content["annotations"] = [
        coco_object(11, 3, (*rng.integers(0, (WIDTH - 4, HEIGHT - 4)).tolist(), 4, 4))
        for _ in range(1100)
    ]
    content["annotations"].append(coco_object(12, 7, (100, 0, 50, 1)))
    task = detection(coco_set(tmp_path, content, image_size=[60, 150]), flip=0)
    (images, sizes, boxes, labels, _), _ = task.batch(0, size=2, seed=0)
    row = sizes.tolist().index([1, 150])
    assert (labels[1 - row] > 0).sum() == 1100
    assert boxes[row, 0].tolist() == [50, 0, 75, 1]
    assert images.shape[-2:] == (64, 160)
    task.check(32)


def test_resizing_a_mask_takes_the_nearest_and_is_the_same_mirrored() -> None:
    mask = (np.random.default_rng(0).random((31, 57)) < 0.5).astype(np.uint8)
    larger = resized(mask, (62, 114), nearest=True)
    assert np.array_equal(larger, mask.repeat(2, 0).repeat(2, 1))
    other = resized(mask, (40, 90), nearest=True)
    assert np.array_equal(resized(mask[:, ::-1], (40, 90), nearest=True), other[:, ::-1])
    assert set(np.unique(other)) == {0, 1}


def test_the_loss_is_the_sum(tmp_path: Path) -> None:
    task = detection(coco_set(tmp_path))
    losses = {"a": torch.tensor(1.5, requires_grad=True), "b": torch.tensor(2.0)}
    total = task.loss(losses, ())
    assert float(total.detach()) == 3.5
    assert total.requires_grad


def test_what_the_validation_objects_can_be_measured_by(tmp_path: Path) -> None:
    content = coco_content()  # 480, 800 and 720 square pixels: small, below 32 x 32
    task = detection(coco_set(tmp_path, content, content))
    measured = {"box_ap": True, "mask_ap50": True, "box_aps": True, "box_apm": False}
    assert {name: task.measures(name) for name in measured} == measured
    content["annotations"][1]["area"] = 96.0**2  # medium, and large
    other = detection(coco_set(tmp_path, content, content))
    assert other.measures("mask_apm")
    assert other.measures("box_apl")
    content["annotations"][1]["iscrowd"] = 1
    assert not detection(coco_set(tmp_path, content, content)).measures("box_apl")


# --- evaluation ----------------------------------------------------------------------------------


def oracle(task: Detection) -> Callable[[Tensor, Tensor], list[Mapping[str, Tensor]]]:
    """Finds what the truth says, in the pixels of the images that it is shown, in their order."""
    truth = task.prepared.json("truth")
    labels = {number: place for place, number in enumerate(task.category_ids, start=1)}
    queue = [view.number for views in task._eval_batches() for view in views]

    def found(number: int, size: list[int]) -> dict[str, Tensor]:
        image = truth["images"][number]
        entries = [
            entry
            for entry in truth["annotations"]
            if entry["image_id"] == image["id"] and not entry["iscrowd"]
        ]
        scale = torch.tensor([size[1] / image["width"], size[0] / image["height"]] * 2)
        boxes = torch.tensor([e["bbox"] for e in entries], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return {
            "boxes": boxes * scale,
            "labels": torch.tensor([labels[e["category_id"]] for e in entries], dtype=torch.long),
            "scores": torch.linspace(1, 0.5, len(entries)),
            "masks": inside(entries, boxes),
        }

    def predict(images: Tensor, sizes: Tensor) -> list[Mapping[str, Tensor]]:
        assert len(images) == len(sizes)
        padded = {padded_size((height, width), 32) for height, width in sizes.tolist()}
        assert padded == {tuple(images.shape[-2:])}
        return [found(queue.pop(0), size) for size in sizes.tolist()]

    return predict


def inside(entries: list[Any], boxes: Tensor) -> Tensor:
    """(N, 1, 28, 28): the masks of these entries inside their boxes (N, 4); zeros: none."""
    crops = []
    if any("segmentation" not in entry for entry in entries):
        return torch.zeros(len(entries), 1, 28, 28)
    for entry, box in zip(entries, boxes, strict=True):
        mask = torch.from_numpy(coco_mask.decode(entry["segmentation"])).float()[None, None]
        x1, y1, x2, y2 = box.tolist()
        steps = (torch.arange(28) + 0.5) / 28
        # At a pixel's centre `grid_sample` of unaligned corners takes that pixel's value.
        x = (x1 + steps * (x2 - x1)) / mask.shape[3] * 2 - 1
        y = (y1 + steps * (y2 - y1)) / mask.shape[2] * 2 - 1
        grid = torch.stack([x.expand(28, 28), y[:, None].expand(28, 28)], dim=-1)[None]
        crops.append(torch.nn.functional.grid_sample(mask, grid, align_corners=False)[0])
    return torch.stack(crops) if crops else torch.zeros(0, 1, 28, 28)


def test_no_more_than_two_batches_wait_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    task = drawn()
    monkeypatch.setattr(detection_module, "EVAL_BATCH", 1)
    find = oracle(task)
    make, made, seen = task._eval_images, list[int](), list[int]()

    def images(views: Any) -> Any:
        made.append(len(views))
        return make(views)

    def predict(shown: Tensor, sizes: Tensor) -> list[Mapping[str, Tensor]]:
        seen.append(len(shown))
        assert len(made) <= len(seen) + 2
        return find(shown, sizes)

    monkeypatch.setattr(task, "_eval_images", images)
    task.evaluate(predict)
    assert len(made) == len(seen) == 6


def test_the_truth_fed_back_scores_one(tmp_path: Path) -> None:
    """Images of two shapes, scaled: boxes come back to their own pixels."""
    task = detection(coco_set(tmp_path, image_size=[100, 140]))
    metrics = task.evaluate(oracle(task), out=tmp_path)
    names = ("ap", "ap50", "ap75", "aps")  # below 32 x 32 pixels
    assert set(metrics) == {f"{kind}_{name}" for kind in ("box", "mask") for name in names}
    assert metrics == pytest.approx(dict.fromkeys(metrics, 1.0))  # masks are full boxes
    results = json.loads((tmp_path / "predictions.json").read_text())
    assert [r["bbox"] for r in results] == [
        pytest.approx(box, abs=1e-3) for box in ([10, 20, 30, 16], [48, 4, 20, 40], [8, 30, 24, 30])
    ]
    assert [r["category_id"] for r in results] == [3, 7, 7]
    assert [r["image_id"] for r in results] == [11, 11, 12]
    classes = json.loads((tmp_path / "classes.json").read_text())
    ones = pytest.approx([1, 1])
    assert classes == {"class_names": ["cat", "dog"], "ap": ones, "mask_ap": ones}


def test_drawn_objects_fed_back_score_one() -> None:
    metrics = (task := drawn()).evaluate(oracle(task))
    assert metrics["box_ap"] == pytest.approx(1)
    assert metrics["mask_ap"] > 0.97


def test_results_on_real_images_are_what_pycocotools_makes_of_the_file(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    root = real_data("coco_mini")
    data = CocoDetection(kind="coco_detection", root=str(root), image_size=[320, 512])
    task = detection(data)
    metrics = task.evaluate(oracle(task), out=tmp_path)
    assert metrics["box_ap"] == pytest.approx(1)
    assert metrics["mask_ap"] > 0.95  # 28 x 28 values do not say all of a mask
    results = json.loads((tmp_path / "predictions.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations" / "instances_val2017.json"))
        for kind, iou, dropped in (("box", "bbox", "segmentation"), ("mask", "segm", "bbox")):
            found = truth.loadRes([{k: r[k] for k in r if k != dropped} for r in results])
            evaluation = COCOeval(truth, found, iou)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            ours = [
                metrics[f"{kind}_{name}"] for name in ("ap", "ap50", "ap75", "aps", "apm", "apl")
            ]
            assert ours == list(evaluation.stats[:6])


def nothing(images: Tensor, sizes: Tensor) -> list[dict[str, Tensor]]:
    """A detector that finds none."""
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.long),
        "scores": torch.zeros(0),
        "masks": torch.zeros(0, 1, 28, 28),
    }
    return [empty for _ in images]


def test_nothing_found_is_zero(tmp_path: Path) -> None:
    task = detection(coco_set(tmp_path))
    metrics = task.evaluate(nothing, out=tmp_path)
    assert set(metrics.values()) == {0.0}
    assert json.loads((tmp_path / "predictions.json").read_text()) == []
    assert json.loads((tmp_path / "classes.json").read_text())["ap"] == [0, 0]


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    task = detection(coco_set(tmp_path), framework="faster_rcnn")
    right = oracle(task)

    def predict(images: Tensor, sizes: Tensor) -> list[dict[str, Tensor]]:
        bad = torch.tensor([[0.0, 0, float("nan"), 5], [0, 0, 5, 5], [0, 0, float("inf"), 5]])
        return [
            {
                "boxes": torch.cat([bad, found["boxes"]]),
                "labels": torch.cat([torch.ones(3, dtype=torch.long), found["labels"]]),
                "scores": torch.cat([torch.tensor([1, float("nan"), 1]), found["scores"]]),
            }
            for found in right(images, sizes)
        ]

    metrics = task.evaluate(predict, out=tmp_path)
    assert metrics["box_ap"] == pytest.approx(1)
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 3
    assert not any(name.startswith("mask") for name in metrics)
    assert "mask_ap" not in json.loads((tmp_path / "classes.json").read_text())


def test_a_class_that_never_occurs_has_no_figure(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] = content["annotations"][1:]  # dogs alone
    task = detection(coco_set(tmp_path, val=content))
    task.evaluate(oracle(task), out=tmp_path)
    classes = json.loads((tmp_path / "classes.json").read_text())
    assert classes["class_names"] == ["dog"]
    assert classes["ap"] == pytest.approx([1])


def test_difficult_objects_of_voc_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    task = detection(voc_set(tmp_path), framework="faster_rcnn")

    def with_difficult(images: Tensor, sizes: Tensor) -> list[dict[str, Tensor]]:
        more = {"boxes": torch.tensor([[4.0, 4, 20, 30]]) * sizes[0, 0] / HEIGHT}
        more |= {"labels": torch.tensor([2]), "scores": torch.tensor([2.0])}
        found = [dict(one) for one in right(images, sizes)]
        return [
            found[0],
            {key: torch.cat([more[key], found[1][key]]) for key in more},
        ]

    right = oracle(task)
    metrics = task.evaluate(with_difficult, out=tmp_path)
    assert metrics["box_ap"] == pytest.approx(1)
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 4


def test_batches_of_evaluation_have_one_padded_size_and_all_images(tmp_path: Path) -> None:
    content = coco_content()
    content["images"] = [
        {"id": n, "file_name": f"{n}.png", "height": h, "width": w}
        for n, (h, w) in enumerate([(60, 80), (80, 60), (61, 80), (60, 80), (30, 80)], start=11)
    ]
    task = detection(coco_set(tmp_path, val=content, image_size=[60, 80]))
    seen: list[tuple[list[int], list[list[int]]]] = []

    def predict(images: Tensor, sizes: Tensor) -> Any:
        seen.append((list(images.shape[-2:]), sizes.tolist()))
        return nothing(images, sizes)

    task.evaluate(predict)
    assert seen == [
        ([64, 96], [[60, 80], [60, 79], [60, 80]]),
        ([96, 64], [[80, 60]]),
        ([32, 96], [[30, 80]]),
    ]


# --- masks and boxes of single images ------------------------------------------------------------


def test_masks_are_pasted_as_they_are_sampled() -> None:
    """The whole image by `grid_sample`, and pixels whose centres are in the box."""
    rng = torch.Generator().manual_seed(0)
    boxes = torch.rand(40, 4, generator=rng) * 40 + torch.tensor([0.0, 0, 40, 40])
    boxes[0] = torch.tensor([-7.5, -4.0, 90.0, 70.0])  # all around the image
    masks = torch.rand(40, 1, 28, 28, generator=rng)
    y, x = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    for runs, mask, (x1, y1, x2, y2) in zip(
        pasted(masks, boxes, (60, 80)), masks, boxes.tolist(), strict=True
    ):
        grid = torch.stack([(x - x1) / (x2 - x1), (y - y1) / (y2 - y1)], dim=-1) * 2 - 1
        values = torch.nn.functional.grid_sample(
            mask[None], grid[None], padding_mode="border", align_corners=False
        )[0, 0]
        values[(grid.abs() > 1).any(-1)] = 0
        sure = (values - 0.5).abs() > 1e-4
        assert torch.equal(torch.from_numpy(coco_mask.decode(runs))[sure] > 0, (values > 0.5)[sure])


def test_large_masks_are_pasted_about_as_torchvision_does() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    disc = torch.sigmoid(8 * (0.7 - (x**2 + y**2).sqrt()))[None, None]
    box = torch.tensor([[20.0, 30, 420, 380]])
    (runs,) = pasted(disc, box, (480, 640))
    theirs = paste_masks_in_image(disc, box, (480, 640))[0, 0] >= 0.5
    ours = torch.from_numpy(coco_mask.decode(runs)) > 0
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.985


def test_full_masks_fill_their_boxes() -> None:
    for box in ([10, 20, 18, 30], [0, 0, 80, 60], [3.4, 5.6, 20.4, 30.6], [70, 50, 95, 75]):
        (runs,) = pasted(torch.ones(1, 1, 28, 28), torch.tensor([box]).float(), (60, 80))
        expected = np.zeros((60, 80))
        x1, y1, x2, y2 = (round(value) for value in box)  # pixels whose centres are inside
        expected[y1:y2, x1:x2] = 1
        assert np.array_equal(coco_mask.decode(runs), expected)


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [90, 70, 99, 80], [-9, -9, -1, -1]])
def test_a_box_without_pixels_has_an_empty_mask(box: list[float]) -> None:
    (runs,) = pasted(torch.ones(1, 1, 28, 28), torch.tensor([box]).float(), (60, 80))
    assert not coco_mask.decode(runs).any()


def test_boxes_come_back_inside_their_image() -> None:
    boxes = torch.tensor([[20.0, 40, 80, 72], [-10, -5, 500, 500]])
    found = own_boxes(boxes, (120, 160), (60, 80))
    assert found.tolist() == [[10, 20, 40, 36], [0, 0, 80, 60]]


# --- what users are told -------------------------------------------------------------------------


def test_the_preprocessing_says_what_a_user_must_do(tmp_path: Path) -> None:
    task = detection(coco_set(tmp_path, image_size=[96, 64]))
    about = task.preprocessing()
    assert about == {
        "task": "detection",
        "image_size": [64, 96],
        "padded": 32,
        "mean": MEAN.tolist(),
        "std": STD.tolist(),
        "classes": ["cat", "dog"],
    }
    assert (task.head, task.num_outputs, task.num_train) == ("v2p", 2, 2)
    assert np.array_equal(task.samples(1)[0], Images(task.prepared, "val")[0])


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_smaller_than_networks_take_is_refused(tmp_path: Path, split: str) -> None:
    content = one_image()
    content["images"].append({"id": 12, "file_name": "flat.png", "height": 10, "width": 80})
    content["annotations"].append(coco_object(12, 7, (8, 3, 24, 5)))
    task = detection(coco_set(tmp_path, **{split: content}, image_size=[64, 96]))
    task.check(32)
    with pytest.raises(InputError) as caught:
        task.check(64)
    assert str(caught.value) == (
        "data.image_size: [64, 96]: an image of 80x10 pixels is shown at 96x32, padded; "
        "networks of the study take 64x64 or more"
    )


def test_a_pyramid_that_a_framework_does_not_stand_on_is_refused() -> None:
    file = Path(__file__).parents[2] / "studies" / "figure10_detection.yaml"

    def task(framework: str, pyramid: str) -> Any:
        settings = [f"task.framework={framework}", f"task.pyramid={pyramid}", "variants={}"]
        return load_study(file, [*settings, "paper=null", "reference=''"]).task

    assert task("fcos", "null").head == task("fcos", "null").detector(6).pyramid == "v2p_s2"
    assert task("htc", "v1hp").head == task("htc", "v1hp").detector(6).pyramid == "v1hp"
    with pytest.raises(InputError) as caught:
        task("fcos", "v1p")
    assert str(caught.value) == "--set: task.pyramid: 'v1p': must be v2p_s2 under fcos"


def test_a_study_finds_its_data_and_task(tmp_path: Path) -> None:
    data = coco_set(tmp_path).model_dump(exclude_defaults=True)
    for more, masks in (({"framework": "mask_rcnn"}, True), ({"framework": "fcos"}, False)):
        study = scenes_study(task={"kind": "detection", **more}, data=data)
        assert isinstance(study.data, Objects)
        task = tasks.load_task(study, tasks.prepare(study, lambda done, total: None))
        assert isinstance(task, Detection)
        assert len(task.batch(0, size=1, seed=0)[0]) == 4 + masks
