"""What a study will take: networks chosen, arithmetic of the forecast, words, one measurement."""

import dataclasses
import json
import subprocess
from collections import Counter
from collections.abc import Mapping
from itertools import starmap
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny import TINY_POSE_STUDY

from hrnet_search import training
from hrnet_search.cli import main
from hrnet_search.errors import InputError
from hrnet_search.result import Result
from hrnet_search.search import forecast as module
from hrnet_search.search.forecast import (
    SAMPLE,
    Candidate,
    Measured,
    NotMeasured,
    choose,
    estimate,
    finished,
    forecast,
    list_candidates,
    measure,
    render,
    say_memory,
    say_time,
)
from hrnet_search.study import Study
from hrnet_search.tasks.cache import Prepared
from hrnet_search.training import Hardware

MIB = 2**20
CPU = Hardware("cpu", "float32", "channels_last")


def net(arm: str, macs: float, trainings: int = 1, *, rival: bool = False) -> Candidate:
    arch = {"rival": arm} if rival else {}
    return Candidate(arm=arm, arch=arch, macs=macs, trainings=trainings)


def took(step: float, evaluation: float = 0.0, memory: int = MIB) -> Measured:
    return Measured(step=step, evaluation=evaluation, memory=memory)


def study(search: Mapping[str, Any] | None = None, **changes: Any) -> Study:
    found = {**TINY_POSE_STUDY, **changes}
    return Study.model_validate(found if search is None else {**found, "search": dict(search)})


WIDE = {
    "base": TINY_POSE_STUDY["space"]["base"],  # type: ignore[index]
    "vary": {"width": {"low": 4, "high": 40, "step": 4}, "final": {"choices": [False, True]}},
}
RANDOM = {"sampler": "random", "networks": 6}

# --- which networks ------------------------------------------------------------------------------


def test_the_cheapest_a_middle_and_the_dearest_are_measured() -> None:
    nets = [net(f"{macs}", macs) for macs in (5, 1, 4, 2, 3)]
    assert [c.arm for c in choose(nets)] == ["1", "3", "5"]
    assert [c.arm for c in choose(nets[:2])] == ["1", "5"]
    assert [c.arm for c in choose(nets[:1])] == ["5"]


def test_two_rivals_at_most_are_measured_and_may_be_all_that_is_left() -> None:
    rivals = [net(f"r{macs}", macs, rival=True) for macs in (30, 10, 20)]
    assert [c.arm for c in choose([net("1", 1), *rivals])] == ["1", "r10", "r30"]
    assert [c.arm for c in choose(rivals[:1])] == ["r30"]


def test_of_each_variant_some_are_measured_and_others_follow_from_them() -> None:
    nets = [
        dataclasses.replace(net(f"{variant}{macs}", macs), variant=variant)
        for macs in (1, 2, 3, 4)
        for variant in ("a", "b")
    ]
    chosen = [c.arm for c in choose(nets)]
    assert chosen == ["a1", "a2", "a4", "b1", "b2", "b4"]
    seconds = {"a1": 1, "a2": 2, "a4": 4, "b1": 10, "b2": 20, "b4": 40}
    measured = {arm: took(seconds[arm]) for arm in chosen}
    found = estimate(nets, measured, steps=1, evaluations=1, trainings=8, jobs=1)
    assert found.total == 1 + 2 + 3 + 4 + 10 + 20 + 30 + 40


def test_a_grid_with_variants_lists_each_network_under_each() -> None:
    grid = study(variants={"small": {}, "large": {"data": {"input_size": [64, 64]}}})
    first, second, *_ = grid.arms()
    found = list_candidates(grid, {(grid.key(first), 0)})
    assert [(c.variant, c.trainings) for c in found] == [
        ("small", 1), ("large", 2), ("small", 2), ("large", 2),
    ]  # fmt: skip
    assert [c.macs for c in found[:2]] == [grid.costs(p)["profile.macs"] for p in (first, second)]
    assert found[1].macs > found[0].macs


def test_a_grid_lists_its_networks_with_their_costs_and_what_is_left() -> None:
    grid = study()
    first, second = grid.arms()
    ended = {(grid.network(first).key, 1), (grid.network(second).key, 7)}  # no such seed any more
    found = list_candidates(grid, ended)
    assert [(c.arm, c.trainings) for c in found] == [("final=false", 1), ("final=true", 2)]
    assert [c.macs for c in found] == [grid.costs(p)["profile.macs"] for p in (first, second)]
    assert found[0].arch == grid.network(first).to_dict()
    both = ended | {(grid.network(first).key, 0)}
    assert [c.arm for c in list_candidates(grid, both)] == ["final=true"]


def test_a_rival_is_counted_by_torch() -> None:
    """At 32 x 32: torchvision's ResNet-50 has 4,087,136,256 outside its last layer at 224 x 224."""
    grid = study(rivals=["simple_baseline_resnet50"])
    (rival,) = (c for c in list_candidates(grid, set()) if c.is_rival)
    body = 4_087_136_256 * 32**2 // 224**2
    enlarging = 16 * 256 * (1 * 2048 + 4 * 256 + 16 * 256)  # 4 x 4 kernels on 1, 4, 16 places
    assert rival.macs == body + enlarging + 64 * 256 * 17
    assert (rival.arm, rival.trainings) == ("simple_baseline_resnet50", 2)


def record(key: str, seed: int) -> str:
    """A line of `results.jsonl`."""
    result = Result(
        study="tiny", trial=int.from_bytes(f"{key}{seed}".encode(), "big"), state="complete",
        arm=key, params={}, seed=seed, key=key, arch={}, profile={}, metrics={}, history=[],
        seconds=1.0, attempt=1, started="",
    )  # fmt: skip
    return json.dumps(result.to_dict()) + "\n"


def test_finished_trials_of_a_grid_are_read_from_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "tiny" / "results.jsonl"
    assert finished(study(), tmp_path) == set()
    file.parent.mkdir(parents=True)
    file.write_text("".join(starmap(record, [("a", 0), ("a", 1), ("b", 0)])))
    assert finished(study(), tmp_path) == {("a", 0), ("a", 1), ("b", 0)}
    assert finished(study(RANDOM, space=WIDE), tmp_path) == set()


def test_a_search_is_sampled_within_its_limits_by_its_seed() -> None:
    free = list_candidates(study(RANDOM, space=WIDE), set())
    most = sorted(c.macs for c in free)[SAMPLE // 2]
    limits = {"profile.macs": most, "profile.latency": 1e-9}  # the latter is not known yet
    bound = study(RANDOM, space={**WIDE, "limits": limits})
    found = list_candidates(bound, set())
    assert len(free) == len(found) == SAMPLE
    assert max(c.macs for c in found) == most < max(c.macs for c in free)
    assert list_candidates(bound, set()) == found
    other = study({**RANDOM, "seed": 1}, space={**WIDE, "limits": limits})
    assert list_candidates(other, set()) != found


def test_a_search_of_which_nothing_can_be_trained_is_refused() -> None:
    impossible = study(RANDOM, space={**WIDE, "limits": {"profile.macs": 1}})
    with pytest.raises(InputError, match="within the limits"):
        list_candidates(impossible, set())


# --- the arithmetic ------------------------------------------------------------------------------


def test_time_is_interpolated_in_macs_and_divided_by_what_runs_at_once() -> None:
    nets = [net("a", 10, 3), net("b", 15, 2), net("c", 20, 1), net("d", 40, 2)]
    measured = {"a": took(0.1, 1.0), "c": took(0.3, 2.0, 5 * MIB), "d": took(0.5, 4.0)}
    found = estimate(nets, measured, steps=100, evaluations=5, trainings=8, jobs=2)
    assert found.trials == {"a": 15, "c": 40, "d": 70}
    # b lies halfway between a and c: 27.5 s
    assert found.mean * 8 == pytest.approx(3 * 15 + 2 * 27.5 + 40 + 2 * 70, rel=1e-12)
    assert found.total == pytest.approx(280 / 2, rel=1e-12)
    assert (found.longest, found.trainings, found.at_once) == (70, 8, 2)
    assert found.memory == 2 * 5 * MIB
    assert found.within_budget is None


def test_rivals_are_interpolated_among_themselves() -> None:
    rivals = [net(f"r{macs}", macs, rival=True) for macs in (10, 20, 30)]
    nets = [net("a", 10), net("b", 30), *rivals]
    measured = {"a": took(1), "b": took(3), "r10": took(0.5), "r30": took(0.7)}
    found = estimate(nets, measured, steps=10, evaluations=1, trainings=5, jobs=1)
    assert found.total == pytest.approx(10 + 30 + 5 + 6 + 7, rel=1e-12)


def test_networks_of_one_cost_keep_their_own_time() -> None:
    nets = [net("a", 10), net("b", 10), net("c", 10)]
    measured = {"a": took(1), "b": took(2), "c": took(3)}
    found = estimate(nets, measured, steps=1, evaluations=1, trainings=3, jobs=1)
    assert found.total == 6


def test_of_a_search_the_sample_gives_the_mean_and_the_study_the_number() -> None:
    measured = {"a": took(1), "b": took(3)}
    found = estimate(
        [net("a", 1), net("b", 3), net("b", 3), net("c", 2)],
        measured, steps=4, evaluations=1, trainings=18, jobs=3, budget=40,
    )  # fmt: skip
    assert found.mean == 9  # of 4, 12, 12 and 8
    assert found.total == 18 * 9 / 3
    assert found.within_budget == 13  # 3 at a time for 40 s are 120 s, of 9 each


def test_no_more_run_at_once_than_there_are_and_no_more_fit_than_there_are() -> None:
    found = estimate(
        [net("a", 1, 2)], {"a": took(1)}, steps=5, evaluations=1, trainings=2, jobs=8, budget=1e6
    )
    assert (found.at_once, found.total, found.within_budget) == (2, 5, 2)
    assert found.memory == 2 * MIB


def test_no_study_ends_before_its_longest_training() -> None:
    measured = {"a": took(1), "b": took(9)}
    found = estimate(
        [net("a", 1), net("b", 2)], measured, steps=1, evaluations=1, trainings=2, jobs=2
    )
    assert (found.mean, found.total) == (5, 9)


@pytest.mark.parametrize(
    ("jobs", "processes", "cards", "shares"),
    [(3, 1, 1, 3), (2, 3, 1, 6), (4, 1, 4, 1), (5, 1, 4, 2), (2, 4, 8, 1)],
)
def test_memory_is_of_all_processes_on_one_machine_or_one_card(
    jobs: int, processes: int, cards: int, shares: int
) -> None:
    found = estimate(
        [net("a", 1, 9)], {"a": took(1, memory=7)}, steps=1, evaluations=1, trainings=9,
        jobs=jobs, processes=processes, cards=cards,
    )  # fmt: skip
    assert found.memory == 7 * shares


# --- in words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0123, "0.012 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3599.6, "1.0 h"),
        (18720, "5.2 h"),
        (172800, "2.0 days"),
    ],
)
def test_times_are_said_as_a_person_says_them(seconds: float, said: str) -> None:
    assert say_time(seconds) == said


def test_memory_is_said_in_mib_and_gib() -> None:
    assert say_memory(340.4 * MIB) == "340 MiB"
    assert say_memory(1.5 * 2**30) == "1.5 GiB"


def text(
    search: Mapping[str, Any] | None = None, *, room: int | None = 8 * MIB, usual: int = 2
) -> list[str]:
    """Two networks, measured; trials of 10 and 30 s."""
    chosen = [net("a", 1e9, 3), net("b", 3e9, 3)]
    measured = {"a": took(0.1, 1, 2 * MIB), "b": took(0.3, 3, 4 * MIB)}
    shown = study(search, space=WIDE)
    found = estimate(
        chosen, measured, steps=80, evaluations=2, trainings=6, jobs=2,
        budget=shown.search.budget_seconds,
    )  # fmt: skip
    return render(shown, chosen, measured, found, device="cpu", room=room, usual=usual).splitlines()


def test_a_forecast_is_a_table_and_sentences() -> None:
    lines = text()
    assert lines[0].startswith("tiny: each network measured alone, one thread of ")
    assert [line.split() for line in lines[1:4]] == [
        ["network", "GMACs", "one", "step", "evaluation", "one", "trial", "peak", "memory"],
        ["a", "1", "0.1", "s", "1", "s", "10", "s", "2", "MiB"],
        ["b", "3", "0.3", "s", "3", "s", "30", "s", "4", "MiB"],
    ]
    assert lines[5] == "6 trainings x 20 s on average: 1 min with 2 at a time."
    assert lines[6].startswith("That is the time of all divided by 2; ")
    assert lines[7:] == ["Memory for 2 at a time: at most 8 MiB; 8 MiB are free."]


def test_memory_that_does_not_fit_is_warned_of() -> None:
    assert text(room=8 * MIB - 1)[-1].startswith("Warning: this does not fit; ")
    assert text(room=None)[-1] == "Memory for 2 at a time: at most 8 MiB."


def test_more_at_a_time_than_the_machine_has_room_for_are_warned_of() -> None:
    line = "Warning: this machine has room for 1 at a time, which take 2 min."
    assert line in text(usual=1)
    assert not [line for line in text(usual=2) if line.startswith("Warning")]


def test_a_search_says_what_its_scheduler_and_its_budget_do() -> None:
    lines = text({**RANDOM, "scheduler": "median", "budget": "50s", "trial_limit": "20s"})
    assert lines[5] == (
        "6 trainings x 20 s on average, as random networks of the space take: "
        "at most 1 min with 2 at a time (median ends trainings early)."
    )
    assert lines[7] == "Budget of 50s: time for about 5 of 6 trainings."
    limit = "above search.trial_limit (20s)"
    assert lines[8] == f"Warning: the longest training takes 30 s, {limit}."


# --- the measurement -----------------------------------------------------------------------------


def test_a_study_is_measured_and_nothing_is_written(tmp_path: Path) -> None:
    one = study(space={**TINY_POSE_STUDY["space"], "vary": {"final": {"choices": [True]}}})  # type: ignore[dict-item]
    said = forecast(one, out=tmp_path, jobs=2, console=Console(quiet=True))
    assert "\nfinal=true " in said
    assert "\n2 trainings x " in said
    assert "with 2 at a time." in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("train", "steps"),
    [
        ({}, 4),  # all there are, of which the first is not timed
        ({"steps": 1, "evaluations": 1}, 1),
        ({"steps": 90}, 11),
        ({"steps": 90, "workers": 1, "ema": 0.9}, 13),
    ],
)
def test_a_network_takes_a_few_steps_and_one_evaluation(
    tiny_pose: Prepared, monkeypatch: pytest.MonkeyPatch, train: dict[str, Any], steps: int
) -> None:
    done: Counter[str] = Counter()
    for name in ("update", "evaluate"):

        def counted(*given: Any, name: str = name) -> Any:
            done[name] += 1
            return getattr(training, name)(*given)

        monkeypatch.setattr(module, name, counted)
    monkeypatch.setattr(module, "MAX_SECONDS", 1000)  # however busy the machine is
    tiny = study(train={**TINY_POSE_STUDY["train"], **train})  # type: ignore[dict-item]
    arch = tiny.network(tiny.arms()[0]).to_dict()
    found = module._measure_here(tiny, arch, tiny_pose, CPU)
    assert done == {"update": steps, "evaluate": 1}
    assert min(found.step, found.evaluation, found.memory) > 0


def test_no_further_step_is_taken_when_the_time_is_up(
    tiny_pose: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def one_more(*given: Any) -> Any:
        taken.append(1)
        return training.update(*given)

    monkeypatch.setattr(module, "update", one_more)
    monkeypatch.setattr(module, "MAX_SECONDS", 0)
    tiny = study()
    arch = tiny.network(tiny.arms()[0]).to_dict()
    assert module._measure_here(tiny, arch, tiny_pose, CPU).step > 0
    assert len(taken) == 2  # one that is not timed, one that is


def test_a_network_that_cannot_be_trained_is_named(
    tiny_pose: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = b"Traceback (most recent call last):\n  ...\nRuntimeError: out of paper\n"
    failed = subprocess.CompletedProcess([], 1, b"", said)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(NotMeasured) as caught:
        measure(study(), net("odd", 1), tiny_pose, CPU)
    assert str(caught.value) == "odd could not be measured: RuntimeError: out of paper"


def test_a_killed_process_is_told_as_such() -> None:
    done = subprocess.CompletedProcess([], -9, b"", b"")
    assert "memory runs out" in module._reason(done)


def test_a_study_that_is_done_is_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps(TINY_POSE_STUDY))
    records = tmp_path / "runs" / "tiny" / "results.jsonl"
    records.parent.mkdir(parents=True)
    keys = [study().network(params).key for params in study().arms()]
    records.write_text("".join(record(key, seed) for key in keys for seed in (0, 1)))
    assert main(["plan", str(file), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "tiny: all trainings are done\n"
