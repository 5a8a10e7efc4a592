"""Mixtures of Gaussians as Models and as priors, and the prior of an autoencoder's own posteriors."""

import copy
import math
from functools import partial

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from modkit import TensorType, build, load, train, use
from modkit.models import Autoencoder, DiagonalMixture, Latent, Vamp
from modkit.models.mixture import compute_log_mixture, draw_mixture
from modkit.rng import Rng
from modkit.types import Batch
from tests.play import MLP, digits, spec, turn
from tests.refusals import refusals

VAE = use("autoencoder", **{**MLP, "bottleneck": use("gaussian", channels=3)})
EXACT = {"mixture": use("mixture", components=4), "vamp": use("vamp", inputs=5)}


def joint(prior, autoencoder=VAE, **options):
    return use("latent", autoencoder=autoencoder, prior=prior, joint=True, **options)


def components(num=3, shape=(2, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(num, *size, generator=generator, dtype=torch.float64) for size in (shape, shape, ())]
    return values[0], 0.3 * values[1], values[2]


def reference(mean, logvar, logits):
    each = Independent(Normal(mean.flatten(1), (logvar.flatten(1) / 2).exp()), 1)
    return MixtureSameFamily(Categorical(logits=logits), each)


def test_its_density_is_that_of_torch_with_its_gradients():
    x = torch.randn(5, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs = [value.requires_grad_() for value in (x, *components())]
    ours, theirs = compute_log_mixture(*inputs), reference(*inputs[1:]).log_prob(inputs[0].flatten(1))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(one.sum(), inputs) for one in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_one_standard_normal_is_the_closed_form_in_any_precision():
    x = 3 * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = Normal(0.0, 1.0).log_prob(x.double()).flatten(1).sum(1)
    for dtype, close in ((torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        model = DiagonalMixture(TensorType((1, 8, 8)), components=1).to(dtype)
        found = model.log_prob(Batch(x.to(dtype), {}), 1, Rng(0))
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(found.double(), exact, rtol=close, atol=0)


def test_draws_are_of_the_mixture():
    mean, logvar, logits = components(shape=(2,))
    num, like = 40_000, torch.empty(40_000, 2, dtype=torch.float64)
    drawn = draw_mixture(like, mean, logvar, logits, Rng(0))
    exact = reference(mean, logvar, logits)
    torch.testing.assert_close(drawn.mean(0), exact.mean, rtol=0, atol=4 * float(exact.stddev.max()) / math.sqrt(num))
    torch.testing.assert_close(drawn.var(0), exact.variance, rtol=0.05, atol=0)
    nats = exact.log_prob(drawn)  # their mean is the negative entropy, of which quadrature tells the value
    axis = torch.linspace(-9, 9, 400, dtype=torch.float64)
    grid = exact.log_prob(torch.cartesian_prod(axis, axis))
    entropy = -(grid.exp() * grid).sum() * float(axis[1] - axis[0]) ** 2
    assert abs(float(nats.mean() + entropy)) < 4 * float(nats.std()) / math.sqrt(num)


def test_a_mixture_learns_the_clusters_of_data():
    centres = torch.tensor([[2.0, 2.0], [-2.0, 0.0]])
    noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    x = centres.repeat(100, 1) + 0.1 * noise
    torch.manual_seed(0)
    model = DiagonalMixture(TensorType((2,)), components=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for step in range(400):
        optimizer.zero_grad()
        model.losses("mixture", Batch(x, {}), turn(step))["nll"].backward()
        optimizer.step()
    exact = math.log(0.5) - math.log(2 * math.pi * 0.01) - 1  # the negative entropy of two far Gaussians
    assert abs(float(model.bound(Batch(x, {}), 1, Rng(0)).detach().mean()) - exact) < 0.2


@torch.no_grad()
def test_under_one_standard_normal_the_joint_losses_are_the_kl_within_sampling_error():
    model = build(spec(joint(use("mixture", components=1)))).double()
    plain = model.autoencoder
    batch, found = digits(8, torch.float64), []
    exact = plain.losses("autoencoder", batch, turn())["kl"]
    for index in range(400):
        losses = model.losses("autoencoder/autoencoder", batch, turn(index))
        found.append(losses["autoencoder/entropy"] + losses["autoencoder/cross_entropy"])
    found = torch.stack(found)
    assert abs(float(found.mean() - exact)) < 4 * float(found.std()) / 20


@torch.no_grad()
def test_vamp_is_the_mean_of_the_posteriors_of_its_inputs():
    model = build(spec(joint(use("vamp", inputs=5), scale=0.5))).double()
    mean, std = model.autoencoder.encode_moments(model.prior.pseudo["inputs"], "continuous")
    z = torch.randn(4, *mean.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scaled = reference(0.5 * mean, 2 * (0.5 * std).log(), torch.zeros(5).double())
    found = model.prior.bound(Batch(z, {}), 1, Rng(0))
    torch.testing.assert_close(found, scaled.log_prob(z.flatten(1)), rtol=1e-10, atol=1e-10)


def test_gradients_of_vamp_reach_its_inputs_and_the_encoder():
    model = build(spec(joint(EXACT["vamp"])))
    losses = model.losses("prior/vamp", digits(4), turn())
    model.zero_grad()
    losses["prior/nll"].backward()
    assert float(model.prior.pseudo["inputs"].grad.abs().min()) > 0
    assert any(one.grad is not None for one in model.autoencoder.bottleneck.parameters())


def test_a_copy_of_a_model_encodes_by_its_own_encoder():
    model = build(spec(joint(EXACT["vamp"])))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.autoencoder.parameters():
            parameter.add_(0.1)
    batch = Batch(torch.zeros(2, *model.prior.single.shape), {})
    nats = [one.prior.bound(batch, 1, Rng(0)) for one in (model, other, copy.deepcopy(other))]
    assert not torch.allclose(nats[0], nats[1])
    torch.testing.assert_close(nats[1], nats[2], rtol=0, atol=0)


@pytest.mark.parametrize("name", EXACT)
def test_it_trains_jointly_and_in_stages_and_is_loaded(name, tmp_path):
    for folder, options in (("joint", {"joint": True}), ("staged", {})):
        made = use("latent", autoencoder=VAE, prior=EXACT[name], **options)
        run = train(spec(made, steps=2), tmp_path / folder)
        model = load(run)
        before = build(spec(made))
        key = next(key for key in model.state_dict() if key.startswith("prior."))
        assert not torch.equal(model.state_dict()[key], before.state_dict()[key])
        torch.testing.assert_close(load(run).sample(4, seed=0), model.sample(4, seed=0), rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", EXACT)
def test_several_draws_under_an_exact_prior_are_importance_weights(name):
    model = build(spec(joint(EXACT[name]))).double()
    batch = digits(4, torch.float64)
    single = torch.stack([model.bound(batch, 1, Rng("bound").at(index)) for index in range(6)])
    expected = single.logsumexp(0) - math.log(6)
    torch.testing.assert_close(model.bound(batch, 6, Rng("bound")), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="num of at least 1, got 0"):
        model.bound(batch, 0, Rng(0))


def test_it_takes_no_codes():
    with pytest.raises(ValueError, match="DiagonalMixture expects a continuous type"):
        DiagonalMixture(TensorType((4,), classes=3))


def under(**autoencoder):
    """A staged `latent` whose prior is made of the posteriors of such an autoencoder."""
    return use("latent", autoencoder=use("autoencoder", **{**MLP, **autoencoder}), prior=EXACT["vamp"])


test_refusals = refusals(
    (lambda: build(spec(EXACT["vamp"])), "expects a slot that provides `coder`, got one that does not"),
    (lambda: build(spec(under(bottleneck="identity"))), "given only x, got the latent 'continuous', which has none"),
    (lambda: build(spec(under(conditioner="label"))), "got an encoder that also reads the fields labels"),
    (lambda: DiagonalMixture(TensorType((2,)), components=0), "components.*, got 0"),
)


def test_objects_compose_as_specs_do():
    x = TensorType((2,))
    model = Latent(
        x, autoencoder=Autoencoder(x, encoder="mlp", decoder="mlp"), prior=partial(Vamp, inputs=3), joint=True
    )
    assert model.prior.pseudo["inputs"].shape == (3, 2) and model.sample(5, seed=0).shape == (5, 2)
