"""Training of one network, readable top to bottom.

One loop for all tasks. What a step does depends on the settings, the seed and the step's number
alone, so that a training goes on from its checkpoint as if it had never been interrupted.
"""

import io
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from .detectors import Detector
from .errors import InputError
from .files import write_atomic
from .settings import Train
from .tasks.base import WHOLE, Part, Task

MOMENTUM = 0.9  # of SGD, in all recipes of the paper (sections 5 and 6)
POLY_POWER = 0.9  # of the paper's segmentation schedule (section 5)
STEP_FACTOR = 0.1  # of the rate at each milestone, in the paper's pose recipe (section 4)
ONE_CYCLE_RISE = 0.3  # share of a one-cycle schedule spent rising
WARM_UP_FROM = 1 / 3  # of the rate, as the paper's detection schedule (mmdetection's configs)

REPORTS = 50  # in a training, about
LOOK = 20  # steps on a GPU between two looks at the losses
TOO_LARGE = 100  # times the first loss: no network that learns stays above that
PATIENCE = 50  # steps, or a tenth of the training if that is more, that it may
ASK_SECONDS = 1.0  # between two looks at what a driver wants
MAX_SEED = 1000  # seeds of a study are below

CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86, ARM
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}

Report = Callable[[dict[str, float]], None]
log = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """The loss or an output is no finite number any more, or the loss is out of all proportion."""

    def __init__(self, what: str) -> None:
        help_ = "a smaller train.lr, a longer train.warmup or clipping (train.clip_norm) may help"
        super().__init__(f"{what}; {help_}")


class Paused(Exception):
    """The training was saved and left, to go on later."""


class TooLong(RuntimeError):
    """The training took longer than it may."""


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

    def take(self, images: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """What a network is called with, brought to the device: images (B, 3, H, W) first."""
        moved = images.to(self.device, memory_format=self.layout, non_blocking=True)
        return moved, *(other.to(self.device, non_blocking=True) for other in others)

    def autocast(self) -> torch.autocast:
        half = HALVES.get(self.precision)
        return torch.autocast(self.device, half or torch.bfloat16, enabled=half is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps gradients in the range of float16; does nothing in other precisions."""
        return torch.amp.GradScaler(self.device, enabled=self.precision == "float16")


def choose_hardware(settings: Train) -> Hardware:
    """A GPU if there is one; half precision where the hardware has it; channels-last.

    Without instructions for it bfloat16 is several times slower than float32 on a CPU.

    Raises:
        InputError: float16 is asked for without a GPU.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision: str = settings.precision
    memory_format: str = settings.memory_format
    if precision == "auto":
        otherwise = "float16" if device == "cuda" else "float32"
        precision = "bfloat16" if has_bfloat16(device) else otherwise
    if precision == "float16" and device == "cpu":
        rule = "needs a GPU; choose auto, float32 or bfloat16"
        raise InputError(rule, key="train.precision", value=precision)
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


def total_steps(settings: Train, num_train: int) -> int:
    """Optimiser steps on `num_train` samples.

    Raises:
        InputError: The epochs make fewer than the warm-up or the evaluations need.
    """
    total = settings.total_steps(num_train)
    for key, least in (("warmup", settings.warmup + 1), ("evaluations", settings.evaluations)):
        if least > total:
            rule = f"is too much for the {total} steps that {settings.epochs} epochs make"
            raise InputError(rule, key=f"train.{key}", value=getattr(settings, key))
    return total


# --- the loop ----------------------------------------------------------------------------------


def train(
    model: nn.Module,
    task: Task,
    settings: Train,
    *,
    seed: int,
    hardware: Hardware,
    report: Report,
    folder: Path | None = None,
    checkpoint: "Checkpoint | None" = None,
    part: Part = WHOLE,
) -> dict[str, float]:
    """Train `model` in place; with `settings.ema` it ends as the average.

    Args:
        model: Initialised network.
        task: Batches, loss, evaluation.
        settings: The study's `train`.
        seed: Decides the order of the data, the augmentation and what is random in the network.
        hardware: Where and in which precision.
        report: Called about fifty times with step, mean loss since the last time, and at
            evaluations the metrics.
        folder: Where the last evaluation leaves its predictions.
        checkpoint: Where training is saved, and goes on from if something is there.
        part: (rank, processes): every process of a group (`join`) calls this alike; the first
            evaluates and saves. Random numbers inside the network are each process's own.

    Returns:
        The metrics after the last step; none in other processes than the first.

    Raises:
        Diverged: The loss became infinite or NaN, or stayed too large (`Watch`), or an output in
            an evaluation is.
        Paused, TooLong: As `checkpoint` was told.
    """
    rank, _ = part
    torch.manual_seed(seed + MAX_SEED * rank)
    total = total_steps(settings, task.num_train)
    points, interval = evaluation_steps(settings, total), max(1, total // REPORTS)
    state = begin(model, settings, hardware, num_train=task.num_train, part=part)
    if checkpoint is not None and (content := checkpoint.take()):
        state.load(content, rank)
    every = steps_unseen(settings, hardware)
    data = batches(task, settings, seed=seed, steps=range(state.step, total), part=part)
    for inputs, target in data:
        state.step += 1
        state.watch.add(update(state, task, inputs, target))
        evaluated = state.step in points
        reported = evaluated or state.step % interval == 0
        if not (reported or state.step % every == 0):
            continue
        save = state.watch.look(state.step, checkpoint is not None and checkpoint.due())
        if evaluated and rank == 0:
            out = folder if state.step == total else None
            state.metrics = evaluate(state.tested, task, hardware, out=out)
        if reported:
            entry = {"step": state.step, "loss": state.watch.mean()}
            report(entry | state.metrics if evaluated else entry)
        if checkpoint is not None and save:
            checkpoint.write(state, rank)
    if state.average is not None:
        model.load_state_dict(state.average.module.state_dict())
    return state.metrics


def steps_unseen(settings: Train, hardware: Hardware) -> int:
    """Steps between two looks at the losses: on a GPU each look waits for it."""
    return LOOK if hardware.device == "cuda" and settings.checkpoint_minutes > 0 else 1


def update(state: "State", task: Task, inputs: Any, target: Any) -> Tensor:
    """One step of the optimiser on one batch; its loss, still on the device."""
    settings, hardware = state.settings, state.hardware
    inputs = hardware.take(*inputs) if isinstance(inputs, tuple | list) else hardware.take(inputs)
    target = _each(lambda t: t.to(hardware.device, non_blocking=True), target)
    state.shared.train()
    state.optimizer.zero_grad()
    total = torch.zeros((), device=hardware.device)
    for place in range(settings.accumulate):
        piece = _cut(place, settings.accumulate)
        with state.exchange(place == settings.accumulate - 1):
            with hardware.autocast():
                output = state.shared(*_each(piece, inputs))
            loss = task.loss(_each(Tensor.float, output), _each(piece, target))
            loss = loss / settings.accumulate
            state.scaler.scale(loss).backward()
        total = total + loss.detach()
    if settings.clip_norm:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.schedule.step()
    if state.average is not None:
        state.average.update_parameters(state.model)
    return total


def evaluate(
    model: nn.Module, task: Task, hardware: Hardware, *, out: Path | None = None
) -> dict[str, float]:
    """Metrics of `model` on the validation data; predictions go to the folder `out`.

    Raises:
        Diverged: The network puts out NaN or infinity, which a metric need not show: the largest
            of scores that are none is some class all the same.
    """
    model.eval()

    def predict(*inputs: Tensor) -> Any:
        with torch.inference_mode(), hardware.autocast():
            output = model(*hardware.take(*inputs))
            _check_finite(output)
            return output

    with _features_checked(model):
        return task.evaluate(predict, out=out)


def _check_finite(output: Any) -> None:
    finite = [tensor.isfinite().all() for tensor in _tensors(output) if tensor.is_floating_point()]
    if finite and not bool(torch.stack(finite).all()):
        raise Diverged("the network puts out numbers that are none")


@contextmanager
def _features_checked(model: nn.Module) -> Iterator[None]:
    """Look at a detector's pyramid as well: what is no number, its outputs leave out."""
    if not isinstance(model, Detector):
        yield
        return
    hook = model.backbone.register_forward_hook(lambda _module, _inputs, maps: _check_finite(maps))
    try:
        yield
    finally:
        hook.remove()


def evaluation_steps(settings: Train, total: int) -> set[int]:
    """Steps after which the network is evaluated: evenly spaced, the last step among them."""
    count = settings.evaluations
    return {math.ceil(total * place / count) for place in range(1, count + 1)}


# --- data --------------------------------------------------------------------------------------


class Batches(Dataset[tuple[Tensor, Any]]):
    """Step -> its batch, in this process or in one that loads ahead."""

    def __init__(self, task: Task, *, size: int, seed: int, part: Part) -> None:
        self.task, self.size, self.seed, self.part = task, size, seed, part

    def __getitem__(self, step: int) -> tuple[Tensor, Any]:
        return self.task.batch(step, size=self.size, seed=self.seed, part=self.part)


def batches(
    task: Task, settings: Train, *, seed: int, steps: range, part: Part
) -> Iterable[tuple[Tensor, Any]]:
    """The batches of these steps (from 0), in order; the same with any number of workers."""
    workers = settings.workers
    return DataLoader(
        Batches(task, size=settings.batch_size, seed=seed, part=part),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it would draw from ours
        # Forked: they share the memory map of the data, which would be copied into a new process.
        multiprocessing_context="fork" if workers else None,
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _cut(place: int, parts: int) -> Callable[[Tensor], Tensor]:
    """What takes one of so many equal parts out of a batch."""
    return lambda tensor: tensor if parts == 1 else tensor.chunk(parts)[place]


def _tensors(value: Any) -> Iterator[Tensor]:
    """All in a dict, tuple or list, at any depth."""
    if isinstance(value, Tensor):
        yield value
    else:
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)


def _each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`change` applied to a tensor, or to all in a dict or tuple (a loader may make it a list)."""
    if isinstance(value, dict):
        return {name: _each(change, part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_each(change, part) for part in value)
    return change(value)


# --- state -------------------------------------------------------------------------------------


@dataclass
class Watch:
    """The losses of a training; ends it when it has diverged.

    It has if a loss is no finite number, or if none was below `TOO_LARGE` times the first for
    `patience` steps. A spike, however high, is not enough.

    Args:
        patience: In steps.
        processes: Whose losses are averaged.
    """

    patience: int
    processes: int = 1
    unseen: list[Tensor] = field(default_factory=list)  # on the device, of the latest steps
    recent: list[float] = field(default_factory=list)  # those not reported yet
    first: float = 0.0  # the first above 0
    good: int = 0  # the last step whose loss was not too large

    def add(self, loss: Tensor) -> None:
        self.unseen.append(loss)

    def look(self, step: int, wish: bool = False) -> bool:
        """Fetch the losses up to `step`; returns the wish of the first process.

        Raises:
            Diverged: See above.
        """
        values = torch.stack([*self.unseen, torch.full_like(self.unseen[0], wish)])
        if self.processes > 1:
            values[-1] *= distributed.get_rank() == 0
            distributed.all_reduce(values)
            values[:-1] /= self.processes
        *losses, agreed = values.tolist()
        for place, loss in enumerate(losses, start=step - len(losses) + 1):
            self._check(place, loss)
        self.recent += losses
        self.unseen = []
        return agreed > 0

    def mean(self) -> float:
        """Of all losses since the last call."""
        mean = sum(self.recent) / len(self.recent)
        self.recent = []
        return mean

    def _check(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {step}")
        self.first = self.first or max(loss, 0.0)
        if loss <= TOO_LARGE * self.first:
            self.good = step
        elif step - self.good >= self.patience:
            large = f"above {TOO_LARGE} times the first loss ({self.first:.3g})"
            raise Diverged(f"the loss has been {large} from step {self.good + 1} to {step}")


@dataclass
class State:
    """Everything that changes while a network is trained.

    Args:
        model: The network itself.
        shared: The same, or what exchanges its gradients with other processes.
        average: Moving average of the weights, or None.
        metrics: Of the last evaluation.
    """

    settings: Train
    hardware: Hardware
    model: nn.Module
    shared: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    watch: Watch
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def tested(self) -> nn.Module:
        """The network that is tested and kept."""
        return self.model if self.average is None else self.average.module

    def exchange(self, now: bool) -> AbstractContextManager[None]:
        """Whether a backward pass inside exchanges gradients with other processes."""
        if now or not isinstance(self.shared, DistributedDataParallel):
            return nullcontext()
        return self.shared.no_sync()

    def content(self) -> dict[str, Any]:
        """Tensors, numbers and text alone."""
        watch = {k: getattr(self.watch, k) for k in ("recent", "first", "good")}
        return {
            **{name: part.state_dict() for name, part in self._parts().items()},
            "watch": watch,
            "step": self.step,
            "metrics": self.metrics,
        }

    def load(self, content: dict[str, Any], rank: int) -> None:
        """The opposite of `content`, with the random numbers of `Checkpoint.write`."""
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        for name, value in content["watch"].items():
            setattr(self.watch, name, value)
        self.step = content["step"]
        self.metrics = content["metrics"] if rank == 0 else {}
        set_random_state(content["random"][rank])

    def _parts(self) -> dict[str, Any]:
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
        }
        return parts if self.average is None else {**parts, "average": self.average}


def begin(
    model: nn.Module, settings: Train, hardware: Hardware, *, num_train: int, part: Part = WHOLE
) -> State:
    """The state before the first step; `model` is moved to its device."""
    _, processes = part
    model.to(hardware.device, memory_format=hardware.layout)  # type: ignore[call-overload]
    average = None
    if processes > 1 and hardware.device == "cuda":  # keeps each layer's momentum
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if settings.ema:
        decay = get_ema_multi_avg_fn(settings.ema)
        average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
    optimizer = make_optimizer(model, settings)
    return State(
        settings=settings,
        hardware=hardware,
        model=model,
        shared=DistributedDataParallel(model) if processes > 1 else model,
        optimizer=optimizer,
        schedule=make_schedule(optimizer, settings, num_train),
        scaler=hardware.scaler(),
        average=average,
        watch=Watch(max(PATIENCE, settings.total_steps(num_train) // 10), processes),
    )


def make_optimizer(model: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """The optimiser, with a rate of its own for `model.head` if `head_lr` says so.

    Raises:
        InputError: It does, and the network has no head.
    """
    common: dict[str, Any] = {
        "params": _groups(model, settings),
        "lr": settings.lr,
        "weight_decay": settings.weight_decay,
        # Hundreds of small tensors cost a tenth of a step otherwise, on a CPU.
        "fused": True,
    }
    if settings.optimizer == "sgd":
        return torch.optim.SGD(momentum=MOMENTUM, nesterov=settings.nesterov, **common)
    optimizer = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return optimizer(**common)


def _groups(model: nn.Module, settings: Train) -> Any:
    if settings.head_lr == 1:
        return model.parameters()
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Module):
        rule = f"must be 1 for networks without a part called head, as {type(model).__name__}"
        raise InputError(rule, key="train.head_lr", value=settings.head_lr)
    inside = {id(parameter) for parameter in head.parameters()}
    body = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return [
        {"params": body},
        {"params": list(head.parameters()), "lr": settings.lr * settings.head_lr},
    ]


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: Train, num_train: int = 1
) -> LRScheduler:
    """What changes the rates after each step; warm-up multiplies the rest of it."""
    total = settings.total_steps(num_train)
    if settings.schedule == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, rates, total_steps=total + 1, pct_start=ONE_CYCLE_RISE)
    main: LRScheduler = ConstantLR(optimizer, factor=1.0)
    if settings.schedule == "poly":
        main = PolynomialLR(optimizer, total, power=POLY_POWER)
    elif settings.schedule == "cosine":
        main = CosineAnnealingLR(optimizer, total)
    elif settings.schedule == "step":
        stones = milestones(settings, num_train)
        main = MultiStepLR(optimizer, stones, gamma=STEP_FACTOR)
    if not settings.warmup:
        return main
    rise = LinearLR(optimizer, start_factor=WARM_UP_FROM, total_iters=settings.warmup)
    return ChainedScheduler([main, rise], optimizer)


def milestones(settings: Train, num_train: int) -> list[int]:
    """The steps after which the rate falls; epochs end with the step that completes them."""
    if settings.steps:
        return settings.milestones
    return [-(-stone * num_train // settings.batch_size) for stone in settings.milestones]


# --- checkpoints -------------------------------------------------------------------------------


class Checkpoint:
    """The latest state of one training, in one file that is whole or absent.

    Args:
        file: Where it is. What cannot be read, or is of something else, is left aside.
        identity: What makes this training the one it is, as JSON values.
        minutes: Between two savings.
        keep: Keep a copy of each saving, `<name>-<step>.pt`.

    Attributes:
        limit: Longest time of the training in seconds; None: as long as it takes.
        step: How far the training in the file had come; 0 if there is none.
        ask: Called about once a second while training goes on; what it raises ends it.
        history: What had been reported by then; what is in the list is saved with the rest.
        leave: Set it to have the training saved at the next step and left.
    """

    def __init__(
        self,
        file: Path,
        identity: Mapping[str, Any],
        minutes: float,
        *,
        keep: bool = False,
    ) -> None:
        self.file, self.identity, self.minutes = file, dict(identity), minutes
        self.keep, self.leave = keep, False
        self.limit: float | None = None
        self.ask: Callable[[], None] | None = None
        self._asked = time.monotonic()
        self._content = self._read()
        self.step: int = self._content["step"] if self._content else 0
        self.history: list[dict[str, float]] = self._content["history"] if self._content else []
        self._before: float = self._content["seconds"] if self._content else 0.0
        self._start = self._latest = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent so far, that before the file was written included."""
        return self._before + time.monotonic() - self._start

    def take(self) -> dict[str, Any] | None:
        """What was in the file, or None; it is not kept in memory."""
        content, self._content = self._content, None
        return content

    def due(self) -> bool:
        """Is it time to save?

        Raises:
            TooLong: It is past the limit.
        """
        now = time.monotonic()
        if self.ask is not None and now - self._asked > ASK_SECONDS:
            self._asked = now
            self.ask()
        if self.limit is not None and self.seconds > self.limit:
            raise TooLong(f"training took longer than {self.limit:g} seconds")
        return self.leave or now - self._latest >= 60 * self.minutes

    def write(self, state: State, rank: int = 0) -> None:
        """Replace the file; every process of a group calls this, the first writes.

        Raises:
            Paused: After that, if the training is to be left.
        """
        random = _gathered(random_state()) if state.watch.processes > 1 else [random_state()]
        if rank == 0:
            content = {**state.content(), "random": random}
            buffer = io.BytesIO()
            own = {"identity": self.identity, "history": self.history, "seconds": self.seconds}
            torch.save({**content, **own}, buffer)
            write_atomic(self.file, buffer.getvalue())
            if self.keep:
                write_atomic(self._copy(state.step), buffer.getvalue())
        self._latest = time.monotonic()
        if self.leave:
            raise Paused

    def _copy(self, step: int) -> Path:
        return self.file.with_name(f"{self.file.stem}-{step}{self.file.suffix}")

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        if not self.file.exists():
            return None
        try:
            content: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
            same = content["identity"] == self.identity and "history" in content
        except Exception as error:  # a damaged file fails in many ways
            log.warning("%s cannot be read (%s); training starts over", self.file, error)
            return None
        if not same:
            log.warning("%s is of another training; training starts over", self.file)
        return content if same else None


def identity(
    settings: Train,
    hardware: Hardware,
    *,
    seed: int,
    key: str,
    data: str,
    pretrained: str | None = None,
) -> dict[str, Any]:
    """What a checkpoint must agree on to be gone on from.

    Args:
        settings: The study's `train`.
        hardware: Where and in which precision.
        seed: Of the training.
        key: The network's.
        data: Checksum of the prepared data.
        pretrained: Checksum of the file that the network starts from, or None.
    """
    unchanging = {"workers", "checkpoint_minutes", "keep_checkpoints"}  # of any figure
    values = settings.model_dump(exclude=unchanging)
    mine = {"key": key, "seed": seed, "data": data, "pretrained": pretrained}
    return {**mine, "settings": values, **asdict(hardware)}


def random_state() -> Tensor:
    """Of torch on the CPU, and behind it of the GPU in use if there is one."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return torch.cat(states)


def set_random_state(state: Tensor) -> None:
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size])
    if torch.cuda.is_available() and len(state) > size:
        torch.cuda.set_rng_state(state[size:])


# --- several processes -------------------------------------------------------------------------


def join(part: Part, file: Path, device: str) -> None:
    """Join the processes that share each batch of a training; all of one machine.

    They meet through `file`, which must be new, and talk over the loopback interface: torch's
    usual way, a TCP store, listens on all interfaces.
    """
    rank, processes = part
    os.environ |= {"GLOO_SOCKET_IFNAME": _loopback(), "NCCL_SOCKET_IFNAME": _loopback()}
    if device == "cuda":
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=FileStore(str(file), processes),
        rank=rank,
        world_size=processes,
        timeout=timedelta(days=1),  # the others wait while the first one evaluates
    )


def is_lost(error: Exception) -> bool:
    """Whether the error says that another process of the group is gone.

    NCCL's errors have types of their own; gloo's is a plain RuntimeError, in whose text stands
    the file of gloo that it comes from.
    """
    is_gloos = isinstance(error, RuntimeError) and "/gloo/" in str(error)
    return is_gloos or isinstance(error, distributed.DistError)


def _loopback() -> str:
    """Its name: lo, or lo0 on BSD and macOS."""
    names = [name for _, name in socket.if_nameindex()]
    return next(name for name in names if name.startswith("lo"))


def _gathered(tensor: Tensor) -> list[Tensor]:
    """The tensor of each process, on the CPU."""
    if distributed.get_backend() == "nccl":
        tensor = tensor.cuda()
    parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, tensor)
    return [part.cpu() for part in parts]
