"""Attention between the positions of a map, or from them to a sequence of tokens.

    y = x + W_o softmax(Q K^T / sqrt(c / heads)) V        Q = W_q norm(x);  K, V from norm(x), or from the tokens

Self-attention where no tokens are given, else cross-attention as in latent diffusion. Positions are flattened, so any
rank will do; `W_o` starts at zero. torch's fused kernel keeps no n x n matrix (and differentiates once only, so no
gradient penalty goes through it).

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), n positions or tokens, d width of a token.

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.3,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.blocks import norm, zero

__all__ = ["Attention", "attended"]


class Attention(nn.Module):
    """Residual multi-head attention over the positions of a map.

    Args:
        channels: Channels of the map.
        context: Width d of the tokens it attends to, or None: it attends to the map's own positions.
        head_channels: Channels a head; the nearest larger number that divides `channels` is taken.
        normalize: Makes the normalisation of so many channels.
    """

    heads: int

    def __init__(
        self,
        channels: int,
        *,
        context: int | None = None,
        head_channels: int = 32,
        normalize: Callable[[int], nn.GroupNorm] = norm,
    ) -> None:
        super().__init__()
        heads = (n for n in range(2, channels + 1) if channels % n == 0 and channels // n >= head_channels)
        self.heads = max(heads, default=1)
        self.crosses = context is not None
        self.norm = normalize(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context or channels, 2 * channels)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps `b c h w` to itself, attending to `context`, `b n d`, where it was built for tokens.

        Raises:
            ValueError: If tokens are missing, or given where it attends to itself.
        """
        if self.crosses != (context is not None):
            expected = "tokens `context`" if self.crosses else "no context"
            raise ValueError(f"Attention expects {expected}, got {'None' if context is None else tuple(context.shape)}")
        # Contiguous: else torch's Linear takes one of two ways by whether its weights take gradients, so that a frozen
        # model and its reload would differ by rounding.
        positions = self.norm(x).flatten(2).transpose(1, 2).contiguous()
        query = self._split(self.query(positions))
        key, value = self.key_value(positions if context is None else context.to(x.dtype).contiguous()).chunk(2, dim=-1)
        y = F.scaled_dot_product_attention(query, self._split(key), self._split(value))
        y = self.out(y.transpose(1, 2).flatten(2))
        residual: Tensor = y.transpose(1, 2).reshape(x.shape)
        return x + residual

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)


def attended(owner: str, sizes: Sequence[Sequence[int]], resolutions: Sequence[int]) -> list[bool]:
    """Which levels attend: those of these sizes whose largest side is among the resolutions.

    Raises:
        ValueError: If a resolution is no level's; names `owner`.
    """
    sides = [max(size) for size in sizes]
    if not set(resolutions) <= set(sides):
        raise ValueError(f"{owner} expects attention at resolutions among {sides}, got {list(resolutions)}")
    return [side in resolutions for side in sides]
