"""What a network costs, measured, beside the closed form of `cost`. See docs/counting.md.

`profile` is what a study records of a network. `measure` puts side by side what several tools
count, how much memory a pass takes and how long it takes, for any `nn.Module`; `tables` and
`render` show it. H and W are an image's height and width in pixels.
"""

import contextlib
import copy
import functools
import importlib.metadata
import importlib.util
import io
import logging
import os
import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .arch import ArchSpec
from .blueprint import IMAGE_CHANNELS
from .cost import Cost, Size, cost
from .model import build
from .rivals import Rival

PAPER_GFLOP = 2**30  # multiply-adds; the official `get_model_summary` divides by 1024**3
WARM_UP, REPEATS = 10, 50  # forward passes before and during a latency measurement, at most
SECONDS = 10.0  # after which a latency measurement starts no other pass
MIB = 2**20

OnStep = Callable[[str], None]  # is told of each step before it begins


def profile(
    spec: ArchSpec | Rival, *, head: str, num_outputs: int, input_size: Size
) -> dict[str, float]:
    """What a study records of a network's cost, in base units, keys as in `METRICS` after the dot.

    Args:
        spec: The body, or a rival, which has its own head.
        head: The head, a key of `blueprint.HEADS`.
        num_outputs: Joints or classes; channels of each level of a pyramid.
        input_size: (H, W) in pixels.

    Returns:
        params, macs, activations, kernels, depth: as in `cost.Cost`. paper_gflops: macs divided
        by 2**30. memory: `peak_memory` in bytes. latency: `latency` in seconds. A rival lacks
        activations, kernels and depth.

    Raises:
        InputError: There is no such head, a number is not a whole one of at least 1, the spec
            lacks a map that the head reads, or the image is too small.
    """
    if isinstance(spec, Rival):
        from .baselines import rival

        return profile_network(rival(spec.key, num_outputs), input_size)
    counted = cost(spec, head=head, num_outputs=num_outputs, input_size=input_size)
    names = ("params", "macs", "activations", "kernels", "depth")
    numbers = {name: getattr(counted, name) for name in names}
    return _profile(build(spec, head=head, num_outputs=num_outputs), input_size, numbers)


def profile_network(net: nn.Module, input_size: Size) -> dict[str, float]:
    """The same of a network without a spec, by torch's counter; without the last three counts."""
    counted = count_flop_counter(net, input_size)
    num_params = sum(p.numel() for p in net.parameters())
    numbers = {"params": num_params, "macs": counted.conv + counted.linear}
    return _profile(net, input_size, numbers)


def _profile(net: nn.Module, input_size: Size, counted: dict[str, int]) -> dict[str, float]:
    return {
        **counted,
        "paper_gflops": counted["macs"] / PAPER_GFLOP,
        "memory": peak_memory(net, input_size),
        "latency": latency(net, _image(input_size)),
    }


# --- everything of one network ------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """Multiply-adds of one forward pass of one image, as one tool counts them.

    Args:
        tool: Its name and release.
        total: All that it counts.
        conv: Of that, convolutions, transposed ones too.
        linear: Linear layers.
        matmul: Products of two activations.
        by_operator: Operator, as the tool names it -> its share of the total.
        skipped: Operator that ran without being counted -> how often.
        note: What its numbers hold beside multiply-adds.
        missing: Why there are no numbers, else empty.
    """

    tool: str
    total: int = 0
    conv: int = 0
    linear: int = 0
    matmul: int = 0
    by_operator: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    note: str = ""
    missing: str = ""


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


METHODS = {
    "closed form": "`Cost.memory`: parameters, what is kept for the backward pass, and gradients "
    "as far as they outlive that",
    "meta device": "most bytes of tensors alive at once, found by running the pass on tensors "
    "without data: parameters, buffers, image, activations, gradients; no optimiser state, no "
    "scratch memory of libraries",
    "tensors": "the same followed through a real pass; BatchNorm in training mode if it can be",
    "process": "a real pass in a new process: growth of its resident memory, and the parameters "
    "and buffers; scratch memory and what the allocator holds back count",
    "cuda": "torch.cuda.max_memory_allocated over a real pass: blocks of the caching allocator, "
    "scratch memory too",
}


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward pass of one image.

    Args:
        backend: What ran it, in which precision and memory format.
        device: "cpu" or "cuda".
        threads: On the CPU.
        median: Over the repeats, None if it was not measured.
        quartiles: The first and the third.
        repeats: Passes that were timed.
        warm_up: Passes before them; 0 if one pass takes longer than all may.
        missing: Why it was not measured, else empty.
    """

    backend: str
    device: str
    threads: int
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    repeats: int = 0
    warm_up: int = 0
    missing: str = ""


@dataclass(frozen=True)
class Measurement:
    """All that was measured of one network; `to_dict` is fit for JSON."""

    input_size: Size
    num_params: int
    machine: str
    counts: list[Count]
    memory: list[Memory]
    latencies: list[Latency]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _silent(step: str) -> None:
    pass


def measure(
    net: nn.Module,
    input_size: Size,
    *,
    cost: Cost | None = None,
    device: str = "cpu",
    threads: int = 1,
    seconds: float = SECONDS,
    on_step: OnStep = _silent,
) -> Measurement:
    """Count, weigh and time a network. It is left as it was.

    Args:
        net: Any module from images (1, 3, H, W) to tensors, nested as it likes.
        input_size: (H, W) in pixels.
        cost: Its closed form for the same size, if it has one.
        device: "cpu" or "cuda", of measured memory and latency.
        threads: On the CPU.
        seconds: Bound of each latency measurement; a pass that has begun is finished.
        on_step: Is told of each step before it begins.
    """
    with _threads(threads):
        counts = counters(net, input_size, cost=cost, on_step=on_step)
        weighed = memory(net, input_size, cost=cost, device=device, on_step=on_step)
    timed = latencies(
        net, input_size, device=device, threads=threads, seconds=seconds, on_step=on_step
    )
    num_params = sum(p.numel() for p in net.parameters())
    return Measurement(input_size, num_params, _machine(device), counts, weighed, timed)


def _machine(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}"


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# --- multiply-adds ------------------------------------------------------------------------------

# Operator names of the tools -> columns. Two activations are multiplied by what remains of the
# matrix products when linear layers are taken out.
CONV = {"conv", "convolution", "_convolution", "cudnn_convolution"} | {
    f"{kind}{dims}d" for kind in ("Conv", "ConvTranspose") for dims in (1, 2, 3)
}
LINEAR = {"linear", "addmm", "mm", "Linear"}
MATMUL = {"bmm", "baddbmm", "matmul", "einsum"}
# Operators that compute nothing; views are known to torch as such.
NO_WORK = {"empty", "new_empty", "empty_like", "ones", "zeros", "detach", "alias", "lift_fresh"}
# fvcore keeps silent about these: it ignores them beside the operators that only reshape.
FVCORE_SILENT = (
    *("relu", "relu_", "cat", "stack", "clamp", "clamp_", "max", "index", "gather"),
    *("masked_fill", "constant_pad_nd", "roll"),
)


def counters(
    net: nn.Module, input_size: Size, *, cost: Cost | None = None, on_step: OnStep = _silent
) -> list[Count]:
    """Multiply-adds of one image by our closed form, if given, and by each tool.

    The network counts as in evaluation, in which batches have no part.
    """
    counts = [] if cost is None else [closed_form(cost)]
    for name, (package, count) in TOOLS.items():
        on_step(f"counting with {name}")
        counts.append(_attempt(name, package, lambda run=count: run(net, input_size)))  # type: ignore[misc]
    return counts


def _attempt(name: str, package: str, count: Callable[[], Count]) -> Count:
    """The count, or what kept the tool from it."""
    if importlib.util.find_spec(package) is None:
        return Count(name, missing=_not_installed(package))
    try:
        return count()
    except Exception as error:  # a tool that fails on a network must not hide the others
        return Count(name, missing=_reason(error))


def closed_form(cost: Cost) -> Count:
    """The closed form as a `Count`; what is element-wise stays out of its total."""
    shares = {"conv": cost.conv_macs, "linear": cost.linear_macs, "matmul": cost.matmul_macs}
    note = f"without {cost.elementwise_macs:,} of BatchNorm, resizing, pooling and products of maps"
    return _counted("closed form", shares, {}, note)


def count_fvcore(net: nn.Module, input_size: Size) -> Count:
    """By fvcore, which traces a pass on real tensors; its "flop" is one multiply-add."""
    with warnings.catch_warnings(), _quiet("fvcore.nn.jit_analysis"), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations of torch.jit, in the import too
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(_real_copy(net), _image(input_size))
        silent: Counter[str] = Counter()
        for name in FVCORE_SILENT:
            analysis.set_op_handle(f"aten::{name}", _tallied(silent, name))
        shares = analysis.by_operator()
        skipped = analysis.unsupported_ops()
    named = Counter({name.removeprefix("aten::"): n for name, n in skipped.items()})
    note = "BatchNorm 2 per element, enlargement 1 or 4 per element"
    return _counted(_tool("fvcore"), shares, named + silent, note)


def _tallied(tally: Counter[str], name: str) -> Callable[[Any, Any], Counter[str]]:
    """A handle for fvcore that counts occurrences and no work."""

    def handle(inputs: Any, outputs: Any) -> Counter[str]:
        tally[name] += 1
        return Counter()

    return handle


def count_flop_counter(net: nn.Module, input_size: Size) -> Count:
    """By torch.utils.flop_counter, on the meta device; its flops are halved."""
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    counter, watch = FlopCounterMode(display=False), _Watch()
    with torch.no_grad(), counter, watch, torch.device("meta"):
        meta_copy(net)(_image(input_size))
    flops = counter.get_flop_counts().get("Global", {})
    shares = {_packet_name(op): count // 2 for op, count in flops.items()}
    return _counted(
        f"torch {torch.__version__}, flop_counter", shares, watch.without(flop_registry)
    )


def count_ptflops_aten(net: nn.Module, input_size: Size) -> Count:
    """By the aten backend of ptflops, on the meta device."""
    from ptflops.aten_engine import FlopCounterMode
    from ptflops.aten_ops import ATEN_OPS_MAPPING

    counter, watch = FlopCounterMode(output_params={"print_params": {}}), _Watch()
    with torch.no_grad(), counter, watch, torch.device("meta"):
        meta_copy(net)(_image(input_size))
    shares = {_packet_name(op): count for op, count in counter.flop_counts["Global"].items()}
    note = "biases 1 per element"
    return _counted(_tool("ptflops", "aten"), shares, watch.without(ATEN_OPS_MAPPING), note)


def count_ptflops_pytorch(net: nn.Module, input_size: Size) -> Count:
    """By the pytorch backend of ptflops: rules for modules and for patched functions.

    Real tensors: on the meta device its patches also see the inside of bilinear resizing.
    """
    from ptflops import get_model_complexity_info, pytorch_engine

    net, watch, shares = _real_copy(net), _Watch(), Counter[str]()
    rules = _watched_modules(net, watch, shares)
    wrapper = pytorch_engine.torch_function_wrapper
    call = _watched_call(wrapper.__call__, watch, shares)
    heard = io.StringIO()
    with (
        torch.no_grad(),
        mock.patch.object(wrapper, "__call__", call),
        contextlib.redirect_stdout(heard),
        contextlib.redirect_stderr(heard),
        watch,
    ):
        total, _ = get_model_complexity_info(
            net,
            (IMAGE_CHANNELS, *input_size),
            as_strings=False,
            print_per_layer_stat=False,
            backend="pytorch",
            custom_modules_hooks=rules,
        )
    if total is None:
        raise RuntimeError(heard.getvalue().strip().splitlines()[-1])
    note = "biases, BatchNorm 2, ReLU, pooling and resizing 1 per element; a ReLU module twice"
    found = _counted(_tool("ptflops", "pytorch"), shares, watch.seen, note)
    assert found.total == total
    return found


def _watched_modules(
    net: nn.Module, watch: "_Watch", shares: Counter[str]
) -> dict[type[nn.Module], Callable[..., None]]:
    """The rules of ptflops for the network's modules, so that they also fill `shares`."""
    from ptflops.pytorch_ops import MODULES_MAPPING

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        before = module.__flops__
        MODULES_MAPPING[type(module)](module, inputs, output)
        shares[type(module).__name__] += int(module.__flops__ - before)  # type: ignore[operator]
        watch.inside -= 1

    counted = [module for module in net.modules() if type(module) in MODULES_MAPPING]
    for module in counted:
        module.register_forward_pre_hook(lambda *_: watch.enter())
    return dict.fromkeys(map(type, counted), hook)


def _watched_call(
    original: Callable[..., Any], watch: "_Watch", shares: Counter[str]
) -> Callable[..., Any]:
    """The call of a function that ptflops has patched, so that it also fills `shares`."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        place = len(self.collector)
        watch.enter()
        try:
            return original(self, *args, **kwargs)
        finally:
            watch.inside -= 1
            shares[self.op.__name__] += int(self.collector[place])

    return call


TOOLS: Mapping[str, tuple[str, Callable[[nn.Module, Size], Count]]] = {
    "fvcore": ("fvcore", count_fvcore),
    "torch.utils.flop_counter": ("torch", count_flop_counter),
    "ptflops, aten": ("ptflops", count_ptflops_aten),
    "ptflops, pytorch": ("ptflops", count_ptflops_pytorch),
}


def _counted(
    tool: str, shares: Mapping[str, float], skipped: Mapping[str, int], note: str = ""
) -> Count:
    whole = {name: int(count) for name, count in shares.items() if count}
    conv, linear, matmul = (
        sum(whole.get(name, 0) for name in names) for names in (CONV, LINEAR, MATMUL)
    )
    order = dict(sorted(skipped.items(), key=lambda item: (-item[1], item[0])))
    return Count(
        tool,
        total=sum(whole.values()),
        conv=conv,
        linear=linear,
        matmul=matmul,
        by_operator=whole,
        skipped=order,
        note=note,
    )


def _packet_name(packet: Any) -> str:
    return str(packet).rpartition(".")[2]


def _tool(package: str, backend: str = "") -> str:
    name = f"{package} {importlib.metadata.version(package)}"
    return f"{name}, {backend}" if backend else name


class _Watch(TorchDispatchMode):
    """Counts the operators that run, but for views and what runs between `enter` and leaving."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0
        self.seen: Counter[str] = Counter()
        self._packets: dict[str, Any] = {}

    def enter(self) -> None:
        self.inside += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _packet_name(func._overloadpacket)
        if not self.inside and not func.is_view and name not in NO_WORK:
            self.seen[name] += 1
            self._packets[name] = func._overloadpacket
        return func(*args, **(kwargs or {}))

    def without(self, known: Mapping[Any, Any]) -> dict[str, int]:
        """What was seen and is not among the operators `known`."""
        return {name: n for name, n in self.seen.items() if self._packets[name] not in known}


# --- memory -------------------------------------------------------------------------------------


def memory(
    net: nn.Module,
    input_size: Size,
    *,
    cost: Cost | None = None,
    device: str = "cpu",
    process: bool = True,
    on_step: OnStep = _silent,
) -> list[Memory]:
    """Peak memory of training and inference, estimated and measured; see `METHODS`.

    Args:
        net: Any network.
        input_size: (H, W) in pixels.
        cost: Its closed form, if it has one.
        device: Where to measure, "cpu" or "cuda".
        process: Measure in a process of its own too (CPU).
        on_step: Is told of each step before it begins.
    """
    rows = [] if cost is None else [Memory("training", "closed form", cost.memory)]
    measured: dict[str, Measure] = {"cuda": _cuda_peak} if device == "cuda" else {}
    if device == "cpu":
        measured["tensors"] = _tensor_peak
        if process:
            measured["process"] = _process_peak
    for step, training in (("training", True), ("inference", False)):
        on_step(f"memory of {step}: meta device")
        estimate = peak_memory(net, input_size, training=training)
        rows.append(Memory(step, "meta device", estimate))
        for method, run in measured.items():
            on_step(f"memory of {step}: {method}")
            rows.append(_measured(step, method, estimate, run, net, input_size))
    return rows


Measure = Callable[[nn.Module, Size, bool], int]


def _measured(
    step: str, method: str, estimate: int, run: Measure, net: nn.Module, input_size: Size
) -> Memory:
    """The measured peak, unless the estimate says that it does not fit."""
    free = torch.cuda.mem_get_info()[0] if method == "cuda" else _free_bytes()
    if free is not None and 1.5 * estimate > free:  # scratch memory comes on top
        rule = f"needs more than {_mib(estimate)} MiB, {_mib(free)} are free"
        return Memory(step, method, None, missing=rule)
    return Memory(step, method, run(net, input_size, step == "training"))


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
        return _tracked(net, lambda: _run(net, _image(input_size, batch), training))


def _tensor_peak(net: nn.Module, input_size: Size, training: bool) -> int:
    real = _real_copy(net)
    return _tracked(real, lambda: _run_as_trained(real, _image(input_size), training))


def _tracked(net: nn.Module, run: Callable[[], None]) -> int:
    tracker = _PeakTracker()
    tracker.add([*net.parameters(), *net.buffers()])
    with tracker:
        run()
    return tracker.peak


def _run(net: nn.Module, image: Tensor, training: bool) -> None:
    """Forward and backward from the sum of all outputs, or forward alone."""
    if not training:
        with torch.inference_mode():
            net(image)
        return
    functools.reduce(torch.add, [leaf.sum() for leaf in tree_leaves(net(image))]).backward()


def _run_as_trained(net: nn.Module, image: Tensor, training: bool) -> None:
    """In training mode, unless BatchNorm refuses a map of one place."""
    try:
        _run(net.train(training), image, training)
    except ValueError:
        _run(net.eval(), image, training)


def _process_peak(net: nn.Module, input_size: Size, training: bool) -> int:
    job = pickle.dumps((_real_copy(net), input_size, training, torch.get_num_threads()))
    code = "from hrnet_search.profiling import _in_new_process; _in_new_process()"
    done = subprocess.run([sys.executable, "-c", code], input=job, capture_output=True, check=True)
    return int(done.stdout.split()[-1])


def _in_new_process() -> None:
    """Run the pass on standard input and print its peak bytes."""
    net, input_size, training, threads = pickle.loads(sys.stdin.buffer.read())  # noqa: S301
    torch.set_num_threads(threads)
    small = nn.Conv2d(3, 8, 3)  # loads what the libraries load once
    _run(small, torch.zeros(1, 3, 8, 8), True)
    image = _image(input_size)
    before = _resident()
    _run_as_trained(net, image, training)
    held = sum(t.nbytes for t in (*net.parameters(), *net.buffers()))
    print(held + image.nbytes + max(0, _resident(peak=True) - before))


def _resident(peak: bool = False) -> int:
    """Bytes of this process in memory now, or the most so far; without /proc always the latter.

    `getrusage` is no use where /proc is: a new process inherits its parent's peak there.
    """
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return _kibibytes(text, "VmHWM:" if peak else "VmRSS:")


def _kibibytes(text: str, name: str) -> int:
    """The entry of that name, in bytes, of a file of /proc."""
    (entry,) = (line for line in text.splitlines() if line.startswith(name))
    return int(entry.split()[1]) * 1024


def _cuda_peak(net: nn.Module, input_size: Size, training: bool) -> int:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    real, image = _real_copy(net).to("cuda"), _image(input_size).to("cuda")
    torch.cuda.reset_peak_memory_stats()
    _run_as_trained(real, image, training)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _free_bytes() -> int | None:
    """Memory that is free or can be made free, if the system tells."""
    try:
        return _kibibytes(Path("/proc/meminfo").read_text(), "MemAvailable:")
    except OSError:
        return None


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


# --- latency ------------------------------------------------------------------------------------

EAGER: Mapping[str, tuple[torch.dtype, torch.memory_format]] = {
    "eager, float32, contiguous": (torch.float32, torch.contiguous_format),
    "eager, float32, channels-last": (torch.float32, torch.channels_last),
    "eager, bfloat16 autocast, channels-last": (torch.bfloat16, torch.channels_last),
}
ONNX = "ONNX Runtime, float32"


def latency(net: nn.Module, image: Tensor) -> float:
    """Median seconds of a forward pass: eager, float32, one thread, channels-last.

    Args:
        net: Any network; it is put into evaluation and the memory format.
        image: (B, 3, H, W).
    """
    net = net.eval().to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), _threads(1):
        return statistics.median(_times(lambda: net(image), SECONDS)[1])


def latencies(
    net: nn.Module,
    input_size: Size,
    *,
    device: str = "cpu",
    threads: int = 1,
    seconds: float = SECONDS,
    on_step: OnStep = _silent,
) -> list[Latency]:
    """Latency of one image in each backend that is at hand; the others say why they are not."""
    rows = []
    for backend, (dtype, layout) in EAGER.items():
        on_step(f"latency: {backend}")
        row = Latency(backend, device, threads)
        if dtype is torch.bfloat16 and not _multiplies_bfloat16(device):
            reason = "not available: the hardware has no bfloat16 arithmetic"
            rows.append(_with(row, missing=reason))
            continue
        with _eager(net, input_size, device, dtype, layout) as run:
            rows.append(_measure_latency(row, run, seconds))
    on_step(f"latency: {ONNX}")
    rows.append(_onnx_latency(net, input_size, threads, seconds))
    return rows


def _with(row: Latency, **changes: Any) -> Latency:
    return Latency(**{**vars(row), **changes})


def _measure_latency(row: Latency, run: Callable[[], object], seconds: float) -> Latency:
    with _threads(row.threads):
        warm_up, times = _times(run, seconds)
    low, middle, high = _quartiles(times)
    return _with(row, median=middle, quartiles=(low, high), repeats=len(times), warm_up=warm_up)


def _quartiles(times: list[float]) -> list[float]:
    if len(times) == 1:
        return times * 3
    return statistics.quantiles(times, n=4, method="inclusive")


def _times(run: Callable[[], object], seconds: float) -> tuple[int, list[float]]:
    """Number of passes to warm up, and seconds of each pass after them.

    At most `WARM_UP` and `REPEATS`, and none is begun after `seconds`; if the first pass takes
    longer, it is the measurement.
    """
    warm = [_clock(run)]
    if warm[0] > seconds:
        return 0, warm
    while len(warm) < WARM_UP and sum(warm) < seconds / 4:
        warm.append(_clock(run))
    times = [_clock(run)]
    while len(times) < REPEATS and sum(warm) + sum(times) < seconds:
        times.append(_clock(run))
    return len(warm), times


def _clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@contextlib.contextmanager
def _eager(
    net: nn.Module, input_size: Size, device: str, dtype: torch.dtype, layout: torch.memory_format
) -> Iterator[Callable[[], None]]:
    """A forward pass that returns when it is done."""
    real = _real_copy(net).to(device, memory_format=layout)  # type: ignore[call-overload]
    image = _image(input_size).to(device, memory_format=layout)

    def run() -> None:
        real(image)
        if device == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype is torch.bfloat16):
        yield run


def _multiplies_bfloat16(device: str) -> bool:
    from .training import _has_bfloat16

    return _has_bfloat16(device)


def _onnx_latency(net: nn.Module, input_size: Size, threads: int, seconds: float) -> Latency:
    """On the CPU, whatever device the others ran on."""
    row = Latency(ONNX, "cpu", threads)
    absent = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if absent:
        return _with(row, missing=_not_installed(*absent))
    try:
        with _onnx_session(net, input_size, threads) as run:
            return _measure_latency(row, run, seconds)
    except Exception as error:  # not every network can be exported
        return _with(row, missing=_reason(error))


@contextlib.contextmanager
def _onnx_session(net: nn.Module, input_size: Size, threads: int) -> Iterator[Callable[[], object]]:
    """A forward pass in ONNX Runtime, exported by tracing: the fast way, without onnxscript."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    image = _image(input_size)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's, on tracing and on its age
            torch.onnx.export(_real_copy(net), (image,), str(file), dynamo=False)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: image.numpy()}
        yield lambda: session.run(None, feed)


# --- shown as text ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Rows of text under a header, and lines below them."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: list[str] = field(default_factory=list)


def tables(measured: Measurement) -> list[Table]:
    """What was measured, as text: multiply-adds, skipped operators, memory, latency."""
    return [
        _table_of_counts(measured.counts),
        _table_of_operators(measured.counts),
        _table_of_memory(measured.memory),
        _table_of_latency(measured.latencies, measured.machine),
    ]


def render(measured: Measurement) -> str:
    """The tables as plain text."""
    height, width = measured.input_size
    lines = [f"{measured.num_params:,} parameters, one image of {height} x {width}"]
    for table in tables(measured):
        lines += ["", table.title, *_aligned([table.header, *table.rows]), *table.notes]
    return "\n".join(lines)


def _table_of_counts(counts: Sequence[Count]) -> Table:
    header = ("counter", "conv", "linear", "matmul", "other", "total", "conv + linear / 2^30")
    rows = []
    for c in counts:
        numbers = (c.conv, c.linear, c.matmul, c.total - c.conv - c.linear - c.matmul, c.total)
        cells = (*(f"{n:,}" for n in numbers), f"{(c.conv + c.linear) / PAPER_GFLOP:.3f}")
        rows.append((c.tool, *(("-",) * len(cells) if c.missing else cells)))
    notes = [f"{c.tool}: {c.missing or c.note}" for c in counts if c.missing or c.note]
    return Table("Multiply-adds of a forward pass", header, rows, notes)


def _table_of_operators(counts: Sequence[Count]) -> Table:
    rows = []
    for c in counts:
        if not c.missing:
            counted = ", ".join(f"{name} {macs:,}" for name, macs in c.by_operator.items())
            skipped = ", ".join(f"{name} x{n}" for name, n in c.skipped.items())
            rows += [(c.tool, "counts", counted), *([("", "skips", skipped)] if skipped else [])]
    return Table("Operators", ("counter", "", "operators"), rows)


def _table_of_memory(memory: Sequence[Memory]) -> Table:
    rows = [
        (row.step, row.method, row.missing if row.nbytes is None else _mib(row.nbytes))
        for row in memory
    ]
    methods = dict.fromkeys(row.method for row in memory)
    notes = [f"{method}: {METHODS[method]}" for method in methods]
    return Table("Peak memory, one image in float32", ("step", "method", "MiB"), rows, notes)


def _table_of_latency(latencies: Sequence[Latency], machine: str) -> Table:
    header = ("backend", "device", "threads", "median ms", "quartiles", "passes", "after")
    rows = []
    for row in latencies:
        cells = (row.backend, row.device, str(row.threads))
        if row.median is None or row.quartiles is None:
            rows.append((*cells, "-", "-", "-", "-"))
            continue
        low, high = (f"{1e3 * value:.2f}" for value in row.quartiles)
        spread, passes = f"{low} to {high}", (str(row.repeats), str(row.warm_up))
        rows.append((*cells, f"{1e3 * row.median:.2f}", spread, *passes))
    notes = [f"{row.backend}: {row.missing}" for row in latencies if row.missing]
    return Table("Latency of one image", header, rows, [machine, *notes])


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns under each other: numbers to the right, words to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = [
        all(cell[:1].isdigit() or cell in ("-", "") for cell in column)
        for column in zip(*rows[1:], strict=True)
    ] or [False] * len(widths)
    lines = []
    for row in rows:
        cells = zip(row, widths, numeric, strict=True)
        padded = (cell.rjust(w) if right else cell.ljust(w) for cell, w, right in cells)
        lines.append("  ".join(padded).rstrip())
    return lines


def _mib(nbytes: int) -> str:
    return f"{nbytes / MIB:,.1f}"


# --- networks and surroundings ------------------------------------------------------------------


def meta_copy(net: nn.Module) -> nn.Module:
    """A copy in evaluation whose parameters and buffers have no data."""
    memo: dict[int, Any] = {}
    for parameter in net.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
    for buffer in net.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(net, memo).eval()


def _real_copy(net: nn.Module) -> nn.Module:
    """A copy in evaluation on the CPU; tools leave hooks and attributes behind."""
    return copy.deepcopy(net).cpu().eval()


def _image(input_size: Size, batch: int = 1) -> Tensor:
    return torch.zeros(batch, IMAGE_CHANNELS, *input_size)


def _not_installed(*packages: str) -> str:
    return f"not installed: pip install {' '.join(packages)}"


def _reason(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"failed: {type(error).__name__}: {lines[0]}"


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
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
