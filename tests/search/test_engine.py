"""Whole studies through the command line, undisturbed and disturbed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from hrnet_search.files import read_json_lines

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "studies" / "smoke.yaml"
# Longer trials than the shipped ones, so that there is a middle to stop in.
STEPS = ["--set", "train.steps=60", "--set", "train.evaluations=3"]
SAVED = ["--set", "train.checkpoint_minutes=0"]  # after every step


LOOPBACK = {"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hrnet_search.cli", *arguments]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = command("run", str(SMOKE), "--out", str(folder), *arguments)
    return subprocess.run(given, capture_output=True, text=True, timeout=240, check=False)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    given = command("run", str(SMOKE), "--out", str(folder), *arguments)
    return subprocess.Popen(given, stderr=subprocess.PIPE, text=True, start_new_session=True)


def results(folder: Path) -> list[dict]:
    return read_json_lines(folder / "runs" / "smoke" / "results.jsonl")


def assert_every_trial_once(folder: Path) -> None:
    lines = results(folder)
    assert Counter((line["arm"], line["seed"]) for line in lines) == {
        (arm, seed): 1 for arm in ("across=false", "across=true") for seed in (0, 1)
    }
    assert all(line["state"] == "complete" for line in lines)
    storage = f"sqlite:///{folder}/runs/smoke/study.db"
    trials = optuna.load_study(study_name="smoke", storage=storage).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4


def wait_for(folder: Path, process: subprocess.Popen[str], count: int) -> None:
    """Until `count` trials have a result and another has been saved."""
    trials = folder / "runs" / "smoke" / "trials"
    for _ in range(1200):
        done = len(list(trials.glob("*/result.json")))
        saved = [file for file in trials.glob("*/checkpoint.pt") if not result_of(file).exists()]
        if done >= count and saved:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError("the study did not get that far in two minutes")


def result_of(file: Path) -> Path:
    return file.with_name("result.json")


def left_behind(folder: Path) -> dict[int, int]:
    """Trial -> step of its checkpoint, of trials without a result, once nothing changes there."""
    trials = folder / "runs" / "smoke" / "trials"
    before = None
    while before != (now := {file: file.stat().st_mtime_ns for file in trials.glob("*/*.*")}):
        before = now
        time.sleep(2)
    saved = [file for file in trials.glob("*/checkpoint.pt") if not result_of(file).exists()]
    return {int(file.parent.name): torch.load(file, weights_only=True)["step"] for file in saved}


def resumed(folder: Path) -> dict[int, int]:
    """Trial -> step from which it went on."""
    found = {line["trial"]: line["environment"].get("resumed_from") for line in results(folder)}
    return {trial: step for trial, step in found.items() if step is not None}


def scores(folder: Path) -> dict[tuple[str, int], tuple[dict, list]]:
    return {(r["arm"], r["seed"]): (r["metrics"], r["history"]) for r in results(folder)}


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
    names = {path.name for path in (finished / "runs" / "smoke").iterdir()}
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
    files = sorted((finished / "runs" / "smoke" / "trials").rglob("*"))
    before = [(file, file.stat().st_mtime_ns) for file in files]
    done = run(finished, *STEPS)
    assert done.returncode == 0, done.stderr
    assert "all 4 trials are done" in done.stderr
    assert [(file, file.stat().st_mtime_ns) for file in files] == before


def test_ctrl_c_leaves_a_study_that_continues(finished: Path, tmp_path: Path) -> None:
    with start(tmp_path, *STEPS, *SAVED, "--jobs", "1") as process:
        wait_for(tmp_path, process, 1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "To continue the study:  hrnet-search run" in errors
    assert "Traceback" not in errors
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
        process.kill()
        process.wait()
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
        wait_for(tmp_path, process, 0)
        family = descendants(process.pid)
        addresses = listening_addresses([process.pid, *family])
        (worker,) = [pid for pid, title in family.items() if "ImplicitFunc" in title]
        os.kill(worker, signal.SIGKILL)
        errors = process.communicate(timeout=200)[1]
    assert process.returncode == 0, errors
    assert "again: the worker process died" in errors
    assert_every_trial_once(tmp_path)
    assert sum(line["attempt"] for line in results(tmp_path)) == 5
    (step,) = resumed(tmp_path).values()
    assert 1 <= step <= 60
    assert scores(tmp_path) == scores(finished)
    assert addresses, "Ray listens somewhere"
    assert addresses <= LOOPBACK


ONE_TRIAL = ["--set", "seeds=1", "--set", "space.vary.across.choices=[true]"]


def test_two_processes_share_a_trial(tmp_path: Path) -> None:
    with start(tmp_path, *ONE_TRIAL, *SAVED, "--set", "train.processes=2") as process:
        wait_for(tmp_path, process, 0)
        family = descendants(process.pid)
        addresses = listening_addresses([process.pid, *family])
        errors = process.communicate(timeout=200)[1]
    assert process.returncode == 0, errors
    assert len([pid for pid, title in family.items() if "RayTrainWorker" in title]) == 2
    assert addresses <= LOOPBACK
    (line,) = results(tmp_path)
    assert (line["state"], line["attempt"]) == ("complete", 1)
    assert [entry["step"] for entry in line["history"]] == list(range(1, 13))
    assert line["history"][-1]["ap"] == line["metrics"]["ap"]
    assert line["environment"]["processes"] == 2
    assert not list(tmp_path.rglob("checkpoint.pt"))
    assert not (tmp_path / "runs" / "smoke" / "ray").exists()


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
    trial = tmp_path / "runs" / "smoke" / "trials" / "00000"
    given = [*ONE_TRIAL, *STEPS, *SAVED, "--set", "train.processes=2"]
    with start(tmp_path, *given) as process:
        for of_train, reached in ((True, 8), (False, 25)):
            while len(read_json_lines(trial / "history.jsonl")) <= reached:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.05)
            family = descendants(process.pid)
            own = next(pid for pid, title in family.items() if "ImplicitFunc" in title)
            victim = by_rank(family, trial / "history.jsonl")[rank] if of_train else own
            os.kill(victim, signal.SIGKILL)
        errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors
    (line,) = results(tmp_path)
    assert (line["state"], line["attempt"]) == ("complete", 3)
    assert line["environment"]["resumed_from"] >= 25
    assert [entry["step"] for entry in line["history"]] == list(range(1, 61))


def by_rank(family: dict[int, str], history: Path) -> list[int]:
    """The two processes of Train's that share a trial: the first is the one that writes."""
    workers = [pid for pid, title in family.items() if "RayTrainWorker" in title]
    assert len(workers) == 2
    writes = {
        pid: any(os.readlink(link) == str(history) for link in _links(Path(f"/proc/{pid}/fd")))
        for pid in workers
    }
    assert sorted(writes.values()) == [False, True]
    return sorted(workers, key=lambda pid: not writes[pid])


def test_failed_trials_are_listed_and_the_exit_status_is_1(tmp_path: Path) -> None:
    # So long that it has diverged before the first report, which Ray would say on its own.
    long = ["--set", "train.steps=1000"]
    done = run(tmp_path, *long, "--set", "train.lr=1e30", "--set", "train.optimizer=sgd")
    assert done.returncode == 1, done.stderr
    assert "Last result" not in done.stdout + done.stderr
    assert len(re.findall(r"^failed: trial \d .*Diverged", done.stderr, re.MULTILINE)) == 4
    assert "Traceback" not in done.stderr
    assert (tmp_path / "reports" / "smoke" / "index.html").is_file()


def descendants(pid: int) -> dict[int, str]:
    """Processes below `pid`: number -> title."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # After the name in brackets, which may hold anything: state, parent, ...
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            titles[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended
            continue
    found: dict[int, str] = {}
    frontier = [pid]
    while frontier:
        parent = frontier.pop()
        children = [child for child, its in parents.items() if its == parent]
        found |= {child: titles.get(child, "") for child in children}
        frontier += children
    return found


def listening_addresses(pids: list[int]) -> set[str]:
    """Local addresses that these processes listen on for TCP."""
    sockets = {os.readlink(link) for pid in pids for link in _links(Path(f"/proc/{pid}/fd"))}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:  # 0A: listening
                found.add(_address(fields[1].partition(":")[0]))
    return found


def _links(folder: Path) -> list[Path]:
    try:
        return [link for link in folder.iterdir() if os.path.lexists(link)]
    except OSError:  # the process has ended
        return []


def _address(text: str) -> str:
    """An address as the kernel prints it: 32-bit words in the host's byte order."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    raw = b"".join(words)
    if len(raw) == 4:
        return ".".join(map(str, raw))
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return "[::ffff:" + ".".join(map(str, raw[12:])) + "]"
    return "[::1]" if raw == b"\0" * 15 + b"\x01" else f"[{raw.hex()}]"
