"""Hybrid Task Cascade: mask flow, interleaved execution and the semantic branch all matter."""

import math
from typing import Any

import pytest
import torch
from small_detectors import CLASSES, batch, filled, tiny_detector
from torch import Tensor, nn

from hrnet_search.detectors import cascade
from hrnet_search.detectors.htc import IGNORED, HybridTaskCascade, semantic_target


def htc(**settings: Any) -> HybridTaskCascade:
    """Initialised, but that its masks differ enough to be seen."""
    net = tiny_detector("htc", **{"score": 0.0, "detections": 5, **settings})
    assert isinstance(net, HybridTaskCascade)
    with torch.no_grad():
        for predictor in net.mask_predictors:
            predictor.mask_fcn_logits.weight.mul_(100)
    return net


@torch.no_grad()
def found(net: HybridTaskCascade) -> dict[str, Tensor]:
    images, sizes, *_ = batch()
    return net.eval()(images, sizes)[0]


@torch.no_grad()
def unplug(module: nn.Module) -> None:
    """Convolutions that give 0."""
    for parameter in module.parameters():
        parameter.zero_()


def test_masks_of_later_stages_hang_on_the_earlier_ones() -> None:
    net = htc()
    regions = torch.randn(4, 16, 14, 14)
    with torch.no_grad():
        before = net.masks(regions, [0, 1, 2])
        alone = net.masks(regions, [1])
        net.mask_heads[0][0][0].weight.mul_(1.5)  # changes the first stage's features
        after = net.masks(regions, [0, 1, 2])
        unplug(net.mask_flows)
        apart = [net.masks(regions, [i])[0] for i in range(3)]
        plain = [p(h(regions)) for p, h in zip(net.mask_predictors, net.mask_heads, strict=True)]
    assert torch.equal(alone[0], before[1])
    assert not any(torch.allclose(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(apart, plain, strict=True))
    assert torch.equal(apart[0], after[0])
    assert not torch.allclose(apart[1], after[1])
    assert not torch.allclose(apart[2], after[2])


def test_without_the_mask_flow_masks_differ_and_boxes_do_not() -> None:
    net = htc()
    whole = found(net)
    unplug(net.mask_flows)
    apart = found(net)
    assert torch.equal(whole["boxes"], apart["boxes"])
    assert (whole["masks"] - apart["masks"]).abs().max() > 1e-3


def test_without_the_semantic_branch_boxes_scores_and_masks_differ() -> None:
    net = htc()
    whole = found(net)
    assert net.semantic is not None
    unplug(net.semantic.embedding)
    apart = found(net)
    assert not torch.allclose(whole["scores"], apart["scores"])
    assert not torch.allclose(whole["boxes"], apart["boxes"])
    assert not torch.allclose(whole["masks"], apart["masks"])
    none = htc(semantic=False)
    none.load_state_dict({k: v for k, v in net.state_dict().items() if "semantic" not in k})
    for name, values in found(none).items():
        assert torch.allclose(values, apart[name]), name


def test_the_semantic_branch_reads_every_level() -> None:
    net = htc()
    maps = {str(i): torch.randn(1, 16, 16 >> i, 32 >> i) for i in range(5)}
    assert net.semantic is not None
    with torch.no_grad():
        features, scores = net.semantic(list(maps.values()))
        assert (features.shape, scores.shape) == ((1, 16, 8, 16), (1, CLASSES + 1, 8, 16))
        for name in maps:
            others = {**maps, name: maps[name] + 1}
            assert not torch.allclose(net.semantic(list(others.values()))[0], features)


def test_regions_get_the_semantic_features_of_their_place() -> None:
    net = htc()
    zero = {str(i): torch.zeros(1, 16, 32 >> i, 32 >> i) for i in range(5)}
    columns = torch.arange(16.0).expand(1, 16, 16, 16)  # of stride 8: pixel x has x / 8 - 1 / 2
    boxes = [torch.tensor([[16.0, 16.0, 72.0, 72.0]])]
    for pool, side in ((net.stages[0].box_roi_pool, 7), (net.mask_pool, 14)):
        read = net.pooled(pool, {**zero, "semantic": columns}, boxes, [(128, 128)])
        # roi_align without half a pixel's shift, as torchvision's detectors use it: x / 8
        middle = (16 + 56 * (torch.arange(side) + 0.5) / side) / 8
        assert torch.allclose(read[0, 0, 0], middle, atol=1e-5)


def test_masks_learn_from_boxes_that_the_same_stage_has_refined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shifts = (1.0, 2.0, 2.5)  # to the right and down: all still fit by 0.7
    objects = batch()[2]

    def refine(_: object, index: int, *__: object) -> list[Tensor]:
        return [x + shifts[index] for x in objects]

    seen: list[set[float]] = []

    def loss(_: Tensor, boxes: list[Tensor], *__: object) -> Tensor:
        seen.append({round(x, 3) for x in boxes[0][:, 0].tolist()})
        return torch.zeros(())

    monkeypatch.setattr(HybridTaskCascade, "refine", refine)
    monkeypatch.setattr(cascade, "maskrcnn_loss", loss)
    htc(roi_samples=1000)(*batch())
    lefts = objects[0][:, 0].tolist()
    # The refined boxes and the objects themselves.
    assert seen == [{*lefts, *(x + shift for x in lefts)} for shift in shifts]


def test_semantic_classes_are_those_of_the_smallest_objects() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 32.0, 24.0]]])
    target = {"labels": torch.tensor([3, 1]), "masks": filled(boxes, 32, 48)[0]}
    like = torch.zeros(1, CLASSES + 1, 4, 6)
    for order in ([0, 1], [1, 0]):
        turned = {name: values[order] for name, values in target.items()}
        i = IGNORED
        assert semantic_target(turned, (25, 40), 8, like).tolist() == [
            [3, 3, 1, 1, 0, i],
            [3, 3, 1, 1, 0, i],
            [1, 1, 1, 1, 0, i],
            [i] * 6,  # its middle is row 28, and the image has 25
        ]


def test_no_objects_are_all_background() -> None:
    target = {
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 17, 24, dtype=torch.uint8),
    }
    like = torch.zeros(1, CLASSES + 1, 3, 3)  # more places than the image's rows have
    assert semantic_target(target, (17, 24), 8, like).tolist() == [[0, 0, 0]] * 3


def test_the_semantic_loss_is_of_places_inside_the_image() -> None:
    # Scores that know nothing: ln of the number of classes, times 0.2.
    net = htc()
    assert net.semantic is not None
    unplug(net.semantic.logits)
    assert net(*batch())["loss_semantic"].item() == pytest.approx(0.2 * math.log(CLASSES + 1))
    # Scores that are sure of background, in images without objects: nothing, whatever is outside.
    with torch.no_grad():
        net.semantic.logits.bias[0] = 50.0
    images, sizes, boxes, labels, masks = batch()
    losses = net(images, sizes, boxes, labels * 0, masks)
    assert losses["loss_semantic"].item() == pytest.approx(0, abs=1e-6)


def test_the_semantic_branch_may_be_left_out() -> None:
    net = htc(semantic=False)
    assert "loss_semantic" not in net(*batch())
    assert not any("semantic" in name for name in net.state_dict())
