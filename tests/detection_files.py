"""Small detection data sets in the files of COCO and of Pascal VOC, made by tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hrnet_search.settings import CocoDetection, VocDetection

HEIGHT, WIDTH = 60, 80
CATEGORIES = {3: "cat", 7: "dog"}  # with gaps, and not from 1, as COCO's
IMAGES = (("a.png", (HEIGHT, WIDTH)), ("b.png", (WIDTH, HEIGHT)))  # one lying, one upright


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    """Its outline as a polygon."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def coco_object(image: int, category: int, box: tuple[float, ...], **more: Any) -> dict[str, Any]:
    """An annotation whose mask fills its box."""
    return {
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": 0,
        "segmentation": [rectangle(*box)],
        **more,
    }


def coco_content() -> dict[str, Any]:
    """Two images, 11 and 12, with three objects in all."""
    objects = [
        coco_object(11, 3, (10, 20, 30, 16)),
        coco_object(11, 7, (48, 4, 20, 40)),
        coco_object(12, 7, (8, 30, 24, 30)),
    ]
    return {
        "images": [
            {"id": number, "file_name": name, "height": size[0], "width": size[1]}
            for number, (name, size) in enumerate(IMAGES, start=11)
        ],
        # Numbers of annotations may be anything, 0 among them.
        "annotations": [{"id": place, **entry} for place, entry in enumerate(objects)],
        "categories": [{"id": key, "name": name} for key, name in reversed(CATEGORIES.items())],
    }


def noise(file: Path, size: tuple[int, int], seed: int = 0) -> None:
    """A picture of (H, W) at that place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, quality=95)


def coco_set(root: Path, train: Any = None, val: Any = None, **more: Any) -> CocoDetection:
    """Settings of a data set that is written below `root`; both splits as `coco_content`."""
    for split, content in (("train", train), ("val", val)):
        content = coco_content() if content is None else content
        root.mkdir(parents=True, exist_ok=True)
        (root / f"{split}.json").write_text(json.dumps(content))
        images = content.get("images", []) if isinstance(content, dict) else []
        for image in images:
            noise(root / split / image["file_name"], (image["height"], image["width"]))
    values = {
        "kind": "coco_detection",
        "root": str(root),
        "train_annotations": "train.json",
        "train_images": "train",
        "val_annotations": "val.json",
        "val_images": "val",
        "num_classes": 2,
        "image_size": [64, 96],
        **more,
    }
    return CocoDetection.model_validate(values)


def voc_object(name: str, corners: tuple[Any, ...], difficult: Any = 0) -> str:
    """An object of an annotation file."""
    box = "".join(
        f"<{key}>{value}</{key}>"
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    # A part of a person has a box of its own, as in VOC's layout annotations.
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    flag = f"<difficult>{difficult}</difficult>"
    return f"<object>{part}<name>{name}</name>{flag}<bndbox>{box}</bndbox></object>"


def voc_xml(*objects: str) -> str:
    """An annotation file of an image that lies."""
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><filename>x</filename>{size}{''.join(objects)}</annotation>"


def voc_set(root: Path, files: dict[str, str] | None = None, **more: Any) -> VocDetection:
    """Settings of a data set with one list for both splits."""
    files = files or {
        "2007_01": voc_xml(voc_object("cat", (11, 21, 40, 36)), voc_object("dog", (1, 1, 80, 60))),
        "2007_02": voc_xml(voc_object("dog", (5, 5, 20, 30), 1), voc_object("cat", (2, 3, 9, 8))),
    }
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / "Annotations" / f"{name}.xml").write_text(text)
        noise(root / "JPEGImages" / f"{name}.jpg", (HEIGHT, WIDTH))
    lines = "".join(f"{name}  1\n" for name in files)
    (root / "ImageSets" / "Main" / "both.txt").write_text(lines)
    values = {
        "kind": "voc_detection",
        "root": str(root),
        "train_set": "both",
        "val_set": "both",
        "class_names": ["cat", "dog"],
        "image_size": [64, 96],
        **more,
    }
    return VocDetection.model_validate(values)
