"""Searches that ask a table of trained networks instead of training: seconds instead of hours.

The proposals are those of a real search (`Proposals`): nothing infeasible, nothing twice. A search
sees one training of each network, as it would; what it has found is judged by the mean over all
trainings of the table, of which it knows nothing.
"""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from optuna.trial import TrialState

from ..arch import ArchSpec
from ..benchmark import Network, Table
from ..pareto import front, hypervolume, reference_point
from ..result import Result, metric
from ..strategy import Search
from .path import default_params
from .proposals import Proposals

LATENCY = {"latency": 0.0}  # nothing here is limited by it


@dataclass(frozen=True)
class Trace:
    """What a search had found after each network.

    Args:
        keys: The networks, in the order of their training.
        seconds: Training that was paid by the end of each.
        volumes: Hypervolume by then, as a share of that of the whole table's front.
    """

    keys: tuple[str, ...]
    seconds: npt.NDArray[np.float64]
    volumes: npt.NDArray[np.float64]

    def at(self, seconds: float) -> float:
        """The share after so much training; 0 before the first network is there."""
        place = int(np.searchsorted(self.seconds, seconds, side="right"))
        return float(self.volumes[place - 1]) if place else 0.0

    def time_to(self, volume: float) -> float:
        """The training after which the share is at least this; infinite if it never is."""
        reached = np.flatnonzero(self.volumes >= volume)
        return float(self.seconds[reached[0]]) if len(reached) else float("inf")


class Simulation:
    """Searches of one table.

    Args:
        table: The table.
    """

    def __init__(self, table: Table) -> None:
        self.table, self.study = table, table.study
        self._goals = self.study.accuracy, self.study.cost
        self._signs = [-metric(goal).sign for goal in self._goals]
        self._true = {
            key: self._point([network.mean(goal) for goal in self._goals])
            for key, network in table.networks.items()
        }
        points = list(self._true.values())
        self._reference = reference_point(points)
        self._whole = hypervolume(points, self._reference)

    def seconds(self, networks: float) -> float:
        """The training of so many networks of the table's mean."""
        return networks * float(np.mean([n.seconds for n in self.table.networks.values()]))

    def search(self, settings: Search, *, repetition: int, seconds: float) -> Trace:
        """A search by a sampler.

        Args:
            settings: Those of the search; `networks` and what concerns Ray is not used.
            repetition: Its number, which decides the sampler's seed, and which training of each
                network is seen; of two samplers the same.
            seconds: The search ends with the first network that it has no time left for.
        """
        update = {"search": settings.model_copy(update={"seed": repetition})}
        proposals = Proposals(None, self.study.model_copy(update=update), _unmeasured)
        return self._trace(self._proposed(proposals, repetition), seconds)

    def scaling(self, knobs: Sequence[str], *, repetition: int) -> Trace:
        """The default network at all values of some knobs, from cheap to dear.

        Args:
            knobs: Such as "width"; the others stay as in `default_params`.
            repetition: As of `search`.
        """
        found = {network.key: network for network in self._scaled(knobs)}
        ordered = sorted(found.values(), key=lambda network: network.mean(self.study.cost))
        return self._trace((_training(network, repetition) for network in ordered), math.inf)

    def _proposed(self, proposals: Proposals, repetition: int) -> Iterator[Result]:
        """The trainings of what a sampler proposes; it is told of each before the next."""
        while proposal := proposals.next():
            network = self.table.networks.get(proposal.key)
            if network is None:  # its trainings failed
                proposals.tell(proposal.number, TrialState.FAIL)
                continue
            training = _training(network, repetition)
            yield training
            values = [_value(training, goal) for goal in self.study.goals]
            proposals.tell(proposal.number, TrialState.COMPLETE, values)

    def _trace(self, trainings: Iterable[Result], seconds: float) -> Trace:
        seen: dict[str, list[float]] = {}
        passed, volumes, total = [], [], 0.0
        for training in trainings:
            total += training.seconds
            if total > seconds:
                break
            seen[training.key] = self._point([_value(training, goal) for goal in self._goals])
            passed.append(total)
            volumes.append(self._found(seen))
        return Trace(tuple(seen), np.array(passed), np.array(volumes))

    def _scaled(self, knobs: Sequence[str]) -> Iterable[Network]:
        default = default_params(self.study, ())
        for params in self.study.space.params():
            if all(params[name] == value for name, value in default.items() if name not in knobs):
                yield self.table.networks[self.study.key(params)]

    def _point(self, values: Sequence[float]) -> list[float]:
        """Accuracy and cost, turned so that smaller is better."""
        return [sign * value for sign, value in zip(self._signs, values, strict=True)]

    def _found(self, seen: dict[str, list[float]]) -> float:
        """The front by what was seen, and what it is worth in truth."""
        best = front(list(seen.values()))
        kept = [self._true[key] for key, is_best in zip(seen, best, strict=True) if is_best]
        return hypervolume(kept, self._reference) / self._whole


def _training(network: Network, repetition: int) -> Result:
    """The one that a repetition sees, whatever its sampler."""
    return random.Random(f"{repetition}:{network.key}").choice(network.trainings)


def _value(training: Result, key: str) -> float:
    value = training.value(key)
    assert value is not None  # a complete training has all that its study compares
    return value


def _unmeasured(_: ArchSpec) -> dict[str, float]:
    return LATENCY
