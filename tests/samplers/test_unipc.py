import diffusers
import pytest
import torch

from modkit.diffusion.schedules import EDM, Linear
from modkit.rng import Rng
from modkit.samplers import UniPC
from modkit.types import TensorType
from tests.refusals import refusals
from tests.samplers.loop import Counter, denoiser, in_float64, network, sample

F64 = torch.float64
X = TensorType((3,))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_equals_diffusers_on_its_grid(spacing, order):
    """Down to the level before 0, which diffusers reaches by steps of falling order."""
    table = Linear()
    peer = diffusers.UniPCMultistepScheduler(
        beta_schedule="linear",
        solver_order=order,
        timestep_spacing=spacing,
        final_sigmas_type="sigma_min",
        lower_order_final=False,
    )
    peer = in_float64(peer, table.betas)
    peer.set_timesteps(20)
    times = (peer.timesteps.double() + 1) / 1000
    alpha, sigma = table.scales(times)
    peer.sigmas = torch.cat([sigma / alpha, sigma[-1:] / alpha[-1:]])
    sampler = UniPC(table, X, order=order)
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    x = sampler.start(eps, times[0])
    for t, timestep in zip(times[:-1], peer.timesteps):
        x = peer.step(network(x, t), timestep, x).prev_sample
    torch.testing.assert_close(sample(sampler, denoiser(table), eps, times=times), x, rtol=1e-5, atol=1e-5)


def test_one_evaluation_a_step():
    counter = Counter(denoiser(EDM()))
    sample(UniPC(EDM(), X, steps=9, order=3), counter, torch.ones(1, 3, dtype=F64))
    assert len(counter.times) == 9


test_errors = refusals((lambda: UniPC(EDM(), X, order=0), "UniPC expects order to be at least 1, got 0"))
