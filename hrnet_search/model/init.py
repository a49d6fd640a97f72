"""Initial weights that depend on the seed and on each parameter's name alone."""

import zlib

import torch
from torch import nn

from ..blueprint import head_of
from .network import Network

# Official code: the last layer starts near zero so that the first outputs do (std 0.001).
OUTPUT_STD = 0.001


@torch.no_grad()
def init_weights(model: nn.Module, *, seed: int) -> None:
    """Kaiming-normal weights (fan out, as the official classification code), BatchNorm 1/0.

    Every tensor has its own generator, seeded by `seed` and its name. Two networks of a study
    therefore start with the same values wherever they share a parameter, and an ablation's arms
    are paired from the first step.

    Args:
        model: A network whose last convolution or linear layer writes the output, or one that
            ends in a pyramid.
        seed: 0 or more.
    """
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    pyramid = isinstance(model, Network) and not head_of(model.head_name).has_output
    output = "" if pyramid else next(reversed(layers))
    for name, module in layers.items():
        # The CPU's generator takes 32 bits of seed: more would be dropped without a word.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        fan_out = module.weight[:, 0].numel()
        std = OUTPUT_STD if name == output else (2.0 / fan_out) ** 0.5
        module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * std)
        if module.bias is not None:
            module.bias.zero_()
