import math

import diffusers
import pytest
import torch
from diffusers.schedulers import scheduling_ddpm

from modkit.diffusion.schedules import EDM, Linear, Table
from modkit.rng import Rng
from modkit.samplers import Ancestral, posterior
from modkit.samplers.ancestral import interpolated_logvar
from modkit.types import Denoised, TensorType
from tests.samplers.loop import denoiser, in_float64, network, sample

F64 = torch.float64


def coefficients(table, index):
    """Coefficients of x_0 and x_t, small and large variance of the step from a table's index to the one before."""
    t = torch.tensor([index + 1, index], dtype=F64) / table.num
    alpha, sigma = table.scales(t)
    pair = tuple((float(a), float(s)) for a, s in zip(alpha, sigma, strict=True))
    one, zero = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)
    c_0, c_t = posterior(zero, one, *pair), posterior(one, zero, *pair)
    return float(c_0.mean), float(c_t.mean), c_0.small, c_0.large


def test_posterior_variance_of_the_linear_table():
    expected = {1: 5.45318766e-5, 500: 0.0100513358, 999: 0.0199999835}
    for index, variance in expected.items():
        assert coefficients(Linear(), index)[2] == pytest.approx(variance, rel=1e-8)
    assert coefficients(Linear(), 0) == pytest.approx((1, 0, 0, 1e-4), rel=1e-11)


def test_the_large_variance_is_beta():
    table = Linear()
    for index in (1, 10, 500, 999):
        assert coefficients(table, index)[3] == pytest.approx(float(table.betas[index]), rel=1e-9)


def test_posterior_of_the_denoising_gans_four_steps():
    t = torch.arange(5, dtype=F64) / 4 * (1 - 1e-3) + 1e-3
    ac = torch.exp(-0.5 * t**2 * (20 - 0.1) - 0.1 * t)
    table = Table(1 - ac[1:] / ac[:-1])
    assert table.betas.tolist() == pytest.approx([0.478255303, 0.849206004, 0.956417709, 0.987403901], abs=5e-10)
    rows = [coefficients(table, index) for index in range(4)]
    assert [r[0] for r in rows] == pytest.approx([1, 0.665778365, 0.269190889, 0.057821542], abs=1e-9)
    assert [r[1] for r in rows] == pytest.approx([0, 0.201576277, 0.193000809, 0.111852343], abs=1e-9)
    assert [r[2] for r in rows] == pytest.approx([0, 0.440819148, 0.884202444, 0.984060715], abs=1e-9)


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


@pytest.mark.parametrize("bound", [None, 1.0], ids=["unbounded", "clipped"])
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_equals_diffusers(variance, bound, monkeypatch):
    table, num = Linear(num=50, beta_end=0.3), 50
    kind = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}[variance]
    peer = diffusers.DDPMScheduler(
        num, variance_type=kind, clip_sample=bound is not None, clip_sample_range=bound or 1.0
    )
    peer = in_float64(peer, table.betas)
    peer.set_timesteps(num)
    noise = {}
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: noise["eps"])

    def raw_variance(x_t):
        return torch.sin(x_t)

    def denoise(x_t, t):
        x_0, _ = denoiser(table)(x_t, t)
        return Denoised(x_0, (raw_variance(x_t) + 1) / 2 if variance == "learned" else None)

    sampler = Ancestral(
        table, TensorType((3,), range=bound and (-bound, bound)), variance="large" if variance == "large" else "small"
    )
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    x = sampler.start(eps, sampler.times()[0])
    for index, i in enumerate(peer.timesteps):
        out = network(x, (i.double() + 1) / num)
        if variance == "learned":
            out = torch.cat([out, raw_variance(x)], dim=1)
        noise["eps"] = Rng(0).at(index).normal("eps", x)
        x = peer.step(out, i, x).prev_sample
    torch.testing.assert_close(sample(sampler, denoise, eps), x, rtol=1e-8, atol=1e-8)


def test_steps_default_to_the_whole_table():
    assert len(Ancestral(Linear(num=37), TensorType((1,))).times()) == 38
    assert len(Ancestral(EDM(), TensorType((1,))).times()) == 1001


def test_interpolated_logvar_has_its_ends():
    small, large = 0.01, 0.25
    v = torch.tensor([[0.0, 0.5, 1.0]], dtype=F64)
    got = interpolated_logvar(small, large, v).exp()
    assert got.flatten().tolist() == pytest.approx([small, math.sqrt(small * large), large], rel=1e-12)
