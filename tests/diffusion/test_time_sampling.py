import math

import pytest
import torch

from modkit.diffusion.schedules import EDM, Linear
from modkit.diffusion.time_sampling import LogNormal, Uniform
from modkit.rng import Rng
from modkit.types import TensorType


@pytest.mark.smoke
def test_uniform_over_a_table_draws_every_index_alike():
    t = Uniform(Linear(num=5))(50000, Rng(0))
    assert t.dtype == torch.float64 and t.shape == (50000,)
    indices = t * 5 - 1
    torch.testing.assert_close(indices, indices.round(), rtol=0, atol=1e-12)
    share = torch.bincount(indices.round().long(), minlength=5) / 50000
    torch.testing.assert_close(share, torch.full((5,), 0.2), rtol=0, atol=4 * math.sqrt(0.16 / 50000))


def test_uniform_without_a_table_covers_the_interval_without_zero():
    t = Uniform(EDM())(20000, Rng(0))
    assert 0 < t.min() < 1e-3 and 1 - 1e-3 < t.max() <= 1
    assert t.mean() == pytest.approx(0.5, abs=4 / math.sqrt(12 * 20000))
    assert t.var() == pytest.approx(1 / 12, rel=0.03)


def test_log_normal_noise_levels():
    schedule = EDM()
    alpha, sigma = schedule.scales(LogNormal(schedule, mean=-1.0, std=0.7)(20000, Rng(0)))
    log = torch.log(sigma / alpha)
    assert log.mean() == pytest.approx(-1.0, abs=4 * 0.7 / math.sqrt(20000))
    assert log.std() == pytest.approx(0.7, rel=0.03)


def test_log_normal_is_clamped_to_a_tables_ends_and_exact_within():
    table = Linear(num=100, beta_end=0.2)
    t = LogNormal(table, std=5.0)(1000, Rng(0))
    assert t.min() == 1 / 100 and t.max() == 1
    sigma = torch.exp(-1.2 + 5 * Rng(0).normal("time", torch.empty(1000, dtype=torch.float64)))
    inside = (t > 0.01) & (t < 1)
    alpha_t, sigma_t = table.scales(t[inside])
    torch.testing.assert_close(sigma_t / alpha_t, sigma[inside], rtol=1e-9, atol=0)


def test_times_are_a_function_of_the_row():
    times = Uniform(Linear())
    both = times(10, Rng(0))
    assert torch.equal(torch.cat([times(4, Rng(0)), times(6, Rng(0).rows(4))]), both)


def test_a_negative_std_is_refused():
    with pytest.raises(ValueError, match="LogNormal expects std to be at least 0, got -1"):
        LogNormal(EDM(), std=-1)


def test_log_normal_levels_are_in_units_of_the_data_s_deviation_unless_a_mean_is_given():
    latent, half = TensorType((4, 2, 2), std=1.0), TensorType((4, 2, 2), std=0.5)
    schedule = EDM(latent)
    _, sigma = schedule.scales(LogNormal(schedule, latent)(20000, Rng(0)))
    assert sigma.median() == pytest.approx(math.exp(math.log(2) - 1.2), rel=0.02)  # exp(-.507), by 20,000 draws
    assert LogNormal(schedule).mean == LogNormal(schedule, half).mean == -1.2  # to the bit
    assert LogNormal(schedule, TensorType((2,))).mean == -1.2 and LogNormal(schedule, latent, mean=0.5).mean == 0.5
