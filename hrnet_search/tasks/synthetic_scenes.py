"""The embedded detection data, prepared: `synthetic_detection` draws it, the cache keeps it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
from pycocotools import mask as coco_mask

from ..labels import SYNTHETIC_CLASSES
from ..progress import Advance
from ..settings import SyntheticDetection
from . import synthetic_detection
from .cache import Prepared, Writer, cached
from .detection_data import FORMAT, Classes, Object, Picture, write_objects, write_truth
from .synthetic import split_seed
from .synthetic_detection import AREA_SIDES, Scene

CLASSES = Classes(SYNTHETIC_CLASSES, list(range(1, len(SYNTHETIC_CLASSES) + 1)))


def prepare(data: SyntheticDetection, progress: Advance) -> Prepared:
    """Draw training and validation scenes once; later calls find them in the cache.

    Args:
        data: How many, of which size.
        progress: Called with scenes done and scenes in all.
    """
    source = Path(synthetic_detection.__file__).read_bytes()
    identity = {
        **data.model_dump(mode="json"),
        "format": FORMAT,
        "source": hashlib.sha256(source).hexdigest(),  # other pictures, other cache entry
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }
    return cached(identity, lambda writer: _make(data, progress, writer))


def _make(data: SyntheticDetection, progress: Advance, writer: Writer) -> None:
    done = iter(range(1, data.num_train + data.num_val + 1))
    size = (min(data.image_size), max(data.image_size))

    def pictures(split: str, count: int) -> Iterator[Picture]:
        """Of the scenes of a split, whose images are kept on the way."""
        scenes = synthetic_detection.generate(
            num=count, size=size, seed=split_seed(data.seed, split)
        )
        for number, scene in enumerate(scenes, start=1):
            writer.append(split, scene.image)
            yield picture_of(scene, number)
            progress(next(done), data.num_train + data.num_val)

    for split, count in (("train", data.num_train), ("val", data.num_val)):
        found = list(pictures(split, count))
        starts = np.arange(count) * size[0] * size[1]
        writer.array(f"{split}_index", np.stack([starts, *np.tile([size], (count, 1)).T], axis=1))
        if split == "train":
            write_objects(writer, found)
        else:
            areas = (AREA_SIDES[0] * size[0]) ** 2, (AREA_SIDES[1] * size[0]) ** 2
            write_truth(writer, found, CLASSES, areas)


def picture_of(scene: Scene, number: int) -> Picture:
    """A scene as the annotations of an image: what is seen of each object."""
    height, width = scene.owner.shape
    objects = []
    for place, label in enumerate(scene.labels.tolist(), start=1):
        mask = scene.mask(place)
        runs = coco_mask.encode(np.asfortranarray(mask))
        x1, y1, x2, y2 = map(float, scene.box(place))
        objects.append(Object((x1, y1, x2, y2), label, float(mask.sum()), mask=runs["counts"]))
    return Picture(number, (height, width), objects)
