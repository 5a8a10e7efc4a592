"""Sprites: their outlines against areas and brute force, their factors, and that a picture never changes."""

import math

import pytest
import torch

from modkit.data.binarized import Binarized
from modkit.data.corrupted import Corrupted
from modkit.data.corruptions import Mask
from modkit.data.splits import hash_contents, read_samples
from modkit.data.sprites import Sprites, _draw
from modkit.kinds import DataExtras, read_extras
from modkit.rng import Rng
from tests.refusals import refusals

SIDE = 0.5606601717798213  # the heart's discs in a circle of radius 1


def draw(shape, scale=5, orientation=0, x=16, y=16, size=32):
    return _draw(*torch.tensor([[shape], [scale], [orientation], [x], [y]]), size=size)[0]


def is_inside(shape, across, up):
    """Whether points in the unit circle belong to a shape that stands upright, from the inequalities of its pieces."""
    if shape == 0:
        return (across.abs() < math.sqrt(0.5)) & (up.abs() < math.sqrt(0.5))
    if shape == 1:
        return across**2 + 4 * up**2 < 1
    middle = up + math.sqrt(2) * 0.26120387496374153 * SIDE  # above the middle of the square
    discs = [(across - sign * SIDE * math.sqrt(0.5)) ** 2 + (middle - SIDE * math.sqrt(0.5)) ** 2 for sign in (-1, 1)]
    return (across.abs() + middle.abs() < SIDE * math.sqrt(2)) | (discs[0] < SIDE**2) | (discs[1] < SIDE**2)


@pytest.mark.parametrize("shape", range(3))
@pytest.mark.parametrize("orientation", [0, 7])
def test_greys_are_the_shares_of_pixels_that_a_shape_covers(shape, orientation):
    size, fine = 32, 16
    grid = (torch.arange(size * fine, dtype=torch.float64) + 0.5) / (size * fine)
    up, across = torch.meshgrid(0.25 + 0.5 * 16 / 31 - grid, grid - (0.25 + 0.5 * 16 / 31), indexing="ij")
    angle = 2 * math.pi * orientation / 39
    turned = math.cos(angle) * across + math.sin(angle) * up, math.cos(angle) * up - math.sin(angle) * across
    covered = is_inside(shape, 4 * turned[0], 4 * turned[1]).double()
    expected = covered.view(size, fine, size, fine).mean((1, 3))
    found = draw(shape, orientation=orientation)
    # distances are exact at straight edges along the axes; at corners and slanted edges a pixel may differ by .25
    assert (found - expected).abs().max() < 0.26
    assert (found - expected).abs().mean() < 0.004


@pytest.mark.parametrize(
    ("shape", "area"), [(0, 2.0), (1, math.pi / 2), (2, (4 + math.pi) * SIDE**2)], ids=["square", "ellipse", "heart"]
)
def test_areas(shape, area):
    for scale in range(6):
        radius = (0.5 + 0.1 * scale) / 4
        assert float(draw(shape, scale, 3, size=128).mean()) == pytest.approx(area * radius**2, rel=0.01)


def test_factors_do_what_they_say():
    right, up = draw(0, x=31), draw(1, y=0)
    columns = torch.arange(32) + 0.5
    assert float((right.sum(0) * columns).sum() / right.sum()) == pytest.approx(24, abs=0.01)
    assert float((up.sum(1) * columns).sum() / up.sum()) == pytest.approx(8, abs=0.01)
    assert torch.allclose(draw(2, orientation=0), draw(2, orientation=39), rtol=0, atol=1e-12)
    for shape in range(3):  # none is cut: the outermost pixels are covered by half at most
        for x, y in ((0, 0), (31, 31)):
            whole, moved = draw(shape, x=x, y=y, size=64), draw(shape, size=64)
            assert float(whole.sum()) == pytest.approx(float(moved.sum()), rel=0.01)


@pytest.mark.parametrize("size", [8, 9, 32, 50])
def test_what_lies_outside_a_window_is_empty(size, monkeypatch):
    gen = torch.Generator().manual_seed(0)
    factors = [torch.randint(num, (200,), generator=gen) for num in (3, 6, 40, 32, 32)]
    factors[3][:100], factors[4][:100] = torch.tensor([0, 31]).repeat(50), torch.tensor([0, 0, 31, 31]).repeat(25)
    drawn = _draw(*factors, size=size)

    def place_whole(middle, size):
        pixels = torch.arange(size).expand(len(middle), size)
        return pixels, (pixels.double() + 0.5) / size - middle[:, None]

    monkeypatch.setattr("modkit.data.sprites._place_windows", place_whole)
    assert torch.equal(_draw(*factors, size=size), drawn)


@pytest.mark.wide
def test_each_combination_of_factors_is_in_one_split_once():
    data = Sprites(size=8)
    assert sum(data.splits.values()) == 737_280
    code, total = [], 1
    for split, num in data.splits.items():
        values = data.read_fields(split, range(num))
        number, total = torch.zeros(num, dtype=torch.int64), 1
        for name, one in values.items():
            number, total = number * data.fields[name].classes + one, total * data.fields[name].classes
        code.append(number)
    assert len(torch.cat(code).unique()) == total == 737_280
    spread = [values.bincount().double() / num for values in data.read_fields("test", range(10_000)).values()]
    assert all((one * len(one) - 1).abs().max() < 6 * math.sqrt(len(one) / 10_000) for one in spread)


def test_pictures_differ_except_for_a_full_turn():
    data, rng = Sprites(size=32), Rng(0)
    batch = data.read("test", range(1500), rng)
    turned = batch.fields["orientation"] != 39
    rows = batch.tensor.flatten(1)[turned]
    assert len(rows.unique(dim=0)) == len(rows)
    neighbours = torch.stack([draw(1, x=x, y=y) for x in (8, 9) for y in (8, 9)])
    assert len((neighbours * 255).round().flatten(1).unique(dim=0)) == 4


def test_a_picture_is_a_function_of_its_index():
    data = Sprites(size=32)
    batch = data.read("train", [5, 700_000, 5], Rng(1))
    assert torch.equal(batch.tensor[0], batch.tensor[2])
    assert torch.equal(data.read("train", [700_000], Rng(2)).tensor[0], batch.tensor[1])
    assert hash_contents(batch.tensor.numpy().tobytes()) == "457c4ef618f89a591a09873f24afd1fc"
    x = read_samples(data, "train", [5], Rng(0)).tensor
    assert x.dtype == torch.float32 and float(x.min()) == -1.0 and float(x.max()) == 1.0
    assert len({Sprites(size=8).key, Sprites(size=9).key, Sprites(size=8, num_test=9).key}) == 3


def test_data_made_of_others_keep_their_factors():
    for data in (Binarized(data=lambda: Sprites(size=8)), Corrupted(data=lambda: Sprites(size=8), corruption=Mask)):
        assert read_extras(data, DataExtras).factors == ("shape", "scale", "orientation", "pos_x", "pos_y")


test_refusals = refusals(
    (lambda: Sprites(size=7), r"Sprites expects size to be in \[8, 256\], got 7"),
    (lambda: Sprites(num_test=737_280), r"Sprites expects num_test to be in \[1, 737280\), got 737280"),
    (lambda: Sprites(size=8).read("validation", [0], Rng(0)), "Sprites expects a split"),
)
