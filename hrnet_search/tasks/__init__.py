"""Tasks: what differs between pose and segmentation, and the data they read."""

from collections.abc import Callable

from ..study import Study
from . import segmentation, synthetic
from .base import Task
from .cache import Prepared

Progress = Callable[[int, int], None]


def prepare(study: Study, progress: Progress) -> Prepared:
    """Put the study's data into the cache, or find it there.

    Args:
        study: A checked study.
        progress: Called with images done and images in all.

    Raises:
        InputError: The data is missing or broken.
    """
    if study.data.kind == "synthetic_pose":
        return synthetic.prepare(study.data, progress)
    return segmentation.prepare(study.data, progress)


def load_task(study: Study, data: Prepared) -> Task:
    """The study's task on prepared data, memory-mapped."""
    from .pose import Pose

    if study.task.kind == "pose":
        return Pose(study.task, data)
    assert study.data.kind == "segmentation_folder"
    return segmentation.Segmentation(study.task, study.data, data)
