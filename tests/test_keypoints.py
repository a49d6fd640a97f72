"""Crops and decoding, against hand-made figures, numpy, scipy and the formulas they come from."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from hrnet_search import keypoints
from hrnet_search.keypoints import (
    affine,
    apply,
    box_view,
    crop,
    decode,
    fit,
    inverse,
    smooth,
    stride_of,
)

SIZE = (256, 192)


def test_it_needs_torch_pillow_and_math_alone() -> None:
    tree = ast.parse(Path(keypoints.__file__).read_text())
    tops = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    tops |= {n.module or "." for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {top.split(".")[0] for top in tops} == {"torch", "PIL", "math"}


# --- boxes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "size", "centre", "extent"),
    [
        # Upright: 120 high is 90 wide at 3:4, times 1.25.
        ((100, 50, 40, 120), (256, 192), (120, 110), (112.5, 150)),
        # Lying: 120 wide is 160 high.
        ((10, 20, 120, 40), (256, 192), (70, 40), (150, 200)),
        ((0, 0, 30, 40), (256, 192), (15, 20), (37.5, 50)),  # of the right shape
        ((0, 0, 30, 40), (64, 64), (15, 20), (50, 50)),
        ((5, 5, 1, 1), (96, 192), (5.5, 5.5), (2.5, 1.25)),
    ],
)
def test_the_view_of_a_box_by_hand(
    box: tuple[float, ...],
    size: tuple[int, int],
    centre: tuple[float, float],
    extent: tuple[float, float],
) -> None:
    found = box_view(box, size)
    assert found[0] == pytest.approx(centre)
    assert found[1] == pytest.approx(extent)


def test_padding_and_fitting_may_be_done_in_any_order() -> None:
    _, extent = box_view((3, 4, 50, 20), SIZE, 1.1)
    assert extent == pytest.approx([1.1 * side for side in fit((50, 20), SIZE)])
    assert fit(extent, SIZE) == pytest.approx(extent)


# --- matrices ------------------------------------------------------------------------------------


def test_the_matrix_without_rotation_by_hand() -> None:
    matrix = affine((120, 110), (96, 128), SIZE)  # twice as large
    assert matrix.tolist() == [[2, 0, 96 - 240], [0, 2, 128 - 220]]
    places = torch.tensor([[120.0, 110.0], [72.0, 46.0], [168.0, 174.0]])
    assert apply(matrix, places).tolist() == [[96, 128], [0, 0], [192, 256]]


def test_a_rotation_turns_the_image_anticlockwise_about_the_centre() -> None:
    matrix = affine((10, 20), (192, 256), SIZE, 90)
    # What was right of the centre is above it in the crop, what was above is left of it.
    places = apply(matrix, torch.tensor([[10.0, 20.0], [15.0, 20.0], [10.0, 13.0]]))
    assert torch.allclose(places, torch.tensor([[96.0, 128.0], [96.0, 123.0], [89.0, 128.0]]))


def test_the_width_alone_decides_the_scale() -> None:
    assert torch.equal(affine((1, 2), (30, 40), SIZE, 7), affine((1, 2), (30, 99), SIZE, 7))


@pytest.mark.parametrize("seed", range(8))
def test_the_matrix_is_the_one_through_the_official_three_points(seed: int) -> None:
    # `get_affine_transform`: the centre, a point half an extent's width above it, turned, and the
    # corner of a right angle over both; cv2 solves the six equations that they make.
    rng = np.random.default_rng(seed)
    centre, width, degrees = rng.uniform(0, 500, 2), rng.uniform(20, 400), rng.uniform(-90, 90)
    size = tuple(rng.integers(32, 400, 2).tolist())
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    middle = np.array([size[1] / 2, size[0] / 2])
    pairs = (
        (centre, centre + np.array([width / 2 * sin, -width / 2 * cos])),
        (middle, middle - np.array([0, size[1] / 2])),
    )
    source, target = (
        np.array([first, second, second + np.array([second[1] - first[1], first[0] - second[0]])])
        for first, second in pairs
    )
    expected = np.linalg.solve(np.column_stack([source, np.ones(3)]), target).T
    found = affine(tuple(centre.tolist()), (width, width * 2), size, degrees)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-8)


def test_the_inverse_leads_back_alone_and_in_batches() -> None:
    matrices = torch.stack([affine((50, 60), (70, 80), SIZE, turn) for turn in (0, 30, -81)])
    places = torch.rand(3, 17, 2, generator=torch.Generator().manual_seed(0)) * 200
    assert torch.allclose(apply(inverse(matrices), apply(matrices, places)), places, atol=1e-4)
    assert torch.allclose(apply(inverse(matrices[1]), apply(matrices[1], places[1])), places[1])


def test_the_crop_of_a_whole_image_is_the_identity_exactly() -> None:
    matrix = affine((192 / 2, 256 / 2), fit((192, 256), SIZE), SIZE)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0]]
    places = torch.rand(5, 2) * 200
    assert torch.equal(apply(matrix, places), places)


# --- pictures ------------------------------------------------------------------------------------


def plane(kind: type = np.float32) -> np.ndarray:
    """An image (90, 120) whose value is x + 1.5 y."""
    rows, columns = np.mgrid[:90, :120]
    return (columns + 1.5 * rows).astype(kind)


@pytest.mark.parametrize("turn", [0, 33, -120])
@pytest.mark.parametrize("width", [9, 30, 55])
def test_every_pixel_of_a_crop_is_where_the_matrix_says(turn: float, width: float) -> None:
    # Bilinear interpolation of a plane is exact, so a grey value tells the place.
    matrix = affine((57.3, 44.8), (width, width), (24, 32), turn)
    found = np.asarray(crop(Image.fromarray(plane()), matrix, (24, 32)))
    rows, columns = np.mgrid[:24, :32]
    places = apply(inverse(matrix), torch.from_numpy(np.stack([columns, rows], -1) * 1.0))
    expected = places[..., 0] + 1.5 * places[..., 1]
    assert found.shape == (24, 32)
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_grey_levels_lose_their_fraction() -> None:
    picture = Image.fromarray(plane(np.uint8))
    matrix = affine((40.3, 30.4), (20, 20), (20, 20))
    exact = np.asarray(crop(Image.fromarray(plane()), matrix, (20, 20)))
    found = np.asarray(crop(picture, matrix, (20, 20))).astype(float)
    assert np.array_equal(found, np.floor(exact + 1e-4))


def test_whole_pixels_and_quarter_turns_are_exact() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    moved = crop(Image.fromarray(pixels), affine((14, 15), (20, 20), (20, 20)), (20, 20))
    assert np.array_equal(np.asarray(moved), pixels[5:25, 4:24])
    turned = crop(Image.fromarray(pixels), affine((20, 20), (40, 40), (40, 40), 90), (40, 40))
    # Pixel (20, 20) stays; the first row would come from a column beyond the last.
    change = np.asarray(turned)[1:].astype(int) - np.rot90(pixels)[:-1]
    assert np.abs(change).max() <= 1  # the cosine of 90 degrees is not quite 0


def test_outside_the_picture_is_black() -> None:
    white = Image.new("RGB", (10, 10), (255, 255, 255))
    found = np.asarray(crop(white, affine((0, 0), (20, 20), (20, 20)), (20, 20)))
    # The picture's first pixel is the crop's (10, 10).
    assert (found[10:, 10:] == 255).all()
    assert (found[:10] == 0).all()
    assert (found[:, :10] == 0).all()
    far = np.asarray(crop(white, affine((500, 0), (20, 20), (20, 20)), (20, 20)))
    assert (far == 0).all()


# --- decoding ------------------------------------------------------------------------------------


def decoded(values: dict[tuple[int, int], float], decoder: str = "quarter") -> list[float]:
    """x, y, score of a (5, 6) map with these values at (row, column), zero elsewhere."""
    heatmaps = torch.zeros(1, 1, 5, 6)
    for (row, column), value in values.items():
        heatmaps[0, 0, row, column] = value
    return decode(heatmaps, decoder=decoder, sigma=1.0)[0, 0].tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({(2, 3): 0.9}, [12, 8, 0.9]),  # neighbours alike: no shift
        ({(2, 3): 0.9, (2, 4): 0.5}, [13, 8, 0.9]),
        ({(2, 3): 0.9, (2, 2): 0.5, (2, 4): 0.4}, [11, 8, 0.9]),
        ({(2, 3): 0.9, (1, 3): 0.5}, [12, 7, 0.9]),
        ({(2, 3): 0.9, (3, 3): 0.5, (2, 4): 0.1}, [13, 9, 0.9]),
        ({(2, 3): 0.9, (3, 4): 0.8}, [12, 8, 0.9]),  # diagonals do not count
        ({(0, 3): 0.9, (0, 4): 0.5, (1, 3): 0.5}, [12, 0, 0.9]),  # on each border: no shift
        ({(4, 3): 0.9, (4, 4): 0.5}, [12, 16, 0.9]),
        ({(2, 0): 0.9, (3, 0): 0.5, (2, 1): 0.5}, [0, 8, 0.9]),
        ({(2, 5): 0.9, (3, 5): 0.5}, [20, 8, 0.9]),
        ({(2, 3): 0.9, (2, 4): 0.9}, [13, 8, 0.9]),  # of equal peaks the first
        ({(3, 1): 0.9, (1, 4): 0.9}, [16, 4, 0.9]),
        ({}, [0, 0, 0]),
    ],
)
def test_quarter_by_hand(values: dict[tuple[int, int], float], expected: list[float]) -> None:
    assert decoded(values) == pytest.approx(expected)


def test_parabola_by_hand() -> None:
    # Logarithms -2, 0, -1 on x: 0.5 (-1 + 2) / (2 + 1) = 1/6 of a pixel; none on y.
    values = {(2, 3): 1.0, (2, 2): math.exp(-2), (2, 4): math.exp(-1)}
    values |= {(1, 3): 0.5, (3, 3): 0.5}
    assert decoded(values, "parabola") == pytest.approx([12 + 4 / 6, 8, 1])


def test_nothing_is_found_nowhere_in_an_empty_map() -> None:
    for decoder in keypoints.STEPS:
        assert decoded({}, decoder) == [0, 0, 0]


@pytest.mark.parametrize("decoder", ["parabola", "dark"])
def test_the_step_is_bounded_whatever_the_map(decoder: str) -> None:
    maps = torch.randn(50, 4, 12, 9, generator=torch.Generator().manual_seed(0))
    peaks = decode(maps, decoder="quarter", sigma=2.0)
    found = decode(maps, decoder=decoder, sigma=2.0)
    assert torch.isfinite(found).all()
    assert (found - peaks)[..., :2].abs().max() <= 9  # two pixels and a quarter
    assert torch.equal(found[..., 2], peaks[..., 2])


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
def test_smoothing_is_scipys_gaussian_filter_brought_to_the_old_height(sigma: float) -> None:
    maps = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(1))
    found = smooth(maps, sigma)
    for one, other in zip(maps.flatten(0, 1), found.flatten(0, 1), strict=True):
        plain = ndimage.gaussian_filter(
            one.numpy(), sigma, mode="constant", radius=math.ceil(3 * sigma)
        )
        expected = plain * one.max().item() / plain.max()
        np.testing.assert_allclose(other, expected, rtol=1e-4, atol=1e-6)


def slanted(x: float, y: float, covariance: list[list[float]]) -> Tensor:
    """Map (1, 1, 40, 40) of a Gaussian with this covariance."""
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    away = torch.stack([columns - x, rows - y], dim=-1)
    inner = (away @ torch.tensor(covariance).inverse() * away).sum(-1)
    return torch.exp(-inner / 2)[None, None]


def test_dark_finds_the_top_of_a_slanted_gaussian_and_the_parabolas_do_not() -> None:
    # A Gaussian stays one when smoothed, and one Newton step on its logarithm is exact.
    heatmap = slanted(20.4, 18.7, [[6.0, 3.0], [3.0, 4.0]])
    found = decode(heatmap, decoder="dark", sigma=2.0)[0, 0]
    assert found[:2].tolist() == pytest.approx([81.6, 74.8], abs=0.05)
    axes = decode(heatmap, decoder="parabola", sigma=2.0)[0, 0]
    assert (axes[:2] - torch.tensor([81.6, 74.8])).abs().max() > 0.3


def test_dark_bears_noise_better_than_the_parabolas() -> None:
    generator = torch.Generator().manual_seed(0)
    places = 15 + 10 * torch.rand(200, 2, generator=generator)
    maps = torch.cat([slanted(x, y, [[4.0, 0], [0, 4.0]]) for x, y in places.tolist()])
    maps = maps + 0.02 * torch.randn(maps.shape, generator=generator)
    errors = {
        decoder: (decode(maps, decoder=decoder, sigma=2.0)[:, 0, :2] / 4 - places).norm(dim=1)
        for decoder in keypoints.STEPS
    }
    assert errors["dark"].mean() < 0.5 * errors["parabola"].mean()


@pytest.mark.parametrize("branch", range(4))
@pytest.mark.parametrize("size", [(256, 192), (33, 47), (100, 72), (32, 32)])
def test_the_stride_of_heatmaps_follows_from_their_size(size: tuple[int, int], branch: int) -> None:
    shape = size
    for _ in range(2 + branch):  # what each stride-2 convolution leaves
        shape = ((shape[0] + 1) // 2, (shape[1] + 1) // 2)
    assert stride_of(size, shape) == 4 * 2**branch


def test_a_joint_is_as_many_strides_from_the_corner_as_its_peak_is() -> None:
    heatmap = slanted(20.4, 18.7, [[4.0, 0], [0, 4.0]])
    for stride in (4, 8, 32):
        found = decode(heatmap, decoder="parabola", sigma=2.0, stride=stride)[0, 0, :2]
        assert found.tolist() == pytest.approx([20.4 * stride, 18.7 * stride], abs=0.01 * stride)


@pytest.mark.parametrize("decoder", ["quarter", "parabola", "dark"])
def test_decoding_moves_with_the_image(decoder: str) -> None:
    maps = torch.rand(4, 3, 30, 24, generator=torch.Generator().manual_seed(2)) ** 2
    found = decode(maps, decoder=decoder, sigma=1.0)
    mirrored = decode(maps.flip(-1), decoder=decoder, sigma=1.0)
    assert torch.allclose((24 - 1) * 4 - mirrored[..., 0], found[..., 0], atol=1e-3)
    assert torch.allclose(mirrored[..., 1:], found[..., 1:], atol=1e-3)
