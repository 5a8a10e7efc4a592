import math

import pytest
import torch
from torch.distributions import Bernoulli

from modkit.losses import Hinge, NonSaturating

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


def test_hinge_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.5, 0.0])
    part = Hinge()
    assert part.discriminator(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1.5 + 1) / 3)
    assert part.generator(fake).item() == pytest.approx(2.5 / 3)
    real, fake = real.requires_grad_(), fake.requires_grad_()
    gradients = torch.autograd.grad(part.discriminator(real, fake), (real, fake))
    torch.testing.assert_close(gradients[0], torch.tensor([0.0, -1 / 3, -1 / 3]))
    torch.testing.assert_close(gradients[1], torch.tensor([0.0, 1 / 3, 1 / 3]))


@pytest.mark.parametrize("part", [NonSaturating(), Hinge()])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(part, shape):
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(part.discriminator, (real.requires_grad_(), fake.requires_grad_()))
    assert torch.autograd.gradcheck(part.generator, (fake,))


@pytest.mark.parametrize("part", [NonSaturating(), Hinge()])
def test_bfloat16_logits_are_averaged_in_float32(part):
    real, fake = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0)).bfloat16()
    torch.testing.assert_close(part.discriminator(real, fake), part.discriminator(real.float(), fake.float()))
    assert part.generator(fake).dtype == torch.float32
