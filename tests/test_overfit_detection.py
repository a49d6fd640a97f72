"""Every framework learns ten real photographs by heart: data, losses, decoding and metric agree.

Slow, and needs real data:
`HRNET_SEARCH_DATA=FOLDER pytest -s -m slow tests/test_overfit_detection.py -k fcos`.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hrnet_search.detectors.cascade import stage_ious
from hrnet_search.frameworks import FRAMEWORKS
from hrnet_search.networks import initialise, network
from hrnet_search.study import Study
from hrnet_search.tasks import load_task, prepare
from hrnet_search.training import choose_hardware, train

pytestmark = pytest.mark.slow
COUNT, SHORT, LONG = 10, 192, 256
LEAST = 16  # pixels: shorter side of the smallest object, in the image as it is shown
NETWORK = {"width": 16, "num_modules": 1, "num_blocks": 1, "stage1_blocks": 1, "stage1_width": 32}
LEAN = {"hidden": 256, "rpn_samples": 64, "roi_samples": 64}
LEAN |= {"train_proposals": 200, "test_proposals": 100}
# Steps of two images, and the learning rate; one-stage frameworks see all places at every step.
LENGTHS = {
    "faster_rcnn": (500, 1e-3),
    "cascade_rcnn": (500, 1e-3),
    "mask_rcnn": (500, 1e-3),
    "cascade_mask_rcnn": (500, 1e-3),
    "htc": (500, 1e-3),
    "fcos": (600, 1e-3),
    "retinanet": (600, 1e-3),
    "centernet": (800, 1e-3),
}


def ten_images(coco: Path, folder: Path) -> int:
    """COCO's layout with the ten images of most objects, none of which is small; their number."""
    content = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    by_image = defaultdict(list)
    for entry in content["annotations"]:
        by_image[entry["image_id"]].append(entry)

    def smallest(image: dict[str, Any]) -> float:
        sides = sorted((image["height"], image["width"]))
        scale = min(SHORT / sides[0], LONG / sides[1])
        return min(scale * min(entry["bbox"][2:]) for entry in by_image[image["id"]])

    fit = [i for i in content["images"] if by_image[i["id"]] and smallest(i) >= LEAST]
    fit.sort(key=lambda image: (-len(by_image[image["id"]]), image["id"]))
    content["images"] = fit[:COUNT]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [e for e in content["annotations"] if e["image_id"] in kept]
    (folder / "objects.json").write_text(json.dumps(content))
    (folder / "images").symlink_to(coco / "train2017")
    return len(content["annotations"])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ten_real_images(
    real_data: Callable[[str], Path], tmp_path: Path, framework: str, one_thread: None
) -> None:
    objects = ten_images(real_data("coco_mini"), tmp_path)
    assert objects >= 30
    files = {f"{split}_annotations": "objects.json" for split in ("train", "val")}
    files |= {f"{split}_images": "images" for split in ("train", "val")}
    two_stage = framework not in ("fcos", "retinanet", "centernet")
    steps, lr = LENGTHS[framework]
    study = Study.model_validate(
        {
            "name": "ten_images",
            "task": {
                **{"kind": "detection", "framework": framework, "channels": 64},
                **{"augmentation": {"flip": 0}, **(LEAN if two_stage else {})},
            },
            "data": {
                **{"kind": "coco_detection", "root": str(tmp_path), **files},
                "image_size": [SHORT, LONG],
            },
            "space": {"base": NETWORK, "vary": {"final": {"choices": [True]}}},
            "train": {
                **{"steps": steps, "batch_size": 2, "lr": lr, "optimizer": "adamw"},
                **{"schedule": "one_cycle", "evaluations": 4, "clip_norm": 10},
            },
        }
    )
    task = load_task(study, prepare(study, lambda done, total: None))
    net = network(study, study.network(study.arms()[0]).to_dict())
    initialise(net, seed=0)
    metrics = train(
        net,
        task,
        study.train,
        seed=0,
        hardware=choose_hardware(study.train),
        report=lambda entry: print(entry, flush=True),
        folder=tmp_path,
    )
    assert metrics["box_ap50"] > 0.8, metrics
    if framework == "cascade_rcnn":  # each stage refines the boxes of the one before
        inputs, _ = task.batch(0, size=COUNT, seed=0)
        with torch.inference_mode():
            found = stage_ious(net.eval(), *inputs)
        print("mean IoU before stages 1, 2, 3 and after:", found)
        assert found[0] < found[1] < found[2]
    if FRAMEWORKS[framework].masks:
        assert metrics["mask_ap50"] > 0.8, metrics
