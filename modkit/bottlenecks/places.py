"""Places of codes: the positions of a map of features, or the tokens of a vector of features.

A vector becomes several codes, its tokens, since one code tells little of a sample. Inside a quantiser it is a map with
one spatial size, the number of tokens; its latents are vectors again, of all channels.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), t tokens.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from modkit.bottlenecks.pointwise import pointwise
from modkit.types import Range, TensorType

__all__ = ["Places", "Tokens"]

Tokens = Annotated[int, "Number of codes of a vector; a map has one at each position.", Range(1)]


class Places:
    """The places of the codes of features.

    Args:
        h: Type of the features, a vector or a map.
        tokens: Number of codes of a vector; maps do not use it.

    Examples:
        >>> import torch
        >>> vector, map_ = Places(TensorType((6,)), tokens=4), Places(TensorType((6, 2, 2)), tokens=4)
        >>> vector.size, map_.size
        ((4,), (2, 2))
        >>> vector.make_type(3).shape, vector.split(torch.zeros(5, 12)).shape
        ((12,), torch.Size([5, 3, 4]))
    """

    def __init__(self, h: TensorType, tokens: int) -> None:
        self._h, self._tokens = h, tokens if len(h.shape) == 1 else None
        self.size: tuple[int, ...] = h.shape[1:] or (tokens,)

    def make_type(self, channels: int) -> TensorType:
        """Makes the type of a latent of so many channels a place."""
        return TensorType((channels, *self.size) if self._tokens is None else (channels * self._tokens,))

    def make_projection(self, channels: int) -> nn.Module:
        """Makes the linear map from the features to a latent of so many channels a place."""
        return pointwise(self._h, channels * (self._tokens or 1))

    def split(self, latent: Tensor) -> Tensor:
        """Splits a vector into its tokens, `b c t`; returns a map `b c h w` unchanged."""
        return latent if self._tokens is None else latent.view(len(latent), -1, self._tokens)

    def join(self, z: Tensor) -> Tensor:
        """Joins the tokens `b c t` of a vector; returns a map `b c h w` unchanged."""
        return z if self._tokens is None else z.flatten(1)
