"""The embedded pose data, prepared: `synthetic_pose` draws it, the cache keeps it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..settings import SyntheticPose
from . import synthetic_pose
from .cache import Prepared, cached


def prepare(data: SyntheticPose, progress: Callable[[int, int], None]) -> Prepared:
    """Draw training and validation samples once; later calls find them in the cache."""
    source = Path(synthetic_pose.__file__).read_bytes()
    identity = {
        **data.model_dump(mode="json"),
        "source": hashlib.sha256(source).hexdigest(),  # other pictures, other cache entry
        "numpy": np.__version__,
    }
    return cached(identity, lambda: _draw(data, progress))


def _draw(data: SyntheticPose, progress: Callable[[int, int], None]) -> dict[str, np.ndarray]:
    total, done = data.num_train + data.num_val, 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    arrays = {}
    height, width = data.input_size
    for split, count in (("train", data.num_train), ("val", data.num_val)):
        samples = synthetic_pose.generate(
            num=count, size=(height, width), seed=_split_seed(data.seed, split), progress=advance
        )
        for name in ("images", "keypoints", "areas", "boxes"):
            arrays[f"{split}_{name}"] = getattr(samples, name)
    return arrays


def _split_seed(seed: int, split: str) -> int:
    """Seeds of the two splits never meet, whatever the study's seed."""
    return 2 * seed + (split == "val")
