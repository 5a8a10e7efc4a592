r"""The block of a diffusion transformer, adaLN-zero, with cross-attention to tokens.

    x <- x + g_1 attend((1 + s_1) LN(x) + m_1)
    x <- x + cross(LN(x), tokens)                         if there are tokens
    x <- x + g_2 W_2 gelu(W_1 ((1 + s_2) LN(x) + m_2))    W_1 to 4 d
    (m_1, s_1, g_1, m_2, s_2, g_2) = W e + b              learned vectors if there is no e

All m, s, g and the last layer of `cross` are zero at first, so that a new block is the identity. LN has no weights of
its own. PixArt has the cross-attention, unmodulated, but without its norm.

Shape letters: b batch, n positions, m tokens, c width of a token, d width (in patterns of heads: of a head), e width of
the embedding.

References:
    Scalable Diffusion Models with Transformers (Peebles & Xie, 2023), section 3.2, https://arxiv.org/abs/2212.09748
    PixArt-alpha: Fast Training of Diffusion Transformer for Photorealistic Text-to-Image Synthesis (Chen et al., 2024),
    section 2.3, https://arxiv.org/abs/2310.00426
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from modkit.nn.attention import attend
from modkit.nn.blocks import init_xavier, zero_init

__all__ = ["DiTBlock", "Modulation", "make_norm"]


class DiTBlock(nn.Module):
    """Attention between positions and to tokens, then two layers applied to each position, all residual.

    Args:
        width: Width d of a position.
        heads: Number of attention heads; divides `width`.
        embedding: Width of the embedding that modulates the block; 0 if there is none.
        context: Width c of the tokens to attend to; 0 if there are none.
        dropout: Probability of dropout of what each residual adds.

    Examples:
        >>> block = DiTBlock(8, heads=2, embedding=4, context=6)
        >>> x = torch.randn(1, 5, 8)
        >>> torch.equal(block(x, torch.ones(1, 4), torch.ones(1, 3, 6)), x)
        True
    """

    def __init__(self, width: int, *, heads: int, embedding: int = 0, context: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.modulation = Modulation(6, width, embedding)
        self.norm_1, self.norm_2 = make_norm(width), make_norm(width)
        self.attend = _Attention(width, width, heads)
        self.cross = _Attention(width, context, heads) if context else None
        if self.cross is not None:
            self.norm_cross = make_norm(width)
            zero_init(self.cross.out)
        self.mlp = init_xavier(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        """Maps `b n d` to the same shape, given the embedding, `b e`, and the tokens, `b m c`.

        Raises:
            ValueError: If the block was built for tokens, and none are given.
        """
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(embedding)
        h = self.norm_1(x) * (1 + scale_1) + shift_1
        x = x + gate_1 * self.dropout(self.attend(h, h))
        if self.cross is not None:
            if context is None:
                raise ValueError("DiT expects a Cond with `context`, as its type says, got None")
            x = x + self.dropout(self.cross(self.norm_cross(x), context.to(x.dtype)))
        h = self.norm_2(x) * (1 + scale_2) + shift_2
        return x + gate_2 * self.dropout(self.mlp(h))


class Modulation(nn.Module):
    """Vectors that modulate positions: affine in the embedding, or learned where there is none; zero at first.

    Args:
        num: Number of vectors.
        width: Width d of each.
        embedding: Width e of the embedding; 0 if there is none.

    Examples:
        >>> scale, shift = Modulation(2, 8, 4)(torch.ones(3, 4))
        >>> scale.shape
        torch.Size([3, 1, 8])
    """

    def __init__(self, num: int, width: int, embedding: int) -> None:
        super().__init__()
        self.num = num
        self.film = zero_init(nn.Linear(embedding, num * width)) if embedding else None
        self.table = None if embedding else nn.Parameter(torch.zeros(1, num * width))

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """Computes the vectors, each `b 1 d`, from the embedding, `b e`; `1 1 d` where there is none."""
        vectors: Tensor | None = self.table if self.film is None else self.film(embedding)
        assert vectors is not None
        return vectors[:, None].chunk(self.num, dim=-1)


class _Attention(nn.Module):
    """Multi-head attention of positions to tokens of any width, or to themselves."""

    identity = False

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = init_xavier(nn.Linear(width, width))
        self.key_value = init_xavier(nn.Linear(context, 2 * width))
        self.out = init_xavier(nn.Linear(width, width))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        query = rearrange(self.query(x), "b n (heads d) -> b heads n d", heads=self.heads)
        key, value = rearrange(self.key_value(tokens), "b m (kv heads d) -> kv b heads m d", kv=2, heads=self.heads)
        attended = value if self.identity else attend(query, key, value)
        return self.out(rearrange(attended, "b heads n d -> b n (heads d)"))


def make_norm(width: int) -> nn.LayerNorm:
    """A normalisation without weights, as what modulates it has them."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
