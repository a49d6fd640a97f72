"""Preparing detection data: COCO's format and Pascal VOC's, checked, as one kind of records.

Prepared data of every kind has, with N training images, M objects in them, V validation images and
K classes, which are numbered from 1:

* `Images` train and val;
* `train_first` (N + 1,): the objects of image n are those from `train_first[n]` on, up to
  `train_first[n + 1]`; `train_boxes` (M, 4): x1, y1, x2, y2 in pixels of the image, where a pixel
  reaches from its number to the next; `train_labels` (M,): classes;
* with masks, `train_masks` uint8 (bytes,): all of them in COCO's compressed run-length encoding,
  that of object m from byte `train_mask_first[m]` on, up to `train_mask_first[m + 1]`;
* `val_image_ids` (V,): what results call the images; `truth`: all objects of the validation images
  in COCO's annotation format, masks run-length encoded;
* `about`: `class_names`, `category_ids` (what results call classes 1, 2, ...) and `areas`: square
  pixels below which an object is small, and from which on it is large.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from pycocotools import mask as coco_mask

from ..errors import InputError, nearest_name
from ..progress import Advance
from ..settings import CocoDetection, VocDetection
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
from .images import Source, counted, fits, open_folder, store

FORMAT = 1  # of the arrays; with another number older cache entries are not used
SPLITS = ("train", "val")
AREAS = (32**2, 96**2)  # square pixels: small, medium, large of COCO's evaluation
LEAST_SIDE = 1.0  # pixels: objects with a shorter side are not learned from (mmdetection's rule)
NEEDED = 6  # numbers of a polygon: three corners
CORNERS = ("xmin", "ymin", "xmax", "ymax")  # of VOC's boxes

Box = tuple[float, float, float, float]
Data = CocoDetection | VocDetection


@dataclass(frozen=True)
class Object:
    """One annotated object.

    Args:
        box: x1, y1, x2, y2 in pixels.
        label: Its class, from 1.
        area: Square pixels, of the mask where there is one.
        ignored: A crowd, or too difficult: not learned from, and in tests neither right nor wrong.
        mask: Run lengths in COCO's compressed encoding; empty: none.
    """

    box: Box
    label: int
    area: float
    ignored: bool = False
    mask: bytes = b""


@dataclass(frozen=True)
class Picture:
    """An image with its objects.

    Args:
        number: What results call it.
        size: (H, W).
        objects: In the order of the annotations.
    """

    number: int
    size: tuple[int, int]
    objects: Sequence[Object]


@dataclass(frozen=True)
class Classes:
    """Names of classes 1, 2, ... and what results call them."""

    names: Sequence[str]
    ids: Sequence[int]


@dataclass(frozen=True)
class Listing:
    """What a split is made of, before its annotations are looked at.

    Args:
        file: Named where something is wrong with all of it.
        files: The files of annotations.
        sources: Every image, in order.
        read: Checks the annotations; gives a picture for each image.
        classes: Of the annotations.
    """

    file: Path
    files: Sequence[Path]
    sources: Sequence[Source]
    read: Callable[[], list[Picture]]
    classes: Classes


Images = list[tuple[Source, Picture]]


def prepare(data: Data, masks: bool, progress: Advance) -> Prepared:
    """Check all annotations, decode every image once, and keep what trials need.

    Args:
        data: Settings of the data.
        masks: Are the objects' masks needed? They are not looked at otherwise.
        progress: Called with images done and images in all.

    Raises:
        InputError: A file is missing, broken or not what it should be.
    """
    listings = {
        split: _list_coco(data, split, masks)
        if isinstance(data, CocoDetection)
        else _list_voc(data, split, masks)
        for split in SPLITS
    }
    if listings["train"].classes != listings["val"].classes:
        rule = f"has other categories than {listings['train'].file}"
        raise InputError(rule, key="categories", file=listings["val"].file)
    identity = {
        "format": FORMAT,
        "kind": data.kind,
        "classes": list(listings["train"].classes.names),
        "masks": masks,
        "use_empty": data.use_empty,
        "files": [digest(one.files, one.sources) for one in listings.values()],
    }
    # The annotations are checked once, where one of the two is not in the cache.
    read = functools.cache(lambda: _kept(listings, use_empty=data.use_empty))

    def sources() -> list[Source]:
        return [source for some in read().values() for source, _ in some]

    keep = fits(identity, sources, data.cache_gib)

    def make(writer: Writer) -> None:
        advance = counted(progress, len(sources()))
        for split, some in read().items():
            images = [source for source, _ in some]
            store(writer, split, images, keep=keep, advance=advance)
        write_objects(writer, [picture for _, picture in read()["train"]])
        write_truth(
            writer, [picture for _, picture in read()["val"]], listings["val"].classes, AREAS
        )

    return cached({**identity, "keeps_pixels": keep}, make)


def _kept(listings: Mapping[str, Listing], *, use_empty: bool) -> dict[str, Images]:
    """The images of each split that are used, with their objects."""
    kept = {}
    for split, listing in listings.items():
        pictures = listing.read()
        places = range(len(pictures))
        used = learned_from(pictures, use_empty=use_empty) if split == "train" else places
        _check_any(split, [pictures[place] for place in used], listing.file)
        kept[split] = [
            (replace(listing.sources[place], size=pictures[place].size), pictures[place])
            for place in used
        ]
    return kept


def _check_any(split: str, pictures: Sequence[Picture], file: Path) -> None:
    """Whether there is an object to learn from, or to find."""
    for picture in pictures:
        found = picture.objects if split == "val" else learnable(picture)
        if any(not thing.ignored for thing in found):
            return
    rule = "has no object to find (not a crowd, not difficult)"
    if split == "train":
        rule = "has no object to learn from (not a crowd, not difficult, of a pixel or more)"
    raise InputError(rule, file=file)


# --- what trials read ----------------------------------------------------------------------------


def learnable(picture: Picture) -> list[Object]:
    """The objects of a picture that are learned from, their boxes cut at its borders.

    As in mmdetection (`CocoDataset`): no crowds, nothing without an area, and no box that has a
    side below a pixel, which is asked of the box as it is annotated and as it is cut.
    """
    height, width = picture.size
    kept = []
    for thing in picture.objects:
        x1, y1, x2, y2 = thing.box
        box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        if not thing.ignored and thing.area > 0 and shortest(box) >= LEAST_SIDE:
            kept.append(Object(box, thing.label, thing.area, mask=thing.mask))
    return kept


def shortest(box: Box) -> float:
    """The shorter side of a box."""
    return min(box[2] - box[0], box[3] - box[1])


def learned_from(pictures: Sequence[Picture], *, use_empty: bool) -> list[int]:
    """Places of the pictures that are trained on."""
    return [place for place, one in enumerate(pictures) if use_empty or learnable(one)]


def write_objects(writer: Writer, pictures: Sequence[Picture]) -> None:
    """The training objects; arrays as at the head of this module, masks if all have some."""
    by_picture = [learnable(picture) for picture in pictures]
    things = [thing for some in by_picture for thing in some]
    writer.array("train_first", starts([len(some) for some in by_picture]))
    boxes = np.array([thing.box for thing in things], dtype=np.float32)
    writer.array("train_boxes", boxes.reshape(-1, 4))
    writer.array("train_labels", np.array([thing.label for thing in things], dtype=np.int64))
    if all(thing.mask for thing in things):
        writer.array("train_mask_first", starts([len(thing.mask) for thing in things]))
        runs = np.frombuffer(b"".join(thing.mask for thing in things), dtype=np.uint8)
        writer.array("train_masks", runs)


def starts(lengths: Sequence[int]) -> np.ndarray:
    """(N + 1,): where each of N pieces starts that lie one behind the other, and the end."""
    return np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64)


def write_truth(
    writer: Writer, pictures: Sequence[Picture], classes: Classes, areas: tuple[float, float]
) -> None:
    """What results on the validation images are compared with; see the head of this module."""
    numbered = [(picture, thing) for picture in pictures for thing in picture.objects]
    writer.json(
        "truth",
        {
            "info": {},
            "images": [
                {"id": one.number, "height": one.size[0], "width": one.size[1]} for one in pictures
            ],
            # From 1, because COCOeval takes an annotation of number 0 for none.
            "annotations": [
                {"id": place, **_annotation(picture, thing, classes)}
                for place, (picture, thing) in enumerate(numbered, start=1)
            ],
            "categories": [
                {"id": number, "name": name}
                for number, name in zip(classes.ids, classes.names, strict=True)
            ],
        },
    )
    writer.array("val_image_ids", np.array([one.number for one in pictures], dtype=np.int64))
    about = {"class_names": list(classes.names), "category_ids": list(classes.ids)}
    writer.json("about", {**about, "areas": list(areas)})


def _annotation(picture: Picture, thing: Object, classes: Classes) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.box
    entry = {
        "image_id": picture.number,
        "category_id": classes.ids[thing.label - 1],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": thing.area,
        "iscrowd": int(thing.ignored),
    }
    if thing.mask:
        runs = {"size": list(picture.size), "counts": thing.mask.decode("ascii")}
        return {**entry, "segmentation": runs}
    return entry


# --- COCO's format -------------------------------------------------------------------------------


def _list_coco(data: CocoDetection, split: str, masks: bool) -> Listing:
    root = Path(data.root)
    folder = open_folder(root, getattr(data, f"{split}_images"), key=f"data.{split}_images")
    key = f"data.{split}_annotations"
    file = find(root, getattr(data, f"{split}_annotations"), key=key)
    content = read_content(file)
    images, classes = read_images(content, file), read_categories(content, file)
    if len(classes.ids) != data.num_classes:
        rule = f"must be {len(classes.ids)}, the number of categories in {file}"
        raise InputError(rule, key="data.num_classes", value=data.num_classes)
    sources = [image_source(folder, image) for image in images.values()]
    check_listed(sources, file)
    return Listing(
        file,
        [file],
        sources,
        lambda: read_objects(content, file, images, classes, masks=masks),
        classes,
    )


def read_categories(content: Mapping[str, list[Any]], file: Path) -> Classes:
    """The categories of a file by their numbers; the least becomes class 1.

    Raises:
        InputError: An entry is not what it should be, or two have one number or name.
    """
    found: dict[int, str] = {}
    for at in entries(content, "categories", file):
        number, name = at.whole("id"), at.text("name")
        if number in found:
            raise at.wrong("id", "is the id of two categories")
        if name in found.values():
            raise at.wrong("name", "is the name of two categories")
        found[number] = name
    ids = sorted(found)
    return Classes([found[number] for number in ids], ids)


def read_objects(
    content: Mapping[str, list[Any]],
    file: Path,
    images: Mapping[int, Mapping[str, Any]],
    classes: Classes,
    *,
    masks: bool,
) -> list[Picture]:
    """Every image of a file in COCO's format with its objects.

    Raises:
        InputError: An annotation is not what it should be.
    """
    labels = {number: place for place, number in enumerate(classes.ids, start=1)}
    objects = defaultdict(list)
    for at in entries(content, "annotations", file):
        number = at.image(images)
        size = (images[number]["height"], images[number]["width"])
        objects[number].append(_object(at, size, labels, masks=masks))
    return [
        Picture(number, (image["height"], image["width"]), objects[number])
        for number, image in images.items()
    ]


def _object(at: At, size: tuple[int, int], labels: Mapping[int, int], *, masks: bool) -> Object:
    category, (x, y, width, height) = at.whole("category_id"), at.numbers("bbox", 4)
    if category not in labels:
        raise at.wrong("category_id", "is not the id of a category")
    if min(width, height) < 0:
        raise at.wrong("bbox", "must have a width and a height of 0 or more")
    if at.whole("iscrowd", default=0) not in (0, 1):
        raise at.wrong("iscrowd", "must be 0 or 1")
    return Object(
        box=(x, y, x + width, y + height),
        label=labels[category],
        area=at.number("area", default=width * height, most=FARTHEST**2),
        ignored=at.whole("iscrowd", default=0) == 1,
        mask=read_mask(at, size) if masks else b"",
    )


def read_mask(at: At, size: tuple[int, int]) -> bytes:
    """The mask of an entry, polygons or run lengths, as COCO's compressed run lengths.

    Args:
        at: The entry.
        size: (H, W) of its image.

    Raises:
        InputError: It has none, or it does not fit the image.
    """
    value = at.entry.get("segmentation")
    if isinstance(value, list) and value:
        for place, polygon in enumerate(value):
            _check_polygon(At(at.file, f"{at.key}.segmentation", {str(place): polygon}), size)
        return bytes(coco_mask.merge(coco_mask.frPyObjects(value, *size))["counts"])
    if isinstance(value, dict):
        return _run_lengths(At(at.file, f"{at.key}.segmentation", value), size)
    raise at.wrong("segmentation", "must be a list of polygons, or run lengths (size and counts)")


def _check_polygon(at: At, size: tuple[int, int]) -> None:
    """Corners may lie outside, as in COCO's own files, but no further than the image is large."""
    ((place, value),) = at.entry.items()
    if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
        raise at.wrong(place, "must be a polygon: a list of x, y, x, y, ...")
    if len(value) % 2 or len(value) < NEEDED:
        rule = f"must be x, y of three corners or more, but has {len(value)} numbers"
        raise InputError(rule, key=f"{at.key}.{place}", file=at.file)
    for axis, side in enumerate(size[::-1]):
        low, high = min(value[axis::2]), max(value[axis::2])
        # A comparison with NaN is false, and min and max may have passed it by.
        if not (-side <= low and high <= 2 * side) or any(map(math.isnan, value)):
            rule = "must have numbers within the image"
            raise InputError(rule, key=f"{at.key}.{place}", file=at.file)


def _run_lengths(at: At, size: tuple[int, int]) -> bytes:
    if at.numbers("size", 2) != list(size):
        raise at.wrong("size", f"must be {list(size)}, height and width of the image")
    counts = at.entry.get("counts")
    runs = decompressed(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if not whole or sum(runs or []) != size[0] * size[1]:
        rule = f"must be run lengths of all {size[0] * size[1]} pixels of the image"
        raise InputError(rule, key=f"{at.key}.counts", file=at.file)
    if isinstance(counts, str):
        return counts.encode("ascii")
    return bytes(coco_mask.frPyObjects({"size": list(size), "counts": runs}, *size)["counts"])


def decompressed(text: str) -> list[int] | None:
    """Run lengths of COCO's compressed encoding (`rleFrString` of its `maskApi.c`); None: broken.

    Five bits to a letter from "0" on, the sixth says that the number goes on; from the fourth run
    on it is the difference from the last but one.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)  # the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return None if shift else runs


# --- Pascal VOC's folders ------------------------------------------------------------------------


def _list_voc(data: VocDetection, split: str, masks: bool) -> Listing:
    assert not masks  # the study has refused it: Pascal VOC has none of most images
    root, name = Path(data.root), getattr(data, f"{split}_set")
    folder = open_folder(root, "JPEGImages", key="data.root")
    listed = find(root, f"ImageSets/Main/{name}.txt", key=f"data.{split}_set")
    names = read_names(listed)
    files = [root / "Annotations" / f"{one}.xml" for one in names]
    for file in files:
        if not file.is_file():
            raise InputError(f"there is no such file, but {listed} lists it", file=file)
    sources = [Source(folder, f"{one}.jpg", as_stored=True) for one in names]
    check_listed(sources, listed)
    return Listing(
        listed,
        [listed, *files],
        sources,
        lambda: [read_voc(file, place, data.class_names) for place, file in enumerate(files, 1)],
        Classes(data.class_names, list(range(1, len(data.class_names) + 1))),
    )


def read_names(file: Path) -> list[str]:
    """The images of a list: the first word of every line, as lists by class have a second one.

    Raises:
        InputError: It cannot be read, is empty, or lists an image twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as text ({error})", file=file) from None
    names: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and names.setdefault(line.split()[0], number) < number:
            rule = f"lists the image of line {names[line.split()[0]]} again"
            raise InputError(rule, key=f"line {number}", value=line.split()[0], file=file)
    if not names:
        raise InputError("lists no images", file=file)
    return list(names)


def read_voc(file: Path, number: int, class_names: Sequence[str]) -> Picture:
    """The annotations of one image in Pascal VOC's format.

    Its pixels count from 1, and a box reaches to the far side of its last one. Difficult objects
    are ignored in tests, as in VOC's own.

    Args:
        file: The .xml file.
        number: What results will call the image.
        class_names: Names of classes 1, 2, ...

    Raises:
        InputError: It is missing, broken, or has a class that is not named.
    """
    root = read_xml(file)
    size = (
        xml_number(root, "size.height", file, whole=True, least=1),
        xml_number(root, "size.width", file, whole=True, least=1),
    )
    found = [
        _voc_object(entry, place, file, class_names)
        for place, entry in enumerate(root.findall("object"))
    ]
    return Picture(number, (int(size[0]), int(size[1])), found)


def _voc_object(entry: Element, place: int, file: Path, class_names: Sequence[str]) -> Object:
    try:
        name = (entry.findtext("name") or "").strip()
        if name not in class_names:
            near = nearest_name(name, class_names)
            raise InputError(
                "must be one of data.class_names", key="name", value=name, nearest=near
            )
        x1, y1, x2, y2 = (xml_number(entry, f"bndbox.{key}") for key in CORNERS)
        if x2 < x1 or y2 < y1:
            rule = "must have xmin, ymin no greater than xmax, ymax"
            raise InputError(rule, key="bndbox", value=[x1, y1, x2, y2])
        difficult = entry.find("difficult") is not None and xml_number(entry, "difficult") != 0
    except InputError as error:
        raise error.within(key=f"object.{place}", file=file) from None
    box = (x1 - 1, y1 - 1, x2, y2)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return Object(box, class_names.index(name) + 1, area, difficult)


def xml_number(
    entry: Element,
    key: str,
    file: Path | None = None,
    *,
    whole: bool = False,
    least: int = -(2**31),
) -> float:
    """The number below an element at a dotted path.

    Raises:
        InputError: There is none.
    """
    text = entry.findtext(key.replace(".", "/"))
    if text is None:
        raise InputError("is missing", key=key, file=file)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least or (whole and value % 1):
        kind = "whole number" if whole else "number"
        rule = f"must be a {kind} of {least} or more" if least > 0 else f"must be a {kind}"
        raise InputError(rule, key=key, value=text, file=file)
    return value


def read_xml(file: Path) -> Element:
    """The root of an XML file; one that defines entities, which could be endless, is refused.

    Raises:
        InputError: It cannot be read, is no XML, or has a DOCTYPE.
    """

    def refuse(*_: object) -> None:
        raise InputError("has a DOCTYPE, which annotations do not need; remove it", file=file)

    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        parser.Parse(file.read_bytes(), True)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=file) from None
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"is not XML ({error})", file=file) from None
    return builder.close()
