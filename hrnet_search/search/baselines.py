"""What a search has to beat: as many networks drawn at random, and its default network scaled.

Each is a study of its own, named after the search, with its task, data, training and seeds.
"""

import itertools
import random
from typing import Any

from ..errors import InputError
from ..reading import validate
from ..space import DEFAULTS, Value
from ..study import Study
from .path import default_params

RANDOM, SCALING = "random", "scaling"
# The widths of all branches are multiplied, as HRNetV1-W32 and W48 differ (section 3); stem and
# stage 1 stay, as there. Multiply-adds grow with about the square.
FACTORS = [2 ** (step / 4) for step in range(-16, 17)]
MOST = 7  # scaled networks
DRAWN = 500  # networks of the space: between their costs the scaled ones lie
COST = "profile.macs"


def baselines(study: Study) -> dict[str, Study]:
    """Baseline, `RANDOM` or `SCALING`, -> its study; a random search has the other one alone.

    Random search proposes as many networks of the same space, and `search.start` is not for it.
    Scaling is a grid: the default network (`default_params`) at up to `MOST` widths whose
    multiply-adds lie between those of the space's networks.

    Raises:
        InputError: The study is a grid.
    """
    if study.search.is_grid:
        rule = "is for searches; this study trains every network of its space"
        raise InputError(rule, key="search.sampler", value=study.search.sampler)
    found = {}
    if study.search.sampler != RANDOM:
        own = study.search.model_dump(mode="json", exclude_unset=True, exclude={"start"})
        found[RANDOM] = _beside(study, RANDOM, search=own | {"sampler": RANDOM})
    found[SCALING] = _scaling(study, _fitting(study))
    return found


def _beside(study: Study, baseline: str, **changes: Any) -> Study:
    raw = study.model_dump(mode="json", exclude_unset=True)
    title = f"{study.title or study.name}: {baseline}"
    return validate(Study, raw | {"name": f"{study.name}-{baseline}", "title": title} | changes)


def _fitting(study: Study) -> dict[str, Value]:
    """Name -> width of the default network; of those that cost what the space's networks do."""
    width = study.space.arguments(default_params(study, ()))["width"]
    widths: dict[str, Value] = {}
    for factor in FACTORS:
        scaled = _times(width, factor)
        if scaled not in widths.values():  # narrow ones may be rounded to the same
            widths[f"x{factor:.2g}"] = scaled
    grid, (low, high) = _scaling(study, widths), _ends(study)
    macs = {grid.arm(params): grid.costs(params)[COST] for params in grid.arms()}
    names = [name for name, each in macs.items() if low <= each <= high]
    if not names:
        names = [min(macs, key=lambda name: abs(macs[name] - high))]
    places = [round(place * (len(names) - 1) / (MOST - 1)) for place in range(MOST)]
    return {names[place]: widths[names[place]] for place in places}


def _scaling(study: Study, widths: dict[str, Value]) -> Study:
    """The default network at several widths; those above the limits are left out."""
    own = study.space.arguments(default_params(study, ()))
    # With `task` even at its default, or the study's own would be put in its place.
    kept = {key: value for key, value in own.items() if key == "task" or value != DEFAULTS[key]}
    base = {key: value for key, value in kept.items() if key != "width"}
    arms = {name: {"width": width} for name, width in widths.items()}
    space = {"base": base, "vary": {"width": {"arms": arms}}, "limits": study.space.limits}
    return _beside(study, SCALING, space=space, search={})


def _times(width: Any, factor: float) -> Any:
    """A width, or a list of them, in whole channels."""
    if isinstance(width, list):
        return [_times(each, factor) for each in width]
    return max(1, round(float(width) * factor))


def _ends(study: Study) -> tuple[float, float]:
    """The least and the most multiply-adds of networks of the space, drawn evenly."""
    drawn = itertools.islice(study.space.draws(random.Random(0)), DRAWN)
    macs = [study.costs(params)[COST] for params in drawn if study.is_feasible(params)]
    return min(macs, default=0.0), max(macs, default=0.0)
