"""Files of segmentation data: finding images and their labels, checking them, preparing them.

Labels are kept as they are in the files; the task maps them to classes when it reads them.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import InputError
from ..progress import Advance
from ..settings import SegmentationFolder, SegmentationList
from ..views import IMAGE_SUFFIXES
from .cache import Prepared, Writer, cached
from .images import (
    Folder,
    Source,
    counted,
    fits,
    header,
    open_folder,
    store,
)

FORMAT = 2  # of the prepared data; raise it when that changes
SPLITS = ("train", "val")
CHANNELS = 4  # of an image and its labels together

Data = SegmentationFolder | SegmentationList
Check = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Pair:
    """An image and its label image."""

    image: Source
    label: Source


def prepare(data: Data, progress: Advance) -> Prepared:
    """Decode and check every image and label image once; later calls find them in the cache.

    Args:
        data: Where they are, and what values labels may have.
        progress: Called with images done and images in all, label images among them.

    Raises:
        InputError: A folder, list or file is missing, broken or does not fit the classes.
    """
    pairs = {split: _pairs(data, split) for split in SPLITS}
    identity = {
        "kind": "segmentation",
        "format": FORMAT,
        "values": _values(data),
        "ignore_label": data.ignore_label,
        "files": {split: [_fingerprint(pair) for pair in pairs[split]] for split in SPLITS},
    }
    images = (pair.image for split in SPLITS for pair in pairs[split])
    keep = fits(identity, lambda: images, data.cache_gib, channels=CHANNELS)
    identity["keeps_pixels"] = keep
    return cached(identity, lambda writer: _write(writer, data, pairs, keep, progress))


def label_table(data: Data) -> np.ndarray:
    """Class, or ignored label, of every value (256,) of a label image, uint8."""
    classes = data.label_map or range(data.num_outputs)
    table = np.full(256, data.ignore_label, dtype=np.uint8)
    table[: len(classes)] = classes
    return table


def _values(data: Data) -> int:
    """Values 0, 1, ... that label images may have, besides the ignored one."""
    return len(data.label_map) or data.num_outputs


def _fingerprint(pair: Pair) -> list[object]:
    return [source.folder.fingerprint(source.name) for source in (pair.image, pair.label)]


def _pairs(data: Data, split: str) -> list[Pair]:
    if isinstance(data, SegmentationFolder):
        return _pairs_of_folders(data, split)
    return _pairs_of_list(data, split)


def _pairs_of_folders(data: SegmentationFolder, split: str) -> list[Pair]:
    """Every image with the label image of the same name, sorted by it."""
    image_folder, images = _files(data, f"{split}_images", data.image_suffix)
    label_folder, labels = _files(data, f"{split}_labels", data.label_suffix)
    for name, file in images.items():
        if name not in labels:
            rule = f"has no label image of the same name in {getattr(data, f'{split}_labels')}"
            raise InputError(rule, file=image_folder.path / file)
    return [
        Pair(Source(image_folder, file), Source(label_folder, labels[name]))
        for name, file in sorted(images.items())
    ]


def _files(data: SegmentationFolder, setting: str, suffix: str) -> tuple[Folder, dict[str, str]]:
    """The folder that a setting names, and the files in it by their names without `suffix`."""
    key, value = f"data.{setting}", getattr(data, setting)
    folder = open_folder(Path(data.root), value, key=key)
    found: dict[str, str] = {}
    for file in sorted(folder.names):
        hidden = any(part.startswith(".") for part in file.split("/"))  # as macOS's ._name.png
        if hidden or not file.lower().endswith(suffix.lower() or IMAGE_SUFFIXES):
            continue
        name = file[: -len(suffix)] if suffix else str(PurePosixPath(file).with_suffix(""))
        if name in found:
            raise InputError(f"has the same name as {found[name]}", file=folder.path / file)
        found[name] = file
    if not found:
        kind = f"files that end with {suffix!r}" if suffix else "images"
        raise InputError(f"holds no {kind} in {data.root}", key=key, value=value)
    return folder, found


def _pairs_of_list(data: SegmentationList, split: str) -> list[Pair]:
    """The pairs of a list file in its order.

    A line holds an image, its label image and perhaps more, between spaces, or between commas if
    there is one. An absolute path is taken as such.
    """
    root, setting = Path(data.root), f"{split}_list"
    folders = [
        open_folder(root, getattr(data, key), key=f"data.{key}")
        for key in ("image_folder", "label_folder")
    ]
    file, pairs, seen = root / getattr(data, setting), [], dict[str, int]()
    for number, line in enumerate(_lines(file, f"data.{setting}"), 1):
        fields = [field.strip() for field in line.split("," if "," in line else None)]
        if not any(fields):
            continue
        try:
            pairs.append(_pair_of_line(folders, fields, line))
            if seen.setdefault(fields[0], number) < number:
                rule = f"has its image from line {seen[fields[0]]}"
                raise InputError(rule, value=fields[0])
        except InputError as error:
            raise error.within(key=f"line {number}", file=file) from None
    if not pairs:
        raise InputError("lists no images", key=f"data.{setting}", value=getattr(data, setting))
    return pairs


def _lines(file: Path, key: str) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        rule = f"there is no such file in {file.parent}"
        raise InputError(rule, key=key, value=file.name) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as text ({error})", file=file) from None


def _pair_of_line(folders: Sequence[Folder], fields: Sequence[str], line: str) -> Pair:
    if len(fields) < 2 or not all(fields[:2]):
        raise InputError("must name an image and its label image", value=line.strip())
    for folder, name in zip(folders, fields, strict=False):
        if not folder.has(name):
            raise InputError(f"there is no such file in {folder.path}", value=name)
    return Pair(*(Source(folder, name) for folder, name in zip(folders, fields, strict=False)))


def _write(
    writer: Writer, data: Data, pairs: dict[str, list[Pair]], keep: bool, progress: Advance
) -> None:
    sizes = {split: [header(pair.image) for pair in pairs[split]] for split in SPLITS}
    advance = counted(progress, 2 * sum(len(some) for some in pairs.values()))
    for split in SPLITS:
        keeping = functools.partial(store, writer, keep=keep, advance=advance)
        _write_split(keeping, split, pairs[split], _checker(data, pairs[split], sizes[split]))
    writer.json("val_names", [pair.image.name for pair in pairs["val"]])


def _write_split(keeping: Callable[..., None], split: str, pairs: list[Pair], check: Check) -> None:
    """Labels first: EXIF data turns a photograph only if that gives it the size of its labels."""
    sizes: list[tuple[int, int]] = []

    def look(number: int, labels: np.ndarray) -> None:
        check(number, labels)
        sizes.append((labels.shape[0], labels.shape[1]))

    keeping(f"{split}_labels", [pair.label for pair in pairs], kind="label", check=look)
    images = [replace(pair.image, size=size) for pair, size in zip(pairs, sizes, strict=True)]
    keeping(f"{split}_images", images)


def _checker(data: Data, pairs: list[Pair], sizes: list[tuple[int, int]]) -> Check:
    """Compares labels (H, W) with the stored size of their image and the values they may have."""
    count, ignored = _values(data), data.ignore_label
    wrong = np.arange(256) >= count
    wrong[ignored] = False
    source = "data.label_map" if data.label_map else "data.class_names"
    rule = f"labels must be 0 to {count - 1} ({source}) or {ignored} (ignored)"

    def check(number: int, labels: np.ndarray) -> None:
        image, file = pairs[number].image, pairs[number].label.file
        if labels.shape not in (sizes[number], sizes[number][::-1]):
            given, other = (f"{s[1]}x{s[0]}" for s in (labels.shape, sizes[number]))
            raise InputError(f"is {given} pixels, its image {image.file.name} {other}", file=file)
        refused = labels[wrong[labels]]
        if refused.size:
            raise InputError(rule, file=file, value=int(refused[0]))

    return check
