"""What a space holds, before anyone trains: how many networks, what they cost, what limits leave.

Every figure is a closed form (`hrnet_search.cost`). A space too large to go through is sampled.
"""

import contextlib
import gc
import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median_low

from .arch import ArchSpec, folded
from .blueprint import canonical, head_of
from .cost import count
from .errors import InputError
from .progress import Advance
from .result import LATENCY, METRICS, Metric, check_limits, closed_form
from .space import Space, Value

MAX_NETWORKS = 100_000  # combinations looked at; some 40 s on one core
SHOWN = ("profile.macs", "profile.params", "profile.memory")  # what is summed up


@dataclass(frozen=True)
class Limit:
    """A limit of the space: the largest value allowed.

    Args:
        key: A metric of `result.METRICS` that has a closed form.
        most: Its largest value allowed, in base units.
        share: How many of the distinct networks meet it, 0 to 1.
        smallest: The smallest value among them.
    """

    key: str
    most: float
    share: float
    smallest: float


@dataclass(frozen=True)
class Survey:
    """What was found.

    Args:
        size: Combinations of knob values.
        examined: How many were looked at: all, or a random sample.
        refused: How many of those cannot be built, or not for this image, and one such reason.
        distinct: How many different networks the others build.
        values: Metric -> its value for each distinct network, in ascending order.
        limits: What each limit leaves.
        feasible: Share of the distinct networks that meet all of them, 0 to 1.
    """

    size: int
    examined: int
    refused: tuple[int, str]
    distinct: int
    values: Mapping[str, list[float]]
    limits: tuple[Limit, ...]
    feasible: float

    @property
    def complete(self) -> bool:
        """Was every combination looked at?"""
        return self.examined == self.size

    def range(self, key: str) -> tuple[float, float, float]:
        """Smallest, median and largest value of a metric."""
        values = self.values[key]
        return values[0], median_low(values), values[-1]


def survey(
    space: Space,
    *,
    head: str,
    num_outputs: int,
    input_size: tuple[int, int],
    limits: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: Advance = lambda done, total: None,
) -> Survey:
    """Count and cost the networks of a space.

    Args:
        space: The space; its own limits hold too, but for a measured one.
        head: The head they are built with, a key of `blueprint.HEADS`.
        num_outputs: Joints or classes; channels of each level of a pyramid.
        input_size: (H, W) in pixels.
        limits: Further limits, metric -> largest value allowed; they overrule the space's.
        seed: Of the sample, where there are more than `MAX_NETWORKS` combinations.
        progress: Called with combinations done and combinations in all, now and then.

    Raises:
        InputError: The head or a limit is unknown, or no network can be built.
    """
    head_of(head)
    counted = {key: most for key, most in space.limits.items() if key != LATENCY}
    allowed = {**counted, **check_limits(limits or {})}
    total = min(space.size, MAX_NETWORKS)
    networks: dict[ArchSpec, dict[str, float]] = {}
    refused: list[str] = []
    with _no_collector():
        for done, params in enumerate(combinations(space, count=total, seed=seed), start=1):
            try:
                spec = canonical(space.arch(params), head)
                network = folded(spec)
                if network not in networks:
                    found = count(spec, head=head, num_outputs=num_outputs, input_size=input_size)
                    networks[network] = closed_form(found)
            except InputError as error:  # e.g. widths that do not suit bottleneck units
                refused.append(str(error))
            if done % 500 == 0 or done == total:
                progress(done, total)
    if not networks:
        raise InputError(f"builds no network at all: {refused[0]}", key="space")
    rows = list(networks.values())
    columns = {key: sorted(row[key] for row in rows) for key in rows[0]}
    return Survey(
        size=space.size,
        examined=total,
        refused=(len(refused), refused[0] if refused else ""),
        distinct=len(networks),
        values=columns,
        limits=tuple(_limit(key, most, columns[key]) for key, most in allowed.items()),
        feasible=_share(all(row[k] <= most for k, most in allowed.items()) for row in rows),
    )


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Without the search for cycles, of which there are none here; it takes a third of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def combinations(space: Space, *, count: int, seed: int = 0) -> Iterator[dict[str, Value]]:
    """The knob values of `count` combinations: all of them, where there are as many, or random."""
    if count >= space.size:
        yield from space.params()
        return
    yield from itertools.islice(space.draws(random.Random(seed)), count)


def _limit(key: str, most: float, values: list[float]) -> Limit:
    return Limit(key, most, _share(value <= most for value in values), values[0])


def _share(met: Iterable[bool]) -> float:
    found = list(met)
    return sum(found) / len(found)


# --- as text -------------------------------------------------------------------------------------

BINS, BAR = 16, 40  # of the histogram: rows, and characters of the longest bar


def render(found: Survey, *, head: str, num_outputs: int, input_size: tuple[int, int]) -> str:
    """The survey as text for a terminal."""
    height, width = input_size
    lines = [
        f"{found.size:,} combinations, {_examined(found)}: {found.distinct:,} distinct networks",
        f"with the head {head} for {num_outputs} outputs, on images of {height}x{width} (HxW)",
        *_refused_lines(found),
        "",
        f"{'':24}{'smallest':>12}{'median':>12}{'largest':>12}",
    ]
    for key in SHOWN:
        shown = METRICS[key]
        figures = "".join(f"{shown.show(value):>12}" for value in found.range(key))
        lines.append(f"{shown.label + ' (' + shown.unit.split(',')[0] + ')':24}{figures}")
    lines += ["", *_limit_lines(found), *histogram(found.values["profile.macs"])]
    return "\n".join(lines)


def _examined(found: Survey) -> str:
    return "all looked at" if found.complete else f"a random {found.examined:,} looked at"


def _refused_lines(found: Survey) -> list[str]:
    count, reason = found.refused
    return [f"{count:,} combinations do not go together, e.g. {reason}"] if count else []


def _limit_lines(found: Survey) -> list[str]:
    lines = []
    for limit in found.limits:
        shown = METRICS[limit.key]
        met = f"{limit.key} at most {shown.show(limit.most)} {_unit(shown)}".rstrip()
        if limit.share:
            lines.append(f"{met}: {_percent(limit.share)} of the networks")
        else:
            rule = "this limit cannot be met" if found.complete else "no network found meets it"
            lines.append(f"{met}: {rule}; the smallest has {shown.show(limit.smallest)}")
    if len(found.limits) > 1 and found.feasible:
        lines.append(f"all limits: {_percent(found.feasible)} of the networks")
    elif len(found.limits) > 1:
        rule = "cannot be met together" if found.complete else "no network found meets all of them"
        lines.append(f"all limits: {rule}")
    return [*lines, ""] if lines else []


def _unit(shown: Metric) -> str:
    """Of a figure in a sentence: "GMACs", "M", "MiB"."""
    return shown.label if shown.label.startswith("G") else shown.unit.split(",")[0]


def _percent(share: float) -> str:
    return "less than 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def histogram(macs: list[float]) -> list[str]:
    """Lines of text: how many networks lie in each interval of GMACs, equal in ratio."""
    shown = METRICS["profile.macs"]
    low, high = macs[0], macs[-1]
    if len(set(macs)) <= BINS:
        each = "  ".join(f"{shown.show(value)}" for value in sorted(set(macs)))
        return [f"{shown.label} of each: {each}"]
    step = math.log(high / low) / BINS
    counts = [0] * BINS
    for value in macs:
        counts[min(BINS - 1, int(math.log(value / low) / step))] += 1
    edges = [low * math.exp(step * place) for place in range(BINS + 1)]
    lines = [f"{shown.label:>17}  networks"]
    for place, networks in enumerate(counts):
        bar = "\N{FULL BLOCK}" * math.ceil(BAR * networks / max(counts))
        interval = f"{shown.show(edges[place])} to {shown.show(edges[place + 1])}"
        lines.append(f"{interval:>17}  {bar} {networks:,}")
    return lines
