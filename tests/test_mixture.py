import math

import torch

from modkit.rng import Rng
from tests.mixture import gaussian, ring


def test_score_is_the_gradient_of_the_marginal_and_tweedie_links_it_to_the_denoiser():
    mixture, alpha, sigma = ring(), 0.8, 0.6
    x = Rng(0).normal("x", torch.empty(20, 2, dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(x, alpha, sigma).sum(), x)
    score = mixture.score(x.detach(), alpha, sigma)
    torch.testing.assert_close(score, gradient, rtol=1e-12, atol=1e-12)
    tweedie = (x.detach() + sigma**2 * score) / alpha
    torch.testing.assert_close(mixture.denoised(x.detach(), alpha, sigma), tweedie, rtol=1e-10, atol=1e-12)


def test_density_integrates_to_one_and_its_moments_are_the_samples():
    mixture = ring()
    grid = torch.linspace(-4, 4, 200, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    mass = mixture.log_prob(points, 0.9, 0.2).exp().sum() * (8 / 199) ** 2
    assert abs(float(mass) - 1) < 1e-8
    x = mixture.sample(20000, Rng(0))
    mean, cov = mixture.moments()
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=4 * 2 / math.sqrt(20000))
    torch.testing.assert_close(torch.cov(x.T), cov, rtol=0, atol=0.08)


def test_denoiser_is_the_posterior_mean_by_brute_force():
    mixture, alpha, sigma = gaussian([0.5], [[0.49]]), 0.7, 0.4
    x_0 = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    for x_t in (-1.0, 0.3, 2.0):
        weight = (mixture.log_prob(x_0[:, None]) - (x_t - alpha * x_0) ** 2 / (2 * sigma**2)).exp()
        expected = (weight * x_0).sum() / weight.sum()
        got = mixture.denoised(torch.tensor([[x_t]], dtype=torch.float64), alpha, sigma)
        assert abs(float(got) - float(expected)) < 1e-10
