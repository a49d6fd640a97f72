"""A picture as a detector sees it, and what is found put back into the picture.

Copied beside exported detectors: needs torch, torchvision and Pillow. Shapes: B images of (H, W)
pixels, N objects; boxes are x1, y1, x2, y2 in pixels, the first of which reaches from 0 to 1.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .detectors.masks import whole_mask
from .views import Size, fitted_size, padded_size

MASK_THRESHOLD = 0.5  # probability from which a pixel is the object's (mmdetection; torchvision)


def fitted(picture: Image.Image, image_size: Sequence[int]) -> Image.Image:
    """The picture as large as it can be in [short, long] edge, its shape kept.

    Bilinear, and smoothed where it shrinks.
    """
    short, long = image_size
    height, width = fitted_size((picture.height, picture.width), short, long)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def padded(images: Tensor, multiple: int) -> Tensor:
    """Normalised images (B, 3, H, W) with zeros below and to the right, to multiples."""
    height, width = images.shape[-2:]
    full_height, full_width = padded_size((height, width), multiple)
    return F.pad(images, (0, full_width - width, 0, full_height - height))


def placed(found: Mapping[str, Tensor], shown: Size, size: Size) -> dict[str, Tensor]:
    """What a detector found in an image, its boxes in pixels of the picture and inside it.

    A network that has diverged finds nothing: numbers that are none are left out.

    Args:
        found: Boxes (N, 4), scores (N,), labels (N,), perhaps masks (N, 1, 28, 28).
        shown: (H, W) of the image without its padding.
        size: (H, W) of the picture.
    """
    real = found["boxes"].isfinite().all(1) & found["scores"].isfinite()
    kept = {name: values[real].cpu() for name, values in found.items()}
    return kept | {"boxes": own_boxes(kept["boxes"].float(), shown, size)}


def own_boxes(boxes: Tensor, shown: Size, size: Size) -> Tensor:
    """Boxes (N, 4) of a picture of (H, W) shown at another in its own pixels, and inside it."""
    (height, width), (own_height, own_width) = shown, size
    x, y = own_width / width, own_height / height
    scaled = boxes * boxes.new_tensor([x, y, x, y])
    return scaled.clamp_min(0).minimum(scaled.new_tensor([own_width, own_height] * 2))


def own_masks(masks: Tensor, boxes: Tensor, size: Size) -> Iterator[Image.Image]:
    """Masks (N, 1, 28, 28) in their boxes (N, 4): pictures of (H, W), mode "L", 0 and 255."""
    height, width = size
    for mask, box in zip(masks.float(), boxes, strict=True):
        whole = whole_mask(mask[0], box, size)
        pixels = bytearray(height * width)  # numpy might not be there
        held = torch.frombuffer(pixels, dtype=torch.uint8).reshape(size)
        held.copy_(255 * (whole >= MASK_THRESHOLD))
        yield Image.frombytes("L", (width, height), bytes(pixels))
