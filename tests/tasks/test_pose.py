"""Targets, losses, augmentation, batches and the whole test, against formulas and hands."""

import contextlib
import io
import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import coco as pycoco
from pycocotools.cocoeval import COCOeval
from scipy import ndimage
from scipy.io import loadmat
from test_pose_data import ANIMAL, coco_content, coco_set, mpii_set, quietly
from torch import Tensor
from torch.nn import functional as F

from hrnet_search.joints import COCO, MPII
from hrnet_search.keypoints import affine, apply, decode
from hrnet_search.settings import CocoPose, People, PoseAugmentation, PoseTask
from hrnet_search.study import Study
from hrnet_search.tasks import pose as pose_module
from hrnet_search.tasks.base import MEAN, STD, batch_indices, normalise
from hrnet_search.tasks.cache import Prepared
from hrnet_search.tasks.images import Images
from hrnet_search.tasks.pose import (
    Pose,
    flip_average,
    gaussian_targets,
    half_body,
    heatmap_mse,
    heatmap_ohkm,
    mirror,
    spatial_cross_entropy,
    swap_order,
    vary,
)

PLAIN = {"scale": 0.0, "rotation": 0.0, "half_body": 0.0}
EXACT = {"subpixel": True, "decoder": "parabola"}


def task_of(data: People, prepared: Prepared, **settings: Any) -> Pose:
    return Pose(PoseTask.model_validate({"kind": "pose", **settings}), data, prepared)


def stand_in(*, size: tuple[int, int] = (128, 96), **settings: Any) -> Pose:
    """A task without data, for what needs none."""
    task = object.__new__(Pose)
    task.size = size
    task.task = PoseTask.model_validate({"kind": "pose", **settings})
    return task


# --- targets -----------------------------------------------------------------------------------


def target(x: float, y: float, *, sigma: float = 2.0, visible: float = 2.0, **options: Any) -> Any:
    """Heatmap (16, 20) and weight of one joint."""
    joints = torch.tensor([[[x, y, visible]]])
    settings = {"subpixel": False, **options}
    heatmaps, weights = gaussian_targets(joints, (16, 20), sigma, **settings)
    return heatmaps[0, 0], weights[0, 0].item()


@pytest.mark.parametrize(
    ("x", "y", "column", "row"),
    [
        (40, 32, 10, 8),
        (41.9, 33.9, 10, 8),  # 10.475 and 8.475 round down
        (42, 34, 11, 9),  # halves round up
        (38, 30.01, 10, 8),  # 9.5 and 7.5025 round up
        (0, 0, 0, 0),
        (79, 61, 20, 15),  # beyond the last column: no peak inside
    ],
)
def test_the_peak_is_one_at_the_rounded_joint(x: float, y: float, column: int, row: int) -> None:
    heatmap, weight = target(x, y)
    assert weight == 1
    for i in range(16):
        for j in range(20):
            dx, dy = j - column, i - row
            inside = abs(dx) <= 6 and abs(dy) <= 6
            expected = math.exp(-(dx**2 + dy**2) / 8) if inside else 0.0
            assert heatmap[i, j].item() == pytest.approx(expected, abs=1e-6)
    if column < 20:
        assert heatmap[row, column] == 1


@pytest.mark.parametrize(("sigma", "reach"), [(1.0, 3), (2.0, 6), (1.5, 4), (0.5, 1)])
def test_the_window_ends_at_three_sigma(sigma: float, reach: int) -> None:
    heatmap, _ = target(40, 32, sigma=sigma)
    columns = heatmap[8].nonzero().flatten()
    assert (columns.min().item(), columns.max().item()) == (10 - reach, 10 + reach)


@pytest.mark.parametrize(
    ("x", "y", "visible", "weight"),
    [
        (40, 32, 2, 1),
        (40, 32, 1, 1),  # labelled, hidden
        (40, 32, 0, 0),  # not labelled
        (-24, 32, 2, 1),  # six pixels left of the map: its window just meets it
        (-28, 32, 2, 0),
        (100, 32, 2, 1),  # column 25, last column 19
        (104, 32, 2, 0),
        (40, -28, 2, 0),
        (40, 84, 2, 1),  # row 21, last row 15
        (40, 88, 2, 0),
        (-1000, 1e6, 2, 0),
    ],
)
def test_joints_out_of_reach_or_not_labelled_have_no_weight_and_no_heatmap(
    x: float, y: float, visible: float, weight: float
) -> None:
    heatmap, given = target(x, y, visible=visible)
    assert given == weight
    assert (heatmap.sum() > 0) == (weight == 1)


def test_a_subpixel_target_has_its_centre_at_the_joint() -> None:
    heatmap, _ = target(41, 35, subpixel=True)  # 10.25, 8.75
    assert heatmap[9, 10].item() == pytest.approx(math.exp(-(0.25**2 + 0.25**2) / 8))
    assert heatmap[7, 13].item() == pytest.approx(math.exp(-(2.75**2 + 1.75**2) / 8))


# --- losses ------------------------------------------------------------------------------------


def test_heatmap_mse_by_hand() -> None:
    output = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[9.0, 9.0], [9.0, 9.0]]]])
    goal = torch.tensor([[[[0.0, 2.0], [1.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    # Half of 1 + 0 + 4 + 0 over 8 values; the second joint is not labelled.
    assert heatmap_mse(output, goal, torch.tensor([[1.0, 0.0]])).item() == 0.5 * 5 / 8


def test_heatmap_mse_is_the_official_mean_over_joints() -> None:
    # Official `JointsMSELoss`: per joint half of MSELoss(weighted both), summed, over joints.
    generator = torch.Generator().manual_seed(0)
    output, goal = (torch.randn(4, 17, 8, 6, generator=generator) for _ in range(2))
    weights = (torch.rand(4, 17, generator=generator) > 0.3).float()
    total = 0.0
    for joint in range(17):
        w = weights[:, joint, None, None]
        total += 0.5 * torch.nn.MSELoss()(output[:, joint] * w, goal[:, joint] * w).item()
    assert heatmap_mse(output, goal, weights).item() == pytest.approx(total / 17, rel=1e-6)


def test_spatial_cross_entropy_by_hand() -> None:
    output = torch.log(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, 7.0]]]]))
    goal = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.5]]]])
    first = -0.5 * (math.log(2 / 10) + math.log(3 / 10))
    second = -math.log(7 / 10)
    both = spatial_cross_entropy(output, goal, torch.tensor([[1.0, 1.0]]))
    assert both.item() == pytest.approx((first + second) / 2, rel=1e-6)
    one = spatial_cross_entropy(output, goal, torch.tensor([[0.0, 1.0]]))
    assert one.item() == pytest.approx(second, rel=1e-6)
    assert spatial_cross_entropy(output, goal, torch.zeros(1, 2)).item() == 0


def test_spatial_cross_entropy_is_least_where_the_softmax_is_the_target() -> None:
    goal, _ = target(40, 32)
    shares = (goal / goal.sum())[None, None]
    best = spatial_cross_entropy((shares + 1e-30).log(), goal[None, None], torch.ones(1, 1))
    positive = shares[shares > 0]
    assert best.item() == pytest.approx(-(positive * positive.log()).sum().item(), rel=1e-5)
    flat = spatial_cross_entropy(torch.zeros(1, 1, 16, 20), goal[None, None], torch.ones(1, 1))
    assert flat.item() == pytest.approx(math.log(16 * 20), rel=1e-5)


def test_ohkm_by_hand() -> None:
    output = torch.zeros(2, 3, 2, 2)
    goal = torch.zeros(2, 3, 2, 2)
    goal[0, 0, 0, 0], goal[0, 1], goal[0, 2, 1, 1] = 2.0, 1.0, 4.0
    goal[1, 0], goal[1, 1, 0, 0], goal[1, 2] = 3.0, 1.0, 2.0
    weights = torch.tensor([[1.0, 1, 1], [0, 1, 1]])
    # Half the mean squares: 0.5, 0.5, 2 and, the first joint not labelled, 0, 0.125, 2.
    expected = {1: (2 + 2) / 2, 2: (2.5 + 2.125) / 4, 3: (3 + 2.125) / 6}
    for count, value in expected.items():
        assert heatmap_ohkm(output, goal, weights, count=count).item() == pytest.approx(value)


def test_ohkm_of_all_joints_is_the_plain_loss_and_the_settings_choose() -> None:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(4, 17, 8, 6, generator=generator)
    joints = torch.rand(4, 17, 3, generator=generator) * torch.tensor([24.0, 32.0, 2.0])
    goal, weights = gaussian_targets(joints, (8, 6), 2.0, subpixel=False)
    plain = heatmap_mse(output, goal, weights)
    assert torch.allclose(heatmap_ohkm(output, goal, weights, count=17), plain)
    losses = {
        name: stand_in(loss=name, size=(32, 24), **more).loss(output, joints)
        for name, more in (("mse", {}), ("ohkm", {"ohkm_joints": 5}), ("cross_entropy", {}))
    }
    assert losses["mse"] == plain
    assert losses["ohkm"] == heatmap_ohkm(output, goal, weights, count=5)
    assert losses["cross_entropy"] == spatial_cross_entropy(output, goal, weights)


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_targets_are_drawn_in_the_resolution_of_the_output(stride: int) -> None:
    """Fig. 9: the same spread in pixels of each heatmap, the peak at the joint's place over it."""
    task = stand_in(size=(128, 96), sigma=1.0, subpixel=True)
    joints = torch.tensor([[[64.0, 32.0, 2.0]]])
    maps, weights = task.targets(joints, (128 // stride, 96 // stride))
    rows, columns = np.indices(maps.shape[2:])
    squares = (columns - 64 / stride) ** 2 + (rows - 32 / stride) ** 2
    inside = np.maximum(abs(columns - 64 / stride), abs(rows - 32 / stride)) <= 3
    assert np.allclose(maps[0, 0], np.exp(-squares / 2) * inside, atol=1e-6)
    assert weights.tolist() == [[1]]
    shares = maps.flatten(2) / maps.sum()
    least = -(shares * shares.clamp_min(1e-30).log()).sum().item()
    task = stand_in(size=(128, 96), sigma=1.0, subpixel=True, loss="cross_entropy")
    assert task.loss((maps + 1e-30).log(), joints).item() == pytest.approx(least, rel=1e-4)


# --- there and back ------------------------------------------------------------------------------


def joints_inside(least: float, count: int = 400) -> Tensor:
    """Joints (N, 1, 3) anywhere in crops of 128 x 96, so many heatmap pixels from the border."""
    places = np.random.default_rng(0).uniform(
        [4 * least] * 2, [92 - 4 * least, 124 - 4 * least], (count, 1, 2)
    )
    return torch.from_numpy(np.concatenate([places, np.full((count, 1, 1), 2.0)], -1)).float()


def there_and_back(joints: Tensor, sigma: float, *, subpixel: bool, decoder: str) -> Tensor:
    """How far decoded joints are from what was drawn, (N, 2) pixels of the crop."""
    heatmaps, _ = gaussian_targets(joints, (32, 24), sigma, subpixel=subpixel)
    return (decode(heatmaps, decoder=decoder, sigma=sigma) - joints)[:, 0, :2].abs()


def test_the_papers_targets_lose_at_most_half_a_heatmap_pixel() -> None:
    error = there_and_back(joints_inside(1), 2.0, subpixel=False, decoder="quarter")
    # A target's peak is symmetric, so nothing but rounding to 4 pixels is lost: uniform in 0 .. 2.
    assert error.max() <= 2 + 1e-4
    assert error.mean() == pytest.approx(1, abs=0.1)


def test_quarter_offset_halves_what_rounding_loses() -> None:
    # A peak r off the nearest pixel, |r| <= 1/2, is read at 1/4 towards it: | |r| - 1/4 | <= 1/4
    # of a heatmap pixel, one pixel of the crop; half a pixel on average.
    error = there_and_back(joints_inside(1), 2.0, subpixel=True, decoder="quarter")
    assert error.max() <= 1 + 1e-3
    assert error.mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize(("decoder", "border"), [("parabola", 0.5), ("dark", 3)])
def test_subpixel_targets_come_back_within_a_tenth_of_a_pixel(
    sigma: float, decoder: str, border: float
) -> None:
    # The parabola needs the neighbours alone. Dark's smoothing takes the outside for zeros, which
    # reaches as far as its filter and the Gaussian itself do.
    least = border if decoder == "parabola" else border * sigma
    error = there_and_back(joints_inside(least), sigma, subpixel=True, decoder=decoder)
    assert error.max() < (1e-3 if decoder == "parabola" else 0.1)


def test_at_the_border_the_peaks_pixel_is_what_is_found() -> None:
    joints = joints_inside(0)
    near = ((joints[..., :2] < 2) | (joints[..., :2] > torch.tensor([90.0, 122.0]))).any(-1)[:, 0]
    for decoder in ("quarter", "parabola", "dark"):
        error = there_and_back(joints[near], 1.0, subpixel=True, decoder=decoder)
        assert error.max() <= 2 + 1e-3


# --- mirroring -----------------------------------------------------------------------------------


SWAPPED = swap_order(COCO.index(COCO.flip_pairs), 17)


def test_mirroring_exchanges_left_and_right() -> None:
    joints = torch.zeros(1, 17, 3)
    joints[0, :, 0], joints[0, :, 1], joints[0, :, 2] = torch.arange(17), torch.arange(17) + 50, 2
    joints[0, 5, 2] = 0  # left shoulder not labelled
    mirrored = mirror(joints, width=64, order=SWAPPED)
    # nose, then left and right of eyes, ears, shoulders, elbows, wrists, hips, knees, ankles
    source = [0, *(number + (1 if number % 2 else -1) for number in range(1, 17))]
    assert mirrored[0, :, 0].tolist() == [63 - number for number in source]
    assert mirrored[0, :, 1].tolist() == [50 + number for number in source]
    assert mirrored[0, 6, 2] == 0
    assert mirrored[0, 5, 2] == 2


def test_mirroring_twice_changes_nothing_and_leaves_its_argument() -> None:
    joints = torch.rand(3, 17, 3, dtype=torch.float64)
    kept = joints.clone()
    twice = mirror(mirror(joints, width=48, order=SWAPPED), width=48, order=SWAPPED)
    assert torch.allclose(twice, joints)
    assert torch.equal(joints, kept)


def swapped_mirror(heatmaps: Tensor) -> Tensor:
    return heatmaps.flip(-1)[:, SWAPPED]


def any_network(images: Tensor) -> Tensor:
    """Heatmaps (B, 17, h, w) that have nothing to do with mirroring."""
    weights = torch.randn(17, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return F.conv2d(images, weights, stride=4)


def fair_network(images: Tensor) -> Tensor:
    """Heatmaps that mirror, sides exchanged, exactly when the images do."""
    left = F.max_pool2d(images, 4) * torch.arange(1.0, 13)
    right = F.max_pool2d(images.flip(-1), 4) * torch.arange(1.0, 13)
    sides = torch.stack([left, right.flip(-1)], dim=2).flatten(1, 2)  # l0 r0 l1 r1 l2 r2
    middle = F.max_pool2d(images[:, :1], 4)
    return torch.cat([middle, sides, sides, sides[:, :4]], dim=1)


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(3, 3, 64, 48, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("network", [any_network, fair_network])
def test_flip_averages_of_an_image_and_its_mirror_are_mirrors_exactly(
    pictures: Tensor, network: Callable[[Tensor], Tensor]
) -> None:
    ours = flip_average(network, pictures, order=SWAPPED, shift=False)
    mirrored = flip_average(network, pictures.flip(-1), order=SWAPPED, shift=False)
    assert torch.equal(mirrored, swapped_mirror(ours))
    # Shifted, the second is that of the mirror one pixel to the right: all but the first column.
    ours = flip_average(network, pictures, order=SWAPPED, shift=True)
    mirrored = flip_average(network, pictures.flip(-1), order=SWAPPED, shift=True)
    assert torch.equal(mirrored[..., 1:], swapped_mirror(ours)[..., :-1])


def test_a_network_that_mirrors_is_not_changed_by_the_flip_test(pictures: Tensor) -> None:
    plain = fair_network(pictures)
    assert torch.equal(fair_network(pictures.flip(-1)), swapped_mirror(plain))
    assert torch.equal(flip_average(fair_network, pictures, order=SWAPPED, shift=False), plain)
    shifted = flip_average(fair_network, pictures, order=SWAPPED, shift=True)
    assert torch.equal(shifted[..., 0], plain[..., 0])
    assert torch.equal(shifted[..., 1:], (plain[..., 1:] + plain[..., :-1]) / 2)


def test_the_shift_makes_up_for_three_quarters_of_a_pixel() -> None:
    # A joint at 40 of a crop 96 wide: at 10 in its heatmap, at 55 / 4 in the mirrored crop's.
    here, there = (
        gaussian_targets(torch.tensor([[[x, 64.0, 2.0]]]), (32, 24), 2.0, subpixel=True)[0]
        for x in (40.0, 96 - 1 - 40.0)
    )
    answers = iter((here, there))
    both = flip_average(lambda _: next(answers), torch.zeros(1, 3, 8, 8), order=[0], shift=True)
    # 10 and 10 + 1/4: together 10 + 1/8, half a pixel of the crop away.
    found = decode(both, decoder="parabola", sigma=2.0)[0, 0]
    assert found[:2].tolist() == pytest.approx([40.5, 64], abs=0.01)


# --- augmentation --------------------------------------------------------------------------------


class Draws:
    """Random numbers in a given order: uniform ones, and standard normal ones."""

    def __init__(self, uniform: list[float], normal: list[float]) -> None:
        self.uniform, self.normals = iter(uniform), iter(normal)

    def random(self) -> float:
        return next(self.uniform)

    def normal(self, mean: float = 0.0, deviation: float = 1.0) -> float:
        return mean + deviation * next(self.normals)


UPPER = np.isin(COCO.names, COCO.upper_body)


def varied(uniform: list[float], normal: list[float], *, hidden: int = 0, **by: float) -> Any:
    """`vary` of a person of ten labelled joints, seen at (50, 60) in 30 x 40 pixels."""
    joints = np.zeros((17, 3))
    joints[:10, 2] = 2
    joints[:hidden, 2] = 1
    joints[:10, 0] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 50]  # left wrist 50; mean 50
    joints[:10, 1] = [5, 5, 5, 5, 5, 25, 25, 25, 25, 15]
    settings = PoseAugmentation(**by)
    draws: Any = Draws(uniform, normal)
    return vary((50, 60), (30, 40), joints, upper=UPPER, size=(64, 48), by=settings, rng=draws)


@pytest.mark.parametrize(
    ("normals", "factor", "degrees"),
    [
        ((0.0, 0.0), 1, 0),
        ((0.4, 1.5), 1.1, 60),
        ((-0.4, -1.5), 0.9, -60),
        ((9.0, 9.0), 1.25, 80),  # cut at 1 + 0.25 and at twice 40
        ((-9.0, -9.0), 0.75, -80),
    ],
)
def test_scale_and_rotation_by_hand(
    normals: tuple[float, float], factor: float, degrees: float
) -> None:
    view = varied([0.6], list(normals), scale=0.25, rotation=40, half_body_joints=99)
    centre, extent, rotation = view
    assert centre == (50, 60)
    assert extent == pytest.approx((30 * factor, 40 * factor))
    assert rotation == pytest.approx(degrees)
    # Beyond the share of crops that are turned, the scale alone varies.
    still = varied([0.61], list(normals), scale=0.25, rotation=40, half_body_joints=99)
    assert still == (centre, extent, 0)


def test_half_a_body_by_hand() -> None:
    by = {"scale": 0, "rotation": 0, "half_body": 0.3, "half_body_joints": 9}
    centre, extent, _ = varied([0.29, 1], [0.4, 0, 0], **by)
    # Ten joints of the upper body around (50, 14), 80 wide and 20 high: 80 x 320/3, times 1.5.
    assert centre == pytest.approx((50, 14))
    assert extent == pytest.approx((120, 160))
    whole = ((50, 60), (30, 40), 0)
    assert varied([0.31, 1], [0, 0], **by) == whole  # not this time
    assert varied([1], [0, 0], **{**by, "half_body_joints": 10}) == whole  # ten are too few
    # Joints that are labelled, but hidden, are counted and shown like the others.
    assert varied([0.29, 1], [0.4, 0, 0], hidden=1, **by) == (centre, extent, 0)


def half(above: int, below: int, normal: float) -> str:
    """Which half's joints are taken when so many of each are labelled."""
    joints = np.zeros((17, 3))
    joints[:above, 2] = joints[11 : 11 + below, 2] = 1
    joints[:11, 0], joints[11:, 0] = np.arange(11), 100 + np.arange(6)
    draws: Any = Draws([], [normal])
    found = half_body(joints, upper=UPPER, size=(64, 48), rng=draws)
    return "none" if found is None else "upper" if found[0][0] < 50 else "lower"


@pytest.mark.parametrize(
    ("above", "below", "normal", "expected"),
    [
        (5, 5, 0.49, "upper"),  # a normal number below 0.5
        (5, 5, 0.5, "lower"),
        (2, 5, 0.0, "lower"),  # two joints are too few for the upper half
        (5, 2, 0.9, "upper"),  # or for the lower one
        (2, 2, 0.0, "upper"),
        (1, 2, 0.0, "none"),
        (0, 3, 0.0, "lower"),
    ],
)
def test_which_half_is_the_official_choice(
    above: int, below: int, normal: float, expected: str
) -> None:
    assert half(above, below, normal) == expected


def test_joints_in_one_place_are_no_half() -> None:
    joints = np.ones((17, 3))
    assert half_body(joints, upper=UPPER, size=(64, 48), rng=np.random.default_rng(0)) is None


def test_who_has_no_upper_half_is_shown_whole() -> None:
    joints, no_upper = np.ones((17, 3)), np.zeros(17, dtype=bool)
    by = PoseAugmentation(scale=0, rotation=0, half_body=1, half_body_joints=0)
    view = vary((5, 6), (7, 8), joints, upper=no_upper, size=(64, 48), by=by,
                rng=np.random.default_rng(0))  # fmt: skip
    assert view == ((5, 6), (7, 8), 0)


# --- batches of synthetic people -----------------------------------------------------------------


@pytest.fixture
def task(tiny_study: Study, tiny_pose: Prepared) -> Pose:
    assert isinstance(tiny_study.task, PoseTask)
    assert isinstance(tiny_study.data, People)
    return Pose(tiny_study.task, tiny_study.data, tiny_pose)


def test_batches_depend_on_seed_and_step_alone(task: Pose) -> None:
    images, joints = task.batch(3, size=8, seed=1)
    assert images.shape == (8, 3, 32, 32)
    assert joints.shape == (8, 17, 3)
    again, joints_again = task.batch(3, size=8, seed=1)
    assert torch.equal(images, again)
    assert torch.equal(joints, joints_again)
    for step, seed in ((4, 1), (3, 2)):
        assert not torch.equal(images, task.batch(step, size=8, seed=seed)[0])


def test_half_of_a_batch_is_mirrored_together_with_its_joints(
    task: Pose, tiny_pose: Prepared
) -> None:
    images, keypoints = Images(tiny_pose, "train"), tiny_pose.array("train_joints")
    flipped = 0
    for step in range(20):
        x, found = task.batch(step, size=8, seed=0)
        coins = np.random.default_rng((0, step, 1)).random(8) < 0.5
        for place, number in enumerate(batch_indices(len(images), step, size=8, seed=0)):
            one, joints = images[number][None], torch.tensor(keypoints[number][None])
            if coins[place]:
                one, joints = one[:, :, ::-1], mirror(joints, width=32, order=SWAPPED)
                flipped += 1
            assert torch.equal(x[place], normalise(one)[0])
            assert torch.equal(found[place], joints[0])
    # 160 fair coins: 80, give or take four deviations of 6.3.
    assert 55 < flipped < 105


def test_batches_leave_the_prepared_data_alone(task: Pose, tiny_pose: Prepared) -> None:
    images, joints = tiny_pose.pixels("train").copy(), tiny_pose.array("train_joints").copy()
    task.batch(0, size=48, seed=0)
    assert np.array_equal(tiny_pose.pixels("train"), images)
    assert np.array_equal(task.train.joints, joints)


def test_whole_images_at_once_are_the_crops_one_by_one(
    task: Pose, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = task.batch(2, size=16, seed=3)
    assert task.whole is not None
    monkeypatch.setattr(task, "whole", None)
    one_by_one = task.batch(2, size=16, seed=3)
    assert all(torch.equal(*pair) for pair in zip(at_once, one_by_one, strict=True))


# --- batches of crops ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> tuple[CocoPose, Prepared]:
    # Padded so much that no joint is at the border of a crop, where decoding is coarse.
    content = coco_content(images=4, people=3)
    data = coco_set(tmp_path_factory.mktemp("animals"), content, box_padding=1.5)
    return data, quietly(data)


def test_the_parts_of_a_batch_are_the_whole_exactly(animals: tuple[CocoPose, Prepared]) -> None:
    task = task_of(*animals, augmentation={"half_body": 1, "half_body_joints": 2})
    images, joints = task.batch(1, size=9, seed=4)
    for world in (2, 3, 9):
        for rank in range(world):
            part, some = task.batch(1, size=9, seed=4, part=(rank, world))
            assert torch.equal(part, images[rank::world])
            assert torch.equal(some, joints[rank::world])


def test_every_sample_of_every_batch_is_varied_anew(animals: tuple[CocoPose, Prepared]) -> None:
    task = task_of(*animals, augmentation={"flip": 0, "half_body": 0, "rotation_share": 1})
    # Twelve animals, each twice in a batch; then all again.
    crops = torch.cat([task.batch(step, size=24, seed=0)[0] for step in (0, 1)])
    assert len({crop.numpy().tobytes() for crop in crops}) == 48
    still = task_of(*animals, augmentation={**PLAIN, "flip": 0})
    assert len({crop.numpy().tobytes() for crop in still.batch(0, size=24, seed=0)[0]}) == 12


def test_an_unvaried_crop_by_hand(tmp_path: Path) -> None:
    content = coco_content(images=1, people=1)
    keypoints = [30, 40, 2, 22, 52, 2, 38, 52, 1, 0, 0, 0, 30, 24, 2]
    content["annotations"][0] |= {"bbox": [20.8, 24, 19.4, 33], "keypoints": keypoints}
    data = coco_set(tmp_path, content, box_padding=1.5)
    task = task_of(data, quietly(data), augmentation={**PLAIN, "flip": 0}, sigma=1.0)
    x, joints = task.batch(0, size=2, seed=0)
    heatmaps, weights = task.targets(joints, (16, 12))
    # The box from pixel to pixel is 18.4 x 32 around (30, 40); 24 x 32 at 3:4; 36 x 48 padded,
    # which becomes 48 x 64: 4 / 3 as large, and (30, 40) goes to (24, 32).
    places = [(24, 32), (24 - 32 / 3, 48), (24 + 32 / 3, 48), None, (24, 32 - 64 / 3)]
    assert weights[0].tolist() == [1, 1, 1, 0, 1]
    for heatmap, place in zip(heatmaps[0], places, strict=True):
        if place is None:
            assert heatmap.sum() == 0
        else:
            row, column = divmod(int(heatmap.argmax()), 12)
            assert (column, row) == (math.floor(place[0] / 4 + 0.5), math.floor(place[1] / 4 + 0.5))
    pixels = Images(task.prepared, "train")[0].astype(float)
    grey = (x[0].permute(1, 2, 0) * STD + MEAN).numpy()
    # Pixel (24, 32) of the crop is (30, 40) of the image, and (27, 35) three quarters of three on.
    assert grey[32, 24] == pytest.approx(pixels[40, 30], abs=1.01)
    assert grey[36, 28] == pytest.approx(pixels[43, 33], abs=1.01)
    between = 0.25 * pixels[40, 30] + 0.75 * pixels[40, 31]  # (25, 32) is 30.75
    assert grey[32, 25] == pytest.approx(between, abs=1.01)


def dots(content: Any, folder: Path, colours: np.ndarray) -> None:
    """Pictures, black but for a square of each joint's colour in its place."""
    for entry in content["images"]:
        picture = np.zeros((entry["height"], entry["width"], 3), dtype=np.uint8)
        for person in content["annotations"]:
            if person["image_id"] == entry["id"]:
                for colour, (x, y) in zip(
                    colours, np.array(person["keypoints"]).reshape(-1, 3)[:, :2], strict=True
                ):
                    row, column = round(y), round(x)
                    picture[row - 2 : row + 3, column - 2 : column + 3] = colour
        Image.fromarray(picture).save(folder / entry["file_name"])


COLOURS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0], [0, 250, 250]])


@pytest.fixture
def dotted(tmp_path: Path) -> CocoPose:
    """Animals with a coloured dot at every joint, one in each image, dots apart."""
    content = coco_content(images=6, people=1)
    rng = np.random.default_rng(5)
    spots = np.array([[30, 20], [60, 20], [30, 60], [60, 60], [45, 40]])
    for person in content["annotations"]:
        places = spots + rng.integers(-6, 7, (5, 2))
        person["keypoints"] = [float(v) for place in places for v in (*place, 2)]
        person |= {"bbox": [20, 10, 51, 61], "area": 1500.0}
    data = coco_set(tmp_path, content, input_size=[128, 96])
    for split in ("train", "val"):
        dots(content, tmp_path / split, COLOURS)
    return data


def dot_places(images: Tensor) -> Tensor:
    """Centres (B, 5, 2) of each colour's dot in normalised images, x and y."""
    pixels = (images.permute(0, 2, 3, 1) * STD + MEAN)[:, None]
    colours = torch.from_numpy(COLOURS)[None, :, None, None]
    likeness = (1 - (pixels - colours).abs().amax(-1) / 120).clamp_min(0)
    total = likeness.sum((2, 3))
    rows, columns = torch.arange(likeness.shape[2]), torch.arange(likeness.shape[3])
    x, y = (likeness.sum(2) * columns).sum(-1), (likeness.sum(3) * rows).sum(-1)
    return torch.stack([x, y], dim=-1) / total[..., None]


def test_in_every_training_crop_the_targets_are_where_the_pixels_are(dotted: CocoPose) -> None:
    by = {"flip": 0.5, "scale": 0.2, "rotation": 40, "half_body": 0.5, "half_body_joints": 4}
    task = task_of(dotted, quietly(dotted), augmentation=by, sigma=2.0, subpixel=True)
    mirrored = turned = 0
    for step in range(4):
        images, joints = task.batch(step, size=6, seed=0)
        heatmaps, weights = task.targets(joints, (32, 24))
        seen = dot_places(images)
        drawn = decode(heatmaps, decoder="parabola", sigma=2.0)[..., :2]
        coins = np.random.default_rng((0, step, 1)).random(6) < 0.5
        for place in range(6):
            # The picture of a mirrored crop keeps the left paw's colour, the targets swap sides.
            order = [0, 2, 1, 3, 4] if coins[place] else [0, 1, 2, 3, 4]
            inside = (seen[place] > 8).all(-1) & (seen[place] < torch.tensor([88.0, 120.0])).all(-1)
            error = (seen[place][order] - drawn[place]).norm(dim=-1)[inside[order]]
            assert (weights[place][inside[order]] == 1).all()
            assert error.max() < 0.6  # dots are drawn at whole pixels, and blurred
            mirrored += int(coins[place])
        turned += int((seen[:, 4, 0] - seen[:, 0, 0]).abs().max() > 0)
    assert 0 < mirrored < 24
    assert turned


def test_an_animals_dots_are_found_in_the_whole_image(dotted: CocoPose, tmp_path: Path) -> None:
    task = task_of(dotted, quietly(dotted), test={"flip": False}, **EXACT)

    def predict(images: Tensor) -> Tensor:
        places = dot_places(images)
        joints = torch.cat([places, torch.full_like(places[..., :1], 2)], dim=-1)
        return gaussian_targets(joints, (32, 24), 2.0, subpixel=True)[0]

    metrics = task.evaluate(predict, out=tmp_path / "out")
    assert metrics["ap75"] == pytest.approx(1)
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    places = np.array([one["keypoints"] for one in found]).reshape(6, 5, 3)[..., :2]
    error = np.abs(places - task.val.joints[..., :2])
    assert error.max() < 0.5
    assert error.mean() < 0.2


# --- the whole test ------------------------------------------------------------------------------


class Oracle:
    """Draws the joints of the people it is shown; crops first, then the same ones mirrored.

    Args:
        task: Whose validation people, in its order.
        subpixel: As of the targets.
        noise: Deviation of an error in pixels of the crop, and of scores.
    """

    def __init__(self, task: Pose, *, subpixel: bool = True, noise: float = 0.0) -> None:
        joints = torch.from_numpy(task.val.joints.copy())
        matrices = [affine(*task.val.view(n, task.size), task.size) for n in range(len(joints))]
        joints[..., :2] = apply(torch.stack(matrices), joints[..., :2])
        rng = np.random.default_rng(0)
        joints[..., :2] += torch.from_numpy(rng.normal(0, 1, (*joints.shape[:2], 2)) * noise)
        self.scores = torch.from_numpy(1 - rng.uniform(0, 0.5, joints.shape[:2]) * (noise > 0))
        self.task, self.joints, self.subpixel = task, joints, subpixel
        self.start, self.seen = 0, 0

    def __call__(self, images: Tensor) -> Tensor:
        numbers = slice(self.start, self.start + len(images))
        joints, scores = self.joints[numbers], self.scores[numbers]
        self.seen += 1
        if self.task.task.test.flip and self.seen % 2 == 0:
            joints = mirror(joints, width=self.task.size[1], order=self.task.swapped)
            scores = scores[:, self.task.swapped]
        if not self.task.task.test.flip or self.seen % 2 == 0:
            self.start += len(images)
        shape = (-(-self.task.size[0] // 4), -(-self.task.size[1] // 4))
        maps, _ = gaussian_targets(joints, shape, self.task.task.sigma, subpixel=self.subpixel)
        maps = maps * scores.float()[..., None, None]
        return (maps + 1e-9).log() if self.task.task.loss == "cross_entropy" else maps


def independent_ap(annotations: Path, predictions: Path, sigmas: Any) -> dict[str, float]:
    """pycocotools on two files, as its own demonstration runs it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = pycoco.COCO(annotations)
        evaluation = COCOeval(truth, truth.loadRes(str(predictions)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("ap", "ap50", "ap75", "apm", "apl", "ar")
    return {name: evaluation.stats[place] for place, name in enumerate(names)}


@pytest.fixture(scope="module")
def real(real_data: Callable[[str], Path]) -> tuple[CocoPose, Prepared]:
    data = CocoPose(kind="coco_pose", root=str(real_data("coco_mini")), input_size=[256, 192])
    return data, quietly(data)


@pytest.mark.parametrize(
    "settings",
    [
        {**EXACT, "test": {"flip": False}},
        {**EXACT, "test": {"flip": True}},  # half a pixel of the crop, from the shift
        {"subpixel": True, "decoder": "dark", "test": {"flip": False}},
        {**EXACT, "loss": "cross_entropy", "sigma": 3, "test": {"flip": False, "joint_score": 0}},
    ],
)
def test_the_truth_fed_back_scores_one_on_real_people(
    real: tuple[CocoPose, Prepared], settings: dict[str, Any]
) -> None:
    task = task_of(*real, **settings)
    metrics = task.evaluate(Oracle(task))
    assert metrics == pytest.approx(dict.fromkeys(metrics, 1), abs=1e-9)
    assert set(metrics) == {"ap", "ap50", "ap75", "apm", "apl", "ar"}


def test_real_joints_come_back_within_the_quantisation_of_the_heatmap(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    # The paper's targets and decoding lose half a heatmap pixel, 2 pixels of the crop. So do they
    # with the flip test: x / 4 rounded as it is or, shifted, as x / 4 - 1/4 upwards, gives the
    # same pixel or, from u + 1/4 to u + 1/2, its next one, and then u + 1/4 is found. (Metric nme
    # is asked for, because that writes everybody, in order.)
    names = {"names": list(COCO.names), "flip_pairs": [list(pair) for pair in COCO.flip_pairs]}
    names["normalise_by"] = ["left_shoulder", "right_shoulder"]
    root = str(real_data("coco_mini"))
    data = CocoPose(kind="coco_pose", root=root, input_size=[256, 192], keypoints=names)
    task = task_of(data, quietly(data), metric="nme")
    oracle = Oracle(task, subpixel=False)
    task.evaluate(oracle, out=tmp_path)
    written = json.loads((tmp_path / "predictions.json").read_text())
    found = np.array([one["keypoints"] for one in written]).reshape(-1, 17, 3)[..., :2]
    joints, shown = task.val.joints, oracle.joints.numpy()
    limit = np.array([192, 256]) - 6
    inside = ((shown[..., :2] >= 2) & (shown[..., :2] <= limit)).all(-1) & (joints[..., 2] > 0)
    assert inside.sum() > 400
    scale = np.array([task.val.view(n, task.size)[1][0] for n in range(len(joints))]) / 192
    error = np.abs(found - joints[..., :2]) / scale[:, None, None]
    assert error[inside].max() <= 2 + 1e-3
    assert error[inside].max() > 1.9


@pytest.mark.parametrize("flip", [False, True])
def test_our_ap_is_pycocotools_on_the_written_file(
    real: tuple[CocoPose, Prepared], tmp_path: Path, flip: bool
) -> None:
    task = task_of(*real, **EXACT, test={"flip": flip})
    metrics = task.evaluate(Oracle(task, noise=5.0), out=tmp_path)
    file = Path(real[0].root) / "annotations" / "person_keypoints_val2017.json"
    expected = independent_ap(file, tmp_path / "predictions.json", COCO.sigmas)
    assert metrics == expected
    assert 0.1 < metrics["ap"] < 0.9


@pytest.mark.parametrize("suffix", ["", ".zip"])
@pytest.mark.parametrize("flip", [False, True])
def test_the_truth_fed_back_scores_one_on_drawn_sets(
    tmp_path: Path, suffix: str, flip: bool
) -> None:
    data = coco_set(tmp_path, suffix=suffix, input_size=[128, 96], box_padding=1.5)
    task = task_of(data, quietly(data), **EXACT, test={"flip": flip})
    assert task.evaluate(Oracle(task))["ap"] == pytest.approx(1)


def test_ap_of_other_joints_is_pycocotools_with_their_spreads(
    animals: tuple[CocoPose, Prepared], tmp_path: Path
) -> None:
    task = task_of(*animals, **EXACT)
    metrics = task.evaluate(Oracle(task, noise=2.0), out=tmp_path)
    content = json.loads((Path(animals[0].root) / "val.json").read_text())
    for entry in content["annotations"]:
        entry["id"] += 1  # COCOeval takes number 0 for none
    (tmp_path / "truth.json").write_text(json.dumps({"info": {}, **content}))
    expected = independent_ap(tmp_path / "truth.json", tmp_path / "predictions.json", ANIMAL.sigmas)
    assert metrics == {name: value for name, value in expected.items() if value >= 0}
    assert 0.1 < metrics["ap"] < 0.95


def test_a_detectors_boxes_are_scored_and_doubles_suppressed(tmp_path: Path) -> None:
    data = coco_set(tmp_path, coco_content(images=2, people=1), val_boxes="boxes.json")
    content = json.loads((tmp_path / "val.json").read_text())
    boxes = [
        {"image_id": e["image_id"], "category_id": 3, "bbox": e["bbox"], "score": score}
        for e in content["annotations"]
        for score in (0.5, 0.75, 0.25)  # the same animal three times
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    task = task_of(data, quietly(data), **EXACT, test={"flip": False})
    truth = np.array([e["keypoints"] for e in content["annotations"]]).reshape(2, 5, 3)
    oracle = Oracle(task)
    joints = torch.from_numpy(truth.repeat(3, axis=0)).float()
    matrices = [affine(*task.val.view(n, task.size), task.size) for n in range(6)]
    joints[..., :2] = apply(torch.stack(matrices), joints[..., :2])
    oracle.joints = joints
    metrics = task.evaluate(oracle, out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [one["score"] for one in found] == pytest.approx([0.75, 0.75], abs=0.02)
    assert [one["image_id"] for one in found] == [7, 8]
    assert metrics["ap"] == pytest.approx(1)
    # Alike beyond any limit, all stay if the limit is 1.
    lenient = task_of(data, quietly(data), **EXACT, test={"flip": False, "oks_nms": 1})
    oracle.start = 0
    lenient.evaluate(oracle, out=tmp_path / "all")
    assert len(json.loads((tmp_path / "all" / "predictions.json").read_text())) == 6


def test_near_doubles_are_suppressed_by_their_oks_and_scored_by_joints_above_a_fifth(
    tmp_path: Path,
) -> None:
    content = coco_content(images=1, people=1)
    boxes = [
        {"image_id": 7, "category_id": 3, "bbox": [20, 16, 48, 64], "score": score}
        for score in (0.8, 0.75, 0.5, 0.3)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    # Crops of the image's own scale, whose corner is (20, 16).
    data = coco_set(tmp_path, content, val_boxes="boxes.json", box_padding=1.0)
    task = task_of(data, quietly(data), **EXACT, test={"flip": False})
    oracle = Oracle(task)
    # On pixels of the heatmap, so that a peak is as high as it is drawn.
    places = torch.tensor([[24.0, 12], [12, 52], [32, 52], [24, 28], [16, 40]]).repeat(4, 1, 1)
    # Areas are 48 x 64: a joint d pixels off has exp(-d^2 / (2 48 64 (2 sigma)^2)). Four pixels
    # are 0.903 (paws), 0.771 (withers), 0.937 (tail): OKS 0.9029, just above 0.9 ...
    places[1, 1:, 0] += 4
    places[2, 0, 0] += 4  # ... and 0.485 of the nose: OKS 0.8970, just below
    places[3, :, 1] -= 8
    oracle.joints = torch.cat([places, torch.full((4, 5, 1), 2.0)], dim=-1)
    sure, unsure = [0.9, 0.9, 0.9, 0.25, 0.15], [0.5, 0.5, 0.19, 0.21, 0.1]
    oracle.scores = torch.tensor([sure, sure, unsure, [0.2, 0.1, 0.1, 0.1, 0.05]])
    task.evaluate(oracle, out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [one["keypoints"][0] for one in found] == pytest.approx([44, 48, 44], abs=1e-3)
    assert [one["keypoints"][1] for one in found] == pytest.approx([28, 28, 20], abs=1e-3)
    # Of the box, times the mean of four joints, of three, of none.
    expected = [0.8 * 2.95 / 4, 0.5 * 1.21 / 3, 0]
    assert [one["score"] for one in found] == pytest.approx(expected, abs=1e-5)


def darks_place(heatmap: np.ndarray, sigma: float) -> np.ndarray:
    """x, y of the peak, by scipy's filter and numpy's solution of the Newton step."""
    logs = np.log(ndimage.gaussian_filter(heatmap, sigma, mode="constant", truncate=3.0))
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    around = logs[y - 2 : y + 3, x - 2 : x + 3]
    rows, columns = np.gradient(around)
    (yy, yx), (xy, xx) = np.gradient(rows), np.gradient(columns)
    bend = [[xx[2, 2], xy[2, 2]], [yx[2, 2], yy[2, 2]]]
    step = -np.linalg.solve(bend, [columns[2, 2], rows[2, 2]])
    return np.asarray([x + step[0], y + step[1]])


def test_dark_smooths_by_the_sigma_of_the_targets(tmp_path: Path) -> None:
    data = coco_set(tmp_path, coco_content(images=1, people=1), input_size=[128, 96])
    task = task_of(data, quietly(data), decoder="dark", sigma=3.0, test={"flip": False})
    places = torch.tensor([[40.0, 50], [50, 60], [45, 70], [38, 80], [60, 66]])[None]
    joints = torch.cat([places, torch.full((1, 5, 1), 2.0)], dim=-1)
    maps, _ = gaussian_targets(joints, (32, 24), 3.0, subpixel=True)
    other, _ = gaussian_targets(joints + 10, (32, 24), 1.0, subpixel=True)
    maps = maps + 0.4 * other + 1e-4  # with a second, narrow peak, which draws at the first one
    metrics = task.evaluate(lambda images: maps, out=tmp_path / "out")
    assert set(metrics) >= {"ap"}
    (found,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    ours = torch.tensor(found["keypoints"]).reshape(1, 5, 3)[..., :2]
    crop = apply(affine(*task.val.view(0, task.size), task.size)[None], ours)[0].numpy() / 4
    expected, wrong = (
        np.stack([darks_place(m.astype(float), sigma) for m in maps[0].numpy()])
        for sigma in (3.0, 2.0)
    )
    np.testing.assert_allclose(crop, expected, atol=1e-3)
    assert np.abs(wrong - expected).min() > 0.04


@pytest.mark.parametrize("batch", [3, 64])
def test_evaluation_sees_every_validation_image_once_and_in_order(
    task: Pose, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(pose_module, "EVAL_BATCH", batch)
    seen = []
    oracle = Oracle(task)

    def predict(images: Tensor) -> Tensor:
        seen.append(images)
        return oracle(images)

    task.evaluate(predict)
    assert max(len(images) for images in seen) == min(batch, 8)
    assert torch.equal(torch.cat(seen), normalise(np.stack(list(Images(task.prepared, "val")))))


def test_crops_are_made_while_the_network_is_busy(
    animals: tuple[CocoPose, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(*animals, test={"flip": False})
    monkeypatch.setattr(pose_module, "EVAL_BATCH", 4)
    warp_one, made, last = pose_module.warp, list[np.ndarray](), threading.Event()

    def warp(*arguments: Any) -> np.ndarray:
        made.append(warp_one(*arguments))
        if len(made) == len(task.val):
            last.set()
        return made[-1]

    def predict(images: Tensor) -> Tensor:
        assert last.wait(timeout=20)  # the last crop is there before the first answer
        return torch.zeros(len(images), 5, 16, 12)

    monkeypatch.setattr(pose_module, "warp", warp)
    assert len(task.val) == 3 * 4  # one batch in use, and two ahead
    task.evaluate(predict)


def test_no_more_than_two_batches_of_crops_wait_for_the_network(
    animals: tuple[CocoPose, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(*animals, test={"flip": False})
    monkeypatch.setattr(pose_module, "EVAL_BATCH", 2)
    make, made, seen = task._val_crops, list[int](), list[int]()

    def crops(numbers: Any) -> Any:
        made.append(len(numbers))
        return make(numbers)

    def predict(images: Tensor) -> Tensor:
        seen.append(len(images))
        assert len(made) <= len(seen) + 2
        return torch.zeros(len(images), 5, 16, 12)

    monkeypatch.setattr(task, "_val_crops", crops)
    task.evaluate(predict)
    assert made == seen == [2] * 6


def test_a_batch_of_crops_may_cut_an_image_in_two(
    animals: tuple[CocoPose, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(*animals, **EXACT, test={"flip": False})
    expected = task.evaluate(Oracle(task))
    monkeypatch.setattr(pose_module, "EVAL_BATCH", 2)  # three in each image
    assert task.evaluate(Oracle(task)) == expected


def test_a_network_that_says_nothing_has_no_ap(task: Pose) -> None:
    metrics = task.evaluate(lambda images: torch.zeros(len(images), 17, 8, 8))
    assert metrics["ap"] < 0.1


def test_outputs_of_other_precision_are_taken(animals: tuple[CocoPose, Prepared]) -> None:
    task = task_of(*animals, **EXACT, test={"flip": False})
    oracle = Oracle(task)
    assert task.evaluate(lambda images: oracle(images).bfloat16())["ap50"] == 1


def test_nme_of_a_known_error(animals: tuple[CocoPose, Prepared], tmp_path: Path) -> None:
    task = task_of(*animals, **EXACT, metric="nme", test={"flip": False})
    assert task.evaluate(Oracle(task))["nme"] < 1e-4
    oracle = Oracle(task)
    # One of five joints, by four pixels of the crop towards its middle.
    oracle.joints[:, 1, 0] += 4 * torch.sign(24 - oracle.joints[:, 1, 0])
    metrics = task.evaluate(oracle, out=tmp_path)
    joints = task.val.joints
    unit = np.linalg.norm(joints[:, 0, :2] - joints[:, 4, :2], axis=1)
    width = np.array([task.val.view(n, task.size)[1][0] for n in range(len(joints))])
    assert metrics == {"nme": pytest.approx((4 * width / 48 / unit).mean() / 5, rel=1e-3)}
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert len(found) == len(joints)
    assert set(found[0]) == {"image_id", "category_id", "keypoints", "score"}


def test_pckh_of_a_known_error(tmp_path: Path) -> None:
    data = mpii_set(tmp_path)
    task = task_of(data, quietly(data, "pckh"), metric="pckh", test={"flip": False}, **EXACT)
    assert task.evaluate(Oracle(task)) == {"pckh": 1, "pckh01": 1}
    # The heads are 30 pixels: 15 and 3 are the limits; crops are 62.5 wide, 64 in pixels.
    oracle = Oracle(task)
    oracle.joints[0, 0, 0] += 4 * 64 / 62.5
    metrics = task.evaluate(oracle, out=tmp_path / "out")
    counted = 3 * 14 - 1  # without pelvis and thorax, and the joint that is missing
    assert metrics == {"pckh": 1, "pckh01": pytest.approx((counted - 1) / counted)}
    details = json.loads((tmp_path / "out" / "details.json").read_text())
    assert details == {"pckh": dict.fromkeys(MPII.names, 1.0)}
    found = loadmat(tmp_path / "out" / "pred.mat")["preds"]
    truth = loadmat(tmp_path / "annot" / "gt_valid.mat")["pos_gt_src"].transpose(2, 0, 1)
    labelled = task.val.joints[..., 2] > 0
    labelled[0, 0] = False
    assert np.abs(found - truth)[labelled].max() < 0.01


def test_what_the_validation_people_can_be_measured_by(tmp_path: Path) -> None:
    content = coco_content(images=1, people=2)
    first, second = content["annotations"]
    first["area"], second["area"] = 32.0**2 - 1, 96.0**2 + 1  # small, and large
    data = coco_set(tmp_path, content)
    task = task_of(data, quietly(data))
    measured = {"ap": True, "ar": True, "apm": False, "apl": True}
    assert {name: task.measures(name) for name in measured} == measured
    assert set(measured) - {"apm"} <= set(task.evaluate(Oracle(task)))
    second["keypoints"][2::3] = [0] * 5  # nothing to measure of who is large, whatever this says:
    assert second["num_keypoints"] == 5
    data = coco_set(tmp_path, content)
    assert not task_of(data, quietly(data)).measures("apl")


# --- what others must know -----------------------------------------------------------------------


def test_preprocessing_and_sample_describe_the_data(task: Pose) -> None:
    about = task.preprocessing()
    assert about["input_size"] == [32, 32]
    assert about["softmax"] is True
    assert (about["decoder"], about["sigma"], about["padding"]) == ("quarter", 1.0, 1.25)
    assert about["keypoints"] == list(COCO.names)
    assert len(about["keypoints"]) == task.num_outputs == 17
    assert [15, 13] in about["skeleton"]
    assert json.loads(json.dumps(about)) == about
    assert np.array_equal(task.samples(1)[0], Images(task.prepared, "val")[0])
    assert task.samples(1)[0].dtype == np.uint8


def test_the_sample_is_the_first_persons_crop(animals: tuple[CocoPose, Prepared]) -> None:
    task = task_of(*animals)
    assert task.preprocessing()["padding"] == 1.5  # as the data has it
    crops: list[Tensor] = []

    def predict(images: Tensor) -> Tensor:
        crops.append(images)
        return torch.zeros(len(images), 5, 16, 12)

    task.evaluate(predict)
    assert torch.equal(normalise(task.samples(1)[0][None])[0], crops[0][0])
    assert task.preprocessing()["keypoints"] == ANIMAL.names
