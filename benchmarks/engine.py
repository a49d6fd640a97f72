"""What does running a study cost beside its training?

    python benchmarks/engine.py [--trials 30] [--seconds 30] [--empty 300] [--jobs 2]

First a study of so many trials, each of about so many seconds, through the command line: wall time
from start to report, against the seconds that its trials trained and evaluated, divided by the
trials at a time. A ratio of 1 would be an engine that costs nothing.

Then so many trials that do nothing, through the ledger and Ray Tune, against as many through plain
Ray Tune, which keeps no record: trials per second, after the first ones, which wait for worker
processes. `--trials 0` and `--empty 0` leave a part out.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from hrnet_search.files import read_json_lines
from hrnet_search.search.display import Display
from hrnet_search.search.engine import _run_rounds
from hrnet_search.search.ledger import Ledger
from hrnet_search.search.machines import connect
from hrnet_search.search.session import Session
from hrnet_search.study import load_study

SMOKE = Path(__file__).parents[1] / "studies" / "smoke.yaml"
ARMS = 2
TRIED = 200  # steps of the study that says how long a step takes
CONNECTED = "this machine's Ray"  # in place of an address: it is there already
WARM = 10  # empty trials for each worker that are not counted


def run(folder: Path, *, seeds: int, steps: int, jobs: int) -> tuple[float, list[float]]:
    """Wall time of a study, and the seconds of each of its trials."""
    given = ["--set", f"seeds={seeds}", "--set", f"train.steps={steps}", "--jobs", str(jobs)]
    words = [sys.executable, "-m", "hrnet_search.cli", "run", str(SMOKE), "--out", str(folder)]
    start = time.perf_counter()
    subprocess.run([*words, "--quiet", *given], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    return wall, [r["seconds"] for r in read_json_lines(folder / "runs/smoke/results.jsonl")]


def compare_with_training(folder: Path, *, trials: int, seconds: float, jobs: int) -> None:
    """Print one line."""
    _, tried = run(folder / "tried", seeds=-(-jobs // ARMS), steps=TRIED, jobs=jobs)
    steps = max(2, round(seconds * TRIED * len(tried) / sum(tried)))
    wall, each = run(folder / "study", seeds=-(-trials // ARMS), steps=steps, jobs=jobs)
    ideal = sum(each) / jobs
    print(
        f"{len(each)} trials of {sum(each) / len(each):.1f} s, {jobs} at a time: {wall:.1f} s; "
        f"their training alone, shared out evenly, {ideal:.1f} s; ratio {wall / ideal:.3f}"
    )


def do_nothing(config: dict[str, Any]) -> None:
    """A trial that ends at once, with the record that the ledger waits for."""
    from pathlib import Path

    from ray import tune

    from hrnet_search.files import write_json
    from hrnet_search.result import Result
    from hrnet_search.search.job import Job, now

    folder, point = Path(config["folder"]), {"step": 1, "loss": 0.0, "ap": 0.0}
    costs = {"params": 1, "macs": 1, "latency": 1.0}
    result = Result(
        **vars(Job.read(folder)), state="complete", profile=costs, metrics={"ap": 0.0},
        history=[point], seconds=0.0, started=now(), ended=now(),
    )  # fmt: skip
    tune.report(point)
    write_json(folder / "result.json", result.to_dict())


def report_nothing(config: dict[str, Any]) -> None:
    """The same for plain Ray Tune."""
    from ray import tune

    tune.report({"step": 1, "loss": 0.0, "ap": 0.0})


def with_ledger(folder: Path, *, trials: int, jobs: int) -> list[float]:
    """When each empty trial of a study ended."""
    from hrnet_search.search import tuning

    ends: list[float] = []

    class Timed(tuning.LedgerSearch):
        def on_trial_complete(self, *given: Any, **more: Any) -> None:
            super().on_trial_complete(*given, **more)
            ends.append(time.perf_counter())

    study = load_study(SMOKE, [f"seeds={-(-trials // ARMS)}"])
    console = Console(quiet=True)
    patches = {"LedgerSearch": Timed, "train_trial": do_nothing}
    with Ledger(folder, study) as ledger, mock.patch.multiple(tuning, **patches):
        session = Session(ledger, jobs=jobs, steps=1)
        total = ledger.total()
        with Display(console, study, total=total, steps=1, before=[]) as display:
            _run_rounds(ledger, display, session, CONNECTED)
        assert ledger.counts()["complete"] == total
    return ends


def plainly(folder: Path, *, trials: int, jobs: int) -> list[float]:
    """When each empty trial of plain Ray Tune ended."""
    from ray import tune

    ends: list[float] = []

    class Timed(tune.Callback):
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune pickles it into a file that is never read

    tuner = tune.Tuner(
        tune.with_resources(report_nothing, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            num_samples=trials, max_concurrent_trials=jobs, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0, callbacks=[Timed()]),
    )
    tuner.fit()
    return ends


def rate(ends: list[float], *, jobs: int) -> float:
    """Trials per second after those that warm up."""
    counted = ends[WARM * jobs :]
    return (len(counted) - 1) / (counted[-1] - counted[0])


def compare_with_ray(folder: Path, *, trials: int, jobs: int) -> None:
    """Print one line."""
    with connect(None, cpus=jobs):  # before Ray is imported, which reads settings then
        ours = rate(with_ledger(folder / "ledger", trials=trials, jobs=jobs), jobs=jobs)
        plain = rate(plainly(folder / "plain", trials=trials, jobs=jobs), jobs=jobs)
    print(
        f"{trials} empty trials, {jobs} at a time: {ours:.1f} per second; "
        f"plain Ray Tune {plain:.1f} per second; ratio {ours / plain:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=30, help="of the study; 0: leave it out")
    parser.add_argument("--seconds", type=float, default=30, help="of one trial, about")
    parser.add_argument("--empty", type=int, default=300, help="empty trials; 0: leave them out")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    given = parser.parse_args()
    if given.empty and given.empty < (WARM + 2) * given.jobs:
        parser.error(f"--empty: at least {(WARM + 2) * given.jobs}, as {WARM} a worker warm up")
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.trials:
            compare_with_training(
                folder, trials=given.trials, seconds=given.seconds, jobs=given.jobs
            )
        if given.empty:
            compare_with_ray(folder, trials=given.empty, jobs=given.jobs)


if __name__ == "__main__":
    main()
