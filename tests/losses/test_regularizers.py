import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit import Rng, SpecError, StepContext, build, use
from modkit.kinds import Round
from modkit.losses import R1, R2, GradientPenalty
from modkit.losses.regularizers import penalize, select_due
from modkit.precision import use_precision
from modkit.specs.settings import Term
from modkit.types import Cond
from tests.play import digits, spec, turn


def play(critic, x, cond=Cond(), **members):  # noqa: B008
    return Round(x, cond, Rng(0), critic=critic, **members)


@pytest.mark.smoke
def test_quadratic_critic_by_hand():
    matrix = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(7, 4, dtype=torch.float64)
    penalty = R1(gamma=3.0)(play(lambda x, cond: ((x @ matrix) * x).sum(1) / 2, x))
    symmetric = (matrix + matrix.T) / 2
    torch.testing.assert_close(penalty, 1.5 * (x @ symmetric).square().sum(1).mean())

    (gradient,) = torch.autograd.grad(penalty, matrix)
    want = 3.0 * symmetric @ x.T @ x / 7  # d/dS of gamma / 2 E |S x|^2, symmetrised
    torch.testing.assert_close(gradient, (want + want.T) / 2)


def test_patch_logits_are_summed():
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    conv = nn.Conv2d(2, 1, 4, stride=4).double()
    shifted = nn.Conv2d(2, 1, 2, stride=2).double()
    one = R1()(play(lambda x, cond: conv(x), x))
    torch.testing.assert_close(one, 0.5 * conv.weight.square().sum())
    torch.testing.assert_close(R1()(play(lambda x, cond: shifted(x), x)), 0.5 * 4 * shifted.weight.square().sum())


def test_gradcheck_through_a_curved_critic():
    x = torch.randn(3, 2, dtype=torch.float64)

    def penalty(first, second):
        return R1()(play(lambda x, cond: (torch.tanh(x @ first) @ second).squeeze(1), x))

    weights = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 4), (4, 1))]
    assert torch.autograd.gradcheck(penalty, weights)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(penalty(*weights), weights))


def test_only_x_is_differentiated_and_its_source_is_left_alone():
    source = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)
    cond = Cond(concat=torch.randn(3, 2, dtype=torch.float64))
    x = 2 * source
    penalty = R1()(play(lambda x, cond: torch.cat([x**2, cond.concat], 1) @ weight, x, cond))
    torch.testing.assert_close(penalty, 0.5 * (2 * x * weight[:2, 0]).square().sum(1).mean())
    assert torch.autograd.grad(penalty, source, allow_unused=True, retain_graph=True) == (None,)
    (gradient,) = torch.autograd.grad(penalty, weight)
    want = 4 * (x**2).mean(0)[:, None] * weight[:2]
    torch.testing.assert_close(gradient, torch.cat([want, 0 * weight[2:]]).detach())
    real = torch.randn(3, 2)
    R1()(play(lambda x, cond: x.sum(1) ** 2, real))
    assert not real.requires_grad


def test_works_without_gradients_around_it():
    weight = torch.randn(4, requires_grad=True)
    with torch.no_grad():
        penalty = R1()(play(lambda x, cond: x @ weight, torch.randn(3, 4)))
    torch.testing.assert_close(penalty, 0.5 * weight.square().sum())


def test_r2_is_r1_at_the_fakes():
    critic = Curved().double()
    real, fake = torch.randn(2, 5, 2, dtype=torch.float64)
    torch.testing.assert_close(R2(gamma=3.0)(play(critic, real, fake=fake)), R1(gamma=3.0)(play(critic, fake)))


def test_the_gradient_penalty_is_that_of_each_sample_between_its_pair():
    critic = Curved().double()
    real, fake = torch.randn(2, 5, 2, dtype=torch.float64)
    share = Rng(0).uniform("eps", real[:, :1])
    norms = []
    for row in share * real + (1 - share) * fake:
        slopes = torch.autograd.functional.jacobian(lambda x: critic(x[None], Cond())[0], row)
        norms.append(slopes.square().sum().sqrt())
    found = GradientPenalty(gamma=3.0)(play(critic, real, fake=fake))
    torch.testing.assert_close(found, 3 * (torch.stack(norms) - 1).square().mean())
    assert share.shape == (5, 1) and share.std() > 0.1


@pytest.mark.parametrize("part", [R1(), R2(), GradientPenalty()])
def test_second_gradients_by_the_critic_s_weights(part):
    real, fake = torch.randn(2, 3, 2, dtype=torch.float64)

    def penalty(first, second):
        return part(play(lambda x, cond: (torch.tanh(x @ first) @ second).squeeze(1), real, fake=fake))

    weights = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 4), (4, 1))]
    assert torch.autograd.gradcheck(penalty, weights) and torch.autograd.gradgradcheck(penalty, weights)


@pytest.mark.parametrize("part", [R1, R2, GradientPenalty])
def test_refuses(part):
    with pytest.raises(ValueError, match=f"{part.__name__} expects gamma of at least 0, got -1"):
        part(gamma=-1)


MLP, CONV = use("mlp", width=16, depth=1), use("conv", channels=[8])
R1S = {"r1": use("r1")}
GAMES = {
    "gan": use("gan", generator=MLP, discriminator=use("dcgan", channels=4), regularizers=R1S, conditioner="label"),
    "denoising-gan": use("denoising-gan", network=MLP, discriminator=MLP, steps=2, regularizers=R1S),
    "autoencoder": use("autoencoder", encoder=CONV, decoder=CONV, critic=use("patch", channels=8), regularizers=R1S),
}


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


class Curved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x, cond):
        return torch.tanh(self.layer(x)).sum(1)


def test_a_compiled_critic_is_called_and_differentiated_twice():
    """Compiled code has no second derivatives; what is hooked around a call (the joining of weights) still runs."""
    critic, calls = Curved().double(), []
    critic.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(4, 2, dtype=torch.float64)
    step = StepContext(Rng(0), 1, terms={"late": Term(every=2)})
    due = select_due({"r1": R1(), "late": R1()}, "discriminator", step)
    expected = penalize(due, play(critic, x))
    torch._dynamo.reset()
    critic.compile(backend="aot_eager")
    critic(x, Cond()).sum().backward()
    made = penalize(due, play(critic, x))
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

    found, expected = (
        torch.autograd.grad(penalize({"r1": R1()}, play(critic, x))["r1"], weight)[0]
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
    model = build(spec(use(game.use, **{**game.params, "regularizers": {"own": use(Asks, side=side, needs=needs)}})))
    found = {one.name: model.losses(one.name, digits(3), turn(one.name)) for one in model.players()}
    assert [name for name, losses in found.items() if "own" in losses] == [player]
    assert found[player]["own"] == 3 / (64 if player == "autoencoder" else 1)  # per value of x, as `nll` is
    assert "own" not in model.losses(player, digits(3), turn(terms={"own": Term(start=1)}))


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
