"""Against scipy, statsmodels, hand calculation, and thousands of simulated studies."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from hrnet_search.stats import (
    LEVEL,
    MAX_PAIRS,
    MIN_RESAMPLED,
    POWER,
    Comparison,
    Pair,
    bootstrap_interval,
    compare_all,
    detectable,
    holm,
    judge,
    mean_and_deviation,
    p_of_flips,
    p_of_t,
    pairs_needed,
    power,
    t_interval,
)


def compare(arm, other, *, paper=None, level=LEVEL):
    """The only comparison of its table."""
    return compare_all([Pair(arm, other, paper)], level=level)[0]


def by_seed(values):
    return dict(enumerate(values))


def within(count, total, share, deviations=4):
    """Whether a count of `total` is a binomial one of that share, give or take."""
    return abs(count - share * total) < deviations * math.sqrt(total * share * (1 - share))


# --- against others ------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.05, 0.0125])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_interval_and_p_are_scipys(n, level):
    rng = np.random.default_rng(n)
    arm, other = rng.normal(0.4, 0.02, n), rng.normal(0.38, 0.03, n)
    ours = compare(by_seed(arm), by_seed(other), level=level)
    theirs = stats.ttest_rel(arm, other)
    assert ours.n == n
    assert ours.difference == pytest.approx(np.mean(arm - other))
    assert ours.interval == pytest.approx(tuple(theirs.confidence_interval(1 - level)))
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.p_table == ours.p


@pytest.mark.parametrize(
    "p", [[0.01, 0.04, 0.03, 0.005], [0.2], [0.04, 0.04], [0.9, 0.8, 0.001], [0.02, 0.03, 0.6], []]
)
def test_holm_is_that_of_statsmodels(p):
    theirs = multipletests(p, method="holm")[1] if p else []
    assert holm(p) == pytest.approx(list(theirs))


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04, and none below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("n", [3, 5, 12, 40])
@pytest.mark.parametrize("level", [0.05, 0.0125])
def test_detectable_effects_are_those_of_statsmodels(n, level):
    effect = detectable(1.0, n, level=level)
    theirs = TTestPower().power(effect_size=effect, nobs=n, alpha=level, alternative="two-sided")
    assert theirs == pytest.approx(POWER, abs=1e-4)
    assert detectable(0.03, n, level=level) == pytest.approx(0.03 * effect)
    assert power(effect, n, level=level) == pytest.approx(POWER)


@pytest.mark.parametrize(("effect", "level"), [(0.2, 0.05), (0.5, 0.05), (1.0, 0.01), (3.0, 0.05)])
def test_needed_pairs_are_those_of_statsmodels(effect, level):
    wanted = math.ceil(TTestPower().solve_power(effect_size=effect, alpha=level, power=POWER))
    assert pairs_needed(effect, 1.0, level=level) == wanted
    assert pairs_needed(-0.1 * effect, 0.1, level=level) == wanted


def test_needed_pairs_by_the_books():
    # Cohen, 1988, table 2.4.1: 34 pairs for a medium effect of 0.5.
    assert pairs_needed(0.5, 1.0, level=0.05) == 34
    assert pairs_needed(0.0, 1.0, level=0.05) is None
    assert pairs_needed(0.1, 0.0, level=0.05) == 2
    assert pairs_needed(1e-4, 1.0, level=0.05) is None
    assert pairs_needed(0.089, 1.0, level=0.05) is not None  # of MAX_PAIRS 0.0887 is detectable
    assert detectable(1.0, MAX_PAIRS, level=0.05) == pytest.approx(0.0887, abs=1e-4)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_flipped_signs_are_all_tried(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    signs = np.array(np.meshgrid(*[[-1, 1]] * n)).reshape(n, -1).T
    means = (signs * d).mean(axis=1)
    assert p_of_flips(d) == pytest.approx(np.mean(np.abs(means) >= abs(d.mean()) - 1e-12))


def test_flips_of_few_pairs_cannot_show_anything():
    assert p_of_flips([1.0, 1.1, 0.9, 1.2, 1.0]) == 2 / 2**5


def test_the_bootstrap_is_scipys_but_for_the_studentization():
    """With |t| replaced by the plain deviation it would be scipy's basic one; so compare widths."""
    d = np.random.default_rng(0).normal(0.3, 1, 200)
    low, high = bootstrap_interval(d, level=0.05)
    theirs = stats.bootstrap((d,), np.mean, rng=np.random.default_rng(1)).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert low + high == pytest.approx(2 * d.mean())


def test_the_bootstrap_by_enumeration():
    """Of five pairs all 3125 samples can be listed."""
    d = np.array([0.1, 0.4, 0.2, 0.7, 0.3])
    samples = d[np.array(np.meshgrid(*[range(5)] * 5)).reshape(5, -1).T]
    off = np.abs(samples.mean(axis=1) - d.mean())
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = off / (samples.std(axis=1, ddof=1) / math.sqrt(5))
    scores[np.ptp(samples, axis=1) == 0] = np.inf
    half = np.quantile(scores, 0.95) * d.std(ddof=1) / math.sqrt(5)
    low, high = bootstrap_interval(d, level=0.05)
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert bootstrap_interval(d, level=0.05) == (low, high)  # no chance in it


def test_few_pairs_have_no_bootstrap():
    assert bootstrap_interval([0.1, 0.2, 0.3, 0.4], level=0.05) is None
    assert bootstrap_interval([0.1] * MIN_RESAMPLED, level=0.05) == (0.1, 0.1)


# --- by hand -------------------------------------------------------------------------------------


def test_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.302653, half width t / sqrt(3).
    found = compare({0: 2.0, 1: 4.0, 2: 6.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    half = 4.302652729911275 / math.sqrt(3)
    assert found.difference == 2.0
    assert found.interval == pytest.approx((2 - half, 2 + half))
    assert found.verdict == "not shown"


def test_two_pairs_by_hand():
    # Differences 1 and 3: mean 2, deviation sqrt(2), t(0.975, 1) = 12.7062, half width t.
    found = compare({0: 1.0, 1: 3.0}, {0: 0.0, 1: 0.0})
    assert found.interval == pytest.approx((2 - 12.706204736, 2 + 12.706204736))


def test_only_common_seeds_count_and_order_does_not_matter():
    found = compare({2: 5.0, 0: 3.0, 9: 100.0}, {0: 1.0, 1: -100.0, 2: 3.0})
    assert (found.n, found.difference, found.interval) == (2, 2.0, (2.0, 2.0))


@pytest.mark.parametrize(("n", "verdict"), [(2, "not shown"), (5, "not shown"), (6, "reproduced")])
def test_of_equal_differences_the_flipped_signs_decide(n, verdict):
    found = compare(by_seed(([0.5, 0.75] * n)[:n]), by_seed(([0.25, 0.5] * n)[:n]), paper=0.1)
    assert (found.interval, found.difference) == ((0.25, 0.25), 0.25)
    assert (found.detectable, found.needed) == (None, None)
    # Of 2^n ways to set the signs two are as far from zero: all plus, and all minus.
    assert found.p == found.p_flipped == pytest.approx(2 / 2**n)
    assert found.verdict == verdict


def test_differences_of_rounding_alone_are_equal():
    steps = [0.1 + 0.2, 0.3]  # 0.30000000000000004 and 0.3
    found = compare(by_seed(steps), by_seed([0.1, 0.1]))
    assert found.p == pytest.approx(0.5)
    assert (found.detectable, found.verdict) == (None, "not shown")


def test_identical_arms_show_nothing():
    found = compare(by_seed([0.1, 0.2, 0.3]), by_seed([0.1, 0.2, 0.3]), paper=0.1)
    assert (found.interval, found.p, found.verdict) == ((0.0, 0.0), 1.0, "not shown")


@pytest.mark.parametrize(("other", "n", "difference"), [({}, 0, None), ({1: 0.5}, 1, 0.25)])
def test_too_few_seeds(other, n, difference):
    found = compare({0: 0.1, 1: 0.75}, other, paper=0.3)
    assert found == Comparison(n=n, difference=difference, paper=0.3, verdict="too few seeds")


def test_a_table_is_judged_together():
    """What one comparison shows alone it may not show as one of several."""
    nothing = by_seed([0.0] * 5)
    clear, close, none = map(
        by_seed, ([20, 21, 19, 22, 20], [1, 2, 3, 0.2, 1.3], [1, -1, 0.5, 0, 0])
    )
    alone = compare(close, nothing)
    first, second, third, few = compare_all(
        [Pair(clear, nothing, 5.0), Pair(close, nothing), Pair(none, nothing), Pair(close, {})]
    )
    assert 0.05 / 3 < alone.p < 0.05  # the example is as it was meant
    assert alone.verdict == "shown"
    assert [first.verdict, second.verdict, third.verdict] == ["reproduced", *["not shown"] * 2]
    assert few.verdict == "too few seeds"  # but counts: it may get more
    assert second.p_table == pytest.approx(3 * alone.p)
    assert second.interval == alone.interval  # of this comparison alone, in any table
    hardest = detectable(np.std(list(close.values()), ddof=1), 5, level=0.05 / 4)
    assert second.detectable == pytest.approx(hardest)
    assert second.detectable > alone.detectable


def test_the_paper_decides_what_is_needed():
    arm, other = by_seed([0.1, 0.4, 0.2, 0.7]), by_seed([0.0] * 4)
    found = compare(arm, other, paper=-0.1)
    deviation = np.std([0.1, 0.4, 0.2, 0.7], ddof=1)
    assert found.needed == pairs_needed(0.1, deviation, level=LEVEL)
    assert compare(arm, other).needed is None


@pytest.mark.parametrize(
    ("difference", "is_shown", "paper", "verdict"),
    [
        (0.1, True, None, "shown"),
        (-0.1, True, None, "shown"),
        (0.1, False, None, "not shown"),
        (0.1, True, 0.5, "reproduced"),
        (-0.1, True, -0.5, "reproduced"),
        (0.1, True, -0.5, "contradicted"),
        (-0.1, True, 0.5, "contradicted"),
        (-0.1, False, 0.5, "not shown"),
        (0.1, True, 0.0, "shown"),
    ],
)
def test_verdicts(difference, is_shown, paper, verdict):
    assert judge(difference, is_shown=is_shown, paper=paper) == verdict


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


# --- simulated studies ---------------------------------------------------------------------------

STUDIES = 2000
DRAWS = {  # differences of arms with no effect; those of real trials are nearly normal
    "normal": lambda rng, shape: rng.normal(0, 1, shape),
    "heavy tails": lambda rng, shape: rng.standard_t(5, shape),
    "two seeds' luck": lambda rng, shape: rng.normal(0, 1, shape) + rng.choice([-1, 1], shape),
}


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("draw", DRAWS)
def test_t_intervals_cover_the_true_difference_in_95_of_100_studies(draw, n):
    d = DRAWS[draw](np.random.default_rng(n), (STUDIES, n))
    covered = sum(low <= 0 <= high for low, high in (t_interval(x, level=0.05) for x in d))
    assert 0.93 * STUDIES <= covered <= 0.97 * STUDIES


@pytest.mark.parametrize(("n", "most"), [(5, 0.99), (8, 0.985), (10, 0.98), (20, 0.97)])
def test_bootstrap_intervals_cover_it_at_least_as_often(n, most):
    """From ten pairs on as often as they say; of five they are wider than they need to be."""
    d = np.random.default_rng(n).normal(0, 1, (STUDIES // 4, n))
    found = [bootstrap_interval(x, level=0.05) for x in d]
    covered = sum(low <= 0 <= high for low, high in found) / len(d)
    assert 0.93 <= covered <= most


def test_flipped_signs_are_wrong_in_at_most_5_of_100_studies():
    d = np.random.default_rng(0).standard_t(5, (STUDIES // 4, 8))
    wrong = sum(p_of_flips(x) <= 0.05 for x in d)
    assert wrong <= 0.05 * len(d) + 3 * math.sqrt(len(d) * 0.05 * 0.95)


@pytest.mark.parametrize("arms", [3, 4, 8])
@pytest.mark.parametrize("draw", DRAWS)
def test_a_table_without_effects_has_a_false_verdict_in_at_most_5_of_100_studies(draw, arms):
    """Arms are compared with one reference, so their differences have its noise in common."""
    rng, false, studies = np.random.default_rng(arms), 0, STUDIES // 2
    for _ in range(studies):
        values = DRAWS[draw](rng, (arms, 5))
        p = [p_of_t(values[arm] - values[0]) for arm in range(1, arms)]
        false += min(holm(p)) <= LEVEL
    assert false <= 0.05 * studies + 3 * math.sqrt(studies * 0.05 * 0.95)
    if draw == "normal" and arms == 3:
        assert false > 0.02 * studies  # and it is a test, not a refusal


def test_a_detectable_effect_is_shown_four_times_of_five():
    rng, n, level = np.random.default_rng(0), 5, 0.05
    effect = detectable(1.0, n, level=level)
    d = rng.normal(effect, 1, (STUDIES, n))
    assert within(sum(p_of_t(x) <= level for x in d), STUDIES, POWER)


@pytest.mark.slow
@pytest.mark.parametrize("draw", DRAWS)
def test_whole_tables_without_effects(draw):
    """By `compare_all` itself, with the paper's signs: three arms, all pairs, five seeds."""
    rng, verdicts, wrong = np.random.default_rng(1), Counter(), 0
    for _ in range(STUDIES):
        arms = [by_seed(values) for values in DRAWS[draw](rng, (3, 5))]
        pairs = [(arms[0], arms[1]), (arms[0], arms[2]), (arms[1], arms[2])]
        found = compare_all([Pair(a, b, -1.0) for a, b in pairs])
        verdicts.update(c.verdict for c in found)
        wrong += any(c.verdict != "not shown" for c in found)
    print(draw, wrong / STUDIES, verdicts)
    assert wrong <= 0.05 * STUDIES + 3 * math.sqrt(STUDIES * 0.05 * 0.95)
    assert set(verdicts) <= {"not shown", "reproduced", "contradicted"}
