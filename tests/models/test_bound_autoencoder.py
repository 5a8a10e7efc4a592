import math
import re
from itertools import product

import pytest
import torch
from numpy.polynomial import hermite_e
from sklearn.decomposition import PCA
from torch.distributions import Bernoulli, Laplace, Normal, kl_divergence

import modkit
from modkit import build, use
from modkit.bottlenecks import Gaussian
from modkit.losses.likelihoods import MSE
from modkit.metrics.bound import Bound
from modkit.models import Autoencoder, Latent
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, TensorType
from tests.models.test_autoencoder import SigmaPoints, made, place
from tests.play import LINEAR, digits, shake, spec
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
    model, x = made(bottleneck=use("vq", num_codes=8, channels=3, tokens=1)), digits(6, torch.float64).tensor
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


def binary():
    """A VAE of six values, each 0 or 1, with all 64 of them."""
    x = torch.tensor(list(product([0.0, 1.0], repeat=6)), dtype=torch.float64)
    with modkit.seeded(3):
        mlp = use("mlp", width=8, depth=1)
        parts = {"encoder": mlp, "decoder": mlp, "bottleneck": use("gaussian", channels=2), "likelihood": "bernoulli"}
        model = Autoencoder(TensorType((6,), range=(0.0, 1.0)), **parts).double().requires_grad_(False)
    shake(model.decoder, 0.7)
    model.bottleneck.project.weight *= 0.3  # a posterior near the prior, for weights of little variance
    return model, x


def integrate(model, x, mean, std):
    """log p(x | z) at the nodes of Gauss and Hermite's quadrature over N(mean, std^2), and their log weights."""
    nodes, weights = map(torch.from_numpy, hermite_e.hermegauss(80))
    z = mean[:, None] + std[:, None] * torch.cartesian_prod(nodes, nodes)
    log_weights = torch.cartesian_prod(weights, weights).log().sum(1) - math.log(2 * math.pi)
    logits = model.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    return Bernoulli(logits=logits).log_prob(x[:, None]).sum(2), log_weights


def compute_log_p(model, x):
    """log p(x), by quadrature over the prior."""
    log_p, log_weights = integrate(model, x, torch.zeros(len(x), 2).double(), torch.ones(len(x), 2).double())
    return torch.logsumexp(log_p + log_weights, 1)


@pytest.mark.wide
def test_of_binary_data_bernoulli_bounds_the_probability():
    model, x = binary()
    exact = compute_log_p(model, x)
    assert float(exact.exp().sum()) == pytest.approx(1, abs=1e-9)
    weighted = torch.stack([model.bound(Batch(x, {}), 200, Rng(seed)) for seed in range(20)])
    close = weighted.exp().mean(0) / exact.exp()
    assert (close - 1).abs().max() < 0.1 and close.mean().sub(1).abs() < 0.01  # importance weights are unbiased
    elbo = torch.stack([model.bound(Batch(x, {}), 1, Rng(seed)) for seed in range(100)]).mean(0)
    mean, logvar = model.bottleneck.project(model.encoder(x)).chunk(2, dim=1)
    log_p, log_weights = integrate(model, x, mean, (logvar / 2).exp())
    kl = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
    expected = (log_p * log_weights.exp()).sum(1) - kl
    assert elbo.mean() == pytest.approx(float(expected.mean()), abs=0.1)  # 3 sd of the mean over 6,400 draws
    assert (expected < exact).all() and elbo.mean() < weighted.mean() < exact.mean()


@pytest.mark.wide
def test_evaluation_gives_nats_and_bits_of_the_probability_without_dequantisation():
    model, x = binary()
    exact = compute_log_p(model, x)
    values = {"model": model, "batch": Batch(x, {})}
    for levels in (2, None):
        scores = Bound(num=500).compute(real={**values, "levels": levels})
        nats, bits = scores["bound (num=500)"], scores["bits/dim"]
        assert nats.value == pytest.approx(float(exact.mean()), abs=0.02) and not nats.warnings
        assert bits.value == pytest.approx(-nats.value / 6 / math.log(2), rel=1e-12)


def test_under_a_prior_binary_data_have_a_bound_too():
    mlp = use("mlp", width=8, depth=1)
    coder = use("autoencoder", encoder=mlp, decoder=mlp, likelihood="bernoulli")
    model = Latent(TensorType((6,), range=(0.0, 1.0)), autoencoder=coder, prior=use("diffusion", network=mlp), scale=1)
    _, x = binary()
    assert model.discrete and model.bound(Batch(x.float(), {}), 1, Rng(0)).isfinite().all()
    with pytest.raises(ValueError, match="likelihood Bernoulli gives the probability of 2 values"):
        model.bound(Batch(x.float() / 2, {}), 1, Rng(0))


class Distance(MSE):
    """A score of no distribution."""

    constant = None


@pytest.mark.parametrize(
    "parts", [{}, {"likelihood": use(Distance)}, {"bottleneck": "identity"}, {"bottleneck": "deterministic"}]
)
def test_what_bound_refuses_is_known_before_it_is_called(parts):
    model = made(**parts)
    try:
        reason = model.bound(BATCH, 1, Rng(0)) is None
    except ValueError as error:
        reason = str(error)
    assert (model.explain_lack("bound") or False) == (model.explain_lack("weigh") or False) == reason


@pytest.mark.parametrize(
    ("likelihood", "finer"),
    [
        (use("categorical", levels=3), True),
        (use("categorical", levels=5), True),
        (use("discretized-logistic", levels=9), True),
        (use("categorical", levels=4), False),
        (use("discretized-logistic", levels=6), False),
        ("bernoulli", False),
    ],
)
def test_levels_that_a_likelihood_gives_no_probability_are_known_before_they_are_seen(likelihood, finer):
    """The fault: the bound of grey digits under `bernoulli` was refused after the whole training."""
    mlp, values = use("mlp", width=8, depth=1), Batch(torch.tensor([[-1.0, 0.0, 1.0]]), {})
    unknown, stated = (
        Autoencoder(TensorType((3,), (-1, 1), levels=levels), encoder=mlp, decoder=mlp, likelihood=likelihood)
        for levels in (None, 3)
    )
    assert unknown.losses("autoencoder", values, StepContext(Rng(0)))["nll"].isfinite()
    if finer:
        assert stated.bound(values, 1, Rng(0)).isfinite() and stated.explain_lack("bound") is None
        return
    with pytest.raises(ValueError, match="got others; expected such data, or a likelihood that is a") as raised:
        unknown.bound(values, 1, Rng(0))
    assert unknown.explain_lack("bound") is None
    assert stated.explain_lack("bound") == str(raised.value).replace("got others", "got 3")
    assert stated.explain_lack("weigh") == stated.explain_lack("bound")


def test_a_kl_alone_gives_a_bound_but_no_weight():
    class Plain(Gaussian):
        posterior = None

    model = made(bottleneck=use(Plain))
    lack = "Autoencoder has no bound on log p(x): its bottleneck Plain has no densities"
    assert model.bound(BATCH, 1, Rng(0)).isfinite().all() and model.explain_lack("bound") is None
    assert model.explain_lack("weigh") == model.explain_lack("bound", 2) == lack
    with pytest.raises(ValueError, match=re.escape(lack)):
        model.bound(BATCH, 2, Rng(0))


def test_a_posterior_without_a_prior_or_a_kl_gives_no_bound():
    class Bare(Gaussian):
        log_prior = None

        def forward(self, h, step):
            return super().forward(h, step)._replace(kl=None)

    model = made(bottleneck=use(Bare))
    assert model.explain_lack("weigh") is None
    assert model.explain_lack("bound") == "Autoencoder has no bound on log p(x): its bottleneck Bare has no densities"


def gan():
    return build(spec(use("gan")))


def vq():
    return made(bottleneck=use("vq", num_codes=8))


BATCH = digits(2, torch.float64)
UNBOUNDED = "no bound on log p.x.: its"
test_what_has_no_density_is_refused_by_name = refusals(
    (
        lambda: made(likelihood="bernoulli").bound(BATCH, 1, Rng(0)),
        f"{UNBOUNDED} likelihood Bernoulli gives the probability of 2 values of x, .*, got others",
    ),
    (lambda: made(likelihood=use(Distance)).bound(BATCH, 1, Rng(0)), f"{UNBOUNDED} likelihood Distance is not a dens"),
    (lambda: made(bottleneck="identity").bound(BATCH, 1, Rng(0)), f"{UNBOUNDED} bottleneck Identity has no densities"),
    (lambda: made().bound(BATCH, 0, Rng(0)), "Autoencoder.bound expects num of at least 1, got 0"),
    (lambda: gan().bound(BATCH, 1, Rng(0)), "GAN has no lower bound on log p"),
    (lambda: gan().weigh(BATCH.tensor, "continuous", Rng(0)), "GAN has no densities of its latents"),
    (lambda: vq().weigh(BATCH.tensor, "continuous", Rng(0)), "'continuous' has no density, only 'codes' has"),
    (lambda: vq().bottleneck.posterior("continuous", BATCH.tensor, Rng(0)), "of its codes only; 'continuous' has no d"),
    (lambda: vq().bottleneck.log_prior("quantized", BATCH.tensor), "a prior of its codes only, not of 'quantized'"),
)
