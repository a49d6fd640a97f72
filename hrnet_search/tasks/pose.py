"""Top-down pose estimation: crops of people, Gaussian heatmaps, the paper's test.

Shapes: B crops of (H, W) pixels, K joints, heatmaps of (h, w) = (H/4, W/4). A joint at pixel x of
the crop lies at pixel x / 4 of the heatmap, as in the official code.
"""

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat
from torch import Tensor
from torch.nn import functional as F

from ..files import write_json
from ..keypoints import (
    STRIDE,
    WINDOW,
    Pair,
    Size,
    affine,
    apply,
    crop,
    decode,
    fit,
    inverse,
    stride_of,
)
from ..settings import People, PoseAugmentation, PoseTask
from .base import MEAN, STD, WHOLE, Part, Predict, batch_indices, evenly, normalise, sample_rng
from .cache import Prepared
from .coco import has_size
from .images import BATCHES_AHEAD, Images, in_order
from .pose_metrics import ALL_SIZES, SIZES, keypoint_ap, nme, oks_nms, pckh, person_scores

EVAL_BATCH = 64
HALF_PADDING = 1.5  # of the box around half a body (official `lib/dataset/JointsDataset.py`)
IDENTITY = torch.eye(2, 3, dtype=torch.float64)


@dataclass(frozen=True)
class Samples:
    """The people of one split, N; arrays as at the head of `pose_data`.

    Args:
        images: What they are in.
        image: (N,): which image.
        centres: (N, 2): x, y.
        extents: (N, 2): width, height.
        joints: (N, K, 3): x, y, visibility.
    """

    images: Images
    image: np.ndarray
    centres: np.ndarray
    extents: np.ndarray
    joints: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def view(self, number: int, size: Size) -> tuple[Pair, Pair]:
        """Centre and extent of what a crop of `size` (H, W) shows of a person."""
        x, y = self.centres[number].tolist()
        width, height = self.extents[number].tolist()
        return (x, y), fit((width, height), size)


class Pose:
    """The pose task.

    Args:
        task: Head, loss, targets, augmentation and test.
        data: Settings of the data: joints and size of the crops.
        prepared: What `pose_data` or `synthetic` has made of it.
    """

    def __init__(self, task: PoseTask, data: People, prepared: Prepared) -> None:
        self.task, self.prepared = task, prepared
        self.head, self.num_outputs = task.head, data.num_outputs
        self.size, self.joints = data.size, data.joints
        self.padding = data.padding
        pairs = self.joints.index(self.joints.flip_pairs)
        self.swapped = swap_order(pairs, self.num_outputs)
        self.upper = np.isin(self.joints.names, self.joints.upper_body)
        self.train, self.val = (load_samples(prepared, split) for split in ("train", "val"))
        by = task.augmentation
        self.is_varied = bool(by.half_body or by.scale or by.rotation)
        self.whole = None if self.is_varied else whole_images(self.train, self.size)

    @property
    def num_train(self) -> int:
        return len(self.train)

    def batch(
        self, step: int, *, size: int, seed: int, part: Part = WHOLE
    ) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W); joints (B, K, 3): x, y in pixels of the crop, visibility.

        The official chain (`lib/dataset/JointsDataset.py`): half a body, scale, rotation, crop.
        The crop is mirrored last; there the whole image is, first.
        """
        places = np.arange(size)[part[0] :: part[1]]
        numbers = batch_indices(self.num_train, step, size=size, seed=seed)[places]
        joints = torch.from_numpy(self.train.joints[numbers])
        if self.whole is not None:
            images = self.whole[numbers]
        else:
            matrices = [
                self._training_matrix(number, step, place, seed=seed)
                for number, place in zip(numbers.tolist(), places.tolist(), strict=True)
            ]
            images = np.stack(list(self._crops(self.train, numbers.tolist(), matrices)))
            joints[..., :2] = apply(torch.stack(matrices), joints[..., :2])
        draws = np.random.default_rng((seed, step, 1)).random(size)[places]
        flip = draws < self.task.augmentation.flip
        images[flip] = images[flip, :, ::-1]
        joints[flip] = mirror(joints[flip], width=self.size[1], order=self.swapped)
        return normalise(images), joints

    def targets(self, joints: Tensor, shape: Size) -> tuple[Tensor, Tensor]:
        """Of joints (B, K, 3) the heatmaps (B, K, h, w) of this shape, and weights (B, K)."""
        return gaussian_targets(
            joints,
            shape,
            self.task.sigma,
            subpixel=self.task.subpixel,
            stride=stride_of(self.size, shape),
        )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Heatmaps (B, K, h, w) of any resolution (Fig. 9) against the joints of a batch."""
        targets = self.targets(target, (output.shape[-2], output.shape[-1]))
        if self.task.loss == "ohkm":
            return heatmap_ohkm(output, *targets, count=self.task.ohkm_joints)
        return LOSSES[self.task.loss](output, *targets)

    def evaluate(self, predict: Predict, *, out: Path | None = None) -> dict[str, float]:
        """The metrics of the settings' `metric`, fractions.

        Writes, if asked, the joints it found: `predictions.json` in COCO's results format, or
        for PCKh `pred.mat` as the official code does, and PCKh by joint in `details.json`.
        """
        people = range(len(self.val))
        batches = [people[start : start + EVAL_BATCH] for start in people[::EVAL_BATCH]]
        # While the network is busy.
        seen = in_order(self._val_crops, batches, ahead=BATCHES_AHEAD)
        found = np.concatenate([self._find(*crops, predict) for crops in seen])
        metric = {"oks": self._ap, "pckh": self._pckh, "nme": self._nme}[self.task.metric]
        return metric(found, out)

    def check(self, least: int) -> None:
        """Nothing: crops are of one size, which the study has checked."""

    def measures(self, name: str) -> bool:
        if self.task.metric != "oks":
            return True  # which `pose_data` has checked
        return has_size(self.prepared.json("truth"), *SIZES.get(name, ALL_SIZES))

    def preprocessing(self) -> dict[str, Any]:
        return {
            "task": "pose",
            "input_size": list(self.size),
            "mean": MEAN.tolist(),
            "std": STD.tolist(),
            "softmax": self.task.loss == "cross_entropy",
            "decoder": self.task.decoder,
            "sigma": self.task.sigma,
            "padding": self.padding,
            "keypoints": list(self.joints.names),
            "skeleton": [list(edge) for edge in self.joints.index(self.joints.skeleton)],
        }

    def samples(self, most: int) -> list[np.ndarray]:
        """Crops of people."""
        crops, _ = self._val_crops(evenly(len(self.val), most))
        return list(crops)

    def _training_matrix(self, number: int, step: int, place: int, *, seed: int) -> Tensor:
        """From the image to the crop of a person, as the sample at `place` of a batch shows it."""
        (centre, extent), rotation = self.train.view(number, self.size), 0.0
        if self.is_varied:
            centre, extent, rotation = vary(
                centre,
                extent,
                self.train.joints[number],
                upper=self.upper,
                size=self.size,
                by=self.task.augmentation,
                rng=sample_rng(step, place, seed=seed),
            )
        return affine(centre, extent, self.size, rotation)

    def _crops(
        self, samples: Samples, numbers: Sequence[int], matrices: Sequence[Tensor]
    ) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3) of each; an image is read once for people that follow one another."""
        people = zip(numbers, matrices, strict=True)
        for image, group in itertools.groupby(people, key=lambda one: samples.image[one[0]]):
            pixels = samples.images[image]
            for _, matrix in group:
                yield warp(pixels, matrix, self.size)

    def _val_crops(self, numbers: Sequence[int]) -> tuple[np.ndarray, Tensor]:
        """Crops (B, H, W, 3) of validation people, and the matrices (B, 2, 3) that lead there."""
        matrices = [affine(*self.val.view(number, self.size), self.size) for number in numbers]
        return np.stack(list(self._crops(self.val, numbers, matrices))), torch.stack(matrices)

    def _find(self, crops: np.ndarray, matrices: Tensor, predict: Predict) -> np.ndarray:
        """Joints (B, K, 3) of validation people: x, y in their images, score."""
        images = normalise(crops)
        run = functools.partial(self._heatmaps, predict)
        test = self.task.test
        if test.flip:
            heatmaps = flip_average(run, images, order=self.swapped, shift=test.shift)
        else:
            heatmaps = run(images)
        stride = stride_of(self.size, (heatmaps.shape[-2], heatmaps.shape[-1]))
        joints = decode(heatmaps, decoder=self.task.decoder, sigma=self.task.sigma, stride=stride)
        joints[..., :2] = apply(inverse(matrices), joints[..., :2])
        return joints.numpy()

    def _heatmaps(self, predict: Predict, images: Tensor) -> Tensor:
        heatmaps: Tensor = predict(images).float().cpu()
        if self.task.loss != "cross_entropy":
            return heatmaps
        return F.softmax(heatmaps.flatten(2), dim=-1).reshape(heatmaps.shape)

    def _ap(self, found: np.ndarray, out: Path | None) -> dict[str, float]:
        boxes, least = self.prepared.array("val_scores"), self.task.least_score
        scores = person_scores(found, boxes, least=least)
        kept = self._without_doubles(found, scores)
        results = self._results(found, scores, kept)
        if out is not None:
            write_json(out / "predictions.json", results, indent=None)
        return keypoint_ap(results, self.prepared.json("truth"), self.joints.sigmas)

    def _without_doubles(self, found: np.ndarray, scores: np.ndarray) -> list[int]:
        """Numbers of the people that OKS-NMS leaves, image by image."""
        extents = np.array([self.val.view(n, self.size)[1] for n in range(len(self.val))])
        areas, groups = extents.prod(1), defaultdict(list)
        for number, who in enumerate(zip(*self._identities(), strict=True)):
            groups[who].append(number)
        limit, sigmas = self.task.test.oks_nms, self.joints.sigmas
        return [
            group[place]
            for group in groups.values()
            for place in oks_nms(found[group], scores[group], areas[group], sigmas, limit=limit)
        ]

    def _identities(self) -> tuple[list[int], list[int]]:
        """COCO's numbers of every validation person's image and category."""
        images, categories = (
            self.prepared.array(f"val_{name}").tolist() for name in ("image_ids", "categories")
        )
        return images, categories

    def _results(
        self, found: np.ndarray, scores: np.ndarray, kept: Sequence[int]
    ) -> list[dict[str, Any]]:
        """People in COCO's results format."""
        images, categories = self._identities()
        return [
            {
                "image_id": images[number],
                "category_id": categories[number],
                "keypoints": found[number].flatten().tolist(),
                "score": float(scores[number]),
            }
            for number in kept
        ]

    def _nme(self, found: np.ndarray, out: Path | None) -> dict[str, float]:
        if out is not None:
            scores = found[..., 2].mean(1)
            results = self._results(found, scores, range(len(found)))
            write_json(out / "predictions.json", results, indent=None)
        first, second = (self.joints.names.index(name) for name in self.joints.normalise_by)
        return {"nme": nme(found, self.val.joints, (first, second))}

    def _pckh(self, found: np.ndarray, out: Path | None) -> dict[str, float]:
        means, by_joint = pckh(found, self.val.joints, self.prepared.array("val_heads"))
        if out is not None:
            write_json(out / "details.json", {"pckh": by_joint})
            savemat(out / "pred.mat", {"preds": found[..., :2] + 1.0})  # MPII counts from 1
        return means


def load_samples(prepared: Prepared, split: str) -> Samples:
    """The people of "train" or "val"."""
    names = ("image", "centres", "extents", "joints")
    # Still mapped from the file, but without the slow indexing of np.memmap.
    arrays = {name: np.asarray(prepared.array(f"{split}_{name}")) for name in names}
    return Samples(Images(prepared, split), **arrays)


def whole_images(samples: Samples, size: Size) -> np.ndarray | None:
    """(N, H, W, 3), if every sample is an image of its own, of this size, and all of it is shown.

    Batches of these are taken at once, with nothing to compute.
    """
    images, (height, width) = samples.images, size
    if images.pixels is None or not np.array_equal(samples.image, np.arange(len(images))):
        return None
    is_whole = (
        all(images.size(number) == size for number in range(len(images)))
        and (samples.centres == (width / 2, height / 2)).all()
        and (samples.extents == (width, height)).all()
    )
    return np.asarray(images.pixels).reshape(-1, height, width, 3) if is_whole else None


def warp(pixels: np.ndarray, matrix: Tensor, size: Size) -> np.ndarray:
    """The crop (H, W, 3) of an image (any, any, 3) that `matrix` (2, 3) leads to."""
    if pixels.shape[:2] == size and torch.equal(matrix, IDENTITY):
        return pixels  # nothing to compute, and nothing to round
    return np.asarray(crop(Image.fromarray(pixels), matrix, size))


# --- augmentation --------------------------------------------------------------------------------


def vary(
    centre: Pair,
    extent: Pair,
    joints: np.ndarray,
    *,
    upper: np.ndarray,
    size: Size,
    by: PoseAugmentation,
    rng: np.random.Generator,
) -> tuple[Pair, Pair, float]:
    """Centre, extent and rotation (degrees) of a training crop (official `JointsDataset.py`).

    Args:
        centre: x, y of the person's own crop.
        extent: Its width and height in the image.
        joints: (K, 3): x, y, visibility.
        upper: (K,): which joints are of the upper body; none: no half bodies.
        size: (H, W) of the crop.
        by: How much to vary.
        rng: Random numbers of this sample.
    """
    well_visible = upper.any() and (joints[:, 2] > 0).sum() > by.half_body_joints
    if well_visible and rng.random() < by.half_body:
        centre, extent = half_body(joints, upper=upper, size=size, rng=rng) or (centre, extent)
    scale = np.clip(rng.normal(1, by.scale), 1 - by.scale, 1 + by.scale)
    rotation = np.clip(rng.normal(0, by.rotation), -2 * by.rotation, 2 * by.rotation)
    if rng.random() > by.rotation_share:
        rotation = 0.0
    return centre, (extent[0] * scale, extent[1] * scale), float(rotation)


def half_body(
    joints: np.ndarray, *, upper: np.ndarray, size: Size, rng: np.random.Generator
) -> tuple[Pair, Pair] | None:
    """Centre and extent around one half's labelled joints, or None if they are too few.

    The upper half, if it has three joints, for a normal number below 0.5: 69 of 100 times, as
    the official `half_body_transform` (`lib/dataset/JointsDataset.py`) draws it.
    """
    labelled = joints[:, 2] > 0
    above, below = (joints[labelled & half, :2].astype(float) for half in (upper, ~upper))
    is_upper = rng.normal() < 0.5 and len(above) > 2
    chosen = above if is_upper or len(below) <= 2 else below
    if len(chosen) < 2:
        return None
    (x, y), (width, height) = chosen.mean(0).tolist(), np.ptp(chosen, axis=0).tolist()
    if not width and not height:
        return None
    return (x, y), fit((width * HALF_PADDING, height * HALF_PADDING), size)


def swap_order(pairs: Sequence[tuple[int, int]], count: int) -> list[int]:
    """Which of `count` joints each joint of a mirrored image is."""
    order = list(range(count))
    for left, right in pairs:
        order[left], order[right] = right, left
    return order


def mirror(joints: Tensor, *, width: int, order: Sequence[int]) -> Tensor:
    """Joints (B, K, 3) of mirrored crops: x -> width - 1 - x, left and right exchanged."""
    mirrored = joints[:, order]  # a copy
    mirrored[..., 0] = width - 1 - mirrored[..., 0]
    return mirrored


def flip_average(
    run: Callable[[Tensor], Tensor], images: Tensor, *, order: Sequence[int], shift: bool
) -> Tensor:
    """Heatmaps (B, K, h, w): the mean of those of images and of their mirror images (section 4).

    Args:
        run: From images (B, 3, H, W) to heatmaps.
        images: The images.
        order: Of `swap_order`.
        shift: Move what the mirror images say by one pixel to the right, as official
            `SHIFT_HEATMAP`: a joint at pixel x of a crop is at (W - 1 - x) / 4 in the heatmap of
            the mirrored crop, which mirrored back is x / 4 - 3 / 4.
    """
    heatmaps, mirrored = run(images), run(images.flip(-1)).flip(-1)[:, order]
    if shift:
        mirrored = torch.cat([mirrored[..., :1], mirrored[..., :-1]], dim=-1)
    return (heatmaps + mirrored) / 2


# --- targets and losses --------------------------------------------------------------------------


def gaussian_targets(
    joints: Tensor, shape: Size, sigma: float, *, subpixel: bool, stride: int = STRIDE
) -> tuple[Tensor, Tensor]:
    """Target heatmaps: a Gaussian of height 1 at each joint, cut at 3 sigma.

    Args:
        joints: (B, K, 3): x, y in pixels of the crop, visibility.
        shape: (h, w) of the heatmaps.
        sigma: Heatmap pixels; 2 at 256x192 in the paper (section 4).
        subpixel: Put it where the joint is, not at the nearest pixel as the official code does.
        stride: Pixels of the crop to one of the heatmaps.

    Returns:
        Heatmaps (B, K, h, w), and weights (B, K): 1 where the joint is labelled and its window
        meets the heatmap, else 0.
    """
    centres = joints[..., :2] / stride
    if not subpixel:
        centres = torch.floor(centres + 0.5)
    reach = WINDOW * sigma
    profiles, inside = [], joints[..., 2] > 0
    for axis, length in ((1, shape[0]), (0, shape[1])):
        distance = torch.arange(length, device=joints.device) - centres[..., axis, None]
        values = torch.exp(-(distance**2) / (2 * sigma**2)) * (distance.abs() <= reach)
        profiles.append(values)
        inside = inside & (distance.abs() <= reach).any(-1)
    rows, columns = profiles
    weights = inside.to(joints.dtype)
    return rows[..., :, None] * columns[..., None, :] * weights[..., None, None], weights


def heatmap_mse(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The paper's loss: half the squared error, labelled joints, mean over all values."""
    return 0.5 * ((output - target) ** 2 * weights[..., None, None]).mean()


def heatmap_ohkm(output: Tensor, target: Tensor, weights: Tensor, *, count: int) -> Tensor:
    """The same over the `count` worst joints of each person (official `JointsOHKMMSELoss`)."""
    losses = 0.5 * ((output - target) ** 2).mean((2, 3)) * weights
    return losses.topk(count, dim=1).values.mean()


def spatial_cross_entropy(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """A softmax over all positions against the Gaussian, scaled to sum 1; mean over joints."""
    shares = target.flatten(2)
    shares = shares / shares.sum(-1, keepdim=True).clamp_min(1e-12)
    losses = -(shares * F.log_softmax(output.flatten(2), dim=-1)).sum(-1)
    return (losses * weights).sum() / weights.sum().clamp_min(1)


LOSSES = {"mse": heatmap_mse, "cross_entropy": spatial_cross_entropy}
