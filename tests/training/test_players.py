import pytest
import torch
from torch import nn

from modkit import build, players, use
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.errors import SpecError
from modkit.losses.coefficients import Adaptive, Constant, Warmup
from modkit.models.player import Player
from modkit.nn.edm2_unet import EDM2UNet
from modkit.nn.magnitude import UnitConv
from modkit.specs.settings import Term
from modkit.training.ownership import collect_modules
from modkit.training.players import Participant, make_participants, strip_scope, weigh_losses
from modkit.training.schedule import count_steps, match_names, schedule_stages
from tests.play import MLP, digits, spec, trainer, turn

VQGAN = use("autoencoder", **MLP, critic=use("mlp", width=8, depth=1), critic_start=3)
LDM = use("latent", autoencoder=VQGAN, prior=use("diffusion", network=use("mlp", width=16, depth=1)))


def made(model, **train):
    site = Site(plan(spec(model, **train)), meta=False)
    data, settings = site.data, site.settings
    return site.build_model(data.x, data.fields), settings


def table(model, **train):
    model, settings = made(model, **train)
    engine, stages = settings.engine(device="cpu"), schedule_stages(model, settings)
    return model, [make_participants(model, settings, stages, number, engine) for number in range(len(stages))]


def names(played):
    return [[player.name for player in stage.players] for stage in played]


@pytest.mark.smoke
def test_losses_are_weighted_by_name_and_the_rest_weighs_one():
    losses = {"nll": torch.tensor(2.0), "kl": torch.tensor(3.0), "other": torch.tensor(5.0)}
    weights = {"kl": Constant(value=0.5), "nll": Warmup(value=4.0, steps=10, start=5), "absent": Constant(value=9.0)}
    assert weigh_losses(losses, weights, turn(index=0), None) == 1.5 + 5
    assert weigh_losses(losses, weights, turn(index=10), None) == 2 * 2 + 1.5 + 5
    assert weigh_losses(losses, weights, turn(index=99), None) == 4 * 2 + 1.5 + 5


@pytest.mark.parametrize("scope", ["", "autoencoder/", "outer/autoencoder/"])
def test_an_adaptive_weight_sees_the_weighted_terms_of_its_own_model(scope):
    last = torch.tensor([1.0, 2.0], requires_grad=True)
    losses = {f"{scope}nll": 3 * last[0], f"{scope}kl": last[1] ** 2, f"{scope}adversarial": 10 * last.sum()}
    if scope:
        losses = {"nll": 100 * last.sum(), **losses}  # another's
    adaptive = Adaptive("adversarial", against=["nll", "kl"], value=0.5)
    weights = {f"{scope}kl": Constant(value=0.25), f"{scope}adversarial": adaptive}
    total = weigh_losses(losses, weights, turn(index=0), last)
    lam = 0.5 * (3**2 + 1**2) ** 0.5 / (10 * 2**0.5 + 1e-4)
    torch.testing.assert_close(total.item(), 3 + 0.25 * 4 + lam * 30 + (300 if scope else 0))
    (gradient,) = torch.autograd.grad(total, last)
    want = torch.tensor([3 + 10 * lam, 1 + 10 * lam]) + (100 if scope else 0)
    torch.testing.assert_close(gradient, want)


@pytest.mark.parametrize("scope", ["", "outer/autoencoder/"])
def test_an_adaptive_weight_leaves_out_a_lazy_term_of_its_own_model(scope):
    last = torch.ones(2, requires_grad=True)
    losses = {f"{scope}nll": 3 * last[0], f"{scope}adversarial": 10 * last[1]}
    weights = {f"{scope}adversarial": Adaptive("adversarial", against=["nll", "kl"])}
    step = turn(index=1, terms={f"{scope}kl": Term(every=2)})
    torch.testing.assert_close(weigh_losses(losses, weights, step, last).item(), 3 + 3 / (10 + 1e-4) * 10)
    with pytest.raises(ValueError, match=r"expects losses \['kl'\]"):
        weigh_losses(losses, weights, turn(index=1, terms={"kl2": Term(every=2)}), last)


@pytest.mark.parametrize(
    ("term", "player"), [("r1", "discriminator"), ("r2", "discriminator"), ("path-length", "generator")]
)
def test_over_an_interval_a_rescaled_term_has_the_gradient_of_every_turn(term, player):
    """The fault: the term of every 16th step counted once."""
    made = use("mlp", width=8, depth=1, activation="silu")
    model = build(spec(use("gan", generator=made, discriminator=made, regularizers={term: term}))).double()
    batch, weights = digits(4, torch.float64), {"adversarial": Constant(value=0.0)}
    parameters = list(model.get_submodule(player).parameters())
    if term == "path-length":
        model.penalties.parts[term].turns.fill_(1)

    def sum_gradients(**options):
        total = [torch.zeros_like(one) for one in parameters]
        for index in range(16):
            step = turn(index=index, **options)
            losses = weigh_losses(model.losses(player, batch, step), weights, step, None)
            grads = torch.autograd.grad(losses, parameters, allow_unused=True, materialize_grads=True)
            total = [one + grad for one, grad in zip(total, grads)]
        return total

    expected = sum_gradients()
    assert max(one.abs().max() for one in expected) > 1e-6
    for every in (4, 16):
        for one, grad in zip(expected, sum_gradients(terms={term: Term(every=every, rescale=True)})):
            torch.testing.assert_close(grad, one, rtol=1e-12, atol=1e-14)


def test_a_rescaled_term_counts_its_player_s_turns(tmp_path, monkeypatch):
    gains = []

    def weigh(losses, weights, step, last):
        gains.append({name: step.find_gain(name) for name in losses})
        return weigh_losses(losses, weights, step, last)

    monkeypatch.setattr("modkit.training.players.weigh_losses", weigh)
    gan = use("gan", generator=MLP["decoder"], discriminator=MLP["encoder"], regularizers={"r1": "r1"})
    settings = {"players": {"discriminator": {"every": 2}, "generator": {"every": 8}}, "steps": 5}
    trainer(spec(gan, terms={"r1": {"every": 4, "rescale": True}}, **settings), tmp_path / "run").fit()
    both, one = {"adversarial": 1.0, "r1": 2.0}, {"adversarial": 1.0}
    assert gains == [both, one, one, both]  # of the discriminator, the generator, and the discriminator twice


def test_a_scope_is_taken_off_whole_names_only():
    assert strip_scope("prior/kl", "prior") == "kl" == strip_scope("kl", "")
    assert strip_scope("prior2/kl", "prior") == "prior2/kl"


def test_the_natural_game_is_the_model_s_own_with_the_settings_steps():
    model, settings = made(LDM, steps=7, ema=0.5)
    played = schedule_stages(model, settings)
    assert names(played) == [["autoencoder/autoencoder", "autoencoder/critic"], ["prior/denoiser"]]
    assert [(stage.steps, stage.ema) for stage in played] == [(7, 0.5)] * 2


def test_a_stage_without_parameters_has_no_steps_to_train():
    model, settings = made(LDM, steps=7)
    played = schedule_stages(model, settings)
    assert count_steps(model, played) == [7, 7]
    model.autoencoder.requires_grad_(False)
    assert count_steps(model, played) == [0, 7]


def test_stages_choose_players_by_pattern_in_the_model_s_order():
    stages = [
        {"players": ["prior/*", "autoencoder/auto*"], "steps": 3},
        {"players": ["*critic", "*/critic"], "ema": 0},
        {"players": ["*"], "steps": 0, "ema": 0.25},
    ]
    played = schedule_stages(*made(LDM, steps=7, ema=0.5, stages=stages))
    everyone = ["autoencoder/autoencoder", "autoencoder/critic", "prior/denoiser"]
    assert names(played) == [[everyone[0], everyone[2]], [everyone[1]], everyone]
    assert [(stage.steps, stage.ema) for stage in played] == [(3, 0.5), (7, 0), (0, 0.25)]


def test_patterns_that_match_nobody_are_refused():
    everyone = "autoencoder/autoencoder, autoencoder/critic, prior/denoiser"
    for train, where in (
        ({"stages": [{"players": ["*", "critic"]}]}, r"train.stages(?:\[0\].players\[1\])?: the pattern 'critic'"),
        ({"players": {"denoiser": {"every": 2}}}, r"train.players(?:.denoiser)?: the pattern 'denoiser'"),
    ):
        with pytest.raises(ValueError, match=f"{where} matches none of: {everyone}"):
            schedule_stages(*made(LDM, **train))
        with pytest.raises(SpecError, match=where):
            build(spec(LDM, **train))
    with pytest.raises(ValueError, match="where: the pattern 'a' matches none of: \\(no names\\)"):
        match_names("a", [], "where")


def test_a_model_that_is_frozen_has_nothing_to_train():
    model, settings = made(LDM)
    model.frozen = True
    with pytest.raises(ValueError, match="something to train, got a frozen one: set `train: true`"):
        schedule_stages(model, settings)


def test_players_are_overridden_by_pattern_the_later_over_the_earlier():
    players = {
        "*": {"clip": 5.0, "every": 2},
        "*critic": {"optimizer": use("sgd", lr=0.25), "every": 3, "start": 1},
        "prior/*": {"lr_schedule": use("cosine"), "every": 1},
    }
    _, ((auto, critic), (denoiser,)) = table(LDM, optimizer=use("adam", lr=0.5), clip=1.0, players=players, steps=10)
    assert [(s.player.every, s.player.start, s.guard.clip) for s in (auto, critic, denoiser)] == [
        (2, 0, 5.0),
        (3, 1, 5.0),
        (1, 0, 5.0),
    ]
    assert [type(s.optimizer).__name__ for s in (auto, critic, denoiser)] == ["Adam", "SGD", "Adam"]
    assert [s.optimizer.param_groups[0]["lr"] for s in (auto, critic, denoiser)] == [0.5, 0.25, 0.5]
    assert [index for index in range(10) if critic.plays(index)] == [1, 4, 7]
    assert [index for index in range(10) if auto.plays(index)] == [0, 2, 4, 6, 8]
    assert table(VQGAN, players={"critic": {"every": 2}})[1][0][1].player.start == 3


def test_a_learning_rate_falls_over_the_turns_that_its_player_has():
    players = {"critic": {"every": 3, "start": 1}}
    _, ((auto, critic),) = table(VQGAN, lr_schedule="linear", players=players, steps=10, optimizer=use("sgd", lr=1.0))
    for state, turns in ((auto, 10), (critic, 3)):
        rates = []
        for _ in range(turns):
            rates.append(state.optimizer.param_groups[0]["lr"])
            state.optimizer.step()
            state.schedule.step()
        assert rates == pytest.approx([1 - i / turns for i in range(turns)])


def test_a_state_has_its_player_s_modules_and_the_others_statistics():
    model, ((auto, critic),) = table(use("autoencoder", **{**MLP, "bottleneck": "vq"}, critic=use("dcgan", channels=4)))
    own = {id(p) for part in (model.encoder, model.bottleneck, model.decoder) for p in part.parameters()}
    assert {id(p) for p in auto.parameters} == own
    assert {id(p) for p in critic.parameters} == {id(p) for p in model.judges.parts["critic"].parameters()}
    assert {id(b) for b in auto.others.buffers} == {id(b) for b in model.judges.parts["critic"].buffers()}
    assert {id(b) for b in critic.others.buffers} == {
        id(b) for b in model.bottleneck.buffers()
    } and critic.others.buffers
    assert auto.last_layer is model.decoder.out.weight and critic.last_layer is None
    assert critic.weights == {}


def test_an_opponent_waits_until_it_starts_in_this_stage_or_has_played_in_one_before():
    model, _ = made(VQGAN)
    coder, critic = model.players()

    def wait(played, stage, index):
        with Participant(model, coder, played, stage).begin_turn(index) as step:
            return step.waiting

    assert [wait([[coder, critic]], 0, index) for index in (0, 2, 3)] == [("critic",), ("critic",), ()]
    assert wait([[coder], [critic]], 0, 99) == ("critic",)
    assert wait([[critic], [coder]], 1, 0) == ()


def test_a_turn_puts_back_what_moved_elsewhere_even_after_an_error():
    model = nn.ModuleDict({"a": nn.BatchNorm1d(2), "b": nn.BatchNorm1d(2)})
    model.weights = lambda player: {}
    players = [Player("a", ("a",)), Player("b", ("b",))]
    a, b = (Participant(model, player, [players]) for player in players)
    x = torch.randn(8, 2) + 3
    with pytest.raises(KeyError), a.hold_others():
        assert [p.requires_grad for p in model.parameters()] == [True, True, False, False]
        model["b"](model["a"](x) + 1)
        assert model["b"].running_mean.abs().min() > 0
        raise KeyError
    assert model["a"].running_mean.abs().min() > 0 and model["a"].num_batches_tracked == 1
    assert model["b"].running_mean.tolist() == [0, 0] and model["b"].num_batches_tracked == 0
    with b.hold_others():
        assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]


def test_what_is_frozen_or_another_s_is_not_owned():
    model = build(spec(use("gan", generator=use("mlp", width=4, depth=1), discriminator=use("mlp", width=4, depth=1))))
    player = Player("all", ("generator", "discriminator"))
    everything = {id(module) for part in (model.generator, model.discriminator) for module in part.modules()}
    assert {id(module) for module in collect_modules(model, player)} == everything
    model.discriminator.frozen = True
    mine = {id(module) for module in model.generator.modules()}
    assert {id(module) for module in collect_modules(model, player)} == mine
    model.discriminator.frozen = False
    model.generator.borrowed = model.discriminator  # as a `ref` would: it is kept where it was built
    assert {id(module) for module in collect_modules(model, Player("one", ("generator",)))} == mine


def test_players_without_parameters_have_no_state():
    model, settings = made(use("autoencoder", **MLP))
    stages, engine = schedule_stages(model, settings), settings.engine(device="cpu")
    assert len(make_participants(model, settings, stages, 0, engine)) == 1
    model.requires_grad_(False)
    model.encoder = model.decoder = model.bottleneck = nn.Identity()
    assert make_participants(model, settings, stages, 0, engine) == []


EDM2 = use("diffusion", network=use("edm2-unet", channels=[4], blocks=1), sampler=use("ddim", steps=2))
CONV = {name: use("conv", channels=[4], blocks=1) for name in ("encoder", "decoder")}


@pytest.mark.wide
def test_networks_are_updated_after_each_step_of_their_player_that_is_not_skipped(tmp_path, monkeypatch):
    updates = []
    monkeypatch.setattr(EDM2UNet, "update", lambda self: updates.append(self.conv_out.gain.item()))
    ldm = use("latent", autoencoder=use("autoencoder", **CONV, bottleneck=use("gaussian", channels=2)), prior=EDM2)
    with (one := trainer(spec(ldm, steps=3, accumulate=2, ema=0), tmp_path / "run")).run:
        one.fit()
    assert len({*updates, 0.0}) == 4 and updates[-1] == one.model.prior.network.conv_out.gain.item()
    with (one := trainer(spec(EDM2, players={"*": {"skip": 1e-12}}), tmp_path / "skipped")).run:
        one.fit()
    assert len(updates) == 3


def test_a_loop_of_ones_own_updates_networks(tmp_path):
    model = build(spec(EDM2))
    (player,) = players(model)
    for parameter in player.parameters:
        parameter.data.mul_(3)
    player.update(0)
    rows = [one.weight.detach().flatten(1) for one in model.modules() if isinstance(one, UnitConv)]
    assert all(torch.allclose(one.square().mean(1), torch.ones(len(one))) for one in rows) and rows


class Counting(nn.Module):
    """A penalty of discriminators that counts the real samples that it has seen."""

    side = "discriminator"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, round):
        self.seen += len(round.real)
        return round.critic(round.real, round.cond).square().mean()


def test_what_several_players_own_moves_in_the_turn_of_each():
    small = use("mlp", width=4, depth=1)
    critics = {"generator": small, "discriminators": {"a": small, "b": small}}
    model = build(spec(use("gan", **critics, regularizers={"counting": use(Counting)})))
    *rivals, generator = players(model)
    (penalty,) = (one for one in model.modules() if isinstance(one, Counting))
    assert all(penalty in player.modules for player in rivals) and penalty not in generator.modules
    for player, seen in zip((*rivals, generator), (8, 16, 16)):
        with player.begin_turn(0) as step:
            player.compute_loss(digits(8), step)
        assert penalty.seen == seen
