"""What a driver heeds while trials run: Ctrl-C, the budget, a full disk, trials that all fail.

It also writes `status.json`, for whoever looks from outside.
"""

import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Literal

from ..files import read_json_lines, read_user_json, write_json
from ..pareto import front, hypervolume
from ..result import METRICS, Result
from ..stats import mean_and_deviation
from ..study import Study
from .job import now
from .ledger import Ledger

STATUS_SECONDS = 2.0  # between two writings of status.json
GRACE = 60.0  # seconds that workers have to save when the budget is used up
GRACE_OF_CTRL_C = 15.0  # and after a Ctrl-C

Ending = Literal["finished", "interrupted", "paused", "stopped"]


class Halted(BaseException):
    """The study ends here; a BaseException, as Ray handles any other itself.

    Args:
        ending: "paused" if the study was to end here, "stopped" if something is wrong.
        reason: In words.
    """

    def __init__(self, ending: Ending, reason: str) -> None:
        super().__init__(reason)
        self.ending: Ending = ending
        self.reason = reason


@dataclass
class Session:
    """One driver at work.

    Args:
        ledger: What it runs.
        jobs: Trials at a time.
        steps: Of one trial.

    Attributes:
        points: Running trial -> the latest point of its history.
        is_closing: The budget is used up, or there was a Ctrl-C: nothing new is started.
        is_interrupted: There was a Ctrl-C.
    """

    ledger: Ledger
    jobs: int
    steps: int
    points: dict[int, dict[str, Any]] = field(default_factory=dict)
    is_closing: bool = False
    is_interrupted: bool = False
    _started: str = field(default_factory=now)
    _start: float = field(default_factory=time.monotonic)
    _earlier: float = 0.0  # seconds of earlier sessions
    _written: float = 0.0
    _closing_since: float = 0.0
    _steps_done: int = 0
    _reached: dict[int, int] = field(default_factory=dict)  # running trial -> its furthest step
    _failed_in_a_row: int = 0

    def __post_init__(self) -> None:
        self._earlier = _earlier_seconds(self.ledger)
        for result in sorted(self.ledger.results(), key=lambda result: result.ended):
            self._count_failure(result)

    @property
    def seconds(self) -> float:
        """Time spent on the study, earlier sessions included."""
        return self._earlier + time.monotonic() - self._start

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """What a Ctrl-C does: at first it is remembered, for workers to save; a second one ends.

        An exception could be lost in a callback.
        """
        if self.is_interrupted:
            raise KeyboardInterrupt
        self.is_interrupted = True
        # Not by `print`, in the middle of which this may stand.
        os.write(2, b"\nSaving what is running; Ctrl-C again leaves at once.\n")

    def tick(self) -> None:
        """Look at everything; called several times a second while trials run.

        Raises:
            KeyboardInterrupt: There was a Ctrl-C, and workers had time to save.
            Halted: The budget is used up, and likewise.
        """
        if self.is_interrupted:
            self._close()
            if self._is_overdue(GRACE_OF_CTRL_C):
                raise KeyboardInterrupt
        elif self.is_used_up():
            self._close()
            if self._is_overdue(GRACE):
                raise Halted("paused", self.used_up())
        if time.monotonic() - self._written >= STATUS_SECONDS:
            self.write("running")

    def hear(self, number: int, point: dict[str, Any]) -> None:
        """A trial has reported."""
        self._steps_done += max(0, point["step"] - self._reached[number])
        self._reached[number] = max(point["step"], self._reached[number])
        self.points[number] = point
        self.ledger.report(number, point)

    def begin(self, number: int) -> None:
        """A trial is started; one that goes on reports again what it had reported."""
        points = read_json_lines(self.ledger.trial_folder(number) / "history.jsonl")
        self.points[number] = points[-1] if points else {}
        self._reached[number] = self.points[number].get("step", 0)

    def end(self, number: int, result: Result | None, *, again: bool) -> None:
        """A trial has ended, or is to be started again.

        Raises:
            Halted: Too many have failed.
        """
        self.points.pop(number, None)
        if result is not None and not again:
            self._count_failure(result)
            budget = self.ledger.study.search.failure_budget
            if self._failed_in_a_row == budget and self.ledger.unfinished():
                which = "trial has" if budget == 1 else f"{budget} trials have all"
                raise Halted("stopped", f"the first {which} failed; the same command goes on")

    def _count_failure(self, result: Result) -> None:
        """Failures count until the first trial that does not fail."""
        if result.state != "failed":
            self._failed_in_a_row = -1
        elif self._failed_in_a_row >= 0:
            self._failed_in_a_row += 1

    def _close(self) -> None:
        """Start nothing new, and ask workers once to save and leave."""
        if not self.is_closing:
            self.is_closing, self._closing_since = True, time.monotonic()
            self.ledger.pause()

    def _is_overdue(self, grace: float) -> bool:
        """Has a worker that was asked to leave not left for so many seconds?"""
        return time.monotonic() - self._closing_since > grace and bool(self.ledger.running())

    def is_used_up(self) -> bool:
        """Is the budget?"""
        budget = self.ledger.study.search.budget_seconds
        return budget is not None and self.seconds >= budget

    def used_up(self) -> str:
        """What to say when the budget is."""
        left = self.ledger.unfinished()
        return (
            f"the budget of {self.ledger.study.search.budget} is used up with {left} trials to go; "
            "a larger search.budget goes on"
        )

    def write(self, state: Ending | Literal["running"], reason: str = "") -> None:
        """Write `status.json`."""
        write_json(self.ledger.folder / "status.json", self.status(state, reason))
        self._written = time.monotonic()

    def status(self, state: str, reason: str = "") -> dict[str, Any]:
        """What `status.json` says."""
        ledger, results = self.ledger, self.ledger.results()
        size, area = front_of(ledger.study, results)
        proposals = ledger.proposals.counts() if ledger.proposals is not None else {}
        return {
            "study": ledger.study.name,
            "state": state,
            "reason": reason,
            "host": platform.node(),
            "pid": os.getpid(),
            "updated": now(),
            "started": self._started,
            "seconds": round(self.seconds, 1),
            "jobs": self.jobs,
            "steps": self.steps,
            "total": ledger.total(),
            "counts": ledger.counts(),
            "proposals": proposals,
            "running": [self._running(number) for number in ledger.running()],
            "best": _best(ledger.study, results),
            "front": {"size": size, "hypervolume": area},
            "left": self._left(),
        }

    def _running(self, number: int) -> dict[str, Any]:
        job = self.ledger.job(number)
        point = self.points.get(number, {})
        value = point.get(self.ledger.study.accuracy.removeprefix("metrics."))
        own = {"trial": number, "arm": job.arm, "seed": job.seed, "attempt": job.attempt}
        return {**own, "step": point.get("step", 0), "value": value}

    def _left(self) -> float | None:
        """Seconds to go at the pace so far; None before anything was reported."""
        if not self._steps_done:
            return None
        begun = sum(point.get("step", 0) for point in self.points.values())
        todo = self.ledger.unfinished() * self.steps - begun
        pace = (time.monotonic() - self._start) / self._steps_done
        return round(todo * pace, 1)


def _earlier_seconds(ledger: Ledger) -> float:
    file = ledger.folder / "status.json"
    if not file.exists():
        return 0.0
    try:
        return float(read_user_json(file)["seconds"])
    except (ValueError, KeyError, TypeError):  # damaged: it decides about the budget alone
        return 0.0


def _best(study: Study, results: Iterable[Result]) -> dict[str, Any] | None:
    shown = METRICS[study.accuracy]
    sign = shown.sign
    values = [
        (value, r)
        for r in results
        if r.state == "complete" and (value := r.value(shown.key)) is not None
    ]
    if not values:
        return None
    value, best = max(values, key=lambda pair: sign * pair[0])
    return {"trial": best.trial, "arm": best.arm, "seed": best.seed, "value": value}


def front_of(study: Study, results: Iterable[Result]) -> tuple[int, float | None]:
    """Networks on the Pareto front of accuracy and cost, and the area that it covers.

    The area reaches from the front to the largest cost so far, and to an accuracy of zero (of a
    metric that is better when smaller, to the largest so far).
    """
    keys = (study.accuracy, study.cost)
    networks: dict[str, list[list[float]]] = {}
    for result in results:
        values = [v for key in keys if (v := result.value(key)) is not None]
        if result.state == "complete" and len(values) == len(keys):
            networks.setdefault(result.key, []).append(values)
    if not networks:
        return 0, None
    signs = [-METRICS[key].sign for key in keys]
    points = [
        [
            sign * mean_and_deviation(column)[0]
            for sign, column in zip(signs, zip(*rows, strict=True), strict=True)
        ]
        for rows in networks.values()
    ]
    worst = [0.0 if signs[0] < 0 else max(p[0] for p in points), max(p[1] for p in points)]
    return sum(front(points)), hypervolume(points, worst)
