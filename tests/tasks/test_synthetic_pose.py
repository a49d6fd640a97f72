"""The generated people: valid annotations, exact joints, and sides told by the face alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hrnet_search.joints import COCO
from hrnet_search.tasks import synthetic_pose as sp

SIZE = (64, 48)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
ALL_BLACK = sp._Look(*(BLACK,) * 8)
BUILD = sp._Build(0.42, 0.22, 0.62, 0.55, 0.85, 0.8, 0.15, 0.34, 1.1)
UPRIGHT = sp._Pose(
    yaw=0.0,
    pitch=0.0,
    roll=0.0,
    lean=(0.0, 0.0),
    head=(0.0, 0.0, 0.0),
    arms=np.array([[90.0, 0, 0], [90, 0, 0]]),
    elbow_plane=np.array([[0.0, 1, 1], [0, 1, 1]]),
    legs=np.array([[8.0, 0, 0], [8, 0, 0]]),
)


@pytest.fixture(scope="module")
def samples() -> sp.PoseSamples:
    return sp.generate(num=160, size=SIZE, seed=3)


def paint_plain(figure: sp._Figure, look: sp._Look, size: tuple[int, int]) -> np.ndarray:
    """Return a person's picture (H, W) on black without clutter."""
    canvas = sp._Canvas(
        Image.new("RGB", (size[1] * sp._SUPERSAMPLING, size[0] * sp._SUPERSAMPLING))
    )
    for part in sp._body_parts(figure, look):
        for shape in part.shapes:
            canvas.paint(shape, part.label)
    return np.asarray(canvas.picture.reduce(sp._SUPERSAMPLING), float).mean(2)


def centroid(weights: np.ndarray) -> np.ndarray:
    """Return the centre of mass x, y (2,) of a picture (H, W)."""
    rows, columns = np.indices(weights.shape)
    return np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()


def mirror(pose: sp._Pose) -> sp._Pose:
    """Return the pose seen in a mirror, where the left arm is the right one."""
    return replace(
        pose,
        yaw=-pose.yaw,
        roll=-pose.roll,
        lean=(pose.lean[0], -pose.lean[1]),
        head=(-pose.head[0], pose.head[1], -pose.head[2]),
        arms=pose.arms[::-1],
        elbow_plane=pose.elbow_plane[::-1],
        legs=pose.legs[::-1],
    )


def swap_sides() -> list[int]:
    order = list(range(17))
    for left, right in COCO.index(COCO.flip_pairs):
        order[left], order[right] = right, left
    return order


def test_arrays_have_the_promised_shapes_and_types(samples: sp.PoseSamples) -> None:
    assert samples.images.shape == (160, *SIZE, 3)
    assert samples.images.dtype == np.uint8
    assert samples.keypoints.shape == (160, 17, 3)
    assert samples.areas.shape == (160,)
    assert samples.boxes.shape == (160, 4)
    for array in (samples.keypoints, samples.areas, samples.boxes):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()


def test_a_sample_depends_on_seed_and_index_only(samples: sp.PoseSamples) -> None:
    again = sp.generate(num=12, size=SIZE, seed=3)
    for name in ("images", "keypoints", "areas", "boxes"):
        assert getattr(again, name).tobytes() == getattr(samples, name)[:12].tobytes()
    other = sp.generate(num=12, size=SIZE, seed=4)
    assert all((a != b).mean() > 0.5 for a, b in zip(again.images, other.images, strict=True))
    assert len({image.tobytes() for image in samples.images}) == len(samples.images)


def test_progress_counts_finished_samples() -> None:
    steps: list[int] = []
    sp.generate(num=3, size=SIZE, seed=0, progress=steps.append)
    assert steps == [1, 1, 1]


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (48, 64)])
def test_other_sizes_hold_whole_people(size: tuple[int, int]) -> None:
    samples = sp.generate(num=10, size=size, seed=0)
    assert samples.images.shape == (10, *size, 3)
    assert (samples.keypoints[..., 2] > 0).mean() > 0.85
    assert (samples.areas > 0.05 * size[0] * size[1]).all()


def test_labelled_keypoints_lie_inside_and_others_are_zero(samples: sp.PoseSamples) -> None:
    x, y, visibility = np.moveaxis(samples.keypoints, 2, 0)
    assert set(np.unique(visibility)) == {0, 1, 2}
    labelled = visibility > 0
    assert ((x >= 0) & (x <= SIZE[1] - 1) & (y >= 0) & (y <= SIZE[0] - 1))[labelled].all()
    assert (x[~labelled] == 0).all()
    assert (y[~labelled] == 0).all()


def test_every_keypoint_is_often_labelled_visible_and_hidden(samples: sp.PoseSamples) -> None:
    visibility = samples.keypoints[..., 2]
    assert ((visibility > 0).mean(0) > 0.8).all()
    assert ((visibility == 2).mean(0) > 0.3).all()
    assert ((visibility == 1).sum(0) >= 1).all()


def test_area_and_box_describe_the_same_silhouette(samples: sp.PoseSamples) -> None:
    x, y, width, height = samples.boxes.T
    assert (x >= -0.5).all()
    assert (y >= -0.5).all()
    assert (x + width <= SIZE[1] - 0.5).all()
    assert (y + height <= SIZE[0] - 0.5).all()
    # A person fills some of its box, never all of it.
    fill = samples.areas / (width * height)
    assert (fill > 0.12).all()
    assert (fill < 0.9).all()
    assert (samples.areas <= SIZE[0] * SIZE[1]).all()


def test_box_contains_the_visible_keypoints(samples: sp.PoseSamples) -> None:
    visible = samples.keypoints[..., 2] == 2
    low, extent = samples.boxes[:, None, :2], samples.boxes[:, None, 2:]
    slack = 0.5
    places = samples.keypoints[..., :2]
    inside = ((places >= low - slack) & (places <= low + extent + slack)).all(2)
    assert inside[visible].all()


def test_the_face_tells_the_side_and_half_of_the_people_show_it(samples: sp.PoseSamples) -> None:
    visibility, x = samples.keypoints[..., 2], samples.keypoints[..., 0]
    labelled = (visibility[:, [5, 6]] > 0).all(1)
    left_on_the_right = x[:, 5] > x[:, 6]
    assert 0.4 < left_on_the_right[labelled].mean() < 0.6
    face_shown = (visibility[:, [0, 1, 2]] == 2).all(1)
    assert left_on_the_right[labelled & face_shown].mean() > 0.97
    for joint in (7, 9, 11, 13, 15):
        both = (visibility[:, [joint, joint + 1]] > 0).all(1)
        assert 0.35 < (x[both, joint] > x[both, joint + 1]).mean() < 0.65


def test_a_mirrored_pose_is_the_mirrored_picture_with_swapped_sides() -> None:
    rng = np.random.default_rng(0)
    look = sp._sample_look(rng)
    for _ in range(20):
        pose = sp._sample_pose(rng)
        figure = sp._transform(sp._articulate(pose, BUILD), 15.0, np.array([31.5, 34.2]))
        twin = sp._transform(sp._articulate(mirror(pose), BUILD), 15.0, np.array([31.5, 34.2]))
        expected = figure.joints[swap_sides()] * (-1, 1, 1) + (63, 0, 0)
        np.testing.assert_allclose(twin.joints, expected, atol=1e-9)
        picture, mirrored = (paint_plain(each, look, (64, 64)) for each in (figure, twin))
        # Only the rounding to canvas pixels and the order of equally deep parts may differ.
        assert np.abs(picture - mirrored[:, ::-1]).mean() < 1.0


@pytest.mark.parametrize("shift", [(31.5, 40.0), (31.73, 40.21), (30.9, 39.46), (32.17, 40.83)])
def test_joints_are_painted_where_they_are_annotated(shift: tuple[float, float]) -> None:
    scale = 15.0
    figure = sp._transform(sp._articulate(UPRIGHT, BUILD), scale, np.array(shift))
    left_half = np.arange(64) < figure.head[0]

    eyes = paint_plain(figure, replace(ALL_BLACK, eye=WHITE), (72, 64))
    forearms = paint_plain(figure, replace(ALL_BLACK, sleeve=WHITE), (72, 64))
    shins = paint_plain(figure, replace(ALL_BLACK, shin=WHITE), (72, 64))
    # Facing the viewer, a person's right side is on the image's left.
    for side, half in ((1, left_half), (0, ~left_half)):
        np.testing.assert_allclose(centroid(eyes * half), figure.joints[1 + side, :2], atol=0.35)

        elbow, wrist = figure.joints[[7 + side, 9 + side], :2]
        assert centroid(forearms * half)[1] == pytest.approx(wrist[1], abs=0.35)
        length = (forearms * half).sum(1).max() / 255
        radii = (0.095 + 0.075) * BUILD.girth * scale - 2 * sp._edge(figure)
        assert length == pytest.approx(np.abs(wrist - elbow)[0] + radii, abs=0.7)

        knee, ankle = figure.joints[[13 + side, 15 + side], :2]
        row = round((knee[1] + ankle[1]) / 2)
        along = (row - knee[1]) / (ankle[1] - knee[1])
        column = centroid((shins * half)[row : row + 1])[0]
        assert column == pytest.approx(knee[0] + along * (ankle - knee)[0], abs=0.35)


def test_generated_images_show_the_eyes_where_they_are_annotated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sp, "_sample_look", lambda _rng: replace(ALL_BLACK, eye=WHITE))
    monkeypatch.setattr(sp, "_sample_distractors", lambda *_: [])
    monkeypatch.setattr(sp, "_sample_occluders", lambda *_: [])
    monkeypatch.setattr(
        sp,
        "_paint_background",
        lambda _rng, size: Image.new("RGB", tuple(sp._SUPERSAMPLING * n for n in size[::-1])),
    )
    monkeypatch.setattr(
        sp,
        "_take_photo",
        lambda _rng, picture, _size: np.asarray(picture.reduce(sp._SUPERSAMPLING)),
    )
    samples = sp.generate(num=60, size=(64, 64), seed=1)
    shown = (samples.keypoints[:, 1:3, 2] == 2).all(1)
    assert shown.sum() > 15
    painted = np.array([centroid(image.astype(float).mean(2)) for image in samples.images[shown]])
    errors = painted - samples.keypoints[shown, 1:3, :2].mean(1)
    # A hand or the nose may cover a part of an eye, hence no bound on the single error.
    assert (np.abs(np.median(errors, 0)) < 0.1).all()
    assert np.quantile(np.abs(errors), 0.9) < 0.35


def test_occluders_hide_keypoints_but_leave_area_and_box(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = sp.generate(num=10, size=SIZE, seed=5)
    wall = sp._Shape(np.array([[24.0, 32.0]]), np.array([200.0]), WHITE)
    monkeypatch.setattr(sp, "_sample_occluders", lambda *_: [wall])
    walled = sp.generate(num=10, size=SIZE, seed=5)
    np.testing.assert_array_equal(walled.areas, plain.areas)
    np.testing.assert_array_equal(walled.boxes, plain.boxes)
    np.testing.assert_array_equal(walled.keypoints[..., :2], plain.keypoints[..., :2])
    assert (plain.keypoints[..., 2] == 2).any()
    assert not (walled.keypoints[..., 2] == 2).any()


def test_a_back_view_hides_the_face() -> None:
    figure = sp._articulate(replace(UPRIGHT, yaw=180.0), BUILD)
    figure = sp._transform(figure, 15.0, np.array([31.5, 40.0]))
    canvas = sp._Canvas(Image.new("RGB", (64 * sp._SUPERSAMPLING, 72 * sp._SUPERSAMPLING)))
    for part in sp._body_parts(figure, ALL_BLACK):
        for shape in part.shapes:
            canvas.paint(shape, part.label)
    visibility = sp._visibility(canvas, figure, (72, 64))
    assert visibility[:3].tolist() == [1, 1, 1]
    assert (visibility[3:] == 2).all()
    front = paint_plain(figure, replace(ALL_BLACK, eye=WHITE), (72, 64))
    assert front.max() == 0
