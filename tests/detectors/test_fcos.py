"""FCOS against torchvision's; its targets by hand; what its two options change."""

import math
from typing import Any

import pytest
import torch
from one_stage import Untouched, check_found, check_losses, step, stirred
from small_detectors import CLASSES, batch, tiny_detector
from torch import Tensor
from torchvision.models import detection

from hrnet_search.detectors import fcos
from hrnet_search.detectors.fcos import FCOS, Places

LATER = {"norm_on_bbox": True, "centerness_on_box": True}


def small(**settings: Any) -> FCOS:
    net = tiny_detector("fcos", **settings)
    assert isinstance(net, FCOS)
    return net


def twins() -> tuple[FCOS, detection.FCOS]:
    """Ours and torchvision's with the same weights."""
    net = small(channels=256, detections=30, nms=0.6, **LATER)
    stirred(net.head)
    theirs = detection.FCOS(
        net.backbone, CLASSES, score_thresh=0.05, nms_thresh=0.6, detections_per_img=30
    )
    theirs.transform = Untouched()
    # The paper's places are in the middle of a stride, torchvision's at its corner.
    squares = [torch.tensor([[0.0, 0.0, s, s]]) for s in net.backbone.strides]
    theirs.anchor_generator.cell_anchors = squares
    missing, extra = theirs.head.load_state_dict(net.head.state_dict(), strict=False)
    assert (missing, extra) == ([], ["scales"])
    return net, theirs


def test_losses_are_torchvisions() -> None:
    check_losses(*twins())


def test_finds_what_torchvision_finds() -> None:
    check_found(*twins())


def test_places_lie_in_the_middle_of_their_strides_even_where_sides_are_no_multiples() -> None:
    # 800x1216, the paper's: 6x10 places of stride 128, which reach to 832 and 1344 pixels.
    places = fcos.places_of([torch.zeros(1, 1, 100, 152), torch.zeros(1, 1, 6, 10)], [8, 128])
    assert places.points[:2].tolist() == [[4, 4], [12, 4]]
    assert places.points[15200:15202].tolist() == [[64, 64], [192, 64]]
    assert places.points[-1].tolist() == [64 + 9 * 128, 64 + 5 * 128]
    assert places.strides[[0, -1], 0].tolist() == [8, 128]


def test_each_level_answers_for_objects_of_its_size() -> None:
    maps = [torch.zeros(1, 1, 1, 1)] * 5
    places = fcos.places_of(maps, (8, 16, 32, 64, 128))
    assert places.nearest[:, 0].tolist() == [0, 64, 128, 256, 512]  # section 3.2
    assert places.farthest[:, 0].tolist() == [64, 128, 256, 512, math.inf]


def grid() -> Places:
    """4x4 places of stride 8, at 4, 12, 20 and 28 pixels, for objects of any size."""
    return fcos.places_of([torch.zeros(1, 1, 4, 4)], [8])


def learnt(*boxes: tuple[float, float, float, float]) -> list[list[int]]:
    return fcos.assign(grid(), torch.tensor(boxes).view(-1, 4)).view(4, 4).tolist()


def test_places_near_the_centre_learn_an_object() -> None:
    # Within 1.5 strides, 12 pixels, of (16, 16); 4 and 28 are 12 away, which is not within.
    middle = [-1, 0, 0, -1]
    assert learnt((0, 0, 32, 32)) == [[-1] * 4, middle, middle, [-1] * 4]


def test_places_outside_a_box_do_not_learn_it() -> None:
    # (12, 12) is the only place inside; (4, 4) is near enough.
    assert learnt((6, 6, 16, 16)) == [[-1] * 4, [-1, 0, -1, -1], [-1] * 4, [-1] * 4]
    assert learnt() == [[-1] * 4] * 4
    assert learnt((13, 13, 13, 19)) == [[-1] * 4] * 4


def test_the_smallest_of_several_objects_is_learnt() -> None:
    middle = [[-1] * 4, [-1, 1, 0, -1], [-1, 0, 0, -1], [-1] * 4]
    assert learnt((0, 0, 32, 32), (8, 8, 16, 16)) == middle


def test_objects_of_another_size_are_not_learnt() -> None:
    # From (12, 12) the farthest side of the box is 20 pixels away.
    for nearest, farthest, expected in ((20, 20, 0), (20.1, 99, -1), (0, 19.9, -1)):
        size = torch.tensor([[float(nearest)]]), torch.tensor([[float(farthest)]])
        places = Places(torch.tensor([[12.0, 12.0]]), torch.tensor([[8.0]]), *size)
        assert fcos.assign(places, torch.tensor([[0.0, 0.0, 32.0, 32.0]])).tolist() == [expected]


def test_centreness_is_one_in_the_centre_and_falls_to_the_sides() -> None:
    distances = torch.tensor([[5.0, 7, 5, 7], [1, 2, 3, 2], [1, 1, 4, 9]])
    expected = [1, math.sqrt(1 / 3), math.sqrt(1 / 4 * 1 / 9)]
    assert fcos.centerness_of(distances).tolist() == pytest.approx(expected)


def test_the_box_loss_is_the_logarithm_of_the_overlap() -> None:
    found = torch.tensor([[1.0, 1, 1, 1], [2, 3, 4, 5], [1, 5, 1, 1]])
    wanted = torch.tensor([[2.0, 2, 2, 2], [2, 3, 4, 5], [3, 1, 1, 1]])
    # Areas 4 in 16; equal; 2x6 and 4x2 with 2x2 in common: 16. One pixel is added to both.
    expected = [-math.log(5 / 17), 0, -math.log(5 / 17)]
    assert fcos.log_iou_loss(found, wanted).tolist() == pytest.approx(expected)


@torch.no_grad()
def answering(net: FCOS, bias: float) -> None:
    """The boxes' layer puts out the same everywhere."""
    layer = net.head.regression_head.bbox_reg
    layer.weight.zero_()
    layer.bias.fill_(bias)


def test_the_originals_box_loss_is_weighted_by_centreness() -> None:
    net = small()
    answering(net, math.log(10.0))
    images, sizes, *_ = batch(masks=False)
    boxes, labels = torch.tensor([[[8.0, 8, 36, 32]]] * 2), torch.tensor([[1], [0]])
    loss = net(images, sizes, boxes, labels)["bbox_regression"]
    total, weights = 0.0, 0.0
    for x in (12, 20, 28):  # within 12 pixels of (22, 20), at stride 8
        for y in (12, 20, 28):
            left, top, right, bottom = x - 8, y - 8, 36 - x, 32 - y
            sides = [left, right], [top, bottom]
            weight = math.sqrt(math.prod(min(side) / max(side) for side in sides))
            common = math.prod(min(10, a) + min(10, b) for a, b in sides)
            union = 20 * 20 + 28 * 24 - common
            total -= weight * math.log((common + 1) / (union + 1))
            weights += weight
    assert loss.item() == pytest.approx(total / weights, rel=1e-5)


@pytest.mark.parametrize("norm_on_bbox", [False, True])
def test_distances_are_exponentials_or_strides(norm_on_bbox: bool) -> None:
    net = small(norm_on_bbox=norm_on_bbox)
    answering(net, 1.5)
    with torch.no_grad():
        net.head.scales.copy_(torch.tensor([1.0, 2, 1, 1, -1]))
        answers = net.head([torch.zeros(1, 16, 1, 1)] * 5)
    factors = (1.5, 3.0, 1.5, 1.5, -1.5)
    expected = [math.exp(raw) for raw in factors]
    if norm_on_bbox:
        expected = [8 * 1.5, 16 * 3.0, 32 * 1.5, 64 * 1.5, 0]
    assert answers.distances[0, :, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("on_box", [False, True])
def test_centreness_is_read_from_the_tower_that_is_asked_for(on_box: bool) -> None:
    head = small(centerness_on_box=on_box).head
    head([torch.randn(2, 16, 4, 4)] * 5).centerness.sum().backward()
    grads = [
        tower.conv[0].weight.grad is not None
        for tower in (head.classification_head, head.regression_head)
    ]
    assert grads == [not on_box, on_box]


def test_scores_hold_the_class_and_the_centreness() -> None:
    net = small(score=0.01)
    with torch.no_grad():
        net(*batch(masks=False))
        for layer, bias in (
            (net.head.classification_head.cls_logits, 0.0),
            (net.head.regression_head.bbox_ctrness, math.log(1 / 3)),
        ):
            layer.weight.zero_()
            layer.bias.fill_(bias)
        found = net.eval()(batch()[0])[0]
    expected = math.sqrt(0.5 * 0.25)
    assert found["scores"].tolist() == pytest.approx([expected] * len(found["scores"]))


def test_large_answers_stay_finite() -> None:
    net = small()
    answering(net, 1e4)
    losses = net(*batch(masks=False))
    assert all(torch.isfinite(value) for value in losses.values())


def test_factors_of_the_levels_learn() -> None:
    net = small()
    step(net)
    grad: Tensor | None = net.head.scales.grad
    assert grad is not None
    assert grad[0] != 0
