"""Scores of an untrained network that are said to foretell its accuracy, in a second or two.

Each is more for a network that is held to be better, with one caveat: none is proven. How far they
are to be believed on a space is what `audit` measures, beside the network's size alone. A score
that is no finite number is returned as it is; the audit refuses its column.

Weights are normal with Kaiming's deviation, the output layer's too: trainings start that one near
zero (`init_weights`), which would leave the body next to no gradient. All is float32 but synflow,
kernels and sums, which are float64.
"""

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .audit import SIZES
from .errors import InputError
from .model import Network
from .model.init import init_layers, kaiming, weighted_layers
from .networks import network
from .space import Value
from .study import Study
from .tasks.base import Task

IMAGES = 16  # in a batch
ZEN_STEP = 0.01  # alpha of the Zen-score (Lin et al. 2021, algorithm 1)
JACOV_K = 1e-5  # keeps the logarithm of an eigenvalue finite (Mellor et al. 2020)

Loss = Callable[[Any, Any], Tensor]  # what a network puts out, targets -> scalar
Batch = tuple[Tensor, Any]  # images (B, 3, H, W), targets
Gradients = Mapping[str, Tensor]  # name of a convolution or linear layer -> of its weights


@dataclass(frozen=True)
class Probe:
    """An untrained network, and what it is scored with.

    Args:
        model: The network; scores leave it as it is.
        loss: The task's.
        batches: Two training batches; ZiCo alone looks at the second.
        seed: Of the Zen-score's weights and images.
    """

    model: Network
    loss: Loss
    batches: tuple[Batch, Batch]
    seed: int

    @functools.cached_property
    def first(self) -> dict[str, Tensor]:
        """Gradients of the loss on the first batch, which three scores look at."""
        return self.gradients(0)

    def gradients(self, place: int) -> dict[str, Tensor]:
        """Of the loss on a batch; dropout draws the same whatever was computed before."""
        torch.manual_seed(self.seed)
        return gradients(self.model, self.loss, self.batches[place])


def probe(
    study: Study,
    params: Mapping[str, Value],
    task: Task,
    *,
    seed: int = 0,
    images: int = IMAGES,
    device: str = "cpu",
) -> Probe:
    """The network of some knob values with the study's head, loss and first training batches.

    Args:
        study: Without variants; of poses, segmentation or classification.
        params: Knob -> value.
        task: The study's, from `load_task`.
        seed: Of weights and batches.
        images: In each batch, at least 2.
        device: Where to compute.

    Raises:
        InputError: The network is a detector or no HRNet, or a batch has fewer than two images.
    """
    if images < 2:
        raise InputError("must be at least 2: images are compared", key="images", value=images)
    model = network(study, study.network(params).to_dict())
    if not isinstance(model, Network):
        rule = "scores of untrained networks are for HRNets, and not for detection"
        raise InputError(rule, key="task.kind", value=study.task.kind)
    init_layers(model, lambda _, layer: (kaiming(layer), 0.0), seed=seed)
    first, second = (task.batch(step, size=images, seed=seed) for step in range(2))
    return Probe(
        model.to(device),
        task.loss,
        ((first[0].to(device), first[1].to(device)), (second[0].to(device), second[1].to(device))),
        seed,
    )


def proxies(
    study: Study, params: Mapping[str, Value], task: Task, *, seed: int = 0, device: str = "cpu"
) -> dict[str, float]:
    """All scores of one network: those of `SCORES`, and params, macs and depth.

    Args, Raises: As `probe`.
    """
    given = probe(study, params, task, seed=seed, device=device)
    found = {name: score(name, given) for name in SCORES}
    return found | sizes(study, params)


def score(name: str, given: Probe) -> float:
    """One of `SCORES`, on one thread, whose sums are in a fixed order."""
    threads, images = torch.get_num_threads(), given.batches[0][0]
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng([images.device] if images.is_cuda else []):  # dropout draws
            torch.manual_seed(given.seed)
            return SCORES[name](given)
    finally:
        torch.set_num_threads(threads)


def sizes(study: Study, params: Mapping[str, Value]) -> dict[str, float]:
    """The scores that cost nothing: params, macs and depth in closed form."""
    counted = study.costs(params)
    return {name: float(counted[f"profile.{name}"]) for name in SIZES}


# --- of gradients --------------------------------------------------------------------------------


def gradients(model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
    """Of the loss on a batch, for the weights of convolutions and linear layers; biases not."""
    model = copy.deepcopy(model).train()
    layers = weighted_layers(model)
    images, target = batch
    weights = [layer.get_parameter("weight") for layer in layers.values()]
    return dict(zip(layers, torch.autograd.grad(loss(model(images), target), weights), strict=True))


def grad_norm(found: Gradients) -> float:
    """The sum over layers of the Euclidean norm of their gradient (Abdelfattah et al. 2021).

    Zero-Cost Proxies for Lightweight NAS, ICLR 2021, section 3.1.
    """
    return math.fsum(float(gradient.double().norm()) for gradient in found.values())


def snip(model: nn.Module, found: Gradients) -> float:
    """The sum over weights of |weight x gradient|: the loss that is lost with each of them.

    Lee et al., SNIP, ICLR 2019, as a score by Abdelfattah et al. 2021, section 3.2.
    """
    layers = weighted_layers(model)
    return math.fsum(
        float((layers[name].get_parameter("weight").detach() * gradient).double().abs().sum())
        for name, gradient in found.items()
    )


def zico(batches: Sequence[Gradients]) -> float:
    """The inverse coefficient of variation of gradients between batches (Li et al. 2023).

    ZiCo, ICLR 2023: the sum over layers of the logarithm of the sum over their weights of mean size
    over standard deviation, both over the batches, as the official code has them: two batches, the
    deviation with the sign. Weights whose gradient does not vary are left out, and so are layers
    without any other.
    """
    total = 0.0
    for name in batches[0]:
        each = torch.stack([found[name].double().flatten() for found in batches])
        mean, deviation = each.abs().mean(0), each.std(0, correction=0)
        varies = deviation != 0  # NaN included: it has to show
        if bool(varies.any()):
            total += float((mean[varies] / deviation[varies]).sum().log())
    return total


# --- of forward passes ---------------------------------------------------------------------------


def synflow(model: nn.Module, image: Tensor) -> float:
    """Synaptic flow (Tanaka et al. 2020): the sum over weights of weight x derivative.

    Pruning neural networks without any data, NeurIPS 2020, as a score by Abdelfattah et al. 2021.
    All weights are absolute, the image is of ones, BatchNorm has its first statistics and so does
    next to nothing, and what is derived is the sum of all that the head puts out. float64, as the
    sums grow with every layer.

    Args:
        model: The network.
        image: One (1, 3, H, W), for its shape alone.
    """
    model = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    weights = [layer.get_parameter("weight") for layer in weighted_layers(model).values()]
    flow = _total(model(torch.ones_like(image, dtype=torch.float64)))
    found = torch.autograd.grad(flow, weights)
    return math.fsum(float((w.detach() * g).sum()) for w, g in zip(weights, found, strict=True))


def naswot(model: nn.Module, images: Tensor) -> float:
    """How differently images switch the ReLUs (Mellor et al. 2021).

    Neural Architecture Search without Training, ICML 2021, section 3: log |det K|, where K (B, B)
    counts the ReLUs that two images switch alike. Minus infinity if two images do so in all.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)

    def add(output: Tensor) -> None:
        on = (output > 0).flatten(1).to(torch.float32)  # products of so few are exact
        off = 1 - on
        kernel.add_((on @ on.T + off @ off.T).double().cpu())

    model = copy.deepcopy(model).train()
    with torch.no_grad(), _Relus(add):
        model(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)


def jacov(model: nn.Module, images: Tensor) -> float:
    """How little images' Jacobians are correlated (Mellor et al. 2020).

    Neural Architecture Search without Training, first version, arXiv 2006.04647v1: of the
    derivatives of the output's sum for each image, one row each, the eigenvalues v of their
    correlation matrix (B, B): minus the sum of log(v + k) + 1 / (v + k). NaN if a row is constant.
    """
    model, images = copy.deepcopy(model).train(), images.clone().requires_grad_()
    (found,) = torch.autograd.grad(_total(model(images)), [images])
    matrix = torch.corrcoef(found.flatten(1).double()).cpu()
    if not bool(matrix.isfinite().all()):
        return math.nan
    values = torch.linalg.eigvalsh(matrix).clamp_min(0) + JACOV_K
    return -float((values.log() + 1 / values).sum())


def zen(model: Network, images: Tensor, *, seed: int) -> float:
    """The Zen-score (Lin et al. 2021), adapted to parallel branches.

    Zen-NAS, ICCV 2021, algorithm 1: with weights and images drawn from N(0, 1), the logarithm of
    how far the last maps move with the image, ||f(x) - f(x + 0.01 e)||, and for each BatchNorm half
    the logarithm of the mean variance that it divides by. Here f is all maps that the body gives to
    the head, shortcuts stay, since branches exchange maps through them, and there is one draw.

    Args:
        model: The network.
        images: (B, 3, H, W), for their shape alone.
        seed: Of weights and images.
    """
    body = copy.deepcopy(model.body).train()
    init_layers(body, lambda _, layer: (1.0, 0.0), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    x, step = (torch.randn(images.shape, generator=generator).to(images) for _ in range(2))
    with torch.no_grad():
        with _norms(body) as logarithms:
            maps = body(x)
        moved = body(x + ZEN_STEP * step)
    squares = [
        (a - b).double().square().flatten(1).sum(1) for a, b in zip(maps, moved, strict=True)
    ]
    distance = torch.stack(squares).sum(0).sqrt().mean()
    return float(distance.log()) + math.fsum(logarithms)


class _Relus(TorchDispatchMode):
    """Tells of what every ReLU puts out, module or function, in place or not."""

    KINDS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)

    def __init__(self, tell: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.tell = tell

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in self.KINDS:
            self.tell(output)
        return output


@contextmanager
def _norms(body: nn.Module) -> Iterator[list[float]]:
    """Half the logarithm of the mean variance that each BatchNorm divides by, as they run."""
    found: list[float] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance = inputs[0].double().var((0, 2, 3), correction=0).mean()
        found.append(0.5 * float(variance.log()))

    hooks = [
        module.register_forward_pre_hook(look)
        for module in body.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _total(output: Any) -> Tensor:
    """The sum of all that a head puts out."""
    if isinstance(output, Tensor):
        return output.sum()
    return torch.stack([_total(part) for part in output]).sum()


# Name -> the score. The first one that looks at gradients pays for them.
SCORES: Mapping[str, Callable[[Probe], float]] = {
    "grad_norm": lambda given: grad_norm(given.first),
    "snip": lambda given: snip(given.model, given.first),
    "synflow": lambda given: synflow(given.model, given.batches[0][0][:1]),
    "naswot": lambda given: naswot(given.model, given.batches[0][0]),
    "jacov": lambda given: jacov(given.model, given.batches[0][0]),
    "zen": lambda given: zen(given.model, given.batches[0][0], seed=given.seed),
    "zico": lambda given: zico([given.first, given.gradients(1)]),
}
