"""A sampler that knows what networks cost: only their accuracy has to be guessed.

Samplers that know nothing of networks learn both objectives from the trials. But cost is in closed
form. So here a Gaussian process predicts accuracy from knobs and costs, and the network is proposed
that is expected to add most to the hypervolume: with the cost known that expectation is a sum of
expected improvements, one for each step of the front.
"""

import functools
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import ndtr

from ..pareto import MARGIN, front
from ..result import METRICS
from ..space import Value, in_order
from ..study import Study
from .storage import distributions, encoded_params

Array = npt.NDArray[np.float64]

POOL = 2000  # networks to choose from; of larger spaces drawn anew for each proposal
COSTS = ("profile.macs", "profile.params", "profile.depth")  # what accuracy is predicted from
# Of the Gaussian process, in standard deviations: length of costs, length of knobs, noise. The
# logarithms of what is fitted are drawn towards these, as if they were known up to a factor of e.
USUAL = np.array([2.0, 2.0, 0.2])
LEAST = 1e-6  # variance


@dataclass(frozen=True)
class Pool:
    """Networks to choose from.

    Args:
        params: Knob values of N different networks.
        costs: The objective that is known, (N,).
        features: What accuracy is predicted from, (N, F); the first `len(COSTS)` of costs.
    """

    params: list[dict[str, Value]]
    costs: Array
    features: Array


class Surrogate(BaseSampler):
    """Proposes what is expected to add most to the hypervolume.

    Args:
        study: What is searched; its second objective, if there is one, is a cost in closed form.
        pool: The networks of a small space (`pool_of`); None draws some.
        seed: Of the sampler.
        startup: Networks that are drawn at random first.
    """

    def __init__(self, study: Study, pool: Pool | None, *, seed: int, startup: int) -> None:
        self.study, self.pool, self.startup = study, pool, startup
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
        trials = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get("fate") == "new"]
        told = [t for t in trials if t.state == TrialState.COMPLETE]
        if len(told) < self.startup:
            return {}
        running = [t for t in trials if t.state == TrialState.RUNNING]
        known = {t.user_attrs["key"] for t in trials}
        pool = self.pool or self._drawn([t.user_attrs["params"] for t in told])
        gains = self._gains(pool, told, running)
        for place in np.argsort(-gains, kind="stable"):
            params = pool.params[place]
            if self.study.key(params) not in known and self.study.is_feasible(params):
                return encoded_params(params)
        return {}

    def _drawn(self, told: Sequence[dict[str, Value]]) -> Pool:
        """Networks of a large space: some at random, and the neighbours of those told of."""
        space = self.study.space
        near = [params for parent in told for params in space.neighbours(parent)]
        self._rng.shuffle(near)
        drawn = itertools.islice(space.draws(self._rng), POOL // 4)
        return pool_of(self.study, [*near[: POOL // 4], *drawn])

    def _gains(self, pool: Pool, told: list[FrozenTrial], running: list[FrozenTrial]) -> Array:
        """The expected gain in hypervolume of each network of the pool."""
        sign = METRICS[self.study.goals[0]].sign
        seen = pool_of(self.study, [t.user_attrs["params"] for t in told], distinct=False)
        values = sign * np.array([t.values[0] for t in told])
        every = np.concatenate([pool.features, seen.features])
        mean, spread = every.mean(axis=0), every.std(axis=0)
        spread[spread == 0] = 1
        model = fit((seen.features - mean) / spread, values)
        if running:  # as if they had given what is expected of them
            more = pool_of(self.study, [t.user_attrs["params"] for t in running], distinct=False)
            model = model.believing((more.features - mean) / spread)
        expected, deviation = model.predict((pool.features - mean) / spread)
        if len(self.study.goals) == 1:
            return improvement(expected, deviation, values.max())
        return hypervolume_gain(pool.costs, expected, deviation, seen.costs, values)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def small_pool(study: Study) -> Pool | None:
    """All networks of a space that is small enough, else None."""
    return pool_of(study, study.arms()) if study.space.size <= POOL else None


def pool_of(study: Study, params: Sequence[dict[str, Value]], *, distinct: bool = True) -> Pool:
    """The networks of some knob values; what builds the same network is there once, if distinct."""
    if distinct:
        params = list(
            {study.key(each): each for each in params if not study.obstacle(each)}.values()
        )
    counted = [study.costs(each) for each in params]
    goal = study.goals[1] if len(study.goals) > 1 else COSTS[0]
    costs = np.array([each[goal] for each in counted], dtype=float)
    logs = np.log1p(np.array([[each[key] for key in COSTS] for each in counted], dtype=float))
    knobs = np.array([_knobs(study, each) for each in params], dtype=float)
    return Pool(list(params), costs, np.concatenate([logs, knobs], axis=1))


def _knobs(study: Study, params: dict[str, Value]) -> list[float]:
    """A number for each knob whose values are in order, one for each value of the others."""
    found: list[float] = []
    for name, knob in study.space.vary.items():
        values = [json.dumps(value) for value in knob.values()]
        place = values.index(json.dumps(params[name]))
        if in_order(knob.values()):
            found.append(place)
        else:
            found += [float(place == each) for each in range(len(values))]
    return found


@dataclass(frozen=True)
class Process:
    """A Gaussian process with a Matérn kernel (5/2), given what was measured.

    Args:
        features: Of the networks measured, (N, F), standardised.
        values: Their standardised values, (N,).
        noise: Variance of each value beside the process, (N,).
        lengths: Of costs and of knobs.
        mean, spread: Of the values before.
    """

    features: Array
    values: Array
    noise: Array
    lengths: Array
    mean: float
    spread: float

    @functools.cached_property
    def _factor(self) -> Any:
        inner = kernel(self.features, self.features, self.lengths)
        return cho_factor(inner + np.diag(self.noise))

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at (M, F) features, in units of the values before."""
        across = kernel(features, self.features, self.lengths)
        mean = across @ cho_solve(self._factor, self.values)
        known = np.einsum("mn,nm->m", across, cho_solve(self._factor, across.T))
        deviation = np.sqrt(np.maximum(1 - known, LEAST))
        return self.mean + self.spread * mean, self.spread * deviation

    def believing(self, features: Array) -> "Process":
        """The process if it were right at these features."""
        mean, _ = self.predict(features)
        return Process(
            np.concatenate([self.features, features]),
            np.concatenate([self.values, (mean - self.mean) / self.spread]),
            np.concatenate([self.noise, np.full(len(features), self.noise.max())]),
            self.lengths,
            self.mean,
            self.spread,
        )


def fit(features: Array, values: Array) -> Process:
    """The process whose lengths and noise make the values likeliest, a prior included."""
    mean, spread = float(values.mean()), float(values.std()) or 1.0
    scaled = (values - mean) / spread

    def made(logs: Array) -> Process:
        length_of_costs, length_of_knobs, noise = np.exp(logs)
        variance = np.full(len(values), noise**2 + LEAST)
        lengths = np.array([length_of_costs, length_of_knobs])
        return Process(features, scaled, variance, lengths, mean, spread)

    def unlikely(logs: Array) -> float:
        process = made(logs)
        factor, _ = process._factor
        fitted = 0.5 * scaled @ cho_solve(process._factor, scaled)
        prior = 0.5 * np.sum((logs - np.log(USUAL)) ** 2)
        return float(fitted + np.log(np.diag(factor)).sum() + prior)

    found = minimize(unlikely, np.log(USUAL), method="L-BFGS-B", bounds=[(-4, 4)] * 3)
    return made(found.x)


def kernel(one: Array, other: Array, lengths: Array) -> Array:
    """Matérn's of 5/2 of (N, F) and (M, F): (N, M). Costs and knobs have a length each.

    The squared distance of knobs is taken by their number, so that many knobs are not far apart.
    """
    count = len(COSTS)
    squares = [
        ((one[:, None, part] - other[None, :, part]) ** 2).mean(axis=-1) / length**2
        for part, length in zip((slice(count), slice(count, None)), lengths, strict=True)
    ]
    scaled = np.sqrt(5 * sum(squares))
    result: Array = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
    return result


def improvement(mean: Array, deviation: Array, best: float) -> Array:
    """The expected improvement on a value: of a normal variable, how far above it (Jones, 1998)."""
    z = (mean - best) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    result: Array = deviation * (z * ndtr(z) + density)
    return result


def hypervolume_gain(
    costs: Array, mean: Array, deviation: Array, seen_costs: Array, seen: Array
) -> Array:
    """The expected gain in hypervolume of networks whose cost is known.

    A network of cost c and accuracy a adds, at each cost from c to the reference, what a is above
    the best accuracy so far at that cost: a sum over the steps of the front.

    Args:
        costs: Of the networks, (N,).
        mean, deviation: Of what their accuracy is expected to be, (N,); more is better.
        seen_costs, seen: Costs and accuracies of networks that were trained, (M,).
    """
    span = max(float(seen.max() - seen.min()), LEAST)
    floor = float(seen.min()) - MARGIN * span
    end = (1 + MARGIN) * max(float(costs.max()), float(seen_costs.max()))
    kept = np.array(front(np.column_stack([seen_costs, -seen]).tolist()))
    order = np.argsort(seen_costs[kept], kind="stable")
    edges = np.concatenate([[0.0], seen_costs[kept][order], [end]])
    levels = np.concatenate([[floor], seen[kept][order]])
    gain = np.zeros(len(costs))
    for low, high, level in zip(edges[:-1], edges[1:], levels, strict=True):
        width = np.clip(high - np.maximum(low, costs), 0, None)
        gain += width * improvement(mean, deviation, float(level))
    return gain
