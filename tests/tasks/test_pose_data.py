"""COCO's and MPII's formats: what becomes of good entries, and one clear line for bad ones."""

import copy
import io
import itertools
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import coco as pycoco
from scipy.io import savemat

from hrnet_search.errors import InputError
from hrnet_search.joints import COCO
from hrnet_search.settings import CocoPose, Keypoints, MpiiPose
from hrnet_search.tasks import coco as coco_module
from hrnet_search.tasks import pose_data
from hrnet_search.tasks.cache import Prepared
from hrnet_search.tasks.images import Images
from hrnet_search.tasks.pose_data import clip, prepare

ANIMAL = Keypoints(
    names=["nose", "left_paw", "right_paw", "withers", "tail"],
    skeleton=[["nose", "withers"], ["withers", "tail"]],
    flip_pairs=[["left_paw", "right_paw"]],
    sigmas=[0.03, 0.08, 0.08, 0.05, 0.1],
    upper_body=["nose", "withers"],
    normalise_by=["nose", "tail"],
)
HEIGHT, WIDTH = 90, 120


# --- making data sets ----------------------------------------------------------------------------


def coco_content(*, images: int = 3, people: int = 2, joints: int = 5, seed: int = 0) -> Any:
    """A file in COCO's format: people with all joints labelled in images of 120 x 90 pixels."""
    rng = np.random.default_rng(seed)
    content: dict[str, Any] = {
        "images": [
            {"id": 7 + i, "file_name": f"{i:03d}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(images)
        ],
        "annotations": [],
        "categories": [{"id": 3, "name": "animal", "keypoints": [f"k{k}" for k in range(joints)]}],
    }
    for number in range(images * people):
        x, y = rng.uniform(0, (60, 30))
        width, height = rng.uniform((30, 40), (58, 58))
        places = rng.uniform((x, y), (x + width, y + height), (joints, 2)).round(2)
        content["annotations"].append(
            {
                "id": number,
                "image_id": 7 + number % images,
                "category_id": 3,
                "bbox": [x, y, width, height],
                "area": 0.6 * width * height,
                "iscrowd": 0,
                "keypoints": [v for place in places.tolist() for v in (*place, 2)],
                "num_keypoints": joints,
            }
        )
    return content


def write_images(folder: Path, content: Any, *, seed: int = 0) -> None:
    """A picture of noise for every entry; into a .zip file if that is the folder's suffix."""
    rng = np.random.default_rng(seed)
    for entry in content["images"]:
        size = (entry["height"], entry["width"], 3)
        picture = Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))
        data = io.BytesIO()
        picture.save(data, format="PNG")
        if folder.suffix == ".zip":
            with zipfile.ZipFile(folder, "a") as archive:
                archive.writestr(f"top/{entry['file_name']}", data.getvalue())
        else:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / entry["file_name"]).write_bytes(data.getvalue())


def coco_set(root: Path, content: Any = None, *, suffix: str = "", **more: Any) -> CocoPose:
    """Settings of a data set that is written below `root`: the same people in both splits."""
    content = content if content is not None else coco_content()
    root.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (root / f"{split}.json").write_text(json.dumps(content))
        write_images(root / f"{split}{suffix}", content)
    settings = {
        "kind": "coco_pose",
        "root": str(root),
        "train_annotations": "train.json",
        "train_images": f"train{suffix}",
        "val_annotations": "val.json",
        "val_images": f"val{suffix}",
        "keypoints": ANIMAL,
        "input_size": [64, 48],
        **more,
    }
    return CocoPose.model_validate(settings)


def quietly(data: CocoPose | MpiiPose, metric: str = "oks") -> Prepared:
    return prepare(data, metric, lambda done, total: None)


def refusal(data: CocoPose | MpiiPose, metric: str = "oks") -> str:
    """The one line that the data is refused with."""
    with pytest.raises(InputError) as caught:
        quietly(data, metric)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- what becomes of good entries ----------------------------------------------------------------


def test_the_records_of_one_person_by_hand(tmp_path: Path) -> None:
    content = coco_content(images=1, people=1)
    keypoints = [12, 22, 2, 0, 0, 0, 39.5, 60, 1, 20, 30, 2, 11, 21, 0]
    content["annotations"][0] |= {"bbox": [10, 20, 31, 41], "keypoints": keypoints}
    prepared = quietly(coco_set(tmp_path, content))
    # From the first pixel's centre to the last one's: 30 x 40, times 1.25.
    for split in ("train", "val"):
        assert prepared.array(f"{split}_image").tolist() == [0]
        assert prepared.array(f"{split}_centres").tolist() == [[25, 40]]
        assert prepared.array(f"{split}_extents").tolist() == [[37.5, 50]]
        expected = np.array(keypoints, dtype=np.float32).reshape(1, 5, 3)
        assert np.array_equal(prepared.array(f"{split}_joints"), expected)
        assert Images(prepared, split)[0].shape == (HEIGHT, WIDTH, 3)
    assert prepared.array("val_image_ids").tolist() == [7]
    assert prepared.array("val_categories").tolist() == [3]
    assert prepared.array("val_scores").tolist() == [1]


def test_another_padding_is_another_extent(tmp_path: Path) -> None:
    content = coco_content(images=1, people=1)
    content["annotations"][0]["bbox"] = [10, 20, 31, 41]
    data = coco_set(tmp_path, content, box_padding=1.1)
    assert quietly(data).array("train_extents").tolist() == [pytest.approx([33, 44])]
    other = quietly(data.model_copy(update={"box_padding": 2.0}))
    assert other.array("train_extents").tolist() == [pytest.approx([60, 80])]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 20, 31, 41), (10, 20, 30, 40)),
        ((0, 0, 120, 90), (0, 0, 119, 89)),
        ((100, 80, 50, 50), (100, 80, 19, 9)),  # cut at the right and the bottom
        ((-10, -5, 31, 26), (0, 0, 20, 20)),  # cut at the left and the top
        ((10, 20, 1, 41), (10, 20, 0, 40)),  # a pixel wide
        ((10, 20, 1, 1), None),
        ((10, 20, 0, 0), None),
        ((119.5, 20, 30, 30), None),  # beyond the last pixel's centre
        ((200, 20, 30, 30), None),
        ((-40, 20, 30, 30), None),
        ((10, 90, 30, 30), None),
    ],
)
def test_boxes_are_cut_at_the_borders_of_the_image(
    box: tuple[float, ...], expected: tuple[float, ...] | None
) -> None:
    assert clip(box, {"height": HEIGHT, "width": WIDTH}) == expected


def test_who_cannot_be_learned_from_is_left_out_but_stays_in_the_truth(tmp_path: Path) -> None:
    content = coco_content(images=3, people=3)
    first, *rest = content["annotations"]
    first["iscrowd"] = 1
    rest[0] |= {"keypoints": [0] * 15, "num_keypoints": 0}
    rest[1]["area"] = 0
    rest[2]["bbox"] = [500, 10, 20, 20]
    rest[3]["category_id"] = 9  # something without keypoints
    prepared = quietly(coco_set(tmp_path, content))
    # Of images 7, 8, 9 in turn, people 5 (image 9), 6, 7, 8 are left.
    kept = [content["annotations"][n] for n in (6, 7, 5, 8)]
    for split in ("train", "val"):
        expected = np.array([e["keypoints"] for e in kept], dtype=np.float32).reshape(4, 5, 3)
        assert np.array_equal(prepared.array(f"{split}_joints"), expected)
        assert prepared.array(f"{split}_image").tolist() == [0, 1, 2, 2]
    truth = prepared.json("truth")
    assert [entry["id"] for entry in truth["annotations"]] == list(range(1, 9))
    assert [e["iscrowd"] for e in truth["annotations"]] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert [image["id"] for image in truth["images"]] == [7, 8, 9]


def test_joints_are_labelled_where_their_visibility_is_above_0(tmp_path: Path) -> None:
    content = coco_content(images=1, people=2)
    first, second = content["annotations"]
    first["keypoints"][2::3] = [-1] * 5
    second["keypoints"][2::3] = [-1, 0, 1, 2, -1]
    del first["num_keypoints"], second["num_keypoints"]
    prepared = quietly(coco_set(tmp_path, content))
    assert len(prepared.array("train_joints")) == 1
    # What is counted decides, not what the file says: of 0 COCO's evaluation takes no notice.
    for entry in (first, second):
        entry["num_keypoints"] = 0
    assert quietly(coco_set(tmp_path, content)).json("truth") == prepared.json("truth")
    counts = [entry["num_keypoints"] for entry in prepared.json("truth")["annotations"]]
    assert counts == [0, 2]


def test_images_are_read_only_if_someone_is_in_them(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] = [e for e in content["annotations"] if e["image_id"] != 8]
    data = coco_set(tmp_path, content)
    (tmp_path / "train" / "001.png").write_bytes(b"nonsense")
    (tmp_path / "val" / "001.png").unlink()
    prepared = quietly(data)
    assert len(Images(prepared, "train")) == len(Images(prepared, "val")) == 2


def test_what_files_leave_out_is_filled_in(tmp_path: Path) -> None:
    content = coco_content(images=1, people=1)
    (entry,) = content["annotations"]
    for key in ("area", "iscrowd", "num_keypoints", "id"):
        del entry[key]
    content["categories"][0]["keypoints"] = []  # as files of faces have it
    (found,) = quietly(coco_set(tmp_path, content)).json("truth")["annotations"]
    width, height = entry["bbox"][2:]
    assert found["area"] == pytest.approx(width * height)
    assert (found["iscrowd"], found["num_keypoints"], found["id"]) == (0, 5, 1)


def test_several_categories_keep_their_numbers(tmp_path: Path) -> None:
    content = coco_content(images=2, people=1)
    content["categories"] += [
        {"id": 4, "name": "dog", "keypoints": list("abcde")},
        {"id": 5, "name": "hand", "keypoints": list("abcdefgh")},
        {"id": 6, "name": "car"},
    ]
    content["annotations"][0]["category_id"] = 4
    prepared = quietly(coco_set(tmp_path, content))
    assert prepared.array("val_categories").tolist() == [4, 3]
    assert [entry["id"] for entry in prepared.json("truth")["categories"]] == [3, 4]


def test_folder_and_zip_are_the_same_data(tmp_path: Path) -> None:
    folder, archive = (
        quietly(coco_set(tmp_path / name, suffix=suffix))
        for name, suffix in (("folder", ""), ("zip", ".zip"))
    )
    assert folder.checksum == archive.checksum
    assert folder.folder != archive.folder
    for one, other in zip(Images(folder, "val"), Images(archive, "val"), strict=True):
        assert np.array_equal(one, other)


def test_what_does_not_fit_is_decoded_as_needed(tmp_path: Path) -> None:
    data = coco_set(tmp_path)
    packed, other = (quietly(data.model_copy(update={"cache_gib": gib})) for gib in (1.0, 0.0))
    assert packed.has("train")
    assert not other.has("train")
    assert packed.checksum == other.checksum
    for one, two in zip(Images(packed, "train"), Images(other, "train"), strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("kind", ["coco", "mpii"])
def test_annotations_are_read_once_until_they_change(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    data = coco_set(tmp_path) if kind == "coco" else mpii_set(tmp_path)
    metric = "oks" if kind == "coco" else "pckh"
    read, files = pose_data.read_user_json, list[str]()
    for module in (pose_data, coco_module):
        monkeypatch.setattr(
            module, "read_user_json", lambda file: files.append(file.name) or read(file)
        )
    first = quietly(data, metric)
    names = ["train.json", "val.json" if kind == "coco" else "valid.json"]
    assert files == names  # each of them once
    assert quietly(data, metric) == first
    assert files == names
    picture = next(tmp_path.glob("val/*.png" if kind == "coco" else "images/*.png"))
    Image.new("RGB", (WIDTH, HEIGHT)).save(picture)
    changed = quietly(data, metric)
    assert changed.checksum != first.checksum
    assert files == 2 * names
    picture.unlink()
    file = tmp_path / ("val.json" if kind == "coco" else "annot/train.json")
    assert refusal(data, metric) == f"{picture}: there is no such image, but {file} lists it"


def test_whether_pixels_are_kept_decides_and_not_the_limit(tmp_path: Path, cache: Path) -> None:
    data = coco_set(tmp_path)
    some, more, none = (
        quietly(data.model_copy(update={"cache_gib": gib})).folder for gib in (4.0, 5.0, 1e-6)
    )
    assert some == more != none


def test_data_is_prepared_once_until_a_file_changes(tmp_path: Path) -> None:
    data, calls = coco_set(tmp_path), []
    first = prepare(data, "oks", lambda done, total: calls.append((done, total)))
    assert calls == [(n, 6) for n in range(1, 7)]
    again = data.model_copy(update={"input_size": [128, 96]})  # decides nothing here
    assert prepare(again, "nme", lambda done, total: calls.append((0, 0))) == first
    assert len(calls) == 6
    content = json.loads((tmp_path / "train.json").read_text())
    write_images(tmp_path / "train", content, seed=1)
    second = quietly(data)
    assert second.checksum != first.checksum
    content["annotations"].pop()
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert quietly(data).checksum not in (first.checksum, second.checksum)


def test_grey_transparent_and_turned_pictures_become_rgb(tmp_path: Path) -> None:
    content = coco_content(images=4, people=1)
    names = ("grey.png", "clear.png", "turned.jpg", "kept.jpg")
    for entry, name in zip(content["images"], names, strict=True):
        entry["file_name"] = name
    data = coco_set(tmp_path, content)
    grey = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "train" / "grey.png")
    Image.fromarray(np.dstack([grey, grey, grey, grey])).save(tmp_path / "train" / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    colours = Image.new("RGB", (HEIGHT, WIDTH), (200, 30, 30))
    colours.paste((30, 200, 30), (0, 0, HEIGHT, 20))  # its top becomes the right side
    colours.save(tmp_path / "train" / "turned.jpg", exif=exif, quality=95)
    # Annotated as it is stored: then it must not be turned (as the official code reads images).
    stored = Image.new("RGB", (WIDTH, HEIGHT), (30, 30, 200))
    stored.save(tmp_path / "train" / "kept.jpg", exif=exif, quality=95)
    images = Images(quietly(data), "train")
    assert [image.shape for image in images] == [(HEIGHT, WIDTH, 3)] * 4
    for number in (0, 1):
        assert np.array_equal(images[number], np.dstack([grey] * 3))
    assert images[2][45, 110].tolist() == pytest.approx([30, 200, 30], abs=9)
    assert images[2][45, 10].tolist() == pytest.approx([200, 30, 30], abs=9)
    assert images[3][45, 60].tolist() == pytest.approx([30, 30, 200], abs=9)


def test_real_annotations_give_the_people_that_pycocotools_finds(
    real_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = real_data("coco_mini")
    data = CocoPose(kind="coco_pose", root=str(root), input_size=[256, 192])
    prepared = quietly(data)
    for split in ("train", "val"):
        index = pycoco.COCO(root / "annotations" / f"person_keypoints_{split}2017.json")
        entries = [
            entry
            for image in index.getImgIds()
            for entry in index.loadAnns(index.getAnnIds(imgIds=image, iscrowd=False))
            if entry["num_keypoints"]
        ]
        expected = np.array([entry["keypoints"] for entry in entries]).reshape(-1, 17, 3)
        assert len(expected) > 40
        assert np.array_equal(prepared.array(f"{split}_joints"), expected)
        boxes = np.array([entry["bbox"] for entry in entries])
        extents = 1.25 * (boxes[:, 2:] - 1)  # all of them lie inside their images
        np.testing.assert_allclose(prepared.array(f"{split}_extents"), extents, atol=0.02)
        centres = boxes[:, :2] + (boxes[:, 2:] - 1) / 2
        np.testing.assert_allclose(prepared.array(f"{split}_centres"), centres, atol=0.02)


# --- names of keypoints --------------------------------------------------------------------------


def people_set(root: Path, names: list[str], **more: Any) -> CocoPose:
    """People of COCO's joints, whose category lists these names."""
    content = coco_content(joints=17)
    content["categories"][0]["keypoints"] = names
    return coco_set(root, content, **{"keypoints": None, **more})


@pytest.mark.parametrize("change", [str, str.title, lambda name: name.replace("_", " ")])
def test_cocos_keypoints_are_taken_as_they_are_written(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    assert quietly(people_set(tmp_path, [change(name) for name in COCO.names]))


def test_other_keypoints_than_cocos_must_be_named(tmp_path: Path) -> None:
    names = [*COCO.names[:5], "neck", *COCO.names[6:]]
    rule = "is keypoint 5 here, where COCO has 'left_shoulder'; name the keypoints in "
    rule += "data.keypoints, in the order of this file"
    place = f"{tmp_path / 'train.json'}: categories.0.keypoints.5"
    assert refusal(people_set(tmp_path, names)) == f"{place}: 'neck': {rule}"
    named = Keypoints(names=names, sigmas=list(COCO.sigmas))
    assert quietly(people_set(tmp_path, names, keypoints=named))


def test_names_of_ones_own_are_not_compared_but_for_their_order(tmp_path: Path) -> None:
    own = Keypoints(names=[f"joint {n}" for n in range(17)], sigmas=list(COCO.sigmas))
    assert quietly(people_set(tmp_path, list(COCO.names), keypoints=own))
    right_first = [COCO.names[0], *reversed(COCO.names[1:3]), *COCO.names[3:]]
    turned = Keypoints(names=right_first, sigmas=list(COCO.sigmas))
    text = refusal(people_set(tmp_path, list(COCO.names), keypoints=turned))
    assert text.startswith(f"{tmp_path / 'train.json'}: categories.0.keypoints.1: 'left_eye': is")
    assert "where data.keypoints has 'right_eye'; name the keypoints in data.keypoints" in text


# --- a detector's boxes --------------------------------------------------------------------------


def boxes_set(root: Path, boxes: Any) -> CocoPose:
    data = coco_set(root, val_boxes="boxes.json")
    (root / "boxes.json").write_text(json.dumps(boxes))
    return data


def box(image: int, score: float = 0.5, *, category: int = 3, **more: Any) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [10.0, 20.0, 30.0, 40.0],
        "score": score,
        **more,
    }


def test_boxes_of_a_detector_take_the_place_of_the_annotated_ones(tmp_path: Path) -> None:
    outside = [-5.0, 3.0, 20.0, 10.0]  # is taken as it is, as in the official code
    boxes = [box(9, 0.9), box(7, 0.25), box(9, 0.5, bbox=outside), box(8, 0.0), box(8, -1)]
    boxes += [box(8, 1, category=1), box(8, 1, bbox=[1, 1, 0, 5])]
    prepared = quietly(boxes_set(tmp_path, boxes))
    assert prepared.array("val_image_ids").tolist() == [7, 9, 9]
    assert prepared.array("val_scores").tolist() == [0.25, 0.9, 0.5]
    assert prepared.array("val_image").tolist() == [0, 1, 1]
    assert prepared.array("val_centres").tolist() == [[25, 40], [25, 40], [5, 8]]
    assert prepared.array("val_extents").tolist() == [[37.5, 50], [37.5, 50], [25, 12.5]]
    assert len(prepared.json("truth")["annotations"]) == 6
    assert len(prepared.array("train_image")) == 6


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ({"a": 1}, "is not in COCO's results format: a list of objects"),
        ([[1, 2]], "is not in COCO's results format: a list of objects"),
        ([], "has no box of a person with a score above 0"),
        ([box(7, 0.0)], "has no box of a person with a score above 0"),
        ([box(7), box(77)], "1.image_id: 77: is not the id of an image"),
        ([box(7, bbox=[1, 2, 3])], "0.bbox: [1, 2, 3]: must be a list of 4 numbers"),
        ([{**box(7), "score": "high"}], "0.score: 'high': must be a number"),
        ([{k: v for k, v in box(7).items() if k != "score"}], "0.score: is missing"),
        ([box(7, bbox=[1, 2, 1e7, 4])], "0.bbox.2: 10000000.0: must be within +-1000000"),
        ([box(2**63)], f"0.image_id: {2**63}: must be a number of 64 bits"),
    ],
)
def test_bad_boxes_are_refused(tmp_path: Path, boxes: Any, message: str) -> None:
    assert refusal(boxes_set(tmp_path, boxes)) == f"{tmp_path / 'boxes.json'}: {message}"


def test_landmarks_are_not_measured_on_a_detectors_boxes(tmp_path: Path) -> None:
    text = refusal(boxes_set(tmp_path, [box(7)]), "nme")
    assert text.startswith("data.val_boxes: 'boxes.json': metric nme compares people with")


def test_landmarks_need_somebody_with_both_joints_that_errors_are_divided_by(
    tmp_path: Path,
) -> None:
    content = coco_content()
    for entry in content["annotations"]:
        entry["keypoints"][2] = 0  # the nose
    data = coco_set(tmp_path, content)
    assert quietly(data, "oks")
    rule = "nobody has both nose and tail labelled, in two places, as metric nme needs"
    assert refusal(data, "nme") == f"{tmp_path / 'val.json'}: {rule}"
    for entry in content["annotations"]:
        entry["keypoints"][:3] = entry["keypoints"][12:]  # where the tail is
    assert refusal(coco_set(tmp_path, content), "nme") == f"{tmp_path / 'val.json'}: {rule}"


# --- bad files -----------------------------------------------------------------------------------


def _without(key: str) -> Callable[[Any], Any]:
    return lambda content: {k: v for k, v in content.items() if k != key}


def _with(path: str, value: Any) -> Callable[[Any], Any]:
    """Puts `value` at a dotted path; deletes what is there for ... ."""

    def change(content: Any) -> Any:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        entry = content
        for parent in parents:
            entry = entry[parent]
        if value is ...:
            del entry[last]
        else:
            entry[last] = value
        return content

    return change


BAD = [
    (_without("images"), "is not in COCO's format: no list 'images' of objects"),
    (_without("annotations"), "is not in COCO's format: no list 'annotations' of objects"),
    (_without("categories"), "is not in COCO's format: no list 'categories' of objects"),
    (lambda content: [content], "is not in COCO's format: no list 'images' of objects"),
    (_with("annotations", {}), "is not in COCO's format: no list 'annotations' of objects"),
    (_with("images.0", 5), "is not in COCO's format: no list 'images' of objects"),
    (_with("categories.0.keypoints", ...), "categories: no category has keypoints"),
    (
        _with("categories.0.keypoints", list("abcdefg")),
        "categories: category 'animal' has 7 keypoints, but the settings name 5",
    ),
    (_with("images.1.id", 7), "images.1.id: 7: is the id of two images"),
    (_with("images.1.id", "x"), "images.1.id: 'x': must be a whole number"),
    (_with("images.1.file_name", ...), "images.1.file_name: is missing"),
    (_with("images.1.file_name", 3), "images.1.file_name: 3: must be a name"),
    (_with("images.2.width", 0), "images.2.width: 0: must be 1 or more"),
    (_with("images.2.height", 1.5), "images.2.height: 1.5: must be a whole number"),
    (
        _with("annotations.4.image_id", 99),
        "annotations.4.image_id: 99: is not the id of an image",
    ),
    (_with("annotations.2.category_id", ...), "annotations.2.category_id: is missing"),
    (
        _with("annotations.2.category_id", [3]),
        "annotations.2.category_id: [3]: must be a whole number",
    ),
    (
        _with("annotations.2.category_id", 2**63),
        f"annotations.2.category_id: {2**63}: must be a number of 64 bits",
    ),
    (_with("images.1.id", 2**64), f"images.1.id: {2**64}: must be a number of 64 bits"),
    (
        _with("images.1.id", 10**400),
        f"images.1.id: 1{'0' * 76}...: must be a whole number",
    ),
    (
        _with("annotations.3.area", 10**400),
        f"annotations.3.area: 1{'0' * 76}...: must be a number",
    ),
    (
        _with("images.1.file_name", "a\0b.png"),
        "images.1.file_name: 'a\\x00b.png': must be a name that a file can have",
    ),
    (
        _with("images.1.file_name", "a\ud800.png"),
        "images.1.file_name: 'a\\ud800.png': must be a name that a file can have",
    ),
    (_with("annotations.4.bbox", ...), "annotations.4.bbox: is missing"),
    (
        _with("annotations.4.bbox", [1, 2, float("nan"), 4]),
        "annotations.4.bbox: [1, 2, nan, 4]: must be a list of 4 numbers",
    ),
    (_with("annotations.3.keypoints", ...), "annotations.3.keypoints: is missing"),
    (
        _with("annotations.3.keypoints", [1, 2, 2]),
        "annotations.3.keypoints: [1, 2, 2]: must be a list of 15 numbers",
    ),
    (
        _with("annotations.3.keypoints.6", 1e300),
        "annotations.3.keypoints.6: 1e+300: must be within +-1000000",
    ),
    (
        _with("annotations.4.bbox", [1, 2, -1000001, 4]),
        "annotations.4.bbox.2: -1000001: must be within +-1000000",
    ),
    (
        _with("annotations.3.area", 1e13),
        "annotations.3.area: 10000000000000.0: must be within +-1000000000000",
    ),
    (_with("annotations.3.area", "big"), "annotations.3.area: 'big': must be a number"),
    (
        _with("annotations", []),
        "has no person (not a crowd) with a labelled joint and a box inside its image",
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
@pytest.mark.parametrize("split", ["train", "val"])
def test_bad_annotations_are_refused(
    tmp_path: Path, change: Callable[[Any], Any], message: str, split: str
) -> None:
    data = coco_set(tmp_path)
    file = tmp_path / f"{split}.json"
    file.write_text(json.dumps(change(copy.deepcopy(coco_content()))))
    assert refusal(data) == f"{file}: {message}"


@pytest.mark.parametrize(
    "text", ["{", "", "images: []", "\x00", pytest.param("[" * 100_000, id="deep")]
)
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    data = coco_set(tmp_path)
    (tmp_path / "val.json").write_text(text)
    assert re.match(rf"{tmp_path / 'val.json'}: is not JSON \(.+\)$", refusal(data))


def test_missing_files_are_named(tmp_path: Path) -> None:
    data = coco_set(tmp_path)
    for key, rule in (
        ("train_annotations", f"there is no such file in {tmp_path}"),
        ("val_annotations", f"there is no such file in {tmp_path}"),
        ("val_boxes", f"there is no such file in {tmp_path}"),
        ("train_images", f"there is no such folder or .zip file in {tmp_path}"),
        ("val_images", f"there is no such folder or .zip file in {tmp_path}"),
    ):
        other = data.model_copy(update={key: "elsewhere"})
        assert refusal(other) == f"data.{key}: 'elsewhere': {rule}"
    nowhere = data.model_copy(update={"root": str(tmp_path / "nowhere")})
    assert "there is no such folder; say where the data lies" in refusal(nowhere)


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_a_missing_image_is_named(tmp_path: Path, suffix: str) -> None:
    data = coco_set(tmp_path, suffix=suffix)
    content = _with("images.1.file_name", "gone.png")(coco_content())
    (tmp_path / "val.json").write_text(json.dumps(content))
    gone = tmp_path / f"val{suffix}" / "gone.png"
    listed = f"there is no such image, but {tmp_path / 'val.json'} lists it"
    assert refusal(data) == f"{gone}: {listed}"


def test_broken_and_exchanged_images_are_named(tmp_path: Path) -> None:
    data = coco_set(tmp_path)
    file = tmp_path / "train" / "002.png"
    whole = file.read_bytes()
    Image.open(file).convert("RGB").save(tmp_path / "whole.jpg")
    for broken in (whole[: len(whole) // 2], (tmp_path / "whole.jpg").read_bytes()[:1500], b"?"):
        file.write_bytes(broken)
        assert refusal(data).startswith(f"{file}: is not a readable image (")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(file)
    assert refusal(data) == f"{file}: is 120x91 pixels, but 120x90 are wanted"


# --- MPII ----------------------------------------------------------------------------------------


def mpii_people(count: int = 3) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "image": f"{number % 2}.png",
            "center": [60.0 + number, 40.0],
            "scale": 0.25,
            "joints": rng.uniform((36, 20), (82, 66), (16, 2)).round(1).tolist(),
            "joints_vis": [1] * 16,
        }
        for number in range(count)
    ]


def mpii_truth(people: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    count = len(people)
    missing = np.zeros((16, count))
    missing[3, 0] = 1
    heads = np.zeros((2, 2, count))
    heads[0], heads[1] = [[10] * count, [20] * count], [[40] * count, [60] * count]
    places = np.array([p["joints"] for p in people]).reshape(count, 16, 2)
    return {
        "pos_gt_src": places.transpose(1, 2, 0),
        "jnt_missing": missing,
        "headboxes_src": heads,
    }


def mpii_set(root: Path, **truth: Any) -> MpiiPose:
    people = mpii_people()
    write_images(root / "images", {"images": [
        {"file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in (0, 1)
    ]})  # fmt: skip
    (root / "annot").mkdir()
    for split in ("train", "valid"):
        (root / "annot" / f"{split}.json").write_text(json.dumps(people))
    arrays = {**mpii_truth(people), **truth}
    savemat(root / "annot" / "gt_valid.mat", {k: v for k, v in arrays.items() if v is not None})
    return MpiiPose(kind="mpii_pose", root=str(root), input_size=[64, 64])


def test_the_records_of_mpii_by_hand(tmp_path: Path) -> None:
    prepared, people = quietly(mpii_set(tmp_path), "pckh"), mpii_people()
    for split in ("train", "val"):
        # Counted from 0, the centre 15 x 0.25 lower; 200 x 0.25 x 1.25 pixels.
        expected = [[59 + n, 42.75] for n in range(3)]
        assert prepared.array(f"{split}_centres").tolist() == expected
        assert prepared.array(f"{split}_extents").tolist() == [[62.5, 62.5]] * 3
        assert prepared.array(f"{split}_image").tolist() == [0, 1, 0]
        places = np.array([person["joints"] for person in people]) - 1
        np.testing.assert_allclose(
            prepared.array(f"{split}_joints")[..., :2], places, rtol=0, atol=1e-4
        )
    assert (prepared.array("train_joints")[..., 2] == 1).all()
    labelled = np.ones((3, 16))
    labelled[0, 3] = 0  # missing by the .mat file
    assert np.array_equal(prepared.array("val_joints")[..., 2], labelled)
    # 0.6 of the diagonal of 30 x 40 pixels.
    assert prepared.array("val_heads").tolist() == pytest.approx([30, 30, 30])


def test_mpii_people_without_joints_or_scale_are_not_trained_on(tmp_path: Path) -> None:
    data, people = mpii_set(tmp_path), mpii_people()
    people[0]["joints_vis"] = [0] * 16
    people[1]["scale"] = -1
    people.append({**people[2], "joints_vis": [-1] * 16})
    (tmp_path / "annot" / "train.json").write_text(json.dumps(people))
    assert len(quietly(data).array("train_image")) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda people: {"people": people}, "is not in MPII's format: a list of objects"),
        (lambda people: [], "has no person"),
        (_with("1.center", [1]), "1.center: [1]: must be a list of 2 numbers"),
        (_with("1.image", ...), "1.image: is missing"),
        (
            _with("1.image", "\udfff.png"),
            "1.image: '\\udfff.png': must be a name that a file can have",
        ),
        (_with("1.scale", 1e300), "1.scale: 1e+300: must be within +-1000000"),
        (_with("2.joints.5", [1, -2e6]), "2.joints.5.1: -2000000.0: must be within +-1000000"),
        (_with("1.scale", 10**400), f"1.scale: 1{'0' * 76}...: must be a number"),
        (_with("2.joints", [[1, 2]]), "2.joints: [[1, 2]]: must be a list of 16 pairs"),
        (_with("2.joints.5", [1]), "2.joints.5: [1]: must be a list of 2 numbers"),
        (_with("0.joints_vis", [1]), "0.joints_vis: [1]: must be a list of 16 numbers"),
        (_with("0.scale", -1), "0.scale: must be above 0"),
    ],
)
def test_bad_lists_of_mpii_are_refused(
    tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    data, file = mpii_set(tmp_path), tmp_path / "annot" / "valid.json"
    file.write_text(json.dumps(change(mpii_people())))
    assert refusal(data) == f"{file}: {message}"


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ({"jnt_missing": None}, "has no jnt_missing"),
        (
            {"jnt_missing": np.zeros((16, 5))},
            "jnt_missing: (16, 5): must be of shape (16, 3): 3 people are in val_annotations",
        ),
        ({"headboxes_src": np.zeros((2, 2, 3))}, "headboxes_src: a head has no size"),
        (
            {"pos_gt_src": np.full((16, 2, 3), np.nan)},
            "pos_gt_src: must be within +-1000000",
        ),
        (
            {"jnt_missing": np.isin(range(16), (6, 7), invert=True)[:, None].repeat(3, 1) * 1},
            "jnt_missing: has no joint that PCKh is measured on",  # pelvis and thorax alone
        ),
    ],
)
def test_bad_truth_of_mpii_is_refused(tmp_path: Path, truth: Any, message: str) -> None:
    data, file = mpii_set(tmp_path, **truth), tmp_path / "annot" / "gt_valid.mat"
    assert refusal(data) == f"{file}: {message}"


def test_what_is_no_mat_file_is_refused(tmp_path: Path) -> None:
    data, file = mpii_set(tmp_path), tmp_path / "annot" / "gt_valid.mat"
    for content in (b"", b"nonsense" * 40):
        file.write_bytes(content)
        assert refusal(data).startswith(f"{file}: is not a readable .mat file (")
    file.unlink()
    assert refusal(data).startswith("data.val_truth: 'annot/gt_valid.mat': there is no such file")


def test_the_order_of_mpiis_people_is_kept(tmp_path: Path) -> None:
    # PCKh compares them with the .mat file one by one, so they must not be sorted by image.
    images = quietly(mpii_set(tmp_path)).array("val_image").tolist()
    assert any(a > b for a, b in itertools.pairwise(images))
