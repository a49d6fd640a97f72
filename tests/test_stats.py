import math

import numpy as np
import pytest
from scipy import stats

from hrnet_search.stats import Comparison, compare, judge, mean_and_deviation


def by_seed(values):
    return dict(enumerate(values))


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_interval_is_scipys(n):
    rng = np.random.default_rng(n)
    arm, other = rng.normal(0.4, 0.02, n), rng.normal(0.38, 0.03, n)
    ours = compare(by_seed(arm), by_seed(other))
    theirs = stats.ttest_rel(arm, other).confidence_interval(0.95)
    assert ours.n == n
    assert ours.difference == pytest.approx(np.mean(arm - other))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.302653, half width t / sqrt(3).
    found = compare({0: 2.0, 1: 4.0, 2: 6.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    half = 4.302652729911275 / math.sqrt(3)
    assert found.difference == 2.0
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert found.verdict == "not shown"


def test_two_pairs_by_hand():
    # Differences 1 and 3: mean 2, deviation sqrt(2), t(0.975, 1) = 12.7062, half width t.
    found = compare({0: 1.0, 1: 3.0}, {0: 0.0, 1: 0.0})
    assert (found.low, found.high) == pytest.approx((2 - 12.706204736, 2 + 12.706204736))


def test_only_common_seeds_count_and_order_does_not_matter():
    found = compare({2: 5.0, 0: 3.0, 9: 100.0}, {0: 1.0, 1: -100.0, 2: 3.0})
    assert found == Comparison(n=2, difference=2.0, low=2.0, high=2.0, paper=None, verdict="shown")


def test_equal_differences_give_an_interval_of_zero_width():
    found = compare(by_seed([0.5, 0.75, 1.0]), by_seed([0.25, 0.5, 0.75]), paper=0.1)
    assert (found.low, found.difference, found.high) == (0.25, 0.25, 0.25)
    assert found.verdict == "reproduced"


def test_identical_arms_show_nothing():
    found = compare(by_seed([0.1, 0.2, 0.3]), by_seed([0.1, 0.2, 0.3]), paper=0.1)
    assert (found.low, found.high, found.verdict) == (0.0, 0.0, "not shown")


@pytest.mark.parametrize(("other", "n", "difference"), [({}, 0, None), ({1: 0.5}, 1, 0.25)])
def test_too_few_seeds(other, n, difference):
    found = compare({0: 0.1, 1: 0.75}, other, paper=0.3)
    assert found.verdict == "too few seeds"
    assert (found.n, found.difference, found.low, found.high) == (n, difference, None, None)


@pytest.mark.parametrize(
    ("low", "high", "paper", "verdict"),
    [
        (0.1, 0.2, None, "shown"),
        (-0.2, -0.1, None, "shown"),
        (-0.1, 0.2, None, "not shown"),
        (0.0, 0.2, None, "not shown"),
        (0.1, 0.2, 0.5, "reproduced"),
        (-0.2, -0.1, -0.5, "reproduced"),
        (0.1, 0.2, -0.5, "contradicted"),
        (-0.2, -0.1, 0.5, "contradicted"),
        (-0.1, 0.2, 0.5, "not shown"),
        (0.1, 0.2, 0.0, "shown"),
    ],
)
def test_verdicts(low, high, paper, verdict):
    assert judge(low, high, paper) == verdict


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="must be finite"):
        compare({0: bad, 1: 0.2}, {0: 0.1, 1: 0.1})
    with pytest.raises(ValueError, match="must be finite"):
        mean_and_deviation([0.1, bad])


def test_mean_and_deviation():
    assert mean_and_deviation([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, math.sqrt(5 / 3)))
    assert mean_and_deviation([0.1]) == (0.1, None)
    assert mean_and_deviation([0.1] * 7) == (0.1, 0.0)
    with pytest.raises(ValueError, match="at least one"):
        mean_and_deviation([])


def test_the_interval_covers_the_true_difference_in_95_of_100_studies():
    rng = np.random.default_rng(0)
    truth, studies, seeds = 0.01, 2000, 3
    shared = rng.normal(0, 0.05, (studies, seeds))  # what a seed does to both arms
    arm = shared + truth + rng.normal(0, 0.02, (studies, seeds))
    other = shared + rng.normal(0, 0.02, (studies, seeds))
    found = [compare(by_seed(a), by_seed(b)) for a, b in zip(arm, other, strict=True)]
    covered = sum(c.low <= truth <= c.high for c in found)
    # A binomial count of 2000 at 0.95 deviates by 10; four deviations either way.
    assert abs(covered - 0.95 * studies) < 4 * math.sqrt(studies * 0.95 * 0.05)
