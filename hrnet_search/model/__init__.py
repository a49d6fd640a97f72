"""HRNet in plain PyTorch. This package imports torch and the spec alone; export copies it."""

from .hrnet import HRNet
from .init import init_weights
from .network import Network, build

__all__ = ["HRNet", "Network", "build", "init_weights"]
