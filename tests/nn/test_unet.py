import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from modkit.nn.edm2_unet import EDM2UNet
from modkit.nn.unet import UNet
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import Written, conditions, narrow
from tests.refusals import refusals

SMALL = {"channels": [8, 16], "blocks": 1, "head_channels": 8, "embedding": 12}


def all_of(size: tuple[int, ...]) -> CondType:
    return CondType(vector=3, noise=4, labels=5, context=(6, 7), concat=TensorType((2, *size)), time=True)


def spread(module: nn.Module) -> nn.Module:
    """The module with every parameter drawn, so that no zero hides a path; scaled by what it sums over."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=p.dtype) / math.sqrt(max(p[0].numel(), 16)))
    return module


def full(size: tuple[int, ...], num: int = 3, **options) -> tuple[UNet, torch.Tensor, Cond]:
    """A random float64 UNet with every condition, an input and the conditions."""
    net = UNet(TensorType((1, *size)), TensorType((3, *size)), all_of(size), **{**SMALL, **options})
    return spread(net.double()), torch.randn(num, 1, *size, dtype=torch.float64), conditions(all_of(size), num)


def reference(net: UNet, x: torch.Tensor, cond: Cond) -> torch.Tensor:
    """A 2-D UNet of two levels with one block each, attending at the coarse one, written out over its parameters."""
    r = Written(net)

    def unit(x, name):
        x = r.attend(r.block(x, f"{name}.block", e), f"{name}.attend", width=8)
        return r.attend(x, f"{name}.cross", cond.context, width=8)

    frequencies = 10000 ** (-torch.arange(6, dtype=torch.float64) / 5)
    angles = cond.time[:, None] * frequencies
    e = r.mlp(torch.cat([angles.sin(), angles.cos()], dim=1), "embedding.time")
    e = e + r.linear(cond.vector, "embedding.vector") + r.mlp(cond.noise, "embedding.noise")
    e = e + r.p["embedding.labels.weight"][cond.labels]

    h_0 = r.conv(torch.cat([x, cond.concat], dim=1), "conv_in")
    h_1 = r.block(h_0, "down.0.block", e)
    h_2 = r.conv(h_1, "down.1.conv", stride=2)
    h_3 = unit(h_2, "down.2")
    h = r.block(unit(h_3, "middle.0"), "middle.1.block", e)
    h = unit(torch.cat([h, h_3], dim=1), "up.0")
    h = unit(torch.cat([h, h_2], dim=1), "up.1")
    h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, : x.shape[2], : x.shape[3]]
    h = r.conv(h, "up.2.conv")
    h = r.block(torch.cat([h, h_1], dim=1), "up.3.block", e)
    h = r.block(torch.cat([h, h_0], dim=1), "up.4.block", e)
    return r.out(h)


@pytest.mark.smoke
@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_unet_is_its_diagram(size):
    net, x, cond = full(size, attention=[max(size) // 2])
    torch.testing.assert_close(net(x, cond), reference(net, x, cond))


def test_a_new_network_emits_zero():
    x = TensorType((2, 6, 6))
    assert not UNet(x, x, CondType(), **SMALL)(torch.randn(2, 2, 6, 6), Cond()).any()


@pytest.mark.parametrize("name", ["vector", "noise", "labels", "context", "concat", "time"])
@pytest.mark.parametrize("attention", [[], [6]])
def test_each_condition_changes_the_output_of_its_row(name, attention):
    net, x, cond = full((6, 6), attention=attention)
    value = getattr(cond, name).clone()
    value[1] = (value[1] + 1) % 6
    changed = net(x, replace(cond, **{name: value})) - net(x, cond)
    assert changed[1].abs().max() > 1e-3
    assert changed[[0, 2]].abs().max() < 1e-12  # a matrix product may round differently beside another row


@pytest.mark.parametrize("size", [(13,), (7, 9), (4, 3, 5)])
def test_samples_do_not_see_each_other_at_odd_sizes_of_any_rank(size):
    net, x, cond = full(size, channels=[4, 8, 8], attention=[size[-1]])
    rows = []
    for i in range(len(x)):
        row = cond.map(partial(torch.narrow, dim=0, start=i, length=1))
        rows.append(net(x[i : i + 1], row))
    y = net(x, cond)
    assert y.shape == (3, 3, *size)
    torch.testing.assert_close(y, torch.cat(rows))


@pytest.mark.parametrize("rank", [2, 3])
def test_a_signal_is_an_image_of_width_one(rank):
    ones = (1,) * (rank - 1)
    wide, x, cond = full((11, *ones), attention=[11])
    thin, *_ = full((11,), attention=[11])
    thin.load_state_dict(narrow(wide))
    y = thin(x.flatten(2), replace(cond, concat=cond.concat.flatten(2)))
    torch.testing.assert_close(wide(x, cond).flatten(2), y)


def test_a_network_runs_at_other_sizes_than_its_type():
    square, *_ = full((16, 16), attention=[8])
    oblong, x, cond = full((20, 12), attention=[10])
    oblong.load_state_dict(square.state_dict())
    assert torch.equal(square(x, cond), oblong(x, cond))


@pytest.mark.wide
def test_directional_derivative():
    net, x, cond = full((4, 5), attention=[5])
    v, w = torch.randn_like(x), torch.randn(3, 3, 4, 5, dtype=torch.float64)
    (grad,) = torch.autograd.grad((net(x.requires_grad_(), cond) * w).sum(), x)
    with torch.no_grad():
        central = (net(x + 1e-5 * v, cond) - net(x - 1e-5 * v, cond)) / 2e-5
    torch.testing.assert_close((grad * v).sum(), (central * w).sum(), atol=1e-7, rtol=1e-6)


X = TensorType((1, 8, 8))


def missing(name):
    net, x, cond = full((6, 6))
    return net(x, replace(cond, **{name: None}))


test_refusals_name_expected_and_received = refusals(
    (lambda: UNet(TensorType((8,)), X, CondType()), "UNet expects continuous maps .*, got 8 unbounded"),
    (lambda: UNet(X, TensorType((1, 8, 9)), CondType()), r"expects out of x's size \(8, 8\), got \(8, 9\)"),
    (lambda: UNet(X, X, CondType(), attention=[16]), r"attention at resolutions among \[8, 4\], got \[16\]"),
    (lambda: UNet(X, X, CondType(), channels=[8], blocks=0), "UNet expects blocks to be at least 1, got 0"),
    (lambda: missing("context"), "expects tokens `context`, got None"),
    (lambda: missing("time"), "expects a Cond with `time`"),
)


def test_coarser_codes_as_a_map():
    x = TensorType((2, 7, 8))
    net = spread(UNet(x, x, CondType(concat=TensorType((4, 4), classes=5)), **SMALL).double())
    values, codes = torch.randn(2, 2, 7, 8, dtype=torch.float64), torch.randint(0, 5, (2, 4, 4))
    embedded = net.join.codes(codes).movedim(-1, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :7]
    plain = UNet(TensorType((10, 7, 8)), x, CondType(), **SMALL).double()
    plain.load_state_dict({key: value for key, value in net.state_dict().items() if not key.startswith("join")})
    torch.testing.assert_close(net(values, Cond(concat=codes)), plain(torch.cat([values, embedded], dim=1), Cond()))


@pytest.mark.parametrize("part", [UNet, EDM2UNet])
@pytest.mark.parametrize(
    ("size", "channels", "attention"),
    [((32, 32), [8, 16, 16], [16, 8]), ((28, 20), [8, 16, 16], [14, 7]), ((8,), [8], [8]), ((5, 40, 6), [8], [])],
    ids=str,
)
def test_levels_are_taken_from_the_size_where_channels_is_a_number(part, size, channels, attention):
    x = TensorType((1, *size))
    made, given = (
        part(x, x, CondType(), blocks=1, **options)
        for options in ({"channels": 8}, {"channels": channels, "attention": attention})
    )
    assert {key: value.shape for key, value in made.state_dict().items()} == {
        key: value.shape for key, value in given.state_dict().items()
    }
    assert part(x, x, CondType(), channels=8, blocks=1, attention=[]).state_dict().keys() <= made.state_dict().keys()


def test_tokens_are_a_set():
    net, x, cond = full((6, 6), attention=[3])
    order = torch.randperm(6)
    torch.testing.assert_close(net(x, replace(cond, context=cond.context[:, order])), net(x, cond))
    twice = replace(cond, context=cond.context.repeat(1, 2, 1))
    torch.testing.assert_close(net(x, twice), net(x, cond))


def test_a_finer_map_is_averaged_to_x_s_grid():
    x = TensorType((2, 3, 4))
    net = spread(UNet(x, x, CondType(concat=TensorType((1, 6, 12))), **SMALL).double())
    values, concat = torch.randn(2, 2, 3, 4, dtype=torch.float64), torch.randn(2, 1, 6, 12, dtype=torch.float64)
    coarse = concat.unflatten(3, (4, 3)).unflatten(2, (3, 2)).mean((3, 5))
    torch.testing.assert_close(net(values, Cond(concat=concat)), net(values, Cond(concat=coarse)))
