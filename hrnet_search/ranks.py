"""How well one scale of training puts arms into the order that they have at another.

Two rank correlations of the arms' means, and a count of those pairs of arms that the other scale
tells apart. Intervals are of the seeds' noise for these very arms: that other arms would agree as
well is nothing that seeds can say.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from .stats import LEVEL, MIN_PAIRS, differences, p_of_t

DRAWS = 2000  # of the bootstrap
DIGITS = 12  # means are equal if they agree in so many: sums round
MIN_ARMS = 2  # one arm has no order

Scores = Mapping[str, Mapping[int, float]]  # arm -> seed -> value
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A rank correlation, -1 to 1.

    Args:
        value: Of the arms' means over the seeds that all of them have; None with fewer than two
            arms, without such a seed, or if all means of a side are equal.
        low: Lower end of its 95 % bootstrap interval; None without a value, or with fewer than two
            seeds.
        high: Upper end.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a scale says of the order at another one, the target.

    Args:
        arms: Arms measured at both.
        seeds: Seeds at the scale and at the target that all these arms have: what is compared.
        spearman: Spearman's rho.
        kendall: Kendall's tau-b.
        decided: Pairs of the target's arms that it tells apart (`decided_pairs`).
        kept: Those whose means differ with the same sign at the scale.
        reversed: Those that differ with the other sign. The rest are equal there or not measured.
        pairs: All pairs of the target's arms.
    """

    arms: int
    seeds: tuple[int, int]
    spearman: Correlation
    kendall: Correlation
    decided: int
    kept: int
    reversed: int
    pairs: int

    @property
    def keeps_order(self) -> bool:
        """Every decided pair is kept, there is one, and rho is above 0 beyond the seeds' noise."""
        low = self.spearman.low
        return 0 < self.decided == self.kept and low is not None and low > 0


def agree(scale: Scores, target: Scores) -> Agreement:
    """How well the order of the arms at `scale` agrees with that at `target`.

    Raises:
        ValueError: A value is NaN or infinite.
    """
    arms = [arm for arm in target if target[arm] and scale.get(arm)]
    sides = _matrix(scale, arms), _matrix(target, arms)
    signs = decided_pairs(target)
    found = [_sign(scale, *pair) * sign for pair, sign in signs.items()]
    return Agreement(
        arms=len(arms),
        seeds=(sides[0].shape[1], sides[1].shape[1]),
        spearman=_correlation(spearman, *sides),
        kendall=_correlation(kendall, *sides),
        decided=len(signs),
        kept=found.count(1),
        reversed=found.count(-1),
        pairs=math.comb(len(target), 2),
    )


def decided_pairs(scores: Scores) -> dict[tuple[str, str], int]:
    """Pairs of arms whose paired difference is shown at 5 % (`p_of_t`), with its sign."""
    found = {}
    for arm, other in itertools.combinations(scores, 2):
        each = differences(scores[arm], scores[other])
        if each.size < MIN_PAIRS:
            continue
        if p_of_t(np.round(each, DIGITS)) <= LEVEL:
            found[arm, other] = 1 if each.mean() > 0 else -1
    return found


def _sign(scores: Scores, arm: str, other: str) -> int:
    """Of the mean paired difference; 0 also where there is none."""
    each = differences(scores.get(arm, {}), scores.get(other, {}))
    return int(np.sign(round(float(each.mean()), DIGITS))) if each.size else 0


def spearman(x: Array, y: Array) -> float | None:
    """Spearman's rho, equal values sharing their mean rank; None if all of a side are equal."""
    return _cosine(_centred_ranks(x), _centred_ranks(y))


def kendall(x: Array, y: Array) -> float | None:
    """Kendall's tau-b; None if all values of a side are equal."""
    first, second = np.triu_indices(len(x), 1)
    return _cosine(np.sign(x[first] - x[second]), np.sign(y[first] - y[second]))


def _centred_ranks(values: Array) -> Array:
    ranks: Array = rankdata(values)
    return ranks - (len(values) + 1) / 2


def _cosine(x: Array, y: Array) -> float | None:
    """Both coefficients are one: of centred ranks, and of the signs of all differences."""
    length = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / length if length else None


def _matrix(scores: Scores, arms: list[str]) -> Array:
    """Values, arms x seeds, of the seeds that every arm has: arms stay paired by seed."""
    seeds = sorted(set.intersection(*(set(scores[arm]) for arm in arms))) if arms else []
    values = np.array([[scores[arm][seed] for seed in seeds] for arm in arms], dtype=float)
    if not np.all(np.isfinite(values)):
        raise ValueError("values must be finite")
    return values.reshape(len(arms), len(seeds))


def _correlation(
    coefficient: Callable[[Array, Array], float | None], scale: Array, target: Array
) -> Correlation:
    """The coefficient of the means, and its percentile interval over resampled seeds."""
    none = Correlation(value=None, low=None, high=None)
    if len(scale) < MIN_ARMS or not scale.shape[1] or not target.shape[1]:
        return none
    value = coefficient(_means(scale), _means(target))
    if value is None:
        return none
    if min(scale.shape[1], target.shape[1]) < MIN_PAIRS:
        return Correlation(value=value, low=None, high=None)
    rng = np.random.default_rng(0)  # the same runs, the same interval
    pairs = zip(_resampled(scale, rng), _resampled(target, rng), strict=True)
    drawn = [coefficient(x, y) or 0.0 for x, y in pairs]  # where all tie there is no order
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return Correlation(value=value, low=float(low), high=float(high))


def _means(values: Array) -> Array:
    return np.round(values.mean(axis=1), DIGITS)


def _resampled(values: Array, rng: np.random.Generator) -> Array:
    """Means of the arms over seeds drawn with replacement, draws x arms; all arms the same seeds.

    Drawing n of n seeds understates the variance of a mean by (n - 1) / n, a third of it with three
    seeds. So deviations are scaled by sqrt(n / (n - 1)), as in Rao and Wu, Resampling inference
    with complex survey data, JASA 83 (1988).
    """
    n = values.shape[1]
    counts = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    mean = values.mean(axis=1)
    return np.round(mean + math.sqrt(n / (n - 1)) * (counts @ values.T / n - mean), DIGITS)
