"""VQGAN's first stage: an autoencoder with a perceptual loss and a critic that starts late, balanced by gradients."""

import shutil

import pytest
import torch
from torch import nn

import modkit
from modkit import SpecError, build, use
from modkit.features.random_conv import RandomConv
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.training.ownership import collect_modules
from modkit.training.players import weigh_losses
from modkit.types import Batch, CondType, Features, TensorType
from tests.play import LINEAR, digits, spec, state, trainer, turn

ADAPTIVE = use("adaptive", against=["nll", "perceptual"], value=0.8)
WEIGHTS = {"perceptual": 2.0, "critic": ADAPTIVE}
CONV = {"encoder": use("conv", channels=[8, 8], attention=[4]), "decoder": use("conv", channels=[8, 8], attention=[4])}
RANDOM = use("random-conv", dim=8)
TRAINED = use("classifier", epochs=1, size=8)


class Lifted(nn.Module):
    """Features whose distance has a closed form: the map (x, 1), so u = (x, 1) / sqrt(x^2 + 1)."""

    label = "lifted"

    def __init__(self, x: TensorType) -> None:
        super().__init__()

    def forward(self, x):
        return Features(x.flatten(1), (torch.cat([x, torch.ones_like(x)], dim=1),))

    def key(self):
        return "lifted"

    def prepare(self, batches):
        pass


class Slope(nn.Module):
    """A linear critic."""

    def __init__(self, x: TensorType, cond: CondType) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.linspace(-1, 2, x.numel))

    def forward(self, x, cond):
        return x.flatten(1) @ self.v


PATCH = use("patch", channels=4)


def judge(features, network=PATCH, start=2):
    perceptual = {"perceptual": use("perceptual", features=features)} if features else {}
    return {**perceptual, **({"critic": use("critic", network=network, start=start)} if network else {})}


def find(model):
    return model.judges.parts["perceptual"]


def vqgan(features, **slots):
    bottleneck = use("vq", num_codes=8, channels=2)
    parts = {"bottleneck": bottleneck, "judges": judge(features), "weights": WEIGHTS}
    return use("autoencoder", **{**CONV, **parts, **slots})


@pytest.fixture
def linear():
    """out = W x + b, so small that no pixel is clipped."""
    parts = {"bottleneck": "identity", "judges": judge(use(Lifted), use(Slope), 0), "weights": WEIGHTS}
    model = build(spec(use("autoencoder", **LINEAR, **parts))).double()
    with torch.no_grad():
        model.decoder.out.weight.mul_(0.1)
    return model


def test_the_perceptual_term_is_the_mean_distance_of_the_samples(linear):
    x = digits(5, torch.float64).tensor
    with torch.no_grad():
        out = linear.decoder(x.flatten(1))
    cosine = (x * out + 1) / ((x.square() + 1) * (out.square() + 1)).sqrt()
    losses = linear.losses("autoencoder", Batch(x, {}), turn())
    assert list(losses) == ["nll", "perceptual", "critic"]
    torch.testing.assert_close(losses["perceptual"].detach(), (2 - 2 * cosine).mean(), rtol=1e-8, atol=0)


@pytest.mark.parametrize("started", [False, True])
def test_the_adaptive_weight_balances_the_terms_at_the_last_layer(linear, started):
    x = digits(5, torch.float64).tensor
    flat = x.flatten(1)
    with torch.no_grad():
        out = linear.decoder(flat).flatten(1)
        assert out.abs().max() < 1
        nll = (out - flat) / 64
        perceptual = 2 * (out - flat) / ((out.square() + 1) ** 1.5 * (flat.square() + 1).sqrt()) / 64
        reconstruction = ((nll + 2.0 * perceptual) / 5).T @ flat
        adversarial = (-linear.judges.parts["critic"].network.v.expand(5, -1) / 5).T @ flat
        balance = reconstruction.norm() / (adversarial.norm() + 1e-4)
        want = reconstruction + (0.8 * balance * adversarial if started else 0)

    step = turn(waiting=() if started else ("critic",))
    losses = linear.losses("autoencoder", Batch(x, {}), step)
    assert ("critic" in losses) == started
    last = linear.get_parameter(linear.players()[0].last_layer)
    total = weigh_losses(losses, linear.weights("autoencoder"), turn(), last)
    (gradient,) = torch.autograd.grad(total, last, retain_graph=True)
    torch.testing.assert_close(gradient, want, rtol=1e-8, atol=1e-12)
    if started:
        seen = {**losses, "perceptual": 2.0 * losses["perceptual"]}
        weight = linear.weights("autoencoder")["critic"](turn(), seen, last)
        torch.testing.assert_close(weight, 0.8 * balance, rtol=1e-8, atol=0)
        assert not weight.requires_grad


@pytest.mark.wide
def test_the_gradient_reaches_encoder_and_decoder_and_is_that_of_finite_differences():
    parts = {"bottleneck": "identity", "judges": judge(RANDOM, None), "likelihood": "l1"}
    model, x = build(spec(use("autoencoder", **CONV, **parts))).double(), digits(2, torch.float64)
    names = ["encoder.conv_in.bias", "decoder.conv_out.bias", "decoder.conv_in.bias"]
    for name in names:
        parameter = model.get_parameter(name)

        def loss(value, name=name):
            return torch.func.functional_call(model, {name: value}, (x,))["perceptual"]

        model.forward = lambda batch: model.losses("autoencoder", batch, turn())
        assert torch.autograd.gradcheck(loss, parameter, rtol=1e-4)
        (gradient,) = torch.autograd.grad(loss(parameter), parameter)
        assert gradient.any(), name


def test_a_term_that_is_not_wanted_is_not_computed():
    class Refusing(StepContext):
        def wants(self, term):
            return term != "perceptual"

    model = build(spec(use("autoencoder", **CONV, judges=judge(RANDOM, None))))
    find(model).forward = None
    assert set(model.losses("autoencoder", digits(2), Refusing(Rng(0)))) == {"nll", "kl"}


@pytest.mark.wide
def test_the_extractor_is_in_no_player_and_counts_as_no_part_of_the_model():
    model, without = build(spec(vqgan(RANDOM))), build(spec(vqgan(None, weights={})))
    assert set(model.state_dict()) == set(without.state_dict())
    assert len(list(model.parameters())) == len(list(without.parameters()))
    own = {id(module) for player in model.players() for module in collect_modules(model, player)}
    assert id(find(model).features) not in own and id(find(model)) not in own


@pytest.mark.wide
def test_training_moves_the_players_in_their_time_and_never_the_extractor(tmp_path):
    started = trainer(spec(vqgan(RANDOM), steps=5), tmp_path / "run")
    model = started.model
    before, critic = state(find(model).features), state(model.judges.parts["critic"])
    seen = []
    take = started._take_turns
    started._take_turns = lambda *turn: seen.append(state(model.judges.parts["critic"])) or take(*turn)
    started.fit()
    assert all(torch.equal(value, before[name]) for name, value in find(model).features.state_dict().items())
    fresh = RandomConv(model.single, dim=8)
    assert find(model).features.key() == fresh.key()
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), find(model).features.parameters()))
    same = [all(torch.equal(value, critic[name]) for name, value in one.items()) for one in seen]
    assert same == [True, True, True, False, False]  # weights and batch norm's statistics, before each step

    rows = [row["losses"] for row in started.run.read_metrics()]
    own = {"autoencoder/nll", "autoencoder/commitment", "autoencoder/perceptual"}
    both = own | {"autoencoder/critic", "critic/adversarial"}
    assert [set(row) for row in rows] == [own, own, both, both, both]
    assert rows[-1]["autoencoder/perceptual"] < rows[0]["autoencoder/perceptual"]


@pytest.mark.wide
def test_a_run_reloads_and_without_its_extractor_too(tmp_path):
    run = modkit.train(spec(vqgan(RANDOM), steps=3), tmp_path / "run")
    x = digits(4).tensor
    assert not [name for name in run.load_weights() if name.startswith("judges.perceptual")]
    with torch.no_grad():
        made = modkit.load(run).reconstruct(x)
        bare = modkit.load(run, ["model.judges.perceptual=null"])
        assert list(bare.judges.parts) == ["critic"] and torch.equal(bare.reconstruct(x), made)


@pytest.mark.wide
def test_an_extractor_that_the_run_trains_is_trained_once_and_resumed(tmp_path):
    small = spec(vqgan(TRAINED, **LINEAR, bottleneck="identity"), steps=4, checkpoints={"every": 2, "keep": 9})
    first = trainer(small, tmp_path / "run")
    with pytest.raises(ValueError, match="Classifier has no key before it is trained"):
        find(first.model).features.key()
    first.fit()
    key, end = find(first.model).features.key(), state(first.model)
    assert {name for name in end if name.startswith("judges.perceptual.")} == {
        f"judges.perceptual.{name}" for name in find(first.model).features.state_dict()
    }
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    again = trainer(small, tmp_path / "run")
    find(again.model).features.prepare = None  # not once more
    again.fit()
    assert find(again.model).features.key() == key
    assert all(torch.equal(value, end[name]) for name, value in again.model.state_dict().items())


def test_features_without_maps_are_refused_before_weights():
    with pytest.raises(SpecError, match="Perceptual expects features with maps, got pixels, which gives none"):
        build(spec(vqgan(use("pixels"))))
