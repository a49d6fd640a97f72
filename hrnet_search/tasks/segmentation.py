"""Semantic segmentation: random crops, losses, tests at several scales and by sliding windows.

Shapes: B images of (H, W) pixels, K classes, network outputs of (H/4, W/4).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..files import write_json
from ..settings import SegmentationTask
from ..views import scaled_size
from .base import (
    MEAN,
    STD,
    WHOLE,
    Part,
    Predict,
    batch_indices,
    evenly,
    normalise,
    sample_rng,
    torch_seed,
)
from .cache import Prepared
from .images import BATCHES_AHEAD, Images, in_order
from .segmentation_data import Data, label_table

EVAL_BATCH = 8
EVAL_VALUES = 2**25  # scores of a batch of evaluation at full size; beyond it, one image at a time
PICTURES = 4  # validation images whose predicted classes are kept
BLACK = -(MEAN / STD)[:, None, None]  # (3, 1, 1), normalised: what lies outside, as official
# Ranges of torchvision's RandomPhotometricDistort, which would also swap channels.
JITTER = {"brightness": 0.125, "contrast": 0.5, "saturation": 0.5, "hue": 0.05}

Size = tuple[int, int]


@dataclass(frozen=True)
class Crop:
    """Where a training crop comes from.

    Args:
        number: Of the image.
        size: (H, W) that the whole image is scaled to.
        top: First row of the crop in the scaled image.
        left: Its first column.
        mirrored: Is the crop mirrored in the end?
    """

    number: int
    size: tuple[int, int]
    top: int
    left: int
    mirrored: bool


class Segmentation:
    """The segmentation task on images of any sizes.

    Args:
        task: Head, loss, augmentation, test.
        data: Classes, ignored label, crop.
        prepared: What `segmentation_data.prepare` made of it.
    """

    def __init__(self, task: SegmentationTask, data: Data, prepared: Prepared) -> None:
        self.head, self.num_outputs = task.head, data.num_outputs
        self.align_corners = task.head == "ocr"  # as the official branches with and without it
        self.task, self.augmentation, self.test = task, task.augmentation, task.test
        self.class_names, self.ignore_label = data.class_names, data.ignore_label
        self.class_weights = torch.tensor(task.class_weights or [1.0] * self.num_outputs)
        self.crop_size, self.base_length = data.size, data.base_length
        self.exchanged = exchanged_classes(data)
        classes = label_table(data)
        mirrored = np.arange(256, dtype=np.uint8)
        mirrored[: self.num_outputs] = self.exchanged
        self.tables = (classes, mirrored[classes])  # class of each label, as it is and mirrored
        self.train, self.val = Split(prepared, "train"), Split(prepared, "val")
        self.val_names: list[str] = prepared.json("val_names")

    @property
    def num_train(self) -> int:
        return len(self.train)

    def batch(
        self, step: int, *, size: int, seed: int, part: Part = WHOLE
    ) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and labels (B, H, W): random crops of scaled images, some mirrored.

        Scaled, then cropped, then mirrored, as in the official `gen_sample`.
        """
        rank, processes = part
        crops = self._crops(step, size=size, seed=seed)
        pairs = [
            self._cut(crops[place], sample_rng(step, place, seed=seed))
            for place in range(rank, size, processes)
        ]
        images = np.stack([image for image, _ in pairs])
        labels = np.stack([label for _, label in pairs])
        return normalise(images), torch.from_numpy(labels).long()

    def _crops(self, step: int, *, size: int, seed: int) -> list[Crop]:
        """Of the whole batch, so that every process that shares it draws the same ones."""
        rng = np.random.default_rng((seed, step, 1))
        index = batch_indices(self.num_train, step, size=size, seed=seed)
        return [self._crop(int(number), rng) for number in index]

    def _crop(self, number: int, rng: np.random.Generator) -> Crop:
        """A random crop; it starts at 0 along a side that the scaled image does not fill."""
        least, largest = self.augmentation.scale
        # Nothing is drawn where there is no choice: figures from before scales stay as they are.
        scale = rng.uniform(least, largest) if least < largest else least
        size = scaled_size(self._resized(number), scale, self.base_length)
        top, left = (
            int(rng.integers(max(side - wanted, 0) + 1))
            for side, wanted in zip(size, self.crop_size, strict=True)
        )
        return Crop(number, size, top, left, mirrored=rng.random() < self.augmentation.flip)

    def _resized(self, number: int) -> tuple[int, int]:
        height, width = self.augmentation.resize or self.train.size(number)
        return height, width

    def _cut(self, crop: Crop, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The pixels (H, W, 3) and classes (H, W) of a crop."""
        image, labels = self.train[crop.number]
        bottom = min(crop.top + self.crop_size[0], crop.size[0])
        right = min(crop.left + self.crop_size[1], crop.size[1])
        window = (crop.top, crop.left, bottom, right)
        image = scaled_window(image, crop.size, window)
        labels = self.tables[crop.mirrored][scaled_window(labels, crop.size, window)]
        if self.augmentation.photometric:
            image = self._vary(image, rng)
        image, labels = filled_up(image, labels, self.crop_size, self.ignore_label)
        return (image[:, ::-1], labels[:, ::-1]) if crop.mirrored else (image, labels)

    def _vary(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        with torch_seed(rng):
            return np.asarray(self._jitter(Image.fromarray(image)))  # half the time of a tensor

    @cached_property
    def _jitter(self) -> Any:
        from torchvision.transforms import v2  # slow to import, and seldom used

        return v2.ColorJitter(**JITTER)

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Loss at full resolution; outputs are enlarged bilinearly, as in the paper.

        Head ocr puts out coarse and final classes: the coarse ones count `coarse_weight` times,
        and always by all pixels, as in the official `OhemCrossEntropy`: by their weighted mean over
        the labelled ones, with either loss, where the official mean with hard pixels is over all.
        """
        size = (target.shape[-2], target.shape[-1])
        final = self._hard_pixels if self.task.loss == "ohem" else self._cross_entropy
        if isinstance(output, Tensor):
            return final(self._enlarge(output.float(), size), target)
        coarse, last = (self._enlarge(logits.float(), size) for logits in output)
        return self.task.coarse_weight * self._cross_entropy(coarse, target) + final(last, target)

    def _enlarge(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Bilinear, to (H, W); the paper enlarges the output four times (section 5)."""
        corners = self.align_corners
        return F.interpolate(values, size=size, mode="bilinear", align_corners=corners)

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        weights = self.class_weights.to(logits)
        total = F.cross_entropy(
            logits, target, weights, ignore_index=self.ignore_label, reduction="sum"
        )
        kept = target[target != self.ignore_label]
        return total / weights[kept].sum().clamp_min(1e-12)  # 0, not 0/0, if all is ignored

    def _hard_pixels(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of the pixels whose true class is less probable than `ohem_threshold`.

        Where these are fewer than `ohem_pixels`, the so many least probable ones. The official
        code, given no more pixels than that, leaves out the most probable of them; we do not.
        """
        kept = target != self.ignore_label
        losses = F.cross_entropy(logits, target, ignore_index=self.ignore_label, reduction="none")
        losses, weights = losses[kept], self.class_weights.to(logits)[target[kept]]
        if not len(losses):
            return losses.sum()
        probable = (-losses.detach()).exp()  # of the true class
        # Sorted, as there is no deterministic selection of the n-th on a GPU.
        bound = probable.sort().values[min(self.task.ohem_pixels, len(losses)) - 1]
        hard = (probable < self.task.ohem_threshold) | (probable <= bound)
        return (losses * weights)[hard].mean()

    @torch.no_grad()
    def evaluate(self, predict: Predict, *, out: Path | None = None) -> dict[str, float]:
        """mIoU, pixel accuracy and mean accuracy of the classes, fractions, by `task.test`.

        Scale 1 of an image is `test.resize`, or else the one with `base_length`. Where an image is
        seen several times, its class probabilities are averaged at the size of its labels; the
        official code sums the exponentials of scores, averages scores of mirrored images before,
        and resizes without smoothing.

        Args:
            predict: Scores (B, K, H/4, W/4), or with head ocr (coarse, final), of (B, 3, H, W).
            out: Gets `classes.json`, figures of each class, and the predicted classes of the
                first images as grey PNG files in `predictions`.
        """
        total = torch.zeros(self.num_outputs, self.num_outputs, dtype=torch.long)
        batches = in_order(self._stacked, self._eval_batches(), ahead=BATCHES_AHEAD)
        for numbers, images, labels in batches:
            found = self._classes(predict, images)
            target = torch.from_numpy(self.tables[0][labels]).long()
            total += confusion(found, target, self.num_outputs, self.ignore_label)
            if out is not None:
                self._draw(out / "predictions", numbers, found)
        if out is not None:
            write_json(out / "classes.json", self._by_class(total))
        return {
            "miou": mean_iou(total),
            "pixel_accuracy": pixel_accuracy(total),
            "class_accuracy": float(class_accuracies(total).mean()),
        }

    def _eval_batches(self) -> Iterator[range]:
        """All validation images in order, neighbours of one size together."""
        start = 0
        while start < len(self.val):
            size = self.val.size(start)
            most = self._eval_batch(size)
            stop = start + 1
            while stop < min(start + most, len(self.val)) and self.val.size(stop) == size:
                stop += 1
            yield range(start, stop)
            start = stop

    def _stacked(self, numbers: range) -> tuple[range, np.ndarray, np.ndarray]:
        """Images (B, H, W, 3) and labels (B, H, W) with their numbers."""
        pairs = [self.val[number] for number in numbers]
        images, labels = zip(*pairs, strict=True)
        return numbers, np.stack(images), np.stack(labels)

    def _eval_batch(self, size: tuple[int, int]) -> int:
        """How many images of one size are tested at once."""
        pixels = max(height * width for height, width in [size, *self._test_sizes(size)])
        return min(EVAL_BATCH, max(1, EVAL_VALUES // (self.num_outputs * pixels)))

    def _test_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """The sizes at which an image of (H, W) is seen."""
        height, width = self.test.resize or size
        scales = self.test.scales
        return [scaled_size((height, width), scale, self.base_length) for scale in scales]

    def _classes(self, predict: Predict, images: np.ndarray) -> Tensor:
        """Classes (B, H, W), on the CPU, of images (B, H, W, 3)."""
        size = (images.shape[1], images.shape[2])
        flips = (False, True) if self.test.flip else (False,)
        sizes = self._test_sizes(size)
        once = len(sizes) * len(flips) == 1  # of a single view the order of the scores is enough
        total: Any = 0.0
        for scaled in sizes:
            window = (0, 0, *scaled)
            x = normalise(np.stack([scaled_window(image, scaled, window) for image in images]))
            for mirrored in flips:
                if self.test.window:
                    total += self._enlarge(self._slide(predict, x, mirrored), size)
                else:
                    scores = self._enlarge(self._scores(predict, x, mirrored), size)
                    total += scores if once else scores.softmax(1)
        return total.argmax(1).cpu()

    def _scores(self, predict: Predict, x: Tensor, mirrored: bool) -> Tensor:
        """Scores (B, K, H/4, W/4) of images (B, 3, H, W); if they are shown mirrored, put right."""
        output = predict(x.flip(-1) if mirrored else x)
        scores = (output if isinstance(output, Tensor) else output[-1]).float()
        return scores.flip(-1)[:, self.exchanged] if mirrored else scores

    def _slide(self, predict: Predict, x: Tensor, mirrored: bool) -> Tensor:
        """Mean class probabilities (B, K, H, W) of the windows that cover images (B, 3, H, W).

        Images smaller than a window are filled up with black, as in `multi_scale_inference`.
        """
        height, width = self.test.window
        full = (max(height, x.shape[2]), max(width, x.shape[3]))
        filled = BLACK.expand(len(x), -1, *full).clone()
        filled[..., : x.shape[2], : x.shape[3]] = x
        tops = window_starts(full[0], height, self.test.overlap)
        lefts = window_starts(full[1], width, self.test.overlap)
        total: Any = None
        for top in tops:
            for left in lefts:
                part = (..., slice(top, top + height), slice(left, left + width))
                scores = self._scores(predict, filled[part], mirrored)
                seen = self._enlarge(scores, (height, width))
                if total is None:
                    total = seen.new_zeros(*seen.shape[:2], *full)
                    count = seen.new_zeros(full)
                total[part] += seen.softmax(1)
                count[part] += 1
        total /= count
        return total[..., : x.shape[2], : x.shape[3]]

    def _by_class(self, counts: Tensor) -> dict[str, Any]:
        return {
            "class_names": self.class_names,
            "iou": ious(counts).tolist(),
            "accuracy": class_accuracies(counts).tolist(),
            "pixels": counts.sum(1).tolist(),
        }

    def _draw(self, folder: Path, numbers: range, found: Tensor) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number, classes in zip(numbers, found, strict=True):
            if number < PICTURES:
                name = PurePosixPath(self.val_names[number]).stem
                picture = Image.fromarray(classes.byte().numpy())
                picture.save(folder / f"{number}_{name}.png")

    def check(self, least: int) -> None:
        if self.test.window or self.test.resize:
            return  # one size, which the study has checked
        for number, name in enumerate(self.val_names):
            full = self.val.size(number)
            for scale, size in zip(self.test.scales, self._test_sizes(full), strict=True):
                if min(size) < least:
                    raise self._too_small(name, full, scale, size, least)

    def _too_small(self, name: str, full: Size, scale: float, size: Size, least: int) -> InputError:
        given, shown = (f"{width}x{height}" for height, width in (full, size))
        by = f" and data.base_length {self.base_length}" if self.base_length else ""
        rule = f"at this scale{by} the image of {given} pixels is tested at {shown}"
        rule += f"; networks of the study take {least}x{least} or more"
        return InputError(rule, file=name, key="task.test.scales", value=scale)

    def measures(self, name: str) -> bool:
        return True

    def preprocessing(self) -> dict[str, Any]:
        return {
            "task": "segmentation",
            "input_size": list(self.val.size(0)),
            "mean": MEAN.tolist(),
            "std": STD.tolist(),
            "classes": self.class_names,
            "align_corners": self.align_corners,
            "resize": self.test.resize,
            "base_length": self.base_length,
        }

    def samples(self, most: int) -> list[np.ndarray]:
        return [np.array(self.val[number][0]) for number in evenly(len(self.val), most)]


class Split:
    """Images and label images of one split, by number.

    Args:
        prepared: What `segmentation_data.prepare` made.
        name: "train" or "val".
    """

    def __init__(self, prepared: Prepared, name: str) -> None:
        self.images = Images(prepared, f"{name}_images")
        self.labels = Images(prepared, f"{name}_labels", kind="label")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and labels (H, W) as they are in the files."""
        return self.images[number], self.labels[number]

    def size(self, number: int) -> tuple[int, int]:
        """(H, W) of both."""
        return self.labels.size(number)


def exchanged_classes(data: Data) -> list[int]:
    """Class that each class becomes in a mirrored image."""
    classes = list(range(data.num_outputs))
    for pair in data.flip_pairs:
        left, right = (data.class_names.index(name) for name in pair)
        classes[left], classes[right] = right, left
    return classes


def scaled_window(
    pixels: np.ndarray, size: tuple[int, int], window: tuple[int, int, int, int]
) -> np.ndarray:
    """A window of a scaled image, without scaling the rest of it.

    Images are scaled bilinearly, and smoothed where they shrink; labels get the nearest value.

    Args:
        pixels: Image (H, W, 3) or labels (H, W).
        size: (H, W) of the whole image when scaled.
        window: Its top, left, bottom and right in the scaled image.
    """
    top, left, bottom, right = window
    if pixels.shape[:2] == size:
        return pixels[top:bottom, left:right]
    rows, above, below = _reach(top, bottom, pixels.shape[0], size[0])
    columns, before, behind = _reach(left, right, pixels.shape[1], size[1])
    nearest = pixels.ndim == 2
    picture = Image.fromarray(pixels[rows, columns]).resize(
        (right - left, bottom - top),
        Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR,
        box=(before, above, behind, below),
    )
    return np.asarray(picture)


def _reach(start: int, stop: int, length: int, scaled: int) -> tuple[slice, float, float]:
    """What of a side of `length` pixels makes up start to stop of the side when scaled.

    Returns:
        The pixels that are looked at, and within these the two ends, in fractions of pixels.
    """
    ratio = length / scaled
    margin = int(max(ratio, 1)) + 2  # bilinear weights reach so far
    first = max(int(start * ratio) - margin, 0)
    last = min(int(stop * ratio) + 1 + margin, length)
    return slice(first, last), start * ratio - first, min(stop * ratio, length) - first


def filled_up(
    image: np.ndarray, labels: np.ndarray, size: tuple[int, int], ignore_label: int
) -> tuple[np.ndarray, np.ndarray]:
    """Brought to (H, W) by black, ignored, below and to the right, as official `rand_crop`."""
    height, width = labels.shape
    if (height, width) == size:
        return image, labels
    pad = ((0, size[0] - height), (0, size[1] - width))
    return np.pad(image, (*pad, (0, 0))), np.pad(labels, pad, constant_values=ignore_label)


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows start along a side: the last one ends with it.

    Args:
        length: Of the side in pixels, at least `window`.
        window: Pixels.
        overlap: Share of a window that the next one covers again; 1/3 in the official code.
    """
    step = max(1, int(window * (1 - overlap)))
    return [*range(0, length - window, step), length - window]


def confusion(classes: Tensor, target: Tensor, num_classes: int, ignore_label: int) -> Tensor:
    """Pixel counts (K, K), rows by true and columns by predicted class, without ignored ones."""
    kept = target != ignore_label
    pairs = target[kept] * num_classes + classes[kept]
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def ious(counts: Tensor) -> Tensor:
    """Intersection over union (K,) of each class, 0 for one that never occurs."""
    union = counts.sum(0) + counts.sum(1) - counts.diag()
    return counts.diag().double() / union.clamp_min(1)


def mean_iou(counts: Tensor) -> float:
    """Mean over all classes, one that never occurs counting 0, as the official code averages."""
    return float(ious(counts).mean())


def pixel_accuracy(counts: Tensor) -> float:
    return float(counts.diag().sum().double() / counts.sum().clamp_min(1))


def class_accuracies(counts: Tensor) -> Tensor:
    """Share (K,) of each class's pixels that are found, 0 for a class without pixels."""
    return counts.diag().double() / counts.sum(1).clamp_min(1)
