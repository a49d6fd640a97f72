"""Generated people for top-down human pose estimation, small enough for a CPU.

Every image is one crop around one target person with COCO's 17 keypoints. The person is a
three-dimensional articulated figure made of spheres and tapered limbs, seen from the front, the
back or obliquely, in front of clutter, loose limbs and parts of other people, and behind
occluders. Arms and legs look the same on both sides: whether a limb is the left or the right one
follows only from which way the person faces, which the head shows (face or hair). A network thus
needs fine resolution for the place of a joint and wide context for its side. Front and back views
are equally likely and every choice is made alike for both sides, so that a mirrored image with
swapped left and right joints is as likely as the image itself.

Coordinates: a body has x to its own left, y down and z to its front, in units of its torso's
length. A view has x to the image's right, y down and z towards the viewer. Pixel centres lie at
integer coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..joints import COCO

_SUPERSAMPLING = 3
_BOX_PADDING = 1.25

# Labels of the painted parts in a canvas's part map. Limbs are indexed by side, 0 left, 1 right.
_TORSO, _NECK, _HEAD = 1, 2, 3
_UPPER_ARM, _FOREARM, _THIGH, _SHIN = (4, 5), (6, 7), (8, 9), (10, 11)
_OCCLUDER = 255

# The parts that show a keypoint when they are the topmost paint at its place. The torso shows
# shoulders and hips too, but only those on its near side (see `_visibility`).
_OWNERS: tuple[tuple[int, ...], ...] = (
    *((_HEAD,),) * 5,
    *((_UPPER_ARM[side],) for side in (0, 1)),
    *((_UPPER_ARM[side], _FOREARM[side]) for side in (0, 1)),
    *((_FOREARM[side],) for side in (0, 1)),
    *((_THIGH[side],) for side in (0, 1)),
    *((_THIGH[side], _SHIN[side]) for side in (0, 1)),
    *((_SHIN[side],) for side in (0, 1)),
)
_ON_TORSO = (5, 6, 11, 12)

# Directions of nose, eyes and ears from the centre of the head, and the middle of the face.
_HEAD_DIRECTIONS = np.array(
    [(0, 0.25, 1), (0.4, -0.1, 0.9), (-0.4, -0.1, 0.9), (1, 0.05, 0), (-1, 0.05, 0), (0, 0.2, 1)]
)
_HEAD_DIRECTIONS /= np.linalg.norm(_HEAD_DIRECTIONS, axis=1, keepdims=True)
_FACE_HALF_ANGLE = np.radians(66.0)

_TURN = np.linspace(0.0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class PoseSamples:
    """Crops of single people with their keypoints.

    Attributes:
        images: RGB pictures (N, H, W, 3).
        keypoints: x, y in pixels with pixel centres at integers, and COCO's visibility (N, 17, 3):
            0 outside the image (x and y are 0 too), 1 covered by something, 2 visible.
        areas: Square pixels of the person's silhouette inside the image, before occlusion (N,).
        boxes: x, y, width, height around that silhouette. Pixels reach half a pixel around their
            centres, so a box that begins at the image's left border has x = -0.5 (N, 4).
    """

    images: np.ndarray
    keypoints: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class _Pose:
    """Angles in degrees. Rows of `arms` and `legs` belong to the left and the right side.

    Attributes:
        yaw: Turn of the body; 0 faces the viewer, 180 shows the back.
        pitch: Tilt of the camera.
        roll: Turn in the image plane.
        lean: Forward and sideways lean of the torso.
        head: Turn, nod and tilt of the head against the torso.
        arms: Abduction, flexion and elbow flexion (2, 3).
        elbow_plane: How much forearms bend towards outside, top and front (2, 3).
        legs: Abduction, flexion and knee flexion (2, 3).
    """

    yaw: float
    pitch: float
    roll: float
    lean: tuple[float, float]
    head: tuple[float, float, float]
    arms: np.ndarray
    elbow_plane: np.ndarray
    legs: np.ndarray


@dataclass(frozen=True)
class _Build:
    """Lengths of a body in units of its torso's length; `girth` scales all thicknesses."""

    shoulder: float
    hip: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    neck: float
    head: float
    girth: float


@dataclass(frozen=True)
class _Look:
    """Colours of a person, the same for both sides."""

    skin: Colour
    hair: Colour
    shirt: Colour
    sleeve: Colour
    trousers: Colour
    shin: Colour
    shoe: Colour
    eye: Colour


@dataclass(frozen=True)
class _Figure:
    """Places of a body's points in a view; the unit is that of `build` times `scale`.

    Attributes:
        joints: COCO's keypoints (17, 3).
        head: Centre of the head (3,).
        face: Unit directions from the head's centre to nose, eyes, ears, middle of face (6, 3).
        build: Lengths before scaling.
        scale: Factor from lengths in `build` to lengths in the view.
    """

    joints: np.ndarray
    head: np.ndarray
    face: np.ndarray
    build: _Build
    scale: float


@dataclass(frozen=True)
class _Shape:
    """Convex hull of discs with centres (C, 2) and radii (C,) in pixels of the image.

    An `edge` above 0 surrounds the hull with a darker rim of that width.
    """

    centres: np.ndarray
    radii: np.ndarray
    colour: Colour
    edge: float = 0.0


@dataclass(frozen=True)
class _Part:
    """Shapes painted together, nearer parts over farther ones."""

    label: int
    depth: float
    shapes: tuple[_Shape, ...]


class _Canvas:
    """A supersampled picture together with a map of the part that is on top at each pixel."""

    def __init__(self, picture: Image.Image) -> None:
        self.picture = picture
        self.parts = Image.new("L", picture.size)
        self._draw_picture = ImageDraw.Draw(picture)
        self._draw_parts = ImageDraw.Draw(self.parts)

    def paint(self, shape: _Shape, label: int) -> None:
        """Paint a shape and enter `label` in the part map where it lies."""
        corners = _corners(shape.centres, shape.radii)
        inner = outer = _polygon(corners)
        if shape.edge > 0:
            outer = _polygon(corners + shape.edge * _CIRCLE)
            self._draw_picture.polygon(outer, fill=_scale_colour(shape.colour, 0.5))
        self._draw_picture.polygon(inner, fill=shape.colour)
        self._draw_parts.polygon(outer, fill=label)

    def labels_at(self, places: np.ndarray) -> np.ndarray:
        """Return the labels (J,) on top at places (J, 2) inside the image."""
        columns, rows = _to_canvas(places).T
        labels: np.ndarray = np.asarray(self.parts)[rows, columns]
        return labels


def generate(
    *,
    num: int,
    size: tuple[int, int],
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> PoseSamples:
    """Generate people; sample i depends on `seed` and i only.

    Args:
        num: Number of samples N.
        size: Height H and width W of the images.
        seed: Chooses the samples. Different seeds give independent sets.
        progress: Called with 1 after each finished sample.

    Returns:
        The N samples.
    """
    height, width = size
    samples = PoseSamples(
        images=np.empty((num, height, width, 3), np.uint8),
        keypoints=np.empty((num, len(COCO.names), 3), np.float32),
        areas=np.empty(num, np.float32),
        boxes=np.empty((num, 4), np.float32),
    )
    for index in range(num):
        rng = np.random.default_rng((seed, index))
        image, keypoints, area, box = _generate_one(rng, size)
        samples.images[index] = image
        samples.keypoints[index] = keypoints
        samples.areas[index] = area
        samples.boxes[index] = box
        if progress is not None:
            progress(1)
    return samples


def _generate_one(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Return the image (H, W, 3), keypoints (17, 3), area and box (4,) of a new sample."""
    build = _sample_build(rng)
    look = _sample_look(rng)
    figure = _place(rng, _articulate(_sample_pose(rng), build), size)

    canvas = _Canvas(_paint_background(rng, size))
    for shape in _sample_distractors(rng, figure, look, size):
        canvas.paint(shape, 0)
    for part in _body_parts(figure, look):
        for shape in part.shapes:
            canvas.paint(shape, part.label)
    area, box = _silhouette(canvas.parts)
    for shape in _sample_occluders(rng, figure, look, size):
        canvas.paint(shape, _OCCLUDER)

    keypoints = np.zeros((len(COCO.names), 3))
    keypoints[:, 2] = _visibility(canvas, figure, size)
    labelled = keypoints[:, 2] > 0
    keypoints[labelled, :2] = figure.joints[labelled, :2]
    return _take_photo(rng, canvas.picture, size), keypoints, area, box


# ---------------------------------------------------------------------------------- the person


def _sample_pose(rng: np.random.Generator) -> _Pose:
    """Draw a pose: standing, striding or sitting, with each arm doing something of its own."""
    away = rng.random() < 0.5
    return _Pose(
        yaw=180.0 * away + rng.normal(0, 12),
        pitch=rng.normal(0, 8),
        roll=rng.normal(0, 9),
        lean=(rng.normal(6, 10), rng.normal(0, 7)),
        head=(rng.normal(0, 5), rng.normal(0, 5), rng.normal(0, 5)),
        arms=np.stack([_sample_arm(rng) for _ in range(2)]),
        elbow_plane=rng.uniform((-1.0, -0.3, 0.2), (0.3, 1.0, 1.0), (2, 3)),
        legs=_sample_legs(rng),
    )


def _sample_arm(rng: np.random.Generator) -> np.ndarray:
    """Draw abduction, flexion and elbow flexion of one arm (3,)."""
    low, high = (
        ((8, -15, 5), (32, 20, 45)),  # hanging
        ((35, -10, 0), (95, 20, 80)),  # held out
        ((105, -5, 0), (150, 20, 60)),  # raised
        ((15, -5, 50), (45, 30, 110)),  # carrying
    )[rng.choice(4, p=(0.4, 0.3, 0.15, 0.15))]
    return rng.uniform(low, high)


def _sample_legs(rng: np.random.Generator) -> np.ndarray:
    """Draw abduction, flexion and knee flexion of both legs (2, 3)."""
    low, high = (
        ((2, -8, 0), (16, 15, 15)),  # standing
        ((3, -25, 0), (18, 45, 60)),  # striding
        ((15, 20, 25), (40, 70, 90)),  # sitting or squatting
    )[rng.choice(3, p=(0.5, 0.35, 0.15))]
    return rng.uniform(low, high, (2, 3))


def _sample_build(rng: np.random.Generator) -> _Build:
    """Draw the proportions of a body."""
    low = (0.40, 0.20, 0.58, 0.50, 0.74, 0.70, 0.10, 0.29, 1.05)
    high = (0.50, 0.26, 0.68, 0.60, 0.90, 0.86, 0.18, 0.35, 1.3)
    return _Build(*rng.uniform(low, high).tolist())


def _sample_look(rng: np.random.Generator) -> _Look:
    """Draw a person's colours; the hair always stands out against the skin."""
    skin, hair = _sample_skin(rng), _sample_colour(rng)
    while abs(_luminance(hair) - _luminance(skin)) < 60:
        hair = _sample_colour(rng)
    shirt, trousers = _sample_colour(rng), _sample_colour(rng)
    return _Look(
        skin=skin,
        hair=hair,
        shirt=shirt,
        sleeve=shirt if rng.random() < 0.5 else skin,
        trousers=trousers,
        shin=trousers if rng.random() < 0.6 else skin,
        shoe=_sample_colour(rng),
        eye=_scale_colour(skin, 0.2),
    )


def _articulate(pose: _Pose, build: _Build) -> _Figure:
    """Return the figure of a pose, with the middle of the hips at the origin."""
    outward = np.array([1.0, -1.0])
    torso = _rotation((0, 1), pose.lean[1]) @ _rotation((2, 1), pose.lean[0])
    head_turn = (
        torso
        @ _rotation((0, 1), pose.head[2])
        @ _rotation((2, 1), pose.head[1])
        @ _rotation((2, 0), pose.head[0])
    )
    joints = np.zeros((len(COCO.names), 3))

    shoulders = np.zeros((2, 3))
    shoulders[:, 0] = outward * build.shoulder
    shoulders[:, 1] = -1.0
    upper_arms = _swing(pose.arms[:, 0], pose.arms[:, 1])
    forearms = _bend(upper_arms, pose.elbow_plane * (outward[0], -1, 1), pose.arms[:, 2])
    for directions in (upper_arms, forearms):
        directions[:, 0] *= outward
    elbows = shoulders + build.upper_arm * upper_arms
    wrists = elbows + build.forearm * forearms
    joints[5:7] = shoulders @ torso.T
    joints[7:9] = elbows @ torso.T
    joints[9:11] = wrists @ torso.T

    thighs = _swing(pose.legs[:, 0], pose.legs[:, 1])
    shins = _swing(pose.legs[:, 0], pose.legs[:, 1] - pose.legs[:, 2])
    for directions in (thighs, shins):
        directions[:, 0] *= outward
    joints[11:13, 0] = outward * build.hip
    joints[13:15] = joints[11:13] + build.thigh * thighs
    joints[15:17] = joints[13:15] + build.shin * shins

    neck_top = np.array([0.0, -1.0 - build.neck, 0.0]) @ torso.T
    head = neck_top + build.head * (head_turn @ (0.0, -1.0, 0.0))
    face = _HEAD_DIRECTIONS @ head_turn.T
    joints[:5] = head + build.head * face[:5]

    view = _rotation((0, 1), pose.roll) @ _rotation((2, 1), pose.pitch)
    view = view @ _rotation((2, 0), pose.yaw)
    return _Figure(joints @ view.T, view @ head, face @ view.T, build, 1.0)


def _rotation(axes: tuple[int, int], degrees: float) -> np.ndarray:
    """Return the matrix (3, 3) that turns the first of two axes towards the second."""
    matrix = np.eye(3)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = axes
    matrix[first, first] = matrix[second, second] = cosine
    matrix[second, first], matrix[first, second] = sine, -sine
    return matrix


def _swing(abduction: np.ndarray, flexion: np.ndarray) -> np.ndarray:
    """Return unit directions (2, 3) of two hanging limbs swung outwards (+x) and forwards."""
    abduction, flexion = np.radians(abduction), np.radians(flexion)
    down = np.cos(abduction)
    # A raised arm still flexes to the front, hence the absolute value.
    return np.stack(
        [np.sin(abduction), down * np.cos(flexion), np.abs(down) * np.sin(flexion)], axis=1
    )


def _bend(directions: np.ndarray, towards: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Return unit directions (2, 3) turned by an angle into the half-plane of `towards`."""
    across = towards - (towards * directions).sum(1, keepdims=True) * directions
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    angle = np.radians(degrees)[:, None]
    bent: np.ndarray = np.cos(angle) * directions + np.sin(angle) * across
    return bent


def _place(rng: np.random.Generator, figure: _Figure, size: tuple[int, int]) -> _Figure:
    """Scale and shift a figure as a top-down crop with an inexact box would show it."""
    margin = 0.12 * figure.build.girth
    head_low, head_high = (figure.head[:2] + sign * figure.build.head for sign in (-1, 1))
    low = np.minimum(figure.joints[:, :2].min(0) - margin, head_low)
    high = np.maximum(figure.joints[:, :2].max(0) + margin, head_high)
    shape = np.array(size[::-1], float)
    scale = (shape / (high - low)).min() / _BOX_PADDING * rng.uniform(1.1, 1.3)
    centre = (shape - 1) / 2 + shape * rng.uniform(-0.08, 0.08, 2)
    return _transform(figure, scale, centre - scale * (low + high) / 2)


def _transform(figure: _Figure, scale: float, shift: np.ndarray) -> _Figure:
    """Scale a figure about the origin, then shift it by (2,) in the image plane."""
    offset = np.array([shift[0], shift[1], 0.0])
    return _Figure(
        figure.joints * scale + offset,
        figure.head * scale + offset,
        figure.face,
        figure.build,
        figure.scale * scale,
    )


# ------------------------------------------------------------------------- shapes of the person


def _body_parts(figure: _Figure, look: _Look) -> list[_Part]:
    """Return a person's parts from the farthest to the nearest."""
    parts = [_torso_part(figure, look), _neck_part(figure, look), _head_part(figure, look)]
    for side in (0, 1):
        parts.extend(_arm_parts(figure, look, side))
        parts.extend(_leg_parts(figure, look, side))
    return sorted(parts, key=lambda part: part.depth)


def _torso_part(figure: _Figure, look: _Look) -> _Part:
    corners = figure.joints[[5, 6, 11, 12]]
    shape = _hull(figure, corners, (0.13, 0.13, 0.16, 0.16), look.shirt)
    return _Part(_TORSO, corners[:, 2].mean(), (shape,))


def _neck_part(figure: _Figure, look: _Look) -> _Part:
    ends = np.stack([figure.joints[5:7].mean(0), figure.head])
    # Torso and head cover the ends of the neck from the front and from the back.
    torso_depth = figure.joints[[5, 6, 11, 12], 2].mean()
    depth = min(torso_depth, figure.head[2]) - 0.03 * figure.scale
    return _Part(_NECK, depth, (_hull(figure, ends, (0.1, 0.1), look.skin),))


def _head_part(figure: _Figure, look: _Look) -> _Part:
    radius = figure.build.head * figure.scale
    shapes = [_disc(figure.head, radius - _edge(figure), look.hair, _edge(figure))]
    shapes.extend(_face_shapes(figure, look))
    # Hands may pass in front of the head, but a shoulder does not.
    return _Part(_HEAD, figure.head[2] + 0.1 * figure.scale, tuple(shapes))


def _face_shapes(figure: _Figure, look: _Look) -> list[_Shape]:
    """Return face, ears, eyes and nose as far as they are on the near side of the head."""
    radius = figure.build.head * figure.scale
    shapes = []
    rim = _cap_rim(figure.face[5])
    if rim[:, 2].max() > 0:
        # Where the face reaches round the head it ends at the head's outline.
        reach = np.where(rim[:, 2] > 0, 1.0, 1.0 / np.linalg.norm(rim[:, :2], axis=1))
        edge = figure.head[:2] + (radius - _edge(figure)) * reach[:, None] * rim[:, :2]
        shapes.append(_Shape(edge, np.zeros(len(edge)), look.skin))
    shown = _shown_on_head(figure)
    details = (
        (3, 0.2, look.skin),
        (4, 0.2, look.skin),
        (1, 0.2, look.eye),
        (2, 0.2, look.eye),
        (0, 0.2, _scale_colour(look.skin, 0.5)),
    )
    for joint, share, colour in details:
        if shown[joint]:
            shapes.append(_disc(figure.joints[joint], share * radius, colour))
    return shapes


def _cap_rim(axis: np.ndarray) -> np.ndarray:
    """Return the rim (K, 3) of the face, a cap of the unit sphere around a direction (3,)."""
    helper = np.array([0.0, 1.0, 0.0]) if abs(axis[1]) < 0.8 else np.array([1.0, 0.0, 0.0])
    first = np.cross(axis, helper)
    first /= np.linalg.norm(first)
    basis = np.stack([first, np.cross(axis, first)])
    middle, around = np.cos(_FACE_HALF_ANGLE) * axis, np.sin(_FACE_HALF_ANGLE) * basis
    rim: np.ndarray = middle + _CIRCLE @ around
    return rim


def _shown_on_head(figure: _Figure) -> np.ndarray:
    """Return which of nose, eyes and ears the head itself does not hide (5,)."""
    # Ears stand off from the head and show even when turned slightly away.
    return figure.face[:5, 2] > np.array([0.0, 0.05, 0.05, -0.3, -0.3])


def _arm_parts(figure: _Figure, look: _Look, side: int) -> tuple[_Part, _Part]:
    shoulder, elbow, wrist = figure.joints[[5 + side, 7 + side, 9 + side]]
    hand = wrist + 0.1 * figure.scale * _unit(wrist - elbow)
    upper = _hull(figure, np.stack([shoulder, elbow]), (0.12, 0.1), look.shirt)
    lower = _hull(figure, np.stack([elbow, wrist]), (0.095, 0.075), look.sleeve)
    palm = _hull(figure, np.stack([wrist, hand]), (0.075, 0.08), look.skin)
    # Arms at the sides lie over the torso; the forearm lies over the upper arm's end.
    lift = 0.1 * figure.scale
    return (
        _Part(_UPPER_ARM[side], (shoulder[2] + elbow[2]) / 2 + lift, (upper,)),
        _Part(_FOREARM[side], (elbow[2] + wrist[2]) / 2 + 1.5 * lift, (palm, lower)),
    )


def _leg_parts(figure: _Figure, look: _Look, side: int) -> tuple[_Part, _Part]:
    hip, knee, ankle = figure.joints[[11 + side, 13 + side, 15 + side]]
    foot = ankle + 0.08 * figure.scale * _unit(ankle - knee)
    upper = _hull(figure, np.stack([hip, knee]), (0.16, 0.12), look.trousers)
    lower = _hull(figure, np.stack([knee, ankle]), (0.115, 0.085), look.shin)
    shoe = _hull(figure, np.stack([ankle, foot]), (0.09, 0.12), look.shoe)
    # The shirt hangs over the trousers unless a thigh clearly points at the viewer.
    drop = 0.1 * figure.scale
    return (
        _Part(_THIGH[side], (hip[2] + knee[2]) / 2 - drop, (upper,)),
        _Part(_SHIN[side], (knee[2] + ankle[2]) / 2 - drop, (shoe, lower)),
    )


def _hull(figure: _Figure, centres: np.ndarray, radii: tuple[float, ...], colour: Colour) -> _Shape:
    """Return a rimmed hull around places (C, 3) with radii in units of the torso's length."""
    edge = _edge(figure)
    pixels = np.array(radii) * figure.build.girth * figure.scale - edge
    return _Shape(centres[:, :2], pixels, colour, edge)


def _disc(centre: np.ndarray, radius: float, colour: Colour, edge: float = 0.0) -> _Shape:
    return _Shape(centre[None, :2], np.array([radius]), colour, edge)


def _edge(figure: _Figure) -> float:
    return 0.025 * figure.scale


def _unit(vector: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vector / np.linalg.norm(vector)
    return unit


# ----------------------------------------------------------------------------------- the scene


def _paint_background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Return a supersampled picture of soft blotches, shapes and lines."""
    height, width = (_SUPERSAMPLING * length for length in size)
    cells = rng.integers(2, 9)
    middle, spread = rng.integers(90, 166, 3), rng.uniform(5, 30)
    blotches = np.clip(rng.normal(middle, spread, (cells, cells, 3)), 0, 255)
    picture = Image.fromarray(blotches.astype(np.uint8)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.2:
        _paint_stripes(rng, draw, picture.size, _sample_colour_near(rng, middle))
    for _ in range(rng.integers(2, 7)):
        _paint_clutter(rng, draw, picture.size, _sample_colour_near(rng, middle))
    return picture


def _paint_stripes(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, extent: tuple[int, int], colour: Colour
) -> None:
    """Paint parallel lines over the whole picture, like a fence or a tiled wall."""
    reach = sum(extent)
    pitch = rng.uniform(0.08, 0.25) * extent[1]
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    thickness = int(pitch * rng.uniform(0.1, 0.6)) + 1
    middle = np.array(extent) / 2
    for step in range(int(-reach / 2 / pitch), int(reach / 2 / pitch) + 1):
        point = middle + step * pitch * across
        ends = np.rint([point - reach * along, point + reach * along])
        draw.line(ends.ravel().tolist(), fill=colour, width=thickness)


def _paint_clutter(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, extent: tuple[int, int], colour: Colour
) -> None:
    """Paint one disc, polygon or line somewhere."""
    centre = rng.uniform(0, 1, 2) * extent
    radii = rng.uniform(0.05, 0.25, 2) * min(extent)
    kind = rng.integers(3)
    if kind == 0:
        draw.ellipse((*(centre - radii), *(centre + radii)), fill=colour)
    elif kind == 1:
        corners = centre + rng.normal(0, 1, (rng.integers(3, 6), 2)) * radii
        draw.polygon(np.rint(corners).ravel().tolist(), fill=colour)
    else:
        ends = centre + rng.normal(0, 2, (2, 2)) * radii
        draw.line(np.rint(ends).ravel().tolist(), fill=colour, width=int(rng.integers(2, 14)))


def _sample_distractors(
    rng: np.random.Generator, figure: _Figure, look: _Look, size: tuple[int, int]
) -> list[_Shape]:
    """Draw what lies behind the person: other people's bodies and loose limbs."""
    shapes: list[_Shape] = []
    if rng.random() < 0.15:
        shapes.extend(_sample_bystander(rng, figure, size))
    for _ in range(rng.integers(0, 2)):
        shapes.extend(_sample_loose_limb(rng, figure.scale, _any_look(rng, look), size))
    return shapes


def _sample_bystander(
    rng: np.random.Generator, figure: _Figure, size: tuple[int, int]
) -> list[_Shape]:
    """Draw another person of about the same height who stands mostly outside the image."""
    extent = np.array(size[::-1], float)
    other = _articulate(_sample_pose(rng), _sample_build(rng))
    aside = rng.choice((-1, 1)) * rng.uniform(0.5, 0.65)
    centre = (extent - 1) / 2 + extent * (aside, rng.uniform(-0.2, 0.2))
    other = _transform(other, figure.scale * rng.uniform(0.7, 1.1), centre)
    return [shape for part in _body_parts(other, _sample_look(rng)) for shape in part.shapes]


def _sample_loose_limb(
    rng: np.random.Generator, scale: float, look: _Look, size: tuple[int, int]
) -> list[_Shape]:
    """Draw an arm or a leg without a body, painted as those of a person are."""
    build = _sample_build(rng)
    limb = _articulate(_sample_pose(rng), build)
    limb = _transform(limb, scale * rng.uniform(0.8, 1.2), np.zeros(2))
    make, joint = ((_arm_parts, 7), (_leg_parts, 13))[rng.integers(2)]
    target = rng.uniform(0, 1, 2) * size[::-1]
    side = int(rng.integers(2))
    limb = _transform(limb, 1.0, target - limb.joints[joint + side, :2])
    return [shape for part in make(limb, look, side) for shape in part.shapes]


def _any_look(rng: np.random.Generator, look: _Look) -> _Look:
    """Return the person's own look or, as often, somebody else's."""
    return look if rng.random() < 0.5 else _sample_look(rng)


def _sample_occluders(
    rng: np.random.Generator, figure: _Figure, look: _Look, size: tuple[int, int]
) -> list[_Shape]:
    """Draw what lies in front of the person: things and sometimes a loose limb."""
    shapes: list[_Shape] = []
    for _ in range(rng.choice(3, p=(0.65, 0.3, 0.05))):
        shapes.append(_sample_thing(rng, size))
    if rng.random() < 0.05:
        shapes.extend(_sample_loose_limb(rng, figure.scale, _any_look(rng, look), size))
    return shapes


def _sample_thing(rng: np.random.Generator, size: tuple[int, int]) -> _Shape:
    """Draw a rounded bar or polygon that covers a small share of the image."""
    extent = float(min(size))
    centre = rng.uniform(0, 1, 2) * size[::-1]
    corners = centre + rng.normal(0, 0.09, (rng.integers(2, 5), 2)) * extent
    radii = np.full(len(corners), rng.uniform(0.02, 0.07) * extent)
    return _Shape(corners, radii, _sample_colour(rng), 0.008 * extent)


def _take_photo(
    rng: np.random.Generator, picture: Image.Image, size: tuple[int, int]
) -> np.ndarray:
    """Return a supersampled picture as an image (H, W, 3) with blur, changed contrast and noise."""
    picture = picture.reduce(_SUPERSAMPLING)
    blur = rng.uniform(0, 0.8) * min(size) / 64
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    image = np.asarray(picture, np.float32)
    contrast, brightness = rng.uniform(0.7, 1.15), rng.uniform(-25, 25)
    image = (image - 127.5) * np.float32(contrast) + np.float32(127.5 + brightness)
    grain = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0, 8))
    return np.clip(np.rint(image + grain), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------------------- annotations


def _silhouette(parts: Image.Image) -> tuple[float, np.ndarray]:
    """Return area and box (4,) in pixels of the image of what a part map holds."""
    labels = np.asarray(parts)
    extent = parts.getbbox()
    assert extent is not None, "a person is always placed inside its image"
    left, top, right, bottom = extent
    box = np.array([left, top, right - left, bottom - top]) / _SUPERSAMPLING
    # A pixel's area begins half a pixel before its centre.
    box[:2] -= 0.5
    return np.count_nonzero(labels) / _SUPERSAMPLING**2, box


def _visibility(canvas: _Canvas, figure: _Figure, size: tuple[int, int]) -> np.ndarray:
    """Return COCO's visibility (17,) of a figure's keypoints on its finished canvas."""
    places, depths = figure.joints[:, :2], figure.joints[:, 2]
    last = np.array(size[::-1]) - 1
    inside = np.all((places >= 0) & (places <= last), axis=1)
    near_side = depths > depths[list(_ON_TORSO)].mean() - 0.18 * figure.scale
    on_near_head = _shown_on_head(figure)
    flags = np.where(inside, 1, 0)
    for joint, label in enumerate(canvas.labels_at(np.clip(places, 0, last)).tolist()):
        shown = label in _OWNERS[joint] and (joint >= 5 or on_near_head[joint])
        shown |= label == _TORSO and joint in _ON_TORSO and near_side[joint]
        if inside[joint] and shown:
            flags[joint] = 2
    return flags


# ------------------------------------------------------------------------ geometry and colours


def _corners(centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the corners (K, 2) of the hull of discs, one for each direction of the circle."""
    # In each direction the hull reaches as far as the disc that reaches farthest.
    farthest = (centres @ _CIRCLE.T + radii[:, None]).argmax(0)
    corners: np.ndarray = centres[farthest] + radii[farthest, None] * _CIRCLE
    return corners


def _polygon(corners: np.ndarray) -> list[int]:
    """Return corners (K, 2) in the image as Pillow wants them on the canvas."""
    return _to_canvas(corners).ravel().tolist()


def _to_canvas(places: np.ndarray) -> np.ndarray:
    """Return the canvas pixels that contain places of the image; both count from 0."""
    # The centre of pixel 0 is half a pixel from the image's edge. Places become integers here
    # because Pillow would round negative ones the other way.
    return np.floor((places + 0.5) * _SUPERSAMPLING).astype(int)


def _sample_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _sample_colour_near(rng: np.random.Generator, middle: np.ndarray) -> Colour:
    red, green, blue = np.clip(rng.normal(middle, 32), 0, 255).astype(int).tolist()
    return red, green, blue


def _sample_skin(rng: np.random.Generator) -> Colour:
    light, dark = np.array([245.0, 210.0, 180.0]), np.array([85.0, 55.0, 40.0])
    mixed = light + rng.random() * (dark - light) + rng.uniform(-12, 12, 3)
    red, green, blue = np.clip(mixed, 0, 255).astype(int).tolist()
    return red, green, blue


def _scale_colour(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(channel * factor) for channel in colour)
    return red, green, blue


def _luminance(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
