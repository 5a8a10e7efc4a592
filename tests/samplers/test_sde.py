from functools import partial

import pytest
import torch

from modkit.diffusion.schedules import EDM, Flow, Linear
from modkit.grids import Even, Listed
from modkit.rng import Rng
from modkit.samplers import DDIM, SDE, Consistency
from modkit.types import Denoised, TensorType
from tests.refusals import refusals
from tests.samplers.loop import denoiser, sample

F64 = torch.float64
X = TensorType((3,))
EPS = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))


def test_a_step_is_sit_s_on_its_straight_line():
    """v = eps - x_0, score = -eps / t, w = t."""
    schedule, x_t = Flow(), EPS
    sampler = SDE(schedule, X, steps=4, diffusion="sigma", grid=Even)
    t, s = torch.tensor(0.75, dtype=F64), torch.tensor(0.5, dtype=F64)
    got, _ = sampler.step(denoiser(schedule), x_t, t, s, None, Rng(1))
    x_0 = denoiser(schedule)(x_t, t).x_0
    eps_hat = (x_t - 0.25 * x_0) / 0.75
    drift = (eps_hat - x_0) + 0.75 / 2 * eps_hat / 0.75
    expected = x_t - 0.25 * drift + (0.75 * 0.25) ** 0.5 * Rng(1).normal("eps", x_t)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_the_forward_process_s_diffusion_is_that_of_x_t_given_x_s():
    schedule = EDM()
    sampler = SDE(schedule, X, steps=4)
    t, s = schedule.time(torch.tensor([2.0, 1.5], dtype=F64))
    got, _ = sampler.step(lambda x_t, t: Denoised(0 * x_t), EPS, t, s, None, Rng(1))
    variance = 2.0**2 - 1.5**2
    expected = EPS - (0.5 + variance / 4) * EPS / 2 + variance**0.5 * Rng(1).normal("eps", EPS)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_without_diffusion_it_is_ddim():
    sampler = SDE(EDM(), X, steps=9, scale=0.0)
    assert sampler.deterministic and not SDE(EDM(), X).deterministic
    torch.testing.assert_close(
        sample(sampler, denoiser(EDM()), EPS), sample(DDIM(EDM(), X, steps=9), denoiser(EDM()), EPS)
    )


@pytest.mark.parametrize("levels", [[80.0], [80.0, 5.0, 0.4], [80.0, 0.01, 0.002]])
def test_consistency_is_the_paper_s_algorithm_1(levels):
    """x + sqrt(tau^2 - epsilon^2) z; at tau = .01 and epsilon = .002 this is 2 % less noise than tau z."""
    schedule, lowest = EDM(), 0.002
    assert schedule.sigma_min == lowest
    sampler = Consistency(schedule, X, steps=len(levels), grid=partial(Listed, levels=levels))
    got = sample(sampler, denoiser(schedule), EPS, Rng(4))
    x, times = sampler.start(EPS, sampler.times()[0]), sampler.times()
    for index, (t, s) in enumerate(zip(times[:-1], times[1:])):
        x = denoiser(schedule)(x, t).x_0
        if s > 0:
            tau = levels[index + 1]
            x = x + max(tau**2 - lowest**2, 0.0) ** 0.5 * Rng(4).at("sampler", index).normal("eps", x)
    torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


def test_consistency_keeps_the_signal_of_a_table():
    """On a table tau is sigma_s / alpha_s, and epsilon that of its first index."""
    schedule = Linear()
    t, s = torch.tensor([0.9, 0.004], dtype=F64)
    got, _ = Consistency(schedule, X).step(lambda x_t, t: Denoised(0.3 * x_t), EPS, t, s, None, Rng(1))
    (alpha_s, sigma_s), (alpha, sigma) = schedule.scales(s), schedule.scales(torch.tensor(0.001, dtype=F64))
    added = alpha_s * ((sigma_s / alpha_s) ** 2 - (sigma / alpha) ** 2).sqrt()
    expected = alpha_s * 0.3 * EPS + added * Rng(1).normal("eps", EPS)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


test_errors = refusals(
    (lambda: SDE(EDM(), X, diffusion="constant"), "SDE expects diffusion to be 'forward' or 'sigma', got 'constant'"),
    (lambda: SDE(EDM(), X, scale=-1.0), "SDE expects scale to be at least 0, got -1.0"),
)
