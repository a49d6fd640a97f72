"""Whether an installation can run studies, and what to do where it cannot.

Each check stands alone. Those that import large packages run in a process of their own, so that
not even a crash (a package built for another processor) stops the others; such a process is
`python -m hrnet_search.doctor CHECK`, which prints one finding as JSON.
"""

import contextlib
import functools
import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .errors import InputError
from .files import require_writable

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

Level = Literal["ok", "warning", "problem"]

GIB = 2**30
LITTLE_DISK, TOO_LITTLE_DISK = 5 * GIB, GIB // 2  # checkpoints and prepared data; one small study
LITTLE_SHARED = GIB // 2  # Ray's store and the batches of loading processes; Docker has 64 MiB
FEW_FILES = 4096  # Ray raises the limit as far as it may, and warns below this
PATIENCE = 300  # seconds for one import; a cold disk is slow
OPTIONAL = {
    "onnx": "`hrnet-search export --format onnx`, latency in `hrnet-search profile`",
    "onnxruntime": "`hrnet-search export --format onnx`, latency in `hrnet-search profile`",
    "onnxscript": "`hrnet-search export --format onnx`",
    "tensorboard": "`hrnet-search curves --format tensorboard`",
    "optuna-dashboard": "looking at runs/<study>/study.db in a browser",
}
SHM = Path("/dev/shm")  # noqa: S108 - looked at, not written to
NVIDIA = Path("/proc/driver/nvidia/version")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check has found.

    Args:
        level: How bad it is.
        text: What was found.
        advice: What to do, empty if nothing.
    """

    level: Level
    text: str
    advice: str = ""


def ok(text: str) -> Finding:
    return Finding(level="ok", text=text)


def warning(text: str, advice: str) -> Finding:
    return Finding(level="warning", text=text, advice=advice)


def problem(text: str, advice: str) -> Finding:
    return Finding(level="problem", text=text, advice=advice)


def examine() -> Iterator[tuple[str, Finding]]:
    """Name and finding of every check, as soon as it is made."""
    for name, check in CHECKS.items():
        yield name, _guarded(check)
    for name in IMPORTS:
        yield name, _in_a_process(name)
    for name, purpose in OPTIONAL.items():
        yield name, _guarded(functools.partial(optional, name, purpose))


def line(name: str, finding: Finding) -> str:
    """The finding as one line."""
    told = f"{finding.text}; {finding.advice}" if finding.advice else finding.text
    return f"{finding.level:<8} {name}: {' '.join(told.split())}"


def python() -> Finding:
    from packaging.specifiers import SpecifierSet

    found = platform.python_version()
    wanted = metadata.metadata("hrnet-search")["Requires-Python"]
    if not SpecifierSet(wanted).contains(found, prereleases=True):
        return problem(f"{found}, but {wanted} is needed", "make the environment with a newer one")
    return ok(f"{found} in {sys.prefix}")


def dependencies() -> Finding:
    """Versions of the packages against the ranges of pyproject.toml."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires("hrnet-search") or []]
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    found = {r.name: _version(r.name) for r in needed}
    wrong = [r for r in needed if not _is_in(found[r.name], r.specifier)]
    if wrong:
        said = [f"{r.name} {found[r.name] or 'is missing'}, needs {r.specifier}" for r in wrong]
        names = " ".join(f"'{r}'" for r in wrong)
        return problem("; ".join(said), f"pip install {names}")
    return ok(", ".join(f"{name} {version}" for name, version in found.items()))


def _is_in(version: str | None, wanted: "SpecifierSet") -> bool:
    return version is not None and wanted.contains(version, prereleases=True)


def cores() -> Finding:
    there = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    text = f"{usable} of {there} usable" if usable < there else f"{there}"
    quota = _cpu_quota()
    if quota is not None and quota < usable:
        jobs = max(1, int(quota))
        text += f", but this container may use the time of {quota:g}"
        return warning(text, f"run studies with --jobs {jobs}")
    return ok(text)


def current_folder() -> Finding:
    return _room(Path.cwd(), "work in another folder, or give --out DIR")


def shared_memory() -> Finding:
    if not SHM.is_dir():
        return ok(f"there is no {SHM} on this system")
    free = shutil.disk_usage(SHM).free
    text = f"{_gib(free)} free in {SHM}"
    if free < LITTLE_SHARED:
        advice = "in Docker give --shm-size=2g; until then keep train.workers at 0"
        return warning(f"{text}: little for Ray and for loading processes", advice)
    return ok(text)


def open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FEW_FILES:
        text = f"at most {hard} files may be open, Ray wants {FEW_FILES}"
        return warning(text, "raise the limit: ulimit -n, or limits.conf")
    most = "any number" if hard == resource.RLIM_INFINITY else str(hard)
    return ok(f"{soft} files may be open, {most} on request")


def loopback() -> Finding:
    """Ray and processes that share a trial talk over 127.0.0.1."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            "127.0.0.1", 0, socket.AF_INET, socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind) as server:
            server.bind(address)
            server.listen()
            socket.create_connection(server.getsockname()[:2], timeout=5).close()
    except OSError as error:
        advice = "bring the loopback interface up (ip link set lo up), and let the firewall pass it"
        return problem(f"127.0.0.1 cannot be used ({error})", advice)
    return ok("127.0.0.1 takes connections")


def torch_works() -> Finding:
    import torch

    from .training import has_bfloat16

    cuda = torch.cuda.is_available()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    device = ", ".join(devices) if cuda else "no GPU, so networks are trained on the CPU"
    halves = "with" if has_bfloat16("cuda" if cuda else "cpu") else "without"
    threads = torch.get_num_threads()
    text = f"{torch.__version__}, {device}, {halves} bfloat16, threads {threads}"
    if NVIDIA.exists() and not cuda:
        advice = "install the PyTorch that fits the driver: https://pytorch.org/get-started/locally"
        return warning(f"{text}; there is an NVIDIA driver, which PyTorch does not use", advice)
    return ok(text)


def torchvision_works() -> Finding:
    """Its compiled operators load only beside the PyTorch that they were compiled for."""
    import torch

    try:
        import torchvision

        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]])
        kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist()
    except (ImportError, RuntimeError, AttributeError) as error:
        text = f"its operators do not load beside torch {torch.__version__} ({error})"
        advice = (
            "install both anew from one place, as one release: pip install --force-reinstall "
            "torch torchvision"
        )
        return problem(text, advice)
    if kept != [1]:
        return problem(f"nms keeps {kept}, not [1]", "install torch and torchvision anew")
    return ok(f"{torchvision.__version__}, its operators load")


def ray_works() -> Finding:
    import ray
    from ray import tune

    return ok(f"{ray.__version__}, with {tune.__name__}")


def optuna_works() -> Finding:
    import sqlite3

    import optuna

    return ok(f"{optuna.__version__}, SQLite {sqlite3.sqlite_version}")


def cache_works() -> Finding:
    from .tasks.cache import CACHE_VARIABLE, cache_folder

    return _room(cache_folder(), f"set {CACHE_VARIABLE} to another folder")


def optional(name: str, purpose: str) -> Finding:
    if (version := _version(name)) is None:
        return ok(f"absent; pip install {name} for {purpose}")
    return ok(f"{version}, for {purpose}")


# What is told first costs nothing; the imports take seconds.
CHECKS: Mapping[str, Callable[[], Finding]] = {
    "Python": python,
    "dependencies": dependencies,
    "cores": cores,
    "current folder": current_folder,
    "shared memory": shared_memory,
    "open files": open_files,
    "network": loopback,
}
IMPORTS: Mapping[str, Callable[[], Finding]] = {
    "torch": torch_works,
    "torchvision": torchvision_works,
    "ray": ray_works,
    "optuna": optuna_works,
    "cache folder": cache_works,  # the module that knows it imports torch
}


def _guarded(check: Callable[[], Finding]) -> Finding:
    """What a check finds; that it fails is a problem too."""
    try:
        return check()
    except Exception as error:
        return problem(*_failure(f"{type(error).__name__}: {error}"))


def _failure(why: str) -> tuple[str, str]:
    first = next(iter(why.strip().splitlines()), "")
    return f"failed ({first})", "install hrnet-search anew, in a new environment"


def _in_a_process(name: str) -> Finding:
    """What a check of `IMPORTS` finds."""
    # Files of the current folder must not stand in for packages.
    safe = os.environ | {"PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "hrnet_search.doctor", name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=safe, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return problem(*_failure(f"no answer in {PATIENCE} s"))
    if done.returncode < 0:
        return problem(*_failure(f"crashed: {signal.strsignal(-done.returncode)}"))
    try:
        return Finding(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return problem(*_failure(last[-1]))


def _room(folder: Path, elsewhere: str) -> Finding:
    """Whether files can be made below a folder, and how much fits."""
    try:
        require_writable(folder, key="")
    except InputError as error:
        return problem(str(error), elsewhere)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    text = f"{_gib(free)} free in {folder}"
    if free < TOO_LITTLE_DISK:
        return problem(text, f"make room, or {elsewhere}")
    if free < LITTLE_DISK:
        return warning(text, f"make room before a large study, or {elsewhere}")
    return ok(text)


def _cpu_quota() -> float | None:
    """Cores whose time a container may use, or None without such a limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = map(float, CPU_QUOTA.read_text().split())  # "max" is no number
        return quota / period
    return None


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(json.dumps(asdict(_guarded(IMPORTS[sys.argv[1]]))))
