"""Latent usage: KLs against torch's, and an aggregate posterior whose KL is known."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from modkit.metrics.latent_usage import LatentUsage, count_active_units, measure_aggregate_kl, measure_kl
from modkit.rng import Rng
from tests.refusals import refusals


def draw(num, dim, seed=0):
    rng = torch.Generator().manual_seed(seed)
    mean = torch.randn(num, dim, generator=rng, dtype=torch.float64)
    return mean, 0.1 + torch.rand(num, dim, generator=rng, dtype=torch.float64)


def score(mean, std, **options):
    return LatentUsage(**options).compute(real=torch.stack([mean, std], 1))


def test_kl_is_torch_s():
    mean, std = draw(50, 3)
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0))
    torch.testing.assert_close(measure_kl(mean, std), expected, rtol=1e-12, atol=1e-12)
    found = score(mean, std)["latent KL"]
    assert found.value == pytest.approx(float(expected.sum(1).mean()), rel=1e-6)
    assert found.details["by dimension"] == pytest.approx(expected.mean(0).tolist(), rel=1e-5)
    assert found.error == pytest.approx(float(expected.sum(1).std()) / math.sqrt(50), rel=0.6)


def test_units_are_active_if_their_mean_varies_by_more_than_the_least():
    means = torch.tensor([[1.0, 5.0, 0.05], [-1.0, 5.0, -0.05]])
    assert count_active_units(means) == 1 and count_active_units(means, least=0.004) == 2
    found = score(means, torch.ones(2, 3))["active units"]
    assert (found.value, found.details) == (1.0, {"dimensions": 3, "active": [0]})


def test_the_aggregate_kl_is_the_mean_log_ratio_of_a_mixture():
    mean, std = draw(40, 2)
    z = mean + std * torch.randn(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    q = [Normal(mean, std).log_prob(one).sum(1).logsumexp(0) - math.log(40) for one in z]
    p = Normal(0.0, 1.0).log_prob(z).sum(1)
    expected = float((torch.stack(q) - p).mean())
    assert measure_aggregate_kl(mean, std, z) == pytest.approx(expected, rel=1e-10)


def test_it_finds_the_kl_of_a_gaussian_aggregate():
    """q(z | x) = N(m, .6^2) with m ~ N(.5, .8^2) is N(.5, 1) in all: KL .125."""
    rng = torch.Generator().manual_seed(0)
    mean = 0.5 + 0.8 * torch.randn(2000, 1, generator=rng, dtype=torch.float64)
    found = score(mean, torch.full_like(mean, 0.6))["aggregate KL"]
    assert abs(found.value - 0.125) < 4 * found.error < 0.12
    assert not found.warnings
    information = 0.5 * math.log(1 / 0.36)  # I(x; z) of the Gaussian channel
    whole = score(mean, torch.full_like(mean, 0.6))["latent KL"].value
    assert whole - found.value == pytest.approx(information, abs=0.06)


def test_errors_are_deviations_over_samples():
    scores = [score(*draw(300, 2, seed))["aggregate KL"] for seed in range(16)]
    spread = float(torch.tensor([one.value for one in scores]).std())
    assert 0.5 < sum(one.error for one in scores) / 16 / spread < 2


def test_a_latent_that_tells_all_samples_apart_is_warned_of():
    mean = torch.linspace(-300, 300, 20)[:, None]
    found = score(mean, torch.full_like(mean, 1e-3))["aggregate KL"]
    assert "I(x; z) is near log 20" in found.warnings[0]


def test_draws_are_a_function_of_the_seed():
    mean, std = draw(60, 2)
    first, same, other = (score(mean, std, seed=seed)["aggregate KL"].value for seed in (0, 0, 1))
    assert first == same != other
    metric = LatentUsage()
    values = torch.stack([mean, std], 1)
    state = metric.init()
    for rows in (slice(40, 60), slice(0, 40)):  # in any order
        state = metric.update(state, "real", {"posterior": values[rows]}, torch.arange(60)[rows])
    assert metric.result(state, Rng(0))["aggregate KL"].value == pytest.approx(first, rel=1e-12)


test_refuses = refusals(
    (lambda: LatentUsage(least=-1.0), r"LatentUsage expects least to be at least 0, got -1\.0"),
    (lambda: score(torch.zeros(3, 2), torch.zeros(3, 2)), "LatentUsage expects positive deviations .* got 0"),
)
