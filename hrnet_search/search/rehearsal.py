"""What `run --dry-run` says: the trials that a study would run, without running or writing any."""

import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..result import LATENCY, Result, count, metric, read_results
from ..rivals import RIVAL_KNOB
from ..space import Value
from ..study import Study
from .ledger import check_same
from .proposals import Proposals

SHOWN = 100  # trials of a grid
FIRST = 10  # proposals of a sampler


def rehearse(study: Study, folder: Path, *, fresh: bool) -> str:
    """The trials that are missing in a study's folder, in order, as text.

    Args:
        study: The study.
        folder: `runs/<study>`, which need not be there.
        fresh: As if nothing were there.

    Raises:
        InputError: What is there is another study.
    """
    if not fresh:
        check_same(folder / "study.yaml", study)
    ended = [] if fresh else list(read_results(folder / "results.jsonl").values())
    lines = _grid(study, ended) if study.search.is_grid else _search(study, ended)
    return "\n".join([*lines, "Nothing was run."])


def _grid(study: Study, ended: list[Result]) -> list[str]:
    done = {(result.key, result.seed) for result in ended}
    arms = [(params, study.key(params)) for params in study.arms()]
    planned = (
        (params, seed)
        for seed in range(study.seeds)
        for params, key in arms
        if (key, seed) not in done
    )
    shown = list(itertools.islice(planned, SHOWN))
    more = sum(1 for _ in planned)  # counted, not kept: there may be millions
    lines = [f"{study.name}: {len(shown) + more} of {study.seeds * len(arms)} trials would be run"]
    for params, seed in shown:
        costs = {} if _is_rival(params) else study.costs(params)
        lines.append(f"  {study.arm(params)}, seed {seed}{_costs(study, costs)}")
    further = range(study.seeds, study.most_seeds)
    if most := sum((key, seed) not in done for seed in further for _, key in arms):
        lines.append(f"  (then up to {count(most, 'trial')} for what is undecided)")
    return lines + _more(more, "trial")


def _search(study: Study, ended: list[Result]) -> list[str]:
    wanted = study.search.networks or 0
    known = {result.proposal for result in ended}
    left = max(0, wanted - len(known))
    line = (
        f"{study.name}: {study.search.sampler} would propose up to {left} of "
        f"{count(wanted, 'network')}, {count(study.seeds, 'seed')} each"
    )
    if known:
        begun = f"{count(_seeds_left(study, ended), 'trial')} of networks so far would be run"
        return [f"{line}; {begun}, and what comes next depends on them"]
    with tempfile.TemporaryDirectory() as scratch:
        # What is measured is not measured here: a limit on it counts as met.
        proposals = Proposals(Path(scratch) / "study.db", study, lambda _: {"latency": 0.0})
        # Up to where there is none: asked again, it would look through the space again.
        found = list(itertools.islice(iter(proposals.next, None), min(wanted, FIRST)))
    lines = [line, *proposals.dropped, "The first, before anything is known of them:"]
    lines += [f"  {study.arm(p.params)}{_costs(study, study.costs(p.params))}" for p in found]
    if LATENCY in study.space.limits:
        lines.append(f"  ({LATENCY} is not measured here)")
    if proposals.ended:
        return [*lines, f"Then no more: {proposals.ended}"]
    return lines + _more(wanted - FIRST, "network")


def _seeds_left(study: Study, ended: list[Result]) -> int:
    """Trials of networks that were proposed: not those of which one was ended early."""
    states: dict[int | None, list[str]] = {}
    for result in ended:
        states.setdefault(result.proposal, []).append(result.state)
    return sum(max(0, study.seeds - len(s)) for s in states.values() if "pruned" not in s)


def _is_rival(params: Mapping[str, Value]) -> bool:
    return RIVAL_KNOB in params


def _costs(study: Study, costs: dict[str, float]) -> str:
    """The cost that the study compares by, and that which its arms are to meet, if known by now."""
    shown = [metric(key) for key in dict.fromkeys([study.cost, *study.match]) if key in costs]
    parts = ", ".join(f"{one.show(costs[one.key])} {one.title}" for one in shown)
    return f": {parts}" if parts else ""


def _more(number: int, noun: str) -> list[str]:
    return [f"  ... and {count(number, noun)} more"] if number > 0 else []
