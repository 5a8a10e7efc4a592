import math
from functools import partial

import diffusers
import pytest
import torch

from modkit.diffusion.schedules import EDM, Linear
from modkit.grids import LogSNR
from modkit.rng import Rng
from modkit.samplers import DDIM, DPMSolverPlusPlus, UniPC, multistep
from modkit.samplers.multistep import find_log_ratio, weigh_predictions
from modkit.types import TensorType
from tests.mixture import ring
from tests.samplers.loop import denoiser, in_float64, network, sample

F64 = torch.float64


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_equals_diffusers_on_its_grid(spacing, order):
    table = Linear()
    peer = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="linear", solver_order=order, timestep_spacing=spacing, final_sigmas_type="zero"
    )
    peer = in_float64(peer, table.betas)
    peer.set_timesteps(20)
    times = torch.cat([(peer.timesteps.double() + 1) / 1000, torch.zeros(1, dtype=F64)])
    alpha, sigma = table.scales(times)
    peer.sigmas = sigma / alpha
    sampler = DPMSolverPlusPlus(table, TensorType((3,)), steps=20, order=order)
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    x = sampler.start(eps, times[0])
    for t, timestep in zip(times[:-1], peer.timesteps, strict=True):
        x = peer.step(network(x, t), timestep, x).prev_sample
    torch.testing.assert_close(sample(sampler, denoiser(table), eps, times=times), x, rtol=1e-6, atol=1e-6)
    if spacing == "trailing":
        torch.testing.assert_close(sampler.times(), times, rtol=0, atol=1e-12)


class HalvedThird(DPMSolverPlusPlus):
    """Their 3M: half of the second difference's weight."""

    def integrate(self, x_t, scales_t, scales_s, past, rng):
        x_s = super().integrate(x_t, scales_t, scales_s, past, rng)
        if len(past) < 3 or scales_s[1] == 0:
            return x_s
        (l_0, x_0), (l_1, x_1), (l_2, x_2) = past
        h = (find_log_ratio(scales_s) - l_0) * (1 + self.eta)
        second = ((x_0 - x_1) / (l_0 - l_1) - (x_1 - x_2) / (l_1 - l_2)) / (l_0 - l_2)
        weight = 1 - 2 / h * (1 + math.expm1(-h) / h)  # of second h^2
        return x_s - scales_s[0] * weight / 2 * second * (h / (1 + self.eta)) ** 2


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize(("order", "eta"), [(3, 0.0), (2, 1.0)])
def test_third_order_and_noise_equal_diffusers_but_for_their_halved_term(spacing, order, eta):
    """Theirs, as the authors' code, is then of second order, as `test_half_of_the_term_costs_an_order` shows."""
    table = Linear()
    peer = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="linear",
        solver_order=order,
        algorithm_type="sde-dpmsolver++" if eta else "dpmsolver++",
        timestep_spacing=spacing,
        final_sigmas_type="zero",
    )
    peer = in_float64(peer, table.betas)
    peer.set_timesteps(20)
    times = torch.cat([(peer.timesteps.double() + 1) / 1000, torch.zeros(1, dtype=F64)])
    alpha, sigma = table.scales(times)
    peer.sigmas = sigma / alpha
    sampler = HalvedThird(table, TensorType((3,)), steps=20, order=order, eta=eta)
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    x = sampler.start(eps, times[0])
    for index, (t, timestep) in enumerate(zip(times[:-1], peer.timesteps, strict=True)):
        noise = Rng(3).at("sampler", index).normal("eps", x)
        x = peer.step(network(x, t), timestep, x, variance_noise=noise).prev_sample
    got = sample(sampler, denoiser(table), eps, Rng(3), times=times)
    torch.testing.assert_close(got, x, rtol=1e-5, atol=1e-5)  # diffusers' noise is float32


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_eta_is_the_rate_of_noise_that_k_diffusion_has(eta):
    """Its 2M SDE (midpoint), written out on noise levels."""
    schedule, denoise = EDM(), denoiser(EDM())
    sampler = DPMSolverPlusPlus(schedule, TensorType((3,)), steps=8, eta=eta)
    eps, times = Rng(0).normal("start", torch.empty(5, 3, dtype=F64)), sampler.times()
    levels = schedule.scales(times)[1].tolist()
    x, last, length = levels[0] * eps, None, None
    for index, (t, level, lower) in enumerate(zip(times, levels, levels[1:])):
        x_0 = denoise(x, t).x_0
        if lower == 0:
            x = x_0
            break
        h = math.log(level / lower)
        weight = -math.expm1(-h * (1 + eta))
        x = lower / level * math.exp(-h * eta) * x + weight * x_0
        if last is not None:
            x = x + 0.5 * weight * h / length * (x_0 - last)
        x = x + lower * math.sqrt(-math.expm1(-2 * h * eta)) * Rng(3).at("sampler", index).normal("eps", x)
        last, length = x_0, h
    torch.testing.assert_close(sample(sampler, denoise, eps, Rng(3)), x, rtol=1e-9, atol=1e-9)


@pytest.mark.wide
def test_half_of_the_term_costs_an_order():
    denoise = ring(3, 1.0, 0.5).denoiser(EDM())
    eps = Rng(0).normal("start", torch.empty(16, 2, dtype=F64))

    def run(make, steps):
        times = LogSNR(EDM(), sigma_min=0.05)(steps + 1)[:-1]
        return sample(make(EDM(), TensorType((2,)), order=3), denoise, eps, times=times)

    exact = run(DPMSolverPlusPlus, 800)
    for make, order in ((DPMSolverPlusPlus, 3), (HalvedThird, 2)):
        few, many = (float((run(make, steps) - exact).square().mean()) ** 0.5 for steps in (40, 160))
        assert abs(math.log2(few / many) / 2 - order) < 0.25


@pytest.mark.parametrize("rate", [1.0, 1.4, 2.0])
@pytest.mark.parametrize("h", [1e-3, 0.3, 1.0001, 12.0])
def test_weights_integrate_polynomials_exactly(h, rate):
    """Against quadrature; two predictions have the midpoint's slope."""
    nodes = (0.0, -0.4 * h, -1.7 * h, h)
    weights = weigh_predictions(nodes, h, rate)
    u = (torch.arange(200_000, dtype=F64) + 0.5) / 200_000 * h
    kernel = rate * torch.exp(-rate * (h - u))
    for power in range(4):
        expected = float((kernel * (u / h) ** power).mean() * h)
        assert sum(w * (node / h) ** power for w, node in zip(weights, nodes)) == pytest.approx(expected, rel=1e-7)
    w_t, w_r = weigh_predictions((0.0, -0.4 * h), h, rate)
    assert (w_t + w_r, w_r * -0.4 * h) == pytest.approx([-math.expm1(-rate * h), -math.expm1(-rate * h) * h / 2])


def test_weights_are_computed_with_the_times(monkeypatch):
    """No step computes one: they are constants of the grid."""
    samplers = [make(Linear(), TensorType((3,)), steps=6, order=3) for make in (DPMSolverPlusPlus, UniPC)]
    computed = []
    monkeypatch.setattr(multistep, "weigh_predictions", lambda *given: computed.append(given) or (1.0,) * len(given[0]))
    for sampler in samplers:
        monkeypatch.setattr(sampler, "_ratios", ())
        times, state = sampler.times(), None
        assert len(computed) >= 5
        computed.clear()
        x_t = torch.ones(2, 3, dtype=F64)
        for t, s in zip(times[:-1], times[1:]):
            x_t, state = sampler.step(denoiser(Linear()), x_t, t, s, state, Rng(0))
        assert not computed


@pytest.mark.smoke
def test_first_order_is_ddim():
    table, x = Linear(), TensorType((3,))
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    got = sample(DPMSolverPlusPlus(table, x, steps=12, order=1), denoiser(table), eps)
    torch.testing.assert_close(got, sample(DDIM(table, x, steps=12), denoiser(table), eps), rtol=1e-10, atol=1e-10)
    got, expected = (
        sample(make(table, x, steps=12, eta=1.0), denoiser(table), eps, Rng(1))
        for make in (partial(DPMSolverPlusPlus, order=1), DDIM)
    )
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_runs_share_no_state():
    table = Linear()
    sampler = DPMSolverPlusPlus(table, TensorType((3,)), steps=6)
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    first = sample(sampler, denoiser(table), eps)
    sample(sampler, denoiser(table), 2 * eps)
    assert torch.equal(sample(sampler, denoiser(table), eps), first)
