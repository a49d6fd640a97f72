"""What a study is doing, from another terminal: read from its folder, its driver is not asked.

A living driver holds `lock` and writes `status.json` every few seconds. A status that says
"running" while nobody holds the lock was left by a driver that is gone.
"""

import fcntl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import is_number, read_json_lines, read_user_json
from .result import METRICS, Metric, Result, count
from .study import Study, load_study

STATES = ("running", "finished", "interrupted", "paused", "stopped")  # as a driver writes them
GONE, STARTING, AT_REST = "gone", "starting", "not running"  # as only a reader sees them
CONTINUED = (GONE, "interrupted", "paused", "stopped")
GONE_TEXT = (
    "its driver is gone: it was killed, or the machine went down; the same command continues it"
)
ENDED = ("complete", "pruned", "failed")
HEADER = ("name", "task", "networks", "state", "trials", "failed", "best", "last change")
NUMBERS = ("trials", "failed")  # columns set to the right


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a study is.

    Args:
        name: Of its folder.
        study: What was planned.
        state: One of `STATES`, or of `GONE`, `STARTING` (its driver has not said anything yet)
            and `AT_REST` (no driver, and none has ever said anything).
        holder: Who holds the lock, "process PID on HOST", or empty.
        counts: Trials by state: those of `ENDED`, and where there is a status "running" and
            "waiting".
        total: Trainings planned.
        best: trial, arm, seed and value of the best complete trial, or None.
        status: What `status.json` says, or None if there is none yet.
    """

    name: str
    study: Study
    state: str
    holder: str
    counts: dict[str, int]
    total: int
    best: dict[str, Any] | None
    status: dict[str, Any] | None

    @property
    def metric(self) -> Metric:
        return METRICS[self.study.accuracy]

    @property
    def ended(self) -> int:
        return sum(self.counts[state] for state in ENDED)

    def value(self, number: float | None) -> str:
        """An accuracy with its name, such as "AP 56.9"."""
        return f"{self.metric.label} {self.metric.show(number)}"


def is_held(lock: Path) -> bool:
    """Whether a living process holds a lock.

    It is asked for by a shared lock, given back at once. Only a driver that starts in that very
    instant would be refused; `/proc/locks` would disturb nobody, but does not show the processes
    of another container.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=lock) from None


def look(folder: Path) -> Standing:
    """How far the study of `runs/<study>` is.

    Raises:
        InputError: A file of it is missing or damaged.
    """
    holder = _holder(folder)  # before the status: a driver lets go after its last word
    study = load_study(folder / "study.yaml")
    file = folder / "status.json"
    status = read_status(file) if file.exists() else None
    if status is not None:
        counts, best, total = status["counts"], status["best"], status["total"]
    else:
        counts, best = _ended(folder / "results.jsonl", METRICS[study.accuracy])
        total = _planned(study)
    if status is None:
        state = "finished" if sum(counts.values()) >= total else AT_REST
        state = STARTING if holder else state
    elif holder:
        state = "running" if status["state"] == "running" else STARTING
    else:
        state = GONE if status["state"] == "running" else status["state"]
    return Standing(
        name=folder.name,
        study=study,
        state=state,
        holder=holder,
        counts=counts,
        total=total,
        best=best,
        status=status,
    )


def describe(folder: Path, *, now: datetime) -> str:
    """A few lines on what the study of `runs/<study>` is doing.

    Args:
        folder: The study's folder.
        now: What the age of its status is counted to.

    Raises:
        InputError: A file of it is damaged.
    """
    if not (folder / "study.yaml").exists():
        return _without_study(folder)
    standing = look(folder)
    lines = [_headline(standing, now), *_continuation(standing, folder), _trials(standing)]
    if standing.status is not None:
        lines += _proposals(standing.status)
    if (best := standing.best) is not None:
        lines.append(f"best: {standing.value(best['value'])}, {_trial(best)}")
    if standing.status is not None:
        lines += _details(standing, standing.status)
    return "\n".join(lines)


def listing(runs: Path) -> str:
    """The studies in a folder `runs`, one line each; below them the folders that are none."""
    folders = sorted(path for path in runs.glob("*") if path.is_dir())
    rows, notes = [], []
    for folder in folders:
        try:
            if (folder / "study.yaml").exists():
                rows.append(_row(look(folder), folder))
            else:
                notes.append(_without_study(folder))
        except InputError as error:
            notes.append(f"{folder.name}: broken: {error}")
    if not folders:
        return f"no study has been run in {runs}"
    return "\n".join([*(_table([HEADER, *rows]) if rows else []), *notes])


def read_status(file: Path) -> dict[str, Any]:
    """What a driver has written of its study.

    Raises:
        InputError: The file is damaged, or of another version.
    """
    status = read_user_json(file)
    for key in _misfits(status, STATUS):
        raise InputError("is missing, or not what a driver writes there", file=file, key=key)
    return dict(status)


def duration(seconds: float) -> str:
    """A time in its two largest units, such as "2 h 05 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    if hours < 1:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"


def _holder(folder: Path) -> str:
    """Who holds a study's lock, or nothing."""
    if not is_held(folder / "lock"):
        return ""
    return (folder / "lock").read_text(errors="replace").strip() or "another process"


def _without_study(folder: Path) -> str:
    if holder := _holder(folder):
        return f"{folder.name}: {holder} is preparing it; nothing has been trained yet"
    return f"{folder.name}: no study was run here (there is no study.yaml)"


def _ended(file: Path, metric: Metric) -> tuple[dict[str, int], dict[str, Any] | None]:
    """Counts and best of the trials that have ended, as a status has them."""
    try:
        results = [Result.from_dict(line) for line in read_json_lines(file)]
        counts = {state: sum(r.state == state for r in results) for state in ENDED}
        values = {r.trial: r.value(metric.key) for r in results if r.state == "complete"}
    except (OSError, ValueError, TypeError, AttributeError):
        rule = "is damaged; delete it, and hrnet-search run makes it again"
        raise InputError(rule, file=file) from None
    measured = {trial: value for trial, value in values.items() if is_number(value)}
    if not measured:
        return counts, None
    choose = max if metric.direction == "maximize" else min
    trial = choose(measured, key=lambda number: measured[number] or 0.0)
    found = next(result for result in results if result.trial == trial)
    best = {"trial": trial, "arm": found.arm, "seed": found.seed, "value": measured[trial]}
    return counts, best


def _planned(study: Study) -> int:
    """Trainings of a study."""
    networks = study.search.networks
    return study.seeds * (len(study.arms()) if networks is None else networks)


def _headline(standing: Standing, now: datetime) -> str:
    name, state, status = standing.name, standing.state, standing.status
    if status is None:
        doing = f"{standing.holder} has it" if standing.holder else state
        return f"{name}: {doing}; there is no status.json yet, so this is from results.jsonl"
    age = duration((now - datetime.fromisoformat(status["updated"])) / timedelta(seconds=1))
    if state == "running":
        return f"{name}: running ({standing.holder}), as of {age} ago"
    if state == STARTING:
        before = f"{status['state']}, {age} ago"
        return f"{name}: {standing.holder} has it, and has not said more; before that: {before}"
    what = GONE_TEXT if state == GONE else state
    if status["reason"]:
        what += f" ({status['reason']})"
    return f"{name}: {what}; last heard of {age} ago"


def _continuation(standing: Standing, folder: Path) -> list[str]:
    """The command that goes on with a study that has stopped."""
    file = folder / "environment.json"
    if standing.state not in CONTINUED or not file.exists():
        return []
    environment = read_user_json(file)
    command = environment.get("command") if isinstance(environment, dict) else None
    if not isinstance(command, str):
        raise InputError("is missing, or not text", file=file, key="command")
    return [f"to go on:  {command}"]


def _trials(standing: Standing) -> str:
    counts = standing.counts
    by_state = ", ".join(f"{counts[state]} {state}" for state in ENDED)
    text = f"trials: {standing.ended} of {standing.total} ended ({by_state})"
    if standing.status is None or standing.state == "finished":
        return text
    begun = "running" if standing.holder else "cut off"
    return f"{text}; {counts['running']} {begun}, {counts['waiting']} waiting"


def _proposals(status: dict[str, Any]) -> list[str]:
    found = status["proposals"]
    return [f"proposals: {', '.join(f'{found[key]} {key}' for key in found)}"] if found else []


def _details(standing: Standing, status: dict[str, Any]) -> list[str]:
    """Front, running trials and times."""
    lines, front = [], status["front"]
    if front["size"]:
        volume = front["hypervolume"]
        known = "" if volume is None else f", hypervolume {volume:.4g}"
        lines.append(f"front: {count(front['size'], 'network')}{known}")
    begun = "running" if standing.holder else "cut off"
    for trial in status["running"]:
        again = f", attempt {trial['attempt']}" if trial["attempt"] > 1 else ""
        latest = "" if trial["value"] is None else f", {standing.value(trial['value'])}"
        step = f"step {trial['step']}/{status['steps']}"
        lines.append(f"{begun}: {_trial(trial)}{again}: {step}{latest}")
    time = f"time: {duration(status['seconds'])} used"
    if status["left"] is not None and standing.state != "finished":
        time += f", {duration(status['left'])} left"
    if budget := standing.study.search.budget:
        time += f" (budget {budget})"
    return [*lines, time]


def _trial(entry: dict[str, Any]) -> str:
    return f"trial {entry['trial']} ({entry['arm']}, seed {entry['seed']})"


def _row(standing: Standing, folder: Path) -> tuple[str, ...]:
    best = standing.best
    # A file that is being written has another name for an instant.
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    changed = max(path.stat().st_mtime for path in files or [folder])
    return (
        standing.name,
        standing.study.task.kind,
        standing.study.search.sampler,
        standing.state,
        f"{standing.ended}/{standing.total}",
        str(standing.counts["failed"]),
        "" if best is None else standing.value(best["value"]),
        f"{datetime.fromtimestamp(changed):%Y-%m-%d %H:%M}",
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, HEADER, strict=True)
        lines.append(
            "  ".join(c.rjust(w) if name in NUMBERS else c.ljust(w) for c, w, name in cells)
        )
    return [line.rstrip() for line in lines]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_tally(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_whole, value.values()))


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).utcoffset() is not None
    except (TypeError, ValueError):
        return False


# What `status.json` must hold: mappings by key, lists by the one kind of entry, a tuple around
# what may be null.
_TRIAL = {"trial": _is_whole, "arm": _is_text, "seed": _is_whole}
STATUS = {
    "state": lambda value: value in STATES,
    "reason": _is_text,
    "updated": _is_time,
    "seconds": is_number,
    "steps": _is_whole,
    "total": _is_whole,
    "counts": dict.fromkeys((*ENDED, "running", "waiting"), _is_whole),
    "proposals": _is_tally,
    "running": [{**_TRIAL, "attempt": _is_whole, "step": _is_whole, "value": (is_number,)}],
    "best": ({**_TRIAL, "value": is_number},),
    "front": {"size": _is_whole, "hypervolume": (is_number,)},
    "left": (is_number,),
}


def _misfits(value: Any, shape: Any, key: str = "") -> Iterator[str]:
    """Dotted keys of what is not as the shape has it."""
    if isinstance(shape, tuple):
        if value is not None:
            yield from _misfits(value, shape[0], key)
    elif isinstance(shape, dict) and isinstance(value, dict):
        for name, inner in shape.items():
            yield from _misfits(value.get(name), inner, f"{key}.{name}" if key else name)
    elif isinstance(shape, list) and isinstance(value, list):
        for place, entry in enumerate(value):
            yield from _misfits(entry, shape[0], f"{key}.{place}")
    elif isinstance(shape, dict | list) or not shape(value):
        yield key
