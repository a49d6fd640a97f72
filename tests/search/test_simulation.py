"""Searches of a table: against what a search of all networks, and a hand, would find."""

from dataclasses import replace

import numpy as np
import pytest
from made_table import NOISE, accuracy, made_results, made_study

from hrnet_search.benchmark import Table
from hrnet_search.pareto import hypervolume, reference_point
from hrnet_search.search.simulation import Simulation, Trace
from hrnet_search.strategy import Sampler

STUDY = made_study()
TABLE = Table(STUDY, tuple(made_results(STUDY)), {})
ALL = 10_000.0  # seconds, enough for every network


def test_a_search_of_everything_finds_all_there_is() -> None:
    """Where a training tells the truth; with two seeds the front seen is not quite the true one."""
    one = Table(STUDY, tuple(result for result in TABLE.results if result.seed == 0), {})
    trace = Simulation(one).search("random", repetition=0, seconds=ALL)
    assert len(trace.keys) == len(set(trace.keys)) == 32
    assert trace.volumes[-1] == pytest.approx(1, rel=1e-12)
    assert (np.diff(trace.seconds) >= 5).all()


def test_what_was_found_is_judged_by_the_trainings_not_seen() -> None:
    """Two networks by hand. Seconds tell which seed was seen: seed 0 takes five, seed 1 six."""
    simulation = Simulation(TABLE)
    every = simulation.search("random", repetition=3, seconds=ALL)
    paid = dict(zip(every.keys, np.diff(every.seconds, prepend=0), strict=True))
    worth = {
        STUDY.key(params): [
            -accuracy(params) - (NOISE if round(paid[STUDY.key(params)]) == 5 else 0),
            STUDY.costs(params)["profile.macs"],
        ]
        for params in STUDY.arms()
    }
    corner = reference_point(list(worth.values()))
    whole = hypervolume(list(worth.values()), corner)
    trace = simulation.search("random", repetition=3, seconds=12)
    assert len(trace.keys) == 2
    for count in (1, 2):
        found = hypervolume([worth[key] for key in trace.keys[:count]], corner)
        assert trace.volumes[count - 1] == pytest.approx(found / whole, rel=1e-12)


def test_a_repetition_is_the_same_again_and_sees_what_other_samplers_see() -> None:
    simulation = Simulation(TABLE)
    one, two = (simulation.search("random", repetition=5, seconds=60) for _ in range(2))
    assert one.keys == two.keys
    assert (one.volumes == two.volumes).all()
    assert simulation.search("random", repetition=6, seconds=60).keys != one.keys
    cost = {
        sampler: dict(zip(trace.keys, np.diff(trace.seconds, prepend=0), strict=True))
        for sampler in ("random", "local")
        for trace in [simulation.search(sampler, repetition=5, seconds=ALL)]
    }
    assert cost["random"] == pytest.approx(cost["local"])  # the same seed of each network
    assert {round(seconds) for seconds in cost["random"].values()} == {5, 6}


def test_time_is_not_overdrawn() -> None:
    simulation = Simulation(TABLE)
    for seconds in (4, 5.9, 23):
        trace = simulation.search("random", repetition=1, seconds=seconds)
        assert trace.at(seconds) == (trace.volumes[-1] if trace.keys else 0)
        assert not trace.keys or trace.seconds[-1] <= seconds
        whole = simulation.search("random", repetition=1, seconds=ALL)
        assert len(trace.keys) == (whole.seconds <= seconds).sum()
    assert simulation.seconds(4) == pytest.approx(22)


def test_a_failed_training_is_paid_for_and_finds_nothing() -> None:
    lost = TABLE.results[3].key
    results = [
        replace(r, state="failed", metrics={}, seconds=100.0) if r.key == lost else r
        for r in TABLE.results
    ]
    simulation = Simulation(Table(STUDY, tuple(results), {}))
    trace = simulation.search("tpe", repetition=0, seconds=ALL)
    place = trace.keys.index(lost)
    assert len(trace.keys) == 32
    assert np.diff(trace.seconds, prepend=0)[place] == pytest.approx(100)
    assert trace.volumes[place] == (trace.volumes[place - 1] if place else 0)
    whole = Simulation(TABLE).scaling(list(STUDY.space.vary), repetition=0)
    part = simulation.scaling(list(STUDY.space.vary), repetition=0)
    assert part.seconds[-1] > whole.seconds[-1]


def test_scaling_takes_the_default_network_from_cheap_to_dear() -> None:
    simulation = Simulation(TABLE)
    trace = simulation.scaling(["width"], repetition=0)
    default = {"num_blocks": 1, "final": True, "stage1_width": 4}
    expected = [STUDY.key({"width": width, **default}) for width in (4, 6, 8, 10)]
    assert list(trace.keys) == expected
    assert len(simulation.scaling(["width", "num_blocks"], repetition=0).keys) == 8


def test_a_trace_between_its_networks() -> None:
    trace = Trace(("a", "b"), np.array([5.0, 11.0]), np.array([0.25, 0.5]))
    assert [trace.at(t) for t in (0, 4.9, 5, 10.9, 11, 99)] == [0, 0, 0.25, 0.25, 0.5, 0.5]
    assert [trace.time_to(v) for v in (0, 0.25, 0.3, 0.5, 0.6)] == [5, 5, 11, 11, np.inf]


@pytest.mark.parametrize("sampler", ["local", "tpe"])
def test_a_search_that_learns_beats_chance_where_a_knob_matters(sampler: Sampler) -> None:
    """`final` is worth more than anything: over ten repetitions most are won."""
    simulation = Simulation(TABLE)
    seconds = simulation.seconds(18)
    ahead = [
        simulation.search(sampler, repetition=n, seconds=seconds).at(seconds)
        > simulation.search("random", repetition=n, seconds=seconds).at(seconds)
        for n in range(10)
    ]
    assert sum(ahead) >= 7
