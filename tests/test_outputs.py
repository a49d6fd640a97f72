"""What outputs mean, against closed forms and the detectors' own choice."""

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder

from hrnet_search.arch import hrnet
from hrnet_search.detectors import HRPyramid, build_detector, init_detector
from hrnet_search.detectors.two_stage import refined
from hrnet_search.frameworks import FRAMEWORKS, DetectorSpec
from hrnet_search.model import build
from hrnet_search.outputs import NamedOutputs

SMALL = {
    "width": 4, "num_stages": 3, "num_modules": 1, "num_blocks": 1, "stage1_blocks": 1,
    "stage1_width": 4, "stem_width": 8,
}  # fmt: skip


class Fixed(nn.Module):
    """Puts out what it was given, whatever the image."""

    def __init__(self, output: Tensor | tuple[Tensor, ...], stride: int = 4) -> None:
        super().__init__()
        self.output, self.body = output, nn.Identity()
        self.body.strides = (stride,)  # type: ignore[assignment]

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.output


@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize("softmax", [False, True])
def test_joints_are_in_pixels_of_the_image(stride: int, softmax: bool) -> None:
    """Two joints: one in a corner, one between two pixels, a quarter towards the higher."""
    maps = torch.zeros(1, 2, 5, 7)
    maps[0, 0, 0, 6] = 3.0
    maps[0, 1, 2, 3], maps[0, 1, 2, 4] = 2.0, 1.0
    about = {"task": "pose", "softmax": softmax, "decoder": "quarter", "sigma": 1.0}
    found = NamedOutputs(Fixed(maps, stride), about)(torch.zeros(1, 3, 5 * stride, 7 * stride))
    shares = [math.exp(3) / (math.exp(3) + 34), math.exp(2) / (math.exp(2) + math.e + 33)]
    heights = shares if softmax else [3.0, 2.0]
    wanted = [[6.0 * stride, 0.0, heights[0]], [3.25 * stride, 2.0 * stride, heights[1]]]
    assert list(found) == ["heatmaps", "joints"]
    torch.testing.assert_close(found["joints"], torch.tensor([wanted]))
    assert torch.equal(found["heatmaps"], maps) != softmax


def test_classes_are_those_of_the_enlarged_final_scores() -> None:
    """Bilinear between a left and a right place: the right class from the middle on."""
    final = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # (1, 2, 1, 2)
    about = {"task": "segmentation", "align_corners": True}
    net = NamedOutputs(Fixed((-final, final)), about)
    found = net(torch.zeros(1, 3, 2, 6))
    assert torch.equal(found["scores"], final)
    assert found["classes"].tolist() == [[[0, 0, 0, 1, 1, 1]] * 2]


def test_probabilities_are_the_softmax() -> None:
    scores = torch.tensor([[0.0, math.log(3.0)]])
    found = NamedOutputs(Fixed(scores), {"task": "classification"})(torch.zeros(1, 3, 8, 8))
    torch.testing.assert_close(found["probabilities"], torch.tensor([[0.25, 0.75]]))
    assert torch.equal(found["scores"], scores)


def detector(framework: str) -> nn.Module:
    spec = DetectorSpec(framework=framework, num_classes=3, channels=16, hidden=32)
    net = build(hrnet(**SMALL), head=spec.pyramid, num_outputs=spec.channels)
    model = build_detector(HRPyramid(net), spec)
    init_detector(model, seed=0)
    with torch.no_grad():
        model.backbone.train()(
            torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        )
    return model.eval()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_batch_of_dense_outputs_is_its_images_one_by_one(framework: str) -> None:
    net = NamedOutputs(detector(framework), {"task": "detection"})
    images = torch.randn(2, 3, 97, 131, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        both, single = net(images), [net(image[None]) for image in images]
    for name, x in both.items():
        alone = torch.cat([one[name] for one in single])
        assert (x - alone).abs().max() <= 1e-5 * (x.max() - x.min())
        assert not torch.equal(x[0], x[1])


def test_proposals_before_the_choice_are_those_that_torchvision_chooses_from() -> None:
    model = detector("faster_rcnn")
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    seen = {}

    def filter_proposals(proposals: Tensor, objectness: Tensor, *_: object) -> tuple[list, list]:
        seen.update(proposals=proposals, objectness=objectness)
        return [proposals[0, :1]], [objectness[:1, 0]]

    rpn = model.rpn
    rpn.filter_proposals = filter_proposals  # type: ignore[union-attr,assignment]
    with torch.inference_mode():
        model(image)
        dense = model.dense(model.backbone(image))  # type: ignore[operator]
    assert torch.equal(dense["proposals"], seen["proposals"])
    assert torch.equal(dense["objectness"].flatten(), seen["objectness"].flatten())


def test_boxes_of_a_batch_are_those_of_torchvisions_coder() -> None:
    generator = torch.Generator().manual_seed(0)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    corners = 10 * torch.rand(7, 2, generator=generator)
    anchors = torch.cat([corners, corners + 5], dim=1)
    deltas = torch.randn(3, 7, 4, generator=generator)
    wanted = torch.stack([coder.decode_single(row, anchors) for row in deltas])
    assert torch.equal(refined(coder, deltas, anchors), wanted)
    assert torch.allclose(refined(coder, torch.zeros(1, 7, 4), anchors)[0], anchors)
