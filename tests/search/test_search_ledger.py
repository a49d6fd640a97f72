"""The ledger of a search, with a formula in place of training."""

import contextlib
import itertools
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from searching import (
    history,
    networks,
    opened,
    run_all,
    score,
    searching,
    stored,
    told,
    work,
    write_result,
)

from hrnet_search.files import read_json, read_json_lines
from hrnet_search.result import Result
from hrnet_search.search import job as job_module
from hrnet_search.search import ledger as ledger_module
from hrnet_search.study import Study


def test_a_search_trains_as_many_networks_as_it_is_asked_for(tmp_path: Path) -> None:
    with opened(tmp_path, searching(networks=5)) as ledger:
        assert (ledger.total(), ledger.unfinished()) == (5, 5)
        jobs = run_all(ledger)
        assert (ledger.total(), ledger.unfinished()) == (5, 0)
    assert len({job.key for job in jobs}) == 5
    assert [job.proposal for job in jobs] == sorted(job.proposal or 0 for job in jobs)
    assert [trial.state for trial in stored(tmp_path)] == [TrialState.COMPLETE] * 5


def test_the_sampler_is_told_the_mean_over_seeds(tmp_path: Path) -> None:
    with opened(tmp_path, searching(networks=3, seeds=2)) as ledger:
        jobs = run_all(ledger)
        results = ledger.results()
    new = [t for t in networks(tmp_path) if t.user_attrs["fate"] == "new"]
    assert [(job.proposal, job.seed) for job in jobs] == [
        (trial.number, seed) for trial in new for seed in (0, 1)
    ]
    for trial in new:
        own = [r for r in results if r.proposal == trial.number]
        mean = sum(r.metrics["ap"] for r in own) / 2
        assert trial.values == pytest.approx([mean, own[0].profile["macs"]], abs=1e-15)


def test_only_full_trainings_are_told_as_complete(tmp_path: Path) -> None:
    """Two objectives with rungs, read by plain Optuna."""
    with opened(tmp_path, searching(networks=30, scheduler="asha", cost_bin=50)) as ledger:
        run_all(ledger)
        results = {r.trial: r for r in ledger.results()}
    pruned = {number for number, r in results.items() if r.state == "pruned"}
    assert 5 < len(pruned) < 30
    for trial in stored(tmp_path):
        result = results[trial.number]
        if trial.number in pruned:
            assert (trial.state, trial.values) == (TrialState.PRUNED, None)
            assert (result.metrics, len(result.history) < 9) == ({}, True)
        else:
            assert trial.state == TrialState.COMPLETE
            assert trial.values == [result.history[-1]["ap"], result.profile["macs"]]
            assert result.history[-1]["step"] == 18
    by_proposal = {r.proposal: r for r in results.values()}
    for trial in networks(tmp_path):
        if trial.user_attrs["fate"] == "new":
            early = by_proposal[trial.number].state == "pruned"
            assert trial.state == (TrialState.PRUNED if early else TrialState.COMPLETE)


def test_a_network_that_is_behind_with_one_seed_is_not_trained_with_others(
    tmp_path: Path,
) -> None:
    study = searching(networks=30, seeds=3, scheduler="asha", cost_bin=50)
    with opened(tmp_path, study) as ledger:
        run_all(ledger)
        results = ledger.results()
        assert ledger.unfinished() == 0
    early = {r.proposal for r in results if r.state == "pruned"}
    assert early
    for proposal in early:
        seeds = [r.state for r in results if r.proposal == proposal]
        assert seeds.count("pruned") == 1
        assert seeds[-1] == "pruned"
    with opened(tmp_path, study) as ledger:
        assert ledger.unfinished() == 0
        assert ledger.next() is None


def test_failed_seeds_leave_the_mean_to_the_others(tmp_path: Path) -> None:
    with opened(tmp_path, searching(networks=2, seeds=2)) as ledger:
        for state in ("failed", "complete", "failed", "failed"):
            job = ledger.next()
            assert job is not None
            points = history(0.5)
            write_result(ledger, job, state=state, ap=0.5, points=points)
            ledger.finish(job.trial)
    one, other = [t for t in networks(tmp_path) if t.user_attrs["fate"] == "new"]
    assert (one.state, one.values[0]) == (TrialState.COMPLETE, 0.5)
    assert other.state == TrialState.FAIL


def test_a_driver_killed_between_any_two_steps_proposes_the_same_networks(tmp_path: Path) -> None:
    study = searching(networks=12, seeds=2, scheduler="asha", cost_bin=50)
    with opened(tmp_path / "whole", study) as ledger:
        run_all(ledger)
    rng, rounds = random.Random(0), 0
    while True:
        rounds += 1
        with opened(tmp_path / "cut", study) as ledger:
            job = ledger.next()
            if job is None:
                break
            if rng.random() < 0.4:
                continue  # died while the worker ran
            work(ledger, job)
            if rng.random() < 0.4:
                continue  # died before it was told
            ledger.finish(job.trial)
        assert rounds < 300
    assert told(networks(tmp_path / "cut")) == told(networks(tmp_path / "whole"))
    assert told(stored(tmp_path / "cut")) == told(stored(tmp_path / "whole"))


def finished(folder: Path) -> Path:
    with opened(folder, searching(networks=8)) as ledger:
        run_all(ledger, most=6)
        assert ledger.next() is not None  # one is running when the driver dies
    return folder


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "overwritten"])
def test_study_db_is_made_anew_from_the_trials(tmp_path: Path, damage: str) -> None:
    folder = finished(tmp_path)
    before, file = told(stored(folder)), folder / "study.db"
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        left = {"empty": b"", "cut": content[: len(content) // 2], "overwritten": b"x" * 5000}
        file.write_bytes(left[damage])
    with opened(folder, searching(networks=8)) as ledger:
        assert ledger.repaired
        assert told(stored(folder)) == before
        assert len(run_all(ledger)) == 2
        keys = [r.key for r in ledger.results()]
    assert len(set(keys)) == len(keys) == 8
    assert bool(list(folder.glob("study.db.damaged-*"))) == (damage != "gone")


def test_a_result_cut_at_every_byte_is_read_from_its_copy(tmp_path: Path) -> None:
    folder = finished(tmp_path / "s")
    file = folder / "trials" / "00002" / "result.json"
    whole = file.read_bytes()
    lines = (folder / "results.jsonl").read_bytes()
    # Opening takes a while, so the cuts share the places of several results at once.
    with opened(folder, searching(networks=8)) as ledger:
        copy = {r.trial: r for r in ledger.results()}[2]
        for length in range(len(whole) - 2):  # but for the line's end and the last brace
            file.write_bytes(whole[:length])
            assert ledger._read_result(2, copy) == copy
            assert file.read_bytes() == whole
        file.write_bytes(whole[:100])
        assert ledger._read_result(2, None) is None
        assert file.with_name("result.json.damaged").read_bytes() == whole[:100]
    file.write_bytes(whole[:100])
    with opened(folder, searching(networks=8)) as ledger:
        assert {r.trial: r for r in ledger.results()}[2] == copy
    assert (folder / "results.jsonl").read_bytes() == lines


@pytest.mark.parametrize("left", [None, 0, 1, 50, -1, -40])
def test_results_jsonl_is_made_anew(tmp_path: Path, left: int | None) -> None:
    folder = finished(tmp_path)
    file = folder / "results.jsonl"
    whole = file.read_bytes()
    if left is None:
        file.unlink()
    else:
        file.write_bytes(whole[:left])
    opened(folder, searching(networks=8)).close()
    assert file.read_bytes() == whole
    assert [Result.from_dict(line).trial for line in read_json_lines(file)] == list(range(6))


def test_a_trial_that_was_asked_to_pause_is_no_failure(tmp_path: Path) -> None:
    with opened(tmp_path, searching(networks=2)) as ledger:
        job = ledger.next()
        assert job is not None
        ledger.pause()
        word = read_json(ledger.trial_folder(job.trial) / "stop.json")
        assert word == {"attempt": 1, "word": "pause"}
        assert ledger.finish(job.trial) == (None, True)
        again = ledger.next()
        assert again is not None
        assert (again.trial, again.attempt) == (job.trial, 2)
        assert not (ledger.trial_folder(job.trial) / "stop.json").exists()
        assert not list(ledger.trial_folder(job.trial).glob("failure-*"))


def test_more_networks_go_on_where_the_search_ended(tmp_path: Path) -> None:
    with opened(tmp_path / "a", searching(networks=9)) as ledger:
        run_all(ledger)
    with opened(tmp_path / "b", searching(networks=4)) as ledger:
        run_all(ledger)
    with opened(tmp_path / "b", searching(networks=9)) as ledger:
        assert len(run_all(ledger)) == 5
    assert told(networks(tmp_path / "b")) == told(networks(tmp_path / "a"))


def test_folders_alone_are_enough(tmp_path: Path) -> None:
    """All but the trials' folders is lost."""
    folder = finished(tmp_path / "s")
    before = told(stored(folder))
    for name in ("study.db", "results.jsonl", "study.yaml", "lock"):
        (folder / name).unlink()
    shutil.copytree(folder, tmp_path / "moved")
    opened(tmp_path / "moved", searching(networks=8)).close()
    assert told(stored(tmp_path / "moved")) == before


def test_scores_are_what_the_formula_says(tmp_path: Path) -> None:
    with opened(tmp_path, searching(networks=3)) as ledger:
        run_all(ledger)
        assert all(r.metrics["ap"] == score(r.key, r.seed) for r in ledger.results())


def test_seeds_that_are_added_are_trained_of_every_network(tmp_path: Path) -> None:
    with opened(tmp_path, searching(networks=3)) as ledger:
        run_all(ledger)
    before = [t.values for t in networks(tmp_path)]
    with opened(tmp_path, searching(networks=3, seeds=2)) as ledger:
        assert ledger.unfinished() == 3
        assert [job.seed for job in run_all(ledger)] == [1, 1, 1]
    assert [t.values for t in networks(tmp_path)] == before  # Optuna is told once


def test_a_database_of_other_trials_is_put_aside(tmp_path: Path) -> None:
    folder = finished(tmp_path / "s")
    before = told(stored(folder))
    with opened(tmp_path / "other", searching(networks=8, seed=5)) as ledger:
        run_all(ledger)
    shutil.copy(tmp_path / "other" / "study.db", folder / "study.db")
    with opened(folder, searching(networks=8)) as ledger:
        assert "held other trials" in ledger.repaired[0]
    assert told(stored(folder)) == before


class Crash(BaseException):
    """The driver is gone."""


class Fuse:
    """Lets functions be called so many times, then ends the driver before or after the call."""

    def __init__(self, calls: int, *, after: bool) -> None:
        self.left, self.after = calls, after

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Crash
            result = function(*args, **kwargs)
            if self.left == 0:
                raise Crash
            return result

        return wrapped


def drive(folder: Path, study: Study) -> None:
    """A driver, whose second trial fails at first in a way that is tried again."""
    with opened(folder, study) as ledger:
        while job := ledger.next():
            failures = list(ledger.trial_folder(1).glob("failure-*.json"))
            if job.trial == 1 and not failures:
                write_result(ledger, job, state="failed", ap=0.0, points=[], cause="memory")
            else:
                work(ledger, job)
            ledger.finish(job.trial)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_a_driver_that_dies_at_any_writing_loses_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool, every: int
) -> None:
    study = searching(networks=2, seeds=2)
    drive(tmp_path / "whole", study)
    places = [
        *((module, "write_json") for module in (ledger_module, job_module)),
        *((optuna.Study, name) for name in ("add_trial", "tell")),
        *((module, name) for module, name in ((os, "fsync"), (Path, "unlink"))),
    ]
    crashes = 0
    for calls in itertools.count(1, every):
        folder = tmp_path / str(calls)
        fuse = Fuse(calls, after=after)
        with monkeypatch.context() as patch:
            for owner, name in places:
                patch.setattr(owner, name, fuse.wrap(getattr(owner, name)))
            with contextlib.suppress(Crash):
                drive(folder, study)
        if fuse.left > 0:
            break
        crashes += 1
        drive(folder, study)
        assert told(stored(folder)) == told(stored(tmp_path / "whole")), calls
        assert told(networks(folder)) == told(networks(tmp_path / "whole")), calls
        lines = read_json_lines(folder / "results.jsonl")
        assert sorted(line["trial"] for line in lines) == [0, 1, 2, 3], calls
        assert len(list(folder.rglob("failure-*.json"))) == 1, calls
    assert crashes > 30 / every
