"""Training repeats itself, goes on where it stopped, learns, and stops when it diverges."""

import contextlib
import itertools
import json
import logging
import math
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from hrnet_search import training
from hrnet_search.arch import hrnet
from hrnet_search.detectors import HRPyramid, build_detector, init_detector
from hrnet_search.errors import InputError
from hrnet_search.frameworks import DetectorSpec
from hrnet_search.model import build
from hrnet_search.settings import Train
from hrnet_search.tasks.base import WHOLE, Part, batch_indices, sample_rng
from hrnet_search.training import (
    Checkpoint,
    Diverged,
    Hardware,
    Watch,
    begin,
    choose_hardware,
    evaluate,
    evaluation_steps,
    identity,
    join,
    make_optimizer,
    make_schedule,
    milestones,
    total_steps,
    train,
)

CPU = Hardware("cpu", "float32", "channels_last")
History = list[dict[str, float]]
NUM_TRAIN, SIDE, OUTPUTS = 20, 8, 4

pytestmark = pytest.mark.usefixtures("one_thread")


class Toy:
    """How bright is each quarter of a random image? A task that any small network learns."""

    head, num_outputs, num_train = "v1", OUTPUTS, NUM_TRAIN

    def batch(
        self, step: int, *, size: int, seed: int, part: Part = WHOLE
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        indices = batch_indices(NUM_TRAIN, step, size=size, seed=seed)
        places = range(part[0], size, part[1])
        images = torch.stack([self.image(int(indices[p]), step, p, seed) for p in places])
        target = 5 * F.adaptive_avg_pool2d(images.mean(1), 2).flatten(1)
        return images, (target, torch.ones_like(target))

    def image(self, index: int, step: int, place: int, seed: int) -> Tensor:
        base = np.random.default_rng((7, index)).standard_normal((3, SIDE, SIDE))
        noise = sample_rng(step, place, seed=seed).standard_normal((3, SIDE, SIDE))
        return torch.from_numpy(base + 0.1 * noise).float()

    def loss(self, output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        wanted, weights = target
        return (weights * (output - wanted) ** 2).mean()

    def evaluate(
        self, predict: Callable[[Tensor], Tensor], *, out: Path | None = None
    ) -> dict[str, float]:
        images, target = self.batch(10**6, size=8, seed=0)
        error = Toy.loss(self, predict(images).float(), target)
        if out is not None:
            (out / "predictions.json").write_text("[]")
        return {"nme": float(error)}

    def preprocessing(self) -> dict[str, Any]:
        return {}

    def sample(self) -> np.ndarray:
        return np.zeros((SIDE, SIDE, 3), np.uint8)


class Net(nn.Module):
    """A body and a head, as `Network` has them."""

    def __init__(self, *, norm: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        middle: nn.Module = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), middle, nn.Tanh())
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Dropout(dropout), nn.Flatten())
        self.head = nn.Sequential(pool, nn.Linear(24, OUTPUTS))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x))
        return y


def network(**arguments: Any) -> Net:
    """The same initial weights whatever was random before."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Net(**arguments)


def settings(**changes: Any) -> Train:
    given = {"batch_size": 8, "lr": 2e-2, "evaluations": 2, **changes}
    return Train.model_validate(given if "epochs" in changes else {"steps": 4, **given})


def run(
    *,
    seed: int = 0,
    hardware: Hardware = CPU,
    net: nn.Module | None = None,
    task: Any = None,
    part: Part = WHOLE,
    checkpoint: Checkpoint | None = None,
    folder: Path | None = None,
    **changes: Any,
) -> tuple[nn.Module, dict[str, float], History]:
    """A trained network, its metrics and what was reported."""
    net, history = net or network(), []
    metrics = train(
        net, task or Toy(), settings(**changes), seed=seed, hardware=hardware,
        report=history.append, part=part, checkpoint=checkpoint, folder=folder,
    )  # fmt: skip
    return net, metrics, history


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def close_weights(one: nn.Module, other: nn.Module, tolerance: float = 1e-6) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return all(torch.allclose(first[n], second[n], rtol=0, atol=tolerance) for n in first)


# --- the loop ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "schedule"), [("adamw", "one_cycle"), ("sgd", "poly"), ("adam", "constant")]
)
def test_without_extras_a_step_is_what_any_plain_loop_does(optimizer: str, schedule: str) -> None:
    """Bit for bit, with a loop written down here, so that figures of old studies stay."""
    net, _, history = run(
        net=network(dropout=0.5), seed=5, steps=9, optimizer=optimizer, schedule=schedule
    )
    plain, task = network(dropout=0.5).to(memory_format=torch.channels_last), Toy()
    common = {"lr": 2e-2, "weight_decay": 0.0, "fused": True}
    chosen = {
        "adamw": lambda p: torch.optim.AdamW(p, **common),
        "adam": lambda p: torch.optim.Adam(p, **common),
        "sgd": lambda p: torch.optim.SGD(p, momentum=0.9, **common),
    }[optimizer](plain.parameters())
    rates = {
        "one_cycle": lambda: torch.optim.lr_scheduler.OneCycleLR(
            chosen, 2e-2, total_steps=10, pct_start=0.3
        ),
        "poly": lambda: torch.optim.lr_scheduler.PolynomialLR(chosen, 9, power=0.9),
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(chosen, factor=1.0),
    }[schedule]()
    losses = []
    torch.manual_seed(5)
    for step in range(9):
        images, target = task.batch(step, size=8, seed=5)
        plain.train()
        loss = task.loss(plain(images.to(memory_format=torch.channels_last)), target)
        chosen.zero_grad()
        loss.backward()
        chosen.step()
        rates.step()
        losses.append(loss.item())
    assert same_weights(net, plain)
    assert [entry["loss"] for entry in history] == losses


def test_training_is_bit_identical_for_a_seed_and_differs_for_another() -> None:
    torch.manual_seed(11)
    first, metrics, history = run(seed=1, net=network(dropout=0.5))
    torch.manual_seed(12)
    again, metrics_again, history_again = run(seed=1, net=network(dropout=0.5))
    assert same_weights(first, again)
    assert (metrics, history) == (metrics_again, history_again)
    other, _, history_other = run(seed=2, net=network(dropout=0.5))
    assert not same_weights(first, other)
    assert history != history_other


def test_training_changes_every_parameter() -> None:
    net, _, _ = run()
    for (name, before), after in zip(network().named_parameters(), net.parameters(), strict=True):
        assert not torch.equal(before, after), name


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.2), ("adam", 0.02), ("adamw", 0.02)])
def test_the_loss_falls_with_every_optimizer(optimizer: str, lr: float) -> None:
    net = network(norm=False)
    _, _, history = run(net=net, steps=60, optimizer=optimizer, lr=lr, evaluations=1)
    losses = [entry["loss"] for entry in history]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_reports_say_step_loss_and_at_evaluations_the_metrics() -> None:
    _, metrics, history = run(steps=5, evaluations=2)
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5]
    assert [entry["step"] for entry in history if "nme" in entry] == [3, 5]
    assert metrics.keys() == {"nme"}
    assert history[-1] == {"step": 5, "loss": history[-1]["loss"], **metrics}


def test_epochs_become_steps_of_the_data() -> None:
    # Three passes of 20 samples in batches of 8: 7.5 steps.
    _, _, history = run(epochs=3, evaluations=2)
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [entry["step"] for entry in history if "nme" in entry] == [4, 8]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"warmup": 3, "schedule": "poly"}, "train.warmup"),
        ({"evaluations": 4}, "train.evaluations"),
    ],
)
def test_epochs_that_make_too_few_steps_are_refused(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match="the 3 steps that 1 epochs make") as caught:
        total_steps(settings(epochs=1, **changes), NUM_TRAIN)
    assert caught.value.key == key


class Recorded(Toy):
    """Hands out known losses."""

    def __init__(self, losses: Mapping[int, float]) -> None:
        self.losses, self.step = losses, 0

    def batch(
        self, step: int, *, size: int, seed: int, part: Part = WHOLE
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        self.step = step + 1
        return super().batch(step, size=size, seed=seed, part=part)

    def loss(self, output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        return output.sum() * 0 + self.losses.get(self.step, 1.0)

    def evaluate(
        self, predict: Callable[[Tensor], Tensor], *, out: Path | None = None
    ) -> dict[str, float]:
        assert not predict(torch.zeros(1, 3, SIDE, SIDE)).requires_grad
        return {"ap": float(self.step)}


def test_a_long_training_reports_about_fifty_means() -> None:
    task = Recorded({step: float(step) for step in range(1, 121)})
    _, metrics, history = run(task=task, steps=120, evaluations=1)
    assert [entry["step"] for entry in history] == list(range(2, 121, 2))
    # Every loss is in one mean: of steps 1 and 2, 3 and 4, ...
    assert [entry["loss"] for entry in history] == [step - 0.5 for step in range(2, 121, 2)]
    assert metrics == {"ap": 120.0}


def test_evaluation_uses_running_statistics_and_changes_nothing() -> None:
    net, metrics, _ = run()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert evaluate(net, Toy(), CPU) == metrics
    assert not net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_batch_statistics_are_used_in_every_step_also_after_an_evaluation() -> None:
    modes: list[bool] = []
    net = network()
    net.register_forward_hook(lambda module, *_: modes.append(module.training))
    run(net=net)
    assert modes == [True, True, False, True, True, False]


def test_the_last_evaluation_alone_leaves_its_predictions(tmp_path: Path) -> None:
    seen: list[Path | None] = []

    class Watched(Toy):
        def evaluate(self, predict: Any, *, out: Path | None = None) -> dict[str, float]:
            seen.append(out)
            return super().evaluate(predict, out=out)

    run(task=Watched(), folder=tmp_path, evaluations=3)
    assert seen == [None, None, tmp_path]
    assert (tmp_path / "predictions.json").exists()


class TwoOutputs(Toy):
    """As the two-loss head has them."""

    def loss(self, output: Any, target: tuple[Tensor, Tensor]) -> Tensor:
        first, last = output
        assert first.dtype == last.dtype == torch.float32
        return 0.4 * super().loss(first, target) + super().loss(last, target)

    def evaluate(self, predict: Any, *, out: Path | None = None) -> dict[str, float]:
        return super().evaluate(lambda images: predict(images)[1], out=out)


class TwoHeads(Net):
    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return y, 2 * y


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_network_may_put_out_several_maps(accumulate: int) -> None:
    hardware = Hardware("cpu", "bfloat16", "channels_last")
    _, metrics, _ = run(net=TwoHeads(), task=TwoOutputs(), hardware=hardware, accumulate=accumulate)
    assert math.isfinite(metrics["nme"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_every_precision_and_layout_trains_float32_weights(
    precision: str, memory_format: str
) -> None:
    layouts: list[bool] = []
    net = network()
    net.register_forward_pre_hook(
        lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    hardware = Hardware("cpu", precision, memory_format)
    _, _, history = run(net=net, steps=1, evaluations=1, hardware=hardware)
    _, _, exact = run(steps=1, evaluations=1)
    assert history[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.02)
    assert all(p.dtype == torch.float32 for p in net.parameters())
    assert set(layouts) == {memory_format == "channels_last"}


# --- divergence --------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_finite_number_ends_training(loss: float) -> None:
    history: History = []
    with pytest.raises(Diverged) as caught:
        train(
            network(), Recorded({3: loss}), settings(), seed=0, hardware=CPU, report=history.append
        )
    assert str(caught.value) == (
        f"the loss is {loss} at step 3; "
        "a smaller train.lr, a longer train.warmup or clipping (train.clip_norm) may help"
    )
    assert [entry["step"] for entry in history] == [1, 2]


def test_an_absurd_learning_rate_diverges() -> None:
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at step \d+; a smaller train\.lr"):
        run(optimizer="sgd", schedule="constant", lr=1e30)


def test_the_step_is_named_however_many_are_looked_at_together() -> None:
    watch = Watch(patience=50)
    for _ in range(20):
        watch.add(torch.tensor(1.0))
    watch.look(20)
    for place in range(20):
        watch.add(torch.tensor(math.nan if place == 6 else 1.0))
    with pytest.raises(Diverged, match="nan at step 27;"):
        watch.look(40)


def test_a_gpu_is_waited_for_every_20_steps_and_before_whatever_shows_the_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []

    def look(self: Watch, step: int, wish: bool = False) -> bool:
        looks.append(step)
        return original(self, step, wish)

    original = Watch.look
    monkeypatch.setattr(Watch, "look", look)
    with monkeypatch.context() as patch:
        patch.setattr(training, "steps_unseen", lambda settings, hardware: 20)
        _, _, history = run(steps=300, evaluations=1, lr=1e-3)
    assert looks == sorted({*range(20, 301, 20), *range(6, 301, 6)})
    assert [entry["step"] for entry in history] == list(range(6, 301, 6))
    _, _, expected = run(steps=300, evaluations=1, lr=1e-3)
    assert looks[-300:] == list(range(1, 301))
    assert history == expected


def test_a_gpu_is_not_waited_for_at_each_step_unless_it_is_saved_at_each() -> None:
    gpu = Hardware("cuda", "float32", "channels_last")
    saved = settings(checkpoint_minutes=0)
    assert training.steps_unseen(settings(), gpu) == 20
    assert training.steps_unseen(saved, gpu) == training.steps_unseen(settings(), CPU) == 1


def diverges(losses: list[float], patience: int) -> int | None:
    """The step at which the watch ends a training with these losses."""
    watch = Watch(patience)
    for step, loss in enumerate(losses, start=1):
        watch.add(torch.tensor(loss))
        try:
            watch.look(step)
        except Diverged:
            return step
    return None


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0] + [101.0] * 9, None),
        ([1.0] + [101.0] * 10, 11),  # ten steps in a row
        ([1.0] + [100.0] * 100, None),  # not above 100 times
        ([1.0] + ([1e9] * 9 + [1.0]) * 5, None),  # spikes
        ([1.0, 1.0] + [101.0] * 9 + [5.0] + [101.0] * 10, 22),
        ([0.0, 0.5] + [49.0] * 20, None),  # a first loss of nothing says nothing
        ([0.0, 0.5] + [51.0] * 20, 12),
        ([-1.0] * 30, None),
    ],
)
def test_a_loss_that_stays_a_hundred_times_the_first_is_divergence(
    losses: list[float], expected: int | None
) -> None:
    assert diverges(losses, patience=10) == expected


def test_the_message_says_since_when() -> None:
    task = Recorded({step: 1.0 if step < 21 else 250.0 for step in range(1, 101)})
    with pytest.raises(Diverged) as caught:
        run(task=task, steps=100)
    assert str(caught.value).startswith(
        "the loss has been above 100 times the first loss (1) from step 21 to 70; a smaller"
    )


def test_patience_is_a_tenth_of_a_long_training() -> None:
    assert begin(network(), settings(), CPU, num_train=20).watch.patience == 50
    assert begin(network(), settings(steps=900), CPU, num_train=20).watch.patience == 90


class Says(nn.Module):
    """Puts out whatever it was given."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: Tensor) -> Any:
        return self.output


class Heard(Toy):
    """An evaluation that takes every output for good."""

    def evaluate(self, predict: Callable[..., Any], *, out: Path | None = None) -> dict[str, float]:
        predict(torch.zeros(1, 3, SIDE, SIDE), torch.tensor([[SIDE, SIDE]]))
        return {"ap": 1.0}


def detections(score: float, box: float = 5.0) -> list[dict[str, Tensor]]:
    """Two images, nothing in the first."""
    boxes = torch.tensor([[0.0, 0.0, 5.0, box]])
    return [
        {"boxes": boxes[:n], "scores": torch.tensor([score])[:n], "labels": torch.ones(n).long()}
        for n in (0, 1)
    ]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers_are_no_result(wrong: float) -> None:
    good, bad = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, wrong]])
    for output in (bad, (good, bad), (bad, good), detections(wrong), detections(1.0, wrong)):
        with pytest.raises(Diverged, match="the network puts out numbers that are none; a small"):
            evaluate(Says(output), Heard(), CPU)
    for output in (good, (good, good), good.bfloat16(), detections(0.5), torch.tensor([1])):
        assert evaluate(Says(output), Heard(), CPU) == {"ap": 1.0}


@pytest.mark.parametrize("framework", ["faster_rcnn", "fcos", "centernet"])
def test_a_detector_that_finds_nothing_as_its_maps_are_no_numbers_has_diverged(
    framework: str,
) -> None:
    spec = DetectorSpec(framework=framework, num_classes=2, channels=16, hidden=32)
    arch = hrnet(
        width=4, num_stages=2, num_modules=1, num_blocks=1, stage1_blocks=1, stage1_width=4,
        stem_width=8,
    )  # fmt: skip
    detector = build_detector(HRPyramid(build(arch, head=spec.pyramid, num_outputs=16)), spec)
    init_detector(detector, seed=0)

    class Looks(Toy):
        def evaluate(
            self, predict: Callable[..., Any], *, out: Path | None = None
        ) -> dict[str, float]:
            predict(torch.randn(1, 3, 64, 64), torch.tensor([[64, 64]]))
            return {"ap": 1.0}

    assert evaluate(detector, Looks(), CPU) == {"ap": 1.0}
    weight = next(p for name, p in detector.backbone.named_parameters() if "stage2" in name)
    weight.data.fill_(math.nan)
    for _ in range(2):
        with pytest.raises(Diverged, match="numbers that are none"):
            evaluate(detector, Looks(), CPU)
    assert not detector.backbone._forward_hooks


# --- extras of a step --------------------------------------------------------------------------


def moved(**changes: Any) -> dict[str, Tensor]:
    """How far one step of plain SGD moves each parameter of a network without BatchNorm."""
    plain = {"steps": 1, "evaluations": 1, "optimizer": "sgd", "schedule": "constant"}
    net, _, _ = run(net=network(norm=False), **{**plain, **changes})
    before = dict(network(norm=False).named_parameters())
    return {name: value.detach() - before[name].detach() for name, value in net.named_parameters()}


def norm(moves: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float((move.double() ** 2).sum()) for move in moves.values()))


def test_the_gradient_is_clipped_to_its_norm() -> None:
    whole = norm(moved()) / 2e-2  # the first step of SGD: rate times gradient
    assert norm(moved(clip_norm=whole / 3)) == pytest.approx(2e-2 * whole / 3, rel=1e-4)
    assert norm(moved(clip_norm=whole * 3)) == pytest.approx(2e-2 * whole, rel=1e-4)


def test_nesterov_looks_ahead() -> None:
    plain, nesterov = moved(), moved(nesterov=True)
    for name, move in nesterov.items():  # g + 0.9 g, where plain momentum has g
        torch.testing.assert_close(move, 1.9 * plain[name])


def test_the_head_has_a_rate_of_its_own() -> None:
    plain, other = moved(), moved(head_lr=10.0)
    for name, move in other.items():
        factor = 10.0 if name.startswith("head.") else 1.0
        torch.testing.assert_close(move, factor * plain[name], rtol=1e-4, atol=1e-7)


def test_a_rate_for_the_head_needs_a_head() -> None:
    with pytest.raises(InputError, match="must be 1 for networks without a part called head"):
        make_optimizer(nn.Linear(1, 1), settings(head_lr=2.0))
    assert len(make_optimizer(nn.Linear(1, 1), settings()).param_groups) == 1


def test_a_batch_in_parts_is_the_whole_batch() -> None:
    changes = {"steps": 5, "optimizer": "sgd", "schedule": "constant"}
    whole, metrics, history = run(net=network(norm=False), **changes)
    parts, metrics_too, history_too = run(net=network(norm=False), accumulate=4, **changes)
    assert close_weights(whole, parts)
    assert metrics == pytest.approx(metrics_too, rel=1e-5)
    for one, other in zip(history, history_too, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_parts_are_seen_one_after_the_other() -> None:
    sizes: list[int] = []
    net = network()
    net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    run(net=net, steps=1, evaluations=1, accumulate=4)
    assert sizes == [2, 2, 2, 2, 8]  # the last is the evaluation


def test_the_average_follows_its_recurrence_and_is_what_is_tested_and_kept() -> None:
    seen: list[dict[str, Tensor]] = []
    net = network()

    def remember(module: nn.Module, *_: Any) -> None:
        if module.training:  # as they are before each step
            seen.append({k: v.clone() for k, v in module.state_dict().items()})

    net.register_forward_pre_hook(remember)
    final, _, _ = run(net=net, steps=5)
    weights = [*seen[1:], final.state_dict()]
    average = weights[0]
    for latest in weights[1:]:
        average = {k: 0.8 * average[k] + 0.2 * latest[k] for k in average}
    kept, metrics, _ = run(steps=5, ema=0.8)
    for name, value in kept.state_dict().items():
        if value.dtype == torch.float32:  # running statistics among them
            torch.testing.assert_close(value, average[name].float(), rtol=1e-5, atol=1e-6)
    assert metrics == evaluate(kept, Toy(), CPU)


# --- optimisers and schedules ------------------------------------------------------------------


def learning_rates(
    schedule: str, steps: int, lr: float = 0.1, group: int = 0, **changes: Any
) -> list[float]:
    """The rate of each step, and the one after the last."""
    if "epochs" not in changes:
        changes["steps"] = steps
    changed = settings(schedule=schedule, lr=lr, evaluations=1, optimizer="sgd", **changes)
    optimizer = make_optimizer(Net(), changed)
    scheduler = make_schedule(optimizer, changed, NUM_TRAIN)
    rates = [optimizer.param_groups[group]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[group]["lr"])
    return rates


def test_one_cycle_rises_to_lr_at_three_tenths_and_falls_to_nothing() -> None:
    rates = learning_rates("one_cycle", 99)
    assert rates[0] == pytest.approx(0.1 / 25)  # Smith's schedule as torch has it
    assert rates.index(max(rates)) == 29
    assert rates[29] == pytest.approx(0.1)
    assert rates[:30] == sorted(rates[:30])
    assert rates[29:] == sorted(rates[29:], reverse=True)
    assert rates[-1] < 1e-6


# Share of the rate before step s (from 0) of 50, as the papers have it.
FORMULAS: dict[str, Callable[[int], float]] = {
    "poly": lambda s: (1 - s / 50) ** 0.9,
    "cosine": lambda s: (1 + math.cos(math.pi * s / 50)) / 2,
    "step": lambda s: 0.1 ** ((s >= 20) + (s >= 35)),
    "constant": lambda s: 1.0,
}


def stones(schedule: str) -> dict[str, Any]:
    return {"milestones": [20, 35]} if schedule == "step" else {}


@pytest.mark.parametrize("schedule", FORMULAS)
def test_schedules_follow_their_formulas(schedule: str) -> None:
    expected = [0.1 * FORMULAS[schedule](step) for step in range(51)]
    assert learning_rates(schedule, 50, **stones(schedule)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("schedule", FORMULAS)
def test_warm_up_multiplies_the_schedule_and_rises_from_a_third(schedule: str) -> None:
    def rise(step: int) -> float:  # mmdetection's linear warm-up with ratio 1/3
        return 1 - (1 - min(step, 25) / 25) * (1 - 1 / 3)

    expected = [0.1 * FORMULAS[schedule](step) * rise(step) for step in range(51)]
    rates = learning_rates(schedule, 50, warmup=25, **stones(schedule))
    assert rates == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("schedule", [*FORMULAS, "one_cycle"])
def test_the_heads_rate_follows_the_same_schedule(schedule: str) -> None:
    changes = {**stones(schedule), "warmup": 0 if schedule == "one_cycle" else 10}
    body = learning_rates(schedule, 50, head_lr=4.0, **changes)
    head = learning_rates(schedule, 50, head_lr=4.0, group=1, **changes)
    assert body == pytest.approx(learning_rates(schedule, 50, **changes))
    assert head == pytest.approx([4 * rate for rate in body], abs=1e-12)


def test_milestones_in_epochs_fall_after_the_step_that_completes_them() -> None:
    # 20 samples in batches of 8: epochs end within steps 3, 5, 8, 10, ...
    changed = settings(epochs=6, schedule="step", milestones=[1, 2, 4])
    assert milestones(changed, NUM_TRAIN) == [3, 5, 10]
    rates = learning_rates("step", 15, epochs=6, milestones=[1, 2, 4])
    falls = [0.1] * 3 + [0.01] * 2 + [0.001] * 5 + [0.0001] * 6
    assert rates == pytest.approx(falls)


@pytest.mark.parametrize("schedule", ["one_cycle", "poly", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_short_schedules_stay_between_nothing_and_lr(schedule: str, steps: int) -> None:
    rates = learning_rates(schedule, steps)
    assert all(0 < rate <= 0.1 + 1e-12 for rate in rates[:-1])


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": False}),
        ("adam", torch.optim.Adam, {"betas": (0.9, 0.999)}),
        ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.999)}),
    ],
)
def test_optimizers_have_the_settings_of_the_study(
    name: str, kind: type, expected: dict[str, Any]
) -> None:
    optimizer = make_optimizer(
        nn.Linear(1, 1), settings(optimizer=name, lr=0.02, weight_decay=0.03)
    )
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert {"lr": 0.02, "weight_decay": 0.03, "fused": True, **expected}.items() <= group.items()


@pytest.mark.parametrize(
    ("steps", "evaluations", "expected"),
    [
        (10, 1, {10}),
        (10, 2, {5, 10}),
        (10, 3, {4, 7, 10}),
        (10, 10, set(range(1, 11))),
        (300, 5, {60, 120, 180, 240, 300}),
        (1, 1, {1}),
    ],
)
def test_evaluation_steps_by_hand(steps: int, evaluations: int, expected: set[int]) -> None:
    assert evaluation_steps(settings(steps=steps, evaluations=evaluations), steps) == expected


@given(st.integers(1, 10**6), st.integers(1, 200))
def test_evaluations_are_as_many_as_asked_evenly_spaced_and_end_at_the_end(
    steps: int, evaluations: int
) -> None:
    count = min(steps, evaluations)
    points = sorted(evaluation_steps(settings(steps=steps, evaluations=count), steps))
    assert len(points) == count
    assert points[-1] == steps
    gaps = [b - a for a, b in itertools.pairwise([0, *points])]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


# --- data --------------------------------------------------------------------------------------


def test_workers_change_nothing() -> None:
    net = network(dropout=0.5)  # which draws from torch's generator, as loaders like to
    alone, metrics, history = run(net=net, steps=7, batch_size=6, seed=4)
    helped, metrics_too, history_too = run(
        net=network(dropout=0.5), steps=7, batch_size=6, seed=4, workers=2
    )
    assert same_weights(alone, helped)
    assert (metrics, history) == (metrics_too, history_too)


class Slow(Toy):
    """Some batches take longer than later ones; one cannot be made."""

    def batch(
        self, step: int, *, size: int, seed: int, part: Part = WHOLE
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        time.sleep(0.05 * (step % 2))
        if step == 9:
            raise InputError("is broken", file="image.jpg")
        return super().batch(step, size=size, seed=seed, part=part)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("part", [WHOLE, (1, 2)])
def test_batches_come_in_order_from_any_step(workers: int, part: Part) -> None:
    changed = settings(workers=workers, processes=part[1])
    got = list(training.batches(Slow(), changed, seed=2, steps=range(3, 8), part=part))
    for step, (images, target) in zip(range(3, 8), got, strict=True):
        expected, (wanted, weights) = Toy().batch(step, size=8, seed=2, part=part)
        assert torch.equal(images, expected)
        assert torch.equal(target[0], wanted)
        assert torch.equal(target[1], weights)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_goes_wrong_in_a_worker_is_told(workers: int) -> None:
    with pytest.raises(InputError, match=r"image\.jpg: is broken"):
        run(task=Slow(), steps=12, workers=workers)


# --- checkpoints -------------------------------------------------------------------------------


class Interrupted(Exception):
    """What stops a training in a test."""


def checkpoint(folder: Path, changes: Mapping[str, Any], *, seed: int = 0) -> Checkpoint:
    changed = settings(**changes)
    mine = identity(changed, CPU, seed=seed, key="net", data="aaaa")
    return Checkpoint(folder / "checkpoint.pt", mine, changed.checkpoint_minutes)


def interrupted(
    folder: Path, changes: Mapping[str, Any], *, at: int, build: Callable[[], nn.Module] = network
) -> History:
    """What was reported by a training that was stopped after step `at`, when saving was over."""

    class Stops(Toy):
        def batch(
            self, step: int, *, size: int, seed: int, part: Part = WHOLE
        ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            if step == at:
                raise Interrupted
            return super().batch(step, size=size, seed=seed, part=part)

    history: History = []
    with pytest.raises(Interrupted):
        train(
            build(), Stops(), settings(**changes), seed=0, hardware=CPU, report=history.append,
            checkpoint=checkpoint(folder, changes),
        )  # fmt: skip
    return history


ALL = {  # everything that has a state of its own; a step is 0.4 epochs
    "steps": 12, "evaluations": 3, "ema": 0.9, "clip_norm": 0.5, "accumulate": 2,
    "weight_decay": 1e-3, "checkpoint_minutes": 0,
}  # fmt: skip
EXTRAS = {
    "one_cycle": {"head_lr": 3.0},
    "poly": {"warmup": 6},
    "cosine": {"warmup": 3, "head_lr": 3.0},
    "step": {"warmup": 6, "milestones": [4, 8]},
    "constant": {},
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", EXTRAS)
def test_a_resumed_training_is_bit_equal_to_an_uninterrupted_one(
    tmp_path: Path, schedule: str, optimizer: str
) -> None:
    changes = {**ALL, "schedule": schedule, "optimizer": optimizer, **EXTRAS[schedule]}
    whole, metrics, history = run(net=network(dropout=0.5), **changes)
    for at in (4, 7):  # within the second and the third epoch; the first just evaluated
        folder = tmp_path / str(at)
        first = interrupted(folder, changes, at=at, build=lambda: network(dropout=0.5))
        torch.manual_seed(99)
        going_on = checkpoint(folder, changes)
        assert going_on.step == at
        rest, metrics_too, second = run(net=network(dropout=0.5), checkpoint=going_on, **changes)
        assert same_weights(whole, rest)
        assert (metrics_too, first + second) == (metrics, history)


def test_losses_that_were_not_reported_yet_are_kept(tmp_path: Path) -> None:
    changes = {"steps": 100, "evaluations": 1, "checkpoint_minutes": 0}  # reports every 2 steps
    _, _, history = run(**changes)
    first = interrupted(tmp_path, changes, at=53)
    _, _, second = run(checkpoint=checkpoint(tmp_path, changes), **changes)
    assert [entry["step"] for entry in first[-1:] + second[:1]] == [52, 54]
    assert first + second == history


def test_the_watch_goes_on(tmp_path: Path) -> None:
    changes = {"steps": 100, "evaluations": 1, "checkpoint_minutes": 0}
    losses = {step: 1.0 if step < 11 else 250.0 for step in range(1, 101)}

    def stop(entry: dict[str, float]) -> None:
        if entry["step"] == 40:
            raise Interrupted

    for report, error in ((stop, Interrupted), (lambda entry: None, Diverged)):
        with pytest.raises(error) as caught:
            train(
                network(), Recorded(losses), settings(**changes), seed=0, hardware=CPU,
                report=report, checkpoint=checkpoint(tmp_path, changes),
            )  # fmt: skip
    assert "from step 11 to 60" in str(caught.value)


def test_a_report_that_fails_costs_no_more_than_the_time_since_the_last_saving(
    tmp_path: Path,
) -> None:
    def stop(entry: dict[str, float]) -> None:
        if entry["step"] == 7:
            raise Interrupted

    changes = {"steps": 10, "checkpoint_minutes": 0}
    with pytest.raises(Interrupted):
        train(
            network(), Toy(), settings(**changes), seed=0, hardware=CPU, report=stop,
            checkpoint=checkpoint(tmp_path, changes),
        )  # fmt: skip
    whole, metrics, history = run(**changes)
    rest, metrics_too, second = run(checkpoint=checkpoint(tmp_path, changes), **changes)
    assert same_weights(whole, rest)
    assert (metrics_too, second) == (metrics, history[6:])


def test_a_training_that_was_over_is_not_repeated(tmp_path: Path) -> None:
    changes = {"checkpoint_minutes": 0, "ema": 0.5}
    net, metrics, _ = run(checkpoint=checkpoint(tmp_path, changes), **changes)
    again, metrics_too, history = run(checkpoint=checkpoint(tmp_path, changes), **changes)
    assert same_weights(net, again)
    assert (metrics_too, history) == (metrics, [])


def test_checkpoints_are_one_file_of_plain_values_written_when_it_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(step=60.0)  # a minute between any two looks at the clock
    monkeypatch.setattr(training.time, "monotonic", lambda: next(now))
    steps: list[int] = []
    write = Checkpoint.write

    def spy(self: Checkpoint, state: Any, rank: int = 0) -> None:
        steps.append(state.step)
        write(self, state, rank)

    monkeypatch.setattr(Checkpoint, "write", spy)
    changes = {"steps": 12, "checkpoint_minutes": 4}
    run(checkpoint=checkpoint(tmp_path, changes), **changes)
    assert steps == [4, 8, 12]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert content["step"] == 12
    # As JSON once the tensors are out of it: nothing needs unpickling.
    json.dumps(content, default=lambda value: {torch.Tensor: None}[type(value)])


def test_seconds_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    first = checkpoint(tmp_path, {})
    clock[0] += 7
    state = begin(network(), settings(), CPU, num_train=20)
    state.step = 3
    first.write(state)
    clock[0] += 1000  # the machine was off
    second = checkpoint(tmp_path, {})
    clock[0] += 5
    assert (second.step, second.seconds) == (3, 12.0)


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "other", "pickle"])
def test_a_checkpoint_that_cannot_be_read_is_left_aside(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"checkpoint_minutes": 0}
    interrupted(tmp_path, changes, at=2)
    file = tmp_path / "checkpoint.pt"
    content = file.read_bytes()
    broken = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "noise": random.Random(0).randbytes(1000),
    }
    if damage == "other":
        torch.save({"step": 2}, file)
    elif damage == "pickle":
        torch.save({"identity": Interrupted("an object")}, file)
    else:
        file.write_bytes(broken[damage])
    with caplog.at_level(logging.WARNING):
        again = checkpoint(tmp_path, changes)
    assert again.step == 0
    assert "cannot be read" in caplog.text
    _, metrics, history = run(checkpoint=again, **changes)
    _, expected, whole = run(**changes)
    assert (metrics, history) == (expected, whole)


@pytest.mark.parametrize(
    "other",
    [
        {"changes": {"lr": 3e-2}},
        {"changes": {"ema": 0.5}},
        {"seed": 1},
        {"key": "other"},
        {"data": "bbbb"},
        {"pretrained": "cccc"},
        {"hardware": Hardware("cpu", "bfloat16", "channels_last")},
    ],
)
def test_a_checkpoint_of_another_training_is_left_aside(
    tmp_path: Path, other: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"checkpoint_minutes": 0}
    interrupted(tmp_path, changes, at=2)
    changed = settings(**changes, **other.get("changes", {}))
    given = {"seed": 0, "key": "net", "data": "aaaa"}
    given |= {name: value for name, value in other.items() if name not in ("changes", "hardware")}
    mine = identity(changed, other.get("hardware", CPU), **given)
    with caplog.at_level(logging.WARNING):
        assert Checkpoint(tmp_path / "checkpoint.pt", mine, 0).step == 0
    assert "is of another training" in caplog.text
    assert checkpoint(tmp_path, changes).step == 2


# --- several processes -------------------------------------------------------------------------

# A fork of this process could not train once anything here, such as torch.export, has made autograd
# start threads.
APART = multiprocessing.get_context("forkserver")


def shared(
    folder: Path, name: str, changes: Mapping[str, Any], *, until: int | None = None, **net: Any
) -> tuple[nn.Module, dict[str, float], History]:
    """The first of two processes' network, metrics and history; stopped after `until`."""
    meeting = folder / f"{name}.meeting"
    workers = [
        APART.Process(target=_share, args=((rank, 2), meeting, folder, name, changes, until, net))
        for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    left = torch.load(folder / f"{name}.0", weights_only=False)
    other = torch.load(folder / f"{name}.1", weights_only=False)
    for key, value in left["state"].items():
        if "running" not in key:  # statistics are each process's own on CPUs
            assert torch.equal(value, other["state"][key]), "the processes differ"
    assert other["metrics"] == {}, "the first alone evaluates"
    trained = network(**net)
    trained.load_state_dict(left["state"])
    return trained, left["metrics"], left["history"]


def _share(
    part: Part, meeting: Path, folder: Path, name: str, changes: Any, until: Any, net: Any
) -> None:
    join(part, meeting, "cpu")
    model, metrics = network(**net), {}
    history: History = []

    class Stops(Toy):
        def batch(
            self, step: int, *, size: int, seed: int, part: Part = WHOLE
        ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            if step == until:
                raise Interrupted
            return super().batch(step, size=size, seed=seed, part=part)

    saved = checkpoint(folder, changes) if "checkpoint_minutes" in changes else None
    with contextlib.suppress(Interrupted):
        metrics = train(
            model, Stops(), settings(**changes), seed=0, hardware=CPU, report=history.append,
            part=part, checkpoint=saved,
        )  # fmt: skip
    left = {"state": model.state_dict(), "metrics": metrics, "history": history}
    torch.save(left, folder / f"{name}.{part[0]}")
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    "extra", [{}, {"accumulate": 2, "clip_norm": 0.5, "ema": 0.9}], ids=["plain", "extras"]
)
def test_two_processes_do_what_one_does_with_the_whole_batch(
    tmp_path: Path, extra: dict[str, Any]
) -> None:
    changes = {"steps": 8, "optimizer": "sgd", "schedule": "poly", **extra}
    alone, metrics, history = run(net=network(norm=False), **changes)
    both, metrics_too, history_too = shared(
        tmp_path, "both", {**changes, "processes": 2}, norm=False
    )
    assert close_weights(alone, both, 1e-5)
    assert metrics_too == pytest.approx(metrics, rel=1e-4)
    for one, other in zip(history, history_too, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_two_processes_go_on_where_they_stopped(tmp_path: Path) -> None:
    changes = {**ALL, "processes": 2, "batch_size": 8}
    for folder in (one := tmp_path / "whole", other := tmp_path / "cut"):
        folder.mkdir()
    whole, metrics, history = shared(one, "whole", changes, dropout=0.5)
    _, _, first = shared(other, "first", changes, until=5, dropout=0.5)
    rest, metrics_too, second = shared(other, "second", changes, dropout=0.5)
    assert same_weights(whole, rest)
    assert (metrics_too, first + second) == (metrics, history)
    assert len(second) == 12 - 5


def test_no_two_processes_or_seeds_share_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def stop(*_: Any, **__: Any) -> None:
        seeds.append(torch.initial_seed())
        raise Interrupted

    monkeypatch.setattr(training, "begin", stop)
    for seed, rank in itertools.product((0, 1, training.MAX_SEED - 1), (0, 1, 2)):
        with pytest.raises(Interrupted):
            run(seed=seed, part=(rank, 3))
    assert len(set(seeds)) == 9
    assert seeds[0] == 0


def test_that_another_process_is_gone_is_told_from_a_failure_of_its_own(tmp_path: Path) -> None:
    """The first of two processes asks for a sum when the second has been killed."""
    workers = [
        APART.Process(target=_left_alone, args=((rank, 2), tmp_path / "meeting", tmp_path / "said"))
        for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, -9]
    assert json.loads((tmp_path / "said").read_text()) == ["RuntimeError", True]
    assert training.is_lost(distributed.DistBackendError("NCCL error"))
    assert not training.is_lost(Diverged("the loss is nan"))
    assert not training.is_lost(RuntimeError("shapes do not match"))
    assert not training.is_lost(InputError("is broken", file="/data/gloo/1.jpg"))


def _sum_often() -> None:
    for _ in range(100):  # the first may still arrive
        distributed.all_reduce(torch.ones(1))


def _left_alone(part: Part, meeting: Path, said: Path) -> None:
    join(part, meeting, "cpu")
    distributed.all_reduce(torch.ones(1))
    if part[0] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(RuntimeError) as caught:
        _sum_often()
    said.write_text(json.dumps([caught.typename, training.is_lost(caught.value)]))


# --- hardware ----------------------------------------------------------------------------------


def on_cpu(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({}, "float32"),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
    ],
)
def test_auto_takes_bfloat16_only_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], precision: str
) -> None:
    on_cpu(monkeypatch, **capabilities)
    assert choose_hardware(settings()) == Hardware("cpu", precision, "channels_last")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
@pytest.mark.parametrize("able", [False, True])
def test_explicit_settings_are_respected(
    monkeypatch: pytest.MonkeyPatch, precision: str, memory_format: str, able: bool
) -> None:
    on_cpu(monkeypatch, avx512_bf16=able)
    chosen = choose_hardware(settings(precision=precision, memory_format=memory_format))
    assert chosen == Hardware("cpu", precision, memory_format)


@pytest.mark.parametrize("able", [False, True])
def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return able or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    precision = "bfloat16" if able else "float16"
    assert choose_hardware(settings()) == Hardware("cuda", precision, "channels_last")
    asked = choose_hardware(settings(precision="float16"))
    assert asked == Hardware("cuda", "float16", "channels_last")


def test_float16_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu(monkeypatch)
    with pytest.raises(InputError, match="needs a GPU") as caught:
        choose_hardware(settings(precision="float16"))
    assert (caught.value.key, caught.value.value) == ("train.precision", "float16")


def test_hardware_says_layout_autocast_and_scaler() -> None:
    assert CPU.layout is torch.channels_last
    assert Hardware("cpu", "float32", "contiguous").layout is torch.contiguous_format
    x = torch.ones(2, 2)
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        with Hardware("cpu", precision, "contiguous").autocast():
            assert (x @ x).dtype == dtype
    with CPU.autocast():
        assert (x @ x).dtype == torch.float32
    assert [
        Hardware("cpu", precision, "contiguous").scaler().is_enabled()
        for precision in ("float32", "bfloat16", "float16")
    ] == [False, False, True]


def test_float16_scales_losses_and_unscales_gradients_before_they_are_clipped() -> None:
    """On a CPU, where it works but slowly, in place of a GPU."""
    hardware = Hardware("cpu", "float16", "channels_last")
    exact, half = moved(clip_norm=0.1), moved(clip_norm=0.1, hardware=hardware)
    assert norm(half) == pytest.approx(2e-2 * 0.1, rel=1e-3)
    for name, move in half.items():
        assert move.dtype == torch.float32
        torch.testing.assert_close(move, exact[name], rtol=0.02, atol=1e-5)


def test_the_constants_are_the_papers() -> None:
    assert (training.MOMENTUM, training.POLY_POWER, training.STEP_FACTOR) == (0.9, 0.9, 0.1)
