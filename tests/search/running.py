"""Whole studies through the command line: how tests start, watch and disturb them.

Nothing here depends on how fast anything is: what is waited for is a state, not a time.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import optuna
import torch
from optuna.trial import TrialState

from hrnet_search.files import read_json_lines

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "studies" / "smoke.yaml"
# Longer trials than the shipped ones, so that there is a middle to stop in.
STEPS = ["--set", "train.steps=60", "--set", "train.evaluations=3"]
SAVED = ["--set", "train.checkpoint_minutes=0"]  # after every step
PATIENCE = 600  # seconds, for a machine that is busy with other things
LOOK = 0.05  # seconds between two looks
# Of each kind of disturbance that slow tests make.
RUNS = range(int(os.environ.get("HRNET_SEARCH_CHAOS", "2")))

Scores = dict[tuple[str, int], tuple[dict, list]]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hrnet_search.cli", *arguments]


def run(study: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a study to its end; `folder` is `--out`, here and below."""
    given = command("run", str(study), "--out", str(folder), *arguments)
    return subprocess.run(given, capture_output=True, text=True, timeout=PATIENCE, check=False)


def start(study: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a study, as the leader of a process group, as a terminal does."""
    given = command("run", str(study), "--out", str(folder), *arguments)
    return subprocess.Popen(given, stderr=subprocess.PIPE, text=True, start_new_session=True)


def errors_of(process: subprocess.Popen[str]) -> str:
    """What a study says until it ends."""
    return process.communicate(timeout=PATIENCE)[1]


# --- what a study has left -------------------------------------------------------------------


def study_folder(folder: Path) -> Path:
    """`runs/<study>` of the only study."""
    (found,) = (folder / "runs").iterdir()
    return found


def results(folder: Path) -> list[dict]:
    return read_json_lines(study_folder(folder) / "results.jsonl")


def scores(folder: Path) -> Scores:
    """Arm and seed -> final metrics and history."""
    return {(r["arm"], r["seed"]): (r["metrics"], r["history"]) for r in results(folder)}


def stored(folder: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    """The trials as plain Optuna reads them."""
    storage = f"sqlite:///{study_folder(folder)}/study.db"
    return optuna.load_study(study_name=name, storage=storage).trials


def assert_every_trial_once(folder: Path, *, seeds: int = 2) -> None:
    """Of the smoke study: each network with each seed is complete, here and in Optuna's storage."""
    lines = results(folder)
    assert Counter((line["arm"], line["seed"]) for line in lines) == {
        (arm, seed): 1 for arm in ("across=false", "across=true") for seed in range(seeds)
    }
    assert all(line["state"] == "complete" for line in lines)
    states = [trial.state for trial in stored(folder, "smoke")]
    assert states == [TrialState.COMPLETE] * (2 * seeds)


def cut_off(folder: Path) -> list[Path]:
    """Checkpoints of trials without a result."""
    saved = folder.glob("runs/*/trials/*/checkpoint.pt")
    return [file for file in saved if not file.with_name("result.json").exists()]


def left_behind(folder: Path) -> dict[int, int]:
    """Trial -> step of its checkpoint, of trials without a result, once nobody works there."""
    files = cut_off(folder)
    return {int(file.parent.name): torch.load(file, weights_only=True)["step"] for file in files}


def resumed(folder: Path) -> dict[int, int]:
    """Trial -> step from which it went on."""
    found = {line["trial"]: line["environment"].get("resumed_from") for line in results(folder)}
    return {trial: step for trial, step in found.items() if step is not None}


# --- waiting and disturbing ------------------------------------------------------------------


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for something that a study does while it runs."""
    for _ in range(int(PATIENCE / LOOK)):
        if condition():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(LOOK)
    raise AssertionError(f"the study did not get that far in {PATIENCE} seconds")


def wait_for(folder: Path, process: subprocess.Popen[str], count: int) -> None:
    """Until `count` trials have a result and another has been saved."""

    def is_there() -> bool:
        done = len(list(folder.glob("runs/*/trials/*/result.json")))
        return done >= count and bool(cut_off(folder))

    wait_until(is_there, process)


def wait_until_gone(pids: Iterable[int]) -> None:
    """Until these processes have ended, also those whose parent was killed."""
    pids = list(pids)
    for _ in range(int(PATIENCE / LOOK)):
        if not any(state(pid) for pid in pids):
            return
        time.sleep(LOOK)
    raise AssertionError(f"processes are still there: {[pid for pid in pids if state(pid)]}")


def halted_worker(folder: Path, process: subprocess.Popen[str], *, count: int = 0) -> int:
    """The worker of a study with one trial at a time, halted in the middle of a trial.

    At least `count` trials have a result by then, and this one has been saved.
    """
    while True:
        wait_for(folder, process, count)
        family = descendants(process.pid)
        found = [pid for pid, title in family.items() if "ImplicitFunc" in title]
        for pid in found:
            halt(pid)
        if len(found) == 1 and cut_off(folder):
            return found[0]
        for pid in found:  # the trial has ended meanwhile
            send(signal.SIGCONT, pid)


def halt(pid: int) -> None:
    """Stop a process where it is, and wait until it has stopped."""
    send(signal.SIGSTOP, pid)
    while state(pid) not in ("", "T"):
        time.sleep(LOOK)


def send(number: signal.Signals, pid: int) -> None:
    """A signal, to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def state(pid: int) -> str:
    """The kernel's letter for what a process does; empty if it has ended."""
    try:
        letter = _stat(Path(f"/proc/{pid}"))[0]
    except OSError:
        return ""
    return "" if letter in "ZX" else letter


def descendants(pid: int) -> dict[int, str]:
    """Processes below `pid`: number -> title."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(_stat(folder)[1])
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


def _stat(folder: Path) -> list[str]:
    """After the name in brackets, which may hold anything: state, parent, ..."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


# --- listening ---------------------------------------------------------------------------------


def listening_addresses(pids: Iterable[int]) -> set[str]:
    """Local addresses that these processes listen on for TCP."""
    sockets = {target for pid in pids for target in open_files(pid)}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:  # 0A: listening
                found.add(_address(fields[1].partition(":")[0]))
    return found


def open_files(pid: int) -> set[str]:
    """Files and sockets that a process has open."""
    found = set()
    with contextlib.suppress(OSError):  # the process has ended
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.add(os.readlink(link))
    return found


def _address(text: str) -> str:
    """An address as the kernel prints it: 32-bit words in the host's byte order."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    raw = b"".join(words)
    if len(raw) == 4:
        return ".".join(map(str, raw))
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return "[::ffff:" + ".".join(map(str, raw[12:])) + "]"
    return "[::1]" if raw == b"\0" * 15 + b"\x01" else f"[{raw.hex()}]"
