from functools import partial

import diffusers
import pytest
import torch

from modkit.diffusion.schedules import EDM, Linear
from modkit.grids import Karras
from modkit.rng import Rng
from modkit.samplers import Euler
from modkit.types import TensorType
from tests.mixture import gaussian
from tests.samplers.loop import denoiser, network, sample

F64 = torch.float64


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
def test_equals_diffusers_on_its_grid():
    table = Linear()
    peer = diffusers.EulerDiscreteScheduler(beta_schedule="linear", timestep_spacing="linspace")
    peer.set_timesteps(15)
    sigmas = peer.sigmas.double()
    times = torch.cat([table.time(sigmas[:-1]), torch.zeros(1, dtype=F64)])
    sampler = Euler(table, TensorType((3,)))
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    u = sampler.start(eps, times[0]) / table.scales(times[0])[0]
    for t, timestep in zip(times[:-1], peer.timesteps, strict=True):
        peer.scale_model_input(u, timestep)
        u = peer.step(network(table.scales(t)[0] * u, t), timestep, u).prev_sample.double()
    got = sample(sampler, denoiser(table), eps, times=times)
    torch.testing.assert_close(got, u, rtol=2e-4, atol=2e-4)  # diffusers steps in float32, from a level of 157


def test_is_eulers_method_on_noise_levels():
    schedule = EDM()
    sampler = Euler(schedule, TensorType((2,)), steps=7, grid=partial(Karras, sigma_min=None))
    x = 80 * Rng(0).normal("start", torch.empty(3, 2, dtype=F64))
    denoise = gaussian([0.5, 0.1], [[0.3, 0.1], [0.1, 0.2]]).denoiser(schedule)
    got = sample(sampler, denoise, x / 80)
    levels = [(80 ** (1 / 7) + i / 6 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(7)] + [0.0]
    for sigma, lower in zip(levels[:-1], levels[1:], strict=True):
        x_0 = denoise(x, torch.tensor(sigma / 80, dtype=F64)).x_0
        x = x + (lower - sigma) * (x - x_0) / sigma
    torch.testing.assert_close(got, x, rtol=1e-10, atol=1e-10)
