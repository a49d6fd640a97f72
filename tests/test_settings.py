"""The sections task, data and train: what they mean, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from hrnet_search.errors import InputError
from hrnet_search.joints import COCO, MPII
from hrnet_search.keypoints import PADDING
from hrnet_search.labels import LABEL_SETS
from hrnet_search.settings import (
    BOX_PADDING,
    DATA_KINDS,
    CocoPose,
    Data,
    Keypoints,
    MpiiPose,
    PoseTask,
    SegmentationTest,
    SyntheticPose,
    Train,
)
from hrnet_search.study import Study, dump_study, load_study

TRAIN: dict[str, Any] = {"steps": 100, "batch_size": 8, "lr": 0.1}
FACE = {
    "names": ["left_eye", "right_eye", "nose"],
    "flip_pairs": [["left_eye", "right_eye"]],
    "skeleton": [["left_eye", "nose"]],
    "normalise_by": ["left_eye", "right_eye"],
}
SPACE = {"base": {"width": 4}, "vary": {"across": {"choices": [False, True]}}}
COCO_STUDY: dict[str, Any] = {
    "name": "coco",
    "task": {"kind": "pose"},
    "data": {"kind": "coco_pose", "root": "/data/coco", "input_size": [256, 192]},
    "space": SPACE,
    "train": TRAIN,
}
FOLDER = {"kind": "segmentation_folder", "root": "/data/x", "crop_size": [64, 64]}


def said(error: ValidationError) -> str:
    """The one line of our own rule."""
    inner = error.errors()[0]["ctx"]["error"]
    assert isinstance(inner, InputError)
    return str(inner)


def refusal(model: Any, values: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(model).validate_python(values)
    return said(caught.value)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"steps": None}, "steps: is missing"),
        (
            {"epochs": 3},
            "epochs: 3: cannot be given beside steps; --set train.epochs=null leaves it out",
        ),
        ({"evaluations": 101}, "evaluations: 101: cannot be more than steps (100)"),
        ({"warmup": 100, "schedule": "poly"}, "warmup: 100: must be less than steps (100)"),
        ({"warmup": 5}, "warmup: 5: one_cycle has its own"),
        ({"nesterov": True}, "nesterov: True: is for optimizer sgd"),
        ({"schedule": "step"}, "milestones: []: are needed for schedule step"),
        ({"milestones": [5]}, "milestones: [5]: are for schedule step"),
        (
            {"schedule": "step", "milestones": [5, 100]},
            "milestones: [5, 100]: must rise and stay below steps (100)",
        ),
        (
            {"schedule": "step", "milestones": [7, 5]},
            "milestones: [7, 5]: must rise and stay below steps (100)",
        ),
        (
            {"accumulate": 2, "processes": 4},
            "batch_size: 8: must make 8 equal parts (accumulate x processes) of 2 or more images",
        ),
        (
            {"accumulate": 3},
            "batch_size: 8: must make 3 equal parts (accumulate x processes) of 2 or more images",
        ),
    ],
)
def test_training_settings_that_do_not_fit_together(values: dict[str, Any], text: str) -> None:
    assert refusal(Train, TRAIN | values) == text


@pytest.mark.parametrize(
    ("epochs", "num_train", "batch_size", "steps"),
    [
        (210, 149813, 128, 245787),  # 31460730 samples / 128 = 245786.95
        (484, 2975, 12, 119992),  # Cityscapes: 1439900 / 12 = 119991.7, "120 K" in the paper
        (1, 8, 8, 1),
        (1, 9, 8, 2),
        (3, 5, 2, 8),  # 15 samples in 7 batches and a half
    ],
)
def test_epochs_are_counted_in_steps(
    epochs: int, num_train: int, batch_size: int, steps: int
) -> None:
    train = Train(epochs=epochs, batch_size=batch_size, lr=0.1)
    assert train.total_steps(num_train) == steps
    assert Train(**TRAIN).total_steps(num_train) == 100


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"names": ["a", "a"]}, "names: must not repeat a name"),
        ({"sigmas": [0.1]}, "sigmas: 1: must have one value for each of 3 joints"),
        (
            {"skeleton": [["left_eye", "nos"]]},
            "skeleton.0: 'nos': must be one of names; did you mean 'nose'?",
        ),
        (
            {"flip_pairs": [["left_eye", "right_eye"], ["nose", "left_eye"]]},
            "flip_pairs: 'left_eye': must not repeat a joint",
        ),
        (
            {"upper_body": ["noze"]},
            "upper_body: 'noze': must be one of names; did you mean 'nose'?",
        ),
        ({"normalise_by": ["nose"]}, "normalise_by: ['nose']: must be two joints"),
        ({"normalise_by": ["nose", "nose"]}, "normalise_by: ['nose', 'nose']: must be two joints"),
        (
            {"normalise_by": ["nose", "left_eye", "nose"]},
            "normalise_by: ['nose', 'left_eye', 'nose']: must be two joints",
        ),
    ],
)
def test_keypoints_that_contradict_each_other(change: dict[str, Any], text: str) -> None:
    Keypoints(**FACE)
    assert refusal(Keypoints, FACE | change) == text


@pytest.mark.parametrize(
    ("task", "data", "text"),
    [
        (
            {"metric": "oks"},
            {"keypoints": FACE},
            "task.metric: 'oks': needs keypoints.sigmas",
        ),
        ({"metric": "nme"}, {}, "task.metric: 'nme': needs keypoints.normalise_by"),
        ({"metric": "pckh"}, {}, "task.metric: 'pckh': needs data of kind mpii_pose"),
        (
            {"metric": "nme", "loss": "ohkm"},
            {"keypoints": FACE},
            "task.ohkm_joints: 8: cannot be more than the 3 joints",
        ),
    ],
)
def test_a_metric_needs_what_the_data_tells(
    task: dict[str, Any], data: dict[str, Any], text: str
) -> None:
    study = COCO_STUDY | {
        "task": COCO_STUDY["task"] | task,
        "data": COCO_STUDY["data"] | data,
    }
    assert refusal(Study, study) == text


@pytest.mark.parametrize("framework", ["mask_rcnn", "cascade_mask_rcnn", "htc"])
def test_frameworks_with_masks_need_data_with_masks(framework: str) -> None:
    study = COCO_STUDY | {
        "task": {"kind": "detection", "framework": framework},
        "data": {"kind": "voc_detection", "root": "/data/voc", "image_size": [96, 128]},
    }
    assert refusal(Study, study) == (
        f"task.framework: '{framework}': learns masks, which Pascal VOC does not have; "
        "faster_rcnn, cascade_rcnn, fcos, centernet, retinanet need none"
    )


def test_each_metric_works_with_data_that_tells_enough() -> None:
    face = COCO_STUDY["data"] | {"keypoints": FACE}
    mpii = {"kind": "mpii_pose", "root": "/data/mpii", "input_size": [256, 256]}
    for metric, data, first in (
        ("oks", COCO_STUDY["data"], "metrics.ap"),
        ("nme", face, "metrics.nme"),
        ("pckh", mpii, "metrics.pckh"),
    ):
        task = {"kind": "pose", "metric": metric}
        study = Study.model_validate(COCO_STUDY | {"task": task, "data": data})
        assert study.accuracy == first
    assert study.num_outputs == 16
    assert study.input_size == (256, 256)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"label_set": "cityscape"}, "label_set: 'cityscape': must be one of"),
        ({"class_names": ["a", "a"]}, "class_names: must not repeat a name"),
        ({"class_names": ["a", "b"], "ignore_label": 1}, "ignore_label: 1: must not be the number"),
        (
            {"class_names": ["a", "b"], "label_map": [0, 1, 2]},
            "label_map.2: 2: must be 0 to 1, or ignore_label (255)",
        ),
        (
            {"class_names": ["left", "right"], "flip_pairs": [["left", "rigth"]]},
            "flip_pairs.0: 'rigth': must be one of class_names; did you mean 'right'?",
        ),
        (
            {"class_names": ["a", "b", "c"], "flip_pairs": [["a", "b"], ["b", "c"]]},
            "flip_pairs: 'b': must not repeat a class",
        ),
        (
            {"class_names": ["a", "b"], "flip_pairs": [["a", "a"]]},
            "flip_pairs: 'a': must not repeat a class",
        ),
    ],
)
def test_labels_that_contradict_each_other(change: dict[str, Any], text: str) -> None:
    assert refusal(Data, FOLDER | change).startswith(text)


SEGMENTATION_STUDY: dict[str, Any] = COCO_STUDY | {
    "task": {"kind": "segmentation"},
    "data": FOLDER | {"label_set": "camvid"},
}


def segmentation_study(task: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    return SEGMENTATION_STUDY | {
        "task": SEGMENTATION_STUDY["task"] | task,
        "data": SEGMENTATION_STUDY["data"] | data,
    }


def study_of(kind: str, task: dict[str, Any]) -> dict[str, Any]:
    """A study of COCO's people, of a face's landmarks, on MPII, or a segmentation."""
    mpii = {"kind": "mpii_pose", "root": "/data/mpii", "input_size": [256, 256]}
    values, metric = {
        "pose": (COCO_STUDY, {}),
        "face": (
            COCO_STUDY | {"data": COCO_STUDY["data"] | {"keypoints": FACE}},
            {"metric": "nme"},
        ),
        "mpii": (COCO_STUDY | {"data": mpii}, {"metric": "pckh"}),
        "segmentation": (SEGMENTATION_STUDY, {}),
    }[kind]
    return values | {"task": values["task"] | metric | task}


@pytest.mark.parametrize(
    ("kind", "task", "text"),
    [
        ("pose", {"ohkm_joints": 5}, "task.ohkm_joints: 5: is for loss ohkm"),
        (
            "pose",
            {"test": {"flip": False, "shift": False}},
            "task.test.shift: False: is for flip true",
        ),
        (
            "mpii",
            {"test": {"oks_nms": 0.5}},
            "task.test.oks_nms: 0.5: is for metric oks",
        ),
        ("mpii", {"test": {"joint_score": 0.2}}, "task.test.joint_score: 0.2: is for metric oks"),
        (
            "pose",
            {"augmentation": {"half_body": 0, "half_body_joints": 5}},
            "task.augmentation.half_body_joints: 5: is for half_body above 0",
        ),
        (
            "pose",
            {"augmentation": {"rotation": 0, "rotation_share": 0.5}},
            "task.augmentation.rotation_share: 0.5: is for rotation above 0",
        ),
        (
            "face",
            {"augmentation": {"half_body": 0.5}},
            "task.augmentation.half_body: 0.5: needs keypoints.upper_body",
        ),
        (
            "face",
            {"augmentation": {"half_body_joints": 2}},
            "task.augmentation.half_body_joints: 2: needs keypoints.upper_body",
        ),
        ("segmentation", {"ohem_threshold": 0.7}, "task.ohem_threshold: 0.7: is for loss ohem"),
        ("segmentation", {"ohem_pixels": 99}, "task.ohem_pixels: 99: is for loss ohem"),
        ("segmentation", {"coarse_weight": 0.5}, "task.coarse_weight: 0.5: is for head ocr"),
        (
            "segmentation",
            {"test": {"overlap": 0.5}},
            "task.test.overlap: 0.5: is for tests by a window",
        ),
    ],
)
def test_settings_that_would_change_nothing_are_refused(
    tmp_path: Path, kind: str, task: dict[str, Any], text: str
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(study_of(kind, {})))
    file.write_text(dump_study(load_study(file)))  # which names all defaults
    load_study(file)
    file.write_text(json.dumps(study_of(kind, task)))
    with pytest.raises(InputError) as caught:
        load_study(file)
    assert str(caught.value) == f"{file}: {text}"


def test_settings_that_change_something_are_taken() -> None:
    for task in (
        {"loss": "ohkm", "ohkm_joints": 5},
        {"test": {"shift": False, "oks_nms": 0.5, "joint_score": 0.1}},
        {"augmentation": {"half_body": 0.1, "half_body_joints": 5, "rotation_share": 1}},
    ):
        Study.model_validate(COCO_STUDY | {"task": COCO_STUDY["task"] | task})
    for task in (
        {"loss": "ohem", "ohem_threshold": 0.7, "ohem_pixels": 99},
        {"head": "ocr", "coarse_weight": 0.5},
        {"test": {"window": [64, 64], "overlap": 0.5}},
    ):
        Study.model_validate(segmentation_study(task, {}))


@pytest.mark.parametrize("part", ["augmentation", "test"])
def test_a_base_length_is_refused_beside_another_size(part: str) -> None:
    resized = {part: {"resize": [64, 64]}}
    Study.model_validate(segmentation_study(resized, {}))
    Study.model_validate(segmentation_study({}, {"base_length": 99}))
    assert refusal(Study, segmentation_study(resized, {"base_length": 99})) == (
        f"data.base_length: 99: cannot be given beside task.{part}.resize, which sets the size too"
    )


LEAST = "must be at least 64 x 64 pixels for this network and head v2"


@pytest.mark.parametrize(
    ("test", "text"),
    [
        ({"window": [64, 48]}, f"task.test.window: [64, 48]: {LEAST}"),
        ({"resize": [48, 64]}, f"task.test.resize: [48, 64]: {LEAST}"),
        (  # 0.75 * 80 = 60
            {"resize": [80, 128], "scales": [2.0, 0.75, 1.0]},
            f"task.test.resize: [80, 128]: is 96x60 at scale 0.75; {LEAST}",
        ),
        ({"resize": [48, 64], "scales": [2.0]}, ""),
        ({"resize": [80, 128], "scales": [2.0, 0.8, 1.0]}, ""),  # 64x102
        ({"resize": [32, 32], "window": [64, 64]}, ""),  # filled up
    ],
)
def test_what_is_tested_must_be_as_large_as_networks_take(test: dict[str, Any], text: str) -> None:
    # Five stages: the stem's stride of 4, then 8, 16, 32, 64 on the fifth branch.
    study = segmentation_study({"test": test}, {})
    study |= {"space": {**SPACE, "base": {"width": 4, "num_stages": 5, "num_modules": 1}}}
    if text:
        assert refusal(Study, study) == text
    else:
        Study.model_validate(study)


def test_a_label_set_fills_in_its_keys_and_gives_way_to_what_is_written() -> None:
    read = TypeAdapter(Data).validate_python(FOLDER | {"label_set": "camvid"})
    assert tuple(read.class_names) == LABEL_SETS["camvid"].class_names
    assert read.ignore_label == 11
    own = {"label_set": "camvid", "ignore_label": 200}
    assert TypeAdapter(Data).validate_python(FOLDER | own).ignore_label == 200


def test_the_least_score_of_a_joint_follows_from_the_loss() -> None:
    def least(**settings: Any) -> float:
        return PoseTask.model_validate({"kind": "pose", **settings}).least_score

    assert (least(), least(loss="ohkm"), least(loss="cross_entropy")) == (0.2, 0.2, 0.0)
    assert least(loss="cross_entropy", test={"joint_score": 0.1}) == 0.1
    assert least(test={"joint_score": 0.0}) == 0.0


def test_crops_are_padded_as_the_official_code_does_unless_coco_data_says_otherwise() -> None:
    size = {"input_size": [64, 64]}
    data = (
        SyntheticPose(kind="synthetic_pose", num_train=1, num_val=1, **size),
        MpiiPose(kind="mpii_pose", root="x", **size),
        CocoPose(kind="coco_pose", root="x", **size),
        CocoPose(kind="coco_pose", root="x", box_padding=1.5, **size),
    )
    assert [one.padding for one in data] == [1.25, 1.25, 1.25, 1.5]
    assert BOX_PADDING == PADDING  # of people in `predict`


def test_a_list_of_two_or_none() -> None:
    assert SegmentationTest(window=[64, 96]).window == [64, 96]
    with pytest.raises(ValidationError) as caught:
        SegmentationTest(window=[64])
    assert said(caught.value) == "[64]: must be [height, width], or [] for none"


def test_ocr_networks_have_the_official_defaults_of_ocr() -> None:
    study = {
        "name": "ocr",
        "task": {"kind": "segmentation", "head": "ocr"},
        "data": FOLDER | {"label_set": "camvid"},
        "space": SPACE,
        "train": TRAIN,
    }
    assert Study.model_validate(study).space.base["task"] == "segmentation_ocr"


def test_every_kind_of_data_belongs_to_one_task() -> None:
    kinds = [kind for kinds in DATA_KINDS.values() for kind in kinds]
    branches = TypeAdapter(Data).core_schema["choices"]
    assert sorted(kinds) == sorted(branches)


def test_joint_sets_agree_with_pycocotools_and_themselves() -> None:
    from pycocotools.cocoeval import Params

    assert list(COCO.sigmas) == pytest.approx(Params(iouType="keypoints").kpt_oks_sigmas, rel=1e-12)
    assert (len(COCO.names), len(COCO.skeleton), len(COCO.flip_pairs)) == (17, 19, 8)
    # The pairs of the official code, by number (lib/dataset/coco.py, lib/dataset/mpii.py).
    assert COCO.index(COCO.flip_pairs) == [(n, n + 1) for n in range(1, 17, 2)]
    assert sorted(map(sorted, MPII.index(MPII.flip_pairs))) == [
        [0, 5], [1, 4], [2, 3], [10, 15], [11, 14], [12, 13]
    ]  # fmt: skip
    assert CocoPose(kind="coco_pose", root="x", input_size=[64, 64]).joints is COCO


def test_the_skeleton_is_that_of_cocos_files(real_data: Any) -> None:
    file = real_data("coco_mini") / "annotations" / "person_keypoints_val2017.json"
    person = json.loads(file.read_text())["categories"][0]
    assert person["keypoints"] == list(COCO.names)
    ours = {frozenset(pair) for pair in COCO.index(COCO.skeleton)}
    assert ours == {frozenset((a - 1, b - 1)) for a, b in person["skeleton"]}
