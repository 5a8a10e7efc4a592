import math

import pytest
import torch

from modkit.augmentations.warp import warp


def move(right, down, angle=0.0):
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[[cos, -sin, right], [sin, cos, down], [0.0, 0.0, 1.0]]], dtype=torch.float64)


@pytest.fixture
def x():
    return torch.randn(1, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_pixels_between_are_weighed_linearly_and_those_outside_are_mirrored(x):
    found = warp(x, move(0.25, -1.5))
    padded = torch.cat([x[:, :, :2].flip(2), x, x[:, :, -2:].flip(2)], 2)
    padded = torch.cat([padded[..., :2].flip(3), padded, padded[..., -2:].flip(3)], 3)
    down = (padded[:, :, :-1] + padded[:, :, 1:]) / 2  # row i lies between i - 2 and i - 1
    want = 0.75 * down[:, :, 0:4, 2:7] + 0.25 * down[:, :, 0:4, 3:8]
    torch.testing.assert_close(found, want)


def test_a_quarter_turn_is_that_of_torch():
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(warp(x, move(0, 0, math.pi / 2)), x.rot90(1, (2, 3)))


def test_inside_it_is_grid_sample(x):
    """Half as large a map stays inside."""
    matrix = move(0.3, 0.2, 0.4) * torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)
    scale = torch.diag(torch.tensor([5 / 2, 4 / 2, 1], dtype=torch.float64))  # of torch's units in pixels
    theta = (scale.inverse() @ matrix @ scale)[:, :2]
    grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    want = torch.nn.functional.grid_sample(x, grid, align_corners=False)
    torch.testing.assert_close(warp(x, matrix), want)


def test_identity_to_the_bit_and_dtype():
    x = torch.rand(3, 1, 7, 6)
    assert torch.equal(warp(x, torch.eye(3).expand(3, 3, 3)), x)
    assert warp(x.bfloat16(), move(0.5, 0).float().expand(3, 3, 3)).dtype == torch.bfloat16


def test_it_is_differentiated_twice(x):
    x = x.requires_grad_()
    matrix = move(0.3, -0.6, 1.0)
    assert torch.autograd.gradcheck(lambda x: warp(x, matrix), x)
    assert torch.autograd.gradgradcheck(lambda x: warp(x, matrix).tanh(), x)
