"""Initial weights that depend on the seed and on each parameter's name alone."""

import zlib
from collections.abc import Callable

import torch
from torch import nn

from ..blueprint import head_of
from .network import Network

# Official code: the last layer starts near zero so that the first outputs do (std 0.001).
OUTPUT_STD = 0.001


# A layer's name and itself -> deviation of its weights, value of its bias.
Rule = Callable[[str, nn.Module], tuple[float, float]]


def init_weights(model: nn.Module, *, seed: int) -> None:
    """Kaiming-normal weights (fan out, as the official classification code), BatchNorm 1/0.

    Every tensor has its own generator, seeded by `seed` and its name. Two networks of a study
    therefore start with the same values wherever they share a parameter, and an ablation's arms
    are paired from the first step. To share it means name and shape: of a cost-matched copy the
    stem and stage 1 start as in its original, and the branches whose width has changed do not.

    Args:
        model: A network whose last convolution or linear layer writes the output, or one that
            ends in a pyramid.
        seed: 0 or more.
    """
    pyramid = isinstance(model, Network) and not head_of(model.head_name).has_output
    output = "" if pyramid else next(reversed(weighted_layers(model)))

    def rule(name: str, layer: nn.Module) -> tuple[float, float]:
        return (OUTPUT_STD if name == output else kaiming(layer)), 0.0

    init_layers(model, rule, seed=seed)


@torch.no_grad()
def init_layers(model: nn.Module, rule: Rule, *, seed: int) -> None:
    """Normal weights and constant biases as `rule` says, each from the seed and its name."""
    for name, layer in weighted_layers(model).items():
        std, bias = rule(name, layer)
        # The CPU's generator takes 32 bits of seed: more would be dropped without a word.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        weight = layer.get_parameter("weight")
        weight.copy_(torch.randn(weight.shape, generator=generator) * std)
        if layer.bias is not None:
            layer.get_parameter("bias").fill_(bias)


def weighted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers by name, in their order."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def kaiming(layer: nn.Module) -> float:
    """Deviation that keeps the size of gradients through a ReLU (He et al., fan out)."""
    fan_out = layer.get_parameter("weight")[:, 0].numel()
    return (2.0 / fan_out) ** 0.5
