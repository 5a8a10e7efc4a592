"""Autoregressive models of continuous maps, whose heads are Models of a token."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import modkit
from modkit import SpecError, train, use
from modkit.models.autoregressive import Autoregressive
from modkit.models.model import evaluate_mode
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType
from tests.models.codes import NETWORK
from tests.models.test_autoregressive import Unstepped
from tests.play import VAE, digits, shake, spec, turn
from tests.refusals import refusals

NET = use("mlp", width=16, depth=1)
FLOW = use("flow", bijection=use("autoregressive", width=16, depth=1))
DIFFUSION = use("diffusion", network=NET, sampler=use("ddim", steps=2))
GAN = use("gan", generator=NET, discriminator=NET, z_dim=2)
MAP, VECTOR = TensorType((2, 2, 3)), TensorType((6,))


def made(head=FLOW, x=MAP, cond=CondType(), **slots):  # noqa: B008
    """A model with weights far from where they start, in float64."""
    return shake(Autoregressive(x, cond, network=NETWORK, head=head, **slots).double(), 0.3).eval()


def data(x=MAP, num=4, seed=0, **fields):
    return Batch(Rng(seed).normal("x", torch.empty(num, *x.shape, dtype=torch.float64)), fields)


def split(x):
    """The tokens in raster order, `b n c`."""
    return x.flatten(2).mT if x.ndim > 2 else x[..., None]


def step_through(model, tokens, cond=Cond()):  # noqa: B008
    """The network's vectors, each computed from a sequence that ends at the token before: `b n d`."""
    cache, vectors = None, []
    for i in range(tokens.shape[1]):
        vector, cache = model.network.step(tokens[:, max(i - 1, 0)], i, cond, cache)
        vectors.append(vector)
    return torch.stack(vectors, 1)


@pytest.mark.parametrize("x", [MAP, VECTOR], ids=["map", "vector"])
@pytest.mark.parametrize(
    ("head", "density"), [(FLOW, "bound"), (FLOW, "log_prob"), (DIFFUSION, "bound")], ids=["flow", "exact", "diffusion"]
)
def test_the_density_is_the_sum_of_the_head_s_computed_one_token_at_a_time(x, head, density):
    model, batch = made(head, x), data(x)
    tokens = split(batch.tensor)
    vectors, want = step_through(model, tokens), torch.zeros(4, dtype=torch.float64)
    for row in range(4):
        for i in range(6):
            one = Batch(tokens[row, i][None], {}, Cond(vector=vectors[row, i][None]))
            want[row] += getattr(model.head, density)(one, 3, Rng(7).at("head").rows(row * 6 + i))[0]
    got = getattr(model, density)(batch, 3, Rng(7))
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
    assert got.std() > 0.1


def test_the_loss_is_the_negative_density_in_nats_a_value():
    model, batch = made(), data()
    losses = model.losses("head/flow", batch, turn("a"))
    assert list(losses) == ["head/nll"]
    torch.testing.assert_close(losses["head/nll"], -model.log_prob(batch, 1, Rng(0)).mean() / 12, rtol=1e-12, atol=0)


def test_every_token_of_a_batch_has_noise_of_its_own_however_the_batch_is_split():
    model, batch = made(DIFFUSION), data()
    whole = model.losses("head/denoiser", batch, turn("a"))["head/denoising"]
    half, other = (
        model.losses("head/denoiser", batch.rows(rows), replace(turn(), rng=Rng("turn", "a").rows(rows.start)))
        for rows in (slice(0, 2), slice(2, 4))
    )
    mean = (half["head/denoising"] + other["head/denoising"]) / 2
    torch.testing.assert_close(mean, whole, rtol=1e-12, atol=0)
    seen = []
    model.head.network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.losses("head/denoiser", Batch(torch.zeros_like(batch.tensor), {}), turn("a"))
    assert len(seen[0]) == 24 and len(seen[0].unique(dim=0)) == 24


@pytest.mark.parametrize("x", [MAP, VECTOR], ids=["map", "vector"])
def test_a_token_is_the_head_s_draw_given_the_tokens_before_it(x):
    """The fault would be order or conditions: the flow of the drawn map is the noise that each token was drawn from."""
    model = made(x=x)
    with evaluate_mode(model):
        drawn = model.draw(5, {}, Cond(), Rng(3))
    tokens = split(drawn)
    vectors = model.network(drawn.view(5, *model.codes.shape), Cond())
    noise, _ = model.head.bijection(tokens.flatten(0, 1), Cond(vector=vectors.flatten(0, 1)))
    like = tokens[:, 0]
    want = torch.stack([Rng(3).at("head", i).normal("base", like) for i in range(6)], 1)
    torch.testing.assert_close(noise.view_as(want), want, rtol=0, atol=1e-9)


def test_samples_of_a_seed_are_the_same_in_any_batches():
    model = made(DIFFUSION)
    whole = model.sample(5, seed=4)
    assert whole.shape == (5, 2, 2, 3)
    for size in (1, 2):
        torch.testing.assert_close(model.sample(5, seed=4, batch_size=size), whole, rtol=0, atol=1e-12)


def test_a_markov_chain_is_learned_to_its_likelihood():
    """Gaussian, of 6 with correlation .8: independent values would lie 2.6 nats below."""
    rho = 0.8

    def draw(num, seed):
        noise = torch.randn(num, 6, generator=torch.Generator().manual_seed(seed))
        values = [noise[:, 0]]
        for i in range(1, 6):
            values.append(rho * values[-1] + math.sqrt(1 - rho**2) * noise[:, i])
        return torch.stack(values, 1)[:, None]

    torch.manual_seed(0)
    network = use("transformer", width=32, depth=1, heads=2, dropout=0.0)
    model = Autoregressive(TensorType((1, 6)), network=network, head=FLOW)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for step in range(600):
        optimizer.zero_grad()
        model.losses("head/flow", Batch(draw(256, step), {}), turn(step))["head/nll"].backward()
        optimizer.step()
        schedule.step()

    x = draw(2000, 10_000)
    flat = x[:, 0]
    innovations = (flat[:, 1:] - rho * flat[:, :-1]) / math.sqrt(1 - rho**2)
    nats = -0.5 * (flat[:, 0].square() + innovations.square().sum(1) + 6 * math.log(2 * math.pi))
    true = nats - 2.5 * math.log(1 - rho**2)
    with evaluate_mode(model):
        learned = model.log_prob(Batch(x, {}), 1, Rng(0))
    assert abs(float((learned - true).mean())) < float(true.std()) / math.sqrt(2000)


def test_conditions_reach_the_network_in_training_sampling_and_the_bound():
    x, labels = TensorType((2, 2, 3)), TensorType((), classes=10)
    slots = {"fields": {"labels": labels}, "conditioner": use("label", width=5, drop=0.0)}
    model = made(x=x, cond=CondType(vector=3), **slots)
    batch = data(x)

    def given(label, value):
        rows = {"labels": torch.full((4,), label)}
        return Batch(batch.x, rows, Cond(vector=torch.full((4, 3), value, dtype=torch.float64)))

    for other in (given(1, 0.5), given(0, -0.5)):
        for read in (
            lambda one: model.bound(one, 1, Rng(0)),
            lambda one: model.losses("head/flow", one, turn("a"))["head/nll"],
            lambda one: model.draw(4, one.fields, one.cond, Rng(0)),
        ):
            assert (read(other) - read(given(0, 0.5))).abs().max() > 1e-4
    (player,) = model.players()
    assert (player.name, player.modules) == ("head/flow", ("network", "conditioner", "head.bijection"))


def test_the_network_is_trained_by_the_player_that_no_other_plays_against():
    model, batch = made(GAN), data()
    modules = {player.name: player.modules for player in model.players()}
    assert modules["head/generator"][0] == "network" and "network" not in modules["head/discriminator"]
    for name, trained in (("head/generator", True), ("head/discriminator", False)):
        model.zero_grad()
        sum(model.losses(name, batch, turn(name)).values()).backward()
        assert (model.network.start.grad is not None) == trained
        assert model.get_submodule(modules[name][-1]) is not None
    assert model.network.codes.weight.grad is None  # the discriminator's turn was the last


@pytest.mark.parametrize("head", [FLOW, DIFFUSION], ids=["flow", "diffusion"])
def test_gradients_reach_every_parameter_of_the_network(head):
    model = made(head)
    (player,) = model.players()
    sum(model.losses(player.name, data(), turn("a")).values()).backward()
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in model.network.parameters())


def test_gradients_of_the_bound_are_its_finite_differences():
    model, x = made(), data(num=2).tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda one: model.bound(Batch(one, {}), 1, Rng(0)), x)


def test_float32_computes_what_float64_does():
    model, batch = made(), data()
    single = copy.deepcopy(model).float()
    got = single.bound(Batch(batch.tensor.float(), {}), 1, Rng(0))
    torch.testing.assert_close(got.double(), model.bound(batch, 1, Rng(0)), rtol=1e-4, atol=1e-4)


def test_the_head_is_prepared_from_the_tokens_of_the_data():
    head = use("flow", bijection=use("chain", layers=["actnorm", use("autoregressive", width=16, depth=1)]))
    model = Autoregressive(MAP, network=NETWORK, head=head)
    x = 3 + 2 * data(num=50).tensor.float()
    model.prepare("head/flow", [Batch(x[:25], {}), Batch(x[25:], {})], Rng(0))
    first, _ = model.head.bijection.list_layers()
    y, _ = first(split(x).flatten(0, 1), Cond())
    assert y.shape == (300, 2)
    assert y.mean(0).abs().max() < 1e-5 and (y.std(0, correction=0) - 1).abs().max() < 1e-5


def test_weights_are_the_head_s_and_its_own():
    head = use(FLOW.use, **FLOW.params, weights={"nll": 3.0})
    weights = Autoregressive(MAP, network=NETWORK, head=head).weights("head/flow")
    assert {term: weight(turn("a"), {}, None) for term, weight in weights.items()} == {"head/nll": 3.0}


@pytest.mark.parametrize("head", [DIFFUSION, pytest.param(GAN, marks=pytest.mark.wide)], ids=["diffusion", "gan"])
def test_as_the_prior_of_a_latent_map_it_trains_draws_and_is_loaded_with_its_weights(head, tmp_path):
    maps = use("autoencoder", encoder=use("conv", channels=[4, 8]), decoder=use("conv", channels=[8, 4]))
    model = use("latent", autoencoder=maps, prior=use("autoregressive", network=NETWORK, head=head))
    run = train(spec(model, steps=2), tmp_path / "run")
    loaded, again = modkit.load(run), modkit.load(run)
    assert torch.equal(loaded.sample(3, seed=0), again.sample(3, seed=0))
    assert not torch.equal(loaded.sample(3, seed=0), loaded.sample(3, seed=1))
    if head is DIFFUSION:
        assert loaded.bound(digits(3), 1, Rng(0)).shape == (3,)


def test_a_head_without_a_bound_gives_its_reason():
    model = made(GAN)
    assert model.explain_lack("bound") == "GAN has no lower bound on log p(x)"
    with pytest.raises(ValueError, match="GAN has no lower bound"):
        model.bound(data(), 1, Rng(0))


class Vectorless(Unstepped):
    """A network of codes with steps, which states no width of vectors."""

    def __init__(self, codes: TensorType, cond: CondType, causal: bool) -> None:
        nn.Module.__init__(self)

    def step(self, previous, i, cond, cache):
        raise AssertionError


def refused(x=MAP, **slots):
    return lambda: Autoregressive(x, **{"network": NETWORK, "head": FLOW, **slots})


UNDRAWN = use(VAE.use, **VAE.params, bottleneck="identity")
BOUNDED = TensorType((3, 4, 4), (-1, 1))

test_what_does_not_fit_is_refused = refusals(
    (refused(TensorType((2, 2), classes=3)), "Autoregressive expects a continuous type, got 2×2 codes of 3 classes"),
    (refused(head=None), "Autoregressive expects codes, got 2×2×3 unbounded"),
    (refused(head="mixture"), r"model\.head: .* a part that takes conditions, .*; it is fed by a token of x"),
    (refused(head="autoregressive"), "model.*Autoregressive expects codes, got 2 unbounded"),
    (refused(BOUNDED, levels=4), "got 'levels' beside 'head', .*change model.head or set model.head to null"),
    (refused(window=[2, 2]), "got 'window' beside 'head', which replaces it"),
    (refused(sampler=use("raster", top_k=2)), "got 'sampler' beside 'head', which replaces it"),
    (refused(guidance=use("cfg", scale=2.0)), "got 'guidance' beside 'head', which replaces it"),
    (refused(network=Vectorless), r"model\.network: expected a network that states the `width` .* got Vectorless"),
    (
        refused(head=use("latent", autoencoder=VAE, prior=DIFFUSION)),
        "expects a head that is trained in one stage, since its network is trained with it, .*which has 2 stages",
    ),
    error=SpecError,
)


def test_a_head_that_cannot_draw_is_found():
    model = Autoregressive(MAP, network=NETWORK, head=UNDRAWN)
    assert "Identity has no prior" in model.explain_undrawn()
    assert [note.path for note in model.review()] == ["head"]
