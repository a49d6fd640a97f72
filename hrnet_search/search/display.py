"""What a person sees while a study runs: a bar for the study, one per running trial."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from ..result import CAUSES, METRICS, Result, count
from ..study import Study
from .job import Job
from .session import front_of


class Display:
    """Live progress on a terminal; in a log, one line per finished trial.

    Args:
        console: Where to print.
        study: Says which metric to show.
        total: Trials of the study.
        steps: Of one trial.
        before: Results of those that had ended before.
    """

    def __init__(
        self, console: Console, study: Study, *, total: int, steps: int, before: list[Result]
    ) -> None:
        done = len(before)
        self.console, self.study, self.steps = console, study, steps
        self.metric = METRICS[study.accuracy]
        self.best: Result | None = None
        self.jobs: dict[int, Job] = {}
        self.bars: dict[int, Any] = {}
        self.progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=38)),
            BarColumn(bar_width=12),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )
        # Counted in steps, so that the time left is known before the first trial ends.
        self.overall = self.progress.add_task(
            f"[bold]{escape(study.name)}", total=total * steps, completed=done * steps, status=""
        )
        self.ended, self.total, self.failed, self.early = done, total, 0, 0
        self.results = list(before)
        for result in before:
            self._count(result)
            self._keep_best(result)
        self._show_overall()

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self.bars.values():
            self.progress.remove_task(bar)
        self.progress.stop()

    def start(self, job: Job) -> None:
        self.jobs[job.trial] = job
        self.bars[job.trial] = self.progress.add_task(
            f"  {escape(_short_name(job))}", total=self.steps, status="starting"
        )

    def update(self, number: int, entry: dict[str, Any]) -> None:
        bar = self.bars[number]
        before = self.progress.tasks[self.progress.task_ids.index(bar)].completed
        status = f"loss {entry['loss']:.4f}"
        name = self.study.accuracy.removeprefix("metrics.")
        if name in entry:
            status += f", {self.metric.label} {self.metric.show(entry[name])}"
        self.progress.update(bar, completed=entry["step"], status=status)
        self.progress.advance(self.overall, entry["step"] - before)

    def finish(self, number: int, result: Result | None, *, again: bool) -> None:
        """A trial has stopped: for good, to be started `again`, or (without result) to pause."""
        job, bar = self.jobs.pop(number), self.bars.pop(number)
        shown = self.progress.tasks[self.progress.task_ids.index(bar)].completed
        self.progress.remove_task(bar)
        if again or result is None:
            self.progress.advance(self.overall, -shown)
            why = "saved, to go on later" if result is None else f"again: {_cause(result)}"
            self.say(f"[yellow]paused[/]  {escape(_name(job))}: {escape(why)}")
            return
        self.progress.advance(self.overall, self.steps - shown)
        self.ended += 1
        self.results.append(result)
        self._count(result)
        self._tell(job, result)
        self._show_overall()

    def _tell(self, job: Job, result: Result) -> None:
        """One line on how a trial ended; all there is to know of the first failure."""
        if result.state == "failed":
            error = result.error or {}
            text = escape(f"{error.get('type')}: {error.get('message')}")
            self.say(f"[red]failed[/]  {escape(_name(job))}: {text}")
            is_plain = error.get("cause") == "timeout"  # where it was does not matter
            if self.failed == 1 and error.get("traceback") and not is_plain:
                self.say(escape(error["traceback"].rstrip()))
            return
        value = self.metric.show(_latest(result, self.metric.key))
        if result.state == "pruned":
            step = int(result.history[-1]["step"])
            text = f"{self.metric.label} {value} after {count(step, 'step')}"
            self.say(f"[cyan]early[/]   {escape(_name(job))}: {text}")
        else:
            self._keep_best(result)
            text = f"{self.metric.label} {value}  in {result.seconds:.0f} s"
            self.say(f"[green]done[/]    {escape(_name(job))}: {text}")

    def expect(self, total: int) -> None:
        """The study has so many trials: fewer, where networks were ended early."""
        if total != self.total:
            self.total = total
            self.progress.update(self.overall, total=total * self.steps)
            self._show_overall()

    def say(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, soft_wrap=True)

    def _keep_best(self, result: Result) -> None:
        value = result.value(self.metric.key)
        best = self.best.value(self.metric.key) if self.best else None
        sign = self.metric.sign
        if value is not None and (best is None or sign * value > sign * best):
            self.best = result

    def _count(self, result: Result) -> None:
        self.failed += result.state == "failed"
        self.early += result.state == "pruned"

    def _show_overall(self) -> None:
        status = f"{self.ended}/{self.total} trials"
        if self.early:
            status += f", {self.early} ended early"
        if self.failed:
            status += f", {self.failed} failed"
        if self.best is not None:
            value = self.metric.show(self.best.value(self.metric.key))
            status += f", best {self.metric.label} {value}"
        if not self.study.search.is_grid and self.console.is_terminal:
            size, area = front_of(self.study, self.results)
            status += f", front {size}" if area is None else f", front {size} (area {area:.3g})"
        self.progress.update(self.overall, status=status)


def _name(job: Job) -> str:
    return f"trial {job.trial:>3}  {job.arm}, seed {job.seed}"


def _short_name(job: Job) -> str:
    """For a bar: of a search the number of the network, whose knobs have no room there."""
    if job.proposal is None:
        return _name(job)
    return f"trial {job.trial:>3}  network {job.proposal}, seed {job.seed}"


def _cause(result: Result) -> str:
    return CAUSES[(result.error or {}).get("cause", "error")]


def _latest(result: Result, key: str) -> float | None:
    """The final value, or of a training that was ended early the last that was measured."""
    name = key.removeprefix("metrics.")
    measured = [point[name] for point in result.history if name in point]
    value = result.value(key)
    return measured[-1] if value is None and measured else value
