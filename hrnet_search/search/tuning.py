"""What Ray Tune is given: a trainable that runs a trial, a searcher that asks the ledger."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher

from ..files import DISK_FULL, is_disk_full
from .display import Display
from .ledger import Ledger
from .session import Halted, Session

FULL = "disk_full"  # what is reported, as nothing can be written


def train_trial(config: dict[str, Any]) -> None:
    """Tune's trainable. The worker process is reused, so imports are paid once."""
    from .trial import run_trial

    folder, processes = Path(config["folder"]), config["processes"]
    try:
        if processes > 1:
            from .parallel import run_shared

            run_shared(folder, processes)
        else:
            run_trial(folder, tune.report)
    except Exception as error:
        if is_disk_full(error):
            tune.report({FULL: True})
        raise


@contextlib.contextmanager
def books() -> Iterator[None]:
    """What cannot be written down ends the study: only opening it again puts it right.

    Raises:
        Halted: The ledger has failed.
    """
    try:
        yield
    except Exception as error:
        reason = f"its records cannot be kept ({type(error).__name__}: {error})"
        raise Halted("stopped", DISK_FULL if is_disk_full(error) else reason) from error


class LedgerSearch(Searcher):
    """Hands Tune the ledger's next trial, and the ledger what became of it.

    Without metric and mode Tune does not look at results itself, and so cannot trip over a
    missing or infinite one. It keeps no state of its own.
    """

    def __init__(self, ledger: Ledger, display: Display, session: Session) -> None:
        super().__init__(metric=None, mode=None)
        self.ledger, self.display, self.session = ledger, display, session
        self.numbers: dict[str, int] = {}  # Tune's trial id -> ours

    def suggest(self, trial_id: str) -> Any:
        self.session.tick()
        with books():
            job = None if self.session.is_closing else self.ledger.next()
        if job is None:
            # An interrupted trial may still come back; Tune asks again while others run.
            return None if self.numbers else Searcher.FINISHED
        self.numbers[trial_id] = job.trial
        self.session.begin(job.trial)
        self.display.start(job)
        folder = self.ledger.trial_folder(job.trial).absolute()
        return {"folder": str(folder), "processes": self.ledger.study.train.processes}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.session.tick()
        if result.get(FULL):
            raise Halted("stopped", DISK_FULL)
        if "step" in result:
            number = self.numbers[trial_id]
            with books():
                self.session.hear(number, result)
            self.display.update(number, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self.numbers.pop(trial_id)
        with books():
            ended, again = self.ledger.finish(number)
        self.display.finish(number, ended, again=again)
        self.display.expect(self.ledger.total())
        self.session.end(number, ended, again=again)
        self.session.tick()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles the searcher into a file that is never read


class Pulse(TrialProgressCallback):
    """Lets the session look around at each turn of Tune's loop.

    In place of Tune's own, which prints a line about a trial that ends without a report.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(metric=None)
        self.session = session

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.session.tick()

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    on_trial_error = on_trial_complete = on_trial_result

    def __getstate__(self) -> dict[str, Any]:
        return {}  # pickled with the searcher
