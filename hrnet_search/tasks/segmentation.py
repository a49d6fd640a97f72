"""Semantic segmentation on a folder of images and label images (the CamVid layout).

Shapes: B images of (H, W) pixels, K classes, network outputs of (H/4, W/4).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..settings import SegmentationFolder, SegmentationTask
from .base import MEAN, STD, batch_indices, normalise
from .cache import Prepared, cached

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
EVAL_BATCH = 8


class Segmentation:
    """The segmentation task on images of any sizes.

    Args:
        task: Head, class weights.
        settings: Classes, ignored label, crop.
        data: Flat pixels `*_images` and `*_labels`, and `*_index` with offset, height, width.
    """

    def __init__(
        self, task: SegmentationTask, settings: SegmentationFolder, data: Prepared
    ) -> None:
        self.head, self.num_outputs = task.head, len(settings.class_names)
        self.class_names, self.ignore_label = settings.class_names, settings.ignore_label
        self.class_weights = torch.tensor(task.class_weights or [1.0] * self.num_outputs)
        self.crop_size = (settings.crop_size[0], settings.crop_size[1])
        self.train, self.val = _Split(data, "train"), _Split(data, "val")

    def batch(self, step: int, *, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and labels (B, H, W): random crops, half of them mirrored."""
        rng = np.random.default_rng((seed, step, 1))
        index = batch_indices(len(self.train), step, size=size, seed=seed)
        pairs = [self._crop(*self.train[i], rng) for i in index]
        images = np.stack([image for image, _ in pairs])
        labels = np.stack([label for _, label in pairs])
        return normalise(images), torch.from_numpy(labels).long()

    def _crop(
        self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A random window; what lies outside a smaller image is the mean colour, ignored."""
        height, width = self.crop_size
        missing = (max(height - labels.shape[0], 0), max(width - labels.shape[1], 0))
        top = rng.integers(labels.shape[0] + missing[0] - height + 1)
        left = rng.integers(labels.shape[1] + missing[1] - width + 1)
        flip = rng.random() < 0.5
        window = (slice(top, top + height), slice(left, left + width))
        image, labels = image[window], labels[window]
        if any(missing):
            pad = ((0, height - labels.shape[0]), (0, width - labels.shape[1]))
            filled = np.tile(MEAN.round().byte().numpy(), (height, width, 1))
            filled[: image.shape[0], : image.shape[1]] = image
            image, labels = filled, np.pad(labels, pad, constant_values=self.ignore_label)
        return (image[:, ::-1], labels[:, ::-1]) if flip else (image, labels)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy at full resolution; the output is enlarged bilinearly, as in the paper."""
        logits = enlarge(output, (target.shape[-2], target.shape[-1]))
        weights = self.class_weights.to(logits)
        total = F.cross_entropy(
            logits, target, weights, ignore_index=self.ignore_label, reduction="sum"
        )
        kept = target[target != self.ignore_label]
        return total / weights[kept].sum().clamp_min(1e-12)  # 0, not 0/0, if all is ignored

    def evaluate(self, predict: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """mIoU and pixel accuracy, fractions: whole images, one scale, not mirrored."""
        total = torch.zeros(self.num_outputs, self.num_outputs, dtype=torch.long)
        for images, labels in self.val.batches(EVAL_BATCH):
            logits = predict(normalise(images)).float().cpu()
            classes = enlarge(logits, (labels.shape[1], labels.shape[2])).argmax(1)
            target = torch.from_numpy(labels).long()
            total += confusion(classes, target, self.num_outputs, self.ignore_label)
        return {"miou": mean_iou(total), "pixel_accuracy": pixel_accuracy(total)}

    def preprocessing(self) -> dict[str, Any]:
        return {
            "task": "segmentation",
            "input_size": list(self.sample().shape[:2]),
            "mean": MEAN.tolist(),
            "std": STD.tolist(),
            "classes": self.class_names,
        }

    def sample(self) -> np.ndarray:
        return np.array(self.val[0][0])


class _Split:
    """Images and labels of one split, by number."""

    def __init__(self, data: Prepared, name: str) -> None:
        self.images, self.labels = data.array(f"{name}_images"), data.array(f"{name}_labels")
        self.index = data.array(f"{name}_index")

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and labels (H, W)."""
        offset, height, width = (int(value) for value in self.index[number])
        pixels = slice(offset, offset + height * width)
        image = self.images[pixels].reshape(height, width, 3)
        return image, self.labels[pixels].reshape(height, width)

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All samples in order, neighbours of one shape together: (B, H, W, 3) and (B, H, W)."""
        start = 0
        while start < len(self):
            stop = start + 1
            while stop < min(start + size, len(self)) and self._alike(start, stop):
                stop += 1
            pairs = [self[number] for number in range(start, stop)]
            yield np.stack([image for image, _ in pairs]), np.stack([label for _, label in pairs])
            start = stop

    def _alike(self, first: int, second: int) -> bool:
        return bool((self.index[first, 1:] == self.index[second, 1:]).all())


def enlarge(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, to (H, W); the paper enlarges the output four times (section 5)."""
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def confusion(classes: Tensor, target: Tensor, num_classes: int, ignore_label: int) -> Tensor:
    """Pixel counts (K, K), rows by true and columns by predicted class, without ignored ones."""
    kept = target != ignore_label
    pairs = target[kept] * num_classes + classes[kept]
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_iou(counts: Tensor) -> float:
    """Mean over all classes, one that never occurs counting 0, as the official code averages."""
    hits = counts.diag().double()
    union = counts.sum(0) + counts.sum(1) - counts.diag()
    return float((hits / union.clamp_min(1)).mean())


def pixel_accuracy(counts: Tensor) -> float:
    return float(counts.diag().sum().double() / counts.sum().clamp_min(1))


def prepare(data: SegmentationFolder, progress: Callable[[int, int], None]) -> Prepared:
    """Decode and check every image once; later calls find the pixels in the cache.

    Raises:
        InputError: A folder or file is missing, broken or does not fit the class list.
    """
    root = Path(data.root)
    if not root.is_dir():
        rule = "there is no such folder; say where the data lies with --set data.root=FOLDER"
        raise InputError(rule, key="data.root", value=data.root)
    pairs = {split: _pairs(root, data, split) for split in ("train", "val")}
    files = [file for split in pairs.values() for pair in split for file in pair]
    identity = {
        "kind": data.kind,
        "format": 1,  # of the arrays; raise it when they change
        "num_classes": len(data.class_names),
        "ignore_label": data.ignore_label,
        "files": [_fingerprint(file) for file in files],
        "splits": {split: len(entries) for split, entries in pairs.items()},
    }
    return cached(identity, lambda: _decode(data, pairs, progress))


def _pairs(root: Path, data: SegmentationFolder, split: str) -> list[tuple[Path, Path]]:
    images = _folder(root, data, f"{split}_images")
    labels = {file.stem: file for file in _folder(root, data, f"{split}_labels")}
    for image in images:
        if image.stem not in labels:
            folder = getattr(data, f"{split}_labels")
            raise InputError(f"has no label image of the same name in {folder}", file=image)
    return [(image, labels[image.stem]) for image in images]


def _folder(root: Path, data: SegmentationFolder, name: str) -> list[Path]:
    folder = root / getattr(data, name)
    if not folder.is_dir():
        rule = f"there is no such folder in {root}"
        raise InputError(rule, key=f"data.{name}", value=getattr(data, name))
    files = sorted(
        f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()
    )
    if not files:
        rule = f"holds no images in {root}"
        raise InputError(rule, key=f"data.{name}", value=getattr(data, name))
    return files


def _fingerprint(file: Path) -> list[Any]:
    state = file.stat()
    return [str(file.resolve()), state.st_size, state.st_mtime_ns]


def _decode(
    data: SegmentationFolder,
    pairs: dict[str, list[tuple[Path, Path]]],
    progress: Callable[[int, int], None],
) -> dict[str, np.ndarray]:
    total, done = sum(len(entries) for entries in pairs.values()), 0
    arrays = {}
    for split, entries in pairs.items():
        images, labels, index, offset = [], [], [], 0
        for image_file, label_file in entries:
            image, label = _read_pair(data, image_file, label_file)
            images.append(image.reshape(-1, 3))
            labels.append(label.reshape(-1))
            index.append((offset, *label.shape))
            offset, done = offset + label.size, done + 1
            progress(done, total)
        arrays[f"{split}_images"] = np.concatenate(images)
        arrays[f"{split}_labels"] = np.concatenate(labels)
        arrays[f"{split}_index"] = np.array(index, dtype=np.int64)
    return arrays


def _read_pair(
    data: SegmentationFolder, image_file: Path, label_file: Path
) -> tuple[np.ndarray, np.ndarray]:
    image = np.asarray(_open(image_file).convert("RGB"))
    picture = _open(label_file)
    if picture.mode not in ("L", "P"):
        raise InputError(
            f"is an image of mode {picture.mode}; labels must be 8-bit, one channel",
            file=label_file,
        )
    label = np.asarray(picture)
    if label.shape != image.shape[:2]:
        size, other = f"{label.shape[1]}x{label.shape[0]}", f"{image.shape[1]}x{image.shape[0]}"
        raise InputError(f"is {size} pixels, its image {image_file.name} {other}", file=label_file)
    count = len(data.class_names)
    wrong = label[(label >= count) & (label != data.ignore_label)]
    if wrong.size:
        rule = (
            f"labels must be 0 to {count - 1} (data.class_names) or {data.ignore_label} (ignored)"
        )
        raise InputError(rule, file=label_file, value=int(wrong[0]))
    return image, label


def _open(file: Path) -> Image.Image:
    try:
        with Image.open(file) as picture:
            picture.load()
            return picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"is not a readable image ({error})", file=file) from None
