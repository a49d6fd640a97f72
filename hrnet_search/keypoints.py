"""From a person's box to the network's crop, and from heatmaps back to joints.

Copied into the folder of an exported network: needs torch and Pillow alone. Pixel centres lie at
integer coordinates, x to the right and y down, in images, crops and heatmaps alike; a place in a
heatmap times its stride is the place in the crop. Shapes: B images, K joints, heatmaps of (h, w).
"""

import math

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

STRIDE = 4  # of heatmaps of the highest resolution (section 3.1)
PADDING = 1.25  # of a box (official `lib/dataset/coco.py`)
WINDOW = 3  # sigmas at which a Gaussian is cut (official `lib/dataset/JointsDataset.py`)
SMALLEST = 1e-10  # what a logarithm is taken of at least

Pair = tuple[float, float]  # x, y or width, height
Size = tuple[int, int]  # (H, W)


def box_view(box: tuple[float, ...], size: Size, padding: float = PADDING) -> tuple[Pair, Pair]:
    """What of an image a crop shows: centre (x, y) and extent (width, height) in its pixels.

    Official `_xywh2cs` (`lib/dataset/coco.py`), whose scale is this extent over 200.

    Args:
        box: x, y, width, height of a person.
        size: (H, W) of the crop.
        padding: The extent is so many times the box.
    """
    x, y, width, height = box
    return (x + width / 2, y + height / 2), fit((width * padding, height * padding), size)


def fit(extent: Pair, size: Size) -> Pair:
    """The extent, enlarged on one side to the shape of a crop of `size` (H, W)."""
    width, height = extent
    aspect = size[1] / size[0]
    return max(width, height * aspect), max(height, width / aspect)


def affine(centre: Pair, extent: Pair, size: Size, rotation: float = 0.0) -> Tensor:
    """Matrix (2, 3), float64, from places in the image to places in the crop.

    Official `get_affine_transform` (`lib/utils/transforms.py`) in closed form: the centre goes to
    (W / 2, H / 2) and the extent's width to W.

    Args:
        centre: x, y in the image.
        extent: Width and height in the image; the width alone decides the scale.
        size: (H, W) of the crop.
        rotation: Degrees by which the image is turned, anticlockwise as one looks at it.
    """
    scale, turn = size[1] / extent[0], math.radians(rotation)
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    (x, y), (height, width) = centre, size
    rows = [
        [cos, sin, width / 2 - cos * x - sin * y],
        [-sin, cos, height / 2 + sin * x - cos * y],
    ]
    return torch.tensor(rows, dtype=torch.float64)


def inverse(matrix: Tensor) -> Tensor:
    """The matrices (..., 2, 3) that lead back."""
    turn, shift = matrix[..., :2].inverse(), matrix[..., 2:]
    return torch.cat([turn, -turn @ shift], dim=-1)


def apply(matrix: Tensor, points: Tensor) -> Tensor:
    """Points (..., N, 2) through matrices (..., 2, 3), in the points' own precision."""
    moved = points.double() @ matrix[..., :2].mT + matrix[..., None, :, 2]
    return moved.to(points.dtype)


def crop(picture: Image.Image, matrix: Tensor, size: Size) -> Image.Image:
    """The crop (H, W) that `matrix` (2, 3) leads to: bilinear, black outside the picture.

    The official code has cv2.warpAffine do this. Differences: Pillow cuts fractions of a grey
    level off, and repeats the outermost pixels for half a pixel before the black begins.
    """
    (a, b, c), (d, e, f) = inverse(matrix).tolist()
    # Pillow counts from the corners of pixels, half a pixel before their centres.
    data = (a, b, c + 0.5 - (a + b) / 2, d, e, f + 0.5 - (d + e) / 2)
    return picture.transform(
        (size[1], size[0]), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    )


def stride_of(size: Size, shape: Size) -> int:
    """Pixels of a crop (H, W) to a pixel of its heatmaps (h, w): 4, or 8, 16, ... (Fig. 9)."""
    stride = STRIDE
    while -(-size[0] // stride) > shape[0]:  # sizes of branches halve, rounded up
        stride *= 2
    return stride


def decode(heatmaps: Tensor, *, decoder: str, sigma: float, stride: int = STRIDE) -> Tensor:
    """Joints (B, K, 3): x, y in pixels of the crop, and the height of the peak.

    Each is at its heatmap's highest pixel, moved by less than two:

    * quarter: on both axes a quarter of a pixel towards the higher neighbour (section 4);
    * parabola: to the top of the parabolas through the logarithms of three values per axis, at
      most half a pixel; exact for a Gaussian;
    * dark: one Newton step on the logarithm of the smoothed heatmap (Zhang et al., CVPR 2020).

    A peak at the border, where its neighbours are not all there, is not moved. The official
    `get_final_preds` (`lib/core/inference.py`) moves none at pixel 1 either; here those are moved.
    It also puts a joint whose peak is not above 0 at (0, 0); here it stays where the peak is.

    Args:
        heatmaps: (B, K, h, w), float32, on the CPU.
        decoder: "quarter", "parabola" or "dark".
        sigma: Spread of the smoothing of dark, heatmap pixels: that of the targets.
        stride: Pixels of the crop to one of the heatmaps.
    """
    width = heatmaps.shape[-1]
    score, index = heatmaps.flatten(2).max(-1)
    rows = torch.div(index, width, rounding_mode="floor")
    peak = torch.stack([index - rows * width, rows], dim=-1)  # ONNX knows no % of a changing width
    reach, step = STEPS[decoder]
    maps = smooth(heatmaps, sigma) if decoder == "dark" else heatmaps
    limit = torch.tensor([width, heatmaps.shape[-2]]) - reach
    inside = ((peak >= reach) & (peak < limit)).all(-1, keepdim=True)
    offset = torch.where(inside, step(_patches(maps, peak, reach)), 0.0)
    return torch.cat([(peak + offset) * stride, score[..., None]], dim=-1)


def smooth(heatmaps: Tensor, sigma: float) -> Tensor:
    """Heatmaps (B, K, h, w) after a Gaussian filter, each brought back to its old maximum."""
    radius = math.ceil(WINDOW * sigma)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1).float() ** 2) / (2 * sigma**2))
    maps = heatmaps.flatten(0, 1)[:, None]
    maps = F.conv2d(maps, (kernel / kernel.sum())[None, None, :, None], padding=(radius, 0))
    maps = F.conv2d(maps, (kernel / kernel.sum())[None, None, None, :], padding=(0, radius))
    maps = maps.reshape(heatmaps.shape)
    old, new = (values.amax((2, 3), keepdim=True) for values in (heatmaps, maps))
    return maps * old / new.clamp_min(SMALLEST)


def _patches(maps: Tensor, peak: Tensor, reach: int) -> Tensor:
    """(B, K, n, n): the values up to `reach` around each peak (B, K, 2), n = 2 reach + 1."""
    padded = F.pad(maps, (reach,) * 4)
    width = padded.shape[-1]
    steps = torch.arange(2 * reach + 1)
    window = (steps[:, None] * width + steps).flatten()
    corner = peak[..., 1] * width + peak[..., 0]
    return padded.flatten(2).gather(2, corner[..., None] + window).unflatten(-1, (len(steps), -1))


def _quarter(patch: Tensor) -> Tensor:
    low, _, high = _cross(patch)
    return torch.sign(high - low) * 0.25


def _parabola_top(patch: Tensor) -> Tensor:
    low, top, high = (values.clamp_min(SMALLEST).log() for values in _cross(patch))
    bend = (2 * top - low - high).clamp_min(1e-6)
    return 0.5 * (high - low) / bend  # within half a pixel, as the top is not below its neighbours


def _cross(patch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(..., 2) each: the values before the middle of (..., 3, 3) on x and y, there, and after."""
    before = torch.stack([patch[..., 1, 0], patch[..., 0, 1]], dim=-1)
    after = torch.stack([patch[..., 1, 2], patch[..., 2, 1]], dim=-1)
    return before, patch[..., 1, 1, None], after


def _newton_step(patch: Tensor) -> Tensor:
    """From the middle of (..., 5, 5) to where the gradient of its logarithm is zero.

    Central differences as the authors take them: second ones over two pixels. No step where the
    middle is no maximum to second order.
    """
    logs = patch.clamp_min(SMALLEST).log()

    def at(x: int, y: int) -> Tensor:
        return logs[..., 2 + y, 2 + x]

    gx, gy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    xx = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
    yy = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    xy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    determinant = xx * yy - xy * xy
    is_peak = (xx < 0) & (determinant > 0)
    divisor = torch.where(is_peak, determinant, 1.0)
    step = torch.stack([xy * gy - yy * gx, xy * gx - xx * gy], dim=-1) / divisor[..., None]
    return torch.where(is_peak[..., None], step, 0.0).clamp(-2, 2)


# How far around the peak a decoder looks, and the step it makes of what it sees there.
STEPS = {"quarter": (1, _quarter), "parabola": (1, _parabola_top), "dark": (2, _newton_step)}
