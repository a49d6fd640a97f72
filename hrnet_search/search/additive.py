"""A model of what knobs do: each value of each knob adds its own amount, fitted by least squares.

It knows no interactions, and says how far off it is: each network is predicted from the others.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..space import Value

Array = np.ndarray[Any, Any]
TINY = 1e-8  # a share that is rounding: of leverages and of projections, which are of order 1


@dataclass(frozen=True, kw_only=True)
class Additive:
    """A fitted model, in the units of the values that it was given.

    Args:
        levels: Knob -> the values seen, as JSON, in the order of the knobs; with each the place of
            its column.
        amounts: What the columns add; the first is the mean of all.
        known: Projection on what the networks tell: amounts outside of it are arbitrary.
        error: Root mean square of the errors at networks left out, one at a time; None if none can
            be predicted from the others.
        spread: Standard deviation of the values over networks (n - 1).
    """

    levels: dict[str, dict[str, int]]
    amounts: Array
    known: Array
    error: float | None
    spread: float

    @property
    def is_useful(self) -> bool:
        """Does it predict a network better than the mean of the others would, about?"""
        return self.error is not None and self.error < self.spread

    @property
    def is_determined(self) -> bool:
        """Do the networks tell every value of every knob from the others of that knob?"""
        free = 1 + sum(len(places) - 1 for places in self.levels.values())
        return round(float(np.trace(self.known))) == free

    def predict(self, params: Mapping[str, Value]) -> float | None:
        """The value of a network, None where the others do not tell it."""
        places = [self.levels[name].get(json.dumps(value)) for name, value in params.items()]
        row = np.zeros(len(self.amounts))
        row[0] = 1
        for place in places:
            if place is None:
                return None
            row[place] = 1
        is_told = np.abs(row - row @ self.known).max() < TINY
        return float(row @ self.amounts) if is_told else None

    def variances(self) -> dict[str, float] | None:
        """What each knob adds to the variance of the model over all combinations of values seen.

        A functional analysis of variance of this model in closed form: the variance of a sum of
        independent parts is the sum of theirs. None if the model is not determined.
        """
        if not self.is_determined:
            return None
        return {
            name: float(np.var(self.amounts[list(places.values())]))
            for name, places in self.levels.items()
        }


def fit(params: Sequence[Mapping[str, Value]], values: Sequence[float] | Array) -> Additive:
    """The model of some networks, of at least two.

    Args:
        params: Knob values of each; all have the same knobs.
        values: What was measured of each.
    """
    return fitter(params)(values)


def fitter(
    params: Sequence[Mapping[str, Value]],
) -> Callable[[Sequence[float] | Array], Additive]:
    """`fit` for many measurements of the same networks, whose equations are solved once."""
    levels = _levels(params)
    rows = np.zeros((len(params), 1 + sum(map(len, levels.values()))))
    rows[:, 0] = 1
    for row, network in zip(rows, params, strict=True):
        row[[levels[name][json.dumps(value)] for name, value in network.items()]] = 1
    inverse = np.linalg.pinv(rows)
    known, leverages = inverse @ rows, np.einsum("ij,ji->i", rows, inverse)

    def fitted(values: Sequence[float] | Array) -> Additive:
        measured = np.asarray(values, dtype=float)
        amounts = inverse @ measured
        return Additive(
            levels=levels,
            amounts=amounts,
            known=known,
            error=_error(measured - rows @ amounts, leverages),
            spread=float(measured.std(ddof=1)),
        )

    return fitted


def _levels(params: Sequence[Mapping[str, Value]]) -> dict[str, dict[str, int]]:
    """The columns of the values seen; that of the mean is the first."""
    place, levels = 1, {}
    for name in params[0]:
        seen = dict.fromkeys(json.dumps(network[name]) for network in params)
        levels[name] = {value: place + n for n, value in enumerate(seen)}
        place += len(seen)
    return levels


def _error(residuals: Array, leverages: Array) -> float | None:
    """Leaving one out in closed form: its residual is the one of the whole fit / (1 - leverage).

    A network of leverage 1 is alone in showing something, so the others cannot predict it.
    """
    others = leverages < 1 - TINY
    if not others.any():
        return None
    left_out = residuals[others] / (1 - leverages[others])
    return float(np.sqrt(np.mean(left_out**2)))
