"""Checked entries of annotation files, and what all files in COCO's format have in common."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import is_number, read_user_json
from .images import Folder, Source

LARGEST = 2**63 - 1  # whole number that an array keeps
FARTHEST = 1_000_000  # pixels: no image is larger, and float32 is still exact to 1/16 there
UNNAMEABLE = re.compile("[\0\ud800-\udfff]")  # NUL, and halves of letters: in no file's name


def read_content(file: Path) -> dict[str, list[Any]]:
    """The three lists of a file in COCO's format: images, annotations, categories.

    Raises:
        InputError: It is no JSON, or not COCO's.
    """
    content = read_user_json(file)
    lists = {}
    for key in ("images", "annotations", "categories"):
        found = content.get(key) if isinstance(content, dict) else None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise InputError(f"is not in COCO's format: no list {key!r} of objects", file=file)
        lists[key] = found
    return lists


def entries(content: Mapping[str, list[Any]], name: str, file: Path) -> Iterator["At"]:
    """The entries of one of the lists."""
    for place, entry in enumerate(content[name]):
        yield At(file, f"{name}.{place}", entry)


def read_images(content: Mapping[str, list[Any]], file: Path) -> dict[int, Mapping[str, Any]]:
    """Name, height and width of every image by its number.

    Raises:
        InputError: An entry is not what it should be, or two have one number.
    """
    images: dict[int, Mapping[str, Any]] = {}
    for at in entries(content, "images", file):
        number = at.whole("id")
        if number in images:
            raise at.wrong("id", "is the id of two images")
        size = {"height": at.whole("height", least=1), "width": at.whole("width", least=1)}
        images[number] = {"file_name": at.text("file_name"), **size}
    return images


def image_source(folder: Folder, image: Mapping[str, Any]) -> Source:
    """Where an image of `read_images` is; its annotations are for the pixels as stored."""
    size = (image["height"], image["width"])
    return Source(folder, image["file_name"], size, as_stored=True)


def check_listed(sources: Sequence[Source], file: Path) -> None:
    """That all images are there.

    Args:
        sources: The images.
        file: It lists them.

    Raises:
        InputError: One is missing; it may as well be the list that is wrong.
    """
    for source in sources:
        if not source.folder.has(source.name):
            raise InputError(f"there is no such image, but {file} lists it", file=source.file)


def find(root: Path, name: str, *, key: str) -> Path:
    """The file `name` below `root`.

    Raises:
        InputError: There is none; `key` names the setting.
    """
    if not (root / name).is_file():
        raise InputError(f"there is no such file in {root}", key=key, value=name)
    return root / name


def has_size(truth: Mapping[str, Any], least: float, most: float) -> bool:
    """Whether COCO's evaluation finds anything of that size to measure by.

    Args:
        truth: In COCO's annotation format.
        least: Smallest area in square pixels.
        most: Largest one.
    """
    return any(
        not entry["iscrowd"] and entry.get("num_keypoints", 1) and least <= entry["area"] <= most
        for entry in truth["annotations"]
    )


def digest(files: Sequence[Path], sources: Sequence[Source]) -> str:
    """Changes when one of the files does."""
    found = [Folder(file.parent).fingerprint(file.name) for file in files]
    found += [source.folder.fingerprint(source.name) for source in sources]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


@dataclass(frozen=True)
class At:
    """An entry of a JSON file whose values are asked for by name and kind.

    Args:
        file: Where it is.
        key: Its dotted path in there.
        entry: Its values.
    """

    file: Path
    key: str
    entry: Mapping[str, Any]

    def number(self, name: str, *, default: float | None = None, most: float = FARTHEST) -> float:
        value = self.entry.get(name, default)
        if not is_number(value):
            raise self.wrong(name, "must be a number")
        if abs(value) > most:
            raise self.wrong(name, f"must be within +-{most:.0f}")
        return float(value)

    def whole(self, name: str, *, default: int | None = None, least: int | None = None) -> int:
        value = self.entry.get(name, default)
        if not is_number(value) or value != int(value):
            raise self.wrong(name, "must be a whole number")
        if abs(value) > LARGEST:
            raise self.wrong(name, "must be a number of 64 bits")
        if least is not None and value < least:
            raise self.wrong(name, f"must be {least} or more")
        return int(value)

    def text(self, name: str) -> str:
        value = self.entry.get(name)
        if not isinstance(value, str) or not value:
            raise self.wrong(name, "must be a name")
        if UNNAMEABLE.search(value):
            raise self.wrong(name, "must be a name that a file can have")
        return value

    def numbers(self, name: str, count: int) -> list[float]:
        value = self.entry.get(name)
        if not isinstance(value, list) or len(value) != count or not all(map(is_number, value)):
            raise self.wrong(name, f"must be a list of {count} numbers")
        for place, number in enumerate(value):
            if abs(number) > FARTHEST:
                key, rule = f"{self.key}.{name}.{place}", f"must be within +-{FARTHEST}"
                raise InputError(rule, key=key, value=number, file=self.file)
        return [float(number) for number in value]

    def pairs(self, name: str, count: int) -> list[list[float]]:
        value = self.entry.get(name)
        if not isinstance(value, list) or len(value) != count:
            raise self.wrong(name, f"must be a list of {count} pairs")
        inside = At(self.file, f"{self.key}.{name}", {str(i): v for i, v in enumerate(value)})
        return [inside.numbers(str(place), 2) for place in range(count)]

    def image(self, images: Mapping[int, Any]) -> int:
        number = self.whole("image_id")
        if number not in images:
            raise self.wrong("image_id", "is not the id of an image")
        return number

    def wrong(self, name: str, rule: str) -> InputError:
        if name not in self.entry:
            return InputError("is missing", key=f"{self.key}.{name}", file=self.file)
        value = self.entry[name]
        return InputError(rule, key=f"{self.key}.{name}", value=value, file=self.file)
