"""The first stages of taming-transformers and latent diffusion: each step written out over the parameters."""

import pytest
import torch
from torch.nn import functional as F

from modkit.nn.blocks import Downsample, Upsample
from modkit.nn.conv import ConvDecoder, ConvEncoder
from modkit.types import TensorType
from tests.nn.modules import randomized
from tests.refusals import refusals

X = TensorType((3, 8, 8))
STYLE = {"channels": [32, 64], "style": "taming"}


class Written:
    """Their layers, over the names of ours."""

    def __init__(self, module):
        self.p = dict(module.named_parameters())

    def conv(self, name, x, **options):
        return F.conv2d(x, self.p[f"{name}.weight"], self.p[f"{name}.bias"], **options)

    def norm(self, name, x):
        return F.group_norm(x, 32, self.p[f"{name}.weight"], self.p[f"{name}.bias"], eps=1e-6)

    def residual(self, name, x):
        h = self.conv(f"{name}.conv_1", F.silu(self.norm(f"{name}.norm_1", x)), padding=1)
        h = self.conv(f"{name}.conv_2", F.silu(self.norm(f"{name}.norm_2", h)), padding=1)
        return h + (self.conv(f"{name}.skip", x) if f"{name}.skip.weight" in self.p else x)

    def attention(self, name, x):
        at = self.norm(f"{name}.norm", x).flatten(2).mT
        q = F.linear(at, self.p[f"{name}.query.weight"], self.p[f"{name}.query.bias"])
        k, v = F.linear(at, self.p[f"{name}.key_value.weight"], self.p[f"{name}.key_value.bias"]).chunk(2, -1)
        y = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        return x + F.linear(y, self.p[f"{name}.out.weight"], self.p[f"{name}.out.bias"]).mT.reshape(x.shape)

    def middle(self, x):
        return self.residual("middle.2", self.attention("middle.1", self.residual("middle.0", x)))

    def out(self, x):
        return self.conv("conv_out", F.silu(self.norm("norm_out", x)), padding=1)


def test_the_encoder():
    encoder = randomized(ConvEncoder(X, out_channels=5, attention=[4], **STYLE), 0.2)
    written, x = Written(encoder), torch.randn(2, 3, 8, 8)
    y = written.residual("levels.0.0", written.conv("conv_in", x, padding=1))
    y = written.conv("levels.0.1.conv", F.pad(y, (0, 1, 0, 1)), stride=2)
    y = written.attention("levels.1.1", written.residual("levels.1.0", y))
    y = written.out(written.middle(y))
    assert encoder.h == TensorType((5, 4, 4)) and torch.allclose(encoder(x), y, rtol=1e-4, atol=1e-4)


def test_the_decoder():
    decoder = randomized(ConvDecoder(TensorType((4, 4, 4)), X, channels=[64, 32], in_channels=6, style="taming"), 0.2)
    written, z = Written(decoder), torch.randn(2, 4, 4, 4)
    y = written.conv("conv_in", written.conv("project", z), padding=1)
    y = written.residual("levels.0.0", written.middle(y))
    y = written.conv("doublings.0.conv", F.interpolate(y, scale_factor=2.0, mode="nearest"), padding=1)
    y = written.out(written.residual("levels.1.0", y))
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
    (lambda: ConvEncoder(X, style="adm"), "ConvEncoder expects style 'modkit' or 'taming' .* got 'adm' and 'conv'"),
    (
        lambda: ConvDecoder(TensorType((4, 4, 4)), X, resampling="bilinear"),
        "ConvDecoder expects style .* got 'modkit' and 'bilinear'",
    ),
    (lambda: ConvEncoder(X, out_channels=0), "ConvEncoder expects out_channels of at least 1, got 0"),
    (
        lambda: ConvDecoder(TensorType((4, 4, 4)), X, in_channels=-1),
        "ConvDecoder expects in_channels of at least 1, got -1",
    ),
)
