"""Which sampler finds most for its training? Searches of a table of networks trained beforehand.

    python benchmarks/samplers.py [pose] [--repetitions 200] [--networks 30]

Every sampler searches the same table so many times, as long as so many networks of its mean take
to train. The peers are random search with the same training (each repetition is paired with its
own) and the default network scaled: in width, and in width, blocks and modules. Hypervolume is a
share of that of the whole table's front. Intervals are of 95 %: of shares Wilson's, of medians
bootstrapped.
"""

import argparse

import numpy as np
import pandas as pd
from rich.progress import track
from scipy import stats

from hrnet_search.benchmark import load, names
from hrnet_search.search.simulation import Simulation, Trace
from hrnet_search.strategy import Search

RANDOM = "random"
SAMPLERS = (RANDOM, "qmc", "tpe", "nsga2", "local", "evolution", "gp")
SCALINGS = {"width": ["width"], "width and depth": ["width", "num_blocks", "num_modules"]}
LEVEL = 0.95


def share(won: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> str:
    """How many of the repetitions, in percent."""
    found = stats.binomtest(int(won.sum()), len(won))
    low, high = found.proportion_ci(LEVEL, method="wilson")
    return f"{100 * won.mean():.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def median(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", *, scale: float = 1) -> str:
    """The median; infinite values are above all others."""
    found = stats.bootstrap(
        (values,), np.median, confidence_level=LEVEL, method="percentile", rng=0
    ).confidence_interval
    low, mid, high = (scale * value for value in (found.low, np.median(values), found.high))
    return f"{mid:.3g} [{low:.3g}, {high:.3g}]"


def rows(
    simulation: Simulation, samplers: list[str], *, repetitions: int, networks: int
) -> pd.DataFrame:
    """A row for each sampler and scaling."""
    seconds = simulation.seconds(networks)
    traces: dict[str, list[Trace]] = {}
    for sampler in samplers:
        settings = Search.model_validate({"sampler": sampler, "networks": networks * 100})
        traces[sampler] = [
            simulation.search(settings, repetition=number, seconds=seconds)
            for number in track(range(repetitions), sampler, transient=True)
        ]
    for name, knobs in SCALINGS.items():
        found = [simulation.scaling(knobs, repetition=n) for n in range(repetitions)]
        traces[f"scaled in {name}"] = found
    ends = {name: np.array([t.at(seconds) for t in found]) for name, found in traces.items()}
    table = []
    for name, found in traces.items():
        pairs = zip(found, traces[RANDOM], strict=True)
        times = np.array([mine.time_to(other.at(seconds)) / seconds for mine, other in pairs])
        table.append(
            {
                "search": name,
                "networks": median(np.array([float(sum(t.seconds <= seconds)) for t in found])),
                "hypervolume (%)": median(ends[name], scale=100),
                "above random": share(ends[name] > ends[RANDOM]) if name != RANDOM else "",
                "training to random's end": median(np.minimum(times, 9)) if name != RANDOM else "",
            }
            | {
                f"above {scaled}": share(ends[name] > ends[f"scaled in {scaled}"])
                if not name.startswith("scaled")
                else ""
                for scaled in SCALINGS
            }
        )
    return pd.DataFrame(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("table", nargs="?", default="pose", choices=names())
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    options = parser.parse_args()
    simulation = Simulation(load(options.table))
    seconds = simulation.seconds(options.networks)
    print(
        f"{options.table}: {options.repetitions} repetitions of {seconds:.0f} s of training each, "
        f"that of {options.networks} networks"
    )
    found = rows(
        simulation, options.samplers, repetitions=options.repetitions, networks=options.networks
    )
    print(found.to_markdown(index=False))


if __name__ == "__main__":
    main()
