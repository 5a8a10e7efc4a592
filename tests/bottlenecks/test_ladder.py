"""The ladder against torch's distributions, and against a linear one whose evidence has a closed form."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import modkit
from modkit import build, use
from modkit.bottlenecks import Ladder
from modkit.bottlenecks.ladder_group import LadderGroup
from modkit.models import Autoencoder
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, TensorType, split_levels
from tests.nn.modules import normal, randomized
from tests.play import digits, spec, turn
from tests.refusals import refusals

H = (TensorType((6, 2, 3)), TensorType((4, 4, 5)))
LEVELS = {"encoder": use("conv", channels=[4, 8], levels=[8, 4]), "decoder": use("conv", channels=[4])}


def make(h=H, **options):
    return randomized(Ladder(h, channels=2, **options).double(), 0.2)


def maps(num=3, h=H):
    drawn = tuple(normal(num, *one.shape, seed=i) for i, one in enumerate(h if isinstance(h, tuple) else (h,)))
    return drawn if isinstance(h, tuple) else drawn[0]


def descend(part, h, z):
    """The posterior and prior of each group given the latents before it, and the state, written out."""
    s, found = part.start.expand(len(z[0]), *part.start.shape), []
    for index, (group, features) in enumerate(zip(part.groups, h)):
        s = part.rises[0](s) if index == 1 else s
        prior = group.predict(s)
        posterior, _ = group.infer(s, features, prior)
        found.append([Independent(Normal(m, (v / 2).exp()), 3) for m, v in (posterior, prior)])
        s = group.update(s, z[index])
    return found, s


def test_kl_and_densities_are_sums_of_those_of_torch_distributions():
    part, h = make(groups=[1, 2]), maps()
    made = part(h, turn())
    z = made.values["hierarchy"]
    found, s = descend(part, (h[0], h[1], h[1]), z)
    torch.testing.assert_close(made.kl, torch.stack([kl_divergence(q, p) for q, p in found], dim=1))
    torch.testing.assert_close(made.values["state"], s)
    drawn, log_q = part.posterior("hierarchy", h, turn().rng)
    assert all(torch.equal(one, same) for one, same in zip(drawn, z, strict=True))
    torch.testing.assert_close(log_q, sum(q.log_prob(one) for (q, _), one in zip(found, z)))
    torch.testing.assert_close(part.log_prior("hierarchy", z), sum(p.log_prob(one) for (_, p), one in zip(found, z)))
    for (q, _), one in zip(found, part(h, None).values["hierarchy"][:1]):
        torch.testing.assert_close(one, q.mean)


@pytest.mark.parametrize(
    "h", [TensorType((6,)), TensorType((6, 5)), TensorType((6, 3, 5)), TensorType((6, 2, 3, 4)), H]
)
@pytest.mark.parametrize("width", [None, 3])
def test_the_decoder_takes_the_state_that_the_latents_make(h, width):
    part = make(h, width=width)
    assert part.latents["state"].shape[0] == (width or split_levels(h)[-1].shape[0])
    made = part(maps(h=h), turn())
    assert list(part.latents) == ["hierarchy", "state"]
    state = made.values["state"]
    assert torch.equal(part.to_z("hierarchy", made.values["hierarchy"]), state)
    assert part.to_z("state", state) is state
    for type, z in zip(part.latents["hierarchy"], made.values["hierarchy"], strict=True):
        assert type.shape == z.shape[1:]
    assert part.latents["state"].shape == state.shape[1:] == part.sample(2, Rng(0)).shape[1:]


def test_samples_follow_the_priors_and_their_deviations_the_temperature():
    part = make(groups=[1, 1])
    first, second = part.groups
    for temperature in (1.0, 0.5, 0.0):
        part.temperature = temperature
        s = part.start.expand(3, *part.start.shape)
        prior = first.predict(s)
        z = prior.mean + temperature * (prior.logvar / 2).exp() * Rng(0).at("group-0").normal("prior", prior.mean)
        s = part.rises[0](first.update(s, z))
        prior = second.predict(s)
        z = prior.mean + temperature * (prior.logvar / 2).exp() * Rng(0).at("group-1").normal("prior", prior.mean)
        torch.testing.assert_close(part.sample(3, Rng(0)), second.update(s, z))
    cold = part.sample(3, Rng(1))
    torch.testing.assert_close(cold, cold[:1].expand_as(cold))


def test_layers_are_scaled_by_the_number_of_all_groups():
    h = TensorType((6, 3, 5))
    torch.manual_seed(0)
    part = Ladder(h, groups=[4])
    torch.manual_seed(0)
    alone = LadderGroup(h, h, channels=4, gain=0.5).state_dict()
    assert all(torch.equal(value, alone[name]) for name, value in part.groups[0].state_dict().items())


def test_gradients_reach_features_and_priors():
    part = make(TensorType((3, 2)), groups=[2])

    def both(h, bias):
        with torch.no_grad():
            part.groups[1].prior[3].bias.copy_(bias)
        return torch.func.functional_call(part, {"groups.1.prior.3.bias": bias}, (h, turn()))[:2]

    def play(h, bias):
        values, kl = both(h, bias)
        return *values["hierarchy"], values["state"], kl

    given = normal(2, 3, 2).requires_grad_(), normal(4).requires_grad_()
    assert torch.autograd.gradcheck(play, given)


def use_linear(layers, inner, outer):
    """Makes two layers around a SiLU a linear map, since silu(x) - silu(-x) = x, without a norm."""
    layers[0] = nn.Identity()
    with torch.no_grad():
        layers[1].weight.copy_(torch.cat([inner, -inner]))
        layers[3].weight.copy_(torch.cat([outer, -outer], dim=1))
        layers[1].bias.zero_()


@pytest.fixture
def linear():
    """A VAE of three groups whose priors, updates and decoder are linear, and its log p(x) in closed form."""
    x = TensorType((4,))
    parts = {"encoder": use("mlp", depth=0), "decoder": use("mlp", depth=0), "likelihood": "mse"}
    model = Autoencoder(x, **parts, bottleneck=use("ladder", channels=1, groups=[3])).double()
    randomized(model, 0.3)
    part = model.bottleneck
    # the state as a map of all noise, and an offset: s = J e + s_0
    jacobian, offset = torch.zeros(4, 3, dtype=torch.float64), part.start.detach()
    for index, group in enumerate(part.groups):
        a, b = normal(2, 4, seed=index) / 2, normal(2, 2, seed=9 + index)
        b[1] = 0.0  # the variance of a group does not depend on the state
        use_linear(group.prior, a, b)
        group.posterior[3].weight.data.mul_(0.3)
        nn.init.zeros_(group.posterior[3].bias)
        c, d = normal(2, 4, seed=20 + index) / 2, normal(4, 2, seed=30 + index) / 2
        use_linear(group.block, c, d)
        weight, bias, more = group.project.weight, group.project.bias, group.block[3].bias
        mean, logvar = group.prior[3].bias
        row, shift = (b @ a)[0] @ jacobian, (b @ a)[0] @ offset + mean
        row[index] += (logvar / 2).exp()
        told, at = jacobian + weight * row, offset + weight[:, 0] * shift + bias
        jacobian, offset = told + d @ c @ told, at + d @ c @ at + more
    out = model.decoder.out
    mixed = (out.weight @ jacobian).detach()
    evidence = MultivariateNormal(
        (out.weight @ offset + out.bias).detach(), mixed @ mixed.T + torch.eye(4, dtype=torch.float64)
    )
    return model, evidence


@pytest.mark.wide
def test_the_bound_of_a_linear_ladder_rises_to_its_exact_evidence(linear):
    model, evidence = linear
    num, x = 2000, normal(1, 4, seed=5)
    exact = evidence.log_prob(x)[0]
    batch = Batch(x.expand(num, -1), {})
    with torch.no_grad():
        found = {draws: model.bound(batch, draws, Rng(0)) for draws in (1, 4, 64)}
        mean = {draws: bounds.mean() for draws, bounds in found.items()}
        error = {draws: bounds.std() / num**0.5 for draws, bounds in found.items()}
        assert mean[1] + 5 * error[1] < mean[4] - 5 * error[4] < mean[64] - 5 * error[64] < exact
        assert abs(mean[64] - exact) < 0.05 * (exact - mean[1])
        unbiased = found[64].logsumexp(0) - math.log(num)  # p(x) = E[exp(bound)], whatever the posterior
        relative = (found[64] - exact).exp().std() / num**0.5
        assert abs(unbiased - exact) < 5 * relative < 0.05
        elbo = model.bound(batch, 1, Rng(1))
        latents, log_q = model.bottleneck.posterior("hierarchy", batch.tensor, Rng(2))
        log_p = model.bottleneck.log_prior("hierarchy", latents)
        nll = model.likelihood.nll(model.decoder(model.bottleneck.to_z("hierarchy", latents)), batch.tensor)
        drawn = log_p - log_q - nll - 4 * model.likelihood.constant
        assert abs(elbo.mean() - drawn.mean()) < 5 * (elbo.std() + drawn.std()) / num**0.5


def test_samples_of_a_linear_ladder_have_its_moments(linear):
    model, evidence = linear
    num = 20000
    with torch.no_grad():
        x = model.decoder(model.bottleneck.sample(num, Rng(0))) + normal(num, 4)
    covariance = evidence.covariance_matrix
    spread = covariance.diagonal().sqrt()
    assert ((x.mean(0) - evidence.mean).abs() < 5 * spread / num**0.5).all()
    assert ((x.T.cov() - covariance).abs() < 5 * 2**0.5 * spread[:, None] * spread / num**0.5).all()


@pytest.mark.wide
def test_an_autoencoder_over_it_trains_samples_and_has_a_bound():
    report = modkit.check(spec(use("autoencoder", **LEVELS, bottleneck="ladder")))
    assert report.unchecked == {} and report.terms["autoencoder"] == ("nll", "kl")
    model, batch = build(spec(use("autoencoder", **LEVELS, bottleneck="ladder"))), digits(2)
    nn.init.normal_(model.decoder.conv_out.weight)
    made = model.bottleneck(model.encoder(batch.tensor), StepContext(Rng(0).at(0)))
    nll = model.likelihood.nll(model.decoder(made.values["state"]), batch.tensor)
    torch.testing.assert_close(model.bound(batch, 1, Rng(0)), -nll - model.likelihood.constant * 64 - made.total_kl)
    latent = model.encode(batch.tensor, "hierarchy")
    assert [tuple(one.shape) for one in latent] == [(2, 4, 4, 4), (2, 4, 4, 4), (2, 4, 8, 8), (2, 4, 8, 8)]
    torch.testing.assert_close(model.reconstruct(batch.tensor), model.decode(latent, "hierarchy"))


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("prior", "at"), [("diffusion", "state"), (use("cascade", level=use("diffusion", network="mlp")), "hierarchy")]
)
def test_a_latent_model_over_it_takes_the_state_or_the_hierarchy(prior, at):
    model = build(spec(use("latent", autoencoder=use("autoencoder", **LEVELS, bottleneck="ladder"), prior=prior)))
    assert model.at == at
    batch = digits(2)
    model.scale.measure([model.autoencoder.encode(batch.tensor, at)])
    assert model.sample(2, seed=0).shape == (2, 1, 8, 8)
    latent = model.autoencoder.encode(batch.tensor, at)
    torch.testing.assert_close(model.reconstruct(batch.tensor), model.autoencoder.decode(latent, at))
    if at == "state":
        with pytest.raises(ValueError, match="Ladder, 'state' has no density, only 'hierarchy' has"):
            model.bound(batch, 1, Rng(0))


def test_statistics_are_float32_under_bfloat16():
    part, h = Ladder(H, channels=2), tuple(one.float() for one in maps())
    exact = Ladder(H, channels=2).double()
    exact.load_state_dict(part.state_dict())
    want = exact(maps(), turn())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = part(h, turn())
    assert got.kl.dtype == torch.float32 and all(z.dtype == torch.float32 for z in got.values["hierarchy"])
    torch.testing.assert_close(got.kl.double(), want.kl, rtol=5e-2, atol=0)  # bfloat16's 8 bits, of a few layers


test_refusals_name_expected_and_received = refusals(
    (TensorType((4, 4), classes=8), {}, "Ladder expects continuous features .*codes of 8 classes"),
    (H[::-1], {}, "Ladder expects maps of one rank, coarsest first, got 4×4×5 unbounded, 6×2×3 unbounded"),
    ((TensorType((4,)), TensorType((4, 2))), {}, "Ladder expects maps of one rank, .* got 4 unbounded, 4×2"),
    (H, {"width": 0}, "Ladder expects width to be at least 1, got 0"),
    (H, {"channels": 0}, "Ladder expects channels to be at least 1, got 0"),
    (H, {"groups": [2]}, r"Ladder expects a number of groups for each of 2 levels, got \[2\]"),
    (H, {"groups": [2, 0]}, r"Ladder expects groups\[1\] to be at least 1, got 0"),
    (H, {"temperature": -0.5}, "Ladder expects temperature to be at least 0, got -0.5"),
    of=lambda h, options: Ladder(h, **options),
)


def test_other_latents_are_refused():
    part = make()
    with pytest.raises(ValueError, match=r"Ladder expects one of the latents \['hierarchy', 'state'\], got 'codes'"):
        part.to_z("codes", maps())
    for density in (lambda: part.log_prior("state", maps()), lambda: part.posterior("state", maps(), Rng(0))):
        with pytest.raises(ValueError, match="Ladder has the density of its latent 'hierarchy' alone, got 'state'"):
            density()
