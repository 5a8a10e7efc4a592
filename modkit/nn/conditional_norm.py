r"""Conditional batch normalisation: what a norm scales and shifts by is a function of a vector.

    y = (1 + W_s e) BN(x) + W_m e,   BN(x) = (x - mean) / sqrt(var + 1e-5)        a learned pair if there is no e

Shape letters: b batch, c channels, d width, h w spatial (one, two or three sizes).

References:
    Modulating early visual processing by language (de Vries et al., 2017), section 3,
    https://arxiv.org/abs/1707.00683
    cGANs with Projection Discriminator (Miyato & Koyama, 2018), appendix, https://arxiv.org/abs/1802.05637
"""

from __future__ import annotations

from torch import Tensor, nn

from modkit.nn.blocks import broadcast

__all__ = ["ConditionalBatchNorm"]


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose scale and offset a vector determines.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the maps.
        width: Width of the vector, or 0 if there is none.

    Examples:
        >>> import torch
        >>> ConditionalBatchNorm(2, 4, 3)(torch.zeros(2, 4, 5, 5), torch.zeros(2, 3)).shape
        torch.Size([2, 4, 5, 5])
    """

    def __init__(self, rank: int, channels: int, width: int) -> None:
        super().__init__()
        self.norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1](channels, affine=not width)
        self.film = nn.Linear(width, 2 * channels, bias=False) if width else None
        if self.film is not None:
            nn.init.normal_(self.film.weight, std=0.02)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Normalises `x`, `b c h w`, given `vector`, `b d`, which may have no width."""
        y: Tensor = self.norm(x)
        if self.film is None:
            return y
        scale, shift = broadcast(self.film(vector), x).chunk(2, dim=1)
        return (1 + scale) * y + shift
