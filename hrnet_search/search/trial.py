"""One trial, start to end, in whatever process: reads `trial.json`, writes `result.json` last."""

import json
import math
import os
import platform
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import nn

from ..files import is_disk_full, read_json, write_atomic, write_json
from ..networks import initialise, network
from ..record import of_variant
from ..result import CLASS_FIGURES, Result
from ..study import Study, load_study
from ..tasks import load_task
from ..tasks.base import WHOLE, Part
from ..tasks.cache import Prepared
from ..training import (
    Checkpoint,
    Diverged,
    Hardware,
    Paused,
    TooLong,
    identity,
    is_lost,
    train,
)
from .job import CHECKPOINT, Job, heard, now

Report = Callable[[dict[str, float]], None]


class Stopped(Exception):
    """The driver has found the training behind others at a rung."""


class Superseded(Exception):
    """Another attempt of the trial has begun: nothing of this one may be written any more."""


def run_trial(folder: Path, report: Report, *, part: Part = WHOLE) -> None:
    """Train the network of `folder/trial.json`; leave history, weights and result beside it.

    If an earlier attempt left a checkpoint, training goes on from there.

    Args:
        folder: `runs/<study>/trials/<number>`; the study lies two folders up.
        report: Called with every point of the history.
        part: (rank, processes) if several share the trial; this is the first of them.

    Raises:
        Exception: Another process is gone, of which this one only hears: there is no result, and
            the trial is started again. Or the disk is full. Or, with a result, what failed here,
            for the others to end.
    """
    torch.set_num_threads(1)
    job, study, environment = _read(folder)
    environment["host"] = platform.node()
    started, checkpoint = now(), _checkpoint(folder)
    checkpoint.limit = study.search.limit_seconds
    checkpoint.ask = lambda: _heed(folder, job, checkpoint, part)
    history = checkpoint.history
    write_atomic(folder / "history.jsonl", "".join(f"{json.dumps(e)}\n" for e in history))
    if checkpoint.step:
        environment["resumed_from"] = checkpoint.step
    metrics: dict[str, float] = {}
    state: Literal["complete", "pruned", "failed"] = "complete"
    failure: Exception | None = None
    try:
        for entry in list(history) if part == WHOLE else []:
            report(entry)  # to a driver that was started anew, and does not know it
            _heed(folder, job, checkpoint, part)
        with open(folder / "history.jsonl", "a") as file:

            def record(entry: dict[str, float]) -> None:
                history.append(entry)
                file.write(json.dumps(_finite(entry)) + "\n")
                file.flush()
                os.fsync(file.fileno())  # before a checkpoint that is beyond it
                report(entry)
                _heed(folder, job, checkpoint, part)

            metrics = _train(folder, checkpoint, record, part)
            if not all(map(math.isfinite, metrics.values())):
                raise ValueError(f"a metric is not a finite number: {metrics}")
            _check_measured(metrics, study)
    except (Paused, Superseded):
        return
    except Stopped:
        state = "pruned"
    except Exception as exception:  # whatever a network does is that trial's result, no more
        if part != WHOLE and is_lost(exception):
            raise
        if is_disk_full(exception):
            raise
        state, failure, metrics = "failed", exception, {}
    result = Result(
        **vars(job),
        state=state,
        profile=read_json(folder.parents[1] / "profiles" / f"{job.key}.json"),
        metrics=metrics,
        history=[_finite(entry) for entry in history],
        seconds=checkpoint.seconds,
        started=started,
        ended=now(),
        environment=environment,
        error=None if failure is None else describe(failure),
        classes=classes_of(folder, study.task.kind) if state == "complete" else {},
    )
    if Job.read(folder).attempt == job.attempt:  # else superseded
        write_json(folder / "result.json", result.to_dict())
        if state != "failed":
            checkpoint.remove()  # a failed trial that is run again goes on from it
    if failure is not None and part != WHOLE:
        raise failure  # so that the other processes end as well


def _finite(entry: dict[str, float]) -> dict[str, float]:
    """A point of a history without what JSON cannot say, which is why its trial failed."""
    return {name: value for name, value in entry.items() if math.isfinite(value)}


def _heed(folder: Path, job: Job, checkpoint: Checkpoint, part: Part) -> None:
    """Look for a word of the driver, after it was told of a point of the history.

    Raises:
        Stopped: It wants no more of this training.
        Superseded: It has started the trial again elsewhere.
    """
    if Job.read(folder).attempt != job.attempt:
        raise Superseded
    word = heard(folder, attempt=job.attempt)
    if word == "prune":
        raise Stopped
    checkpoint.leave = word == "pause" and part == WHOLE  # several would have to agree on it


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
        "cause": _cause(exception),
    }


def _cause(exception: BaseException) -> str:
    """A key of `CAUSES`."""
    if isinstance(exception, Diverged):
        return "diverged"
    if isinstance(exception, TooLong):
        return "timeout"
    # On a CPU torch says so in the text of a plain RuntimeError.
    no_memory = "DefaultCPUAllocator" in str(exception) or "out of memory" in str(exception)
    if isinstance(exception, MemoryError | torch.OutOfMemoryError) or no_memory:
        return "memory"
    return "disk" if isinstance(exception, OSError) else "error"


def _train(folder: Path, checkpoint: Checkpoint, report: Report, part: Part) -> dict[str, float]:
    """Metrics of the trained network; the first process keeps its weights."""
    job, study, environment = _read(folder)
    model, metrics = train_network(
        study,
        job.arch,
        Prepared(Path(environment["data"]["folder"]), environment["data"]["checksum"]),
        seed=job.seed,
        hardware=hardware_of(environment),
        report=report,
        folder=folder,
        checkpoint=checkpoint,
        part=part,
    )
    if part[0] == 0:
        _check_weights(model)
        weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
        write_atomic(folder / "weights.safetensors", save(weights))
    return metrics


def train_network(
    study: Study,
    arch: Mapping[str, Any],
    data: Prepared,
    *,
    seed: int,
    hardware: Hardware,
    report: Report,
    folder: Path,
    checkpoint: Checkpoint | None = None,
    part: Part = WHOLE,
) -> tuple[nn.Module, dict[str, float]]:
    """Train one network of a study: what a trial does, and what a replay of it repeats.

    Args:
        study: Says how; without variants.
        arch: `ArchSpec.to_dict` or `Rival.to_dict`.
        data: The study's.
        seed: Of initial weights and data order.
        hardware: Where and in which precision.
        report: Called with every point of the history.
        folder: Where the last evaluation leaves its predictions.
        checkpoint: See `train`.
        part: (rank, processes) if several share the trial.

    Returns:
        The trained network, and its metrics.
    """
    task, model = load_task(study, data), network(study, arch)
    initialise(model, seed=seed, pretrained=study.train.pretrained)
    metrics = train(
        model,
        task,
        study.train,
        seed=seed,
        hardware=hardware,
        report=report,
        folder=folder,
        checkpoint=checkpoint,
        part=part,
    )
    return model, metrics


def _check_weights(model: nn.Module) -> None:
    """A network that was ruined since its last loss may still score: detectors drop what is NaN.

    Raises:
        Diverged: A weight is no finite number.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise Diverged(f"after the last step {name} has values that are no numbers")


def _check_measured(metrics: dict[str, float], study: Study) -> None:
    for key in (study.task.metrics[0], study.accuracy):
        if key.removeprefix("metrics.") not in metrics:
            rule = "the validation data has nothing that it can be measured on"
            raise ValueError(f"{key} is missing: {rule}")


def classes_of(folder: Path, kind: str) -> dict[str, float]:
    """What the last evaluation says of each class, by the figure of the task's kind."""
    file, figure = folder / "classes.json", CLASS_FIGURES.get(kind)
    if figure is None or not file.exists():
        return {}
    found = read_json(file)
    return dict(zip(found["class_names"], found[figure], strict=True))


def _checkpoint(folder: Path) -> Checkpoint:
    job, study, environment = _read(folder)
    mine = identity(
        study.train,
        hardware_of(environment),
        seed=job.seed,
        key=job.key,
        data=environment["data"]["checksum"],
        pretrained=environment["pretrained"],
    )
    return Checkpoint(
        folder / CHECKPOINT,
        mine,
        study.train.checkpoint_minutes,
        keep=study.train.keep_checkpoints,
    )


def _read(folder: Path) -> tuple[Job, Study, dict[str, Any]]:
    """The job of a trial's folder, and what it is trained by and with."""
    job, study = Job.read(folder), load_study(folder.parents[1] / "study.yaml")
    environment = read_json(folder.parents[1] / "environment.json")
    return job, study.under(job.params), of_variant(environment, study.variant_of(job.params))


def hardware_of(environment: Mapping[str, Any]) -> Hardware:
    """What a study's environment says that its networks are trained on."""
    return Hardware(*(environment[key] for key in ("device", "precision", "memory_format")))
