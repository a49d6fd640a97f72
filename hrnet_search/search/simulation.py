"""Searches that ask a table of trained networks instead of training: seconds instead of hours.

The proposals are those of a real search (`Proposals`): nothing infeasible, nothing twice. A search
sees one training of each network and pays for it, as it would; what it has found is judged by the
network's other trainings, of which it knows nothing, so that luck with a seed is no merit.
"""

import functools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from optuna.trial import TrialState

from ..arch import ArchSpec
from ..benchmark import Table
from ..pareto import front, hypervolume, reference_point
from ..result import Result, metric
from ..strategy import Sampler, Search
from .path import default_params
from .proposals import Proposals

LATENCY = {"latency": 0.0}  # which limits no study of a grid, and so no table


@dataclass(frozen=True)
class Trace:
    """What a search had found after each network.

    Args:
        keys: The networks, in the order of their training.
        seconds: Training that was paid by the end of each.
        volumes: Hypervolume of its front by then, as a share of that of all networks.
    """

    keys: tuple[str, ...]
    seconds: npt.NDArray[np.float64]
    volumes: npt.NDArray[np.float64]

    def at(self, seconds: float) -> float:
        """The share after so much training; 0 before the first network is there."""
        place = int(np.searchsorted(self.seconds, seconds, side="right"))
        return float(self.volumes[place - 1]) if place else 0.0

    def time_to(self, volume: float) -> float:
        """The training after which the share is at least this at first; infinite if it never is."""
        reached = np.flatnonzero(self.volumes >= volume)
        return float(self.seconds[reached[0]]) if len(reached) else math.inf


@dataclass(frozen=True)
class _Repetition:
    """Which training of each network is seen, and what the networks are worth by the others.

    Args:
        seen: Key -> the training; it may have failed.
        worth: Key -> accuracy and cost, turned so that smaller is better. By the training that is
            seen where there is no other; networks that never ended well are not there.
    """

    seen: dict[str, Result]
    worth: dict[str, list[float]]

    @functools.cached_property
    def reference(self) -> list[float]:
        return reference_point(list(self.worth.values()))

    @functools.cached_property
    def whole(self) -> float:
        return hypervolume(list(self.worth.values()), self.reference)


class Simulation:
    """Searches of one table.

    Args:
        table: The table.
    """

    def __init__(self, table: Table) -> None:
        self.table, self.study = table, table.study
        self._goals = self.study.accuracy, self.study.cost
        self._signs = [-metric(goal).sign for goal in self._goals]
        self._trainings: dict[str, list[Result]] = {}
        for result in sorted(table.results, key=lambda result: result.seed):
            self._trainings.setdefault(result.key, []).append(result)
        self._repetition = functools.lru_cache(self._drawn)

    def seconds(self, networks: float) -> float:
        """The training of so many networks of the table's mean."""
        return networks * float(np.mean([result.seconds for result in self.table.results]))

    def search(self, sampler: Sampler, *, repetition: int, seconds: float) -> Trace:
        """A search by a sampler.

        Args:
            sampler: Its name, as `search.sampler` has it; none is "grid".
            repetition: Its number, which decides the sampler's seed, and which training of each
                network is seen; of two samplers the same.
            seconds: The search ends with the first network that it has no time left for.
        """
        search = Search(sampler=sampler, seed=repetition, networks=len(self._trainings))
        study = self.study.model_copy(update={"search": search})
        proposals = Proposals(None, study, _unmeasured)
        drawn = self._repetition(repetition)
        return self._trace(self._proposed(proposals, drawn), drawn, seconds)

    def scaling(self, knobs: Sequence[str], *, repetition: int) -> Trace:
        """The default network at all values of some knobs, from cheap to dear.

        Args:
            knobs: Such as "width"; the others stay as in `default_params`.
            repetition: As of `search`.
        """
        drawn, default = self._repetition(repetition), default_params(self.study, ())
        kept = {name: value for name, value in default.items() if name not in knobs}
        keys = {
            self.study.key(params)
            for params in self.study.space.params()
            if kept.items() <= params.items()
        }
        trainings = [drawn.seen[key] for key in keys if key in drawn.seen]
        trainings.sort(key=lambda training: (_value(training, self.study.cost), training.key))
        return self._trace(trainings, drawn, math.inf)

    def _drawn(self, number: int) -> _Repetition:
        seen, worth = {}, {}
        for key, trainings in self._trainings.items():
            place = random.Random(f"{number}:{key}").randrange(len(trainings))
            seen[key] = trainings[place]
            ended = [other for other in trainings if other.state == "complete"]
            others = [other for other in ended if other is not trainings[place]] or ended
            if others:
                points = [[_value(other, goal) for goal in self._goals] for other in others]
                worth[key] = self._point(np.mean(points, axis=0))
        return _Repetition(seen, worth)

    def _proposed(self, proposals: Proposals, drawn: _Repetition) -> Iterator[Result]:
        """The trainings of what a sampler proposes; it is told of each before the next."""
        while proposal := proposals.next():
            training = drawn.seen[proposal.key]
            yield training
            if training.state == "complete":
                values = [_value(training, goal) for goal in self.study.goals]
                proposals.tell(proposal.number, TrialState.COMPLETE, values)
            else:
                proposals.tell(proposal.number, TrialState.FAIL)

    def _trace(self, trainings: Iterable[Result], drawn: _Repetition, seconds: float) -> Trace:
        found: dict[str, list[float]] = {}
        keys, passed, volumes, total = [], [], [], 0.0
        for training in trainings:
            total += training.seconds
            if total > seconds:
                break
            if training.state == "complete":
                values = [_value(training, goal) for goal in self._goals]
                found[training.key] = self._point(values)
            best = front(list(found.values()))
            kept = [drawn.worth[key] for key, is_best in zip(found, best, strict=True) if is_best]
            keys.append(training.key)
            passed.append(total)
            volumes.append(hypervolume(kept, drawn.reference) / drawn.whole)
        return Trace(tuple(keys), np.array(passed), np.array(volumes))

    def _point(self, values: Sequence[float] | npt.NDArray[np.float64]) -> list[float]:
        """Accuracy and cost, turned so that smaller is better."""
        return [float(sign * value) for sign, value in zip(self._signs, values, strict=True)]


def _value(training: Result, key: str) -> float:
    value = training.value(key)
    assert value is not None  # a complete training has all that its study compares
    return value


def _unmeasured(_: ArchSpec) -> dict[str, float]:
    return LATENCY
