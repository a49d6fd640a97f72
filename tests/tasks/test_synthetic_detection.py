"""The generated scenes: true masks and boxes, occlusion, balance, and three sizes of objects."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hrnet_search.labels import SYNTHETIC_CLASSES
from hrnet_search.settings import SyntheticDetection
from hrnet_search.tasks import synthetic_detection as sd
from hrnet_search.tasks import synthetic_scenes
from hrnet_search.tasks.images import Images

SIZE = (96, 128)
PLAIN = (120, 120, 120)


@pytest.fixture(scope="module")
def scenes() -> list[sd.Scene]:
    return list(sd.generate(num=150, size=SIZE, seed=3))


def canvas() -> sd.Canvas:
    """An empty one."""
    picture = Image.new("RGB", (sd.SCALE * SIZE[1], sd.SCALE * SIZE[0]), PLAIN)
    return sd.Canvas(picture, SIZE)


def stencil(name: str, centre: tuple[float, float], extent: tuple[float, float]) -> np.ndarray:
    """Where an upright object of that width and height is, bool (H, W)."""
    outlines = [
        (part.outline * np.array(extent) / 2 + centre, part.paint) for part in sd.SHAPES[name].parts
    ]
    painted = sd.cut_out(outlines, (0, 0, SIZE[1], SIZE[0]))
    return np.asarray(painted)[sd.SCALE // 2 :: sd.SCALE, sd.SCALE // 2 :: sd.SCALE] > 0


# --- shapes --------------------------------------------------------------------------------------


def test_a_box_covers_the_pixels_whose_centres_are_inside() -> None:
    expected = np.zeros(SIZE, dtype=bool)
    expected[30:50, 40:70] = True
    assert np.array_equal(stencil("box", (55, 40), (30, 20)), expected)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("disc", np.pi / 4),
        ("box", 1),
        ("triangle", 1 / 2),
        ("ring", np.pi / 4 * (1 - 0.5**2)),  # its hole is half as wide
        ("house", (1.6 * 1.2 + 2 * 0.9 / 2) / 4 - 0.8 * 0.1 / 4 + 0.1 * 0.8 / 9 / 4),
    ],
)
def test_areas_are_those_of_the_shapes(name: str, share: float) -> None:
    # Corners of a polygon lie on the circle, so it is a little smaller.
    assert stencil(name, (64, 48), (80, 80)).sum() / 80**2 == pytest.approx(share, rel=0.03)


def test_every_class_is_drawn() -> None:
    assert tuple(sd.SHAPES) == SYNTHETIC_CLASSES


@pytest.mark.parametrize("name", SYNTHETIC_CLASSES)
def test_an_object_fills_the_width_it_is_given(name: str) -> None:
    columns = np.flatnonzero(stencil(name, (64, 48), (60, 40)).any(0))
    assert columns.max() + 1 - columns.min() == pytest.approx(60, abs=1)
    rows = np.flatnonzero(stencil(name, (64, 48), (60, 40)).any(1))
    assert rows.max() + 1 - rows.min() == pytest.approx(40, abs=1)


# --- occlusion -----------------------------------------------------------------------------------


def test_later_objects_take_pixels_from_earlier_ones_but_leave_half() -> None:
    painted = canvas()
    rng = np.random.default_rng(0)
    for side in (60, 50, 40, 30, 30, 20, 20, 20, 10, 10):
        painted.add(sd.SHAPES["box"], side, rng)
    left = np.bincount(painted.owner.ravel(), minlength=len(painted.own))[1:]
    own = np.array(painted.own[1:])
    assert (left <= own).all()
    assert (left < own).any()
    assert (left >= sd.LEFT * own).all()


def test_an_object_that_would_hide_another_one_is_not_drawn() -> None:
    painted = canvas()
    painted.owner[:], painted.own = 1, [0, SIZE[0] * SIZE[1]]
    rng = np.random.default_rng(0)
    assert not painted.add(sd.SHAPES["box"], 130, rng)
    assert painted.add(sd.SHAPES["box"], 30, rng)


def test_what_is_behind_a_ring_is_seen_through_its_hole() -> None:
    painted = canvas()
    painted.owner[:], painted.own = 1, [0, SIZE[0] * SIZE[1]]
    before = np.asarray(painted.picture).copy()
    assert painted.add(sd.SHAPES["ring"], 60, np.random.default_rng(1))
    rows, columns = np.nonzero(painted.owner == 2)
    y, x = (int(values.min() + values.max()) // 2 for values in (rows, columns))
    assert painted.owner[y, x] == 1
    place = (sd.SCALE * y, sd.SCALE * x)
    assert np.array_equal(np.asarray(painted.picture)[place], before[place])


def test_some_objects_of_the_scenes_are_partly_hidden(scenes: list[sd.Scene]) -> None:
    def filled(scene: sd.Scene, number: int) -> float:
        x1, y1, x2, y2 = scene.box(number)
        return scene.mask(number).sum() / ((x2 - x1) * (y2 - y1))

    boxes = [
        filled(scene, number)
        for scene in scenes
        for number, label in enumerate(scene.labels, start=1)
        if SYNTHETIC_CLASSES[label - 1] == "disc"
    ]
    # A disc that nothing hides fills pi / 4 of its box, or more where the border cuts it.
    assert 0.03 < np.mean(np.array(boxes) < 0.7) < 0.5


# --- scenes --------------------------------------------------------------------------------------


def test_boxes_are_the_extents_of_masks_and_objects_have_pixels(scenes: list[sd.Scene]) -> None:
    for scene in scenes:
        assert scene.image.shape == (*SIZE, 3)
        assert scene.owner.max() == len(scene.labels) >= 1
        for number in range(1, len(scene.labels) + 1):
            mask = scene.mask(number)
            x1, y1, x2, y2 = scene.box(number)
            assert mask[y1:y2, x1:x2].sum() == mask.sum() > 0
            sides = [mask[y1, :], mask[y2 - 1, :], mask[:, x1], mask[:, x2 - 1]]
            assert all(side.any() for side in sides)
            x, y, width, height = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask)))
            assert (x, y, x + width, y + height) == (x1, y1, x2, y2)


def test_scenes_follow_from_seed_and_number_alone(scenes: list[sd.Scene]) -> None:
    (first, second) = sd.generate(num=2, size=SIZE, seed=3)
    for ours, theirs in ((first, scenes[0]), (second, scenes[1])):
        assert np.array_equal(ours.image, theirs.image)
        assert np.array_equal(ours.owner, theirs.owner)
        assert np.array_equal(ours.labels, theirs.labels)
    (other,) = sd.generate(num=1, size=SIZE, seed=4)
    assert not np.array_equal(other.image, first.image)


def test_classes_are_equally_frequent(scenes: list[sd.Scene]) -> None:
    labels = np.concatenate([scene.labels for scene in scenes])
    counts = np.bincount(labels)[1:]
    spread = 4 * np.sqrt(len(labels) / 6)  # of a count, four deviations
    assert np.abs(counts - len(labels) / 6).max() < spread


def test_most_objects_are_small_and_every_size_occurs(scenes: list[sd.Scene]) -> None:
    areas = [
        scene.mask(number).sum() for scene in scenes for number in range(1, len(scene.labels) + 1)
    ]
    sides = np.sqrt(areas) / min(SIZE)
    small, large = sides < sd.AREA_SIDES[0], sides >= sd.AREA_SIDES[1]
    assert 0.55 < small.mean() < 0.75
    assert 0.04 < large.mean() < 0.15
    assert len(areas) / len(scenes) == pytest.approx(sum(sd.OBJECTS) / 2, rel=0.1)


def test_objects_stand_out_from_what_is_behind_them(scenes: list[sd.Scene]) -> None:
    contrasts = []
    for scene in scenes[:40]:
        for number in range(1, len(scene.labels) + 1):
            x1, y1, x2, y2 = scene.box(number)
            region = scene.image[y1:y2, x1:x2].astype(float)
            mask = scene.mask(number)[y1:y2, x1:x2] > 0
            if not mask.all():
                contrasts.append(np.linalg.norm(region[mask].mean(0) - region[~mask].mean(0)))
    assert np.percentile(contrasts, 10) > 30


# --- prepared ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> SyntheticDetection:
    settings = {"num_train": 3, "num_val": 2, "image_size": [128, 96], "seed": 5}
    return SyntheticDetection.model_validate({"kind": "synthetic_detection", **settings})


def test_prepared_scenes_are_those_that_are_drawn(data: SyntheticDetection) -> None:
    calls: list[tuple[int, int]] = []
    prepared = synthetic_scenes.prepare(data, lambda done, total: calls.append((done, total)))
    assert calls in ([], [(n, 5) for n in range(1, 6)])  # none if it was there already
    train, val = (list(sd.generate(num=n, size=SIZE, seed=s)) for n, s in ((3, 10), (2, 11)))
    for split, some in (("train", train), ("val", val)):
        images = Images(prepared, split)
        assert len(images) == len(some)
        for number, scene in enumerate(some):
            assert np.array_equal(images[number], scene.image)
    first = prepared.array("train_first")
    assert first.tolist() == np.cumsum([0, *(len(scene.labels) for scene in train)]).tolist()
    assert prepared.array("train_labels")[: first[1]].tolist() == train[0].labels.tolist()
    assert prepared.array("train_boxes")[0].tolist() == list(train[0].box(1))
    runs, ends = prepared.array("train_masks"), prepared.array("train_mask_first")
    last = {"size": list(SIZE), "counts": runs[ends[-2] : ends[-1]].tobytes()}
    assert np.array_equal(coco_mask.decode(last), train[2].mask(len(train[2].labels)))


def test_the_truth_of_prepared_scenes(data: SyntheticDetection) -> None:
    prepared = synthetic_scenes.prepare(data, lambda done, total: None)
    about, truth = prepared.json("about"), prepared.json("truth")
    assert about["class_names"] == list(SYNTHETIC_CLASSES)
    assert about["areas"] == pytest.approx([9.6**2, 28.8**2])  # of a shorter side of 96
    (scene, _) = sd.generate(num=2, size=SIZE, seed=11)
    for number, entry in enumerate(truth["annotations"][: len(scene.labels)], start=1):
        x1, y1, x2, y2 = scene.box(number)
        assert entry["bbox"] == [x1, y1, x2 - x1, y2 - y1]
        assert entry["area"] == scene.mask(number).sum()
        assert np.array_equal(coco_mask.decode(entry["segmentation"]), scene.mask(number))


def test_another_seed_is_other_data(data: SyntheticDetection, cache: Path) -> None:
    checksums = {
        synthetic_scenes.prepare(some, lambda done, total: None).checksum
        for some in (data, data.model_copy(update={"seed": 6}))
    }
    assert len(checksums) == 2
    assert len([folder for folder in cache.iterdir() if folder.is_dir()]) == 2
