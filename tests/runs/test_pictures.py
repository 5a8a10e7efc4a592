import io

import numpy as np
import pytest
import torch
from PIL import Image

from modkit.runs.pictures import draw_picture, draw_scatter, encode_png, make_image_grid, round_images
from modkit.types import TensorType
from tests.refusals import refusals


def test_grey_levels_are_exact_and_outside_values_are_clipped():
    values = torch.tensor([-5.0, -1.0, -0.5, 0.0, 0.25, 1.0, 7.0, float("nan"), float("inf"), -float("inf")])
    grid = make_image_grid(values.view(1, 1, 1, 10), (-1.0, 1.0), padding=0)
    assert grid.dtype == torch.uint8 and grid.shape[0] == 1 and grid.shape[2] == 260
    want = [0, 0, 64, 128, 159, 255, 255, 0, 255, 0]  # round(255 (v + 1) / 2), halves to even
    assert grid[0, 0, ::26].tolist() == want and grid[0, 0, 25::26].tolist() == want


def test_images_lie_row_by_row_with_padding():
    x = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 100, 200) / 4
    grid = make_image_grid(x, (0.0, 1.0), columns=3, padding=2)
    assert grid.shape == (1, 2 * 102 + 2, 3 * 202 + 2)
    want = torch.zeros(206, 608, dtype=torch.uint8)
    for index, level in enumerate((0, 64, 128, 191, 255)):
        top, left = 2 + 102 * (index // 3), 2 + 202 * (index % 3)
        want[top : top + 100, left : left + 200] = level
    assert torch.equal(grid[0], want)


@pytest.mark.parametrize(("num", "size", "factor"), [(64, 16, 2), (1, 16, 16), (1, 254, 1), (1, 253, 2), (100, 32, 1)])
def test_small_images_are_enlarged_by_the_least_whole_factor(num, size, factor):
    x = torch.rand(num, 3, size, size)
    grid = make_image_grid(x, (0.0, 1.0))
    columns = round(num**0.5)
    assert grid.shape == (3, *[columns * (size * factor + 1) + 1] * 2) and grid.shape[2] >= 256
    last = grid[:, -1 - size * factor : -1, -1 - size * factor : -1]
    want = (x[-1].double() * 255).round().byte()
    for row in range(factor):
        for column in range(factor):
            assert torch.equal(last[:, row::factor, column::factor], want)


def test_channels_other_than_one_or_three_are_drawn_as_their_mean():
    x = torch.rand(4, 4, 300, 300)
    assert torch.equal(make_image_grid(x, (0.0, 1.0)), make_image_grid(x.double().mean(1, keepdim=True), (0.0, 1.0)))
    assert make_image_grid(torch.full((1, 2, 1, 1), float("inf")), None).shape[0] == 1


def test_without_a_range_the_percentiles_of_the_batch_count():
    x = torch.linspace(0, 1000, 300 * 300).view(1, 1, 300, 300)
    grid = make_image_grid(x, None, padding=0)[0].flatten().double()
    want = ((x.flatten().double() - 1) / 998).clamp(0, 1) * 255
    assert (grid - want).abs().max() <= 0.51
    assert make_image_grid(torch.full((1, 1, 300, 300), 3.0), None, padding=0).unique().tolist() == [128]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.int64])
def test_dtypes_agree(dtype):
    x = torch.randint(0, 3, (4, 1, 8, 8))
    assert torch.equal(make_image_grid(x.to(dtype), (0.0, 2.0)), make_image_grid(x.float(), (0.0, 2.0)))


def test_a_point_is_a_spot_at_its_place():
    image = draw_scatter(torch.tensor([[0.25, 0.75]]), (0.0, 1.0), size=8)
    assert image.shape == (1, 8, 8) and image.dtype == torch.uint8
    want = torch.full((8, 8), 255)
    want[1, 2] = 0
    for row, column in ((0, 2), (2, 2), (1, 1), (1, 3)):
        want[row, column] = round(255 * (1 - np.log1p(0.5) / np.log(2)))
    for row, column in ((0, 1), (0, 3), (2, 1), (2, 3)):
        want[row, column] = round(255 * (1 - np.log1p(0.25) / np.log(2)))
    assert torch.equal(image[0].long(), want)


def test_scatter_is_the_spread_histogram_of_the_points_within_the_limits():
    points = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)).double()
    count = np.histogram2d(-points[:, 1].numpy(), points[:, 0].numpy(), bins=16, range=[[-2, 2], [-2, 2]])[0]
    padded = np.pad(count, 1)
    density = sum(
        padded[1 + i : 17 + i, 1 + j : 17 + j] / 2 ** (abs(i) + abs(j)) for i in (-1, 0, 1) for j in (-1, 0, 1)
    )
    want = np.rint(255 * (1 - np.log1p(density) / np.log1p(density.max())))
    assert draw_scatter(points, (-2.0, 2.0), size=16)[0].tolist() == want.astype(int).tolist()


def test_scatter_draws_the_ends_of_its_limits_and_nothing_beyond():
    edge = draw_scatter(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), (0.0, 1.0), size=32)[0]
    assert edge[31, 0] == 0 and edge[0, 31] == 0
    outside = torch.tensor([[1.1, 0.5], [0.5, float("nan")], [float("inf"), 0.5]])
    assert draw_scatter(outside, (0.0, 1.0), size=32).unique().tolist() == [255]
    assert (draw_scatter(torch.ones(3, 2))[0, 254:258, 254:258] == 0).sum() == 1


def test_pictures_follow_the_type():
    pairs, images = torch.randn(50, 2), torch.rand(4, 3, 9, 9) * 2 - 1
    assert torch.equal(draw_picture(pairs, TensorType((2,))), draw_scatter(pairs))
    assert torch.equal(draw_picture(pairs, TensorType((2,), (-1, 1))), draw_scatter(pairs, (-1.0, 1.0)))
    assert torch.equal(draw_picture(images, TensorType((3, 9, 9), (-1, 1))), make_image_grid(images, (-1.0, 1.0)))
    volumes = torch.rand(4, 1, 5, 9, 9)
    assert torch.equal(draw_picture(volumes, TensorType((1, 5, 9, 9))), make_image_grid(volumes[:, :, 2], None))
    codes = torch.randint(0, 7, (4, 5, 6))
    assert torch.equal(draw_picture(codes, TensorType((5, 6), classes=7)), make_image_grid(codes[:, None], (0.0, 6.0)))
    vectors = torch.randn(6, 10)
    assert torch.equal(draw_picture(vectors, TensorType((10,))), make_image_grid(vectors[None, None], None))
    labels = torch.tensor([0, 1, 2, 1])
    assert draw_picture(labels, TensorType((), classes=3))[0, 1:-1:254, 1].tolist() == [0, 128, 255, 128]


def test_opacity_is_laid_on_white():
    x = torch.tensor([[[[-1.0, -1.0, -1.0]], [[1.0, 1.0, 1.0]], [[-1.0, -1.0, -1.0]], [[1.0, 0.0, -1.0]]]])
    type = TensorType((4, 1, 3), range=(-1.0, 1.0))
    grid = draw_picture(x, type)
    middle = grid[:, grid.shape[1] // 2]
    assert [tuple(middle[:, column].tolist()) for column in (20, 120, 240)] == [
        (0, 255, 0),
        (128, 255, 128),
        (255,) * 3,
    ]
    assert round_images(x, type)[0, 3, 0].tolist() == [255, 128, 0]


def test_curves_join_their_values():
    time = torch.linspace(0, 1, 128)
    x = torch.stack([2 * time - 1, torch.ones(128)])[None]
    panel = draw_picture(x, TensorType((2, 128), (-1.0, 1.0)))[0, 1:-1:2, 1:-1:2]
    assert panel.shape == (64, 128)
    rows = np.rint((1 - time.double().numpy()) * 63).astype(int)
    want = np.full((64, 128), 255)
    want[0] = 0  # the channel of ones
    for column, (first, last) in enumerate(zip(np.append(rows[:1], rows[:-1]), rows)):
        want[last : first + 1, column] = 0
    assert panel.tolist() == want.tolist()
    jump = torch.tensor([[[0.0, 1.0]]]).repeat_interleave(100, 2)
    step = draw_picture(jump, TensorType((1, 200), (0.0, 1.0)))[0, 1:-1, 1:-1]
    assert (step == 0).any(dim=0).all() and step[:, 200].sum() == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_every_pixel(channels):
    image = torch.randint(0, 256, (channels, 13, 7), dtype=torch.uint8)
    data = encode_png(image)
    read = np.asarray(Image.open(io.BytesIO(data)))
    assert read.dtype == np.uint8 and data == encode_png(image)
    assert torch.equal(torch.tensor(read).reshape(13, 7, channels).permute(2, 0, 1), image)


IMAGES = torch.zeros(2, 1, 4, 4)

test_mistakes_are_refused = refusals(
    (lambda: make_image_grid(IMAGES[0], None), r"n c h w, got shape \(1, 4, 4\)"),
    (lambda: make_image_grid(IMAGES[:0], None), "n c h w"),
    (lambda: make_image_grid(IMAGES, (1.0, 1.0)), "low < high"),
    (lambda: make_image_grid(IMAGES, None, columns=0), "columns to be at least 1"),
    (lambda: make_image_grid(IMAGES, None, padding=-1), "padding to be at least 0"),
    (lambda: draw_scatter(torch.zeros(3, 3)), r"n 2, got shape \(3, 3\)"),
    (lambda: draw_scatter(torch.zeros(3, 2), (1.0, 0.0)), "low < high"),
    (lambda: draw_picture(IMAGES, TensorType((1, 4, 5))), r"shape \(1, 4, 5\), got \(2, 1, 4, 4\)"),
    (lambda: draw_picture(torch.zeros(1, 1, 1, 1, 1, 1), TensorType((1,) * 5)), "rank 0 to 4"),
    (lambda: encode_png(IMAGES[0]), "got torch.float32"),
    (lambda: encode_png(torch.zeros(2, 4, 4, dtype=torch.uint8)), "1, 3 or 4 channels"),
)
