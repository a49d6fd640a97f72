"""Cost-matched networks: all branches widened or narrowed alike, until a cost meets another's.

What is left of a network once parts are removed is cheaper as well, so it may be worse for its
size alone. Its copy of equal cost tells the two apart. Standard library only.
"""

import dataclasses
import functools
import heapq
from collections.abc import Callable, Iterator, Sequence

from .arch import BOTTLENECK_EXPANSION, MAX_CHANNELS, ArchSpec

MATCH_KNOB = "match"  # beside the knobs of its arm, in the parameters of a trial of a copy
MATCH_TOLERANCE = 0.01  # of the cost that is met
# Counted beforehand, and more for wider branches; kernels and depth are the same at any width.
MATCHABLE = (
    *("profile.params", "profile.macs", "profile.paper_gflops"),
    *("profile.activations", "profile.memory"),
)
MAX_DOUBLINGS = 17  # of all widths, up or down: from 1 channel to `MAX_CHANNELS`
HALVINGS = 12  # of the interval that the factor lies in: to 1/4096
REACH = 16  # steps that a branch may lie off its even share
MAX_TRIES = 512  # networks that are costed around the even ones

Widths = tuple[int, ...]
Group = tuple[int, int]  # a branch, and a width that it has in some stages


def matched(
    spec: ArchSpec, target: float, cost: Callable[[ArchSpec], float]
) -> tuple[ArchSpec, float]:
    """The network with the widths of its branches scaled until its cost is the target.

    All are scaled by one factor, rounded to whole channels (with bottleneck units to multiples
    of 4). Where that is too coarse, those widths are taken that differ least from even scaling,
    by the sum of their relative differences: a channel is least of the lowest resolutions, so
    these give way first. A branch keeps one width wherever it had one. Stem and stage 1 stay.

    Args:
        spec: The network; branches without channels stay so.
        target: The cost to meet, above 0.
        cost: Network -> its cost, which grows with its widths.

    Returns:
        The network, which stays as it is within `MATCH_TOLERANCE` of the target, and how far its
        cost is off, as a share of the target. Where nothing so near was found it is the nearest of
        those that were tried.
    """
    step = BOTTLENECK_EXPANSION if spec.unit == "bottleneck" else 1
    groups = _groups(spec)

    @functools.cache
    def costs(widths: Widths) -> float:
        return cost(_with_widths(spec, dict(zip(groups, widths, strict=True))))

    def miss(widths: Widths) -> float:
        return abs(costs(widths) - target) / target

    def even(factor: float) -> Widths:
        return tuple(_rounded(factor * width, step) for _, width in groups)

    own = tuple(width for _, width in groups)
    if miss(own) <= MATCH_TOLERANCE:
        return spec, miss(own)
    low, high = _crossing(lambda factor: costs(even(factor)) - target)
    best = min((even(low), even(high)), key=miss)
    for widths in _nearest_first([high * width for _, width in groups], step):
        if miss(best) <= MATCH_TOLERANCE:
            break
        best = min(best, widths, key=miss)
    return _with_widths(spec, dict(zip(groups, best, strict=True))), miss(best)


def _groups(spec: ArchSpec) -> list[Group]:
    """What is scaled, from high to low resolution."""
    stages = spec.stages
    return sorted({(b, c) for stage in stages for b, c in enumerate(stage.num_channels) if c})


def _with_widths(spec: ArchSpec, widths: dict[Group, int]) -> ArchSpec:
    stages = (
        dataclasses.replace(
            stage,
            num_channels=tuple(c and widths[b, c] for b, c in enumerate(stage.num_channels)),
        )
        for stage in spec.stages
    )
    return dataclasses.replace(spec, stages=tuple(stages))


def _rounded(width: float, step: int) -> int:
    return step * min(max(1, round(width / step)), MAX_CHANNELS // step)


def _crossing(excess: Callable[[float], float]) -> tuple[float, float]:
    """Two factors close together, between which the excess changes from below 0 to 0 or more.

    Where it never does, both are the last that was tried.
    """
    is_below = excess(1.0) < 0
    outer, inner = 1.0, 1.0
    for _ in range(MAX_DOUBLINGS):
        if (excess(outer) < 0) != is_below:
            break
        outer, inner = outer * (2.0 if is_below else 0.5), outer
    else:
        return outer, outer
    low, high = sorted((outer, inner))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return low, high


def _nearest_first(ideal: Sequence[float], step: int) -> Iterator[Widths]:
    """Whole widths in the order of their distance to some real ones, `MAX_TRIES` at most."""
    ladders = [_ladder(width, step) for width in ideal]
    start = (0,) * len(ladders)
    heap, seen = [(sum(ladder[0][0] for ladder in ladders), start)], {start}
    for _ in range(MAX_TRIES):
        if not heap:
            return
        _, places = heapq.heappop(heap)
        yield tuple(ladder[place][1] for ladder, place in zip(ladders, places, strict=True))
        for branch in range(len(ladders)):
            after = (*places[:branch], places[branch] + 1, *places[branch + 1 :])
            if after[branch] < len(ladders[branch]) and after not in seen:
                seen.add(after)
                rungs = (ladder[place] for ladder, place in zip(ladders, after, strict=True))
                heapq.heappush(heap, (sum(rung[0] for rung in rungs), after))


def _ladder(width: float, step: int) -> list[tuple[float, int]]:
    """(relative difference, whole width) of what lies around a real width, the nearest first."""
    middle = _rounded(width, step) // step
    counts = range(max(1, middle - REACH), min(middle + REACH, MAX_CHANNELS // step) + 1)
    return sorted((abs(count * step - width) / width, count * step) for count in counts)
