"""Segmentation: crops, losses, tests at scales and by windows, and metrics, by hand."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hrnet_search.errors import InputError
from hrnet_search.settings import SegmentationFolder, SegmentationTask
from hrnet_search.tasks import segmentation as segmentation_module
from hrnet_search.tasks.base import MEAN, STD, batch_indices
from hrnet_search.tasks.segmentation import (
    Segmentation,
    confusion,
    exchanged_classes,
    mean_iou,
    pixel_accuracy,
    scaled_window,
    window_starts,
)
from hrnet_search.tasks.segmentation_data import prepare
from hrnet_search.views import scaled_size

IGNORED = 255
CLASSES = ["sky", "road", "car"]
SIZES = [(40, 50), (40, 50), (64, 64), (33, 47), (40, 50)]
PLAIN = {"scale": [1, 1]}

Size = tuple[int, int]


def labels_of(size: Size, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 1, 2, IGNORED], dtype=np.uint8), size, p=[0.4, 0.3, 0.2, 0.1])


def image_of(labels: np.ndarray) -> np.ndarray:
    """A picture that tells its labels: 60 grey levels per class, in all channels."""
    return np.repeat((np.minimum(labels, 3) * 60)[..., None], 3, axis=-1).astype(np.uint8)


def write(root: Path, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Path:
    """Images and labels, the same ones for both splits, in the CamVid layout."""
    pairs = list(pairs)
    for split in ("train", "val"):
        for kind in (split, f"{split}annot"):
            (root / kind).mkdir(parents=True)
        for number, (image, labels) in enumerate(pairs):
            Image.fromarray(image).save(root / split / f"{number:02d}.png")
            Image.fromarray(labels).save(root / f"{split}annot" / f"{number:02d}.png")
    return root


def make_folder(root: Path, sizes: Iterable[Size] = SIZES) -> Path:
    labels = [labels_of(size, seed=number) for number, size in enumerate(sizes)]
    return write(root, [(image_of(each), each) for each in labels])


def task_on(root: Path, task: dict[str, Any] | None = None, **changes: Any) -> Segmentation:
    """The task on CamVid's layout; without scaling unless `task` says so."""
    fields = {"root": str(root), "class_names": CLASSES, "crop_size": [32, 32], **changes}
    data = SegmentationFolder.model_validate({"kind": "segmentation_folder", **fields})
    wanted = {"kind": "segmentation", "augmentation": PLAIN, **(task or {})}
    prepared = prepare(data, lambda done, total: None)
    return Segmentation(SegmentationTask.model_validate(wanted), data, prepared)


@pytest.fixture
def root(tmp_path: Path, cache: Path) -> Path:
    return make_folder(tmp_path / "data")


def pixels(x: Tensor) -> np.ndarray:
    """Normalised (B, 3, H, W) -> values of 0 to 255 (B, H, W, 3)."""
    values = x.permute(0, 2, 3, 1) * STD + MEAN
    return values.round().int().numpy()


# --- crops without scaling ---------------------------------------------------------------------


def test_crops_keep_pixels_and_labels_together(root: Path) -> None:
    task = task_on(root)
    for step in range(6):
        x, y = task.batch(step, size=4, seed=0)
        assert (x.shape, y.shape, y.dtype) == ((4, 3, 32, 32), (4, 32, 32), torch.long)
        assert np.array_equal(pixels(x)[..., 0], np.minimum(y.numpy(), 3) * 60)


def test_crops_depend_on_seed_and_step_alone(root: Path) -> None:
    task = task_on(root, {"augmentation": {}})
    x, y = task.batch(2, size=4, seed=1)
    again_x, again_y = task.batch(2, size=4, seed=1)
    assert torch.equal(x, again_x)
    assert torch.equal(y, again_y)
    assert not torch.equal(y, task.batch(3, size=4, seed=1)[1])
    assert not torch.equal(y, task.batch(2, size=4, seed=2)[1])


def test_without_scaling_each_crop_takes_three_draws_of_the_batchs_generator(root: Path) -> None:
    """Row, column, mirror, in this order: studies of before scales keep their figures."""
    task = task_on(root)
    for step in range(4):
        rng = np.random.default_rng((5, step, 1))
        for number, y in zip(
            batch_indices(5, step, size=4, seed=5), task.batch(step, size=4, seed=5)[1], strict=True
        ):
            labels = labels_of(SIZES[number], seed=number)
            top, left = (rng.integers(side - 32 + 1) for side in labels.shape)
            wanted = labels[top : top + 32, left : left + 32]
            wanted = wanted[:, ::-1] if rng.random() < 0.5 else wanted
            assert np.array_equal(y.numpy(), wanted)


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


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_of_mirrored_crops(tmp_path: Path, cache: Path, share: float) -> None:
    labels = labels_of((32, 32))
    root = make_folder(tmp_path / "one", [(32, 32)])
    _, y = task_on(root, {"augmentation": {**PLAIN, "flip": share}}).batch(0, size=8, seed=0)
    assert all(np.array_equal(crop, labels[:, ::-1] if share else labels) for crop in y.numpy())


def test_what_lies_outside_a_smaller_image_is_ignored_and_black(
    tmp_path: Path, cache: Path
) -> None:
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
        # Official `rand_crop` fills up with 0 before the mean is taken off.
        assert (pixels(picture[None])[0][outside] == 0).all()
        assert np.array_equal(pixels(picture[None])[0, :20, :40], image_of(labels))


def test_a_crop_higher_but_narrower_than_the_image(tmp_path: Path, cache: Path) -> None:
    task = task_on(make_folder(tmp_path / "wide", [(20, 90)]), crop_size=[48, 32])
    _, y = task.batch(0, size=8, seed=0)
    assert (y[:, 20:] == IGNORED).all()
    assert all((crop[:20] != IGNORED).any(0).all() for crop in y)


@pytest.mark.parametrize("augmentation", [PLAIN, {"photometric": True}])
@pytest.mark.parametrize("processes", [2, 3])
def test_parts_make_up_the_whole_batch(
    root: Path, processes: int, augmentation: dict[str, Any]
) -> None:
    task = task_on(root, {"augmentation": augmentation})
    x, y = task.batch(3, size=6, seed=2)
    for rank in range(processes):
        part_x, part_y = task.batch(3, size=6, seed=2, part=(rank, processes))
        assert torch.equal(part_x, x[rank::processes])
        assert torch.equal(part_y, y[rank::processes])


@pytest.mark.parametrize("augmentation", [PLAIN, {"photometric": True}, {"resize": [50, 70]}])
def test_kept_pixels_and_files_give_the_same_batches(
    root: Path, augmentation: dict[str, Any]
) -> None:
    kept, read = (
        task_on(root, {"augmentation": augmentation}, cache_gib=gib) for gib in (4.0, 0.0)
    )
    assert kept.train.images.pixels is not None
    assert read.train.images.pixels is None
    for step in range(3):
        for one, other in zip(*(t.batch(step, size=4, seed=0) for t in (kept, read)), strict=True):
            assert torch.equal(one, other)


# --- mapping, mirrored classes, colours --------------------------------------------------------


def test_labels_are_mapped_to_classes(tmp_path: Path, cache: Path) -> None:
    labels = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32) % 5  # values 0 to 4
    root = write(tmp_path / "ids", [(image_of(labels), labels)])
    mapping = [IGNORED, 2, 0, IGNORED, 1]
    augmentation = {**PLAIN, "flip": 0.0}
    _, y = task_on(root, {"augmentation": augmentation}, label_map=mapping).batch(0, size=2, seed=0)
    assert np.array_equal(y[0].numpy(), np.array(mapping)[labels])


def test_mirrored_crops_exchange_the_classes_of_pairs(tmp_path: Path, cache: Path) -> None:
    root = make_folder(tmp_path / "one", [(32, 32)])
    augmentation = {**PLAIN, "flip": 1.0}
    pairs = {"flip_pairs": [["sky", "car"]]}
    _, y = task_on(root, {"augmentation": augmentation}, **pairs).batch(0, size=2, seed=0)
    exchanged = {0: 2, 1: 1, 2: 0, IGNORED: IGNORED}
    wanted = np.vectorize(exchanged.__getitem__)(labels_of((32, 32))[:, ::-1])
    assert np.array_equal(y[0].numpy(), wanted)


def test_exchange_comes_after_mapping(tmp_path: Path, cache: Path) -> None:
    labels = np.full((32, 32), 7, dtype=np.uint8)
    root = write(tmp_path / "ids", [(image_of(labels), labels)])
    changes = {"flip_pairs": [["sky", "car"]], "label_map": [IGNORED] * 7 + [2]}
    augmentation = {**PLAIN, "flip": 1.0}
    _, y = task_on(root, {"augmentation": augmentation}, **changes).batch(0, size=2, seed=0)
    assert (y == 0).all()


def test_lips_pairs_by_number() -> None:
    fields = {"root": "x", "crop_size": [32, 32], "label_set": "lip"}
    data = SegmentationFolder.model_validate({"kind": "segmentation_folder", **fields})
    assert exchanged_classes(data) == [*range(14), 15, 14, 17, 16, 19, 18]  # official `lip.py`


def test_colours_vary_but_neither_labels_nor_what_lies_outside(tmp_path: Path, cache: Path) -> None:
    root = make_folder(tmp_path / "small", [(20, 20)])
    plain = task_on(root, {"augmentation": {**PLAIN, "flip": 0.0}})
    varied = task_on(root, {"augmentation": {**PLAIN, "flip": 0.0, "photometric": True}})
    state = torch.random.get_rng_state()
    (x, y), (other_x, other_y) = (task.batch(0, size=6, seed=0) for task in (plain, varied))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(y, other_y)
    assert torch.equal(x[..., 20:, :], other_x[..., 20:, :])
    inside = other_x[..., :20, :20]
    assert (inside - x[..., :20, :20]).abs().amax((1, 2, 3)).min() > 0  # every one has changed
    assert len({each.sum().item() for each in inside}) == 6  # and each in its own way


# --- scaling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "scale", "base_length", "wanted"),
    [
        ((1024, 2048), 1.0, 0, (1024, 2048)),
        ((1024, 2048), 0.5, 2048, (512, 1024)),
        ((375, 500), 1.0, 520, (390, 520)),  # PASCAL: 375 * 520 / 500
        ((500, 333), 1.25, 520, (650, 433)),  # 433.4
        ((500, 335), 1.0, 473, (473, 317)),  # 316.91
        ((10, 7), 0.25, 0, (3, 2)),  # 2.5 is rounded up; 7 * 3 / 10 = 2.1
        ((1, 90), 0.5, 0, (1, 45)),  # never without pixels
    ],
)
def test_sizes_of_scaled_images(size: Size, scale: float, base_length: int, wanted: Size) -> None:
    assert scaled_size(size, scale, base_length) == wanted


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
def test_scale_one_changes_no_size(size: Size) -> None:
    assert scaled_size(size, 1.0) == size
    assert scaled_size(size, 1.0, max(size)) == size


@given(
    st.tuples(st.integers(5, 60), st.integers(5, 60)),
    st.tuples(st.integers(5, 90), st.integers(5, 90)),
    st.data(),
)
def test_a_window_is_that_of_the_whole_scaled_image(size: Size, scaled: Size, data: Any) -> None:
    """Pillow's resizing of the whole picture, then cropped, is what a window must equal."""
    top, left = (data.draw(st.integers(0, side - 1)) for side in scaled)
    bottom, right = (
        data.draw(st.integers(top + 1, scaled[0])),
        data.draw(st.integers(left + 1, scaled[1])),
    )
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    window = scaled_window(image, scaled, (top, left, bottom, right))
    whole = np.asarray(Image.fromarray(image).resize(scaled[::-1], Image.Resampling.BILINEAR))
    difference = window.astype(int) - whole[top:bottom, left:right]
    assert window.shape == (bottom - top, right - left, 3)
    assert np.abs(difference).max() <= 1  # of 255: Pillow's weights are rounded


@given(
    st.tuples(st.integers(5, 60), st.integers(5, 60)),
    st.tuples(st.integers(5, 90), st.integers(5, 90)),
    st.data(),
)
def test_labels_are_those_of_the_nearest_pixel(size: Size, scaled: Size, data: Any) -> None:
    top, left = (data.draw(st.integers(0, side - 1)) for side in scaled)
    rows = np.arange(size[0], dtype=np.uint8)[:, None] + np.zeros(size[1], dtype=np.uint8)
    columns = np.arange(size[1], dtype=np.uint8) + np.zeros((size[0], 1), dtype=np.uint8)
    for values, axis, first in ((rows, 0, top), (columns, 1, left)):
        window = scaled_window(values, scaled, (top, left, *scaled))
        # The centre of scaled pixel i lies at (i + 1/2) n / m, in pixel i' if i' <= that < i' + 1.
        places = (np.arange(first, scaled[axis]) + 0.5) * size[axis] / scaled[axis]
        found = np.moveaxis(window, axis, 0)
        assert (found == found[:, :1]).all()
        within = np.abs(places - (found[:, 0] + 0.5))
        assert within.max() <= 0.5 + 1e-9


def gradient(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose red is four times the row and green twice the column; labels row // 2."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.stack([rows * 4, columns * 2, rows * 0], -1).astype(np.uint8)
    return image, (rows // 2).astype(np.uint8)


@pytest.mark.parametrize("resize", [[], [60, 90]])
def test_scaled_crops_keep_image_and_labels_aligned(
    tmp_path: Path, cache: Path, resize: list[int]
) -> None:
    """Both tell the row that they come from: they agree within the scaling's own steps."""
    root = write(tmp_path / "one", [gradient((60, 90))])
    names = [f"rows {number}" for number in range(30)]
    augmentation = {"scale": [0.5, 2.0], "flip": 0.0, "resize": resize}
    task = task_on(root, {"augmentation": augmentation}, class_names=names, crop_size=[40, 48])
    scales = []
    for step in range(5):
        x, y = task.batch(step, size=8, seed=0)
        for picture, labels in zip(pixels(x), y.numpy(), strict=True):
            kept = labels != IGNORED
            height, width = kept.any(1).sum(), kept.any(0).sum()
            assert kept[:height, :width].all()  # filled up below and to the right alone
            red, green = picture[:height, :width, 0] / 4, picture[:height, :width, 1] / 2
            assert (green == green[0]).all()  # every row alike, every column too
            assert (red == red[:, :1]).all()
            inner = (red[:, 0] > 2) & (red[:, 0] < 57)  # the edges are smoothed one-sidedly
            assert np.abs(red - 2 * labels[:height, :width] - 0.5)[inner].max() <= 1.25
            scale = (green.shape[1] - 9) / (green[0, -5] - green[0, 4])  # pixels per source pixel
            scales.append(scale)
            vertical = (len(red) - 9) / (red[-5, 0] - red[4, 0])
            assert vertical == pytest.approx(scale, rel=0.1)
    assert 0.45 < min(scales) < 0.75  # 40 scales, spread over the range
    assert 1.75 < max(scales) < 2.1
    shares = np.histogram(scales, [0.45, 0.875, 1.25, 1.625, 2.1])[0]
    assert shares.min() >= 3  # ten expected in each quarter


def test_the_base_length_is_that_of_scale_one(tmp_path: Path, cache: Path) -> None:
    root = write(tmp_path / "one", [gradient((30, 60))])
    names = [f"rows {number}" for number in range(30)]
    changes = {"class_names": names, "crop_size": [100, 100]}
    flat = {"augmentation": {**PLAIN, "flip": 0.0}}
    for base_length, size in ((0, (30, 60)), (90, (45, 90)), (36, (18, 36))):
        _, y = task_on(root, flat, **changes, base_length=base_length).batch(0, size=1, seed=0)
        kept = (y[0] != IGNORED).nonzero().amax(0) + 1
        assert tuple(kept.tolist()) == size


# --- loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [[], [1.0, 2.0, 5.0]])
def test_loss_is_the_weighted_cross_entropy_of_labelled_pixels(
    root: Path, weights: list[float]
) -> None:
    task = task_on(root, {"class_weights": weights})
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


PROBABLE = [0.05, 0.2, 0.35, 0.5, 0.65, 0.8]  # of the true class, pixel by pixel


def two_classes(probable: list[float]) -> tuple[Tensor, Tensor]:
    """Scores (1, 3, 1, n + 1) and target: class 0 or 1 in turn, and an ignored pixel."""
    target = torch.tensor([[[n % 2 for n in range(len(probable))] + [IGNORED]]])
    output = torch.full((1, 3, 1, len(probable) + 1), -30.0)
    for place, p in enumerate(probable):
        output[0, place % 2, 0, place] = math.log(p)
        output[0, 1 - place % 2, 0, place] = math.log(1 - p)
    return output, target


def test_a_pixel_as_probable_as_the_threshold_is_not_hard(root: Path) -> None:
    """Scores of 0 give a probability of exactly a half, as in the official `pred < threshold`."""
    task = task_on(root, {"loss": "ohem", "ohem_threshold": 0.5, "ohem_pixels": 1})
    output, target = two_classes([0.25, 0.5])
    output[0, :, 0, 1] = torch.tensor([0.0, 0.0, -1e4])
    assert task.loss(output, target).item() == pytest.approx(math.log(4), rel=1e-5)


@pytest.mark.parametrize(
    ("threshold", "least", "hard"),
    [
        (0.4, 1, 3),  # 0.05, 0.2, 0.35 are below
        (0.4, 3, 3),
        (0.4, 4, 4),  # so many are wanted at least
        (0.4, 6, 6),
        (0.4, 131072, 6),  # more than there are: all
        (0.9, 1, 6),
        (0.0, 2, 2),
    ],
)
@pytest.mark.parametrize("weights", [[], [1.0, 3.0, 9.0]])
def test_hard_pixels_alone_count(
    root: Path, weights: list[float], threshold: float, least: int, hard: int
) -> None:
    ohem = {"loss": "ohem", "ohem_threshold": threshold, "ohem_pixels": least}
    task = task_on(root, {**ohem, "class_weights": weights})
    factors = [(weights or [1.0, 1.0])[n % 2] for n in range(hard)]
    losses = [-w * math.log(p) for w, p in zip(factors, PROBABLE, strict=False)]
    loss = task.loss(*two_classes(PROBABLE))
    assert loss.item() == pytest.approx(sum(losses) / hard, rel=1e-5)


def test_hard_pixels_are_those_of_the_official_code(root: Path) -> None:
    """Its definition: below the larger of threshold and value number `min_kept` of the sorted."""
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(2, 3, 16, 16, generator=generator)
    target = torch.randint(0, 3, (2, 16, 16), generator=generator)
    target[0, :4] = IGNORED
    for threshold, least in ((0.3, 10), (0.3, 300), (0.05, 100)):
        ohem = {"loss": "ohem", "ohem_threshold": threshold, "ohem_pixels": least}
        task = task_on(root, {**ohem, "class_weights": [0.5, 1.0, 2.0]})
        kept = (target != IGNORED).numpy().ravel()
        scores = output.double().permute(0, 2, 3, 1).reshape(-1, 3).numpy()[kept]
        true = target.numpy().ravel()[kept]
        shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        of_true = shares[np.arange(len(true)), true]
        bound = max(np.sort(of_true)[least], threshold)
        losses = -np.log(of_true) * np.array([0.5, 1.0, 2.0])[true]
        wanted = losses[of_true < bound].mean()
        assert task.loss(output, target).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "ohem"])
def test_the_two_losses_of_ocr(root: Path, loss: str) -> None:
    """The coarse output by all pixels at 0.4, the final one whole, or by its hard pixels."""
    ohem: dict[str, Any] = {"loss": loss}
    if loss == "ohem":
        ohem |= {"ohem_threshold": 0.4, "ohem_pixels": 1}
    task = task_on(root, {"head": "ocr", **ohem})
    coarse, target = two_classes(list(reversed(PROBABLE)))
    final, _ = two_classes(PROBABLE)
    entropies = [-math.log(p) for p in PROBABLE]
    counted = entropies[:3] if loss == "ohem" else entropies
    wanted = 0.4 * sum(entropies) / 6 + sum(counted) / len(counted)
    assert task.loss((coarse, final), target).item() == pytest.approx(wanted, rel=1e-5)
    other = task_on(root, {"head": "ocr", "coarse_weight": 0.0, **ohem})
    wanted = sum(counted) / len(counted)
    assert other.loss((coarse, final), target).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "ohem"])
def test_a_batch_without_a_labelled_pixel_has_loss_zero(root: Path, loss: str) -> None:
    task = task_on(root, {"loss": loss})
    target = torch.full((1, 8, 8), task.ignore_label)
    output = torch.randn(1, task.num_outputs, 2, 2, requires_grad=True)
    total = task.loss(output, target)
    total.backward()
    assert total.item() == 0
    assert output.grad is not None
    assert output.grad.abs().max() == 0


def test_loss_of_half_precision_is_taken_in_single(root: Path) -> None:
    output, target = two_classes(PROBABLE)
    half = output.bfloat16()
    single = task_on(root).loss(half.float(), target)
    assert single.dtype == torch.float32
    assert torch.equal(task_on(root).loss(half, target), single)


# --- metrics -----------------------------------------------------------------------------------


def test_confusion_counts_pairs_without_ignored_pixels() -> None:
    target = torch.tensor([[0, 0, 1, 1], [2, 2, IGNORED, IGNORED]])
    classes = torch.tensor([[0, 1, 1, 1], [0, 2, 0, 2]])
    counts = confusion(classes, target, 3, IGNORED)
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("counts", "miou", "accuracy", "of_classes"),
    [
        ([[1, 1, 0], [0, 2, 0], [1, 0, 1]], (1 / 3 + 2 / 3 + 1 / 2) / 3, 4 / 6, 2 / 3),
        ([[3, 0, 0], [0, 4, 0], [0, 0, 5]], 1.0, 1.0, 1.0),
        ([[3, 0, 0], [0, 4, 0], [0, 0, 0]], 2 / 3, 1.0, 2 / 3),  # one never occurs: counts 0
        ([[2, 0, 2], [0, 4, 0], [0, 0, 0]], (0.5 + 1) / 3, 6 / 8, 1.5 / 3),
        ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], 0.0, 0.0, 0.0),
    ],
)
def test_metrics_by_hand(
    counts: list[list[int]], miou: float, accuracy: float, of_classes: float
) -> None:
    matrix = torch.tensor(counts)
    assert mean_iou(matrix) == pytest.approx(miou, abs=1e-12)
    assert pixel_accuracy(matrix) == pytest.approx(accuracy, abs=1e-12)
    found = segmentation_module.class_accuracies(matrix).mean()
    assert float(found) == pytest.approx(of_classes, abs=1e-12)


# --- evaluation --------------------------------------------------------------------------------


def projection(images: Tensor) -> Tensor:
    """A fixed network of stride 4: pooled colours through a random matrix."""
    matrix = torch.randn(3, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    shifts = torch.randn(3, generator=torch.Generator().manual_seed(1))
    return F.conv2d(F.avg_pool2d(images, 4, ceil_mode=True), matrix, shifts)


def normalised(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> (1, 3, H, W)."""
    return ((torch.from_numpy(np.array(image)).float() - MEAN) / STD).permute(2, 0, 1)[None]


def metrics_of(found: Iterable[np.ndarray], labels: Iterable[np.ndarray]) -> dict[str, float]:
    """mIoU and accuracies of maps of three classes, counted pixel by pixel."""
    hits, union, seen = np.zeros(3), np.zeros(3), np.zeros(3)
    for classes, true in zip(found, labels, strict=True):
        kept = true != IGNORED
        for c in range(3):
            hits[c] += ((classes == c) & (true == c)).sum()
            union[c] += (((classes == c) | (true == c)) & kept).sum()
            seen[c] += (true == c).sum()
    return {
        "miou": np.mean(hits / np.maximum(union, 1)),
        "pixel_accuracy": hits.sum() / seen.sum(),
        "class_accuracy": np.mean(hits / np.maximum(seen, 1)),
    }


VAL = [labels_of(size, seed=number) for number, size in enumerate(SIZES)]


@pytest.mark.parametrize("gib", [4.0, 0.0])
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_evaluation_of_ragged_images_is_that_of_each_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch, batch: int, gib: float
) -> None:
    monkeypatch.setattr(segmentation_module, "EVAL_BATCH", batch)
    sizes = []

    def predict(images: Tensor) -> Tensor:
        sizes.append(len(images))
        with torch.inference_mode():
            return projection(images)

    metrics = task_on(root, cache_gib=gib).evaluate(predict)
    assert sizes == {1: [1] * 5, 2: [2, 1, 1, 1], 8: [2, 1, 1, 1]}[batch]
    found = []
    for labels in VAL:
        scores = projection(normalised(image_of(labels)))
        enlarged = F.interpolate(scores, labels.shape, mode="bilinear", align_corners=False)
        found.append(enlarged[0].argmax(0).numpy())
    assert metrics == pytest.approx(metrics_of(found, VAL), abs=1e-12)
    assert 0 < metrics["miou"] < 1


def test_no_more_than_two_batches_wait_for_the_network(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_on(root)
    monkeypatch.setattr(segmentation_module, "EVAL_BATCH", 1)
    make, made, seen = task._stacked, list[range](), list[int]()

    def stacked(numbers: range) -> Any:
        made.append(numbers)
        return make(numbers)

    def predict(images: Tensor) -> Tensor:
        seen.append(len(images))
        assert len(made) <= len(seen) + 2
        return projection(images)

    monkeypatch.setattr(task, "_stacked", stacked)
    task.evaluate(predict)
    assert len(made) == len(seen) == 5


def test_the_final_output_of_ocr_is_what_is_tested(root: Path) -> None:
    task, found = task_on(root, {"head": "ocr"}), []
    for labels in VAL:
        scores = projection(normalised(image_of(labels)))
        # The official branch with OCR has ALIGN_CORNERS: True, in losses and tests too.
        enlarged = F.interpolate(scores, labels.shape, mode="bilinear", align_corners=True)
        found.append(enlarged[0].argmax(0).numpy())
    expected = metrics_of(found, VAL)
    metrics = task.evaluate(lambda x: (-projection(x), projection(x)))
    assert metrics == pytest.approx(expected, abs=1e-12)
    assert task.evaluate(lambda x: (projection(x), -projection(x))) != metrics


def test_large_images_are_tested_one_by_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def predict(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return projection(images)

    monkeypatch.setattr(segmentation_module, "EVAL_VALUES", 2 * 3 * 40 * 50)
    task_on(root).evaluate(predict)
    assert sizes == [2, 1, 1, 1]
    sizes.clear()
    task_on(root, {"test": {"scales": [1.0, 1.5]}}).evaluate(predict)
    assert sizes == [1] * 10


def by_colour(images: Tensor) -> Tensor:
    """A network that looks at each pixel alone: its answer for any part is known."""
    matrix = torch.tensor([[2.0, -1.0, 0.5], [-1.5, 1.0, 1.0], [0.3, 0.2, -1.0]])
    return torch.einsum("kc,bchw->bkhw", matrix, images)


def colourful(sizes: Iterable[Size]) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [
        (rng.integers(0, 256, (*size, 3), dtype=np.uint8), labels_of(size, seed=7))
        for size in sizes
    ]


def expected_by_colour(
    pairs: list[tuple[np.ndarray, np.ndarray]], scales: list[float]
) -> dict[str, float]:
    """Mean probabilities of scaled whole images, enlarged to the size of the labels."""
    found = []
    for image, labels in pairs:
        total = torch.zeros(1, 3, *labels.shape)
        for scale in scales:
            size = [int(side * scale + 0.5) for side in labels.shape[::-1]]
            scaled = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
            shares = by_colour(normalised(np.asarray(scaled))).softmax(1)
            total += F.interpolate(shares, labels.shape, mode="bilinear", align_corners=False)
        found.append(total[0].argmax(0).numpy())
    return metrics_of(found, [labels for _, labels in pairs])


WINDOWS = [
    {"window": [32, 32]},
    {"window": [33, 40], "overlap": 0.0},
    {"window": [32, 47], "overlap": 0.9},
    {"window": [90, 100]},  # larger than the images
    {"window": [100, 36], "overlap": 0.5},
]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [[1.0], [0.75, 1.0, 1.5]])
@pytest.mark.parametrize("test", WINDOWS, ids=str)
def test_windows_of_a_network_that_sees_pixels_alone_give_the_whole_image(
    tmp_path: Path, cache: Path, test: dict[str, Any], scales: list[float], flip: bool
) -> None:
    pairs = colourful([(64, 80), (53, 61)])  # neither divides by windows or steps
    task = task_on(
        write(tmp_path / "data", pairs), {"test": {**test, "scales": scales, "flip": flip}}
    )
    metrics = task.evaluate(by_colour)
    assert metrics == pytest.approx(expected_by_colour(pairs, scales), abs=1e-12)


def test_overlapping_pixels_have_the_mean_of_their_windows(tmp_path: Path, cache: Path) -> None:
    """Windows of 40 columns, at 0 and at 20 of 60; the second one answers with more weight."""
    labels = np.zeros((40, 60), dtype=np.uint8)
    root = write(tmp_path / "one", [(image_of(labels), labels)])
    answers = [torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.05, 0.9, 0.05])]
    calls: list[Size] = []

    def predict(images: Tensor) -> Tensor:
        calls.append((images.shape[2], images.shape[3]))
        shares = answers[len(calls) - 1].log()
        return shares.reshape(1, 3, 1, 1).expand(1, 3, 10, 10)

    task = task_on(root, {"test": {"window": [40, 40], "overlap": 0.5}})
    metrics = task.evaluate(predict)
    assert calls == [(40, 40), (40, 40)]
    # 20 columns of class 0, then 40 of class 1: the middle's mean is (0.375, 0.55, 0.075).
    assert metrics["pixel_accuracy"] == pytest.approx(20 / 60, abs=1e-12)
    assert metrics["miou"] == pytest.approx(20 / 60 / 3, abs=1e-12)


def test_images_smaller_than_a_window_are_filled_up_with_black(tmp_path: Path, cache: Path) -> None:
    labels = np.zeros((40, 50), dtype=np.uint8)
    image = np.full((40, 50, 3), 200, dtype=np.uint8)
    root = write(tmp_path / "one", [(image, labels)])
    seen = []

    def predict(images: Tensor) -> Tensor:
        seen.append(images)
        return by_colour(images)

    task_on(root, {"test": {"window": [48, 64]}}).evaluate(predict)
    (shown,) = seen
    expected = np.zeros((48, 64, 3), dtype=np.uint8)
    expected[:40, :50] = 200
    assert torch.allclose(shown, normalised(expected), atol=1e-6)
    # Official `padvalue`: -mean / std of ImageNet, on values of 0 to 1.
    black = [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    assert shown[0, :, -1, -1].tolist() == pytest.approx(black, abs=1e-6)


@pytest.mark.parametrize(
    ("length", "window", "overlap", "starts"),
    [
        (2048, 1024, 0.0, [0, 1024]),
        (2048, 1024, 1 / 3, [0, 682, 1024]),  # official: steps of int(1024 * 2 / 3)
        (1000, 480, 1 / 3, [0, 320, 520]),
        (480, 480, 1 / 3, [0]),
        (481, 480, 1 / 3, [0, 1]),
        (50, 40, 0.99, list(range(11))),  # steps of at least a pixel
    ],
)
def test_windows_end_with_the_side(
    length: int, window: int, overlap: float, starts: list[int]
) -> None:
    assert window_starts(length, window, overlap) == starts


def test_probabilities_of_views_are_averaged_not_scores(tmp_path: Path, cache: Path) -> None:
    """Each view has an answer of its own, everywhere alike."""
    labels = np.zeros((40, 60), dtype=np.uint8)
    root = write(tmp_path / "one", [(image_of(labels), labels)])
    views = [[0.001, 0.5, 0.499], [0.7, 0.25, 0.05], [0.7, 0.25, 0.05], [0.6, 0.35, 0.05]]
    sizes: list[Size] = []

    def predict(images: Tensor) -> Tensor:
        sizes.append((images.shape[2], images.shape[3]))
        scores = torch.tensor(views[len(sizes) - 1]).log() + len(sizes)  # a shift says nothing
        return scores.reshape(1, 3, 1, 1).expand(1, 3, 5, 7)

    test = {"test": {"scales": [0.5, 1.75], "flip": True}}
    # Sums 2.001, 1.35, 0.649: class 0. By the products 0.00029 and 0.0109 it would be class 1.
    assert task_on(root, test).evaluate(predict)["pixel_accuracy"] == 1
    assert sizes == [(20, 30), (20, 30), (70, 105), (70, 105)]
    sizes.clear()
    # Classes 0 and 1 a pair: they change places in the second and fourth view; 1.301, 2.05.
    pairs = {"flip_pairs": [["sky", "road"]]}
    assert task_on(root, test, **pairs).evaluate(predict)["pixel_accuracy"] == 0


@pytest.mark.parametrize("window", [0, 32])
def test_a_mirrored_view_is_turned_back_in_place_and_class(
    tmp_path: Path, cache: Path, window: int
) -> None:
    """A network to which left of the middle of what it sees is class 0, right of it class 1."""
    half = (window or 64) // 2
    labels = (np.zeros((40, 1)) + np.arange(64) // half % 2).astype(np.uint8)
    root = write(tmp_path / "one", [(image_of(labels), labels)])

    def sides(images: Tensor) -> Tensor:
        left = torch.arange(images.shape[-1]) < half
        shares = torch.stack([0.2 + 0.6 * left, 0.8 - 0.6 * left, torch.full(left.shape, 0.1)])
        return shares.log()[None, :, None].expand(len(images), 3, *images.shape[-2:])

    windows = {"window": [window] * 2, "overlap": 0.0} if window else {}
    test = {"test": {"flip": True, **windows}}
    pairs = {"flip_pairs": [["sky", "road"]]}
    assert task_on(root, test, **pairs).evaluate(sides)["pixel_accuracy"] == 1
    assert task_on(root, test).evaluate(sides)["pixel_accuracy"] == 0.5  # the two views disagree


def test_the_flip_test_is_exactly_symmetric(root: Path, tmp_path: Path) -> None:
    """Mirrored images with mirrored labels have the same figures."""
    mirrored = write(
        tmp_path / "mirrored",
        [(image_of(each)[:, ::-1].copy(), each[:, ::-1].copy()) for each in VAL],
    )

    def lopsided(images: Tensor) -> Tensor:
        kernel = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(2))
        return F.conv2d(images, kernel, stride=2, padding=1)

    test = {"test": {"flip": True}}
    one, other = (task_on(each, test).evaluate(lopsided) for each in (root, mirrored))
    assert one == other
    assert task_on(root).evaluate(lopsided) != task_on(mirrored).evaluate(lopsided)


def test_images_are_resized_for_the_test_and_compared_at_the_labels_size(root: Path) -> None:
    seen = set()

    def predict(images: Tensor) -> Tensor:
        seen.add(tuple(images.shape[2:]))
        return projection(images)

    test = {"resize": [48, 36], "scales": [1.0]}
    metrics = task_on(root, {"test": test}).evaluate(predict)
    assert seen == {(48, 36)}
    found = []
    for labels in VAL:
        resized = Image.fromarray(image_of(labels)).resize((36, 48), Image.Resampling.BILINEAR)
        scores = projection(normalised(np.asarray(resized)))
        enlarged = F.interpolate(scores, labels.shape, mode="bilinear", align_corners=False)
        found.append(enlarged[0].argmax(0).numpy())
    assert metrics == pytest.approx(metrics_of(found, VAL), abs=1e-12)


def test_the_base_length_holds_in_the_test_too(root: Path) -> None:
    seen = []

    def predict(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape[2:]))
        return projection(images)

    task_on(root, {"test": {"scales": [0.5, 1.0]}}, base_length=100).evaluate(predict)
    # 40x50 -> 80x100, 64x64 -> 100x100, 33x47 -> 70x100
    assert seen[:4] == [(40, 50), (80, 100), (50, 50), (100, 100)]
    assert seen[4:6] == [(35, 50), (70, 100)]


# Sizes: 40x50 twice, 64x64, 33x47, 40x50.
TOO_SMALL: list[tuple[dict[str, Any], dict[str, Any], int, str]] = [
    (
        {},
        {},
        64,
        "00.png: task.test.scales: 1.0: at this scale the image of 50x40 pixels is tested at 50x40;"
        " networks of the study take 64x64 or more",
    ),
    ({}, {}, 34, "03.png: task.test.scales: 1.0: at this scale the image of 47x33 pixels"),
    (
        {"scales": [1.0, 0.05]},
        {},
        32,
        "00.png: task.test.scales: 0.05: at this scale the image of 50x40 pixels is tested at 3x2;",
    ),
    (
        {},
        {"base_length": 3},
        32,
        "00.png: task.test.scales: 1.0: at this scale and data.base_length 3 the image of 50x40 "
        "pixels is tested at 3x2;",
    ),
]


@pytest.mark.parametrize(("test", "data", "least", "text"), TOO_SMALL)
def test_images_tested_smaller_than_networks_take_are_refused(
    root: Path, test: dict[str, Any], data: dict[str, Any], least: int, text: str
) -> None:
    with pytest.raises(InputError) as caught:
        task_on(root, {"test": test}, **data).check(least)
    assert str(caught.value).startswith(text)


def test_images_tested_just_as_large_as_networks_take_are_accepted(root: Path) -> None:
    task_on(root).check(33)
    task_on(root, {"test": {"scales": [1.5, 1.0]}}).check(33)
    # 33x47 -> 64x91: 33 * 91 / 47 = 63.9
    task_on(root, base_length=91).check(64)
    # Windows and resized images are of one size, which the study has checked.
    task_on(root, {"test": {"window": [64, 64], "scales": [0.1]}}).check(64)
    task_on(root, {"test": {"resize": [64, 64]}}).check(64)


def test_an_image_lower_than_networks_take_is_refused_before_training(
    tmp_path: Path, cache: Path
) -> None:
    task = task_on(make_folder(tmp_path / "low", [(12, 40)]))
    with pytest.raises(
        InputError, match=r"^00\.png: .* the image of 40x12 pixels is tested at 40x12;"
    ):
        task.check(32)


def test_what_is_written_beside_the_metrics(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    metrics = task_on(root).evaluate(by_colour, out=out)
    assert metrics == task_on(root).evaluate(by_colour)
    classes = json.loads((out / "classes.json").read_text())
    assert classes["class_names"] == CLASSES
    assert np.mean(classes["iou"]) == pytest.approx(metrics["miou"])
    assert np.mean(classes["accuracy"]) == pytest.approx(metrics["class_accuracy"])
    counts = [sum(int((labels == c).sum()) for labels in VAL) for c in range(3)]
    assert classes["pixels"] == counts
    names = sorted(file.name for file in (out / "predictions").iterdir())
    assert names == ["0_00.png", "1_01.png", "2_02.png", "3_03.png"]
    with Image.open(out / "predictions" / "2_02.png") as picture:
        assert picture.mode == "L"
        found = np.asarray(picture)
    scores = by_colour(normalised(image_of(VAL[2])))
    assert np.array_equal(found, scores[0].argmax(0).numpy())


def test_label_maps_hold_in_evaluation(tmp_path: Path, cache: Path) -> None:
    ids = np.arange(40 * 40, dtype=np.uint8).reshape(40, 40) % 4
    root = write(tmp_path / "ids", [(image_of(ids), ids)])
    mapping = [1, IGNORED, 2, 0]

    def right(images: Tensor) -> Tensor:
        grey = torch.from_numpy(pixels(images)[..., 0] // 60)  # the id: 0 to 3
        classes = torch.tensor([1, 0, 2, 0])[grey]
        return F.one_hot(classes, 3).permute(0, 3, 1, 2).float()

    metrics = task_on(root, label_map=mapping).evaluate(right)
    assert metrics == {"miou": 1.0, "pixel_accuracy": 1.0, "class_accuracy": 1.0}
    assert task_on(root, label_map=[0, IGNORED, 2, 1]).evaluate(right)["miou"] == pytest.approx(
        1 / 3
    )


def test_preprocessing_and_sample_describe_the_data(root: Path) -> None:
    task = task_on(root)
    assert task.preprocessing()["classes"] == CLASSES
    assert task.preprocessing()["input_size"] == [40, 50]
    assert np.array_equal(task.samples(1)[0], image_of(VAL[0]))


# --- real data ---------------------------------------------------------------------------------


def test_camvids_truth_fed_back_scores_one_and_its_sky_what_the_files_say(
    real_data: Callable[[str], Path], cache: Path
) -> None:
    source = real_data("camvid")
    data = SegmentationFolder.model_validate(
        {
            "kind": "segmentation_folder",
            "root": str(source),
            "label_set": "camvid",
            "crop_size": [160, 224],
        }
    )
    prepared = prepare(data, lambda done, total: None)
    task = Segmentation(SegmentationTask(kind="segmentation"), data, prepared)
    files = sorted((source / "valannot").iterdir())
    labels = np.stack([np.asarray(Image.open(file)) for file in files])
    place = 0

    def truth(images: Tensor) -> Tensor:
        nonlocal place
        some = labels[place : place + len(images)]
        place += len(images)
        classes = torch.from_numpy(np.where(some == 11, 0, some)).long()
        return F.one_hot(classes, 11).permute(0, 3, 1, 2).float()

    assert task.evaluate(truth) == {"miou": 1.0, "pixel_accuracy": 1.0, "class_accuracy": 1.0}
    metrics = task.evaluate(
        lambda x: torch.eye(11)[0].reshape(1, 11, 1, 1).expand(len(x), 11, 2, 2)
    )
    sky, kept = int((labels == 0).sum()), int((labels != 11).sum())
    assert metrics["pixel_accuracy"] == pytest.approx(sky / kept, abs=1e-12)
    assert metrics["miou"] == pytest.approx(sky / kept / 11, abs=1e-12)
    assert metrics["class_accuracy"] == pytest.approx(1 / 11, abs=1e-12)
