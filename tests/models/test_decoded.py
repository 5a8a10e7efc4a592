import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.distributions import Normal, kl_divergence

import modkit
from modkit import build, train, use
from modkit.building.checker import examine
from modkit.models.model import Model
from modkit.models.player import Player
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.samplers.sampling import Sampling, SamplingStep
from modkit.types import Batch, Cond
from tests.models.test_autoencoder import SigmaPoints
from tests.play import digits, shake, spec, turn
from tests.refusals import refusals
from tests.training.test_resume import EVERY, resumed_from_each

NET = use("mlp", width=16, depth=1)
POINT = use("mlp", depth=0)  # the encoder has no parameters
MAPS = use("conv", channels=[8, 16])
GAUSSIAN = use("gaussian", channels=3)
VQ = use("vq", num_codes=6, channels=3)
DIFFUSION = use("diffusion", network=NET, sampler=use("ddim", steps=2))
FLOW = use("flow", bijection=use("coupling", network=NET))
GAN = use("gan", generator=NET, discriminator=NET, z_dim=4)
DDGAN = use("denoising-gan", network=NET, discriminator=NET, z_dim=4, steps=2)
VAE = use("autoencoder", encoder=NET, decoder=NET, likelihood="gaussian")
LDM = use("latent", autoencoder=use("autoencoder", encoder=NET, decoder=NET), prior=DIFFUSION)
JOINT = use(LDM.use, **LDM.params, joint=True)


class Affine(Model):
    """N(W z + b, s^2 I), whose bound is the density."""

    differentiable = True

    def __init__(self, x, cond):
        super().__init__()
        self.event, self.out = x, nn.Linear(cond.vector, x.numel)
        self.noise = nn.ParameterList([torch.zeros(())])  # the log variance

    def players(self):
        return (Player("affine", ("out", "noise")),)

    def losses(self, player, batch, step):
        return {"nll": -self.bound(batch, 1, step.rng).mean() / self.single.numel}

    def bound(self, batch, num, rng, *, grain=0.0):
        mean = self.out(batch.cond.vector).view_as(batch.tensor)
        return Normal(mean, (self.noise[0] / 2).exp()).log_prob(batch.tensor).flatten(1).sum(1)

    def draw(self, num, fields, cond, rng):
        return self.out(cond.vector).view(num, *self.single.shape)


class Recorder(Affine):
    """A decoder of two players that keeps the batches that each is shown."""

    def __init__(self, x, cond):
        super().__init__(x, cond)
        self.other, self.seen = nn.Linear(1, 1), {"rival": [], "affine": []}

    def players(self):
        return (Player("affine", ("out",), against=("rival",)), Player("rival", ("other",)))

    def losses(self, player, batch, step):
        self.seen[player].append(batch)
        return {"loss": self.bound(batch, 1, step.rng).mean()}

    def prepare(self, player, batches, rng):
        self.seen[player] += batches

    def update(self, player, step):
        self.seen[player].append(step)


class Told(Model):
    """A decoder whose class takes no conditions."""

    def __init__(self, x):
        super().__init__()


def made(decoder=DIFFUSION, **options):
    options = {"encoder": NET, "bottleneck": GAUSSIAN, **options}
    return build(spec(use("decoded", decoder=decoder, **options))).double()


def posterior(model, x, rng):
    mean, logvar = model.bottleneck.project(model.encoder(x)).chunk(2, dim=1)
    q = Normal(mean, (logvar / 2).exp())
    return q, mean + q.scale * rng.normal("posterior", mean)


def summed(values):
    return values.flatten(1).sum(1)


def place(model, pca):
    """Puts a linear model where q(z | x) is the exact posterior of scikit-learn's probabilistic PCA."""
    noise, precision = pca.noise_variance_, pca.explained_variance_  # W^T W + noise I
    w = pca.components_.T * np.sqrt(precision - noise)
    rows, k = w.T / precision[:, None], len(precision)
    with torch.no_grad():
        model.decoder.out.weight.copy_(torch.tensor(w))
        model.decoder.out.bias.copy_(torch.tensor(pca.mean_))
        model.decoder.noise[0].fill_(math.log(noise))
        model.bottleneck.project.weight.zero_()
        model.bottleneck.project.weight[:k] = torch.tensor(rows)
        model.bottleneck.project.bias[:k] = torch.tensor(-rows @ pca.mean_)
        model.bottleneck.project.bias[k:] = torch.tensor(np.log(noise / precision))


def test_the_bound_s_maximum_over_linear_encoders_is_the_likelihood_of_probabilistic_pca():
    model = made(use(Affine), encoder=POINT, bottleneck=use("gaussian", channels=5))
    x = digits(480, torch.float64).tensor
    pca = PCA(5, svd_solver="full").fit(x.flatten(1).numpy())
    place(model, pca)
    exact = torch.from_numpy(pca.score_samples(x.flatten(1).numpy()))
    points = SigmaPoints(5)
    points.at = lambda name: points

    def bound():
        return model.bound(Batch(x.repeat_interleave(10, 0), {}), 1, points).view(-1, 10).mean(1)

    torch.testing.assert_close(bound(), exact, rtol=1e-9, atol=0)
    losses = model.losses("decoder/affine", Batch(x.repeat_interleave(10, 0), {}), StepContext(points))
    torch.testing.assert_close(64 * (losses["decoder/nll"] + losses["kl"]), -exact.mean(), rtol=1e-9, atol=0)
    torch.testing.assert_close(
        model.weigh(x, "continuous", Rng(0))[1]
        + Normal(0.0, 1.0).log_prob(model.encode(x, "continuous", Rng(0))).sum(1),
        exact,
        rtol=1e-9,
        atol=0,
    )
    best = bound().mean()
    (gradient,) = torch.autograd.grad(best, model.bottleneck.project.weight)
    assert gradient.abs().max() < 1e-9
    shake(model.bottleneck, 0.01)
    assert bound().mean() < best - 1e-3


def test_where_z_says_nothing_the_kl_is_0_and_the_bound_the_decoder_s():
    model, batch = made(FLOW), digits(5, torch.float64)
    shake(model, 0.1)
    nn.init.zeros_(model.bottleneck.project.weight)
    nn.init.zeros_(model.bottleneck.project.bias)
    for name, parameter in model.decoder.named_parameters():
        if "embedding" in name:  # of z, which the decoder then ignores
            nn.init.zeros_(parameter)
    assert model.losses("decoder/flow", batch, turn())["kl"] == 0
    blank = model._add_z(batch, torch.zeros(5, 3, dtype=torch.float64))
    torch.testing.assert_close(model.bound(batch, 1, Rng(0)), model.decoder.bound(blank, 1, Rng(0)), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("decoder", "to"), [(FLOW, "vector"), (DIFFUSION, "vector"), (VAE, "vector"), (FLOW, None), (DIFFUSION, "context")]
)
def test_the_bound_is_the_decoder_s_given_z_less_the_kl(decoder, to):
    if to == "context":
        decoder = use("diffusion", network=use("dit", width=8, depth=1, heads=2, patch=4))
    model, batch = shake(made(decoder, to=to, encoder=MAPS), 0.1), digits(5, torch.float64)
    q, z = posterior(model, batch.tensor, Rng(7).at("bottleneck"))
    given = {
        "vector": lambda: Cond(vector=z.reshape(5, -1)),
        "context": lambda: Cond(context=z.reshape(5, 3, 16).transpose(1, 2)),
        None: lambda: Cond(concat=z),
    }[to]()
    inner = model.decoder.bound(Batch(batch.tensor, {}, given), 2, Rng(7).at("decoder"), grain=0.1)
    kl = summed(kl_divergence(q, Normal(0.0, 1.0)))
    torch.testing.assert_close(model.bound(batch, 2, Rng(7), grain=0.1), inner - kl, rtol=1e-12, atol=0)
    other = model.decoder.bound(
        Batch(batch.tensor, {}, given.map(torch.zeros_like)), 2, Rng(7).at("decoder"), grain=0.1
    )
    assert (other - inner).abs().min() > 1e-4  # it hears of z


class Exact(nn.Module):
    """The mean of x_0 given x_t and z, where p(x | z) = N((z, 0), I / 4), under the schedule `edm`."""

    def __init__(self, x, out, cond):
        super().__init__()

    def forward(self, x, cond):
        sigma = torch.exp(4 * cond.time.double())[:, None]
        x_t = x.double() * (1 + sigma**2).sqrt()
        mean = torch.cat([cond.vector, torch.zeros_like(cond.vector)], 1)
        return (mean + (x_t - mean) / (1 + 4 * sigma**2)).to(x)


def test_the_bound_with_the_exact_denoiser_is_near_the_likelihood():
    """x = (z, 0) + eps / 2, so that p(x) is a Gaussian, and q its posterior."""
    decoder = use("diffusion", network=use(Exact), parametrization="x0", schedule="edm", times="log-normal")
    model = use("decoded", decoder=decoder, encoder=POINT, bottleneck=use("gaussian", channels=1))
    model = build(spec(model, use("ring", num=8))).double()
    with torch.no_grad():
        model.bottleneck.project.weight.copy_(torch.tensor([[0.8, 0.0], [0.0, 0.0]]))
        model.bottleneck.project.bias.copy_(torch.tensor([0.0, math.log(0.2)]))
    scale = torch.tensor([1.25, 0.25], dtype=torch.float64).sqrt()
    x = scale * Rng(3).normal("x", torch.empty(4000, 2, dtype=torch.float64))
    gap = Normal(0.0, scale).log_prob(x).sum(1) - model.bound(Batch(x, {}), 16, Rng(0))
    error = float(gap.detach().std()) / math.sqrt(len(x))
    assert error < 0.05
    assert abs(float(gap.detach().mean())) < 3 * error + 0.02  # of the schedule's ends


def test_codes_are_weighed_by_their_prior_where_there_is_no_kl():
    model, batch = made(FLOW, encoder=MAPS, bottleneck=VQ), digits(5, torch.float64)
    z = model.bottleneck(model.encoder(batch.tensor), None).values["quantized"]
    inner = model.decoder.bound(Batch(batch.tensor, {}, Cond(concat=z)), 1, Rng(7))
    torch.testing.assert_close(model.bound(batch, 1, Rng(7)), inner - 16 * math.log(6), rtol=1e-12, atol=0)
    losses = model.losses("decoder/flow", batch, turn())
    assert list(losses) == ["decoder/nll", "commitment"]
    assert model.explain_lack("bound") is None
    assert "'quantized' has no density" in model.explain_lack("weigh", name="quantized")


@pytest.mark.parametrize("decoder", [GAN, DDGAN])
def test_a_decoder_without_a_bound_gives_its_reason(decoder):
    model = made(decoder)
    assert model.explain_lack("bound") == model.decoder.explain_lack("bound") == model.explain_lack("weigh")
    assert model.explain_lack("log_prob").startswith("Decoded has no log p")
    with pytest.raises(ValueError, match="has no lower bound"):
        model.bound(digits(2, torch.float64), 1, Rng(0))


def test_only_one_player_trains_the_encoder_and_the_others_get_z_detached():
    model, batch = made(use(Recorder), to="vector"), digits(5, torch.float64)
    assert [(player.name, player.modules, player.against) for player in model.players()] == [
        ("decoder/affine", ("encoder", "bottleneck", "decoder.out"), ("decoder/rival",)),
        ("decoder/rival", ("decoder.other",), ()),
    ]
    assert list(model.losses("decoder/affine", batch, turn())) == ["decoder/loss", "kl"]
    assert list(model.losses("decoder/rival", batch, turn())) == ["decoder/loss"]
    (own,), (other,) = model.decoder.seen.values()
    assert other.cond.vector.grad_fn is not None and own.cond.vector.grad_fn is None
    torch.testing.assert_close(own.cond.vector, other.cond.vector)


@pytest.mark.parametrize(("decoder", "rival"), [(GAN, "discriminator"), (DDGAN, "discriminator"), (DIFFUSION, None)])
def test_gradients_reach_the_encoder_from_the_generator_or_the_denoiser(decoder, rival):
    model, batch = shake(made(decoder), 0.1), digits(5, torch.float64)
    for player in model.players():
        model.zero_grad()
        losses = model.losses(player.name, batch, turn())
        losses.pop("kl", None)
        sum(losses.values()).backward()
        moved = model.bottleneck.project.weight.grad
        assert (moved is None) == (player.name == f"decoder/{rival}")
        assert moved is None or moved.abs().max() > 0


def test_the_decoder_is_prepared_with_the_z_of_its_data_in_new_draws():
    model = made(use(Recorder), to="vector")
    batches = [digits(4, torch.float64), digits(6, torch.float64)]
    model.prepare("decoder/affine", batches, Rng(0))
    for start, batch, seen in zip((0, 4), batches, model.decoder.seen["affine"]):
        _, z = posterior(model, batch.tensor, Rng(0).at("encode", 1).rows(start))
        torch.testing.assert_close(seen.cond.vector, z)
    model.update("decoder/rival", turn())
    assert [one.scope for one in model.decoder.seen["rival"]] == ["decoder/"]


@pytest.mark.parametrize("decoder", [DIFFUSION, FLOW, GAN, DDGAN, VAE])
def test_decoding_draws_and_is_the_same_in_every_call_without_an_rng(decoder):
    model, x = shake(made(decoder), 0.1), digits(3, torch.float64).tensor
    z = model.encode(x, "continuous")
    assert torch.equal(model.reconstruct(x), model.decode(z, "continuous"))
    assert torch.equal(model.decode(z, "continuous", Rng(1)), model.decode(z, "continuous", Rng(1)))
    expected = model.decoder.draw(3, {}, Cond(vector=z), Rng(1).at("decoder"))
    assert torch.equal(model.decode(z, "continuous", Rng(1)), expected)
    assert not torch.equal(model.decode(z + 1, "continuous", Rng(1)), expected)
    if decoder is not VAE:
        assert not torch.equal(model.decode(z, "continuous", Rng(2)), expected)


def test_samples_are_the_decoder_s_of_draws_of_the_bottleneck_s_prior_with_start_noise_of_z():
    model = shake(made(), 0.1)
    start = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 2.0]], dtype=torch.float64)
    steps = []
    drawn = model.sample(2, seed=5, start_noise=start, callback=steps.append)
    expected = model.decoder.draw(2, {}, Cond(vector=start), Rng("sample", 5).at("decoder"))
    torch.testing.assert_close(drawn, expected)
    assert [type(step) for step in steps] == [SamplingStep] * 2


def test_a_condition_of_the_data_reaches_the_decoder_beside_z():
    labelled = use("diffusion", network=NET, sampler=use("ddim", steps=2), conditioner=use("label", width=4))
    model, batch = shake(made(labelled), 0.3), digits(4, torch.float64)
    assert model.reads == ("labels",)
    z = model.encode(batch.tensor, "continuous")
    drawn = [model.decode(z, "continuous", Rng(0), fields={"labels": torch.full((4,), label)}) for label in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert model.sample(3, seed=0, labels=3).shape == (3, 1, 8, 8)
    other = Batch(batch.tensor, {"labels": batch.fields["labels"].roll(1)})
    assert not torch.equal(model.bound(batch, 1, Rng(0)), model.bound(other, 1, Rng(0)))


@pytest.mark.parametrize(
    ("bottleneck", "name"), [(GAUSSIAN, "continuous"), (VQ, "codes"), (use("identity"), "continuous")]
)
def test_condensed_samples_are_encoded_as_samples_are(bottleneck, name):
    model, x = made(encoder=MAPS, bottleneck=bottleneck, decoder=FLOW), digits(4, torch.float64).tensor
    assert model.condensers == model.list_modules("encoder", "bottleneck")
    for rng in (None, Rng(0)):
        expected = model.encode(x, name, rng and rng.replay())
        assert torch.equal(model.encode(model.condense(x, name), name, rng), expected)


def test_moments_are_the_posterior_s():
    model, x = made(), digits(4, torch.float64).tensor
    q, _ = posterior(model, x, Rng(0))
    assert model.diagonal == ("continuous",)
    mean, std = model.encode_moments(x, "continuous")
    torch.testing.assert_close(mean, q.loc)
    torch.testing.assert_close(std, q.scale)


def test_float32_computes_what_float64_does():
    model = shake(made(FLOW), 0.1)
    exact = model.bound(digits(5, torch.float64), 1, Rng(0))
    torch.testing.assert_close(model.float().bound(digits(5), 1, Rng(0)).double(), exact, rtol=1e-4, atol=1e-2)


TERMS = {"decoder/denoising": 0.5, "kl": 0.01}


def test_weights_are_the_decoder_s_and_its_own():
    model = made(use("diffusion", network=NET, weights={"denoising": 0.5}), weights={"kl": 0.01})
    found = model.weights("decoder/denoiser")
    assert {term: weight(turn(), {}, None) for term, weight in found.items()} == TERMS
    game = made(GAN, weights={"kl": 0.01})
    assert list(game.weights("decoder/generator")) == ["kl"] and not game.weights("decoder/discriminator")


@pytest.mark.parametrize("to", ["concat", "vector", "context"])
def test_pixels_are_decoded_one_by_one_with_their_exact_probability(to):
    network = use("transformer", width=8, depth=1, heads=2, dropout=0.0)
    decoder = use("autoregressive", network=network, levels=17)
    model, batch = shake(made(decoder, encoder=MAPS, to=to), 0.3), digits(4, torch.float64)
    assert model.discrete
    losses = model.losses("decoder/network", batch, turn("a"))
    z = posterior(model, batch.tensor, turn("a").rng)[1]
    inner = model.decoder.bound(model._add_z(batch, z), 1, Rng(0))
    torch.testing.assert_close(losses["decoder/nll"], -inner.mean() / 64, rtol=1e-9, atol=0)
    drawn = model.reconstruct(batch.tensor) * 8 + 8
    torch.testing.assert_close(drawn, drawn.round(), rtol=0, atol=1e-9)
    other = model.decoder.bound(model._add_z(batch, z + 1), 1, Rng(0))
    assert (other - inner).abs().min() > 1e-4


def under(prior, decoded, **options):
    return use("latent", autoencoder=decoded, prior=prior, **options)


SMALL = use("decoded", encoder=NET, bottleneck=GAUSSIAN, decoder=DIFFUSION)


@pytest.mark.parametrize(
    ("decoder", "prior", "joint"),
    [
        (DIFFUSION, DIFFUSION, False),
        pytest.param(GAN, FLOW, False, marks=pytest.mark.wide),
        pytest.param(JOINT, GAN, False, marks=pytest.mark.wide),
        (DIFFUSION, DIFFUSION, True),
        pytest.param(GAN, FLOW, True, marks=pytest.mark.wide),
    ],
)
def test_any_prior_of_z_trains_draws_and_is_loaded_with_its_weights(decoder, prior, joint, tmp_path):
    decoded = use("decoded", encoder=NET, bottleneck=GAUSSIAN, decoder=decoder)
    run = train(spec(under(prior, decoded, joint=joint), steps=2), tmp_path / "run")
    model, again = modkit.load(run), modkit.load(run)
    assert torch.equal(model.sample(3, seed=0), again.sample(3, seed=0))
    x = digits(3).tensor
    assert torch.equal(model.reconstruct(x), again.reconstruct(x))
    assert not torch.equal(model.sample(3, seed=0), model.sample(3, seed=1))


def test_the_start_noise_of_a_latent_is_its_prior_s_and_not_the_decoder_s(tmp_path):
    model = modkit.load(train(spec(under(DIFFUSION, SMALL), steps=1), tmp_path / "run"))
    start = torch.tensor([[1.0, 2.0, 3.0]])
    drawn = model.sample(1, seed=0, start_noise=start)
    latent = model.prior.draw(1, {}, Cond(), Sampling(Rng(1), start_noise=start))
    expected = model.autoencoder.decode(model.scale.invert(latent), "continuous", Rng("sample", 0).at("autoencoder"))
    torch.testing.assert_close(drawn, expected)


def test_in_joint_training_the_entropy_stands_in_place_of_the_kl():
    model, batch = shake(build(spec(under(FLOW, SMALL, joint=True))).double(), 0.1), digits(5, torch.float64)
    losses = model.losses("autoencoder/decoder/denoiser", batch, turn("a"))
    assert list(losses) == ["autoencoder/decoder/denoising", "autoencoder/entropy", "autoencoder/cross_entropy"]
    q, z = posterior(model.autoencoder, batch.tensor, turn("a").rng.at("autoencoder"))
    torch.testing.assert_close(losses["autoencoder/entropy"], -q.entropy().sum() / (5 * 64), rtol=1e-9, atol=0)
    cross = -model.prior.bound(Batch(z, {}), 1, Rng(0)).mean() / 64
    torch.testing.assert_close(losses["autoencoder/cross_entropy"], cross, rtol=1e-9, atol=0)
    game = build(spec(under(FLOW, use("decoded", encoder=NET, decoder=GAN), joint=True))).double()
    rival = game.losses("autoencoder/decoder/discriminator", batch, turn())
    assert list(rival) == ["autoencoder/decoder/adversarial"]


def test_the_bound_of_a_latent_has_the_decoder_s_in_it():
    model, batch = shake(build(spec(under(FLOW, SMALL, scale=2.0))).double(), 0.1), digits(5, torch.float64)
    rng = Rng(3).at("autoencoder")
    q, z = posterior(model.autoencoder, batch.tensor, rng)
    inner = model.autoencoder.decoder.bound(Batch(batch.tensor, {}, Cond(vector=z)), 1, rng.at("decoder"))
    outer = model.prior.bound(Batch(2 * z, {}), 1, Rng(0)) + 3 * math.log(2)
    expected = inner - q.log_prob(z).sum(1) + outer
    torch.testing.assert_close(model.bound(batch, 1, Rng(3)), expected, rtol=1e-12, atol=0)


def test_as_a_prior_trained_jointly_its_bound_trains_the_autoencoder():
    vae = use("autoencoder", encoder=NET, decoder=NET, bottleneck=use("gaussian", channels=4))
    prior = use("decoded", encoder=NET, bottleneck=use("gaussian", channels=2), decoder=DIFFUSION)
    model = shake(build(spec(use("latent", autoencoder=vae, prior=prior, joint=True))).double(), 0.1).prior
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    found = model.cross_entropy(Batch(z, {}), StepContext(Rng(3)))
    torch.testing.assert_close(found, -model.bound(Batch(z, {}), 1, Rng(3)), rtol=1e-12, atol=0)
    assert torch.autograd.grad(found.sum(), z)[0].abs().min() > 0
    assert not made(GAN).differentiable


@pytest.mark.wide
def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path):
    codes = use("gumbel", num_codes=4, channels=2)
    decoded = use("decoded", encoder=NET, bottleneck=codes, decoder=GAN)
    resumed_from_each(spec(decoded, batch_size=16, accumulate=2, ema=0.9, **EVERY), tmp_path)


def test_the_report_says_how_z_reaches_the_decoder():
    report = examine(spec(SMALL))
    assert "it is given z, 3 unbounded, as a vector" in str(report)


def refused(**slots):
    build(spec(use("decoded", **{"encoder": NET, "bottleneck": GAUSSIAN, "decoder": DIFFUSION, **slots})))


OPTIMAL = use("diffusion", network=NET, coupling="optimal")
PAIRS = use("diffusion", network=NET, coupling=use("pairs", field="noisy"))
LEVELS = use("conv", channels=[8, 16], levels=[8, 4])
test_mistakes_are_refused = refusals(
    (
        {"decoder": use(Told)},
        r"model\.decoder: .*expected a part that takes conditions, got one without `cond` under vector 3",
    ),
    ({"decoder": OPTIMAL}, r"Optimal expects conditions that are classes.* got vector 3 from an enclosing Model"),
    (
        {"encoder": MAPS, "bottleneck": GAUSSIAN, "decoder": DDGAN},
        r"model\.decoder: .*DenoisingGAN expects conditions .* without a map.* fed by z of .* as `to: concat`",
    ),
    (
        {"to": "concat"},
        r"model\.to: expected z as a map of the rank of x, 1×8×8 in \[-1, 1\], got 3 unbounded of model",
    ),
    ({"to": "context"}, r"model\.decoder.network: .* expects no context .*"),
    ({"to": "map"}, "expected one of: concat, context, vector; got 'map'|concat"),
    (
        {"encoder": LEVELS, "bottleneck": use("top-down", level=VQ)},
        r"model\.bottleneck: Decoded expects z to be one continuous tensor, got a hierarchy of 2 levels of model",
    ),
    ({"decoder": LDM}, r"model\.decoder: Decoded expects a decoder that is trained in one stage, .*, which has 2"),
    ({"decoder": use("masked")}, r"Masked expects codes, got 1×8×8"),
    of=lambda slots: refused(**slots),
)


def test_noise_that_comes_with_the_data_is_refused():
    data = use("corrupted", data=use("digits", size=8), corruption=use("noise", field="noisy"))
    with pytest.raises(ValueError, match="Pairs expects no conditions from an enclosing Model, .*, got vector 3"):
        build(spec(use("decoded", encoder=NET, bottleneck=GAUSSIAN, decoder=PAIRS), data))
