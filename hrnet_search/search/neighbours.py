"""Samplers that change one knob of a network that did well: local search and evolution.

Both draw networks at random first, and step to none that was proposed before.
"""

import random
from collections.abc import Iterator
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ..pareto import front
from ..space import Value
from ..study import Study
from .storage import distributions, encoded_params

# Of regularised evolution (Real et al., AAAI 2019), a fifth of theirs of 100 and 25: a search has
# dozens of networks here, not thousands.
POPULATION, SAMPLE = 20, 5

Kind = Literal["local", "evolution"]


def _networks(study: optuna.Study) -> tuple[list[FrozenTrial], set[str]]:
    """The networks that were trained in full, and the keys of all that were ever proposed."""
    trials = study.get_trials(deepcopy=False)
    trained = [t for t in trials if t.user_attrs.get("fate") == "new"]
    known = {t.user_attrs["key"] for t in trials if "key" in t.user_attrs}
    return [t for t in trained if t.state == TrialState.COMPLETE], known


class Neighbours(BaseSampler):
    """A parent that did well, one step away from it in one knob.

    Args:
        study: What is searched.
        kind: Parents are drawn from the networks that no other beats so far ("local"), or from
            those of a few of the latest networks that none of these few beats ("evolution").
        seed: Of the sampler.
        startup: Networks that are drawn at random until so many were trained in full.
    """

    def __init__(self, study: Study, kind: Kind, *, seed: int, startup: int) -> None:
        self.study, self.kind, self.startup = study, kind, startup
        self._rng = random.Random(seed)
        self._independent = optuna.samplers.RandomSampler(seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return distributions(self.study.space)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        told, known = _networks(study)
        if len(told) < self.startup:
            return {}
        signs = [1 if d == StudyDirection.MINIMIZE else -1 for d in study.directions]
        for parent in self._parents(told, signs):
            near = list(self.study.space.neighbours(parent))
            self._rng.shuffle(near)
            for params in near:
                if self.study.is_feasible(params) and self.study.key(params) not in known:
                    return encoded_params(params)
        return {}

    def _parents(self, told: list[FrozenTrial], signs: list[int]) -> Iterator[dict[str, Value]]:
        """Knob values of parents, in the order in which they are tried."""
        rounds = 1 if self.kind == "local" else SAMPLE
        for _ in range(rounds):
            among = told
            if self.kind == "evolution":
                latest = told[-POPULATION:]
                among = self._rng.sample(latest, min(SAMPLE, len(latest)))
            points = [[s * v for s, v in zip(signs, t.values, strict=True)] for t in among]
            best = [t for t, is_best in zip(among, front(points), strict=True) if is_best]
            self._rng.shuffle(best)
            yield from (t.user_attrs["params"] for t in best)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)
