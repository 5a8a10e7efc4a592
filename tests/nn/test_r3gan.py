import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.r3gan import R3GANDiscriminator, R3GANGenerator
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import beside, draw, leaky, normal
from tests.refusals import refusals

X = TensorType((2, 7, 12), (0.0, 4.0))
Z = TensorType((5,))
LABELS = CondType(labels=4)
TINY = {"channels": 3, "blocks": 2, "groups": 2}


def filter_with(x: Tensor, up: bool) -> Tensor:
    """The filter [1, 3, 3, 1] of each channel, written out on zeros put in, or every second pixel of what it gives."""
    taps = torch.tensor([1, 3, 3, 1], dtype=x.dtype) / 8
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    if not up:
        return F.conv2d(F.pad(x, (1, 2, 1, 2)), kernel, groups=x.shape[1])[:, :, ::2, ::2]
    sparse = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    sparse[:, :, ::2, ::2] = x
    return F.conv2d(F.pad(sparse, (2, 1, 2, 1)), 4 * kernel, groups=x.shape[1])


def mix(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    """A 1x1 convolution."""
    y = torch.einsum("bchw,oc->bohw", x, p[f"{name}.weight"][..., 0, 0])
    return y + p[f"{name}.bias"][:, None, None] if f"{name}.bias" in p else y


def block(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    h = leaky(mix(x, p, f"{name}.conv_1"))
    weight, halves = p[f"{name}.conv_2.weight"], h.chunk(2, dim=1)
    h = torch.cat([F.conv2d(one, own, padding=1) for one, own in zip(halves, weight.chunk(2))], dim=1)
    return x + mix(leaky(h + p[f"{name}.conv_2.bias"][:, None, None]), p, f"{name}.conv_3")


@pytest.mark.parametrize("balance", [True, False])
def test_generator_values(balance):
    net = draw(R3GANGenerator(Z, X, LABELS, balance=balance, **TINY), scale=0.4)
    p, z, labels = dict(net.named_parameters()), normal(4, 5), torch.tensor([0, 4, 1, 1])
    joined = torch.cat([z, beside(p["embedding.labels.weight"][labels], z, balance)], dim=1)
    h = (joined @ p["project.weight"].T)[:, :, None, None] * p["basis"]
    assert h.shape == (4, 6, 4, 6)
    h = block(block(h, p, "levels.0.0"), p, "levels.0.1")
    h = filter_with(mix(h, p, "levels.1.0.conv"), up=True)[:, :, :7]
    h = block(block(h, p, "levels.1.1"), p, "levels.1.2")
    torch.testing.assert_close(net(z, Cond(labels=labels)), 2 + 2 * torch.tanh(mix(h, p, "out")))


def test_discriminator_values():
    cond = CondType(labels=4, concat=TensorType((1, 7, 12)))
    net = draw(R3GANDiscriminator(X, cond, **TINY), scale=0.4)
    p, x = dict(net.named_parameters()), normal(4, 2, 7, 12)
    given = Cond(labels=torch.tensor([0, 4, 1, 1]), concat=normal(4, 1, 7, 12, seed=2))
    h = fine = block(block(mix(torch.cat([x, given.concat], 1), p, "conv_in"), p, "levels.0.0"), p, "levels.0.1")
    h = mix(filter_with(h, up=False), p, "levels.1.0.conv")
    h = block(block(h, p, "levels.1.1"), p, "levels.1.2")
    phi = torch.einsum("bchw,chw->bc", h, p["basis"])
    e = p["projection.embedding.labels.weight"][given.labels] @ p["projection.v.weight"].T
    logits = phi @ p["out.weight"][0] + p["out.bias"] + (phi * e).sum(1) / math.sqrt(6)
    found = net.judge(x, given)
    torch.testing.assert_close(found.logits, logits)
    assert torch.equal(net(x, given), found.logits)
    torch.testing.assert_close(found.maps, (fine, h))


def find_resampling() -> tuple[nn.Module, nn.Module]:
    """What doubles the maps of the generator, and what halves those of the discriminator."""
    up = R3GANGenerator(Z, X, CondType(), **TINY).double().levels[1][0].upsample
    return up, R3GANDiscriminator(X, CondType(), **TINY).double().levels[1][0].halve


def test_resampling_is_symmetric_and_upsampling_bilinear():
    up, down = find_resampling()
    x = normal(2, 3, 6, 8)
    for one in (up, down):
        torch.testing.assert_close(one(x.flip(2, 3)), one(x).flip(2, 3), rtol=0, atol=1e-14)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    inner = slice(1, -1)  # beyond the borders are zeros here, and copies there
    torch.testing.assert_close(up(x)[..., inner, inner], bilinear[..., inner, inner], rtol=0, atol=1e-14)


def test_resampling_moves_no_blob():
    """The centre of mass of a centred blob, as a share of the size, after three doublings and three halvings."""
    up, down = find_resampling()
    line = torch.exp(-(torch.linspace(-3.5, 3.5, 8, dtype=torch.float64) ** 2))
    x = line.outer(line)[None, None]
    for one in (up, up, up, down, down, down):
        x = one(x)
        share, num = x[0, 0] / x.sum(), x.shape[-1]
        for dim in (0, 1):
            centre = (share.sum(1 - dim) * torch.arange(num, dtype=x.dtype)).sum().item()
            assert centre == pytest.approx((num - 1) / 2, abs=1e-9), num


@pytest.mark.parametrize(
    "make", [lambda **o: R3GANGenerator(Z, X, LABELS, **o), lambda **o: R3GANDiscriminator(X, LABELS, **o)]
)
def test_a_new_block_is_the_identity_and_wakes_up_at_a_rate_that_does_not_grow_with_depth(make):
    for blocks in (1, 4):
        net = make(channels=64, blocks=blocks)
        first = net.levels[0][0]
        h = torch.randn(2, first.conv_1.in_channels, 4, 6)
        assert torch.equal(first(h), h)
        scale = math.sqrt(2 / 1.04) * (2 * blocks) ** -0.25
        for layer, fan_in in ((first.conv_1, first.conv_1.in_channels), (first.conv_2, 9 * 16)):
            assert layer.weight.std().item() == pytest.approx(scale / math.sqrt(fan_in), rel=0.03)
            assert not layer.bias.any()


def test_groups_have_16_channels_unless_they_are_told():
    count = {groups: R3GANDiscriminator(X, CondType(), channels=32, groups=groups) for groups in (None, 1, 4)}
    assert [net.levels[0][0].conv_2.groups for net in count.values()] == [4, 1, 4]
    assert [net.levels[1][1].conv_2.groups for net in count.values()] == [8, 1, 4]
    assert R3GANDiscriminator(X, CondType(), channels=11).levels[0][0].conv_2.groups == 1


@pytest.mark.parametrize("shape", [(2, 7), (1, 16, 9), (1, 2, 2), (1, 3, 8, 5)], ids=str)
def test_any_size_and_rank(shape):
    x = TensorType(shape)
    made = draw(R3GANGenerator(Z, x, CondType(), **TINY))(normal(3, 5), Cond())
    assert made.shape == (3, *shape)
    net = draw(R3GANDiscriminator(x, CondType(), **TINY))
    assert net(made, Cond()).shape == (3,)


test_mistakes_are_refused = refusals(
    (lambda: R3GANGenerator(Z, TensorType((4,)), LABELS), "R3GANGenerator expects continuous maps of shape"),
    (lambda: R3GANGenerator(TensorType((5,), classes=3), X, LABELS), "R3GANGenerator expects continuous z, got"),
    (lambda: R3GANGenerator(Z, X, CondType(concat=X)), "R3GANGenerator expects cond without context and concat"),
    (lambda: R3GANDiscriminator(X, CondType(context=(2, 3))), "R3GANDiscriminator expects cond without context"),
    (lambda: R3GANDiscriminator(X, LABELS, channels=0), "R3GANDiscriminator expects channels to be at least 1, got 0"),
    (lambda: R3GANGenerator(Z, X, LABELS, blocks=0), "R3GANGenerator expects blocks to be at least 1, got 0"),
    (lambda: R3GANGenerator(Z, X, LABELS, channels=3, groups=4), r"groups that divide the channels \[12, 6\], got 4"),
)
