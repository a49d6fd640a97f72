"""The Ray that runs the trials of a study: one of our own here, or a cluster that was started."""

import contextlib
import functools
import logging
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import InputError

OBJECT_STORE = 100 * 2**20  # bytes; data reaches the trials by memory map, not through Ray
CONNECT_SECONDS, PROBE_SECONDS, ANSWER_SECONDS = 10, 60, 120
PACKAGES = ("hrnet-search", "torch")  # of which every machine must have the same version

# Read by Ray when it is imported, here and by the processes of the trials.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # lets Ctrl-C reach us, not only Tune
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how often reports arrive, and deaths are seen
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Of a dead process or machine Ray prints a page, whatever `log_to_driver` says; these pages
    # pass the filter for repeated lines, which is told to drop every line.
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}
# A Ray of our own binds every port to 127.0.0.1 (measured with 2.60), and wants its token.
OWN = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}


@contextlib.contextmanager
def connect(address: str | None, *, cpus: int) -> Iterator[None]:
    """A Ray while the block runs, in which SIGTERM counts as Ctrl-C.

    Args:
        address: HOST:PORT of a cluster that `ray start` has made, which stays when we leave;
            None for a Ray of our own on this machine, gone at the end.
        cpus: Processes that a Ray of our own has room for.

    Raises:
        InputError: The cluster cannot be joined.
    """
    if address is None:
        os.environ.update(RAY_ENVIRONMENT | OWN, RAY_AUTH_TOKEN=_token())
        _start(cpus)
    else:
        os.environ.update(RAY_ENVIRONMENT, RAY_AUTH_MODE=_auth_mode())
        _check_address(address)
        _join(address)
    import ray

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has set its own
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        ray.shutdown()


@functools.cache
def _token() -> str:
    """One for all Rays of this process: what Ray has read first, it keeps (2.60)."""
    return secrets.token_hex(32)


def _start(cpus: int) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE,
    )


def _join(address: str) -> None:
    """Join a cluster, whose processes get by the job what ours have from the environment."""
    import ray

    ray.init(
        address=address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": RAY_ENVIRONMENT},
    )


def _auth_mode() -> str:
    """What `ray start` does by itself, and joining does not: a token is used where there is one."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    token = named or (Path.home() / ".ray" / "auth_token").exists()
    return os.environ.get("RAY_AUTH_MODE") or ("token" if token else "disabled")


def _check_address(address: str) -> None:
    """Try to join, in a process that can be ended: Ray tries for minutes, and prints all along.

    Raises:
        InputError: It is not HOST:PORT, or the cluster there cannot be joined.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isdecimal() and 0 < int(port) < 2**16):
        rule = "must be HOST:PORT, as `ray start --head` shows it"
        raise InputError(rule, key="--address", value=address)
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise _refused(address, f"cannot be reached ({error})") from None
    command = [sys.executable, "-c", f"from {__name__} import probe; probe()", address]
    quick = os.environ | {"RAY_NUM_REDIS_GET_RETRIES": "3"}
    try:
        done = subprocess.run(
            command, env=quick, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise _refused(address, f"does not answer as Ray within {PROBE_SECONDS} s") from None
    if done.returncode:
        raise _refused(address, explain(done.stdout + done.stderr))


def _refused(address: str, rule: str) -> InputError:
    return InputError(rule, key="--address", value=address)


def probe() -> None:
    """Join the cluster of the command line, and have an actor do nothing."""
    _join(sys.argv[1])
    import ray

    class Nothing:
        def do(self) -> None:
            """Nothing."""

    actor: Any = ray.remote(num_cpus=0)(Nothing)
    ray.get(actor.remote().do.remote(), timeout=PROBE_SECONDS / 2)


def explain(said: str) -> str:
    """Why `probe` failed, from what it printed, and what to do about it."""
    if "no authentication token was found" in said:
        return "cannot be joined: RAY_AUTH_MODE is 'token', but RAY_AUTH_TOKEN is not set"
    if "InvalidAuthToken" in said or "Unauthenticated" in said:
        return (
            "wants its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what the machines "
            "of the cluster were started with"
        )
    if "actor never ran" in said:  # Ray's way of saying it
        return (
            "was started without a token, but one is set here: set RAY_AUTH_MODE=disabled, or "
            "start every machine with the token"
        )
    lines = [line for line in said.splitlines() if line.strip()]
    return f"cannot be joined ({lines[-1] if lines else 'Ray said nothing'})"


def check_machines(folder: Path, *, files: Sequence[Path] = (), processes: int = 1) -> None:
    """Whether every machine of the cluster can run the trials of a study.

    Args:
        folder: Where the study is kept, which all machines must share; if it is not there yet,
            the folder that it would be made in is tried.
        files: Files and folders that trials read, at the same place on every machine.
        processes: Of one trial, which has to fit into one machine.

    Raises:
        InputError: A machine cannot; it is named.
    """
    _check_room(processes)
    while not folder.exists():
        folder = folder.parent
    word, marker = secrets.token_hex(16), folder.absolute() / f".machines-{secrets.token_hex(4)}"
    paths = [file.absolute() for file in files]
    marker.write_text(word)
    try:
        seen = _look_everywhere(marker, paths)
    finally:
        marker.unlink()
    for host, (versions, found, sizes) in seen:
        _check_versions(host, versions)
        if found != word:
            rule = f"is not the same folder on machine {host}; all machines must share it"
            raise InputError(rule, key="--out", value=str(folder))
        for path, size in zip(paths, sizes, strict=True):
            if size != (-1 if path.is_dir() else path.stat().st_size):
                rule = f"is missing on machine {host}, or differs; all machines must have it"
                raise InputError(rule, value=str(path))


def _check_room(processes: int) -> None:
    gpus = capacity()[1]
    if gpus and not _gpus():  # the device of all trials is chosen here
        rule = "the cluster has GPUs, this machine has none; run the command on one that has"
        raise InputError(rule, key="--address")
    if max(_rooms(), default=0) < processes:
        rule = f"no machine of the cluster has so many {'GPUs' if gpus else 'CPUs'}"
        raise InputError(rule, key="train.processes", value=processes)


def _check_versions(host: str, versions: dict[str, str | None]) -> None:
    for package, version in versions.items():
        here = metadata.version(package)
        if version != here:
            has = f"has {package} {version}" if version else f"has no {package}"
            rule = f"machine {host} {has}; install {here}, as on this machine"
            raise InputError(rule, key="--address")


def _look_everywhere(marker: Path, paths: list[Path]) -> list[tuple[str, Any]]:
    """Each machine, and what it sees, as `_eyes` returns it.

    Raises:
        InputError: A machine does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_eyes())
    given = str(marker), list(map(str, paths)), PACKAGES
    answers = []
    for node in _nodes():
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        host = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        answers.append((host, task.options(scheduling_strategy=place).remote(*given)))
    return [(host, _answer(host, answer)) for host, answer in answers]


def _eyes() -> Callable[..., Any]:
    """What a machine runs: (versions of packages, the marker's word, sizes of paths).

    Defined inside a function it travels by value; the package may be missing where it arrives.
    """

    def look(marker: str, paths: list[str], packages: tuple[str, ...]) -> tuple[Any, ...]:
        import importlib
        import importlib.metadata
        import os

        def size(path: str) -> int | None:
            return os.path.getsize(path) if os.path.isfile(path) else None

        versions: dict[str, str | None] = dict.fromkeys(packages)
        for package in packages:
            try:
                importlib.import_module(package.replace("-", "_"))
                versions[package] = importlib.metadata.version(package)
            except ImportError:
                continue
        try:
            with open(marker) as file:
                found = file.read()
        except OSError:
            found = None
        return versions, found, [-1 if os.path.isdir(p) else size(p) for p in paths]

    return look


def _answer(host: str, answer: Any) -> Any:
    import ray

    try:
        return ray.get(answer, timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(f"machine {host} runs nothing ({reason})", key="--address") from None


def capacity() -> tuple[int, int]:
    """CPUs and GPUs of all machines of the Ray that is connected."""
    resources = [node["Resources"] for node in _nodes()]
    cpus, gpus = (sum(int(r.get(kind, 0)) for r in resources) for kind in ("CPU", "GPU"))
    return cpus, gpus


def default_jobs(address: str | None, processes: int) -> int:
    """Trials at a time: as many as there are GPUs for, or CPUs where there is no GPU.

    Args:
        address: Of the cluster that is connected; None: the cores that this process may use.
        processes: Of one trial, which never spans two machines.
    """
    rooms = [_gpus() or _cores()] if address is None else _rooms()
    return max(1, sum(room // processes for room in rooms))


def _rooms() -> list[int]:
    """How many processes each machine of the cluster has a GPU, or else a CPU, for."""
    kinds = ("CPU", "GPU") if capacity()[1] else ("CPU",)
    return [min(int(node["Resources"].get(kind, 0)) for kind in kinds) for node in _nodes()]


def _nodes() -> list[dict[str, Any]]:
    """Machines that trials can run on: alive, and not only the head of the others."""
    import ray

    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def resources(jobs: int, processes: int, gpus: int) -> dict[str, float]:
    """What Tune reserves for one trial.

    Args:
        jobs: Trials at a time.
        processes: Of one trial.
        gpus: Of all machines.
    """
    if processes > 1:
        return {"cpu": float(processes), "gpu": float(processes) if gpus else 0.0}
    # Whole cards, or equal parts of one: Ray splits a card, but no trial spans two.
    return {"cpu": 1.0, "gpu": 1.0 / math.ceil(jobs / gpus) if gpus else 0.0}
