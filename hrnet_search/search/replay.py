"""One trial once more, from its record, in this process: without Ray, and nothing is kept.

The network, its weights, the data and their order follow from the record, so on a CPU of the same
kind with the same versions every figure is the same to the last digit.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import is_disk_full
from ..profiling.text import table
from ..progress import Advance
from ..record import Record
from ..result import count
from ..tasks import prepare
from ..tasks.cache import Prepared
from .provenance import checksum, environment
from .trial import Stopped, classes_of, hardware_of, train_network

UNUSED = ("ray", "optuna")  # of the versions: neither has a part in a training


class NotReplayed(Exception):
    """The training failed here."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number twice.

    Args:
        name: Of a metric, the loss or a class, as in records.
        step: Of the history; None of what was measured at the end.
        recorded: As a fraction; None if the record has no such number.
        replayed: Likewise, of the training here.
    """

    name: str
    step: int | None = None
    recorded: float | None
    replayed: float | None

    @property
    def differs(self) -> bool:
        return self.recorded != self.replayed

    @property
    def difference(self) -> str:
        if self.recorded is None or self.replayed is None:
            return "-"
        return f"{self.replayed - self.recorded:.3g}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A trial beside its replay: final metrics, points of the history, classes."""

    metrics: tuple[Figure, ...]
    history: tuple[Figure, ...]
    classes: tuple[Figure, ...]

    @property
    def differing(self) -> list[str]:
        """What differs, in words."""
        names = [figure.name for figure in self.metrics if figure.differs]
        groups = {"the history": self.history, "the classes": self.classes}
        return names + [name for name, group in groups.items() if any(f.differs for f in group)]


def make_ready(record: Record, progress: Advance) -> Prepared:
    """The data that the trial was trained on.

    Args:
        record: From `read_record`.
        progress: Called with images done and in all, if the data has to be prepared.

    Raises:
        InputError: The data is missing, broken or another; so is the checkpoint that the network
            began from; or there is no such device here.
    """
    _check_machine(record)
    data, wanted = prepare(record.study, progress), record.result.environment["data"]["checksum"]
    if data.checksum != wanted:
        rule = f"the data is not what the trial was trained on ({wanted})"
        raise InputError(rule, key="data.checksum", value=data.checksum)
    return data


def replay(record: Record, data: Prepared, progress: Advance) -> Comparison:
    """Train the trial of a record again, and compare.

    A trial that was ended early is trained up to the last point of its history.

    Args:
        record: From `read_record`.
        data: From `make_ready`.
        progress: Called with steps done and in all.

    Raises:
        NotReplayed: The training failed.
    """
    torch.set_num_threads(1)  # as in a study's trials
    with tempfile.TemporaryDirectory(prefix="hrnet-search-") as folder:
        try:
            metrics, history = _train(record, data, Path(folder), progress)
        except Exception as error:  # whatever the network does, as in a trial
            if is_disk_full(error):
                raise
            raise NotReplayed(f"{type(error).__name__}: {error}") from None
        classes = classes_of(Path(folder), record.study.task.kind) if metrics else {}
    return compare(record, metrics=metrics, history=history, classes=classes)


def _train(
    record: Record, data: Prepared, folder: Path, progress: Advance
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Metrics, none of a trial that was ended early, and history."""
    result = record.result
    history: list[dict[str, float]] = []
    last = result.history[-1]["step"] if result.state == "pruned" else None
    total = int(last or result.environment.get("steps", 0))

    def report(entry: dict[str, float]) -> None:
        history.append(entry)
        progress(int(entry["step"]), total)
        if entry["step"] == last:
            raise Stopped

    metrics: dict[str, float] = {}
    with contextlib.suppress(Stopped):
        _, metrics = train_network(
            record.study,
            record.arch,
            data,
            seed=result.seed,
            hardware=hardware_of(result.environment),
            report=report,
            folder=folder,
        )
    return metrics, history


def _check_machine(record: Record) -> None:
    """Whether the device and the checkpoint that the trial began from are here."""
    kept, train = record.result.environment, record.study.train
    if kept["device"] == "cuda" and not torch.cuda.is_available():
        rule = "the trial was trained on a GPU, and here is none"
        raise InputError(rule, file=record.place, key="device", value="cuda")
    try:
        found = checksum(train.pretrained)
    except OSError as error:
        rule = f"cannot be read ({error.strerror}); give --set train.pretrained=FILE"
        raise InputError(rule, key="train.pretrained", value=train.pretrained) from None
    if found != kept.get("pretrained"):
        rule = f"is not the checkpoint that the trial began from ({kept.get('pretrained')})"
        raise InputError(rule, key="train.pretrained", value=found)


# --- the comparison ----------------------------------------------------------------------------


def compare(
    record: Record,
    *,
    metrics: Mapping[str, float],
    history: Sequence[Mapping[str, float]],
    classes: Mapping[str, float],
) -> Comparison:
    """Every number of the record beside that of the replay; a report has final metrics alone."""
    result = record.result
    if record.is_of_report:
        history, classes = [], {}
    return Comparison(
        metrics=tuple(_pairs(result.metrics, metrics)),
        history=tuple(_points(result.history, history)),
        classes=tuple(_pairs(result.classes, classes)),
    )


def _pairs(
    recorded: Mapping[str, float], replayed: Mapping[str, float], step: int | None = None
) -> Iterator[Figure]:
    for name in dict.fromkeys([*recorded, *replayed]):
        yield Figure(name=name, step=step, recorded=recorded.get(name), replayed=replayed.get(name))


def _points(
    recorded: Sequence[Mapping[str, float]], replayed: Sequence[Mapping[str, float]]
) -> Iterator[Figure]:
    """The numbers of two histories, by step."""
    before, now = ({int(entry["step"]): entry for entry in h} for h in (recorded, replayed))
    for step in sorted(before.keys() | now.keys()):
        pairs = _pairs(before.get(step, {}), now.get(step, {}), step)
        yield from (figure for figure in pairs if figure.name != "step")


def departures(record: Record) -> list[str]:
    """In what this machine differs from the record, of what decides about digits, in words."""
    kept, here = record.result.environment, environment(jobs=1, command="")
    then = {"cpu": kept.get("cpu"), "Python": kept.get("python"), **kept["versions"]}
    now = {"cpu": here["cpu"], "Python": here["python"], **here["versions"]}
    return [
        f"{name} {value}, here {now[name]}"
        for name, value in then.items()
        if name in now and name not in UNUSED and value is not None and value != now[name]
    ]


# --- as text -----------------------------------------------------------------------------------


def render(record: Record, found: Comparison) -> str:
    """The comparison for a terminal, the verdict last."""
    return "\n".join([*_table(record, found), *_sentences(record, found), _verdict(record, found)])


def _table(record: Record, found: Comparison) -> list[str]:
    result = record.result
    title = f"{record.study.name}, trial {result.trial}: {result.arm}, seed {result.seed}"
    rows = [
        (figure.name, _show(figure.recorded), _show(figure.replayed), figure.difference)
        for figure in found.metrics
    ]
    if not rows:
        return [title]
    return table(title, ("metric", "recorded", "replayed", "difference"), rows, [])[1:]


def _show(value: float | None) -> str:
    return "-" if value is None else repr(value)


def _sentences(record: Record, found: Comparison) -> Iterator[str]:
    if record.result.state == "pruned":
        step = int(record.result.history[-1]["step"])
        yield f"It was ended early, and is compared up to step {step}."
    if record.is_of_report:
        yield "A report does not keep histories: final metrics alone are compared."
    for name, group in (("history", found.history), ("classes", found.classes)):
        if group:
            yield _group(name, group)


def _group(name: str, figures: Sequence[Figure]) -> str:
    """As in "history: all 26 numbers are the same"."""
    wrong = [figure for figure in figures if figure.differs]
    if not wrong:
        return f"{name}: all {count(len(figures), 'number')} are the same"
    first = wrong[0]
    where = "" if first.step is None else f" at step {first.step}"
    values = f"{_show(first.recorded)} recorded, {_show(first.replayed)} replayed"
    return f"{name}: {len(wrong)} of {count(len(figures), 'number')} differ, " + (
        f"first {first.name}{where} ({values})"
    )


def _verdict(record: Record, found: Comparison) -> str:
    if not found.differing:
        return "identical to the last digit"
    return f"differs in {', '.join(found.differing)}; {_cause(record)}"


def _cause(record: Record) -> str:
    """Why figures may differ, as far as the record tells."""
    kept: Mapping[str, Any] = record.result.environment
    if kept["device"] != "cpu":
        return "likely because a GPU adds up in no fixed order"
    if found := departures(record):
        return f"likely because of {'; '.join(found)}"
    commit, here = kept.get("git"), environment(jobs=1, command="")["git"]
    if commit != here:
        return f"CPU and versions are the record's, the git commit is not ({commit}, here {here})"
    return "CPU, versions, precision and threads are the record's, so the record or the code is not"
