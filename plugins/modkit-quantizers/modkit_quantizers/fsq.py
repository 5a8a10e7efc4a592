r"""Finite scalar quantization by the library's `FSQ` and `ResidualFSQ`: channels rounded to a few levels.

    z_q = round(width tanh(z + shift) - offset) / (L // 2)
    symmetric: z_q = 2 / (L - 1) floor((L - 1) (tanh z + 1) / 2 + 1/2) - 1
    residual: r_0 = clamped z,   z_q = sum_d s_d Q(r_{d-1} / s_d),   s_d = L^-(d - 1)

Nothing is learned and there is no loss; gradients of rounding pass straight through.

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions, q depth.

References:
    Finite Scalar Quantization: VQ-VAE Made Simple (Mentzer et al., 2023), https://arxiv.org/abs/2309.15505
    Scaling Transformers for Low-Bitrate Speech Coding (Parker et al., 2024), section 3.2: symmetric levels,
    https://arxiv.org/abs/2411.19842
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, ResidualFSQ  # type: ignore[import-untyped, unused-ignore]

from modkit.bottlenecks.places import Tokens
from modkit.types import Event, PositiveInt, checked
from modkit_quantizers.wrapped import Quantized, Wrapped

__all__ = ["FiniteScalarQuantizer", "ResidualFiniteScalarQuantizer"]

_MOST = 2**20  # the library keeps a table of all codes


class FiniteScalarQuantizer(Wrapped):
    """Each channel rounded to a few levels between -1 and 1, by the library's `FSQ`.

    Args:
        levels: Number of levels of each channel; their product is the number of codes.
        symmetric: Whether even numbers of levels too are symmetric about 0; then two levels are possible.

    Raises:
        ValueError: If there are no levels, one is below 3 (below 2 of symmetric ones), their product is above 2^20, or
            the features are a hierarchy or codes.
    """

    def __init__(
        self,
        h: Event,
        *,
        levels: list[int] = [8, 5, 5, 5],  # noqa: B006
        symmetric: bool = False,
        tokens: Tokens = 8,
    ) -> None:
        num_codes = _count_codes("FiniteScalarQuantizer", levels, 2 if symmetric else 3)
        super().__init__(h, channels=len(levels), num_codes=num_codes, tokens=tokens)
        self.quantizer = _make(lambda: FSQ(list(levels), preserve_symmetry=symmetric))

    def quantize(self, vectors: Tensor) -> Quantized:
        """Returns levels `b n c` and their codes; there are no losses."""
        z_q, indices = self.quantizer(vectors)
        return Quantized(z_q, indices, {})

    def look_up(self, indices: Tensor) -> Tensor:
        """Returns the levels `b n c` of codes."""
        z_q: Tensor = self.quantizer.indices_to_codes(indices)
        return z_q.to(next(self.project.parameters()).dtype)


@checked
class ResidualFiniteScalarQuantizer(Wrapped):
    """Levels of levels, coarse to fine, by the library's `ResidualFSQ`; codes are `depth h w`.

    Args:
        levels: Number of levels of each channel; their product is the number of codes at each depth.
        depth: Codes per position.

    Raises:
        ValueError: If there are no levels, one is below 2, their product is above 2^20, `depth` is below 1, or the
            features are a hierarchy or codes.
    """

    def __init__(
        self,
        h: Event,
        *,
        levels: list[int] = [5, 5, 5],  # noqa: B006
        depth: PositiveInt = 2,
        tokens: Tokens = 8,
    ) -> None:
        num_codes = _count_codes("ResidualFiniteScalarQuantizer", levels, 2)
        super().__init__(h, channels=len(levels), num_codes=num_codes, tokens=tokens, depth=depth)
        self.quantizer = _make(lambda: ResidualFSQ(levels=list(levels), num_quantizers=depth))

    def quantize(self, vectors: Tensor) -> Quantized:
        """Returns sums of scaled levels `b n c` and their codes `b n q`; there are no losses."""
        z_q, indices = self.quantizer(vectors)
        return Quantized(z_q, indices, {})

    def look_up(self, indices: Tensor) -> Tensor:
        """Returns the sums of scaled levels `b n c` of codes `b n q`."""
        return self.quantizer.get_output_from_indices(indices)


def _count_codes(owner: str, levels: list[int], least: int) -> int:
    num_codes = math.prod(levels)
    if not levels or min(levels) < least or num_codes > _MOST:
        expected = f"levels of at least {least}, at most {_MOST} codes"
        raise ValueError(f"{owner} expects {expected}, got {list(levels)}")
    return num_codes


def _make(make: Callable[[], nn.Module]) -> nn.Module:
    """Makes one of the library's modules on the CPU, since its constructor reads values, and moves it."""
    device = torch.get_default_device()
    with torch.device("cpu"):
        return make().to(device)
