"""Training repeats itself, learns, stops when it diverges, and follows its schedule."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hrnet_search import training
from hrnet_search.model import Network, build, init_weights
from hrnet_search.study import Study, Train
from hrnet_search.tasks import load_task
from hrnet_search.tasks.base import Task
from hrnet_search.tasks.cache import Prepared
from hrnet_search.training import (
    Diverged,
    Hardware,
    choose_hardware,
    evaluate,
    evaluation_steps,
    make_optimizer,
    make_schedule,
    train,
)

CPU = Hardware("cpu", "float32", "channels_last")
History = list[dict[str, float]]


def settings(**changes: Any) -> Train:
    return Train.model_validate(
        {"steps": 4, "batch_size": 8, "lr": 2e-3, "evaluations": 2, **changes}
    )


@pytest.fixture
def task(tiny_study: Study, tiny_pose: Prepared) -> Task:
    return load_task(tiny_study, tiny_pose)


@pytest.fixture
def net(tiny_study: Study) -> Network:
    return network(tiny_study)


def network(study: Study, *, seed: int = 0) -> Network:
    net = build(study.space.arch(study.arms()[-1]), head="v1", num_outputs=17)
    init_weights(net, seed=seed)
    return net


def run(
    study: Study, task: Task, *, seed: int, hardware: Hardware = CPU, **changes: Any
) -> tuple[Network, dict[str, float], History]:
    """A network trained from initial weights of seed 0, its metrics and what was reported."""
    net, history = network(study), []
    changed = settings(**changes)
    metrics = train(net, task, changed, seed=seed, hardware=hardware, report=history.append)
    return net, metrics, history


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


# --- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_is_bit_identical_for_a_seed_and_differs_for_another(
    tiny_study: Study, task: Task, optimizer: str
) -> None:
    torch.manual_seed(11)
    first, metrics, history = run(tiny_study, task, seed=1, optimizer=optimizer)
    torch.manual_seed(12)
    again, metrics_again, history_again = run(tiny_study, task, seed=1, optimizer=optimizer)
    assert same_weights(first, again)
    assert (metrics, history) == (metrics_again, history_again)
    other, _, history_other = run(tiny_study, task, seed=2, optimizer=optimizer)
    assert not same_weights(first, other)
    assert history != history_other


def test_training_changes_every_parameter(tiny_study: Study, task: Task) -> None:
    net, _, _ = run(tiny_study, task, seed=0)
    for (name, before), after in zip(
        network(tiny_study).named_parameters(), net.parameters(), strict=True
    ):
        assert not torch.equal(before, after), name


def test_loss_starts_at_that_of_knowing_nothing_and_falls(tiny_study: Study, task: Task) -> None:
    _, _, history = run(tiny_study, task, seed=0, steps=60, lr=2e-2, evaluations=1)
    losses = [entry["loss"] for entry in history]
    # A softmax over 8 x 8 places of an output near zero: log 64, whatever the target.
    assert losses[0] == pytest.approx(math.log(64), rel=0.01)
    assert sum(losses[-5:]) / 5 < 0.85 * math.log(64)


def test_reports_say_step_loss_and_at_evaluations_the_metrics(
    tiny_study: Study, task: Task
) -> None:
    _, metrics, history = run(tiny_study, task, seed=0, steps=5, evaluations=2)
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5]
    measured = [entry["step"] for entry in history if "ap" in entry]
    assert measured == [3, 5]
    assert metrics.keys() == {"ap", "ap50", "ap75", "ar"}
    assert history[-1] == {"step": 5, "loss": history[-1]["loss"], **metrics}


class Recorded:
    """A task of one constant image that hands out known losses."""

    head, num_outputs = "v1", 17

    def __init__(self, losses: Mapping[int, float]) -> None:
        self.losses, self.step = losses, 0

    def batch(self, step: int, *, size: int, seed: int) -> tuple[Tensor, Tensor]:
        self.step = step + 1
        return torch.zeros(size, 3, 32, 32), torch.zeros(())

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return output.sum() * 0 + self.losses.get(self.step, 1.0)

    def evaluate(self, predict: Any) -> dict[str, float]:
        assert not predict(torch.zeros(1, 3, 32, 32)).requires_grad
        return {"ap": float(self.step)}


def test_a_long_training_reports_about_fifty_means(net: Network) -> None:
    history: History = []
    task = Recorded({step: float(step) for step in range(1, 121)})
    metrics = train(
        net, task, settings(steps=120, evaluations=1), seed=0, hardware=CPU, report=history.append
    )  # type: ignore[arg-type]
    assert [entry["step"] for entry in history] == list(range(2, 121, 2))
    # Every loss is in one mean: of steps 1 and 2, 3 and 4, ...
    assert [entry["loss"] for entry in history] == [step - 0.5 for step in range(2, 121, 2)]
    assert metrics == {"ap": 120.0}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_finite_number_ends_training(net: Network, loss: float) -> None:
    history: History = []
    with pytest.raises(Diverged) as caught:
        train(net, Recorded({3: loss}), settings(), seed=0, hardware=CPU, report=history.append)  # type: ignore[arg-type]
    assert str(caught.value) == f"the loss is {loss} at step 3; a smaller train.lr may help"
    assert [entry["step"] for entry in history] == [1, 2]


def test_an_absurd_learning_rate_diverges(tiny_study: Study, task: Task) -> None:
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at step \d+; a smaller train\.lr"):
        run(tiny_study, task, seed=0, optimizer="sgd", schedule="constant", lr=1e30)


def test_evaluation_uses_running_statistics_and_changes_nothing(
    tiny_study: Study, task: Task
) -> None:
    net, metrics, _ = run(tiny_study, task, seed=0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert evaluate(net, task, CPU) == metrics
    assert not net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_batch_statistics_are_used_in_every_step_also_after_an_evaluation(net: Network) -> None:
    modes: list[bool] = []
    net.register_forward_hook(lambda module, *_: modes.append(module.training))
    train(net, Recorded({}), settings(), seed=0, hardware=CPU, report=lambda entry: None)  # type: ignore[arg-type]
    assert modes == [True, True, False, True, True, False]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_every_precision_and_layout_trains_float32_weights(
    tiny_study: Study, task: Task, precision: str, memory_format: str
) -> None:
    hardware = Hardware("cpu", precision, memory_format)
    net, _, history = run(tiny_study, task, seed=0, steps=1, evaluations=1, hardware=hardware)
    assert history[0]["loss"] == pytest.approx(math.log(64), rel=0.01)
    assert all(p.dtype == torch.float32 for p in net.parameters())


# --- evaluation steps --------------------------------------------------------------------------


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
    assert evaluation_steps(settings(steps=steps, evaluations=evaluations)) == expected


@given(st.integers(1, 10**6), st.integers(1, 200))
def test_evaluations_are_as_many_as_asked_evenly_spaced_and_end_at_the_end(
    steps: int, evaluations: int
) -> None:
    count = min(steps, evaluations)
    points = sorted(evaluation_steps(settings(steps=steps, evaluations=count)))
    assert len(points) == count
    assert points[-1] == steps
    gaps = [b - a for a, b in zip([0, *points], points, strict=False)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


# --- optimisers and schedules ------------------------------------------------------------------


def learning_rates(schedule: str, steps: int, lr: float = 0.1) -> list[float]:
    """The rate of each step, and the one after the last."""
    changed = settings(steps=steps, schedule=schedule, lr=lr, evaluations=1, optimizer="sgd")
    optimizer = make_optimizer(nn.Linear(1, 1), changed)
    scheduler = make_schedule(optimizer, changed)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_one_cycle_rises_to_lr_at_three_tenths_and_falls_to_nothing() -> None:
    rates = learning_rates("one_cycle", 99)
    assert rates[0] == pytest.approx(0.1 / 25)  # Smith's schedule as torch has it
    assert rates.index(max(rates)) == 29
    assert rates[29] == pytest.approx(0.1)
    assert rates[:30] == sorted(rates[:30])
    assert rates[29:] == sorted(rates[29:], reverse=True)
    assert rates[-1] < 1e-6


def test_poly_is_the_papers_power_of_what_is_left() -> None:
    rates = learning_rates("poly", 50)
    assert rates == pytest.approx([0.1 * (1 - step / 50) ** 0.9 for step in range(51)], abs=1e-9)


def test_constant_stays() -> None:
    assert learning_rates("constant", 50) == [0.1] * 51


@pytest.mark.parametrize("schedule", ["one_cycle", "poly", "constant"])
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
    assert {"lr": 0.02, "weight_decay": 0.03, **expected}.items() <= group.items()


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
    precision = "bfloat16" if able else "float32"
    assert choose_hardware(settings()) == Hardware("cuda", precision, "channels_last")


def test_hardware_says_layout_and_autocast() -> None:
    assert CPU.layout is torch.channels_last
    assert Hardware("cpu", "float32", "contiguous").layout is torch.contiguous_format
    x = torch.ones(2, 2)
    with Hardware("cpu", "bfloat16", "contiguous").autocast():
        assert (x @ x).dtype == torch.bfloat16
    with CPU.autocast():
        assert (x @ x).dtype == torch.float32


def test_the_constants_are_the_papers() -> None:
    assert (training.MOMENTUM, training.POLY_POWER) == (0.9, 0.9)
