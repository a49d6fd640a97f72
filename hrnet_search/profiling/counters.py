"""Multiply-adds of a network: ours, and as fvcore, torch and ptflops count them."""

import contextlib
import functools
import io
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..blueprint import IMAGE_CHANNELS
from ..cost import Cost, Size
from .base import OnStep, attempt, image, meta_copy, real_copy, silent

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


@dataclass(frozen=True)
class Count:
    """Multiply-adds of one forward pass of one image, as one tool counts them.

    Args:
        tool: Its name and release.
        by_operator: Operator, as the tool names it -> multiply-adds.
        skipped: Operator that ran without being counted -> how often.
        note: What its numbers hold beside multiply-adds.
        missing: Why there are no numbers, else empty.
    """

    tool: str
    by_operator: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    missing: str = ""

    @property
    def total(self) -> int:
        return sum(self.by_operator.values())

    @property
    def conv(self) -> int:
        """Convolutions, transposed ones too."""
        return self._sum(CONV)

    @property
    def linear(self) -> int:
        return self._sum(LINEAR)

    @property
    def matmul(self) -> int:
        """Products of two activations."""
        return self._sum(MATMUL)

    def _sum(self, names: set[str]) -> int:
        return sum(n for name, n in self.by_operator.items() if name in names)


def counts(
    net: nn.Module, input_size: Size, on_step: OnStep = silent, *, lack: str = ""
) -> list[Count]:
    """Multiply-adds of one image by each tool, in evaluation, in which batches have no part.

    Args:
        net: Any network.
        input_size: (H, W) in pixels.
        on_step: Is told of each step before it begins.
        lack: Why no pass on real tensors may be run, else empty.
    """
    rows = []
    for name, (package, count) in TOOLS.items():
        if lack and name in ON_TENSORS:
            rows.append(Count(name, missing=lack))
            continue
        on_step(f"counting with {name}")
        found = attempt(functools.partial(count, net, input_size), package)
        rows.append(Count(name, missing=found) if isinstance(found, str) else found)
    return rows


def count_closed_form(cost: Cost) -> Count:
    """The closed form as a `Count`; what is element-wise stays out of its total."""
    shares = {"conv": cost.conv_macs, "linear": cost.linear_macs, "matmul": cost.matmul_macs}
    note = f"without {cost.elementwise_macs:,} of BatchNorm, resizing, pooling and products of maps"
    return Count("closed form", _whole(shares), note=note)


def count_fvcore(net: nn.Module, input_size: Size) -> Count:
    """By fvcore, which traces a pass on real tensors; its "flop" is one multiply-add."""
    silent_ones: Counter[str] = Counter()

    def handle(name: str, inputs: Any, outputs: Any) -> Counter[str]:
        silent_ones[name] += 1
        return Counter()

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations of torch.jit, in the import too
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(real_copy(net), image(input_size))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        for name in FVCORE_SILENT:
            analysis.set_op_handle(f"aten::{name}", functools.partial(handle, name))
        shares = analysis.by_operator()
        skipped = analysis.unsupported_ops()
    named = Counter({name.removeprefix("aten::"): n for name, n in skipped.items()})
    note = "BatchNorm 2 per element, enlargement 1 or 4 per element"
    return Count(f"fvcore {version('fvcore')}", _whole(shares), dict(named + silent_ones), note)


def count_flop_counter(net: nn.Module, input_size: Size) -> Count:
    """By torch.utils.flop_counter, on the meta device; its flops are halved."""
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    counter, watch = FlopCounterMode(display=False), _Watch()
    with torch.no_grad(), counter, watch, torch.device("meta"):
        meta_copy(net)(image(input_size))
    shares = macs_by_operator(counter)
    tool = f"torch {torch.__version__}, flop_counter"
    return Count(tool, _whole(shares), watch.without(flop_registry))


def macs_by_operator(counter: Any) -> dict[str, int]:
    """Multiply-adds that a `FlopCounterMode` of torch has seen."""
    flops = counter.get_flop_counts().get("Global", {})
    return {_packet_name(op): count // 2 for op, count in flops.items()}


def count_ptflops_aten(net: nn.Module, input_size: Size) -> Count:
    """By the aten backend of ptflops, on the meta device."""
    from ptflops.aten_engine import FlopCounterMode
    from ptflops.aten_ops import ATEN_OPS_MAPPING

    counter, watch = FlopCounterMode(output_params={"print_params": {}}), _Watch()
    with torch.no_grad(), counter, watch, torch.device("meta"):
        meta_copy(net)(image(input_size))
    shares = {_packet_name(op): count for op, count in counter.flop_counts["Global"].items()}
    tool, note = f"ptflops {version('ptflops')}, aten", "biases 1 per element"
    return Count(tool, _whole(shares), watch.without(ATEN_OPS_MAPPING), note)


def count_ptflops_pytorch(net: nn.Module, input_size: Size) -> Count:
    """By the pytorch backend of ptflops: rules for modules and for patched functions.

    Real tensors: on the meta device its patches also see the inside of bilinear resizing.
    """
    from ptflops import get_model_complexity_info, pytorch_engine

    net, watch, shares = real_copy(net), _Watch(), Counter[str]()
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
    found = Count(f"ptflops {version('ptflops')}, pytorch", _whole(shares), dict(watch.seen), note)
    assert found.total == total
    return found


TOOLS: Mapping[str, tuple[str, Callable[[nn.Module, Size], Count]]] = {  # name -> package, count
    "fvcore": ("fvcore", count_fvcore),
    "torch.utils.flop_counter": ("torch", count_flop_counter),
    "ptflops, aten": ("ptflops", count_ptflops_aten),
    "ptflops, pytorch": ("ptflops", count_ptflops_pytorch),
}
ON_TENSORS = {"fvcore", "ptflops, pytorch"}  # those that run a pass; the others need no memory


def _whole(shares: Mapping[str, float]) -> dict[str, int]:
    return {name: int(count) for name, count in shares.items() if count}


def _packet_name(packet: Any) -> str:
    return str(packet).rpartition(".")[2]


class _Watch(TorchDispatchMode):
    """Counts the operators that run, but for views and what runs between `enter` and `leave`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self._inside = 0
        self._packets: dict[str, Any] = {}

    def enter(self, *_: object) -> None:
        self._inside += 1

    def leave(self) -> None:
        self._inside -= 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _packet_name(func._overloadpacket)
        if not self._inside and not func.is_view and name not in NO_WORK:
            self.seen[name] += 1
            self._packets[name] = func._overloadpacket
        return func(*args, **(kwargs or {}))

    def without(self, known: Mapping[Any, Any]) -> dict[str, int]:
        """What was seen and is not among the operators `known`."""
        return {name: n for name, n in self.seen.items() if self._packets[name] not in known}


def _watched_modules(
    net: nn.Module, watch: _Watch, shares: Counter[str]
) -> dict[type[nn.Module], Callable[..., None]]:
    """The rules of ptflops for the network's modules, so that they also fill `shares`."""
    from ptflops.pytorch_ops import MODULES_MAPPING

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        before = module.__flops__
        MODULES_MAPPING[type(module)](module, inputs, output)
        shares[type(module).__name__] += int(module.__flops__ - before)  # type: ignore[operator]
        watch.leave()

    counted = [module for module in net.modules() if type(module) in MODULES_MAPPING]
    for module in counted:
        module.register_forward_pre_hook(watch.enter)
    return dict.fromkeys(map(type, counted), hook)


def _watched_call(
    original: Callable[..., Any], watch: _Watch, shares: Counter[str]
) -> Callable[..., Any]:
    """The call of a function that ptflops has patched, so that it also fills `shares`."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        place = len(self.collector)
        watch.enter()
        try:
            return original(self, *args, **kwargs)
        finally:
            watch.leave()
            shares[self.op.__name__] += int(self.collector[place])

    return call
