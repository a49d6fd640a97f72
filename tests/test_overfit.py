"""Eight real people and frames are learnt by heart: data, loss, decoding and metric agree.

Slow, and needs real data: `HRNET_SEARCH_DATA=FOLDER pytest -m slow tests/test_overfit.py`.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hrnet_search.model import build, init_weights
from hrnet_search.study import Study
from hrnet_search.tasks import load_task, prepare
from hrnet_search.training import choose_hardware, train

pytestmark = pytest.mark.slow
COUNT = 8
NETWORK = {"width": 16, "num_modules": 1, "num_blocks": 2, "stage1_blocks": 1, "stage1_width": 32}


def final_metrics(content: dict[str, Any], out: Path) -> dict[str, float]:
    """Train the one network of a study and test it."""
    torch.set_num_threads(1)
    study = Study.model_validate(content)
    task = load_task(study, prepare(study, lambda done, total: None))
    spec = study.space.arch(study.arms()[0])
    net = build(spec, head=task.head, num_outputs=task.num_outputs)
    init_weights(net, seed=0)
    return train(
        net,
        task,
        study.train,
        seed=0,
        hardware=choose_hardware(study.train),
        report=lambda entry: print(entry, flush=True),
        folder=out,
    )


def eight_people(coco: Path, folder: Path) -> None:
    """A data set in COCO's layout with the eight best labelled people, to train and to test on."""
    content = json.loads((coco / "annotations" / "person_keypoints_train2017.json").read_text())
    people = [person for person in content["annotations"] if not person["iscrowd"]]
    people.sort(key=lambda person: (person["num_keypoints"], person["area"]), reverse=True)
    content["annotations"] = people[:COUNT]
    shown = {person["image_id"] for person in people[:COUNT]}
    content["images"] = [image for image in content["images"] if image["id"] in shown]
    (folder / "people.json").write_text(json.dumps(content))
    (folder / "images").symlink_to(coco / "train2017")


def test_eight_real_people(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    eight_people(real_data("coco_mini"), tmp_path)
    files = {f"{split}_annotations": "people.json" for split in ("train", "val")}
    files |= {f"{split}_images": "images" for split in ("train", "val")}
    study = {
        "name": "eight_people",
        "task": {
            "kind": "pose",
            # At 128x96 the true joints themselves, at whole pixels of the heatmap and read with
            # the quarter offset, score AP 0.907: too coarse to tell learning from rounding.
            **{"subpixel": True, "decoder": "dark"},
            "augmentation": {"scale": 0, "rotation": 0, "half_body": 0},
        },
        "data": {"kind": "coco_pose", "root": str(tmp_path), "input_size": [128, 96], **files},
        "space": {"base": NETWORK, "vary": {"final": {"choices": [True]}}},
        "train": {
            **{"steps": 150, "batch_size": 8, "lr": 3e-3, "optimizer": "adam"},
            **{"schedule": "cosine", "evaluations": 3},
        },
    }
    metrics = final_metrics(study, tmp_path)
    assert metrics["ap"] > 0.9, metrics
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert len(found) == COUNT


def test_eight_real_frames(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    camvid = real_data("camvid")
    for source, name in (("train", "images"), ("trainannot", "labels")):
        (tmp_path / name).mkdir()
        for file in sorted((camvid / source).iterdir())[::45][:COUNT]:
            shutil.copy(file, tmp_path / name)
    folders = {
        f"{split}_{kind}": kind for split in ("train", "val") for kind in ("images", "labels")
    }
    study = {
        "name": "eight_frames",
        "task": {
            "kind": "segmentation",
            # The frames were shrunk to 240x180; poles and cyclists are thinner than the four
            # pixels of an output there. Enlarged, an output stands for two pixels of the labels.
            "augmentation": {"scale": [1, 1], "resize": [360, 480], "flip": 0},
            "test": {"resize": [360, 480]},
        },
        "data": {
            **{"kind": "segmentation_folder", "root": str(tmp_path), "label_set": "camvid"},
            **{"crop_size": [360, 480], **folders},
        },
        "space": {
            "base": NETWORK | {"task": "pose"},  # BatchNorm momentum 0.1
            "vary": {"final": {"choices": [True]}},
        },
        "train": {
            **{"steps": 400, "batch_size": 4, "lr": 8e-3, "optimizer": "adamw"},
            **{"schedule": "one_cycle", "evaluations": 4},
        },
    }
    metrics = final_metrics(study, tmp_path)
    assert metrics["miou"] > 0.9, metrics
