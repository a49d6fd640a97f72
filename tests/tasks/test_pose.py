"""Heatmaps, their decoding, losses and AP, against formulas, hands and an independent AP."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hrnet_search.study import PoseTask, Study
from hrnet_search.tasks import pose as pose_module
from hrnet_search.tasks.base import batch_indices, normalise
from hrnet_search.tasks.cache import Prepared
from hrnet_search.tasks.pose import (
    Pose,
    decode,
    gaussian_targets,
    heatmap_mse,
    keypoint_ap,
    mirror,
    spatial_cross_entropy,
)

# COCO's per-keypoint constants, twice 0.026, 0.025, 0.025, 0.035, ...
# (cocodataset.org, keypoint evaluation).
COCO_SIGMAS = (
    np.array(
        [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89], dtype=float
    ).round()
    / 1000
)


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


# --- decoding ----------------------------------------------------------------------------------


def decoded(values: dict[tuple[int, int], float], *, subpixel: bool = False) -> list[float]:
    """x, y, score of a (5, 6) map with these values at (row, column), zero elsewhere."""
    heatmaps = torch.zeros(1, 1, 5, 6)
    for (row, column), value in values.items():
        heatmaps[0, 0, row, column] = value
    return decode(heatmaps, subpixel=subpixel)[0, 0].tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({(2, 3): 0.9}, [12, 8, 0.9]),  # neighbours alike: no shift
        ({(2, 3): 0.9, (2, 4): 0.5}, [13, 8, 0.9]),
        ({(2, 3): 0.9, (2, 2): 0.5, (2, 4): 0.4}, [11, 8, 0.9]),
        ({(2, 3): 0.9, (1, 3): 0.5}, [12, 7, 0.9]),
        ({(2, 3): 0.9, (3, 3): 0.5, (2, 4): 0.1}, [13, 9, 0.9]),
        ({(2, 3): 0.9, (3, 4): 0.8}, [12, 8, 0.9]),  # diagonals do not count
        ({(0, 3): 0.9, (0, 4): 0.5, (1, 3): 0.5}, [12, 0, 0.9]),  # on each border: no shift
        ({(4, 3): 0.9, (4, 4): 0.5}, [12, 16, 0.9]),
        ({(2, 0): 0.9, (3, 0): 0.5, (2, 1): 0.5}, [0, 8, 0.9]),
        ({(2, 5): 0.9, (3, 5): 0.5}, [20, 8, 0.9]),
        ({(2, 3): 0.9, (2, 4): 0.9}, [13, 8, 0.9]),  # of equal peaks the first
        ({(3, 1): 0.9, (1, 4): 0.9}, [16, 4, 0.9]),
        ({}, [0, 0, 0]),
    ],
)
def test_decoding_by_hand(values: dict[tuple[int, int], float], expected: list[float]) -> None:
    assert decoded(values) == pytest.approx(expected)


def joints_inside(count: int = 400) -> Tensor:
    """Joints anywhere a pixel or more inside heatmaps of 16 x 20."""
    rng = np.random.default_rng(0)
    places = rng.uniform([4, 4], [72, 56], (count, 1, 2))
    return torch.from_numpy(np.concatenate([places, np.full((count, 1, 1), 2.0)], -1)).float()


def test_encoding_and_decoding_again_loses_at_most_half_a_heatmap_pixel() -> None:
    joints = joints_inside()
    heatmaps, _ = gaussian_targets(joints, (16, 20), 2.0, subpixel=False)
    error = (decode(heatmaps, subpixel=False) - joints)[..., :2].abs()
    # A target's peak is symmetric, so nothing but rounding to 4 pixels is lost: uniform in 0 .. 2.
    assert error.max() <= 2 + 1e-4
    assert error.mean() == pytest.approx(1, abs=0.1)


def test_quarter_offset_halves_what_rounding_loses() -> None:
    # Maps with their centres at the joints are read a pixel off at most, half a pixel on average.
    joints = joints_inside()
    heatmaps, _ = gaussian_targets(joints, (16, 20), 2.0, subpixel=True)
    error = (decode(heatmaps, subpixel=False) - joints)[..., :2].abs()
    assert error.max() <= 1 + 1e-3
    assert error.mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_subpixel_targets_are_decoded_exactly(sigma: float) -> None:
    joints = joints_inside()
    heatmaps, _ = gaussian_targets(joints, (16, 20), sigma, subpixel=True)
    error = (decode(heatmaps, subpixel=True) - joints)[..., :2].abs()
    assert error.max() < 1e-3


@pytest.mark.parametrize("subpixel", [False, True])
def test_decoding_moves_with_the_image(subpixel: bool) -> None:
    heatmaps, _ = gaussian_targets(joints_inside(8), (16, 20), 2.0, subpixel=True)
    mirrored = decode(heatmaps.flip(-1), subpixel=subpixel)
    assert torch.allclose(
        (20 - 1) * 4 - mirrored[..., 0], decode(heatmaps, subpixel=subpixel)[..., 0], atol=1e-3
    )


# --- mirroring ---------------------------------------------------------------------------------


def test_mirroring_exchanges_left_and_right() -> None:
    joints = np.zeros((1, 17, 3))
    joints[0, :, 0], joints[0, :, 1], joints[0, :, 2] = np.arange(17), np.arange(17) + 50, 2
    joints[0, 5, 2] = 0  # left shoulder not labelled
    mirrored = mirror(joints, width=64)
    # nose, then left and right of eyes, ears, shoulders, elbows, wrists, hips, knees, ankles
    source = [0, *(number + (1 if number % 2 else -1) for number in range(1, 17))]
    assert mirrored[0, :, 0].tolist() == [63 - number for number in source]
    assert mirrored[0, :, 1].tolist() == [50 + number for number in source]
    assert mirrored[0, 6, 2] == 0
    assert mirrored[0, 5, 2] == 2


def test_mirroring_twice_changes_nothing_and_leaves_its_argument() -> None:
    joints = np.random.default_rng(0).random((3, 17, 3))
    kept = joints.copy()
    assert np.allclose(mirror(mirror(joints, width=48), width=48), joints)
    assert np.array_equal(joints, kept)


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


# --- average precision -------------------------------------------------------------------------


def persons(count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random joints with visibility, areas and boxes."""
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 64, (count, 17, 2))
    visible = rng.choice([0.0, 1.0, 2.0], (count, 17, 1), p=[0.2, 0.2, 0.6])
    visible[:, 0] = 2
    areas = rng.uniform(300, 2000, count)
    boxes = np.tile([2.0, 2.0, 60.0, 60.0], (count, 1))
    return np.concatenate([places, visible], axis=-1), areas, boxes


def direct_ap(
    predictions: np.ndarray, keypoints: np.ndarray, areas: np.ndarray
) -> dict[str, float]:
    """AP over OKS from its definition: one truth and one detection per image."""
    distance = ((predictions[..., :2] - keypoints[..., :2]) ** 2).sum(-1)
    labelled = keypoints[..., 2] > 0
    similarity = np.exp(-distance / (2 * areas[:, None] * (2 * COCO_SIGMAS) ** 2))
    oks = (similarity * labelled).sum(1) / labelled.sum(1)
    order = np.argsort(-predictions[..., 2].mean(1), kind="stable")
    precision_of, recall_of = {}, {}
    for threshold in np.arange(50, 100, 5) / 100:
        hit = (oks[order] >= threshold).cumsum()
        recall, precision = hit / len(oks), hit / np.arange(1, len(oks) + 1)
        best = [
            max((p for r, p in zip(recall, precision, strict=True) if r >= level), default=0.0)
            for level in np.linspace(0, 1, 101)
        ]
        precision_of[round(threshold, 2)], recall_of[round(threshold, 2)] = (
            np.mean(best),
            recall[-1],
        )
    return {
        "ap": float(np.mean(list(precision_of.values()))),
        "ap50": float(precision_of[0.5]),
        "ap75": float(precision_of[0.75]),
        "ar": float(np.mean(list(recall_of.values()))),
    }


@pytest.mark.parametrize("noise", [0.5, 2.0, 4.0])
def test_ap_is_what_its_definition_gives(noise: float) -> None:
    keypoints, areas, boxes = persons()
    rng = np.random.default_rng(2)
    # Some persons are found better than others, and not in the order of their scores.
    spread = noise * rng.uniform(0.2, 2, (len(keypoints), 1, 1))
    places = keypoints[..., :2] + spread * rng.standard_normal(keypoints[..., :2].shape)
    scores = rng.uniform(0, 1, (len(keypoints), 17, 1))
    predictions = np.concatenate([places, scores], axis=-1)
    expected = direct_ap(predictions, keypoints, areas)
    assert 0 < expected["ap"] < 1
    assert keypoint_ap(predictions, keypoints, areas, boxes) == pytest.approx(expected, abs=1e-9)


def test_the_truth_has_an_ap_of_one_and_places_far_away_of_zero() -> None:
    keypoints, areas, boxes = persons(8)
    found = keypoints.copy()
    found[..., 2] = 0.5
    assert keypoint_ap(found, keypoints, areas, boxes) == pytest.approx(
        {"ap": 1, "ap50": 1, "ap75": 1, "ar": 1}, abs=1e-9
    )
    found[..., :2] += 1000
    assert keypoint_ap(found, keypoints, areas, boxes) == {"ap": 0, "ap50": 0, "ap75": 0, "ar": 0}


def test_evaluation_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    keypoints, areas, boxes = persons(2)
    keypoint_ap(keypoints, keypoints, areas, boxes)
    assert capsys.readouterr() == ("", "")


# --- the task ----------------------------------------------------------------------------------


@pytest.fixture
def task(tiny_study: Study, tiny_pose: Prepared) -> Pose:
    assert isinstance(tiny_study.task, PoseTask)
    return Pose(tiny_study.task, tiny_pose)


def test_batches_depend_on_seed_and_step_alone(task: Pose) -> None:
    images, (heatmaps, weights) = task.batch(3, size=8, seed=1)
    assert images.shape == (8, 3, 32, 32)
    assert heatmaps.shape == (8, 17, 8, 8)
    assert weights.shape == (8, 17)
    again, (heatmaps_again, weights_again) = task.batch(3, size=8, seed=1)
    assert torch.equal(images, again)
    assert torch.equal(heatmaps, heatmaps_again)
    assert torch.equal(weights, weights_again)
    for step, seed in ((4, 1), (3, 2)):
        assert not torch.equal(images, task.batch(step, size=8, seed=seed)[0])


def test_half_of_a_batch_is_mirrored_together_with_its_joints(
    task: Pose, tiny_pose: Prepared
) -> None:
    images, keypoints = tiny_pose.array("train_images"), tiny_pose.array("train_keypoints")
    flipped = 0
    for step in range(20):
        x, (heatmaps, weights) = task.batch(step, size=8, seed=0)
        for place, number in enumerate(batch_indices(len(images), step, size=8, seed=0)):
            one, joints = images[number][None], keypoints[number][None]
            as_is = torch.equal(x[place], normalise(one)[0])
            if not as_is:
                assert torch.equal(x[place], normalise(one[:, :, ::-1])[0])
                joints = mirror(joints, width=32)
                flipped += 1
            expected = gaussian_targets(
                torch.from_numpy(joints.copy()), (8, 8), task.sigma, subpixel=task.subpixel
            )
            assert torch.equal(heatmaps[place], expected[0][0])
            assert torch.equal(weights[place], expected[1][0])
    # 160 fair coins: 80, give or take four deviations of 6.3.
    assert 55 < flipped < 105


def test_batches_leave_the_prepared_data_alone(task: Pose, tiny_pose: Prepared) -> None:
    before = tiny_pose.array("train_images").copy(), tiny_pose.array("train_keypoints").copy()
    task.batch(0, size=48, seed=0)
    assert np.array_equal(task.images, before[0])
    assert np.array_equal(task.keypoints, before[1])


@pytest.mark.parametrize("batch", [3, 64])
def test_evaluation_sees_every_validation_image_once_and_in_order(
    task: Pose, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(pose_module, "EVAL_BATCH", batch)
    monkeypatch.setattr(task, "subpixel", True)
    joints = torch.from_numpy(task.val_keypoints.copy()).float()
    heatmaps, _ = gaussian_targets(joints, (8, 8), task.sigma, subpixel=True)
    answers = iter((heatmaps + 1e-9).log().split(batch))  # the task takes a softmax
    seen = []

    def predict(images: Tensor) -> Tensor:
        seen.append(images)
        return next(answers)

    metrics = task.evaluate(predict)
    assert torch.equal(torch.cat(seen), normalise(task.val_images))
    shares = (heatmaps + 1e-9) / (heatmaps + 1e-9).sum((2, 3), keepdim=True)
    found = decode(shares, subpixel=True).numpy()
    expected = direct_ap(found, task.val_keypoints, task.val_areas)
    assert metrics == pytest.approx(expected, abs=1e-9)
    assert metrics["ap50"] == pytest.approx(1, abs=1e-9)


def test_a_network_that_says_nothing_has_no_ap(task: Pose) -> None:
    metrics = task.evaluate(lambda images: torch.zeros(len(images), 17, 8, 8))
    assert metrics["ap"] < 0.1


def test_preprocessing_and_sample_describe_the_data(task: Pose, tiny_pose: Prepared) -> None:
    about = task.preprocessing()
    assert about["input_size"] == [32, 32]
    assert about["softmax"] is True
    assert len(about["keypoints"]) == task.num_outputs == 17
    assert np.array_equal(task.sample(), tiny_pose.array("val_images")[0])
    assert task.sample().dtype == np.uint8
