"""Images are read in all their forms, refused in one line, and kept where they fit."""

import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from hrnet_search.errors import InputError
from hrnet_search.tasks.cache import Prepared, Writer, cached
from hrnet_search.tasks.images import (
    Folder,
    Images,
    Source,
    decode,
    fits,
    header,
    in_order,
    open_folder,
    store,
)

HEIGHT, WIDTH = 7, 10
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
ORIENTATION = 0x0112


def data_of(picture: Any, kind: str = "png", **options: Any) -> bytes:
    """The file of a picture, or of an array."""
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int, kind: str = "png", pixels: np.ndarray = RGB) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return data_of(pixels, kind, exif=exif)


def read(data: bytes, kind: Any = "image", size: tuple[int, int] | None = None) -> np.ndarray:
    return decode(data, file=Path("x.png"), kind=kind, size=size)


# --- decoding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff"])
def test_pixels_of_lossless_files_come_back(kind: str) -> None:
    assert np.array_equal(read(data_of(RGB, kind)), RGB)


def test_grey_images_have_three_equal_channels() -> None:
    assert np.array_equal(read(data_of(LABELS)), np.repeat(LABELS[..., None], 3, -1))
    both = np.dstack([LABELS, 255 - LABELS])
    grey = Image.merge(
        "LA", [Image.fromarray(np.ascontiguousarray(c)) for c in both.transpose(2, 0, 1)]
    )
    assert np.array_equal(read(data_of(grey)), np.repeat(LABELS[..., None], 3, -1))
    black = np.where(LABELS[..., None] > 99, 255, 0).repeat(3, -1)
    assert np.array_equal(read(data_of(LABELS > 99)), black)


def test_transparency_is_left_out() -> None:
    assert np.array_equal(read(data_of(np.dstack([RGB, LABELS]))), RGB)


def test_palettes_are_colours_in_images_and_numbers_in_labels() -> None:
    picture = Image.fromarray(LABELS)
    palette = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)
    picture.putpalette(palette.ravel().tolist())
    assert picture.mode == "P"
    data = data_of(picture)
    assert np.array_equal(read(data), palette[LABELS])
    assert np.array_equal(read(data, "label"), LABELS)


def test_cmyk_becomes_rgb() -> None:
    picture = Image.new("CMYK", (8, 8), (255, 0, 0, 0))  # cyan alone: no red
    pixels = read(data_of(picture, "jpeg", quality=100))
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - [0, 255, 255]).max() <= 2


# How a viewer shows the pixels of each orientation (EXIF 2.32, tag 0x0112).
SHOWN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p[::-1].swapaxes(0, 1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", SHOWN)
def test_a_turned_photograph_is_shown_upright(orientation: int) -> None:
    assert np.array_equal(read(turned(orientation)), SHOWN[orientation](RGB))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_size_of_the_annotations_says_whether_it_is_turned(orientation: int) -> None:
    data = turned(orientation)
    assert np.array_equal(read(data, size=(WIDTH, HEIGHT)), SHOWN[orientation](RGB))
    assert np.array_equal(read(data, size=(HEIGHT, WIDTH)), RGB)
    with pytest.raises(InputError, match=r"^x\.png: is 7x10 pixels, but 5x5 are wanted$"):
        read(data, size=(5, 5))


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_where_sizes_do_not_tell_it_is_shown_upright(orientation: int) -> None:
    found = read(turned(orientation), size=(HEIGHT, WIDTH))
    assert np.array_equal(found, SHOWN[orientation](RGB))


def test_a_turned_jpeg_is_turned_as_pillow_does() -> None:
    data = turned(6, "jpeg", np.repeat(np.repeat(RGB, 8, 0), 8, 1))
    with Image.open(io.BytesIO(data)) as picture:
        wanted = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    assert wanted.shape[:2] == (8 * WIDTH, 8 * HEIGHT)
    assert np.array_equal(read(data), wanted)


def test_broken_exif_data_says_nothing() -> None:
    data = turned(6, "webp")
    place = data.index(b"MM\x00*")
    broken = data[:place] + b"##" + data[place + 2 :]
    assert read(data).shape == (WIDTH, HEIGHT, 3)
    assert read(broken).shape == (HEIGHT, WIDTH, 3)


TWO_WARNINGS = """
import sys, warnings
from pathlib import Path
if sys.argv[1] == "plain":
    from PIL import Image
    for file in sys.argv[2:]:
        picture = Image.open(file)
        picture.getexif()
        picture.convert("RGB")
else:
    from hrnet_search.tasks.images import decode
    for file in sys.argv[2:]:
        decode(Path(file).read_bytes(), file=Path(file), kind="image")
"""


def test_what_pillow_warns_of_is_not_printed(tmp_path: Path) -> None:
    """A table of transparency in a palette, and EXIF data cut off."""
    palette = Image.fromarray(LABELS)
    palette.putpalette(list(range(256)) * 3)
    palette.save(tmp_path / "a.png", transparency=bytes(range(256)))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x09"  # nine entries, and none of them there
    Image.fromarray(RGB).save(tmp_path / "b.jpg", exif=exif)
    printed = {}
    for way in ("plain", "ours"):
        command = [sys.executable, "-c", TWO_WARNINGS, way, tmp_path / "a.png", tmp_path / "b.jpg"]
        printed[way] = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert "Transparency" in printed["plain"]
    assert "EXIF" in printed["plain"]
    assert printed["ours"] == ""


def test_label_images_are_not_turned() -> None:
    assert np.array_equal(read(turned(6, pixels=LABELS), "label"), LABELS)


WRONG_MODES = [
    (RGB, "label", "RGB; labels must be 8-bit, one channel"),
    (LABELS.astype(np.uint16), "label", "I;16; labels must be 8-bit, one channel"),
    (LABELS > 9, "label", "1; labels must be 8-bit, one channel"),
    (LABELS.astype(np.uint16), "image", "I;16; convert it to 8 bits per channel"),
]


@pytest.mark.parametrize(("pixels", "kind", "said"), WRONG_MODES)
def test_wrong_modes_are_refused(pixels: np.ndarray, kind: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(data_of(pixels), kind)
    assert str(caught.value) == f"x.png: is an image of mode {said}"


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "webp"])
def test_a_file_cut_off_anywhere_is_refused_in_one_line(kind: str) -> None:
    big = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = data_of(big, kind)
    for length in np.linspace(0, len(data) - 40, 25, dtype=int):
        with pytest.raises(InputError) as caught:
            read(data[:length])
        said = str(caught.value)
        assert said.startswith("x.png: is not a readable image (")
        assert "\n" not in said


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of broken EXIF data
def test_damaged_bytes_are_refused_or_read_but_never_crash() -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    for kind in ("png", "jpeg", "webp"):
        whole = turned(6, kind)
        for _ in range(150):
            data = bytearray(whole)
            data[rng.integers(len(data))] = rng.integers(256)
            try:
                outcomes.add(read(bytes(data)).ndim)
            except InputError:
                outcomes.add("refused")
    assert outcomes == {3, "refused"}


# --- folders and zip files ---------------------------------------------------------------------

NAMES = ["a.png", "b/c.png"]


def make_files(folder: Path) -> Path:
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def make_zip(file: Path, top: str = "") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        if top:
            archive.mkdir(top)
        for name in NAMES:
            archive.writestr(f"{top}{name}", name)
    return file


@pytest.fixture(params=["folder", "zip", "zip with a folder at the top"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "folder":
        return Folder(make_files(tmp_path / "x"))
    return Folder(make_zip(tmp_path / "x.zip", "train2017/" if "top" in request.param else ""))


def test_files_by_name_from_a_folder_or_a_zip_file(files: Folder) -> None:
    assert set(NAMES) <= files.names
    for name in NAMES:
        assert files.has(name)
        assert files.read(name) == name.encode()
        with files.open(name) as file:
            assert file.read(1) == name[:1].encode()
    assert not files.has("b")


def test_a_missing_file_is_named(files: Folder) -> None:
    assert not files.has("x.png")
    for act in (files.read, files.open):
        with pytest.raises(InputError) as caught:
            act("x.png")
        assert str(caught.value) == f"{files.path}/x.png: there is no such image"


def test_fingerprints_change_with_the_file(files: Folder) -> None:
    first = [files.fingerprint(name) for name in NAMES]
    assert first == [files.fingerprint(name) for name in NAMES]
    assert first[0] != first[1]
    changed = files.path if files.is_zip else files.path / NAMES[1]
    os.utime(changed, ns=(1, 1))
    assert files.fingerprint(NAMES[1]) != first[1]


def test_a_missing_file_has_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such image"):
        Folder(tmp_path).fingerprint("x.png")


def test_a_folder_instead_of_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match=r"x\.png: cannot be read \("):
        Folder(tmp_path).read("x.png")


def test_a_broken_zip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK no more")
    with pytest.raises(InputError, match=r"x\.zip: is not a readable \.zip file \("):
        Folder(tmp_path / "x.zip").read("a.png")


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def zip_of(file: Path, method: int = zipfile.ZIP_STORED) -> bytes:
    """The bytes of a .zip file with one image, `x.png`."""
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("x.png", data_of(RGB))
    return file.read_bytes()


def refused(act: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError) as caught:
        act()
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_byte_in_a_zip_file_is_refused_in_one_line(tmp_path: Path, method: int) -> None:
    file = tmp_path / "x.zip"
    data = bytearray(zip_of(file, method))
    data[len(data) // 2] ^= 0x55  # in the image, which fills nearly all of it
    file.write_bytes(data)
    folder = Folder(file)
    refused(lambda: folder.read("x.png"), f"{file}/x.png: cannot be read (")
    refused(lambda: Source(folder, "x.png").decode("image"), f"{file}/x.png: cannot be read (")


@pytest.mark.parametrize("method", METHODS)
def test_no_damage_of_a_zip_file_ends_otherwise(tmp_path: Path, method: int) -> None:
    file = tmp_path / "x.zip"
    whole, outcomes = zip_of(file, method), set()
    rng = np.random.default_rng(0)
    ends = [*range(40), *range(len(whole) - 100, len(whole))]  # headers
    for place in [*ends, *rng.integers(len(whole), size=40)]:
        for flip in (0x01, 0x80):
            data = bytearray(whole)
            data[place] ^= flip
            file.write_bytes(data)
            for act in (Folder.read, lambda folder, name: header(Source(folder, name))):
                try:
                    act(Folder(file), "x.png")
                    outcomes.add("read")
                except InputError as error:
                    outcomes.add("cannot" if "cannot be read" in str(error) else "other")
    assert {"read", "cannot"} <= outcomes


def test_an_encrypted_image_in_a_zip_file_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    data = bytearray(zip_of(file))
    # Bit 0 of the flags: bytes 6 of the local header, 8 of the central one (APPNOTE 4.3.7, 4.3.12).
    data[data.index(b"PK\3\4") + 6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(data)
    said = f"{file}/x.png: cannot be read ("
    refused(lambda: Folder(file).read("x.png"), said)
    refused(lambda: header(Source(Folder(file), "x.png")), said)
    with pytest.raises(InputError, match="encrypted"):
        Folder(file).open("x.png")


def test_the_header_of_a_damaged_image_in_a_zip_file_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    data = bytearray(zip_of(file, zipfile.ZIP_DEFLATED))
    start = data.index(b"x.png") + len("x.png")
    data[start] |= 0b110  # a block of deflate's reserved type 3 (RFC 1951, section 3.2.3)
    file.write_bytes(data)
    said = f"{file}/x.png: is not a readable image ("
    refused(lambda: header(Source(Folder(file), "x.png")), said)


def test_linked_folders_are_looked_into_but_not_in_circles(tmp_path: Path) -> None:
    far, root = make_files(tmp_path / "far"), tmp_path / "root"
    make_files(root)
    (root / "one").symlink_to(far)
    (root / "two").symlink_to(far)
    (root / "file.png").symlink_to(far / "a.png")
    (root / "b" / "up").symlink_to(root)  # a circle
    (far / "b" / "round").symlink_to(root)  # one of two links
    names = Folder(root).names
    wanted = {*NAMES, "file.png", *(f"{link}/{name}" for link in ("one", "two") for name in NAMES)}
    assert names == wanted
    assert all(Folder(root).read(name) for name in names)


def test_a_folder_that_is_gone_is_refused(tmp_path: Path) -> None:
    refused(lambda: Folder(tmp_path / "none").names, f"{tmp_path}/none: cannot be read (")


@pytest.mark.parametrize("files", ["zip"], indirect=True)
def test_a_zip_file_is_opened_once_in_each_process(files: Folder) -> None:
    files.read(NAMES[0])
    out, into = os.pipe()
    child = os.fork()
    if not child:  # a loader's process
        os.write(into, files.read(NAMES[1]))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(out, 100) == NAMES[1].encode()
    assert files.read(NAMES[1]) == NAMES[1].encode()


def test_open_folder_says_which_setting_is_wrong(tmp_path: Path) -> None:
    make_files(tmp_path / "train")
    make_zip(tmp_path / "x.zip")
    assert open_folder(tmp_path, "train", key="data.train").path == tmp_path / "train"
    assert open_folder(tmp_path, "x.zip", key="data.train").is_zip
    for name in ("none", "none.zip", "train/a.png"):
        with pytest.raises(InputError) as caught:
            open_folder(tmp_path, name, key="data.train")
        rule = f"there is no such folder or .zip file in {tmp_path}"
        assert str(caught.value) == f"data.train: {name!r}: {rule}"
    with pytest.raises(InputError, match=r"^data\.root: .*--set data\.root=FOLDER$"):
        open_folder(tmp_path / "none", "train", key="data.train")


# --- keeping -----------------------------------------------------------------------------------

SIZES = [(7, 10), (3, 4), (7, 10), (1, 1), (12, 5)]


def sources_in(folder: Path) -> list[Source]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        (folder / f"{number}.png").write_bytes(data_of(pixels))
    return [Source(Folder(folder), f"{number}.png") for number in range(len(SIZES))]


def stored(sources: list[Source], *, keep: bool, **options: Any) -> Prepared:
    def make(writer: Writer) -> None:
        store(writer, "x", sources, keep=keep, **{"advance": lambda: None, **options})

    return cached({"keep": keep, "kind": options.get("kind", "image")}, make)


@pytest.mark.parametrize("keep", [True, False])
def test_stored_images_come_back(tmp_path: Path, cache: Path, keep: bool) -> None:
    sources = sources_in(tmp_path / "files")
    images = Images(stored(sources, keep=keep), "x")
    assert len(images) == 5
    assert (images.pixels is not None) == keep
    for number, source in enumerate(sources):
        assert images.size(number) == SIZES[number]
        assert np.array_equal(images[number], source.decode("image"))
    assert [image.shape[:2] for image in images] == SIZES


@pytest.mark.parametrize("keep", [True, False])
def test_stored_labels_come_back(tmp_path: Path, cache: Path, keep: bool) -> None:
    (tmp_path / "x.png").write_bytes(data_of(LABELS))
    sources = [Source(Folder(tmp_path), "x.png")]
    images = Images(stored(sources, keep=keep, kind="label"), "x", kind="label")
    assert np.array_equal(images[0], LABELS)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (WIDTH, HEIGHT)])
def test_a_turned_image_stays_as_it_was_checked(
    tmp_path: Path, cache: Path, size: tuple[int, int], keep: bool
) -> None:
    (tmp_path / "x.png").write_bytes(turned(6))
    sources = [Source(Folder(tmp_path), "x.png", size)]
    image = Images(stored(sources, keep=keep), "x")[0]
    assert np.array_equal(image, RGB if size == (HEIGHT, WIDTH) else SHOWN[6](RGB))


def test_the_checksum_is_the_same_kept_or_not(tmp_path: Path, cache: Path) -> None:
    sources = sources_in(tmp_path / "files")
    kept, left = (stored(sources, keep=keep) for keep in (True, False))
    assert kept.folder != left.folder
    assert kept.checksum == left.checksum


def test_every_image_is_checked_in_order_and_told(tmp_path: Path, cache: Path) -> None:
    seen: list[Any] = []
    sources = sources_in(tmp_path / "files")

    def check(number: int, pixels: np.ndarray) -> None:
        seen.append((number, pixels.shape[:2]))

    stored(sources, keep=False, check=check, advance=lambda: seen.append("done"))
    assert seen[::2] == list(enumerate(SIZES))
    assert seen[1::2] == ["done"] * 5


def test_a_broken_image_stops_it_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    sources = sources_in(tmp_path / "files")
    sources[3].file.write_bytes(b"x")
    with pytest.raises(InputError, match=r"3\.png: is not a readable image"):
        stored(sources, keep=True)
    assert list(cache.iterdir()) == []


def test_an_image_that_changed_since_is_refused(tmp_path: Path, cache: Path) -> None:
    sources = sources_in(tmp_path / "files")
    images = Images(stored(sources, keep=False), "x")
    sources[1].file.write_bytes(data_of(RGB))
    with pytest.raises(InputError, match=r"1\.png: is 10x7 pixels, but 4x3 are wanted"):
        images[1]
    sources[1].file.unlink()
    with pytest.raises(InputError, match=r"1\.png: there is no such image"):
        images[1]


def test_headers_are_read_without_the_pixels(tmp_path: Path) -> None:
    data = data_of(np.zeros((400, 300, 3), dtype=np.uint8))
    (tmp_path / "x.png").write_bytes(data[:60])  # no pixel in it
    make_zip(tmp_path / "y.zip")
    assert header(Source(Folder(tmp_path), "x.png")) == (400, 300)
    with zipfile.ZipFile(tmp_path / "y.zip", "a") as archive:
        archive.writestr("x.png", data[:60])
    assert header(Source(Folder(tmp_path / "y.zip"), "x.png")) == (400, 300)
    with pytest.raises(InputError, match=r"a\.png: is not a readable image \("):
        header(Source(Folder(tmp_path / "y.zip"), "a.png"))
    with pytest.raises(InputError, match=r"z\.png: there is no such image$"):
        header(Source(Folder(tmp_path), "z.png"))


@pytest.mark.parametrize("channels", [3, 4])
def test_images_fit_up_to_the_limit_exactly(tmp_path: Path, cache: Path, channels: int) -> None:
    size = channels * sum(height * width for height, width in SIZES)  # bytes
    sources = sources_in(tmp_path / "files")
    for most, expected in ((size, True), (size - 1, False), (0, False)):
        gib = most / 2**30
        assert fits({"data": 1}, lambda: sources, gib, channels=channels) is expected


def test_whether_images_fit_is_asked_once_of_each_data_set_and_limit(cache: Path) -> None:
    asked: list[int] = []

    def sources(number: int) -> Any:
        asked.append(number)
        # No such file: where its size is known, it is not looked at.
        yield Source(Folder(cache), "none.png", (1000, 2000))
        if number == 2:  # nor are others when it is too large already
            yield Source(Folder(cache), "none.png")

    for _ in range(2):
        assert fits({"data": 1}, lambda: sources(1), 1.0)
        assert not fits({"data": 2}, lambda: sources(2), 0.005)
        assert fits({"data": 1}, lambda: sources(3), 2.0)
    assert asked == [1, 2, 3]


# --- in order ----------------------------------------------------------------------------------


def test_results_keep_the_order_of_the_items() -> None:
    def slow(number: int) -> int:
        time.sleep(0.002 * (number % 3 == 0))
        return number**2

    assert list(in_order(slow, range(100))) == [number**2 for number in range(100)]


def test_items_are_taken_a_little_ahead_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    taken: list[int] = []

    def items() -> Any:
        for number in range(1000):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, items())
    for expected in range(5):
        assert next(results) == expected
    assert len(taken) <= 5 + 4 * 2
    results.close()
    assert len(taken) <= 5 + 4 * 2


def test_fewer_items_are_taken_where_they_are_large() -> None:
    taken: list[int] = []
    results = in_order(lambda number: number, (taken.append(n) or n for n in range(99)), ahead=2)
    for expected in range(5):
        assert next(results) == expected
        assert len(taken) == expected + 1 + 2
    assert list(results) == list(range(5, 99))


def test_an_error_comes_in_its_turn_and_ends_the_threads() -> None:
    def fail(number: int) -> int:
        if number == 20:
            raise InputError("is bad", value=number)
        return number

    results = in_order(fail, range(1000))
    assert [next(results) for _ in range(20)] == list(range(20))
    with pytest.raises(InputError, match="20: is bad"):
        next(results)
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


@pytest.mark.parametrize("orientation", [3, 6])
def test_where_sizes_leave_it_open_a_picture_is_turned_unless_it_is_wanted_as_stored(
    tmp_path: Path, orientation: int
) -> None:
    pixels = np.arange(10 * 10 * 3, dtype=np.uint8).reshape(10, 10, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "square.png"
    Image.fromarray(pixels).save(file, exif=exif)
    data = file.read_bytes()
    upright = np.rot90(pixels, {3: 2, 6: -1}[orientation])  # 6: to be turned clockwise
    for size in (None, (10, 10)):
        shown = decode(data, file=file, kind="image", size=size)
        stored = decode(data, file=file, kind="image", size=size, as_stored=True)
        assert np.array_equal(shown, upright)
        assert np.array_equal(stored, pixels)


def test_a_size_that_fits_the_turned_picture_alone_decides(tmp_path: Path) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file, exif=exif)
    for as_stored in (False, True):
        for size, wanted in (((4, 6), pixels), ((6, 4), np.rot90(pixels, -1))):
            found = decode(
                file.read_bytes(), file=file, kind="image", size=size, as_stored=as_stored
            )
            assert np.array_equal(found, wanted)
