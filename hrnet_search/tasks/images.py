"""Reading images: from folders or zip files, checked once, kept decoded where they fit.

Shapes: an image is uint8 (H, W, 3) RGB, a label image uint8 (H, W).
"""

import io
import itertools
import lzma
import math
import os
import warnings
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from ..progress import Advance
from .cache import Prepared, Writer, cached

GIB = 2**30
BATCHES_AHEAD = 2  # of an evaluation, which are made while the network is busy
SWAPS_SIDES = (5, 6, 7, 8)  # EXIF orientations by which width and height change places
ORIENTATION = 0x0112  # the EXIF tag
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what PIL raises
# What zipfile raises of a damaged member, or, a RuntimeError, of an encrypted one.
DAMAGED = (
    *(OSError, EOFError, RuntimeError, ValueError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
COLOUR_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr")

# Pillow tells of broken EXIF data and of transparent palettes, which change nothing here. Set once
# for all, as `catch_warnings` is not safe with the threads that decode.
warnings.filterwarnings("ignore", module="PIL")

Kind = Literal["image", "label"]
T = TypeVar("T")


@dataclass(frozen=True)
class Folder:
    """Files below a folder, or inside a .zip file.

    Args:
        path: The folder or the .zip file.
    """

    path: Path
    _zips: dict[int, zipfile.ZipFile] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_zip(self) -> bool:
        return self.path.suffix.lower() == ".zip"

    @cached_property
    def names(self) -> frozenset[str]:
        """Every file, relative; in a .zip also without its one folder at the top."""
        if not self.is_zip:
            return frozenset(_files_below(self.path))
        return frozenset(self._members)

    @cached_property
    def _members(self) -> dict[str, str]:
        members = [m for m in self._zip().namelist() if not m.endswith("/")]
        tops = {m.partition("/")[0] for m in members}
        strip = len(tops) == 1 and all("/" in m for m in members)
        return {m.partition("/")[2] if strip else m: m for m in members}

    def has(self, name: str) -> bool:
        return name in self._members if self.is_zip else (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            InputError: There is no such file, or it is damaged or encrypted.
        """
        with self.open(name) as file:
            try:
                return file.read()
            except DAMAGED as error:
                raise InputError(f"cannot be read ({error})", file=self.path / name) from None

    def open(self, name: str) -> IO[bytes]:
        """A file to read from; the beginning alone is cheap.

        Raises:
            InputError: There is no such file, or it is damaged or encrypted.
        """
        archive = self._zip() if self.is_zip else None
        try:
            if archive is not None:
                return archive.open(self._members[name])
            return (self.path / name).open("rb")
        except (KeyError, FileNotFoundError):
            raise InputError("there is no such image", file=self.path / name) from None
        except DAMAGED as error:
            raise InputError(f"cannot be read ({error})", file=self.path / name) from None

    def fingerprint(self, name: str) -> list[Any]:
        """What changes when the file does."""
        file = self.path if self.is_zip else self.path / name
        try:
            state = file.stat()
        except OSError:
            raise InputError("there is no such image", file=self.path / name) from None
        return [self._resolved, name, state.st_size, state.st_mtime_ns]

    @cached_property
    def _resolved(self) -> str:
        return str(self.path.resolve())

    def _zip(self) -> zipfile.ZipFile:
        """Opened once per process: a file handle must not be shared by forked ones."""
        if os.getpid() not in self._zips:
            try:
                self._zips[os.getpid()] = zipfile.ZipFile(self.path)
            except DAMAGED as error:
                raise InputError(f"is not a readable .zip file ({error})", file=self.path) from None
        return self._zips[os.getpid()]


def _files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[str]:
    """Every file, relative, in linked folders too, but for those that lead back up."""
    real = folder.resolve()
    if real in above:
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise InputError(f"cannot be read ({error})", file=folder) from None
    for entry in entries:
        if entry.is_dir():
            below = _files_below(folder / entry.name, (*above, real))
            yield from (f"{entry.name}/{name}" for name in below)
        else:
            yield entry.name


def open_folder(root: Path, name: str, *, key: str) -> Folder:
    """The folder or .zip file `name` below `root`.

    Raises:
        InputError: There is none; `key` names the setting.
    """
    if not root.is_dir():
        rule = "there is no such folder; say where the data lies with --set data.root=FOLDER"
        raise InputError(rule, key="data.root", value=str(root))
    path = root / name
    found = path.is_file() if path.suffix.lower() == ".zip" else path.is_dir()
    if not found:
        raise InputError(f"there is no such folder or .zip file in {root}", key=key, value=name)
    return Folder(path)


def decode(
    data: bytes,
    *,
    file: Path,
    kind: Kind,
    size: tuple[int, int] | None = None,
    as_stored: bool = False,
) -> np.ndarray:
    """An image or a label image from the bytes of a file.

    Greyscale, palette and transparent pictures become RGB. A picture that its EXIF data turns is
    turned, unless `size` says that the annotations are for the pixels as they are stored.

    Args:
        data: The file's bytes.
        file: Named in errors.
        kind: "image" for RGB, "label" for one 8-bit channel, whose values are kept.
        size: (H, W) that it must have.
        as_stored: Where `size` leaves it open, the picture is not turned; the official pose code
            reads images so (IMREAD_IGNORE_ORIENTATION).

    Raises:
        InputError: It is broken, of another kind, or of another size.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            picture: Image.Image = opened
    except UNREADABLE as error:
        raise InputError(f"is not a readable image ({error})", file=file) from None
    if kind == "label":
        if picture.mode not in ("L", "P"):
            rule = f"is an image of mode {picture.mode}; labels must be 8-bit, one channel"
            raise InputError(rule, file=file)
        pixels = np.asarray(picture)
    else:
        if picture.mode not in COLOUR_MODES:
            rule = f"is an image of mode {picture.mode}; convert it to 8 bits per channel"
            raise InputError(rule, file=file)
        orientation = _orientation(picture)
        if orientation and _turns(picture, orientation, size, as_stored=as_stored):
            picture = ImageOps.exif_transpose(picture)
        pixels = np.asarray(picture.convert("RGB"))
    if size is not None and pixels.shape[:2] != size:
        given, wanted = (f"{s[1]}x{s[0]}" for s in (pixels.shape, size))
        raise InputError(f"is {given} pixels, but {wanted} are wanted", file=file)
    return pixels


def _turns(
    picture: Image.Image, orientation: int, size: tuple[int, int] | None, *, as_stored: bool
) -> bool:
    """Whether annotations for an image of `size` mean the picture as its EXIF data turns it."""
    stored = (picture.height, picture.width)
    turned = stored[::-1] if orientation in SWAPS_SIDES else stored
    if size is not None and (turned == size) != (stored == size):
        return turned == size
    return not as_stored


def _orientation(picture: Image.Image) -> Any:
    """How the picture is turned; broken EXIF data, which cameras do write, says nothing."""
    try:
        return picture.getexif().get(ORIENTATION)
    except UNREADABLE:
        return None


@dataclass(frozen=True)
class Source:
    """One image to prepare.

    Args:
        folder: Where it is.
        name: Its path in there.
        size: (H, W) that annotations say it has, or None.
        as_stored: Of `decode`.
    """

    folder: Folder
    name: str
    size: tuple[int, int] | None = None
    as_stored: bool = False

    @property
    def file(self) -> Path:
        return self.folder.path / self.name

    def decode(self, kind: Kind, size: tuple[int, int] | None = None) -> np.ndarray:
        return decode(
            self.folder.read(self.name),
            file=self.file,
            kind=kind,
            size=size or self.size,
            as_stored=self.as_stored,
        )


def in_order(
    function: Callable[[Any], T], items: Iterable[Any], *, ahead: int | None = None
) -> Iterator[T]:
    """`function` of each item in order, computed by threads a little ahead of their use.

    Args:
        function: Called in a thread.
        items: What it is called with.
        ahead: How many results are made or wait beside the one in use, as they take memory; None:
            four for each thread.
    """
    threads = min(8, os.cpu_count() or 1)
    items, ahead = iter(items), 4 * threads if ahead is None else ahead
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(function, item) for item in itertools.islice(items, ahead))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def counted(progress: Advance, total: int) -> Callable[[], None]:
    """What tells `progress` with each call that one more of `total` is done."""
    done = itertools.count(1)
    return lambda: progress(next(done), total)


def store(
    writer: Writer,
    name: str,
    sources: Sequence[Source],
    *,
    kind: Kind = "image",
    keep: bool,
    advance: Callable[[], None],
    check: Callable[[int, np.ndarray], None] = lambda number, pixels: None,
) -> None:
    """Decode and check every image once, and keep its pixels, or where it is.

    Args:
        writer: Of the prepared data.
        name: What `Images` will be asked for.
        sources: The images.
        kind: "image" or "label".
        keep: Keep the decoded pixels.
        advance: Called after every image.
        check: Called with number and pixels of each; raises what is wrong with them.

    Raises:
        InputError: An image is missing or broken.
    """
    index, offset = [], 0
    for number, pixels in enumerate(in_order(lambda source: source.decode(kind), sources)):
        check(number, pixels)
        index.append((offset, pixels.shape[0], pixels.shape[1]))
        offset += pixels.shape[0] * pixels.shape[1]
        if keep:
            writer.append(name, pixels)
        else:
            writer.note(np.ascontiguousarray(pixels).data)
        advance()
    writer.array(f"{name}_index", np.array(index, dtype=np.int64).reshape(-1, 3))
    if not keep:
        _store_places(writer, name, sources)


def _store_places(writer: Writer, name: str, sources: Sequence[Source]) -> None:
    """Where the images are; as arrays, which a million names of files do not fill memory with."""
    paths = list(dict.fromkeys(str(source.folder.path) for source in sources))
    number = {path: place for place, path in enumerate(paths)}
    folders = np.array([number[str(source.folder.path)] for source in sources], dtype=np.int32)
    names = np.array([os.fsencode(source.name) for source in sources], dtype=np.bytes_)
    writer.array(f"{name}_folder", folders, counts=False)  # the pixels have been counted
    writer.array(f"{name}_name", names, counts=False)
    about = {"folders": paths, "as_stored": sources[0].as_stored}
    writer.json(f"{name}_files", about, counts=False)


class Images(Sequence[np.ndarray]):
    """The images that `store` prepared, by number: uint8 (H, W, 3) RGB, or labels (H, W).

    Args:
        data: Prepared data.
        name: As given to `store`.
        kind: "image" or "label", as given to `store`.
    """

    def __init__(self, data: Prepared, name: str, kind: Kind = "image") -> None:
        self.places, self.kind = data.array(f"{name}_index"), kind
        self.channels = (3,) if kind == "image" else ()
        self.pixels = data.pixels(name) if data.has(name) else None
        if self.pixels is None:
            about = data.json(f"{name}_files")
            self.folders = [Folder(Path(path)) for path in about["folders"]]
            self.as_stored: bool = about["as_stored"]
            self.folder, self.names = data.array(f"{name}_folder"), data.array(f"{name}_name")

    def __len__(self) -> int:
        return len(self.places)

    def size(self, number: int) -> tuple[int, int]:
        """(H, W) of an image, without reading it."""
        return int(self.places[number, 1]), int(self.places[number, 2])

    def __getitem__(self, number: Any) -> Any:
        offset, height, width = (int(value) for value in self.places[number])
        if self.pixels is not None:
            shape = (height, width, *self.channels)
            start = offset * math.prod(self.channels)
            return self.pixels[start : start + math.prod(shape)].reshape(shape)
        folder, name = self.folders[self.folder[number]], os.fsdecode(self.names[number])
        return decode(
            folder.read(name),
            file=folder.path / name,
            kind=self.kind,
            size=(height, width),
            as_stored=self.as_stored,
        )


def fits(
    identity: Mapping[str, Any],
    sources: Callable[[], Iterable[Source]],
    most: float,
    *,
    channels: int = 3,
) -> bool:
    """Whether the images take no more than `most` GiB decoded; once known, kept in the cache.

    Args:
        identity: Everything that `sources` depends on, as JSON values.
        sources: Gives the images.
        most: GiB.
        channels: Bytes of a pixel.

    Raises:
        InputError: An image is missing, or is none.
    """

    def make(writer: Writer) -> None:
        writer.json("fits", _fit(sources(), most, channels))

    asked = {**identity, "question": "fits", "gib": most, "channels": channels}
    return bool(cached(asked, make).json("fits"))


def _fit(sources: Iterable[Source], most: float, channels: int) -> bool:
    """By the headers; no more of them are read once it is clear that they do not fit."""
    left = most * GIB
    for source in sources:
        height, width = source.size or header(source)
        left -= channels * height * width
        if left < 0:
            return False
    return True


def header(source: Source) -> tuple[int, int]:
    """(H, W) of an image as it is stored; its pixels are not looked at.

    Raises:
        InputError: It is missing or no image.
    """
    with source.folder.open(source.name) as file:
        try:
            with Image.open(file) as picture:
                return picture.height, picture.width
        except (*UNREADABLE, *DAMAGED) as error:
            raise InputError(f"is not a readable image ({error})", file=source.file) from None
