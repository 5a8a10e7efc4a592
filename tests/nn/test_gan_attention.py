import itertools

import pytest
import torch
from torch import Tensor

from modkit.nn.gan_attention import GANAttention
from modkit.nn.resnet import ResNetDiscriminator, ResNetGenerator
from modkit.nn.spectral_norm import normalize_spectrum
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import draw, normal


def pool(x: Tensor) -> Tensor:
    """The largest of each window of 2 along each size of `c ...`; the last may be narrower."""
    sizes = [(n + 1) // 2 for n in x.shape[1:]]
    pooled = x.new_empty(len(x), *sizes)
    for place in itertools.product(*map(range, sizes)):
        window = x[(slice(None), *(slice(2 * i, 2 * i + 2) for i in place))]
        pooled[(slice(None), *place)] = window.flatten(1).amax(1)
    return pooled


@torch.no_grad()
@pytest.mark.parametrize("shape", [(2, 16, 6), (2, 16, 4, 6), (1, 8, 5, 3), (1, 5, 1, 3), (1, 8, 3, 2, 4)], ids=str)
def test_it_is_the_paper_s_formula(shape):
    """Position by position: a softmax over pooled keys of the products, unscaled, weighs pooled values."""
    layer, x = draw(GANAttention(len(shape) - 2, shape[1])), normal(*shape)
    f, g, h, out = (one.weight.flatten(1) for one in (layer.query, layer.key, layer.value, layer.out))
    assert (len(f), len(g), len(h)) == (max(shape[1] // 8, 1), max(shape[1] // 8, 1), shape[1] // 2)
    expected = torch.empty_like(x)
    for b, sample in enumerate(x):
        keys, values = (pool(torch.einsum("oc,c...->o...", w, sample)).flatten(1) for w in (g, h))
        for place in itertools.product(*map(range, shape[2:])):
            here = (slice(None), *place)
            scores = torch.stack([(f @ sample[here]) @ key for key in keys.T]).exp()
            mean = sum(score * value for score, value in zip(scores, values.T)) / scores.sum()
            expected[(b, *here)] = sample[here] + layer.gamma * (out @ mean)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("normed", [False, True])
def test_the_gate_is_closed_at_the_start_and_opens(normed):
    layer, x = GANAttention(2, 16), torch.randn(2, 16, 4, 4)
    if normed:
        for one in (layer.query, layer.key, layer.value, layer.out):
            normalize_spectrum(one)
    assert torch.equal(layer(x), x)
    (layer(x) ** 2).sum().backward()
    assert layer.gamma.grad.abs() > 1e-3


@pytest.mark.wide
def test_penalties_can_differentiate_it_twice():
    layer = draw(GANAttention(2, 8), scale=0.5)
    assert torch.autograd.gradcheck(layer, normal(1, 8, 3, 4).requires_grad_())
    assert torch.autograd.gradgradcheck(layer, normal(1, 8, 2, 3).requires_grad_())


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_a_spectrally_normalised_critic_is_as_steep_at_small_inputs(gamma):
    """The fault: .096, .41, 2.2 and 3.1 at inputs scaled by 1, .1, .01 and 1e-4, and the gate was open."""
    torch.manual_seed(0)
    critic = ResNetDiscriminator(TensorType((3, 16, 16)), CondType(), channels=16, attention=[8]).double()
    x, slopes = normal(4, 3, 16, 16), []
    with torch.no_grad():
        critic.attentions[0].gamma.fill_(gamma)
        for _ in range(30):  # of the power iteration
            critic(x, Cond())
    critic.eval()
    for scale in (1.0, 0.1, 0.01, 1e-4):
        near = (scale * x).requires_grad_()
        (slope,) = torch.autograd.grad(critic(near, Cond()).sum(), near)
        slopes.append(slope.flatten(1).norm(dim=1).mean().item())
    assert max(slopes) <= 1.02 * min(slopes)


def test_attention_of_new_networks_adds_nothing_with_spectral_norm():
    """The fault: the output of attention, which starts at zero, was drawn, so that it started at full strength."""
    x = TensorType((2, 8, 8))
    critic = ResNetDiscriminator(x, CondType(), channels=8, attention=[4])
    generator = ResNetGenerator(TensorType((5,)), x, CondType(), channels=8, attention=[8], spectral_norm=True)
    for layer in (critic.attentions[0], generator.attentions[-1]):
        h = torch.randn(2, 8, 4, 4)
        assert isinstance(layer, GANAttention) and torch.equal(layer(h), h)
        assert all(hasattr(one, "parametrizations") for one in (layer.query, layer.key, layer.value, layer.out))
