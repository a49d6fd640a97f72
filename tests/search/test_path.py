"""Ways from a default to a winner; their order and gains are worked out by hand."""

import itertools

import pytest
from searching import SMALL, searching

from hrnet_search.search.additive import fit
from hrnet_search.search.path import ablation_path, default_params

GAINS = {
    "width": {2: 0.0, 4: 0.10, 6: 0.20, 8: 0.30},
    "num_blocks": {1: 0.0, 2: 0.05},
    "final": {False: 0.0, True: 0.15},
    "stage1_width": {4: 0.0, 6: -0.01, 8: -0.02, 10: -0.03},
}
STUDY = searching()
GRID = list(STUDY.space.params())
START = {"width": 2, "num_blocks": 1, "final": False, "stage1_width": 4}
GOAL = {"width": 8, "num_blocks": 2, "final": True, "stage1_width": 10}


def added(params):
    return 0.3 + sum(GAINS[name][value] for name, value in params.items())


def measured(networks, score=added):
    return {STUDY.network(params).key: score(params) for params in networks}


def way(networks, score=added, *, start=START, goal=GOAL, model=None, maximize=True):
    return ablation_path(
        STUDY,
        start,
        goal,
        measured=measured(networks, score),
        model=model,
        maximize=maximize,
    )


def gains(steps):
    return [b.value - a.value for a, b in itertools.pairwise(steps)]


def test_where_all_was_trained_gains_are_exact():
    steps = way(GRID)
    names = [step.knobs for step in steps]
    assert names == [(), ("width",), ("final",), ("num_blocks",), ("stage1_width",)]
    assert gains(steps) == pytest.approx([0.30, 0.15, 0.05, -0.03])
    assert sum(gains(steps)) == pytest.approx(added(GOAL) - added(START))
    assert {step.kind for step in steps} == {"measured"}
    assert (steps[0].params, steps[-1].params) == (START, GOAL)


def test_predictions_of_a_sum_are_exact_too():
    trained = [START, GOAL, *GRID[1:60:2]]
    model = fit(trained, [added(params) for params in trained])
    steps = way(trained, model=model)
    assert gains(steps) == pytest.approx([0.30, 0.15, 0.05, -0.03])
    kinds = [step.kind for step in steps]
    assert (kinds[0], kinds[-1]) == ("measured", "measured")
    assert "predicted" in kinds
    known = measured(trained)
    assert all((step.kind == "measured") == (step.key in known) for step in steps)


def test_where_less_is_better_the_order_turns():
    steps = way(GRID, maximize=False)
    names = [step.knobs[0] for step in steps[1:]]
    assert names == ["stage1_width", "num_blocks", "final", "width"]


def test_an_interaction_is_seen_when_its_turn_comes():
    """`final` costs 0.1 alone, and brings 0.2 beside two blocks."""

    def score(params):
        both = params["final"] and params["num_blocks"] == 2
        return 0.5 + 0.3 * both - 0.1 * params["final"] + 0.01 * (params["num_blocks"] == 2)

    goal = {**START, "num_blocks": 2, "final": True}
    steps = way(GRID, score, goal=goal)
    assert [step.knobs for step in steps] == [(), ("num_blocks",), ("final",)]
    assert gains(steps) == pytest.approx([0.01, 0.2])


def test_of_equal_gains_the_first_knob_goes_first():
    names = [step.knobs for step in way(GRID, lambda _: 0.5)]
    assert names == [(), *((name,) for name in SMALL["vary"])]


def test_what_is_not_known_is_changed_together():
    between = {**START, "final": True}
    steps = way([START, between, GOAL])
    assert [step.knobs for step in steps] == [
        (),
        ("final",),
        ("width", "num_blocks", "stage1_width"),
    ]
    assert gains(steps) == pytest.approx([0.15, 0.32])


def test_without_a_value_of_the_default_there_is_no_way():
    assert way([GOAL]) == []
    (only,) = way([GOAL], start=GOAL)
    assert only.knobs == ()


def test_a_knob_that_does_nothing_here_needs_no_training():
    """Without the lower branches' outputs their edges are the same network."""
    base = {**SMALL["base"], "task": "pose"}
    space = {
        "base": {**base, "width": 4, "within": False, "across": False},
        "vary": {"edges": {"choices": ["all", "neighbours"]}, "num_blocks": {"choices": [1, 2]}},
    }
    study = searching(space=space)
    start, goal = {"edges": "all", "num_blocks": 1}, {"edges": "neighbours", "num_blocks": 2}
    found = {study.network(params).key: value for params, value in ((start, 0.4), (goal, 0.6))}
    same = study.network({**start, "edges": "neighbours"}).key == study.network(start).key
    assert same
    steps = ablation_path(study, start, goal, measured=found, model=None, maximize=True)
    assert gains(steps) == pytest.approx([0.2, 0.0])
    assert {step.kind for step in steps} == {"measured"}


def test_the_default_is_where_the_search_started():
    study = searching(start=[{"width": 6, "final": True}])
    drawn = {"width": 6, "num_blocks": 2, "final": True, "stage1_width": 8}
    assert default_params(study, [GOAL, drawn]) == drawn
    # Without a network that has them, what is open is the first value, or hrnet's own.
    filled = {"width": 6, "num_blocks": 1, "final": True, "stage1_width": 4}
    assert default_params(study, [GOAL]) == filled


def test_without_a_start_the_default_is_that_of_hrnet():
    vary = {
        "width": {"choices": [18, 32, 48]},
        "stage1_width": {"choices": [16, 32]},
        "size": {"arms": {"other": {"num_stages": 3}, "own": {"num_stages": 4}}},
    }
    study = searching(space={"base": {"num_blocks": 1}, "vary": vary})
    found = default_params(study, [])
    assert found == {"width": 32, "stage1_width": 16, "size": "own"}
