"""Object detection and instance segmentation: images of any sizes, boxes, masks, COCO's metrics.

Shapes: B images of (H, W) pixels, padded below and to the right to one size; M objects at most in
one of them; K classes, numbered from 1; boxes are x1, y1, x2, y2 in pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from ..detectors.masks import whole_mask
from ..errors import InputError
from ..files import write_json
from ..frameworks import FRAMEWORKS
from ..objects import MASK_THRESHOLD, placed
from ..settings import PADDED, DetectionTask, Objects
from ..views import fitted_size, padded_size
from .base import MEAN, STD, WHOLE, Part, Predict, batch_indices, evenly
from .cache import Prepared
from .coco import has_size
from .detection_metrics import Kind, average_precision, size_limits
from .images import BATCHES_AHEAD, Images, in_order

EVAL_BATCH = 16
EVAL_PIXELS = 2**22  # of a batch of evaluation; beyond it, one image at a time

Size = tuple[int, int]
Found = Mapping[str, Tensor]
Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class View:
    """How an image is shown.

    Args:
        number: Of the image.
        size: (H, W) that it is scaled to.
        mirrored: Is it mirrored after that?
    """

    number: int
    size: Size
    mirrored: bool = False


class Detection:
    """The detection task.

    Args:
        task: Framework, augmentation, test.
        data: Classes and size of the images.
        prepared: What `detection_data` or `synthetic` has made of it.
    """

    def __init__(self, task: DetectionTask, data: Objects, prepared: Prepared) -> None:
        self.head, self.masks = task.head, FRAMEWORKS[task.framework].masks
        self.augmentation, self.prepared = task.augmentation, prepared
        self.short, self.long = sorted(data.image_size)
        about = prepared.json("about")
        self.class_names: list[str] = about["class_names"]
        self.category_ids: list[int] = about["category_ids"]
        self.areas: list[float] = about["areas"]
        self.train = Annotated(prepared, masks=self.masks)
        self.val, self.val_ids = Images(prepared, "val"), prepared.array("val_image_ids")

    @property
    def num_outputs(self) -> int:
        return len(self.class_names)

    @property
    def num_train(self) -> int:
        return len(self.train.images)

    def batch(
        self, step: int, *, size: int, seed: int, part: Part = WHOLE
    ) -> tuple[Inputs, tuple[()]]:
        """Scaled images, some mirrored, with their objects; the target is among the inputs.

        Returns:
            images (B, 3, H, W), their sizes (B, 2) without padding, boxes (B, M, 4), labels
            (B, M), 0 where there is no object, and for frameworks with masks masks (B, M, H, W),
            uint8; and nothing else.
        """
        views = self._views(step, size=size, seed=seed)
        # Of the whole batch, so that every process that shares it pads alike.
        full = padded_size(largest([view.size for view in views]), PADDED)
        mine = views[part[0] :: part[1]]
        images = stacked([self._shown(self.train.images, view) for view in mine], full)
        boxes, labels = self._boxes(mine)
        sizes = torch.tensor([view.size for view in mine])
        if not self.masks:
            return (images, sizes, boxes, labels), ()
        return (images, sizes, boxes, labels, self._masks(mine, labels.shape[1], full)), ()

    def _views(self, step: int, *, size: int, seed: int) -> list[View]:
        numbers = batch_indices(self.num_train, step, size=size, seed=seed).tolist()
        rng = np.random.default_rng((seed, step, 1))
        flips = (rng.random(size) < self.augmentation.flip).tolist()
        least, most = self.augmentation.short_edges or (self.short, self.short)
        shorts = rng.integers(least, most, size, endpoint=True).tolist()
        return [
            View(number, fitted_size(self.train.images.size(number), short, self.long), flip)
            for number, short, flip in zip(numbers, shorts, flips, strict=True)
        ]

    def _shown(self, images: Images, view: View) -> np.ndarray:
        """uint8 (H, W, 3)."""
        pixels = resized(images[view.number], view.size)
        return pixels[:, ::-1] if view.mirrored else pixels

    def _boxes(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Boxes (B, M, 4) and labels (B, M); M is 1 at least."""
        most = max(1, *(len(self.train.labels(view.number)) for view in views))
        boxes = np.zeros((len(views), most, 4), dtype=np.float32)
        labels = np.zeros((len(views), most), dtype=np.int64)
        for place, view in enumerate(views):
            found = self.train.labels(view.number)
            full = self.train.images.size(view.number)
            labels[place, : len(found)] = found
            boxes[place, : len(found)] = shown_boxes(self.train.boxes(view.number), full, view)
        return torch.from_numpy(boxes), torch.from_numpy(labels)

    def _masks(self, views: Sequence[View], most: int, full: Size) -> Tensor:
        """(B, M, H, W), uint8."""
        masks = np.zeros((len(views), most, *full), dtype=np.uint8)
        for place, view in enumerate(views):
            height, width = view.size
            for row, mask in enumerate(self.train.masks(view.number)):
                scaled = resized(mask, view.size, nearest=True)
                masks[place, row, :height, :width] = scaled[:, ::-1] if view.mirrored else scaled
        return torch.from_numpy(masks)

    def loss(self, output: Mapping[str, Tensor], target: tuple[()]) -> Tensor:
        """The sum of the detector's losses."""
        return torch.stack(list(output.values())).sum()

    def evaluate(self, predict: Predict, *, out: Path | None = None) -> dict[str, float]:
        """COCO's AP of boxes, and of masks, fractions.

        Args:
            predict: Images (B, 3, H, W) and their sizes (B, 2) without padding -> what is found
                in each, as `detectors.base.Detector` says it.
            out: Gets `predictions.json` in COCO's results format, and `classes.json`: AP of each
                class that the validation images have.
        """
        results: list[dict[str, Any]] = []
        batches = in_order(self._eval_images, self._eval_batches(), ahead=BATCHES_AHEAD)
        for views, pixels in batches:
            images = stacked(pixels, padded_size(views[0].size, PADDED))
            found = predict(images, torch.tensor([view.size for view in views]))
            for view, one in zip(views, found, strict=True):
                results += self._results(view, one)
        if out is not None:
            write_json(out / "predictions.json", results, indent=None)
        truth = self.prepared.json("truth")
        kinds: tuple[Kind, ...] = ("box", "mask") if self.masks else ("box",)
        found_by = {kind: average_precision(results, truth, self.areas, kind) for kind in kinds}
        if out is not None:
            write_json(out / "classes.json", self._by_class(found_by))
        return {
            f"{kind}_{name}": value
            for kind, precision in found_by.items()
            for name, value in precision.values.items()
        }

    def _eval_batches(self) -> Iterator[list[View]]:
        """All validation images, those of one padded size together."""
        by_size: dict[Size, list[View]] = {}
        for number in range(len(self.val)):
            view = View(number, fitted_size(self.val.size(number), self.short, self.long))
            by_size.setdefault(padded_size(view.size, PADDED), []).append(view)
        for (height, width), views in by_size.items():
            most = min(EVAL_BATCH, max(1, EVAL_PIXELS // (height * width)))
            yield from (views[start : start + most] for start in range(0, len(views), most))

    def _eval_images(self, views: list[View]) -> tuple[list[View], list[np.ndarray]]:
        return views, [self._shown(self.val, view) for view in views]

    def _results(self, view: View, found: Found) -> list[dict[str, Any]]:
        """What is found in an image in COCO's results format, in its own pixels."""
        size = self.val.size(view.number)
        own = placed(found, view.size, size)
        boxes = own["boxes"]
        sides = boxes[:, 2:] - boxes[:, :2]
        results = [
            {
                "image_id": int(self.val_ids[view.number]),
                "category_id": self.category_ids[label - 1],
                "bbox": [round(value, 3) for value in box],
                "score": score,
            }
            for label, box, score in zip(
                own["labels"].tolist(),
                torch.cat([boxes[:, :2], sides], dim=1).tolist(),
                own["scores"].tolist(),
                strict=True,
            )
        ]
        if self.masks:
            runs = pasted(own["masks"].float(), boxes, size)
            for result, mask in zip(results, runs, strict=True):
                result["segmentation"] = mask
        return results

    def _by_class(self, found: Mapping[Kind, Any]) -> dict[str, Any]:
        """Names and figures of the classes that can be found."""
        names = dict(zip(self.category_ids, self.class_names, strict=True))
        by_class = {kind: precision.by_class for kind, precision in found.items()}
        figures = {"class_names": [names[n] for n in by_class["box"]]}
        figures["ap"] = list(by_class["box"].values())
        if "mask" in by_class:
            figures["mask_ap"] = [by_class["mask"][number] for number in by_class["box"]]
        return figures

    def check(self, least: int) -> None:
        """All images, as training sees whole ones too."""
        shortest = (self.augmentation.short_edges or [self.short])[0]
        for images, short in ((self.train.images, shortest), (self.val, self.short)):
            for number in range(len(images)):
                size = images.size(number)
                shown = padded_size(fitted_size(size, short, self.long), PADDED)
                if min(shown) < least:
                    raise self._too_small(size, shown, least)

    def _too_small(self, size: Size, shown: Size, least: int) -> InputError:
        given, seen = (f"{width}x{height}" for height, width in (size, shown))
        rule = f"an image of {given} pixels is shown at {seen}, padded; "
        rule += f"networks of the study take {least}x{least} or more"
        return InputError(rule, key="data.image_size", value=[self.short, self.long])

    def measures(self, name: str) -> bool:
        limits = size_limits(self.areas)
        size = name.partition("_")[2]  # of box_apl and mask_apl
        return has_size(self.prepared.json("truth"), *limits.get(size, limits["ap"]))

    def preprocessing(self) -> dict[str, Any]:
        return {
            "task": "detection",
            "image_size": [self.short, self.long],
            "padded": PADDED,
            "mean": MEAN.tolist(),
            "std": STD.tolist(),
            "classes": self.class_names,
        }

    def samples(self, most: int) -> list[np.ndarray]:
        return [np.array(self.val[number]) for number in evenly(len(self.val), most)]


class Annotated:
    """The training images with their objects; arrays as at the head of `detection_data`.

    Args:
        prepared: Prepared data.
        masks: Are masks wanted?
    """

    def __init__(self, prepared: Prepared, *, masks: bool) -> None:
        self.images = Images(prepared, "train")
        names = ["first", "boxes", "labels", *(["mask_first", "masks"] if masks else [])]
        # Still mapped from the file, but without the slow indexing of np.memmap.
        self._arrays = {name: np.asarray(prepared.array(f"train_{name}")) for name in names}

    def _places(self, number: int) -> slice:
        first = self._arrays["first"]
        return slice(int(first[number]), int(first[number + 1]))

    def boxes(self, number: int) -> np.ndarray:
        """(N, 4) of an image, in its own pixels."""
        return self._arrays["boxes"][self._places(number)]

    def labels(self, number: int) -> np.ndarray:
        """(N,)."""
        return self._arrays["labels"][self._places(number)]

    def masks(self, number: int) -> Iterator[np.ndarray]:
        """N times uint8 (H, W), 0 or 1, of an image at its own size."""
        places, first = self._places(number), self._arrays["mask_first"]
        size = list(self.images.size(number))
        for place in range(places.start, places.stop):
            runs = self._arrays["masks"][first[place] : first[place + 1]].tobytes()
            yield coco_mask.decode({"size": size, "counts": runs})


def largest(sizes: Sequence[Size]) -> Size:
    """(H, W) that holds all of them."""
    heights, widths = zip(*sizes, strict=True)
    return max(heights), max(widths)


def resized(pixels: np.ndarray, size: Size, *, nearest: bool = False) -> np.ndarray:
    """An image (h, w, 3), or a mask (h, w) with `nearest`, at another size (H, W).

    Bilinear, and smoothed where it shrinks.
    """
    if pixels.shape[:2] == size:
        return pixels
    by = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], by))


def stacked(images: Sequence[np.ndarray], full: Size) -> Tensor:
    """float32 (B, 3, H, W): images normalised, then padded with zeros, channels last in memory."""
    batch = torch.zeros(len(images), *full, 3)
    for place, pixels in enumerate(images):
        height, width = pixels.shape[:2]
        real = torch.from_numpy(np.array(pixels, order="C")).float()  # a copy: maps are read-only
        batch[place, :height, :width] = (real - MEAN) / STD
    return batch.permute(0, 3, 1, 2)


def shown_boxes(boxes: np.ndarray, size: Size, view: View) -> np.ndarray:
    """Boxes (N, 4) of an image of (H, W) in the pixels of a view."""
    (height, width), (old_height, old_width) = view.size, size
    x, y = width / old_width, height / old_height
    scaled = boxes * np.array([x, y, x, y], dtype=np.float32)
    if view.mirrored:
        scaled[:, [0, 2]] = width - scaled[:, [2, 0]]
    return scaled


def pasted(masks: Tensor, boxes: Tensor, size: Size) -> Iterator[dict[str, Any]]:
    """Masks (N, 1, 28, 28) put into their boxes (N, 4), as COCO's run lengths of images (H, W)."""
    height, width = size
    for mask, box in zip(masks[:, 0], boxes, strict=True):
        # Columns one behind the other, as run lengths go: everything lies on its side.
        aside = whole_mask(mask.T, box[[1, 0, 3, 2]], (width, height)) >= MASK_THRESHOLD
        runs = coco_mask.encode(aside.to(torch.uint8).numpy().T)
        yield {"size": [height, width], "counts": runs["counts"].decode("ascii")}
