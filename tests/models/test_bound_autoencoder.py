import math

import pytest
import torch
from sklearn.decomposition import PCA
from torch.distributions import Laplace, Normal, kl_divergence

from modkit import build, use
from modkit.rng import Rng
from modkit.types import Batch
from tests.models.test_autoencoder import SigmaPoints, made, place
from tests.play import LINEAR, digits, spec
from tests.refusals import refusals

DENSITIES = {"mse": lambda out: Normal(out, 1.0), "l1": lambda out: Laplace(out, 1.0)}


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


def gan():
    return build(spec(use("gan")))


def vq():
    return made(bottleneck=use("vq", num_codes=8))


BATCH = digits(2, torch.float64)
UNBOUNDED = "no bound on log p.x.: its"
test_what_has_no_density_is_refused_by_name = refusals(
    (
        lambda: made(likelihood="bernoulli").bound(BATCH, 1, Rng(0)),
        f"{UNBOUNDED} likelihood Bernoulli is not a density",
    ),
    (lambda: made(bottleneck="identity").bound(BATCH, 1, Rng(0)), f"{UNBOUNDED} bottleneck Identity has no densities"),
    (lambda: made().bound(BATCH, 0, Rng(0)), "Autoencoder.bound expects num of at least 1, got 0"),
    (lambda: gan().bound(BATCH, 1, Rng(0)), "GAN has no lower bound on log p"),
    (lambda: gan().weigh(BATCH.tensor, "continuous", Rng(0)), "GAN has no densities of its latents"),
    (lambda: vq().weigh(BATCH.tensor, "continuous", Rng(0)), "of its codes only; 'continuous' has no density"),
    (lambda: vq().bottleneck.log_prior("quantized", BATCH.tensor), "a prior of its codes only, not of 'quantized'"),
)
