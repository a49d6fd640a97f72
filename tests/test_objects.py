"""What a detector is shown, and back: sizes, boxes and masks worked out by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from hrnet_search.objects import fitted, own_boxes, own_masks, padded, placed


@pytest.mark.parametrize(
    ("size", "image_size", "expected"),
    [
        ((480, 640), (800, 1333), (800, 1067)),  # COCO's usual picture, as mmdetection has it
        ((640, 480), (800, 1333), (1067, 800)),
        ((427, 640), (800, 1333), (800, 1199)),
        ((300, 900), (800, 1333), (444, 1333)),  # the long edge is met first
        ((1, 4000), (800, 1333), (1, 1333)),
        ((96, 128), (96, 128), (96, 128)),
    ],
)
def test_pictures_are_as_large_as_they_can_be(
    size: tuple[int, int], image_size: tuple[int, int], expected: tuple[int, int]
) -> None:
    shown = fitted(Image.new("RGB", size[::-1]), image_size)
    assert (shown.height, shown.width) == expected


def test_padding_is_zero_below_and_to_the_right() -> None:
    images = torch.ones(2, 3, 33, 64)
    full = padded(images, 32)
    assert full.shape == (2, 3, 64, 64)
    assert torch.equal(full[:, :, :33], images)
    assert full[:, :, 33:].abs().max() == 0
    assert torch.equal(padded(full, 32), full)


def test_boxes_are_scaled_by_what_each_side_was_scaled() -> None:
    # 75 x 98 was shown at 60 x 78: times 1.25 downwards, times 98 / 78 to the right.
    boxes = torch.tensor([[39.0, 30.0, 78.0, 60.0], [-1.0, -1.0, 90.0, 61.0]])
    expected = torch.tensor([[49.0, 37.5, 98.0, 75.0], [0.0, 0.0, 98.0, 75.0]])
    torch.testing.assert_close(own_boxes(boxes, (60, 78), (75, 98)), expected)


def test_numbers_that_are_none_are_left_out_with_all_that_belongs_to_them() -> None:
    nan, inf = float("nan"), float("inf")
    found = {
        "boxes": torch.tensor([[0, 0, nan, 9], [1.0, 2, 3, 4], [0, 0, 9, 9], [0, 0, inf, 9]]),
        "scores": torch.tensor([0.9, 0.8, nan, 0.6]),
        "labels": torch.tensor([1, 2, 3, 4]),
        "masks": torch.arange(4.0)[:, None, None, None].expand(4, 1, 28, 28),
    }
    kept = placed(found, (10, 10), (20, 30))
    assert kept["boxes"].tolist() == [[3, 4, 9, 8]]
    assert (kept["labels"].tolist(), kept["masks"].unique().tolist()) == ([2], [1])


def test_masks_are_pictures_of_the_pixels_in_their_boxes() -> None:
    masks = torch.zeros(2, 1, 28, 28)
    masks[0], masks[1, :, :14] = 1, 1  # all of a box, the upper half of a box
    boxes = torch.tensor([[2.0, 3.0, 12.0, 9.0], [5.0, 0.0, 9.0, 8.0]])
    first, second = own_masks(masks, boxes, (10, 20))
    assert (first.mode, first.size) == ("L", (20, 10))
    expected = np.zeros((2, 10, 20), dtype=np.uint8)
    expected[0, 3:9, 2:12], expected[1, 0:4, 5:9] = 255, 255
    assert np.array_equal(np.stack([np.asarray(mask) for mask in (first, second)]), expected)
    assert list(own_masks(masks[:0], boxes[:0], (10, 20))) == []
