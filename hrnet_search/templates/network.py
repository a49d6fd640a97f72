"""The exported network. Imports torch and the standard library; weights come as safetensors.

A detector needs torchvision as well.
"""

import json
from pathlib import Path
from typing import Any

import torch

from .arch import ArchSpec
from .model import build


def load_network(folder: str | Path, *, weights: bool = True) -> torch.nn.Module:
    """The network of an exported folder, in evaluation mode: a `Network`, or a `Detector` on one.

    Args:
        folder: Where `arch.json` and `weights.safetensors` are.
        weights: False for the bare network, without reading the weights.
    """
    description = json.loads((Path(folder) / "arch.json").read_text())
    spec = ArchSpec.from_dict(description["arch"])
    net = build(spec, head=description["head"], num_outputs=description["num_outputs"])
    if "detector" in description:
        from .detectors import HRPyramid, build_detector
        from .frameworks import DetectorSpec

        net = build_detector(HRPyramid(net), DetectorSpec.from_dict(description["detector"]))
    if weights:
        from safetensors.torch import load_file

        net.load_state_dict(load_file(Path(folder) / "weights.safetensors"))
    return net.eval()


def to_input(picture: Any, about: dict[str, Any]) -> torch.Tensor:
    """A Pillow picture in RGB -> the network's input (1, 3, H, W), normalised.

    Args:
        picture: The picture, or a crop of it.
        about: What `preprocess.json` says.
    """
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    image = pixels.reshape(1, picture.height, picture.width, 3).float()
    image = (image - torch.tensor(about["mean"])) / torch.tensor(about["std"])
    return image.permute(0, 3, 1, 2)
