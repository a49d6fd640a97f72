"""What a few seeds can show: mean and deviation, paired differences, their intervals, a verdict.

The arms of a study share seeds, and with a seed they share initial weights and batches. So two
arms are compared seed by seed, which takes out what a seed does to both of them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
MIN_PAIRS = 2  # one difference has no spread, so no interval

Verdict = Literal["shown", "not shown", "reproduced", "contradicted", "too few seeds"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One arm minus another, over the seeds that both have.

    Args:
        n: Number of such seeds.
        difference: Mean of the differences, None if there are none.
        low: Lower end of the 95 % t interval of that mean, None with fewer than two pairs.
        high: Upper end.
        paper: The same difference in the paper, None if it has none.
        verdict: What `judge` makes of it.
    """

    n: int
    difference: float | None
    low: float | None
    high: float | None
    paper: float | None
    verdict: Verdict


def compare(
    arm: Mapping[int, float], other: Mapping[int, float], *, paper: float | None = None
) -> Comparison:
    """The paired difference `arm` - `other`.

    The interval is for this one comparison: nothing is corrected for how many are made. Equal
    differences have no spread, so theirs is [d, d], as the t formula has it; that says that these
    seeds agree, not that the difference is known exactly.

    Args:
        arm: Seed -> value.
        other: Seed -> value.
        paper: The paper's difference, if known.

    Raises:
        ValueError: A value is NaN or infinite.
    """
    differences = [_finite(arm[seed]) - _finite(other[seed]) for seed in arm if seed in other]
    n = len(differences)
    if n < MIN_PAIRS:
        only = differences[0] if differences else None
        return Comparison(
            n=n, difference=only, low=None, high=None, paper=paper, verdict="too few seeds"
        )
    mean, deviation = mean_and_deviation(differences)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * (deviation or 0.0) / math.sqrt(n)
    low, high = mean - half, mean + half
    verdict = judge(low, high, paper)
    return Comparison(n=n, difference=mean, low=low, high=high, paper=paper, verdict=verdict)


def judge(low: float, high: float, paper: float | None = None) -> Verdict:
    """What an interval shows; a paper difference of zero has no sign to agree with."""
    if low <= 0 <= high:
        return "not shown"
    if not paper:
        return "shown"
    return "reproduced" if (low > 0) == (paper > 0) else "contradicted"


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


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"values must be finite, not {value}")
    return value
