"""Which sampler finds most for its training? Searches of a table of networks trained beforehand.

    python benchmarks/samplers.py [pose] [--repetitions 200] [--networks 30]

Every sampler searches the same table so many times, as long as so many networks of its mean take
to train. The peers are random search with the same training (each repetition is paired with its
own) and the default network scaled: in width, and in width, blocks and modules. Hypervolume is a
share of that of the whole table's front, judged by trainings that the search has not seen.

How long a sampler takes to what random search ends with is a share of the training after which
random search had it; searches go on to twice the training for that. Intervals are of 95 % over the
repetitions: of shares Wilson's, ties left out, of medians bootstrapped.
"""

import argparse
import typing
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import track
from scipy import stats

from hrnet_search.benchmark import load, names
from hrnet_search.search.simulation import Simulation, Trace
from hrnet_search.strategy import Sampler

Array = npt.NDArray[np.float64]

RANDOM: Sampler = "random"
SAMPLERS = [sampler for sampler in typing.get_args(Sampler) if sampler not in ("grid", "gp")]
SCALINGS = {"width": ["width"], "width and depth": ["width", "num_blocks", "num_modules"]}
LEVEL = 0.95
BEYOND = 1e9
HORIZON = 2  # times the training, for whoever is slower than random search


def share(mine: Array, other: Array) -> str:
    """In how many repetitions, in percent, mine is more; of those in which they differ."""
    differ = mine != other
    if not differ.any():
        return "the same"
    found = stats.binomtest(int((mine > other).sum()), int(differ.sum()))
    low, high = found.proportion_ci(LEVEL, method="wilson")
    tied = f", {100 * (1 - differ.mean()):.0f} % tied" if not differ.all() else ""
    return f"{100 * found.statistic:.0f} % [{100 * low:.0f}, {100 * high:.0f}]{tied}"


def median(values: Array) -> str:
    """The median, of which an infinite value is above `HORIZON`."""
    given = np.minimum(values, BEYOND)  # of infinite ones no interval can be computed
    found = stats.bootstrap(
        (given,), np.median, confidence_level=LEVEL, method="percentile", rng=0
    ).confidence_interval

    def shown(value: float) -> str:
        return f"{value:.3g}" if value < BEYOND / 2 else f"> {HORIZON}"

    return f"{shown(float(np.median(given)))} [{shown(found.low)}, {shown(found.high)}]"


def search_all(
    simulation: Simulation, samplers: Sequence[Sampler], *, repetitions: int, seconds: float
) -> dict[str, list[Trace]]:
    """The traces of each sampler, and of plain scaling, by repetition."""
    traces = {}
    for sampler in dict.fromkeys([RANDOM, *samplers]):
        traces[sampler] = [
            simulation.search(sampler, repetition=number, seconds=HORIZON * seconds)
            for number in track(range(repetitions), sampler, transient=True)
        ]
    for name, knobs in SCALINGS.items():
        found = [simulation.scaling(knobs, repetition=number) for number in range(repetitions)]
        traces[f"scaled in {name}"] = found
    return traces


def table(traces: dict[str, list[Trace]], *, seconds: float) -> pd.DataFrame:
    """A row for each sampler and scaling."""
    ends = {name: np.array([t.at(seconds) for t in found]) for name, found in traces.items()}
    halves = {name: np.array([t.at(seconds / 2) for t in found]) for name, found in traces.items()}
    rows = []
    for name, found in traces.items():
        trained = np.array([float(np.sum(trace.seconds <= seconds)) for trace in found])
        row = {
            "search": name,
            "networks": f"{np.median(trained):.0f}",
            "hypervolume (%)": median(100 * ends[name]),
            "after half (%)": median(100 * halves[name]),
        }
        if name != RANDOM:
            row["above random"] = share(ends[name], ends[RANDOM])
        if not name.startswith("scaled") and name != RANDOM:
            goals = ends[RANDOM]
            pairs = zip(found, traces[RANDOM], goals, strict=True)
            times = np.array(
                [mine.time_to(goal) / other.time_to(goal) for mine, other, goal in pairs]
            )
            row["training to random's end"] = median(times)
        for scaled in SCALINGS:
            if not name.startswith("scaled"):
                row[f"above scaling {scaled}"] = share(ends[name], ends[f"scaled in {scaled}"])
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("table", nargs="?", default="pose", choices=names())
    parser.add_argument("--repetitions", type=int, default=200, help="at least 2")
    parser.add_argument("--networks", type=int, default=30)
    every = [*SAMPLERS, "gp"]  # slow: a third of a second for each proposal
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, choices=every)
    options = parser.parse_args()
    if options.repetitions < 2 or options.networks < 1:
        parser.error("needs at least 2 repetitions of at least 1 network")
    simulation = Simulation(load(options.table))
    seconds = simulation.seconds(options.networks)
    traces = search_all(
        simulation, options.samplers, repetitions=options.repetitions, seconds=seconds
    )
    print(
        f"{options.table}: {options.repetitions} repetitions of {seconds:.0f} s of training each, "
        f"that of {options.networks} networks\n"
    )
    print(table(traces, seconds=seconds).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
