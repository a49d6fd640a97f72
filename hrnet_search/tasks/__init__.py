"""Tasks: what differs between pose, segmentation and classification, and the data they read."""

from ..frameworks import FRAMEWORKS
from ..progress import Advance
from ..settings import (
    CocoDetection,
    CocoPose,
    ImageFolders,
    MpiiPose,
    Objects,
    People,
    SyntheticDetection,
    SyntheticPose,
    VocDetection,
)
from ..study import Study
from .base import Task
from .cache import Prepared


def prepare(study: Study, progress: Advance) -> Prepared:
    """Put the study's data into the cache, or find it there.

    Args:
        study: A checked study.
        progress: Called with images done and images in all.

    Raises:
        InputError: The data is missing or broken.
    """
    # Imported here: each brings libraries that the others do without.
    data = study.data
    if isinstance(data, SyntheticPose):
        from . import synthetic

        return synthetic.prepare(data, progress)
    if isinstance(data, CocoPose | MpiiPose):
        from . import pose_data

        assert study.task.kind == "pose"
        return pose_data.prepare(data, study.task.metric, progress)
    if isinstance(data, ImageFolders):
        from . import classification

        return classification.prepare(data, progress)
    if isinstance(data, SyntheticDetection):
        from . import synthetic_scenes

        return synthetic_scenes.prepare(data, progress)
    if isinstance(data, CocoDetection | VocDetection):
        from . import detection_data

        assert study.task.kind == "detection"
        masks = FRAMEWORKS[study.task.framework].masks
        return detection_data.prepare(data, masks, progress)
    from . import segmentation_data

    return segmentation_data.prepare(data, progress)


def load_task(study: Study, prepared: Prepared) -> Task:
    """The study's task on prepared data, memory-mapped."""
    task, data = study.task, study.data
    if task.kind == "pose":
        from .pose import Pose

        assert isinstance(data, People)
        return Pose(task, data, prepared)
    if task.kind == "classification":
        from .classification import Classification

        assert isinstance(data, ImageFolders)
        return Classification(task, data, prepared)
    if task.kind == "detection":
        from .detection import Detection

        assert isinstance(data, Objects)
        return Detection(task, data, prepared)
    from .segmentation import Segmentation

    assert not isinstance(data, People | ImageFolders | Objects)
    return Segmentation(task, data, prepared)
