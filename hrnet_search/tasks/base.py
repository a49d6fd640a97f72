"""What training asks of a task."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

# ImageNet's mean and deviation per RGB channel, on values of 0 to 255 (official code).
MEAN = torch.tensor([0.485, 0.456, 0.406]) * 255
STD = torch.tensor([0.229, 0.224, 0.225]) * 255


class Task(Protocol):
    """Protocol of one task on one data set.

    Attributes:
        head: Representation head, a key of `hrnet_search.model.HEADS`.
        num_outputs: Channels the network puts out: joints or classes.
    """

    @property
    def head(self) -> str: ...

    @property
    def num_outputs(self) -> int: ...

    def batch(self, step: int, *, size: int, seed: int) -> tuple[Tensor, Any]:
        """Training images (B, 3, H, W), normalised, and their targets: a pure function."""

    def loss(self, output: Tensor, target: Any) -> Tensor:
        """Scalar loss of outputs (B, num_outputs, H/4, W/4)."""

    def evaluate(self, predict: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Metrics on the validation images, keys as in `METRICS` after "metrics."."""

    def preprocessing(self) -> dict[str, Any]:
        """What a user of the network must know: input size, mean, std, names of outputs."""

    def sample(self) -> np.ndarray:
        """One validation image, uint8 (H, W, 3) RGB."""


def normalise(images: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W), already channels-last in memory."""
    pixels = torch.from_numpy(np.array(images, order="C")).float()  # a copy: maps are read-only
    return ((pixels - MEAN) / STD).permute(0, 3, 1, 2)


def batch_indices(count: int, step: int, *, size: int, seed: int) -> np.ndarray:
    """Which samples make up a batch: epochs are permutations that depend on the seed alone.

    A batch may span two epochs, so every sample is used equally often whatever the batch size.
    """
    first = step * size
    epochs = range(first // count, (first + size - 1) // count + 1)
    order = np.concatenate([np.random.default_rng((seed, e)).permutation(count) for e in epochs])
    offset = first - epochs[0] * count
    return order[offset : offset + size]
