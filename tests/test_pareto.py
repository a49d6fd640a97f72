"""Fronts and hypervolumes by closed forms, by brute force, and by Optuna."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from hrnet_search.pareto import front, hypervolume, hypervolumes


def clouds(dimensions, most=12):
    """Points on a coarse grid, so that many are equal in some coordinate or in all."""
    point = st.tuples(*[st.integers(-3, 3).map(float)] * dimensions)
    return st.lists(point, max_size=most)


def is_beaten(p, points):
    return any(all(map(float.__le__, q, p)) and q != p for q in points)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], []),
        ([[1.0]], [True]),
        ([[2.0], [1.0], [1.0]], [False, True, True]),
        ([[1, 3], [2, 2], [3, 1], [3, 3]], [True, True, True, False]),
        ([[1, 1], [1, 1], [1, 2], [2, 1]], [True, True, False, False]),
        ([[0.0, 1.0], [-0.0, 1.0]], [True, True]),
        ([[1, 1, 2], [1, 2, 1], [1, 1, 1]], [False, False, True]),
        ([[math.inf, 0.0], [0.0, math.inf], [math.inf, math.inf]], [True, True, False]),
    ],
)
def test_front(points, expected):
    assert front(points) == expected


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_front_equals_brute_force(dimensions):
    @given(clouds(dimensions))
    def check(points):
        assert front(points) == [not is_beaten(p, points) for p in points]

    check()


def test_front_of_many_points():
    # A falling line, on which none beats another, and the same shifted up: all are beaten.
    x = np.arange(10_000.0)
    assert front(np.column_stack([x, -x])) == [True] * 10_000
    both = np.concatenate([np.column_stack([x, -x]), np.column_stack([x, 0.5 - x])])
    assert front(both) == [True] * 10_000 + [False] * 10_000


@pytest.mark.parametrize(
    ("points", "reference", "expected"),
    [
        ([], [1.0, 1.0], 0.0),
        ([[3.0], [1.5], [7.0]], [5.0], 3.5),
        ([[5.0], [6.0]], [5.0], 0.0),
        ([[1, 1]], [3, 4], 6.0),
        ([[1, 1], [1, 1], [2, 2]], [3, 4], 6.0),  # equal and beaten points add nothing
        ([[0, 2], [1, 1], [2, 0]], [3, 3], 6.0),  # a staircase: 1 + 2 + 3
        ([[-9, 5], [5, -9], [1, 1]], [3, 3], 4.0),  # beyond in one coordinate
        ([[3, 0], [0, 3]], [3, 3], 0.0),  # on the border
        ([[-2, -2]], [-1, -1], 1.0),
    ],
)
def test_hypervolume(points, reference, expected):
    assert hypervolume(points, reference) == expected


@pytest.mark.parametrize("dimensions", [1, 2])
def test_hypervolumes_are_those_of_the_first_points(dimensions):
    @given(clouds(dimensions))
    def check(points):
        corner = [2.0] * dimensions
        expected = [hypervolume(points[: n + 1], corner) for n in range(len(points))]
        assert hypervolumes(points, corner) == expected

    check()


@given(clouds(2))
def test_hypervolume_counts_unit_squares(points):
    # Each unit square below the reference counts if a point lies at or below its lower corner.
    squares = itertools.product(range(-3, 2), repeat=2)
    covered = sum(any(p[0] <= x and p[1] <= y for p in points) for x, y in squares)
    assert hypervolume(points, [2.0, 2.0]) == covered


@given(clouds(1))
def test_hypervolume_of_one_coordinate(points):
    lowest = min((p[0] for p in points), default=2.0)
    assert hypervolume(points, [2.0]) == max(0.0, 2.0 - lowest)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_hypervolume_is_optunas(dimensions):
    points = np.random.default_rng(0).normal(size=(200, dimensions))
    reference = np.full(dimensions, 2.5)
    inside = points[(points < reference).all(axis=1)]  # Optuna refuses the others
    expected = compute_hypervolume(inside, reference)
    assert hypervolume(points, reference) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("points", "reference", "message"),
    [
        ([[1, 2, 3]], [4, 4, 4], "one or two coordinates are wanted, not 3"),
        ([], [4, 4, 4], "one or two coordinates are wanted, not 3"),
        ([[1, 2]], [], "one or two coordinates are wanted, not 0"),
        ([[1, 2]], [4], "points have 2 coordinates, the reference 1"),
        ([[1]], [4, 4], "points have 1 coordinates, the reference 2"),
        ([[1, 2], [1]], [4, 4], "inhomogeneous"),
        ([[math.nan, 2]], [4, 4], "NaN"),
        ([[1, 2]], [math.nan, 4], "NaN"),
    ],
)
def test_hypervolume_refuses(points, reference, message):
    with pytest.raises(ValueError, match=message):
        hypervolume(points, reference)


@pytest.mark.parametrize(
    ("points", "message"),
    [([[1, 2], [1]], "inhomogeneous"), ([[math.nan, 1]], "NaN"), ([1, 2], "list of lists")],
)
def test_front_refuses(points, message):
    with pytest.raises(ValueError, match=message):
        front(points)
