"""The ledger, with a pretended worker in place of training."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hrnet_search.errors import InputError
from hrnet_search.files import read_json, read_json_lines, write_json
from hrnet_search.result import CAUSES, Result
from hrnet_search.search.job import Job
from hrnet_search.search.ledger import Ledger, set_aside
from hrnet_search.search.rehearsal import rehearse
from hrnet_search.study import Study, load_study

SMOKE = Path(__file__).parents[2] / "studies" / "smoke.yaml"


def smoke(*overrides: str) -> Study:
    return load_study(SMOKE, overrides)


def work(ledger: Ledger, job: Job, *, ap: float | None = 0.5, cause: str = "error") -> None:
    """What a worker leaves behind; without an AP, a failure of this cause."""
    error = {"type": "E", "message": "m", "traceback": "", "cause": cause}
    result = Result(
        **vars(job),
        state="failed" if ap is None else "complete",
        profile={"macs": 1000 + job.trial},
        metrics={} if ap is None else {"ap": ap},
        history=[],
        seconds=1.0,
        started="2020-01-01T00:00:00+00:00",
        error=error if ap is None else None,
    )
    write_json(ledger.trial_folder(job.trial) / "result.json", result.to_dict())


def run_all(ledger: Ledger) -> list[Job]:
    jobs = []
    while job := ledger.next():
        work(ledger, job)
        ledger.finish(job.trial)
        jobs.append(job)
    return jobs


def opened(folder: Path, study: Study) -> Ledger:
    ledger = Ledger(folder, study)
    ledger.keep_study()
    return ledger


def stored(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials as plain Optuna reads them."""
    return optuna.load_study(study_name="smoke", storage=f"sqlite:///{folder}/study.db").trials


def test_every_arm_meets_every_seed_once_and_seeds_come_in_blocks(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke("seeds=3")) as ledger:
        jobs = run_all(ledger)
    assert [(job.arm, job.seed) for job in jobs] == [
        (arm, seed) for seed in range(3) for arm in ("across=false", "across=true")
    ]
    assert [job.trial for job in jobs] == list(range(6))


def test_optuna_holds_values_and_parameters(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        run_all(ledger)
    trials = stored(tmp_path / "s")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    assert [trial.values for trial in trials] == [[0.5, 1000.0 + n] for n in range(4)]
    assert [trial.params for trial in trials] == [{"across": n % 2 == 1} for n in range(4)]


def test_a_finished_study_has_nothing_to_do(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        run_all(ledger)
    with opened(tmp_path / "s", smoke()) as ledger:
        assert ledger.unfinished() == 0
        assert ledger.next() is None
    assert len(stored(tmp_path / "s")) == 4


def test_more_seeds_add_trials_and_keep_the_old_ones(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        run_all(ledger)
    with opened(tmp_path / "s", smoke("seeds=3")) as ledger:
        assert [(job.trial, job.seed) for job in run_all(ledger)] == [(4, 2), (5, 2)]


def test_fewer_seeds_leave_the_later_trials_out_and_keep_them(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke("seeds=3")) as ledger:
        run_all(ledger)
    with opened(tmp_path / "s", smoke("seeds=1")) as ledger:
        assert ledger.unfinished() == 0
        assert [result.seed for result in ledger.results()] == [0, 0]
    with opened(tmp_path / "s", smoke("seeds=3")) as ledger:
        assert ledger.unfinished() == 0


ADAPTIVE = ("seeds=2", "adaptive={most: 6, step: 2}")


def pretended(job: Job, *, effect: float) -> float:
    """An AP that differs between the two arms by the effect, and a little by the seed."""
    return 0.3 + 0.01 * (job.seed % 3) + (effect + 0.001 * job.seed) * (job.arm == "across=true")


def run_adaptive(folder: Path, *, effect: float, at_most: int = 100) -> list[tuple[str, int]]:
    with opened(folder, smoke(*ADAPTIVE)) as ledger:
        jobs: list[Job] = []
        while len(jobs) < at_most and (job := ledger.next()):
            work(ledger, job, ap=pretended(job, effect=effect))
            ledger.finish(job.trial)
            jobs.append(job)
    return [(job.arm, job.seed) for job in jobs]


def test_arms_that_are_undecided_get_more_seeds(tmp_path: Path) -> None:
    """Differences of 0.3 and 0.301 decide at once; of 0, 0.001, 0.002, ... only after six."""
    arms = ("across=false", "across=true")
    assert run_adaptive(tmp_path / "clear", effect=0.3) == [(a, s) for s in range(2) for a in arms]
    everything = [(arm, seed) for seed in range(6) for arm in arms]
    assert run_adaptive(tmp_path / "small", effect=-0.0025) == everything


@pytest.mark.parametrize("at_most", [1, 3, 4, 5, 11])
def test_a_look_is_the_same_whenever_the_driver_died(tmp_path: Path, at_most: int) -> None:
    first = run_adaptive(tmp_path / "s", effect=-0.0025, at_most=at_most)
    rest = run_adaptive(tmp_path / "s", effect=-0.0025)
    arms = ("across=false", "across=true")
    assert first + rest == [(arm, seed) for seed in range(6) for arm in arms]
    with opened(tmp_path / "s", smoke(*ADAPTIVE)) as ledger:
        assert (ledger.unfinished(), len(ledger.results())) == (0, 12)


@pytest.mark.parametrize(
    ("effect", "left"), [(0.3, "  (then up to 8 trials for what is undecided)"), (-0.0025, None)]
)
def test_a_rehearsal_counts_what_may_still_come(
    tmp_path: Path, effect: float, left: str | None
) -> None:
    """Two arms may get four seeds more each, unless they have them."""
    run_adaptive(tmp_path / "s", effect=effect)
    lines = rehearse(smoke(*ADAPTIVE), tmp_path / "s", fresh=False).splitlines()
    assert lines[0] == "smoke: 0 of 4 trials would be run"
    assert lines[1:-1] == [left] * bool(left)


def test_a_look_waits_for_all_that_run(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke(*ADAPTIVE)) as ledger:
        jobs = [job for _ in range(4) if (job := ledger.next())]
        assert ledger.next() is None
        for job in jobs:
            assert ledger.next() is None
            work(ledger, job, ap=pretended(job, effect=0.0))
            ledger.finish(job.trial)
        assert ledger.total() == 4
        assert ledger.next() is not None
        assert ledger.total() == 8


def test_a_rehearsal_refuses_what_a_run_would(tmp_path: Path) -> None:
    run_adaptive(tmp_path / "s", effect=0.3)
    longer = smoke(*ADAPTIVE, "train.steps=77")
    with pytest.raises(InputError, match=r"train\.steps: 77: was "):
        rehearse(longer, tmp_path / "s", fresh=False)
    assert "4 of 4 trials would be run" in rehearse(longer, tmp_path / "s", fresh=True)


def test_a_reference_may_be_named_that_was_so_by_default(tmp_path: Path) -> None:
    run_adaptive(tmp_path / "s", effect=0.3)
    with Ledger(tmp_path / "s", smoke(*ADAPTIVE, "reference=across=true")) as ledger:
        assert ledger.unfinished() == 0


@pytest.mark.parametrize("change", ["seeds=3", "adaptive.most=8", "reference=across=false"])
def test_what_decides_about_looks_may_not_change(tmp_path: Path, change: str) -> None:
    run_adaptive(tmp_path / "s", effect=0.3)
    with pytest.raises(InputError, match=change.partition("=")[0]):
        Ledger(tmp_path / "s", smoke(*ADAPTIVE, change))


def test_a_trial_whose_result_is_deleted_runs_again_under_a_new_number(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        run_all(ledger)
        (ledger.trial_folder(1) / "result.json").unlink()
    with opened(tmp_path / "s", smoke()) as ledger:
        assert [job.trial for job in run_all(ledger)] == [4]
        pairs = [(result.arm, result.seed) for result in ledger.results()]
    assert sorted(pairs) == [
        (arm, seed) for arm in ("across=false", "across=true") for seed in (0, 1)
    ]


def failed_after_saving(ledger: Ledger) -> Job:
    """The next trial, failed, with its checkpoint and history left."""
    job = ledger.next()
    assert job is not None
    work(ledger, job, ap=None)
    (ledger.trial_folder(job.trial) / "history.jsonl").write_text('{"step": 2}\n')
    (ledger.trial_folder(job.trial) / "checkpoint.pt").write_text("saved at 2")
    ledger.finish(job.trial)
    return job


def test_a_failed_trial_that_is_run_again_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        job = failed_after_saving(ledger)
        run_all(ledger)
        assert ledger.begun() == 0
        (ledger.trial_folder(job.trial) / "result.json").unlink()
    for _ in range(2):  # the second time the driver was stopped in between
        with opened(tmp_path / "s", smoke()) as ledger:
            assert ledger.begun() == 1
            again = ledger.next()
            assert again is not None
            assert (again.trial, again.arm, again.seed) == (4, job.arm, job.seed)
            folder = ledger.trial_folder(4)
            assert (folder / "checkpoint.pt").read_text() == "saved at 2"
            assert read_json_lines(folder / "history.jsonl") == [{"step": 2}]
            assert not (ledger.trial_folder(job.trial) / "checkpoint.pt").exists()
            (folder / "history.jsonl").write_text('{"step": 2}\n')
    with opened(tmp_path / "s", smoke()) as ledger:
        assert len(run_all(ledger)) == 1
        assert ledger.begun() == 0


def test_a_move_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        failed_after_saving(ledger)
        run_all(ledger)
        (ledger.trial_folder(0) / "result.json").unlink()
        ledger.trial_folder(4).mkdir()
        (ledger.trial_folder(0) / "history.jsonl").rename(ledger.trial_folder(4) / "history.jsonl")
    with opened(tmp_path / "s", smoke()) as ledger:
        assert ledger.next() is not None
        names = {file.name for file in ledger.trial_folder(4).iterdir()}
    assert names == {"history.jsonl", "checkpoint.pt", "trial.json"}


def test_checkpoints_count_of_trials_that_are_still_to_end(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        failed_after_saving(ledger)
        assert ledger.begun() == 0
        job = ledger.next()
        assert job is not None
        (ledger.trial_folder(job.trial) / "checkpoint.pt").touch()
        assert ledger.begun() == 1


def test_interruptions_are_no_deaths(tmp_path: Path) -> None:
    for _ in range(5):
        with opened(tmp_path / "s", smoke()) as ledger:
            assert ledger.next() is not None  # and the driver is stopped
    with opened(tmp_path / "s", smoke()) as ledger:
        job = ledger.next()
        assert job is not None
        assert ledger.finish(job.trial)[1], "a first death is not the end"
        assert len(run_all(ledger)) == 4


def test_a_trial_that_breaks_ray_each_time_fails_in_the_end(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        for _ in range(3):
            job = ledger.next()
            assert job is not None
            assert job.trial == 0
            for number in ledger.running():  # Tune's fit raised
                ledger.finish(number)
        assert len(run_all(ledger)) == 3
        assert [result.state for result in ledger.results()] == ["failed", *["complete"] * 3]


def test_an_interrupted_trial_starts_again_under_its_number(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        first = ledger.next()
    with opened(tmp_path / "s", smoke()) as ledger:
        jobs = run_all(ledger)
        results = ledger.results()
    assert first is not None
    assert (jobs[0].trial, jobs[0].attempt) == (first.trial, 2)
    assert [result.trial for result in results] == [0, 1, 2, 3]
    assert len(stored(tmp_path / "s")) == 4


def test_the_next_attempt_clears_what_was_being_written(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        job = ledger.next()
        assert job
        folder = ledger.trial_folder(job.trial)
        for name in (".checkpoint.pt.a1b2c3", "stop.json"):
            (folder / name).touch()
    with opened(tmp_path / "s", smoke()) as ledger:
        again = ledger.next()
        assert again
        assert (again.trial, again.attempt) == (job.trial, 2)
        assert [file.name for file in folder.iterdir()] == ["trial.json"]


def test_a_result_that_was_not_told_is_told_and_not_run_again(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        job = ledger.next()
        assert job is not None
        work(ledger, job, ap=0.25)  # the driver dies here
    with opened(tmp_path / "s", smoke()) as ledger:
        assert ledger.unfinished() == 3
        assert job.trial not in [other.trial for other in run_all(ledger)]
    assert stored(tmp_path / "s")[job.trial].values == [0.25, 1000.0]


def test_a_driver_killed_between_any_two_steps_loses_and_repeats_nothing(tmp_path: Path) -> None:
    folder, rounds = tmp_path / "s", 0
    while True:
        rounds += 1
        with opened(folder, smoke()) as ledger:
            job = ledger.next()
            if job is None:
                break
            if rounds % 3 == 0:
                continue  # died while the worker ran
            work(ledger, job)
            if rounds % 3 == 1:
                continue  # died before telling
            ledger.finish(job.trial)
        assert rounds < 30
    trials = stored(folder)
    assert len(trials) == 4
    pairs = {(trial.user_attrs["key"], trial.user_attrs["seed"]) for trial in trials}
    assert len(pairs) == 4
    assert all(trial.state == TrialState.COMPLETE for trial in trials)


def test_a_trial_whose_worker_keeps_dying_fails_in_the_end(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        for attempt in (1, 2, 3):
            job = ledger.next()
            assert job is not None
            assert (job.trial, job.attempt) == (0, attempt)
            result, again = ledger.finish(0)
            assert again == (attempt < 3)
        assert result is not None
        assert result.error is not None
        assert (result.state, result.error["type"]) == ("failed", "WorkerDied")
        assert len(run_all(ledger)) == 3
    assert stored(tmp_path / "s")[0].state == TrialState.FAIL


@pytest.mark.parametrize("cause", CAUSES)
def test_what_would_fail_the_same_way_is_not_started_again(tmp_path: Path, cause: str) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        job = ledger.next()
        assert job is not None
        work(ledger, job, ap=None, cause=cause)
        _, again = ledger.finish(job.trial)
        assert again == (cause in ("memory", "disk", "died"))


def test_a_failed_trial_is_kept_as_failed(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        job = ledger.next()
        assert job is not None
        work(ledger, job, ap=None)
        ledger.finish(job.trial)
        run_all(ledger)
        states = [result.state for result in ledger.results()]
    assert states == ["failed", "complete", "complete", "complete"]
    assert stored(tmp_path / "s")[0].state == TrialState.FAIL


def test_results_file_is_rebuilt_from_the_trials(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        run_all(ledger)
        file = tmp_path / "s" / "results.jsonl"
        before = file.read_bytes()
        file.unlink()
    opened(tmp_path / "s", smoke()).close()
    assert file.read_bytes() == before
    assert [line["trial"] for line in read_json_lines(file)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.steps=13", "train.steps"),
        ("task.sigma=1.5", "task.sigma"),
        ("objectives=[metrics.ar]", "objectives"),
        ("space.base.width=8", "space.base.width"),
        ("data.seed=1", "data.seed"),
    ],
)
def test_a_changed_study_is_refused_with_the_difference(
    tmp_path: Path, override: str, key: str
) -> None:
    opened(tmp_path / "s", smoke()).close()
    before = (tmp_path / "s" / "study.yaml").read_bytes()
    with pytest.raises(InputError) as caught:
        Ledger(tmp_path / "s", smoke(override))
    assert caught.value.key == key
    assert "--fresh" in str(caught.value)
    assert (tmp_path / "s" / "study.yaml").read_bytes() == before
    Ledger(tmp_path / "s", smoke()).close()  # and the lock was given back


@pytest.mark.parametrize(
    "override",
    [
        *("title=other", "description=x", "reference='across=true'"),
        *("train.workers=2", "train.checkpoint_minutes=1"),
    ],
)
def test_a_harmless_change_goes_on(tmp_path: Path, override: str) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        run_all(ledger)
    with opened(tmp_path / "s", smoke(override)) as ledger:
        assert ledger.unfinished() == 0


@pytest.mark.parametrize(
    ("setting", "one", "two"),
    [
        ("variants={{{}, {}}}", "a: {}", "b: {task: {head: v2}}"),
        ("space.vary={{net: {{arms: {{{}, {}}}}}}}", "a: {across: false}", "b: {across: true}"),
    ],
)
def test_names_in_another_order_are_no_other_study(
    tmp_path: Path, setting: str, one: str, two: str
) -> None:
    with opened(tmp_path / "s", smoke(setting.format(one, two))) as ledger:
        job = ledger.next()
        assert job is not None
        work(ledger, job)
        ledger.finish(job.trial)
    with opened(tmp_path / "s", smoke(setting.format(two, one))) as ledger:
        run_all(ledger)
        total = ledger.total()
        assert ledger.repaired == []
    assert [trial.state for trial in stored(tmp_path / "s")] == [TrialState.COMPLETE] * total


MATCH = "match={profile.macs: reference}"


def test_cost_matched_arms_are_trainings_like_others(tmp_path: Path) -> None:
    study = smoke(MATCH)
    with opened(tmp_path / "s", study) as ledger:
        jobs = run_all(ledger)
    arms = ["across=false", "across=false, matched", "across=true"]
    assert [(job.arm, job.seed) for job in jobs] == [(arm, s) for s in (0, 1) for arm in arms]
    copy = {"across": False, "match": "profile.macs"}
    assert jobs[1].params == copy
    assert jobs[1].arch == study.network(copy).to_dict() != jobs[0].arch
    assert stored(tmp_path / "s")[1].params == copy
    (tmp_path / "s" / "study.db").unlink()
    with opened(tmp_path / "s", smoke(MATCH)) as ledger:
        assert ledger.unfinished() == 0
    assert [trial.params for trial in stored(tmp_path / "s")] == [job.params for job in jobs]


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ([MATCH], [], "match"),
        ([], [MATCH], "match"),
        ([MATCH], ["match={profile.params: reference}"], "match.profile.macs"),
        ([MATCH], [MATCH, "reference='across=false'"], "reference"),  # decides the widths
    ],
)
def test_what_decides_cost_matched_arms_may_not_change(
    tmp_path: Path, before: list[str], after: list[str], key: str
) -> None:
    opened(tmp_path / "s", smoke(*before)).close()
    with pytest.raises(InputError, match="--fresh") as caught:
        Ledger(tmp_path / "s", smoke(*after))
    assert caught.value.key == key
    opened(tmp_path / "s", smoke(*before, "title=other")).close()


def test_how_much_is_kept_and_where_the_data_lies_may_change(
    tmp_path: Path, tiny_study: Study
) -> None:
    def coco(**data: object) -> Study:
        files = {"kind": "coco_pose", "root": "/here", "input_size": [64, 64], **data}
        return Study.model_validate({**tiny_study.model_dump(), "data": files})

    opened(tmp_path / "s", coco()).close()
    opened(tmp_path / "s", coco(cache_gib=1.5, root="/there")).close()
    with pytest.raises(InputError, match="--fresh"):
        Ledger(tmp_path / "s", coco(cache_gib=1.5, input_size=[64, 32]))


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path / "s", smoke()):
        with pytest.raises(InputError, match=f"process {os.getpid()}"):
            Ledger(tmp_path / "s", smoke())
        with pytest.raises(InputError, match="being run"):
            set_aside(tmp_path / "s")


def test_the_lock_of_a_killed_driver_is_free(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path;"
        "from hrnet_search.search.ledger import Ledger; from hrnet_search.study import load_study;"
        "l = Ledger(Path(sys.argv[1]), load_study(Path(sys.argv[2])));"
        "print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "s"), str(SMOKE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid}"):
            Ledger(tmp_path / "s", smoke())
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    Ledger(tmp_path / "s", smoke()).close()


def test_fresh_keeps_the_old_run_beside_the_new(tmp_path: Path) -> None:
    assert set_aside(tmp_path / "s") is None
    with opened(tmp_path / "s", smoke()) as ledger:
        run_all(ledger)
    kept = set_aside(tmp_path / "s")
    assert kept is not None
    assert not (tmp_path / "s").exists()
    assert len(read_json_lines(kept / "results.jsonl")) == 4


def test_a_job_is_complete_enough_to_build_its_network(tmp_path: Path) -> None:
    with opened(tmp_path / "s", smoke()) as ledger:
        job = ledger.next()
        assert job is not None
        written = read_json(ledger.trial_folder(job.trial) / "trial.json")
    assert written == vars(job)
    assert written["arch"] == smoke().network({"across": False}).to_dict()
