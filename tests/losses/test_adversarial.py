import math

import pytest
import torch
from torch.distributions import Bernoulli

from modkit.losses import (
    KL,
    DensityRatio,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    ReverseKL,
    Wasserstein,
)

SHAPES = [(7,), (5, 1, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_non_saturating_is_minus_the_log_probabilities(shape):
    real, fake = torch.randn(2, *shape, dtype=torch.float64).mul(3)
    ones, part = torch.ones_like(real), NonSaturating()
    want = -Bernoulli(logits=real).log_prob(ones).mean() - Bernoulli(logits=fake).log_prob(0 * ones).mean()
    torch.testing.assert_close(part.discriminator(real, fake), want)
    torch.testing.assert_close(part.generator(fake), -Bernoulli(logits=fake).log_prob(ones).mean())
    torch.testing.assert_close(part.discriminator(0 * ones, 0 * ones).item(), math.log(4))


def test_non_saturating_keeps_its_gradient_where_the_generator_loses():
    fake = torch.tensor([-100.0, 0.0, 100.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(NonSaturating().generator(fake), fake)
    torch.testing.assert_close(gradient, torch.tensor([-1 / 3, -1 / 6, 0.0]))
    assert NonSaturating().generator(torch.tensor([-100.0])) == 100


def test_at_the_density_ratio_the_critic_rests_and_the_generator_has_the_kl():
    """Two states: p = (1/2, 1/2), q = (1/4, 3/4)."""
    p, q = torch.tensor([[0.5, 0.5], [0.25, 0.75]], dtype=torch.float64)
    logits, part = (p / q).log().requires_grad_(), DensityRatio()
    real, fake = logits, logits[[0, 1, 1, 1]]
    (gradient,) = torch.autograd.grad(part.discriminator(real, fake), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
    torch.testing.assert_close(part.generator(fake), (q * (q / p).log()).sum())


@pytest.mark.smoke
def test_hinge_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.5, 0.0])
    part = Hinge()
    assert part.discriminator(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1.5 + 1) / 3)
    assert part.generator(fake).item() == pytest.approx(2.5 / 3)
    real, fake = real.requires_grad_(), fake.requires_grad_()
    gradients = torch.autograd.grad(part.discriminator(real, fake), (real, fake))
    torch.testing.assert_close(gradients[0], torch.tensor([0.0, -1 / 3, -1 / 3]))
    torch.testing.assert_close(gradients[1], torch.tensor([0.0, 1 / 3, 1 / 3]))


PARTS = [NonSaturating(), Minimax(), Hinge(), LeastSquares(), Wasserstein(), Relativistic()]


def read_generator(part):
    """The generator's loss as a function of fakes and reals, whichever it takes."""
    return part.generator if getattr(part, "paired", False) else lambda fake, real: part.generator(fake)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(part, shape):
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(part.discriminator, (real.requires_grad_(), fake.requires_grad_()))
    assert torch.autograd.gradcheck(read_generator(part), (fake, real.detach()))


@pytest.mark.parametrize("part", PARTS)
def test_bfloat16_logits_are_averaged_in_float32(part):
    real, fake = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0)).bfloat16()
    torch.testing.assert_close(part.discriminator(real, fake), part.discriminator(real.float(), fake.float()))
    assert read_generator(part)(fake, real).dtype == torch.float32


@pytest.mark.parametrize("shape", SHAPES)
def test_losses_equal_their_equations(shape):
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    rows = {
        Minimax: ((1 - fake.sigmoid()).log(), -real.sigmoid().log() - (1 - fake.sigmoid()).log()),
        LeastSquares: ((fake - 1) ** 2 / 2, (real - 1) ** 2 / 2 + fake**2 / 2),
        Wasserstein: (-fake, fake - real),
        Relativistic: (-(fake - real).sigmoid().log(), -(real - fake).sigmoid().log()),
    }
    for part, (generator, discriminator) in rows.items():
        torch.testing.assert_close(read_generator(part())(fake, real), generator.mean())
        torch.testing.assert_close(part().discriminator(real, fake), discriminator.mean())


@pytest.mark.smoke
def test_minimax_and_non_saturating_share_their_fixed_point():
    """On a discrete space the best critic is D* = p/(p + q), and at p = q no point is better than another."""
    p, q = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], dtype=torch.float64)
    real, fake = (torch.repeat_interleave(torch.arange(3), (10 * one).round().long()) for one in (p, q))
    for part in (Minimax(), NonSaturating(), LeastSquares()):
        best = p / (p + q) if isinstance(part, LeastSquares) else (p / q).log()  # its logits
        logits = best.clone().requires_grad_()
        (slope,) = torch.autograd.grad(part.discriminator(logits[real], logits[fake]), logits)
        torch.testing.assert_close(slope, torch.zeros(3).double(), rtol=0, atol=1e-12)
        # the loss of a sample at each point: a generator moves its mass to where it has less than the data
        losses = torch.stack([part.generator(best[[i]]) for i in range(3)])
        assert losses.argsort(descending=True).tolist() == (p / q).argsort().tolist()
    value = -Minimax().discriminator((p / q).log()[real], (p / q).log()[fake])
    mixed = (p + q) / 2
    divergence = ((p * (p / mixed).log()).sum() + (q * (q / mixed).log()).sum()) / 2
    torch.testing.assert_close(value, 2 * divergence - math.log(4))  # their eq. 6


def test_the_dual_game_is_both_divergences_at_its_optimum():
    """On a discrete space, samples in proportion to p and q: D1* = alpha p/q, D2* = beta q/p (Nguyen et al., 2017)."""
    p, q = torch.tensor([6, 3, 1]), torch.tensor([2, 3, 5])
    alpha, beta = 0.3, 0.8
    ratio = p.double() / q
    real, fake = (torch.repeat_interleave(torch.arange(3), counts) for counts in (p, q))

    def logits(d):  # softplus's inverse
        return torch.log(torch.expm1(d))

    parts = {"kl": KL(alpha=alpha), "reverse": ReverseKL(beta=beta)}
    best = {"kl": logits(alpha * ratio), "reverse": logits(beta / ratio)}
    kl = {"kl": (p / 10 * ratio.log()).sum(), "reverse": -(q / 10 * ratio.log()).sum()}
    for name, weight in (("kl", alpha), ("reverse", beta)):
        part, each = parts[name], best[name].clone().requires_grad_()
        loss = part.discriminator(each[real], each[fake])
        (gradient,) = torch.autograd.grad(loss, each)
        torch.testing.assert_close(gradient, torch.zeros(3).double(), rtol=0, atol=1e-12)
        want = weight * kl[name] + weight * math.log(weight) - weight  # the side's part of J at the optimum
        torch.testing.assert_close(-loss, want)
    # the generator's loss is J's part that depends on its samples: moving one from 2 to 0 changes it by
    moved = torch.cat([fake[:-1], torch.tensor([0])])
    for name in parts:
        d = torch.nn.functional.softplus(best[name])
        change = parts[name].generator(best[name][moved]) - parts[name].generator(best[name][fake])
        want = (d[2] - d[0]) / 10 if name == "kl" else beta * (d[0] / d[2]).log() / 10
        torch.testing.assert_close(change, want)


@pytest.mark.parametrize("part", [KL(), ReverseKL()])
def test_the_dual_game_is_finite_at_extreme_logits(part):
    logits = torch.tensor([-1000.0, -20.0, 0.0, 1000.0], requires_grad=True)
    loss = part.discriminator(logits, logits) + part.generator(logits)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert bool(loss.isfinite()) and bool(gradient.isfinite().all())
    for weight in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"in \(0, 1\], got"):
            type(part)(**{"alpha" if isinstance(part, KL) else "beta": weight})
