"""Seconds of a forward pass of one image, on one thread of the CPU."""

import functools
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..cost import Size
from .base import OnStep, attempt, image, one_thread, real_copy, silent

WARM_UP, REPEATS = 10, 50  # passes before and during a measurement, at most
SECONDS = 10.0  # after which a measurement starts no other pass

EAGER: Mapping[str, tuple[torch.dtype, torch.memory_format]] = {
    "eager, float32, contiguous": (torch.float32, torch.contiguous_format),
    "eager, float32, channels-last": (torch.float32, torch.channels_last),
    "eager, bfloat16 autocast, channels-last": (torch.bfloat16, torch.channels_last),
}
ONNX = "ONNX Runtime, float32"

Times = tuple[int, list[float]]  # number of passes to warm up, seconds of each pass after them


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward pass of one image.

    Args:
        backend: What ran it, in which precision and memory format.
        median: Over the repeats, None if it was not measured.
        quartiles: The first and the third.
        repeats: Passes that were timed.
        warm_up: Passes before them; 0 if one pass takes longer than all may.
        missing: Why it was not measured, else empty.
    """

    backend: str
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    repeats: int = 0
    warm_up: int = 0
    missing: str = ""


def median_latency(net: nn.Module, input_size: Size) -> float:
    """Median seconds of a forward pass: eager, float32, one thread, channels-last."""
    with one_thread():
        return statistics.median(
            _eager_times(net, input_size, torch.float32, torch.channels_last)[1]
        )


def latencies(
    net: nn.Module, input_size: Size, on_step: OnStep = silent, *, lack: str = ""
) -> list[Latency]:
    """Latency in each backend that is at hand; the others say why they are not.

    Args:
        net: Any network.
        input_size: (H, W) in pixels.
        on_step: Is told of each step before it begins.
        lack: Why no pass may be run, else empty.
    """
    from ..training import has_bfloat16

    if lack:
        return [Latency(backend, missing=lack) for backend in (*EAGER, ONNX)]
    rows = []
    with one_thread():
        for backend, (dtype, layout) in EAGER.items():
            on_step(f"latency: {backend}")
            if dtype is torch.bfloat16 and not has_bfloat16("cpu"):
                reason = "not available: the hardware has no bfloat16 arithmetic"
                rows.append(Latency(backend, missing=reason))
            else:
                rows.append(_summary(backend, _eager_times(net, input_size, dtype, layout)))
        timed = functools.partial(_onnx_times, net, input_size, on_step)
        rows.append(_summary(ONNX, attempt(timed, "onnx", "onnxruntime")))
    return rows


def _summary(backend: str, timed: Times | str) -> Latency:
    """Of what was measured, or of why it was not."""
    if isinstance(timed, str):
        return Latency(backend, missing=timed)
    warm_up, times = timed
    several = times if len(times) > 1 else times * 2
    low, median, high = statistics.quantiles(several, n=4, method="inclusive")
    return Latency(backend, median, (low, high), len(times), warm_up)


def _eager_times(
    net: nn.Module, input_size: Size, dtype: torch.dtype, layout: torch.memory_format
) -> Times:
    real = real_copy(net).to(memory_format=layout)
    taken = image(input_size).to(memory_format=layout)
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
        return _times(lambda: real(taken))


def _onnx_times(net: nn.Module, input_size: Size, on_step: OnStep) -> Times:
    on_step("exporting to ONNX")
    run = _onnx_session(net, input_size)
    on_step(f"latency: {ONNX}")
    return _times(run)


def _onnx_session(net: nn.Module, input_size: Size) -> Callable[[], object]:
    """A forward pass in ONNX Runtime, exported by tracing: the fast way, without onnxscript."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    taken = image(input_size)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's, on tracing and on its age
            torch.onnx.export(real_copy(net), (taken,), str(file), dynamo=False)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: taken.numpy()}
    return lambda: session.run(None, feed)


def _times(run: Callable[[], object]) -> Times:
    """At most `WARM_UP` and `REPEATS` passes, none of which is begun after `SECONDS`.

    If the first pass takes longer, it is the measurement.
    """
    warm = [_clock(run)]
    if warm[0] > SECONDS:
        return 0, warm
    while len(warm) < WARM_UP and sum(warm) < SECONDS / 4:
        warm.append(_clock(run))
    times = [_clock(run)]
    while len(times) < REPEATS and sum(warm) + sum(times) < SECONDS:
        times.append(_clock(run))
    return len(warm), times


def _clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
