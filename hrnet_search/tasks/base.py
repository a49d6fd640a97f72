"""What training asks of a task."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

# ImageNet's mean and deviation per RGB channel, on values of 0 to 255 (official code).
MEAN = torch.tensor([0.485, 0.456, 0.406]) * 255
STD = torch.tensor([0.229, 0.224, 0.225]) * 255

Predict = Callable[..., Any]  # what the network takes -> what it puts out, on the CPU or not
Part = tuple[int, int]  # which of how many processes that share a batch
WHOLE: Part = (0, 1)


class Task(Protocol):
    """Protocol of one task on one data set.

    Attributes:
        head: Representation head, a key of `blueprint.HEADS`.
        num_outputs: Joints or classes.
        num_train: Training samples.
    """

    @property
    def head(self) -> str: ...

    @property
    def num_outputs(self) -> int: ...

    @property
    def num_train(self) -> int: ...

    def batch(self, step: int, *, size: int, seed: int, part: Part = WHOLE) -> tuple[Any, Any]:
        """Training images (B, 3, H, W), normalised, and their targets: a pure function.

        A detector computes its losses itself: in place of the images there is a tuple of all
        that it is called with, images first.

        Args:
            step: Number of the batch, from 0.
            size: Images of the whole batch.
            seed: Decides the order of the samples and how each is varied.
            part: (rank, processes): every processes-th sample from the rank-th on.
        """

    def loss(self, output: Any, target: Any) -> Tensor:
        """Scalar loss of what the network puts out, in float32, against a batch's targets."""

    def evaluate(self, predict: Predict, *, out: Path | None = None) -> dict[str, float]:
        """Metrics on the validation images, keys as in `METRICS` after "metrics.".

        Args:
            predict: The network.
            out: Folder for the predictions in the data set's own format, and details.
        """

    def check(self, least: int) -> None:
        """Whether every validation image is shown to networks as large as they need.

        Args:
            least: Height and width in pixels that all networks of the study take.

        Raises:
            InputError: A validation image would be shown smaller.
        """

    def measures(self, name: str) -> bool:
        """Whether the validation data has anything that a metric of `evaluate` is measured on."""

    def preprocessing(self) -> dict[str, Any]:
        """What a user of the network must know: input size, mean, std, names of outputs."""

    def samples(self, most: int) -> list[np.ndarray]:
        """The first validation image and others at equal distances, uint8 (H, W, 3) RGB each."""


def evenly(count: int, most: int) -> list[int]:
    """At most `most` numbers below `count` at equal distances, from 0 on."""
    return [place * count // min(count, most) for place in range(min(count, most))]


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


def sample_rng(step: int, place: int, *, seed: int) -> np.random.Generator:
    """Random numbers of one sample of one batch, whichever process makes it."""
    return np.random.default_rng((seed, step, 2, place))


@contextmanager
def torch_seed(rng: np.random.Generator) -> Iterator[None]:
    """torch's global generator seeded from `rng`, for torchvision's transforms, then restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**32)))
        yield
