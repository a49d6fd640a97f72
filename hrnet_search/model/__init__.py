"""HRNet in plain PyTorch. This package imports torch and the spec alone; export copies it."""

from .heads import HEADS, Network, build
from .hrnet import HRNet
from .init import init_weights

__all__ = ["HEADS", "HRNet", "Network", "build", "init_weights"]
