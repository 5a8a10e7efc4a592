import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.ncsnpp import NCSNpp
from modkit.nn.ncsnpp_blocks import Block, DownsampleBlock, Output
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import conditions, halve, normal
from tests.nn.modules import draw as drawn
from tests.refusals import refusals

X = TensorType((2, 8, 6), (-1.0, 1.0))
OUT = TensorType((3, 8, 6))
COND = CondType(vector=3, noise=5, labels=4, concat=TensorType((1, 4, 3)), time=True)
TINY = {"channels": [8, 12], "blocks": 1, "attention": [4], "style": 6, "mapping": 1}


def group_norm(h: Tensor, groups: int) -> Tensor:
    grouped = h.reshape(len(h), groups, -1)
    centred = grouped - grouped.mean(2, keepdim=True)
    return (centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()).reshape(h.shape)


@pytest.mark.parametrize("resample", [None, "down", "up"])
@pytest.mark.parametrize("style", [6, None])
def test_a_block_is_its_equation(resample, style):
    block = drawn(Block(2, 8, 12, width=5, style=style, resample=resample))
    x, e, w = normal(3, 8, 4, 4), normal(3, 5, seed=1), None if style is None else normal(3, 6, seed=2)

    def modulated(layer: nn.Module, h: Tensor, groups: int) -> Tensor:
        if w is None:
            gain, offset = layer.norm.weight.expand(3, -1), layer.norm.bias.expand(3, -1)
        else:
            gain, offset = (w @ layer.style.weight.T + layer.style.bias).chunk(2, dim=1)
        return gain[..., None, None] * group_norm(h, groups) + offset[..., None, None]

    def resampled(h: Tensor) -> Tensor:
        taps = torch.tensor([1, 3, 3, 1], dtype=torch.float64) / 8
        kernel = torch.outer(taps, taps).expand(h.shape[1], 1, 4, 4)
        if resample == "down":
            return halve(h)
        if resample is None:
            return h
        sparse = h.new_zeros(*h.shape[:2], 8, 8)
        sparse[..., ::2, ::2] = h
        return F.conv2d(F.pad(sparse, (2, 1, 2, 1)), 4 * kernel, groups=h.shape[1])

    silu = F.silu
    h = F.conv2d(resampled(silu(modulated(block.norm_0, x, 2))), block.conv_0.weight, block.conv_0.bias, padding=1)
    h = h + (silu(e) @ block.embed.weight.T + block.embed.bias)[..., None, None]
    h = F.conv2d(silu(modulated(block.norm_1, h, 3)), block.conv_1.weight, block.conv_1.bias, padding=1)
    skip = F.conv2d(resampled(x), block.skip.weight, block.skip.bias)
    torch.testing.assert_close(block(x, e, w), (skip + h) / math.sqrt(2), rtol=1e-10, atol=1e-12)


def test_a_fresh_block_is_its_skip_over_sqrt_2_and_noise_starts_without_a_say():
    block, x = Block(2, 8, 8, style=6).double(), normal(3, 8, 4, 4)
    torch.testing.assert_close(block(x, None, normal(3, 6)), x / math.sqrt(2), rtol=0, atol=1e-3)
    assert block.norm_0.style.bias.tolist() == [1.0] * 8 + [0.0] * 8
    bound = math.sqrt(3 / (8 * 9))  # of a uniform with variance 1 / mean(fan_in, fan_out)
    assert 0.95 * bound < float(block.conv_0.weight.detach().abs().max()) <= bound


def test_paths_beside_the_way_down_and_up():
    x, beside, y = normal(2, 8, 4, 4), normal(2, 3, 4, 4, seed=1), normal(2, 8, 2, 2, seed=2)
    down = drawn(DownsampleBlock(Block(2, 8, 8, resample="down"), 2, 3, 8, path="residual", fir=True))
    h = down.block(x)
    got, on = down(x, beside, None, None)
    torch.testing.assert_close(got, (down.halve(beside) + h) / math.sqrt(2))
    assert got is on
    down = drawn(DownsampleBlock(Block(2, 8, 8, resample="down"), 2, 3, 8, path="skip", fir=True))
    got, on = down(x, beside, None, None)
    torch.testing.assert_close(on, down.halve(beside))
    torch.testing.assert_close(got, down.block(x) + down.join(on))
    up = drawn(Output(2, 8, 3, 8, path="residual", fir=True))
    got, on = up(x, y)
    torch.testing.assert_close(got, (up.upsample(y) + x) / math.sqrt(2))
    assert got is on
    up = drawn(Output(2, 8, 8, 8, path="skip", fir=True))
    got, on = up(x, y)
    torch.testing.assert_close(on, up.upsample(y) + up.head(x))
    assert got is x


@pytest.mark.wide(4)
@pytest.mark.parametrize("missing", ["", "noise", "time", "vector", "labels", "concat", "all"])
@pytest.mark.parametrize("paths", [("residual", "none"), ("skip", "skip"), ("none", "residual")], ids=str)
def test_every_condition_and_parameter_matters(missing, paths):
    type = CondType() if missing == "all" else replace(COND, **{missing: None}) if missing else COND
    down, up = paths
    net = drawn(NCSNpp(X, OUT, type, **TINY, progressive_input=down, progressive=up))
    x, cond = normal(3, *X.shape), conditions(type, 3)
    y = net(x, cond)
    assert y.shape == (3, *OUT.shape) and y.std() > 1e-2
    for name in ("noise", "time", "vector", "labels", "concat"):
        value = getattr(cond, name)
        if value is not None:
            other = (value + 1) % 5 if name == "labels" else value + 0.5 * normal(*value.shape, seed=8)
            assert (net(x, replace(cond, **{name: other})) - y).abs().max() > 1e-6, name
    y.square().sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_the_stem_is_as_wide_as_told_and_so_is_the_embedding():
    net = drawn(NCSNpp(X, OUT, COND, **TINY, stem=6, progressive="residual"))
    assert net.conv_in.weight.shape == (6, 3, 3, 3) and net.embedding.time[2].weight.shape == (24, 24)
    net(normal(2, *X.shape), conditions(COND, 2)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_only_the_direction_of_the_noise_counts():
    net = drawn(NCSNpp(X, OUT, COND, **TINY))
    x, cond = normal(2, *X.shape), conditions(COND, 2)
    scaled = replace(cond, noise=7 * cond.noise)
    torch.testing.assert_close(net(x, scaled), net(x, cond), rtol=1e-6, atol=1e-8)


def test_samples_do_not_look_at_each_other_and_ranges_squash():
    net = drawn(NCSNpp(X, X, CondType(noise=5, time=True), **TINY))
    x, cond = 3 * normal(4, *X.shape), conditions(CondType(noise=5, time=True), 4)
    y = net(x, cond)
    alone = net(x[1:2], Cond(noise=cond.noise[1:2], time=cond.time[1:2]))
    torch.testing.assert_close(y[1:2], alone, rtol=1e-9, atol=1e-11)
    assert y.abs().max() <= 1
    free = drawn(NCSNpp(X, TensorType(X.shape), CondType(noise=5, time=True), **TINY))
    torch.testing.assert_close(y, torch.tanh(free(x, cond)))


@pytest.mark.parametrize("shape", [(2, 7), (1, 5, 7), (1, 1, 1), (1, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("fir", [True, False])
def test_any_size_and_rank(shape, fir):
    x = TensorType(shape)
    net = drawn(
        NCSNpp(x, x, CondType(noise=5), channels=[4, 8, 8], blocks=1, fir=fir, progressive="skip", style=4, mapping=0)
    )
    assert net(normal(2, *shape), Cond(noise=normal(2, 5))).shape == (2, *shape)


test_what_does_not_fit_is_refused = refusals(
    ({"out": TensorType((3, 4, 6))}, {}, r"NCSNpp expects out of x's size \(8, 6\), got \(4, 6\)"),
    ({"x": TensorType((4,))}, {}, r"NCSNpp expects continuous maps"),
    ({"cond": CondType(context=(2, 3))}, {}, r"NCSNpp expects cond without context"),
    ({}, {"channels": []}, "NCSNpp expects channels of one level or more, got none"),
    ({}, {"attention": [5]}, r"NCSNpp expects attention at resolutions among \[8, 4\], got \[5\]"),
    ({}, {"style": 0}, r"NCSNpp expects style to be at least 1, got 0"),
    ({}, {"stem": 0}, r"NCSNpp expects stem to be at least 1, got 0"),
    ({}, {"mapping": -1}, r"NCSNpp expects mapping to be at least 0, got -1"),
    ({}, {"progressive": "sum"}, "NCSNpp expects progressive to be 'none', 'skip' or 'residual', got 'sum'"),
    of=lambda types, options: NCSNpp(**{"x": X, "out": OUT, "cond": CondType(time=True), **types}, **options),
)


def test_a_missing_condition_is_named():
    net = NCSNpp(X, OUT, CondType(noise=5, time=True), **TINY).double()
    for given, name in ((Cond(time=torch.zeros(2)), "noise"), (Cond(noise=normal(2, 5)), "time")):
        with pytest.raises(ValueError, match=f"expects a Cond with `{name}`"):
            net(normal(2, *X.shape), given)
