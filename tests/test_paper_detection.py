"""The studies of the paper's detection recipes: their numbers, networks and first steps."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hrnet_search import training
from hrnet_search.blueprint import canonical
from hrnet_search.networks import initialise, network
from hrnet_search.presets import preset
from hrnet_search.settings import DetectionTask
from hrnet_search.study import Study, load_study
from hrnet_search.tasks import load_task, prepare

FOLDER = Path(__file__).parents[1] / "studies" / "paper"
NAMES = sorted(file.stem for file in FOLDER.glob("detection_*.yaml"))
RESNETS = ["resnet50_fpn", "resnet101_fpn"]
ALL = [*RESNETS, "resnext101_64x4d_fpn"]


@dataclass(frozen=True)
class Recipe:
    """What the paper (section 6), or else the frameworks' authors, say of one training.

    Args:
        framework: A key of `FRAMEWORKS`.
        networks: Of the table's HRNet rows.
        rivals: Of its other rows.
        length: Epochs, or steps.
        milestones: In the same unit.
        lr: For batches of 16 images.
    """

    framework: str
    networks: list[str]
    rivals: list[str]
    length: int
    milestones: list[int]
    lr: float = 0.02


WIDE = ["w18", "w32", "w48"]
RECIPES = {
    "faster_rcnn_1x": Recipe("faster_rcnn", WIDE, ALL, 12, [8, 11]),
    "faster_rcnn_2x": Recipe("faster_rcnn", WIDE, ALL, 24, [20, 23]),
    "cascade_rcnn_20e": Recipe("cascade_rcnn", WIDE, ALL, 20, [16, 19]),
    "mask_rcnn_1x": Recipe("mask_rcnn", WIDE[:2], RESNETS, 12, [8, 11]),
    "mask_rcnn_2x": Recipe("mask_rcnn", WIDE[:2], RESNETS, 24, [20, 23]),
    "cascade_mask_rcnn_20e": Recipe("cascade_mask_rcnn", WIDE, ALL, 20, [16, 19]),
    "htc_20e": Recipe("htc", WIDE, ALL, 20, [16, 19]),
    "htc_28e": Recipe("htc", ["w48"], ALL[2:], 28, [24, 27]),
    "fcos_2x": Recipe("fcos", WIDE[:2], RESNETS, 180_000, [120_000, 160_000], 0.01),
    "centernet": Recipe("centernet", ["w48", "w64"], [], 480_000, [450_000], 2.5e-4),
}


def shipped(name: str, *overrides: str) -> Study:
    return load_study(FOLDER / f"{name}.yaml", overrides)


def test_every_study_has_its_row_here() -> None:
    assert sorted(f"detection_{name}" for name in RECIPES) == NAMES


@pytest.mark.parametrize("name", RECIPES)
def test_the_header_says_what_a_user_must_know(name: str) -> None:
    header = (FOLDER / f"detection_{name}.yaml").read_text().partition("\nname:")[0]
    for part in ("# Needs:", "# Takes:", "V100 (", "# Run:", "# Expect:", "GPU"):
        assert part in header, part
    assert f"hrnet-search run studies/paper/detection_{name}.yaml --set data.root=" in header


@pytest.mark.parametrize("name", RECIPES)
def test_networks_and_schedule_are_the_papers(name: str) -> None:
    study, recipe = shipped(f"detection_{name}"), RECIPES[name]
    task, train = study.task, study.train
    assert isinstance(task, DetectionTask)
    assert (task.framework, study.num_outputs, task.channels) == (recipe.framework, 80, 256)
    arms = [study.network(params) for params in study.arms()]
    expected = [canonical(preset(net, task="detection"), task.head).key for net in recipe.networks]
    assert [arm.key for arm in arms] == [*expected, *recipe.rivals]
    assert (train.epochs or train.steps, train.milestones) == (recipe.length, recipe.milestones)
    assert (train.schedule, train.lr, study.seeds) == ("step", recipe.lr, 1)
    two_stage = recipe.framework not in ("fcos", "centernet")
    assert (train.clip_norm, bool(train.warmup)) == (
        35 if two_stage else 0,
        recipe.framework != "centernet",
    )
    if recipe.framework == "centernet":
        assert (train.optimizer, train.batch_size, train.weight_decay) == ("adam", 48, 0)
    else:
        assert (train.optimizer, train.batch_size, train.weight_decay) == ("sgd", 16, 1e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_the_protocol_is_the_papers(name: str) -> None:
    study = shipped(f"detection_{name}")
    task = study.task
    assert isinstance(task, DetectionTask)
    size = [511, 511] if task.framework == "centernet" else [800, 1333]
    assert study.data.image_size == size  # type: ignore[union-attr]
    assert task.augmentation.flip == 0.5
    assert task.test.score == (0.001 if task.framework == "htc" else 0.05)
    assert task.test.nms == (0.6 if task.framework == "fcos" else 0.5)
    assert task.test.detections == 100
    assert (task.anchor_scale, task.anchor_ratios) == (8, [0.5, 1, 2])
    assert (task.rpn_samples, task.roi_samples) == (256, 512)


def test_the_rows_of_several_scales_are_one_setting_away() -> None:
    study = shipped("detection_fcos_2x", "task.augmentation.short_edges=[640, 800]")
    assert study.task.augmentation.short_edges == [640, 800]  # type: ignore[union-attr]


# --- First steps, on a few pictures in COCO's layout ---------------------------------------------

TINY = "{width: 4, num_modules: 1, num_blocks: 1, stage1_blocks: 1, stage1_width: 4, stem_width: 8}"
SHORT = (  # what makes a training short; nothing of the data or the protocol
    *("train.epochs=null", "train.steps=2", "train.batch_size=2", "train.evaluations=1"),
    *("train.processes=1", "train.workers=0", "train.milestones=[1]", "train.warmup=0"),
    *("rivals=[]", "task.channels=16", "data.image_size=[64, 96]", "task.test.score=0"),
)


def make_coco(root: Path) -> None:
    """Three and two pictures of 96x72 with a bright square, numbered as COCO's categories are."""
    for split, count in (("train", 3), ("val", 2)):
        images, annotations = [], []
        for number in range(count):
            name = f"{number:012}.jpg"
            pixels = np.random.default_rng(number).integers(0, 128, (72, 96, 3), dtype=np.uint8)
            pixels[20:60, 30:70] = 255
            (root / f"{split}2017").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / f"{split}2017" / name)
            images.append({"id": 7 + number, "file_name": name, "width": 96, "height": 72})
            outline = [30, 20, 70, 20, 70, 60, 30, 60]
            annotations.append(
                {
                    **{"id": number, "image_id": 7 + number, "category_id": 90},
                    **{"bbox": [30, 20, 40, 40], "area": 1600.0, "iscrowd": 0},
                    "segmentation": [outline],
                }
            )
        numbers = [*range(1, 80), 90]
        categories = [{"id": number, "name": f"thing {number}"} for number in numbers]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    make_coco(root)
    return root


FIRST_STEPS = ("faster_rcnn_1x", "cascade_mask_rcnn_20e", "htc_20e", "fcos_2x", "centernet")


@pytest.mark.parametrize("name", FIRST_STEPS)
def test_the_first_steps_train_on_tiny_data_of_the_same_layout(
    coco: Path, cache: Path, name: str
) -> None:
    arms = f"space.vary.network.arms={{tiny: {TINY}}}"
    lean = ("task.hidden=32", "task.train_proposals=50", "task.test_proposals=20")
    if name in ("fcos_2x", "centernet"):
        lean = ("task.augmentation.short_edges=[64, 96]",)
    study = shipped(f"detection_{name}", f"data.root={coco}", *SHORT, *lean, arms)
    task = load_task(study, prepare(study, lambda done, total: None))
    net = network(study, study.network(study.arms()[0]).to_dict())
    initialise(net, seed=0)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    metrics = training.train(
        net,
        task,
        study.train,
        seed=0,
        hardware=training.choose_hardware(study.train),
        report=lambda entry: None,
    )
    # Of the sizes the square is medium alone.
    wanted = {key for key in study.task.metrics if key[-3:] not in ("aps", "apl")}
    assert {f"metrics.{key}" for key in metrics} == wanted
    assert all(math.isfinite(value) and value >= 0 for value in metrics.values())
    weights = [key for key in before if key.endswith("weight")]
    changed = [key for key in weights if not torch.equal(before[key], net.state_dict()[key])]
    assert len(changed) > 0.9 * len(weights)
