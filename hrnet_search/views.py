"""How a picture is brought to the size at which a network sees it.

Copied into the folder of an exported network: needs Pillow alone. Sizes are (H, W).
"""

from collections.abc import Mapping
from typing import Any

from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
CENTRE = 0.875  # of the resized image is in the test's crop: 224 of 256 (official code)

Size = tuple[int, int]


def scaled_size(size: Size, scale: float, base_length: int = 0) -> Size:
    """(H, W) of an image at `scale`, its shape kept, rounded as in the official `image_resize`.

    Args:
        size: (H, W).
        scale: 1 makes the longer side `base_length`.
        base_length: Pixels; 0: as long as it is.
    """
    longer = max(size)
    wanted = int((base_length or longer) * scale + 0.5)
    height, width = (max(1, int(side * wanted / longer + 0.5)) for side in size)
    return height, width


def seen_size(size: Size, about: Mapping[str, Any]) -> Size:
    """(H, W) at which a segmentation network was tested on an image of (H, W).

    Args:
        size: (H, W).
        about: What `preprocess.json` says.
    """
    height, width = about["resize"] or scaled_size(size, 1.0, about["base_length"])
    return height, width


def fitted_size(size: Size, short: int, long: int) -> Size:
    """(H, W) of an image scaled, its shape kept, until one of its edges is as long as it may be.

    Rounded as in mmdetection's `rescale_size`.

    Args:
        size: (H, W).
        short: Pixels that the shorter edge reaches at most.
        long: Pixels that the longer edge reaches at most.
    """
    scale = min(short / min(size), long / max(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def padded_size(size: Size, multiple: int) -> Size:
    """(H, W) with both sides rounded up to multiples."""
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


def centre_crop(picture: Image.Image, size: Size, centre: float = CENTRE) -> Image.Image:
    """The middle (H, W) of a picture that is resized, its shape kept, to size / centre.

    For a square crop its shorter side becomes that long: 256 pixels for 224 (official code).
    """
    width, height = picture.size
    least = (int(size[0] / centre), int(size[1] / centre))
    if least[0] * width >= least[1] * height:  # the height is what just reaches
        full = (least[0], least[0] * width // height)
    else:
        full = (least[1] * height // width, least[1])
    picture = picture.resize((full[1], full[0]), Image.Resampling.BILINEAR)
    top, left = (round((a - b) / 2) for a, b in zip(full, size, strict=True))
    return picture.crop((left, top, left + size[1], top + size[0]))
