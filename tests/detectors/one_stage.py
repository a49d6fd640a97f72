"""torchvision's networks on our backbones, and what they are called with."""

from typing import Any

import torch
from small_detectors import batch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from hrnet_search.detectors import Detector

SIDE = 128  # a multiple of every stride: elsewhere torchvision guesses other strides than ours
SIZES = [(128, 128), (100, 120)]


class Untouched(nn.Module):
    """In the place of torchvision's transform: images of the right size as they are."""

    def forward(self, images: Tensor, targets: Any) -> tuple[ImageList, Any]:
        return ImageList(images, SIZES), targets

    def postprocess(self, found: Any, *_: object) -> Any:
        return found


def square_batch() -> tuple[Tensor, ...]:
    """Two images of SIZES in one batch; objects of all levels, off the grid of whole pixels."""
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor(
        [
            [[8.3, 8.1, 40.2, 37.4], [2.2, 10.6, 125.7, 120.9], [60.1, 70.2, 118.3, 101.8]],
            [[4.4, 3.2, 30.7, 48.6], [40.9, 12.3, 115.6, 94.1], [0.0, 0.0, 0.0, 0.0]],
        ]
    )
    return images, torch.tensor(SIZES), boxes, torch.tensor([[1, 3, 2], [2, 1, 0]])


def zero_based(targets: tuple[Tensor, ...]) -> list[dict[str, Tensor]]:
    """Boxes (B, M, 4) and labels (B, M) as torchvision's one-stage networks take them."""
    pairs = zip(*targets, strict=True)
    return [{"boxes": b[row > 0], "labels": row[row > 0] - 1} for b, row in pairs]


def check_losses(ours: Detector, theirs: nn.Module) -> None:
    """That both have the same losses, none of which is next to nothing."""
    images, sizes, *targets = square_batch()
    found, expected = ours(images, sizes, *targets), theirs(images, zero_based(tuple(targets)))
    assert list(found) == list(expected)
    assert min(value.item() for value in expected.values()) > 0.1
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-5), name


@torch.no_grad()
def check_found(ours: Detector, theirs: nn.Module) -> None:
    """That both find the same 30 objects in each image."""
    images, sizes, *_ = square_batch()
    ours(*square_batch())  # statistics of BatchNorm
    for found, wanted in zip(ours.eval()(images, sizes), theirs.eval()(images), strict=True):
        assert len(found["scores"]) == 30
        assert torch.allclose(found["boxes"], wanted["boxes"], atol=1e-4)
        assert torch.allclose(found["scores"], wanted["scores"])
        assert torch.equal(found["labels"], wanted["labels"] + 1)


@torch.no_grad()
def stirred(head: nn.Module) -> None:
    """Weights that make answers differ from place to place, and many of them count."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in head.named_parameters():
        if name != "scales":
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
        if name.endswith("cls_logits.bias"):
            parameter.fill_(-1.0)


def step(detector: Detector) -> dict[str, Tensor]:
    """Losses of a small batch, whose gradients are taken."""
    losses = detector(*batch(masks=False))
    sum(losses.values()).backward()
    return losses
