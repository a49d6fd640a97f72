"""A network as a picture, in the manner of the paper's Fig. 2 (arXiv 1908.07919), as SVG.

Branches are rows, the highest resolution on top. From left to right stand the stem, the stages and
what the head reads. A bar is a residual unit, a line a map that is kept, a line between rows a
fusion edge or the begin of a branch. Standard library only.

Modules are drawn once per page and named by their content: many networks of a study share them, so
a drawing is little more than places and widths. `Drawing.parts` must be on the page (`sheet`).
"""

import hashlib
import html
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .arch import STEM_STRIDE, ArchSpec, ModuleSpec
from .blueprint import canonical, reads, stage1_outputs, transition
from .result import count

# Pixels. A row is as high as the bar of the highest resolution with its width written below.
TOP, ROW = 70, 46  # middle of the first row; distance of rows
HEIGHTS = (34, 26, 20, 15, 11, 8)  # of the bars of each branch
BAR, PITCH = 5, 7  # a bar; from bar to bar
BLOCK, FUSION = 46, 40  # the two halves of a module
JOIN, DISC = 32, 5  # of the second half: where maps are joined; radius of the mark there
STEM, STAGE1, TRANSITION, GAP, HEAD = 34, 52, 30, 44, 46
LEFT = 32  # for the names of the resolutions
MAX_BARS = 6  # more units are a block with their number
LEAST_BLOCK = 13  # height of such a block, which holds a line of text
MAX_CELLS = 24  # modules drawn; equal ones in a row are one
LEAST_SCALE = 0.5  # smaller than this a picture could not be read: it is scrolled instead

# Marks for `ArchSpec.fuse`, drawn from the middle of a disc.
SIGNS: Mapping[str, str] = {
    "sum": "m-3 0h6m-3-3v6",
    "multiply": "m-2-2l4 4m0-4l-4 4",
    "concat": "m-1.5-3v6m3-6v6",
    "weighted": "m-3-2l1.5 4 1.5-4 1.5 4 1.5-4",
}
# Rules with one class each and no variables: parts are drawn outside of their place in the page,
# and programs that convert SVG know no more.
STYLE = """\
.net{font:11px system-ui,sans-serif;fill:currentColor;text-anchor:middle;max-width:100%;height:auto}
.net-soft{fill:#5b6370}.net-on{fill:#fff;font-size:10px}.net-band{fill:#888;fill-opacity:.1}
.net-keep,.net-up,.net-down,.net-sign{fill:none;stroke:#888;stroke-width:1.5}
.net-up{stroke:#c25400}.net-down{stroke:#0072b2}
.net-disc{fill:#fff;stroke:#888}.net-sign{stroke:#1d2129;stroke-width:1.2}
.net-0{fill:#2b5fa4}.net-1{fill:#1f7a8c}.net-2{fill:#2e7d4f}
.net-3{fill:#6b7a1f}.net-4{fill:#9a6700}.net-5{fill:#b0492f}
@media (prefers-color-scheme:dark){
.net-soft{fill:#a0a8b4}.net-up{stroke:#ff9d5c}.net-down{stroke:#56b4e9}
.net-disc{fill:#14171c}.net-sign{stroke:#e4e7ec}
.net-0{fill:#4a7fc6}.net-1{fill:#2f8fa2}.net-2{fill:#3d9163}
.net-3{fill:#7d8d2f}.net-4{fill:#ad7a14}.net-5{fill:#c65d42}
}
"""
# Of a file that stands alone; a page has its own.
PAPER = """\
svg{color:#1d2129;background:#fff}
@media (prefers-color-scheme:dark){svg{color:#e4e7ec;background:#14171c}}
"""


@dataclass(frozen=True)
class Drawing:
    """A picture, and what it is made of.

    Args:
        svg: An `<svg>` element that refers to the parts.
        width: Pixels.
        parts: Id -> element.
    """

    svg: str
    width: int
    parts: Mapping[str, str]


@dataclass(frozen=True)
class Cell:
    """Equal modules in a row, or some that are left out.

    Args:
        module: The one that is drawn; None for those left out.
        enter: Branches with a map before it.
        leave: Those whose maps are used after it.
        times: How many modules.
    """

    module: ModuleSpec | None
    enter: frozenset[int]
    leave: frozenset[int]
    times: int


def draw(spec: ArchSpec, head: str, *, title: str) -> Drawing:
    """The picture of a network.

    Args:
        spec: The network; what cannot reach the head's output is left out, as when it is built.
        head: A key of `blueprint.HEADS`.
        title: What it is called; any text.

    Raises:
        InputError: There is no such head, or the spec lacks a map that it reads.
    """
    spec = canonical(spec, head)
    pen = _Pen()
    stages = _cells(spec, reads(spec, head))
    rows = max(stage.num_branches for stage in spec.stages)
    _draw_start(pen, spec, rows)
    before: tuple[int, ...] = (stage1_outputs(spec),)
    for number, (stage, cells) in enumerate(zip(spec.stages, stages, strict=True), start=2):
        pen.use(_transition(before, stage.num_channels), TRANSITION)
        _draw_stage(pen, number, stage.num_channels, cells, spec.fuse)
        before = stage.num_channels
    _draw_head(pen, head, reads(spec, head))
    return Drawing(_svg(pen, rows, title, words(spec)), pen.x, pen.parts)


def sheet(drawings: Iterable[Drawing]) -> str:
    """An element without size that holds the parts of all these drawings."""
    parts: dict[str, str] = {}
    for drawing in drawings:
        parts |= drawing.parts
    if not parts:
        return ""
    hidden = 'width="0" height="0" style="position:absolute" aria-hidden="true"'
    return f"<svg {hidden}><defs>{''.join(parts.values())}</defs></svg>"


def standalone(drawing: Drawing) -> str:
    """A whole SVG file."""
    start, end = drawing.svg.split(">", 1)
    inside = f"<style>{STYLE}{PAPER}</style><defs>{''.join(drawing.parts.values())}</defs>"
    # The title comes first: it is the name of what holds it.
    title, rest = end.split("</desc>", 1)
    return f'{start} xmlns="http://www.w3.org/2000/svg">{title}</desc>{inside}{rest}\n'


def words(spec: ArchSpec) -> list[str]:
    """A network in one line per stage: modules, blocks, widths, and which modules fuse."""
    bottlenecks = count(spec.stage1_blocks, "bottleneck")
    lines = [f"stem: width {spec.stem_channels}"]
    lines.append(f"stage 1: {bottlenecks}, width {spec.stage1_channels}")
    for number, stage in enumerate(spec.stages, start=2):
        each = " ".join(dict.fromkeys(_each(module.num_blocks) for module in stage.modules))
        widths = "/".join(map(str, stage.num_channels))
        fusions = "".join("\N{CHECK MARK}" if m.edges else "\N{EN DASH}" for m in stage.modules)
        modules = count(stage.num_modules, "module")
        size = f"{modules} \N{MULTIPLICATION SIGN} {each} blocks, widths {widths}"
        lines.append(f"stage {number}: {size}, fusion {fusions}")
    return lines


def _each(blocks: tuple[int, ...]) -> str:
    """Residual units of each branch; one number where all have as many."""
    return "/".join(map(str, blocks if len(set(blocks)) > 1 else blocks[:1]))


# --- what is drawn ------------------------------------------------------------------------------


def _cells(spec: ArchSpec, needed_last: Sequence[int]) -> list[list[Cell]]:
    """The cells of each stage."""
    leave = frozenset(needed_last)
    most = max(2, MAX_CELLS // len(spec.stages))
    stages: list[list[Cell]] = []
    for index in reversed(range(len(spec.stages))):
        single: list[Cell] = []
        for module in reversed(spec.stages[index].modules):
            enter = leave | {source for source, _ in module.edges}
            single.insert(0, Cell(module, enter, leave, 1))
            leave = enter
        stages.insert(0, _shortened(_runs(single), most))
        before = spec.stages[index - 1].num_branches if index else 1
        leave = frozenset(min(branch, before - 1) for branch in leave)
    return stages


def _runs(cells: list[Cell]) -> list[Cell]:
    """Equal neighbours as one."""
    groups = [(cell, len(list(group))) for cell, group in itertools.groupby(cells)]
    return [Cell(cell.module, cell.enter, cell.leave, times) for cell, times in groups]


def _shortened(cells: list[Cell], most: int) -> list[Cell]:
    """At most so many, the last among them, and one for those left out, if these are several."""
    if len(cells) <= most + 1:
        return cells
    first, last = cells[: most - 1], cells[-1]
    left_out = cells[most - 1 : -1]
    gap = Cell(None, left_out[0].enter, last.enter, sum(cell.times for cell in left_out))
    return [*first, gap, last]


class _Pen:
    """Puts elements down from left to right."""

    def __init__(self) -> None:
        self.x = 0
        self.elements: list[str] = []
        self.parts: dict[str, str] = {}

    def use(self, content: str, width: int) -> None:
        """A part at the current place, which moves on behind it."""
        name = f"net-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        self.parts[name] = f'<g id="{name}">{content}</g>'
        self.elements.append(f'<use href="#{name}" x="{self.x}"/>')
        self.x += width

    def widths(self, channels: Sequence[int], width: int) -> None:
        """Below the bars of each branch that there is."""
        for row, number in enumerate(channels):
            if number:
                y = _y(row) + max(HEIGHTS[row], LEAST_BLOCK) // 2 + 11
                self.elements.append(_text(self.x + width // 2, y, str(number)))

    def remark(self, words: str, width: int) -> None:
        """Below the heading, above one module."""
        self.elements.append(_text(self.x + width // 2, 36, words, "net-soft"))


def _text(x: int, y: int, words: str, style: str = "") -> str:
    of_class = f' class="{style}"' if style else ""
    return f'<text x="{x}" y="{y}"{of_class}>{_escape(words)}</text>'


def _heading(words: str, width: int) -> str:
    """Above a part of that width."""
    return _text(width // 2, 18, words)


def _draw_start(pen: _Pen, spec: ArchSpec, rows: int) -> None:
    """The rows' resolutions, the stem and stage 1.

    The stem's bars are its two convolutions, of which the first has twice the size.
    """
    names = (_text(14, _y(row) + 4, f"1/{STEM_STRIDE * 2**row}", "net-soft") for row in range(rows))
    pen.use("".join(names), LEFT)
    y = _y(0)
    pen.elements.append(_text(pen.x + STEM // 2, y + 33, str(spec.stem_channels)))
    bars = f'<path class="net-0" d="M8 {y - 22}h5v44h-5zM20 {y - 17}h5v34h-5z"/>'
    line = f'<path class="net-keep" d="M0 {y}h{STEM}"/>'
    pen.use(_heading("stem", STEM) + line + bars, STEM)
    pen.widths((stage1_outputs(spec),), STAGE1)
    line = f'<path class="net-keep" d="M0 {y}h{STAGE1}"/>'
    units = _units(0, spec.stage1_blocks, STAGE1 // 2)
    pen.use(_heading("stage 1", STAGE1) + line + units, STAGE1)


def _draw_stage(
    pen: _Pen, number: int, channels: tuple[int, ...], cells: list[Cell], fuse: str
) -> None:
    """A band over all branches, and on it the cells."""
    width, height = sum(map(_cell_width, cells)), _y(len(channels) - 1) - 10
    band = f'<rect class="net-band" y="44" width="{width}" height="{height}" rx="6"/>'
    pen.use(_heading(f"stage {number}", width) + band, 0)
    pen.widths(channels, BLOCK)
    for cell in cells:
        if cell.module is None:
            pen.remark(f"{cell.times} more", GAP)
            pen.use(_gap(cell), GAP)
            continue
        if cell.times > 1:
            pen.remark(f"\N{MULTIPLICATION SIGN} {cell.times}", BLOCK + FUSION)
        pen.use(_module(cell, cell.module, fuse), BLOCK + FUSION)


def _draw_head(pen: _Pen, head: str, rows: Sequence[int]) -> None:
    """A box over the rows that it reads."""
    pen.remark(head, HEAD)
    lines = "".join(f"M0 {_y(row)}h20" for row in rows)
    top, height = _y(min(rows)) - 17, _y(max(rows)) - _y(min(rows)) + 34
    box = f'<rect class="net-disc" x="20" y="{top}" width="14" height="{height}" rx="3"/>'
    pen.use(f'{_heading("head", HEAD)}<path class="net-keep" d="{lines}"/>{box}', HEAD)


def _cell_width(cell: Cell) -> int:
    return BLOCK + FUSION if cell.module else GAP


def _module(cell: Cell, module: ModuleSpec, fuse: str) -> str:
    """Bars of each branch on its line, then edges from row to row and marks where they end."""
    keep = "".join(
        f"M0 {_y(row)}h{BLOCK + FUSION if row in cell.leave else BLOCK}"
        for row in sorted(cell.enter)
    )
    units = (_units(row, n, BLOCK // 2) for row, n in enumerate(module.num_blocks))
    return f'<path class="net-keep" d="{keep}"/>{"".join(units)}{_fusion(module, fuse)}'


def _units(row: int, number: int, middle: int) -> str:
    """A bar for each residual unit, or a block with their number."""
    if not number:
        return ""
    height = HEIGHTS[row]
    if number > MAX_BARS:
        height = max(height, LEAST_BLOCK)
        top, left = _y(row) - height // 2, middle - 20
        block = f'<path class="net-{row}" d="M{left} {top}h40v{height}h-40z"/>'
        return f'{block}<text class="net-on" x="{middle}" y="{_y(row) + 4}">{number}</text>'
    left, top = middle - (number * PITCH - PITCH + BAR) // 2, _y(row) - height // 2
    bars = f"h{BAR}v{height}h-{BAR}z"
    return f'<path class="net-{row}" d="M{left} {top}{f"{bars}m{PITCH} 0" * (number - 1)}{bars}"/>'


def _fusion(module: ModuleSpec, fuse: str) -> str:
    paths = {"net-up": "", "net-down": ""}
    for source, target in module.edges:
        kind = "net-up" if source > target else "net-down"
        paths[kind] += f"M{BLOCK} {_y(source)}L{BLOCK + JOIN} {_y(target)}"
    lines = "".join(f'<path class="{kind}" d="{d}"/>' for kind, d in paths.items() if d)
    targets = sorted({target for _, target in module.edges})
    discs = "".join(_disc(BLOCK + JOIN, _y(row)) for row in targets)
    signs = "".join(f"M{BLOCK + JOIN} {_y(row)}{SIGNS[fuse]}" for row in targets)
    marks = f'<path class="net-disc" d="{discs}"/><path class="net-sign" d="{signs}"/>'
    return lines + marks if targets else ""


def _disc(x: int, y: int) -> str:
    half = f"a{DISC} {DISC} 0 0 1"
    return f"M{x - DISC} {y}{half} {2 * DISC} 0{half}-{2 * DISC} 0"


def _gap(cell: Cell) -> str:
    """Dots on the rows that go on."""
    rows = sorted(cell.enter & cell.leave)
    dots = "".join(f"M{x} {_y(row)}h3" for row in rows for x in (12, 20, 28))
    return f'<path class="net-keep" d="{dots}"/>'


def _transition(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """Lines from the rows of a stage to those of the next."""
    paths = {"net-keep": "", "net-down": ""}
    for row, step in enumerate(transition(before, after)):
        if step is not None:
            kind = "net-down" if row > step[0] else "net-keep"
            paths[kind] += f"M0 {_y(step[0])}L{TRANSITION} {_y(row)}"
    return "".join(f'<path class="{kind}" d="{d}"/>' for kind, d in paths.items() if d)


def _y(row: int) -> int:
    """Middle of a branch's row."""
    return TOP + ROW * row


def _svg(pen: _Pen, rows: int, title: str, lines: Sequence[str]) -> str:
    width, height = pen.x, _y(rows - 1) + 38
    named = f"<title>{_escape(title)}</title><desc>{_escape('; '.join(lines))}</desc>"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    style = f'style="min-width:{round(LEAST_SCALE * width)}px"'
    return f'<svg class="net" role="img" {size} {style}>{named}{"".join(pen.elements)}</svg>'


def _escape(text: str) -> str:
    """Text for XML, on one line and without what no XML may hold."""
    flat = " ".join(text.split())
    return html.escape(re.sub("[^\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", flat))
