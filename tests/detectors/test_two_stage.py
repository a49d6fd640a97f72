"""Faster and Mask R-CNN against torchvision's; what all two-stage frameworks have in common."""

import copy
import math
import zlib
from typing import Any

import pytest
import torch
from small_detectors import CLASSES, batch, filled, tiny_arch, tiny_detector, tiny_spec
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList

from hrnet_search.detectors import Detector, HRPyramid, build_detector, init_detector
from hrnet_search.detectors.pyramid import FPN
from hrnet_search.detectors.two_stage import Anchors
from hrnet_search.errors import InputError
from hrnet_search.frameworks import DetectorSpec
from hrnet_search.model import build

TWO_STAGE = ("faster_rcnn", "cascade_rcnn", "mask_rcnn", "cascade_mask_rcnn", "htc")
MASKED = ("mask_rcnn", "cascade_mask_rcnn", "htc")
PROPOSALS = {"loss_objectness", "loss_rpn_box_reg"}
BOX = {"loss_classifier", "loss_box_reg"}


class Untouched(nn.Module):
    """In the place of torchvision's transform: images of the right size as they are."""

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, images: Tensor, targets: Any) -> tuple[ImageList, Any]:
        return ImageList(images, self.sizes), targets

    def postprocess(self, found: Any, *_: object) -> Any:
        return found


PARTS = ("train", "test")


def theirs(framework: str, sizes: list[tuple[int, int]]) -> nn.Module:
    """torchvision's network with few regions, its statistics those of some noise."""
    torch.manual_seed(1)
    make = {"faster_rcnn": detection.fasterrcnn_resnet50_fpn}
    make["mask_rcnn"] = detection.maskrcnn_resnet50_fpn
    lean = {f"rpn_{step}_nms_top_n_{part}": 60 for step in ("pre", "post") for part in PARTS}
    lean |= {"box_batch_size_per_image": 16, "box_detections_per_img": 8}
    lean |= {"rpn_batch_size_per_image": 64}
    model = make[framework](weights=None, weights_backbone=None, num_classes=CLASSES + 1, **lean)
    model.transform = Untouched(sizes)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        model.backbone.train()(torch.randn(2, 3, 128, 128))
    return model


def ours(framework: str, model: nn.Module, *, small: bool = True) -> Detector:
    """The same network with the same weights, in this package."""
    lean = {"train_proposals": 60, "test_proposals": 60, "roi_samples": 16, "detections": 8}
    lean |= {"rpn_samples": 64}
    spec = DetectorSpec(framework=framework, num_classes=CLASSES, **(lean if small else {}))
    detector = build_detector(FPN(copy.deepcopy(model.backbone), (4, 8, 16, 32, 64)), spec)
    state = model.state_dict()
    renamed = {key.replace("backbone.", "backbone.network."): x for key, x in state.items()}
    detector.load_state_dict(renamed)
    return detector


def settings(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The numbers that the proposals' and the regions' modules were made with."""
    found = {}
    for name in ("rpn", "roi_heads"):
        module = model.get_submodule(name)
        parts = [module, module.box_coder, module.proposal_matcher, module.fg_bg_sampler]
        merged = {key: value for part in parts for key, value in vars(part).items()}
        keys = [key for key, value in merged.items() if isinstance(value, (int, float, tuple))]
        found[name] = {key: merged[key] for key in [*keys, *(k for k in merged if "top_n" in k)]}
    return found


def test_defaults_are_torchvisions() -> None:
    with torch.device("meta"):
        model = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
        detector = ours("mask_rcnn", model, small=False)
    assert settings(detector) == settings(model)
    assert settings(detector)["rpn"]["_pre_nms_top_n"] == {"training": 2000, "testing": 1000}
    assert [size for (size,) in detector.rpn.anchor_generator.sizes] == [32, 64, 128, 256, 512]


@pytest.mark.parametrize("framework", ["faster_rcnn", "mask_rcnn"])
def test_losses_and_findings_are_torchvisions(framework: str, one_thread: None) -> None:
    torch.manual_seed(0)
    images, sizes = torch.randn(2, 3, 64, 128), torch.tensor([[64, 128], [50, 100]])
    boxes = torch.tensor([[[10.0, 8, 60, 50], [50, 10, 120, 60]], [[0.0, 0, 80, 45], [0] * 4]])
    labels = torch.tensor([[1, 3], [2, 0]])
    masks = filled(boxes, 64, 128)
    masks = masks if framework == "mask_rcnn" else None
    targets = [
        {"boxes": b[n > 0], "labels": n[n > 0], **({} if masks is None else {"masks": m[n > 0]})}
        for b, n, m in zip(boxes, labels, boxes if masks is None else masks, strict=True)
    ]
    model = theirs(framework, [(64, 128), (50, 100)])
    detector = ours(framework, model)

    results = []
    for net, arguments in (
        (model, (images, targets)),
        (detector, (images, sizes, boxes, labels, masks)),
    ):
        torch.manual_seed(2)
        losses = net.train()(*arguments)
        sum(losses.values()).backward()
        results.append(losses)
    assert results[0].keys() == results[1].keys()
    for name, loss in results[0].items():
        assert results[1][name].item() == pytest.approx(loss.item(), rel=1e-5), name
    first = (model.backbone, detector.backbone.network)
    a, b = (net.body.conv1.weight.grad for net in first)
    assert torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))

    with torch.no_grad():
        expected = model.eval()(images)
        found = detector.eval()(images, sizes)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert torch.equal(one["labels"], other["labels"])
        assert len(one["labels"]) > 0
        for name in one:
            assert torch.allclose(one[name].float(), other[name].float(), rtol=1e-4, atol=1e-3)


def test_anchors_lie_at_the_strides_of_the_backbone_at_any_size() -> None:
    # 160 pixels have 40 places of stride 4 and, pooled, 2 of stride 64; torchvision would say 80.
    anchors = Anchors((4, 64), 8.0, (0.5, 1.0, 2.0))
    maps = [torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 2, 2)]
    (found,) = anchors(ImageList(torch.zeros(1, 3, 160, 160), [(160, 160)]), maps)
    assert found.shape == (3 * (1600 + 4), 4)
    long, short = 8 * 64 * math.sqrt(2), 8 * 64 / math.sqrt(2)
    for offset, (x, y) in enumerate(((0, 0), (64, 0), (0, 64), (64, 64))):
        for shape, (w, h) in enumerate(((long, short), (512, 512), (short, long))):
            expected = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            box = found[3 * (1600 + offset) + shape]
            assert torch.allclose(box, expected, atol=0.5)  # torchvision rounds to whole pixels


def test_regions_are_read_from_the_map_of_their_size() -> None:
    # FPN, eq. 1: level 4 + log2(side / 224), of strides 4 to 32; every map holds its own number.
    detector = tiny_detector("faster_rcnn")
    sides = {56: 0, 111: 0, 112: 1, 224: 2, 447: 2, 448: 3, 1000: 3}
    maps = {
        str(i): torch.full((1, 16, 1024 // 4 // 2**i, 1024 // 4 // 2**i), float(i))
        for i in range(5)
    }
    boxes = torch.tensor([[0.0, 0.0, side, side] for side in sides])
    # The sizes without padding, from which torchvision would guess the strides, say otherwise.
    read = detector.roi_heads.box_roi_pool(maps, [boxes], [(300, 300)])
    assert read.shape == (len(sides), 16, 7, 7)
    assert torch.equal(read[:, 0, 3, 3], torch.tensor([float(i) for i in sides.values()]))


def test_anchors_without_area_are_one_line() -> None:
    with pytest.raises(InputError) as caught:
        tiny_detector("faster_rcnn", anchor_scale=0.01)
    assert str(caught.value) == "anchor_scale: 0.01: makes anchors without area"


def names(framework: str) -> set[str]:
    if framework in ("faster_rcnn", "mask_rcnn"):
        return PROPOSALS | BOX | ({"loss_mask"} if framework == "mask_rcnn" else set())
    each = BOX | ({"loss_mask"} if framework in MASKED else set())
    staged = {f"{name}_{stage}" for name in each for stage in (1, 2, 3)}
    return PROPOSALS | staged | ({"loss_semantic"} if framework == "htc" else set())


@pytest.mark.parametrize("framework", TWO_STAGE)
def test_every_parameter_learns_from_the_losses(framework: str) -> None:
    detector = tiny_detector(framework, rpn_samples=10_000)  # all of them: on every level
    losses = detector(*batch(framework in MASKED))
    assert set(losses) == names(framework)
    assert all(loss.ndim == 0 and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def objects(boxes: list[list[float]], labels: list[int], size: tuple[int, int]) -> Any:
    """One image of that size, padded to 64x96, and its objects, as often as there are images."""
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    where = torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4).repeat(2, 1, 1)
    classes = torch.tensor(labels, dtype=torch.int64).reshape(1, -1).repeat(2, 1)
    return images, torch.tensor([size, size]), where, classes, filled(where, 64, 96)


MANY = [[x, y, x + 6.0, y + 5.0] for x in range(0, 90, 3) for y in range(0, 60, 1)][:1200]
CASES = {
    "no objects": ([], [], (64, 96)),
    "no object but padding": ([[0, 0, 0, 0]], [0], (64, 96)),
    "boxes without area": ([[8, 8, 40, 8], [20, 5, 20, 60], [30, 30, 30, 30]], [1, 2, 3], (64, 96)),
    "one box without area": ([[8, 8, 8, 40], [8, 8, 40, 40]], [1, 2], (64, 96)),
    "over a thousand objects": (MANY, [1 + i % CLASSES for i in range(1200)], (64, 96)),
    "one row": ([[8, 0, 40, 1]], [1], (1, 96)),
    "one column": ([[0, 8, 1, 40]], [1], (64, 1)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("framework", ["mask_rcnn", "htc"])  # all code of the others runs in them
def test_odd_images_have_finite_losses(framework: str, case: str) -> None:
    detector = tiny_detector(framework, semantic=framework == "htc")
    inputs = objects(*CASES[case])
    losses = detector(*inputs)
    assert set(losses) == names(framework)
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    with torch.no_grad():
        for one in detector.eval()(*inputs[:2]):
            assert torch.isfinite(one["boxes"]).all()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_boxes_that_are_no_numbers_are_one_line(wrong: float) -> None:
    with pytest.raises(InputError) as caught:
        tiny_detector("faster_rcnn")(*objects([[8, 8, 40, wrong]], [1], (64, 96))[:4])
    assert str(caught.value) == "boxes: must be finite numbers"


@pytest.mark.parametrize("framework", TWO_STAGE)
def test_what_is_found_is_sorted_and_inside_the_image(framework: str) -> None:
    detector = tiny_detector(framework, score=0.0, detections=15, nms=0.9).eval()
    images, sizes, *_ = batch()
    with torch.no_grad():
        found = detector(images, sizes)
    assert len(found) == 2
    for one, (height, width) in zip(found, sizes.tolist(), strict=True):
        boxes, scores, labels = one["boxes"], one["scores"], one["labels"]
        assert set(one) == {"boxes", "scores", "labels"} | ({"masks"} & set(one))
        assert boxes.shape == (15, 4)
        assert boxes.min() >= 0
        assert boxes[:, 2].max() <= width
        assert boxes[:, 3].max() <= height
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert torch.equal(scores, scores.sort(descending=True).values)
        assert scores.min() > 0
        assert scores.max() <= 1
        assert set(labels.tolist()) <= set(range(1, CLASSES + 1))
        assert ("masks" in one) is (framework in MASKED)
        if framework in MASKED:
            assert one["masks"].shape == (15, 1, 28, 28)
            assert one["masks"].min() >= 0
            assert one["masks"].max() <= 1


def test_nothing_is_found_below_the_least_score() -> None:
    detector = tiny_detector("cascade_mask_rcnn", score=0.99).eval()
    with torch.no_grad():
        found = detector(batch()[0])
    assert [tuple(one["masks"].shape) for one in found] == [(0, 1, 28, 28)] * 2


def test_half_precision_keeps_boxes_and_losses_in_full() -> None:
    detector = tiny_detector("htc", score=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(*batch())
        found = detector.eval()(batch()[0])
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())
    boxes = torch.cat([one["boxes"] for one in found])
    assert boxes.dtype == torch.float32
    assert not torch.equal(boxes, boxes.bfloat16().float())


def started(framework: str, seed: int, **settings: Any) -> dict[str, Tensor]:
    return tiny_detector(framework, seed=seed, **settings).state_dict()


def test_first_weights_depend_on_the_seed_and_each_name() -> None:
    first, again, other = (started("htc", seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    weights = [n for n in first if n.endswith("weight") and first[n].ndim > 1]
    assert not any(torch.equal(first[name], other[name]) for name in weights)
    name = "rpn.head.cls_logits.weight"
    generator = torch.Generator().manual_seed(zlib.crc32(b"0 rpn.head.cls_logits"))
    assert torch.equal(first[name], torch.randn(first[name].shape, generator=generator) * 0.01)
    cascade = started("cascade_rcnn", 0)
    assert set(cascade) < set(first)
    assert all(torch.equal(cascade[name], first[name]) for name in cascade)


def test_first_weights_have_the_sizes_of_the_frameworks_own_code() -> None:
    spec = tiny_spec("htc", channels=32, hidden=128, num_classes=40)
    net = build(tiny_arch(), head=spec.pyramid, num_outputs=spec.channels)
    detector = build_detector(HRPyramid(net), spec)
    init_detector(detector, seed=0)
    deviations = {
        "rpn.head.conv.0.0": 0.01,
        "rpn.head.bbox_pred": 0.01,
        "stages.0.box_head.fc6": math.sqrt(2 / (32 * 49 + 128)),
        "stages.2.box_head.fc7": math.sqrt(2 / 256),
        "stages.1.box_predictor.cls_score": 0.01,
        "stages.1.box_predictor.bbox_pred": 0.001,
        "mask_heads.0.0.0": math.sqrt(2 / (9 * 32)),
        "mask_predictors.0.mask_fcn_logits": 0.001,
        "mask_flows.1.0": math.sqrt(2 / 32),
        "semantic.logits": 0.001,
        "backbone.network.head.fpn_conv.0": math.sqrt(2 / (9 * 32)),
    }
    for name, expected in deviations.items():
        layer = detector.get_submodule(name)
        deviation = layer.weight.detach().std().item()
        slack = 4 / math.sqrt(2 * layer.weight.numel())
        assert deviation == pytest.approx(expected, rel=slack), name
        assert not layer.bias.any(), name


@pytest.mark.parametrize("framework", TWO_STAGE)
def test_counting_runs_every_layer_of_a_test(framework: str) -> None:
    detector = tiny_detector(framework, score=0.0).eval()
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layers = {n: m for n, m in detector.named_modules() if isinstance(m, kinds)}
    seen: dict[str, list[int]] = {}
    for name, layer in layers.items():
        layer.register_forward_hook(
            lambda _, inputs, __, name=name: seen.setdefault(name, []).append(len(inputs[0]))
        )
    with torch.no_grad():
        (found,) = detector(batch()[0][:1])
        tested = copy.deepcopy(seen)
        seen.clear()
        regions = 20  # proposals of a test, see LEAN
        detector.run_layers(batch()[0][:1], regions=regions, masked=len(found["boxes"]))
    assert set(tested) == set(layers)
    unused = {name for name in tested if name.startswith("semantic.")}  # asked for again by masks
    assert {k: sorted(v) for k, v in seen.items() if k not in unused} == {
        k: sorted(v) for k, v in tested.items() if k not in unused
    }
    assert unused <= set(seen)


@pytest.mark.parametrize("pyramid", ["v1p", "v1hp"])
@pytest.mark.parametrize("framework", ["faster_rcnn", "cascade_rcnn"])
def test_a_detector_learns_on_the_pyramid_of_one_map(framework: str, pyramid: str) -> None:
    """Whatever the loss is of, the backbone and the pyramid in front of it get gradients."""
    detector = tiny_detector(framework, pyramid=pyramid)
    assert detector.backbone.strides == (4, 8, 16, 32, 64)
    assert len(detector.backbone.network.body.channels) == 1  # no other map is read
    sum(detector(*batch(masks=False)).values()).backward()
    still = [n for n, p in detector.backbone.named_parameters() if p.grad is None]
    assert still == []


@pytest.mark.parametrize(
    ("framework", "pyramid", "rule"),
    [
        ("faster_rcnn", "v2p_s2", "must be v2p or v1p or v1hp under faster_rcnn"),
        ("fcos", "v1p", "must be v2p_s2 under fcos"),
        ("centernet", "v1hp", "must be v2r under centernet"),
    ],
)
def test_pyramids_that_a_framework_does_not_have(framework: str, pyramid: str, rule: str) -> None:
    with pytest.raises(InputError) as caught:
        tiny_spec(framework, pyramid=pyramid)
    assert str(caught.value) == f"pyramid: {pyramid!r}: {rule}"
