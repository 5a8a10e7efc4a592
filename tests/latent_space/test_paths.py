import math

import pytest
import torch

from modkit.latent_space import interpolate, make_plane
from tests.refusals import refusals


def test_the_plane_has_cells_of_equal_probability_with_the_first_coordinate_to_the_right():
    plane = make_plane(4).view(4, 4, 2)
    normal = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(normal.cdf(plane[2, :, 0]), torch.tensor([0.125, 0.375, 0.625, 0.875]))
    torch.testing.assert_close(normal.cdf(plane[:, 1, 1]), torch.tensor([0.875, 0.625, 0.375, 0.125]))


def test_linear_paths():
    a, b = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path = interpolate(a, b, 5)
    assert path.shape == (3, 5, 2, 2)
    for step, t in enumerate((0, 0.25, 0.5, 0.75, 1)):
        torch.testing.assert_close(path[:, step], (1 - t) * a + t * b)


def test_spherical_paths_keep_the_length_and_turn_evenly():
    rng = torch.Generator().manual_seed(0)
    a = torch.nn.functional.normalize(torch.randn(6, 10, generator=rng, dtype=torch.float64)) * 3
    b = torch.nn.functional.normalize(torch.randn(6, 10, generator=rng, dtype=torch.float64)) * 3
    path = interpolate(a, b, 7, path="spherical")
    assert (path.norm(dim=2) - 3).abs().max() < 1e-12
    cosines = (path[:, 1:] * path[:, :-1]).sum(2) / 9
    whole = torch.acos((a * b).sum(1) / 9)
    torch.testing.assert_close(torch.acos(cosines), (whole / 6)[:, None].expand(6, 6), rtol=1e-9, atol=0)
    torch.testing.assert_close(path[:, [0, -1]], torch.stack([a, b], 1))


def test_spherical_paths_of_other_lengths_and_of_one_direction():
    a, b = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 4.0], [3.0, 3.0]])
    path = interpolate(a, b, 3, path="spherical")
    torch.testing.assert_close(path[0, 1], torch.tensor([3 * math.sqrt(0.5)] * 2))
    torch.testing.assert_close(path[1, 1], torch.tensor([2.0, 2.0]))


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_half_way_between_draws_only_the_arc_is_as_long_as_they_are(path):
    a, b = torch.randn(2, 100, 200, generator=torch.Generator().manual_seed(0))
    middle = interpolate(a, b, 3, path=path)[:, 1].norm(dim=1).mean() / math.sqrt(200)
    assert float(middle) == pytest.approx(1.0 if path == "spherical" else math.sqrt(0.5), rel=0.02)


ONE = torch.ones(1, 2)
test_refuses = refusals(
    (lambda: make_plane(0), "make_plane expects side to be at least 1, got 0"),
    (lambda: interpolate(ONE, ONE, 1), "at least 2 steps, got .* and 1"),
    (lambda: interpolate(ONE, torch.ones(2, 2), 3), r"one shape .* got \(1, 2\), \(2, 2\)"),
    (lambda: interpolate(ONE, ONE, 3, path="round"), "is linear or spherical, got 'round'"),
    (lambda: interpolate(ONE, -ONE, 3, path="spherical"), "expects no latents of opposite directions"),
)
