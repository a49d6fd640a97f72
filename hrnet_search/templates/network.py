"""The exported network. Imports torch and the standard library; weights come as safetensors.

A detector needs torchvision as well.
"""

import json
from pathlib import Path
from typing import Any

import torch

from .arch import ArchSpec
from .model import build


def load_network(
    folder: str | Path, *, weights: bool = True, fold: bool = False
) -> torch.nn.Module:
    """The network of an exported folder, in evaluation mode: a `Network`, or a `Detector` on one.

    Args:
        folder: Where `arch.json` and `weights.safetensors` are.
        weights: False for the bare network, without reading the weights.
        fold: With BatchNorm folded into the convolutions: faster, the same outputs but for
            rounding, and not to be trained on.
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
    if fold:
        from .folding import folded

        return folded(net.eval())
    return net.eval()


def load_backbone(
    folder: str | Path, *, weights: bool = True, fold: bool = False
) -> torch.nn.Module:
    """The body alone: images (B, 3, H, W) -> a list of maps, the finest first.

    Its `channels` and `strides` say of each map what it has: those that the head reads, one
    under `v1`, `v1h`, `v1p` and `v1hp`, all under the others.
    Map r is (B, channels[r], ceil(H / strides[r]), ceil(W / strides[r])).

    Args:
        folder: As of `load_network`, and so are the others.
    """
    net = load_network(folder, weights=weights, fold=fold)
    return net.backbone.network.body if hasattr(net, "backbone") else net.body


def named_outputs(folder: str | Path, net: torch.nn.Module) -> torch.nn.Module:
    """The network with outputs by name, decoded: what `model.onnx` and `model.pt2` compute.

    Args:
        folder: Where `preprocess.json` is.
        net: From `load_network`.
    """
    from .outputs import NamedOutputs

    about = json.loads((Path(folder) / "preprocess.json").read_text())
    return NamedOutputs(net, about).eval()


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
