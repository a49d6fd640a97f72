"""Published networks, and relatives that the paper compares HRNet with, as arguments of `hrnet`."""

from collections.abc import Mapping
from typing import Any

from .arch import ArchSpec, hrnet
from .errors import InputError, nearest_name

_DOWN, _UP = "0>1 1>2 2>3", "3>2 2>1 1>0"
_GRID: dict[str, Any] = {"num_branches": 4, "num_modules": 2}
# Down one branch at a time and up again the same way, each the only one with units; meanwhile
# the branches above wait with their maps, which are joined on the way up.
_SERIAL: dict[str, Any] = {
    "num_stages": 7,
    "num_branches": (2, 3, 4, 4, 4, 4),
    "num_modules": 1,
    "num_blocks": (
        (0, 4),
        (0, 0, 4),
        (0, 0, 0, 4),
        (0, 0, 4, 0),
        (0, 4, 0, 0),
        (4, 0, 0, 0),
    ),
    "edges": ("none", "none", "3>2", "2>1", "1>0", "none"),
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Official classification configurations (README of HRNet-Image-Classification).
    "w18-small-v1": {
        "width": 16,
        "num_modules": (1, 1, 1),
        "num_blocks": 2,
        "stage1_blocks": 1,
        "stage1_width": 32,
    },
    "w18-small-v2": {"width": 18, "num_modules": (1, 3, 2), "num_blocks": 2, "stage1_blocks": 2},
    **{f"w{width}": {"width": width} for width in (18, 30, 32, 40, 44, 48, 64)},
    # Table 15, lower half: bottleneck units. The widths are what the units put out; no
    # configuration was published, these meet the printed #Params and GFLOPs.
    **{f"w{width}-c": {"width": width, "unit": "bottleneck"} for width in (44, 76, 96)},
    # Table 16: the widths of the networks with the other two classification heads.
    **{f"w{width}": {"width": width} for width in (25, 27, 34, 36, 43, 45)},
    # Networks that the paper sets HRNet against (section 2), as points of the same space: their
    # pattern of connections, with HRNet's units and widths.
    "gridnet": _GRID | {"edges": ((_DOWN, _DOWN), (_DOWN, _UP), (_UP, _UP))},
    "multi-scale-densenet": _GRID | {"edges": _DOWN, "fuse": "concat"},
    "neural-fabric": _GRID | {"edges": "neighbours", "width_ratios": (1, 1, 1, 1)},
    "hourglass": _SERIAL,
    "u-net": _SERIAL | {"fuse": "concat"},
}


# What each task's networks are costed with by default: head, outputs, image (H, W).
# Sources: Table 1 (COCO), Table 3 (Cityscapes), Table 15 (ImageNet), Table 7 (COCO, 800x1200
# padded to multiples of 32).
TASK_SETTINGS: Mapping[str, tuple[str, int, tuple[int, int]]] = {
    "pose": ("v1", 17, (256, 192)),
    "segmentation": ("v2", 19, (1024, 2048)),
    "segmentation_ocr": ("ocr", 19, (1024, 2048)),
    "classification": ("cls", 1000, (224, 224)),
    "detection": ("v2p", 256, (800, 1216)),
}


def preset(name: str, *, task: str = "pose") -> ArchSpec:
    """A published network, or a relative of HRNet, by its name in `PRESETS`.

    Args:
        name: Such as "w32", "w18-small-v1", "w44-c" (bottleneck units) or "u-net".
        task: Whose official code's defaults it has, a key of `arch.TASK_DEFAULTS`.

    Raises:
        InputError: There is no such network or task.
    """
    if name not in tuple(PRESETS):
        rule = f"must be one of {', '.join(PRESETS)}"
        raise InputError(rule, key="preset", value=name, nearest=nearest_name(name, PRESETS))
    return hrnet(task=task, **PRESETS[name])
