"""Scores, OKS-NMS, AP, PCKh and NME against hand-made figures and pycocotools."""

from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hrnet_search.joints import COCO as COCO_JOINTS
from hrnet_search.joints import MPII
from hrnet_search.tasks.pose_metrics import keypoint_ap, nme, oks, oks_nms, pckh, person_scores

# COCO's per-keypoint constants, twice 0.026, 0.025, 0.025, 0.035, ...
# (cocodataset.org, keypoint evaluation).
COCO_SIGMAS = (
    np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
)


def people(count: int, *, seed: int = 1, joints: int = 17) -> np.ndarray:
    """(N, K, 3): random joints with COCO's visibility, the first always labelled."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 64, (count, joints, 2))
    visible = rng.choice([0.0, 1.0, 2.0], (count, joints, 1), p=[0.2, 0.2, 0.6])
    visible[:, 0] = 2
    return np.concatenate([places, visible], axis=-1)


def truth_of(joints: np.ndarray, areas: np.ndarray, image: int | None = None) -> dict[str, Any]:
    """COCO's annotation format: each person in an image of its own, or all in one."""
    numbers = range(1, len(joints) + 1)
    return {
        "info": {},
        "images": [{"id": number} for number in ([image] if image else numbers)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": number,
                "image_id": image or number,
                "category_id": 1,
                "keypoints": person.flatten().tolist(),
                "num_keypoints": int((person[:, 2] > 0).sum()),
                "area": float(area),
                "bbox": [2.0, 2.0, 60.0, 60.0],
                "iscrowd": 0,
            }
            for number, person, area in zip(numbers, joints, areas, strict=True)
        ],
    }


def results_of(found: np.ndarray, scores: np.ndarray, image: int | None = None) -> list[Any]:
    return [
        {
            "image_id": image or number,
            "category_id": 1,
            "keypoints": person.flatten().tolist(),
            "score": float(score),
        }
        for number, (person, score) in enumerate(zip(found, scores, strict=True), start=1)
    ]


# --- scores --------------------------------------------------------------------------------------


def test_a_persons_score_is_the_boxs_times_the_mean_of_joints_above_the_least() -> None:
    joints = np.zeros((3, 4, 3), dtype=np.float32)
    joints[0, :, 2] = [0.5, 0.25, 0.125, 0.75]
    joints[1, :, 2] = [0.125, 0.0625, 0.125, 0.0]
    joints[2, :, 2] = 0.2  # not above 0.2
    boxes = np.array([0.5, 1.0, 1.0])
    assert person_scores(joints, boxes, least=0.2).tolist() == [0.25, 0, 0]
    assert person_scores(joints, boxes, least=0.1)[1] == 0.125
    assert person_scores(joints, boxes, least=0.0)[0] == 0.5 * (0.5 + 0.25 + 0.125 + 0.75) / 4


# --- OKS and suppression -------------------------------------------------------------------------


def crowd(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """People (N, 17, 3) of whom many are alike, and scores."""
    rng = np.random.default_rng(3)
    bodies = rng.uniform(0, 60, (3, 17, 2))
    places = bodies[rng.integers(0, 3, count)] + rng.normal(0, 1.2, (count, 17, 2))
    found = np.concatenate([places, np.full((count, 17, 1), 2.0)], axis=-1)
    return found, rng.permutation(np.linspace(0.1, 0.9, count))


def pycocotools_oks(found: np.ndarray, area: float) -> np.ndarray:
    """OKS (N, N) of everyone to everyone by `COCOeval.computeOks`, people of the same area."""
    truth = COCO()
    truth.dataset = truth_of(found, np.full(len(found), area), image=1)
    truth.createIndex()
    scores = np.linspace(1, 0.5, len(found))  # falling, so that it keeps their order
    evaluation = COCOeval(truth, truth.loadRes(results_of(found, scores, image=1)), "keypoints")
    evaluation._prepare()
    return np.asarray(evaluation.computeOks(1, 1))


def test_oks_is_pycocotools(capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = crowd()
    expected = pycocotools_oks(found, 900.0)
    assert expected.shape == (12, 12)
    for place, person in enumerate(found):
        ours = oks(person[:, :2], found[..., :2], np.full(12, 900.0), COCO_SIGMAS)
        np.testing.assert_allclose(ours, expected[:, place], rtol=1e-9)


@pytest.mark.parametrize("limit", [0.3, 0.6, 0.9, 1.0])
def test_of_people_too_much_alike_by_pycocotools_the_best_is_kept(limit: float) -> None:
    found, scores = crowd()
    matrix = pycocotools_oks(found, 900.0)
    expected: list[int] = []
    for number in sorted(range(12), key=lambda n: -scores[n]):
        if all(matrix[number, other] <= limit for other in expected):
            expected.append(number)
    areas = np.full(12, 900.0)
    kept = oks_nms(found, scores, areas, COCO_JOINTS.sigmas, limit=limit)
    assert kept == expected
    assert {0.3: 3, 1.0: 12}.get(limit, len(kept)) == len(kept)


def test_two_people_are_compared_by_their_mean_area() -> None:
    # One joint, 2 pixels apart, sigma 0.5, so that OKS is exp(-4 / (2 area)).
    joints = np.array([[[0.0, 0.0]], [[2.0, 0.0]]])
    scores, areas = np.array([0.5, 0.9]), np.array([1.0, 7.0])
    value = np.exp(-4 / (2 * 4))
    assert oks_nms(joints, scores, areas, [0.5], limit=value + 1e-6) == [1, 0]
    assert oks_nms(joints, scores, areas, [0.5], limit=value - 1e-6) == [1]


def test_nobody_is_suppressed_for_someone_who_is() -> None:
    # 0 suppresses 1, which is like 2; 0 and 2 are not alike.
    joints = np.array([[[0.0, 0.0]], [[1.0, 0.0]], [[2.0, 0.0]]])
    areas, scores = np.ones(3), np.array([0.9, 0.8, 0.7])
    limit = float(np.exp(-1))  # of neighbours: exp(-0.5); of 0 and 2: exp(-2)
    assert oks_nms(joints, scores, areas, [0.5], limit=limit) == [0, 2]


# --- average precision ---------------------------------------------------------------------------


def direct_ap(
    found: np.ndarray, joints: np.ndarray, areas: np.ndarray, scores: np.ndarray
) -> dict[str, float]:
    """AP over OKS from its definition: one truth and one detection per image."""
    distance = ((found[..., :2] - joints[..., :2]) ** 2).sum(-1)
    labelled = joints[..., 2] > 0
    similarity = np.exp(-distance / (2 * areas[:, None] * (2 * COCO_SIGMAS) ** 2))
    value = (similarity * labelled).sum(1) / labelled.sum(1)
    order = np.argsort(-scores, kind="stable")
    precision_of, recall_of = {}, {}
    for threshold in np.arange(50, 100, 5) / 100:
        hit = (value[order] >= threshold).cumsum()
        recall, precision = hit / len(value), hit / np.arange(1, len(value) + 1)
        best = [
            max((p for r, p in zip(recall, precision, strict=True) if r >= level), default=0.0)
            for level in np.linspace(0, 1, 101)
        ]
        precision_of[round(threshold, 2)] = np.mean(best)
        recall_of[round(threshold, 2)] = recall[-1]
    return {
        "ap": float(np.mean(list(precision_of.values()))),
        "ap50": float(precision_of[0.5]),
        "ap75": float(precision_of[0.75]),
        "ar": float(np.mean(list(recall_of.values()))),
    }


@pytest.mark.parametrize("noise", [0.5, 2.0, 4.0])
def test_ap_is_what_its_definition_gives(noise: float) -> None:
    joints, rng = people(40), np.random.default_rng(2)
    areas = rng.uniform(300, 2000, 40)
    # Some people are found better than others, and not in the order of their scores.
    spread = noise * rng.uniform(0.2, 2, (40, 1, 1))
    found = joints.copy()
    found[..., :2] += spread * rng.standard_normal((40, 17, 2))
    scores = rng.uniform(0, 1, 40)
    expected = direct_ap(found, joints, areas, scores)
    assert 0 < expected["ap"] < 1
    ours = keypoint_ap(results_of(found, scores), truth_of(joints, areas), COCO_JOINTS.sigmas)
    assert {key: ours[key] for key in expected} == pytest.approx(expected, abs=1e-9)


def test_sizes_that_nobody_has_are_left_out() -> None:
    joints = people(6)
    results = results_of(joints, np.ones(6))
    sizes = {"small": 30.0**2, "medium": 40.0**2, "large": 100.0**2}
    keys = {
        name: set(keypoint_ap(results, truth_of(joints, np.full(6, area)), COCO_JOINTS.sigmas))
        for name, area in sizes.items()
    }
    common = {"ap", "ap50", "ap75", "ar"}
    assert keys == {"small": common, "medium": {*common, "apm"}, "large": {*common, "apl"}}


def test_the_truth_has_an_ap_of_one_and_places_far_away_of_zero() -> None:
    joints, areas = people(8), np.full(8, 2000.0)
    truth = truth_of(joints, areas)
    best = keypoint_ap(results_of(joints, np.ones(8)), truth, COCO_JOINTS.sigmas)
    assert best == pytest.approx(dict.fromkeys(("ap", "ap50", "ap75", "apm", "ar"), 1), abs=1e-9)
    joints[..., :2] += 1000
    worst = keypoint_ap(results_of(joints, np.ones(8)), truth, COCO_JOINTS.sigmas)
    assert set(worst.values()) == {0}


def test_other_numbers_of_joints_have_spreads_of_their_own() -> None:
    joints, areas = people(10, joints=5), np.full(10, 2000.0)
    found = joints.copy()
    found[..., 0] += 3
    results, truth = results_of(found, np.ones(10)), truth_of(joints, areas)
    # OKS is exp(-9 / (2 x 2000 x (2 sigma)^2)): 0.985 for a sigma of 0.2, 0.26 for 0.02.
    assert keypoint_ap(results, truth, [0.2] * 5)["ap"] == pytest.approx(1)
    assert keypoint_ap(results, truth, [0.02] * 5)["ap"] == 0


def test_results_stay_as_they_are_and_nothing_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    joints = people(2)
    results = results_of(joints, np.ones(2))
    kept = [dict(result) for result in results]
    keypoint_ap(results, truth_of(joints, np.full(2, 1000.0)), COCO_JOINTS.sigmas)
    assert results == kept
    assert capsys.readouterr() == ("", "")


# --- PCKh and NME --------------------------------------------------------------------------------


def test_pckh_by_hand() -> None:
    joints = np.zeros((2, 16, 3))
    joints[0, [0, 8, 15], 2] = 1  # right ankle, upper neck, left wrist
    joints[1, [0, 6], 2] = 1  # right ankle, pelvis
    found = joints.copy()
    found[0, 0, 0] = 5.0  # exactly half of a head of 10
    found[0, 8, :2] = 3, 4.1  # more than that
    found[0, 15, 1] = 1.0  # a tenth
    found[1, 0, 0] = 7.0  # of a head of 20: 0.35
    found[1, 6, 0] = 500.0  # the pelvis does not count
    means, by_joint = pckh(found, joints, np.array([10.0, 20.0]))
    assert means == {"pckh": 3 / 4, "pckh01": 1 / 4}
    assert by_joint == {"right_ankle": 1, "upper_neck": 0, "left_wrist": 1, "pelvis": 0}


def test_pckh_is_the_official_codes_mean_weighted_by_labelled_joints() -> None:
    # `lib/dataset/mpii.py`: percentages by joint, then a mean weighted by their numbers, with
    # joints 6 and 7 masked.
    rng = np.random.default_rng(0)
    joints = np.concatenate(
        [rng.uniform(0, 300, (30, 16, 2)), rng.random((30, 16, 1)) > 0.3], axis=-1
    )
    found = joints[..., :2] + rng.normal(0, 12, (30, 16, 2))
    heads = rng.uniform(20, 60, 30)
    visible = joints[..., 2].T
    error = np.linalg.norm(found - joints[..., :2], axis=2).T / heads
    by_joint = 100 * ((error <= 0.5) * visible).sum(1) / visible.sum(1)
    some = np.ones(16, dtype=bool)
    some[6:8] = False
    share = visible.sum(1)[some] / visible.sum(1)[some].sum()
    means, ours = pckh(found, joints, heads)
    assert 100 * means["pckh"] == pytest.approx((by_joint[some] * share).sum())
    assert [100 * ours[name] for name in MPII.names] == pytest.approx(by_joint.tolist())


def test_nme_by_hand() -> None:
    joints = np.zeros((4, 3, 3))
    joints[..., 2] = 1
    joints[:, 1, :2] = 30, 40  # 50 from joint 0
    joints[:, 2, :2] = 10, 10
    joints[1, 2, 2] = 0  # does not count
    joints[2, 1, 2] = 0  # no unit: the whole person does not count
    joints[3, 1, :2] = 0, 0  # nor here, where it is zero
    found = joints.copy()
    found[0, 0, 0] += 5  # 5, 0, 12 of 50
    found[0, 2, 1] += 12
    found[1, 0, :2] += 6, 8  # 10, 0 of 50
    found[1, 2, 0] += 1000
    found[2:, 0, 0] += 77
    expected = ((5 + 0 + 12) / 3 / 50 + (10 + 0) / 2 / 50) / 2
    assert nme(found, joints, (0, 1)) == pytest.approx(expected)
