"""Peak memory of training and inference, estimated and measured."""

import functools
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..cost import Size
from .base import OnStep, image, meta_copy, mib, real_copy, silent

METHODS = {
    "closed form": "`Cost.memory`, which studies record: parameters, what is kept for the backward "
    "pass, and gradients as it goes from the last layer to the first; no buffers",
    "meta device": "most bytes of tensors alive at once, found by running the pass on tensors "
    "without data: parameters, buffers, image, activations, gradients; no optimiser state, no "
    "scratch memory of libraries",
    "tensors": "the same followed through a real pass; BatchNorm in training mode if it can be",
    "process": "a real pass in a new process: growth of its resident memory, and the parameters "
    "and buffers; scratch memory and what the allocator holds back count",
}


@dataclass(frozen=True)
class Memory:
    """Peak memory of one pass of one image in float32.

    Args:
        step: "training" (forward and backward) or "inference".
        method: How it was found, a key of `METHODS`.
        nbytes: The peak in bytes, None if it was not measured.
        missing: Why not, else empty.
    """

    step: str
    method: str
    nbytes: int | None
    missing: str = ""


def peaks(net: nn.Module, input_size: Size, on_step: OnStep = silent) -> list[Memory]:
    """Peak memory of any network, by all methods but the closed form."""
    measured = {"tensors": _tensor_peak, "process": _process_peak}
    rows = []
    for step, training in (("training", True), ("inference", False)):
        on_step(f"memory of {step}: meta device")
        estimate = peak_memory(net, input_size, training=training)
        rows.append(Memory(step, "meta device", estimate))
        for method, run in measured.items():
            on_step(f"memory of {step}: {method}")
            missing = _lack(estimate)
            nbytes = None if missing else run(net, input_size, training)
            rows.append(Memory(step, method, nbytes, missing))
    return rows


def peak_memory(net: nn.Module, input_size: Size, *, batch: int = 1, training: bool = True) -> int:
    """Peak bytes of tensors in float32, without allocating them: on the meta device.

    Counted are parameters, buffers, activations and gradients that live at the same time,
    without the optimiser's state and the libraries' scratch memory.

    Args:
        net: Any network.
        input_size: (H, W) in pixels.
        batch: Images.
        training: Forward and backward, or forward alone without what a backward pass needs.
    """
    # BatchNorm with fixed statistics takes a map of one place; the memory is the same.
    net = meta_copy(net)
    with torch.device("meta"):
        return _tracked(net, lambda: _run(net, image(input_size, batch), training))


def _tensor_peak(net: nn.Module, input_size: Size, training: bool) -> int:
    real = real_copy(net)
    return _tracked(real, lambda: _run_as_trained(real, image(input_size), training))


def _process_peak(net: nn.Module, input_size: Size, training: bool) -> int:
    job = pickle.dumps((real_copy(net), input_size, training, torch.get_num_threads()))
    code = f"from {__name__} import _in_new_process; _in_new_process()"
    done = subprocess.run([sys.executable, "-c", code], input=job, capture_output=True, check=True)
    return int(done.stdout.split()[-1])


def _in_new_process() -> None:
    """Run the pass on standard input and print its peak bytes."""
    net, input_size, training, threads = pickle.loads(sys.stdin.buffer.read())  # noqa: S301
    torch.set_num_threads(threads)
    small = nn.Conv2d(3, 8, 3)  # loads what the libraries load once
    _run(small, torch.zeros(1, 3, 8, 8), True)
    taken = image(input_size)
    before = resident("VmRSS:")
    _run_as_trained(net, taken, training)
    held = sum(t.nbytes for t in (*net.parameters(), *net.buffers()))
    print(held + taken.nbytes + max(0, resident("VmHWM:") - before))


def _run(net: nn.Module, taken: Tensor, training: bool) -> None:
    """Forward and backward from the sum of all outputs, or forward alone."""
    if not training:
        with torch.inference_mode():
            net(taken)
        return
    functools.reduce(torch.add, [leaf.sum() for leaf in tree_leaves(net(taken))]).backward()


def _run_as_trained(net: nn.Module, taken: Tensor, training: bool) -> None:
    """In training mode, unless BatchNorm refuses a map of one place."""
    try:
        _run(net.train(training), taken, training)
    except ValueError:
        _run(net.eval(), taken, training)


def _tracked(net: nn.Module, run: Callable[[], None]) -> int:
    tracker = _PeakTracker()
    tracker.add([*net.parameters(), *net.buffers()])
    with tracker:
        run()
    return tracker.peak


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

    def add(self, values: Iterable[Any]) -> None:
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


def _lack(estimate: int) -> str:
    """Why a pass that is estimated so is not run for real; empty if it fits or nobody knows."""
    free = free_bytes()
    if free is None or 1.5 * estimate <= free:  # scratch memory comes on top
        return ""
    return f"needs more than {mib(estimate)} MiB, {mib(free)} are free"


def free_bytes() -> int | None:
    """Memory that is free or can be made free, if the system tells."""
    try:
        return _kibibytes("/proc/meminfo", "MemAvailable:")
    except OSError:
        return None


def resident(entry: str) -> int:
    """Bytes of this process now ("VmRSS:") or at most ("VmHWM:"); without /proc the latter.

    `getrusage` is no use where /proc is: a new process inherits its parent's peak there.
    """
    try:
        return _kibibytes("/proc/self/status", entry)
    except OSError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _kibibytes(file: str, entry: str) -> int:
    """An entry of a file of /proc, in bytes."""
    (line,) = (line for line in Path(file).read_text().splitlines() if line.startswith(entry))
    return int(line.split()[1]) * 1024
