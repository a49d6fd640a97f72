"""Training of one network, readable top to bottom."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR, PolynomialLR

from .settings import Train
from .tasks.base import Task

MOMENTUM = 0.9  # of SGD, in all recipes of the paper (sections 5 and 6)
POLY_POWER = 0.9  # of the paper's segmentation schedule (section 5)
WARM_UP = 0.3  # share of a one-cycle schedule spent rising

CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86, ARM

Report = Callable[[dict[str, float]], None]


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Hardware:
    """What a network runs on and how: every choice made, nothing left automatic."""

    device: str
    precision: str
    memory_format: str

    @property
    def layout(self) -> torch.memory_format:
        channels_last = self.memory_format == "channels_last"
        return torch.channels_last if channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


def choose_hardware(settings: Train) -> Hardware:
    """A GPU if there is one; bfloat16 where the hardware multiplies it; channels-last.

    Without such instructions bfloat16 is several times slower than float32 on a CPU.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision, memory_format = settings.precision, settings.memory_format
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) else "float32"
    if memory_format == "auto":
        memory_format = "channels_last"
    return Hardware(device, precision, memory_format)


def has_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: Mapping[str, object] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # older releases do not tell
    return any(capabilities.get(name) for name in CPU_BFLOAT16)


def train(
    model: nn.Module, task: Task, settings: Train, *, seed: int, hardware: Hardware, report: Report
) -> dict[str, float]:
    """Train `model` in place.

    Args:
        model: Initialised network.
        task: Batches, loss, evaluation.
        settings: The study's `train`.
        seed: Decides the order of the data and the augmentation.
        hardware: Where and in which precision.
        report: Called about fifty times with step, loss, and at evaluations the metrics.

    Returns:
        The metrics after the last step.

    Raises:
        Diverged: The loss became infinite or NaN.
    """
    torch.manual_seed(seed)
    model.to(hardware.device, memory_format=hardware.layout)  # type: ignore[call-overload]
    optimizer = make_optimizer(model, settings)
    schedule = make_schedule(optimizer, settings)
    points = evaluation_steps(settings)
    interval = max(1, settings.steps // 50)
    metrics: dict[str, float] = {}
    recent: list[float] = []
    for step in range(1, settings.steps + 1):
        images, target = task.batch(step - 1, size=settings.batch_size, seed=seed)
        images = images.to(hardware.device, memory_format=hardware.layout)
        model.train()
        with hardware.autocast():
            output = model(images)
        loss = task.loss(output.float(), _move(target, hardware.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if not math.isfinite(recent[-1]):
            raise Diverged(f"the loss is {recent[-1]} at step {step}; a smaller train.lr may help")
        if step in points:
            metrics = evaluate(model, task, hardware)
        if step in points or step % interval == 0:
            entry = {"step": step, "loss": sum(recent) / len(recent)}
            report(entry | metrics if step in points else entry)
            recent = []
    return metrics


def evaluate(model: nn.Module, task: Task, hardware: Hardware) -> dict[str, float]:
    """Metrics of `model` on the validation data."""
    model.eval()

    def predict(images: Tensor) -> Tensor:
        with torch.inference_mode(), hardware.autocast():
            return model(images.to(hardware.device, memory_format=hardware.layout))

    return task.evaluate(predict)


def evaluation_steps(settings: Train) -> set[int]:
    """Steps after which the network is evaluated: evenly spaced, the last step among them."""
    count = settings.evaluations
    return {math.ceil(settings.steps * place / count) for place in range(1, count + 1)}


def make_optimizer(model: nn.Module, settings: Train) -> torch.optim.Optimizer:
    # Fused: hundreds of small tensors cost a tenth of a step otherwise, on a CPU.
    common: dict[str, Any] = {
        "lr": settings.lr,
        "weight_decay": settings.weight_decay,
        "fused": True,
    }
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=MOMENTUM, **common)
    optimizer = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return optimizer(model.parameters(), **common)


def make_schedule(optimizer: torch.optim.Optimizer, settings: Train) -> LRScheduler:
    if settings.schedule == "one_cycle":
        return OneCycleLR(optimizer, settings.lr, total_steps=settings.steps + 1, pct_start=WARM_UP)
    if settings.schedule == "poly":
        return PolynomialLR(optimizer, settings.steps, power=POLY_POWER)
    return ConstantLR(optimizer, factor=1.0)


def _move(target: Tensor | tuple[Tensor, ...], device: str) -> Tensor | tuple[Tensor, ...]:
    if isinstance(target, tuple):
        return tuple(part.to(device) for part in target)
    return target.to(device)
