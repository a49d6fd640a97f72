"""Studies whose processes are killed at random end as if nothing had happened.

    HRNET_SEARCH_CHAOS=20 python -m pytest -m slow tests/search/test_chaos.py

runs each kind of disturbance twenty times, instead of twice; the seed is in the test's name.
"""

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState
from running import (
    LOOK,
    PATIENCE,
    RUNS,
    SAVED,
    SMOKE,
    STEPS,
    assert_every_trial_once,
    descendants,
    errors_of,
    results,
    run,
    scores,
    send,
    start,
    stored,
    study_folder,
)

from hrnet_search.files import read_json, read_json_lines

pytestmark = pytest.mark.slow

SEEDS = 3
TRIALS = 2 * SEEDS
ALL_STEPS = 60 * TRIALS
KILLS = 2  # in a run
GIVEN = [
    *(*STEPS, *SAVED, "--jobs", "2"),
    *("--set", f"seeds={SEEDS}", "--set", "search.max_failures=100"),
]

Process = subprocess.Popen[str]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(SMOKE, folder, *GIVEN)
    assert done.returncode == 0, done.stderr
    assert_every_trial_once(folder, seeds=SEEDS)
    return folder


def steps_done(folder: Path) -> int:
    """Of all trials."""
    files = folder.glob("runs/*/trials/*/history.jsonl")
    return sum(len(read_json_lines(file)) for file in files)


def wait_for_moment(folder: Path, process: Process, rng: random.Random) -> bool:
    """Wait for a random moment of the study; False if it has ended before.

    Half of the moments lie in its training, the others where the driver has just been started.
    """
    wanted = max(0, rng.randrange(-ALL_STEPS, ALL_STEPS))
    end = time.monotonic() + PATIENCE
    while steps_done(folder) < wanted:
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, f"no {wanted} steps in {PATIENCE} seconds"
        time.sleep(LOOK)
    time.sleep(rng.uniform(0, 5 if wanted == 0 else 0.5))
    return process.poll() is None


def kill_driver(process: Process) -> None:
    """Its workers may live for a while, beside those of the next driver."""
    process.kill()


def kill_everything(process: Process) -> None:
    for pid in (process.pid, *descendants(process.pid)):
        send(signal.SIGKILL, pid)


def run_with_dying_drivers(
    folder: Path, rng: random.Random, kill: Callable[[Process], None]
) -> int:
    """Start the study until it ends by itself; returns how often it was killed."""
    kills = 0
    while True:
        with start(SMOKE, folder, *GIVEN) as process:
            if kills < KILLS and wait_for_moment(folder, process, rng):
                kill(process)
                kills += 1
                continue  # at once: what is left of the old one may still be there
            errors = errors_of(process)
        assert process.returncode == 0, errors
        return kills


def run_with_dying_workers(folder: Path, rng: random.Random) -> int:
    """Run the study while workers of trials are killed; returns how many were."""
    kills = 0
    with start(SMOKE, folder, *GIVEN) as process:
        while kills < KILLS and wait_for_moment(folder, process, rng):
            family = descendants(process.pid)
            workers = sorted(pid for pid, title in family.items() if "ImplicitFunc" in title)
            if workers:
                send(signal.SIGKILL, rng.choice(workers))
                kills += 1
        errors = errors_of(process)
    assert process.returncode == 0, errors
    return kills


def assert_nothing_happened(folder: Path, undisturbed: Path) -> None:
    """The study is as if it had been left alone."""
    assert_every_trial_once(folder, seeds=SEEDS)
    assert scores(folder) == scores(undisturbed)
    trials = {trial.number: trial for trial in stored(folder, "smoke")}
    assert len(trials) == TRIALS
    for line in results(folder):
        trial = trials[line["trial"]]
        assert trial.state == TrialState.COMPLETE
        assert trial.values[0] == line["metrics"]["ap"]
        assert (trial.user_attrs["key"], trial.user_attrs["seed"]) == (line["key"], line["seed"])
    home = study_folder(folder)
    assert Counter(file.parent.name for file in home.glob("trials/*/result.json")) == {
        f"{number:05d}": 1 for number in range(TRIALS)
    }
    in_folders = {r["trial"]: r for r in map(read_json, home.glob("trials/*/result.json"))}
    assert {line["trial"]: line for line in results(folder)} == in_folders
    assert not (home / "ray").exists()
    assert not list(home.glob("trials/*/.*")), "half a file is left"
    assert not list(home.glob("trials/*/checkpoint.pt"))
    status = read_json(home / "status.json")
    assert (status["state"], status["counts"]["complete"]) == ("finished", TRIALS)


@pytest.mark.parametrize("seed", RUNS)
def test_drivers_that_are_killed(undisturbed: Path, tmp_path: Path, seed: int) -> None:
    assert run_with_dying_drivers(tmp_path, random.Random(seed), kill_driver)
    assert_nothing_happened(tmp_path, undisturbed)


@pytest.mark.parametrize("seed", RUNS)
def test_drivers_that_are_killed_with_all_below(
    undisturbed: Path, tmp_path: Path, seed: int
) -> None:
    assert run_with_dying_drivers(tmp_path, random.Random(1000 + seed), kill_everything)
    assert_nothing_happened(tmp_path, undisturbed)


@pytest.mark.parametrize("seed", RUNS)
def test_workers_that_are_killed(undisturbed: Path, tmp_path: Path, seed: int) -> None:
    assert run_with_dying_workers(tmp_path, random.Random(2000 + seed))
    assert_nothing_happened(tmp_path, undisturbed)
