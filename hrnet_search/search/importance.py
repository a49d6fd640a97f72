"""How much each knob of a search mattered, by Optuna's PED-ANOVA, and how sure that is.

PED-ANOVA (Watanabe et al., 2023, arXiv 2304.10255) asks which knobs the best networks chose
otherwise than all networks did. Of Optuna's evaluators it alone needs no scikit-learn. The second
opinion is the share of the variance in a model that adds the knobs up (`additive`). Among several
knobs that do nothing one is soon ahead by luck in either, so only what both say is believed.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from ..space import Space, Value
from . import additive
from .storage import distributions, encoded_params

Array = np.ndarray[Any, Any]

TOP = 0.25  # the best networks: so large a share of all
# Optuna's documentation wants "at least 5 trials above target_quantile".
LEAST = round(5 / TOP)  # networks
SHUFFLES = 19  # what exceeds all of them has p <= 1 / (19 + 1) = 5 % (a Monte Carlo test)
HALVES = 20  # their spread is itself known to about 1 / sqrt(2 * 19) = 16 %


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What one knob did for one metric.

    Args:
        knob: Its name.
        share: Of the importances of all knobs by PED-ANOVA, 0 to 1.
        error: Standard error of the share: its deviation over random halves of the networks.
        chance: The largest that the knob came to when the values were shuffled among the networks,
            which takes every effect away, in the same unit; may be above 1.
        effect: Share of the variance in the additive model, None if the networks do not tell it.
        effect_chance: The largest of it among the shuffled values, in the same unit.
    """

    knob: str
    share: float
    error: float
    chance: float
    effect: float | None
    effect_chance: float | None

    @property
    def is_clear(self) -> bool:
        """Are both above what chance came to?"""
        if self.effect is None or self.effect_chance is None or self.share <= self.chance:
            return False
        return self.effect > self.effect_chance


def importances(
    space: Space,
    params: Sequence[Mapping[str, Value]],
    values: Sequence[float],
    *,
    maximize: bool,
) -> list[Importance]:
    """The knobs, most important first; the same again for the same networks in the same order.

    Args:
        space: Whose knobs they are.
        params: Knob values of each network.
        values: What was measured of each.
        maximize: Is more better?

    Returns:
        Nothing if there are fewer than `LEAST` networks, or they do not differ enough to tell the
        best from the others.
    """
    losses = np.asarray(values, dtype=float) * (-1 if maximize else 1)
    if len(losses) < LEAST or np.ptp(losses) == 0:
        return []
    judge = _judge(space, params)
    found = judge(losses)
    total = found.sum()
    if not total > 0:
        return []
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(losses) for _ in range(SHUFFLES)]
    chance = np.max([judge(one) for one in shuffled], axis=0) / total
    errors = np.std([_shares(judge(_half(losses, rng))) for _ in range(HALVES)], axis=0, ddof=1)
    effects = _effects(params, losses, shuffled)
    rows = [
        Importance(
            knob=name,
            share=float(found[n] / total),
            error=float(errors[n]),
            chance=float(chance[n]),
            effect=effects[name][0],
            effect_chance=effects[name][1],
        )
        for n, name in enumerate(space.vary)
    ]
    return sorted(rows, key=lambda row: -row.share)


def _effects(
    params: Sequence[Mapping[str, Value]], losses: Array, shuffled: Sequence[Array]
) -> dict[str, tuple[float | None, float | None]]:
    """Knob -> its share in the additive model, and the largest that it has by chance."""
    fit = additive.fitter(params)
    variances = fit(losses).variances()
    if not variances or not sum(variances.values()):
        return dict.fromkeys(params[0], (None, None))
    total = sum(variances.values())
    others = [fit(one).variances() or {} for one in shuffled]
    return {
        name: (variance / total, max(other[name] for other in others) / total)
        for name, variance in variances.items()
    }


def _judge(space: Space, params: Sequence[Mapping[str, Value]]) -> Callable[[Array], Array]:
    """What turns losses of the networks into the importance of each knob, in the space's order."""
    study, knobs = optuna.create_study(), distributions(space)
    study.add_trials(
        [create_trial(value=0.0, params=encoded_params(p), distributions=knobs) for p in params]
    )
    evaluator = PedAnovaImportanceEvaluator(target_quantile=TOP)

    def judge(losses: Array) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that low values are taken for good, as they are here
            found = get_param_importances(
                study,
                evaluator=evaluator,
                target=lambda trial: float(losses[trial.number]),
                normalize=False,
            )
        return np.array([found[name] for name in space.vary])

    return judge


def _half(losses: Array, rng: np.random.Generator) -> Array:
    """Half of the losses; Optuna leaves trials out that have none.

    The deviation of an estimate over random halves is the standard error of that of the whole
    (delete-d jackknife, Shao and Wu 1989: with d = n / 2 its factor is 1).
    """
    left_out = rng.permutation(len(losses))[: len(losses) // 2]
    halved = losses.copy()
    halved[left_out] = np.nan
    return halved


def _shares(found: Array) -> Array:
    total = found.sum()
    return found / total if total > 0 else found
