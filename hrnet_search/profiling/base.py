"""What counting, weighing and timing share: copies of a network, images, tools that may fail."""

import contextlib
import copy
import importlib.util
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..blueprint import IMAGE_CHANNELS
from ..cost import Size

MIB = 2**20

OnStep = Callable[[str], None]  # is told of each step before it begins
Found = TypeVar("Found")


def silent(step: str) -> None:
    """For who does not want to be told."""


def meta_copy(net: nn.Module) -> nn.Module:
    """A copy in evaluation whose parameters and buffers have no data."""
    memo: dict[int, Any] = {}
    for parameter in net.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
    for buffer in net.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(net, memo).eval()


def real_copy(net: nn.Module) -> nn.Module:
    """A copy in evaluation on the CPU; tools leave hooks and attributes behind."""
    return copy.deepcopy(net).cpu().eval()


def image(input_size: Size, batch: int = 1) -> Tensor:
    return torch.zeros(batch, IMAGE_CHANNELS, *input_size)


def mib(nbytes: int) -> str:
    return f"{nbytes / MIB:,.1f}"


def attempt(run: Callable[[], Found], *packages: str) -> Found | str:
    """What `run`, which needs these packages, returns, or why it does not."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: pip install {' '.join(absent)}"
    try:
        return run()
    except Exception as error:  # a tool that fails on a network must not hide the others
        first_line = str(error).partition("\n")[0]
        return f"failed: {type(error).__name__}: {first_line}"


def cpu_name() -> str:
    """The processor as the system names it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
