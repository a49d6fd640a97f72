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
from optuna.trial import TrialState

from hrnet_search.files import read_json_lines

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "studies" / "smoke.yaml"
# Longer trials than the shipped ones, so that there is a middle to stop in.
STEPS = ["--set", "train.steps=60", "--set", "train.evaluations=3"]


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
    """Until `count` trials have a result and another has begun to train."""
    trials = folder / "runs" / "smoke" / "trials"
    for _ in range(1200):
        done = len(list(trials.glob("*/result.json")))
        begun = sum(file.stat().st_size > 0 for file in trials.glob("*/history.jsonl"))
        if done >= count and begun > done:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError("the study did not get that far in two minutes")


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
    assert names == {
        "environment.json", "lock", "profiles", "results.jsonl", "study.db", "study.yaml", "trials",
    }  # fmt: skip
    assert not list(finished.rglob(".*"))


def test_results_hold_what_reports_need(finished: Path) -> None:
    for line in results(finished):
        assert set(line["metrics"]) == {"ap", "ap50", "ap75", "ar"}
        assert {"params", "macs", "paper_gflops", "memory", "latency"} <= set(line["profile"])
        assert line["history"][-1]["step"] == 60
        assert line["history"][-1]["ap"] == line["metrics"]["ap"]
        assert line["environment"]["threads_per_trial"] == 1


def test_a_finished_study_trains_nothing_again(finished: Path) -> None:
    files = sorted((finished / "runs" / "smoke" / "trials").rglob("*"))
    before = [(file, file.stat().st_mtime_ns) for file in files]
    done = run(finished, *STEPS)
    assert done.returncode == 0, done.stderr
    assert "all 4 trials are done" in done.stderr
    assert [(file, file.stat().st_mtime_ns) for file in files] == before


def test_ctrl_c_leaves_a_study_that_continues(finished: Path, tmp_path: Path) -> None:
    with start(tmp_path, *STEPS, "--jobs", "1") as process:
        wait_for(tmp_path, process, 1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "To continue the study:  hrnet-search run" in errors
    assert "Traceback" not in errors
    kept = {line["trial"]: line["started"] for line in results(tmp_path)}
    assert kept
    done = run(tmp_path, *STEPS)
    assert done.returncode == 0, done.stderr
    assert_every_trial_once(tmp_path)
    assert {r["trial"]: r["started"] for r in results(tmp_path) if r["trial"] in kept} == kept
    assert scores(tmp_path) == scores(finished)


def test_kill_9_leaves_a_study_that_continues(finished: Path, tmp_path: Path) -> None:
    with start(tmp_path, *STEPS) as process:
        wait_for(tmp_path, process, 0)
        process.kill()
        process.wait()
    done = run(tmp_path, *STEPS)
    assert done.returncode == 0, done.stderr
    assert_every_trial_once(tmp_path)
    assert scores(tmp_path) == scores(finished)


def test_a_killed_worker_is_replaced_and_no_port_is_open_to_others(tmp_path: Path) -> None:
    with start(tmp_path, *STEPS, "--jobs", "1") as process:
        wait_for(tmp_path, process, 0)
        family = descendants(process.pid)
        addresses = listening_addresses([process.pid, *family])
        (worker,) = [pid for pid, title in family.items() if "ImplicitFunc" in title]
        os.kill(worker, signal.SIGKILL)
        errors = process.communicate(timeout=200)[1]
    assert process.returncode == 0, errors
    assert "its worker died" in errors
    assert_every_trial_once(tmp_path)
    assert sum(line["attempt"] for line in results(tmp_path)) == 5
    assert addresses, "Ray listens somewhere"
    assert addresses <= {"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"}


def test_failed_trials_are_listed_and_the_exit_status_is_1(tmp_path: Path) -> None:
    done = run(tmp_path, "--set", "train.lr=1e30", "--set", "train.optimizer=sgd")
    assert done.returncode == 1, done.stderr
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
