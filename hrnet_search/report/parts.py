"""Where the multiply-adds of each network on the page arise: stem, branches, fusion, head.

In closed form from its spec. What a detector has beyond its maps is the rest of the recorded sum.
"""

import math

import pandas as pd
import plotly.graph_objects as go

from ..arch import ArchSpec
from ..cost import Cost, Part, count
from ..result import METRICS
from .figures import COLOURS, NEUTRAL, blank_figure, escape, shortened
from .frame import Arm, Run
from .networks import Networks
from .tables import Column, TextTable, spread

MACS = "profile.macs"
MAX_ROWS = 40  # networks of a figure and its table
ROW_HEIGHT, AXIS_HEIGHT = 30, 80  # pixels: of each bar, and of the axis
STEM, STAGE1, FUSION = "stem", "stage 1", "fusion and transitions"
HEAD, NECK, DETECTOR, WHOLE = "head", "neck", "detector", "whole network"
BROWN, VIOLET, OLIVE = "#A0664E", "#7B6BD6", "#8F9E57"  # beside those of `COLOURS`, all in use
COLOUR_OF = {
    STEM: NEUTRAL,
    STAGE1: COLOURS[5],
    FUSION: COLOURS[1],
    HEAD: BROWN,
    NECK: BROWN,
    DETECTOR: VIOLET,
    WHOLE: OLIVE,
}
BRANCH_COLOURS = (COLOURS[0], COLOURS[2], COLOURS[3], COLOURS[4])


def parts_of(run: Run, arm: Arm) -> dict[str, int]:
    """Part -> its multiply-adds, from the image to the output; none where they are not known.

    Those of a rival, which has no closed form, are one part.
    """
    recorded = spread(arm, MACS)[0]
    known = recorded is not None and math.isfinite(recorded)
    total = round(recorded) if known and recorded is not None else 0
    if not isinstance(arm.network, ArchSpec):
        return {WHOLE: total} if known else {}
    own = run.study.parts[arm.variant]
    counted = count(
        arm.network,
        head=own.task.head,
        num_outputs=own.head_outputs,
        input_size=own.input_size,
    )
    found = grouped(counted, NECK if own.detector else HEAD)
    if own.detector and total > counted.macs:
        found[DETECTOR] = total - counted.macs
    return found


def grouped(counted: Cost, head: str = HEAD) -> dict[str, int]:
    """Part -> its multiply-adds, those without any left out.

    A branch has its residual units; what leads from one to another, and what joins their maps,
    is fusion, also between stages.

    Args:
        counted: Of the whole network.
        head: What its head is called.
    """
    branches = sorted({part.branch for part in counted.parts if part.branch is not None})
    order = [STEM, STAGE1, *map(branch_name, branches), FUSION, head]
    found = dict.fromkeys(order, 0)
    for part in counted.parts:
        found[_name(part, head)] += part.tally.macs
    return {name: macs for name, macs in found.items() if macs}


def branch_name(branch: int) -> str:
    """By its resolution, as in "branch 1/4"."""
    return f"branch 1/{4 * 2**branch}"


def _name(part: Part, head: str) -> str:
    own = {"stem": STEM, "stage1": STAGE1, "head": head}
    if part.stage in own:
        return own[part.stage]
    if part.branch is None or part.edge or part.joins or part.stage.startswith("transition"):
        return FUSION
    return branch_name(part.branch)


def parts_data(run: Run, shown: Networks) -> pd.DataFrame:
    """Name, part and multiply-adds of the first `MAX_ROWS` networks drawn on the page."""
    arms = {arm.name: arm for arm in run.arms}
    rows = [
        (one.name, name, macs)
        for one in shown.shown[:MAX_ROWS]
        for name, macs in parts_of(run, arms[one.arm]).items()
    ]
    return pd.DataFrame(rows, columns=["network", "part", "macs"])


def _ordered(data: pd.DataFrame) -> list[str]:
    """The parts that any network has, from the image to the output."""
    branches = {name for name in data["part"] if name not in COLOUR_OF}
    deep = sorted(branches, key=lambda name: int(name.rpartition("/")[2]))
    order = [STEM, STAGE1, *deep, FUSION, HEAD, NECK, DETECTOR, WHOLE]
    return [name for name in order if name in set(data["part"])]


def colours(data: pd.DataFrame) -> dict[str, str]:
    """Part -> its colour, in order. The page has them as a legend, which wraps where Plotly's
    would hide half of it on a narrow screen."""
    names = _ordered(data)
    deep = [name for name in names if name not in COLOUR_OF]
    own = {n: BRANCH_COLOURS[i % len(BRANCH_COLOURS)] for i, n in enumerate(deep)}
    return {name: (COLOUR_OF | own)[name] for name in names}


def figure(data: pd.DataFrame) -> go.Figure | None:
    """A bar for each network; None without any. `data` is from `parts_data`."""
    if data.empty:
        return None
    macs = METRICS[MACS]
    names = list(dict.fromkeys(data["network"]))
    totals = data.groupby("network")["macs"].sum()
    drawn = blank_figure(macs.title, "", named=False)
    rows = list(range(len(names)))
    drawn.update_layout(barmode="stack", height=AXIS_HEIGHT + ROW_HEIGHT * len(names), bargap=0.3)
    drawn.update_xaxes(exponentformat="none", rangemode="tozero")
    ticks = [escape(shortened(name)) for name in names]
    drawn.update_yaxes(tickvals=rows, ticktext=ticks, ticks="", showgrid=False)
    drawn.update_yaxes(range=[len(names) - 0.5, -0.5])
    for name, colour in colours(data).items():
        own = data[data["part"] == name].set_index("network")["macs"]
        there = [(row, network) for row, network in enumerate(names) if network in own.index]
        drawn.add_trace(
            go.Bar(
                x=[float(own[network]) * macs.scale for _, network in there],
                y=[row for row, _ in there],
                orientation="h",
                name=name,
                marker={"color": colour},
                hovertext=[
                    f"<b>{escape(network)}</b><br>{name}: {macs.show(own[network])} "
                    f"{macs.label}, {100 * own[network] / totals[network]:.1f} %"
                    for _, network in there
                ],
                hoverinfo="text",
            )
        )
    return drawn


def table(run: Run, data: pd.DataFrame) -> TextTable:
    """The same in numbers, with each part's share."""
    macs, names = METRICS[MACS], _ordered(data)
    first = "Arm" if run.study.search.is_grid else "Network"
    columns = [Column(first, "arm"), Column(macs.label, "number", macs.unit)]
    columns += [Column(name[0].upper() + name[1:], "number", "%") for name in names]
    rows = []
    for network, part in data.groupby("network", sort=False):
        own, total = part.set_index("part")["macs"], part["macs"].sum()
        shares = [f"{100 * own[name] / total:.1f}" if name in own.index else "" for name in names]
        rows.append([str(network), macs.show(total), *shares])
    return TextTable(columns, rows)
