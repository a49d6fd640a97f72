"""Drawings: colours at the places they belong to, sizes, legends; nothing but Pillow."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from hrnet_search import drawing
from hrnet_search.drawing import (
    class_shares,
    draw_classes,
    draw_objects,
    draw_people,
    draw_scores,
    drawn_objects,
    palette,
)
from hrnet_search.joints import COCO

GREEN, ORANGE, BLUE = (0, 158, 115), (213, 94, 0), (86, 180, 233)
SKELETON = COCO.index(COCO.skeleton)


def person(x: float, y: float, size: float) -> list[tuple[float, float, float]]:
    """COCO's joints on a figure `size` pixels high with its nose at (x, y)."""
    places = {
        "nose": (0, 0), "eye": (0.03, -0.03), "ear": (0.07, -0.02), "shoulder": (0.13, 0.12),
        "elbow": (0.2, 0.3), "wrist": (0.22, 0.46), "hip": (0.09, 0.45), "knee": (0.1, 0.68),
        "ankle": (0.11, 0.9),
    }  # fmt: skip
    joints = []
    for name in COCO.names:
        side, _, part = name.rpartition("_")
        dx, dy = places[part]
        joints.append((x + (dx if side == "left" else -dx) * size, y + dy * size, 1.0))
    return joints


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


# --- colours -------------------------------------------------------------------------------------


def test_the_first_colours_are_okabe_and_itos() -> None:
    """Their published table: orange, sky blue, bluish green, yellow, blue, vermilion, purple."""
    published = ["E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7"]
    assert ["".join(f"{c:02X}" for c in colour) for colour in palette(7)] == published
    assert palette(60)[:7] == palette(7)
    assert palette(3) == palette(7)[:3]


def test_cielab_values_are_the_published_ones() -> None:
    """sRGB's primaries and grey under D65, as colour calculators list them (to 0.1)."""
    known = {
        (255, 0, 0): (53.2, 80.1, 67.2),
        (0, 255, 0): (87.7, -86.2, 83.2),
        (0, 0, 255): (32.3, 79.2, -107.9),
        (119, 119, 119): (50.0, 0.0, 0.0),
        (255, 255, 255): (100.0, 0.0, 0.0),
    }
    for colour, lab in known.items():
        assert drawing._seen(colour)[0] == pytest.approx(lab, abs=0.1)


def test_grey_looks_the_same_to_everyone_and_red_like_green_does_not() -> None:
    normal, *others = drawing._seen((150, 150, 150))
    for seen in others:
        assert seen == pytest.approx(normal, abs=0.1)
    red, green = ((200, 80, 60), (110, 130, 60))
    pairs = list(zip(drawing._seen(red), drawing._seen(green), strict=True))
    distances = [np.linalg.norm(np.subtract(a, b)) for a, b in pairs]
    assert min(distances[1:]) < distances[0] / 2


@pytest.mark.parametrize(("count", "least"), [(11, 15), (19, 15), (60, 8), (150, 4)])
def test_no_two_classes_look_alike_to_anyone(count: int, least: float) -> None:
    """A distance of 2.3 in CIELAB is just noticeable (Mahy et al., 1994)."""
    colours = palette(count)
    assert len(set(colours)) == count
    views = zip(*(drawing._seen(colour) for colour in colours), strict=True)
    for view in views:
        assert min(np.linalg.norm(np.subtract(*two)) for two in itertools.combinations(view, 2)) > (
            least
        )


# --- people --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "height"), [((64, 64), 56), ((640, 427), 300), ((2048, 1024), 900), ((3200, 900), 800)]
)
def test_every_joint_has_its_sides_colour_at_its_place(
    size: tuple[int, int], height: float
) -> None:
    joints = person(size[0] / 2, size[1] * 0.06, height)
    drawn = draw_people(grey(*size), [joints], COCO.names, SKELETON)
    scale = drawn.width // size[0]
    assert drawn.size == (size[0] * scale, size[1] * scale)
    assert scale == -(-480 // max(size)) if max(size) < 480 else 1
    for name, (x, y, _) in zip(COCO.names, joints, strict=True):
        if name.split("_")[-1] in ("nose", "eye", "ear"):  # close together in a far person
            continue
        place = (int((x + 0.5) * scale), int((y + 0.5) * scale))
        assert drawn.getpixel(place) == (GREEN if "left" in name else ORANGE), name


def test_bones_have_the_colour_of_their_joints_and_the_middle_another() -> None:
    joints = person(320, 40, 400)
    drawn = draw_people(grey(640, 480), [joints], COCO.names, SKELETON)
    at = dict(zip(COCO.names, joints, strict=True))
    for first, second, colour in (
        ("left_hip", "left_knee", GREEN),
        ("right_hip", "right_knee", ORANGE),
        ("left_hip", "right_hip", BLUE),
        ("left_shoulder", "right_shoulder", BLUE),
    ):
        x, y = ((at[first][axis] + at[second][axis]) / 2 for axis in (0, 1))
        assert drawn.getpixel((round(x), round(y))) == colour
    assert drawn.getpixel((320, 40)) == BLUE  # the nose
    assert drawn.getpixel((5, 5)) == (128, 128, 128)


def coloured(drawn: Image.Image) -> int:
    """Pixels that are not the ground's grey."""
    return int((np.asarray(drawn) != 128).any(-1).sum())


def test_lines_grow_with_the_person_and_not_with_the_picture() -> None:
    widths = []
    for height in (60, 240, 900):
        drawn = draw_people(grey(2048, 1024), [person(1000, 60, height)], COCO.names, SKELETON)
        row = np.asarray(drawn)[round(60 + 0.57 * height)]  # across both thighs
        widths.append(int((row != 128).any(-1).sum()) / 2)
    assert 2 <= widths[0] <= 5
    assert widths[0] < widths[1] < widths[2] <= 2048 / 60


def test_nothing_but_the_person_changes() -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8))
    before = picture.tobytes()
    drawn = draw_people(picture, [person(100, 50, 300)], COCO.names, SKELETON)
    assert picture.tobytes() == before
    assert np.array_equal(np.asarray(drawn)[:, 220:], np.asarray(picture)[:, 220:])
    assert draw_people(picture, [], COCO.names, SKELETON).tobytes() == before


def test_joints_that_are_hardly_there_are_left_out_with_their_bones() -> None:
    joints = person(320, 40, 400)
    names = dict(zip(COCO.names, range(17), strict=True))
    faint = [(x, y, 0.1 if n == names["left_ankle"] else 0.9) for n, (x, y, _) in enumerate(joints)]
    drawn = draw_people(grey(640, 480), [faint], COCO.names, SKELETON)
    x, y, _ = joints[names["left_ankle"]]
    assert drawn.getpixel((round(x), round(y))) == (128, 128, 128)
    knee = joints[names["left_knee"]]
    assert drawn.getpixel((round(knee[0]), round(knee[1]))) == GREEN
    nobody = [(x, y, 0.0) for x, y, _ in joints]  # as annotations without a label are
    assert coloured(draw_people(grey(640, 480), [nobody], COCO.names, SKELETON)) == 0


def test_joints_outside_the_picture_do_no_harm() -> None:
    drawn = draw_people(grey(640, 480), [person(-50, 430, 400)], COCO.names, SKELETON)
    assert drawn.size == (640, 480)


# --- classes -------------------------------------------------------------------------------------

NAMES = ["sky", "road", "a rather long name of a class"]


def striped(size: tuple[int, int], shares: list[float]) -> Image.Image:
    """Classes 0, 1, ... in vertical stripes of these shares."""
    labels = Image.new("L", size)
    left = 0.0
    for number, share in enumerate(shares):
        labels.paste(number, (round(left), 0, round(left + share * size[0]), size[1]))
        left += share * size[0]
    return labels


def test_pixels_are_mixed_with_the_colour_of_their_class() -> None:
    labels = striped((600, 200), [0.5, 0.3, 0.2])
    drawn = draw_classes(grey(600, 200), labels, NAMES)
    for x, number in ((10, 0), (290, 0), (310, 1), (470, 1), (490, 2), (590, 2)):
        expected = [round(0.45 * 128 + 0.55 * channel) for channel in palette(3)[number]]
        assert drawn.getpixel((x, 100)) == pytest.approx(expected, abs=1)


def test_shares_are_those_of_the_whole_picture_and_add_up() -> None:
    labels = striped((600, 200), [0.5, 0.3, 0.2])
    assert class_shares(labels, 4) == pytest.approx([0.5, 0.3, 0.2, 0.0])
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 150, (37, 53), dtype=np.uint8))
    assert sum(class_shares(noise, 150)) == pytest.approx(1)


class Texts:
    """What was written, and the box that it took."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[str] = []
        self.boxes: list[tuple[float, ...]] = []
        original = ImageDraw.ImageDraw.text

        def text(draw: ImageDraw.ImageDraw, xy, text, *args, font, anchor, **kwargs):  # type: ignore[no-untyped-def]
            self.texts.append(text)
            self.boxes.append(draw.textbbox(xy, text, font=font, anchor=anchor))
            return original(draw, xy, text, *args, font=font, anchor=anchor, **kwargs)

        monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)

    def overlap(self) -> bool:
        return any(
            a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
            for a, b in itertools.combinations(self.boxes, 2)
        )

    def inside(self, size: tuple[int, int]) -> bool:
        return all(
            a[0] >= 0 and a[1] >= 0 and a[2] <= size[0] and a[3] <= size[1] for a in self.boxes
        )


def test_the_legend_lists_what_occurs_the_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Texts(monkeypatch)
    draw_classes(grey(600, 200), striped((600, 200), [0.3, 0.5, 0.0, 0.2]), [*NAMES, "car"])
    assert written.texts == ["road  50.0%", "sky  30.0%", "car  20.0%"]


def test_a_share_that_rounds_to_nothing_is_not_called_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = Texts(monkeypatch)
    labels = Image.new("L", (1000, 500))
    labels.putpixel((0, 0), 1)
    draw_classes(grey(1000, 500), labels, NAMES)
    assert written.texts == ["sky  100.0%", "road  <0.1%"]


@pytest.mark.parametrize(("size", "count"), [((64, 64), 3), ((640, 90), 12), ((2048, 1024), 150)])
def test_the_legend_fits_beside_the_picture(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], count: int
) -> None:
    written = Texts(monkeypatch)
    labels = Image.new("L", size)
    for number in range(count):
        labels.putpixel((number % size[0], number // size[0]), number)
    names = [f"class number {number}" for number in range(count)]
    drawn = draw_classes(grey(*size), labels, names)
    scale = max(1, -(-480 // max(size)))
    assert drawn.height == size[1] * scale
    assert len(written.texts) == count
    assert not written.overlap()
    assert written.inside(drawn.size)
    assert min(box[0] for box in written.boxes) > size[0] * scale


def test_the_legends_squares_have_the_colours_of_the_classes() -> None:
    drawn = draw_classes(grey(600, 200), striped((600, 200), [0.2, 0.3, 0.5]), NAMES)
    legend = drawn.crop((600, 0, drawn.width, 200))
    found = {colour: count for count, colour in legend.getcolors(10**6) or []}
    for colour in palette(3):
        assert found[colour] > 50


# --- objects -------------------------------------------------------------------------------------

KINDS = ["ant", "bee", "cat"]


@pytest.mark.parametrize("size", [(64, 48), (500, 375), (3000, 2000)])
def test_every_box_has_the_colour_of_its_class_at_its_edges(size: tuple[int, int]) -> None:
    width, height = size
    box = (width // 4, height // 2, width * 3 // 4, height * 7 // 8)
    drawn = draw_objects(grey(*size), [box], [2], [0.9], KINDS)
    scale = max(1, -(-480 // width))
    assert drawn.height == height * scale
    left, top, right, bottom = (scale * side for side in box)
    # The middle of the lower edge and of both sides; the label is above.
    for x, y in (((left + right) // 2, bottom), (left, (top + bottom) // 2), (right, bottom - 9)):
        assert palette(3)[1] in around(drawn, x, y, 1)
        assert (0, 0, 0) in around(drawn, x, y, max(4, drawn.height // 100))  # shows on any ground
    assert drawn.getpixel(((left + right) // 2, (top + bottom) // 2)) == (128, 128, 128)
    far = np.asarray(drawn)[bottom + drawn.height // 20 :, : width * scale]
    assert (far == 128).all()


def around(drawn: Image.Image, x: int, y: int, reach: int) -> set[tuple[int, ...]]:
    """Colours of the pixels that far around."""
    area = drawn.crop((x - reach, y - reach, x + reach + 1, y + reach + 1))
    return {tuple(colour) for colour in np.asarray(area).reshape(-1, 3).tolist()}


def test_lines_stay_thinner_than_the_smallest_objects() -> None:
    drawn = draw_objects(grey(3000, 2000), [(1000, 1000, 1012, 1012)], [1], [0.9], KINDS)
    assert drawn.getpixel((1005, 1005)) == (128, 128, 128)


def test_a_mask_tints_its_pixels_and_has_a_line_at_its_edge() -> None:
    mask = Image.new("L", (500, 400))
    mask.paste(255, (100, 100, 300, 300))
    mask.paste(0, (150, 150, 200, 200))  # a hole
    drawn = draw_objects(grey(500, 400), [(100, 100, 300, 300)], [3], [0.9], KINDS, [mask])
    colour = palette(3)[2]
    tinted = [round(0.55 * 128 + 0.45 * channel) for channel in colour]
    for place in ((250, 250), (120, 180), (280, 120)):
        assert drawn.getpixel(place) == pytest.approx(tinted, abs=1)
    assert drawn.getpixel((175, 175)) == drawn.getpixel((400, 350)) == (128, 128, 128)
    assert drawn.getpixel((149, 175)) == drawn.getpixel((200, 175)) == colour


def test_an_empty_mask_and_one_that_fills_the_picture_do_no_harm() -> None:
    masks = [Image.new("L", (500, 400)), Image.new("L", (500, 400), 255)]
    boxes = [(100, 100, 200, 200), (0, 0, 500, 400)]
    drawn = draw_objects(grey(500, 400), boxes, [1, 2], [0.5, 0.5], KINDS, masks)
    tinted = [round(0.55 * 128 + 0.45 * channel) for channel in palette(3)[1]]
    assert drawn.getpixel((250, 250)) == pytest.approx(tinted, abs=1)


def test_labels_say_class_and_score_and_the_legend_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Texts(monkeypatch)
    boxes = [(50, 50, 150, 150), (200, 50, 300, 150), (50, 250, 150, 350)]
    draw_objects(grey(500, 400), boxes, [3, 1, 3], [0.5, 0.876, 1.0], KINDS)
    assert written.texts == ["cat 100%", "ant 88%", "cat 50%", "cat  2", "ant  1"]


@pytest.mark.parametrize("size", [(96, 64), (640, 480), (2400, 1800)])
@pytest.mark.parametrize("count", [1, 12, 100])
def test_labels_cover_no_others_and_those_of_the_surest_are_there(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], count: int
) -> None:
    rng = np.random.default_rng(count)
    corners = rng.uniform(-5, 0.9 * min(size), (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 0.4 * min(size), (count, 2))], axis=1)
    boxes = boxes.clip(0, [*size, *size])
    scores = rng.uniform(0.3, 1, count)
    written = Texts(monkeypatch)
    labels = rng.integers(1, 4, count).tolist()
    drawn = draw_objects(grey(*size), boxes.tolist(), labels, scores.tolist(), KINDS)
    assert written.inside(drawn.size)
    assert not written.overlap()
    shown = [text for text in written.texts if text.endswith("%")]
    surest = int(scores.argmax())
    assert shown[0] == f"{KINDS[labels[surest] - 1]} {scores[surest]:.0%}"
    assert len(shown) == 1 if count == 1 else len(shown) > 4


def test_text_of_labels_is_told_from_its_ground() -> None:
    """A contrast of 4.5 (WCAG 2.1, 1.4.3), under which text of this size is hard to read."""

    def luminance(colour: tuple[int, ...]) -> float:  # as defined there
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return float(np.dot((0.2126, 0.7152, 0.0722), parts))

    for number, colour in enumerate(palette(80), start=1):
        drawn = draw_objects(grey(480, 100), [(50, 50, 400, 90)], [number], [1.0], ["WWW"] * 80)
        pixels = np.asarray(drawn.crop((54, 34, 90, 46))).reshape(-1, 3)
        # The text's own colour is what is farthest from the ground.
        ink = tuple(pixels[np.abs(pixels - np.array(colour, dtype=int)).sum(1).argmax()].tolist())
        light, dark = sorted((luminance(ink), luminance(colour)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.45, (number, ink, colour)


def test_boxes_without_area_and_at_the_pictures_edge_do_no_harm() -> None:
    picture = grey(640, 480)
    boxes = [(10, 10, 10, 40), (0, 0, 0, 0), (0, 0, 640, 480), (639.5, 479.5, 640, 480)]
    drawn = draw_objects(picture, boxes, [1, 1, 2, 3], [0.5] * 4, KINDS)
    assert drawn.height == 480
    assert coloured(picture) == 0
    assert draw_objects(picture, [], [], [], KINDS).tobytes() == picture.tobytes()


@pytest.mark.parametrize(
    ("scores", "least", "text"),
    [
        ([0.97, 0.3, 0.29], 0.3, "2 objects of score 0.3 or more, highest score 0.970"),
        ([0.5, 0.2], 0.5, "1 object of score 0.5 or more, highest score 0.500"),
        ([0.06, 0.12], 0.3, "0 objects of score 0.3 or more, highest score 0.120"),
        ([], 0.3, "0 objects of score 0.3 or more, and none of less"),
    ],
)
def test_nothing_drawn_is_told_from_nothing_found(
    scores: list[float], least: float, text: str
) -> None:
    assert drawn_objects(scores, least=least) == text


# --- scores --------------------------------------------------------------------------------------

SCORES = [("tabby", 0.62), ("a cat whose name never ends " * 9, 0.25), ("lynx", 0.13)]


@pytest.mark.parametrize("size", [(64, 64), (640, 427), (2048, 1024), (100, 900)])
def test_bars_below_the_picture_are_as_long_as_the_classes_are_probable(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    written = Texts(monkeypatch)
    drawn = draw_scores(grey(*size), SCORES)
    scale = max(1, -(-480 // max(size)))
    below = np.asarray(drawn)[size[1] * scale :]
    blue = (below == BLUE).all(-1)
    rows = [row for row in blue if row.any()]
    lengths = sorted({int(np.flatnonzero(row)[-1] - np.flatnonzero(row)[0]) for row in rows})
    longest = lengths[-1]
    assert longest / drawn.width == pytest.approx(0.62, abs=0.03)
    assert lengths[0] / longest == pytest.approx(0.13 / 0.62, abs=0.02)
    assert not written.overlap()
    assert written.inside(drawn.size)
    assert [text for text in written.texts if text.endswith("%")] == ["62.0%", "25.0%", "13.0%"]
    assert "tabby" in written.texts
    assert any(text.endswith("...") for text in written.texts)


def test_the_picture_stays_as_it_is_above_the_bars() -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8))
    drawn = draw_scores(picture, SCORES)
    assert np.array_equal(np.asarray(drawn)[:480], np.asarray(picture))


# --- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_any_mode_are_drawn_on(mode: str) -> None:
    picture = grey(500, 300).convert(mode)
    assert draw_people(picture, [person(250, 30, 200)], COCO.names, SKELETON).mode == "RGB"
    assert draw_classes(picture, Image.new("L", (500, 300)), NAMES).mode == "RGB"
    assert draw_scores(picture, SCORES).mode == "RGB"
    masks = [Image.new("L", (500, 300), 255)]
    assert draw_objects(picture, [(1, 2, 30, 40)], [1], [0.5], ["a"], masks).mode == "RGB"


def test_pillow_alone_is_enough() -> None:
    script = """
import sys
for name in ("numpy", "torch"):
    sys.modules[name] = None
import importlib.util
spec = importlib.util.spec_from_file_location("drawing", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from PIL import Image
print(module.draw_scores(Image.new("RGB", (9, 9)), [("a", 1.0)]).size)
"""
    command = [sys.executable, "-I", "-c", script, drawing.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ImageFont.load_default(14) is not None
