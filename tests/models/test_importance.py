import math
from functools import partial

import pytest
import torch
from numpy.polynomial import hermite_e
from torch import nn
from torch.distributions import Normal

from modkit import build, use
from modkit.bottlenecks import Gaussian
from modkit.models.importance import ImportanceWeights
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, TensorType
from tests.models.test_autoencoder import made
from tests.play import digits, spec, turn
from tests.refusals import refusals

BOTH = ("reparametrized", "doubly-reparametrized")
SLOPE, NOISE, X = 1.3, 0.7, 0.9
"""p(x | z) = N(x; SLOPE z, NOISE^2) with z from N(0, 1), at one x: log p(x) and p(z | x) are known."""
LOG_P = float(Normal(0.0, math.hypot(SLOPE, NOISE)).log_prob(torch.tensor(X, dtype=torch.float64)))
PRECISION = 1 + (SLOPE / NOISE) ** 2
POSTERIOR = (SLOPE * X / NOISE**2 / PRECISION, -math.log(PRECISION))


class Nodes:
    """Noise at given values, so that a mean over draws is a quadrature."""

    def __init__(self, noise):
        self.noise = noise

    def repeat(self, num):
        return self

    def normal(self, name, like):
        return self.noise.reshape(like.shape)


def quadrature(draws, num=24):
    """Nodes of Gauss and Hermite's quadrature of N(0, I) in `draws` dimensions, `n k`, and their weights."""
    nodes, weights = map(torch.from_numpy, hermite_e.hermegauss(num))
    grid = torch.cartesian_prod(*[nodes] * draws).view(-1, draws)
    return grid, torch.cartesian_prod(*[weights / weights.sum()] * draws).view(-1, draws).prod(1)


def evaluate(gradient, q, draws, num=24):
    """Means of the bound, of its gradients by q and by the slope, and variances of the first, by quadrature.

    Each row of the batch is a node, with a q of its own.
    """
    noise, weights = quadrature(draws, num)
    bottleneck = Gaussian(TensorType((2,)), channels=1).double()
    nn.init.eye_(bottleneck.project.weight), nn.init.zeros_(bottleneck.project.bias)
    h = torch.tensor([q], dtype=torch.float64).repeat(len(noise), 1).requires_grad_()
    slope = torch.full((len(noise), 1), SLOPE, dtype=torch.float64, requires_grad=True)
    importance = ImportanceWeights(bottleneck, "it", draws, gradient)
    z, log_ratio = importance.draw(bottleneck, h, Nodes(noise))
    log_p = Normal(slope.repeat_interleave(draws, 0) * z, NOISE).log_prob(torch.tensor(X)).sum(1)
    bound = importance.compute_bound(z, log_p + log_ratio)
    of_q, of_slope = torch.autograd.grad(bound.sum(), (h, slope))
    mean = weights @ of_q
    return weights @ bound.detach(), mean, weights @ of_slope, weights @ (of_q - mean).square()


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_both_gradients_have_one_mean_and_the_second_varies_less(draws):
    q = (POSTERIOR[0] + 0.4, POSTERIOR[1] + 0.3)
    first, second = (evaluate(gradient, q, draws) for gradient in BOTH)
    for one, other in zip(first[:3], second[:3]):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)  # the quadrature of a softmax
    assert (second[3] < first[3]).all()


def test_of_one_draw_it_is_the_elbo():
    mean, logvar = q = (0.2, -0.6)
    h = torch.tensor(q, dtype=torch.float64, requires_grad=True)
    second = h[0] ** 2 + h[1].exp()
    elbo = -((X - SLOPE * h[0]) ** 2 + SLOPE**2 * h[1].exp()) / (2 * NOISE**2) - math.log(NOISE)
    elbo = elbo - math.log(2 * math.pi) / 2 - (second - 1 - h[1]) / 2
    (expected,) = torch.autograd.grad(elbo, h)
    for gradient in BOTH:
        bound, found, _, _ = evaluate(gradient, q, 1)
        torch.testing.assert_close(bound, elbo.detach())
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("draws", [1, 3])
def test_at_the_posterior_the_bound_is_exact_and_only_the_second_gradient_does_not_vary(draws):
    first, second = (evaluate(gradient, POSTERIOR, draws) for gradient in BOTH)
    for bound, mean, _, _ in (first, second):
        torch.testing.assert_close(float(bound), LOG_P)
        torch.testing.assert_close(mean, torch.zeros(2, dtype=torch.float64))
    assert second[3].max() < 1e-14 < 0.1 < first[3].max()  # rounding, and more


@pytest.mark.wide
def test_it_rises_with_the_draws_to_the_likelihood():
    q = (POSTERIOR[0] - 0.5, POSTERIOR[1] + 1)
    bounds = [float(evaluate("reparametrized", q, draws, num)[0]) for draws, num in ((1, 60), (2, 60), (3, 40))]
    assert bounds[0] < bounds[1] < bounds[2] < LOG_P
    rows, draws = 200, 1000
    noise = Rng(0).normal("noise", torch.empty(rows * draws, dtype=torch.float64))
    z = q[0] + math.exp(q[1] / 2) * noise
    log_w = Normal(SLOPE * z, NOISE).log_prob(torch.tensor(X)) + Normal(0.0, 1.0).log_prob(z)
    log_w = log_w - Normal(q[0], math.exp(q[1] / 2)).log_prob(z)
    part = ImportanceWeights(Gaussian(TensorType((2,))), "it", draws, "reparametrized")
    bound = part.compute_bound(z, log_w)
    assert bounds[2] < bound.mean() < LOG_P + 4 * bound.std() / rows**0.5
    assert bound.mean() == pytest.approx(LOG_P, abs=0.01)


@pytest.mark.parametrize("gradient", BOTH)
def test_an_autoencoder_minimises_it_over_the_rows_of_one_batch(gradient):
    model, batch = made(draws=3, gradient=gradient, likelihood="gaussian"), digits(4, torch.float64)
    (name, loss), *others = model.losses("autoencoder", batch, turn("a")).items()
    h = model.encoder(batch.tensor).repeat_interleave(3, 0)
    z, log_q = model.bottleneck.posterior("continuous", h, turn("a").rng)
    log_p = model.bottleneck.log_prior("continuous", z) - model.likelihood.nll(
        model.decoder(z), batch.tensor.repeat_interleave(3, 0)
    )
    log_w = (log_p - log_q).view(4, 3)
    assert name == "bound" and not others
    torch.testing.assert_close(loss, -(log_w.logsumexp(1) - math.log(3)).mean() / 64)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_a_microbatch_has_the_draws_of_its_rows():
    model, x = made(draws=3), digits(5, torch.float64).tensor
    whole = model.losses("autoencoder", Batch(x, {}), turn("a"))["bound"]
    parts = [
        model.losses("autoencoder", Batch(x[a:b], {}), StepContext(turn("a").rng.rows(a)))["bound"] * (b - a) / 5
        for a, b in ((0, 2), (2, 5))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_critics_and_aggregates_see_the_first_draw():
    model = made(draws=3, critic=use("mlp", width=8, depth=1), aggregates={"mmd": use("mmd")})
    batch = digits(4, torch.float64)
    losses = model.losses("autoencoder", batch, turn("a"))
    h = model.encoder(batch.tensor).repeat_interleave(3, 0)
    z, _ = model.bottleneck.posterior("continuous", h, turn("a").rng)
    fake = model.likelihood.mean(model.decoder(z[::3]))
    torch.testing.assert_close(losses["adversarial"], model.adversarial.generator(model.critic(fake, batch.cond)))
    mmd = model.aggregates.compute(z[::3], model.encoder(batch.tensor), model.bottleneck, turn("a"))["mmd"]
    torch.testing.assert_close(losses["mmd"], mmd / 64)


def check(**parts):
    return build(spec(use("autoencoder", **parts)))


DOUBLY = {"draws": 2, "gradient": "doubly-reparametrized"}
LEVELS = {"encoder": use("conv", channels=[4, 8], levels=[8, 4]), "decoder": use("conv", channels=[8, 4])}
HIERARCHY = use("top-down", level=use("gaussian", channels=2))
JOINT = {"autoencoder": use("autoencoder", draws=2), "prior": use("diffusion", network="mlp"), "joint": True}
test_refuses = refusals(
    (partial(check, draws=0), "Autoencoder expects draws to be at least 1, got 0"),
    (partial(made, gradient="score"), "gradient"),
    (
        partial(check, draws=2, bottleneck="identity"),
        "with densities of its latent, .*, got .*identity.*, which has no",
    ),
    (partial(check, draws=2, bottleneck="gumbel"), "whose draws pass gradients on, got .*gumbel.* 'codes', is codes"),
    (partial(check, **LEVELS, **DOUBLY, bottleneck=HIERARCHY), "is a diagonal Gaussian, .*, got .*top-down.*, another"),
    (partial(check, draws=2, rate="free-bits"), "the rate `sum` .*, got FreeBits: importance weights leave none"),
    (
        partial(check, **DOUBLY, critic="mlp"),
        "no critics, .* or aggregates with a doubly reparametrized gradient",
    ),
    (lambda: build(spec(use("latent", **JOINT))), "one draw, reparametrized, in joint training, got importance"),
    (partial(check, draws=2, weights={"kl": 0.5}), "kl"),
)


def test_a_hierarchy_has_importance_weights_too():
    model = check(**LEVELS, draws=2, bottleneck=HIERARCHY)
    assert model.losses("autoencoder", digits(3), turn())["bound"].isfinite()
