import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modkit import Rng, SpecError, StepContext, build, use
from modkit.kinds import Round
from modkit.losses import R1
from modkit.models import GAN
from modkit.precision import use_precision
from modkit.specs.settings import Term
from modkit.types import Cond, TensorType
from tests.losses.test_regularizers import Curved, play
from tests.play import digits, spec, turn

MLP, CONV = use("mlp", width=16, depth=1), use("conv", channels=[8])
R1S = {"r1": use("r1")}
JUDGES = {"critic": use("critic", network=use("patch", channels=8), regularizers=R1S)}
GAMES = {
    "gan": use("gan", generator=MLP, discriminator=use("dcgan", channels=4), regularizers=R1S, conditioner="label"),
    "denoising-gan": use("denoising-gan", network=MLP, discriminator=MLP, steps=2, regularizers=R1S),
    "bidirectional": use("bidirectional", encoder=MLP, generator=MLP, discriminator=MLP, regularizers=R1S),
    "autoencoder": use("autoencoder", encoder=CONV, decoder=CONV, judges=JUDGES),
}


@pytest.mark.wide(1)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", GAMES)
def test_narrow_precision_leaves_the_penalty_of_each_model_as_it_is(name, precision):
    model, batch = build(spec(GAMES[name])), digits(8)
    player = next(one.name for one in model.players() if one.name in ("critic", "discriminator"))
    found = {}
    for chosen in ("float32", precision):
        with use_precision(torch.device("cpu"), chosen):
            losses = model.losses(player, batch, turn())
        gradients = torch.autograd.grad(losses["r1"], [*model.parameters()], allow_unused=True)
        found[chosen] = losses, [one for one in gradients if one is not None]
    (full, slopes), (narrow, same) = found["float32"], found[precision]
    assert torch.equal(narrow["r1"], full["r1"]) and narrow["r1"] > 0
    assert slopes and all(torch.equal(a, b) for a, b in zip(slopes, same, strict=True))
    assert not torch.equal(narrow["adversarial"], full["adversarial"])


@pytest.mark.wide
def test_a_compiled_critic_is_called_and_differentiated_twice():
    """Compiled code has no second derivatives; what is hooked around a call (the joining of weights) still runs."""
    critic, calls = Curved().double(), []
    critic.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(4, 2, dtype=torch.float64)
    step = StepContext(Rng(0), 1, terms={"late": Term(every=2)})
    penalties = GAN(TensorType((2,)), regularizers={"r1": R1, "late": R1}).penalties
    expected = penalties.compute("discriminator", step, play(critic, x))
    torch._dynamo.reset()
    critic.compile(backend="aot_eager")
    critic(x, Cond()).sum().backward()
    made = penalties.compute("discriminator", step, play(critic, x))
    assert made.keys() == expected.keys() == {"r1"} and len(calls) == 3
    gradients = [torch.autograd.grad(one["r1"], critic.layer.weight)[0] for one in (made, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_a_critic_that_attends_is_differentiated_twice():
    """The fault: fused attention has no second derivative."""
    torch.manual_seed(0)
    weight = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 1, 5, 4, dtype=torch.float64)

    def attend(x: Tensor, cond: Cond) -> Tensor:
        return F.scaled_dot_product_attention(x @ weight, x, x).sum((1, 2, 3))

    def attend_by_hand(x: Tensor, cond: Cond) -> Tensor:
        return (torch.softmax(x @ weight @ x.mT / 2, -1) @ x).sum((1, 2, 3))

    penalties, step = GAN(TensorType((2,)), regularizers={"r1": R1}).penalties, StepContext(Rng(0))
    found, expected = (
        torch.autograd.grad(penalties.compute("discriminator", step, play(critic, x))["r1"], weight)[0]
        for critic in (attend, attend_by_hand)
    )
    torch.testing.assert_close(found, expected)


class Asks:
    """A plug-in's penalty on a side, which needs members of the round."""

    def __init__(self, *, side: str = "generator", needs: list[str] = ["z"]) -> None:  # noqa: B006
        self.side, self.needs = side, tuple(needs)

    def __call__(self, round: Round) -> Tensor:
        assert all(getattr(round, name) is not None for name in self.needs)
        assert round.fake.shape == round.real.shape and len(round.z) == len(round.real)
        if "critic" in self.needs:
            assert len(round.critic(round.fake, round.cond)) == len(round.real)
        if "generator" in self.needs:
            assert round.generator(round.z, round.cond).shape == round.real.shape
        if "encoder" in self.needs:
            assert round.encoder(round.real).shape == round.z.shape
            assert round.decoder(round.z).shape == round.real.shape
        return round.real.new_tensor(len(round.real))


PLAIN = use("autoencoder", encoder=MLP, decoder=MLP)
EVERY = ["fake", "z", "critic"]


@pytest.mark.parametrize(
    ("game", "side", "needs", "player"),
    [
        (GAMES["gan"], "discriminator", [*EVERY, "generator"], "discriminator"),
        (GAMES["gan"], "generator", ["fake", "z", "generator"], "generator"),
        (GAMES["denoising-gan"], "discriminator", [*EVERY, "generator"], "discriminator"),
        (GAMES["denoising-gan"], "generator", [*EVERY, "generator"], "generator"),
        (GAMES["autoencoder"], "discriminator", [*EVERY, "encoder", "decoder"], "critic"),
        (GAMES["autoencoder"], "autoencoder", ["fake", "z", "encoder", "decoder"], "autoencoder"),
        (PLAIN, "autoencoder", ["fake", "z", "encoder", "decoder"], "autoencoder"),
    ],
)
def test_each_side_computes_its_own_penalties_with_all_that_the_model_has(game, side, needs, player):
    slot = {"regularizers": {"own": use(Asks, side=side, needs=needs)}}
    if player == "critic":
        slot = {"judges": {"critic": use("critic", network=use("patch", channels=8), **slot)}}
    model = build(spec(use(game.use, **{**game.params, **slot})))
    found = {one.name: model.losses(one.name, digits(3), turn(one.name)) for one in model.players()}
    assert [name for name, losses in found.items() if "own" in losses] == [player]
    assert found[player]["own"] == 3 / (64 if player == "autoencoder" else 1)  # per value of x, as `nll` is
    assert "own" not in model.losses(player, digits(3), turn(terms={"own": Term(start=1)}))


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("game", "penalty", "message"),
    [
        (GAMES["gan"], use(Asks, side="autoencoder"), "Asks is a penalty on the side `autoencoder`, expected discrimi"),
        (GAMES["gan"], use(Asks, needs=["critic", "encoder"]), "Asks needs `encoder` of a round, got fake, z, "),
        (PLAIN, use("r1"), "R1 is a penalty on the side `discriminator`, expected autoencoder of Autoencoder"),
    ],
)
def test_a_penalty_that_a_model_cannot_compute_is_refused_where_it_stands(game, penalty, message):
    with pytest.raises(SpecError, match=message) as caught:
        build(spec(use(game.use, **{**game.params, "regularizers": {"own": penalty}})))
    assert [one.path for one in caught.value.problems] == ["model.regularizers.own"]


def test_a_generator_s_own_penalty_alone_is_computed_before_its_opponent_starts():
    model = build(spec(use("gan", generator=MLP, discriminator=MLP, regularizers={"own": use(Asks)})))
    assert list(model.losses("generator", digits(3), turn(waiting=("discriminator",)))) == ["own"]
