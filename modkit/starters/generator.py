r"""A generator of plane waves: the noise determines their amplitudes, and x is their sum.

    x(p) = squash(sum_k a_k(z) cos(2 pi f_k . p) + b_k(z) sin(2 pi f_k . p))        f_k on a grid, p in [0, 1)^2

A generator takes the type of the noise, the type to emit and the conditions (`modkit.kinds.Generator`). `embed_beside`
combines all conditions without positions into one vector as wide as the noise and of its scale, to be concatenated with
it; tokens and maps are refused.

Shape letters: b batch, d width, c channels, k waves, h w spatial.
"""

import math

import torch
from torch import Tensor, nn

from modkit import Cond, CondType, TensorType
from modkit.nn import embed_beside, squash
from modkit.types import PositiveInt, checked

__all__ = ["Waves"]


@checked
class Waves(nn.Module):
    """Generates images as sums of plane waves.

    References:
        Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains (Tancik et al., 2020),
        eq. 5, https://arxiv.org/abs/2006.10739

    Args:
        z: Type of the noise.
        x: Type to emit: images.
        cond: Conditions without positions.
        waves: Highest frequency along each side, in periods per image.
        width: Width of the hidden layer.

    Raises:
        ValueError: If `x` is not an image type, `cond` has tokens or a map, or a number is below 1.
    """

    basis: Tensor

    def __init__(
        self, z: TensorType, x: TensorType, cond: CondType, *, waves: PositiveInt = 4, width: PositiveInt = 128
    ) -> None:
        super().__init__()
        if x.classes is not None or len(x.shape) != 3:
            raise ValueError(f"Waves expects images, got {x}")
        if cond.context is not None or cond.concat is not None:
            raise ValueError(f"Waves expects conditions without positions, got {cond}")
        self.x = x
        self.embedding = embed_beside(z, cond)
        self.hidden = nn.Linear(z.numel + (self.embedding.width if self.embedding.embeds else 0), width)
        basis = _make_basis(waves, *x.shape[1:])
        self.strength = nn.Linear(width, x.shape[0] * len(basis))
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates x from `z`, `b d`."""
        joined = z.flatten(1)
        if self.embedding.embeds:
            joined = torch.cat([joined, self.embedding(cond, z)], dim=1)
        strength = self.strength(torch.nn.functional.silu(self.hidden(joined))).unflatten(1, (self.x.shape[0], -1))
        return squash(torch.einsum("bck,khw->bchw", strength, self.basis), self.x)


def _make_basis(waves: int, height: int, width: int) -> Tensor:
    """Computes the cosines and sines of all pairs of frequencies, `k h w`."""
    frequencies = torch.cartesian_prod(torch.arange(waves + 1.0), torch.arange(-waves, waves + 1.0))
    rows, columns = torch.arange(height) / height, torch.arange(width) / width
    down, across = frequencies.T[:, :, None, None]
    phase = 2 * math.pi * (down * rows[:, None] + across * columns)
    return torch.cat([phase.cos(), phase.sin()])
