"""Running a study: Ray Tune executes trials, the ledger decides which and remembers them."""

import contextlib
import functools
import hashlib
import logging
import math
import os
import platform
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..arch import ArchSpec
from ..blueprint import min_size
from ..errors import InputError
from ..files import read_json, require_writable, write_json
from ..progress import bar
from ..study import Study
from .display import Display
from .ledger import CHECKPOINT, Ledger, set_aside

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "segmentation-models-pytorch",
    "ray",
    "optuna",
    "numpy",
    "pycocotools",
)
MAX_IDLE_ROUNDS = 3  # restarts of Ray in which no trial ended, before giving up
OBJECT_STORE = 100 * 2**20  # bytes; data reaches the trials by memory map, not through Ray

# Read by Ray when it is imported. The first binds every port to 127.0.0.1 (measured with 2.60);
# the last lets Ctrl-C reach us, not only Tune.
RAY_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how often reports arrive, and deaths are seen
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


class StuckError(RuntimeError):
    """Ray could not bring a single trial to its end."""


def run_study(
    study: Study, *, out: Path, jobs: int | None, fresh: bool, command: str, console: Console
) -> Path:
    """Run what is missing of a study, and return its folder `out/runs/<study>`.

    Args:
        study: The study.
        out: Folder for `runs/`.
        jobs: Trials at a time; None for as many as there are GPUs for, or cores where there is
            none.
        fresh: Start over; the old run is kept beside the new one.
        command: The command line that repeats this.
        console: Where progress is shown.

    Raises:
        InputError: The data or a folder is not as it must be; nothing was changed.
        KeyboardInterrupt: Ctrl-C; the ledger holds what was done.
        StuckError: Ray could not bring a trial to its end.
    """
    folder = out / "runs" / study.name
    require_writable(folder, key="--out")
    ready = None
    if fresh or not (folder / "study.db").exists():
        ready = check(study, console)  # what is refused changes nothing
    if fresh and (kept := set_aside(folder)):
        console.print(f"The earlier run is kept in {escape(str(kept))}", highlight=False)
    with Ledger(folder, study) as ledger:
        ledger.reconcile()
        total, ended = study.seeds * len(study.arms()), ledger.results()
        missing = total - len(ended)
        if missing:
            jobs = jobs or _default_jobs(study.train.processes)
            ready = ready or check(study, console)
            _make_ready(ledger, ready, jobs, command, console)
            ledger.keep_study()
            ledger.plan()
            say = f"{study.name}: {missing} of {total} trials to run, {jobs} at a time"
            if begun := ledger.begun():
                say += f"; {begun} of them from a checkpoint"
            console.print(say, highlight=False)
            with Display(console, study, total=total, steps=ready.steps, before=ended) as display:
                _run_rounds(ledger, display, jobs)
        else:
            ledger.keep_study()
            console.print(f"{study.name}: all {total} trials are done", highlight=False)
        ledger.write_results()
    return folder


def _default_jobs(processes: int) -> int:
    """As many trials as there are GPUs for, or cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, (_gpus() or cores) // processes)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


@dataclass(frozen=True)
class Ready:
    """What was found out about a study before anything is trained.

    Args:
        data: Where the prepared data lies.
        hardware: What networks are trained on.
        steps: Of one trial.
        pretrained: Checksum of the checkpoint that networks start from, or None.
    """

    data: Any
    hardware: Any
    steps: int
    pretrained: str | None


def check(study: Study, console: Console) -> Ready:
    """Prepare the data, and try whatever could be refused later.

    Raises:
        InputError: Something is.
    """
    from ..tasks import load_task, prepare
    from ..training import choose_hardware, total_steps

    hardware = choose_hardware(study.train)
    _check_gpus(study, _gpus())
    _check_networks(study)
    with bar(console, "Preparing data") as advance:
        data = prepare(study, advance)
    task = load_task(study, data)
    task.check(_least_size(study))
    if not task.measures(study.accuracy.removeprefix("metrics.")):
        rule = "the validation data has nothing that it can be measured on"
        raise InputError(rule, key="objectives.0", value=study.accuracy)
    steps = total_steps(study.train, task.num_train)
    source = study.train.pretrained
    pretrained = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16] if source else None
    return Ready(data, hardware, steps, pretrained)


def _check_gpus(study: Study, gpus: int) -> None:
    processes = study.train.processes
    if gpus and processes > gpus:
        rule = f"cannot be more than the GPUs of this machine ({gpus})"
        raise InputError(rule, key="train.processes", value=processes)


def _least_size(study: Study) -> int:
    """Height and width in pixels that every HRNet of the study takes."""
    nets = [study.network(params) for params in study.arms()]
    return max(min_size(net, study.task.head) for net in nets if isinstance(net, ArchSpec))


def _check_networks(study: Study) -> None:
    """Whether each network of the study can start as `train` says.

    Raises:
        InputError: It lacks a head for `head_lr`, or `pretrained` does not fit.
    """
    from ..networks import network
    from ..training import make_optimizer

    if not study.train.pretrained and study.train.head_lr == 1:
        return
    for params in study.arms():
        arch = study.network(params).to_dict()
        net = network(study, arch)
        try:
            make_optimizer(net, study.train)
            if study.train.pretrained:
                _check_pretrained(net, study.train.pretrained)
        except InputError as error:
            rule = f"{error.rule} (network {study.arm(params)})"
            raise InputError(
                rule, key=error.key, value=error.value, nearest=error.nearest
            ) from None


def _check_pretrained(net: Any, file: str) -> None:
    from ..networks import load_body

    try:
        load_body(net, file)
    except InputError as error:
        key = "train.pretrained"
        raise InputError(error.rule, key=key, value=file, nearest=error.nearest) from None


def _make_ready(ledger: Ledger, ready: Ready, jobs: int, command: str, console: Console) -> None:
    """What trials share beside the data: the environment's record, network costs."""
    environment = _environment(jobs, command) | vars(ready.hardware)
    processes = ledger.study.train.processes
    environment |= {"processes": processes, "threads_per_trial": processes}  # one thread each
    environment["steps"] = ready.steps
    environment["data"] = {"folder": str(ready.data.folder), "checksum": ready.data.checksum}
    environment["pretrained"] = ready.pretrained
    _check_comparable(_earlier(ledger), environment)
    write_json(ledger.folder / "environment.json", environment)
    _profile(ledger, console)


def _earlier(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Environments of all that was trained before: where -> record."""
    found = {f"in trial {result.trial}": result.environment for result in ledger.results()}
    file = ledger.folder / "environment.json"
    if file.exists() and any(ledger.folder.glob(f"trials/*/{CHECKPOINT}")):
        found["in the trials that were cut off"] = read_json(file)
    return found


def _check_comparable(earlier: dict[str, dict[str, Any]], environment: dict[str, Any]) -> None:
    """Trials of one study are compared with each other: same data, same arithmetic."""
    for where, record in earlier.items():
        for key in ("data.checksum", "pretrained", "device", "precision", "memory_format"):
            before, now = _lookup(record, key), _lookup(environment, key)
            if before is not None and before != now:
                rule = f"was {before!r} {where}; use --fresh to start over"
                if key == "data.checksum":
                    rule = f"the data has changed: {rule}"
                if key == "pretrained":
                    rule = f"the checkpoint has changed: {rule}"
                raise InputError(rule, key=key, value=now)


def _lookup(record: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        record = record.get(part, {})
    return record or None


def _profile(ledger: Ledger, console: Console) -> None:
    """Measure each network once, on a machine that is not training yet."""
    from ..profiling import profile

    study = ledger.study
    measure = functools.partial(
        profile,
        head=study.task.head,
        num_outputs=study.head_outputs,
        input_size=study.input_size,
        detector=study.detector,
    )
    networks = {n.key: n for n in map(study.network, study.arms())}
    files = {key: ledger.folder / "profiles" / f"{key}.json" for key in networks}
    todo = [key for key, file in files.items() if not file.exists()]
    with bar(console, "Profiling networks") as advance:
        for done, key in enumerate(todo, start=1):
            write_json(files[key], measure(networks[key]))
            advance(done, len(todo))


def _run_rounds(ledger: Ledger, display: Display, jobs: int) -> None:
    """Start Ray, and start it again if it gives up, until every trial has ended."""
    with _ray(jobs * ledger.study.train.processes):
        idle = 0
        while (before := ledger.unfinished()) and idle < MAX_IDLE_ROUNDS:
            try:
                _run_round(ledger, display, jobs)
            except Exception as error:  # e.g. Ray killed workers to free memory
                display.say(escape(f"Ray stopped ({type(error).__name__}: {error}); going on"))
                ledger.bury()
            ledger.reconcile()
            idle = idle + 1 if ledger.unfinished() == before else 0
    if idle:
        raise StuckError(f"no trial ended in {idle} attempts; see {ledger.folder}/trials")


def _run_round(ledger: Ledger, display: Display, jobs: int) -> None:
    """One `Tuner.fit`. Its folder is thrown away: nothing in it is ever read back."""
    from ray import tune

    from .tuning import LedgerSearch, Silent, train_trial

    scratch = ledger.folder / "ray"
    resources = _resources(jobs, ledger.study.train.processes, _gpus())
    tuner = tune.Tuner(
        tune.with_resources(train_trial, resources),
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearch(ledger, display),
            num_samples=-1,
            max_concurrent_trials=jobs,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(scratch.absolute()),
            name=f"{time.time_ns()}",
            verbose=0,
            callbacks=[Silent()],
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _resources(jobs: int, processes: int, gpus: int) -> dict[str, float]:
    """What Tune reserves for one trial."""
    if processes > 1:
        return {"cpu": float(processes), "gpu": float(processes) if gpus else 0.0}
    # Whole cards, or equal parts of one: Ray splits a card, but no trial spans two.
    return {"cpu": 1.0, "gpu": 1.0 / math.ceil(jobs / gpus) if gpus else 0.0}


@contextlib.contextmanager
def _ray(cpus: int) -> Iterator[None]:
    """A Ray of our own on this machine, gone at the end. SIGTERM counts as Ctrl-C."""
    os.environ.update(RAY_ENVIRONMENT, RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    ray.init(
        address="local",
        num_cpus=cpus + 1,  # one more for what Ray Train reserves beside Tune
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE,
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has set its own
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        ray.shutdown()


def _environment(jobs: int, command: str) -> dict[str, Any]:
    from ..profiling.base import cpu_name

    return {
        "command": command,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"hrnet-search": metadata.version("hrnet-search")}
        | {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "jobs": jobs,
        "threads_per_trial": 1,
        "git": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit of the current folder, marked if files differ from it; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return None
