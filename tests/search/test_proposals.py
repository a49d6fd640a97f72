"""What samplers propose: nothing infeasible, nothing twice, and the same after interruptions."""

import typing
from pathlib import Path

import pytest
from optuna.trial import TrialState
from searching import SMALL, full_space, networks, score, searching, told, unmeasured

from hrnet_search.arch import ArchSpec
from hrnet_search.result import closed_form
from hrnet_search.search.proposals import DRAWS, Proposal, Proposals
from hrnet_search.strategy import Sampler
from hrnet_search.study import Study

SAMPLERS = [sampler for sampler in typing.get_args(Sampler) if sampler != "grid"]


def take(proposals: Proposals, count: int) -> list[Proposal]:
    """So many networks, each told as soon as it was proposed."""
    found = []
    while len(found) < count and (proposal := proposals.next()):
        costs = proposals.study.costs(proposal.params)
        values = [score(proposal.key), costs["profile.macs"]]
        proposals.tell(proposal.number, TrialState.COMPLETE, values)
        found.append(proposal)
    return found


def begin(folder: Path, study: Study) -> Proposals:
    return Proposals(folder / "study.db", study, unmeasured)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_space_of_64_networks_ends_after_64(tmp_path: Path, sampler: str) -> None:
    proposals = begin(tmp_path, searching(sampler=sampler))
    found = take(proposals, 200)
    assert len({proposal.key for proposal in found}) == len(found) == 64
    assert proposals.next() is None
    count = len(proposals)
    again = begin(tmp_path, searching(sampler=sampler))
    assert (again.next(), len(again)) == (None, count)  # it is known
    assert (
        again.ended
        == proposals.ended
        == ("all 64 networks of the space that can be trained here have been proposed")
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interruption_after_every_proposal_changes_nothing(tmp_path: Path, sampler: str) -> None:
    study = searching(sampler=sampler, start=[{"width": 4}])
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    count = 34 if sampler == "evolution" else 14  # more than it remembers
    undisturbed = take(begin(whole, study), count)
    found = [proposal for _ in range(count) for proposal in take(begin(cut, study), 1)]
    assert found == undisturbed
    assert told(networks(cut)) == told(networks(whole))
    assert found[0].params["width"] == 4


def test_seeds_of_the_sampler_propose_other_networks(tmp_path: Path) -> None:
    keys = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        found = take(begin(tmp_path / str(seed), searching(seed=seed)), 5)
        keys.append([proposal.key for proposal in found])
    assert keys[0] != keys[1]


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
def test_parents_of_a_generation_outlive_an_interruption(tmp_path: Path, sampler: str) -> None:
    """A population is 50, so the first children are of parents from 50 on."""
    wide = {**SMALL["vary"], "width": {"low": 2, "high": 40, "step": 2}}
    study = searching(sampler=sampler, space={**SMALL, "vary": wide})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    undisturbed = take(begin(whole, study), 66)
    found = [proposal for _ in range(11) for proposal in take(begin(cut, study), 6)]
    assert found == undisturbed
    attributes = {name for trial in networks(cut) for name in trial.system_attrs}
    (generation,) = [name for name in attributes if "generation" in name]
    assert {t.system_attrs[generation] for t in networks(cut)} == {0, 1}


@pytest.mark.slow
def test_200_proposals_over_the_shipped_space_are_new_and_within_the_limits(
    tmp_path: Path,
) -> None:
    study = searching(space=full_space(macs=5e8))
    found = take(begin(tmp_path, study), 200)
    assert len({proposal.key for proposal in found}) == 200
    for proposal in found:
        assert study.obstacle(proposal.params) == ""
        assert study.costs(proposal.params)["profile.macs"] <= 5e8


def test_what_is_above_a_limit_is_told_and_never_proposed(tmp_path: Path) -> None:
    costs = [searching().costs(p)["profile.params"] for p in searching().space.params()]
    most = sorted(costs)[20]
    study = searching(space={**SMALL, "limits": {"profile.params": most}})
    found = take(begin(tmp_path, study), 100)
    assert len(found) == 21
    assert all(study.costs(p.params)["profile.params"] <= most for p in found)
    refused = [t for t in networks(tmp_path) if t.user_attrs["fate"] == "infeasible"]
    assert refused
    for trial in refused:
        excess = study.costs(trial.user_attrs["params"])["profile.params"] / most - 1
        assert trial.state == TrialState.PRUNED
        assert trial.constraints == {"profile.params": excess}
        assert "profile.params is" in trial.user_attrs["reason"]


def test_a_repeated_proposal_is_answered_from_what_is_known(tmp_path: Path) -> None:
    proposals = begin(tmp_path, searching(sampler="random"))
    take(proposals, 40)  # of 64: chance repeats itself
    repeated = [t for t in networks(tmp_path) if t.user_attrs["fate"] == "duplicate"]
    assert repeated
    for trial in repeated:
        first = networks(tmp_path)[trial.user_attrs["duplicate_of"]]
        assert first.user_attrs["key"] == trial.user_attrs["key"]
        assert (trial.state, trial.values) == (TrialState.COMPLETE, first.values)


def test_a_measured_limit_holds_too(tmp_path: Path) -> None:
    study = searching(space={**SMALL, "limits": {"profile.latency": 0.01}})

    def measure(network: ArchSpec) -> dict[str, float]:
        return {"latency": 0.02 if int(network.key[0], 16) % 2 else 0.005}

    proposals = Proposals(tmp_path / "study.db", study, measure)
    found = take(proposals, 100)
    assert {int(proposal.key[0], 16) % 2 for proposal in found} == {0}
    slow = [t for t in networks(tmp_path) if t.user_attrs["fate"] == "infeasible"]
    assert {t.user_attrs["reason"] for t in slow} == {"profile.latency is 0.02, above 0.01"}
    assert len(found) + len({t.user_attrs["key"] for t in slow}) == 64
    assert "have been proposed" in proposals.ended


def test_a_start_that_cannot_be_trained_is_said(tmp_path: Path) -> None:
    start = [{"width": 8, "num_blocks": 2}, {"width": 2}]
    study = searching(space={**SMALL, "limits": {"profile.params": 9000}}, start=start)
    proposals = begin(tmp_path, study)
    (first,) = take(proposals, 1)
    assert first.params["width"] == 2
    (said,) = proposals.dropped
    assert begin(tmp_path, study).dropped == [said]
    assert said.startswith("search.start.0 is not trained: profile.params is ")
    assert said.endswith(", above 9000")


def test_nothing_within_the_limits_of_a_large_space_is_said(tmp_path: Path) -> None:
    proposals = begin(tmp_path, searching(space=full_space(params=1000)))
    assert proposals.next() is None
    assert f"none of {DRAWS} networks" in proposals.ended


def test_a_new_database_gets_the_networks_that_were_trained(tmp_path: Path) -> None:
    study = searching()
    found = take(begin(tmp_path, study), 12)
    (tmp_path / "study.db").unlink()
    again = begin(tmp_path, study)
    again.restore({proposal.number: proposal for proposal in found})
    assert list(again.kept.values()) == found
    assert again.open() == [proposal.number for proposal in found]
    assert (later := again.next()) is not None
    assert later.key not in {proposal.key for proposal in found}
    assert later.number > found[-1].number


def test_costs_that_are_told_are_in_shares_of_the_limit(tmp_path: Path) -> None:
    study = searching(space={**SMALL, "limits": {"profile.macs": 1e9, "profile.params": 1e9}})
    (proposal,) = take(begin(tmp_path, study), 1)
    trial = networks(tmp_path)[proposal.number]
    costs = study.costs(proposal.params)
    assert trial.constraints == {
        key: costs[key] / 1e9 - 1 for key in ("profile.macs", "profile.params")
    }
    assert set(costs) == set(closed_form_keys(study, proposal))


def closed_form_keys(study: Study, proposal: Proposal) -> dict[str, float]:
    from hrnet_search.cost import cost

    spec = study.space.arch(proposal.params)
    found = cost(
        spec, head=study.task.head, num_outputs=study.num_outputs, input_size=study.input_size
    )
    return closed_form(found)
