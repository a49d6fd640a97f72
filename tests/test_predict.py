"""Predictions on pictures: those of the network, well placed, never one over another."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.transforms import v2

from hrnet_search import keypoints
from hrnet_search.arch import hrnet
from hrnet_search.cli import main
from hrnet_search.detectors import Detector, HRPyramid, build_detector, init_detector
from hrnet_search.drawing import DRAWN_SCORE, draw_objects, draw_people
from hrnet_search.errors import InputError
from hrnet_search.frameworks import DetectorSpec
from hrnet_search.joints import COCO
from hrnet_search.model import build, init_weights
from hrnet_search.predict import (
    VALID,
    Finder,
    Job,
    Person,
    check_out,
    find_images,
    open_winner,
    plan,
    predict,
    read_people,
)
from hrnet_search.weights import save_weights

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
SPEC = hrnet(width=8, num_modules=1, num_blocks=1, stage1_blocks=1, stage1_width=4, stem_width=8)
ABOUT: dict[str, dict[str, Any]] = {
    "pose": {
        "task": "pose", "input_size": [64, 48], "mean": MEAN, "std": STD, "softmax": False,
        "decoder": "quarter", "sigma": 2.0, "padding": 1.25, "keypoints": list(COCO.names),
        "skeleton": [list(pair) for pair in COCO.index(COCO.skeleton)],
    },
    "segmentation": {
        "task": "segmentation", "mean": MEAN, "std": STD, "classes": ["sky", "road", "car"],
        "resize": [], "base_length": 0, "align_corners": False,
    },
    "classification": {
        "task": "classification", "input_size": [64, 64], "centre": 0.875, "mean": MEAN,
        "std": STD, "classes": [f"class{number}" for number in range(7)],
    },
    "detection": {
        "task": "detection", "image_size": [60, 160], "padded": 32, "mean": MEAN, "std": STD,
        "classes": ["ant", "bee", "cat"],
    },
}  # fmt: skip
WITHIN = "must be within +-1000000 pixels, width and height 0.001 or more"
HEADS = {"pose": "v1", "segmentation": "v2", "ocr": "ocr", "classification": "cls"}
# Of kinds that are no tasks themselves.
TASKS = {"ocr": "segmentation", "masks": "detection", "dense": "detection"}
LEAN = {"channels": 16, "hidden": 32, "test_proposals": 50}
DETECTORS = {
    kind: DetectorSpec(framework=framework, num_classes=3, **LEAN)
    for kind, framework in (
        ("detection", "faster_rcnn"),
        ("masks", "mask_rcnn"),
        ("dense", "fcos"),
    )
}


@dataclass(frozen=True)
class Exported:
    """The folder of a network of random weights, and the network."""

    folder: Path
    net: torch.nn.Module


def export(folder: Path, kind: str, **changes: Any) -> Exported:
    """The three files that make a winner."""
    about = {**ABOUT[TASKS.get(kind, kind)], **changes}
    count = len(about.get("keypoints", about.get("classes")))
    arch: dict[str, Any] = {"arch": SPEC.to_dict()}
    net: torch.nn.Module
    if kind in DETECTORS:
        net, detector = random_detector(DETECTORS[kind]), DETECTORS[kind]
        arch |= {"head": detector.pyramid, "num_outputs": 16, "detector": detector.to_dict()}
    else:
        net = build(SPEC, head=HEADS[kind], num_outputs=count)
        init_weights(net, seed=0)
        stir(net)
        arch |= {"head": HEADS[kind], "num_outputs": count}
    folder.mkdir(parents=True)
    save_weights(net, folder / "weights.safetensors")
    (folder / "arch.json").write_text(json.dumps(arch))
    (folder / "preprocess.json").write_text(json.dumps(about))
    return Exported(folder, net.eval())


def stir(net: torch.nn.Module) -> None:
    """So that BatchNorm does not do what it does at first."""
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


def random_detector(spec: DetectorSpec) -> Detector:
    """Unlike one that is only initialised it has classes that it prefers."""
    net = build_detector(HRPyramid(build(SPEC, head=spec.pyramid, num_outputs=spec.channels)), spec)
    init_detector(net, seed=0)
    stir(net.backbone)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weights in net.named_parameters():
            if "predictor" in name or "cls_logits" in name:
                weights.copy_(torch.randn(weights.shape, generator=generator) / 4)
    return net


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    base = tmp_path_factory.mktemp("winners")
    return {kind: export(base / kind, kind) for kind in (*HEADS, *DETECTORS)}


def noise(file: Path, size: tuple[int, int] = (90, 120), seed: int = 0) -> Path:
    """A picture (H, W) of soft noise."""
    values = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).resize(size[::-1], Image.Resampling.BICUBIC).save(file)
    return file


def normalised(pixels: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> (1, 3, H, W), by torchvision."""
    mean, std = ([value / 255 for value in values] for values in (MEAN, STD))
    chain = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    )
    image: Tensor = chain(np.array(pixels))[None]
    return image


def run(
    folder: Path,
    files: list[Path],
    out: Path,
    people: list[Person] | None = None,
    score: float = DRAWN_SCORE,
) -> list[dict[str, Any]]:
    """The records that were written."""
    winner = open_winner(folder)
    jobs = plan(find_images(files, winner), people)
    predict(winner, jobs, out, score=score)
    return [json.loads((out / f"{job.name}.json").read_text()) for job in jobs]


# --- what is found -------------------------------------------------------------------------------


def test_joints_are_those_of_a_forward_pass_of_the_whole_picture(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    file = noise(tmp_path / "a.png", (64, 48))  # of the crop's size: nothing is resampled
    (record,) = run(exported["pose"].folder, [file], tmp_path / "out")
    with torch.inference_mode():
        heatmaps = exported["pose"].net(normalised(np.asarray(Image.open(file))))[0].numpy()
    assert (record["image"], record["size"]) == ("a.png", [64, 48])
    (found,) = record["people"]
    assert (found["bbox"], found["score"]) == ([0, 0, 48, 64], 1.0)
    assert list(found["keypoints"]) == list(COCO.names)
    for heatmap, (x, y, score) in zip(heatmaps, found["keypoints"].values(), strict=True):
        assert score == pytest.approx(heatmap.max(), abs=1e-5)
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        # A quarter of a pixel of the heatmap is one of the picture.
        assert abs(x - 4 * column) in (0, pytest.approx(1))
        assert abs(y - 4 * row) in (0, pytest.approx(1))


def test_a_wide_picture_is_filled_up_above_and_below(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    """96x64 on a crop of 48x64 is halved to 48x32: 16 black rows above, 16 below."""
    file = noise(tmp_path / "a.png", (64, 96))
    (record,) = run(exported["pose"].folder, [file], tmp_path / "out")
    canvas = np.zeros((64, 48, 3), dtype=np.uint8)
    halved = (
        Image.open(file)
        .convert("RGB")
        .transform(
            (48, 32), Image.Transform.AFFINE, (2, 0, -0.5, 0, 2, -0.5), Image.Resampling.BILINEAR
        )
    )
    canvas[16:48] = np.asarray(halved)
    with torch.inference_mode():
        heatmaps = exported["pose"].net(normalised(canvas))
    joints = keypoints.decode(heatmaps, decoder="quarter", sigma=2.0)[0]
    joints[:, 0] *= 2
    joints[:, 1] = (joints[:, 1] - 16) * 2
    found = torch.tensor(list(record["people"][0]["keypoints"].values()))
    # The crop is resampled about half a pixel, and at the seams differently.
    assert (found[:, :2] - joints[:, :2]).abs().median() < 0.1
    torch.testing.assert_close(found[:, 2].mean(), joints[:, 2].mean(), rtol=0.1, atol=0.02)


def test_a_box_is_looked_at_with_the_room_of_training(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    """The box times 1.25 is exactly 48x64 pixels of the picture: a plain cut-out."""
    file = noise(tmp_path / "a.png", (120, 160))
    box = (40 + 4.8, 30 + 6.4, 38.4, 51.2)
    people = [Person("a.png", box, 0.5), Person("a.png", (0.0, 0.0, 60.0, 50.0))]
    (record,) = run(exported["pose"].folder, [file], tmp_path / "out", people)
    cut = np.asarray(Image.open(file))[30:94, 40:88]
    with torch.inference_mode():
        heatmaps = exported["pose"].net(normalised(cut))
    joints = keypoints.decode(heatmaps, decoder="quarter", sigma=2.0)[0]
    first, second = record["people"]
    assert (first["bbox"], first["score"], second["score"]) == (list(box), 0.5, 1.0)
    found = torch.tensor(list(first["keypoints"].values()))
    expected = joints + torch.tensor([40.0, 30.0, 0.0])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
    drawn = Image.open(tmp_path / "out" / "a.png")
    both = [list(person["keypoints"].values()) for person in record["people"]]
    skeleton = ABOUT["pose"]["skeleton"]
    expected_picture = draw_people(Image.open(file), both, COCO.names, skeleton)
    assert drawn.tobytes() == expected_picture.tobytes()


def test_many_people_are_found_as_each_of_them_alone(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    file = noise(tmp_path / "a.png")
    boxes = [(float(x), float(y), 30.0, 40.0) for x in range(0, 80, 10) for y in range(0, 50, 10)]
    people = [Person("a.png", box) for box in boxes]
    (together,) = run(exported["pose"].folder, [file], tmp_path / "out", people)
    assert len(together["people"]) == 40  # more than the network sees at once
    (alone,) = run(exported["pose"].folder, [file], tmp_path / "one", people[37:38])
    one, other = (
        np.array(list(found["keypoints"].values()))
        for found in (together["people"][37], alone["people"][0])
    )
    assert np.allclose(one, other, atol=1e-3)


def test_scores_of_a_network_trained_by_cross_entropy_are_shares(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    folder = export(tmp_path / "winner", "pose", softmax=True).folder
    file = noise(tmp_path / "a.png", (64, 48))
    (record,) = run(folder, [file], tmp_path / "out")
    with torch.inference_mode():
        heatmaps = exported["pose"].net(normalised(np.asarray(Image.open(file))))[0]
    expected = heatmaps.flatten(1).softmax(-1).max(-1).values
    found = [score for _, _, score in record["people"][0]["keypoints"].values()]
    assert found == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("kind", ["segmentation", "ocr"])
def test_classes_are_those_of_a_forward_pass_at_the_pictures_size(
    exported: dict[str, Exported], tmp_path: Path, kind: str
) -> None:
    file = noise(tmp_path / "a.png", (75, 98))
    (record,) = run(exported[kind].folder, [file], tmp_path / "out")
    with torch.inference_mode():
        output = exported[kind].net(normalised(np.asarray(Image.open(file))))
    scores = output[1] if kind == "ocr" else output  # of OCR the final ones
    full = F.interpolate(scores, size=(75, 98), mode="bilinear", align_corners=False)
    labels = Image.open(tmp_path / "out" / "a_labels.png")
    assert (labels.mode, labels.size) == ("L", (98, 75))
    expected = full[0].argmax(0).numpy()
    assert (np.asarray(labels) == expected).mean() > 0.999  # but where two classes are equal
    shares = [(np.asarray(labels) == number).mean() for number in range(3)]
    assert record["classes"] == pytest.approx(
        dict(zip(["sky", "road", "car"], shares, strict=True))
    )
    assert sum(record["classes"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "size"), [({"resize": [64, 96]}, (64, 96)), ({"base_length": 128}, (98, 128))]
)
def test_images_are_brought_to_the_size_of_the_test_and_classes_back(
    exported: dict[str, Exported], tmp_path: Path, changes: dict[str, Any], size: tuple[int, int]
) -> None:
    folder = export(tmp_path / "winner", "segmentation", **changes).folder
    file = noise(tmp_path / "a.png", (75, 98))
    run(folder, [file], tmp_path / "out")
    resized = Image.open(file).resize(size[::-1], Image.Resampling.BILINEAR)
    with torch.inference_mode():
        scores = exported["segmentation"].net(normalised(np.asarray(resized)))
    full = F.interpolate(scores, size=(75, 98), mode="bilinear", align_corners=False)
    labels = np.asarray(Image.open(tmp_path / "out" / "a_labels.png"))
    assert (labels == full[0].argmax(0).numpy()).mean() > 0.999


def test_scores_are_those_of_a_forward_pass_of_the_test_crop(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    file = noise(tmp_path / "a.png", (150, 200))
    (record,) = run(exported["classification"].folder, [file], tmp_path / "out")
    crop = v2.Compose([v2.Resize(73), v2.CenterCrop(64)])(Image.open(file))  # int(64 / 0.875)
    with torch.inference_mode():
        scores = exported["classification"].net(normalised(np.asarray(crop)))[0].softmax(0)
    order = scores.argsort(descending=True)[:5].tolist()
    assert list(record["scores"]) == [f"class{number}" for number in order]
    assert list(record["scores"].values()) == pytest.approx(scores[order].tolist(), abs=1e-5)
    assert record["class"] == f"class{order[0]}"


def detected(net: torch.nn.Module, picture: Image.Image) -> dict[str, Tensor]:
    """What a detector finds in a picture of 90x120 that is shown at 60x80 on 64x96."""
    shown = picture.resize((80, 60), Image.Resampling.BILINEAR)
    # Bit for bit as it is done elsewhere, for boxes of nearly equal scores might change places.
    pixels = (torch.tensor(np.array(shown)).float() - torch.tensor(MEAN)) / torch.tensor(STD)
    image = F.pad(pixels.permute(2, 0, 1)[None], (0, 16, 0, 4))
    with torch.inference_mode():
        (found,) = net(image, torch.tensor([[60, 80]]))
    return found


@pytest.mark.parametrize("kind", DETECTORS)
def test_objects_are_those_of_a_forward_pass_of_the_scaled_and_padded_picture(
    exported: dict[str, Exported], tmp_path: Path, kind: str
) -> None:
    file = noise(tmp_path / "a.png", (90, 120))  # times 2/3
    (record,) = run(exported[kind].folder, [file], tmp_path / "out", score=0.4)
    found = detected(exported[kind].net, Image.open(file))
    assert len(found["boxes"]) == len(record["objects"]) > 5
    assert len(set(found["labels"].tolist())) > 1
    for box, score, label, one in zip(
        *(found[key] for key in ("boxes", "scores", "labels")), record["objects"], strict=True
    ):
        x1, y1, x2, y2 = (1.5 * box).tolist()
        assert one["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1e-2)
        assert one["score"] == pytest.approx(float(score), abs=1e-4)
        assert one["class"] == ["ant", "bee", "cat"][label - 1]
        assert ("segmentation" in one) == (kind == "masks")
    if kind == "masks":  # put in place by torchvision's function, which rounds boxes before
        whole = paste_masks_in_image(found["masks"], 1.5 * found["boxes"], (90, 120))[:, 0] >= 0.5
        decoded = coco_mask.decode([one["segmentation"] for one in record["objects"]])
        assert (decoded.transpose(2, 0, 1) == whole.numpy()).mean() > 0.95
        assert 0 < decoded.mean() < 1


def test_only_objects_of_the_least_score_are_drawn(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    file = noise(tmp_path / "a.png", (90, 120))
    (record,) = run(exported["detection"].folder, [file], tmp_path / "out", score=0.4)
    sure = [one for one in record["objects"] if one["score"] >= 0.4]
    assert 0 < len(sure) < len(record["objects"])
    boxes = [(x, y, x + width, y + height) for x, y, width, height in (o["bbox"] for o in sure)]
    names = ABOUT["detection"]["classes"]
    labels, scores = [names.index(o["class"]) + 1 for o in sure], [o["score"] for o in sure]
    expected = draw_objects(Image.open(file), boxes, labels, scores, names)
    drawn = Image.open(tmp_path / "out" / "a.png")
    assert drawn.tobytes() == expected.tobytes()


class Known(torch.nn.Module):
    """Finds what it is told, and keeps what it was shown."""

    def __init__(self, **found: Tensor) -> None:
        super().__init__()
        self.found = found

    def forward(self, image: Tensor, sizes: Tensor) -> list[dict[str, Tensor]]:
        self.image, self.sizes = image, sizes
        return [self.found]


def find(
    exported: Exported, net: Known, picture: Image.Image
) -> tuple[list[dict[str, Any]], Image.Image]:
    """The objects of the record, and the drawing."""
    finder = Finder(open_winner(exported.folder))
    finder.net = net
    record, pictures = finder.find(picture, Job(Path("a.png"), "a"))
    return record["objects"], pictures[".png"]


def test_boxes_go_back_to_the_pictures_own_pixels(exported: dict[str, Exported]) -> None:
    """98x75 is shown at min(60 / 75, 160 / 98) = 0.8: 60 high, 78.4 and so 78 wide."""
    nan = float("nan")
    net = Known(
        boxes=torch.tensor([[7.8, 6, 39, 30], [-5, 0, 78.01, 60], [nan, 1, 2, 3], [1, 1, 2, 2]]),
        scores=torch.tensor([0.9, 0.5, 0.5, nan]),
        labels=torch.tensor([3, 1, 1, 1]),
    )
    found, _ = find(exported["detection"], net, Image.new("RGB", (98, 75), (255, 0, 0)))
    assert net.sizes.tolist() == [[60, 78]]
    assert net.image.shape == (1, 3, 64, 96)
    red = (255 - MEAN[0]) / STD[0]
    assert net.image[0, 0, 59, 77] == pytest.approx(red)
    assert net.image[0, 0, 60:].abs().max() == net.image[0, 0, :, 78:].abs().max() == 0
    assert [(one["class"], one["score"]) for one in found] == [
        ("cat", pytest.approx(0.9)),
        ("ant", 0.5),
    ]
    assert found[0]["bbox"] == pytest.approx([9.8, 7.5, 39.2, 30])
    assert found[1]["bbox"] == pytest.approx([0, 0, 98, 75])  # and not beyond


def test_masks_fill_the_half_of_the_box_that_they_say(exported: dict[str, Exported]) -> None:
    mask = torch.zeros(1, 1, 28, 28)
    mask[..., :14] = 1  # the left half
    net = Known(
        boxes=torch.tensor([[20.0, 10.0, 60.0, 50.0]]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([2]),
        masks=mask,
    )
    (found,), _ = find(exported["masks"], net, Image.new("RGB", (240, 180)))  # times 3
    assert found["bbox"] == pytest.approx([60, 30, 120, 120])
    expected = np.zeros((180, 240), dtype=np.uint8)
    expected[30:150, 60:120] = 1
    decoded = coco_mask.decode([found["segmentation"]])[..., 0]
    assert np.array_equal(decoded, expected)


def test_a_picture_without_objects_stays_as_it_is(exported: dict[str, Exported]) -> None:
    net = Known(
        boxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.long),
        masks=torch.zeros(0, 1, 28, 28),
    )  # fmt: skip
    picture = Image.radial_gradient("L").resize((640, 480)).convert("RGB")
    found, drawn = find(exported["masks"], net, picture)
    assert found == []
    assert drawn.tobytes() == picture.tobytes()


def test_a_picture_that_its_camera_turned_is_seen_upright(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    upright = noise(tmp_path / "a.png", (120, 90))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    turned = Image.open(upright).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "b.png", exif=exif)
    files = [upright, tmp_path / "b.png"]
    one, other = run(exported["segmentation"].folder, files, tmp_path / "out")
    assert one["size"] == other["size"] == [120, 90]
    assert one["classes"] == other["classes"]


def test_the_code_of_the_folder_is_not_run(exported: dict[str, Exported], tmp_path: Path) -> None:
    folder = shutil.copytree(exported["pose"].folder, tmp_path / "winner")
    (folder / "network").mkdir()
    for name in ("network/__init__.py", "example.py"):
        (folder / name).write_text("raise SystemExit('was run')")
    run(folder, [noise(tmp_path / "a.png")], tmp_path / "out")


# --- names of results ----------------------------------------------------------------------------


def names(images: list[Path]) -> list[str]:
    return [job.name for job in plan(images)]


def test_no_two_results_have_the_same_name() -> None:
    images = [
        Path("a/x.png"), Path("a/x.jpg"), Path("b/x.png"), Path("a/x-2.png"), Path("a/X.bmp"),
        Path("a/x_labels.png"),
    ]  # fmt: skip
    found = names(images)
    assert found[0] == "x"
    files = [f"{name}{end}".lower() for name in found for end in (".png", ".json", "_labels.png")]
    assert len(set(files)) == len(files) == 18
    assert names([Path("a/x_labels.png"), Path("a/x.png")]) == ["x_labels", "x-2"]


def test_the_results_of_two_images_of_one_name_are_both_there(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    files = [noise(tmp_path / folder / "a.png", seed=n) for n, folder in enumerate("bc")]
    run(exported["segmentation"].folder, files, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a-2.json", "a-2.png", "a-2_labels.png", "a.json", "a.png", "a_labels.png",
    ]  # fmt: skip
    one, other = (Image.open(tmp_path / "out" / f"{name}_labels.png") for name in ("a", "a-2"))
    assert one.tobytes() != other.tobytes()


def test_results_need_a_folder_where_nothing_is_read(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    for folder in ("images", "more", "boxes", "linked", "out/deep"):
        (tmp_path / folder).mkdir(parents=True)
    winner = open_winner(shutil.copytree(exported["pose"].folder, tmp_path / "winner"))
    read = [tmp_path / "images" / "a.png", tmp_path / "more" / "a.jpg", tmp_path / "boxes" / "b"]
    read.append(tmp_path / "linked" / "c.png")
    read[-1].symlink_to(tmp_path / "images" / "c.png")
    (tmp_path / "alias").symlink_to(tmp_path / "more")
    for out in (
        *("images", "more", "boxes", "linked", "winner", "winner/new", "winner/network/x"),
        *("out/../images", "alias", "images/"),
    ):
        text = message(lambda out=out: check_out(tmp_path / out, winner, read))
        assert text.startswith("--out: '")
        assert text.endswith(": holds what is read; results need a folder of their own")
    for out in ("out", "out/deep", "images/new", "winner2", ".", "new"):
        check_out(tmp_path / out, winner, read)
    sample = winner.folder / "sample.png"
    check_out(tmp_path / "predictions", winner, [sample])  # the README's own command


def test_a_folder_stands_for_its_images_and_each_is_taken_once(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    files = [noise(tmp_path / "in" / name) for name in ("b.png", "a.JPG", "c.webp")]
    (tmp_path / "in" / "notes.txt").write_text("no image")
    winner = open_winner(exported["pose"].folder)
    found = find_images([tmp_path / "in", files[0]], winner)
    assert [path.name for path in found] == ["a.JPG", "b.png", "c.webp"]


# --- what is refused -----------------------------------------------------------------------------


def message(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_folder_that_is_none_of_an_exported_network_is_refused(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    assert "is no folder" in message(lambda: open_winner(tmp_path / "none"))
    assert "it has no arch.json" in message(lambda: open_winner(tmp_path))
    for name in ("arch.json", "preprocess.json", "weights.safetensors"):
        folder = shutil.copytree(exported["pose"].folder, tmp_path / name)
        (folder / name).unlink()
        assert f"it has no {name}" in message(lambda folder=folder: open_winner(folder))


@pytest.mark.parametrize(
    ("file", "change", "parts"),
    [
        ("arch.json", "{", ["arch.json", "is not JSON"]),
        ("arch.json", "[]", ["arch.json: head: is missing"]),
        ("arch.json", {"head": "v9"}, ["arch.json: head: 'v9'", "must be one of"]),
        ("arch.json", {"arch": {"rival": "x"}}, ["arch.json"]),
        ("arch.json", {"num_outputs": 5}, ["has 17 names of outputs, but the network has 5"]),
        ("preprocess.json", {"task": "tracking"}, ["preprocess.json: task: 'tracking'"]),
        ("preprocess.json", {"task": ["pose"]}, ["preprocess.json: task"]),
        ("preprocess.json", {"mean": [1, 2]}, ["preprocess.json: mean: [1, 2]"]),
        ("preprocess.json", {"std": [1, 0, 1]}, ["preprocess.json: std: [1, 0, 1]"]),
        ("preprocess.json", {"input_size": [64, 0]}, ["preprocess.json: input_size"]),
        ("preprocess.json", {"decoder": "best"}, ["preprocess.json: decoder: 'best'"]),
        ("preprocess.json", {"skeleton": [[0]]}, ["preprocess.json: skeleton"]),
        ("preprocess.json", {"sigma": None}, ["preprocess.json: sigma: None"]),
        ("preprocess.json", {"softmax": 1}, ["preprocess.json: softmax: 1"]),
    ],
)
def test_files_that_export_did_not_write_are_refused(
    exported: dict[str, Exported], tmp_path: Path, file: str, change: Any, parts: list[str]
) -> None:
    folder = shutil.copytree(exported["pose"].folder, tmp_path / "winner")
    path = folder / file
    if isinstance(change, dict):
        change = json.dumps(json.loads(path.read_text()) | change)
    path.write_text(change)
    text = message(lambda: open_winner(folder))
    for part in parts:
        assert part in text


def test_every_key_that_is_needed_is_asked_for(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    for kind, about in ABOUT.items():
        folder = shutil.copytree(exported[kind].folder, tmp_path / kind)
        for key in about:
            rest = {name: value for name, value in about.items() if name != key}
            (folder / "preprocess.json").write_text(json.dumps(rest))
            assert message(lambda folder=folder: open_winner(folder)).endswith(f"{key}: is missing")
    assert {key for about in ABOUT.values() for key in about} <= set(VALID)


@pytest.mark.parametrize(
    ("file", "change", "part"),
    [
        ("arch.json", {"detector": None}, "arch.json: detector: None: is not what an exported"),
        ("arch.json", {"detector": {"num_classes": 3}}, "arch.json: detector.framework: is miss"),
        ("arch.json", {"framework": "yolo"}, "detector.framework: 'yolo': must be one of"),
        ("arch.json", {"framework": ["fcos"]}, "detector.framework: ['fcos']: must be one of"),
        ("arch.json", {"framework": "fcos"}, "detector.pyramid: 'v2p': must be v2p_s2 under fcos"),
        ("arch.json", {"hiden": 3}, "detector.hiden: unknown key; did you mean 'hidden'?"),
        ("arch.json", {"hidden": 0.5}, "detector.hidden: 0.5: must be a whole number"),
        ("arch.json", {"nms": "x"}, "detector.nms: 'x': must be a number of at least 0"),
        ("arch.json", {"semantic": 1}, "detector.semantic: 1: must be true or false"),
        ("arch.json", {"anchor_ratios": 5}, "detector.anchor_ratios: 5: must be numbers"),
        ("arch.json", {"anchor_ratios": []}, "detector.anchor_ratios: (): must be numbers"),
        ("arch.json", {"num_classes": 4}, "3 names of outputs, but the network has 4"),
        ("preprocess.json", {"image_size": [60]}, "preprocess.json: image_size: [60]"),
        ("preprocess.json", {"image_size": [160, 60]}, "preprocess.json: image_size: [160, 60]"),
        ("preprocess.json", {"image_size": [0, 60]}, "preprocess.json: image_size: [0, 60]"),
        ("preprocess.json", {"padded": 0}, "preprocess.json: padded: 0"),
    ],
)
def test_detectors_that_export_did_not_write_are_refused(
    exported: dict[str, Exported], tmp_path: Path, file: str, change: dict[str, Any], part: str
) -> None:
    folder = shutil.copytree(exported["detection"].folder, tmp_path / "winner")
    content = json.loads((folder / file).read_text())
    inside = file == "arch.json" and "detector" not in change
    (content["detector"] if inside else content).update(change)
    (folder / file).write_text(json.dumps(content))
    assert part in message(lambda: open_winner(folder))


def test_weights_of_another_network_are_refused(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    folder = shutil.copytree(exported["pose"].folder, tmp_path / "winner")
    weights = "weights.safetensors"
    shutil.copy(exported["segmentation"].folder / weights, folder / weights)
    text = message(lambda: Finder(open_winner(folder)))
    assert text.startswith(f"{folder / weights}: must fit the network")


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda folder: folder / "none.png", ["none.png: there is no such image"]),
        (lambda folder: folder, ["holds no images"]),
        (lambda folder: write(folder / "a.png", b"text"), ["a.png: is not a readable image"]),
        (lambda folder: noise(folder / "a.png", (20, 90)), ["a.png: '20x90'", "at least 32 x 32"]),
    ],
)
def test_images_that_cannot_be_used_are_refused_before_torch_is_needed(
    exported: dict[str, Exported],
    tmp_path: Path,
    make: Callable[[Path], Path],
    parts: list[str],
) -> None:
    winner = open_winner(exported["segmentation"].folder)
    text = message(lambda: find_images([make(tmp_path)], winner))
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"base_length": 128}, "13x128"),  # 128 x 60 / 600 is 12.8
        ({"base_length": 310}, "31x310"),
        ({"resize": [24, 64]}, "24x64"),
    ],
)
def test_an_image_that_is_too_small_as_it_is_seen_is_named_before_the_first_is_looked_at(
    tmp_path: Path, changes: dict[str, Any], seen: str
) -> None:
    winner = open_winner(export(tmp_path / "winner", "segmentation", **changes).folder)
    file = noise(tmp_path / "long.png", (60, 600))
    text = message(lambda: find_images([file], winner))
    assert text.startswith(f"{file}: '60x600': is seen at {seen} pixels, which must be at least 32")
    if "base_length" in changes:
        assert find_images([noise(tmp_path / "a.png", (75, 98))], winner)


def test_a_strip_that_a_detector_cannot_see_is_named(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    winner = open_winner(exported["detection"].folder)
    file = noise(tmp_path / "strip.png", (1, 400))  # times 0.4, on a multiple of 32
    text = message(lambda: find_images([file], winner))
    assert text.startswith(f"{file}: '1x400': is seen at 32x160 pixels, which must be at least 64")
    assert find_images([noise(tmp_path / "a.png", (33, 80))], winner)


def write(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


def test_a_misspelt_image_is_found(exported: dict[str, Exported], tmp_path: Path) -> None:
    noise(tmp_path / "photo.png")
    winner = open_winner(exported["pose"].folder)
    text = message(lambda: find_images([tmp_path / "phto.png"], winner))
    assert text.endswith("did you mean 'photo.png'?")


def test_a_truncated_image_is_named_and_earlier_results_stay(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    first, second = noise(tmp_path / "a.jpg"), noise(tmp_path / "b.jpg")
    second.write_bytes(second.read_bytes()[:-300])
    text = message(lambda: run(exported["pose"].folder, [first, second], tmp_path / "out"))
    assert text.startswith(f"{second}: is not a readable image")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "a.png"]


def test_a_record_that_cannot_be_written_leaves_no_picture(
    exported: dict[str, Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*_: object) -> tuple[dict[str, Any], dict[str, Image.Image]]:
        return {"score": float("nan")}, {".png": Image.new("RGB", (3, 3))}

    monkeypatch.setattr(Finder, "find", find)
    with pytest.raises(ValueError, match="JSON"):
        run(exported["pose"].folder, [noise(tmp_path / "a.jpg")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- boxes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("[", "is not JSON"),
        ({"image": "a.png"}, "must be a list of boxes"),
        ([{"image": "a.png", "bbox": [0, 0, 1, 1]}, {"image": "a.png"}], ": 1: {"),
        ([{"image": "a.png", "bbox": [0, 0, 1, 1], "extra": 1}], "must be {"),
        ([{"image": 7, "bbox": [0, 0, 1, 1]}], "0.image: must be the name"),
        ([{"image": "a.png", "bbox": [0, 0, 1]}], "0.bbox: [0, 0, 1]: must be four numbers"),
        ([{"image": "a.png", "bbox": [0, 0, "1", 1]}], "must be four numbers"),
        ([{"image": "a.png", "bbox": [0, 0, 10**400, 1]}], "must be four numbers"),
        ([{"image": "a.png", "bbox": [0, 0, 0, 1]}], f"0.bbox: [0, 0, 0, 1]: {WITHIN}"),
        ([{"image": "a.png", "bbox": [0, 0, 1, -5]}], WITHIN),
        ([{"image": "a.png", "bbox": [0, 0, 1e-320, 1]}], WITHIN),
        ([{"image": "a.png", "bbox": [0, 0, 1, 0.00099]}], WITHIN),
        ([{"image": "a.png", "bbox": [0, 0, 1e300, 1]}], WITHIN),
        ([{"image": "a.png", "bbox": [0, -1e308, 1, 1e308]}], WITHIN),
        ([{"image": "a.png", "bbox": [1000001, 0, 1, 1]}], WITHIN),
        ([{"image": "a.png", "bbox": [0, 0, float("nan"), 1]}], "must be four numbers"),
        ([{"image": "a.png", "bbox": [0, 0, 1, 1], "score": "x"}], "0.score: 'x': must be a"),
        ([{"image": "a.png", "bbox": [0, 0, 1, 1], "score": 10**400}], "must be a number"),
        pytest.param("[" * 100_000, "is not JSON", id="deep"),
    ],
)
def test_boxes_that_are_none_are_refused(tmp_path: Path, content: Any, part: str) -> None:
    file = tmp_path / "boxes.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    text = message(lambda: read_people(file))
    assert text.startswith(str(file))
    assert part in text


def test_boxes_belong_to_images_by_name_or_path(tmp_path: Path) -> None:
    file = tmp_path / "boxes.json"
    entries = [
        {"image": "a.png", "bbox": [1, 2, 3, 4]},
        {"image": "in/b.png", "bbox": [5, 6, 7, 8.5], "score": 0.25},
    ]
    file.write_text(json.dumps(entries))
    people = read_people(file)
    assert people == [Person("a.png", (1, 2, 3, 4)), Person("in/b.png", (5, 6, 7, 8.5), 0.25)]
    images = [Path("in/a.png"), Path("in/b.png"), Path("in/c.png")]
    jobs = plan(images, people)
    assert [job.people for job in jobs] == [people[:1], people[1:], []]
    assert plan(images[:1]) == [Job(images[0], "a", None)]


def test_the_widest_and_the_thinnest_box_are_looked_at(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    file = noise(tmp_path / "a.png")
    entries = [
        {"image": "a.png", "bbox": box} for box in ([-5e5, -5e5, 1e6, 1e6], [5, 5, 1e-3, 1e-3])
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(entries))
    people = read_people(tmp_path / "boxes.json")
    (record,) = run(exported["pose"].folder, [file], tmp_path / "out", people)
    wide, thin = (np.array(list(found["keypoints"].values())) for found in record["people"])
    assert np.isfinite(wide).all()
    # All that is seen are 1.25 thousandths of a pixel, a third more upwards and downwards.
    assert (np.abs(thin[:, :2] - 5) < 2e-3).all()


def test_boxes_of_other_images_are_refused() -> None:
    people = [Person("fotos.png", (1, 2, 3, 4))]
    text = message(lambda: plan([Path("photos.png"), Path("x.png")], people))
    assert text.startswith("--boxes: 'fotos.png'")
    assert text.endswith("did you mean 'photos.png'?")


def test_an_image_that_the_boxes_do_not_name_shows_nobody(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    files = [noise(tmp_path / name, (500, 500)) for name in ("a.png", "b.png")]
    people = [Person("a.png", (0, 0, 50, 50))]
    _, second = run(exported["pose"].folder, files, tmp_path / "out", people)
    assert second["people"] == []
    drawn = Image.open(tmp_path / "out" / "b.png")
    assert drawn.tobytes() == Image.open(files[1]).tobytes()


@pytest.mark.parametrize("box", [(120, 0, 5, 5), (0, 90, 5, 5), (-6, 0, 5, 5), (0, -6, 5, 5)])
def test_a_box_outside_its_image_is_refused(
    exported: dict[str, Exported], tmp_path: Path, box: tuple[float, float, float, float]
) -> None:
    file = noise(tmp_path / "a.png")
    folder = exported["pose"].folder
    text = message(lambda: run(folder, [file], tmp_path / "out", [Person("a.png", box)]))
    assert text.startswith(f"{file}: --boxes: {list(box)}: lies outside the image")
    assert "120x90" in text
    assert not (tmp_path / "out").exists()


# --- the command ---------------------------------------------------------------------------------


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        status = main(["predict", *map(str, arguments)])
    except SystemExit as exit_:  # argparse
        status = int(exit_.code or 0)
    return (status, *capsys.readouterr())


def test_the_command_writes_and_says_where(
    exported: dict[str, Exported], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(tmp_path / "in" / "a.png"), noise(tmp_path / "in" / "b.png")
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{"image": "b.png", "bbox": [10, 10, 40, 40]}]))
    out = tmp_path / "deep" / "out"
    given = (exported["pose"].folder, tmp_path / "in", "--out", out, "--boxes", boxes)
    status, said, error = command(capsys, *given)
    assert (status, said, error) == (0, f"Predictions: {out}  (2 images)\n", "")
    counts = [len(json.loads((out / f"{n}.json").read_text())["people"]) for n in ("a", "b")]
    assert counts == [0, 1]


def test_the_command_draws_objects_of_the_score_that_it_is_told(
    exported: dict[str, Exported], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = noise(tmp_path / "a.png")
    folder = exported["detection"].folder
    calls = (("default", []), ("all", ["--score", "0.05"]), ("told", ["--score", "0.3"]))
    for name, given in calls:
        out = tmp_path / name
        status, said, _ = command(capsys, folder, file, "--out", out, *given)
        assert status == 0
        found = [one["score"] for one in json.loads((out / "a.json").read_text())["objects"]]
        least = float(given[1]) if given else DRAWN_SCORE
        shown = f"{sum(score >= least for score in found)} objects of score {least} or more"
        seen = f"1 image, {shown}, highest score {max(found):.3f}"
        assert said == f"Predictions: {out}  ({seen})\n"
    default, everything, told = (
        (tmp_path / name / "a.png").read_bytes() for name in ("default", "all", "told")
    )
    assert default == told != everything
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    assert f"(default: {DRAWN_SCORE})" in " ".join(capsys.readouterr().out.split())


def test_the_command_draws_no_object_that_the_network_was_not_tested_with(
    exported: dict[str, Exported], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of a lower score are not found at all, so to ask for them would show nothing more."""
    file, out = noise(tmp_path / "a.png"), tmp_path / "out"
    folder = shutil.copytree(exported["detection"].folder, tmp_path / "winner")
    arch = json.loads((folder / "arch.json").read_text())
    arch["detector"]["score"] = 0.4
    (folder / "arch.json").write_text(json.dumps(arch))
    status, said, error = command(capsys, folder, file, "--out", out, "--score", "0.39")
    rule = "must be 0.4 or more, the least score of what this network finds"
    assert (status, said, error) == (2, "", f"hrnet-search: --score: 0.39: {rule}\n")
    assert not out.exists()
    for given in ([], ["--score", "0.4"]):
        status, said, _ = command(capsys, folder, file, "--out", out, *given)
        assert status == 0
        assert " objects of score 0.4 or more, highest score 1.000)" in said


def test_what_a_network_does_not_find_cannot_be_asked_for() -> None:
    spec = DETECTORS["detection"]
    assert spec.score == 0.05
    for asked, least in ((None, 0.3), (0.05, 0.05), (0.1, 0.1), (1.0, 1.0)):
        assert spec.least_drawn(asked, usual=DRAWN_SCORE) == least
    assert replace(spec, score=0.4).least_drawn(None, usual=DRAWN_SCORE) == 0.4
    for asked in (0.0, 0.049, float("nan")):
        text = message(lambda asked=asked: spec.least_drawn(asked, usual=DRAWN_SCORE))
        rule = "must be 0.05 or more, the least score of what this network finds"
        assert text == f"--score: {asked}: {rule}"


def test_the_command_refuses_with_one_line_and_writes_nothing(
    exported: dict[str, Exported], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out, boxes = noise(tmp_path / "a.png"), tmp_path / "out", tmp_path / "boxes.json"
    boxes.write_text("[]")
    kinds = ("pose", "segmentation", "detection")
    pose, segmentation, detection = (exported[kind].folder for kind in kinds)
    for given, part in (
        ((segmentation, file, "--out", out, "--boxes", boxes), "--boxes: "),
        ((pose, file, "--out", out, "--boxes", tmp_path / "none.json"), "none.json: cannot be"),
        ((pose, file, "--out", out, "--score", "0.5"), "--score: 0.5: is for networks that find"),
        ((detection, file, "--out", out, "--score", "1.5"), "'1.5': must be a number from 0 to 1"),
        ((detection, file, "--out", out, "--score", "nan"), "'nan': must be a number from 0 to 1"),
        ((detection, file, "--out", out, "--score", "x"), "'x': must be a number from 0 to 1"),
        ((detection, file, "--out", out, "--boxes", boxes), "this one is for detection"),
        ((pose, file, "--out", tmp_path), "--out: "),
        ((pose, file, "--out", pose / "new"), "holds what is read; results need a folder"),
        ((pose, file, "--out", file), "--out: "),
        ((pose, file), "--out"),
        ((tmp_path, file, "--out", out), "is not the folder of an exported network"),
    ):
        status, _, error = command(capsys, *given)
        assert status == 2
        assert error.startswith("hrnet-search: ")
        assert error.count("\n") == 1
        assert part in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "boxes.json"]


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    status, said, _ = command(capsys, "--help")
    assert status == 0
    assert "hrnet-search predict reports/smoke/winner photo.jpg --out predictions" in said


def test_bad_input_is_refused_without_torch(exported: dict[str, Exported], tmp_path: Path) -> None:
    script = (
        "import sys; from hrnet_search.cli import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'torchvision'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else status)"
    )
    (tmp_path / "a.png").write_text("no image")
    given = [exported["pose"].folder, tmp_path / "a.png", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", script, "predict", *map(str, given)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "is not a readable image" in done.stderr
