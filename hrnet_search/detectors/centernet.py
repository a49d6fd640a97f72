"""CenterNet: objects as triplets of points, two corners of a box and its centre.

Duan et al., "CenterNet: Keypoint Triplets for Object Detection", ICCV 2019, on one map of stride
4. The paper gives results with HRNet (Tables 7, 9 and 11) but no configuration of it was ever
published. What is assumed, and where this departs from the authors' code ("official",
CenterNet-52 and -104):

* Of HRNet, all maps in one by a 1x1 convolution (head "v2r") in the place of an hourglass; there
  is one such map, so no supervision of an earlier one. It meets the figures printed for W64.
* The head is the official one: a 3x3 convolution, cascade corner pooling with a look along the
  object's side before the pooling from it, centre pooling as the sum of a row's and a column's
  maximum.
* Places are at x / 4; official x * 128 / 511. Objects without area are left out.
* Gaussians have the official radius, at which boxes overlap by 0.7: CornerNet's formula, whose
  roots lack a division and so are too large, is kept as results were obtained with it.
* The official tag losses are sums over the images of a GPU, six: here six times their mean, so
  that they do not hang on how a batch is divided.
* A test reads the image once, not also mirrored, at the size it has been brought to: the central
  region of a box is cut in three below, in five above 150 x 150 pixels of it.
* Boxes of a class that overlap are suppressed by plain NMS, as in the other frameworks
  (`DetectorSpec.nms`; official: soft NMS, which would add some more boxes of low score).

Shapes: B images, C channels, maps of (H, W) places, K classes, N objects.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import clip_boxes_to_image

from ..frameworks import DetectorSpec
from .base import Detector, Features, Found, Losses, Target
from .dense import suppressed
from .pyramid import Pyramid

RADIUS_IOU = 0.7  # official `db/detection.py`, gaussian_iou
CORNER_SPREAD, CENTRE_SPREAD = 6, 5  # diameters of a Gaussian in deviations (official `sample`)
OBJECTS_AT_ONCE = 256  # whose Gaussians are drawn in one go: bounds the memory
TAG_WEIGHT = 0.1 * 6  # section 4.1; six: see above
PEAKS = 70  # of each kind of point (official `CenterNet-104.json`, top_k)
PEAK_SIDE = 3  # places around a peak that it is the largest of (nms_kernel)
TAG_DISTANCE = 0.5  # of the corners of one object, at most (ae_threshold)
LARGE_AREA = 150**2  # pixels from which a box's central region is a fifth of it, not a third
INITIAL_HEAT = -2.19  # bias: a tenth of all places (official `kp.py`)


# --- layers -------------------------------------------------------------------------------------


def bottom_pool(x: Tensor) -> Tensor:
    """(B, C, H, W) -> the same: largest value from the top row down to each place."""
    return x.cummax(dim=2).values


def top_pool(x: Tensor) -> Tensor:
    """The same from the bottom row up."""
    return x.flip(2).cummax(dim=2).values.flip(2)


def right_pool(x: Tensor) -> Tensor:
    """The same from the left column to the right."""
    return x.cummax(dim=3).values


def left_pool(x: Tensor) -> Tensor:
    """The same from the right column to the left."""
    return x.flip(3).cummax(dim=3).values.flip(3)


Pool = Callable[[Tensor], Tensor]


def conv_bn(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """A convolution that keeps the size, and BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_bn_relu(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(inputs, outputs), nn.ReLU(inplace=True))


def conv_output(channels: int, outputs: int) -> nn.Sequential:
    """A 3x3 convolution, ReLU, and a 1x1 convolution."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.Conv2d(channels, outputs, 1))


class Pooling(nn.Module):
    """Two pooled maps, added, beside a shortcut: (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = nn.ModuleList(conv_bn_relu(channels, half) for _ in range(2))
        self.joined = conv_bn(half, channels)
        self.shortcut = conv_bn(channels, channels, 1)
        self.leave = conv_bn_relu(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.pooled(x)
        return self.leave(F.relu(self.joined(first + second) + self.shortcut(x)))

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps of C / 2 channels, one of which has the full size."""
        raise NotImplementedError


class CornerPooling(Pooling):
    """Cascade corner pooling: a corner sees along the sides of its box, and from there inside.

    Args:
        channels: C.
        vertical: Pools along the side that goes down or up from the corner.
        horizontal: Along the other.
    """

    def __init__(self, channels: int, vertical: Pool, horizontal: Pool) -> None:
        super().__init__(channels)
        half = channels // 2
        self.look = nn.ModuleList(conv_bn_relu(channels, half) for _ in range(2))
        self.mix = nn.ModuleList(nn.Conv2d(half, half, 3, padding=1, bias=False) for _ in range(2))
        self.vertical, self.horizontal = vertical, horizontal

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inside = self.mix[0](self.enter[0](x) + self.horizontal(self.look[0](x)))
        below = self.mix[1](self.enter[1](x) + self.vertical(self.look[1](x)))
        return self.vertical(inside), self.horizontal(below)


class CentrePooling(Pooling):
    """A centre sees the largest value of its column and of its row."""

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        down = self.enter[0](x)
        return down.amax(dim=2, keepdim=True).expand_as(down), self.enter[1](x).amax(3, True)


class PointMaps(NamedTuple):
    """What is said of one kind of point.

    Args:
        heat: (B, K, H, W): logits of a point of that class.
        offset: (B, 2, H, W): x and y from the place to the point, in places.
        tag: (B, 1, H, W): corners of one object have tags alike; centres have none.
    """

    heat: Tensor
    offset: Tensor
    tag: Tensor | None = None


class Branch(nn.Module):
    """Finds one kind of point: (B, C, H, W) -> maps, in float32."""

    def __init__(self, pooling: Pooling, channels: int, classes: int, *, tagged: bool) -> None:
        super().__init__()
        self.pooling = pooling
        self.heat = conv_output(channels, classes)
        self.offset = conv_output(channels, 2)
        self.tag = conv_output(channels, 1) if tagged else None

    def forward(self, x: Tensor) -> PointMaps:
        x = self.pooling(x)
        tag = None if self.tag is None else self.tag(x).float()
        return PointMaps(self.heat(x).float(), self.offset(x).float(), tag)


class TripletHead(nn.Module):
    """(B, C, H, W) -> maps of top left corners, bottom right corners and centres."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.enter = conv_bn_relu(channels, channels)
        first = CornerPooling(channels, top_pool, left_pool)
        last = CornerPooling(channels, bottom_pool, right_pool)
        self.top_left = Branch(first, channels, classes, tagged=True)
        self.bottom_right = Branch(last, channels, classes, tagged=True)
        self.centre = Branch(CentrePooling(channels), channels, classes, tagged=False)

    def forward(self, x: Tensor) -> tuple[PointMaps, PointMaps, PointMaps]:
        x = self.enter(x)
        return self.top_left(x), self.bottom_right(x), self.centre(x)


# --- what maps should say -----------------------------------------------------------------------


class Wanted(NamedTuple):
    """What the maps of one kind of point should say of one image.

    Args:
        heat: (K, H, W), 1 at points, less around them.
        cells: (N,): place of each object's point, y * W + x.
        offset: (N, 2): from there to the point, in places.
    """

    heat: Tensor
    cells: Tensor
    offset: Tensor


def gaussian_radius(width: Tensor, height: Tensor) -> Tensor:
    """(N,), (N,) -> (N,): places that corners may be off; official, see above.

    Least of three cases: both corners off inwards, both outwards, one of each.
    """
    total, area, iou = width + height, width * height, RADIUS_IOU
    cases = (
        (1.0, total, area * (1 - iou) / (1 + iou)),
        (4.0, 2 * total, area * (1 - iou)),
        (4 * iou, -2 * iou * total, area * (iou - 1)),
    )
    roots = [(b + (b**2 - 4 * a * c).sqrt()) / 2 for a, b, c in cases]
    return torch.stack(roots).amin(dim=0).floor()


def heatmap(
    points: Tensor, radii: Tensor, labels: Tensor, shape: tuple[int, int, int], spread: int
) -> Tensor:
    """Gaussians around points, the largest where they meet.

    Args:
        points: (N, 2): x, y, whole.
        radii: (N,): places beyond which there is nothing.
        labels: (N,), from 1 on.
        shape: (K, H, W).
        spread: Diameter in deviations.
    """
    classes, height, width = shape
    heat = points.new_zeros(classes, height * width)
    for some, radius, label in zip(
        *(part.split(OBJECTS_AT_ONCE) for part in (points, radii, labels)), strict=True
    ):
        deviation = (2 * radius[:, None] + 1) / spread
        columns, rows = (
            _bell(torch.arange(side, device=heat.device) - some[:, [axis]], radius, deviation)
            for axis, side in enumerate((width, height))
        )
        bells = (rows[:, :, None] * columns[:, None]).flatten(1)
        heat.scatter_reduce_(0, (label - 1)[:, None].expand_as(bells), bells, "amax")
    return heat.view(shape)


def _bell(distance: Tensor, radius: Tensor, deviation: Tensor) -> Tensor:
    """(N, S), (N,), (N, 1) -> (N, S): a Gaussian cut off at the radius."""
    bell = (-(distance**2) / (2 * deviation**2)).exp()
    return torch.where(distance.abs() <= radius[:, None], bell, 0.0)


def wanted(
    boxes: Tensor, labels: Tensor, shape: tuple[int, int, int], stride: int
) -> tuple[Wanted, Wanted, Wanted]:
    """Boxes (N, 4) in pixels -> targets of top left, bottom right, centre."""
    scaled = boxes.float() / stride
    first, last = scaled[:, :2], scaled[:, 2:]
    radii = gaussian_radius(*(last - first).ceil().unbind(dim=1))
    most = torch.tensor([shape[2] - 1, shape[1] - 1], device=boxes.device)

    def of(points: Tensor, spread: int) -> Wanted:
        places = points.floor().clamp(min=0).minimum(most)
        heat = heatmap(places, radii, labels, shape, spread)
        cells = (places[:, 1] * shape[2] + places[:, 0]).long()
        return Wanted(heat, cells, points - places)

    centre = of((first + last) / 2, CENTRE_SPREAD)
    return of(first, CORNER_SPREAD), of(last, CORNER_SPREAD), centre


# --- losses -------------------------------------------------------------------------------------


def focal_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """(B, K, H, W), the same -> (): CornerNet's eq. 1, over the number of points."""
    points = heat == 1
    missed = F.logsigmoid(logits) * (1 - logits.sigmoid()) ** 2
    invented = F.logsigmoid(-logits) * logits.sigmoid() ** 2 * (1 - heat) ** 4
    return -torch.where(points, missed, invented).sum() / points.sum().clamp(min=1)


def tag_losses(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Tags (N,), (N,) of the corners of N objects -> (), (): CornerNet's eq. 4 and 5.

    Corners of one object are pulled together, and objects pushed 1 apart.
    """
    count = len(first)
    mean = (first + last) / 2
    pull = ((first - mean) ** 2 + (last - mean) ** 2).sum() / max(1, count)
    near = F.relu(1 - (mean[:, None] - mean[None]).abs())
    pairs = ~torch.eye(count, dtype=torch.bool, device=mean.device)
    return pull, near[pairs].sum() / max(1, count * (count - 1))


def at(maps: Tensor, cells: Tensor) -> Tensor:
    """(C, H, W) at places (N,) -> (N, C)."""
    return maps.flatten(1)[:, cells].T


# --- from maps to boxes -------------------------------------------------------------------------


class Peaks(NamedTuple):
    """The best points of one kind of an image, from high to low.

    Args:
        points: (N, 2): x, y in pixels.
        scores: (N,).
        labels: (N,), from 1 on.
        tags: (N,), or none.
    """

    points: Tensor
    scores: Tensor
    labels: Tensor
    tags: Tensor | None


def peaks_of(maps: PointMaps, image: int, stride: int) -> Peaks:
    """Places that are the largest around, of one image of the batch."""
    heat = maps.heat[image].sigmoid()
    largest = F.max_pool2d(heat[None], PEAK_SIDE, stride=1, padding=PEAK_SIDE // 2)[0]
    alone = torch.where(heat == largest, heat, 0.0).flatten()
    scores, which = alone.topk(min(PEAKS, len(alone)))
    places, width = heat.shape[1] * heat.shape[2], heat.shape[2]
    cells = which % places
    xy = torch.stack([cells % width, cells // width], dim=1)
    points = (xy + at(maps.offset[image], cells)) * stride
    tags = None if maps.tag is None else at(maps.tag[image], cells)[:, 0]
    return Peaks(points, scores, which // places + 1, tags)


def paired(first: Peaks, last: Peaks) -> tuple[Tensor, Tensor]:
    """Indices (R,), (R,) of corners that may belong to one box."""
    assert first.tags is not None
    assert last.tags is not None
    same = first.labels[:, None] == last.labels[None]
    near = (first.tags[:, None] - last.tags[None]).abs() <= TAG_DISTANCE
    around = (first.points[:, None] < last.points[None]).all(dim=2)
    start, end = torch.where(same & near & around)
    return start, end


def centre_scores(boxes: Tensor, labels: Tensor, centres: Peaks) -> Tensor:
    """(R, 4), (R,) -> (R,): best centre of the class in each box's central region, or 0."""
    sides = boxes[:, 2:] - boxes[:, :2]
    parts = torch.where(sides.prod(dim=1) > LARGE_AREA, 5.0, 3.0)[:, None]
    middle, reach = (boxes[:, :2] + boxes[:, 2:]) / 2, sides / (2 * parts)
    off = (centres.points[None] - middle[:, None]).abs()
    fits = (off < reach[:, None]).all(dim=2) & (centres.labels[None] == labels[:, None])
    return torch.where(fits, centres.scores[None], 0.0).amax(dim=1)


def decode(
    first: Peaks, last: Peaks, centres: Peaks, size: tuple[int, int], spec: DetectorSpec
) -> Found:
    """Boxes of corners that fit and have a centre; their score is the mean of the three."""
    start, end = paired(first, last)
    boxes = torch.cat([first.points[start], last.points[end]], dim=1)
    labels = first.labels[start]
    centre = centre_scores(boxes, labels, centres)
    scores = (first.scores[start] + last.scores[end] + centre) / 3
    boxes = clip_boxes_to_image(boxes, size)
    kept = (centre > 0) & (scores > spec.score) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return suppressed(boxes[kept], scores[kept], labels[kept], spec)


class CenterNet(Detector):
    """Corners and centres on one map, and the boxes that they make."""

    backbone: Pyramid

    def __init__(self, backbone: Pyramid, spec: DetectorSpec) -> None:
        super().__init__(backbone, spec)
        self.head = TripletHead(backbone.out_channels, spec.num_classes)
        self.stride = backbone.strides[0]

    def losses(self, images: ImageList, features: Features, targets: list[Target]) -> Losses:
        kinds = self.head(features["0"])
        shape = (self.spec.num_classes, *features["0"].shape[-2:])
        aims = [wanted(t["boxes"], t["labels"], shape, self.stride) for t in targets]
        by_kind = list(zip(*aims, strict=True))
        count = max(1, sum(len(target["labels"]) for target in targets))
        tags = [self._tags(kinds, aim, image) for image, aim in enumerate(aims)]
        pull, push = (torch.stack(terms).mean() for terms in zip(*tags, strict=True))
        heats = [
            focal_loss(maps.heat, torch.stack([aim.heat for aim in kind]))
            for maps, kind in zip(kinds, by_kind, strict=True)
        ]
        offsets = [
            _offset_loss(maps.offset, kind) for maps, kind in zip(kinds, by_kind, strict=True)
        ]
        return {
            "heatmap": torch.stack(heats).sum(),
            "offset": torch.stack(offsets).sum() / count,
            "pull": TAG_WEIGHT * pull,
            "push": TAG_WEIGHT * push,
        }

    def _tags(
        self, kinds: Sequence[PointMaps], aims: Sequence[Wanted], image: int
    ) -> tuple[Tensor, Tensor]:
        """Both tag losses of an image."""
        tags = []
        for maps, aim in zip(kinds[:2], aims[:2], strict=True):
            assert maps.tag is not None
            tags.append(at(maps.tag[image], aim.cells)[:, 0])
        return tag_losses(*tags)

    def find(self, images: ImageList, features: Features) -> list[Found]:
        kinds = self.head(features["0"])
        found = []
        for image, size in enumerate(images.image_sizes):
            first, last, centres = (peaks_of(maps, image, self.stride) for maps in kinds)
            found.append(decode(first, last, centres, size, self.spec))
        return found

    def dense(self, features: Features) -> dict[str, Tensor]:
        """Of top left, bottom right and centre the maps: `centre_heat` (B, K, h, w), logits,
        `centre_offset` (B, 2, h, w) in places, and of corners `top_left_tag` (B, 1, h, w).
        """
        kinds = zip(("top_left", "bottom_right", "centre"), self.head(features["0"]), strict=True)
        return {
            f"{kind}_{name}": x
            for kind, maps in kinds
            for name, x in maps._asdict().items()
            if x is not None
        }

    def run_layers(self, images: Tensor, *, regions: int, masked: int) -> None:
        self.head(self.backbone(images)["0"])

    def initial(self, name: str, layer: nn.Module) -> tuple[float, float] | None:
        if not isinstance(layer, nn.Conv2d) or layer.kernel_size != (1, 1) or layer.bias is None:
            return None
        # PyTorch's own, as official: Kaiming's would make tags and offsets of several tens.
        return (3 * layer.in_channels) ** -0.5, INITIAL_HEAT if ".heat." in name else 0.0


def _offset_loss(offsets: Tensor, aims: Sequence[Wanted]) -> Tensor:
    """(B, 2, H, W) -> (): smooth L1 at all points, in sum."""
    found = torch.cat([at(x, aim.cells) for x, aim in zip(offsets, aims, strict=True)])
    return F.smooth_l1_loss(found, torch.cat([aim.offset for aim in aims]), reduction="sum")
