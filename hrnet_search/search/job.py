"""What driver and workers say to each other: `trial.json`, and later a word in `stop.json`."""

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..files import read_json, read_json_lines, write_json
from ..result import Result
from ..space import Value

CHECKPOINT = "checkpoint.pt"  # in a trial's folder
SCRATCH = "ray"  # in a study's folder: what Ray writes, and nobody reads
Word = Literal["prune", "pause"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training; kept as `trial.json` in its folder, complete enough to run it again.

    Args:
        study: Name of the study.
        trial: Number of the training, and name of its folder.
        arm: The settings it varies, as text.
        params: Knob -> value.
        seed: Of initial weights and data order.
        key: Hash of the network.
        arch: `ArchSpec.to_dict` or `Rival.to_dict`.
        attempt: How often it was started, from 1.
        proposal: Number of the sampler's proposal; None in a grid.
    """

    study: str
    trial: int
    arm: str
    params: dict[str, Value]
    seed: int
    key: str
    arch: dict[str, Any]
    attempt: int
    proposal: int | None = None

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """The job of a trial's folder.

        Raises:
            InputError: `trial.json` is damaged.
        """
        file = folder / "trial.json"
        try:
            return cls(**read_json(file))
        except (ValueError, TypeError) as error:
            rule = f"is damaged ({error}); delete the folder to run this trial again"
            raise InputError(rule, file=file) from None

    def write(self, folder: Path) -> None:
        write_json(folder / "trial.json", asdict(self))


def say(folder: Path, word: Word, *, attempt: int) -> None:
    """Leave a word for the worker, which looks after each of its reports."""
    write_json(folder / "stop.json", {"attempt": attempt, "word": word})


def heard(folder: Path, *, attempt: int) -> Word | None:
    """The word for this attempt, if there is one."""
    file = folder / "stop.json"
    if not file.exists():
        return None
    found = read_json(file)
    return found["word"] if found["attempt"] == attempt else None


def lost(job: Job, folder: Path) -> Result:
    """The record of an attempt whose worker died without a word, with what it had reported."""
    profile = folder.parents[1] / "profiles" / f"{job.key}.json"
    message = "the worker process died (out of memory, killed, or its machine is gone)"
    return Result(
        **asdict(job),
        state="failed",
        profile=read_json(profile) if profile.exists() else {},
        metrics={},
        history=read_json_lines(folder / "history.jsonl"),
        seconds=0.0,
        started=now(),
        ended=now(),
        error={"type": "WorkerDied", "message": message, "traceback": "", "cause": "died"},
    )


def now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
