"""Who is behind at a rung: what successive halving and the median say, worked out by hand."""

import itertools
from typing import Any

import pytest
from searching import STEPS, searching

from hrnet_search.result import Result
from hrnet_search.search.rungs import Rungs


def rungs(**search: Any) -> Rungs:
    return Rungs(searching(scheduler=search.pop("scheduler", "asha"), **search), STEPS)


def point(evaluation: int, ap: float) -> dict[str, float]:
    return {"step": 2 * evaluation, "loss": 1.0, "ap": ap}


def ask(made: Rungs, number: int, evaluation: int, ap: float, **other: Any) -> bool:
    given = {"cost": 1e6, "seed": 0, **other}
    return made.is_behind(number, point(evaluation, ap), **given)


def test_of_three_at_a_rung_the_best_goes_on() -> None:
    """Asynchronous: each is judged when it comes, by those that were there before."""
    made = rungs()
    values = [0.5, 0.4, 0.6, 0.3, 0.7, 0.55]
    # Best third of those so far, rounded down but at least one: 1 of 1, 1 of 2, 1 of 3, 1 of 4,
    # 1 of 5, 2 of 6.
    behind = [ask(made, number, 1, ap) for number, ap in enumerate(values)]
    assert behind == [False, True, False, True, False, True]


def test_rungs_lie_at_the_first_evaluation_times_powers_of_the_reduction() -> None:
    made = rungs(first_rung=2, reduction=2)
    for number, ap in ((0, 0.9), (1, 0.1)):
        asked = [ask(made, number, evaluation, ap) for evaluation in range(1, 5)]
        assert asked == [False, number == 1, False, number == 1]


def test_nothing_is_stopped_at_the_end_or_where_nothing_was_measured() -> None:
    made = rungs(reduction=9)
    for number, ap in ((0, 0.9), (1, 0.1)):
        assert not ask(made, number, 9, ap)
    assert not made.is_behind(2, {"step": 2, "loss": 1.0}, cost=1e6, seed=0)


def test_networks_of_other_cost_or_seed_are_not_compared() -> None:
    made = rungs(cost_bin=2.0)
    assert not ask(made, 0, 1, 0.9, cost=1000)  # bin 9: 512 to 1024
    assert ask(made, 1, 1, 0.1, cost=600)
    assert not ask(made, 2, 1, 0.1, cost=1100)
    assert not ask(made, 3, 1, 0.05, cost=300)
    assert not ask(made, 4, 1, 0.1, cost=1000, seed=1)


def test_without_cost_as_an_objective_all_are_compared() -> None:
    study = searching(scheduler="asha")
    alone = study.model_copy(update={"objectives": ["metrics.ap"]})
    made = Rungs(alone, STEPS)
    assert not ask(made, 0, 1, 0.9, cost=1000)
    assert ask(made, 1, 1, 0.1, cost=1)


def test_below_the_median_of_five_that_are_complete() -> None:
    made = rungs(scheduler="median")
    for number, ap in enumerate([0.1, 0.2, 0.3, 0.4, 0.5]):
        made.end(result(number, ap, "complete", 9))
    assert ask(made, 5, 1, 0.29)
    assert not ask(made, 6, 1, 0.31)


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_what_was_decided_stands_and_histories_tell_the_rest(scheduler: str) -> None:
    values = [0.5, 0.4, 0.6, 0.3, 0.7, 0.55, 0.2, 0.65]
    live, ended = rungs(scheduler=scheduler), []
    for number, ap in enumerate(values):
        points = []
        for evaluation in range(1, 10):
            points.append(point(evaluation, ap))
            if ask(live, number, evaluation, ap):
                assert ask(live, number, evaluation, ap), "asked again"
                break
        state = "complete" if len(points) == 9 else "pruned"
        ended.append(result(number, ap, state, len(points)))
        live.end(ended[-1])
    again = rungs(scheduler=scheduler)
    for each in ended:
        again.end(each)
    for ap, evaluation in itertools.product((0.1, 0.45, 0.9), (1, 3)):
        number = 100 + int(100 * ap) + evaluation
        assert ask(again, number, evaluation, ap) == ask(live, number, evaluation, ap)


def result(number: int, ap: float, state: str, evaluations: int) -> Result:
    return Result(
        study="s", trial=number, state=state, arm="a", params={}, seed=0, key="k", arch={},
        profile={"macs": 1e6}, metrics={"ap": ap} if state == "complete" else {},
        history=[point(n, ap) for n in range(1, evaluations + 1)], seconds=1.0, attempt=1,
        started="",
    )  # fmt: skip


def test_what_a_training_has_passed_it_stays_past() -> None:
    made = rungs(reduction=2)
    for number in range(4):
        ask(made, number, 1, 0.9)
    made.passed(4, [point(1, 0.1), point(2, 0.1)], cost=1e6, seed=0)
    assert not ask(made, 4, 1, 0.1)
    assert ask(made, 5, 1, 0.1), "one that has not passed"
