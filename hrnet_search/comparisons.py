"""Which arms of a grid are compared, and how many seeds their comparisons want.

Adaptive seeds are a group-sequential test. The comparisons are looked at when all arms have
`seeds` seeds, and again after every further `adaptive.step`, up to `adaptive.most`. Each look is a
table of its own at the level 0.05 / looks (Bonferroni, over looks that are fixed beforehand), so
looking often does not raise the chance of a false verdict in the end above 0.05. An arm is trained
with more seeds as long as one of its comparisons is undecided, and the reference with it; once a
look has decided them all it keeps its seeds, and so its verdicts.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .result import metric
from .space import Value
from .stats import LEVEL, Comparison, Pair, compare_all, p_of_table
from .study import Study

ALL_PAIRS = 4  # arms; with more, each is compared with the reference alone

Values = Mapping[str, Mapping[int, float]]  # arm -> seed -> value
HasEnded = Callable[[str, int], bool]  # of an arm's trial with a seed


@dataclass(frozen=True)
class Family:
    """Comparisons that are judged together, as one table.

    Args:
        title: What its arms have in common, empty where a study has one family.
        pairs: Names of arms: the first minus the second.
    """

    title: str
    pairs: tuple[tuple[str, str], ...]


def families(study: Study) -> list[Family]:
    """The networks as they are; and with `match` those of equal cost, as a table of its own.

    With `variants` there is a table of the networks under the same variant, if there are several,
    and one of the variants of the same network.
    """
    if study.variants:
        between = {
            "between networks": _groups(study, study.variant_of, study.network_name),
            "between variants": _groups(study, study.network_name, study.variant_of),
        }
        found = [
            Family(title, tuple(pair for group in groups for pair in _pairs(study, *group)))
            for title, groups in between.items()
        ]
        return [family for family in found if family.pairs]
    arms = [(study.arm(p), study.is_copy(p), study.is_matched(p)) for p in study.arms()]
    own = [name for name, is_copy, _ in arms if not is_copy]
    if not study.match:
        return [Family("", _pairs(study, own, study.reference_arm))]
    alike = [name for name, _, is_matched in arms if is_matched]
    label = metric(next(iter(study.match))).label
    return [
        Family("as removed", _pairs(study, own, study.reference_arm)),
        Family(f"at equal {label}", _pairs(study, alike, study.reference_arm)),
    ]


Group = tuple[list[str], str]  # arms, and the one that the others are compared with
Name = Callable[[Mapping[str, Value]], str]


def _groups(study: Study, alike: Name, apart: Name) -> list[Group]:
    """Arms that are alike in one name and part by another.

    Each with the arm that is like the reference in the other; where there is none, with its last.
    """
    groups: dict[str, dict[str, str]] = {}
    for params in study.arms():
        groups.setdefault(alike(params), {})[apart(params)] = study.arm(params)
    wanted = apart(_reference(study))
    return [
        (list(arms.values()), arms.get(wanted, list(arms.values())[-1])) for arms in groups.values()
    ]


def _reference(study: Study) -> dict[str, Value]:
    return next(p for p in study.arms() if study.arm(p) == study.reference_arm)


def set_beside(study: Study) -> dict[str, str]:
    """Arm -> the arm that tables of arms set it beside, itself if there is none.

    That is the reference. With `variants` it is that for the arms of its variant alone, and for
    each other the same network under that variant.
    """
    arms = {study.arm(params): study.variant_of(params) for params in study.arms()}
    if not study.variants:
        return dict.fromkeys(arms, study.reference_arm)
    groups = _groups(study, study.network_name, study.variant_of)
    found = {name: other for names, other in groups for name in names}
    own = study.variant_of(_reference(study))
    return found | {name: study.reference_arm for name, variant in arms.items() if variant == own}


def _pairs(study: Study, arms: list[str], reference: str) -> tuple[tuple[str, str], ...]:
    """All pairs of a few arms, otherwise each with the reference.

    So too with adaptive seeds: an arm that got more seeds for another arm's sake would be judged
    anew.
    """
    # The reference comes last, so that it is what others are compared with in every table.
    others = [name for name in arms if name != reference]
    if len(arms) > ALL_PAIRS or study.adaptive is not None:
        return tuple((name, reference) for name in others)
    return tuple(itertools.combinations([*others, reference], 2))


def looks(study: Study) -> list[int]:
    """How many seeds each look at the comparisons has, fixed beforehand."""
    if study.adaptive is None:
        return [study.seeds]
    return [*range(study.seeds, study.adaptive.most, study.adaptive.step), study.adaptive.most]


def level(study: Study) -> float:
    """Of each look."""
    return LEVEL / len(looks(study))


def compared(
    study: Study, family: Family, values: Values, paper: Mapping[str, float]
) -> list[Comparison]:
    """The comparisons of a family, in its order.

    Args:
        study: Whose arms they are.
        family: Which of them.
        values: Of the metric to compare by.
        paper: Arm -> the paper's figure, where it has one.
    """
    return compare_all(_paired(family, values, paper), level=level(study))


def _paired(family: Family, values: Values, paper: Mapping[str, float]) -> list[Pair]:
    return [
        Pair(
            values.get(arm, {}),
            values.get(other, {}),
            paper[arm] - paper[other] if arm in paper and other in paper else None,
        )
        for arm, other in family.pairs
    ]


def seeds_wanted(study: Study, values: Values, has_ended: HasEnded) -> dict[str, int]:
    """Arm -> number of its seeds, as far as it can be told by now.

    Args:
        study: A grid.
        values: What complete trials measured.
        has_ended: Whether the trial of an arm and a seed has, in whatever way.
    """
    *_, (wanted, _is_complete) = _looks(study, values, has_ended)
    return wanted


def looked_at(study: Study, values: Values, has_ended: HasEnded) -> Values:
    """The values that verdicts may rest on: with adaptive seeds those of the last look so far.

    Before the first look is complete, all that there are.
    """
    if study.adaptive is None:
        return values
    complete = [wanted for wanted, is_complete in _looks(study, values, has_ended) if is_complete]
    return _of_seeds(values, complete[-1]) if complete else values


def _looks(
    study: Study, values: Values, has_ended: HasEnded
) -> Iterator[tuple[dict[str, int], bool]]:
    """Seeds of each arm at each look so far, and whether all of these trials have ended."""
    names = [study.arm(params) for params in study.arms()]
    wanted = dict.fromkeys(names, study.seeds)
    for more in [*looks(study)[1:], None]:
        is_complete = all(has_ended(name, seed) for name in names for seed in range(wanted[name]))
        yield dict(wanted), is_complete
        undecided = _undecided(study, _of_seeds(values, wanted)) if is_complete and more else []
        if more is None or not undecided:
            return
        wanted |= dict.fromkeys([*undecided, study.reference_arm], more)


def _of_seeds(values: Values, wanted: Mapping[str, int]) -> Values:
    """The values as they were at a look."""
    return {
        name: {seed: value for seed, value in values.get(name, {}).items() if seed < count}
        for name, count in wanted.items()
    }


def _undecided(study: Study, values: Values) -> list[str]:
    """Arms whose comparison with the reference does not show anything yet.

    But for those that more seeds would not help: where all trials of a side have failed.
    """
    if not values.get(study.reference_arm):
        return []
    found = [
        (arm, p)
        for family in families(study)
        for (arm, _), p in zip(family.pairs, p_of_table(_paired(family, values, {})), strict=True)
    ]
    return [arm for arm, p in found if values.get(arm) and (p is None or p > level(study))]
