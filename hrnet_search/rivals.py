"""The networks of others that a study may train beside HRNets: names, titles, tasks.

They are made in `hrnet_search.baselines`, which needs torch; this is what a study file needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RIVAL_KNOB = "rival"  # the one parameter of a trial that trains one


@dataclass(frozen=True)
class Rival:
    """One network of the paper's tables.

    Args:
        key: Its name in study files.
        title: Method and backbone as the paper prints them.
        tasks: Of "pose", "segmentation", "classification", "detection".
    """

    key: str
    title: str
    tasks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """What stands in the place of an `ArchSpec` in records."""
        return {RIVAL_KNOB: self.key}


RIVALS: Mapping[str, Rival] = {
    rival.key: rival
    for rival in (
        Rival("simple_baseline_resnet50", "SimpleBaseline, ResNet-50", ("pose",)),
        Rival("simple_baseline_resnet101", "SimpleBaseline, ResNet-101", ("pose",)),
        Rival("simple_baseline_resnet152", "SimpleBaseline, ResNet-152", ("pose",)),
        Rival("simple_baseline_resnet18_w12", "SimpleBaseline, 12-channel ResNet-18", ("pose",)),
        Rival("hourglass_8", "8-stage Hourglass", ("pose",)),
        Rival("unet_resnet50", "UNet, ResNet-50", ("segmentation",)),
        Rival("unetplusplus_resnet101", "UNet++, ResNet-101", ("segmentation",)),
        Rival("dilated_resnet101", "Dilated-ResNet, D-ResNet-101", ("segmentation",)),
        Rival("deeplabv3_resnet101", "DeepLabv3, D-ResNet-101", ("segmentation",)),
        Rival("deeplabv3plus_xception71", "DeepLabv3+, D-Xception-71", ("segmentation",)),
        Rival("pspnet_resnet101", "PSPNet, D-ResNet-101", ("segmentation",)),
        Rival("resnet38", "ResNet-38", ("classification",)),
        Rival("resnet72", "ResNet-72", ("classification",)),
        Rival("resnet106", "ResNet-106", ("classification",)),
        Rival("resnet50", "ResNet-50", ("classification",)),
        Rival("resnet101", "ResNet-101", ("classification",)),
        Rival("resnet152", "ResNet-152", ("classification",)),
        Rival("resnet50_fpn", "ResNet-50-FPN", ("detection",)),
        Rival("resnet101_fpn", "ResNet-101-FPN", ("detection",)),
        Rival("resnext101_64x4d_fpn", "ResNeXt-101-64x4d-FPN", ("detection",)),
    )
}
