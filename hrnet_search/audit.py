"""Do scores of untrained networks foretell accuracy? Measured on a table of trained ones.

The bar is what costs nothing: the number of parameters or of multiply-adds. A score is worth its
seconds where it says more than these, above all among networks that cost about the same.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from .benchmark import Table
from .errors import InputError
from .ranks import spearman
from .result import metric
from .stats import LEVEL

BARS = ("params", "macs")
SIZES = (*BARS, "depth")  # scores that no network has to be built for
DRAWS = 1000  # of the bootstrap
BAND = 1.1 / 0.9  # dearest to cheapest of a band: 10 % on both sides of its middle
MIN_BAND = 5  # networks of a band: with fewer a correlation is mostly chance
FITTED = 40
REPETITIONS = 200
RIDGE = 0.1  # penalty on weights of standardised ranks, for a mean squared error

Array = NDArray[np.float64]
Places = NDArray[np.int64]  # of networks
Scores = Mapping[str, Mapping[str, float]]  # key of a network -> name of a score -> value


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Row:
    """What a score says of accuracy.

    Args:
        score: Its name.
        refused: Why it has no number, or nothing.
        overall: Spearman's rho over all networks; the interval is bootstrapped over networks.
        within: The same within bands of multiply-adds (`Bands`); None also without a band.
    """

    score: str
    refused: str = ""
    overall: Estimate | None = None
    within: Estimate | None = None


@dataclass(frozen=True)
class Ensemble:
    """Several scores made one, tried on networks that it was not fitted on.

    Args:
        name: What it is made of.
        overall: Spearman's rho on the other networks: mean over repetitions, and the range of 95 %
            of them.
        within: The same within bands; None without a band.
        gain: Rho less that of the better of params and macs on the same networks, likewise.
    """

    name: str
    overall: Estimate
    within: Estimate | None
    gain: Estimate

    @property
    def recommended(self) -> bool:
        """It beats the better of params and macs in 97.5 % of the repetitions."""
        return self.gain.low > 0


@dataclass(frozen=True)
class Audit:
    """Scores of a table's networks against their accuracy.

    Args:
        networks: How many have both.
        banded: How many of them are in bands.
        rows: A row for each score.
        ceiling: Rho of one training and another from another seed: no score can be expected to
            agree much better. None if networks were trained from one seed.
        ensembles: Of the scores that were not refused; none with too few networks.
    """

    networks: int
    banded: int
    rows: tuple[Row, ...]
    ceiling: float | None
    ensembles: tuple[Ensemble, ...]


class Bands:
    """Networks of about the same multiply-adds, numbered by 0, 1, ...

    A band begins with the cheapest network that no band has, and ends at 1.1 / 0.9 times its
    multiply-adds. Networks of bands of fewer than `MIN_BAND` are left out.

    Args:
        macs: (N,): of each network.
    """

    def __init__(self, macs: Array) -> None:
        order = np.argsort(macs, kind="stable")
        ends = []
        while len(order):
            count = int((macs[order] <= macs[order[0]] * BAND).sum())
            ends.append(order[:count])
            order = order[count:]
        self.members = [band for band in ends if len(band) >= MIN_BAND]

    @property
    def count(self) -> int:
        return sum(map(len, self.members))

    def correlation(self, score: Array, accuracy: Array) -> float | None:
        """Mean of the bands' rho, weighted by their networks; 0 for one without an order."""
        if not self.members:
            return None
        found = [spearman(score[band], accuracy[band]) or 0.0 for band in self.members]
        return float(np.average(found, weights=[len(band) for band in self.members]))

    def interval(self, score: Array, accuracy: Array) -> Estimate | None:
        """With the bootstrap over the networks of each band."""
        value = self.correlation(score, accuracy)
        if value is None:
            return None
        rng = np.random.default_rng(0)
        drawn = [
            _drawn(score, accuracy, rng.choice(band, (DRAWS, len(band)))) for band in self.members
        ]
        weights = [len(band) for band in self.members]
        return _interval(value, np.average(drawn, axis=0, weights=weights))


def audit(
    table: Table,
    scores: Scores,
    *,
    fitted: int = FITTED,
    repetitions: int = REPETITIONS,
) -> Audit:
    """Compare scores with the mean accuracy of trained networks.

    Args:
        table: The trained networks.
        scores: Of networks of the table, with params and macs; more is taken for better. What is
            missing counts as not finite.
        fitted: Networks that an ensemble is fitted on.
        repetitions: How often these are drawn at random.

    Raises:
        InputError: Fewer than three networks have scores, or they do not have params and macs.
    """
    networks = [network for key, network in table.networks.items() if key in scores]
    if len(networks) < 3:
        raise InputError("must be of at least three of the table's networks", key="scores")
    goal = table.study.accuracy
    accuracy = metric(goal).sign * np.array([network.mean(goal) for network in networks])
    names = list(dict.fromkeys(name for network in networks for name in scores[network.key]))
    columns = {
        name: np.array([scores[network.key].get(name, math.nan) for network in networks])
        for name in names
    }
    why = {name: refusal(column) for name, column in columns.items()}
    for bar in BARS:
        if why.get(bar, "is missing"):
            raise InputError(why.get(bar, "is missing"), key=f"scores.{bar}")
    bands = Bands(np.array([network.mean("profile.macs") for network in networks]))
    rows = [_row(name, why[name], columns[name], accuracy, bands) for name in names]
    kept = {name: column for name, column in columns.items() if not why[name]}
    return Audit(
        networks=len(networks),
        banded=bands.count,
        rows=tuple(rows),
        ceiling=_ceiling(table, [network.key for network in networks]),
        ensembles=ensembles(kept, accuracy, kept["macs"], fitted=fitted, repetitions=repetitions),
    )


def refusal(column: Array) -> str:
    """Why a score orders nothing, or nothing: values that are not finite, or all equal."""
    bad = int((~np.isfinite(column)).sum())
    if bad:
        return f"{bad} of {len(column)} values are not finite"
    return "is constant" if np.ptp(column) == 0 else ""


def _row(name: str, why: str, score: Array, accuracy: Array, bands: Bands) -> Row:
    if why:
        return Row(name, why)
    return Row(name, "", _overall(score, accuracy), bands.interval(score, accuracy))


def _overall(score: Array, accuracy: Array) -> Estimate:
    count = len(score)
    picks = np.random.default_rng(0).integers(count, size=(DRAWS, count))
    return _interval(spearman(score, accuracy) or 0.0, _drawn(score, accuracy, picks))


def _drawn(score: Array, accuracy: Array, picks: Places) -> Array:
    """(D,): rho of D draws of n networks, `picks` (D, n); 0 for one without an order."""
    x, y = (rankdata(values[picks], axis=1) for values in (score, accuracy))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    length = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    rhos: Array = (x * y).sum(1) / np.where(length, length, 1)
    return rhos


def _interval(value: float, drawn: Sequence[float] | Array) -> Estimate:
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return Estimate(value, float(low), float(high))


def _ceiling(table: Table, keys: Sequence[str]) -> float | None:
    """Of the first two trainings of the networks that have two."""
    goal = table.study.accuracy
    pairs = [
        [network.value(goal, seed=training.seed) for training in network.trainings[:2]]
        for network in map(table.networks.__getitem__, keys)
        if len(network.trainings) > 1
    ]
    return spearman(*np.array(pairs).T) if len(pairs) > 2 else None


# --- ensembles -----------------------------------------------------------------------------------


def ensembles(
    columns: Mapping[str, Array],
    accuracy: Array,
    macs: Array,
    *,
    fitted: int,
    repetitions: int,
) -> tuple[Ensemble, ...]:
    """Of scores, tried on the networks that they were not fitted on.

    The mean of ranks needs no accuracy: all scores but sizes, more being better. The ridge
    regressions weigh ranks by the accuracy of the fitted networks: of all scores, and of sizes
    alone, which shows whether the rest adds anything. Ranks are among all networks: scores are
    known of all of them before any is trained.

    Args:
        columns: Name -> (N,), finite and not constant.
        accuracy: (N,): more is better.
        macs: (N,), for the bands.
        fitted: Networks to fit on; none are tried unless as many are left.
        repetitions: How often these are drawn.
    """
    count = len(accuracy)
    if count < 2 * fitted:
        return ()
    ranks = {name: _standard(rankdata(column)) for name, column in columns.items()}
    scored = [name for name in ranks if name not in SIZES]
    sized = [name for name in ranks if name in SIZES]
    makers: dict[str, Callable[[Places], Array]] = {
        "ridge of sizes": lambda own: _ridge(ranks, sized, own, accuracy)
    }
    if scored:
        every = [*sized, *scored]
        makers = {
            "mean rank of scores": lambda own: _features(ranks, scored).mean(1),
            **makers,
            "ridge of scores and sizes": lambda own: _ridge(ranks, every, own, accuracy),
        }
    found: dict[str, list[tuple[float, float | None, float]]] = {name: [] for name in makers}
    rng = np.random.default_rng(0)
    for _ in range(repetitions):
        order = rng.permutation(count)
        own, others = order[:fitted], order[fitted:]
        truth, bands = accuracy[others], Bands(macs[others])
        bar = max(spearman(columns[name][others], truth) or 0.0 for name in BARS)
        for name, make in makers.items():
            predicted = make(own)[others]
            rho = spearman(predicted, truth) or 0.0
            found[name].append((rho, bands.correlation(predicted, truth), rho - bar))
    return tuple(_ensemble(name, *zip(*each, strict=True)) for name, each in found.items())


def _ensemble(
    name: str, overall: Sequence[float], within: Sequence[float | None], gain: Sequence[float]
) -> Ensemble:
    banded = [value for value in within if value is not None]
    return Ensemble(
        name, _mean(overall), _mean(banded) if len(banded) == len(within) else None, _mean(gain)
    )


def _mean(values: Sequence[float]) -> Estimate:
    return _interval(float(np.mean(values)), values)


def _features(ranks: Mapping[str, Array], names: Sequence[str]) -> Array:
    return np.stack([ranks[name] for name in names], axis=1)


def _ridge(ranks: Mapping[str, Array], names: Sequence[str], own: Places, accuracy: Array) -> Array:
    """(N,): predicted ranks of accuracy, by a ridge regression on the networks `own`."""
    features = _features(ranks, names)
    x, y = features[own], _standard(rankdata(accuracy[own]))
    centred = x - x.mean(0)
    penalty = RIDGE * np.eye(len(names))
    weights: Array = np.linalg.solve(
        centred.T @ centred / len(own) + penalty, centred.T @ y / len(own)
    )
    return features @ weights


def _standard(values: NDArray[Any]) -> Array:
    """Mean 0, deviation 1; all 0 if there is no deviation."""
    centred: Array = values - values.mean()
    return centred / (centred.std() or 1.0)
