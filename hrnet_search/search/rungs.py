"""Which trainings are behind the others: Optuna's pruners, each over trainings that compare.

A rung is an evaluation at which trainings are compared. Where cost is an objective, networks are
compared with those of like cost alone, or the cheap ones would all be stopped; and each seed with
itself. Everything here is in memory and follows from the histories of the trials.
"""

import math
from collections.abc import Iterable
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from ..result import METRICS, Result
from ..strategy import Search
from ..study import Study

Group = tuple[int, int]  # bin of cost, seed


class Rungs:
    """All comparisons of a study with a scheduler.

    Args:
        study: The study.
        steps: Of one training.
    """

    def __init__(self, study: Study, steps: int) -> None:
        self.study, self.steps = study, steps
        self._groups: dict[Group, optuna.Study] = {}
        self._trials: dict[int, optuna.Trial] = {}
        self._decided: dict[tuple[int, int], bool] = {}  # training, evaluation -> is it behind?

    def is_behind(self, number: int, point: dict[str, Any], *, cost: float, seed: int) -> bool:
        """Enter a point of a training's history; is the training to be stopped there?

        A point that was entered before has the answer that it had then.

        Args:
            number: Of the training.
            point: Its step, loss, and metrics if it was evaluated.
            cost: The network's, in the unit of `study.cost`.
            seed: Of the training.
        """
        evaluation = self._evaluation(point)
        if evaluation is None:
            return False
        if (number, evaluation) not in self._decided:
            trial = self._enter(number, point, (self.bin(cost), seed))
            self._decided[number, evaluation] = trial.should_prune()
        return self._decided[number, evaluation]

    def passed(
        self, number: int, points: Iterable[dict[str, Any]], *, cost: float, seed: int
    ) -> None:
        """Enter points at which a training was found to go on, whatever others did since then."""
        for point in points:
            evaluation = self._evaluation(point)
            if evaluation is not None and (number, evaluation) not in self._decided:
                trial = self._enter(number, point, (self.bin(cost), seed))
                if self.study.search.scheduler != "median":  # the others note their rungs by it
                    trial.should_prune()
                self._decided[number, evaluation] = False

    def end(self, result: Result) -> None:
        """Enter how a training ended, with all points of its history that are not known yet."""
        cost = result.value(self.study.cost)
        if cost is None:
            return  # it failed before it was profiled, so nothing was compared
        self.passed(result.trial, result.history, cost=cost, seed=result.seed)
        trial = self._trials.get(result.trial)
        value = result.value(self.study.accuracy)
        group = self._groups.get((self.bin(cost), result.seed))
        if trial is None or group is None:
            return
        if result.state == "complete" and value is not None:
            group.tell(trial, value)
        else:
            group.tell(
                trial, state=TrialState.FAIL if result.state == "failed" else TrialState.PRUNED
            )

    def bin(self, cost: float) -> int:
        """Number of the bin of cost; 0 for all networks if cost is no objective."""
        if len(self.study.goals) < 2:
            return 0
        return math.floor(math.log(cost) / math.log(self.study.search.cost_bin))

    def _evaluation(self, point: dict[str, Any]) -> int | None:
        """Number of the evaluation, from 1; None if there was none, or it is the last."""
        name = self.study.accuracy.removeprefix("metrics.")
        evaluation = int(point["step"]) * self.study.train.evaluations // self.steps
        is_last = evaluation >= self.study.train.evaluations
        return None if name not in point or is_last else evaluation

    def _enter(self, number: int, point: dict[str, Any], group: Group) -> optuna.Trial:
        trial = self._trial(number, group)
        value = point[self.study.accuracy.removeprefix("metrics.")]
        trial.report(value, int(point["step"]) * self.study.train.evaluations // self.steps)
        return trial

    def _trial(self, number: int, group: Group) -> optuna.Trial:
        if group not in self._groups:
            self._groups[group] = optuna.create_study(
                direction=METRICS[self.study.accuracy].direction,
                study_name=f"bin {group[0]}, seed {group[1]}",  # Hyperband deals brackets by it
                pruner=_pruner(self.study.search, self.study.train.evaluations),
            )
        if number not in self._trials:
            self._trials[number] = self._groups[group].ask()
        return self._trials[number]


def _pruner(search: Search, evaluations: int) -> BasePruner:
    if search.scheduler == "asha":
        return SuccessiveHalvingPruner(
            min_resource=search.first_rung, reduction_factor=search.reduction
        )
    if search.scheduler == "hyperband":
        return HyperbandPruner(
            min_resource=search.first_rung,
            max_resource=evaluations,
            reduction_factor=search.reduction,
        )
    return MedianPruner(n_warmup_steps=search.first_rung - 1)
