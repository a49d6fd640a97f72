"""A measurement as tables of plain text."""

from collections.abc import Mapping, Sequence

from ..cost import PAPER_GFLOP
from .base import mib
from .counters import Count
from .latency import Latency
from .measurement import Measurement
from .memory import METHODS, Memory

Row = tuple[str, ...]


def render(measured: Measurement) -> str:
    """Multiply-adds, operators, memory and latency, one table each."""
    height, width = measured.input_size
    lines = [
        f"{measured.num_params:,} parameters, one image of {height} x {width}",
        *_counts(measured.counts),
        *_operators(measured.counts),
        *_memory(measured.memory),
        *_latency(measured.latencies, measured.machine),
    ]
    return "\n".join(lines)


def _counts(counts: Sequence[Count]) -> list[str]:
    header = ("counter", "conv", "linear", "matmul", "other", "total", "conv + linear / 2^30")
    rows = []
    for c in counts:
        numbers = (c.conv, c.linear, c.matmul, c.total - c.conv - c.linear - c.matmul, c.total)
        cells = (*(f"{n:,}" for n in numbers), f"{(c.conv + c.linear) / PAPER_GFLOP:.3f}")
        rows.append((c.tool, *(("-",) * len(cells) if c.missing else cells)))
    notes = [f"{c.tool}: {c.missing or c.note}" for c in counts if c.missing or c.note]
    return table("Multiply-adds of a forward pass", header, rows, notes)


def _operators(counts: Sequence[Count]) -> list[str]:
    rows = []
    for c in counts:
        if not c.missing:
            counted = ", ".join(f"{name} {macs:,}" for name, macs in c.by_operator.items())
            rows.append((c.tool, "counts", counted))
        if c.skipped:
            rows.append(("", "skips", _skipped(c.skipped)))
    return table("Operators", ("counter", "", "operators"), rows, [])


def _skipped(skipped: Mapping[str, int]) -> str:
    """The most frequent first."""
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} x{n}" for name, n in ordered)


def _memory(memory: Sequence[Memory]) -> list[str]:
    rows = [
        (row.step, row.method, row.missing if row.nbytes is None else mib(row.nbytes))
        for row in memory
    ]
    methods = dict.fromkeys(row.method for row in memory)
    notes = [f"{method}: {METHODS[method]}" for method in methods]
    return table("Peak memory, one image in float32", ("step", "method", "MiB"), rows, notes)


def _latency(latencies: Sequence[Latency], machine: str) -> list[str]:
    header = ("backend", "median ms", "quartiles", "passes", "after")
    rows = []
    for row in latencies:
        if row.median is None or row.quartiles is None:
            rows.append((row.backend, "-", "-", "-", "-"))
            continue
        low, high = (f"{1e3 * value:.2f}" for value in row.quartiles)
        passes = (str(row.repeats), str(row.warm_up))
        rows.append((row.backend, f"{1e3 * row.median:.2f}", f"{low} to {high}", *passes))
    notes = [f"{row.backend}: {row.missing}" for row in latencies if row.missing]
    return table("Latency of one image, one thread of the CPU", header, rows, [machine, *notes])


def table(title: str, header: Row, rows: Sequence[Row], notes: Sequence[str]) -> list[str]:
    """Columns under each other, numbers to the right, words to the left, and the notes below."""
    columns = list(zip(*rows, strict=True))
    numeric = [all(cell[:1].isdigit() or cell in ("-", "") for cell in c) for c in columns]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["", title]
    for row in (header, *rows):
        cells = zip(row, widths, numeric, strict=True)
        padded = (cell.rjust(w) if right else cell.ljust(w) for cell, w, right in cells)
        lines.append("  ".join(padded).rstrip())
    return [*lines, *notes]
