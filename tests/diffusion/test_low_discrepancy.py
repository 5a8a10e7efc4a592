from functools import partial

import pytest
import torch

from modkit.diffusion.low_discrepancy import LowDiscrepancy
from modkit.diffusion.schedules import EDM, Linear
from modkit.diffusion.time_sampling import LogNormal, Uniform
from modkit.rng import Rng


def spread(schedule, times, num, rng):
    return LowDiscrepancy(schedule, times=lambda schedule, x: times(schedule))(num, rng)


def quantiles(num, rng):
    """The u_i of uniform times 1 - u_i."""
    return 1 - spread(EDM(), Uniform, num, rng)


@pytest.mark.parametrize("num", [1, 2, 8, 256])
def test_a_power_of_two_times_are_vdm_s(num):
    u = quantiles(num, Rng(3))
    torch.testing.assert_close(
        u.sort().values, ((u[0] + torch.arange(num, dtype=torch.float64) / num) % 1).sort().values, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("num", [5, 100, 1000])
def test_any_number_of_times_leaves_no_gap(num):
    """Less than two of the intervals of a power of two below it."""
    u = quantiles(num, Rng(3)).sort().values
    gaps = torch.cat([u.diff(), u[:1] + 1 - u[-1:]])
    assert gaps.max() < 2 / num


def test_a_split_batch_has_the_times_of_a_whole_one_and_each_piece_is_spread():
    whole = quantiles(32, Rng(3))
    pieces = [quantiles(8, Rng(3).rows(first)) for first in range(0, 32, 8)]
    assert torch.equal(torch.cat(pieces), whole)
    for piece in pieces:
        torch.testing.assert_close(piece.sort().values.diff(), torch.full((7,), 1 / 8, dtype=torch.float64))
    assert not torch.equal(quantiles(32, Rng(4)), whole)


@pytest.mark.wide
def test_the_mean_of_a_batch_varies_by_its_number_squared():
    means = torch.stack([quantiles(16, Rng(seed)).mean() for seed in range(2000)])
    expected = 1 / (12 * 16**2)  # 1 / (12 * 16) if they were independent
    assert means.mean() == pytest.approx(0.5, abs=4 * (expected / 2000) ** 0.5)
    assert means.var() == pytest.approx(expected, rel=0.1)


@pytest.mark.wide
def test_over_steps_each_row_has_the_distribution_that_is_spread():
    u = torch.stack([quantiles(3, Rng(seed)) for seed in range(4000)]).sort(dim=0).values
    even = (torch.arange(4000) + 0.5) / 4000
    assert (u - even[:, None]).abs().max() < 2 / 4000**0.5  # Kolmogorov and Smirnov, at a level below .001


def test_every_index_of_a_table_is_visited_once_where_there_are_as_many_times():
    t = spread(Linear(num=64), Uniform, 64, Rng(3))
    assert t.sort().values.tolist() == [(index + 1) / 64 for index in range(64)]


def test_log_normal_levels_are_the_normal_quantiles():
    schedule = EDM()
    alpha, sigma = schedule.scales(spread(schedule, partial(LogNormal, mean=-1.0, std=0.7), 64, Rng(3)))
    expected = -1.0 + 0.7 * torch.special.ndtri(quantiles(64, Rng(3)))
    torch.testing.assert_close((sigma / alpha).log(), expected, rtol=0, atol=1e-9)
