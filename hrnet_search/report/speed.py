"""Whether multiply-adds tell which network is faster: their order against that of latencies.

Records hold one latency per network, the median of its passes, and no spread of it. So two
latencies are told apart by their ratio alone, `LEAST_RATIO`.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..ranks import kendall
from ..result import LATENCY, METRICS, count
from .frame import Run
from .search import label
from .tables import Column, TextTable, spread

MACS = "profile.macs"
# The same network, measured 12 times while trainings ran beside it: 127 to 158 ms.
LEAST_RATIO = 1.25
MAX_NETWORKS = 2000  # whose pairs are counted: some two million
MAX_PAIRS = 10  # that are listed
MAX_UNFOLDED = 5  # rows; a longer list is folded up


@dataclass(frozen=True, kw_only=True)
class Orders:
    """How the two orders agree.

    Args:
        networks: Those with both numbers, of which pairs are counted.
        of: How many there are; more than `networks` if some were left out.
        agree: Pairs in the same order by multiply-adds and by latency.
        equal: Pairs that are equal in either.
        oppose: Pairs in opposite orders.
        beyond: Those of them whose latencies are at least `LEAST_RATIO` apart.
        tau: Kendall's tau-b; None with fewer than two networks, or if all are equal in either.
        pairs: The first `MAX_PAIRS` of `beyond`, largest ratio of latencies first: `fewer` and
            `more` (names), `macs.fewer`, `macs.more`, `latency.fewer`, `latency.more` (base
            units), `ratio` (of the latencies).
    """

    networks: int
    of: int
    agree: int
    equal: int
    oppose: int
    beyond: int
    tau: float | None
    pairs: pd.DataFrame


def orders(run: Run) -> Orders:
    """Compare them over all networks with both, whatever became of their trainings.

    Of more than `MAX_NETWORKS` so many are drawn at random, the same ones each time.
    """
    data = costs_data(run)
    some = data.sample(MAX_NETWORKS, random_state=0) if len(data) > MAX_NETWORKS else data
    some = some.sort_values(["macs", "latency"], kind="stable")
    names, macs, latency = (some[name].to_numpy() for name in ("name", "macs", "latency"))
    first, second = np.triu_indices(len(some), 1)  # so the first has no more multiply-adds
    differ = macs[first] < macs[second]
    slower = differ & (latency[first] > latency[second])
    beyond = np.flatnonzero(slower & (latency[first] >= LEAST_RATIO * latency[second]))
    ratios = latency[first[beyond]] / latency[second[beyond]]
    listed = beyond[np.argsort(-ratios, kind="stable")[:MAX_PAIRS]]
    agree = int(np.sum(differ & (latency[first] < latency[second])))
    oppose = int(np.sum(slower))
    fewer, more = first[listed], second[listed]
    pairs = {
        "fewer": names[fewer],
        "more": names[more],
        "macs.fewer": macs[fewer],
        "macs.more": macs[more],
        "latency.fewer": latency[fewer],
        "latency.more": latency[more],
        "ratio": latency[fewer] / latency[more],
    }
    return Orders(
        networks=len(some),
        of=len(data),
        agree=agree,
        equal=len(first) - agree - oppose,
        oppose=oppose,
        beyond=len(beyond),
        tau=kendall(macs, latency) if len(some) > 1 else None,
        pairs=pd.DataFrame(pairs),
    )


def costs_data(run: Run) -> pd.DataFrame:
    """Name, multiply-adds and latency of each network that has both, in base units."""
    rows = []
    for arm in run.arms:
        macs, latency = (spread(arm, key)[0] for key in (MACS, LATENCY))
        if macs and latency and math.isfinite(macs) and math.isfinite(latency):
            rows.append((arm.name if run.study.search.is_grid else label(arm), macs, latency))
    frame = pd.DataFrame(rows, columns=["name", "macs", "latency"])
    return frame.astype({"macs": float, "latency": float})


def words(found: Orders) -> str:
    """How many pairs agree, and how far; empty with fewer than two networks."""
    if found.networks < 2:
        return ""
    drawn = (
        f" The {found.networks} are drawn at random from {found.of}."
        if found.of > found.networks
        else ""
    )
    tau = "there is none" if found.tau is None else f"{found.tau:.2f}".replace("-", "\u2212")
    total = found.agree + found.equal + found.oppose
    equal = f", {found.equal} equal in one of them" if found.equal else ""
    told = (
        f", {found.beyond} of them by at least {LEAST_RATIO} times in latency"
        if found.oppose
        else ""
    )
    return (
        f"Of {count(total, 'pair')} of networks {found.agree} stand in the same order by "
        f"multiply-adds and by measured latency{equal}, {found.oppose} in opposite "
        f"ones{told}. Kendall's tau-b: {tau} (n = {found.networks} networks).{drawn}"
    )


def table(run: Run, found: Orders) -> TextTable:
    """The largest disagreements: the network with fewer multiply-adds is the slower one."""
    macs, latency = METRICS[MACS], METRICS[LATENCY]
    noun = "Arm" if run.study.search.is_grid else "Network"
    columns = [
        Column(f"{noun} with fewer", "arm", "and slower"),
        Column(f"{noun} with more", "arm", "and faster"),
        Column(macs.label, "number", "fewer; more"),
        Column(latency.label, "number", "ms: slower; faster"),
        Column("Slower by", "number", "times"),
    ]
    rows = [
        [
            row["fewer"],
            row["more"],
            f"{macs.show(row['macs.fewer'])}\n{macs.show(row['macs.more'])}",
            f"{latency.show(row['latency.fewer'])}\n{latency.show(row['latency.more'])}",
            f"{row['ratio']:.2f}",
        ]
        for row in found.pairs.to_dict("records")
    ]
    return TextTable(columns, rows)
