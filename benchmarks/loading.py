"""Does loading keep up with training?

    python benchmarks/loading.py [--data ROOT]

One thread. Each row: milliseconds for one training sample, decoded and transformed as the paper's
recipes do, from decoded images that are kept (`packed`, the default where they fit into
`data.cache_gib`) and from the files; then milliseconds of a whole training step for one sample,
their ratio, and how many loading processes (`train.workers`) keep such a step fed. The images are
made here: JPEGs of 640x480 with one person each, as COCO's, and PNGs of 2048x1024, as Cityscapes'.
With --data they are real: ROOT holds `coco_mini` (COCO's layout) and `camvid` (SegNet's).
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hrnet_search import build
from hrnet_search.joints import COCO
from hrnet_search.model import init_weights
from hrnet_search.study import Study
from hrnet_search.tasks import load_task, prepare
from hrnet_search.tasks.base import Task
from hrnet_search.tasks.cache import CACHE_VARIABLE
from hrnet_search.training import begin, choose_hardware, update

IMAGES = 8  # made for each row
W32 = {"width": 32}
W18 = {"width": 18}


def picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Soft shapes under some grain: about as hard to decode as a photograph."""
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    soft = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.normal(0, 4, soft.shape)
    return Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8))


def make_people(root: Path) -> None:
    """COCO's layout with one person in each image."""
    rng = np.random.default_rng(0)
    for split in ("train2017", "val2017"):
        (root / split).mkdir(parents=True)
        images, people = [], []
        for number in range(1, IMAGES + 1):
            name = f"{number:012d}.jpg"
            picture(rng, 640, 480).save(root / split / name, quality=90)
            images.append({"id": number, "file_name": name, "width": 640, "height": 480})
            joints = np.stack([rng.uniform(200, 400, 17), rng.uniform(100, 400, 17)], 1)
            points = [value for x, y in joints.tolist() for value in (x, y, 2)]
            people.append(
                {
                    "id": number, "image_id": number, "category_id": 1, "iscrowd": 0,
                    "bbox": [190, 90, 220, 320], "area": 40000.0,
                    "keypoints": points, "num_keypoints": 17,
                }
            )  # fmt: skip
        content = {
            "images": images,
            "annotations": people,
            "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.names)}],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(content))


def make_streets(root: Path) -> None:
    """CamVid's layout with images of Cityscapes' size."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for number in range(IMAGES):
            picture(rng, 2048, 1024).save(root / split / f"{number}.png")
            coarse = rng.integers(0, 11, (32, 64), dtype=np.uint8)
            labels = Image.fromarray(coarse).resize((2048, 1024), Image.Resampling.NEAREST)
            labels.save(root / f"{split}annot" / f"{number}.png")


def study(task: dict[str, Any], data: dict[str, Any], network: dict[str, Any], size: int) -> Study:
    return Study.model_validate(
        {
            "name": "loading",
            "task": task,
            "data": data,
            "space": {"base": network, "vary": {"final": {"choices": [False, True]}}},
            "train": {"steps": 100, "batch_size": size, "lr": 1e-4},
        }
    )


def milliseconds(run: Callable[[int], object], *, repeats: int, samples: int) -> float:
    """Median for one sample, after one run that warms up."""
    times = []
    for step in range(repeats + 1):
        start = time.perf_counter()
        run(step)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[1:]) / samples


def loading(made: Study, *, cache_gib: float) -> float:
    """Milliseconds of a sample."""
    data = made.data.model_copy(update={"cache_gib": cache_gib})
    made = made.model_copy(update={"data": data})
    task = load_task(made, prepare(made, lambda done, total: None))
    return milliseconds(
        lambda step: task.batch(step, size=IMAGES, seed=0), repeats=4, samples=IMAGES
    )


def training(made: Study) -> float:
    """Milliseconds of a sample in a training step."""
    task: Task = load_task(made, prepare(made, lambda done, total: None))
    net = build(made.space.arch(made.arms()[-1]), head=task.head, num_outputs=task.num_outputs)
    init_weights(net, seed=0)
    state = begin(net, made.train, choose_hardware(made.train), num_train=task.num_train)
    size = made.train.batch_size
    images, target = task.batch(0, size=size, seed=0)

    def step(_: int) -> float:
        return update(state, task, images, target).item()  # waits for a GPU

    return milliseconds(step, repeats=2, samples=size)


def source_size(folder: Path) -> str:
    """HxW of the first of its images, as sizes stand before it."""
    with Image.open(min(folder.iterdir())) as image:
        return f"{image.height}x{image.width}"


def row(label: str, made: Study) -> None:
    """Print one line."""
    step = training(made)
    packed, files = loading(made, cache_gib=100), loading(made, cache_gib=0)
    cells = [f"{label:48}{step:9.0f}"]
    for cost in (packed, files):
        cells.append(f"{cost:9.1f}{step / cost:8.1f}{math.ceil(cost / step):8d}")
    print("".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of coco_mini and camvid")
    given = parser.parse_args().data
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = f"{folder}/cache"
        root = Path(folder)
        people, streets = (given or root) / "coco_mini", (given or root) / "camvid"
        if given is None:
            make_people(people)
            make_streets(streets)
        device = choose_hardware(study_of_people(people, W32).train)
        print(f"{device.device}, {device.precision}, one thread; ms per sample")
        print(f"{'':48}{'step':>9}{'packed':>9}{'ratio':>8}{'workers':>8}", end="")
        print(f"{'files':>9}{'ratio':>8}{'workers':>8}")
        source = f"of {source_size(people / 'train2017')}"
        row(f"pose 256x192 {source}, HRNet-W32", study_of_people(people, W32))
        source = f"of {source_size(streets / 'train')}"
        row(f"segmentation 512x1024 {source}, HRNetV2-W18", study_of_streets(streets, W18))


def study_of_people(root: Path, network: dict[str, Any]) -> Study:
    data = {"kind": "coco_pose", "root": str(root), "input_size": [256, 192]}
    return study({"kind": "pose"}, data, network, 4)


def study_of_streets(root: Path, network: dict[str, Any]) -> Study:
    data = {
        "kind": "segmentation_folder", "root": str(root), "label_set": "camvid",
        "crop_size": [512, 1024],
    }  # fmt: skip
    return study({"kind": "segmentation"}, data, network, 2)


if __name__ == "__main__":
    main()
