"""Networks drawn at random over all options."""

import random
from typing import Any, NamedTuple

from hrnet_search.arch import (
    DOWNSAMPLE_MODES,
    EDGE_SETS,
    FUSE_OPERATORS,
    PROJECTIONS,
    TASK_DEFAULTS,
    UPSAMPLE_MODES,
    ArchSpec,
    hrnet,
)
from hrnet_search.blueprint import HEADS


class Drawn(NamedTuple):
    """A small random network over all options of the package."""

    arguments: dict[str, Any]  # of hrnet
    head: str
    num_outputs: int
    input_size: tuple[int, int]

    @property
    def spec(self) -> ArchSpec:
        return hrnet(**self.arguments)


def draw_network(rng: random.Random) -> Drawn:
    """Every option of `hrnet`, every head, even and odd image sizes; 2 to 5 stages, 1 to 6
    branches, widths of 2 to 48, and settings that cannot matter as well as those that do.
    """
    head = rng.choice(list(HEADS))
    count = rng.randint(1, 4)
    choices = (1, 2, 3, 4) if head == "cls" else (1, 2, 3, 4, 5, 6)  # it widens with each branch
    branches = sorted(rng.choices(choices, (3, 6, 6, 5, 1, 1)[: len(choices)], k=count))
    unit = rng.choice(("basic", "basic", "bottleneck"))
    widths = (4, 8, 12) if unit == "bottleneck" else tuple(range(2, 13))
    modules = rng.choices((1, 2, 3), (7, 3, 1), k=count)

    def per_branch(choices: tuple[int, ...], number: int) -> Any:
        if rng.random() < 0.5:
            return rng.choice(choices)
        return [rng.choice(choices) for _ in range(number)]

    def edges(number: int) -> str:
        pairs = [f"{j}>{i}" for j in range(number) for i in range(number) if i != j]
        if pairs and rng.random() < 0.4:
            return " ".join(rng.sample(pairs, rng.randint(1, min(4, len(pairs)))))
        return rng.choice(EDGE_SETS)

    arguments: dict[str, Any] = {
        "task": rng.choice(list(TASK_DEFAULTS)),
        "num_stages": count + 1,
        "num_branches": branches,
        "num_modules": modules,
        "width": [per_branch(widths, number) for number in branches],
        "width_ratios": rng.choice([(1, 1, 1, 1, 1, 1), (1, 2, 2, 3, 3, 4), (1, 2, 3, 1, 2, 1)]),
        "num_blocks": [per_branch((0, 0, 1, 1, 2), number) for number in branches],
        "unit": unit,
        "stage1_blocks": rng.randint(1, 2),
        "stage1_width": rng.randint(1, 6),
        "stem_width": rng.randint(2, 12),
        **{name: rng.random() < 0.75 for name in ("within", "across", "final")},
        "edges": [
            [edges(number) for _ in range(m)] if rng.random() < 0.5 else edges(number)
            for number, m in zip(branches, modules, strict=True)
        ],
        "fuse": rng.choice(FUSE_OPERATORS),
        "upsample": rng.choice((None, *UPSAMPLE_MODES)),
        "projection": rng.choice(PROJECTIONS),
        "downsample": rng.choice(DOWNSAMPLE_MODES),
        "align_corners": rng.choice((None, False, True)),
        # A pyramid of a lower map takes larger images than these.
        "output_branch": 0 if head in ("v1p", "v1hp") else rng.randint(0, branches[-1] - 1),
        "output_bias": rng.choice((True, False)),
    }
    sizes = [(64, 96), (97, 131), (64, 64), (95, 66)] if branches[-1] < 6 else [(128, 161)]
    return Drawn(arguments, head, rng.randint(1, 7), rng.choice(sizes))
