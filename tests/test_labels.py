"""The sets of classes agree with what their data sets and the official code say."""

import pytest

from hrnet_search.labels import IGNORED, LABEL_SETS
from hrnet_search.settings import SegmentationFolder

VOC = {  # the 20 classes of PASCAL VOC, as PASCAL-Context spells them
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("table", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
}


@pytest.mark.parametrize(
    ("name", "classes", "values"),
    [
        ("ade20k", 150, 151),
        ("camvid", 11, 0),
        ("cityscapes", 19, 34),
        ("lip", 20, 0),
        ("pascal_context_59", 59, 60),
        ("pascal_context_60", 60, 0),
    ],
)
def test_numbers_of_classes_and_of_label_values(name: str, classes: int, values: int) -> None:
    labels = LABEL_SETS[name]
    assert (len(labels.class_names), len(labels.label_map)) == (classes, values)
    assert len(set(labels.class_names)) == classes
    assert all(word == word.strip() and word for word in labels.class_names)


def test_all_sets_are_listed_above() -> None:
    assert set(LABEL_SETS) == {
        *("ade20k", "camvid", "cityscapes", "lip", "pascal_context_59", "pascal_context_60")
    }


@pytest.mark.parametrize("name", LABEL_SETS)
def test_every_set_stands_for_valid_settings_in_which_every_class_occurs(name: str) -> None:
    fields = {"kind": "segmentation_folder", "root": "x", "crop_size": [32, 32], "label_set": name}
    data = SegmentationFolder.model_validate(fields)
    classes = set(data.label_map or range(data.num_outputs)) - {data.ignore_label}
    assert classes == set(range(data.num_outputs))


def test_cityscapes_is_mapped_as_torchvision_has_it() -> None:
    from torchvision.datasets import Cityscapes

    labels = LABEL_SETS["cityscapes"]
    known = [label for label in Cityscapes.classes if label.id >= 0]  # -1, licence plates: unused
    assert sorted(label.id for label in known) == list(range(34))
    for label in known:
        train_id = IGNORED if label.ignore_in_eval else label.train_id
        assert labels.label_map[label.id] == train_id
        assert train_id == IGNORED or labels.class_names[train_id] == label.name


def test_pascal_context_is_numbered_by_the_alphabet_with_the_background_first() -> None:
    without, whole = LABEL_SETS["pascal_context_59"], LABEL_SETS["pascal_context_60"]
    assert list(without.class_names) == sorted(without.class_names)
    assert whole.class_names == ("background", *without.class_names)
    assert set(without.class_names) > VOC
    assert without.label_map == (IGNORED, *range(59))


def test_lip_exchanges_the_pairs_of_the_official_code() -> None:
    labels = LABEL_SETS["lip"]
    numbers = [tuple(labels.class_names.index(name) for name in p) for p in labels.flip_pairs]
    assert numbers == [(14, 15), (16, 17), (18, 19)]  # official `lip.py`
    for left, right in labels.flip_pairs:
        assert left.replace("left", "right") == right


def test_ade20k_starts_at_one() -> None:
    labels = LABEL_SETS["ade20k"]
    assert labels.label_map[:3] == (IGNORED, 0, 1)
    # Rows 1, 13, 21, 100 and 150 of the benchmark's objectInfo150.
    at = {1: "wall", 13: "person", 21: "car", 100: "buffet", 150: "flag"}
    assert {row: labels.class_names[labels.label_map[row]] for row in at} == at
