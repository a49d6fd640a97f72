"""The truth about a study on disk: one folder per trial, and an Optuna study in SQLite.

The driver alone writes `study.db`; a trial's worker alone writes that trial's folder, and
`result.json` last, so a trial is finished if and only if that file is there. Ray's own state is
never read back: after a crash the ledger is opened again and what is missing is run. `study.db` and
`results.jsonl` follow from the folders: whatever of them is lost or damaged is made anew.
"""

import fcntl
import json
import math
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TextIO

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..comparisons import seeds_wanted
from ..errors import InputError
from ..files import read_json, read_json_lines, write_atomic, write_json
from ..reading import setting_of
from ..result import RETRIED, Result, read_results
from ..space import Value
from ..study import Study, dump_study, load_study
from .job import CHECKPOINT, Job, heard, lost, say
from .proposals import Measure, Proposal, Proposals
from .rungs import Rungs
from .storage import (
    encoded_params,
    is_sound,
    open_networks,
    open_trainings,
    training_distributions,
)
from .storage import set_aside as set_database_aside

# A finished study stays valid when these change: they decide nothing about its trials.
# Whether data.root still leads to the same data, its checksum decides.
HARMLESS = (
    *("title", "description", "reference", "paper", "seeds", "data.root", "space.description"),
    *("data.cache_gib", "train.workers", "train.checkpoint_minutes", "train.keep_checkpoints"),
    *("search.networks", "search.budget", "search.trial_limit", "search.max_failures"),
    *("search.failure_budget", "scales"),
)
LOOKS, LOOK_SECONDS = 5, 0.05  # at a lock that is held
STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
ENDED = tuple(STATES.values())

State = Literal["waiting", "running", "complete", "pruned", "failed"]


@dataclass(kw_only=True, eq=False)
class Training:
    """One network with one seed, as the driver remembers it.

    Args:
        params: Knob -> value.
        key: Hash of the network.
        seed: Of initial weights and data order.
        proposal: Number of the sampler's proposal; None in a grid.
        number: Of its folder, once it was started.
        state: What it is doing.
        result: Once it has ended.
    """

    params: dict[str, Value]
    key: str
    seed: int
    proposal: int | None = None
    number: int | None = None
    state: State = "waiting"
    result: Result | None = None

    @property
    def has_ended(self) -> bool:
        return self.result is not None


class Ledger:
    """One study's folder, open for one driver.

    Args:
        folder: `runs/<study>`; made if it is not there.
        study: The study, checked.

    Raises:
        InputError: Another driver has it open, or it holds a different study.

    Attributes:
        repaired: What was found damaged and made anew, in words.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder, self.study = folder, study
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder / "lock")
        self.repaired: list[str] = []
        self.proposals: Proposals | None = None
        self._rungs: Rungs | None = None
        self._trainings: list[Training] = []
        self._numbered: dict[int, Training] = {}
        self._withdrawn: dict[tuple[str, int], list[int]] = {}  # numbers without their result
        self._waiting: deque[Training] = deque()
        try:
            check_same(folder / "study.yaml", study)
            jobs = self._read_jobs()
            self._optuna = self._open_database(folder / "study.db", jobs)
            self._choices = training_distributions(study)
            for trial in self._optuna.get_trials(deepcopy=False):
                self._choices |= trial.distributions  # Optuna takes no other order of the values
            self._reconcile(jobs)
        except BaseException:
            self.close()
            raise

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

    # --- opening ---------------------------------------------------------------------------------

    def _open_database(self, file: Path, jobs: Mapping[int, Job]) -> optuna.Study:
        """`study.db`; one that is damaged, or of other trials, is put aside for a new one."""
        if file.exists() and not is_sound(file):
            kept = set_database_aside(file)
            self.repaired.append(f"study.db could not be read; it is kept as {kept.name}")
        opened = open_trainings(file, self.study)
        if _fits(opened, jobs) and (
            self.study.search.is_grid or _fits_networks(open_networks(file, self.study), jobs)
        ):
            return opened
        kept = set_database_aside(file)
        self.repaired.append(f"study.db held other trials than the folders; kept as {kept.name}")
        return open_trainings(file, self.study)

    def _reconcile(self, jobs: Mapping[int, Job]) -> None:
        """Bring `study.db` and `results.jsonl` into line with the trials' folders."""
        copies = read_results(self.folder / "results.jsonl")
        self._add_missing(jobs)
        stored = self._optuna.get_trials(deepcopy=False)
        latest = {(job.key, job.seed): number for number, job in jobs.items()}
        for number, job in jobs.items():
            training = Training(
                params=job.params, key=job.key, seed=job.seed, proposal=job.proposal, number=number
            )
            training.result = self._read_result(number, copies.get(number))
            is_repeated = latest[job.key, job.seed] > number
            self._enter(training, stored[number], is_repeated=is_repeated)
        for trial in stored:
            if trial.number not in jobs and trial.state not in ENDED:
                self._optuna.tell(trial.number, state=TrialState.FAIL)  # its folder is gone
        self._count = len(stored)
        self._restore_results(copies)
        if self.study.search.is_grid:
            self._plan_grid()

    def _read_jobs(self) -> dict[int, Job]:
        """Number -> job of every trial that was started."""
        folders = sorted((self.folder / "trials").glob("[0-9]" * 5 + "*/trial.json"))
        return {int(file.parent.name): Job.read(file.parent) for file in folders}

    def _add_missing(self, jobs: Mapping[int, Job]) -> None:
        """Enter trials that `study.db` does not know: it is new, or its driver died too early."""
        known = len(self._optuna.get_trials(deepcopy=False))
        if jobs and not known:
            self.repaired.append(f"study.db was made anew from {len(jobs)} trials")
        for number in range(known, max(jobs, default=-1) + 1):
            if number in jobs:
                self._add(jobs[number].params, jobs[number].key, jobs[number].seed)
            else:
                self._optuna.add_trial(create_trial(state=TrialState.FAIL))  # keeps the number

    def _add(self, params: Mapping[str, Value], key: str, seed: int) -> None:
        trial = create_trial(
            state=TrialState.RUNNING,
            params=encoded_params(params),
            distributions={name: self._choices[name] for name in params},
            user_attrs={"key": key, "seed": seed, "params": dict(params)},
        )
        self._optuna.add_trial(trial)

    def _read_result(self, number: int, copy: Result | None) -> Result | None:
        """The trial's result; of a damaged one the copy, or else it has to be run again."""
        file = self._result_file(number)
        if not file.exists():
            return None
        try:
            return Result.read(file)
        except (ValueError, TypeError, KeyError):
            if copy is None:
                os.replace(file, file.with_name("result.json.damaged"))
                self.repaired.append(f"trial {number}: result.json was damaged; it runs again")
                return None
            self.repaired.append(f"trial {number}: result.json was damaged; its copy is in place")
            write_json(file, copy.to_dict())
            return copy

    def _enter(self, training: Training, stored: FrozenTrial, *, is_repeated: bool) -> None:
        """Put a trial that was started before into memory."""
        assert training.number is not None
        result, folder = training.result, self.trial_folder(training.number)
        if result is not None and stored.state not in ENDED and self._is_retried(result, folder):
            self._keep_failure(result, folder)  # the driver died with the worker
            training.result = None
        if training.result is None and is_repeated and stored.state not in ENDED:
            self._optuna.tell(training.number, state=TrialState.FAIL)  # it runs under a later one
        if training.result is None and (stored.state in ENDED or is_repeated):
            # To delete a failed trial's `result.json` is to ask for it to be run again. That gets
            # a new number, as Optuna lets nobody change a trial that has ended.
            self._withdrawn.setdefault((training.key, training.seed), []).append(training.number)
            return
        if training.result is not None:
            training.state = training.result.state
            if stored.state not in ENDED:
                self._tell(training.result)
        self._trainings.append(training)
        self._numbered[training.number] = training

    def _restore_results(self, copies: Mapping[int, Result]) -> None:
        """Make `results.jsonl` anew if it does not hold exactly the results."""
        results = {t.number: t.result for t in self._trainings if t.result is not None}
        file = self.folder / "results.jsonl"
        if results != dict(copies) or _lines(file) != len(results):
            write_atomic(file, "".join(_line(result) for result in results.values() if result))

    # --- planning --------------------------------------------------------------------------------

    def plan(self, *, steps: int, measure: Measure) -> None:
        """Make a search ready to propose networks; a grid is known when it is opened.

        Args:
            steps: Of one training.
            measure: Network -> its profile; asked for before a network is trained.
        """
        if self.study.search.is_grid:
            return
        if self.study.search.scheduler != "none":
            self._rungs = Rungs(self.study, steps)
            for training in sorted(self._trainings, key=lambda t: t.number or 0):
                if training.result is not None:
                    self._rungs.end(training.result)
        self.proposals = Proposals(self.folder / "study.db", self.study, measure)
        self._plan_search(self.proposals)

    def _plan_grid(self) -> None:
        """Enter every trial that the study wants by now and is not there yet, seed by seed."""
        networks = {self.study.arm(p): (p, self.study.key(p)) for p in self.study.arms()}
        found = {(training.key, training.seed): training for training in self._trainings}
        wanted = self._seeds_wanted({name: key for name, (_, key) in networks.items()}, found)
        order = []
        for seed in range(max(wanted.values())):
            for name, (params, key) in networks.items():
                if seed < wanted[name]:
                    known = found.get((key, seed))
                    order.append(known or Training(params=params, key=key, seed=seed))
        self._set_order(order)

    def _seeds_wanted(
        self, keys: Mapping[str, str], found: Mapping[tuple[str, int], Training]
    ) -> dict[str, int]:
        """Arm -> number of its seeds, by what has ended; `keys` are those of the arms' networks."""
        if self.study.adaptive is None:
            return dict.fromkeys(keys, self.study.seeds)
        ended = {place: t.result for place, t in found.items() if t.result is not None}
        values: dict[str, dict[int, float]] = {name: {} for name in keys}
        names = {key: name for name, key in keys.items()}
        for (key, seed), result in ended.items():
            value = result.value(self.study.accuracy)
            is_complete = key in names and result.state == "complete"
            if is_complete and value is not None and math.isfinite(value):
                values[names[key]][seed] = value
        return seeds_wanted(self.study, values, lambda name, seed: (keys[name], seed) in ended)

    def _plan_search(self, proposals: Proposals) -> None:
        """Enter all seeds of the networks proposed so far, and tell what became of them."""
        jobs = [t for t in self._trainings if t.proposal is not None]
        known = {
            t.proposal: Proposal(number=t.proposal, params=t.params, key=t.key)
            for t in jobs
            if t.proposal is not None
        }
        proposals.restore(known)
        found = {(training.proposal, training.seed): training for training in jobs}
        early = {training.proposal for training in jobs if training.state == "pruned"}
        order = []
        for proposal in proposals.kept.values():
            for seed in range(self.study.seeds):
                training = found.get((proposal.number, seed))
                if training is None and proposal.number not in early:
                    training = _training(proposal, seed)
                order += [] if training is None else [training]
        self._set_order(order)
        for number in proposals.open():
            self._settle_network(number)

    def _set_order(self, order: list[Training]) -> None:
        """These are the trials of the study; those that were interrupted are started first."""
        self._trainings = order
        self._numbered = {t.number: t for t in order if t.number is not None}
        waiting = [training for training in order if not training.has_ended]
        begun = sorted((t for t in waiting if t.number is not None), key=lambda t: t.number or 0)
        self._waiting = deque([*begun, *(t for t in waiting if t.number is None)])

    def propose(self) -> bool:
        """Have a trial waiting, if there is any left: of a search ask the sampler for one.

        With adaptive seeds there may be more once all that run have ended.
        """
        search = self.study.search
        if self.study.adaptive and not self._waiting and not self.running():
            self._plan_grid()  # the next look
        while not self._waiting and self.proposals is not None and not self.proposals.ended:
            if len(self.proposals.kept) >= (search.networks or 0):
                break
            if proposal := self.proposals.next():
                new = [_training(proposal, seed) for seed in range(self.study.seeds)]
                self._trainings += new
                self._waiting.extend(new)
        return bool(self._waiting)

    # --- running ---------------------------------------------------------------------------------

    def next(self) -> Job | None:
        """The next trial to start, now running; None if all have been started."""
        if not self.propose():
            return None
        training = self._waiting.popleft()
        is_new = training.number is None
        if training.number is None:
            training.number = self._count
            self._numbered[self._count] = training
            self._count += 1
        job = self._job(training, training.number)
        folder = self.trial_folder(job.trial)
        folder.mkdir(parents=True, exist_ok=True)
        self._take_over(training, folder)
        job.write(folder)
        _clear(folder)
        if is_new:
            self._add(job.params, job.key, job.seed)
        elif self._rungs is not None:
            # Where it was found to go on it goes on, whoever has passed there meanwhile.
            points = read_json_lines(folder / "history.jsonl")[:-1]
            cost = self._cost(training.key)
            self._rungs.passed(job.trial, points, cost=cost, seed=job.seed)
        training.state = "running"
        return job

    def report(self, number: int, point: dict[str, Any]) -> bool:
        """Enter a point of a trial's history; if it is behind at a rung, tell its worker: True."""
        training = self._numbered[number]
        if self._rungs is None or training.state != "running":
            return False
        cost = self._cost(training.key)
        behind = self._rungs.is_behind(number, point, cost=cost, seed=training.seed)
        if behind:
            self._say(number, "prune")
        return behind

    def pause(self) -> None:
        """Ask the workers of all running trials to save, and to leave."""
        for number in self.running():
            self._say(number, "pause")

    def finish(self, number: int) -> tuple[Result | None, bool]:
        """Enter what became of a trial whose worker has stopped.

        Returns:
            The result, or that of this attempt, or None if the worker was asked to pause. And
            whether the trial is to be started again.
        """
        training = self._numbered[number]
        folder, job = self.trial_folder(number), self.job(number)
        result = self._read_result(number, None)
        if result is None and heard(folder, attempt=job.attempt) == "pause":
            self._put_back(training)
            return None, True
        result = result or lost(job, folder)
        if self._is_retried(result, folder):
            self._keep_failure(result, folder)
            self._put_back(training)
            return result, True
        if not self._result_file(number).exists():
            write_json(self._result_file(number), result.to_dict())
        (folder / "stop.json").unlink(missing_ok=True)
        self._end(training, result)
        return result, False

    def _keep_failure(self, result: Result, folder: Path) -> None:
        """Note why an attempt failed, and make room for another."""
        write_json(folder / f"failure-{result.attempt}.json", result.to_dict())
        (folder / "result.json").unlink(missing_ok=True)

    def _is_retried(self, result: Result, folder: Path) -> bool:
        own = folder / f"failure-{result.attempt}.json"  # there if the driver died meanwhile
        failures = len([file for file in folder.glob("failure-*.json") if file != own])
        cause = (result.error or {}).get("cause")
        return cause in RETRIED and failures < self.study.search.max_failures

    def _put_back(self, training: Training) -> None:
        training.state = "waiting"
        self._waiting.appendleft(training)

    def _end(self, training: Training, result: Result) -> None:
        with open(self.folder / "results.jsonl", "a") as file:
            file.write(_line(result))
            file.flush()
            os.fsync(file.fileno())
        self._tell(result)
        training.result, training.state = result, result.state
        if self._rungs is not None:
            self._rungs.end(result)
        if training.proposal is not None:
            self._settle_network(training.proposal)

    def _settle_network(self, proposal: int) -> None:
        """Tell the sampler of a network whose seeds have all ended, or one of them early."""
        assert self.proposals is not None
        own = [training for training in self._trainings if training.proposal == proposal]
        if any(training.state == "pruned" for training in own):
            self._drop([t for t in own if t.state == "waiting" and t.number is None])
        if proposal not in self.proposals.open() or self._is_under_way(proposal):
            return
        if any(training.state == "pruned" for training in own):
            self.proposals.tell(proposal, TrialState.PRUNED)
            return
        values = self._means([t.result for t in own if t.result is not None])
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        self.proposals.tell(proposal, state, values)

    def _drop(self, trainings: list[Training]) -> None:
        """Forget trials that were never started."""
        for training in trainings:
            self._trainings.remove(training)
            self._waiting.remove(training)

    def _is_under_way(self, proposal: int) -> bool:
        return any(t.proposal == proposal and not t.has_ended for t in self._trainings)

    def _means(self, results: Iterable[Result]) -> list[float] | None:
        """Over the seeds that are complete: each objective; None if there are none."""
        rows = [
            [result.value(key) for key in self.study.goals]
            for result in results
            if result.state == "complete"
        ]
        whole = [[v for v in row if v is not None] for row in rows if None not in row]
        return [fmean(column) for column in zip(*whole, strict=True)] or None

    # --- what is there ---------------------------------------------------------------------------

    def running(self) -> list[int]:
        """Numbers of the trials that are running."""
        return [number for number, t in self._numbered.items() if t.state == "running"]

    def counts(self) -> dict[State, int]:
        """How many trials are in each state."""
        found = Counter(training.state for training in self._trainings)
        states: tuple[State, ...] = ("complete", "pruned", "failed", "running", "waiting")
        counts: dict[State, int] = {state: found[state] for state in states}
        counts["waiting"] += self._unproposed() * self.study.seeds
        return counts

    def unfinished(self) -> int:
        """How many trials are still to end; of a search those of networks to come as well."""
        return sum(self.counts()[state] for state in ("running", "waiting"))

    def total(self) -> int:
        """How many trials the study has, as far as is known."""
        return sum(self.counts().values())

    def begun(self) -> int:
        """How many trials that are still to end go on from a checkpoint."""
        unfinished = [training for training in self._trainings if not training.has_ended]
        return sum(self._saved(training) is not None for training in unfinished)

    def results(self) -> list[Result]:
        """The results of all trials of the study that have ended, by number."""
        found = [t.result for t in self._trainings if t.result and self._is_planned(t)]
        return sorted(found, key=lambda result: result.trial)

    def _is_planned(self, training: Training) -> bool:
        """Not one of a search that had more seeds before; a grid's are those of its plan."""
        return self.study.search.is_grid or training.seed < self.study.seeds

    def job(self, number: int) -> Job:
        """What the trial's worker was given."""
        return Job.read(self.trial_folder(number))

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:05d}"

    def _unproposed(self) -> int:
        """Networks that the sampler may still propose."""
        search = self.study.search
        if search.is_grid or (self.proposals is not None and self.proposals.ended):
            return 0
        known = {t.proposal for t in self._trainings}
        return max(0, (search.networks or 0) - len(known))

    def _saved(self, training: Training) -> Path | None:
        """The folder with the trial's checkpoint: its own, or of one that it is run again for."""
        numbers = [*self._withdrawn.get((training.key, training.seed), [])]
        numbers += [] if training.number is None else [training.number]
        folders = map(self.trial_folder, reversed(numbers))
        return next((folder for folder in folders if (folder / CHECKPOINT).exists()), None)

    def _take_over(self, training: Training, folder: Path) -> None:
        """Move the checkpoint to the trial's own folder; last, so that it never lacks a history."""
        before = self._saved(training)
        if before is not None and before != folder:
            for name in ("history.jsonl", CHECKPOINT):
                if (before / name).exists():  # else moved when the driver was killed in between
                    os.replace(before / name, folder / name)

    def _result_file(self, number: int) -> Path:
        return self.trial_folder(number) / "result.json"

    def _cost(self, key: str) -> float:
        """Of a network that was profiled, in the unit of `study.cost`."""
        profile = read_json(self.folder / "profiles" / f"{key}.json")
        return float(profile[self.study.cost.removeprefix("profile.")])

    def _say(self, number: int, word: Literal["prune", "pause"]) -> None:
        say(self.trial_folder(number), word, attempt=self.job(number).attempt)

    def _job(self, training: Training, number: int) -> Job:
        folder = self.trial_folder(number)
        before = Job.read(folder).attempt if (folder / "trial.json").exists() else 0
        return Job(
            study=self.study.name,
            trial=number,
            arm=self.study.arm(training.params),
            params=training.params,
            seed=training.seed,
            key=training.key,
            arch=self.study.network(training.params).to_dict(),
            attempt=before + 1,
            proposal=training.proposal,
        )

    def _tell(self, result: Result) -> None:
        """Optuna's study of the trainings: values of complete trials alone."""
        values = [result.value(key) for key in (self.study.accuracy, self.study.cost)]
        state = STATES[result.state]
        if state == TrialState.COMPLETE and None in values:
            state = TrialState.FAIL
        told = [v for v in values if v is not None] if state == TrialState.COMPLETE else None
        self._optuna.tell(result.trial, told, state=state)


def _clear(folder: Path) -> None:
    """Remove the word for an earlier attempt, and what its worker was writing when it was killed.

    After `trial.json` has the new attempt: should the earlier one live, it leaves no result now.
    """
    for file in (folder / "stop.json", *folder.glob(".*")):
        file.unlink(missing_ok=True)


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


def _training(proposal: Proposal, seed: int) -> Training:
    return Training(params=proposal.params, key=proposal.key, seed=seed, proposal=proposal.number)


def _line(result: Result) -> str:
    return json.dumps(result.to_dict(), allow_nan=False) + "\n"


def _lines(file: Path) -> float:
    """How many lines a file has; a last one that is not ended counts half."""
    content = file.read_bytes() if file.exists() else b"-"
    return content.count(b"\n") + (0 if content.endswith(b"\n") or not content else 0.5)


def _lock(path: Path) -> TextIO:
    """Hold the study until the file is closed; the system frees it when the process dies."""
    for _ in range(LOOKS):  # `status` holds it for an instant
        file = open(path, "a+")  # noqa: SIM115 - stays open as long as the lock is held
        if _is_granted(file, path):
            break
        holder = _holder(file)
        file.close()
        time.sleep(LOOK_SECONDS)
    else:
        rule = f"this study is being run by {holder}; wait for it, or stop it"
        raise InputError(rule, file=path.parent)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _is_granted(file: TextIO, path: Path) -> bool:
    """Whether the lock is ours, and the file still the one that others will find."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _holder(file: TextIO) -> str:
    file.seek(0)
    return file.read().strip() or "another process"


def _fits(stored: optuna.Study, jobs: Mapping[int, Job]) -> bool:
    """Whether the trials of `study.db` are those of the folders, as far as both have them."""
    return all(
        (trial.user_attrs.get("key"), trial.user_attrs.get("seed"))
        == (jobs[trial.number].key, jobs[trial.number].seed)
        for trial in stored.get_trials(deepcopy=False)
        if trial.number in jobs
    )


def _fits_networks(stored: optuna.Study, jobs: Mapping[int, Job]) -> bool:
    """Likewise for the proposals."""
    keys = {job.proposal: job.key for job in jobs.values()}
    return all(
        trial.user_attrs.get("key") == keys[trial.number]
        for trial in stored.get_trials(deepcopy=False)
        if trial.number in keys
    )


def check_same(path: Path, study: Study) -> None:
    """Refuse a study that would not have trained what lies there.

    Raises:
        InputError: Something that decides about trials has changed, or the old study is damaged.
    """
    if not path.exists() or path.read_text() == dump_study(study):
        return
    # The reference decides the networks of arms that are to meet its cost, and with the first
    # look's seeds which arms get more of them.
    decisive = [*["reference"] * bool(study.match), *["reference", "seeds"] * bool(study.adaptive)]
    harmless = [name for name in HARMLESS if name not in decisive]
    there = load_study(path)
    before, after = (_flat(one.model_dump(mode="json")) for one in (there, study))
    if study.search.is_grid and there.search.is_grid:  # the last arm is the reference unless named
        before["reference"], after["reference"] = there.reference_arm, study.reference_arm
    changed = [
        key
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
        and not any(_below(k, name) for k in (key, setting_of(key)) for name in harmless)
    ]
    if changed:
        key, *others = changed
        also = f" (also changed: {', '.join(others)})" if others else ""
        rule = (
            f"was {before.get(key)!r} when {path.parent} was run{also}; give it another name, or "
        )
        rule += "use --fresh to start over"
        raise InputError(rule, key=key, value=after.get(key))


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
