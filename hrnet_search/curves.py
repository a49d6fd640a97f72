"""Learning curves of all trials of a study, finished or not, for other tools to plot."""

import csv
import importlib.util
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import read_json_lines, read_user_json, require_writable, write_atomic

COLUMNS = ("trial", "arm", "seed", "state", "step", "name", "value")
UNFINISHED = "unfinished"  # the state of a trial that has no result yet


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One trial's history.

    Args:
        trial: Its number.
        arm: The settings it varies, as text.
        seed: Its seed.
        state: As in its result, or `UNFINISHED`.
        points: (step, name, value) in the order of training.
    """

    trial: int
    arm: str
    seed: int
    state: str
    points: tuple[tuple[int, str, float], ...]


def read_curves(run: Path) -> list[Curve]:
    """The curves of `runs/<study>`, by number of the trial.

    Raises:
        InputError: A file is damaged, or no trial has reported anything yet.
    """
    folders = sorted(path.parent for path in run.glob("trials/*/trial.json"))
    curves = [curve for curve in map(_curve, folders) if curve.points]
    if not curves:
        raise InputError("no trial has reported anything yet", file=run)
    return sorted(curves, key=lambda curve: curve.trial)


def write_csv(curves: list[Curve], file: Path) -> None:
    """One line per number: `COLUMNS`.

    Raises:
        InputError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for curve in curves:
        start = (curve.trial, curve.arm, curve.seed, curve.state)
        writer.writerows([*start, *point] for point in curve.points)
    try:
        write_atomic(file, text.getvalue())
    except OSError as error:
        rule = f"cannot be written ({error.strerror})"
        raise InputError(rule, key="--to", value=str(file)) from None


def require_tensorboard() -> None:
    """Raises: InputError: TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        rule = "needs TensorBoard: pip install tensorboard"
        raise InputError(rule, key="--format", value="tensorboard")


def write_tensorboard(curves: list[Curve], folder: Path, *, anew: bool) -> None:
    """One run per trial below `folder`.

    Args:
        curves: What to write.
        folder: Where to write.
        anew: Remove what lies there, which TensorBoard would draw as well. Otherwise the folder
            must be new or empty.

    Raises:
        InputError: TensorBoard is not installed, or the folder cannot be written to.
    """
    require_tensorboard()
    require_writable(folder, key="--to")
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists() and any(folder.iterdir()):
        rule = "is not empty, and TensorBoard would draw old and new; choose a new folder"
        raise InputError(rule, key="--to", value=str(folder))
    from torch.utils.tensorboard import SummaryWriter

    for curve in curves:
        with SummaryWriter(str(folder / run_name(curve))) as writer:
            for step, name, value in curve.points:
                writer.add_scalar(name, value, step)


def run_name(curve: Curve) -> str:
    """The trial as TensorBoard lists it; a folder's name."""
    arm = re.sub(r"[^A-Za-z0-9=.,+-]+", "_", curve.arm)[:100]
    return f"{curve.trial:05d} {arm} seed {curve.seed}"


def _curve(folder: Path) -> Curve:
    job, result = read_user_json(folder / "trial.json"), folder / "result.json"
    try:
        return Curve(
            trial=int(job["trial"]),
            arm=str(job["arm"]),
            seed=int(job["seed"]),
            state=str(read_user_json(result)["state"]) if result.exists() else UNFINISHED,
            points=tuple(_points(folder / "history.jsonl")),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("holds a damaged file", file=folder) from None


def _points(file: Path) -> Iterator[tuple[int, str, float]]:
    """(step, name, value) of a history."""
    for number, entry in enumerate(_lines(file), start=1):
        if not isinstance(entry, dict) or type(entry.get("step")) is not int:
            raise InputError(f"is damaged at line {number}", file=file)
        for name, value in entry.items():
            if name != "step":
                yield entry["step"], name, float(value)


def _lines(file: Path) -> list[Any]:
    try:
        return read_json_lines(file)
    except (OSError, ValueError) as error:
        raise InputError(f"is damaged ({error})", file=file) from None
