import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from modkit import build, load, train, use
from modkit.bottlenecks.gaussian import Gaussian
from modkit.models import Autoencoder, Diffusion, Latent
from modkit.models.model import Model
from modkit.models.passes import Passes
from modkit.models.player import Player
from modkit.rng import Rng
from modkit.types import Batch, Cond, TensorType
from tests.play import LINEAR, MLP, VAE, digits, spec, turn
from tests.refusals import refusals

DENOISER = use("diffusion", network=use("mlp", width=16, depth=1), sampler=use("ddim", steps=2))
NOISY = use("autoencoder", **LINEAR, bottleneck=use("gaussian", channels=2), likelihood="gaussian")
VQ = {**MLP, "bottleneck": use("vq", num_codes=6, channels=3, tokens=1)}


class Recorder(Model):
    """A prior of anything that keeps the batches it is shown and draws ones."""

    def __init__(self, x):
        super().__init__()
        self.event, self.weight, self.seen = x, nn.Parameter(torch.zeros(())), []

    @classmethod
    def accepts(cls, event, **slots):
        return None

    def players(self):
        return (Player("a", ()), Player("b", ()))

    def losses(self, player, batch, step):
        self.seen.append(batch)
        return {"loss": self.weight}

    def prepare(self, player, batches, rng):
        self.seen += [batch for _ in range(2) for batch in batches]

    def draw(self, num, fields, cond, rng):
        one = self.event[0] if isinstance(self.event, tuple) else self.event
        return torch.ones(num, *one.shape, dtype=torch.float32 if one.classes is None else torch.long)


class Picky(Recorder):
    """A prior of one shape alone."""

    @classmethod
    def accepts(cls, event, **slots):
        return "expects 16 wide" if event.shape != (16,) else None


class Known(Gaussian):
    """A bottleneck that was trained elsewhere."""

    moments = {"continuous": (0.5, 4.0)}


class Tower(nn.Module):
    """Two levels of features, of different scales."""

    def __init__(self, x):
        super().__init__()
        self.h = (TensorType((2,)), TensorType((3,)))

    def forward(self, x):
        flat = x.flatten(1)
        return 5 * flat[:, 20:22] + 1, flat[:, 26:29] / 3 - 2


class Joined(nn.Module):
    """Decodes two levels."""

    last_layer = None

    def __init__(self, z, x):
        super().__init__()
        self.x = x
        self.out = nn.Linear(5, x.numel)

    def forward(self, z):
        return self.out(torch.cat(z, 1)).view(-1, *self.x.shape)


def made(prior=None, autoencoder=None, **options):
    autoencoder = use("autoencoder", **(autoencoder or {**LINEAR, "bottleneck": "identity"}))
    return build(spec(use("latent", autoencoder=autoencoder, prior=prior or use(Recorder), **options)))


def batches():
    x = digits(24)
    return [Batch(x.tensor[a:b], {"labels": x.fields["labels"][a:b]}) for a, b in ((0, 8), (8, 16), (16, 24))]


def test_the_scale_is_the_encoded_data_s_and_the_prior_sees_unit_scale():
    model, data = made(), batches()
    model.prepare("prior/a", data, Rng(0))
    h = torch.cat([batch.tensor for batch in data]).double()
    torch.testing.assert_close(model.mean_0, h.mean().float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(model.std_0, h.std(correction=0).float(), rtol=1e-6, atol=0)
    first, second = torch.cat([b.tensor for b in model.prior.seen]).double().chunk(2)
    assert torch.equal(first, second) and first.shape == (24, 64)
    torch.testing.assert_close(first, (h.flatten(1) - h.mean()) / h.std(correction=0), rtol=1e-5, atol=1e-6)
    model.losses("prior/b", data[1], turn())
    assert torch.equal(model.prior.seen[-1].tensor, first[8:16].float())
    assert torch.equal(model.prior.seen[-1].fields["labels"], data[1].fields["labels"])
    want = model.autoencoder.decode(torch.full((2, 64), model.std_0 + model.mean_0), "continuous")
    torch.testing.assert_close(model.sample(2, seed=0), want)


def test_the_scale_is_measured_on_a_bounded_number_of_samples(monkeypatch):
    monkeypatch.setattr("modkit.models.latent._MEASURED", 11)
    model, data, read = made(), batches(), []
    model.prepare("prior/a", Passes(lambda: (read.append(len(batch)) or batch for batch in data)), Rng(0))
    h = torch.cat([batch.tensor for batch in data])[:11].double()
    torch.testing.assert_close(model.mean_0, h.mean().float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(model.std_0, h.std(correction=0).float(), rtol=1e-6, atol=0)
    assert read[:2] == [8, 8] and sum(read) == 16 + 2 * 24, "the prior's own passes are whole"


def test_the_labels_of_a_prior_are_counted_without_encoding_or_reading_samples():
    """The fault: a pass over the whole of the data through the encoder, to count classes."""
    model = made(prior=use("diffusion", network=use("mlp", depth=1), conditioner=use("label", width=8)), scale=1.0)
    labels = torch.tensor([0, 1, 1, 1])
    alone = [Batch(torch.empty(4, 0), {"labels": labels})]
    model.prepare("prior/denoiser", Passes(lambda: pytest.fail("samples are read"), alone), Rng(0))
    frequencies = model.prior.conditioner.get_buffer("counted.frequencies")
    assert frequencies[:3].tolist() == [0.25, 0.75, 0.0]


def test_the_scale_is_measured_once_before_the_first_of_the_prior_s_players():
    model, data = made(), batches()
    with pytest.raises(ValueError, match="before its prior has been prepared: the scale of the latent is unknown"):
        model.sample(2)
    model.prepare("autoencoder/autoencoder", data, Rng(0))
    assert model.mean_0.isnan()
    model.prepare("prior/a", data, Rng(0))
    before = model.mean_0.clone()
    model.prepare("prior/b", data[:1], Rng(0))
    assert torch.equal(model.mean_0, before)


def test_the_scale_is_measured_again_once_the_autoencoder_is_trained_on():
    model, data = made(), batches()
    model.prepare("prior/a", data, Rng(0))
    drawn, before = model.sample(2), [float(one) for one in model.scale.get_moments(0)]
    model.prepare("prior/a", data[:1], Rng(0))
    assert model.scale.get_moments(0) == tuple(before), "a prior that is trained on relies on it"
    model.prepare("autoencoder/autoencoder", data, Rng(0))
    assert model.scale.get_moments(0) == tuple(before) and torch.equal(model.sample(2), drawn)
    halved = [replace(batch, x=0.5 * batch.x) for batch in data]
    for player, measured in (("prior/a", halved), ("prior/b", halved[:1])):
        model.prepare(player, measured, Rng(0))
        assert [float(one) for one in model.scale.get_moments(0)] == pytest.approx([0.5 * one for one in before])


def test_posteriors_are_drawn_anew_for_the_scale_and_at_each_pass():
    model, data = made(autoencoder=MLP), batches()
    model.prepare("prior/a", data, Rng(0))
    rng = Rng(0).at("scale")
    drawn = [model.autoencoder.encode(b.tensor, "continuous", rng.rows(8 * i)) for i, b in enumerate(data)]
    torch.testing.assert_close(model.std_0, torch.cat(drawn).double().std(correction=0).float(), rtol=1e-6, atol=0)
    first, second = torch.cat([b.tensor for b in model.prior.seen]).chunk(2)
    assert not torch.isclose(first, second).any()
    assert not any(batch.tensor.requires_grad for batch in model.prior.seen)


def test_each_level_has_a_scale_of_its_own():
    levels = {"encoder": use(Tower), "bottleneck": "identity", "decoder": use(Joined)}
    model, data = made(autoencoder=levels), batches()
    model.prepare("prior/a", data, Rng(0))
    for level in range(2):
        seen = torch.cat([batch.x[level] for batch in model.prior.seen]).double()
        assert abs(seen.mean()) < 1e-5 and abs(seen.std(correction=0) - 1) < 1e-5
    assert model.std_0 > 10 * model.std_1 and model.mean_1 < -1
    z = tuple(torch.randn(4, k) for k in (2, 3))
    scaled = (z[0] * model.std_0 + model.mean_0, z[1] * model.std_1 + model.mean_1)
    torch.testing.assert_close(model.scale.invert(z), scaled)


def test_a_scale_that_is_given_replaces_the_measured_one():
    model, data = made(scale=0.25), batches()
    assert model.sample(2).isfinite().all()
    model.prepare("prior/a", data, Rng(0))
    assert torch.equal(model.prior.seen[0].tensor, data[0].tensor.flatten(1) / 4)
    with pytest.raises(ValueError, match="Latent expects scale to be above 0, got -1"):
        made(scale=-1.0)


def test_what_an_autoencoder_knows_of_its_latent_s_scale_is_not_measured():
    known = {"use": Known, "channels": 16}
    model = build(spec(use("latent", autoencoder=use("autoencoder", **{**MLP, "bottleneck": known}), prior=DENOISER)))
    assert model.scale.known and (float(model.mean_0), float(model.std_0)) == (0.5, 4.0)


def test_codes_are_left_as_they_are():
    model, data = made(autoencoder=VQ), batches()
    assert model.at == "codes" and model.prior.event == TensorType((1,), classes=6)
    assert not list(model.buffers(recurse=False))
    model.prepare("prior/a", data, Rng(0))
    want = torch.cat([model.autoencoder.encode(b.tensor, "codes") for b in data])
    seen = torch.cat([b.tensor for b in model.prior.seen])
    assert seen.dtype == torch.int64 and torch.equal(seen, want.repeat(2, 1))
    ones = model.autoencoder.decode(torch.ones(2, 1, dtype=torch.long), "codes")
    torch.testing.assert_close(model.sample(2), ones)


@pytest.mark.wide
def test_a_prior_takes_the_first_latent_that_it_accepts_or_the_one_asked_for():
    assert made(DENOISER, VQ).at == "continuous"
    assert made(DENOISER, VQ, at="quantized").at == "quantized"
    assert made(use(Recorder), VQ, at="continuous").at == "continuous"


test_refusals_name_both_ends_and_every_latent = refusals(
    (
        lambda: made(DENOISER, VQ, at="codes"),
        r"model.prior.*model.prior \(diffusion\) accepts no latent of model.autoencoder \(autoencoder\): codes: "
        r"Diffusion expects a continuous type, got 1 codes of 6 classes",
    ),
    (lambda: made(use(Picky), VQ), "codes: expects 16 wide; continuous: expects 16 wide; quantized: expects 16"),
    (lambda: made(at="codes"), r"one of the latents of model.autoencoder \(autoencoder\): continuous; got 'codes'"),
    (
        lambda: build(spec(use("latent", autoencoder=use("gan"), prior=DENOISER))),
        r"an autoencoder that encodes, got model.autoencoder \(gan\), which has no latents",
    ),
)


def two_stages():
    inner = use("autoencoder", encoder=use("mlp", width=8, depth=1), decoder=use("mlp", width=8, depth=1))
    return use("latent", autoencoder=use("autoencoder", **MLP), prior=inner)


def test_fields_that_the_prior_reads_together_are_drawn_by_it():
    """The fault: a mask drawn for the autoencoder counted as given, and the prior refused it without what it hides."""
    x, fields = TensorType((1, 8, 8)), {name: TensorType((1, 8, 8)) for name in ("mask", "masked")}
    autoencoder = use("autoencoder", encoder="conv", decoder="conv", conditioner=use("map", maps=["mask"]))
    prior = use("diffusion", network="unet", sampler=use("ddim", steps=2), conditioner=use("map", keep=64))
    model = Latent(x, fields=fields, autoencoder=autoencoder, prior=prior, scale=1.0)
    numbers = torch.arange(64.0).view(64, 1, 1, 1).expand(64, 1, 8, 8)
    for side in (model.autoencoder, model.prior):
        side.conditioner.prepare([Batch(numbers, {"mask": numbers, "masked": numbers})])
    drawn = model.complete(9, {}, Rng(0))
    assert torch.equal(drawn["mask"], drawn["masked"]) and len(drawn["mask"].unique()) > 4
    assert model.sample(2, seed=0).shape == (2, 1, 8, 8)
    given = {name: one[:2] for name, one in drawn.items()}
    assert model.complete(2, given, Rng(0)) == given
    with pytest.raises(ValueError, match="sample expects mask beside masked, got masked alone"):
        model.complete(2, {"masked": given["masked"]}, Rng(0))


def test_a_two_stage_vae_encodes_and_decodes_through_both():
    model, data = build(spec(two_stages())), batches()
    model.prepare("prior/autoencoder", data, Rng(0))
    assert model.latents == model.prior.latents
    x = data[0].tensor
    z = (model.autoencoder.encode(x, "continuous") - model.mean_0) / model.std_0
    latent = model.prior.encode(z, "continuous")
    torch.testing.assert_close(model.encode(x, "continuous"), latent)
    back = model.prior.decode(latent, "continuous") * model.std_0 + model.mean_0
    torch.testing.assert_close(model.decode(latent, "continuous"), model.autoencoder.decode(back, "continuous"))
    torch.testing.assert_close(
        model.reconstruct(x), model.autoencoder.decode(model.autoencoder.encode(x, "continuous"), "continuous")
    )
    drawn = model.encode(x, "continuous", Rng(1))
    first = model.autoencoder.encode(x, "continuous", Rng(1).at("autoencoder"))
    second = model.prior.encode((first - model.mean_0) / model.std_0, "continuous", Rng(1).at("prior"))
    torch.testing.assert_close(drawn, second)


def test_as_an_autoencoder_it_offers_its_prior_s_latents():
    model = build(spec(use("latent", autoencoder=two_stages(), prior=DENOISER)))
    assert model.prior.event == model.autoencoder.prior.latents["continuous"]
    names = [player.name for player in model.players()]
    assert names == ["autoencoder/autoencoder/autoencoder", "autoencoder/prior/autoencoder", "prior/denoiser"]
    assert model.stages() == (("autoencoder/autoencoder/*",), ("autoencoder/prior/*",), ("prior/*",))
    assert model.players()[1].modules[0] == "autoencoder.prior.encoder"
    assert model.players()[1].last_layer == "autoencoder.prior.decoder.out.weight"
    for name in names:
        model.prepare(name, batches(), Rng(0))
    assert torch.isfinite(model.sample(2, seed=0)).all()


def record_inputs(decoder):
    """The list of what a decoder will be given, one tensor a call."""
    seen = []
    decoder.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    return seen


def test_a_vae_as_the_prior_draws_latents_with_the_noise_of_its_likelihood_and_pictures_stay_means():
    model = build(spec(use("latent", autoencoder=use("autoencoder", **MLP, likelihood="gaussian"), prior=NOISY)))
    model.prepare("prior/autoencoder", batches(), Rng(0))
    model.prior.likelihood.logvar.data.fill_(-1.0)
    seen = record_inputs(model.autoencoder.decoder)
    x = model.sample(20_000, seed=0, batch_size=20_000)
    z = (seen[0] - model.mean_0) / model.std_0
    weight, bias = model.prior.decoder.out.weight, model.prior.decoder.out.bias
    exact = weight @ weight.T + math.exp(-1) * torch.eye(len(bias))
    torch.testing.assert_close(z.T.cov(), exact, rtol=0, atol=0.03)  # 3 sd: 3 sqrt(2 / 20,000) of a variance of 1
    assert (z.T.cov() - weight @ weight.T).diag().min() > 0.3  # by the mean alone there is no noise
    assert torch.equal(x, model.autoencoder.decode(seen[0], "continuous"))
    assert torch.equal(model.prior.sample(4, seed=0), model.prior.sample(4, seed=0, batch_size=1))
    mean = model.prior.draw(3, {}, Cond(), Rng(1))
    noise = model.prior.draw_as_latent(3, {}, Cond(), Rng(1)) - mean
    torch.testing.assert_close(noise, math.exp(-0.5) * Rng(1).at("likelihood").normal("likelihood", mean))


@pytest.mark.parametrize("prior", [NOISY, DENOISER])
def test_every_latent_on_the_way_from_the_last_prior_to_x_is_drawn(prior):
    model = build(spec(use("latent", autoencoder=use("latent", autoencoder=VAE, prior=NOISY), prior=prior)))
    for player in model.players():
        model.prepare(player.name, batches(), Rng(0))
    inner = model.autoencoder
    inner.prior.likelihood.logvar.data.fill_(-1.0)
    inner.prior.decoder.out.weight.data.zero_()  # what is drawn is noise alone
    seen = record_inputs(inner.autoencoder.decoder)
    model.sample(4000, seed=0, batch_size=4000)
    noise = (seen[0] - inner.mean_0) / inner.std_0 - inner.prior.decoder.out.bias
    assert noise.std(0).sub(math.exp(-0.5)).abs().max() < 0.03
    latent = torch.zeros(3, 2)
    assert torch.equal(inner.decode(latent, "continuous"), inner.decode(latent, "continuous"))
    assert torch.equal(seen[-1], inner.prior.decoder.out.bias.expand(3, -1) * inner.std_0 + inner.mean_0)
    drawn = inner.decode_as_latent(latent, "continuous", Rng(2))
    out = inner.autoencoder.decoder(seen[-1])
    want = inner.autoencoder.likelihood.sample(out, Rng(2).at("autoencoder").at("likelihood"))
    torch.testing.assert_close(drawn, want)
    assert seen[-1].sub(seen[0].mean(0)).abs().max() > 0.1


def test_players_terms_and_weights_stand_under_their_side():
    critic = {"critic": use("critic", network=use("mlp", width=8, depth=1))}
    model = made(use("gan"), {**MLP, "judges": critic, "weights": {"kl": 4.0, "critic": 2.0}})
    assert [player.name for player in model.players()] == [
        "autoencoder/autoencoder",
        "autoencoder/critic",
        "prior/discriminator",
        "prior/generator",
    ]
    assert model.players()[0].against == ("autoencoder/critic",)
    assert set(model.weights("autoencoder/autoencoder")) == {"autoencoder/kl", "autoencoder/critic"}
    assert "autoencoder/adversarial" not in model.weights("autoencoder/critic")
    assert not model.weights("prior/generator")
    own = model.losses("autoencoder/autoencoder", digits(4), turn())
    assert list(own) == ["autoencoder/nll", "autoencoder/kl", "autoencoder/critic"]
    waiting = model.losses("autoencoder/autoencoder", digits(4), turn(waiting=("autoencoder/critic",)))
    assert list(waiting) == ["autoencoder/nll", "autoencoder/kl"]
    inner = model.autoencoder.losses("autoencoder", digits(4), turn("autoencoder"))
    assert all(torch.equal(own[f"autoencoder/{name}"], loss) for name, loss in inner.items())


def test_a_trained_piece_is_frozen_and_has_no_players_unless_it_is_trained_on(tmp_path):
    run = train(spec(use("autoencoder", **MLP), steps=1), tmp_path / "vae")
    piece = {"path": str(tmp_path / "vae"), "at": "model"}
    model = build(spec(use("latent", autoencoder=use("run", **piece), prior=DENOISER)))
    assert [player.name for player in model.players()] == ["prior/denoiser"]
    assert model.stages() == (("prior/*",),)
    assert not any(p.requires_grad for p in model.autoencoder.parameters())
    held = load(run).state_dict()
    assert all(torch.equal(value, held[name]) for name, value in model.autoencoder.state_dict().items())
    model = build(spec(use("latent", autoencoder=use("run", **piece, train=True), prior=DENOISER)))
    assert [player.name for player in model.players()] == ["autoencoder/autoencoder", "prior/denoiser"]


EDM = use(
    "diffusion",
    network=use("mlp", width=16, depth=1),
    schedule="edm",
    times="log-normal",
    parametrization="edm",
    sampler=use("heun", steps=3, grid=use("karras", sigma_min=None)),
)


@pytest.mark.parametrize("options", [{}, {"scale": 2.0}, {"joint": True}, {"by_channel": True}], ids=str)
def test_the_prior_s_noise_levels_are_those_of_unit_deviation(options):
    prior = build(spec(use("latent", autoencoder=use("autoencoder", **MLP), prior=EDM, **options))).prior
    assert prior.event.std == 1 and prior.parametrization.sigma_data == 1
    assert prior.times.mean == pytest.approx(math.log(2) - 1.2)
    alpha, sigma = prior.schedule.scales(prior.sampler.times()[[0, -2]])
    torch.testing.assert_close(sigma / alpha, torch.tensor([160.0, 0.004], dtype=torch.float64))


@pytest.mark.parametrize("options", [{"scale": 2.0}, {"joint": True}], ids=str)
def test_by_channel_is_refused_where_nothing_is_measured(options):
    with pytest.raises(
        ValueError, match=r"Latent expects by_channel where its scale is measured, got (the scale 2|joint)"
    ):
        build(spec(use("latent", autoencoder=use("autoencoder", **MLP), prior=EDM, by_channel=True, **options)))


def test_by_channel_a_prior_is_given_channels_of_unit_deviation(tmp_path):
    model = use("latent", autoencoder=use("autoencoder", **MLP), prior=DENOISER, by_channel=True)
    loaded = load(train(spec(model, batch_size=64), tmp_path / "run"))
    latent = loaded.autoencoder.encode(digits(1437).tensor, "continuous", Rng(0))
    assert loaded.std_0.shape == latent.shape[1:]
    torch.testing.assert_close(loaded.std_0, latent.std(0, correction=0), rtol=0.1, atol=0)  # other draws and samples
    assert loaded.sample(2, seed=0).isfinite().all()


def test_a_prior_composed_for_another_deviation_is_refused_since_it_could_not_be_loaded_again():
    x = TensorType((1, 8, 8), (-1, 1))
    coder = Autoencoder(x, **MLP)
    latent = coder.latents["continuous"]
    options = {"network": "mlp", "schedule": "edm"}
    assert Latent(x, autoencoder=coder, prior=Diffusion(latent, **options)).prior.schedule.sigma_max == 160
    with pytest.raises(
        ValueError, match=r"composed for x with std=1.0, .*got one with std=None: .*replace\(x, std=1.0\)"
    ):
        Latent(x, autoencoder=coder, prior=Diffusion(replace(latent, std=None), **options))
