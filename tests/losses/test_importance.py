import math
from functools import partial

import pytest
import torch
from numpy.polynomial import hermite_e
from torch import nn
from torch.distributions import Normal

from modkit import build, use
from modkit.bottlenecks import Gaussian
from modkit.building.plan import plan
from modkit.losses.importance import IWAE
from modkit.losses.likelihoods import MSE
from modkit.losses.objectives import FreeBits
from modkit.models import Autoencoder
from modkit.models.evidence import BatchEvidence
from modkit.models.observation import Observation
from modkit.models.posterior import Posterior
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.specs.overrides import apply
from modkit.types import Batch, Cond, TensorType
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


class Noisy(MSE):
    """N(out, NOISE^2), with log p(x | z) in full."""

    def nll(self, out, x):
        return -Normal(out, NOISE).log_prob(x).sum(1)


def evaluate(objective, q, num=24):
    """Means of the bound, of its gradients by q and by the slope, and variances of the first, by quadrature.

    Each row of the batch is a node, with a q of its own.
    """
    noise, weights = quadrature(objective.draws * objective.bounds, num)
    bottleneck = Gaussian(TensorType((2,)), channels=1).double()
    nn.init.eye_(bottleneck.project.weight), nn.init.zeros_(bottleneck.project.bias)
    h = torch.tensor([q], dtype=torch.float64).repeat(len(noise), 1).requires_grad_()
    slope = torch.full((len(noise), 1), SLOPE, dtype=torch.float64, requires_grad=True)
    x = TensorType((1,))
    p = Observation(lambda z: slope.repeat_interleave(noise.shape[1], 0) * z, Noisy(x), x)
    step, batch = StepContext(Nodes(noise)), torch.full((len(noise), 1), X, dtype=torch.float64)
    evidence = BatchEvidence(Posterior(bottleneck, nn.Module()), p, h, batch, Cond(), step, lambda out: {})
    _, losses = objective(evidence, step)
    bound = -losses["bound"]
    of_q, of_slope = torch.autograd.grad(bound.sum(), (h, slope))
    mean = weights @ of_q
    return weights @ bound.detach(), mean, weights @ of_slope, weights @ (of_q - mean).square()


def compute(q, noise, bounds, draws, elbo):
    """The bound of each row of noise, `n (m k)`, written out: a sum over its parts of `draws` draws."""
    total = torch.zeros(len(noise), dtype=torch.float64)
    for part in noise.split(draws, 1):
        z = q[0] + math.exp(q[1] / 2) * part
        log_w = Normal(SLOPE * z, NOISE).log_prob(z.new_tensor(X)) + Normal(0.0, 1.0).log_prob(z)
        log_w = log_w - Normal(z.new_tensor(q[0]), math.exp(q[1] / 2)).log_prob(z)
        total = total + elbo * log_w.mean(1) + (1 - elbo) * log_w.exp().mean(1).log()
    return total / bounds


MIXTURES = [(1, 1, 0.0), (1, 2, 0.0), (1, 3, 0.0), (3, 1, 0.0), (2, 2, 0.0), (1, 3, 0.4), (2, 2, 0.4), (1, 3, 1.0)]


@pytest.mark.parametrize(("bounds", "draws", "elbo"), MIXTURES)
def test_both_gradients_have_one_mean_and_the_second_varies_less(bounds, draws, elbo):
    q, num = (POSTERIOR[0] + 0.4, POSTERIOR[1] + 0.3), 24 if bounds * draws < 4 else 18
    mixture = {"bounds": bounds, "draws": draws, "elbo": elbo}
    first, second = (evaluate(IWAE(gradient=gradient, **mixture), q, num) for gradient in BOTH)
    noise, weights = quadrature(bounds * draws, num)
    for one, other in zip(first[:3], second[:3]):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)  # the quadrature of a softmax
    torch.testing.assert_close(first[0], weights @ compute(q, noise, bounds, draws, elbo), rtol=1e-12, atol=0)
    assert (second[3] < first[3]).all()


def test_mixtures_lie_between_the_elbo_and_the_bound_of_all_draws():
    """M = 1 and beta = 0 is IWAE; K = 1 and beta = 1 are the ELBO, to each draw."""
    log_w = Rng(0).normal("log w", torch.empty(5, 4, dtype=torch.float64))
    iwae, elbo = log_w.logsumexp(1) - math.log(4), log_w.mean(1)
    torch.testing.assert_close(IWAE(draws=4).combine(log_w), iwae)
    for of_elbo in (IWAE(draws=1, bounds=4), IWAE(draws=4, elbo=1.0), IWAE(draws=1, bounds=4, elbo=0.3)):
        torch.testing.assert_close(of_elbo.combine(log_w), elbo)
    for mixture in (IWAE(draws=2, bounds=2), IWAE(draws=4, elbo=0.5), IWAE(draws=2, bounds=2, elbo=0.5)):
        assert ((elbo < mixture.combine(log_w)) & (mixture.combine(log_w) < iwae)).all()


def test_of_one_draw_it_is_the_elbo():
    mean, logvar = q = (0.2, -0.6)
    h = torch.tensor(q, dtype=torch.float64, requires_grad=True)
    second = h[0] ** 2 + h[1].exp()
    elbo = -((X - SLOPE * h[0]) ** 2 + SLOPE**2 * h[1].exp()) / (2 * NOISE**2) - math.log(NOISE)
    elbo = elbo - math.log(2 * math.pi) / 2 - (second - 1 - h[1]) / 2
    (expected,) = torch.autograd.grad(elbo, h)
    for gradient in BOTH:
        bound, found, _, _ = evaluate(IWAE(draws=1, gradient=gradient), q)
        torch.testing.assert_close(bound, elbo.detach())
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("draws", [1, 3])
def test_at_the_posterior_the_bound_is_exact_and_only_the_second_gradient_does_not_vary(draws):
    first, second = (evaluate(IWAE(draws=draws, gradient=gradient), POSTERIOR) for gradient in BOTH)
    for bound, mean, _, _ in (first, second):
        torch.testing.assert_close(float(bound), LOG_P)
        torch.testing.assert_close(mean, torch.zeros(2, dtype=torch.float64))
    assert second[3].max() < 1e-14 < 0.1 < first[3].max()  # rounding, and more


@pytest.mark.wide
def test_it_rises_with_the_draws_to_the_likelihood():
    q = (POSTERIOR[0] - 0.5, POSTERIOR[1] + 1)
    bounds = [float(evaluate(IWAE(draws=draws), q, num)[0]) for draws, num in ((1, 60), (2, 60), (3, 40))]
    assert bounds[0] < bounds[1] < bounds[2] < LOG_P
    rows, draws = 200, 1000
    noise = Rng(0).normal("noise", torch.empty(rows * draws, dtype=torch.float64))
    bound = compute(q, noise.view(rows, draws), 1, draws, 0.0)
    assert bounds[2] < bound.mean() < LOG_P + 4 * bound.std() / rows**0.5
    assert bound.mean() == pytest.approx(LOG_P, abs=0.01)


@pytest.mark.parametrize("gradient", BOTH)
def test_an_autoencoder_minimises_it_over_the_rows_of_one_batch(gradient):
    model, batch = (
        made(objective=use("iwae", draws=3, gradient=gradient), likelihood="gaussian"),
        digits(4, torch.float64),
    )
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
    model, x = made(objective=use("iwae", draws=3)), digits(5, torch.float64).tensor
    whole = model.losses("autoencoder", Batch(x, {}), turn("a"))["bound"]
    parts = [
        model.losses("autoencoder", Batch(x[a:b], {}), StepContext(turn("a").rng.rows(a)))["bound"] * (b - a) / 5
        for a, b in ((0, 2), (2, 5))
    ]
    torch.testing.assert_close(sum(parts), whole)


CRITIC = use("critic", network=use("mlp", width=8, depth=1))


def test_critics_and_judges_see_the_first_draw():
    model = made(objective=use("iwae", draws=3), judges={"critic": CRITIC, "mmd": use("mmd")})
    batch = digits(4, torch.float64)
    losses = model.losses("autoencoder", batch, turn("a"))
    h = model.encoder(batch.tensor).repeat_interleave(3, 0)
    z, _ = model.bottleneck.posterior("continuous", h, turn("a").rng)
    fake = model.likelihood.mean(model.decoder(z[::3]))
    critic = model.judges.parts["critic"]
    torch.testing.assert_close(losses["critic"], critic.adversarial.generator(critic.network(fake, batch.cond)))
    prior = turn("a").rng.at("judges", "mmd").normal("prior", z[::3])
    torch.testing.assert_close(losses["mmd"], model.judges.parts["mmd"](z[::3], prior) / 64)


def check(**parts):
    return build(spec(use("autoencoder", **parts)))


WEIGHED, DOUBLY = use("iwae", draws=2), {"objective": use("iwae", draws=2, gradient="doubly-reparametrized")}
LEVELS = {"encoder": use("conv", channels=[4, 8], levels=[8, 4]), "decoder": use("conv", channels=[8, 4])}
HIERARCHY = use("top-down", level=use("gaussian", channels=2))
JOINT = {"autoencoder": use("autoencoder", objective=WEIGHED), "prior": use("diffusion", network="mlp"), "joint": True}
test_refuses = refusals(
    (lambda: IWAE(draws=0), "IWAE expects draws to be at least 1, got 0"),
    (lambda: IWAE(gradient="score"), "gradient"),
    (lambda: IWAE(elbo=1.5), "IWAE expects elbo to be in"),
    (
        partial(check, objective=WEIGHED, bottleneck="identity"),
        "with densities of its latent, .*, got .*identity.*, which has none",
    ),
    (
        partial(check, objective=WEIGHED, bottleneck="gumbel"),
        "whose draws pass gradients on, got .*gumbel.*, which has codes .* 'codes'",
    ),
    (
        partial(check, **LEVELS, **DOUBLY, bottleneck=HIERARCHY),
        "is a diagonal Gaussian, .*, got .*top-down.*, which has another",
    ),
    (partial(check, objective=WEIGHED, judges={"it": use("critic", game="vae-gan")}), "judges.it: weighed draws need"),
    (
        partial(check, draws=2, objective="free-bits"),
        "expected draws of the objective `iwae`, got the objective 'free-bits'",
    ),
    (
        partial(check, **DOUBLY, judges={"critic": CRITIC}),
        "no regularizers or judges with a doubly reparametrized gradient",
    ),
    (lambda: build(spec(use("latent", **JOINT))), "objective `elbo` in joint training, .*, got IWAE"),
    (partial(check, objective=WEIGHED, weights={"kl": 0.5}), "kl"),
)


def test_a_hierarchy_has_importance_weights_too():
    model = check(**LEVELS, objective=WEIGHED, bottleneck=HIERARCHY)
    assert model.losses("autoencoder", digits(3), turn())["bound"].isfinite()


@pytest.mark.parametrize(
    ("written", "overrides", "expected"),
    [
        ({"draws": 1, "gradient": "reparametrized", "rate": "sum"}, (), ("elbo", {})),
        ({"draws": 4}, (), ("iwae", {"draws": 4})),
        ({"gradient": BOTH[1], "rate": use("sum")}, (), ("iwae", {"draws": 1, "gradient": BOTH[1]})),
        ({"draws": 4}, ("model.gradient=doubly-reparametrized",), ("iwae", {"draws": 4, "gradient": BOTH[1]})),
        ({"draws": 4}, ("model.objective.elbo=0.5",), ("iwae", {"draws": 4, "elbo": 0.5})),
        ({}, ("model.draws=3", "model.gradient=reparametrized"), ("iwae", {"draws": 3})),
        ({"objective": use("iwae", draws=4, bounds=2)}, ("model.draws=3",), ("iwae", {"draws": 3, "bounds": 2})),
        ({"rate": "free-bits", "draws": 1}, ("model.rate.nats=2.0",), ("free-bits", {"nats": 2.0})),
        ({}, ("model.rate=capacity",), ("capacity", {})),
    ],
)
def test_former_parameters_are_the_objective(written, overrides, expected):
    part, params = expected
    found, notices = apply(spec(use("autoencoder", **written)), overrides)
    full = plan(spec(use("autoencoder", objective=use(part, **params)))).resolved.model
    planned = plan(found).resolved.model
    assert planned["objective"] == full["objective"] and not {"rate", "draws", "gradient"} & planned.keys()
    assert len(notices) <= 1


@pytest.mark.parametrize(("former", "expected"), [({"draws": 5}, IWAE), ({"rate": "free-bits"}, FreeBits)])
def test_former_parameters_are_taken_in_python_as_well(former, expected):
    model = Autoencoder(TensorType((1, 8, 8), (-1, 1)), encoder="mlp", decoder="mlp", **former)
    assert type(model.objective) is expected
