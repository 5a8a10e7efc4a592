r"""A fully connected denoiser: a residual network on flattened samples, see `MLPNetwork`.

Shape letters: b batch, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.nn.blocks import zero_init
from modkit.nn.embeddings import CondEmbedding
from modkit.nn.mlp_layers import count_concat, count_values, join_map
from modkit.types import Cond, CondType, PositiveInt, TensorType, checked

__all__ = ["MLPNetwork"]


@checked
class MLPNetwork(nn.Module):
    r"""A residual network on flattened samples, modulated by conditions, for denoising vectors and small latents.

        h_0 = W [x, concat] + b
        h_i = h_{i-1} + W_2 drop(SiLU(W_1 ((1 + scale_i) LN(h_{i-1}) + shift_i)))
        (scale_i, shift_i) = W SiLU(e(cond)) + b, for all i at once
        out = W LN(h_depth) + b

    W_2 and the last W start at zero, so that each block starts as the identity and the output as zero. e is a quarter
    as wide as h; if it were as wide, it would account for more than half of the computation.

    References:
        FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018), eq. 2,
        https://arxiv.org/abs/1709.07871

    Args:
        x: Type of the input, continuous.
        out: Type of the output, continuous.
        cond: Type of the conditions. A map is flattened and concatenated with x; tokens are not supported.
        width: Width of the residual stream and the blocks; the embedded conditions are a quarter as wide.
        depth: Number of residual blocks.
        dropout: Probability of dropout inside each block.

    Raises:
        ValueError: If `cond` has a context, a type holds codes, or `depth` or `width` is below 1.

    Examples:
        >>> x = TensorType((2,))
        >>> net = MLPNetwork(x, x, CondType(time=True), width=16)
        >>> net(torch.zeros(3, 2), Cond(time=torch.zeros(3))).tolist()
        [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        width: PositiveInt = 384,
        depth: PositiveInt = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        size = count_values(self, x=x) + count_concat(self, cond)
        self.shape = out.shape
        self.concat = cond.concat is not None
        narrow = max(width // 4, 4)
        self.embedding = CondEmbedding(cond, narrow)
        self.modulation = nn.Linear(narrow, 2 * depth * width) if self.embedding.embeds else None
        self.stem = nn.Linear(size, width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = zero_init(nn.Linear(width, count_values(self, out=out)))

    @property
    def units(self) -> list[nn.Module]:
        """The residual blocks."""
        return list(self.blocks)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`; the result has the shape of `out`."""
        h: Tensor = self.stem(join_map(self, x, cond) if self.concat else x.flatten(1))
        if self.modulation is None:
            for block in self.blocks:
                h = block(h)
        else:
            scale, shift = self.modulation(F.silu(self.embedding(cond, x))).chunk(2, dim=1)
            num = len(self.blocks)
            for block, *film in zip(self.blocks, (1 + scale).chunk(num, dim=1), shift.chunk(num, dim=1)):
                h = block(h, film)
        h = self.out(self.norm(h))
        return h.reshape(-1, *self.shape)


class _Block(nn.Module):
    """A residual block of width d with a modulated, normalised input."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.back = zero_init(nn.Linear(width, width))

    def forward(self, h: Tensor, film: Sequence[Tensor] | None = None) -> Tensor:
        """Evaluates the block at `h`, `b d`, modulated by `film`, (1 + scale, shift)."""
        inner: Tensor = self.norm(h)
        if film is not None:
            scale, shift = film
            inner = torch.addcmul(shift, inner, scale)
        inner = self.back(self.drop(F.silu(self.into(inner))))
        return h + inner
