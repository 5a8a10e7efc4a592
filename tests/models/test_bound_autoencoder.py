import math

import pytest
import torch
from sklearn.decomposition import PCA
from torch.distributions import Laplace, Normal, kl_divergence

from modkit import build, use
from modkit.rng import Rng
from modkit.types import Batch
from tests.models.test_autoencoder import SigmaPoints, place
from tests.play import LINEAR, MLP, digits, spec

DENSITIES = {"mse": lambda out: Normal(out, 1.0), "l1": lambda out: Laplace(out, 1.0)}


def made(**slots):
    return build(spec(use("autoencoder", **{**MLP, **slots}))).double()


def summed(log_prob):
    return log_prob.flatten(1).sum(1)


@pytest.mark.parametrize("likelihood", ["mse", "l1"])
def test_one_draw_is_the_elbo_and_many_the_importance_weighted_bound(likelihood):
    model, x = made(likelihood=likelihood), digits(5, torch.float64).tensor
    mean, logvar = model.bottleneck.project(model.encoder(x)).chunk(2, dim=1)
    q, p = Normal(mean, (logvar / 2).exp()), Normal(torch.zeros_like(mean), 1.0)
    log_weights, likelihoods = [], []
    for index in range(3):
        z = mean + (logvar / 2).exp() * Rng(7).at(index).normal("posterior", mean)
        likelihoods.append(summed(DENSITIES[likelihood](model.decoder(z)).log_prob(x)))
        log_weights.append(likelihoods[-1] + summed(p.log_prob(z) - q.log_prob(z)))
    elbo = likelihoods[0] - summed(kl_divergence(q, p))
    weighted = torch.logsumexp(torch.stack(log_weights), 0) - math.log(3)
    torch.testing.assert_close(model.bound(Batch(x, {}), 1, Rng(7)), elbo, rtol=1e-12, atol=0)
    torch.testing.assert_close(model.bound(Batch(x, {}), 3, Rng(7)), weighted, rtol=1e-12, atol=0)


@pytest.fixture(scope="module")
def pca():
    x = digits(1437, torch.float64).tensor[::3]
    return x, PCA(5, svd_solver="full").fit(x.flatten(1).numpy())


def probabilistic(pca):
    model = made(**LINEAR, bottleneck=use("gaussian", channels=5), likelihood="gaussian")
    place(model, pca, 1.0)
    return model.requires_grad_(False)


def test_at_a_linear_vae_s_optimum_both_are_probabilistic_pca_s_likelihood(pca):
    x, fitted = pca
    model = probabilistic(fitted)
    exact = torch.from_numpy(fitted.score_samples(x.flatten(1).numpy()))
    torch.testing.assert_close(model.bound(Batch(x, {}), 4, Rng(0)), exact, rtol=1e-9, atol=0)
    points = SigmaPoints(5)
    points.at = lambda index: points
    elbo = model.bound(Batch(x.repeat_interleave(10, 0), {}), 1, points).view(-1, 10).mean(1)
    torch.testing.assert_close(elbo, exact, rtol=1e-9, atol=0)


def test_importance_weights_raise_the_elbo_to_the_likelihood(pca):
    x, fitted = pca
    model = probabilistic(fitted)
    model.bottleneck.project.bias[5:] += 1.0  # a posterior that is too wide, of the same likelihood
    exact = torch.from_numpy(fitted.score_samples(x.flatten(1).numpy())).mean()
    loose = [float(exact - model.bound(Batch(x, {}), num, Rng(0)).mean()) for num in (1, 2, 8, 64)]
    assert loose[0] == pytest.approx(5 * (math.e - 2) / 2, abs=0.2)  # the KL between the posteriors
    assert loose[0] > loose[1] > loose[2] > loose[3] > -0.02
    assert loose[3] < 0.15 * loose[0]


@pytest.mark.parametrize("num", [1, 3])
def test_codes_are_certain_and_their_prior_is_uniform(num):
    model, x = made(bottleneck=use("vq", num_codes=8, channels=3)), digits(6, torch.float64).tensor
    bound = model.bound(Batch(x, {}), num, Rng(0))
    z_q = model.bottleneck(model.encoder(x), None).values["quantized"]
    want = summed(Normal(model.decoder(z_q), 1.0).log_prob(x)) - math.log(8)
    torch.testing.assert_close(bound, want, rtol=1e-12, atol=0)
    each = torch.stack(
        [summed(Normal(model.decoder(e[None]), 1.0).log_prob(x)) for e in model.bottleneck.codebook.codes]
    )
    assert (bound <= each.logsumexp(0) - math.log(8)).all()


def test_a_bound_is_the_same_in_any_batches():
    model, x = made(), digits(9, torch.float64).tensor
    for num in (1, 3):
        whole = model.bound(Batch(x, {}), num, Rng(0))
        halves = [model.bound(Batch(x[a:b], {}), num, Rng(0).rows(a)) for a, b in ((0, 4), (4, 9))]
        torch.testing.assert_close(torch.cat(halves), whole, rtol=1e-12, atol=0)


def test_gradients_flow_through_it():
    model, x = made(), digits(3, torch.float64).tensor
    for num in (1, 3):
        model.zero_grad()
        model.bound(Batch(x, {}), num, Rng(0)).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_what_has_no_density_is_refused_by_name():
    batch = Batch(digits(2, torch.float64).tensor, {})
    for model, num, message in (
        (
            made(likelihood="bernoulli"),
            1,
            "no bound on log p.x.: its likelihood Bernoulli is not a density",
        ),
        (
            made(bottleneck="identity"),
            1,
            "no bound on log p.x.: its bottleneck Identity has no densities",
        ),
        (made(), 0, "Autoencoder.bound expects num of at least 1, got 0"),
        (build(spec(use("gan"))), 1, "GAN has no lower bound on log p"),
    ):
        with pytest.raises(ValueError, match=message):
            model.bound(batch, num, Rng(0))
    vq = made(bottleneck=use("vq", num_codes=8))
    with pytest.raises(ValueError, match="a posterior of its codes only; 'continuous' has no density"):
        vq.weigh(batch.tensor, "continuous", Rng(0))
    with pytest.raises(ValueError, match="a prior of its codes only, not of 'quantized'"):
        vq.bottleneck.log_prior("quantized", batch.tensor)
    with pytest.raises(ValueError, match="GAN has no densities of its latents"):
        build(spec(use("gan"))).weigh(batch.tensor, "continuous", Rng(0))
