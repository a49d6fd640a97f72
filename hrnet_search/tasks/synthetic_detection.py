"""Generated scenes for object detection and instance segmentation, small enough for a CPU.

Every image shows objects of the classes `SYNTHETIC_CLASSES` in front of a textured background with
clutter that is none of them: blotches, stripes and lines. Discs, boxes and triangles are filled,
rings have a hole, through which one sees what is behind; houses and cars are composed of the same
shapes, so that a class is not told by one part alone. Each class is equally frequent, and so are an
image and its mirrored one. Colours and textures say nothing of the class. Most objects are small:
HRNet's claim is about these. Later objects cover earlier ones, which keep only what is left of
their mask and their box; an object of which too little would be left stands elsewhere.

A pixel belongs to the object that is on top at its centre. Pictures are painted `SCALE` times as
large and reduced.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..labels import SYNTHETIC_CLASSES

SCALE = 3  # odd, so that there is a painted pixel at the centre of each pixel
SHARES = (0.6, 0.3, 0.1)  # of objects by their size
# Longer side of an object, in shorter sides of the image: small, medium, large.
SIDES = ((0.065, 0.12), (0.12, 0.36), (0.36, 0.65))
# Square roots of the areas that part small from medium from large in tests, in the same unit.
# COCO's 32 and 96 pixels are 1/15 and 1/5 of the 480 that its images' shorter side usually has;
# half as much more here, as scenes have far fewer pixels.
AREA_SIDES = (0.1, 0.3)
OBJECTS = (5, 14)  # fewest and most of a scene
LEFT = 0.5  # least share of an object's own pixels that others leave
INSIDE = 0.75  # least share of an object's width and height that is in the image
TRIES = 12  # places that an object is tried at before it is given up
CONTRAST = 90.0  # least distance of RGB values between an object and what is behind it
NOISE = 5.0  # deviation of each pixel's values

Colour = tuple[int, int, int]
Outline = np.ndarray  # (P, 2): x, y of its corners, where the object fills -1 to 1


@dataclass(frozen=True)
class Part:
    """A part of an object.

    Args:
        outline: Its corners.
        paint: "fill" for the object's texture, "second", "dark" or "light" for a colour, "hole" for
            none: it is not of the object.
    """

    outline: Outline
    paint: str = "fill"


@dataclass(frozen=True)
class Scene:
    """One image with N objects.

    Args:
        image: uint8 (H, W, 3) RGB.
        owner: uint8 (H, W): 0 for the background, else the number of the object there, from 1.
        labels: (N,): classes, from 1.
    """

    image: np.ndarray
    owner: np.ndarray
    labels: np.ndarray

    def mask(self, number: int) -> np.ndarray:
        """uint8 (H, W): where the object of that number, from 1, is seen."""
        return (self.owner == number).astype(np.uint8)

    def box(self, number: int) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 of what is seen of it; a pixel reaches from its number to the next."""
        rows, columns = np.nonzero(self.owner == number)
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


# --- the classes ---------------------------------------------------------------------------------


def circle(x: float = 0, y: float = 0, radius: float = 1, corners: int = 28) -> Outline:
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)


def rectangle(x1: float, y1: float, x2: float, y2: float) -> Outline:
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], dtype=np.float64)


def polygon(*corners: tuple[float, float]) -> Outline:
    return np.array(corners, dtype=np.float64)


@dataclass(frozen=True)
class Shape:
    """What objects of a class look like.

    Args:
        parts: Later ones over earlier ones; y points down.
        aspects: Least and largest height over width.
        turn: Largest rotation to either side, degrees.
    """

    parts: Sequence[Part]
    aspects: tuple[float, float]
    turn: float


SHAPES: Mapping[str, Shape] = {
    "disc": Shape([Part(circle())], (0.75, 1.33), 180),
    "box": Shape([Part(rectangle(-1, -1, 1, 1))], (0.6, 1.6), 30),
    "triangle": Shape([Part(polygon((0, -1), (1, 1), (-1, 1)))], (0.7, 1.3), 30),
    "ring": Shape([Part(circle()), Part(circle(radius=0.5), "hole")], (0.8, 1.25), 180),
    "house": Shape(
        [
            Part(rectangle(-0.8, -0.2, 0.8, 1)),
            Part(polygon((0, -1), (1, -0.1), (-1, -0.1)), "second"),
            Part(rectangle(-0.55, 0.25, -0.05, 1), "dark"),
            Part(rectangle(0.2, 0.15, 0.6, 0.55), "light"),
        ],
        (0.8, 1.25),
        10,
    ),
    "car": Shape(
        [
            Part(polygon((-0.6, -0.05), (-0.4, -1), (0.35, -1), (0.65, -0.05))),
            Part(polygon((-1, -0.1), (0.85, -0.1), (1, 0.15), (1, 0.64), (-1, 0.64))),
            Part(polygon((-0.45, -0.12), (-0.32, -0.8), (0.28, -0.8), (0.48, -0.12)), "light"),
            Part(circle(-0.55, 0.64, 0.36, 16), "dark"),
            Part(circle(0.55, 0.64, 0.36, 16), "dark"),
        ],
        (0.5, 0.7),
        8,
    ),
}


def placed(
    shape: Shape, rng: np.random.Generator, side: float, centre: np.ndarray
) -> list[tuple[Outline, str]]:
    """Outlines and paints of an object in pixels.

    Args:
        shape: Of its class.
        rng: Decides height over width, rotation, and whether it is mirrored.
        side: Pixels of its longer side before it is rotated.
        centre: x, y in pixels.
    """
    aspect, turn = rng.uniform(*shape.aspects), np.radians(rng.uniform(-shape.turn, shape.turn))
    extent = np.array([1, aspect]) * side / max(1.0, aspect) / 2
    extent[0] *= 1 if rng.random() < 0.5 else -1
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return [(part.outline * extent @ rotation.T + centre, part.paint) for part in shape.parts]


# --- a scene -------------------------------------------------------------------------------------


def generate(
    *, num: int, size: tuple[int, int], seed: int, progress: Callable[[int], None] | None = None
) -> Iterator[Scene]:
    """Scenes; scene i depends on `seed` and i only.

    Args:
        num: How many.
        size: (H, W) of the images.
        seed: Chooses the scenes. Different seeds give independent sets.
        progress: Called with 1 after each finished scene.
    """
    for index in range(num):
        yield draw(np.random.default_rng((seed, index)), size)
        if progress is not None:
            progress(1)


def draw(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """One scene of (H, W), large objects first, so that they do not cover the small ones."""
    canvas = Canvas(background(rng, size), size)
    wanted = int(rng.integers(OBJECTS[0], OBJECTS[1], endpoint=True))
    groups = rng.choice(len(SIDES), wanted, p=SHARES)
    sides = sorted((_uniform_log(rng, *SIDES[group]) for group in groups), reverse=True)
    labels = [
        int(label)
        for label, side in zip(rng.integers(1, len(SHAPES) + 1, wanted), sides, strict=True)
        if canvas.add(SHAPES[SYNTHETIC_CLASSES[label - 1]], side * min(size), rng)
    ]
    return Scene(photograph(rng, canvas.picture), canvas.owner, np.array(labels, dtype=np.int64))


def _uniform_log(rng: np.random.Generator, least: float, largest: float) -> float:
    return float(np.exp(rng.uniform(np.log(least), np.log(largest))))


class Canvas:
    """A picture that is being painted, and whose each of its pixels is.

    Args:
        picture: `SCALE` times as large as the image.
        size: (H, W) of the image.
    """

    def __init__(self, picture: Image.Image, size: tuple[int, int]) -> None:
        self.picture, self.size = picture, size
        self.owner = np.zeros(size, dtype=np.uint8)
        self.own: list[int] = [0]  # pixels of each object when it was painted

    def add(self, shape: Shape, side: float, rng: np.random.Generator) -> bool:
        """Paint an object where there is room for it.

        Returns:
            Whether there was.
        """
        for _ in range(TRIES):
            centre = rng.uniform(0, 1, 2) * self.size[::-1]
            outlines = placed(shape, rng, side, centre)
            region = self._region(np.concatenate([outline for outline, _ in outlines]))
            if region is None:
                continue
            stencil = cut_out(outlines, region)
            seen = np.asarray(stencil)[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE] > 0
            if self._fits(region, seen):
                self._paint(outlines, region, stencil, seen, rng)
                return True
        return False

    def _region(self, corners: np.ndarray) -> tuple[int, int, int, int] | None:
        """Pixels x1, y1, x2, y2 of the image that an object is in; None if it is too far out."""
        low, high = corners.min(0), corners.max(0)
        inside = np.minimum(high, self.size[::-1]) - np.maximum(low, 0)
        if (inside < INSIDE * (high - low)).any():
            return None
        x1, y1 = np.maximum(np.floor(low).astype(int) - 1, 0).tolist()
        x2, y2 = np.minimum(np.ceil(high).astype(int) + 1, self.size[::-1]).tolist()
        return x1, y1, x2, y2

    def _fits(self, region: tuple[int, int, int, int], seen: np.ndarray) -> bool:
        """Whether enough is left of everything else, and the object has a pixel."""
        x1, y1, x2, y2 = region
        covered = np.bincount(self.owner[y1:y2, x1:x2][seen], minlength=len(self.own))
        if not seen.any():
            return False
        return all(
            not covered[number] or self._left(number) - covered[number] >= LEFT * self.own[number]
            for number in range(1, len(self.own))
        )

    def _left(self, number: int) -> int:
        return int(np.count_nonzero(self.owner == number))

    def _paint(
        self,
        outlines: Sequence[tuple[Outline, str]],
        region: tuple[int, int, int, int],
        stencil: Image.Image,
        seen: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        x1, y1, x2, y2 = region
        self.owner[y1:y2, x1:x2][seen] = len(self.own)
        self.own.append(int(seen.sum()))
        corner = (SCALE * x1, SCALE * y1)
        behind = self.picture.crop((*corner, SCALE * x2, SCALE * y2))
        fill = contrasting(rng, np.asarray(behind.resize((1, 1), Image.Resampling.BOX))[0, 0])
        picture = texture(rng, fill, behind.size)
        paints = {"dark": shade(fill, 0.25), "light": (225, 235, 240), "second": any_colour(rng)}
        pen = ImageDraw.Draw(picture)
        for outline, paint in outlines:
            if paint in paints:
                pen.polygon(on_canvas(outline, region), fill=paints[paint])
        self.picture.paste(shade(fill, 0.45), corner, stencil)  # what stays of it is the rim
        self.picture.paste(picture, corner, stencil.filter(ImageFilter.MinFilter(SCALE)))


def cut_out(
    outlines: Sequence[tuple[Outline, str]], region: tuple[int, int, int, int]
) -> Image.Image:
    """Where an object is in a region of the canvas: 255, else 0."""
    x1, y1, x2, y2 = region
    stencil = Image.new("L", (SCALE * (x2 - x1), SCALE * (y2 - y1)))
    pen = ImageDraw.Draw(stencil)
    for outline, paint in outlines:
        pen.polygon(on_canvas(outline, region), fill=0 if paint == "hole" else 255)
    return stencil


def on_canvas(outline: Outline, region: tuple[int, int, int, int]) -> list[float]:
    """x, y, x, y, ... of an outline in the painted pixels of a region."""
    places = SCALE * (outline - region[:2]) - 0.5
    return [float(value) for value in places.ravel()]


def texture(rng: np.random.Generator, fill: Colour, size: tuple[int, int]) -> Image.Image:
    """A picture of (W, H) in a colour: plain, shaded, striped or checked."""
    kind, factor = rng.integers(4), rng.uniform(0.62, 0.8)
    turn, pitch = rng.uniform(0, np.pi), SCALE * rng.uniform(3, 7)
    if kind == 0:
        return Image.new("RGB", size, fill)
    x, y = np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32)[:, None]
    along = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    if kind == 1:
        amount = (along - along.min()) / max(float(np.ptp(along)), 1)
    else:
        amount = along % pitch < pitch / 2
    if kind == 3:
        across = y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn))
        amount = amount ^ (across % pitch < pitch / 2)
    light = 1 + (factor - 1) * amount.astype(np.float32)
    return Image.fromarray((np.array(fill, dtype=np.float32) * light[..., None]).astype(np.uint8))


def background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Soft blotches of two colours, at times stripes, and lines; `SCALE` times (H, W)."""
    height, width = (SCALE * side for side in size)
    cells = int(rng.integers(2, 10))
    middle, spread = rng.uniform(60, 195, 3), rng.uniform(6, 26)
    blotches = np.clip(rng.normal(middle, spread, (cells, cells + 1, 3)), 0, 255)
    picture = Image.fromarray(blotches.astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pen = ImageDraw.Draw(picture)
    if rng.random() < 0.25:
        _stripes(rng, pen, (width, height), middle)
    for _ in range(rng.integers(2, 9)):
        start = rng.uniform(0, 1, 2) * (width, height)
        ends = [start, start + rng.normal(0, 0.25, 2) * width]
        colour, thick = near(rng, middle, 45), int(rng.integers(1, 3 * SCALE))
        pen.line([(float(x), float(y)) for x, y in ends], fill=colour, width=thick)
    return picture


def _stripes(
    rng: np.random.Generator,
    pen: ImageDraw.ImageDraw,
    extent: tuple[int, int],
    middle: np.ndarray,
) -> None:
    """Parallel lines over the whole picture, like a fence or boards."""
    pitch, turn, colour = (
        rng.uniform(0.06, 0.2) * extent[1],
        rng.uniform(0, np.pi),
        near(rng, middle, 25),
    )
    along = np.array([np.cos(turn), np.sin(turn)])
    across, reach = np.array([-along[1], along[0]]), sum(extent)
    for step in range(int(-reach / pitch / 2), int(reach / pitch / 2) + 1):
        point = np.array(extent) / 2 + step * pitch * across
        ends = [point - reach * along, point + reach * along]
        pen.line([(float(x), float(y)) for x, y in ends], fill=colour, width=int(pitch / 3) + 1)


def photograph(rng: np.random.Generator, picture: Image.Image) -> np.ndarray:
    """The image (H, W, 3) of a painted picture: reduced, lit, with noise."""
    pixels = np.asarray(picture.reduce(SCALE), dtype=np.float32)
    light, noise = rng.uniform(0.85, 1.1), rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(pixels * light + NOISE * noise, 0, 255).astype(np.uint8)


# --- colours -------------------------------------------------------------------------------------


def any_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.integers(20, 246, 3).tolist()
    return red, green, blue


def near(rng: np.random.Generator, colour: np.ndarray, spread: float) -> Colour:
    """A colour around another one (3,)."""
    red, green, blue = np.clip(rng.normal(colour, spread), 0, 255).astype(int).tolist()
    return red, green, blue


def contrasting(rng: np.random.Generator, colour: np.ndarray) -> Colour:
    """A colour that is `CONTRAST` or more away from another one (3,)."""
    while True:
        found = any_colour(rng)
        if np.linalg.norm(np.subtract(found, colour, dtype=float)) >= CONTRAST:
            return found


def shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(channel * factor) for channel in colour)
    return red, green, blue
