"""Scores of untrained networks, against values by hand and numpy."""

import copy
import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrnet_search.arch import hrnet
from hrnet_search.errors import InputError
from hrnet_search.model import Network, build, init_weights
from hrnet_search.model.init import init_layers
from hrnet_search.proxies import (
    JACOV_K,
    SCORES,
    ZEN_STEP,
    Probe,
    grad_norm,
    gradients,
    jacov,
    naswot,
    probe,
    proxies,
    score,
    snip,
    synflow,
    zen,
    zico,
)
from hrnet_search.study import Study, load_study
from hrnet_search.tasks import load_task
from hrnet_search.tasks.base import Task
from hrnet_search.tasks.cache import Prepared

DETECTION = Path(__file__).parents[1] / "studies" / "detection_fusion_ablation.yaml"


def two_layers(first: list[list[float]], second: list[list[float]]) -> nn.Sequential:
    """Linear layers without biases."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    for layer, weights in zip(model, (first, second), strict=True):
        layer.weight = nn.Parameter(torch.tensor(weights).float())
    return model


def weighted_sum(output: Tensor, target: Tensor) -> Tensor:
    return (output * target).sum()


# --- of gradients --------------------------------------------------------------------------------


def test_gradient_scores_of_two_linear_layers_by_hand() -> None:
    """y = b A x at x = (1, 1): dy/db = A x = (3, 7), dy/dA = b x' = ((5, 5), (-6, -6))."""
    model = two_layers([[1, 2], [3, 4]], [[5, -6]])
    found = gradients(model, weighted_sum, (torch.ones(1, 2), torch.ones(1, 1)))
    assert {name: g.tolist() for name, g in found.items()} == {
        "0": [[5, 5], [-6, -6]],
        "1": [[3, 7]],
    }
    assert grad_norm(found) == pytest.approx(math.sqrt(122) + math.sqrt(58), rel=1e-12)
    assert snip(model, found) == 5 + 10 + 18 + 24 + 15 + 42


def test_gradients_are_of_the_whole_batch() -> None:
    """Of the sum of t w x, which is the sum of t x."""
    model = nn.Linear(2, 1, bias=False)
    batch = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0], [-2.0]])
    assert gradients(model, weighted_sum, batch)[""].tolist() == [[-5, -6]]


def test_zico_by_hand() -> None:
    """Mean sizes over deviations: 2 / 1 and 1 / 1 in one layer, 3 / 1 in another."""
    first = {"a": [3, 1], "b": [4, 0], "fixed": [1, 2]}
    second = {"a": [1, -1], "b": [2, 0], "fixed": [1, 2]}
    batches = [{k: torch.tensor(v) for k, v in found.items()} for found in (first, second)]
    assert zico(batches) == pytest.approx(2 * math.log(3), rel=1e-12)
    broken = {**batches[0], "a": torch.tensor([math.nan, 1.0])}
    assert math.isnan(zico([broken, batches[1]]))


# --- of forward passes ---------------------------------------------------------------------------


def test_synflow_of_two_linear_layers_by_hand() -> None:
    """5 x (1 + 2) + 6 x (3 + 4) = 57 flow through, and the weights of each layer share that."""
    model = two_layers([[1, -2], [-3, 4]], [[5, -6]])
    assert synflow(model, torch.zeros(1, 2)) == 2 * 57
    assert model[1].weight.tolist() == [[5, -6]]


def test_synflow_goes_through_batchnorm_untouched_by_earlier_passes() -> None:
    """1 / sqrt(1 + eps) of the flow is left."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    model[0].weight = nn.Parameter(torch.full((1, 1, 1, 1), -3.0))
    image = torch.zeros(1, 1, 2, 2)
    expected = 4 * 3 / math.sqrt(1 + 1e-5)
    assert synflow(model, image) == pytest.approx(expected, rel=1e-12)
    naswot(model, torch.rand(3, 1, 2, 2))  # in training mode
    assert synflow(model, image) == pytest.approx(expected, rel=1e-12)


def test_naswot_by_hand() -> None:
    """Three ReLUs of which two images switch one alike: |3 1; 1 3| = 8."""
    images = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0]])
    assert naswot(nn.ReLU(), images) == pytest.approx(math.log(8), rel=1e-12)
    assert naswot(nn.ReLU(), images[[0, 0]]) == -math.inf


class Switches(nn.Module):
    """ReLUs of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 20), nn.Linear(20, 10)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        return F.relu(F.relu(self.second(x)) - 0.1, inplace=True)


def test_naswot_sees_all_relus_as_numpy_does() -> None:
    torch.manual_seed(0)
    model, images = Switches(), torch.randn(5, 6)
    (a, b), (c, d) = (
        (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer in (model.first, model.second)
    )
    one = images.numpy() @ a.T + b
    two = np.maximum(one, 0) @ c.T + d
    three = np.maximum(two, 0) - 0.1
    codes = np.concatenate([one, two, three], axis=1) > 0
    kernel = np.array([[(x == y).sum() for y in codes] for x in codes], dtype=float)
    sign, expected = np.linalg.slogdet(kernel)
    assert sign > 0
    assert naswot(model, images) == pytest.approx(expected, rel=1e-10)


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**2 / 2  # its Jacobian is x


def test_jacov_by_hand() -> None:
    """Uncorrelated rows have eigenvalues 1 and 1, equal ones 2 and 0."""

    def expected(*values: float) -> float:
        return -sum(math.log(v + JACOV_K) + 1 / (v + JACOV_K) for v in values)

    images = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, -2.0]])
    assert jacov(Square(), images) == pytest.approx(expected(1, 1), rel=1e-10)
    assert jacov(Square(), images[[0, 0]]) == pytest.approx(expected(2, 0), rel=1e-6)
    assert jacov(Square(), images) > jacov(Square(), images[[0, 0]])
    assert math.isnan(jacov(Square(), torch.ones(2, 4)))


class Body(nn.Module):
    """A map of a convolution alone, and one with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.conv = (nn.Conv2d(3, 2, 1, bias=False) for _ in range(2))
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.plain(x), self.norm(self.conv(x))]


def test_zen_as_numpy_computes_it() -> None:
    model = nn.Module()
    model.body = Body()
    before = copy.deepcopy(model.state_dict())
    found = zen(cast(Network, model), torch.zeros(4, 3, 5, 5), seed=7)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    init_layers(model.body, lambda *_: (1.0, 0.0), seed=7)
    plain, conv = (
        layer.weight.detach().double().numpy()[:, :, 0, 0]
        for layer in (model.body.plain, model.body.conv)
    )
    generator = torch.Generator().manual_seed(7)
    x, e = (torch.randn(4, 3, 5, 5, generator=generator).double().numpy() for _ in range(2))
    both = [x, x + ZEN_STEP * e]

    def normed(y: np.ndarray) -> np.ndarray:
        mean, var = y.mean((0, 2, 3), keepdims=True), y.var((0, 2, 3), keepdims=True)
        return (y - mean) / np.sqrt(var + 1e-5)

    one, two = (np.einsum("oc,bchw->bohw", plain, y) for y in both)
    three, four = (np.einsum("oc,bchw->bohw", conv, y) for y in both)
    squares = (one - two) ** 2 + (normed(three) - normed(four)) ** 2
    distance = np.sqrt(squares.sum((1, 2, 3))).mean()
    expected = math.log(distance) + 0.5 * math.log(three.var((0, 2, 3)).mean())
    assert found == pytest.approx(expected, rel=1e-4)


# --- of a study's networks -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def task(tiny_study: Study, tiny_pose: Prepared) -> Task:
    return load_task(tiny_study, tiny_pose)


def test_a_network_is_scored_alike_each_time(tiny_study: Study, task: Task) -> None:
    params = {"final": True}
    threads = torch.get_num_threads()
    found = proxies(tiny_study, params, task, seed=3)
    torch.manual_seed(5)
    assert proxies(tiny_study, params, task, seed=3) == found
    assert torch.get_num_threads() == threads
    assert list(found) == [*SCORES, "params", "macs", "depth"]
    assert all(math.isfinite(value) for value in found.values())
    costs = tiny_study.costs(params)
    assert all(found[name] == costs[f"profile.{name}"] for name in ("params", "macs", "depth"))
    other = proxies(tiny_study, params, task, seed=4)
    assert all(other[name] != found[name] for name in SCORES)


def test_scores_leave_the_network_as_it_is(tiny_study: Study, task: Task) -> None:
    given = probe(tiny_study, {"final": True}, task)
    before = copy.deepcopy(given.model.state_dict())
    for name in SCORES:
        score(name, given)
        after = given.model.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items()), name
    assert all(parameter.grad is None for parameter in given.model.parameters())


def total(output: Tensor | tuple[Tensor, ...], _: object) -> Tensor:
    parts = output if isinstance(output, tuple) else (output,)
    return torch.stack([part.square().mean() for part in parts]).sum()


@pytest.mark.parametrize("head", ["v1h", "v2", "ocr", "cls"])
def test_every_score_is_finite_with_every_kind_of_head(head: str) -> None:
    """OCR puts out two maps, and drops channels at random: once and again the same."""
    model = build(
        hrnet(width=4, num_stages=3, num_modules=1, num_blocks=1), head=head, num_outputs=3
    )
    init_weights(model, seed=0)
    generator = torch.Generator().manual_seed(0)
    first, second = ((torch.randn(4, 3, 32, 32, generator=generator), None) for _ in range(2))
    found = [
        {name: score(name, given) for name in names}
        for names in (list(SCORES), list(SCORES)[::-1])
        for given in [Probe(model, total, (first, second), 0)]
    ]
    assert all(math.isfinite(value) for value in found[0].values()), found[0]
    assert found[0] == found[1]


def test_gradients_are_of_the_studys_own_loss_and_batch(tiny_study: Study, task: Task) -> None:
    given = probe(tiny_study, {"final": True}, task, seed=2)
    images, joints = task.batch(0, size=16, seed=2)
    model = copy.deepcopy(given.model).train()
    task.loss(model(images), joints).backward()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [float(cast(Tensor, layer.weight.grad).norm()) for layer in layers]
    assert score("grad_norm", given) == pytest.approx(sum(norms), rel=1e-5)


def test_refusals(tiny_study: Study, task: Task) -> None:
    with pytest.raises(InputError, match="images: 1: must be at least 2"):
        probe(tiny_study, {"final": True}, task, images=1)
    detection = load_study(DETECTION)
    with pytest.raises(InputError, match=r"task\.kind: 'detection': .*not for detection"):
        probe(detection, detection.arms()[0], task)
