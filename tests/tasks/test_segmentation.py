"""Segmentation on small folders made here: crops, loss, mean IoU, and refusal of bad data."""

import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hrnet_search.errors import InputError
from hrnet_search.study import SegmentationFolder, SegmentationTask
from hrnet_search.tasks import segmentation as segmentation_module
from hrnet_search.tasks.base import MEAN, STD
from hrnet_search.tasks.segmentation import (
    Segmentation,
    confusion,
    mean_iou,
    pixel_accuracy,
    prepare,
)

IGNORED = 255
CLASSES = ["sky", "road", "car"]
SIZES = [(40, 50), (40, 50), (64, 64), (33, 47), (40, 50)]


def labels_of(size: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 1, 2, IGNORED], dtype=np.uint8), size, p=[0.4, 0.3, 0.2, 0.1])


def image_of(labels: np.ndarray) -> np.ndarray:
    """A picture that tells its labels: 60 grey levels per class, in all channels."""
    return np.repeat((np.minimum(labels, 3) * 60)[..., None], 3, axis=-1).astype(np.uint8)


def make_folder(root: Path, sizes: Iterable[tuple[int, int]] = SIZES) -> Path:
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for number, size in enumerate(sizes):
            labels = labels_of(size, seed=number)
            Image.fromarray(labels).save(root / f"{split}annot" / f"{number:02d}.png")
            Image.fromarray(image_of(labels)).save(root / split / f"{number:02d}.png")
    return root


def settings(root: Path, **changes: Any) -> SegmentationFolder:
    fields = {"root": str(root), "class_names": CLASSES, "crop_size": [32, 32], **changes}
    return SegmentationFolder.model_validate({"kind": "segmentation_folder", **fields})


def quiet(done: int, total: int) -> None:
    pass


def task_on(root: Path, *, weights: list[float] | None = None, **changes: Any) -> Segmentation:
    folder = settings(root, **changes)
    task = SegmentationTask.model_validate({"kind": "segmentation", "class_weights": weights or []})
    return Segmentation(task, folder, prepare(folder, quiet))


@pytest.fixture
def root(tmp_path: Path, cache: Path) -> Path:
    return make_folder(tmp_path / "data")


# --- preparation -------------------------------------------------------------------------------


def test_images_come_back_as_they_were(root: Path) -> None:
    task = task_on(root)
    assert (len(task.train), len(task.val)) == (5, 5)
    for number, size in enumerate(SIZES):
        image, labels = task.val[number]
        assert np.array_equal(labels, labels_of(size, seed=number))
        assert np.array_equal(image, image_of(labels_of(size, seed=number)))


def test_images_are_read_once_and_again_after_a_change(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    first = prepare(settings(root), lambda done, total: seen.append((done, total)))
    assert seen == [(number, 10) for number in range(1, 11)]
    assert prepare(settings(root, crop_size=[64, 64]), lambda *a: seen.append(a)) == first
    assert len(seen) == 10
    Image.fromarray(labels_of((64, 64), seed=9)).save(root / "trainannot" / "02.png")
    changed = prepare(settings(root), quiet)
    assert changed.folder != first.folder
    assert changed.checksum != first.checksum


def test_grey_and_palette_images_and_other_formats_are_accepted(root: Path) -> None:
    labels = labels_of((33, 47), seed=3)
    palette = Image.fromarray(labels)
    palette.putpalette([value for value in range(256) for _ in range(3)])
    assert palette.mode == "P"
    palette.save(root / "valannot" / "03.png")
    (root / "val" / "03.png").unlink()
    Image.fromarray(image_of(labels)[..., 0]).save(root / "val" / "03.BMP")
    image, given = task_on(root).val[3]
    assert np.array_equal(given, labels)
    assert np.array_equal(image, image_of(labels))


# --- batches -----------------------------------------------------------------------------------


def pixels(x: Tensor) -> np.ndarray:
    """Normalised (B, 3, H, W) -> grey levels (B, H, W)."""
    grey = x * STD.reshape(1, 3, 1, 1) + MEAN.reshape(1, 3, 1, 1)
    return grey.round().int().numpy()[:, 0]


def test_crops_keep_pixels_and_labels_together(root: Path) -> None:
    task = task_on(root)
    for step in range(6):
        x, y = task.batch(step, size=4, seed=0)
        assert (x.shape, y.shape, y.dtype) == ((4, 3, 32, 32), (4, 32, 32), torch.long)
        assert np.array_equal(pixels(x), np.minimum(y.numpy(), 3) * 60)


def test_crops_depend_on_seed_and_step_alone(root: Path) -> None:
    task = task_on(root)
    x, y = task.batch(2, size=4, seed=1)
    again_x, again_y = task.batch(2, size=4, seed=1)
    assert torch.equal(x, again_x)
    assert torch.equal(y, again_y)
    assert not torch.equal(y, task.batch(3, size=4, seed=1)[1])
    assert not torch.equal(y, task.batch(2, size=4, seed=2)[1])


def test_crops_are_windows_of_everywhere_and_half_are_mirrored(tmp_path: Path, cache: Path) -> None:
    size = (36, 35)
    task = task_on(make_folder(tmp_path / "one", [size]))
    labels = labels_of(size)
    windows = {}
    for top in range(5):
        for left in range(4):
            window = labels[top : top + 32, left : left + 32]
            windows[window.tobytes()] = (top, left, False)
            windows[window[:, ::-1].tobytes()] = (top, left, True)
    found = []
    for step in range(50):
        _, y = task.batch(step, size=8, seed=0)
        found += [windows[crop.astype(np.uint8).tobytes()] for crop in y.numpy()]
    assert {place[:2] for place in found} == {(t, left) for t in range(5) for left in range(4)}
    # 400 fair coins: 200, give or take four deviations of 10.
    assert 160 < sum(mirrored for *_, mirrored in found) < 240


def test_what_lies_outside_a_smaller_image_is_ignored_and_grey(tmp_path: Path, cache: Path) -> None:
    labels = labels_of((20, 40))
    task = task_on(make_folder(tmp_path / "small", [(20, 40)]), crop_size=[48, 64])
    x, y = task.batch(0, size=8, seed=0)
    for picture, crop in zip(x, y.numpy(), strict=True):
        # Mirrored or not: the picture fills the top, on one side.
        outside = np.ones((48, 64), dtype=bool)
        outside[:20, :40] = False
        if not np.array_equal(crop[:20, :40], labels):
            crop, picture = crop[:, ::-1], picture.flip(-1)
        assert np.array_equal(crop[:20, :40], labels)
        assert (crop[outside] == IGNORED).all()
        assert picture[:, torch.from_numpy(outside)].abs().max() < 0.01  # the mean colour


def test_a_crop_higher_but_narrower_than_the_image(tmp_path: Path, cache: Path) -> None:
    task = task_on(make_folder(tmp_path / "wide", [(20, 90)]), crop_size=[48, 32])
    _, y = task.batch(0, size=8, seed=0)
    assert (y[:, 20:] == IGNORED).all()
    assert all((crop[:20] != IGNORED).any(0).all() for crop in y)


# --- loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 5.0]])
def test_loss_is_the_weighted_cross_entropy_of_labelled_pixels(
    root: Path, weights: list[float] | None
) -> None:
    task = task_on(root, weights=weights)
    shares = [0.2, 0.3, 0.5]  # everywhere alike, so enlarging changes nothing
    output = torch.tensor(shares).log().reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    target = torch.full((1, 8, 8), IGNORED)
    target[0, 0, :5] = 0
    target[0, 1, :3] = 1
    target[0, 2, :2] = 2
    factors = weights or [1.0, 1.0, 1.0]
    counts = [5, 3, 2]
    total = sum(n * w * -math.log(p) for n, w, p in zip(counts, factors, shares, strict=True))
    mass = sum(n * w for n, w in zip(counts, factors, strict=True))
    assert task.loss(output, target).item() == pytest.approx(total / mass, rel=1e-6)


def test_loss_is_taken_at_full_resolution(root: Path) -> None:
    task = task_on(root)
    output = torch.zeros(1, 3, 1, 2)
    output[0, 0, 0, 1] = 4.0
    # Bilinear, pixel centres aligned to areas: 0, 0.5, 1.5, 2.5, ... of eight from two columns.
    row = [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4]
    losses = [math.log(2 + math.exp(v)) - v for v in row]
    target = torch.zeros(1, 4, 8, dtype=torch.long)
    assert task.loss(output, target).item() == pytest.approx(sum(losses) / 8, rel=1e-6)


# --- metrics -----------------------------------------------------------------------------------


def test_confusion_counts_pairs_without_ignored_pixels() -> None:
    target = torch.tensor([[0, 0, 1, 1], [2, 2, IGNORED, IGNORED]])
    classes = torch.tensor([[0, 1, 1, 1], [0, 2, 0, 2]])
    counts = confusion(classes, target, 3, IGNORED)
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("counts", "miou", "accuracy"),
    [
        ([[1, 1, 0], [0, 2, 0], [1, 0, 1]], (1 / 3 + 2 / 3 + 1 / 2) / 3, 4 / 6),
        ([[3, 0, 0], [0, 4, 0], [0, 0, 5]], 1.0, 1.0),
        ([[3, 0, 0], [0, 4, 0], [0, 0, 0]], 2 / 3, 1.0),  # a class that never occurs counts 0
        ([[2, 0, 2], [0, 4, 0], [0, 0, 0]], (0.5 + 1) / 3, 6 / 8),
        ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], 0.0, 0.0),
    ],
)
def test_mean_iou_and_accuracy_by_hand(
    counts: list[list[int]], miou: float, accuracy: float
) -> None:
    assert mean_iou(torch.tensor(counts)) == pytest.approx(miou, abs=1e-12)
    assert pixel_accuracy(torch.tensor(counts)) == pytest.approx(accuracy, abs=1e-12)


def projection(images: Tensor) -> Tensor:
    """A fixed network of stride 4: pooled colours through a random matrix."""
    matrix = torch.randn(3, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    shifts = torch.randn(3, generator=torch.Generator().manual_seed(1))
    return F.conv2d(F.avg_pool2d(images, 4, ceil_mode=True), matrix, shifts)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_evaluation_of_ragged_images_is_that_of_each_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(segmentation_module, "EVAL_BATCH", batch)
    sizes = []

    def predict(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return projection(images)

    task = task_on(root)
    metrics = task.evaluate(predict)
    assert sizes == {1: [1] * 5, 2: [2, 1, 1, 1], 8: [2, 1, 1, 1]}[batch]
    hits, union = np.zeros(3), np.zeros(3)
    right = seen = 0
    for number, size in enumerate(SIZES):
        labels = labels_of(size, seed=number)
        x = (torch.from_numpy(image_of(labels)).float() - MEAN) / STD
        logits = projection(x.permute(2, 0, 1)[None])
        enlarged = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        found = enlarged[0].argmax(0).numpy()
        kept = labels != IGNORED
        right, seen = right + (found == labels)[kept].sum(), seen + kept.sum()
        for c in range(3):
            hits[c] += ((found == c) & (labels == c)).sum()
            union[c] += (((found == c) | (labels == c)) & kept).sum()
    assert metrics["miou"] == pytest.approx(np.mean(hits / np.maximum(union, 1)), abs=1e-12)
    assert metrics["pixel_accuracy"] == pytest.approx(right / seen, abs=1e-12)
    assert 0 < metrics["miou"] < 1


def test_preprocessing_and_sample_describe_the_data(root: Path) -> None:
    task = task_on(root)
    assert task.preprocessing()["classes"] == CLASSES
    assert task.preprocessing()["input_size"] == [40, 50]
    assert np.array_equal(task.sample(), image_of(labels_of((40, 50), seed=0)))


# --- bad data ----------------------------------------------------------------------------------


def remove(path: str) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        target = root / path
        for file in target.iterdir() if target.is_dir() else ():
            file.unlink()
        target.rmdir() if target.is_dir() else target.unlink()

    return act


def empty(path: str) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        for file in (root / path).iterdir():
            file.rename(file.with_suffix(".txt"))

    return act


def replace(path: str, picture: np.ndarray) -> Callable[[Path], None]:
    return lambda root: Image.fromarray(picture).save(root / path)


def overwrite(path: str, content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda root: (root / path).write_bytes(content((root / path).read_bytes()))  # type: ignore[func-returns-value]


def with_label(value: int) -> np.ndarray:
    labels = labels_of((64, 64))
    labels[5, 7] = value
    return labels


def jpeg(_: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_of(labels_of((64, 64)))).save(buffer, "jpeg")
    return buffer.getvalue()[:300]


RGB = np.zeros((64, 64, 3), dtype=np.uint8)
RANGE = "labels must be 0 to 2 (data.class_names) or 255 (ignored)"
BAD_DATA = [
    (remove("val"), "data.val_images: 'val': there is no such folder in {root}"),
    (remove("trainannot"), "data.train_labels: 'trainannot': there is no such folder in {root}"),
    (empty("train"), "data.train_images: 'train': holds no images in {root}"),
    (empty("valannot"), "data.val_labels: 'valannot': holds no images in {root}"),
    (
        remove("valannot/01.png"),
        "{root}/val/01.png: has no label image of the same name in valannot",
    ),
    (replace("valannot/02.png", with_label(3)), "{root}/valannot/02.png: 3: " + RANGE),
    (replace("trainannot/02.png", with_label(254)), "{root}/trainannot/02.png: 254: " + RANGE),
    (
        replace("trainannot/02.png", RGB),
        "{root}/trainannot/02.png: is an image of mode RGB; labels must be 8-bit, one channel",
    ),
    (
        replace("trainannot/02.png", labels_of((64, 64)).astype(np.uint16)),
        "{root}/trainannot/02.png: is an image of mode I;16; labels must be 8-bit, one channel",
    ),
    (
        replace("trainannot/02.png", labels_of((60, 64))),
        "{root}/trainannot/02.png: is 64x60 pixels, its image 02.png 64x64",
    ),
    (
        overwrite("train/02.png", lambda data: data[: len(data) // 2]),
        "{root}/train/02.png: is not a readable image (",
    ),
    (
        overwrite("valannot/02.png", lambda _: b""),
        "{root}/valannot/02.png: is not a readable image (",
    ),
    (overwrite("val/02.png", lambda _: b"text"), "{root}/val/02.png: is not a readable image ("),
    (overwrite("val/02.png", jpeg), "{root}/val/02.png: is not a readable image ("),
]


@pytest.mark.parametrize(("damage", "text"), BAD_DATA, ids=[text for _, text in BAD_DATA])
def test_bad_data_is_refused_in_one_line_and_leaves_nothing_in_the_cache(
    root: Path, cache: Path, damage: Callable[[Path], None], text: str
) -> None:
    damage(root)
    with pytest.raises(InputError) as caught:
        prepare(settings(root), quiet)
    said, expected = str(caught.value), text.format(root=root)
    assert "\n" not in said
    assert said.startswith(expected) if expected.endswith("(") else said == expected
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_missing_root_is_refused_with_what_to_do(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        prepare(settings(tmp_path / "none"), quiet)
    rule = "there is no such folder; say where the data lies with --set data.root=FOLDER"
    assert str(caught.value) == f"data.root: {str(tmp_path / 'none')!r}: {rule}"
    assert not cache.exists()


def test_mended_data_is_read_after_a_failure(root: Path) -> None:
    file = root / "valannot" / "02.png"
    good = file.read_bytes()
    file.write_bytes(b"")
    with pytest.raises(InputError):
        prepare(settings(root), quiet)
    file.write_bytes(good)
    assert len(task_on(root).val) == 5


def test_a_batch_without_a_labelled_pixel_has_loss_zero(root: Path) -> None:
    task = task_on(root)
    target = torch.full((1, 8, 8), task.ignore_label)
    output = torch.randn(1, task.num_outputs, 2, 2, requires_grad=True)
    loss = task.loss(output, target)
    loss.backward()
    assert loss.item() == 0
    assert output.grad is not None
    assert output.grad.abs().max() == 0
