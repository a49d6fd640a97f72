"""How much faster is the closed-form cost than fvcore's traced count, per network?

    python benchmarks/cost.py

One thread. Each row: a network, the median time of `cost(...)` and of `hrnet(...)` with it, and
of fvcore's `FlopCountAnalysis` on the built module (the building of the module left out, in
fvcore's favour). "fresh" empties our caches before each call, which is what the first network of
a process pays; "in a space" is the mean over random networks of `spaces/hrnet_full.yaml`, caches
as they come. Both count the same multiply-adds, which is checked.
"""

import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from fvcore.nn import FlopCountAnalysis

from hrnet_search import arch, blueprint, build, cost, preset
from hrnet_search.study import load_space
from hrnet_search.survey import combinations

NETWORKS = (  # preset, task, head, outputs, input
    ("w18-small-v1", "classification", "cls", 1000, (224, 224)),
    ("w32", "pose", "v1", 17, (256, 192)),
    ("w48", "pose", "v1", 17, (256, 192)),
    ("w18", "segmentation", "v2", 19, (256, 512)),
)
SPACE = Path(__file__).parents[1] / "spaces" / "hrnet_full.yaml"
SAMPLE = 2000


def seconds(run: Callable[[], object], *, repeats: int, before: Callable[[], None]) -> float:
    """Median time of one call."""
    times = []
    for _ in range(repeats):
        before()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def empty_caches() -> None:
    for module in (arch, blueprint, sys.modules["hrnet_search.cost"]):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def traced(net: torch.nn.Module, image: torch.Tensor) -> int:
    """Convolution and linear multiply-adds by fvcore."""
    counts = FlopCountAnalysis(net, image).by_operator()
    return int(counts["conv"] + counts["linear"] + counts["addmm"])


def main() -> None:
    torch.set_num_threads(1)
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print(f"{'network':32}{'fvcore':>10}{'cost':>10}{'ratio':>9}{'fresh':>10}{'ratio':>9}")
    for network in NETWORKS:
        row(*network)
    in_a_space()


def row(name: str, task: str, head: str, outputs: int, size: tuple[int, int]) -> None:
    """Print the times of one network."""
    spec = preset(name, task=task)
    net = build(spec, head=head, num_outputs=outputs).eval()
    image = torch.zeros(1, 3, *size)

    def ours() -> int:
        return cost(spec, head=head, num_outputs=outputs, input_size=size).macs

    assert ours() == traced(net, image)
    theirs = seconds(lambda: traced(net, image), repeats=3, before=lambda: None)
    warm = seconds(ours, repeats=200, before=lambda: None)
    fresh = seconds(ours, repeats=20, before=empty_caches)
    label = f"{name} {head} {size[0]}x{size[1]}"
    print(
        f"{label:32}{theirs * 1e3:7.0f} ms{warm * 1e6:7.0f} us{theirs / warm:9,.0f}"
        f"{fresh * 1e6:7.0f} us{theirs / fresh:9,.0f}"
    )


def in_a_space() -> None:
    """Mean time of random networks of a space, from knob values to cost, and fvcore on some."""
    space = load_space(SPACE)
    setting = {"head": "v1", "num_outputs": 17, "input_size": (256, 192)}
    sample = combinations(space, seed=0, count=SAMPLE)
    empty_caches()
    start = time.perf_counter()
    specs = [space.arch(params) for params in sample]
    made = time.perf_counter()
    macs = [cost(spec, **setting).macs for spec in specs]
    end = time.perf_counter()
    theirs = []
    for spec, expected in list(zip(specs, macs, strict=True))[:10]:
        net = build(spec, head="v1", num_outputs=17).eval()
        image = torch.zeros(1, 3, 256, 192)
        begin = time.perf_counter()
        assert traced(net, image) == expected
        theirs.append(time.perf_counter() - begin)
    ours = (end - made) / SAMPLE
    print(
        f"\n{SAMPLE} random networks of {SPACE.name}: cost {ours * 1e6:.0f} us on average "
        f"(with hrnet(...): {(end - start) / SAMPLE * 1e6:.0f} us); fvcore on 10 of them "
        f"{statistics.fmean(theirs) * 1e3:.0f} ms; ratio {statistics.fmean(theirs) / ours:,.0f}"
    )


if __name__ == "__main__":
    main()
