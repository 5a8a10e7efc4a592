"""The first stages of taming-transformers and latent diffusion: each step written out over the parameters."""

import pytest
import torch
from torch.nn import functional as F

from modkit.nn.blocks import Downsample, Upsample
from modkit.nn.conv import ConvDecoder, ConvEncoder
from modkit.types import TensorType
from tests.nn.modules import Written, randomized
from tests.refusals import refusals

X = TensorType((3, 8, 8))
STYLE = {"channels": [32, 64], "style": "taming"}


def test_the_encoder():
    encoder = randomized(ConvEncoder(X, out_channels=5, attention=[4], **STYLE), 0.2)
    written, x = Written(encoder, -32, 1e-6), torch.randn(2, 3, 8, 8)
    y = written.block(written.conv(x, "conv_in"), "levels.0.0")
    y = written.conv(F.pad(y, (0, 1, 0, 1)), "levels.0.1.conv", stride=2, padding=0)
    y = written.attend(written.block(y, "levels.1.0"), "levels.1.1")
    y = written.out(written.middle(y))
    assert encoder.h == TensorType((5, 4, 4)) and torch.allclose(encoder(x), y, rtol=1e-4, atol=1e-4)


def test_the_decoder():
    decoder = randomized(ConvDecoder(TensorType((4, 4, 4)), X, channels=[64, 32], in_channels=6, style="taming"), 0.2)
    written, z = Written(decoder, -32, 1e-6), torch.randn(2, 4, 4, 4)
    y = written.conv(written.conv(z, "project"), "conv_in")
    y = written.block(written.middle(y), "levels.0.0")
    y = written.conv(F.interpolate(y, scale_factor=2.0, mode="nearest"), "doublings.0.conv")
    y = written.out(written.block(y, "levels.1.0"))
    assert torch.allclose(decoder(z), y, rtol=1e-4, atol=1e-4)


def test_plain_resampling_has_no_parameters():
    x = torch.arange(25.0).reshape(1, 1, 5, 5)
    halved = Downsample(2, 1, learned=False)(x)
    assert halved.shape == (1, 1, 3, 3) and halved[0, 0, 0, 0] == x[..., :2, :2].mean()
    assert halved[0, 0, 2, 2] == 24 and halved[0, 0, 0, 2] == x[..., :2, 4].mean()
    assert torch.equal(Upsample(2, 1, learned=False)(halved, [5, 6])[0, 0, :2, :2], halved[0, 0, 0, 0].expand(2, 2))
    encoder = ConvEncoder(X, resampling="plain", **STYLE)
    decoder = ConvDecoder(encoder.h, X, channels=[64, 32], resampling="plain", style="taming")
    names = [name for net in (encoder, decoder) for name, _ in net.named_parameters()]
    assert not any(name.startswith(("doublings", "levels.0.1")) for name in names)
    assert decoder(encoder(torch.randn(1, 3, 8, 8))).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_zeros_at_the_end_start_windows_at_even_places(rank):
    halving = Downsample(rank, 1, padding="end")
    torch.nn.init.zeros_(halving.conv.bias)
    with torch.no_grad():
        halving.conv.weight.zero_()[(0, 0, *(0,) * rank)] = 1
    for size in (6, 7):
        x = torch.randn(1, 1, *(size,) * rank)
        y = halving(x)
        assert y.shape[2:] == (-(-size // 2),) * rank
        if size == 6:
            assert torch.equal(y, x[(..., *(slice(0, None, 2),) * rank)])
        else:
            assert torch.equal(y[(..., *(slice(1, None),) * rank)], x[(..., *(slice(1, None, 2),) * rank)])


test_refusals = refusals(
    (lambda: ConvEncoder(X, style="adm"), "ConvEncoder expects style to be 'modkit' or 'taming', got 'adm'"),
    (
        lambda: ConvDecoder(TensorType((4, 4, 4)), X, resampling="bilinear"),
        "ConvDecoder expects resampling to be 'conv' or 'plain', got 'bilinear'",
    ),
    (lambda: ConvEncoder(X, out_channels=0), "ConvEncoder expects out_channels to be at least 1, got 0"),
    (
        lambda: ConvDecoder(TensorType((4, 4, 4)), X, in_channels=-1),
        "ConvDecoder expects in_channels to be at least 1, got -1",
    ),
)
