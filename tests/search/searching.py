"""A search that takes no time: networks are scored by a formula instead of being trained."""

import json
from pathlib import Path
from typing import Any

import optuna
import yaml
from tiny import TINY_POSE_STUDY

from hrnet_search.arch import ArchSpec
from hrnet_search.files import read_json, write_json
from hrnet_search.result import Result
from hrnet_search.search.job import Job
from hrnet_search.search.ledger import Ledger
from hrnet_search.study import Study

ROOT = Path(__file__).parents[2]
STEPS = 18
SMALL = {  # 4 x 2 x 2 x 4 = 64 different networks
    "base": {**TINY_POSE_STUDY["space"]["base"]},
    "vary": {
        "width": {"low": 2, "high": 8, "step": 2},
        "num_blocks": {"choices": [1, 2]},
        "final": {"choices": [False, True]},
        "stage1_width": {"choices": [4, 6, 8, 10]},
    },
}
for _knob in SMALL["vary"]:
    SMALL["base"].pop(_knob, None)


def searching(*, space: dict[str, Any] = SMALL, seeds: int = 1, **search: Any) -> Study:
    """A study that searches 64 networks, unless another space is given."""
    given = {"sampler": "tpe", "networks": 200, **search}
    train = {**TINY_POSE_STUDY["train"], "steps": STEPS, "evaluations": 9}
    objectives = ["metrics.ap", "profile.macs"]
    raw = {**TINY_POSE_STUDY, "space": space, "search": given, "seeds": seeds, "train": train}
    return Study.model_validate({**raw, "objectives": objectives})


def full_space(**limits: float) -> dict[str, Any]:
    """The shipped space of 184 million combinations."""
    raw = yaml.safe_load((ROOT / "spaces" / "hrnet_full.yaml").read_text())
    return {**raw, "limits": {f"profile.{name}": most for name, most in limits.items()}}


def unmeasured(_: ArchSpec) -> dict[str, float]:
    return {"latency": 0.001}


def score(key: str, seed: int = 0) -> float:
    """What is taken for a network's AP: spread over 0 to 1, the same each time."""
    return (int(key[:6], 16) + seed) % 997 / 997


def opened(folder: Path, study: Study) -> Ledger:
    """The ledger of a search, ready to hand out trials."""
    ledger = Ledger(folder, study)
    ledger.keep_study()

    def measure(network: ArchSpec) -> dict[str, float]:
        file = folder / "profiles" / f"{network.key}.json"
        write_json(file, {"macs": 1000 + int(network.key[:3], 16), "latency": 0.001})
        return read_json(file)

    ledger.plan(steps=STEPS, measure=measure)
    return ledger


def history(ap: float) -> list[dict[str, float]]:
    """What a training reports that ends at `ap`, growing evenly."""
    return [{"step": 2 * n, "loss": 1.0, "ap": ap * (n / 9)} for n in range(1, 10)]


def work(ledger: Ledger, job: Job, *, state: str = "complete") -> None:
    """What a worker leaves behind, heeding what it is told at each point."""
    ap = score(job.key, job.seed)
    points: list[dict[str, float]] = []
    for point in history(ap):
        points.append(point)
        if ledger.report(job.trial, point):
            state = "pruned"
            break
    write_result(ledger, job, state=state, ap=ap, points=points)


def write_result(
    ledger: Ledger,
    job: Job,
    *,
    state: str,
    ap: float,
    points: list[dict[str, float]],
    cause: str = "error",
) -> None:
    error = {"type": "E", "message": "m", "traceback": "", "cause": cause}
    result = Result(
        **vars(job),
        state=state,  # type: ignore[arg-type]
        profile=read_json(ledger.folder / "profiles" / f"{job.key}.json"),
        metrics={"ap": ap} if state == "complete" else {},
        history=points,
        seconds=1.0,
        started="2020-01-01T00:00:00+00:00",
        error=error if state == "failed" else None,
    )
    write_json(ledger.trial_folder(job.trial) / "result.json", result.to_dict())


def run_all(ledger: Ledger, *, most: int = 10_000) -> list[Job]:
    jobs: list[Job] = []
    while len(jobs) < most and (job := ledger.next()):
        work(ledger, job)
        ledger.finish(job.trial)
        jobs.append(job)
    return jobs


def stored(folder: Path, name: str = "tiny") -> list[optuna.trial.FrozenTrial]:
    """The trials as plain Optuna reads them."""
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/study.db").trials


def networks(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return stored(folder, "tiny/networks")


def told(trials: list[optuna.trial.FrozenTrial]) -> list[str]:
    """Everything about trials but their times."""
    return [
        json.dumps([t.number, t.state.name, t.values, t.params, t.user_attrs], sort_keys=True)
        for t in trials
    ]
