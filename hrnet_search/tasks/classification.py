"""Image classification on a folder per class, as ImageNet is laid out (the paper's appendix).

Shapes: B images of (H, W) pixels, K classes, network outputs of (B, K).
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..files import write_json
from ..progress import Advance
from ..settings import ClassificationTask, ImageFolders
from ..views import CENTRE, IMAGE_SUFFIXES, centre_crop
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
from .cache import Prepared, Writer, cached
from .images import (
    Folder,
    Images,
    Source,
    counted,
    fits,
    in_order,
    open_folder,
    store,
)

FORMAT = 1  # of the prepared data; raise it when that changes
SPLITS = ("train", "val")
EVAL_BATCH = 64
TOP = 5  # of top-5 accuracy
RATIO = (3 / 4, 4 / 3)  # width over height of training crops (Szegedy et al., CVPR 2015)

Listing = list[tuple[str, int]]  # file below the split's folder, number of its class


class Classification:
    """The classification task on images of any sizes.

    Args:
        task: Head, augmentation.
        data: The size of crops.
        prepared: What `prepare` made of it.
    """

    def __init__(self, task: ClassificationTask, data: ImageFolders, prepared: Prepared) -> None:
        self.head, self.num_outputs = task.head, data.num_classes
        self.augmentation, self.size = task.augmentation, data.size
        self.classes: list[str] = prepared.json("classes")
        self.val_names: list[str] = prepared.json("val_names")
        self.train, self.val = (Images(prepared, split) for split in SPLITS)
        self.train_labels, self.val_labels = (prepared.array(f"{s}_labels") for s in SPLITS)

    @property
    def num_train(self) -> int:
        return len(self.train)

    def batch(
        self, step: int, *, size: int, seed: int, part: Part = WHOLE
    ) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and class numbers (B,): random crops, some of them mirrored."""
        rank, processes = part
        index = batch_indices(self.num_train, step, size=size, seed=seed)
        places = range(rank, size, processes)
        crops = [
            self._training_crop(self.train[index[place]], sample_rng(step, place, seed=seed))
            for place in places
        ]
        labels = np.array(self.train_labels[index[rank::processes]], dtype=np.int64)
        return normalise(np.stack(crops)), torch.from_numpy(labels)

    def _training_crop(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # a copy: maps are read-only
        with torch_seed(rng):
            crop: np.ndarray = self._augment(pixels).permute(1, 2, 0).numpy()
        return crop

    @cached_property
    def _augment(self) -> Callable[[Tensor], Tensor]:
        """uint8 (3, H, W) of any size -> uint8 of the crop's size."""
        from torchvision.transforms import v2  # slow to import, and evaluation does without

        area = (self.augmentation.least_area, 1.0)
        crop = v2.RandomResizedCrop(self.size, scale=area, ratio=RATIO, antialias=True)
        augment: Callable[[Tensor], Tensor] = v2.Compose(
            [crop, v2.RandomHorizontalFlip(self.augmentation.flip)]
        )
        return augment

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of scores (B, K) against class numbers (B,), mean over images."""
        return F.cross_entropy(output.float(), target)

    def evaluate(self, predict: Predict, *, out: Path | None = None) -> dict[str, float]:
        """Top-1 and top-5 accuracy, fractions: one centre crop, not mirrored.

        With fewer than five classes all of them are the top ones. With `out`, `predictions.json`
        lists each image with its true class, the predicted one and the probabilities of the top.
        """
        count = min(TOP, self.num_outputs)
        tops = [predict(x).float().softmax(1).topk(count) for x in self._val_batches()]
        values, indices = (torch.cat(parts).cpu() for parts in zip(*tops, strict=True))
        hits = indices == torch.from_numpy(np.array(self.val_labels))[:, None]
        if out is not None:
            write_json(out / "predictions.json", self._records(values, indices))
        top1, top5 = (float(found.double().mean()) for found in (hits[:, 0], hits.any(1)))
        return {"top1": top1, "top5": top5}

    def _val_batches(self) -> Iterator[Tensor]:
        crops = in_order(self._val_crop, range(len(self.val)))
        while some := list(islice(crops, EVAL_BATCH)):
            yield normalise(np.stack(some))

    def _val_crop(self, number: int) -> np.ndarray:
        return np.array(centre_crop(Image.fromarray(self.val[number]), self.size))

    def _records(self, values: Tensor, indices: Tensor) -> list[dict[str, Any]]:
        records = []
        for number, name in enumerate(self.val_names):
            scores = named_scores(self.classes, values[number], indices[number])
            truth = self.classes[int(self.val_labels[number])]
            records.append(
                {"image": name, "truth": truth, "class": next(iter(scores)), "scores": scores}
            )
        return records

    def check(self, least: int) -> None:
        """Nothing: crops are of one size, which the study has checked."""

    def measures(self, name: str) -> bool:
        return True

    def preprocessing(self) -> dict[str, Any]:
        return {
            "task": "classification",
            "input_size": list(self.size),
            "centre": CENTRE,
            "mean": MEAN.tolist(),
            "std": STD.tolist(),
            "classes": self.classes,
        }

    def samples(self, most: int) -> list[np.ndarray]:
        return [self._val_crop(number) for number in evenly(len(self.val), most)]


def named_scores(classes: list[str], values: Tensor, indices: Tensor) -> dict[str, float]:
    """Probabilities (k,) of the classes with numbers (k,), by name, in their order."""
    pairs = zip(indices.tolist(), values.tolist(), strict=True)
    return {classes[number]: value for number, value in pairs}


def prepare(data: ImageFolders, progress: Advance) -> Prepared:
    """Decode and check every image once; later calls find them in the cache.

    Args:
        data: Folders, number of classes.
        progress: Called with images done and images in all.

    Raises:
        InputError: A folder is missing or empty, the splits differ in their classes, there are
            not `data.num_classes`, or an image is broken.
    """
    root = Path(data.root)
    folders = {s: open_folder(root, getattr(data, s), key=f"data.{s}") for s in SPLITS}
    names = {split: _class_names(folder, f"data.{split}") for split, folder in folders.items()}
    classes = names["train"]
    _check_classes(data, classes, names["val"])
    listings = {split: _listing(folder, classes) for split, folder in folders.items()}
    identity = {
        "kind": data.kind,
        "format": FORMAT,
        "files": _fingerprint(folders, listings),
    }
    sources = {s: [Source(folders[s], name) for name, _ in listings[s]] for s in SPLITS}
    keep = fits(identity, lambda: itertools.chain(*sources.values()), data.cache_gib)

    def make(writer: Writer) -> None:
        writer.json("classes", classes)
        writer.json("val_names", [name for name, _ in listings["val"]])
        for split, listing in listings.items():
            labels = [number for _, number in listing]
            writer.array(f"{split}_labels", np.array(labels, dtype=np.int64))
        _decode(writer, sources, keep, progress)

    return cached({**identity, "keeps_pixels": keep}, make)


def _class_names(folder: Folder, key: str) -> list[str]:
    """The folders in a split's folder, sorted."""
    if folder.is_zip:
        found = {first for first, slash, _ in (n.partition("/") for n in folder.names) if slash}
    else:
        found = {entry.name for entry in folder.path.iterdir() if entry.is_dir()}
    names = sorted(name for name in found if not name.startswith("."))
    if not names:
        raise InputError("holds no folder per class", key=key, value=str(folder.path))
    return names


def _check_classes(data: ImageFolders, train: list[str], val: list[str]) -> None:
    for name in sorted({*train} ^ {*val}):
        lacking, other = (data.val, data.train) if name in train else (data.train, data.val)
        rule = f"has no folder {name!r}, which {other} has; both must have the same classes"
        raise InputError(rule, file=Path(data.root) / lacking)
    if len(train) != data.num_classes:
        rule = f"is not the number of folders in {Path(data.root) / data.train} ({len(train)})"
        raise InputError(rule, key="data.num_classes", value=data.num_classes)


def _listing(folder: Folder, classes: list[str]) -> Listing:
    """Every image of every class, sorted."""
    by_class: dict[str, list[str]] = {name: [] for name in classes}
    for name in sorted(folder.names):
        first, *others = name.split("/")
        hidden = any(part.startswith(".") for part in others)  # such as macOS's ._name.jpg
        if first in by_class and name.lower().endswith(IMAGE_SUFFIXES) and not hidden:
            by_class[first].append(name)
    for first, files in by_class.items():
        if not files:
            raise InputError("holds no images", file=folder.path / first)
    return [(name, number) for number, files in enumerate(by_class.values()) for name in files]


def _fingerprint(folders: dict[str, Folder], listings: dict[str, Listing]) -> str:
    """Hash of what changes when any file does; there may be a million of them."""
    digest = hashlib.sha256()
    for split, listing in listings.items():
        for name, number in listing:
            entry = [split, number, *folders[split].fingerprint(name)]
            digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def _decode(
    writer: Writer, sources: dict[str, list[Source]], keep: bool, progress: Advance
) -> None:
    advance = counted(progress, sum(len(some) for some in sources.values()))
    for split, some in sources.items():
        store(writer, split, some, keep=keep, advance=advance)
