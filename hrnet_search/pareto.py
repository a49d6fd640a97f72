"""Which points no other beats, and how much they cover; smaller is better in every coordinate."""

import operator
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MARGIN = 0.1  # how far beyond the worst values a hypervolume's reference lies

Array = npt.NDArray[np.float64]


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """For each point: is there none that is as low in all coordinates and lower in one?

    Equal points are on the front together. In one or two coordinates this takes the time of
    sorting, in more up to the square of the number of points.

    Args:
        points: N points of equally many coordinates.

    Raises:
        ValueError: Points differ in length, or a coordinate is NaN.
    """
    if not len(points):
        return []
    # In lexicographic order only earlier points can beat a later one.
    distinct, places = np.unique(_array(points), axis=0, return_inverse=True)
    kept = _sweep(distinct) if distinct.shape[1] <= 2 else _walk(distinct)
    return [bool(is_kept) for is_kept in kept[places.reshape(-1)]]


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume (a length, an area) that lies between some points and the reference.

    Args:
        points: N points of one or two coordinates; those beyond the reference count nothing.
        reference: A point of as many coordinates, worse than all that should count.

    Raises:
        ValueError: There are more than two coordinates, points differ in length, or a coordinate
            is NaN.
    """
    corner = _array([reference])[0]
    if corner.size not in (1, 2):
        raise ValueError(f"one or two coordinates are wanted, not {corner.size}")
    if not len(points):
        return 0.0
    array = _array(points)
    if array.shape[1] != corner.size:
        raise ValueError(f"points have {array.shape[1]} coordinates, the reference {corner.size}")
    inside = np.unique(array[(array < corner).all(axis=1)], axis=0)
    if not inside.size:
        return 0.0
    if corner.size == 1:
        return float(corner[0] - inside[0, 0])
    steps = inside[_sweep(inside)]  # to the right and down
    above = np.concatenate([corner[1:], steps[:-1, 1]])
    return float(((corner[0] - steps[:, 0]) * (above - steps[:, 1])).sum())


def hypervolumes(points: Sequence[Sequence[float]], reference: Sequence[float]) -> list[float]:
    """The `hypervolume` of the first point, of the first two, and so on, as points come in.

    Each takes the time of the front so far, not of all points before it.

    Args:
        points: N points of one or two coordinates, in the order in which they were found.
        reference: As of `hypervolume`.
    """
    corner, volume = tuple(reference), 0.0
    kept: list[tuple[float, ...]] = []
    found = []
    for point in map(tuple, points):
        is_beaten = any(all(map(operator.le, other, point)) for other in kept)
        if not is_beaten and all(map(operator.lt, point, corner)):
            kept = [other for other in kept if not all(map(operator.le, point, other))]
            kept.append(point)
            volume = hypervolume(kept, reference)
        found.append(volume)
    return found


def reference_point(points: Sequence[Sequence[float]] | Array) -> list[float]:
    """A tenth (`MARGIN`) beyond the worst of each coordinate of some points; at least one."""
    worst = np.asarray(points, dtype=np.float64).max(axis=0)
    return [float(value) for value in worst + MARGIN * np.abs(worst)]


def _array(points: Sequence[Sequence[float]]) -> Array:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError("points must be a list of lists of equally many numbers")
    if np.isnan(array).any():
        raise ValueError("a coordinate is NaN, which is neither lower nor higher than another")
    return array


def _sweep(distinct: Array) -> npt.NDArray[np.bool_]:
    """Of distinct points in order: is the last coordinate below that of all before?"""
    last = distinct[:, 1] if distinct.shape[1] == 2 else np.zeros(len(distinct))
    lowest = np.minimum.accumulate(last)
    return np.concatenate([[True], last[1:] < lowest[:-1]])


def _walk(distinct: Array) -> npt.NDArray[np.bool_]:
    """Likewise for any number of coordinates: each is compared with the front before it."""
    kept = np.zeros(len(distinct), dtype=bool)
    for place, point in enumerate(distinct):
        kept[place] = not (distinct[:place][kept[:place]] <= point).all(axis=1).any()
    return kept
