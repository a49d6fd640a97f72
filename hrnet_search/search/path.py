"""From a search's default network to its winner, one knob at a time: which change brought what.

The ablation path of Fawcett and Hoos ("Analysing differences between algorithm configurations
through ablation", Journal of Heuristics 2016): of the knobs that still differ, the one is changed
next whose change is best. They run what they need; here the ledger has to do.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ..space import DEFAULTS, Arms, Choices, Range, Space, Value
from ..study import Study
from .additive import Additive

DIGITS = 12  # after the point; values that agree in them are tied, and the first knob goes first

Kind = Literal["measured", "predicted"]
Params = dict[str, Value]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One network of the path.

    Args:
        knobs: What was changed to get here; none at the start, several where the ledger does not
            tell their changes apart.
        params: Knob -> value.
        key: Hash of the network.
        value: The metric in base units.
        kind: Was this network trained, or is it the model's prediction?
    """

    knobs: tuple[str, ...]
    params: Params
    key: str
    value: float
    kind: Kind


def default_params(study: Study, trained: Iterable[Mapping[str, Value]]) -> Params:
    """The knob values that a search is judged from.

    They are those of `search.start[0]`; what it leaves open is taken from the first trained network
    that has them. Without it, or without such a network, a knob stands at hrnet's default or what
    `space.base` says, where that is among its values, and else at its first value.

    Args:
        study: The search.
        trained: Knob values of the networks, in the order of their proposals.
    """
    given: Params = study.search.start[0] if study.search.start else {}
    for params in trained if given else ():
        if all(_equal(params[name], value) for name, value in given.items()):
            return dict(params)
    space = study.space
    return {name: given.get(name, _default(space, name, knob)) for name, knob in space.vary.items()}


def _default(space: Space, name: str, knob: Choices | Range | Arms) -> Value:
    defaults = {**DEFAULTS, **space.base}
    for value in knob.values():
        settings = knob.arms[str(value)] if isinstance(knob, Arms) else {name: value}
        if all(_equal(defaults[key], setting) for key, setting in settings.items()):
            return value
    return knob.values()[0]


def _equal(one: object, other: object) -> bool:
    """Not as `==`, for which 1 is true."""
    return json.dumps(one) == json.dumps(other)


def ablation_path(
    study: Study,
    start: Params,
    goal: Params,
    *,
    measured: Mapping[str, float],
    model: Additive | None,
    maximize: bool,
) -> list[Step]:
    """The networks from `start` to `goal`, both with them; empty if the start's value is not known.

    Args:
        study: The search.
        start: Knob values of the default.
        goal: Those of the winner, which was trained.
        measured: Hash of a network -> its mean, of those that were trained.
        model: What predicts others; None if nothing is to be predicted.
        maximize: Is more better?
    """
    first = _step(study, start, (), measured, model)
    path = [first] if first else []
    while path and (differing := _differing(path[-1].params, goal)):
        here = path[-1].params
        tries = [
            _step(study, {**here, name: goal[name]}, (name,), measured, model) for name in differing
        ]
        if not any(tries):
            tries = [_step(study, goal, tuple(differing), measured, model)]
        path.append(_best([step for step in tries if step], maximize=maximize))
    return path


def _step(
    study: Study,
    params: Params,
    knobs: tuple[str, ...],
    measured: Mapping[str, float],
    model: Additive | None,
) -> Step | None:
    """A network of the path; None if it cannot be built or its value is not known."""
    if study.obstacle(params):
        return None
    key = study.network(params).key
    value = measured.get(key)
    kind: Kind = "measured"
    if value is None:
        value, kind = model.predict(params) if model else None, "predicted"
    if value is None:
        return None
    return Step(knobs=knobs, params=params, key=key, value=value, kind=kind)


def _differing(params: Params, goal: Params) -> list[str]:
    return [name for name, value in goal.items() if not _equal(params[name], value)]


def _best(steps: list[Step], *, maximize: bool) -> Step:
    sign = -1 if maximize else 1
    return min(steps, key=lambda step: round(sign * step.value, DIGITS))
