"""What Ray Tune is given: a trainable that runs a trial, a searcher that asks the ledger."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher

from .display import Display
from .ledger import Ledger


def train_trial(config: dict[str, Any]) -> None:
    """Tune's trainable. The worker process is reused, so imports are paid once."""
    folder, processes = Path(config["folder"]), config["processes"]
    if processes > 1:
        from .parallel import run_shared

        run_shared(folder, processes)
    else:
        from .trial import run_trial

        run_trial(folder, tune.report)


class LedgerSearch(Searcher):
    """Hands Tune the ledger's next trial, and the ledger what became of it.

    Without metric and mode Tune does not look at results itself, and so cannot trip over a
    missing or infinite one. It keeps no state of its own.
    """

    def __init__(self, ledger: Ledger, display: Display) -> None:
        super().__init__(metric=None, mode=None)
        self.ledger, self.display = ledger, display
        self.numbers: dict[str, int] = {}  # Tune's trial id -> ours

    def suggest(self, trial_id: str) -> Any:
        job = self.ledger.next()
        if job is None:
            # An interrupted trial may still come back; Tune asks again while others run.
            return None if self.numbers else Searcher.FINISHED
        self.numbers[trial_id] = job.trial
        self.display.start(job)
        folder = self.ledger.trial_folder(job.trial).absolute()
        return {"folder": str(folder), "processes": self.ledger.study.train.processes}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "step" in result:
            self.display.update(self.numbers[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self.numbers.pop(trial_id)
        self.display.finish(number, self.ledger.finish(number))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles the searcher into a file that is never read


class Silent(TrialProgressCallback):
    """In place of Tune's own, which prints a line about a trial that ends without a report."""

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    on_trial_error = on_trial_complete = on_trial_result
