"""Cascade R-CNN: what each stage learns from, how its losses weigh, and what a test puts out."""

import math
from typing import Any

import pytest
import torch
from small_detectors import CLASSES, batch, filled, tiny_detector
from torch import Tensor
from torch.nn import functional as F

from hrnet_search.detectors import cascade
from hrnet_search.detectors.cascade import CascadeRCNN, Samples, box_losses, stage_ious

OBJECT = [0.0, 0.0, 100.0, 100.0]
# As high as it is wide: overlaps of 0.45, 0.55, 0.65 and 0.75 with the object.
SHARES = (0.45, 0.55, 0.65, 0.75)
PROPOSALS = torch.tensor([[0.0, 0.0, 100.0, 100.0 * share] for share in SHARES])


def detector(framework: str = "cascade_rcnn", **settings: Any) -> CascadeRCNN:
    net = tiny_detector(framework, **{"roi_samples": 100, **settings})
    assert isinstance(net, CascadeRCNN)
    return net


def target() -> dict[str, Tensor]:
    boxes = torch.tensor([OBJECT])
    return {
        "boxes": boxes,
        "labels": torch.tensor([2]),
        "masks": filled(boxes[None], 128, 128)[0],
    }


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_stage_learns_from_boxes_that_fit_better(index: int) -> None:
    # All positives are taken as long as they are a quarter of the samples at most.
    samples = detector().sample(index, [PROPOSALS], [target()])
    labels = dict(zip(samples.boxes[0][:, 3].tolist(), samples.labels[0].tolist(), strict=True))
    least = (0.5, 0.6, 0.7)[index]
    expected = {round(100 * share): 2 * (share >= least) for share in SHARES} | {100: 2}
    assert labels == expected
    assert samples.objects[0].tolist() == [0] * 5


@pytest.mark.parametrize("index", [0, 1, 2])
def test_refinements_are_sharper_with_each_stage(index: int) -> None:
    # From (0, 0, 100, 75) to the object: centre 12.5 / 75 lower, 4 / 3 as high (Girshick et al.).
    samples = detector().sample(index, [PROPOSALS[3:]], [target()])
    (row,) = (samples.boxes[0][:, 3] == 75).nonzero()[0].tolist()
    times = (1, 2, 3)[index]
    expected = [0, 10 * times * 12.5 / 75, 0, 5 * times * math.log(4 / 3)]
    assert samples.refinements[0][row].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_stage_moves_boxes_to_what_it_learnt_and_into_the_image(index: int) -> None:
    net = detector()
    samples = net.sample(index, [PROPOSALS], [target()])
    (whole,) = net.refine(index, samples.refinements[0], samples.boxes, [(128, 128)])
    assert torch.allclose(whole, torch.tensor(OBJECT).expand_as(whole), atol=1e-3)
    (cut,) = net.refine(index, samples.refinements[0], samples.boxes, [(60, 128)])
    assert torch.allclose(cut, torch.tensor([0.0, 0, 100, 60]).expand_as(cut), atol=1e-3)


def test_losses_of_a_stage_in_closed_form() -> None:
    # Equal scores: ln of the number of classes. Off by 0.5: 0.5**2 / 2 per number; by 3: 3 - 1/2.
    # All is per sample, objects or not; the box of a sample that is no object counts nothing.
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    wanted = [torch.randn(2, 4), torch.randn(1, 4)]
    none = [torch.zeros(2, 4), torch.zeros(1, 4)]
    apart = torch.tensor([[9.0] * 4, [0.5] * 4, [3.0] * 4])
    found = box_losses(
        torch.zeros(3, CLASSES + 1),
        torch.cat(wanted) + apart,
        Samples(none, labels, labels, wanted),
    )
    assert float(found["loss_classifier"]) == pytest.approx(math.log(CLASSES + 1))
    assert float(found["loss_box_reg"]) == pytest.approx((4 * 0.125 + 4 * 2.5) / 3)


def test_no_samples_at_all_cost_nothing() -> None:
    empty, none = [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)]
    found = box_losses(
        torch.zeros(0, CLASSES + 1), torch.zeros(0, 4), Samples(empty, none, none, empty)
    )
    assert {name: float(loss) for name, loss in found.items()} == {
        "loss_classifier": 0,
        "loss_box_reg": 0,
    }


def test_later_stages_weigh_less(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"loss_classifier": torch.ones(()), "loss_box_reg": torch.full((), 2.0)}
    monkeypatch.setattr(cascade, "box_losses", lambda *_: dict(one))
    monkeypatch.setattr(cascade, "maskrcnn_loss", lambda *_: torch.full((), 3.0))
    losses = detector("cascade_mask_rcnn")(*batch())
    for stage, weight in ((1, 1.0), (2, 0.5), (3, 0.25)):
        assert losses[f"loss_classifier_{stage}"].item() == weight
        assert losses[f"loss_box_reg_{stage}"].item() == 2 * weight
        assert losses[f"loss_mask_{stage}"].item() == 3 * weight


def test_stage_one_is_a_faster_rcnn_with_one_box_for_all_classes() -> None:
    # The same samples, regions and layers; written out from the parts of one network.
    net = detector()
    maps = {name: x.detach() for name, x in net.backbone(batch()[0]).items()}
    targets = [target(), target()]
    proposals, sizes = [PROPOSALS, PROPOSALS], [(64, 96), (64, 96)]
    torch.manual_seed(0)
    losses = net.region_losses(maps, proposals, sizes, targets)
    torch.manual_seed(0)
    head = net.stages[0]
    boxes, _, labels, wanted = head.select_training_samples(list(proposals), targets)
    features = head.box_head(head.box_roi_pool(maps, boxes, sizes))
    scores, deltas = head.box_predictor(features)
    classes, refinements = torch.cat(labels), torch.cat(wanted)
    apart = F.smooth_l1_loss(deltas, refinements, reduction="none").sum(1)[classes > 0].sum()
    expected = F.cross_entropy(scores, classes)
    assert losses["loss_classifier_1"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert losses["loss_box_reg_1"].item() == pytest.approx(apart.item() / len(classes), rel=1e-6)


@torch.no_grad()
def constant(net: CascadeRCNN, scores: list[list[float]], deltas: list[list[float]]) -> None:
    """Make every stage put out the same for all regions."""
    for stage, bias, moves in zip(net.stages, scores, deltas, strict=True):
        predictor = stage.box_predictor
        for layer, values in ((predictor.cls_score, bias), (predictor.bbox_pred, moves)):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor(values))


STILL = [[0.0] * 4] * 3


def test_a_test_takes_the_mean_of_all_stages_and_the_boxes_of_the_last() -> None:
    # Odds of class 2 to each of the three others: 1, 2 and 5 to 1 in stages 1, 2 and 3.
    net = detector(score=0.3, nms=1.0).eval()
    odds = (1, 2, 5)
    scores = [[0.0, 0.0, math.log(odd), 0.0] for odd in odds]
    # 10, 20 and 30 times the width to the right: stages move boxes by 0.1, 0.1 and 0.2 widths.
    moves = [[1.0, 0, 0, 0], [2.0, 0, 0, 0], [6.0, 0, 0, 0]]
    constant(net, scores, moves)
    with torch.no_grad():
        maps = net.backbone(batch()[0][:1])
        (found,) = net.find_in(maps, [torch.tensor([[10.0, 20.0, 30.0, 50.0]])], [(64, 96)])
    assert found["labels"].tolist() == [2]
    mean = sum(odd / (odd + 3) for odd in odds) / 3
    assert found["scores"].tolist() == pytest.approx([mean])
    assert found["boxes"][0].tolist() == pytest.approx([18.0, 20.0, 38.0, 50.0])


def test_masks_of_a_test_are_the_mean_of_all_stages() -> None:
    net = detector("cascade_mask_rcnn", score=0.3).eval()
    constant(net, [[0.0, 0.0, 2.0, 0.0]] * 3, STILL)
    with torch.no_grad():
        for predictor, odds in zip(net.mask_predictors, (1, 3, 9), strict=True):
            predictor.mask_fcn_logits.weight.zero_()
            predictor.mask_fcn_logits.bias.copy_(torch.tensor([5.0, 5, math.log(odds), 5]))
        maps = net.backbone(batch()[0][:1])
        (found,) = net.find_in(maps, [torch.tensor([[10.0, 20.0, 30.0, 50.0]])], [(64, 96)])
    assert found["labels"].tolist() == [2]
    mean = (1 / 2 + 3 / 4 + 9 / 10) / 3
    assert torch.allclose(found["masks"], torch.full((1, 1, 28, 28), mean))


def test_what_enters_each_stage_is_compared_with_the_nearest_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of overlaps of 0.45 to 0.75 with the object, and none with another image's, the mean of
    # those from 0.5 on is 0.65. Stage 2 makes boxes 100 / 65 as high about their centres, and
    # cuts what is above the image: 55 becomes (55 + 84.6) / 2 high.
    net = detector().eval()
    grow = math.log(100 / 65) * 5 * 2
    constant(net, [[0.0] * 4] * 3, [[0.0] * 4, [0, 0, 0, grow], [0.0] * 4])
    monkeypatch.setattr(net.rpn, "forward", lambda *_: ([PROPOSALS, PROPOSALS], {}))
    images, sizes = torch.randn(2, 3, 128, 128), torch.full((2, 2), 128)
    boxes = torch.tensor([[OBJECT], [[0.0, 0.0, 0.0, 0.0]]])
    after = [50 * share + 50 * share / 0.65 for share in SHARES[1:]]  # height, cut at the top
    grown = sum(min(h, 100) / max(h, 100) for h in after) / 3
    expected = [0.65, 0.65, grown, grown]
    found = stage_ious(net, images, sizes, boxes, torch.tensor([[1], [0]]))
    assert found == pytest.approx(expected, abs=1e-5)
