"""Local search and evolution: one knob away from a network that did well."""

from collections.abc import Mapping

import pytest
from optuna.trial import TrialState
from searching import searching, unmeasured

from hrnet_search.pareto import front
from hrnet_search.search.neighbours import POPULATION, Kind
from hrnet_search.search.proposals import STARTUP, Proposal, Proposals
from hrnet_search.space import Value


def value(params: Mapping[str, Value]) -> float:
    """Better with each knob, and dearer with the width: a front of many networks."""
    return float(params["width"]) + params["num_blocks"] / 8 + params["stage1_width"] / 80  # type: ignore[operator, arg-type]


def search(kind: Kind, count: int) -> list[tuple[Proposal, list[float]]]:
    """The networks proposed, with what was told of each; cost and accuracy are known at once."""
    proposals = Proposals(None, searching(sampler=kind), unmeasured)
    found: list[tuple[Proposal, list[float]]] = []
    while len(found) < count and (proposal := proposals.next()):
        values = [value(proposal.params), proposals.study.costs(proposal.params)["profile.macs"]]
        proposals.tell(proposal.number, TrialState.COMPLETE, values)
        found.append((proposal, values))
    return found


def is_next_to(one: Mapping[str, Value], other: Mapping[str, Value]) -> bool:
    return dict(other) in list(searching().space.neighbours(dict(one)))


@pytest.mark.parametrize("kind", ["local", "evolution"])
def test_a_network_is_a_step_away_from_one_before(kind: Kind) -> None:
    found = search(kind, 40)
    assert len({proposal.key for proposal, _ in found}) == 40
    for place in range(STARTUP, 40):
        before = [proposal.params for proposal, _ in found[:place]]
        if kind == "evolution":
            before = before[-POPULATION:]
        assert any(is_next_to(params, found[place][0].params) for params in before)


def test_parents_of_a_local_search_are_beaten_by_none() -> None:
    found = search("local", 40)
    for place in range(STARTUP, 40):
        best = front([[-accuracy, cost] for _, (accuracy, cost) in found[:place]])
        parents = [p.params for (p, _), is_best in zip(found, best, strict=False) if is_best]
        assert any(is_next_to(params, found[place][0].params) for params in parents)


@pytest.mark.parametrize("kind", ["local", "evolution"])
def test_where_no_neighbour_is_left_it_goes_on_at_random(kind: Kind) -> None:
    found = search(kind, 200)
    assert len({proposal.key for proposal, _ in found}) == len(found) == 64
