import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from modkit.kinds import Round
from modkit.losses import R1
from modkit.nn.embeddings import sinusoidal_embedding
from modkit.nn.minibatch_std import minibatch_std
from modkit.nn.ncsnpp_discriminator import NCSNppDiscriminator
from modkit.rng import Rng
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import conditions, halve, leaky, normal
from tests.nn.modules import draw as drawn
from tests.refusals import refusals

X = TensorType((1, 8, 8), (-1.0, 1.0))
TIMED = CondType(concat=X, time=True)
TINY = {"channels": [4, 4, 6], "embedding": 8}


@pytest.mark.parametrize("first", [False, True])
def test_logits_are_the_equation(first):
    net, x, cond = drawn(NCSNppDiscriminator(X, TIMED, **TINY, first=first)), normal(6, 1, 8, 8), conditions(TIMED, 6)
    one, _, two = net.time.layers
    a = leaky(leaky(sinusoidal_embedding(cond.time, 8) @ one.weight.T + one.bias) @ two.weight.T + two.bias)
    h = F.conv2d(torch.cat([x, cond.concat], dim=1), net.conv_in.weight, net.conv_in.bias)
    for index, block in enumerate(net.blocks):
        inner = F.conv2d(leaky(h), block.conv_0.weight, block.conv_0.bias, padding=1)
        inner = leaky(inner + (a @ block.embed.weight.T + block.embed.bias)[..., None, None])
        if first or index:
            inner, h = halve(inner), halve(h)
        inner = F.conv2d(inner, block.conv_1.weight, block.conv_1.bias, padding=1)
        h = (F.conv2d(h, block.skip.weight) + inner) / math.sqrt(2)
    std = minibatch_std(h, 4).view(-1, 1, 1, 1).expand(-1, 1, *h.shape[2:])
    phi = leaky(F.conv2d(torch.cat([h, std], 1), net.conv_out.weight, net.conv_out.bias, padding=1)).sum((2, 3))
    want = phi @ net.out.weight[0] + net.out.bias
    torch.testing.assert_close(net(x, cond), want, rtol=1e-10, atol=1e-12)


def test_every_condition_and_parameter_matters():
    type = replace(TIMED, vector=3, labels=4)
    net = drawn(NCSNppDiscriminator(X, type, **TINY))
    x, cond = normal(5, 1, 8, 8), replace(conditions(TIMED, 5), vector=normal(5, 3), labels=torch.arange(5))
    logits = net(x, cond)
    assert logits.shape == (5,)
    for name in ("concat", "time", "vector", "labels"):
        value = getattr(cond, name)
        other = (value + 1) % 5 if name == "labels" else value + 0.5
        assert (net(x, replace(cond, **{name: other})) - logits).abs().max() > 1e-6, name
    logits.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_r1_differentiates_x_alone_and_reaches_every_parameter_but_the_last_offsets():
    net = drawn(NCSNppDiscriminator(X, TIMED, **TINY))
    x, cond = normal(5, 1, 8, 8), conditions(TIMED, 5)
    cond.concat.requires_grad_()
    played = Round(x, cond, Rng(0), critic=net)
    R1(gamma=2.0)(played).backward()
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf, cond).sum(), leaf)
    torch.testing.assert_close(R1(gamma=2.0)(played), gradient.square().sum() / 5)
    assert x.grad is None
    silent = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == {"conv_out.bias", "out.bias"}


@pytest.mark.parametrize("shape", [(2, 7), (1, 5, 7), (1, 2, 2), (1, 3, 4, 5)], ids=str)
def test_without_time_and_map_of_any_size_and_rank(shape):
    net = drawn(NCSNppDiscriminator(TensorType(shape), CondType(), **TINY))
    assert net(normal(3, *shape), Cond()).shape == (3,)


test_what_does_not_fit_is_refused = refusals(
    (lambda: NCSNppDiscriminator(X, CondType(context=(2, 3))), r"NCSNppDiscriminator expects cond without context"),
    (lambda: NCSNppDiscriminator(TensorType((4,)), CondType()), r"NCSNppDiscriminator expects continuous maps"),
    (
        lambda: NCSNppDiscriminator(X, TIMED, embedding=0),
        "NCSNppDiscriminator expects embedding to be at least 1, got 0",
    ),
    (
        lambda: NCSNppDiscriminator(X, TIMED)(torch.zeros(1, 1, 8, 8), Cond(concat=torch.zeros(1, 1, 8, 8))),
        r"the network expects a Cond with `time`",
    ),
)
