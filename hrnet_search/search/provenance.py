"""Where results come from: versions, machine and code, as a study keeps them.

Nothing is taken from the environment's variables, so no user name and no token is kept; of a
command line what its user typed.
"""

import contextlib
import hashlib
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

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
MOST_CHANGES = 10**6  # bytes; more is no longer read by anyone
PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color")  # whatever the user's git is set to
UNTRACKED = ("ls-files", "--others", "--exclude-standard", "--", "*.yaml", "*.yml")


def environment(*, jobs: int, command: str) -> dict[str, Any]:
    """What trials are run with and on.

    Args:
        jobs: Trials at a time.
        command: The command line that repeats this.
    """
    from ..profiling.base import cpu_name  # imports torch

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
        "git": _commit(),
    }


def checksum(file: str) -> str | None:
    """Hash of a file's content, as records keep it of what networks start from; None of none."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else None


def changes(folder: Path) -> str:
    """How the files of a folder differ from their commit, as `git diff` has it.

    Below that the names of YAML files that git does not know. At most `MOST_CHANGES` bytes, and a
    line that says what was left out; empty without a difference, or outside git.
    """
    difference = _git("diff", *PLAIN, "HEAD", "--", ".", folder=folder)
    names = _git(*UNTRACKED, folder=folder)
    text = difference + b"".join(b"untracked: %s\n" % name for name in names.splitlines())
    kept = text[:MOST_CHANGES].decode(errors="replace")
    left_out = f"\n(cut off after {MOST_CHANGES} bytes)\n"
    return kept + left_out if len(text) > MOST_CHANGES else kept


def _commit() -> str | None:
    """The commit of the current folder, marked if files differ from it; None outside git."""
    said = _git("describe", "--always", "--dirty", "--abbrev=12", folder=Path())
    return said.decode(errors="replace").strip() or None


def _git(*arguments: str, folder: Path) -> bytes:
    """What git says in a folder, a byte more than `MOST_CHANGES` at most; nothing if it fails."""
    with contextlib.suppress(OSError):
        done = subprocess.Popen(
            ["git", *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        with done:
            assert done.stdout is not None
            said = done.stdout.read(MOST_CHANGES + 1)
            is_cut = len(said) > MOST_CHANGES
            if is_cut:
                done.kill()
        if is_cut or done.returncode == 0:
            return said
    return b""
