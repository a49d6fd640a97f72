"""Classification: what is read, how crops vary, what is counted, what its weights are good for."""

import json
import math
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from hrnet_search.arch import hrnet
from hrnet_search.baselines import network
from hrnet_search.blueprint import HEADS
from hrnet_search.errors import InputError
from hrnet_search.model import build, init_weights
from hrnet_search.rivals import RIVALS
from hrnet_search.settings import ClassificationTask, ImageFolders, Train
from hrnet_search.tasks.base import MEAN, STD
from hrnet_search.tasks.classification import Classification, prepare
from hrnet_search.training import choose_hardware, train
from hrnet_search.views import centre_crop
from hrnet_search.weights import load_weights, save_weights

METRICS = ClassificationTask(kind="classification").metrics

COLOURS = {"ant": (250, 20, 20), "bee": (20, 250, 20), "cat": (20, 20, 250)}
SIZES = [(40, 60), (64, 32), (33, 90), (50, 50)]  # width, height


def quiet(done: int, total: int) -> None:
    """A progress nobody looks at."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of one colour each: four training and two validation images of each."""
    root = tmp_path_factory.mktemp("classes")
    for name, colour in COLOURS.items():
        for split, count in (("train", 4), ("val", 2)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", SIZES[number], colour)
                picture.save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def copy(folders: Path, tmp_path: Path) -> Path:
    """The same folders for a test to change."""
    return shutil.copytree(folders, tmp_path / "data")


def settings(root: Path, **changes: Any) -> ImageFolders:
    raw = {"kind": "image_folders", "root": str(root), "num_classes": 3, "input_size": [32, 32]}
    return ImageFolders.model_validate(raw | changes)


def load(root: Path, *, head: str = "cls", augmentation: Any = None, **changes: Any) -> Any:
    """The task on the folders."""
    raw = {"kind": "classification", "head": head, "augmentation": augmentation or {}}
    data = settings(root, **changes)
    task = ClassificationTask.model_validate(raw)
    return Classification(task, data, prepare(data, quiet))


def pixels(images: Tensor) -> np.ndarray:
    """Normalised (B, 3, H, W) -> uint8 (B, H, W, 3)."""
    values = images.permute(0, 2, 3, 1) * STD + MEAN
    return values.round().clamp(0, 255).byte().numpy()


# --- data ----------------------------------------------------------------------------------------


def test_classes_are_the_sorted_folders_and_labels_their_numbers(folders: Path) -> None:
    task = load(folders)
    assert (task.num_train, task.num_outputs, task.head) == (12, 3, "cls")
    assert task.preprocessing()["classes"] == ["ant", "bee", "cat"]
    images, labels = task.batch(0, size=12, seed=0)
    assert sorted(labels.tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    expected = np.array(list(COLOURS.values()))[labels]
    assert (pixels(images) == expected[:, None, None]).all()


def test_the_splits_may_be_zip_files(folders: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        with zipfile.ZipFile(tmp_path / f"{split}.zip", "w") as file:
            for image in sorted((folders / split).rglob("*.png")):
                file.write(image, image.relative_to(folders))
    zipped = load(tmp_path, train="train.zip", val="val.zip")
    plain = load(folders)
    for one, other in zip(
        zipped.batch(1, size=5, seed=3), plain.batch(1, size=5, seed=3), strict=True
    ):
        assert torch.equal(one, other)


def test_images_that_are_not_kept_decoded_give_the_same_batches(folders: Path) -> None:
    kept, read = load(folders), load(folders, cache_gib=0)
    assert kept.train.pixels is not None
    assert read.train.pixels is None
    for one, other in zip(
        kept.batch(2, size=7, seed=1), read.batch(2, size=7, seed=1), strict=True
    ):
        assert torch.equal(one, other)


def test_whether_pixels_are_kept_decides_and_not_the_limit(folders: Path) -> None:
    some, more, none = (
        prepare(settings(folders, cache_gib=gib), lambda done, total: None).folder
        for gib in (4.0, 5.0, 1e-6)
    )
    assert some == more != none


def test_images_are_decoded_once_until_a_file_changes(copy: Path, cache: Path) -> None:
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    first = prepare(settings(copy), progress)
    assert calls == [(number, 18) for number in range(1, 19)]
    again = prepare(settings(copy), progress)
    assert (len(calls), again) == (18, first)
    Image.new("RGB", (40, 60), (1, 2, 3)).save(copy / "train" / "bee" / "0.png")
    changed = prepare(settings(copy), progress)
    assert len(calls) == 36
    assert changed.checksum != first.checksum


def test_hidden_files_and_other_files_are_no_images(copy: Path) -> None:
    (copy / "train" / "ant" / "._0.png").write_bytes(b"of macOS")
    (copy / "train" / "ant" / "notes.txt").write_text("no image")
    (copy / "val" / ".ipynb_checkpoints").mkdir()
    (copy / "train" / "readme.md").write_text("not in a class")
    assert load(copy).num_train == 12


def test_files_in_folders_below_a_class_belong_to_it(copy: Path) -> None:
    (copy / "train" / "cat" / "more").mkdir()
    Image.new("RGB", (40, 40), COLOURS["cat"]).save(copy / "train" / "cat" / "more" / "x.JPEG")
    _, labels = load(copy).batch(0, size=13, seed=0)
    assert labels.tolist().count(2) == 5


def test_grey_transparent_and_turned_images_are_read_as_they_look(copy: Path) -> None:
    folder = copy / "val" / "ant"
    Image.new("L", (40, 40), 7).save(folder / "2.png")
    Image.new("RGBA", (40, 40), (9, 8, 7, 128)).save(folder / "3.png")
    turned = Image.new("RGB", (60, 40), (200, 0, 0))
    turned.paste((0, 0, 200), (0, 0, 30, 40))  # the left half is blue
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise: the left half becomes the upper one
    turned.save(folder / "4.png", exif=exif)
    val = load(copy).val
    assert (val[2][0, 0].tolist(), val[3][0, 0].tolist()) == ([7, 7, 7], [9, 8, 7])
    assert val[4].shape == (60, 40, 3)
    assert (val[4][10, 20].tolist(), val[4][50, 20].tolist()) == ([0, 0, 200], [200, 0, 0])


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / name)


def empty(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        shutil.rmtree(root / name)
        (root / name).mkdir()

    return change


def cut(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        data = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(data).save(root / name)
        (root / name).write_bytes((root / name).read_bytes()[:700])

    return change


@pytest.mark.parametrize(
    ("change", "settings_", "parts"),
    [
        (remove("."), {}, ["data.root", "there is no such folder"]),
        (remove("train"), {}, ["data.train: 'train'", "no such folder or .zip file"]),
        (empty("train"), {}, ["data.train", "holds no folder per class"]),
        (empty("val"), {}, ["data.val", "holds no folder per class"]),
        (remove("val/bee"), {}, ["val: ", "has no folder 'bee', which train has"]),
        (remove("train/bee"), {}, ["train: ", "has no folder 'bee', which val has"]),
        (empty("train/cat"), {}, ["train/cat: holds no images"]),
        (empty("val/ant"), {}, ["val/ant: holds no images"]),
        (lambda root: None, {"num_classes": 4}, ["data.num_classes: 4", "not the number", "(3)"]),
        (cut("train/bee/9.jpg"), {}, ["train/bee/9.jpg: is not a readable image", "truncated"]),
        (
            lambda root: (root / "val" / "cat" / "5.png").write_text("text"),
            {},
            ["val/cat/5.png: is not a readable image"],
        ),
    ],
)
def test_bad_data_gets_one_line_and_leaves_no_data_in_the_cache(
    copy: Path,
    cache: Path,
    change: Callable[[Path], None],
    settings_: dict[str, Any],
    parts: list[str],
) -> None:
    change(copy)
    with pytest.raises(InputError) as caught:
        prepare(settings(copy, **settings_), quiet)
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line
    # But for whether the images would fit.
    assert {file.name for file in cache.glob("*/*")} <= {"content.json", "fits.json"}


# --- crops ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ramps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose red grows with x and green with y, one value per pixel: places can be read."""
    root = tmp_path_factory.mktemp("ramps")
    x, y = np.meshgrid(np.arange(250), np.arange(200))
    image = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            Image.fromarray(image).save(root / split / name / "0.png")
    return root


def spans(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Width, its sign that of x, and height of what each crop of a ramp shows, in its pixels."""
    values = crops.astype(float)
    side = crops.shape[1]
    wide = (values[:, :, -1, 0] - values[:, :, 0, 0]).mean(1)
    high = (values[:, -1, :, 1] - values[:, 0, :, 1]).mean(1)
    # The outermost pixels' centres are a pixel of the crop apart less than the edges.
    return wide * side / (side - 1), high * side / (side - 1)


def test_training_crops_have_the_area_and_shape_of_the_recipe(ramps: Path) -> None:
    task = load(ramps, num_classes=2, augmentation={"least_area": 0.3, "flip": 0.25})
    batches = [task.batch(step, size=64, seed=0)[0] for step in range(4)]
    wide, high = spans(pixels(torch.cat(batches)))
    area, ratio = np.abs(wide) * high / (250 * 200), np.abs(wide) / high
    # Ends are rounded to pixels of the image, and to grey levels.
    assert 0.28 < area.min() < 0.35
    assert 0.9 < area.max() < 1.03
    assert 0.72 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.38
    # Of 256 coin tosses of chance a quarter, four deviations are 28.
    assert abs((wide < 0).sum() - 64) < 28


@pytest.mark.parametrize(("flip", "mirrored"), [(0.0, 0), (1.0, 16)])
def test_the_share_of_mirrored_crops_can_be_none_or_all(
    ramps: Path, flip: float, mirrored: int
) -> None:
    task = load(ramps, num_classes=2, augmentation={"flip": flip})
    wide, _ = spans(pixels(task.batch(0, size=16, seed=0)[0]))
    assert (wide < 0).sum() == mirrored


def test_a_batch_is_a_function_of_its_arguments_alone(ramps: Path) -> None:
    task = load(ramps, num_classes=2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    images, labels = task.batch(3, size=6, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(task.batch(3, size=6, seed=1)[0], images)
    for other in (task.batch(4, size=6, seed=1), task.batch(3, size=6, seed=2)):
        assert not torch.equal(other[0], images)
    for rank in range(3):
        part = task.batch(3, size=6, seed=1, part=(rank, 3))
        assert torch.equal(part[0], images[rank::3])
        assert torch.equal(part[1], labels[rank::3])


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (256, 256), (224, 1000), (100, 80)])
def test_the_test_crop_is_torchvisions(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    picture = Image.fromarray(image)
    expected = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])(picture)
    assert centre_crop(picture, (224, 224)).tobytes() == expected.tobytes()


def test_a_crop_that_is_not_square_shows_as_much_as_fits() -> None:
    x, y = np.meshgrid(np.arange(250), np.arange(250))
    image = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
    wide, high = spans(np.asarray(centre_crop(Image.fromarray(image), (56, 112)))[None])
    assert wide == pytest.approx(0.875 * 250, abs=3)  # the width just reaches
    assert high == pytest.approx(0.875 * 250 / 2, abs=3)


def test_the_sample_is_the_first_test_crop(ramps: Path) -> None:
    task = load(ramps, num_classes=2, input_size=[64, 32])
    seen: list[Tensor] = []

    def predict(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.zeros(len(images), 2)

    task.evaluate(predict)
    assert task.samples(1)[0].shape == (64, 32, 3)
    assert task.samples(1)[0].dtype == np.uint8
    assert np.array_equal(pixels(torch.cat(seen))[0], task.samples(1)[0])
    assert sum(map(len, seen)) == 2


# --- loss and metrics ----------------------------------------------------------------------------


def test_the_loss_of_a_network_that_knows_nothing_is_the_logarithm_of_the_classes(
    folders: Path,
) -> None:
    loss = load(folders).loss(torch.zeros(4, 3, dtype=torch.bfloat16), torch.tensor([0, 1, 2, 0]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(3), abs=1e-6)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven classes with one image each, whose red is its class's number."""
    root = tmp_path_factory.mktemp("seven")
    for split in ("train", "val"):
        for number in range(7):
            (root / split / f"class{number}").mkdir(parents=True)
            picture = Image.new("RGB", (40, 40), (number, 0, 0))
            picture.save(root / split / f"class{number}" / "image.png")
    return root


def places(images: Tensor) -> Tensor:
    """Scores by which the true class of image n has place n, counted from 0."""
    scores = torch.empty(len(images), 7)
    for row, number in enumerate(pixels(images)[:, 0, 0, 0].tolist()):
        order = [other for other in range(7) if other != number]
        order.insert(number, number)  # the best first
        scores[row, order] = torch.arange(7.0, 0.0, -1.0)
    return scores


def test_metrics_count_the_true_class_among_the_best(seven: Path, tmp_path: Path) -> None:
    metrics = load(seven, num_classes=7).evaluate(places, out=tmp_path)
    assert metrics == {"top1": pytest.approx(1 / 7), "top5": pytest.approx(5 / 7)}
    records = json.loads((tmp_path / "predictions.json").read_text())
    assert [r["image"] for r in records] == [f"class{n}/image.png" for n in range(7)]
    assert [r["truth"] for r in records] == [f"class{n}" for n in range(7)]
    assert records[0]["class"] == "class0"
    assert list(records[3]["scores"]) == ["class0", "class1", "class2", "class3", "class4"]
    total = sum(math.exp(score) for score in range(1, 8))
    assert list(records[3]["scores"].values()) == pytest.approx(
        [math.exp(score) / total for score in (7, 6, 5, 4, 3)]
    )


def test_with_fewer_than_five_classes_all_are_the_top_ones(folders: Path) -> None:
    metrics = load(folders).evaluate(lambda images: torch.tensor([[2.0, 1.0, 0.0]] * len(images)))
    assert metrics == {"top1": pytest.approx(1 / 3), "top5": 1.0}


# --- networks ------------------------------------------------------------------------------------

# Not of width 4: torch 2.14 damages memory in the backward pass of 1x1 convolutions of stride 2 on
# two to six channels in channels-last memory, which cls_ii then has (on a CPU).
SMALL = {"width": 8, "num_modules": 1, "num_blocks": 1, "stage1_blocks": 1, "stage1_width": 4}


@pytest.mark.parametrize("head", ["cls", "cls_i", "cls_ii"])
def test_every_head_of_classification_scores_whole_images(folders: Path, head: str) -> None:
    task = load(folders, head=head)
    net = build(hrnet(**SMALL, stem_width=8), head=task.head, num_outputs=task.num_outputs)
    images, labels = task.batch(0, size=2, seed=0)
    output = net(images)
    assert output.shape == (2, 3)
    task.loss(output, labels).backward()


@pytest.mark.parametrize(
    "name", [name for name, rival in RIVALS.items() if "classification" in rival.tasks]
)
def test_every_rival_of_classification_scores_whole_images(name: str) -> None:
    with torch.device("meta"):
        net = network(RIVALS[name].to_dict(), head="cls", num_outputs=3)
        assert net(torch.empty(2, 3, 64, 64)).shape == (2, 3)


@pytest.fixture(scope="module")
def pretrained(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A network after two steps of training on the folders, and the file of its weights."""
    task = load(folders)
    net = build(hrnet(**SMALL, stem_width=8), head="cls", num_outputs=3)
    init_weights(net, seed=0)
    before = net.body.conv1.weight.clone()
    recipe = {"optimizer": "sgd", "nesterov": True, "weight_decay": 1e-4, "schedule": "step"}
    counts = {"steps": 2, "milestones": [1], "batch_size": 4, "evaluations": 1, "lr": 0.01}
    train_settings = Train.model_validate({**recipe, **counts, "precision": "float32"})
    out = tmp_path_factory.mktemp("predictions")
    hardware = choose_hardware(train_settings)
    metrics = train(
        net, task, train_settings, seed=0, hardware=hardware, report=lambda entry: None, folder=out
    )
    assert set(metrics) == {name.removeprefix("metrics.") for name in METRICS}
    assert len(json.loads((out / "predictions.json").read_text())) == 6
    assert not torch.equal(net.body.conv1.weight, before)
    file = tmp_path_factory.mktemp("weights") / "pretrained.safetensors"
    save_weights(net, file)
    return net.eval().to(memory_format=torch.contiguous_format), file


@pytest.mark.parametrize("head", HEADS)
def test_pretrained_weights_load_into_every_head(pretrained: tuple[Any, Path], head: str) -> None:
    source, file = pretrained
    net = build(hrnet(**SMALL, stem_width=8), head=head, num_outputs=5).eval()
    loaded = load_weights(net, file, parts="body")
    assert set(loaded.matched) == {f"body.{name}" for name in net.body.state_dict()}
    assert all(name.startswith("head.") for name in loaded.missing)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        mine, theirs = net.body(image), source.body(image)
    assert torch.equal(mine[0], theirs[0])
    assert len(mine) == (1 if head in ("v1", "v1h", "v1p", "v1hp") else 4)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=False))
