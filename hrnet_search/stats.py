"""What a few seeds can show: paired differences, their intervals and tests, a verdict.

The arms of a study share seeds, and with a seed they share initial weights and batches. So two
arms are compared seed by seed, which takes out what a seed does to both of them. The comparisons
of one table are judged together: the chance that any of them is called shown where there is no
effect is at most `LEVEL`.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

LEVEL = 0.05  # chance of a false verdict in a table
ROUNDING = 1e-9  # of a mean: metrics are exact to 1e-15 or so
POWER = 0.8  # chance of showing an effect that is called detectable (Cohen, 1988, section 2.4)
MIN_PAIRS = 2  # one difference has no spread, so no interval
MIN_RESAMPLED = 5  # pairs; of fewer nearly every bootstrap holds a sample without spread
RESAMPLES = 9999  # of a bootstrap, and of a permutation test where not all can be tried
MAX_PAIRS = 1000  # a study has no more seeds

Verdict = Literal["shown", "not shown", "reproduced", "contradicted", "too few seeds"]
Interval = tuple[float, float]


class Pair(NamedTuple):
    """Two arms to compare: seed -> value of each, and the paper's difference if it has one."""

    arm: Mapping[int, float]
    other: Mapping[int, float]
    paper: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One arm minus another, over the seeds that both have.

    What needs a spread is None with fewer than two such seeds, power also where they agree.

    Args:
        n: Number of such seeds.
        difference: Mean of the differences, None if there are none.
        paper: The same difference in the paper, None if it has none.
        verdict: What `judge` makes of it.
        interval: Student's t interval of the mean, at a confidence of 1 - level for this
            comparison alone.
        bootstrap: Studentized bootstrap interval likewise, None with fewer than five pairs.
        p: Two-sided p value of the paired t test.
        p_flipped: Of the permutation test that flips signs of differences; with n pairs it
            cannot be below 2 / 2**n.
        p_table: `p` after Holm's correction for all comparisons of the table.
        detectable: The smallest true difference that so many pairs of this spread show with a
            chance of `POWER`, even if no other comparison of the table does.
        needed: So many pairs show the paper's difference with that chance, by the spread of
            these; None if the paper has none, or more than `MAX_PAIRS`.
    """

    n: int
    difference: float | None
    paper: float | None
    verdict: Verdict
    interval: Interval | None = None
    bootstrap: Interval | None = None
    p: float | None = None
    p_flipped: float | None = None
    p_table: float | None = None
    detectable: float | None = None
    needed: int | None = None


def turned(comparison: Comparison) -> Comparison:
    """The same comparison the other way round."""
    changes: dict[str, Any] = {
        name: None if value is None else -value
        for name in ("difference", "paper")
        for value in [getattr(comparison, name)]
    }
    for name in ("interval", "bootstrap"):
        limits = getattr(comparison, name)
        changes[name] = None if limits is None else (-limits[1], -limits[0])
    return dataclasses.replace(comparison, **changes)


def compare_all(pairs: Sequence[Pair], *, level: float = LEVEL) -> list[Comparison]:
    """The paired differences of a table, judged together.

    The verdict rests on `p_of_table`. Equal differences have no spread, so their interval is
    [d, d], as the t formula has it: these seeds agree, which does not say that the difference is
    known exactly. On them the permutation test decides (`p_of_t`).

    Args:
        pairs: What to compare.
        level: Chance of one or more false verdicts in the table if no arm differs.

    Raises:
        ValueError: A value is NaN or infinite.
    """
    return [
        _too_few(pair)
        if p is None
        else _comparison(pair, p_table=p, family=len(pairs), level=level)
        for pair, p in zip(pairs, p_of_table(pairs), strict=True)
    ]


def p_of_table(pairs: Sequence[Pair]) -> list[float | None]:
    """The p values of the t test after Holm's correction for the table; None with too few seeds.

    Those with too few count in the table nevertheless, since they may get more: what has been
    shown stays so.
    """
    each = [differences(pair.arm, pair.other) for pair in pairs]
    able = [d.size >= MIN_PAIRS for d in each]
    corrected = holm([p_of_t(d) if is_able else 1.0 for d, is_able in zip(each, able, strict=True)])
    return [p if is_able else None for p, is_able in zip(corrected, able, strict=True)]


def judge(difference: float, *, is_shown: bool, paper: float | None = None) -> Verdict:
    """What a difference means; a paper difference of zero has no sign to agree with."""
    if not is_shown:
        return "not shown"
    if not paper:
        return "shown"
    return "reproduced" if (difference > 0) == (paper > 0) else "contradicted"


def differences(arm: Mapping[int, float], other: Mapping[int, float]) -> NDArray[np.float64]:
    """`arm` - `other`, of the seeds that both have.

    Raises:
        ValueError: A value is NaN or infinite.
    """
    return np.array([_finite(arm[seed]) - _finite(other[seed]) for seed in arm if seed in other])


def _too_few(pair: Pair) -> Comparison:
    d = differences(pair.arm, pair.other)
    only = float(d[0]) if d.size else None
    return Comparison(n=d.size, difference=only, paper=pair.paper, verdict="too few seeds")


def _comparison(pair: Pair, *, p_table: float, family: int, level: float) -> Comparison:
    d = differences(pair.arm, pair.other)
    mean, error = _mean_and_error(d)
    spread = error * math.sqrt(d.size)
    hardest = level / family  # of Holm's levels
    return Comparison(
        n=d.size,
        difference=mean,
        paper=pair.paper,
        verdict=judge(mean, is_shown=p_table <= level, paper=pair.paper),
        interval=t_interval(d, level=level),
        bootstrap=bootstrap_interval(d, level=level),
        p=p_of_t(d),
        p_flipped=p_of_flips(d),
        p_table=p_table,
        # Where seeds agree to the last digit, as where nothing was learnt, nothing is known.
        detectable=detectable(spread, d.size, level=hardest) if spread else None,
        needed=pairs_needed(pair.paper, spread, level=hardest) if pair.paper and spread else None,
    )


# --- intervals and tests of a mean of differences ------------------------------------------------


def t_interval(differences: Sequence[float] | NDArray[np.float64], *, level: float) -> Interval:
    """Student's interval of the mean at a confidence of 1 - level."""
    mean, half = _mean_and_error(differences)
    half *= _critical(len(differences), level)
    return mean - half, mean + half


@functools.cache
def _critical(n: int, level: float) -> float:
    """So many standard errors the mean of n values may be off, by Student's t."""
    return float(stats.t.ppf(1 - level / 2, n - 1))


def bootstrap_interval(
    differences: Sequence[float] | NDArray[np.float64], *, level: float
) -> Interval | None:
    """The symmetric studentized bootstrap interval of the mean; None with fewer than five pairs.

    Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 12.5, with |t| as in
    Hall, "On symmetric bootstrap confidence intervals", 1988: percentiles of so few values are
    far too narrow. Of ten pairs or more it covers what it says; of five it is too wide, not too
    narrow (tests/test_stats.py). The same differences give the same interval.
    """
    d = np.asarray(differences)
    if d.size < MIN_RESAMPLED:
        return None
    mean, error = _mean_and_error(d)
    samples = d[np.random.default_rng(0).integers(0, d.size, (RESAMPLES, d.size))]
    off = np.abs(samples.mean(axis=1) - mean)
    errors = samples.std(axis=1, ddof=1) / math.sqrt(d.size)
    flat = np.ptp(samples, axis=1) == 0  # a sample without spread is infinitely far off
    scores = np.divide(off, errors, out=np.full(RESAMPLES, np.inf), where=~flat)
    half = float(np.quantile(scores, 1 - level, method="higher")) * error if error else 0.0
    return (mean - half, mean + half) if math.isfinite(half) else None


def p_of_t(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Two-sided p value of the paired t test; of equal differences that of `p_of_flips`.

    These have no spread, which the t test would take for certainty. They are of a coarse metric:
    two seeds that both find one person more.
    """
    mean, error = _mean_and_error(differences)
    if not error:
        return p_of_flips(differences)
    return float(2 * stats.t.sf(abs(mean) / error, len(differences) - 1))


def p_of_flips(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Two-sided p value of the paired permutation test: of all signs if they are few enough."""
    found = stats.permutation_test(
        (np.asarray(differences),),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """The p values corrected for being several: each is at most a level as often as Holm allows.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    corrected, least = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = least
    return corrected


# --- what seeds can and could show ---------------------------------------------------------------


def power(effect: float, n: int, *, level: float) -> float:
    """The chance that the paired t test of n pairs shows an effect, with its sign.

    Args:
        effect: True mean difference, in standard deviations of the differences.
        n: Number of pairs.
        level: Of the test, two-sided.
    """
    critical = stats.t.ppf(1 - level / 2, n - 1)
    return float(stats.nct.sf(critical, n - 1, abs(effect) * math.sqrt(n)))


def detectable(deviation: float, n: int, *, level: float) -> float:
    """The smallest true difference that n pairs show with a chance of `POWER`.

    Args:
        deviation: Standard deviation of the differences.
        n: Number of pairs.
        level: Of the test, two-sided.
    """
    most = 2.0
    while power(most, n, level=level) < POWER:
        most *= 2
    found = optimize.brentq(lambda effect: power(effect, n, level=level) - POWER, 0, most)
    return float(found) * deviation


def pairs_needed(difference: float, deviation: float, *, level: float) -> int | None:
    """So many pairs show a true difference with a chance of `POWER`; None if over `MAX_PAIRS`."""
    if not difference:
        return None
    if not deviation:
        return MIN_PAIRS
    effect, counts = abs(difference) / deviation, range(MIN_PAIRS, MAX_PAIRS + 1)
    place = bisect.bisect_left(counts, POWER, key=lambda n: power(effect, n, level=level))
    return counts[place] if place < len(counts) else None


# --- plain numbers -------------------------------------------------------------------------------


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); the latter is None for a single value.

    Raises:
        ValueError: There is no value, or one is NaN or infinite.
    """
    array = np.array([_finite(value) for value in values])
    if not array.size:
        raise ValueError("at least one value is needed")
    if np.all(array == array[0]):  # rounding in the mean must not make a spread of equal values
        return float(array[0]), 0.0 if array.size > 1 else None
    return float(array.mean()), float(array.std(ddof=1))


def _mean_and_error(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Mean of two values or more, and its standard error; 0 if they differ by rounding alone."""
    mean, deviation = mean_and_deviation(values)
    assert deviation is not None
    if deviation <= ROUNDING * abs(mean):
        return mean, 0.0
    return mean, deviation / math.sqrt(len(values))


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"values must be finite, not {value}")
    return value
