"""The truth about a study on disk: an Optuna study in SQLite, and one folder per trial.

The driver alone writes `study.db`; a trial's worker alone writes that trial's folder, and
`result.json` last, so a trial is finished if and only if that file is there. Ray's own state is
never read back: after a crash the ledger is opened again and what is missing is run.
"""

import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from ..errors import InputError
from ..files import read_json, write_atomic, write_json
from ..result import METRICS, Result
from ..space import Value
from ..study import Study, dump_study

CHECKPOINT = "checkpoint.pt"  # in a trial's folder
MAX_DEATHS = 3  # times that a worker dies under a trial before the trial counts as failed
# A finished study stays valid when these change: they decide nothing about its trials.
# Whether data.root still leads to the same data, its checksum decides.
HARMLESS = (
    *("title", "description", "reference", "paper", "seeds", "data.root", "space.description"),
    *("data.cache_gib", "train.workers", "train.checkpoint_minutes"),  # change no figure
)
ENDED = (TrialState.COMPLETE, TrialState.FAIL)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One trial to run; kept as `trial.json` in its folder, complete enough to run it again."""

    study: str
    trial: int
    arm: str
    params: dict[str, Value]
    seed: int
    key: str
    arch: dict[str, Any]
    attempt: int


class Ledger:
    """One study's folder, open for one driver.

    Args:
        folder: `runs/<study>`; made if it is not there.
        study: The study, checked.

    Raises:
        InputError: Another driver has it open, or it holds a different study.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder, self.study = folder, study
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder / "lock")
        try:
            _check_same(folder / "study.yaml", study)
            self._optuna = _open_storage(folder / "study.db", study)
        except BaseException:
            self.close()
            raise
        self._results: dict[int, Result] = {}  # those read so far
        self._waiting: list[int] = []  # numbers of interrupted trials, to be started again

    def close(self) -> None:
        """Give the study up for another driver."""
        self._lock.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keep_study(self) -> None:
        """Write `study.yaml`; only once everything else about the study was found in order."""
        write_atomic(self.folder / "study.yaml", dump_study(self.study))

    def plan(self) -> None:
        """Enter every trial of the study that the ledger does not hold yet, seed by seed."""
        known = {(t.user_attrs["key"], t.user_attrs["seed"]) for t in self._planned()}
        arms = self.study.arms()
        for seed in range(self.study.seeds):
            for params in arms:
                key = self.study.network(params).key
                if (key, seed) not in known:
                    attributes = {"key": key, "seed": seed, "params": params}
                    self._optuna.enqueue_trial(_encoded(params), user_attrs=attributes)

    def reconcile(self) -> None:
        """After an interruption: tell what finished untold, queue again what did not finish."""
        self._waiting = []
        for trial in self._planned():
            if trial.state == TrialState.RUNNING:
                if self._result_file(trial.number).exists():
                    self._tell(self.result(trial.number))
                else:
                    self._waiting.append(trial.number)

    def unfinished(self) -> int:
        """How many trials are still to end."""
        return sum(trial.state not in ENDED for trial in self._planned())

    def begun(self) -> int:
        """How many trials that are still to end go on from a checkpoint."""
        trials = [trial for trial in self._planned() if trial.state not in ENDED]
        return sum(self._saved(trial) is not None for trial in trials)

    def next(self) -> Job | None:
        """The next trial to start, now running; None if all have been started."""
        if self._waiting:
            trial = self._trials()[self._waiting.pop(0)]
        elif any(trial.state == TrialState.WAITING for trial in self._planned()):
            number = self._optuna.ask(_distributions(self.study)).number
            trial = self._trials()[number]
        else:
            return None
        job = self._job(trial)
        folder = self.trial_folder(job.trial)
        folder.mkdir(parents=True, exist_ok=True)
        self._take_over(trial)
        write_json(folder / "trial.json", vars(job))
        return job

    def finish(self, number: int) -> Result | None:
        """Enter the result of a trial whose worker has stopped.

        Returns:
            The result, or None if the worker died and the trial is queued to start again.
        """
        if not self._result_file(number).exists() and not self._count_death(number):
            self._waiting.append(number)
            return None
        result = self.result(number)
        self._tell(result)
        self.write_results()
        return result

    def bury(self) -> None:
        """After Ray broke down: every trial it was running has lost its worker."""
        for trial in self._planned():
            started = (self.trial_folder(trial.number) / "trial.json").exists()
            ended = trial.state in ENDED or self._result_file(trial.number).exists()
            if started and not ended:
                self._count_death(trial.number)

    def result(self, number: int) -> Result:
        if number not in self._results:
            self._results[number] = Result.read(self._result_file(number))
        return self._results[number]

    def results(self) -> list[Result]:
        """The results of all trials that have ended, by number."""
        return [self.result(t.number) for t in self._planned() if t.state in ENDED]

    def write_results(self) -> None:
        """`results.jsonl`, made anew from the trials' folders."""
        lines = [json.dumps(result.to_dict(), allow_nan=False) for result in self.results()]
        write_atomic(self.folder / "results.jsonl", "".join(f"{line}\n" for line in lines))

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:05d}"

    def _trials(self) -> list[FrozenTrial]:
        return self._optuna.get_trials(deepcopy=False)

    def _planned(self) -> list[FrozenTrial]:
        """The trials that belong to the study as it is now.

        Not those of seeds beyond `seeds`, nor ended ones whose result was deleted: to delete a
        failed trial's `result.json` is to ask for it to be run again. That gets a new number, as
        Optuna lets nobody change a trial that has ended, and the old one's checkpoint.
        """
        return [
            trial
            for trial in self._trials()
            if trial.user_attrs["seed"] < self.study.seeds
            and (trial.state not in ENDED or self._result_file(trial.number).exists())
        ]

    def _saved(self, trial: FrozenTrial) -> Path | None:
        """The folder with the trial's checkpoint: its own, or of one that it is run again for."""
        twins = [
            other.number
            for other in self._trials()[: trial.number + 1]
            if all(other.user_attrs[k] == trial.user_attrs[k] for k in ("key", "seed"))
        ]
        folders = map(self.trial_folder, reversed(twins))
        return next((folder for folder in folders if (folder / CHECKPOINT).exists()), None)

    def _take_over(self, trial: FrozenTrial) -> None:
        """Move the checkpoint to the trial's own folder; last, so that it never lacks a history."""
        before, folder = self._saved(trial), self.trial_folder(trial.number)
        if before is not None and before != folder:
            for name in ("history.jsonl", CHECKPOINT):
                if (before / name).exists():  # else moved when the driver was killed in between
                    os.replace(before / name, folder / name)

    def _count_death(self, number: int) -> bool:
        """Note that a worker died; at the last time write the trial's result: True."""
        file = self.trial_folder(number) / "deaths.json"
        deaths = 1 + (read_json(file) if file.exists() else 0)
        write_json(file, deaths)
        if deaths >= MAX_DEATHS:
            job = Job(**read_json(self.trial_folder(number) / "trial.json"))
            write_json(self._result_file(number), _lost(job, deaths).to_dict())
        return deaths >= MAX_DEATHS

    def _result_file(self, number: int) -> Path:
        return self.trial_folder(number) / "result.json"

    def _job(self, trial: FrozenTrial) -> Job:
        params = trial.user_attrs["params"]
        network = self.study.network(params)
        before = self.trial_folder(trial.number) / "trial.json"
        return Job(
            study=self.study.name,
            trial=trial.number,
            arm=self.study.arm(params),
            params=params,
            seed=trial.user_attrs["seed"],
            key=network.key,
            arch=network.to_dict(),
            attempt=1 + (read_json(before)["attempt"] if before.exists() else 0),
        )

    def _tell(self, result: Result) -> None:
        values = [result.value(key) for key in _objectives(self.study)]
        if result.state == "complete" and None not in values:
            self._optuna.tell(result.trial, [float(v) for v in values if v is not None])
        else:
            self._optuna.tell(result.trial, state=TrialState.FAIL)


def set_aside(folder: Path) -> Path | None:
    """Move a study's folder to a name with today's time, for a fresh start; None if there is none.

    Raises:
        InputError: A driver is running it.
    """
    if not folder.exists():
        return None
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    kept = folder.with_name(f"{folder.name}.{stamp}")
    with _lock(folder / "lock"):
        folder.rename(kept)
    return kept


def _objectives(study: Study) -> tuple[str, str]:
    return study.accuracy, study.cost


def _open_storage(path: Path, study: Study) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = optuna.create_study(
        storage=f"sqlite:///{path}",
        sampler=optuna.samplers.RandomSampler(seed=0),  # a grid asks nothing of it
        study_name=study.name,
        directions=[METRICS[key].direction for key in _objectives(study)],
        load_if_exists=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        opened.set_metric_names(list(_objectives(study)))  # axis labels of optuna-dashboard
    return opened


def _distributions(study: Study) -> dict[str, BaseDistribution]:
    return {
        name: CategoricalDistribution([_encoded_value(value) for value in knob.values()])
        for name, knob in study.space.vary.items()
    }


def _encoded(params: dict[str, Value]) -> dict[str, Any]:
    return {name: _encoded_value(value) for name, value in params.items()}


def _encoded_value(value: Value) -> bool | int | float | str:
    """Optuna's categories are scalars; a list stands there as JSON."""
    return json.dumps(value) if isinstance(value, list) else value


def _lock(path: Path) -> TextIO:
    """Hold the study until the file is closed; the system frees it when the process dies."""
    file = open(path, "a+")  # noqa: SIM115 - stays open as long as the lock is held
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        rule = f"this study is being run by {holder}; wait for it, or stop it"
        raise InputError(rule, file=path.parent) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _check_same(path: Path, study: Study) -> None:
    if not path.exists():
        return
    before = _flat(yaml.safe_load(path.read_text()))
    after = _flat(study.model_dump(mode="json"))
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old != new and not any(_below(key, name) for name in HARMLESS):
            rule = f"was {old!r} when {path.parent} was run; use --fresh to start over"
            raise InputError(rule, key=key, value=new)


def _below(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    parts: Iterable[dict[str, Any]] = (
        _flat(inner, f"{prefix}.{key}" if prefix else key) for key, inner in value.items()
    )
    return {key: inner for part in parts for key, inner in part.items()}


def _lost(job: Job, deaths: int) -> Result:
    """The record of a trial whose worker died without a word, for the last time."""
    message = f"the worker process died {deaths} times (out of memory, or killed)"
    return Result(
        **{**vars(job)},
        state="failed",
        profile={},
        metrics={},
        history=[],
        seconds=0.0,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        error={"type": "WorkerDied", "message": message, "traceback": ""},
    )
