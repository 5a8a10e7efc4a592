"""An autoencoder that is given conditions, or a field in x's place."""

import pytest
import torch
from torch import nn

import modkit
from modkit import TensorType, build, use
from modkit.data import Corrupted, Digits, Noise
from modkit.evaluation.feed import Feed
from modkit.evaluation.sources import from_data
from modkit.models import Autoencoder, Diffusion, Latent
from modkit.models.model import Model, reconstruct_batch
from modkit.models.player import Player
from modkit.rng import Rng
from modkit.types import Batch
from tests.play import LINEAR, MLP, digits, spec, turn
from tests.refusals import check_refusal, refusals

X = TensorType((1, 8, 8), (-1.0, 1.0))
FIELDS = {"labels": TensorType((), classes=10), "noisy": TensorType((1, 4, 4))}
LABEL = use("label", width=3)
NOISY = use("corrupted", data=use("digits", size=8), corruption="noise")
READING = use("autoencoder", **MLP, conditioner=LABEL)
SMALL = {"network": use("mlp", width=8, depth=1), "sampler": use("ddim", steps=2)}


def made(**slots):
    slots = {**MLP, "conditioner": LABEL, "input": "noisy", **slots}
    with modkit.seeded(0):
        return Autoencoder(X, fields=FIELDS, **slots).double()


def batch(num=6):
    whole = digits(num, torch.float64)
    noisy = nn.functional.avg_pool2d(whole.tensor, 2) + Rng(0).normal("eps", torch.empty(num, 1, 4, 4).double())
    return Batch(whole.tensor, {**whole.fields, "noisy": noisy})


class Plain(nn.Module):
    """An encoder of today's Protocol, which knows of no conditions."""

    def __init__(self, x):
        super().__init__()
        self.h, self.linear = TensorType((8,)), nn.Linear(x.numel, 8)

    def forward(self, x):
        return self.linear(x.flatten(1))


class PlainDecoder(nn.Module):
    """A decoder of today's Protocol."""

    last_layer = None

    def __init__(self, z, x):
        super().__init__()
        self.x, self.linear = x, nn.Linear(z.numel, x.numel)

    def forward(self, z):
        return self.linear(z.flatten(1)).reshape(-1, *self.x.shape)


class Contractive:
    """A penalty on an encoder of x."""

    side, needs = "autoencoder", ("encoder",)

    def __call__(self, round):
        return round.encoder(round.real).square().mean()


def test_the_encoder_reads_the_field_both_are_given_the_conditions_and_losses_compare_with_x():
    model, given, step = made(), batch(), turn("a")
    cond = model.conditioner(given.fields, None)
    mean, logvar = model.bottleneck.project(model.encoder(given.fields["noisy"], cond)).chunk(2, dim=1)
    z = mean + (logvar / 2).exp() * step.rng.normal("posterior", mean)
    losses = model.losses("autoencoder", given, turn("a"))
    error = (given.tensor - model.decoder(z, cond)).square().sum() / 2
    torch.testing.assert_close(losses["nll"], error / (6 * 64), rtol=1e-12, atol=0)
    kl = (mean.square() + logvar.exp() - 1 - logvar).sum() / 2
    torch.testing.assert_close(losses["kl"], kl / (6 * 64), rtol=1e-10, atol=1e-15)
    made_of = model.decode(mean, "continuous", fields=given.fields)
    torch.testing.assert_close(reconstruct_batch(model, given), made_of)
    torch.testing.assert_close(made_of, model.decoder(mean, cond).clamp(-1, 1))
    condensed = model.condense(given.tensor, "continuous", fields=given.fields)
    torch.testing.assert_close(model.encode(condensed, "continuous"), mean)
    assert model.reads == ("labels",) and model.inputs == ("noisy",)


def test_the_autoencoder_trains_the_conditioner_and_a_critic_gets_its_conditions_detached():
    model, given = made(judges={"critic": use("critic", network=use("mlp", width=8, depth=1))}), batch()
    assert "conditioner" in model.players()[0].modules and "conditioner" not in model.players()[1].modules
    table = model.conditioner.embedding.weight
    losses = model.losses("autoencoder", given, turn("a"))
    assert torch.autograd.grad(losses["nll"], table, retain_graph=True)[0][given.fields["labels"]].any()
    seen = []
    model.judges.parts["critic"].network.register_forward_pre_hook(lambda module, args: seen.append(args[1].vector))
    model.losses("autoencoder", given, turn("a"))
    cond = model.conditioner(given.fields, None).vector
    assert len(seen) == 1 and not seen[0].requires_grad and torch.equal(seen[0], cond)
    model.losses("critic", given, turn("a"))
    assert len(seen) == 3 and all(torch.equal(one, cond) for one in seen)


def test_the_bound_under_conditions_rises_to_the_exact_density_whatever_the_encoder_reads():
    x = TensorType((3,))
    fields = {"labels": TensorType((), classes=2), "noisy": TensorType((3,))}
    slots = {**LINEAR, "conditioner": LABEL, "bottleneck": use("gaussian", channels=1), "likelihood": "gaussian"}
    with modkit.seeded(0):
        model = Autoencoder(x, fields=fields, input="noisy", **slots).double()
    clean = Rng(1).normal("x", torch.empty(5, 3).double())
    given = Batch(clean, {"labels": torch.tensor([0, 1, 1, 0, 1]), "noisy": clean + Rng(2).normal("eps", clean)})
    num = 1500
    many = given.map(lambda value: value.repeat_interleave(num, 0))
    with torch.no_grad():
        shift = model.decoder(torch.zeros(5, 1).double(), model.conditioner(given.fields, None))
        w = model.decoder.out.weight[:, :1]
        exact = torch.distributions.MultivariateNormal(shift, w @ w.T + torch.eye(3).double()).log_prob(clean)
        one = model.bound(many, 1, Rng(3)).view(5, num).mean(1)
        z, log_weight = model.weigh(many.tensor, "continuous", Rng(4), fields=many.fields)
        log_weight = log_weight + model.bottleneck.log_prior("continuous", z)
        combined = model.bound(given, 50, Rng(5))
    estimate = log_weight.view(5, num).logsumexp(1) - torch.tensor(num).log()
    torch.testing.assert_close(estimate, exact, atol=0.08, rtol=0)  # the weights' error, of 1,500 draws
    assert one.mean() < combined.mean() < exact.mean() + 0.05
    assert (one < exact + 0.02).all() and one.mean() < exact.mean() - 0.02
    assert (shift[0] - shift[1]).abs().max() > 0.01  # the labels matter


@pytest.mark.parametrize("plain", ["encoder", "decoder"])
def test_one_of_the_two_may_take_no_conditions(plain):
    model, given = made(**{plain: {"encoder": Plain, "decoder": PlainDecoder}[plain]}), batch()
    losses = model.losses("autoencoder", given, turn("a"))
    assert torch.autograd.grad(losses["nll"], model.conditioner.embedding.weight)[0].any()


def test_parts_of_today_s_protocol_work_as_before():
    model, given = made(encoder=Plain, decoder=PlainDecoder, conditioner="none", input=None), batch()
    assert model.losses("autoencoder", given, turn("a")).keys() == {"nll", "kl"}
    assert model.sample(3, seed=0).shape == (3, 1, 8, 8)


def test_samples_are_drawn_under_given_or_drawn_labels():
    model = made()
    z = model.bottleneck.sample(4, Rng("sample", 0).at("bottleneck"))
    labels = torch.tensor([3, 1, 4, 1])
    expected = model.decode(z.double(), "continuous", fields={"labels": labels})
    torch.testing.assert_close(model.sample(4, seed=0, labels=labels), expected, atol=1e-6, rtol=1e-6)
    model.prepare("autoencoder", [Batch(torch.zeros(2, 1, 8, 8), {"labels": torch.tensor([7, 7])})], Rng(0))
    assert torch.equal(model.sample(4, seed=0), model.sample(4, seed=0, labels=7))


class Spy(Diffusion):
    """A prior that remembers what it was conditioned on."""

    def draw(self, num, fields, cond, rng):
        self.seen = dict(fields)
        return super().draw(num, fields, cond, rng)


def latent(**slots):
    with modkit.seeded(0):
        inner = Autoencoder(X, fields=FIELDS, **{**MLP, "conditioner": LABEL, "input": "noisy", **slots})
        prior = Spy(inner.latents["continuous"], fields=FIELDS, conditioner=use("label", width=2), **SMALL)
        return Latent(X, fields=FIELDS, autoencoder=inner, prior=prior).double()


def test_a_latent_passes_fields_on_and_draws_them_once_for_both_sides():
    model, given = latent(), batch()
    assert model.reads == ("labels",) and model.inputs == ("noisy",)
    model.prepare("prior/denoiser", [given], Rng(0))
    inner = model.autoencoder
    expected = inner.encode(given.tensor, "continuous", fields=given.fields)
    kept = model.condense(given.tensor, fields=given.fields)
    torch.testing.assert_close(inner.encode(kept, "continuous"), expected)
    torch.testing.assert_close(
        reconstruct_batch(model, given), inner.decode(expected, "continuous", fields=given.fields)
    )
    assert torch.isfinite(model.losses("prior/denoiser", given, turn("a"))["prior/denoising"])
    assert torch.isfinite(model.bound(given, 2, Rng(0))).all()
    decoded = []
    inner.decoder.register_forward_pre_hook(lambda module, args: decoded.append(args[1].vector))
    model.sample(5, seed=0)
    labels = model.prior.seen["labels"]
    torch.testing.assert_close(decoded[0], inner.conditioner({"labels": labels}, None).vector)
    assert len(set(labels.tolist())) > 1


class Old(Model):
    """A Model that encodes, and takes no fields."""

    def __init__(self, x):
        super().__init__()
        self.event, self.latents, self.factor = x, {"z": TensorType((64,))}, nn.Parameter(torch.tensor(2.0))

    def players(self):
        return (Player("a", ()),)

    def losses(self, player, batch, step):
        return {"loss": self.factor**2}

    def encode(self, x, name, rng=None):
        return self.factor * x.flatten(1)


def test_a_model_without_the_keyword_is_refused():
    prior = use("diffusion", **SMALL, conditioner=LABEL)
    expected = r"Old.encode\(\) got an unexpected keyword argument 'fields'"
    check_refusal(expected, build, spec(use("latent", autoencoder=use(Old), prior=prior)))


def test_metrics_of_reconstructions_are_given_the_fields():
    model = build(spec(use("autoencoder", **MLP, bottleneck="identity", input="noisy"), NOISY)).eval()
    data = Corrupted(data=lambda: Digits(size=8), corruption=Noise)
    source = from_data(data, "test", "held out", range(6))
    ((_, held),) = source.number_batches(None, 0, 1)
    pairs = Feed(None, model).compute_values(source, held, ["pairs"])["pairs"]
    with torch.no_grad():
        expected = model.decode(
            model.bottleneck(model.encoder(held.fields["noisy"]), None).values["continuous"], "continuous"
        )
    torch.testing.assert_close(pairs, torch.stack([held.tensor, expected.clamp(-1, 1)], 1))
    assert "pairs" in Feed(None, model).list_offers(source)
    assert "pairs" not in Feed(None, model).list_offers(from_data(Digits(size=8), "test", "plain"))


@pytest.mark.wide
def test_the_prior_of_a_denoising_autoencoder_needs_no_field_to_sample(tmp_path):
    autoencoder = use("autoencoder", **MLP, input="noisy")
    model = use("latent", autoencoder=autoencoder, prior=use("diffusion", **SMALL))
    stages = [{"players": ["autoencoder/*"], "steps": 2}, {"players": ["prior/*"], "steps": 2, "cache": 1}]
    run = modkit.train(spec(model, NOISY, stages=stages), tmp_path / "run")
    loaded = modkit.load(run)
    assert loaded.reads == () and loaded.inputs == ("noisy",)
    assert torch.equal(loaded.sample(3, seed=0), modkit.load(run).sample(3, seed=0))


test_refuses = refusals(
    (
        lambda: made(input="noisey"),
        "model.input: expected one of the data's fields: labels, noisy; got 'noisey'",
    ),
    (
        lambda: made(encoder=Plain, decoder=PlainDecoder),
        "model.conditioner: expected an encoder or a decoder that takes conditions, got Plain and PlainDecoder under "
        "vector 3",
    ),
    (
        lambda: made().reconstruct(batch().tensor, fields={"labels": torch.zeros(6, dtype=torch.int64)}),
        r"the encoder reads the field 'noisy', expected it in `fields`, got: labels",
    ),
    (lambda: made().reconstruct(batch().tensor), r"Label expects field 'labels', got fields \[\]"),
    (
        lambda: Diffusion(X, fields=FIELDS, **SMALL, conditioner=use("encoded", autoencoder=READING, field="noisy")),
        "Encoded expects an autoencoder that reads no fields, got one that reads",
    ),
    (
        lambda: made(regularizers={"contractive": Contractive}),
        "Contractive needs `encoder` of a round, got fake, z, decoder of Autoencoder as it is composed here",
    ),
    (lambda: modkit.check(spec(use("autoencoder", **MLP), NOISY)), "leaves fields unread .*: noisy"),
)
