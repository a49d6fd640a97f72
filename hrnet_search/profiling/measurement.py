"""Everything that can be measured of one network."""

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..cost import Cost, Size
from .base import OnStep, one_thread, silent
from .counters import Count, closed_form, counts
from .latency import Latency, latencies
from .memory import Memory, peaks


@dataclass(frozen=True)
class Measurement:
    """All that was measured of one network, on one thread of the CPU."""

    input_size: Size
    num_params: int
    machine: str
    counts: list[Count]
    memory: list[Memory]
    latencies: list[Latency]


def measure(
    net: nn.Module, input_size: Size, *, cost: Cost | None = None, on_step: OnStep = silent
) -> Measurement:
    """Count, weigh and time a network. It is left as it was.

    Args:
        net: Any module from images (1, 3, H, W) to tensors, nested as it likes.
        input_size: (H, W) in pixels.
        cost: Its closed form for the same size, if it has one.
        on_step: Is told of each step before it begins.
    """
    counted = [closed_form(cost)] if cost else []
    weighed = [Memory("training", "closed form", cost.memory)] if cost else []
    with one_thread():
        counted += counts(net, input_size, on_step)
        weighed += peaks(net, input_size, on_step)
    timed = latencies(net, input_size, on_step)
    num_params = sum(p.numel() for p in net.parameters())
    return Measurement(input_size, num_params, _machine(), counted, weighed, timed)


def _machine() -> str:
    return f"{_cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}"


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
