"""The paper's cost columns beside ours.

`cost_table` computes one table as plain data; `markdown`, `csv_text`, `html_page` and `text` word
several. HRNets are counted in closed form; torch is imported for detectors and networks of others
alone, which are built without memory, on the meta device.
"""

import csv
import functools
import html
import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, NamedTuple

from .arch import hrnet
from .cost import FLOAT_BYTES, Cost, cost
from .errors import InputError, nearest_name
from .frameworks import DetectorSpec
from .paper.costs import (
    COSTS,
    UNITS,
    Baseline,
    CostRow,
    Counting,
    Detector,
    HRNet,
    Size,
    Training,
)
from .presets import PRESETS

if TYPE_CHECKING:
    from torch import nn

    from .detectors import Pyramid

GIB = 2**30
TOLERANCE = 0.005
VERDICTS = ("", "ok", "rounding", "differs")  # from none to worst
COLUMNS = {"params": "#Params", "gflops": "GFLOPs"}
LEGEND = (
    "GFLOPs are multiply-adds of convolutions and linear layers / 2^30, unless a note has another "
    "unit. Verdict: ok within 0.5 % "
    "of the printed figure; rounding if ours, rounded or cut off after the printed digits, is the "
    "printed figure; differs otherwise, with what is known of the reason."
)
NOTHING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
PROSE = 100  # columns of text in a terminal


class Cell(NamedTuple):
    """One figure.

    Args:
        printed: As it stands in the paper, "" where it does not.
        ours: In the same unit, or None.
        difference: Of ours to the printed figure, as a fraction of that, or None.
        verdict: One of `VERDICTS`: "ok" within 0.5 %; else "rounding" if ours, rounded or cut off
            after the printed digits, is the printed figure; else "differs". "" without both.
    """

    printed: str
    ours: float | None
    difference: float | None
    verdict: str


@dataclass(frozen=True)
class CostTableRow:
    """One network.

    Args:
        network: Method and backbone.
        input_size: (H, W) in pixels, for which GFLOPs are, or None.
        params: #Params in the row's unit.
        gflops: Multiply-adds of convolutions and linear layers in the row's unit.
        memory: GiB of a training step on one GPU, never with a verdict, or None.
        verdict: The worse of those of #Params and GFLOPs.
        notes: What is known of the row; of each figure that differs, the reason.
        units: Of #Params and of GFLOPs, keys of `paper.costs.UNITS`.
    """

    network: str
    input_size: Size | None
    params: Cell
    gflops: Cell
    memory: Cell | None
    verdict: str
    notes: tuple[str, ...]
    units: tuple[str, str]


@dataclass(frozen=True)
class CostTable:
    """One table.

    Args:
        name: Its key in `COSTS`.
        title: Where it stands and what it shows.
        rows: In the printed order.
        remark: What holds for all rows, may be empty.
    """

    name: str
    title: str
    rows: tuple[CostTableRow, ...]
    remark: str


class Deviation(NamedTuple):
    """A printed figure that ours misses, wherever it is printed.

    Args:
        tables: Keys of `COSTS`.
        network: As the first of them has it.
        input_size: (H, W) in pixels.
        column: "params" or "gflops".
        cell: The figures.
        reason: What is known.
    """

    tables: tuple[str, ...]
    network: str
    input_size: Size | None
    column: str
    cell: Cell
    reason: str


def cost_table(name: str, on_row: Callable[[], None] = lambda: None) -> CostTable:
    """The cost columns of a table, printed and ours.

    Args:
        name: A key of `paper.costs.COSTS`, such as "1", "zoo" or "cvpr-fig6".
        on_row: Is called after each row: those of networks of others and detectors take time.

    Raises:
        InputError: There is no such table.
    """
    if name not in COSTS:
        rule = f"must be one of {', '.join(COSTS)}"
        raise InputError(rule, key="table", value=name, nearest=nearest_name(name, COSTS))
    printed = COSTS[name]
    rows = []
    for row in printed.rows:
        rows.append(_row(row))
        on_row()
    return CostTable(name, printed.title, tuple(rows), printed.remark)


def deviations(tables: Iterable[CostTable]) -> list[Deviation]:
    """What differs in the tables, each figure once though several print it."""
    found: dict[tuple[object, ...], Deviation] = {}
    for table in tables:
        for row, printed in zip(table.rows, COSTS[table.name].rows, strict=True):
            for column in COLUMNS:
                cell: Cell = getattr(row, column)
                if cell.verdict != "differs":
                    continue
                key = (row.input_size, column, cell)
                before = found[key].tables if key in found else ()
                reason = printed.reasons.get(column, "")
                found[key] = Deviation(
                    (*before, table.name), row.network, row.input_size, column, cell, reason
                )
    return list(found.values())


# --- figures ------------------------------------------------------------------------------------


def _row(printed: CostRow) -> CostTableRow:
    params, gflops = _ours(printed)
    cells = compared(printed.params, params), compared(printed.gflops, gflops)
    worst = max((cell.verdict for cell in cells), key=VERDICTS.index)
    units = printed.params_unit, printed.gflops_unit
    memory, notes = _memory(printed), _notes(printed, cells)
    return CostTableRow(printed.network, printed.input_size, *cells, memory, worst, notes, units)


def _notes(printed: CostRow, cells: tuple[Cell, Cell]) -> tuple[str, ...]:
    """The row's note, then each reason with the figures that differ and that it is for."""
    notes = [printed.note] if printed.note else []
    verdicts = {name: cell.verdict for name, cell in zip(COLUMNS, cells, strict=True)}
    reasons = {n: why for n, why in printed.reasons.items() if verdicts[n] == "differs"}
    for reason in dict.fromkeys(reasons.values()):
        figures = [COLUMNS[name] for name, other in reasons.items() if other == reason]
        notes.append(f"{', '.join(figures)}: {reason}")
    return tuple(notes)


def compared(printed: str, ours: float | None) -> Cell:
    """A printed figure and ours, with the verdict of `Cell`."""
    if not printed or ours is None:
        return Cell(printed, ours, None, "")
    difference = ours / float(printed) - 1
    if abs(difference) <= TOLERANCE:
        return Cell(printed, ours, difference, "ok")
    return Cell(printed, ours, difference, "rounding" if _has_digits(printed, ours) else "differs")


def _has_digits(printed: str, ours: float) -> bool:
    """Is `ours`, rounded or cut off after the printed digits, the printed figure?"""
    figure = Decimal(printed)
    ways = (ROUND_HALF_UP, ROUND_DOWN)
    return figure in [Decimal(ours).quantize(figure, rounding=way) for way in ways]


def _ours(row: CostRow) -> tuple[float | None, float | None]:
    """#Params and GFLOPs of the row's network, if it is one of this package."""
    if row.ours is None or row.input_size is None:
        return None, None
    if isinstance(row.ours, Detector):
        params, macs = _detector_cost(row.ours, row.input_size)
    elif isinstance(row.ours, Baseline):
        params, macs = _baseline_cost(row.ours, row.input_size)
    else:
        counted = _hrnet_cost(row.ours, row.input_size)
        params, macs = counted.params, counted.macs
    return params / UNITS[row.params_unit], macs / UNITS[row.gflops_unit]


def _memory(row: CostRow) -> Cell | None:
    """Memory of a training step, where it is printed; ours for HRNets alone."""
    if row.training is None:
        return None
    if not isinstance(row.ours, HRNet):
        return Cell(row.training.memory, None, None, "")
    return Cell(row.training.memory, _training_memory(row.ours, row.training) / GIB, None, "")


def _hrnet_cost(network: HRNet, input_size: Size) -> Cost:
    arguments = {**PRESETS[network.preset], **network.arguments}
    spec = hrnet(task=network.task, **arguments)
    return cost(spec, head=network.head, num_outputs=network.num_outputs, input_size=input_size)


def _training_memory(network: HRNet, training: Training) -> int:
    """Bytes of parameters, and of what is kept for the backward pass of all images or of
    gradients, whichever is more. `Cost.memory`, of one image, adds gradients of maps.
    """
    counted = _hrnet_cost(network, training.input_size)
    kept = training.images * counted.total.saved
    return FLOAT_BYTES * (counted.params + max(kept, counted.params))


@functools.cache
def _baseline_cost(network: Baseline, input_size: Size) -> tuple[int, int]:
    """Parameters, and multiply-adds as the official code counts them."""
    from .baselines import official_macs

    net = _baseline(network)
    return sum(p.numel() for p in net.parameters()), official_macs(net, input_size)


@functools.cache
def _baseline(network: Baseline) -> "nn.Module":
    """The network, without memory for its parameters."""
    import torch

    from .baselines import rival

    with torch.device("meta"):
        return rival(network.rival, network.num_outputs)


def _detector_cost(network: Detector, input_size: Size) -> tuple[int, int]:
    """Parameters and multiply-adds, of what the row counts.

    The pyramid and what stands on it are counted apart: many rows share either.
    """
    how, spec, name = network.counting, network.spec, network.backbone
    first = how.stride_first and name not in PRESETS
    pyramid = _pyramid_cost(name, spec.pyramid, spec.channels, first, input_size)
    params, macs = _framework_cost(spec, how, pyramid.strides, pyramid.maps)
    norms = 0 if how.norms else pyramid.norms
    return params + pyramid.params - norms, macs + pyramid.macs


class _PyramidCost(NamedTuple):
    """Parameters, those of BatchNorm among them, multiply-adds; of each map stride and (h, w)."""

    params: int
    norms: int
    macs: int
    strides: tuple[int, ...]
    maps: tuple[Size, ...]


@functools.cache
def _pyramid_cost(
    name: str, head: str, channels: int, stride_first: bool, input_size: Size
) -> _PyramidCost:
    """Of a detector's backbone."""
    from torch import nn

    from .profiling.detectors import pyramid_cost

    pyramid = _pyramid(name, head, channels, stride_first)
    found = [m for m in pyramid.modules() if isinstance(m, nn.BatchNorm2d)]
    norms = sum(p.numel() for norm in found for p in norm.parameters())
    macs, maps = pyramid_cost(pyramid, input_size)
    params = sum(p.numel() for p in pyramid.parameters())
    return _PyramidCost(params, norms, macs, pyramid.strides, maps)


def _pyramid(name: str, head: str, channels: int, stride_first: bool) -> "Pyramid":
    """A detector's backbone, without memory for its parameters."""
    import torch

    from .baselines import rival_pyramid
    from .detectors import HRPyramid
    from .model import build

    with torch.device("meta"):
        if name in PRESETS:
            body = hrnet(task="detection", **PRESETS[name])
            return HRPyramid(build(body, head=head, num_outputs=channels))
        return rival_pyramid(name, head, channels, stride_in_1x1=stride_first)


@functools.cache
def _framework_cost(
    spec: DetectorSpec, how: Counting, strides: tuple[int, ...], maps: tuple[Size, ...]
) -> tuple[int, int]:
    """Parameters and multiply-adds of what stands on a pyramid with these maps."""
    import torch
    from torch import nn

    from .detectors import build_detector
    from .profiling.detectors import GivenMaps, layer_macs

    with torch.device("meta"):
        net = build_detector(GivenMaps(maps, strides, spec.channels), spec)
        if spec.framework == "htc":
            net.get_submodule("semantic").logits = nn.Conv2d(spec.channels, how.semantic, 1)
    anything = (1, 1)  # the maps are given
    found = layer_macs(
        net, anything, regions=how.regions, masked=how.masked, at_output=how.at_output
    )
    macs = [n for name, n in found.items() if how.predictor or "box_predictor" not in name]
    return sum(p.numel() for p in net.parameters()), sum(macs)


# --- words --------------------------------------------------------------------------------------


class _Laid(NamedTuple):
    """A table in words: headings, cells, which columns are numbers, numbered notes."""

    head: list[str]
    body: list[list[str]]
    numbers: list[bool]
    notes: list[str]


def markdown(tables: Sequence[CostTable]) -> str:
    """Each table under a heading, its notes below it."""
    return "\n".join([*map(_markdown, tables), f"{_escaped(LEGEND)}\n"])


def text(tables: Sequence[CostTable]) -> str:
    """For a terminal: aligned columns."""
    return "\n".join([*map(_text, tables), f"{textwrap.fill(LEGEND, PROSE)}\n"])


def csv_text(tables: Sequence[CostTable]) -> str:
    """One header, one line per network; figures of ours in full, differences as fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["table", "network", "height", "width", "params_unit", "gflops_unit"]
        + [f"{column}_{what}" for column in COLUMNS for what in Cell._fields]
        + ["memory_printed", "memory_ours", "verdict", "notes"]
    )
    for table in tables:
        for row in table.rows:
            memory = row.memory or Cell("", None, None, "")
            size = row.input_size or ("", "")
            figures = [*row.params, *row.gflops, memory.printed, memory.ours, row.verdict]
            notes = "; ".join(row.notes)
            writer.writerow([table.name, row.network, *size, *row.units, *figures, notes])
    return out.getvalue()


def html_page(tables: Sequence[CostTable]) -> str:
    """One page that needs nothing else."""
    body = "\n".join([f"<p>{html.escape(LEGEND)}</p>", *map(_section, tables)])
    return PAGE.replace("<!-- tables -->", body)


def deviations_markdown(found: Iterable[Deviation]) -> str:
    """A table of figures that differ, for docs/counting.md."""
    head = ["Table", "network", "input", "figure", "printed", "ours", "difference", "known"]
    body = [
        [
            ", ".join(deviation.tables),
            deviation.network,
            _size(deviation.input_size),
            COLUMNS[deviation.column],
            *_words(deviation.cell),
            deviation.reason,
        ]
        for deviation in found
    ]
    return _markdown_table(_Laid(head, body, [False] * 4 + [True] * 3 + [False], []))


def _lay(table: CostTable) -> _Laid:
    with_memory = any(row.memory for row in table.rows)
    units = [set(column) for column in zip(*(row.units for row in table.rows), strict=True)]
    params = f"#Params ({units[0].pop()})" if len(units[0]) == 1 else "#Params"  # else in notes
    head = ["Network", "Input", params, "ours", "difference", "GFLOPs", "ours", "difference"]
    head += ["Memory (G)", "ours (GiB)"] if with_memory else []
    notes = list(dict.fromkeys(note for row in table.rows for note in row.notes))
    body = []
    for row in table.rows:
        cells = [row.network, _size(row.input_size), *_words(row.params), *_words(row.gflops)]
        cells += _words(row.memory or Cell("", None, None, ""))[:2] if with_memory else []
        marks = "".join(f"[{notes.index(note) + 1}]" for note in row.notes)
        body.append([*cells, f"{row.verdict or NOTHING} {marks}".strip()])
    numbers = [False, False, *[True] * (len(head) - 2), False]
    return _Laid([*head, "Verdict"], body, numbers, notes)


def _words(cell: Cell) -> list[str]:
    """Printed figure, ours with one digit more, difference in percent."""
    decimals = max(2, len(cell.printed.partition(".")[2]) + 1)
    ours = NOTHING if cell.ours is None else f"{cell.ours:.{decimals}f}"
    return [cell.printed or NOTHING, ours, _percent(cell.difference)]


def _percent(difference: float | None) -> str:
    if difference is None:
        return NOTHING
    return f"{'+' if difference >= 0 else MINUS}{abs(difference) * 100:.2f} %"


def _size(size: Size | None) -> str:
    return NOTHING if size is None else f"{size[0]}x{size[1]}"


def _markdown(table: CostTable) -> str:
    laid = _lay(table)
    parts = [f"### {_escaped(table.title)}", _markdown_table(laid).rstrip()]
    return "\n\n".join([*parts, *map(_escaped, _prose(table, laid))]) + "\n"


def _markdown_table(laid: _Laid) -> str:
    rule = ["---:" if number else "---" for number in laid.numbers]
    lines = [map(_escaped, laid.head), rule, *(map(_escaped, row) for row in laid.body)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(words: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in "\\`*_[]|":
        words = words.replace(sign, f"\\{sign}")
    return html.escape(words, quote=False)


def _text(table: CostTable) -> str:
    laid = _lay(table)
    lines = [laid.head, *laid.body]
    widths = [max(len(line[column]) for line in lines) for column in range(len(laid.head))]
    aligned = [_aligned(line, widths, laid.numbers) for line in lines]
    rule = "-" * max(map(len, aligned))
    prose = [textwrap.fill(line, PROSE) for line in _prose(table, laid)]
    return "\n".join([table.title, aligned[0], rule, *aligned[1:], *prose]) + "\n"


def _prose(table: CostTable, laid: _Laid) -> list[str]:
    """The remark and the numbered notes under a table."""
    notes = [f"[{number}] {note}" for number, note in enumerate(laid.notes, 1)]
    return [*([table.remark] if table.remark else []), *notes]


def _aligned(line: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    cells = zip(line, widths, numbers, strict=True)
    return "  ".join(c.rjust(w) if number else c.ljust(w) for c, w, number in cells).rstrip()


def _section(table: CostTable) -> str:
    laid = _lay(table)
    title = html.escape(table.title)
    head = "".join(_html_cell("th", c, n) for c, n in zip(laid.head, laid.numbers, strict=True))
    rows = [
        f'<tr class="{row.verdict}">'
        + "".join(_html_cell("td", c, n) for c, n in zip(cells, laid.numbers, strict=True))
        + "</tr>"
        for row, cells in zip(table.rows, laid.body, strict=True)
    ]
    small = "".join(f"<p>{html.escape(line)}</p>\n" for line in _prose(table, laid))
    return (
        f'<h2>{title}</h2>\n<div class="scroll" tabindex="0" role="region" aria-label="{title}">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n"
        f"</table>\n</div>\n{small}"
    )


def _html_cell(tag: str, words: str, number: bool) -> str:
    scope = ' scope="col"' if tag == "th" else ""
    return f"<{tag}{scope}{' class=number' if number else ''}>{html.escape(words)}</{tag}>"


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>HRNet: the paper's costs and ours</title>
<link rel="icon" href="data:,">
<style>
:root {
  --ink: #1d2129; --soft: #5b6370; --page: #ffffff; --panel: #f6f7f9; --line: #dfe3e8;
  --no: #a34700;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e7ec; --soft: #a0a8b4; --page: #14171c; --panel: #1d2128; --line: #343a44;
    --no: #ff9d5c;
  }
}
body {
  margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 1040px; color: var(--ink);
  background: var(--page); font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p { margin: .25rem 0; color: var(--soft); font-size: .88rem; }
.scroll { overflow-x: auto; margin: .75rem 0; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; line-height: 1.4; }
th, td { padding: .4rem .6rem; text-align: left; }
th { background: var(--panel); }
tbody tr { border-top: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.differs td:last-child { color: var(--no); font-weight: 600; }
</style>
</head>
<body>
<h1>The paper's costs and ours</h1>
<!-- tables -->
</body>
</html>
"""

RENDERERS: dict[str, Callable[[Sequence[CostTable]], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": csv_text,
    "html": html_page,
}
