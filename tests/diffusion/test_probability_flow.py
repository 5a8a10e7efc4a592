import itertools
import math

import pytest
import torch

from modkit.diffusion.log_snr import LogLinear
from modkit.diffusion.probability_flow import compute_log_prob, draw_signs
from modkit.diffusion.schedules import EDM, VP, Cosine, Flow
from modkit.rng import Rng
from modkit.types import Denoised
from tests.mixture import Mixture, gaussian, ring
from tests.refusals import refusals

F64 = torch.float64


def even_ring():
    """A ring whose mean is 0, so that at the highest level it differs from N(0, sigma^2 I) by its variance alone."""
    mixture = ring(5, radius=1.0, std=0.3)
    return Mixture(torch.full((5,), 0.2), mixture.means, mixture.covs)


SCHEDULES = {
    "edm": EDM(sigma_min=0.004, sigma_max=200.0),
    "flow": Flow(sigma_min=0.004, sigma_max=200.0),
    "vp": VP(beta_max=22.0),
    "cosine": Cosine(num=4000, max_beta=0.9999),
    "log-linear": LogLinear(sigma_min=0.004, sigma_max=200.0),
}


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", SCHEDULES)
def test_with_the_exact_denoiser_it_is_the_mixture_s_log_density(name):
    mixture, schedule = even_ring(), SCHEDULES[name]
    x = mixture.sample(8, Rng(0))
    got = compute_log_prob(schedule, mixture.denoiser(schedule), x, steps=64, std=0.8)
    assert got.dtype == F64 and not got.requires_grad
    torch.testing.assert_close(got, mixture.log_prob(x), rtol=0, atol=2e-4)  # 1e-4 a dimension


@pytest.mark.wide
def test_it_is_of_fourth_order():
    mixture, schedule = even_ring(), LogLinear(sigma_min=0.01, sigma_max=30.0)
    x = mixture.sample(8, Rng(1))
    steps = {n: compute_log_prob(schedule, mixture.denoiser(schedule), x, steps=n, std=0.8) for n in (40, 80, 160)}
    coarse, fine = (float((steps[n] - steps[160]).abs().mean()) for n in (40, 80))
    assert 10 < coarse / fine < 30


@pytest.mark.wide
def test_samples_with_the_noise_of_dequantization_are_those_of_its_level():
    mixture, schedule = even_ring(), EDM(sigma_min=0.004, sigma_max=200.0)
    x = mixture.sample(8, Rng(0))
    for level in (0.2, 0.002):  # above the schedule's lowest, and below
        got = compute_log_prob(schedule, mixture.denoiser(schedule), x, steps=64, std=0.8, grain=level * math.sqrt(12))
        torch.testing.assert_close(got, mixture.log_prob(x, 1.0, level), rtol=0, atol=2e-4)


@pytest.fixture(scope="module")
def skewed():
    """A normal distribution of three dimensions that are not independent, its samples, schedule and steps."""
    mixture = gaussian([0.0, 0.0, 0.0], [[1.0, 0.6, 0.0], [0.6, 2.0, -0.3], [0.0, -0.3, 0.5]])
    schedule = LogLinear(sigma_min=0.01, sigma_max=50.0)
    return mixture, mixture.sample(6, Rng(0)), schedule


@pytest.mark.wide
def test_the_mean_over_all_signs_is_the_exact_divergence_and_random_signs_estimate_it(skewed):
    mixture, x, schedule = skewed

    def estimate(signs):
        return compute_log_prob(schedule, mixture.denoiser(schedule), x, steps=6, signs=signs)

    every = [torch.tensor(one, dtype=F64).expand_as(x) for one in itertools.product((-1.0, 1.0), repeat=3)]
    exact, each = estimate([]), torch.stack([estimate([one]) for one in every])
    torch.testing.assert_close(each.mean(0), exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(estimate(every), exact, rtol=1e-12, atol=1e-12)
    assert each.std(0).min() > 0.05
    many = x[:1].expand(3000, 3)
    drawn = compute_log_prob(schedule, mixture.denoiser(schedule), many, steps=6, signs=draw_signs(many, 1, Rng(2)))
    assert abs(float(drawn.mean() - exact[0])) < 3 * float(drawn.std()) / math.sqrt(3000)


def test_gradients_of_the_network_are_not_needed_and_none_are_left(skewed):
    _, x, schedule = skewed
    weight = torch.tensor(0.5, dtype=F64, requires_grad=True)

    def denoise(x_t, t):
        return Denoised(weight * x_t)

    with torch.no_grad():
        nats = compute_log_prob(schedule, denoise, x, steps=2)
    assert not nats.requires_grad and weight.grad is None


test_no_steps_are_refused = refusals(
    (lambda: compute_log_prob(EDM(), None, torch.zeros(1, 1), steps=0), "log_prob expects steps of at least 1, got 0"),
)
