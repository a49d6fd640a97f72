"""One trial by several processes: Ray Train starts them, inside the trial that Ray Tune started.

Tune's trial reserves the CPUs and GPUs of all its processes; Train's own reservation is next to
nothing, and of something else: a mark that each machine has, so that the processes are where
their trial is, and also start where all CPUs are reserved. Where a trial's worker is killed, Ray
2.60 never frees what Train had reserved (its cleaner asks the dashboard, which does not run), and
the next trial would wait for ever.
"""

import os
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.util
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from ..files import read_json
from .job import SCRATCH, Job

NEXT_TO_NOTHING = 0.001  # of the machine's mark, reserved by Train for each process
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass
class Unconnected(TorchConfig):
    """Processes that `training.join` connects: Ray's way would listen on all interfaces."""

    backend_cls = Backend
    train_func_context = nullcontext


def run_shared(folder: Path, processes: int) -> None:
    """Run the trial of `folder` by so many processes; see `run_trial`.

    Raises:
        WorkerGroupError: A process died, or failed in a way that left no result.
    """
    scratch = folder.parents[1] / SCRATCH
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as private:
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "folder": str(folder),
                "meeting": f"{private}/meeting",
                "gpus": os.environ.get(VISIBLE),
            },
            torch_config=Unconnected(),
            scaling_config=ScalingConfig(
                num_workers=processes, resources_per_worker={_mark(): NEXT_TO_NOTHING}
            ),
            run_config=RunConfig(
                name="train",
                storage_path=private,
                callbacks=[TuneReportCallback()],  # type: ignore[list-item]
                failure_config=FailureConfig(max_failures=0),
            ),
        )
        try:
            trainer.fit()
        except WorkerGroupError:
            if not has_result(folder):  # else the first process failed, and has said how
                raise


def _mark() -> str:
    """What Ray calls this machine among the resources, of which each has 1."""
    return f"node:{ray.util.get_node_ip_address()}"


def _work(config: dict[str, Any]) -> None:
    """What each process does."""
    if config["gpus"] is not None:
        os.environ[VISIBLE] = config["gpus"]  # the trial's; before torch looks
    from ..training import join
    from .trial import assist_trial, run_trial

    context = ray.train.get_context()
    part = context.get_world_rank(), context.get_world_size()
    folder = Path(config["folder"])
    device = read_json(folder.parents[1] / "environment.json")["device"]
    join(part, Path(config["meeting"]), device)
    run = run_trial if part[0] == 0 else assist_trial
    run(folder, ray.train.report, part=part)


def has_result(folder: Path) -> bool:
    """Whether this attempt has come to its end."""
    file = folder / "result.json"
    return file.exists() and read_json(file)["attempt"] == Job.read(folder).attempt
