"""The network of a trial: an HRNet with its head, a detector on it, or a network of others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from . import baselines
from .arch import ArchSpec
from .detectors import Detector, build_detector, init_detector
from .detectors.pyramid import HRPyramid, frozen
from .errors import InputError
from .model import Network, build, init_weights
from .rivals import RIVAL_KNOB
from .settings import DetectionTask
from .study import Study
from .weights import load_weights


def network(study: Study, arch: Mapping[str, Any]) -> nn.Module:
    """What a trial of the study trains, not initialised.

    Args:
        study: Decides the head, and what stands on it; without variants.
        arch: `ArchSpec.to_dict` or `Rival.to_dict`.

    Raises:
        InputError: The record breaks a rule, or the task cannot have such a network.
    """
    task = study.task
    if not isinstance(task, DetectionTask):
        return baselines.network(arch, head=task.head, num_outputs=study.num_outputs)
    if RIVAL_KNOB in arch:
        backbone = baselines.rival_pyramid(arch[RIVAL_KNOB], task.head, task.channels)
    else:
        net = build(ArchSpec.from_dict(arch), head=task.head, num_outputs=task.channels)
        backbone = HRPyramid(net, gradient_checkpointing=task.gradient_checkpointing)
    backbone = frozen(backbone, norm_eval=task.norm_eval, stages=task.frozen_stages)
    return build_detector(backbone, task.detector(study.num_outputs))


def initialise(model: nn.Module, *, seed: int, pretrained: str = "") -> None:
    """Weights that depend on the seed and each parameter's name, then those of a checkpoint.

    Args:
        model: From `network`.
        seed: 0 or more.
        pretrained: Checkpoint whose body it starts from, or none.

    Raises:
        InputError: The checkpoint does not fit, or the network is no HRNet.
    """
    if isinstance(model, Detector):
        init_detector(model, seed=seed)
    else:
        init_weights(model, seed=seed)
    if pretrained:
        load_body(model, pretrained)


def load_body(model: nn.Module, file: str | Path) -> None:
    """Take the weights of an HRNet's body from a checkpoint.

    Raises:
        InputError: They do not fit, or the network is no HRNet.
    """
    inner = model.backbone if isinstance(model, Detector) else model
    net = inner.network if isinstance(inner, HRPyramid) else inner
    if not isinstance(net, Network):
        raise InputError("is for HRNets alone", file=file)
    load_weights(net, file, parts="body")
