"""Preparing pose data: COCO's format and MPII's, checked, as one kind of records.

Prepared data of every kind has, for the splits train and val with N people and K joints:

* `Images` of the split's name: the images that its people are in;
* `{split}_image` (N,): which of them; `{split}_centres` (N, 2) and `{split}_extents` (N, 2): what
  of it a crop must show, x, y and width, height in its pixels, padded, of any shape;
* `{split}_joints` (N, K, 3): x, y in pixels of the image, and 0 where not labelled.

For COCO's AP there are also `truth`, in COCO's annotation format, and (N,) each `val_image_ids`,
`val_categories` and `val_scores` of the boxes; for PCKh `val_heads` (N,): sizes of the heads.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from ..errors import InputError
from ..files import read_user_json
from ..joints import MPII, JointSet
from ..progress import Advance
from ..settings import BOX_PADDING, CocoPose, MpiiPose
from .cache import Prepared, Writer, cached
from .coco import (
    FARTHEST,
    At,
    check_listed,
    digest,
    entries,
    find,
    image_source,
    read_content,
    read_images,
)
from .images import Folder, Source, counted, fits, open_folder, store
from .pose_metrics import NOT_IN_PCKH

FORMAT = 2  # of the arrays; with another number older cache entries are not used
# The settings that name folders of images, by split, and files of annotations.
FOLDERS: Mapping[str, Mapping[str, str]] = {
    "coco_pose": {"train": "train_images", "val": "val_images"},
    "mpii_pose": {"train": "images", "val": "images"},
}
FILES: Mapping[str, Sequence[str]] = {
    "coco_pose": ("train_annotations", "val_annotations", "val_boxes"),
    "mpii_pose": ("train_annotations", "val_annotations", "val_truth"),
}
OPTIONAL = ("val_boxes",)
NOT_READ = {"cache_gib", "input_size"}  # settings that annotations are not looked at with
MPII_UNIT = 200  # pixels that a person is high at MPII's scale 1 (official `lib/dataset/mpii.py`)
HEAD_SHARE = 0.6  # of the diagonal of a head's box is MPII's size of the head (same file)
MPII_SHIFT = 15  # times the scale: the centre is moved down, not to cut off feet (same file)


Data = CocoPose | MpiiPose


@dataclass(frozen=True)
class Person:
    """One sample.

    Args:
        image: Its image: COCO's number, or the name of the file.
        centre: x, y in pixels of the image.
        extent: Width, height that the crop must show.
        joints: x, y, visibility of each joint, one after the other; zeros of a detector's box.
        category: COCO's number.
        score: Of a detector's box.
    """

    image: int | str
    centre: tuple[float, float]
    extent: tuple[float, float]
    joints: Sequence[float]
    category: int = 1
    score: float = 1.0


@dataclass(frozen=True)
class Split:
    """The people of a split, and what there is to know about them.

    Args:
        people: The samples.
        sources: Every image that one of them is in.
        more: Arrays and JSON values for the metric.
    """

    people: Sequence[Person]
    sources: Mapping[int | str, Source]
    more: Mapping[str, Any] = field(default_factory=dict)


def prepare(data: Data, metric: str, progress: Advance) -> Prepared:
    """Check all annotations, decode every image once, and keep what trials need.

    Args:
        data: Settings of the data.
        metric: What is measured on the validation people, `PoseTask.metric`.
        progress: Called with images done and images in all.

    Raises:
        InputError: A file is missing, broken or not what it should be.
    """
    folders, files = _folders(data), _files(data)
    # The annotations are checked once, where one of the entries below is not in the cache.
    read = functools.cache(lambda: _read(data, metric, folders, files))
    sources = _sources(data, metric, folders, files, read)
    identity = {
        "format": FORMAT,
        "kind": data.kind,
        "joints": data.num_outputs,
        "padding": data.padding,
        "files": digest(list(files.values()), sources),
    }
    keep = fits(identity, lambda: sources, data.cache_gib)

    def make(writer: Writer) -> None:
        advance = counted(progress, len(sources))
        for name, split in read().items():
            store(writer, name, list(split.sources.values()), keep=keep, advance=advance)
            _write(writer, name, split, data.num_outputs)

    return cached({**identity, "keeps_pixels": keep}, make)


def _folders(data: Data) -> dict[str, Folder]:
    """Where the images of each split are."""
    root = Path(data.root)
    return {
        split: open_folder(root, getattr(data, key), key=f"data.{key}")
        for split, key in FOLDERS[data.kind].items()
    }


def _files(data: Data) -> dict[str, Path]:
    """The files of annotations, by the settings that name them."""
    root = Path(data.root)
    names = {key: getattr(data, key) for key in FILES[data.kind]}
    return {
        key: find(root, name, key=f"data.{key}")
        for key, name in names.items()
        if name or key not in OPTIONAL
    }


def _read(
    data: Data, metric: str, folders: Mapping[str, Folder], files: Mapping[str, Path]
) -> dict[str, Split]:
    if isinstance(data, CocoPose):
        return _coco_splits(data, metric, folders, files)
    return _mpii_splits(folders, files)


def _sources(
    data: Data,
    metric: str,
    folders: Mapping[str, Folder],
    files: Mapping[str, Path],
    read: Callable[[], Mapping[str, Split]],
) -> list[Source]:
    """Every image of both splits.

    Kept in the cache by all that `read` depends on, as to read COCO's annotations takes minutes;
    whether an image has changed is asked of the files in this list.
    """
    identity = {
        "format": FORMAT,
        "question": "images",
        "settings": data.model_dump(mode="json", exclude=NOT_READ),
        "metric": metric,
        "files": digest(list(files.values()), []),
    }

    def make(writer: Writer) -> None:
        for name, split in read().items():
            writer.json(name, [[source.name, source.size] for source in split.sources.values()])

    prepared = cached(identity, make)
    sources = []
    for split, folder in folders.items():
        listed = [
            Source(folder, file, None if size is None else (size[0], size[1]), as_stored=True)
            for file, size in prepared.json(split)
        ]
        check_listed(listed, files[f"{split}_annotations"])
        sources += listed
    return sources


def write_samples(
    writer: Writer,
    split: str,
    *,
    image: np.ndarray,
    centres: np.ndarray,
    extents: np.ndarray,
    joints: np.ndarray,
) -> None:
    """The arrays that every kind of pose data has; shapes as at the head of this module."""
    writer.array(f"{split}_image", image.astype(np.int64))
    writer.array(f"{split}_centres", centres.astype(np.float64))
    writer.array(f"{split}_extents", extents.astype(np.float64))
    writer.array(f"{split}_joints", joints.astype(np.float32))


def _write(writer: Writer, name: str, split: Split, num_joints: int) -> None:
    places = {image: place for place, image in enumerate(split.sources)}
    write_samples(
        writer,
        name,
        image=np.array([places[person.image] for person in split.people]),
        centres=np.array([person.centre for person in split.people]),
        extents=np.array([person.extent for person in split.people]),
        joints=np.array([person.joints for person in split.people]).reshape(-1, num_joints, 3),
    )
    for key, value in split.more.items():
        if isinstance(value, np.ndarray):
            writer.array(key, value)
        else:
            writer.json(key, value)


# --- COCO's format -------------------------------------------------------------------------------


@dataclass(frozen=True)
class CocoFile:
    """A checked annotation file.

    Args:
        file: Where it is.
        images: Entries by number.
        annotations: Those of the categories, in the order of the file.
        categories: Those with as many keypoints as the settings name.
    """

    file: Path
    images: Mapping[int, Mapping[str, Any]]
    annotations: Sequence[Mapping[str, Any]]
    categories: Mapping[int, str]


def _coco_splits(
    data: CocoPose, metric: str, folders: Mapping[str, Folder], files: Mapping[str, Path]
) -> dict[str, Split]:
    if metric == "nme" and data.val_boxes:
        rule = "metric nme compares people with their own annotations; leave it out"
        raise InputError(rule, key="data.val_boxes", value=data.val_boxes)
    splits = {}
    for name, folder in folders.items():
        file = files[f"{name}_annotations"]
        coco = read_coco(file, data.joints.names, are_cocos=data.keypoints is None)
        people = coco_people(coco, data.padding)
        more = {}
        if name == "val":
            if metric == "nme":
                _check_normalisers(people, data.joints, file)
            if data.val_boxes:
                people = read_boxes(files["val_boxes"], coco, data.num_outputs, data.padding)
            more = _for_ap(coco, people)
        splits[name] = Split(people, _coco_sources(coco, people, folder), more)
    return splits


def read_coco(file: Path, joints: Sequence[str], *, are_cocos: bool) -> CocoFile:
    """The annotations of a file in COCO's format.

    Args:
        file: The .json file.
        joints: Names of the keypoints, as the settings have them.
        are_cocos: Because the settings name none: then the file must have COCO's. Otherwise it may
            have other names for them, but not the same ones in another order.

    Raises:
        InputError: It is no JSON, not COCO's, or has other keypoints.
    """
    content = read_content(file)
    categories = _categories(content["categories"], len(joints), file)
    for at in entries(content, "categories", file):
        _check_names(at, joints, are_cocos=are_cocos)
    images = read_images(content, file)
    annotations = [
        _annotation(at, images, len(joints))
        for at in entries(content, "annotations", file)
        if at.whole("category_id") in categories
    ]
    return CocoFile(file, images, annotations, categories)


def coco_people(coco: CocoFile, padding: float) -> list[Person]:
    """The people of a file that can be learned from, image by image, in the order of the file.

    As in the official code (`lib/dataset/coco.py`): no crowds, nobody without a labelled joint or
    an area; boxes are cut at the borders of their image, and left out if nothing is left.

    Args:
        coco: The file.
        padding: A crop shows so many times the box.

    Raises:
        InputError: There is nobody.
    """
    by_image = defaultdict(list)
    for entry in coco.annotations:
        box = clip(entry["bbox"], coco.images[entry["image_id"]])
        joints, category = entry["keypoints"], entry["category_id"]
        if not entry["iscrowd"] and entry["area"] > 0 and box and num_labelled(joints):
            person = _person(entry["image_id"], box, padding, joints=joints, category=category)
            by_image[person.image].append(person)
    people = [person for image in coco.images for person in by_image[image]]
    if not people:
        rule = "has no person (not a crowd) with a labelled joint and a box inside its image"
        raise InputError(rule, file=coco.file)
    return people


def num_labelled(joints: Sequence[float]) -> int:
    """How many of x, y, visibility of each joint, one after the other, are of labelled ones."""
    return sum(visibility > 0 for visibility in joints[2::3])


def clip(box: Sequence[float], image: Mapping[str, Any]) -> tuple[float, ...] | None:
    """x, y, width, height of the box inside its image, or None.

    The official code's (`lib/dataset/coco.py`), from the centre of the first pixel to that of the
    last. Boxes that begin outside are cut here; there they are moved into the image.
    """
    x, y, width, height = box
    left, top = max(0.0, x), max(0.0, y)
    right = min(image["width"] - 1, x + max(0.0, width - 1))
    bottom = min(image["height"] - 1, y + max(0.0, height - 1))
    sides = (right - left, bottom - top)
    return (left, top, *sides) if min(sides) >= 0 and max(sides) > 0 else None


def read_boxes(file: Path, coco: CocoFile, num_joints: int, padding: float) -> list[Person]:
    """A detector's boxes in COCO's results format, with a score above 0, image by image.

    Args:
        file: The .json file: a list of objects with image_id, category_id, bbox and score.
        coco: The annotations of the same images.
        num_joints: K.
        padding: A crop shows so many times the box.

    Raises:
        InputError: It is something else, names an unknown image, or has no box to use.
    """
    content = read_user_json(file)
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise InputError("is not in COCO's results format: a list of objects", file=file)
    by_image = defaultdict(list)
    for place, entry in enumerate(content):
        at = At(file, str(place), entry)
        image, category = at.image(coco.images), at.whole("category_id")
        box, score = at.numbers("bbox", 4), at.number("score")
        if category in coco.categories and score > 0 and min(box[2:]) > 0:
            joints = [0.0] * 3 * num_joints
            person = _person(image, box, padding, joints=joints, category=category, score=score)
            by_image[image].append(person)
    people = [person for image in coco.images for person in by_image[image]]
    if not people:
        raise InputError("has no box of a person with a score above 0", file=file)
    return people


def _person(image: int, box: Sequence[float], padding: float, **more: Any) -> Person:
    x, y, width, height = box
    centre, extent = (x + width / 2, y + height / 2), (width * padding, height * padding)
    return Person(image=image, centre=centre, extent=extent, **more)


def _categories(
    entries: Sequence[Mapping[str, Any]], num_joints: int, file: Path
) -> dict[int, str]:
    """Names by number of the categories with so many keypoints; some files leave the list empty."""
    labelled = [entry for entry in entries if isinstance(entry.get("keypoints"), list)]
    if not labelled:
        raise InputError("no category has keypoints", key="categories", file=file)
    found = {
        At(file, "categories", entry).whole("id"): str(entry.get("name"))
        for entry in labelled
        if len(entry["keypoints"]) in (0, num_joints)
    }
    if not found:
        count, name = len(labelled[0]["keypoints"]), labelled[0].get("name")
        rule = f"category {name!r} has {count} keypoints, but the settings name {num_joints}"
        raise InputError(rule, key="categories", file=file)
    return found


def _check_names(at: At, joints: Sequence[str], *, are_cocos: bool) -> None:
    """Whether a category of as many keypoints has these; its list may be empty."""
    names = at.entry.get("keypoints")
    if not isinstance(names, list) or len(names) != len(joints):
        return
    found, wanted = ([_plain(name) for name in some] for some in (names, joints))
    if not are_cocos and set(found) != set(wanted):
        return
    for place, name in enumerate(names):
        if found[place] != wanted[place]:
            whose = "COCO has" if are_cocos else "data.keypoints has"
            rule = f"is keypoint {place} here, where {whose} {joints[place]!r}; "
            rule += "name the keypoints in data.keypoints, in the order of this file"
            key = f"{at.key}.keypoints.{place}"
            raise InputError(rule, key=key, value=name, file=at.file)


def _plain(name: Any) -> str:
    """A name without what tools write differently: "Left Eye", left-eye, left_eye."""
    return str(name).lower().replace(" ", "_").replace("-", "_")


def _annotation(at: At, images: Mapping[int, Any], num_joints: int) -> dict[str, Any]:
    """What is used of a person's entry, checked; `num_keypoints` is counted, whatever it says."""
    image, box = at.image(images), at.numbers("bbox", 4)
    joints = at.numbers("keypoints", 3 * num_joints)
    area = max(0.0, box[2]) * max(0.0, box[3])
    return {
        "image_id": image,
        "category_id": at.whole("category_id"),
        "bbox": box,
        "keypoints": joints,
        "num_keypoints": num_labelled(joints),
        "area": at.number("area", default=area, most=FARTHEST**2),
        "iscrowd": at.whole("iscrowd", default=0),
    }


def _coco_sources(
    coco: CocoFile, people: Sequence[Person], folder: Folder
) -> dict[int | str, Source]:
    used = {person.image for person in people}
    return {
        number: image_source(folder, image)
        for number, image in coco.images.items()
        if number in used
    }


def _for_ap(coco: CocoFile, people: Sequence[Person]) -> dict[str, Any]:
    """The truth without what AP does not need, and whom the results are of."""
    # Numbered anew, because COCOeval takes an annotation of number 0 for none.
    annotations = [{"id": place, **entry} for place, entry in enumerate(coco.annotations, start=1)]
    return {
        "truth": {
            "info": {},
            "images": [{"id": number} for number in coco.images],
            "annotations": annotations,
            "categories": [{"id": key, "name": name} for key, name in coco.categories.items()],
        },
        "val_image_ids": np.array([person.image for person in people], dtype=np.int64),
        "val_categories": np.array([person.category for person in people], dtype=np.int64),
        "val_scores": np.array([person.score for person in people]),
    }


def _check_normalisers(people: Sequence[Person], joints: JointSet, file: Path) -> None:
    pair = [joints.names.index(name) for name in joints.normalise_by]
    for person in people:
        (*first, first_seen), (*second, second_seen) = (
            person.joints[3 * place : 3 * place + 3] for place in pair
        )
        if min(first_seen, second_seen) > 0 and first != second:
            return
    both = " and ".join(joints.normalise_by)
    rule = f"nobody has both {both} labelled, in two places, as metric nme needs"
    raise InputError(rule, file=file)


# --- MPII's format -------------------------------------------------------------------------------


def _mpii_splits(folders: Mapping[str, Folder], files: Mapping[str, Path]) -> dict[str, Split]:
    file = files["train_annotations"]
    train = [p for p in read_mpii(file) if num_labelled(p.joints) and min(p.extent) > 0]
    if not train:
        raise InputError("has no person with a labelled joint", file=file)
    file = files["val_annotations"]
    val = read_mpii(file)
    for place, person in enumerate(val):
        if min(person.extent) <= 0:
            raise InputError("must be above 0", key=f"{place}.scale", file=file)
    joints, heads = read_mpii_truth(files["val_truth"], len(val))
    val = [replace(p, joints=one.flatten()) for p, one in zip(val, joints, strict=True)]
    return {
        name: Split(
            people,
            {p.image: Source(folders[name], str(p.image), as_stored=True) for p in people},
            more,
        )
        for name, people, more in (("train", train, {}), ("val", val, {"val_heads": heads}))
    }


def read_mpii(file: Path) -> list[Person]:
    """The people of one of the official code's lists (`lib/dataset/mpii.py`), in its order.

    Its coordinates count from 1. The crop is a square of 1.25 x 200 x scale pixels.

    Raises:
        InputError: It is something else, or empty.
    """
    content = read_user_json(file)
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise InputError("is not in MPII's format: a list of objects", file=file)
    if not content:
        raise InputError("has no person", file=file)
    return [_mpii_person(At(file, str(place), entry)) for place, entry in enumerate(content)]


def _mpii_person(at: At) -> Person:
    x, y = at.numbers("center", 2)
    scale, count = at.number("scale"), len(MPII.names)
    places, labelled = at.pairs("joints", count), at.numbers("joints_vis", count)
    side = BOX_PADDING * MPII_UNIT * scale
    joints = [(a - 1, b - 1, v) for (a, b), v in zip(places, labelled, strict=True)]
    return Person(
        image=at.text("image"),
        centre=(x - 1, y + MPII_SHIFT * scale - 1),
        extent=(side, side),
        joints=[value for joint in joints for value in joint],
    )


def read_mpii_truth(file: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Joints (N, K, 3) and sizes of heads (N,) of the official `gt_valid.mat`.

    Args:
        file: The file.
        count: N, people of the list that it belongs to.

    Raises:
        InputError: It cannot be read, or is of other people.
    """
    try:
        content = loadmat(file)
    except Exception as error:  # scipy lets through whatever it stumbles over
        raise InputError(f"is not a readable .mat file ({error})", file=file) from None
    shapes = {
        "pos_gt_src": (len(MPII.names), 2, count),
        "jnt_missing": (len(MPII.names), count),
        "headboxes_src": (2, 2, count),
    }
    for name, shape in shapes.items():
        if name not in content:
            raise InputError(f"has no {name}", file=file)
        if content[name].shape != shape:
            rule = f"must be of shape {shape}: {count} people are in val_annotations"
            raise InputError(rule, key=name, value=content[name].shape, file=file)
    places = content["pos_gt_src"].transpose(2, 0, 1) - 1.0  # counted from 1
    labelled = 1.0 - content["jnt_missing"].T
    corners = content["headboxes_src"].astype(np.float64)
    heads = HEAD_SHARE * np.linalg.norm(corners[1] - corners[0], axis=0)
    if not (heads > 0).all():
        raise InputError("a head has no size", key="headboxes_src", file=file)
    if not (np.abs(places[labelled > 0]) <= FARTHEST).all():  # nor NaN
        raise InputError(f"must be within +-{FARTHEST}", key="pos_gt_src", file=file)
    if not labelled[:, [name not in NOT_IN_PCKH for name in MPII.names]].any():
        raise InputError("has no joint that PCKh is measured on", key="jnt_missing", file=file)
    return np.concatenate([places, labelled[..., None]], axis=-1), heads
