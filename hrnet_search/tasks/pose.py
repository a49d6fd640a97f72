"""Top-down pose estimation: Gaussian heatmaps, the paper's decoding, AP over OKS.

Shapes: B images of (H, W) pixels, K joints, heatmaps of (h, w) = (H/4, W/4). A joint at input
pixel x lies at heatmap pixel x / 4, as in the official code.
"""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.nn import functional as F

from ..settings import PoseTask
from .base import MEAN, STD, batch_indices, normalise
from .cache import Prepared
from .synthetic_pose import FLIP_PAIRS, KEYPOINTS, SKELETON

STRIDE = 4  # of the heatmaps (section 3.1)
EVAL_BATCH = 64
WINDOW = 3  # a Gaussian is cut at this many sigmas (official code)


class Pose:
    """The pose task on samples of one size, one person each.

    Args:
        task: Head, loss and sigma.
        data: Arrays `train_*` and `val_*`.
    """

    def __init__(self, task: PoseTask, data: Prepared) -> None:
        self.head, self.num_outputs = task.head, len(KEYPOINTS)
        self.loss_name, self.sigma, self.subpixel = task.loss, task.sigma, task.subpixel
        self.images, self.keypoints = data.array("train_images"), data.array("train_keypoints")
        self.val_images = data.array("val_images")
        self.val_keypoints, self.val_areas = data.array("val_keypoints"), data.array("val_areas")
        self.val_boxes = data.array("val_boxes")

    def batch(self, step: int, *, size: int, seed: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Images (B, 3, H, W); targets (B, K, h, w) and weights (B, K). Half are mirrored."""
        index = batch_indices(len(self.images), step, size=size, seed=seed)
        images, joints = self.images[index], self.keypoints[index]
        flip = np.random.default_rng((seed, step, 1)).random(size) < 0.5
        images[flip] = images[flip, :, ::-1]
        joints[flip] = mirror(joints[flip], width=images.shape[2])
        shape = (-(-images.shape[1] // STRIDE), -(-images.shape[2] // STRIDE))  # rounded up
        heatmaps, weights = gaussian_targets(
            torch.from_numpy(joints), shape, self.sigma, subpixel=self.subpixel
        )
        return normalise(images), (heatmaps, weights)

    def loss(self, output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        """Heatmaps (B, K, h, w) against targets and weights."""
        return LOSSES[self.loss_name](output, *target)

    def evaluate(self, predict: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """AP, AP50, AP75 and AR over OKS, fractions, with ground-truth boxes."""
        parts = []
        for start in range(0, len(self.val_images), EVAL_BATCH):
            heatmaps = predict(normalise(self.val_images[start : start + EVAL_BATCH])).float()
            if self.loss_name == "cross_entropy":
                heatmaps = F.softmax(heatmaps.flatten(2), dim=-1).reshape(heatmaps.shape)
            parts.append(decode(heatmaps.cpu(), subpixel=self.subpixel))
        predictions = torch.cat(parts).numpy()
        return keypoint_ap(predictions, self.val_keypoints, self.val_areas, self.val_boxes)

    def preprocessing(self) -> dict[str, Any]:
        return {
            "task": "pose",
            "input_size": list(self.val_images.shape[1:3]),
            "mean": MEAN.tolist(),
            "std": STD.tolist(),
            "softmax": self.loss_name == "cross_entropy",
            "subpixel": self.subpixel,
            "keypoints": list(KEYPOINTS),
            "skeleton": [list(edge) for edge in SKELETON],
        }

    def sample(self) -> np.ndarray:
        return np.array(self.val_images[0])


def mirror(joints: np.ndarray, *, width: int) -> np.ndarray:
    """Joints (B, K, 3) of the mirrored image: x -> width - 1 - x, left and right exchanged."""
    mirrored = joints.copy()
    mirrored[..., 0] = width - 1 - mirrored[..., 0]
    order = np.arange(joints.shape[1])
    for left, right in FLIP_PAIRS:
        order[[left, right]] = right, left
    return mirrored[:, order]


def gaussian_targets(
    joints: Tensor, shape: tuple[int, int], sigma: float, *, subpixel: bool
) -> tuple[Tensor, Tensor]:
    """Target heatmaps: a Gaussian of height 1 at each joint, cut at 3 sigma.

    Args:
        joints: (B, K, 3): x, y in input pixels, visibility.
        shape: (h, w) of the heatmaps.
        sigma: Heatmap pixels; 2 at 256x192 in the paper (section 4).
        subpixel: Put it where the joint is, not at the nearest pixel as the official code does.

    Returns:
        Heatmaps (B, K, h, w), and weights (B, K): 1 where the joint is labelled and its window
        meets the heatmap, else 0.
    """
    centres = joints[..., :2] / STRIDE
    if not subpixel:
        centres = torch.floor(centres + 0.5)
    reach = WINDOW * sigma
    profiles, inside = [], joints[..., 2] > 0
    for axis, length in ((1, shape[0]), (0, shape[1])):
        distance = torch.arange(length) - centres[..., axis, None]
        values = torch.exp(-(distance**2) / (2 * sigma**2)) * (distance.abs() <= reach)
        profiles.append(values)
        inside = inside & (distance.abs() <= reach).any(-1)
    rows, columns = profiles
    weights = inside.to(joints.dtype)
    return rows[..., :, None] * columns[..., None, :] * weights[..., None, None], weights


def heatmap_mse(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The paper's loss: half the squared error, labelled joints, mean over all values."""
    return 0.5 * ((output - target) ** 2 * weights[..., None, None]).mean()


def spatial_cross_entropy(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """A softmax over all positions against the Gaussian, scaled to sum 1; mean over joints."""
    shares = target.flatten(2)
    shares = shares / shares.sum(-1, keepdim=True).clamp_min(1e-12)
    losses = -(shares * F.log_softmax(output.flatten(2), dim=-1)).sum(-1)
    return (losses * weights).sum() / weights.sum().clamp_min(1)


LOSSES = {"mse": heatmap_mse, "cross_entropy": spatial_cross_entropy}


def decode(heatmaps: Tensor, *, subpixel: bool) -> Tensor:
    """Joints (B, K, 3) from heatmaps (B, K, h, w): x, y in input pixels, and the peak's value.

    On both axes, away from the border, the peak is moved a quarter of a pixel towards its higher
    neighbour (section 4, "quarter offset"), or, for `subpixel`, to the top of the parabola
    through the logarithms of the three values, which is exact for a Gaussian.
    """
    height, width = heatmaps.shape[-2:]
    score, index = heatmaps.flatten(2).max(-1)
    y, x = index // width, index % width
    interior = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    padded = F.pad(heatmaps, (1, 1, 1, 1)).flatten(2)

    def shift(step: int) -> Tensor:
        place = (y + 1) * (width + 2) + (x + 1)
        before, after = (padded.gather(2, (place + s)[..., None])[..., 0] for s in (-step, step))
        offset = _parabola_top(before, score, after) if subpixel else _quarter(before, after)
        return torch.where(interior, offset, 0.0)

    places = torch.stack([x + shift(1), y + shift(width + 2)], dim=-1) * STRIDE
    return torch.cat([places, score[..., None]], dim=-1)


def _quarter(before: Tensor, after: Tensor) -> Tensor:
    return torch.sign(after - before) * 0.25


def _parabola_top(before: Tensor, peak: Tensor, after: Tensor) -> Tensor:
    """Where the parabola through the logarithms at -1, 0, 1 is highest, at most half a pixel."""
    low, top, high = (values.clamp_min(1e-10).log() for values in (before, peak, after))
    bend = (2 * top - low - high).clamp_min(1e-6)
    return (0.5 * (high - low) / bend).clamp(-0.5, 0.5)


def keypoint_ap(
    predictions: np.ndarray, keypoints: np.ndarray, areas: np.ndarray, boxes: np.ndarray
) -> dict[str, float]:
    """AP, AP50, AP75, AR by pycocotools, one person per image.

    Args:
        predictions: (N, K, 3): x, y, score; a person's score is the mean of its joints'.
        keypoints: (N, K, 3): x, y, visibility.
        areas: (N,): pixels, for OKS.
        boxes: (N, 4): x, y, width, height.
    """
    persons = [
        {
            "id": number + 1,
            "image_id": number + 1,
            "category_id": 1,
            "keypoints": keypoints[number].flatten().tolist(),
            "num_keypoints": int((keypoints[number, :, 2] > 0).sum()),
            "area": float(areas[number]),
            "bbox": boxes[number].tolist(),
            "iscrowd": 0,
        }
        for number in range(len(keypoints))
    ]
    results = [
        {
            "image_id": number + 1,
            "category_id": 1,
            "keypoints": person.flatten().tolist(),
            "score": float(person[:, 2].mean()),
        }
        for number, person in enumerate(predictions)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": person["image_id"]} for person in persons],
            "annotations": persons,
            "categories": [{"id": 1, "name": "person"}],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = {"ap": 0, "ap50": 1, "ap75": 2, "ar": 5}  # places in COCOeval.stats for keypoints
    return {name: float(evaluation.stats[place]) for name, place in names.items()}
