"""Costs of detectors, against numbers worked out by hand and the paper's."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hrnet_search.arch import hrnet
from hrnet_search.cost import cost
from hrnet_search.detectors import Detector, HRPyramid, build_detector
from hrnet_search.frameworks import FRAMEWORKS, DetectorSpec
from hrnet_search.model import build
from hrnet_search.profiling.detectors import (
    GivenMaps,
    detector_cost,
    layer_macs,
    pyramid_cost,
)

TINY: dict[str, Any] = {
    **{"width": 4, "num_stages": 2, "num_modules": 1, "num_blocks": 1},
    **{"stage1_blocks": 1, "stage1_width": 4, "stem_width": 8},
}
SPEC = hrnet(task="detection", **TINY)
CHANNELS, HIDDEN, CLASSES, RATIOS = 16, 32, 5, 2
SIZE = (64, 96)


def detector(framework: str, head: str = "v2p") -> Detector:
    spec = DetectorSpec(
        framework=framework,
        num_classes=CLASSES,
        channels=CHANNELS,
        hidden=HIDDEN,
        anchor_ratios=(0.5, 2.0),
    )
    with torch.device("meta"):
        return build_detector(HRPyramid(build(SPEC, head=head, num_outputs=CHANNELS)), spec)


def backbone() -> Any:
    return cost(SPEC, head="v2p", num_outputs=CHANNELS, input_size=SIZE)


def test_faster_rcnn_costs_what_its_layers_do() -> None:
    """3x3 and two 1x1 convolutions at every place; two layers and two outputs per region."""
    places = sum((64 // s) * (96 // s) for s in (4, 8, 16, 32)) + 1  # the fifth map is pooled to 1
    outputs = RATIOS + 4 * RATIOS
    region = 7 * 7 * CHANNELS * HIDDEN + HIDDEN * HIDDEN + HIDDEN * (CLASSES + 1) * 5
    macs = backbone().macs + places * CHANNELS * (9 * CHANNELS + outputs) + 11 * region
    params = backbone().params + 9 * CHANNELS**2 + CHANNELS + (CHANNELS + 1) * outputs
    params += (49 * CHANNELS + 1) * HIDDEN + (HIDDEN + 1) * HIDDEN
    params += (HIDDEN + 1) * (CLASSES + 1) * 5
    assert detector_cost(detector("faster_rcnn"), SIZE, regions=11, masked=3) == (params, macs)


@pytest.mark.parametrize("at_output", [False, True])
def test_mask_rcnn_adds_five_convolutions_at_each_masked_region(at_output: bool) -> None:
    """The transposed one makes 28x28 of 14x14 places: four times as many."""
    counts = [
        sum(layer_macs(detector(f), SIZE, regions=2, masked=3, at_output=at_output).values())
        for f in ("faster_rcnn", "mask_rcnn")
    ]
    square = CHANNELS**2
    grown = 4 * square * 14 * 14 * (4 if at_output else 1)
    each = 4 * 9 * square * 14 * 14 + grown + CHANNELS * (CLASSES + 1) * 28 * 28
    assert counts[1] - counts[0] == 3 * each


def test_a_cascade_looks_at_the_regions_three_times() -> None:
    found = layer_macs(detector("cascade_rcnn"), SIZE, regions=7, masked=0)
    first = 7 * 7 * CHANNELS * HIDDEN
    assert [n for name, n in found.items() if name.endswith("fc6")] == [7 * first] * 3


def test_one_stage_frameworks_have_no_regions() -> None:
    few, many = (
        detector_cost(detector("fcos", "v2p_s2"), (128, 128), regions=n, masked=n) for n in (1, 99)
    )
    assert few == many


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_layers_add_up_to_what_torch_counts(framework: str) -> None:
    net = detector(framework, FRAMEWORKS[framework].pyramids[0]).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        images = torch.empty(1, 3, 128, 96, device="meta")
        net.run_layers(images, regions=7, masked=3)
    assert detector_cost(net, (128, 96), regions=7, masked=3)[1] == counter.get_total_flops() // 2


@pytest.mark.parametrize("framework", ["htc", "fcos"])
def test_a_pyramid_and_what_stands_on_it_add_up(framework: str) -> None:
    whole = detector(framework, FRAMEWORKS[framework].pyramids[0])
    pyramid = whole.backbone
    assert isinstance(pyramid, HRPyramid)
    size = (96, 160)  # no multiple of the largest stride
    macs, maps = pyramid_cost(pyramid, size)
    with torch.device("meta"):
        above = build_detector(GivenMaps(maps, pyramid.strides, CHANNELS), whole.spec)
    params, more = detector_cost(above, (1, 1), regions=7, masked=3)
    params += sum(p.numel() for p in pyramid.parameters())
    assert detector_cost(whole, size, regions=7, masked=3) == (params, macs + more)
