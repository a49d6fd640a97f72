"""When each trial ran: a row per worker, so that idle time and stragglers are seen.

Records tell the machine of a trial and not the worker. So trials are put into rows of their
machine: each, by its start, into the first row that is free.
"""

import heapq
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..result import Result, count
from .figures import COLOURS, NEUTRAL, blank_figure, escape
from .frame import Run
from .search import label
from .tables import STATES

PAUSE = 60.0  # seconds; longer times in which nothing ran are cut out
MAX_BARS = 1000  # trials drawn: the last ones
MAX_OUTLINED = 200  # bars; outlines of more would hide their colours
MAX_ROWS = 64  # rows drawn: the first ones
MAX_LINES = 20  # marks of pauses
ROW_HEIGHT, AXIS_HEIGHT, MAX_HEIGHT = 26, 120, 900  # pixels
STATE_COLOURS = {"complete": COLOURS[0], "pruned": COLOURS[4], "failed": COLOURS[1]}
UNITS = (("seconds", 1.0, 180.0), ("minutes", 60.0, 10_800.0), ("hours", 3600.0, math.inf))


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """When trials ran.

    Args:
        bars: One row per trial, by start: `trial`, `name`, `seed`, `state`, `step` (the last one
            measured), `attempt`, `machine` and `row` (from 0), `start` and `end` (seconds since
            the first start, pauses taken out), `seconds` (that it ran).
        rows: (machine, row on that machine) of each row, in order.
        pauses: Place and length of each time over `PAUSE` when nothing ran, in seconds.
        undated: Trials without a start or an end that can be read.
    """

    bars: pd.DataFrame
    rows: list[tuple[int, int]]
    pauses: list[tuple[float, float]]
    undated: int

    @property
    def length(self) -> float:
        """Seconds from the first start to the last end, without pauses."""
        return float(self.bars["end"].max()) if len(self.bars) else 0.0

    @property
    def busy(self) -> float | None:
        """Share of the rows' time in which a trial ran; None where no time went by."""
        whole = self.length * len(self.rows)
        return float(self.bars["seconds"].sum()) / whole if whole else None


def timeline(run: Run) -> Timeline:
    """All trials that have ended, those that failed or were ended early too."""
    spans = [(result, span) for result in run.results if (span := _span(result))]
    spans.sort(key=lambda one: (*one[1], one[0].trial))
    pauses = _pauses([span for _, span in spans])
    hosts = list(dict.fromkeys(str(r.environment.get("host", "")) for r, _ in spans))
    machines = [hosts.index(str(r.environment.get("host", ""))) for r, _ in spans]
    own = packed([(m, *span) for m, (_, span) in zip(machines, spans, strict=True)])
    rows = sorted(set(zip(machines, own, strict=True)))
    places = {row: place for place, row in enumerate(rows)}
    labels = {a.name: a.name if run.study.search.is_grid else label(a) for a in run.arms}
    zero = spans[0][1][0] if spans else 0.0
    found, marks, gone, to_come = [], [], 0.0, list(reversed(pauses))
    for (result, (start, end)), machine, row in zip(spans, machines, own, strict=True):
        while to_come and to_come[-1][0] < start:
            at, length = to_come.pop()
            marks.append((at - zero - gone, length))
            gone += length
        step = result.history[-1].get("step") if result.history else None
        head = (result.trial, labels[result.arm], result.seed, result.state, step, result.attempt)
        times = (start - zero - gone, end - zero - gone, end - start)
        found.append((*head, machine, places[machine, row], *times))
    columns = ["trial", "name", "seed", "state", "step", "attempt", "machine", "row"]
    bars = pd.DataFrame(found, columns=[*columns, "start", "end", "seconds"])
    return Timeline(bars=bars, rows=rows, pauses=marks, undated=len(run.results) - len(spans))


def _span(result: Result) -> tuple[float, float] | None:
    """Start and end in seconds of the epoch; records of old have no end but a duration."""
    try:
        start = datetime.fromisoformat(result.started).timestamp()
        if result.ended:
            end = datetime.fromisoformat(result.ended).timestamp()
        else:
            end = start + result.seconds
    except (ValueError, TypeError):
        return None
    return (start, end) if math.isfinite(end) and end >= start else None


def packed(spans: list[tuple[int, float, float]]) -> list[int]:
    """A row for each (machine, start, end), by start: the first one of the machine that is free."""
    free: dict[int, list[int]] = {}  # machine -> rows
    taken: dict[int, list[tuple[float, int]]] = {}  # machine -> when which row is free again
    used: dict[int, int] = {}
    found = []
    for machine, start, end in spans:
        own, busy = free.setdefault(machine, []), taken.setdefault(machine, [])
        while busy and busy[0][0] <= start:
            heapq.heappush(own, heapq.heappop(busy)[1])
        if not own:
            heapq.heappush(own, used.get(machine, 0))
            used[machine] = used.get(machine, 0) + 1
        row = heapq.heappop(own)
        heapq.heappush(busy, (end, row))
        found.append(row)
    return found


def _pauses(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Start and length of each time over `PAUSE` in which nothing ran; spans are by start."""
    found, last = [], spans[0][1] if spans else 0.0
    for start, end in spans:
        if start - last > PAUSE:
            found.append((last, start - last))
        last = max(last, end)
    return found


def words(found: Timeline) -> str:
    """How busy the rows were, what was left out, and how rows were told."""
    if found.bars.empty:
        return ""
    parts = []
    if found.busy is not None:
        parts.append(
            f"{count(len(found.rows), 'row').capitalize()}, busy {100 * found.busy:.0f} % of "
            f"{duration(found.length)}."
        )
    if found.pauses:
        total = duration(sum(length for _, length in found.pauses))
        times = "once" if len(found.pauses) == 1 else f"{len(found.pauses)} times"
        parts.append(f"Nothing ran {times} for over a minute, {total} in all: cut out.")
    if found.undated:
        parts.append(f"{count(found.undated, 'trial')} without readable times left out.")
    return " ".join(parts)


def duration(seconds: float) -> str:
    """As in "42 s", "3.5 min" and "2.1 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def drawn(found: Timeline) -> pd.DataFrame:
    """The bars of the figure: at most `MAX_BARS`, the last ones, of the first `MAX_ROWS` rows."""
    return found.bars[found.bars["row"] < MAX_ROWS].tail(MAX_BARS)


def figure(run: Run, found: Timeline) -> go.Figure | None:
    """A bar for each trial, coloured by how it ended; None without any."""
    bars = drawn(found)
    if bars.empty:
        return None
    unit, scale = next((name, by) for name, by, most in UNITS if found.length <= most)
    blank = blank_figure(f"{unit.capitalize()} since the first start", "")
    rows = found.rows[:MAX_ROWS]
    height = min(MAX_HEIGHT, AXIS_HEIGHT + ROW_HEIGHT * len(rows))
    blank.update_layout(barmode="overlay", bargap=0.25, height=height, hovermode="closest")
    names = _row_names(found.rows)[: len(rows)]
    blank.update_yaxes(tickvals=list(range(len(rows))), ticktext=names, ticks="", showgrid=False)
    blank.update_yaxes(range=[len(rows) - 0.5, -0.5])
    noun = "" if run.study.search.is_grid else "network "
    for state, words_ in STATES.items():
        own = bars[bars["state"] == state]
        if own.empty:
            continue
        blank.add_trace(
            go.Bar(
                x=list(((own["end"] - own["start"]) / scale).round(4)),
                base=list((own["start"] / scale).round(4)),
                y=list(own["row"]),
                orientation="h",
                name=words_,
                marker={
                    "color": STATE_COLOURS[state],
                    "line": {"color": NEUTRAL, "width": 0.7 * (len(bars) <= MAX_OUTLINED)},
                },
                hovertext=[_hover(row, noun) for row in own.to_dict("records")],
                hoverinfo="text",
            )
        )
    first = float(bars["start"].min())
    for at, _ in [pause for pause in found.pauses if pause[0] >= first][-MAX_LINES:]:
        blank.add_vline(x=at / scale, line={"color": NEUTRAL, "width": 1, "dash": "dot"})
    return blank


def _row_names(rows: list[tuple[int, int]]) -> list[str]:
    """By number, not by the machine's name: reports are sent to others."""
    if len({machine for machine, _ in rows}) == 1:
        return [str(row + 1) for _, row in rows]
    return [f"{machine + 1}.{row + 1}" for machine, row in rows]


def _hover(row: dict[Any, Any], noun: str) -> str:
    state = STATES[row["state"]]
    if row["state"] == "pruned" and not pd.isna(row["step"]):
        state += f" at step {row['step']:.0f}"
    lines = [
        f"<b>{noun}{escape(row['name'])}</b>, seed {row['seed']}",
        f"trial {row['trial']}: {state}",
        f"ran {duration(row['seconds'])}",
    ]
    if row["attempt"] != 1:
        lines.append(f"attempt {row['attempt']}")
    return "<br>".join(lines)
