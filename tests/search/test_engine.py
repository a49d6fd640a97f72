"""Whole studies through the command line, undisturbed and disturbed."""

import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from running import (
    LOOK,
    SAVED,
    SMOKE,
    STEPS,
    assert_every_trial_once,
    descendants,
    errors_of,
    halt,
    halted_worker,
    left_behind,
    listening_addresses,
    open_files,
    results,
    resumed,
    scores,
    send,
    study_folder,
    wait_for,
    wait_until,
    wait_until_gone,
)
from running import run as run_study
from running import start as start_study

from hrnet_search.files import read_json_lines

LOOPBACK = {"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"}
ONE_TRIAL = ["--set", "seeds=1", "--set", "space.vary.across.choices=[true]"]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_study(SMOKE, folder, *arguments)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return start_study(SMOKE, folder, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smoke study run to its end, with its report and winner."""
    folder = tmp_path_factory.mktemp("finished")
    done = run(folder, *STEPS)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_study_runs_to_a_report_and_a_winner(finished: Path) -> None:
    assert_every_trial_once(finished)
    report = finished / "reports" / "smoke"
    for name in ("index.html", "table.md", "table.csv", "results.csv"):
        assert (report / name).stat().st_size > 0
    for name in ("arch.json", "weights.safetensors", "example.py", "network/model/hrnet.py"):
        assert (report / "winner" / name).is_file()


def test_nothing_of_ray_and_nothing_half_written_is_left(finished: Path) -> None:
    names = {path.name for path in study_folder(finished).iterdir()}
    assert names - {"changes.diff"} == {  # that is there where studies/ differs from its commit
        "environment.json", "lock", "profiles", "results.jsonl", "status.json", "study.db",
        "study.yaml", "trials",
    }  # fmt: skip
    assert not list((finished / "runs").rglob("stop.json"))
    assert not list(finished.rglob(".*"))
    assert not list(finished.rglob("checkpoint.pt"))


def test_results_hold_what_reports_need(finished: Path) -> None:
    for line in results(finished):
        assert set(line["metrics"]) == {"ap", "ap50", "ap75", "ar"}
        assert {"params", "macs", "paper_gflops", "memory", "latency"} <= set(line["profile"])
        assert line["history"][-1]["step"] == 60
        assert line["history"][-1]["ap"] == line["metrics"]["ap"]
        assert line["environment"]["threads_per_trial"] == 1
        assert line["environment"]["processes"] == 1
        assert line["environment"]["steps"] == 60
        assert "resumed_from" not in line["environment"]


def test_a_finished_study_trains_nothing_again(finished: Path) -> None:
    files = sorted((study_folder(finished) / "trials").rglob("*"))
    before = [(file, file.stat().st_mtime_ns) for file in files]
    scratch = study_folder(finished) / "ray" / "of a driver that was killed at the very end"
    scratch.mkdir(parents=True)
    done = run(finished, *STEPS)
    assert done.returncode == 0, done.stderr
    assert "all 4 trials are done" in done.stderr
    assert [(file, file.stat().st_mtime_ns) for file in files] == before
    assert not scratch.parent.exists()


def test_ctrl_c_leaves_a_study_that_continues(finished: Path, tmp_path: Path) -> None:
    with start(tmp_path, *STEPS, *SAVED, "--jobs", "1") as process:
        worker = halted_worker(tmp_path, process, count=1)
        family = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        errors = errors_of(process)
        send(signal.SIGKILL, worker)  # it could not end by itself
    assert process.returncode == 130
    assert "To continue the study:  hrnet-search run" in errors
    assert "Traceback" not in errors
    wait_until_gone(family)
    kept = {line["trial"]: line["started"] for line in results(tmp_path)}
    assert kept
    left = left_behind(tmp_path)
    assert len(left) == 1
    done = run(tmp_path, *STEPS, *SAVED)
    assert done.returncode == 0, done.stderr
    assert_every_trial_once(tmp_path)
    assert {r["trial"]: r["started"] for r in results(tmp_path) if r["trial"] in kept} == kept
    assert resumed(tmp_path) == left
    assert scores(tmp_path) == scores(finished)


def test_kill_9_leaves_a_study_that_continues(finished: Path, tmp_path: Path) -> None:
    with start(tmp_path, *STEPS, *SAVED) as process:
        wait_for(tmp_path, process, 0)
        family = descendants(process.pid)
        process.kill()
        process.wait()
    # Ray itself takes a minute to notice, its workers end at once.
    wait_until_gone(pid for pid, title in family.items() if "ImplicitFunc" in title)
    left = left_behind(tmp_path)
    done = run(tmp_path, *STEPS, *SAVED)
    assert done.returncode == 0, done.stderr
    assert_every_trial_once(tmp_path)
    assert resumed(tmp_path) == left
    assert scores(tmp_path) == scores(finished)


def test_a_killed_worker_is_replaced_and_no_port_is_open_to_others(
    finished: Path, tmp_path: Path
) -> None:
    with start(tmp_path, *STEPS, *SAVED, "--jobs", "1") as process:
        worker = halted_worker(tmp_path, process)
        addresses = listening_addresses([process.pid, *descendants(process.pid)])
        os.kill(worker, signal.SIGKILL)
        errors = errors_of(process)
    assert process.returncode == 0, errors
    assert "again: the worker process died" in errors
    assert_every_trial_once(tmp_path)
    assert sum(line["attempt"] for line in results(tmp_path)) == 5
    (step,) = resumed(tmp_path).values()
    assert 1 <= step <= 60
    assert scores(tmp_path) == scores(finished)
    assert addresses, "Ray listens somewhere"
    assert addresses <= LOOPBACK


def test_two_processes_share_a_trial(tmp_path: Path) -> None:
    seen, addresses = Counter[int](), set()
    with start(tmp_path, *ONE_TRIAL, *SAVED, "--set", "train.processes=2") as process:
        while process.poll() is None:
            family = descendants(process.pid)
            seen.update(pid for pid, title in family.items() if "RayTrainWorker" in title)
            addresses |= listening_addresses([process.pid, *family])
            time.sleep(LOOK)
        errors = errors_of(process)
    assert process.returncode == 0, errors
    # A fork that is about to run something else still has its parent's title.
    assert len([pid for pid, looks in seen.items() if looks > 2]) == 2
    assert addresses, "Ray listens somewhere"
    assert addresses <= LOOPBACK
    (line,) = results(tmp_path)
    assert (line["state"], line["attempt"]) == ("complete", 1)
    assert [entry["step"] for entry in line["history"]] == list(range(1, 13))
    assert line["history"][-1]["ap"] == line["metrics"]["ap"]
    assert line["environment"]["processes"] == 2
    assert not list(tmp_path.rglob("checkpoint.pt"))
    assert not (study_folder(tmp_path) / "ray").exists()


@pytest.mark.slow
def test_a_failure_in_a_shared_trial_is_its_result(tmp_path: Path) -> None:
    extra = ["--set", "train.processes=2", "--set", "train.lr=1e30", "--set", "train.optimizer=sgd"]
    done = run(tmp_path, *ONE_TRIAL, *extra)
    assert done.returncode == 1, done.stderr
    assert len(re.findall(r"^failed: trial 0 .*Diverged", done.stderr, re.MULTILINE)) == 1
    (line,) = results(tmp_path)
    assert line["error"]["type"] == "Diverged"
    assert line["attempt"] == 1
    assert "Last result" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_shared_trial_outlives_each_of_its_processes(tmp_path: Path, rank: int) -> None:
    """One of Train's, then the trial's own, which leaves Train's reservation behind."""
    history = tmp_path / "runs" / "smoke" / "trials" / "00000" / "history.jsonl"
    given = [*ONE_TRIAL, *STEPS, *SAVED, "--set", "train.processes=2"]
    with start(tmp_path, *given) as process:
        for of_train, reached in ((True, 8), (False, 25)):
            wait_until(lambda least=reached: len(read_json_lines(history)) > least, process)
            family = descendants(process.pid)
            workers = [pid for pid, title in family.items() if "RayTrainWorker" in title]
            for pid in workers:
                halt(pid)  # so that the trial does not end before it is disturbed
            own = next(pid for pid, title in family.items() if "ImplicitFunc" in title)
            victim = by_rank(workers, history)[rank] if of_train else own
            os.kill(victim, signal.SIGKILL)
            for pid in workers:
                send(signal.SIGCONT, pid)
        errors = errors_of(process)
    assert process.returncode == 0, errors
    (line,) = results(tmp_path)
    assert (line["state"], line["attempt"]) == ("complete", 3)
    assert line["environment"]["resumed_from"] >= 25
    assert [entry["step"] for entry in line["history"]] == list(range(1, 61))


def by_rank(workers: list[int], history: Path) -> list[int]:
    """The two processes of Train's that share a trial: the first is the one that writes."""
    writes = {pid: str(history) in open_files(pid) for pid in workers}
    assert sorted(writes.values()) == [False, True]
    return sorted(workers, key=lambda pid: not writes[pid])


def test_failed_trials_are_listed_and_the_exit_status_is_1(tmp_path: Path) -> None:
    # So long that it has diverged before the first report, which Ray would say on its own.
    long = ["--set", "train.steps=1000"]
    done = run(tmp_path, *long, "--set", "train.lr=1e30", "--set", "train.optimizer=sgd")
    assert done.returncode == 1, done.stderr
    assert "Last result" not in done.stdout + done.stderr
    assert len(re.findall(r"^failed: trial \d .*Diverged", done.stderr, re.MULTILINE)) == 4
    assert done.stderr.count("Traceback") == 1  # of the first
    assert (tmp_path / "reports" / "smoke" / "index.html").is_file()
