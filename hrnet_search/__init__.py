"""Architecture search and ablation studies for HRNet.

    from hrnet_search import hrnet, preset, build, cost, profile, load_weights, save_weights
    spec = hrnet(width=32, within=False)            # or preset("w48"), preset("w18-small-v1"), ...
    net = build(spec, head="v1", num_outputs=17)
    cost(spec, head="v1", num_outputs=17, input_size=(256, 192)).macs

Importing this package does not import torch, nor do `hrnet`, `preset` and `cost`; the others do.
"""

from importlib import import_module
from typing import Any

from .arch import ArchSpec, ModuleSpec, StageSpec, hrnet
from .cost import Cost, cost
from .errors import InputError
from .presets import preset

_NEED_TORCH = {  # name -> module
    "build": "model",
    "inherit_weights": "weights",
    "load_weights": "weights",
    "profile": "profiling",
    "save_weights": "weights",
}

__all__ = [
    "ArchSpec",
    "Cost",
    "InputError",
    "ModuleSpec",
    "StageSpec",
    "build",
    "cost",
    "hrnet",
    "inherit_weights",
    "load_weights",
    "preset",
    "profile",
    "save_weights",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _NEED_TORCH:
        return getattr(import_module(f".{_NEED_TORCH[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
