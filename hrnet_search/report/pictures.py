"""A report's main figure and its table as PNG files, for slides and papers.

Kaleido draws them in Chrome or Chromium, without a window or a network.
"""

import importlib.util
import textwrap
from pathlib import Path

import plotly.graph_objects as go

from ..errors import InputError
from ..files import write_atomic
from . import pareto, search
from .figures import escape
from .frame import Run, read_run
from .tables import TextTable, ablation_table

WIDTH, SCALE = 1000, 2  # pixels of a page, and dots of a picture for each
LETTER, LINE, PAD = 7.5, 26, 20  # pixels of a letter, a line and a cell's edges in a table
TITLE = 12  # letters of a line of a column's title, at the least
INK, LINES, PANEL = "#1d2129", "#dfe3e8", "#f6f7f9"  # of the light page: pictures are for paper


def write_pictures(run: Path, out: Path) -> list[Path]:
    """Write `table.png` and, where anything was measured, `pareto.png`; returns them.

    Args:
        run: As of `write_report`.
        out: The report's folder.

    Raises:
        InputError: Kaleido or a browser is missing, or the study.
    """
    if importlib.util.find_spec("kaleido") is None:
        raise InputError("needs kaleido: pip install 'hrnet-search[png]'", key="--png")
    read = read_run(run)
    pictures = {"table": _table(_rows(read)), "pareto": _pareto(read)}
    files = []
    for name, figure in pictures.items():
        if figure is not None:
            files.append(out / f"{name}.png")
            write_atomic(files[-1], _png(figure))
    return files


def _png(figure: go.Figure) -> bytes:
    from kaleido.errors import ChromeNotFoundError

    try:
        return bytes(figure.to_image("png", scale=SCALE))
    except RuntimeError as error:
        if not isinstance(error.__context__, ChromeNotFoundError):
            raise
        rule = "needs Chrome or Chromium on this machine, which draws the pictures"
        raise InputError(rule, key="--png") from None


def _pareto(run: Run) -> go.Figure | None:
    """The page's figure, on white and with its first cost."""
    if run.study.search.is_grid:
        figure = pareto.grid_figure(run, {})
    else:
        figure = pareto.search_figure(run, search.networks_data(run), {})
    if figure is not None:
        title = {"text": escape(run.study.title or run.study.name), "x": 0.01}
        margin = {"l": 60, "r": 24, "t": 90, "b": 60}
        figure.update_layout(paper_bgcolor="white", font_color=INK, title=title, margin=margin)
        figure.update_layout(width=WIDTH, height=560)
        figure.update_xaxes(gridcolor=LINES).update_yaxes(gridcolor=LINES)
    return figure


def _rows(run: Run) -> TextTable:
    """What a report opens with: of a grid all arms, of a search the front."""
    if run.study.search.is_grid:
        return ablation_table(run)
    return search.network_tables(run, search.networks_data(run))["front"]


def _table(table: TextTable) -> go.Figure:
    """As wide as its cells; titles are broken into lines."""
    titles, cells, widths = [], [], []
    for place, column in enumerate(table.columns):
        texts = [" ".join(row[place].split()) for row in table.rows]
        title = f"{column.title} ({column.note})" if column.note else column.title
        letters = max(map(len, [*texts, *title.split()]))
        titles.append(textwrap.wrap(title, max(letters, TITLE)))
        cells.append([escape(text) for text in texts])
        widths.append(PAD + LETTER * max(letters, *map(len, titles[-1])))
    align = ["right" if column.kind == "number" else "left" for column in table.columns]
    style = {"align": align, "line_color": LINES, "font": {"color": INK, "size": 13}}
    lines = max(map(len, titles))
    heads = {"values": ["<br>".join(map(escape, title)) for title in titles], "fill_color": PANEL}
    header = {"height": LINE * lines, **heads, **style}
    body = {"values": cells, "fill_color": "white", "height": LINE, **style}
    figure = go.Figure(go.Table(columnwidth=widths, header=header, cells=body))
    height = LINE * (lines + len(table.rows)) + PAD
    margin = dict.fromkeys("lrtb", PAD // 2)
    return figure.update_layout(width=sum(widths) + PAD, height=height, margin=margin)
