"""Which samples make a batch, and how pixels become numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrnet_search.tasks.base import MEAN, STD, batch_indices, normalise


def drawn(count: int, total: int, *, size: int, seed: int) -> np.ndarray:
    """The first `total` samples that batches of this size hand out."""
    steps = range(-(-total // size))
    batches = [batch_indices(count, step, size=size, seed=seed) for step in steps]
    assert all(batch.shape == (size,) for batch in batches)
    return np.concatenate(batches)[:total]


@given(st.integers(1, 20), st.integers(1, 50), st.integers(0, 2**32))
def test_every_epoch_is_a_permutation_whatever_the_batch_size(
    count: int, size: int, seed: int
) -> None:
    epochs = drawn(count, 3 * count, size=size, seed=seed).reshape(3, count)
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)


@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 30), st.integers(0, 99))
def test_the_order_does_not_depend_on_the_batch_size(
    count: int, size: int, other: int, seed: int
) -> None:
    one, two = (drawn(count, 60, size=s, seed=seed) for s in (size, other))
    assert np.array_equal(one, two)


def test_order_changes_with_epoch_and_seed() -> None:
    epochs = drawn(100, 300, size=7, seed=0).reshape(3, 100)
    others = drawn(100, 300, size=7, seed=1).reshape(3, 100)
    assert len({tuple(epoch) for epoch in (*epochs, *others)}) == 6


def test_normalise_gives_imagenet_units_in_channels_last_memory() -> None:
    images = np.zeros((2, 3, 5, 3), dtype=np.uint8)
    images[1] = 255
    x = normalise(images)
    assert (x.dtype, tuple(x.shape)) == (torch.float32, (2, 3, 3, 5))
    assert x.is_contiguous(memory_format=torch.channels_last)
    # Zero is -mean / std and 255 is (1 - mean) / std of ImageNet's 0.485 0.456 0.406, 0.229 ...
    black, white = [-2.117904, -2.035714, -1.804444], [2.248908, 2.428571, 2.640000]
    assert x[0, :, 0, 0].tolist() == pytest.approx(black, abs=1e-5)
    assert x[1, :, 2, 4].tolist() == pytest.approx(white, abs=1e-5)


def test_normalise_keeps_places_and_channels_and_accepts_mirrored_views() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3), dtype=np.uint8)
    x = normalise(images[:, :, ::-1]) * STD.reshape(1, 3, 1, 1) + MEAN.reshape(1, 3, 1, 1)
    assert torch.equal(x.round()[0, 2, 1], torch.from_numpy(images[0, 1, ::-1, 2].copy()).float())
