"""What a person sees while a study runs: a bar for the study, one per running trial."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from ..result import METRICS, Result
from ..study import Study
from .ledger import Job


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
            TextColumn("{task.description}"),
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
        self.ended, self.total = done, total
        for result in before:
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
            f"  {escape(_name(job))}", total=self.steps, status="starting"
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

    def finish(self, number: int, result: Result | None) -> None:
        """`result` is None if the trial will be started again."""
        job, bar = self.jobs.pop(number), self.bars.pop(number)
        shown = self.progress.tasks[self.progress.task_ids.index(bar)].completed
        self.progress.remove_task(bar)
        if result is None:
            self.progress.advance(self.overall, -shown)
            self.say(f"[yellow]again[/]   {escape(_name(job))}: its worker died")
            return
        self.progress.advance(self.overall, self.steps - shown)
        self.ended += 1
        if result.state == "failed":
            error = result.error or {}
            text = escape(f"{error.get('type')}: {error.get('message')}")
            self.say(f"[red]failed[/]  {escape(_name(job))}: {text}")
        else:
            self._keep_best(result)
            value = self.metric.show(result.value(self.metric.key))
            text = f"{self.metric.label} {value}  in {result.seconds:.0f} s"
            self.say(f"[green]done[/]    {escape(_name(job))}: {text}")
        self._show_overall()

    def say(self, text: str) -> None:
        self.progress.console.print(text, highlight=False)

    def _keep_best(self, result: Result) -> None:
        value = result.value(self.metric.key)
        best = self.best.value(self.metric.key) if self.best else None
        sign = 1 if self.metric.direction == "maximize" else -1
        if value is not None and (best is None or sign * value > sign * best):
            self.best = result

    def _show_overall(self) -> None:
        status = f"{self.ended}/{self.total} trials"
        if self.best is not None:
            value = self.metric.show(self.best.value(self.metric.key))
            status += f", best {self.metric.label} {value}"
        self.progress.update(self.overall, status=status)


def _name(job: Job) -> str:
    return f"trial {job.trial:>3}  {job.arm}, seed {job.seed}"
