import math
from functools import partial

import diffusers
import pytest
import torch

from modkit.diffusion.schedules import EDM, Linear
from modkit.grids import Karras
from modkit.rng import Rng
from modkit.samplers import Heun, Restart
from modkit.types import TensorType
from tests.mixture import ring
from tests.samplers.loop import Counter, denoiser, network, sample

F64 = torch.float64


@pytest.mark.smoke
@pytest.mark.parametrize(
    "churn", [{}, {"churn": 40.0}, {"churn": 5.0, "churn_min": 0.05, "churn_max": 50.0, "noise": 1.003}]
)
def test_is_algorithm_2(churn):
    steps, schedule = 12, EDM()
    denoise = ring().denoiser(schedule)
    sampler = Heun(schedule, TensorType((2,)), steps=steps, grid=partial(Karras, sigma_min=None), **churn)
    eps = Rng(0).normal("start", torch.empty(6, 2, dtype=F64))
    got = sample(sampler, denoise, eps, Rng(3))

    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    levels = [(high + i / (steps - 1) * (low - high)) ** 7 for i in range(steps)] + [0.0]
    x = 80 * eps
    for i, (sigma, lower) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        inside = churn.get("churn_min", 0) <= sigma <= churn.get("churn_max", math.inf)
        gamma = min(churn.get("churn", 0) / steps, math.sqrt(2) - 1) if inside else 0
        sigma_hat = sigma + gamma * sigma
        noise = Rng(3).at("sampler", i).normal("eps", x)
        x_hat = x + math.sqrt(sigma_hat**2 - sigma**2) * churn.get("noise", 1) * noise
        d = (x_hat - denoise(x_hat, torch.tensor(sigma_hat / 80, dtype=F64)).x_0) / sigma_hat
        x = x_hat + (lower - sigma_hat) * d
        if lower > 0:
            d_prime = (x - denoise(x, torch.tensor(lower / 80, dtype=F64)).x_0) / lower
            x = x_hat + (lower - sigma_hat) * (d / 2 + d_prime / 2)
    torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
def test_equals_diffusers_on_its_grid():
    table = Linear()
    peer = diffusers.HeunDiscreteScheduler(
        beta_start=1e-4, beta_end=2e-2, beta_schedule="linear", timestep_spacing="linspace"
    )
    peer.set_timesteps(10)
    peer.sigmas = peer.sigmas.double()
    levels = peer.sigmas[[0, *range(1, len(peer.sigmas) - 1, 2)]]
    times = torch.cat([table.time(levels), torch.zeros(1, dtype=F64)])
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    u = eps * table.scales(times[0])[1] / table.scales(times[0])[0]
    for index, timestep in enumerate(peer.timesteps):
        t = times[(index + 1) // 2]
        u = peer.step(network(table.scales(t)[0] * u, t), timestep, u).prev_sample
    got = sample(Heun(table, TensorType((3,))), denoiser(table), eps, times=times)
    torch.testing.assert_close(got, u, rtol=1e-6, atol=1e-6)


def test_churn_goes_past_the_schedules_end_only_without_a_table():
    for schedule, low, high in ((EDM(), 1.01, 1.5), (Linear(), 1.0, 1.0)):
        counter = Counter(denoiser(schedule))
        sample(
            Heun(schedule, TensorType((2,)), steps=6, grid=partial(Karras, sigma_max=None), churn=6.0),
            counter,
            torch.ones(1, 2, dtype=F64),
        )
        assert low <= max(counter.times) <= high


@pytest.mark.parametrize("schedule", [EDM(), Linear()], ids=["edm", "linear"])
@pytest.mark.parametrize(
    "sampler",
    [
        partial(Heun, steps=6),
        partial(Heun, steps=6, churn=2.0, grid=partial(Karras, sigma_max=None)),
        partial(Heun, steps=6, churn=2.0, churn_min=0.1, churn_max=10.0),
        partial(Restart, sampler=partial(Heun, steps=30, churn=3.0)),
    ],
    ids=["plain", "churn", "churn between levels", "restart of churn"],
)
def test_all_times_that_it_asks_for_are_listed(schedule, sampler):
    sampler = sampler(schedule, TensorType((2,), std=1.0))
    counter = Counter(denoiser(schedule))
    sample(sampler, counter, torch.ones(1, 2, dtype=F64))
    assert sampler.list_asked().tolist() == sorted(set(counter.times), reverse=True)
