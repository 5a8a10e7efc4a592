import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.nn.resnet import ResNetDiscriminator, ResNetGenerator
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import Written, batch_norm, beside, draw, normal
from tests.refusals import refusals

X = TensorType((2, 7, 12), (0.0, 4.0))
Z = TensorType((5,))
LABELS = CondType(labels=4)
GIVEN = Cond(labels=torch.tensor([0, 4, 1, 1]))


def norm(module: torch.nn.Module, x: Tensor, vector: Tensor) -> Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = (vector @ module.film.weight.T)[..., None, None].chunk(2, dim=1)
    return (1 + scale) * (x - mean) / (var + 1e-5).sqrt() + shift


def repeat(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :7]


def average(x: Tensor) -> Tensor:
    """Means of 2x2 windows; the last row of an odd number stands alone."""
    return F.avg_pool2d(x, 2, ceil_mode=True)


@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("modulate", [False, True])
def test_generator_values(modulate, balance):
    net = draw(ResNetGenerator(Z, X, LABELS, channels=3, modulate=modulate, balance=balance))
    written, z = Written(net), normal(4, 5)
    joined = torch.cat([z, e := beside(net.embedding.labels.weight[GIVEN.labels], z, balance)], dim=1)
    h = written.linear(joined, "project").reshape(4, 6, 4, 6)
    block, vector = net.blocks[0], joined if modulate else e
    inner = written.conv(repeat(norm(block.norm_1, h, vector).clamp_min(0)), "blocks.0.conv_1")
    inner = written.conv(norm(block.norm_2, inner, vector).clamp_min(0), "blocks.0.conv_2")
    h = written.conv(repeat(h), "blocks.0.skip") + inner
    y = written.conv(batch_norm(net.norm.norm, h).clamp_min(0), "out")
    torch.testing.assert_close(net(z, GIVEN), 2 + 2 * torch.tanh(y))


def test_discriminator_values():
    net = draw(ResNetDiscriminator(X, LABELS, channels=3, attention=[6], spectral_norm=False))
    written, x = Written(net), normal(4, 2, 7, 12)
    inner = written.conv(written.conv(x, "blocks.0.conv_1").clamp_min(0), "blocks.0.conv_2")
    first = average(written.conv(x, "blocks.0.skip")) + average(inner)
    first = net.attentions[0](first)
    inner = written.conv(written.conv(first.clamp_min(0), "blocks.1.conv_1").clamp_min(0), "blocks.1.conv_2")
    last = net.attentions[1](written.conv(first, "blocks.1.skip") + inner)
    phi = last.clamp_min(0).sum((2, 3))
    e = net.projection.embedding.labels.weight[GIVEN.labels] @ net.projection.v.weight.T
    logits = phi @ net.out.weight[0] + net.out.bias + (phi * e).sum(1) / math.sqrt(6)
    found = net.judge(x, GIVEN)
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.maps, (first, last))
    assert torch.equal(net(x, GIVEN), found.logits)


@pytest.mark.parametrize("shape", [(2, 7), (1, 16, 9), (1, 2, 2), (1, 3, 8, 5)], ids=str)
def test_any_size_and_rank(shape):
    x = TensorType(shape)
    made = draw(ResNetGenerator(Z, x, CondType(), channels=3, spectral_norm=True))(normal(3, 5), Cond())
    assert made.shape == (3, *shape)
    assert draw(ResNetDiscriminator(x, CondType(), channels=3))(made, Cond()).shape == (3,)


@pytest.mark.wide
def test_spectral_norm_divides_every_weight_of_the_generator_and_of_its_attention():
    net = ResNetGenerator(Z, X, LABELS, channels=3, attention=[12], spectral_norm=True).double()
    for _ in range(300):
        net(normal(4, 5), GIVEN)
    weights = [one.weight for one in net.modules() if hasattr(one, "parametrizations")]
    assert len(weights) == 11  # project, 3 convolutions, 2 norms, 4 of attention, out
    for weight in weights:
        torch.testing.assert_close(torch.linalg.matrix_norm(weight.flatten(1), 2).item(), 1.0, rtol=1e-5, atol=0)


test_mistakes_are_refused = refusals(
    (lambda: ResNetGenerator(Z, TensorType((4,)), LABELS), "ResNetGenerator expects continuous maps of shape"),
    (lambda: ResNetGenerator(TensorType((5,), classes=3), X, LABELS), "ResNetGenerator expects continuous z, got"),
    (lambda: ResNetGenerator(Z, X, CondType(concat=X)), "ResNetGenerator expects cond without context and concat"),
    (lambda: ResNetGenerator(Z, X, LABELS, attention=[5]), r"attention at resolutions among \[6, 12\], got \[5\]"),
    (lambda: ResNetDiscriminator(X, CondType(context=(2, 3))), "ResNetDiscriminator expects cond without context"),
    (lambda: ResNetDiscriminator(X, LABELS, channels=0), "expects channels to be at least 1, got 0"),
)
