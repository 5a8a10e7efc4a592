import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.nn.minibatch_std import minibatch_std
from modkit.nn.stylegan2_discriminator import StyleGAN2Discriminator
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import draw, halve, leaky, normal
from tests.refusals import refusals

X = TensorType((2, 8, 12))


def activate(h: Tensor) -> Tensor:
    return math.sqrt(2) * leaky(h)


def test_values():
    type = CondType(labels=4, concat=TensorType((1, 8, 12)))
    net = draw(StyleGAN2Discriminator(X, type, channels=3, group=2), scale=1.0)
    p = {
        name.replace("parametrizations.", "").replace(".original", ""): value for name, value in net.named_parameters()
    }

    def weight(name: str) -> Tensor:
        value = p[f"{name}.weight"]
        return value / math.sqrt(value[0].numel())

    x, cond = normal(4, 2, 8, 12), Cond(labels=torch.tensor([0, 4, 1, 1]), concat=normal(4, 1, 8, 12, seed=2))
    first = activate(F.conv2d(torch.cat([x, cond.concat], 1), weight("conv_in"), p["conv_in.bias"]))
    h = activate(F.conv2d(first, weight("blocks.0.conv_0"), p["blocks.0.conv_0.bias"], padding=1))
    taps = torch.tensor([1, 3, 3, 1], dtype=x.dtype) / 8
    blurred = F.conv2d(F.pad(h, (2, 2, 2, 2)), torch.outer(taps, taps).expand(3, 1, 4, 4), groups=3)
    h = activate(F.conv2d(blurred, weight("blocks.0.conv_1.conv"), p["blocks.0.conv_1.conv.bias"], stride=2))
    h = (F.conv2d(halve(first), weight("blocks.0.skip")) + h) / math.sqrt(2)
    std = minibatch_std(h, 2)[:, None, None, None].expand(-1, 1, 4, 6)
    phi = activate(F.conv2d(torch.cat([h, std], 1), weight("conv_out"), p["conv_out.bias"], padding=1)).flatten(1)
    phi = activate(F.linear(phi, weight("hidden"), p["hidden.bias"]))
    e = p["projection.embedding.labels.weight"][cond.labels] @ weight("projection.v").T
    logits = phi @ weight("out")[0] + p["out.bias"] + (phi * e).sum(1) / math.sqrt(6)
    found = net.judge(x, cond)
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.maps, (first, h))
    assert torch.equal(net(x, cond), found.logits)


@pytest.mark.parametrize("shape", [(2, 7), (1, 16, 9), (1, 2, 2), (1, 3, 8, 5)], ids=str)
def test_any_size_and_rank(shape):
    net = draw(StyleGAN2Discriminator(TensorType(shape), CondType(), channels=3))
    assert net(normal(3, *shape), Cond()).shape == (3,)


test_mistakes_are_refused = refusals(
    (lambda: StyleGAN2Discriminator(TensorType((4,)), CondType()), "StyleGAN2Discriminator expects continuous maps"),
    (
        lambda: StyleGAN2Discriminator(X, CondType(context=(2, 3))),
        "StyleGAN2Discriminator expects cond without context",
    ),
    (lambda: StyleGAN2Discriminator(X, CondType(), group=-1), "expects group to be at least 0, got -1"),
)
