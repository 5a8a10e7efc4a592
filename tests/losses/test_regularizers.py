import pytest
import torch
from torch import nn

from modkit import Rng
from modkit.kinds import Round
from modkit.losses import R1, R2, GradientPenalty
from modkit.types import Cond


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


def test_conditions_beside_a_pair_are_mixed_as_the_pair_is_and_classes_stay():
    share = Rng(0).uniform("eps", torch.empty(3, 1, dtype=torch.float64))
    labels, beside = torch.tensor([2, 0, 1]), [torch.randn(3, 2, 2, dtype=torch.float64) for _ in range(2)]
    seen, (x, fake) = [], torch.randn(2, 3, 4, dtype=torch.float64)

    def critic(x, cond):
        seen.append(cond)
        return x.sum(1)

    conds = tuple(Cond(labels=labels, context=one) for one in beside)
    GradientPenalty()(play(critic, x, fake=fake, beside=conds))
    assert torch.equal(seen[0].labels, labels)
    torch.testing.assert_close(seen[0].context, share[:, None] * beside[0] + (1 - share[:, None]) * beside[1])


@pytest.mark.parametrize("part", [R1(), R2(), GradientPenalty()])
def test_second_gradients_by_the_critic_s_weights(part):
    real, fake = torch.randn(2, 3, 2, dtype=torch.float64)

    def penalty(first, second):
        return part(play(lambda x, cond: (torch.tanh(x @ first) @ second).squeeze(1), real, fake=fake))

    weights = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 4), (4, 1))]
    assert torch.autograd.gradcheck(penalty, weights) and torch.autograd.gradgradcheck(penalty, weights)


@pytest.mark.parametrize("part", [R1, R2, GradientPenalty])
def test_refuses(part):
    with pytest.raises(ValueError, match=f"{part.__name__} expects gamma to be at least 0, got -1"):
        part(gamma=-1)


class Curved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x, cond):
        return torch.tanh(self.layer(x)).sum(1)
