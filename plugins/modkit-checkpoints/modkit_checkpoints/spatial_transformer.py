r"""Latent diffusion's spatial transformer, in which a map's positions attend to each other and to tokens.

    h_0 = W_in norm(x)
    h   = h + attend(LN(h), LN(h))
    h   = h + attend(LN(h), tokens)           `depth` times
    h   = h + W_2 (a * GELU(g)),              [a, g] = W_1 LN(h)
    y   = x + W_out h

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), n positions, m tokens, d width of a token.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.3 and appendix E.2,
    https://arxiv.org/abs/2112.10752
    GLU Variants Improve Transformer (Shazeer, 2020), eq. 6, https://arxiv.org/abs/2002.05202
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import attend
from modkit.nn.blocks import group_norm_32, zero_init

__all__ = ["SpatialTransformer"]

_MULTIPLE = 4  # of the width, inside the feed-forward network


class SpatialTransformer(nn.Module):
    """A transformer over the positions of a map, attending to tokens.

    Args:
        channels: Channels of the map.
        context: Width d of the tokens.
        heads: Number of heads; it divides `channels`.
        depth: Number of layers.
    """

    def __init__(self, channels: int, *, context: int, heads: int, depth: int = 1) -> None:
        super().__init__()
        self.norm = group_norm_32(channels)
        self.project = nn.Linear(channels, channels)
        self.layers = nn.ModuleList(_Layer(channels, context, heads) for _ in range(depth))
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps `b c h w` to itself, attending to `context`, `b m d`."""
        # Contiguous: for other strides torch's Linear takes one of two ways by whether its weights take gradients.
        h = self.project(self.norm(x).flatten(2).transpose(1, 2).contiguous())
        context = context.to(x.dtype).contiguous()
        for layer in self.layers:
            h = layer(h, context)
        residual: Tensor = self.out(h).transpose(1, 2).reshape(x.shape)
        return x + residual


class _Layer(nn.Module):
    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2, self.norm_3 = (nn.LayerNorm(width) for _ in range(3))
        self.attend = _Attention(width, width, heads)
        self.cross = _Attention(width, context, heads)
        self.gated = nn.Linear(width, 2 * _MULTIPLE * width)
        self.narrow = nn.Linear(_MULTIPLE * width, width)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        normed = self.norm_1(h)
        h = h + self.attend(normed, normed)
        h = h + self.cross(self.norm_2(h), context)
        a, gate = self.gated(self.norm_3(h)).chunk(2, dim=-1)
        return h + self.narrow(a * F.gelu(gate))


class _Attention(nn.Module):
    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(context, width, bias=False)
        self.value = nn.Linear(context, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        query, key, value = map(self._split, (self.query(h), self.key(context), self.value(context)))
        return self.out(attend(query, key, value).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
