"""The embedded pose data, prepared: `synthetic_pose` draws it, the cache keeps it."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from ..joints import COCO
from ..progress import Advance
from ..settings import SyntheticPose
from . import synthetic_pose
from .cache import Prepared, Writer, cached
from .pose_data import FORMAT, write_samples
from .synthetic_pose import PoseSamples


def prepare(data: SyntheticPose, progress: Advance) -> Prepared:
    """Draw training and validation samples once; later calls find them in the cache.

    Args:
        data: How many, of which size.
        progress: Called with samples done and samples in all.
    """
    source = Path(synthetic_pose.__file__).read_bytes()
    identity = {
        **data.model_dump(mode="json"),
        "format": FORMAT,
        "source": hashlib.sha256(source).hexdigest(),  # other pictures, other cache entry
        "numpy": np.__version__,
    }
    return cached(identity, lambda writer: _draw(data, progress, writer))


def _draw(data: SyntheticPose, progress: Advance, writer: Writer) -> None:
    total, done = data.num_train + data.num_val, 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    for split, count in (("train", data.num_train), ("val", data.num_val)):
        seed = split_seed(data.seed, split)
        samples = synthetic_pose.generate(num=count, size=data.size, seed=seed, progress=advance)
        _write(writer, split, samples)
        if split == "val":
            _write_truth(writer, samples)


def _write(writer: Writer, split: str, samples: PoseSamples) -> None:
    """Each sample is an image of its own, and its crop is the whole of it."""
    count, height, width, _ = samples.images.shape
    place = np.arange(count)
    writer.append(split, samples.images)
    writer.array(
        f"{split}_index",
        np.stack([place * height * width, 0 * place + height, 0 * place + width], axis=1),
    )
    write_samples(
        writer,
        split,
        image=place,
        centres=np.tile([width / 2, height / 2], (count, 1)),
        extents=np.tile([width, height], (count, 1)),
        joints=samples.keypoints,
    )


def _write_truth(writer: Writer, samples: PoseSamples) -> None:
    """Images, people and the category are numbered from 1, in COCO's format."""
    count = len(samples.images)
    writer.json(
        "truth",
        {
            "info": {},
            "images": [{"id": number} for number in range(1, count + 1)],
            "annotations": [_annotation(samples, place) for place in range(count)],
            "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.names)}],
        },
    )
    writer.array("val_image_ids", np.arange(1, count + 1))
    writer.array("val_categories", np.ones(count, dtype=np.int64))
    writer.array("val_scores", np.ones(count))


def _annotation(samples: PoseSamples, place: int) -> dict[str, Any]:
    joints = samples.keypoints[place]
    return {
        "id": place + 1,
        "image_id": place + 1,
        "category_id": 1,
        "keypoints": joints.flatten().tolist(),
        "num_keypoints": int((joints[:, 2] > 0).sum()),
        "area": float(samples.areas[place]),
        "bbox": samples.boxes[place].tolist(),
        "iscrowd": 0,
    }


def split_seed(seed: int, split: str) -> int:
    """Seeds of the two splits never meet, whatever the study's seed."""
    return 2 * seed + (split == "val")
