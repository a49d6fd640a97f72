"""One trial, start to end, in whatever process: reads `trial.json`, writes `result.json` last."""

import json
import math
import os
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save

from ..files import read_json, read_json_lines, write_atomic, write_json
from ..networks import initialise, network
from ..result import CLASS_FIGURES, Result
from ..study import Study, load_study
from ..tasks import load_task
from ..tasks.base import WHOLE, Part
from ..tasks.cache import Prepared
from ..training import Checkpoint, Hardware, identity, is_lost, train

Report = Callable[[dict[str, float]], None]


def run_trial(folder: Path, report: Report, *, part: Part = WHOLE) -> None:
    """Train the network of `folder/trial.json`; leave history, weights and result beside it.

    If an earlier attempt left a checkpoint, training goes on from there.

    Args:
        folder: `runs/<study>/trials/<number>`; the study lies two folders up.
        report: Called with every point of the history.
        part: (rank, processes) if several share the trial; this is the first of them.

    Raises:
        Exception: Another process is gone, of which this one only hears: there is no result, and
            the trial is started again. Or, with a result, what failed here, for the others to end.
    """
    torch.set_num_threads(1)
    job, environment = read_json(folder / "trial.json"), _environment(folder)
    study = load_study(folder.parents[1] / "study.yaml")
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    checkpoint = _checkpoint(folder)
    history = _cut_history(folder / "history.jsonl", checkpoint.step)
    if checkpoint.step:
        environment["resumed_from"] = checkpoint.step
    metrics: dict[str, float] = {}
    state: Literal["complete", "failed"] = "complete"
    failure: Exception | None = None
    try:
        with open(folder / "history.jsonl", "a") as file:

            def record(entry: dict[str, float]) -> None:
                history.append(entry)
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())  # before a checkpoint that is beyond it
                report(entry)

            metrics = _train(folder, checkpoint, record, part)
            if not all(map(math.isfinite, metrics.values())):
                raise ValueError(f"a metric is not a finite number: {metrics}")
            _check_measured(metrics, study)
    except Exception as exception:  # whatever a network does is that trial's result, no more
        if part != WHOLE and is_lost(exception):
            raise
        state, failure = "failed", exception
    result = Result(
        **job,
        state=state,
        profile=read_json(folder.parents[1] / "profiles" / f"{job['key']}.json"),
        metrics=metrics,
        history=history,
        seconds=checkpoint.seconds,
        started=started,
        environment=environment,
        error=None if failure is None else describe(failure),
        classes=_classes(folder, study.task.kind) if failure is None else {},
    )
    if read_json(folder / "trial.json")["attempt"] == job["attempt"]:  # else superseded
        write_json(folder / "result.json", result.to_dict())
        if state == "complete":
            checkpoint.remove()  # a failed trial that is run again goes on from it
    if failure is not None and part != WHOLE:
        raise failure  # so that the other processes end as well


def assist_trial(folder: Path, report: Report, *, part: Part) -> None:
    """Do the share of another process than the first; nothing is written."""
    torch.set_num_threads(1)
    _train(folder, _checkpoint(folder), report, part)


def describe(exception: BaseException) -> dict[str, str]:
    """The exception as a result keeps it."""
    return {
        "type": type(exception).__name__,
        "message": str(exception),
        "traceback": "".join(traceback.format_exception(exception)),
    }


def _train(folder: Path, checkpoint: Checkpoint, report: Report, part: Part) -> dict[str, float]:
    """Metrics of the trained network; the first process keeps its weights."""
    job, environment = read_json(folder / "trial.json"), _environment(folder)
    study = load_study(folder.parents[1] / "study.yaml")
    data = Prepared(Path(environment["data"]["folder"]), environment["data"]["checksum"])
    task = load_task(study, data)
    model = network(study, job["arch"])
    initialise(model, seed=job["seed"], pretrained=study.train.pretrained)
    metrics = train(
        model,
        task,
        study.train,
        seed=job["seed"],
        hardware=_hardware(environment),
        report=report,
        folder=folder,
        checkpoint=checkpoint,
        part=part,
    )
    if part[0] == 0:
        weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
        write_atomic(folder / "weights.safetensors", save(weights))
    return metrics


def _check_measured(metrics: dict[str, float], study: Study) -> None:
    for key in (study.task.metrics[0], study.accuracy):
        if key.removeprefix("metrics.") not in metrics:
            rule = "the validation data has nothing that it can be measured on"
            raise ValueError(f"{key} is missing: {rule}")


def _classes(folder: Path, kind: str) -> dict[str, float]:
    """What the last evaluation says of each class, by the figure of the task's kind."""
    file, figure = folder / "classes.json", CLASS_FIGURES.get(kind)
    if figure is None or not file.exists():
        return {}
    found = read_json(file)
    return dict(zip(found["class_names"], found[figure], strict=True))


def _checkpoint(folder: Path) -> Checkpoint:
    job, settings = (
        read_json(folder / "trial.json"),
        load_study(folder.parents[1] / "study.yaml").train,
    )
    environment = _environment(folder)
    mine = identity(
        settings,
        _hardware(environment),
        seed=job["seed"],
        key=job["key"],
        data=environment["data"]["checksum"],
        pretrained=environment["pretrained"],
    )
    return Checkpoint(folder / "checkpoint.pt", mine, settings.checkpoint_minutes)


def _environment(folder: Path) -> dict[str, Any]:
    environment: dict[str, Any] = read_json(folder.parents[1] / "environment.json")
    return environment


def _hardware(environment: dict[str, Any]) -> Hardware:
    return Hardware(*(environment[key] for key in ("device", "precision", "memory_format")))


def _cut_history(file: Path, step: int) -> list[dict[str, float]]:
    """What was reported up to `step`; the file keeps that alone."""
    history = [entry for entry in read_json_lines(file) if entry["step"] <= step]
    write_atomic(file, "".join(f"{json.dumps(entry)}\n" for entry in history))
    return history
