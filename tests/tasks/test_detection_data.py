"""COCO's instances and Pascal VOC: what becomes of good entries, one clear line for bad ones."""

import copy
import json
import re
import zipfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_files import (
    CATEGORIES,
    HEIGHT,
    WIDTH,
    coco_content,
    coco_object,
    coco_set,
    noise,
    rectangle,
    voc_object,
    voc_set,
    voc_xml,
)
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from hrnet_search.errors import InputError
from hrnet_search.settings import CocoDetection, VocDetection
from hrnet_search.tasks.cache import Prepared
from hrnet_search.tasks.detection_data import decompressed, prepare, starts
from hrnet_search.tasks.images import Images


def quietly(data: CocoDetection | VocDetection, *, masks: bool = True) -> Prepared:
    masks = masks and isinstance(data, CocoDetection)
    return prepare(data, masks, lambda done, total: None)


def refusal(data: CocoDetection | VocDetection, *, masks: bool = True) -> str:
    """The one line that the data is refused with."""
    with pytest.raises(InputError) as caught:
        quietly(data, masks=masks)
    text = str(caught.value)
    assert "\n" not in text
    return text


def train_masks(prepared: Prepared, sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    """The mask (H, W) of each training object, whose image has the size given."""
    runs, first = prepared.array("train_masks"), prepared.array("train_mask_first")
    return [
        coco_mask.decode({"size": list(size), "counts": runs[first[n] : first[n + 1]].tobytes()})
        for n, size in enumerate(sizes)
    ]


# --- the cache -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [coco_set, voc_set])
def test_whether_pixels_are_kept_decides_and_not_the_limit(
    tmp_path: Path, cache: Path, make: Callable[[Path], CocoDetection | VocDetection]
) -> None:
    data = make(tmp_path)
    some, more, none = (
        quietly(data.model_copy(update={"cache_gib": gib})).folder for gib in (4.0, 5.0, 1e-6)
    )
    assert some == more != none


def test_images_that_are_not_used_are_not_counted(tmp_path: Path, cache: Path) -> None:
    content = coco_content()
    content["annotations"] = [e for e in content["annotations"] if e["image_id"] == 11]
    data = coco_set(tmp_path, content)
    gib = 3 * 3 * HEIGHT * WIDTH / 2**30  # one training image, and two to test on
    for used, fit in ((gib, True), (gib - 1e-9, False)):
        assert quietly(data.model_copy(update={"cache_gib": used})).has("train") is fit


# --- what becomes of good entries ----------------------------------------------------------------


def test_the_records_of_two_images_by_hand(tmp_path: Path) -> None:
    prepared = quietly(coco_set(tmp_path))
    assert prepared.array("train_first").tolist() == [0, 2, 3]
    expected = [[10, 20, 40, 36], [48, 4, 68, 44], [8, 30, 32, 60]]
    assert prepared.array("train_boxes").tolist() == expected
    assert prepared.array("train_labels").tolist() == [1, 2, 2]  # by the categories' numbers
    about = prepared.json("about")
    assert about == {
        "class_names": ["cat", "dog"],
        "category_ids": [3, 7],
        "areas": [32**2, 96**2],
    }
    lying, upright = (HEIGHT, WIDTH), (WIDTH, HEIGHT)
    sizes = [lying, lying, upright]
    for (x1, y1, x2, y2), mask, size in zip(
        expected, train_masks(prepared, sizes), sizes, strict=True
    ):
        wanted = np.zeros(size)
        wanted[y1:y2, x1:x2] = 1
        assert np.array_equal(mask, wanted)
    assert prepared.array("val_image_ids").tolist() == [11, 12]
    for split in ("train", "val"):
        assert [image.shape for image in Images(prepared, split)] == [(*lying, 3), (*upright, 3)]


def test_the_truth_is_what_pycocotools_reads_in_the_file(tmp_path: Path) -> None:
    content = coco_content()
    crowd = {"size": [HEIGHT, WIDTH], "counts": [600, 60, HEIGHT * WIDTH - 660]}
    content["annotations"].append(
        {"id": 9, **coco_object(11, 3, (10, 0, 1, 60), iscrowd=1, segmentation=crowd)}
    )
    truth = quietly(coco_set(tmp_path, val=content)).json("truth")
    theirs = COCO(str(tmp_path / "val.json"))
    by_image = [theirs.imgToAnns[image] for image in (11, 12)]
    for ours, entry in zip(truth["annotations"], chain(*by_image), strict=True):
        assert {
            key: ours[key] for key in ("image_id", "category_id", "bbox", "area", "iscrowd")
        } == {key: entry[key] for key in ("image_id", "category_id", "bbox", "area", "iscrowd")}
        assert np.array_equal(coco_mask.decode(ours["segmentation"]), theirs.annToMask(entry))
    assert [entry["id"] for entry in truth["annotations"]] == [1, 2, 3, 4]
    assert truth["categories"] == [{"id": key, "name": name} for key, name in CATEGORIES.items()]


@pytest.mark.parametrize(
    "change",
    [
        {"iscrowd": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}},
        {"area": 0},
        {"bbox": [10, 20, 0.9, 16]},
        {"bbox": [10, 20, 30, 0]},
        {"bbox": [WIDTH - 0.5, 20, 30, 16]},  # of less than a pixel inside the image
        {"bbox": [-40, 20, 30, 16]},
    ],
)
def test_what_cannot_be_learned_from_is_left_out_but_stays_in_the_truth(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    content = coco_content()
    content["annotations"][0] |= change
    prepared = quietly(coco_set(tmp_path, content, content))
    assert prepared.array("train_first").tolist() == [0, 1, 2]
    assert prepared.array("train_labels").tolist() == [2, 2]
    assert prepared.array("train_mask_first").shape == (3,)
    truth = prepared.json("truth")["annotations"]
    assert len(truth) == 3
    assert truth[0]["bbox"] == pytest.approx(content["annotations"][0]["bbox"])
    assert truth[0]["iscrowd"] == content["annotations"][0]["iscrowd"]


def test_a_box_of_one_pixel_is_learned_from(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0] |= {"bbox": [10, 20, 1, 1], "area": 1}
    assert len(quietly(coco_set(tmp_path, content)).array("train_labels")) == 3


def test_boxes_are_cut_at_the_borders_in_training_alone(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0] |= {"bbox": [-5, -4, 30, 16]}
    content["annotations"][1] |= {"bbox": [48, 4, 40, 70]}
    prepared = quietly(coco_set(tmp_path, content, content))
    expected = [[0, 0, 25, 12], [48, 4, WIDTH, HEIGHT]]
    assert prepared.array("train_boxes")[:2].tolist() == expected
    boxes = [entry["bbox"] for entry in prepared.json("truth")["annotations"]]
    assert boxes[:2] == [[-5, -4, 30, 16], [48, 4, 40, 70]]


@pytest.mark.parametrize(("use_empty", "expected"), [(False, [0, 2]), (True, [0, 2, 2])])
def test_images_without_objects_are_learned_from_if_asked_and_always_tested(
    tmp_path: Path, use_empty: bool, expected: list[int]
) -> None:
    content = coco_content()
    del content["annotations"][2]
    prepared = quietly(coco_set(tmp_path, content, content, use_empty=use_empty))
    assert prepared.array("train_first").tolist() == expected
    assert len(Images(prepared, "train")) == len(expected) - 1
    assert len(Images(prepared, "val")) == len(prepared.array("val_image_ids")) == 2


def test_without_masks_segmentations_are_not_looked_at(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0]["segmentation"] = "nonsense"
    del content["annotations"][1]["segmentation"]
    prepared = quietly(coco_set(tmp_path, content, content), masks=False)
    assert not (prepared.folder / "train_masks.npy").exists()
    assert "segmentation" not in prepared.json("truth")["annotations"][2]


def test_every_change_of_an_annotation_changes_the_checksum(tmp_path: Path) -> None:
    def checksum(name: str, **change: Any) -> str:
        content = coco_content()
        content["annotations"][1] |= change
        return quietly(coco_set(tmp_path / name, content)).checksum

    plain = checksum("a")
    assert checksum("b") == plain
    others = {
        checksum("c", bbox=[48, 4, 20, 41]),
        checksum("d", category_id=3),
        checksum("e", segmentation=[rectangle(48, 4, 20, 39)]),
    }
    assert len(others | {plain}) == 4


def test_real_masks_and_boxes_are_those_of_pycocotools(real_data: Callable[[str], Path]) -> None:
    root = real_data("coco_mini")
    data = CocoDetection(kind="coco_detection", root=str(root), image_size=[320, 512])
    prepared = quietly(data)
    theirs = COCO(str(root / "annotations" / "instances_train2017.json"))
    kept = [  # mmdetection's rule; none of these boxes leaves its image
        [entry for entry in theirs.imgToAnns[image] if not entry["iscrowd"]]
        for image in theirs.imgs
    ]
    images = [image for image, some in zip(theirs.imgs.values(), kept, strict=True) if some]
    entries = list(chain(*kept))
    assert prepared.array("train_first").tolist() == starts([len(k) for k in kept if k]).tolist()
    assert len(Images(prepared, "train")) == len(images)
    names = prepared.json("about")["class_names"]
    assert [names[label - 1] for label in prepared.array("train_labels")] == [
        theirs.cats[entry["category_id"]]["name"] for entry in entries
    ]
    sizes = [
        (theirs.imgs[e["image_id"]]["height"], theirs.imgs[e["image_id"]]["width"]) for e in entries
    ]
    for entry, mask in zip(entries, train_masks(prepared, sizes), strict=True):
        assert np.array_equal(mask, theirs.annToMask(entry))
    corners = np.array([entry["bbox"] for entry in entries])
    corners[:, 2:] += corners[:, :2]
    assert np.allclose(prepared.array("train_boxes"), corners, atol=1e-3)


def test_run_lengths_are_decompressed_as_pycocotools_decodes_them() -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = (rng.random((37, 91)) < share).astype(np.uint8)
        flat = mask.flatten(order="F")
        changes = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff([0, *changes, flat.size]).tolist()
        expected = [0, *runs] if flat[0] else runs
        assert (
            decompressed(coco_mask.encode(np.asfortranarray(mask))["counts"].decode()) == expected
        )
    assert decompressed("P") is None  # its last letter says that there is another one
    assert decompressed(" 1") is None


# --- one clear line for what is wrong ------------------------------------------------------------


def put(*path: Any, value: Any = ...) -> Callable[[Any], None]:
    """Replaces an entry of a content, or removes it."""

    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        if value is ...:
            del content[path[-1]]
        else:
            content[path[-1]] = value

    return change


FIRST = ("annotations", 0)
PIXELS = HEIGHT * WIDTH
SIZE = [HEIGHT, WIDTH]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (put("categories"), r"train.json: is not in COCO's format: no list 'categories'"),
        (put("images", value={}), r"train.json: is not in COCO's format: no list 'images'"),
        (put("images", 1, "id", value=11), r"images.1.id: 11: is the id of two images"),
        (put("images", 1, "height"), r"images.1.height: is missing"),
        (put("categories", 0, "id", value=3), r"categories.1.id: 3: is the id of two categories"),
        (
            put("categories", 0, "name", value="cat"),
            r"categories.1.name: 'cat': is the name of two",
        ),
        (
            put("categories", 0),
            r"data.num_classes: 2: must be 1, the number of categories in .*json",
        ),
        (put(*FIRST, "image_id", value=5), r"annotations.0.image_id: 5: is not the id of an image"),
        (
            put(*FIRST, "category_id", value=4),
            r"annotations.0.category_id: 4: is not the id of a cat",
        ),
        (put(*FIRST, "category_id"), r"annotations.0.category_id: is missing"),
        (
            put(*FIRST, "bbox", value=[1, 2, -3, 4]),
            r"annotations.0.bbox: \[1, 2, -3, 4\]: must have a w",
        ),
        (
            put(*FIRST, "bbox", value=[1, 2, float("nan"), 4]),
            r"annotations.0.bbox: .* a list of 4 numbers",
        ),
        (put(*FIRST, "bbox", value=[1, 2, 3]), r"annotations.0.bbox: .* a list of 4 numbers"),
        (put(*FIRST, "area", value="big"), r"annotations.0.area: 'big': must be a number"),
        (put(*FIRST, "iscrowd", value=2), r"annotations.0.iscrowd: 2: must be 0 or 1"),
        (put(*FIRST, "segmentation"), r"annotations.0.segmentation: is missing"),
        (
            put(*FIRST, "segmentation", value=[]),
            r"segmentation: \[\]: must be a list of polygons, or run",
        ),
        (
            put(*FIRST, "segmentation", value=7),
            r"annotations.0.segmentation: 7: must be a list of polyg",
        ),
        (
            put(*FIRST, "segmentation", 0, value=3),
            r"segmentation.0: 3: must be a polygon: a list of x, y",
        ),
        (put(*FIRST, "segmentation", 0, 0, value="1"), r"segmentation.0: .*: must be a polygon"),
        (
            put(*FIRST, "segmentation", 0, 7),
            r"annotations.0.segmentation.0: must be x, y .* has 7 numbers",
        ),
        (
            put(*FIRST, "segmentation", 0, value=[1, 2, 3, 4]),
            r"segmentation.0: .*corners.*has 4 numbers",
        ),
        (
            put(*FIRST, "segmentation", 0, 3, value=float("nan")),
            r"segmentation.0: must have numbers within",
        ),
        (
            put(*FIRST, "segmentation", 0, 0, value=1e9),
            r"segmentation.0: must have numbers within the image",
        ),
        (
            put(*FIRST, "segmentation", value={"size": SIZE[::-1], "counts": [PIXELS]}),
            r"segmentation.size: \[80, 60\]: must be \[60, 80\], height and width",
        ),
        (
            put(*FIRST, "segmentation", value={"size": SIZE, "counts": [5, PIXELS]}),
            r"annotations.0.segmentation.counts: must be run lengths of all 4800 pixels",
        ),
        (
            put(*FIRST, "segmentation", value={"size": SIZE, "counts": [PIXELS + 5, -5]}),
            r"segmentation.counts: must be run lengths",
        ),
        (
            put(*FIRST, "segmentation", value={"size": SIZE, "counts": "oooo~~"}),
            r"segmentation.counts: must be run lengths",
        ),
        (
            put(*FIRST, "segmentation", value={"size": SIZE}),
            r"segmentation.counts: must be run lengths",
        ),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(
    tmp_path: Path, change: Callable[[Any], None], expected: str
) -> None:
    content = coco_content()
    change(content)
    data = coco_set(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert re.search(expected, refusal(data)), refusal(data)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    data = coco_set(tmp_path)
    (tmp_path / "val.json").write_text('{"images": [')
    assert refusal(data).startswith(f"{tmp_path / 'val.json'}: is not JSON")


def test_a_missing_and_a_broken_image_are_named(tmp_path: Path) -> None:
    data = coco_set(tmp_path)
    file = tmp_path / "train" / "b.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert refusal(data).startswith(f"{file}: is not a readable image")
    file.unlink()
    listed = f"there is no such image, but {tmp_path / 'train.json'} lists it"
    assert refusal(data) == f"{file}: {listed}"


def test_an_image_that_a_zip_file_lacks_is_named_with_the_list_that_has_it(tmp_path: Path) -> None:
    data = coco_set(tmp_path, val_images="val.zip")
    with zipfile.ZipFile(tmp_path / "val.zip", "w") as archive:
        archive.write(tmp_path / "val" / "a.png", "a.png")
    listed = f"there is no such image, but {tmp_path / 'val.json'} lists it"
    assert refusal(data) == f"{tmp_path / 'val.zip' / 'b.png'}: {listed}"


def test_an_image_of_another_size_than_its_entry_is_refused(tmp_path: Path) -> None:
    data = coco_set(tmp_path)
    noise(tmp_path / "val" / "a.png", (50, 80))
    assert refusal(data).endswith("a.png: is 80x50 pixels, but 80x60 are wanted")


def test_missing_folders_and_files_name_the_setting(tmp_path: Path) -> None:
    data = coco_set(tmp_path)
    assert refusal(data.model_copy(update={"val_images": "other"})).startswith(
        "data.val_images: 'o"
    )
    other = data.model_copy(update={"train_annotations": "other.json"})
    assert refusal(other).startswith("data.train_annotations: 'other.json': there is no such file")


@pytest.mark.parametrize(("split", "rule"), [("train", "to learn from"), ("val", "to find")])
def test_a_split_without_objects_is_refused(tmp_path: Path, split: str, rule: str) -> None:
    content = coco_content()
    for entry in content["annotations"]:
        crowd = {"size": SIZE if entry["image_id"] == 11 else SIZE[::-1], "counts": [PIXELS]}
        entry |= {"iscrowd": 1, "segmentation": crowd}
    for number, some in enumerate((content, {**content, "annotations": []})):
        folder = tmp_path / str(number)
        text = refusal(coco_set(folder, **{split: some}))
        assert text.startswith(f"{folder / split}.json: has no object {rule}")


def test_splits_with_different_categories_are_refused(tmp_path: Path) -> None:
    content = copy.deepcopy(coco_content())
    content["categories"][0]["name"] = "wolf"
    text = refusal(coco_set(tmp_path, val=content))
    expected = f"categories: has other categories than {tmp_path / 'train.json'}"
    assert text == f"{tmp_path / 'val.json'}: {expected}"


# --- Pascal VOC ----------------------------------------------------------------------------------


def test_the_boxes_of_voc_count_from_one_and_difficult_ones_are_ignored(tmp_path: Path) -> None:
    prepared = quietly(voc_set(tmp_path))
    assert prepared.array("train_first").tolist() == [0, 2, 3]
    expected = [[10, 20, 40, 36], [0, 0, WIDTH, HEIGHT], [1, 2, 9, 8]]
    assert prepared.array("train_boxes").tolist() == expected
    assert prepared.array("train_labels").tolist() == [1, 2, 1]
    truth = prepared.json("truth")
    assert [entry["iscrowd"] for entry in truth["annotations"]] == [0, 0, 1, 0]
    assert [entry["category_id"] for entry in truth["annotations"]] == [1, 2, 2, 1]
    assert truth["annotations"][0]["bbox"] == [10, 20, 30, 16]
    assert truth["annotations"][0]["area"] == 480
    assert [image["id"] for image in truth["images"]] == [1, 2]


def test_an_image_with_difficult_objects_alone_is_tested_but_not_learned_from(
    tmp_path: Path,
) -> None:
    files = {
        "one": voc_xml(voc_object("dog", (5, 5, 20, 30), 1)),
        "two": voc_xml(voc_object("cat", (2.5, 3, 9, 8))),
    }
    prepared = quietly(voc_set(tmp_path, files))
    assert prepared.array("train_boxes").tolist() == [[1.5, 2, 9, 8]]
    assert len(Images(prepared, "val")) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            voc_xml(voc_object("cow", (1, 1, 5, 5))),
            r"one.xml: object.0.name: 'cow': must be one of",
        ),
        (
            voc_xml(voc_object("cat", (1, 1, 5, "x"))),
            r"object.0.bndbox.ymax: 'x': must be a number",
        ),
        (
            voc_xml(voc_object("cat", (1, "nan", 5, 5))),
            r"object.0.bndbox.ymin: 'nan': must be a number",
        ),
        (
            voc_xml(voc_object("cat", (9, 1, 5, 5))),
            r"object.0.bndbox: .*no greater than xmax, ymax",
        ),
        (voc_xml("<object><name>cat</name></object>"), r"object.0.bndbox.xmin: is missing"),
        (
            voc_xml(voc_object("cat", (1, 1, 5, 5), "maybe")),
            r"object.0.difficult: 'maybe': must be a",
        ),
        ("<annotation></annotation>", r"one.xml: size.height: is missing"),
        (
            voc_xml().replace(str(WIDTH), "0"),
            r"size.width: '0': must be a whole number of 1 or more",
        ),
        ("<annotation>", r"one.xml: is not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', r"one.xml: has a DOCTYPE"),
    ],
)
def test_a_wrong_entry_of_voc_is_refused_with_its_place(
    tmp_path: Path, text: str, expected: str
) -> None:
    data = voc_set(tmp_path, {"one": text, "two": voc_xml(voc_object("cat", (1, 1, 5, 5)))})
    assert re.search(expected, refusal(data)), refusal(data)


def test_missing_files_of_voc_are_named(tmp_path: Path) -> None:
    data = voc_set(tmp_path)
    picture = tmp_path / "JPEGImages" / "2007_02.jpg"
    picture.unlink()
    listed = f"there is no such image, but {tmp_path / 'ImageSets/Main/both.txt'} lists it"
    assert refusal(data) == f"{picture}: {listed}"
    (tmp_path / "Annotations" / "2007_01.xml").unlink()
    assert refusal(data).startswith(
        f"{tmp_path / 'Annotations' / '2007_01.xml'}: there is no such f"
    )
    other = data.model_copy(update={"train_set": "none"})
    assert refusal(other).startswith(
        "data.train_set: 'ImageSets/Main/none.txt': there is no such file"
    )


def test_a_list_of_voc_that_is_empty_or_repeats_an_image_is_refused(tmp_path: Path) -> None:
    data = voc_set(tmp_path)
    listed = tmp_path / "ImageSets" / "Main" / "both.txt"
    listed.write_text("2007_01\n\n2007_01\n")
    assert "line 3: '2007_01': lists the image of line 1 again" in refusal(data)
    listed.write_text("\n")
    assert refusal(data) == f"{listed}: lists no images"


def test_an_image_of_another_size_than_voc_says_is_refused(tmp_path: Path) -> None:
    data = voc_set(tmp_path)
    noise(tmp_path / "JPEGImages" / "2007_01.jpg", (HEIGHT, WIDTH + 1))
    assert "2007_01.jpg: is 81x60 pixels, but 80x60 are wanted" in refusal(data)
