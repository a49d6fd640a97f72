"""Everything that can be measured of one network."""

import os
from dataclasses import dataclass

import torch
from torch import nn

from ..cost import Cost, Size
from .base import OnStep, cpu_name, one_thread, silent
from .counters import Count, count_closed_form, counts
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
    """Weigh, count and time a network. It is left as it was.

    Where a forward pass would not fit into free memory, what needs one is missing.

    Args:
        net: Any module from images (1, 3, H, W) to tensors, nested as it likes.
        input_size: (H, W) in pixels.
        cost: Its closed form for the same size, if it has one.
        on_step: Is told of each step before it begins.
    """
    counted = [count_closed_form(cost)] if cost else []
    weighed = [Memory("training", "closed form", cost.memory)] if cost else []
    with one_thread():
        weighed += peaks(net, input_size, on_step)
        lack = next((row.missing for row in weighed if row.step == "inference" and row.missing), "")
        counted += counts(net, input_size, on_step, lack=lack)
    timed = latencies(net, input_size, on_step, lack=lack)
    num_params = sum(p.numel() for p in net.parameters())
    return Measurement(input_size, num_params, _machine(), counted, weighed, timed)


def _machine() -> str:
    return f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}"
