import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit import Rng, StepContext, build, use
from modkit.losses import R1
from modkit.losses.regularizers import penalize
from modkit.precision import use_precision
from modkit.specs.settings import Term
from modkit.types import Cond
from tests.play import digits, spec, turn


@pytest.mark.smoke
def test_quadratic_critic_by_hand():
    matrix = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(7, 4, dtype=torch.float64)
    penalty = R1(gamma=3.0)(lambda x, cond: ((x @ matrix) * x).sum(1) / 2, x, Cond())
    symmetric = (matrix + matrix.T) / 2
    torch.testing.assert_close(penalty, 1.5 * (x @ symmetric).square().sum(1).mean())

    (gradient,) = torch.autograd.grad(penalty, matrix)
    want = 3.0 * symmetric @ x.T @ x / 7  # d/dS of gamma / 2 E |S x|^2, symmetrised
    torch.testing.assert_close(gradient, (want + want.T) / 2)


def test_patch_logits_are_summed():
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    conv = nn.Conv2d(2, 1, 4, stride=4).double()
    shifted = nn.Conv2d(2, 1, 2, stride=2).double()
    one = R1()(lambda x, cond: conv(x), x, Cond())
    torch.testing.assert_close(one, 0.5 * conv.weight.square().sum())
    torch.testing.assert_close(R1()(lambda x, cond: shifted(x), x, Cond()), 0.5 * 4 * shifted.weight.square().sum())


def test_gradcheck_through_a_curved_critic():
    x = torch.randn(3, 2, dtype=torch.float64)

    def penalty(first, second):
        return R1()(lambda x, cond: (torch.tanh(x @ first) @ second).squeeze(1), x, Cond())

    weights = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 4), (4, 1))]
    assert torch.autograd.gradcheck(penalty, weights)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(penalty(*weights), weights))


def test_only_x_is_differentiated_and_its_source_is_left_alone():
    source = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)
    cond = Cond(concat=torch.randn(3, 2, dtype=torch.float64))
    x = 2 * source
    penalty = R1()(lambda x, cond: torch.cat([x**2, cond.concat], 1) @ weight, x, cond)
    torch.testing.assert_close(penalty, 0.5 * (2 * x * weight[:2, 0]).square().sum(1).mean())
    assert torch.autograd.grad(penalty, source, allow_unused=True, retain_graph=True) == (None,)
    (gradient,) = torch.autograd.grad(penalty, weight)
    want = 4 * (x**2).mean(0)[:, None] * weight[:2]
    torch.testing.assert_close(gradient, torch.cat([want, 0 * weight[2:]]).detach())
    real = torch.randn(3, 2)
    R1()(lambda x, cond: x.sum(1) ** 2, real, Cond())
    assert not real.requires_grad


def test_works_without_gradients_around_it():
    weight = torch.randn(4, requires_grad=True)
    with torch.no_grad():
        penalty = R1()(lambda x, cond: x @ weight, torch.randn(3, 4), Cond())
    torch.testing.assert_close(penalty, 0.5 * weight.square().sum())


def test_refuses():
    with pytest.raises(ValueError, match="R1 expects gamma of at least 0, got -1"):
        R1(gamma=-1)


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
    regularizers = {"r1": R1(), "late": R1()}
    expected = penalize(regularizers, critic, x, Cond(), step)
    torch._dynamo.reset()
    critic.compile(backend="aot_eager")
    critic(x, Cond()).sum().backward()
    made = penalize(regularizers, critic, x, Cond(), step)
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
        torch.autograd.grad(penalize({"r1": R1()}, critic, x, Cond(), StepContext(Rng(0)))["r1"], weight)[0]
        for critic in (attend, attend_by_hand)
    )
    torch.testing.assert_close(found, expected)
