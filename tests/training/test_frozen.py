"""Parameters that do not require gradients: nothing trains them, and they require none afterwards either."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import modkit
from modkit import TensorType
from modkit.bottlenecks import VectorQuantizer
from modkit.models import GAN, Autoencoder, Diffusion, Latent, Player
from modkit.samplers import Heun
from tests.play import spec

X = TensorType((2,))
POINTS = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
TINY = {"steps": 3, "batch_size": 16, "device": "cpu"}
SMALL = partial(Autoencoder, encoder="mlp", bottleneck="gaussian", decoder="mlp")


class Half(nn.Module):
    """A denoiser of a frozen layer, one whose bias is frozen, frozen statistics and a frozen scale of its own."""

    def __init__(self):
        super().__init__()
        self.frozen_layer, self.out = nn.Linear(3, 8), nn.Linear(8, 2)
        self.norm = nn.BatchNorm1d(8)
        self.scale = nn.Parameter(torch.full((8,), 2.0), requires_grad=False)
        for one in (self.frozen_layer, self.norm):
            one.requires_grad_(False)
        self.out.bias.requires_grad_(False)

    def forward(self, x, cond):
        h = self.frozen_layer(torch.cat([x, cond.time[:, None]], 1))
        return self.out(self.scale * self.norm(h).relu())


TRAINED = {"network.out.weight"}


def make_half():
    with modkit.seeded(0):
        torch.manual_seed(0)
        return Diffusion(X, network=Half())


def read_flags(model):
    return {name: one.requires_grad for name, one in model.named_parameters()}


def find_moved(model, before):
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def copy_state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.wide(1)
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_frozen_layers_of_a_built_module_stay_as_they_are(ema, tmp_path):
    """The fault: the flags were overwritten, and every layer was trained."""
    model = make_half()
    before, flags = copy_state(model), read_flags(model)
    run = modkit.fit(model, POINTS, tmp_path / "run", ema=ema, **TINY)
    assert find_moved(model, before) == TRAINED and read_flags(model) == flags
    assert {name for name, flag in flags.items() if flag} == TRAINED
    other = make_half()
    other.requires_grad_(True)
    with torch.no_grad():
        for one in other.parameters():
            one.zero_()
    assert not find_moved(modkit.load(run, model=other), copy_state(model))
    for again in (model, copy.deepcopy(model), model.with_parts(sampler=partial(Heun, steps=2))):
        before = copy_state(again)
        modkit.fit(again, POINTS, tmp_path / "again", overwrite=True, ema=ema, **TINY)
        assert find_moved(again, before) == TRAINED and read_flags(again) == flags


def test_a_resumed_run_leaves_them_alone_to_the_bit(tmp_path):
    whole, model = make_half(), make_half()
    modkit.fit(whole, POINTS, tmp_path / "whole", **{**TINY, "steps": 5})
    modkit.fit(model, POINTS, tmp_path / "run", **TINY)
    model = make_half()
    modkit.fit(model, POINTS, tmp_path / "run", resume=True, **{**TINY, "steps": 5})
    assert not find_moved(model, whole.state_dict())


@pytest.mark.wide
def test_a_frozen_autoencoder_has_no_stage(tmp_path):
    """The fault: only the mark `frozen` kept it from being trained."""
    vae = SMALL(X)
    modkit.fit(vae, POINTS, tmp_path / "vae", **TINY)
    assert all(read_flags(vae).values())
    vae.requires_grad_(False)
    before = copy_state(vae)
    model = Latent(X, autoencoder=vae, prior=partial(Diffusion, network="mlp"))
    assert model.stages() == (("prior/*",),) and [one.name for one in model.players()] == ["prior/denoiser"]
    modkit.fit(model, POINTS, tmp_path / "latent", **TINY)
    assert not find_moved(vae, before)
    assert {name for name, flag in read_flags(model).items() if not flag} == {f"autoencoder.{name}" for name in before}
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="expects a model with something to train, got a frozen one"):
        modkit.fit(model, POINTS, tmp_path / "none", **TINY)
    vae.requires_grad_(True)
    assert model.stages() == (("autoencoder/*",),)


def make_vae(frozen="encoder"):
    with modkit.seeded(0):
        torch.manual_seed(0)
        model = SMALL(X)
    model.get_submodule(frozen).requires_grad_(False)
    return model


@pytest.mark.wide(1)
@pytest.mark.parametrize("frozen", ["encoder", "decoder.out"])
def test_what_is_built_from_the_spec_of_a_run_anew_leaves_them_alone(frozen, tmp_path, caplog):
    """The fault: a branch trained them, without a word, and the run was not resumed by its spec."""
    data, wanted = partial(modkit.find("data", "ring").load(), num=64, num_test=8), {**TINY, "ema": 0.0}
    model = make_vae(frozen)
    kept = {name for name in model.state_dict() if name.startswith(f"{frozen}.")}
    run = modkit.fit(model, data, tmp_path / "run", **wanted)
    caplog.clear()
    made = modkit.branch(run, tmp_path / "branch", ["train.steps=5"])
    assert f"the branch leaves what did not require gradients in {run.path} as it is: {frozen}" in caplog.text
    again = modkit.branch(made, tmp_path / "again", ["train.steps=6"])
    for one in (run, made):
        modkit.resume(one, ["train.steps=7"])
    for one in (run, made, again):
        moved = find_moved(modkit.load(one), copy_state(model))
        assert moved and not moved & kept, one


def test_a_piece_that_a_branch_trains_is_trained(tmp_path, caplog):
    play = partial(spec, data=modkit.use("ring", num=64, num_test=8), ema=0.0)
    coder = {"encoder": modkit.use("mlp", width=8, depth=1), "decoder": modkit.use("mlp", width=8, depth=1)}
    piece = modkit.train(play(modkit.use("autoencoder", **coder), steps=1), tmp_path / "piece")
    coder["encoder"] = modkit.use("run", path=str(piece.path), at="model.encoder")
    run = modkit.train(play(modkit.use("autoencoder", **coder), steps=1), tmp_path / "run")
    made = modkit.branch(run, tmp_path / "branch", ["model.encoder.train=true", "train.steps=2"])
    moved = find_moved(modkit.load(made), modkit.load(run).state_dict())
    assert any(name.startswith("encoder.") for name in moved) and "require gradients" not in caplog.text


def test_a_run_that_is_resumed_with_others_frozen_names_them(tmp_path):
    """The fault: the refusal listed the names of all parameters, and did not speak of freezing."""
    modkit.fit(make_vae(), POINTS, tmp_path / "run", **TINY)
    message = r"got some that were {} and are {} now: {}\.[^;]*; set requires_grad_\({}\) on them"
    for free, told in {
        "encoder": message.format("frozen", "trained", "encoder", False),
        "decoder.out": message.format("trained", "frozen", "bottleneck", True),
    }.items():
        model = make_vae()
        model.requires_grad_(False).get_submodule(free).requires_grad_(True)
        with pytest.raises(ValueError, match=told):
            modkit.fit(model, POINTS, tmp_path / "run", resume=True, **{**TINY, "steps": 5})


class Spread(modkit.Model):
    """A prior without parameters: the mean and the deviation of the latents, which `prepare` measures."""

    def __init__(self, x):
        super().__init__()
        self.x = x
        self.register_buffer("ends", torch.zeros(2, *x.shape))

    def players(self):
        return (Player("spread", ()),)

    def stages(self):
        return (("*",),)

    def prepare(self, player, batches, rng):
        x = torch.cat([batch.tensor for batch in batches])
        self.ends.copy_(torch.stack([x.mean(0), x.std(0)]))

    def losses(self, player, batch, step):
        return {}

    def draw(self, num, fields, cond, rng):
        return self.ends[0] + self.ends[1] * rng.normal("x", self.ends.new_empty(num, *self.x.shape))


def test_a_prior_without_parameters_is_fitted_to_a_frozen_autoencoder(tmp_path):
    """The fault: the only parameters of the model are frozen, so that it counted as frozen whole."""
    vae = SMALL(X)
    vae.requires_grad_(False)
    model = Latent(X, autoencoder=vae, prior=Spread)
    modkit.fit(model, POINTS, tmp_path / "run", **TINY)
    assert bool((model.prior.ends[1] > 0).all())


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_codes_of_a_frozen_bottleneck_stay(codebook, tmp_path):
    model = SMALL(
        TensorType((1, 8, 8)), bottleneck=partial(VectorQuantizer, num_codes=8, channels=2, codebook=codebook)
    )
    images = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    modkit.fit(model, images, tmp_path / "first", **TINY)
    model.bottleneck.requires_grad_(False)
    before = copy_state(model)
    modkit.fit(model, images, tmp_path / "run", ema=0.0, **TINY)
    assert not any(name.startswith("bottleneck.") for name in find_moved(model, before))


@pytest.mark.wide
def test_each_stage_leaves_the_flags_to_the_next(tmp_path):
    model = Latent(X, autoencoder=SMALL, prior=partial(Diffusion, network="mlp"))
    first = next(iter(model.autoencoder.encoder.parameters())).requires_grad_(False)
    value, flags, before = first.clone(), read_flags(model), copy_state(model)
    modkit.fit(model, POINTS, tmp_path / "run", **TINY)
    assert torch.equal(first, value) and read_flags(model) == flags
    assert {name for name in flags if flags[name]} <= find_moved(model, before)


def test_a_frozen_critic_judges_but_takes_no_turn(tmp_path):
    model = GAN(X, generator="mlp", discriminator="mlp", z_dim=2)
    model.discriminator.requires_grad_(False)
    before = copy_state(model)
    modkit.fit(model, POINTS, tmp_path / "run", ema=0.0, **TINY)
    assert {name.split(".")[0] for name in find_moved(model, before)} == {"generator"}
    with pytest.raises(ValueError, match="got one of discriminator with no parameters to train and no buffers"):
        modkit.fit(model, POINTS, tmp_path / "none", stages=[{"players": ["discriminator"]}], **TINY)


def test_a_loop_of_ones_own_leaves_the_flags_as_they_were():
    model = make_half()
    flags, before = read_flags(model), copy_state(model)
    for _ in range(2):
        (player,) = modkit.players(model)
        assert [one is model.network.out.weight for one in player.parameters] == [True]
        optimizer = torch.optim.SGD(player.parameters, lr=0.1)
        with player.begin_turn(0) as step:
            player.compute_loss(modkit.Batch(POINTS[:16], {}), step).backward()
        optimizer.step()
        assert read_flags(model) == flags
    assert find_moved(model, before) == TRAINED
    game = GAN(X, generator="mlp", discriminator="mlp", z_dim=2)
    for player in modkit.players(game):
        with player.begin_turn(0):
            own = {id(one) for one in player.parameters}
            assert all(one.requires_grad == (id(one) in own) for one in game.parameters())
        assert all(read_flags(game).values())
