"""RetinaNet against torchvision's, and where its anchors are."""

from functools import partial

import pytest
import torch
from one_stage import Untouched, check_found, check_losses, stirred
from small_detectors import CLASSES, tiny_detector
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead

from hrnet_search.detectors.retinanet import OctaveAnchors, RetinaNet


def twins() -> tuple[RetinaNet, detection.RetinaNet]:
    """Ours and torchvision's with the same weights and torchvision's own anchors."""
    net = tiny_detector("retinanet", channels=32, detections=30)
    assert isinstance(net, RetinaNet)
    stirred(net.head)
    norm = partial(nn.GroupNorm, 4)  # of eight channels each
    head = RetinaNetHead(32, 9, CLASSES, norm_layer=norm)
    theirs = detection.RetinaNet(net.backbone, CLASSES, head=head, detections_per_img=30)
    theirs.transform = Untouched()
    head.load_state_dict(net.head.state_dict())
    return net, theirs


def test_losses_are_torchvisions() -> None:
    check_losses(*twins())


def test_finds_what_torchvision_finds() -> None:
    check_found(*twins())


@pytest.mark.parametrize(("scale", "least"), [(8.0, 32), (4.0, 16)])
def test_anchors_grow_with_their_scale(scale: float, least: int) -> None:
    # 32 to 512 pixels and two thirds of an octave beside each (section 4), at the paper's scale.
    net = tiny_detector("retinanet", anchor_scale=scale, anchor_ratios=(0.5, 2.0))
    assert isinstance(net, RetinaNet)
    sides = [least * 2**level for level in range(5)]
    expected = [(s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for s in sides]
    assert list(net.anchors.sizes) == expected
    assert net.head.classification_head.num_anchors == 6


def test_anchors_are_at_the_strides_of_their_maps() -> None:
    # At 800x1216 the last map has 6x10 places, 128 pixels apart and not 800 / 6.
    anchors = OctaveAnchors([128], 4.0, [1.0])
    images = ImageList(torch.zeros(1, 3, 800, 1216), [(800, 1216)])
    boxes = anchors(images, [torch.zeros(1, 1, 6, 10)])[0].view(6, 10, 3, 4)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    assert centres[5, 9].tolist() == [[9 * 128, 5 * 128]] * 3
