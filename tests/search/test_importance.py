"""Importances of knobs whose effects are known."""

import random

import pytest

from hrnet_search.search.importance import LEAST, importances
from hrnet_search.space import Space

SPACE = Space.model_validate(
    {
        "vary": {
            "width": {"low": 8, "high": 32, "step": 8},
            "within": {"choices": [True, False]},
            "stage1_width": {"choices": [16, 32, 64]},
            "final": {"choices": [True, False]},
        }
    }
)


def drawn(number, *, seed=0):
    draws = SPACE.draws(random.Random(seed))
    return [next(draws) for _ in range(number)]


def score(params):
    """Two knobs out of four: variances 0.1^2 * (4^2 - 1) / 12 = 0.0125, and 0.2^2 / 4 = 0.01."""
    return 0.1 * params["width"] / 8 + 0.2 * params["within"]


def test_the_knobs_of_the_formula_come_first():
    networks = drawn(60)
    found = importances(SPACE, networks, [score(p) for p in networks], maximize=True)
    assert {one.knob for one in found[:2]} == {"width", "within"}
    assert {one.knob for one in found if one.is_clear} == {"width", "within"}
    assert sum(one.share for one in found) == pytest.approx(1)
    named = {one.knob: one for one in found}
    assert named["width"].effect == pytest.approx(0.0125 / 0.0225)
    assert named["within"].effect == pytest.approx(0.01 / 0.0225)
    for name in ("stage1_width", "final"):
        assert named[name].share < 0.1
        assert named[name].effect == pytest.approx(0, abs=1e-12)


def test_the_same_networks_give_the_same_numbers():
    networks = drawn(LEAST)
    values = [score(p) for p in networks]
    first = importances(SPACE, networks, values, maximize=True)
    assert first == importances(SPACE, networks, values, maximize=True)
    # Less is better of the negative: the same question.
    assert first == importances(SPACE, networks, [-v for v in values], maximize=False)


def test_which_way_is_better_matters():
    """What the best have in common is not what the worst have in common."""
    networks = drawn(60)
    values = [float(p["width"] == 32) - 0.01 * p["final"] for p in networks]
    up = importances(SPACE, networks, values, maximize=True)
    down = importances(SPACE, networks, values, maximize=False)
    assert [one.share for one in up] != [one.share for one in down]


@pytest.mark.parametrize("seed", range(3))
def test_of_noise_nothing_is_clear(seed):
    rng = random.Random(seed)
    networks = drawn(40, seed=seed)
    found = importances(SPACE, networks, [rng.random() for _ in networks], maximize=True)
    assert len(found) == 4
    assert not [one.knob for one in found if one.is_clear]


def test_too_few_networks_and_equal_values_have_none():
    networks = drawn(LEAST)
    values = [score(p) for p in networks]
    assert len(importances(SPACE, networks, values, maximize=True)) == 4
    assert importances(SPACE, networks[1:], values[1:], maximize=True) == []
    assert importances(SPACE, networks, [0.5] * LEAST, maximize=True) == []


def test_a_knob_that_stands_still_has_no_effect():
    networks = [{**p, "final": True} for p in drawn(40)]
    found = {
        one.knob: one
        for one in importances(SPACE, networks, [score(p) for p in networks], maximize=True)
    }
    assert found["final"].effect == 0
    assert not found["final"].is_clear


def test_knobs_that_change_together_have_no_second_opinion():
    networks = [{**p, "final": p["within"]} for p in drawn(40)]
    found = importances(SPACE, networks, [score(p) for p in networks], maximize=True)
    assert {one.effect for one in found} == {None}
    assert not any(one.is_clear for one in found)


def test_lists_are_values_too():
    space = Space.model_validate(
        {
            "vary": {
                "num_modules": {"choices": [[1, 1, 1], [1, 4, 3]]},
                "size": {"arms": {"small": {"width": 18}, "large": {"width": 32}}},
            }
        }
    )
    networks = list(space.params()) * 5
    values = [float(p["size"] == "large") for p in networks]
    found = importances(space, networks, values, maximize=True)
    assert [one.knob for one in found] == ["size", "num_modules"]
    assert [one.is_clear for one in found] == [True, False]
