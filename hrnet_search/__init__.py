"""Architecture search and ablation studies for HRNet.

    from hrnet_search import hrnet, build
    net = build(hrnet(width=32, within=False), head="v1", num_outputs=17)

Importing this package does not import torch; `build` does.
"""

from typing import Any

from .arch import ArchSpec, StageSpec, hrnet
from .errors import InputError

__all__ = ["ArchSpec", "InputError", "StageSpec", "build", "hrnet"]


def __getattr__(name: str) -> Any:
    if name == "build":
        from .model import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
