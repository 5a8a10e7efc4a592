import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from modkit.diffusion.gaussian import add_noise, broadcast, gaussian_kl, interpolate_logvar, posterior, snr, tau
from modkit.diffusion.schedules import EDM, Linear
from modkit.rng import Rng

F64 = torch.float64


def test_tau_of_numbers_and_of_tensors_is_one_at_zero_and_never_negative():
    scales_t, scales_s = (0.6, 0.8), (0.8, 0.6)
    expected = 1 - (0.6 * 0.6 / (0.8 * 0.8)) ** 2
    assert tau(scales_t, scales_s) == pytest.approx(expected, rel=1e-15)
    tensors = [tuple(torch.tensor([v], dtype=F64) for v in pair) for pair in (scales_t, scales_s)]
    assert float(tau(*tensors)) == pytest.approx(expected, rel=1e-15)
    assert tau(scales_t, (1.0, 0.0)) == 1
    assert tau((0.1, 0.3), (0.1, 0.3 + 1e-16)) >= 0


def test_broadcast():
    x = torch.empty(2, 3, 4)
    assert broadcast(0.5, x) == 0.5
    value = broadcast(torch.tensor([1.0, 2.0], dtype=F64), x)
    assert value.shape == (2, 1, 1) and value.dtype == torch.float32 and value.flatten().tolist() == [1, 2]


def coefficients(table, index):
    """Coefficients of x_0 and x_t, small and large variance of the step from a table's index to the one before."""
    t = torch.tensor([index + 1, index], dtype=F64) / table.num
    alpha, sigma = table.scales(t)
    pair = tuple((float(a), float(s)) for a, s in zip(alpha, sigma, strict=True))
    one, zero = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)
    c_0, c_t = posterior(zero, one, *pair), posterior(one, zero, *pair)
    return float(c_0.mean), float(c_t.mean), c_0.small, c_0.large


@pytest.mark.smoke
def test_posterior_variance_of_the_linear_table():
    expected = {1: 5.45318766e-5, 500: 0.0100513358, 999: 0.0199999835}
    for index, variance in expected.items():
        assert coefficients(Linear(), index)[2] == pytest.approx(variance, rel=1e-8)
    assert coefficients(Linear(), 0) == pytest.approx((1, 0, 0, 1e-4), rel=1e-11)


def test_the_large_variance_is_beta():
    table = Linear()
    for index in (1, 10, 500, 999):
        assert coefficients(table, index)[3] == pytest.approx(float(table.betas[index]), rel=1e-9)


def test_posterior_is_bayes_rule_by_brute_force_without_a_table():
    schedule, x_0, x_t = EDM(sigma_max=10.0), 0.3, 1.2
    alpha, sigma = (v.tolist() for v in schedule.scales(torch.tensor([0.2, 0.08], dtype=F64)))
    grid = torch.linspace(-12, 12, 20001, dtype=F64)
    step = sigma[0] ** 2 - sigma[1] ** 2
    log = -((grid - x_0) ** 2) / (2 * sigma[1] ** 2) - (x_t - grid) ** 2 / (2 * step)
    weight = torch.softmax(log, 0)
    mean = float((weight * grid).sum())
    q = posterior(*(torch.full((1, 1), v, dtype=F64) for v in (x_t, x_0)), *zip(alpha, sigma, strict=True))
    assert float(q.mean) == pytest.approx(mean, rel=1e-9)
    assert q.small == pytest.approx(float((weight * (grid - mean) ** 2).sum()), rel=1e-9)
    assert q.large == pytest.approx(step, rel=1e-12)


def test_posterior_takes_a_time_for_each_sample():
    table = Linear()
    t = torch.tensor([0.9, 0.4, 0.001], dtype=F64)
    scales_t, scales_s = table.scales(t), table.scales(t - 0.001)
    x_t, x_0 = (Rng(0).normal(name, torch.empty(3, 2, 2)) for name in ("x_t", "x_0"))
    q = posterior(x_t, x_0, scales_t, scales_s)
    assert q.mean.dtype == torch.float32 and q.small.dtype == F64
    for row in range(3):
        one = posterior(
            x_t[row : row + 1],
            x_0[row : row + 1],
            tuple(float(v[row]) for v in scales_t),
            tuple(float(v[row]) for v in scales_s),
        )
        torch.testing.assert_close(q.mean[row : row + 1], one.mean, rtol=1e-5, atol=1e-6)
        assert float(q.small[row]) == pytest.approx(one.small, rel=1e-12)


def test_interpolate_logvar_at_its_ends_and_between():
    small, large = 0.01, 0.25
    v = torch.tensor([[0.0, 0.5, 1.0]], dtype=F64)
    got = interpolate_logvar(small, large, v).exp()
    assert got.flatten().tolist() == pytest.approx([small, math.sqrt(small * large), large], rel=1e-12)


@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.bfloat16])
def test_add_noise_takes_a_time_for_each_sample_and_keeps_the_dtype(dtype):
    t = torch.tensor([0.9, 0.4, 0.001], dtype=F64)
    x_0, eps = (Rng(0).normal(name, torch.empty(3, 2, 4, dtype=dtype)) for name in ("x_0", "eps"))
    x_t = add_noise(x_0, eps, Linear().scales(t))
    assert x_t.dtype == dtype
    for row in range(3):
        alpha, sigma = (float(scale[row]) for scale in Linear().scales(t))
        expected = alpha * x_0[row].double() + sigma * eps[row].double()
        error = {F64: 1e-15, torch.float32: 1e-6, torch.bfloat16: 3e-2}[dtype]
        torch.testing.assert_close(x_t[row].double(), expected, rtol=0, atol=error)


def test_snr():
    assert snr(EDM().scales(torch.tensor([0.5 / 80], dtype=F64))).tolist() == pytest.approx([4], rel=1e-14)


def test_gaussian_kl_is_torchs():
    mean_q, mean_p, logvar_q, logvar_p = Rng(0).normal("all", torch.empty(4, 50, dtype=F64))
    q, p = (Normal(mean, (logvar / 2).exp()) for mean, logvar in ((mean_q, logvar_q), (mean_p, logvar_p)))
    got = gaussian_kl(mean_q - mean_p, logvar_q - logvar_p, logvar_p)
    torch.testing.assert_close(got, kl_divergence(q, p), rtol=1e-12, atol=1e-14)
