"""Predictions drawn onto pictures: people, objects, classes of pixels, of the whole picture.

Exported beside a trained network, so it imports Pillow and the standard library alone. Pixels
count from 0, and pixel 0's centre is at 0. Every function returns a new picture; a small one is
first enlarged by a whole number, so that lines and text on it can be read.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

Colour = tuple[int, int, int]
Joint = Sequence[float]  # x, y in pixels of the picture, score
Points = dict[int, tuple[float, float]]  # joints of one person, in pixels of the drawing
Row = tuple[str, Colour]  # of a legend
Box = tuple[float, float, float, float]  # left, top, right, bottom

# Okabe and Ito's colours ("Color Universal Design", 2008), but black.
OKABE_ITO: tuple[Colour, ...] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
MIDDLE, LEFT, RIGHT = OKABE_ITO[1], OKABE_ITO[2], OKABE_ITO[5]
INK, PAPER = (0, 0, 0), (255, 255, 255)

LEAST_SIDE = 480  # pixels; the longer side of a smaller picture becomes at least as long
SMOOTH = 3  # lines are drawn so many times as large and reduced, which smooths their edges
SMOOTHED_SIDE = 3000  # pixels; larger pictures need no smoothing, and much memory for it
FAINT = 0.2  # as of 1, the height of a perfect peak, in the official code's person scores
TINT = 0.55  # share of a class's colour in the tinted picture
MASK_TINT = 0.45  # the same of an object's pixels
DRAWN_SCORE = 0.3  # objects that a detector is less sure of are not drawn (mmdetection's demo)

# What people see who lack the cones for green, and for red, in linear RGB: Machado et al., "A
# Physiologically-based Model for Simulation of Color Vision Deficiency" (2009), severity 1.
DEFICIENCIES = (
    (
        *((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413)),
        (-0.01182, 0.04294, 0.968881),
    ),
    (
        *((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216)),
        (-0.003882, -0.048116, 1.051998),
    ),
)


# ------------------------------------------------------------------------------------- colours


@cache
def palette(count: int) -> tuple[Colour, ...]:
    """Colours of classes 0, 1, ...: each as unlike all before it as can be.

    Unlike is meant for normal vision and for both common kinds of colour blindness. The first
    seven are Okabe and Ito's; a longer palette begins with the shorter one.
    """
    seen = {colour: _seen(colour) for colour in _candidates()}
    nearest = dict.fromkeys(seen, math.inf)
    chosen: list[Colour] = []
    while len(chosen) < count:
        first = len(chosen) < len(OKABE_ITO)
        new = OKABE_ITO[len(chosen)] if first else max(seen, key=lambda colour: nearest[colour])
        chosen.append(new)
        view = _seen(new)
        for colour in seen:
            nearest[colour] = min(nearest[colour], _distance(seen[colour], view))
    return tuple(chosen)


def _candidates() -> list[Colour]:
    """An even choice of colours that are neither nearly black nor nearly white."""
    levels = range(0, 256, 25)
    colours = [(r, g, b) for r in levels for g in levels for b in levels]
    return [colour for colour in colours if 30 <= _seen(colour)[0][0] <= 95]


def _seen(colour: Colour) -> list[tuple[float, ...]]:
    """CIELAB values of a colour under normal vision and each deficiency."""
    linear = [_linear(channel / 255) for channel in colour]
    views = [[_dot(row, linear) for row in matrix] for matrix in DEFICIENCIES]
    return [_lab(view) for view in (linear, *views)]


def _distance(one: list[tuple[float, ...]], other: list[tuple[float, ...]]) -> float:
    """The smallest distance in CIELAB (CIE 1976) under any kind of vision."""
    return min(math.dist(a, b) for a, b in zip(one, other, strict=True))


def _linear(value: float) -> float:
    """sRGB's curve (IEC 61966-2-1)."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _lab(linear: Sequence[float]) -> tuple[float, ...]:
    """CIELAB of linear RGB under white D65 (CIE 15, IEC 61966-2-1)."""
    rows = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    ratios = [_dot(row, linear) / sum(row) for row in rows]
    x, y, z = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in ratios)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


# ------------------------------------------------------------------------------------- people


def draw_people(
    picture: Image.Image,
    people: Sequence[Sequence[Joint]],
    names: Sequence[str],
    skeleton: Sequence[Sequence[int]],
) -> Image.Image:
    """The picture with joints and skeletons: left green, right orange, the rest blue.

    Joints that are not even `FAINT` times as sure as the person's surest one are left out.

    Args:
        picture: Any picture.
        people: Of each person every joint: x and y in pixels of the picture, score.
        names: Of the joints; one with "left" or "right" in it is of that side.
        skeleton: Pairs of joints that are joined by a line, by number from 0.
    """
    canvas, scale = _enlarged(picture)
    smooth = SMOOTH if max(canvas.size) <= SMOOTHED_SIDE else 1
    size = (canvas.width * smooth, canvas.height * smooth)
    canvas = canvas.resize(size, Image.Resampling.NEAREST)
    draw, factor = ImageDraw.Draw(canvas), scale * smooth
    pairs, colours = [(a, b) for a, b in skeleton], [_side(name) for name in names]
    for person in people:
        least = FAINT * max(score for _, _, score in person)
        points = {
            number: ((x + 0.5) * factor, (y + 0.5) * factor)
            for number, (x, y, score) in enumerate(person)
            if score > least
        }
        if points:
            _draw_person(draw, points, colours, pairs, _thickness(points, size, smooth))
    return canvas.reduce(smooth)


def _thickness(points: Points, size: tuple[int, int], least: float) -> float:
    """Width of a person's lines: by how large it is drawn, within limits."""
    spans = [max(values) - min(values) for values in zip(*points.values(), strict=True)]
    return min(max(math.hypot(*spans) / 60, 2 * least), max(size) / 120)


def _draw_person(
    draw: ImageDraw.ImageDraw,
    points: Points,
    colours: list[Colour],
    pairs: list[tuple[int, int]],
    width: float,
) -> None:
    """Lines, then discs, each with a dark edge that shows on any ground."""
    lines = [(a, b) for a, b in pairs if a in points and b in points]
    for dark in (True, False):
        for a, b in lines:
            colour = INK if dark else colours[a] if colours[a] == colours[b] else MIDDLE
            thick = round(1.5 * width if dark else width)
            draw.line([points[a], points[b]], fill=colour, width=thick)
    for number, (x, y) in points.items():
        for radius, colour in ((1.35 * width, INK), (1.1 * width, colours[number])):
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def _side(name: str) -> Colour:
    lower = name.lower()
    return LEFT if "left" in lower else RIGHT if "right" in lower else MIDDLE


# ------------------------------------------------------------------------------------- objects


@dataclass(frozen=True)
class _Object:
    """An object as it is drawn.

    Args:
        box: In pixels of the drawing.
        text: Its label.
        colour: Of its class.
    """

    box: Box
    text: str
    colour: Colour

    @property
    def area(self) -> float:
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def drawn_objects(scores: Sequence[float], *, least: float) -> str:
    """As in "0 objects of score 0.3 or more, highest score 0.120".

    Args:
        scores: Of all objects that were found.
        least: That of an object that is drawn.
    """
    drawn = sum(score >= least for score in scores)
    highest = f"highest score {max(scores):.3f}" if scores else "and none of less"
    return f"{drawn} {'object' if drawn == 1 else 'objects'} of score {least} or more, {highest}"


def draw_objects(
    picture: Image.Image,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    scores: Sequence[float],
    names: Sequence[str],
    masks: Iterable[Image.Image] | None = None,
) -> Image.Image:
    """The picture with a box, a label and perhaps a mask of each object, and a legend beside it.

    A label for which there is no room beside those of surer objects is left out: the colour says
    the class.

    Args:
        picture: Any picture.
        boxes: Of each object x1, y1, x2, y2 in pixels, the first of which reaches from 0 to 1.
        labels: Its class, from 1, as detectors count.
        scores: Its score, at most 1.
        names: Of classes 1, 2, ...
        masks: Of each object a picture of the same size, mode "L": 255 where it is, else 0.
    """
    canvas, scale = _enlarged(picture)
    colours = palette(len(names))
    objects = [
        _Object(_scaled(box, scale), f"{names[label - 1]} {score:.0%}", colours[label - 1])
        for box, label, score in zip(boxes, labels, scores, strict=True)
    ]
    if masks is not None:
        for one, mask in zip(objects, masks, strict=True):
            _tint(canvas, mask, scale, one.colour)
    _draw_boxes(canvas, sorted(objects, key=lambda one: -one.area))
    by_score = sorted(zip(scores, objects, strict=True), key=lambda pair: -pair[0])
    _draw_labels(canvas, [one for _, one in by_score])
    counts = Counter(labels).most_common()
    rows = [(f"{names[label - 1]}  {count}", colours[label - 1]) for label, count in counts]
    return _beside(canvas, rows) if rows else canvas


def _scaled(box: Sequence[float], scale: int) -> Box:
    left, top, right, bottom = (scale * value for value in box)
    return left, top, right, bottom


def _tint(canvas: Image.Image, mask: Image.Image, scale: int, colour: Colour) -> None:
    """Mix the colour into an object's pixels, with a line of it along their edge."""
    area = mask.getbbox()
    if area is None:
        return
    left, top, right, bottom = area
    size = ((right - left) * scale, (bottom - top) * scale)
    inside = mask.crop(area).resize(size, Image.Resampling.NEAREST)
    corner = (left * scale, top * scale)
    canvas.paste(colour, corner, inside.point(lambda value: round(MASK_TINT * value)))
    side = _line(canvas.size) | 1  # pixels around each; odd
    # Pillow's filters leave the outermost pixels as they are, so there must be some around.
    wide = Image.new("L", (size[0] + 2 * side, size[1] + 2 * side))
    wide.paste(inside, (side, side))
    edge = ImageChops.subtract(wide, wide.filter(ImageFilter.MinFilter(side)))
    canvas.paste(colour, corner, edge.crop((side, side, side + size[0], side + size[1])))


def _line(size: tuple[int, int]) -> int:
    """Width of a box's line in a drawing of that size."""
    return max(2, round(max(size) / 350))


def _draw_boxes(canvas: Image.Image, objects: Sequence[_Object]) -> None:
    """Outlines with dark edges that show on any ground; the box is the middle of the line."""
    draw = ImageDraw.Draw(canvas)
    for one in objects:
        left, top, right, bottom = one.box
        width = min(_line(canvas.size), max(1, round(min(right - left, bottom - top) / 6)))
        out = width / 2
        outer = (left - out, top - out, right - 1 + out, bottom - 1 + out)
        draw.rectangle(_grown(outer, 1), outline=INK, width=width + 2)
        draw.rectangle(_grown(outer, 0), outline=one.colour, width=width)


def _grown(box: Box, by: int) -> Box:
    """The box in whole pixels, larger on every side; never turned inside out."""
    left, top, right, bottom = map(round, box)
    return left - by, top - by, max(left, right) + by, max(top, bottom) + by


def _draw_labels(canvas: Image.Image, objects: Sequence[_Object]) -> None:
    """Texts on grounds of the classes' colours, where they cover none before them."""
    draw, font = ImageDraw.Draw(canvas), _font(canvas.size)
    taken: list[Box] = []
    for one in objects:
        size = (round(font.getlength(one.text) + font.size / 2), round(1.3 * font.size))
        for place in _label_places(one.box, size, canvas.size):
            if any(_overlap(place, other) for other in taken):
                continue
            taken.append(place)
            left, top, right, bottom = place
            draw.rectangle((left, top, right - 1, bottom - 1), fill=one.colour, outline=INK)
            ink = INK if _seen(one.colour)[0][0] > 50 else PAPER
            middle = ((left + right) / 2, (top + bottom) / 2)
            draw.text(middle, one.text, fill=ink, font=font, anchor="mm")
            break


def _label_places(box: Box, size: tuple[int, int], full: tuple[int, int]) -> Iterator[Box]:
    """Where the label of a box may be, the best first: above it, below, inside, at its sides."""
    left, top, right, bottom = map(round, box)
    (width, height), (full_width, full_height) = size, full
    places = [(x, y) for y in (top - height, bottom) for x in (left, right - width)]
    places += [(left, top), (left, bottom - height), (right, top), (left - width, top)]
    for x, y in places:
        x = max(0, min(x, full_width - width))
        if 0 <= y <= full_height - height:
            yield x, y, x + width, y + height


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


# ------------------------------------------------------------------------------------- classes


def draw_classes(picture: Image.Image, classes: Image.Image, names: Sequence[str]) -> Image.Image:
    """The picture with every pixel tinted by its class, and a legend at its right.

    Args:
        picture: Any picture.
        classes: Of the same size, mode "L": the number of each pixel's class.
        names: Of the classes; the legend lists those that occur, the largest first.
    """
    colours = palette(len(names))
    tint = classes.copy()
    tint.putpalette([channel for colour in colours for channel in colour])
    tinted = Image.blend(picture.convert("RGB"), tint.convert("RGB"), TINT)
    canvas, _ = _enlarged(tinted)
    shares = class_shares(classes, len(names))
    rows = [row for row in zip(names, shares, colours, strict=True) if row[1]]
    rows.sort(key=lambda row: -row[1])
    return _beside(canvas, [(f"{name}  {_percent(share)}", colour) for name, share, colour in rows])


def class_shares(classes: Image.Image, count: int) -> list[float]:
    """What share of the picture each of `count` classes covers; they add up to 1."""
    pixels = classes.histogram()[:count]
    return [number / (classes.width * classes.height) for number in pixels]


# -------------------------------------------------------------------------------------- scores


def draw_scores(picture: Image.Image, scores: Sequence[tuple[str, float]]) -> Image.Image:
    """The picture above a bar for each class.

    Args:
        picture: Any picture.
        scores: Name and probability of each class, in the order in which they are drawn.
    """
    canvas, _ = _enlarged(picture)
    font = _font(canvas.size)
    line, pad = round(1.7 * font.size), round(font.size / 2)
    width = max(canvas.width, 20 * line)
    result = Image.new("RGB", (width, canvas.height + 2 * pad + line * len(scores)), PAPER)
    result.paste(canvas, ((width - canvas.width) // 2, 0))
    draw, room = ImageDraw.Draw(result), width - 2 * pad
    for place, (name, share) in enumerate(scores):
        top = canvas.height + pad + place * line
        draw.rectangle((pad, top, pad + round(share * (room - 1)), top + line - 3), fill=MIDDLE)
        middle, number = top + line // 2 - 1, _percent(share)
        draw.text((pad + room - pad, middle), number, fill=INK, font=font, anchor="rm")
        text = _shortened(name, font, room - 3 * pad - font.getlength(number))
        draw.text((2 * pad, middle), text, fill=INK, font=font, anchor="lm")
    return result


# ------------------------------------------------------------------------------------ in common


def _enlarged(picture: Image.Image) -> tuple[Image.Image, int]:
    """The picture in RGB, a whole number of times as large, and that number."""
    scale = max(1, math.ceil(LEAST_SIDE / max(picture.size)))
    size = (picture.width * scale, picture.height * scale)
    return picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), scale


def _beside(canvas: Image.Image, rows: list[Row]) -> Image.Image:
    """The picture and a legend in as many columns as its height asks for."""
    font = _font(canvas.size)
    line, pad = round(1.5 * font.size), round(font.size / 2)
    per_column = max(1, (canvas.height - 2 * pad) // line)
    columns = [rows[start : start + per_column] for start in range(0, len(rows), per_column)]
    widths = [
        line + pad + round(max(font.getlength(text) for text, _ in column)) for column in columns
    ]
    result = Image.new(
        "RGB", (canvas.width + pad + sum(widths) + pad * len(widths), canvas.height), PAPER
    )
    result.paste(canvas, (0, 0))
    draw, left = ImageDraw.Draw(result), canvas.width + pad
    for column, width in zip(columns, widths, strict=True):
        for place, (text, colour) in enumerate(column):
            top = pad + place * line
            box = (left, top + line // 6, left + line * 2 // 3, top + line * 5 // 6)
            draw.rectangle(box, fill=colour, outline=INK)
            draw.text((left + line, top + line // 2), text, fill=INK, font=font, anchor="lm")
        left += width + pad
    return result


def _font(size: tuple[int, int]) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(max(14, round(max(size) / 75)))
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """As much of the text as fits."""
    for end in range(len(text), 0, -1):
        short = text if end == len(text) else f"{text[:end].rstrip()}..."
        if font.getlength(short) <= width:
            return short
    return ""
