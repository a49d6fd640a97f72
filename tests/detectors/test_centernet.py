"""CenterNet: pooling, targets and losses by hand; from maps to boxes and back."""

import math

import pytest
import torch
from small_detectors import batch, tiny_detector
from torch import Tensor, nn

from hrnet_search.detectors import centernet
from hrnet_search.detectors.centernet import CenterNet, CentrePooling, CornerPooling, PointMaps
from hrnet_search.frameworks import DetectorSpec

K, H, W = 3, 64, 48  # an image of 256x192
STRIDE = 4
SPEC = DetectorSpec(framework="centernet", num_classes=K)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# --- pooling ------------------------------------------------------------------------------------

# A place's maximum is over these places (y, x) -> rows and columns.
SEEN = {
    "top_pool": lambda y, x: (slice(y, None), slice(x, x + 1)),
    "bottom_pool": lambda y, x: (slice(0, y + 1), slice(x, x + 1)),
    "left_pool": lambda y, x: (slice(y, y + 1), slice(x, None)),
    "right_pool": lambda y, x: (slice(y, y + 1), slice(0, x + 1)),
}


def naive(name: str, x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            rows, columns = SEEN[name](row, column)
            out[:, :, row, column] = x[:, :, rows, columns].amax(dim=(2, 3))
    return out


@pytest.mark.parametrize("name", SEEN)
def test_corner_pooling_is_a_running_maximum(name: str) -> None:
    x = noise(2, 3, 5, 7)
    assert torch.equal(getattr(centernet, name)(x), naive(name, x))


def plain(pooling: centernet.Pooling) -> centernet.Pooling:
    """Its layers before and between the pooling pass on what they get."""
    lists = [module for module in pooling.modules() if isinstance(module, nn.ModuleList)]
    for modules in lists:
        for place in range(len(modules)):
            modules[place] = nn.Identity()
    return pooling


@pytest.mark.parametrize("names", [("top_pool", "left_pool"), ("bottom_pool", "right_pool")])
def test_a_corner_sees_inside_its_box_from_its_sides(names: tuple[str, str]) -> None:
    vertical, horizontal = names
    x = noise(2, 4, 5, 7)
    pools = (getattr(centernet, name) for name in names)
    first, second = plain(CornerPooling(4, *pools)).pooled(x)
    assert torch.equal(first, naive(vertical, x + naive(horizontal, x)))
    assert torch.equal(second, naive(horizontal, x + naive(vertical, x)))


def test_a_centre_sees_the_maxima_of_its_row_and_column() -> None:
    x = noise(2, 4, 5, 7)
    first, second = plain(CentrePooling(4)).pooled(x)
    expected = torch.empty_like(x)
    for row in range(5):
        for column in range(7):
            expected[:, :, row, column] = x[:, :, :, column].amax(2) + x[:, :, row].amax(2)
    assert torch.equal(first + second, expected)
    # Pooling both ways, as the official code does it.
    both = centernet.top_pool(centernet.bottom_pool(x))
    assert torch.equal(first, both)


def test_pooling_branches_keep_the_shape_and_their_shortcut_counts() -> None:
    pooling = CornerPooling(8, centernet.top_pool, centernet.left_pool)
    x = noise(2, 8, 9, 11)
    before = pooling(x)
    assert before.shape == x.shape
    with torch.no_grad():
        pooling.shortcut[0].weight.zero_()
    assert not torch.allclose(pooling(x), before)


# --- targets ------------------------------------------------------------------------------------


def test_the_radius_is_cornernets() -> None:
    # 10x10: r^2 - 20 r + 30 / 1.7, 4 r^2 - 40 r + 30 and 2.8 r^2 + 28 r - 30 give with
    # (b + sqrt(b^2 - 4 a c)) / 2 the values (20 + 18.150) / 2 = 19.07, (40 + 33.466) / 2 = 36.73
    # and (-28 + 33.466) / 2 = 2.733; the third is 10 times as much for 100x100, a tenth for 1x1,
    # and (-84 + sqrt(84^2 + 11.2 * 240)) / 2 = 7.36 for 40x20.
    sizes = torch.tensor([[10.0, 10], [1, 1], [40, 20], [100, 100]])
    radii = centernet.gaussian_radius(*sizes.unbind(1))
    assert radii.tolist() == [2, 0, 7, 27]


def test_a_gaussian_is_one_at_its_point_and_ends_at_its_radius() -> None:
    points, labels = torch.tensor([[3.0, 2.0]]), torch.tensor([2])
    heat = centernet.heatmap(points, torch.tensor([1.0]), labels, (3, 6, 7), 6)
    near, far = math.exp(-2), math.exp(-4)  # diameter 3, deviation 0.5
    expected = torch.zeros(3, 6, 7)
    expected[1, 1:4, 2:5] = torch.tensor([[far, near, far], [near, 1, near], [far, near, far]])
    assert torch.allclose(heat, expected)
    assert heat[1, 2, 3] == 1


def test_gaussians_meet_in_their_maximum_and_end_at_the_border() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    labels = torch.tensor([1, 1, 2])
    heat = centernet.heatmap(points, torch.tensor([1.0, 1, 0]), labels, (2, 2, 3), 6)
    near, far = math.exp(-2), math.exp(-4)
    assert torch.allclose(heat[0], torch.tensor([[1, 1, near], [near, near, far]]))
    assert heat[1].tolist() == [[1, 0, 0], [0, 0, 0]]


def test_many_objects_are_drawn_as_few() -> None:
    count = 600  # more than are drawn at once
    points = torch.stack([torch.arange(count) % 30, torch.arange(count) // 30], dim=1).float()
    labels, radii = torch.arange(count) % 2 + 1, torch.full((count,), 2.0)
    whole = centernet.heatmap(points, radii, labels, (2, 25, 32), 6)
    single = [
        centernet.heatmap(points[i : i + 1], radii[:1], labels[i : i + 1], (2, 25, 32), 6)
        for i in range(count)
    ]
    assert torch.equal(whole, torch.stack(single).amax(dim=0))


def test_targets_say_where_points_are() -> None:
    boxes, labels = torch.tensor([[9.0, 4.0, 31.0, 22.0], [0, 0, 192, 256]]), torch.tensor([3, 1])
    first, last, centre = centernet.wanted(boxes, labels, (K, H, W), STRIDE)
    # In places: (2.25, 1), (7.75, 5.5), (5, 3.25); the second ends beyond the last place.
    assert first.cells.tolist() == [1 * W + 2, 0]
    assert first.offset.tolist() == [[0.25, 0], [0, 0]]
    assert last.cells.tolist() == [5 * W + 7, H * W - 1]
    assert last.offset.tolist() == [[0.75, 0.5], [1, 1]]
    assert centre.cells.tolist() == [3 * W + 5, 32 * W + 24]
    assert centre.offset.tolist() == [[0, 0.25], [0, 0]]
    for target in (first, last, centre):
        assert [heat.flatten()[target.cells].eq(1).tolist() for heat in target.heat] == [
            [False, True],
            [False, False],
            [True, False],
        ]
    # 5.5x4.5 places, drawn as 6x5: radius (-15.4 + sqrt(15.4^2 + 11.2 * 9)) / 2 = 1.49.
    near = [target.heat[2].flatten()[target.cells[0] + 1].item() for target in (first, centre)]
    assert near == pytest.approx([math.exp(-2), math.exp(-1 / (2 * 0.6**2))])


# --- losses -------------------------------------------------------------------------------------


def test_the_focal_loss_by_hand() -> None:
    heat = torch.tensor([1.0, 0.5, 0, 1]).view(1, 1, 2, 2)
    chances = [0.9, 0.4, 0.2, 0.6]
    logits = torch.tensor(chances).logit().view(1, 1, 2, 2)
    points = 0.1**2 * math.log(0.9) + 0.4**2 * math.log(0.6)
    others = 0.4**2 * math.log(0.6) * 0.5**4 + 0.2**2 * math.log(0.8)
    loss = centernet.focal_loss(logits, heat)
    assert float(loss) == pytest.approx(-(points + others) / 2, rel=1e-5)
    empty = centernet.focal_loss(logits[..., :1, 1:], torch.zeros(1, 1, 1, 1))
    assert float(empty) == pytest.approx(-(0.4**2) * math.log(0.6), rel=1e-5)


def test_tags_are_pulled_together_and_pushed_apart() -> None:
    first, last = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.2, 2.2, 4.0])
    # Means 1.1, 2.1 and 4.5; only the first two are nearly 1 apart: |1.1 - 1.6| with the change.
    pull, push = centernet.tag_losses(first, last)
    assert float(pull) == pytest.approx((2 * 0.1**2 + 2 * 0.1**2 + 2 * 0.5**2) / 3)
    assert float(push) == pytest.approx(0, abs=1e-6)
    _, push = centernet.tag_losses(torch.tensor([1.1, 1.6, 4.5]), torch.tensor([1.1, 1.6, 4.5]))
    assert float(push) == pytest.approx(2 * (1 - 0.5) / (3 * 2))


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_tags_are_not_pushed(count: int) -> None:
    pull, push = centernet.tag_losses(torch.full((count,), 1.0), torch.full((count,), 3.0))
    assert (float(pull), float(push)) == (2.0 * count, 0)


def test_terms_of_the_loss_are_those_of_the_maps() -> None:
    net = tiny_detector("centernet")
    images, sizes, boxes, labels = batch(masks=False)
    maps = perfect(boxes[0], labels[0], (16, 24))
    net.head = Fixed([with_batch(part, 2) for part in maps])
    labels[1] = labels[0]
    boxes[1] = boxes[0]
    losses = net(images, sizes, boxes, labels)
    assert losses["offset"] == 0
    assert losses["pull"] == 0
    assert losses["push"] == 0  # tags 1 and 2
    first = centernet.wanted(boxes[0], labels[0], (K, 16, 24), STRIDE)[0]
    net.head = Fixed([with_batch(shifted(part, 0.5), 2) for part in maps])
    losses = net(images, sizes, boxes, labels)
    assert losses["offset"].item() == pytest.approx(3 * 2 * 0.5 * 0.5**2)  # three points, x and y
    heat = first.heat.clamp(1e-6, 1 - 1e-6)
    assert losses["heatmap"].item() > float(centernet.focal_loss(heat.logit(), first.heat)) > 0


# --- from maps to boxes -------------------------------------------------------------------------


class Fixed(nn.Module):
    """A head that always says the same."""

    def __init__(self, maps: list[PointMaps]) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, x: Tensor) -> list[PointMaps]:
        return self.maps


def with_batch(maps: PointMaps, count: int) -> PointMaps:
    return PointMaps(*(None if x is None else x.expand(count, -1, -1, -1) for x in maps))


def shifted(maps: PointMaps, by: float) -> PointMaps:
    return maps._replace(offset=maps.offset + by)


def perfect(boxes: Tensor, labels: Tensor, size: tuple[int, int]) -> list[PointMaps]:
    """Maps that say what the targets of one image do; objects have the tags 1, 2, ..."""
    maps = []
    for kind, target in enumerate(centernet.wanted(boxes, labels, (K, *size), STRIDE)):
        offset, tag = torch.zeros(2, size[0] * size[1]), torch.zeros(1, size[0] * size[1])
        offset[:, target.cells] = target.offset.T
        tag[0, target.cells] = torch.arange(len(boxes)) + 1.0
        heat = target.heat.clamp(1e-4, 1 - 1e-4).logit()[None]
        tags = None if kind == 2 else tag.view(1, 1, *size)
        maps.append(PointMaps(heat, offset.view(1, 2, *size), tags))
    return maps


def found_in(maps: list[PointMaps], size: tuple[int, int] = (4 * H, 4 * W)) -> dict[str, Tensor]:
    first, last, centres = (centernet.peaks_of(part, 0, STRIDE) for part in maps)
    return centernet.decode(first, last, centres, size, SPEC)


def one_object(
    box: tuple[int, int, int, int],
    centre: tuple[int, int] | None,
    *,
    labels: tuple[int, int, int] = (2, 2, 2),
    tags: tuple[float, float] = (1.0, 1.0),
) -> dict[str, Tensor]:
    """What is found where one corner of each kind and a centre are, all in places.

    Their chances are 0.9, 0.6 and 0.3.
    """
    x1, y1, x2, y2 = box
    maps = []
    for kind, place in enumerate(((x1, y1), (x2, y2), centre)):
        heat = torch.full((1, K, H, W), -20.0)
        if place is not None:
            chance = torch.tensor((0.9, 0.6, 0.3)[kind])
            heat[0, labels[kind] - 1, place[1], place[0]] = chance.logit()
        tag = None if kind == 2 else torch.full((1, 1, H, W), tags[kind])
        maps.append(PointMaps(heat, torch.zeros(1, 2, H, W), tag))
    return found_in(maps)


def test_three_points_make_a_box_of_their_mean_score() -> None:
    found = one_object((5, 7, 20, 31), (12, 19))
    assert found["boxes"].tolist() == [[20, 28, 80, 124]]
    assert found["labels"].tolist() == [2]
    assert found["scores"].tolist() == pytest.approx([(0.9 + 0.6 + 0.3) / 3])


def test_offsets_are_added_to_places() -> None:
    boxes, labels = torch.tensor([[21.0, 30.5, 81.25, 125.75]]), torch.tensor([1])
    found = found_in(perfect(boxes, labels, (H, W)))
    assert torch.allclose(found["boxes"], boxes)


def test_a_box_without_a_centre_is_rejected() -> None:
    assert len(one_object((5, 7, 20, 31), (12, 19))["boxes"]) == 1
    assert len(one_object((5, 7, 20, 31), None)["boxes"]) == 0
    assert len(one_object((5, 7, 20, 31), (6, 8))["boxes"]) == 0  # in the box, not its middle
    assert len(one_object((5, 7, 20, 31), (12, 19), labels=(2, 2, 1))["boxes"]) == 0


def test_corners_of_different_objects_make_no_box() -> None:
    middle = (12, 19)
    assert len(one_object((5, 7, 20, 31), middle, labels=(2, 3, 2))["boxes"]) == 0
    assert len(one_object((5, 7, 20, 31), middle, tags=(1.0, 1.5))["boxes"]) == 1
    assert len(one_object((5, 7, 20, 31), middle, tags=(1.0, 1.6))["boxes"]) == 0
    assert len(one_object((20, 31, 5, 7), middle)["boxes"]) == 0


@pytest.mark.parametrize(
    ("side", "off", "kept"),
    [(24, 3, 1), (24, 4, 0), (36, 5, 1), (40, 3, 1), (40, 4, 0), (40, 5, 0)],
)
def test_the_centre_must_lie_in_a_third_of_small_and_a_fifth_of_large_boxes(
    side: int, off: int, kept: int
) -> None:
    # Within side / 6 below 150 pixels (37.5 places), from there on within side / 10.
    found = one_object((2, 2, 2 + side, 2 + side), (2 + side // 2 + off, 2 + side // 2))
    assert len(found["boxes"]) == kept


def test_the_best_of_several_centres_counts() -> None:
    boxes = torch.tensor([[2.0, 2.0], [26.0, 26.0]]) * STRIDE
    box = boxes.flatten()[None]
    points = torch.tensor([[14.0, 14.0], [15.0, 14.0], [14.0, 15.0]]) * STRIDE
    centres = centernet.Peaks(points, torch.tensor([0.8, 0.4, 0.9]), torch.tensor([1, 1, 2]), None)
    assert centernet.centre_scores(box, torch.tensor([1]), centres).tolist() == pytest.approx([0.8])


def test_boxes_are_cut_to_the_image() -> None:
    boxes, labels = torch.tensor([[100.0, 60.0, 190.0, 180.0]]), torch.tensor([1])
    found = found_in(perfect(boxes, labels, (H, W)), (160, 150))
    assert torch.allclose(found["boxes"], torch.tensor([[100.0, 60, 150, 160]]))


def test_objects_come_back_from_their_own_targets() -> None:
    # Corners inside and across each other, of the same class and of others.
    boxes = torch.tensor(
        [
            [8.5, 9.25, 60.0, 70.5],
            [30.0, 20.0, 180.0, 240.0],  # large
            [100.25, 100.0, 140.0, 130.75],
            [10.0, 150.0, 40.0, 250.0],
            [150.0, 8.0, 186.5, 60.0],
        ]
    )
    labels = torch.tensor([1, 1, 2, 3, 1])
    found = found_in(perfect(boxes, labels, (H, W)))
    sure = found["scores"] > 0.99
    order = found["boxes"][sure][:, 0].argsort()
    expected = boxes[:, 0].argsort()
    assert torch.allclose(found["boxes"][sure][order], boxes[expected], atol=1e-4)
    assert torch.equal(found["labels"][sure][order], labels[expected])
    assert int(sure.sum()) == len(boxes)


def test_a_place_is_a_peak_if_none_around_is_larger() -> None:
    heat = torch.zeros(1, 1, 5, 5)
    heat[0, 0, 1, 1], heat[0, 0, 1, 2], heat[0, 0, 4, 4] = 2.0, 1.0, 0.5
    peaks = centernet.peaks_of(PointMaps(heat, torch.zeros(1, 2, 5, 5)), 0, 1)
    assert peaks.points[:2].tolist() == [[1, 1], [4, 4]]
    assert peaks.scores[:2].tolist() == pytest.approx(torch.tensor([2.0, 0.5]).sigmoid().tolist())
    assert [2, 1] not in peaks.points[peaks.scores > 0].tolist()


def test_each_image_of_a_batch_is_read_by_itself() -> None:
    net = tiny_detector("centernet", score=0.0)
    assert isinstance(net, CenterNet)
    images, sizes, boxes, labels = batch(masks=False)
    pairs = [perfect(b, row, (16, 24)) for b, row in zip(boxes, labels, strict=True)]
    maps = [
        PointMaps(*(None if x is None else torch.cat([x, y]) for x, y in zip(a, b, strict=True)))
        for a, b in zip(*pairs, strict=True)
    ]
    net.head = Fixed(maps)
    for found, box in zip(net.eval()(images, sizes), boxes, strict=True):
        order = found["boxes"][:2, 0].argsort()
        assert torch.allclose(found["boxes"][:2][order], box)
