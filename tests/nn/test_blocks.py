import pytest
import torch
from torch.nn import functional as F

from modkit.nn.blocks import (
    Downsample,
    ResidualBlock,
    Upsample,
    conv,
    get_map_size,
    group_norm,
    make_pyramid,
    zero_init,
)
from modkit.types import TensorType
from tests.nn.modules import randomized

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
SIZES = {1: (7,), 2: (5, 6), 3: (3, 4, 5)}


def normalized(x, groups, weight, bias):
    grouped = x.reshape(len(x), groups, -1)
    mean = grouped.mean(-1, keepdim=True)
    var = (grouped - mean).square().mean(-1, keepdim=True)
    y = ((grouped - mean) / (var + 1e-5).sqrt()).reshape(x.shape)
    ones = (1,) * (x.ndim - 2)
    return y * weight.reshape(-1, *ones) + bias.reshape(-1, *ones)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("width", [None, 6])
def test_residual_block_is_its_equation(rank, width):
    block = randomized(ResidualBlock(rank, 8, 12, width=width).double(), 0.3)
    p = dict(block.named_parameters())
    x = torch.randn(2, 8, *SIZES[rank], dtype=torch.float64)
    e = torch.randn(2, 6, dtype=torch.float64)

    silu = lambda x: x * torch.sigmoid(x)  # noqa: E731
    h = silu(normalized(x, 2, p["norm_1.weight"], p["norm_1.bias"]))
    h = CONV[rank](h, p["conv_1.weight"], p["conv_1.bias"], padding=1)
    h = normalized(h, 3, p["norm_2.weight"], p["norm_2.bias"])
    if width:
        film = silu(e) @ p["film.weight"].T + p["film.bias"]
        scale, shift = (v.reshape(2, 12, *(1,) * rank) for v in (film[:, :12], film[:, 12:]))
        h = (1 + scale) * h + shift
    h = CONV[rank](silu(h), p["conv_2.weight"], p["conv_2.bias"], padding=1)
    expected = CONV[rank](x, p["skip.weight"], p["skip.bias"]) + h

    torch.testing.assert_close(block(x, e if width else None), expected)


def test_a_new_block_is_the_identity():
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(ResidualBlock(2, 8, 8, width=4)(x, torch.randn(2, 4)), x)


def test_a_missing_embedding_is_refused():
    with pytest.raises(ValueError, match="ResidualBlock expects an embedding of width 4, got None"):
        ResidualBlock(2, 8, 8, width=4)(torch.randn(1, 8, 4, 4))


def test_dropout_acts_in_training_only():
    block = randomized(ResidualBlock(1, 8, 8, dropout=0.5), 0.3)
    x = torch.randn(2, 8, 9)
    assert not torch.equal(block(x), block.eval()(x))
    assert torch.equal(block(x), block(x))


def test_residual_block_gradients():
    block = randomized(ResidualBlock(1, 2, 4, width=3).double(), 0.3)
    x = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    e = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x, e))


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (3, 1), (4, 1), (8, 2), (31, 1), (32, 8), (48, 12), (96, 24), (128, 32), (192, 32)]
)
def test_groups_have_four_channels_or_more_and_are_at_most_32(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_norm_keeps_what_a_single_position_holds():
    a, b = group_norm(16)(torch.randn(2, 16, 1, 1))
    assert not torch.allclose(a, b)


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_halving_rounds_up_and_doubling_crops(size):
    down, up = randomized(Downsample(1, 2).double(), 0.3), randomized(Upsample(1, 2).double(), 0.3)
    x = torch.randn(3, 2, size, dtype=torch.float64)
    y = down(x)
    padded = F.pad(x, (1, 2))
    windows = torch.stack([padded[..., 2 * i : 2 * i + 3] for i in range((size + 1) // 2)], dim=2)
    expected = torch.einsum("bcnk,dck->bdn", windows, down.conv.weight) + down.conv.bias[:, None]
    torch.testing.assert_close(y, expected)
    assert y.shape[2:] == make_pyramid((size,), 2)[1]

    repeated = torch.stack([y[..., i // 2] for i in range(size)], dim=-1)
    torch.testing.assert_close(up(y, (size,)), F.conv1d(repeated, up.conv.weight, up.conv.bias, padding=1))


@pytest.mark.parametrize("size", [(1,), (1, 3), (1, 4, 5), (1, 1, 1)])
def test_averaging_halves_maps_of_any_size(size):
    """Windows 2 wide, which a last odd position has to itself."""
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = x
    for axis in range(2, x.ndim):
        expected = torch.stack([one.mean(axis) for one in expected.split(2, axis)], axis)
    torch.testing.assert_close(Downsample(len(size), 3, learned=False)(x), expected)


def test_pyramid():
    assert make_pyramid((7, 16), 4) == [(7, 16), (4, 8), (2, 4), (1, 2)]


def test_zero():
    assert not any(p.any() for p in zero_init(conv(2, 3, 4)).parameters())


@pytest.mark.parametrize("x", [TensorType((5,)), TensorType((4, 4), classes=3), TensorType((1, 2, 3, 4, 5))])
def test_map_size_refuses_what_is_no_map(x):
    with pytest.raises(ValueError, match=r"Net expects continuous maps of shape .*, got"):
        get_map_size("Net", x)
    assert get_map_size("Net", TensorType((3, 4, 5))) == (4, 5)
