"""One trial, start to end, in whatever process: reads `trial.json`, writes `result.json` last."""

import json
import math
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save

from ..baselines import network
from ..files import read_json, write_atomic, write_json
from ..model import init_weights
from ..result import Result
from ..study import load_study
from ..tasks import load_task
from ..tasks.cache import Prepared
from ..training import Hardware, train


def run_trial(folder: Path, report: Callable[[dict[str, float]], None]) -> None:
    """Train the network of `folder/trial.json`; leave history, weights and result beside it.

    Args:
        folder: `runs/<study>/trials/<number>`; the study lies two folders up.
        report: Called with every point of the history.
    """
    torch.set_num_threads(1)
    job = read_json(folder / "trial.json")
    run = folder.parents[1]
    environment = read_json(run / "environment.json")
    started, clock = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()
    history: list[dict[str, float]] = []
    metrics: dict[str, float] = {}
    state: Literal["complete", "failed"] = "complete"
    error = None
    try:
        with open(folder / "history.jsonl", "w") as file:

            def record(entry: dict[str, float]) -> None:
                history.append(entry)
                file.write(json.dumps(entry) + "\n")
                file.flush()
                report(entry)

            metrics = _train(job, run, environment, folder, record)
            if not all(map(math.isfinite, metrics.values())):
                raise ValueError(f"a metric is not a finite number: {metrics}")
    except Exception as exception:  # whatever a network does is that trial's result, no more
        state, error = "failed", _describe(exception)
    result = Result(
        **job,
        state=state,
        profile=read_json(run / "profiles" / f"{job['key']}.json"),
        metrics=metrics,
        history=history,
        seconds=time.perf_counter() - clock,
        started=started,
        environment=environment,
        error=error,
    )
    if read_json(folder / "trial.json")["attempt"] == job["attempt"]:  # else superseded
        write_json(folder / "result.json", result.to_dict())


def _train(
    job: dict[str, Any],
    run: Path,
    environment: dict[str, Any],
    folder: Path,
    record: Callable[[dict[str, float]], None],
) -> dict[str, float]:
    study = load_study(run / "study.yaml")
    data = Prepared(Path(environment["data"]["folder"]), environment["data"]["checksum"])
    task = load_task(study, data)
    model = network(job["arch"], head=task.head, num_outputs=task.num_outputs)
    init_weights(model, seed=job["seed"])
    hardware = Hardware(
        environment["device"], environment["precision"], environment["memory_format"]
    )
    metrics = train(model, task, study.train, seed=job["seed"], hardware=hardware, report=record)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_atomic(folder / "weights.safetensors", save(weights))
    return metrics


def _describe(exception: Exception) -> dict[str, str]:
    return {
        "type": type(exception).__name__,
        "message": str(exception),
        "traceback": "".join(traceback.format_exception(exception)),
    }
