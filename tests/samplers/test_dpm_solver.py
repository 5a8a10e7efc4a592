import diffusers
import pytest
import torch

from modkit.diffusion.schedules import Linear
from modkit.rng import Rng
from modkit.samplers import DDIM, DPMSolverPlusPlus
from modkit.types import TensorType
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


@pytest.mark.smoke
def test_first_order_is_ddim():
    table, x = Linear(), TensorType((3,))
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    got = sample(DPMSolverPlusPlus(table, x, steps=12, order=1), denoiser(table), eps)
    assert torch.equal(got, sample(DDIM(table, x, steps=12), denoiser(table), eps))


def test_runs_share_no_state():
    table = Linear()
    sampler = DPMSolverPlusPlus(table, TensorType((3,)), steps=6)
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    first = sample(sampler, denoiser(table), eps)
    sample(sampler, denoiser(table), 2 * eps)
    assert torch.equal(sample(sampler, denoiser(table), eps), first)
