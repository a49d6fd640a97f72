"""Rank correlations beside scipy's, and what is counted of pairs, by hand."""

import numpy as np
import pytest
from scipy import stats

from hrnet_search.ranks import agree, decided_pairs, kendall, spearman


def scores(**arms: list[float]) -> dict[str, dict[int, float]]:
    return {name: dict(enumerate(values)) for name, values in arms.items()}


@pytest.mark.parametrize("levels", [3, 1000])  # with many ties, and with hardly any
def test_coefficients_are_scipys(levels: int) -> None:
    rng = np.random.default_rng(0)
    for size in (2, 3, 8, 30):
        x, y = rng.integers(levels, size=(2, size)).astype(float)
        if len(set(x)) == 1 or len(set(y)) == 1:
            continue
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
        assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)


def test_equal_values_have_no_order() -> None:
    x, y = np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])
    assert spearman(x, y) is None
    assert kendall(y, x) is None


TARGET = scores(a=[0.10, 0.12, 0.11], b=[0.22, 0.21, 0.20], c=[0.31, 0.30, 0.32])


def test_the_same_order_without_noise_is_certain() -> None:
    found = agree(scores(a=[1, 1, 1], b=[2, 2, 2], c=[3, 3, 3]), TARGET)
    for each in (found.spearman, found.kendall):
        assert (each.value, each.low, each.high) == (pytest.approx(1), 1, 1)
    assert (found.arms, found.seeds) == (3, (3, 3))
    assert (found.pairs, found.decided, found.kept, found.reversed) == (3, 3, 3, 0)
    assert found.keeps_order


def test_one_pair_exchanged() -> None:
    found = agree(scores(a=[2, 2, 2], b=[1, 1, 1], c=[3, 3, 3]), TARGET)
    assert found.spearman.value == pytest.approx(0.5)  # 1 - 6 * 2 / (3 * 8)
    assert found.kendall.value == pytest.approx(1 / 3)  # (2 - 1) / 3
    assert (found.kept, found.reversed) == (2, 1)
    assert not found.keeps_order


def test_equal_arms_and_missing_ones_do_not_keep_an_order() -> None:
    equal = agree(scores(a=[1, 1, 1], b=[1, 1, 1], c=[3, 3, 3]), TARGET)
    assert (equal.decided, equal.kept, equal.reversed) == (3, 2, 0)
    assert not equal.keeps_order
    missing = agree(scores(a=[1, 1, 1], c=[3, 3, 3]), TARGET)
    assert (missing.arms, missing.decided, missing.kept, missing.reversed) == (2, 3, 1, 0)
    assert not missing.keeps_order


def test_pairs_are_decided_seed_by_seed() -> None:
    # Differences -1, -1.1, -0.9: t interval -1 -+ 0.25, though the arms' own values overlap.
    noisy = scores(a=[1, 5, 9], b=[2, 6.1, 9.9], c=[9, 1, 5])
    assert decided_pairs(noisy) == {("a", "b"): -1}
    # Reversed roles at another scale: only that pair counts.
    found = agree(scores(a=[2, 2, 2], b=[1, 1, 1], c=[0, 0, 0]), noisy)
    assert (found.pairs, found.decided, found.kept, found.reversed) == (3, 1, 0, 1)


def test_nothing_can_be_kept_where_the_target_decides_nothing() -> None:
    undecided = scores(a=[1, 3, 2], b=[3, 1, 2.1])
    found = agree(scores(a=[1, 1, 1], b=[2, 2, 2]), undecided)
    assert (found.decided, found.kept, found.reversed) == (0, 0, 0)
    assert not found.keeps_order


def test_the_interval_is_of_resampled_seeds() -> None:
    """Two arms of two seeds, exchanged in one of them: every draw can be listed."""
    # Of 4 equally likely draws of the two seeds one has d = 1 twice, one d = -2 twice, two both.
    # The mean of the differences is -0.5; widened by sqrt(2) these are 1.62, -2.62 and -0.5.
    scale = scores(a=[0, 2], b=[1, 0])
    found = agree(scale, scores(a=[1, 1], b=[2, 2]))
    assert found.spearman.value == pytest.approx(-1)
    assert (found.spearman.low, found.spearman.high) == (-1, 1)
    # With d = 1 and 0.9 no draw has the other sign: 0.95 -+ 0.05 * sqrt(2).
    steady = agree(scores(a=[0, 0], b=[1, 0.9]), scores(a=[1, 1], b=[2, 2]))
    assert (steady.spearman.low, steady.spearman.high) == (1, 1)
    # With d = 1 and -0.1 plain draws of the second seed alone have the other sign; so have these.
    assert agree(scores(a=[0, 0], b=[1, -0.1]), scores(a=[1, 1], b=[2, 2])).spearman.low == -1
    # With d = 1 and 0.1 none would, but widened 0.55 - 0.45 * sqrt(2) < 0.
    assert agree(scores(a=[0, 0], b=[1, 0.1]), scores(a=[1, 1], b=[2, 2])).spearman.low == -1


def test_the_interval_is_the_same_again() -> None:
    rng = np.random.default_rng(1)
    made = [scores(**{name: list(rng.normal(size=3)) for name in "abcdef"}) for _ in range(2)]
    assert agree(*made) == agree(*made)


def test_one_seed_has_a_value_without_an_interval() -> None:
    found = agree(scores(a=[1], b=[2]), scores(a=[1, 1.1], b=[2, 2.2]))
    assert (found.spearman.value, found.spearman.low, found.seeds) == (1, None, (1, 2))
    assert not found.keeps_order


def test_arms_are_compared_over_the_seeds_that_all_have() -> None:
    scale = {"a": {0: 1.0, 1: 9.0}, "b": {0: 2.0}}  # a's second seed would put it first
    found = agree(scale, scores(a=[1, 1], b=[2, 2]))
    assert (found.spearman.value, found.seeds) == (1, (1, 2))


def test_too_few_arms_have_no_correlation() -> None:
    found = agree(scores(a=[1, 2], b=[]), scores(a=[1, 2], b=[3, 4]))
    assert (found.arms, found.spearman.value, found.kendall.value) == (1, None, None)
    assert agree({}, {}).spearman.value is None


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        agree(scores(a=[1, float("nan")], b=[1, 2]), TARGET)


def test_equal_differences_are_no_certainty() -> None:
    """The t interval of three times 0.1 is [0.1, 0.1], but one in four of their signs is as far."""
    assert decided_pairs(scores(a=[0.1, 0.5, 0.3], b=[0.2, 0.6, 0.4])) == {}
    assert decided_pairs(scores(a=[0.1] * 6, b=[0.2] * 6)) == {("a", "b"): -1}  # 2 in 64
