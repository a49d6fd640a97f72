"""The studies of the paper's recipes: their numbers, their networks, and their first steps."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import yaml
from PIL import Image
from pydantic import BaseModel

from hrnet_search import settings, training
from hrnet_search.blueprint import canonical
from hrnet_search.cli import main
from hrnet_search.cost import cost
from hrnet_search.joints import COCO
from hrnet_search.model import build, init_weights
from hrnet_search.paper import TABLES
from hrnet_search.presets import preset
from hrnet_search.report.frame import told_by
from hrnet_search.settings import DATA_KINDS
from hrnet_search.space import Value
from hrnet_search.study import Study, load_study
from hrnet_search.tasks import load_task, prepare

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "studies" / "paper"
FILES = sorted(FOLDER.glob("*.yaml"))
# Detection's are in test_paper_detection.py.
NAMES = [file.stem for file in FILES if not file.stem.startswith("detection_")]


@dataclass(frozen=True)
class Recipe:
    """What the paper, or where it is silent the official code, says of one training.

    Args:
        network: Preset, task whose defaults it has, head, outputs.
        size: (H, W) of training crops.
        params: Printed #Params in millions, None where no table has them.
        schedule: epochs, batch, optimiser, learning rate, weight decay, milestones (none: poly).
        images: Training images (people, faces) of the data set.
        steps: (what epochs x images / batch comes to, iterations the paper prints or None).
    """

    network: tuple[str, str, str, int]
    size: tuple[int, int]
    params: float | None
    schedule: tuple[int, int, str, float, float, tuple[int, ...]]
    images: int
    steps: tuple[int, int | None]


# Section 4 and Table 1: Adam at 1e-3, a tenth at 170 and at 200 of 210 epochs; 150K people, of
# which the official code keeps 149,813. The batch is the official configurations'.
POSE = Recipe(
    network=("w32", "pose", "v1", 17),
    size=(256, 192),
    params=28.5,
    schedule=(210, 128, "adam", 1e-3, 0, (170, 200)),
    images=149_813,
    steps=(245_787, None),
)
WIDE = replace(POSE, network=("w48", "pose", "v1", 17), params=63.6)
LARGE_WIDE = replace(
    WIDE,
    size=(384, 288),
    schedule=(210, 96, "adam", 1e-3, 0, (170, 200)),
    steps=(327_716, None),
)
# Section 5 and Tables 3, 5, 6: SGD, poly; epochs of the official configurations. Their loaders
# drop what does not fill a batch in each epoch: 119,548, 62,400 and 114,150 iterations.
CITYSCAPES = Recipe(
    network=("w48", "segmentation", "v2", 19),
    size=(512, 1024),
    params=65.9,
    schedule=(484, 12, "sgd", 1e-2, 5e-4, ()),
    images=2975,
    steps=(119_992, 120_000),
)
CONTEXT = Recipe(
    network=("w48", "segmentation", "v2", 59),
    size=(480, 480),
    params=None,
    schedule=(200, 16, "sgd", 4e-3, 1e-4, ()),
    images=4998,
    steps=(62_475, 60_000),
)
LIP = Recipe(
    network=("w48", "segmentation", "v2", 20),
    size=(473, 473),
    params=None,
    schedule=(150, 40, "sgd", 7e-3, 5e-4, ()),
    images=30_462,
    steps=(114_233, 110_000),
)
# Appendix and Table 15 (#Params of W32 and W48: README of the official classification code).
IMAGENET = Recipe(
    network=("w18", "classification", "cls", 1000),
    size=(224, 224),
    params=21.3,
    schedule=(100, 256, "sgd", 0.1, 1e-4, (30, 60, 90)),
    images=1_281_167,
    steps=(500_456, None),
)
RECIPES = {
    "pose_w32_256x192": POSE,
    "pose_w32_384x288": replace(POSE, size=(384, 288)),
    "pose_w48_256x192": WIDE,
    "pose_w48_384x288": LARGE_WIDE,
    "pose_fusion_ablation": POSE,
    "pose_fusion_operator": POSE,
    "pose_resolution": POSE,
    "pose_figure9": POSE,
    "pose_input_size": POSE,
    "pose_mpii_w32": replace(
        POSE,
        network=("w32", "pose", "v1", 16),
        size=(256, 256),
        images=22_246,
        steps=(36_498, None),
    ),
    # The face code builds its body as the segmentation code does. The paper prints 9.3 M; the
    # official code has 9.663 M, counted on the network it makes.
    "face_wflw_w18": Recipe(
        network=("w18", "segmentation", "v2", 98),
        size=(256, 256),
        params=9.663,
        schedule=(60, 16, "adam", 1e-4, 0, (30, 50)),
        images=7500,
        steps=(28_125, None),
    ),
    # The paper prints 45.2 M; the official code has 45.894 M with these widths.
    "cityscapes_w40": replace(CITYSCAPES, network=("w40", "segmentation", "v2", 19), params=45.894),
    "cityscapes_w48": CITYSCAPES,
    "cityscapes_fusion_ablation": CITYSCAPES,
    "cityscapes_fusion_operator": CITYSCAPES,
    "cityscapes_resolution": CITYSCAPES,
    "cityscapes_figure10": CITYSCAPES,
    "cityscapes_w48_ocr": replace(
        CITYSCAPES, network=("w48", "segmentation_ocr", "ocr", 19), params=70.3
    ),
    "pascal_context_w48": CONTEXT,
    "pascal_context_w48_ocr": replace(
        CONTEXT,
        network=("w48", "segmentation_ocr", "ocr", 59),
        size=(520, 520),
        schedule=(200, 16, "sgd", 1e-3, 1e-4, ()),
    ),
    "lip_w48": LIP,
    "lip_w48_ocr": replace(LIP, network=("w48", "segmentation_ocr", "ocr", 20)),
    "imagenet_w18_c": IMAGENET,
    "imagenet_w32_c": replace(
        IMAGENET, network=("w32", "classification", "cls", 1000), params=41.2
    ),
    "imagenet_w48_c": replace(
        IMAGENET, network=("w48", "classification", "cls", 1000), params=77.5
    ),
}


def shipped(name: str) -> Study:
    return load_study(FOLDER / f"{name}.yaml")


def test_every_study_has_its_row_here_and_in_the_documents() -> None:
    assert set(NAMES) == set(RECIPES)
    table = (ROOT / "docs" / "recipes.md").read_text()
    assert [file.name for file in FILES if f"studies/paper/{file.name}" not in table] == []


def test_validate_accepts_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", *map(str, FILES)]) == 0
    assert capsys.readouterr().out.count(": ok, study of") == len(FILES)


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_what_a_user_must_know(name: str) -> None:
    header = (FOLDER / f"{name}.yaml").read_text().partition("\nname:")[0]
    for part in ("# Needs:", "# Takes:", "V100 (", "# Run:", "# Expect:", "GPU"):
        assert part in header, part
    assert f"hrnet-search run studies/paper/{name}.yaml --set data.root=" in header


def reference(study: Study) -> dict[str, Value]:
    """Knob values of the arm that others are compared with, the last one if none is named."""
    (params,) = (p for p in study.arms() if study.arm(p) == study.reference_arm)
    return params


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_the_official_network(name: str) -> None:
    study, (network, task, head, outputs) = shipped(name), RECIPES[name].network
    assert (study.task.head, study.num_outputs) == (head, outputs)
    expected = canonical(preset(network, task=task), head)
    assert study.network(reference(study)).key == expected.key  # type: ignore[union-attr]
    assert study.seeds == 1


ABLATIONS = [name for name in NAMES if len(shipped(name).arms()) > 1]


def test_ablations_have_the_tables_rows_as_arms() -> None:
    assert len(ABLATIONS) == 9
    for name in ABLATIONS:
        study = shipped(name)
        assert study.paper is not None
        table = TABLES[study.paper.table]
        assert table.columns[study.paper.column][0] == study.accuracy
        given = [told_by(study, params) for params in study.arms()]
        assert [table.row(one) for one in given] == list(table.rows)


@pytest.mark.parametrize("name", ABLATIONS)
def test_what_an_ablation_expects_are_the_tables_figures(name: str) -> None:
    study = shipped(name)
    assert study.paper is not None
    expected = (FOLDER / f"{name}.yaml").read_text().partition("# Expect:")[2].partition(" (")[0]
    values = [r.values.get(study.paper.column) for r in TABLES[study.paper.table].rows]
    printed = [f"{100 * value:.1f}" for value in values if value is not None]
    assert re.findall(r"\d\d\.\d", expected) == printed


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_resolution")])
def test_four_branches_from_the_beginning_cost_what_the_header_says(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    width = re.search(r"at_once\.width=(\d+)", text)
    more = re.search(r"costs (\d+) % more", text)
    assert width
    assert more
    start = "space.vary.branches.arms.at_once"
    study = shipped(name)
    narrow = load_study(FOLDER / f"{name}.yaml", [f"{start}.width={width[1]}"])
    goal = study.costs(reference(study))["profile.macs"]
    wide, level = (s.costs(s.arms()[1])["profile.macs"] / goal for s in (study, narrow))
    assert round(100 * wide - 100) == int(more[1])
    assert level == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", [name for name in NAMES if RECIPES[name].params])
def test_it_has_as_many_parameters_as_the_paper_prints(name: str) -> None:
    printed = RECIPES[name].params
    assert printed is not None
    study = shipped(name)
    found = cost(
        study.space.arch(study.original(reference(study))),
        head=study.task.head,
        num_outputs=study.num_outputs,
        input_size=study.input_size,
    )
    digits = len(str(printed).partition(".")[2])
    # Printed figures are rounded, but for OCR's 70.37, which is cut to 70.3.
    cut = math.floor(found.params / 1e6 * 10**digits) / 10**digits
    assert printed in (cut, round(found.params / 1e6, digits))


@pytest.mark.parametrize("name", NAMES)
def test_the_schedule_is_the_papers(name: str) -> None:
    study, recipe = shipped(name), RECIPES[name]
    train = study.train
    epochs, batch, optimizer, lr, decay, milestones = recipe.schedule
    assert (train.epochs, train.batch_size, train.optimizer) == (epochs, batch, optimizer)
    assert (train.lr, train.weight_decay) == (lr, decay)
    assert (train.schedule, train.milestones) == (
        ("step", list(milestones)) if milestones else ("poly", [])
    )
    assert study.input_size == recipe.size
    assert (train.warmup, train.clip_norm, train.ema, train.pretrained) == (0, 0, 0, "")
    assert train.precision == "float32"
    assert train.processes == (1 if name == "face_wflw_w18" else 4)
    assert train.nesterov == name.startswith("imagenet")
    assert train.head_lr == (10 if name == "pascal_context_w48_ocr" else 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_epochs_come_to_about_the_papers_iterations(name: str) -> None:
    recipe = RECIPES[name]
    steps, printed = recipe.steps
    assert shipped(name).train.total_steps(recipe.images) == steps
    assert steps == math.ceil(recipe.schedule[0] * recipe.images / recipe.schedule[1])
    if printed:  # 120K, 60K, 110K: the first to 0.01 %, the others 4 % fewer than the epochs make
        assert 1 - 1e-4 < steps / printed < 1.045


# flip, scale, rotation, share of rotated, half bodies; sigma; flip test (section 4, appendix).
COCO_LIKE = (0.5, 0.35, 45, 0.6, 0.3)
POSE_RECIPES = {
    "pose_w32_256x192": (COCO_LIKE, 2, True),
    "pose_w32_384x288": (COCO_LIKE, 3, True),
    "pose_w48_256x192": (COCO_LIKE, 2, True),
    "pose_w48_384x288": (COCO_LIKE, 3, True),
    "pose_fusion_ablation": (COCO_LIKE, 2, True),
    "pose_fusion_operator": (COCO_LIKE, 2, True),
    "pose_resolution": (COCO_LIKE, 2, True),
    "pose_figure9": (COCO_LIKE, 2, True),
    "pose_input_size": (COCO_LIKE, 2, True),
    "pose_mpii_w32": ((0.5, 0.25, 30, 0.6, 0), 2, True),
    "face_wflw_w18": ((0.5, 0.25, 15, 0.6, 0), 1.5, False),  # 15, cut at 30: docs/recipes.md
}


@pytest.mark.parametrize("name", POSE_RECIPES)
def test_the_pose_protocol_is_the_papers(name: str) -> None:
    study = shipped(name)
    task = study.task
    assert task.kind == "pose"
    vary, sigma, flip_test = POSE_RECIPES[name]
    found = task.augmentation
    assert vary == (
        found.flip, found.scale, found.rotation, found.rotation_share, found.half_body,
    )  # fmt: skip
    assert found.half_body_joints == 8
    assert (task.loss, task.sigma, task.subpixel, task.decoder) == ("mse", sigma, False, "quarter")
    assert (task.test.flip, task.test.shift) == (flip_test, True)
    assert (task.least_score, task.test.oks_nms) == (0.2, 0.9)
    if study.data.kind == "coco_pose":
        is_face = name == "face_wflw_w18"  # MMPose's boxes are padded by 1.2 already
        assert study.data.box_padding == (1.05 if is_face else 1.25)
        assert bool(study.data.val_boxes) != is_face


def test_the_landmarks_of_wflw_are_mirrored_as_they_lie() -> None:
    """All 98 but those on the middle line have a partner, and the partner has the same one."""
    data = shipped("face_wflw_w18").data
    assert data.kind == "coco_pose"
    joints = data.joints
    paired = [name for pair in joints.flip_pairs for name in pair]
    assert len(joints.names) == 98
    # Chin, bridge and tip of the nose, middle of the lips (outer and inner, above and below).
    middle = {"p16", "p51", "p52", "p53", "p54", "p57", "p79", "p85", "p90", "p94"}
    assert set(joints.names) - set(paired) == middle
    assert len(paired) == len(set(paired)) == 88
    assert joints.normalise_by == ("p60", "p72")
    assert ("p60", "p72") in joints.flip_pairs
    # A mirrored face is joined by the same lines.
    partner = {a: b for pair in joints.flip_pairs for a, b in (pair, pair[::-1])}
    lines = {frozenset(pair) for pair in joints.skeleton}
    mirrored = {frozenset(partner.get(name, name) for name in line) for line in lines}
    assert lines == mirrored


SEVEN = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
# Scales in training; scales, flip, resizing, window in testing; longer side at scale 1 (section 5).
ONE_SCALE = ((0.5, 2.0), (1.0,), False, (), (), 0)
PARSING = ((0.5, 1.6), (1.0,), True, (473, 473), (), 0)
SEGMENTATION_RECIPES: dict[str, tuple[tuple[float, ...], tuple[float, ...], bool, Any, Any, int]]
SEGMENTATION_RECIPES = {
    "cityscapes_w40": ONE_SCALE,
    "cityscapes_w48": ONE_SCALE,
    "cityscapes_fusion_ablation": ONE_SCALE,
    "cityscapes_fusion_operator": ONE_SCALE,
    "cityscapes_resolution": ONE_SCALE,
    "cityscapes_w48_ocr": ONE_SCALE,
    "pascal_context_w48": ((0.5, 2.0), SEVEN, True, (), (480, 480), 520),
    "pascal_context_w48_ocr": ((0.5, 2.0), SEVEN, True, (), (520, 520), 520),
    "lip_w48": PARSING,
    "lip_w48_ocr": PARSING,
}


@pytest.mark.parametrize("name", SEGMENTATION_RECIPES)
def test_the_segmentation_protocol_is_the_papers(name: str) -> None:
    study = shipped(name)
    task, data = study.task, study.data
    assert task.kind == "segmentation"
    assert data.kind in ("segmentation_folder", "segmentation_list")
    vary, test = task.augmentation, task.test
    assert (task.loss, task.coarse_weight, vary.photometric) == ("cross_entropy", 0.4, False)
    train_scale, scales, flip, resize, window, base = SEGMENTATION_RECIPES[name]
    assert (vary.flip, tuple(vary.scale), tuple(vary.resize)) == (0.5, train_scale, resize)
    assert (tuple(test.scales), test.flip, tuple(test.resize)) == (scales, flip, resize)
    assert (tuple(test.window), data.base_length) == (window, base)
    assert test.overlap == pytest.approx(1 / 3)  # official: strides of 2/3 of the crop


# Official lib/datasets/cityscapes.py, `class_weights`, road to bicycle.
CITYSCAPES_WEIGHTS = (
    *(0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
    *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
)


@pytest.mark.parametrize("name", SEGMENTATION_RECIPES)
def test_cityscapes_alone_has_class_weights(name: str) -> None:
    task = shipped(name).task
    assert task.kind == "segmentation"
    expected = CITYSCAPES_WEIGHTS if name.startswith("cityscapes") else ()
    assert tuple(task.class_weights) == expected


def test_sixty_classes_of_pascal_context_are_one_setting_away() -> None:
    for name in ("pascal_context_w48", "pascal_context_w48_ocr"):
        data = shipped(name).data
        more = load_study(FOLDER / f"{name}.yaml", ["data.label_set=pascal_context_60"])
        assert (data.num_outputs, more.num_outputs) == (59, 60)
        assert data.label_map == [255, *range(59)]  # type: ignore[union-attr]
        assert more.data.label_map in ([], list(range(60)))  # type: ignore[union-attr]


# --- First steps, on a few pictures in each data set's own layout --------------------------------

TINY = "{width: 4, num_modules: 1, num_blocks: 1, stage1_blocks: 1, stage1_width: 4, stem_width: 8}"
SHORT = (  # what makes a training short; nothing of the data or the protocol
    *("train.epochs=null", "train.steps=2", "train.batch_size=2", "train.evaluations=1"),
    *("train.processes=1", "train.workers=0"),
)


def picture(file: Path, width: int, height: int, seed: int = 0) -> None:
    """A photograph: random blocks of colour."""
    file.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((width, height)).save(file)


def label_image(file: Path, width: int, height: int, values: list[int]) -> None:
    """A label image: one upright stripe for each value."""
    file.parent.mkdir(parents=True, exist_ok=True)
    row = np.array(values, dtype=np.uint8)[np.arange(width) * len(values) // width]
    Image.fromarray(np.tile(row, (height, 1))).save(file)


def coco_file(file: Path, names: list[str], joints: int, category: dict[str, Any]) -> None:
    """One face or person per image of 96x72, in COCO's format."""
    rng = np.random.default_rng(1)
    places = [rng.uniform((20, 12), (70, 60), (joints, 2)).round(1) for _ in names]
    rows = [np.column_stack([p, np.full(joints, 2)]).flatten().tolist() for p in places]
    keypoints = [{"keypoints": row} for row in rows]
    size = {"width": 96, "height": 72}
    file.parent.mkdir(parents=True, exist_ok=True)
    common = {"category_id": 1, "iscrowd": 0, "num_keypoints": joints, "bbox": [16, 8, 56, 56]}
    content = {
        "images": [{"id": 7 + i, "file_name": name, **size} for i, name in enumerate(names)],
        "annotations": [
            # The second is large by COCO's count, the others are not: AP of both is defined.
            {"id": 100 + i, "image_id": 7 + i, "area": 1e4 if i == 1 else 2e3, **common, **points}
            for i, points in enumerate(keypoints)
        ],
        "categories": [{"supercategory": "person", "id": 1, "skeleton": [], **category}],
    }
    file.write_text(json.dumps(content))


def make_coco(root: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        names = [f"{number:012}.jpg" for number in range(count)]
        for seed, name in enumerate(names):
            picture(root / f"{split}2017" / name, 96, 72, seed)
        file = root / "annotations" / f"person_keypoints_{split}2017.json"
        coco_file(file, names, 17, {"name": "person", "keypoints": list(COCO.names)})
    boxes = [
        {"category_id": 1, "image_id": 7, "bbox": [15.5, 8.1, 57.3, 55.0], "score": 0.98},
        {"category_id": 1, "image_id": 8, "bbox": [10.0, 5.0, 60.0, 60.0], "score": 0.31},
    ]
    folder = root / "person_detection_results"
    folder.mkdir()
    file = folder / "COCO_val2017_detections_AP_H_56_person.json"
    file.write_text(json.dumps(boxes))


def make_wflw(root: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        names = [f"0--Parade/0_Parade_{split}_{number}.jpg" for number in range(count)]
        for seed, name in enumerate(names):
            picture(root / "images" / name, 96, 72, seed)
        file = root / "annotations" / f"face_landmarks_wflw_{split}.json"
        coco_file(file, names, 98, {"name": "face", "keypoints": []})  # so in MMPose's files


def make_mpii(root: Path) -> None:
    rng = np.random.default_rng(2)
    people: dict[str, list[dict[str, Any]]] = {"train": [], "valid": []}
    for number, (split, _) in enumerate((s, i) for s in people for i in range(3)):
        name = f"{number:09}.jpg"
        picture(root / "images" / name, 96, 72, number)
        joints = rng.uniform((20, 12), (70, 60), (16, 2)).round(1).tolist()
        person = {"image": name, "center": [48.0, 36.0], "scale": 0.3, "joints": joints}
        people[split].append({**person, "joints_vis": [1] * 16})
    (root / "annot").mkdir()
    for split, some in people.items():
        (root / "annot" / f"{split}.json").write_text(json.dumps(some))
    valid = np.array([person["joints"] for person in people["valid"]])
    truth = {
        "dataset_joints": np.array([["head", "lsho", "rsho"]], dtype=object),
        "jnt_missing": np.zeros((16, 3)),
        "pos_gt_src": valid.transpose(1, 2, 0) + 1,
        "headboxes_src": np.tile(np.array([[40.0, 10.0], [52.0, 24.0]])[:, :, None], (1, 1, 3)),
    }
    scipy.io.savemat(root / "annot" / "gt_valid.mat", truth)


def make_cityscapes(root: Path) -> None:
    for split, city, count in (("train", "aachen", 3), ("val", "lindau", 2)):
        for number in range(count):
            stem = f"{city}_{number:06}_000019"
            picture(
                root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", 128, 64, number
            )
            fine = root / "gtFine" / split / city
            label_image(fine / f"{stem}_gtFine_labelIds.png", 128, 64, list(range(34)))
            picture(fine / f"{stem}_gtFine_color.png", 128, 64)  # beside it, and not wanted


def make_pascal_context(root: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        lines = []
        for number in range(count):
            image, label = f"JPEGImages/2008_{split}_{number}.jpg", f"2008_{split}_{number}.png"
            picture(root / image, 100 + number, 75, number)
            label = f"SegmentationClassContext/{label}"
            label_image(root / label, 100 + number, 75, list(range(60)))
            lines.append(f"{image} {label}\n")
        (root / f"{split}.lst").write_text("".join(lines))


def make_lip(root: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            stem = f"{split}_{number}_483681"
            picture(root / f"TrainVal_images/{split}_images/{stem}.jpg", 50, 90 + number, number)
            labels = root / f"TrainVal_parsing_annotations/{split}_segmentations/{stem}.png"
            label_image(labels, 50, 90 + number, list(range(20)))


def make_imagenet(root: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for number in range(3):
            synset = f"n0144{number:04}"
            for place in range(count):
                file = root / split / synset / f"{synset}_{split}_{place}.JPEG"
                picture(file, 60 + number, 50, number)


@dataclass(frozen=True)
class Case:
    """A study on a few pictures.

    Args:
        study: Name of the file.
        make: Writes the pictures below a folder, in the data set's layout.
        shrink: Settings that make its images and networks small, and nothing else.
    """

    study: str
    make: Callable[[Path], None]
    shrink: tuple[str, ...]


POSE_SIZE, STEP = "data.input_size=[64, 48]", "train.milestones=[1]"
PASCAL = ("data.crop_size=[64, 64]", "data.base_length=80", "task.test.window=[64, 64]")
LIP_SIZES = (
    *("data.crop_size=[65, 65]", "task.augmentation.resize=[65, 65]"),
    "task.test.resize=[65, 65]",
)
CASES = (
    Case("pose_w32_256x192", make_coco, (POSE_SIZE, STEP)),
    Case("pose_mpii_w32", make_mpii, ("data.input_size=[64, 64]", STEP)),
    Case("face_wflw_w18", make_wflw, ("data.input_size=[64, 64]", STEP)),
    Case("cityscapes_w48", make_cityscapes, ("data.crop_size=[64, 128]",)),
    Case("cityscapes_w48_ocr", make_cityscapes, ("data.crop_size=[64, 128]",)),
    Case("pascal_context_w48", make_pascal_context, PASCAL),
    Case("pascal_context_w48_ocr", make_pascal_context, PASCAL),
    Case("lip_w48", make_lip, LIP_SIZES),
    Case("imagenet_w18_c", make_imagenet, ("data.input_size=[64, 64]", "data.num_classes=3", STEP)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.study)
def test_the_first_steps_train_on_tiny_data_of_the_same_layout(
    tmp_path: Path, case: Case, cache: Path
) -> None:
    case.make(tmp_path / "data")
    (arm,) = (study := shipped(case.study)).space.vary["network"].values()
    small = [*SHORT, *case.shrink, f"space.vary.network.arms.{arm}={TINY}"]
    file = FOLDER / f"{case.study}.yaml"
    study = load_study(file, [f"data.root={tmp_path / 'data'}", *small])
    task = load_task(study, prepare(study, lambda done, total: None))
    net = build(study.network(study.arms()[0]), head=task.head, num_outputs=task.num_outputs)
    init_weights(net, seed=0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    metrics = training.train(
        net,
        task,
        study.train,
        seed=0,
        hardware=training.choose_hardware(study.train),
        report=lambda entry: None,
    )
    assert {f"metrics.{name}" for name in metrics} >= set(study.task.metrics)
    assert all(math.isfinite(value) and value >= 0 for value in metrics.values())
    weights = [name for name in before if name.endswith("weight")]
    changed = [n for n in weights if not torch.equal(before[n], net.state_dict()[n])]
    assert len(changed) > 0.9 * len(weights)


# --- What the documents say ----------------------------------------------------------------------


def examples() -> list[dict[str, Any]]:
    """The YAML examples of docs/own-data.md."""
    text = (ROOT / "docs" / "own-data.md").read_text()
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example["data"]["root"])
def test_the_examples_of_own_data_are_valid(example: dict[str, Any]) -> None:
    rest = {
        "name": "mydata",
        "space": {"vary": {"width": {"choices": [18, 32]}}},
        "train": {"steps": 100, "batch_size": 8, "lr": 1e-3},
    }
    study = Study.model_validate({**rest, **example})
    assert study.task.kind == example["task"]["kind"]


def test_the_examples_show_every_kind_of_data_in_files() -> None:
    kinds = {kind for kinds in DATA_KINDS.values() for kind in kinds}
    in_files = {kind for kind in kinds if not kind.startswith("synthetic")}
    assert {example["data"]["kind"] for example in examples()} == in_files


def fields(model: type[BaseModel]) -> set[str]:
    """Dotted keys of a section, those of the sections inside it too."""
    found = set()
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= {f"{name}.{key}" for key in fields(inner)}
        else:
            found.add(name)
    return found


SECTIONS = {
    "### `task` of kind `pose`": (settings.PoseTask,),
    "### `task` of kind `segmentation`": (settings.SegmentationTask,),
    "### `task` of kind `detection`": (settings.DetectionTask,),
    "### `task` of kind `classification`": (settings.ClassificationTask,),
    "### `data`": (
        *(settings.SyntheticPose, settings.CocoPose, settings.MpiiPose),
        *(settings.SegmentationFolder, settings.SegmentationList, settings.ImageFolders),
        *(settings.SyntheticDetection, settings.CocoDetection, settings.VocDetection),
    ),
    "### `train`": (settings.Train,),
}


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_document_of_studies_lists_every_setting_and_no_other(heading: str) -> None:
    text = (ROOT / "docs" / "studies.md").read_text()
    section = re.split(r"\n##+ ", text.partition(f"{heading}\n")[2])[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    listed = {key for row in rows for key in re.findall(r"`([\w.]+)`", row)}
    keys = set().union(*(fields(model) for model in SECTIONS[heading])) - {"kind"}
    assert listed == keys
