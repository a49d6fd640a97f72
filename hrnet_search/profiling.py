"""What a network costs: parameters, multiply-adds, memory, latency. See docs/counting.md."""

import contextlib
import logging
import statistics
import time
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .arch import ArchSpec
from .model import build

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # fvcore calls torch.jit as it is imported
    from fvcore.nn import FlopCountAnalysis

# fvcore's names of the operators that the paper's "GFLOPs" count: convolutions and linear layers.
CONV_AND_LINEAR = ("conv", "linear", "addmm", "matmul")
PAPER_GFLOP = 2**30  # multiply-adds; the official `get_model_summary` divides by 1024**3
WARM_UP, REPEATS = 10, 50  # forward passes before and during a latency measurement


def profile(
    spec: ArchSpec, *, head: str, num_outputs: int, input_size: tuple[int, int]
) -> dict[str, float]:
    """Costs of one network in base units, keys as in `METRICS` after "profile.".

    Args:
        spec: The body.
        head: The head, a key of `HEADS`.
        num_outputs: Joints or classes.
        input_size: (H, W) in pixels.

    Returns:
        params: number of parameters. macs: multiply-adds of convolutions and linear layers for
        one image, as fvcore counts them. paper_gflops: the same divided by 2**30. memory: peak
        bytes of one training step on one image. latency: median seconds of one forward pass.
    """
    net = build(spec, head=head, num_outputs=num_outputs).eval()
    image = torch.zeros(1, 3, *input_size)
    counts = count_macs(net, image)
    macs = sum(counts[name] for name in CONV_AND_LINEAR)
    return {
        "params": sum(p.numel() for p in net.parameters()),
        "macs": macs,
        "paper_gflops": macs / PAPER_GFLOP,
        "memory": peak_memory(spec, head=head, num_outputs=num_outputs, input_size=input_size),
        "latency": latency(net, image),
    }


def count_macs(net: nn.Module, image: Tensor) -> Any:
    """Multiply-adds of one forward pass per operator, a Counter, by fvcore.

    fvcore's "flop" is one multiply-add. It skips element-wise additions; nothing else in an
    HRNet, and an operator it does not know is an error here.

    Raises:
        RuntimeError: fvcore met an operator that it does not count.
    """
    with warnings.catch_warnings(), _quiet("fvcore.nn.jit_analysis"):
        warnings.simplefilter("ignore")  # deprecations inside the tracer
        analysis = FlopCountAnalysis(net, image)
        counts = analysis.by_operator()
        skipped = set(analysis.unsupported_ops()) - {"aten::add", "aten::add_"}
    if skipped:
        raise RuntimeError(f"operators without a count: {', '.join(sorted(skipped))}")
    return counts


def peak_memory(
    spec: ArchSpec, *, head: str, num_outputs: int, input_size: tuple[int, int], batch: int = 1
) -> int:
    """Peak bytes of tensors during forward and backward of `batch` images, in float32.

    Counted on the meta device: parameters, buffers, activations and gradients that live at the
    same time, without the optimiser's state and the libraries' scratch memory.
    """
    with torch.device("meta"):
        # BatchNorm with fixed statistics takes a map of one place; the memory is the same.
        net = build(spec, head=head, num_outputs=num_outputs).eval()
        tracker = _PeakTracker()
        tracker.add([*net.parameters(), *net.buffers()])
        with tracker:
            net(torch.empty(batch, 3, *input_size)).sum().backward()
    return tracker.peak


def latency(net: nn.Module, image: Tensor) -> float:
    """Median seconds of a forward pass: eager, float32, one thread, channels-last."""
    net = net.to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode(), _one_thread():
        for _ in range(WARM_UP + REPEATS):
            start = time.perf_counter()
            net(image)
            times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP:])


class _PeakTracker(TorchDispatchMode):
    """Follows the storages that operators make, and the most bytes alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.current = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(tree_leaves(result))
        return result

    def add(self, values: list[Any]) -> None:
        for value in values:
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                if storage not in self._seen:
                    self._seen.add(storage)
                    self._change(storage.nbytes())
                    weakref.finalize(storage, self._change, -storage.nbytes())

    def _change(self, nbytes: int) -> None:
        self.current += nbytes
        self.peak = max(self.peak, self.current)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet(logger: str) -> Iterator[None]:
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
