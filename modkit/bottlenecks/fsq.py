r"""Finite scalar quantisation: each channel is bounded and rounded to one of a few levels.

    f(z) = width tanh(z + shift) - offset,   z_q = round(f(z)) / (L // 2),   dz_q / dz = f'(z) / (L // 2)
    width = (L - 1) (1 + tiny) / 2,   offset = 1/2 for even L, else 0,   shift = atanh(offset / width)

The code is the mixed-radix number whose digits are the levels. For an even number of levels f is shifted by one half;
in both cases f(0) = 0. (The paper's listing shifts by tan, but only atanh makes f(0) exactly 0.) Nothing is learned and
there is no loss.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Finite Scalar Quantization: VQ-VAE Made Simple (Mentzer et al., 2023), eq. 1-2 and appendix A.1,
    https://arxiv.org/abs/2309.15505
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from modkit.bottlenecks.mixed_radix import MixedRadix
from modkit.bottlenecks.places import Tokens
from modkit.bottlenecks.quantizer import Quantizer
from modkit.kinds import Step
from modkit.types import Event, Latents, Range, checked

__all__ = ["FiniteScalarQuantizer"]

_TINY = 1e-3  # the outermost levels are reached


@checked
class FiniteScalarQuantizer(Quantizer):
    """Rounds each of a few channels to a few levels between -1 and 1; each position becomes one code, a vector several.

    `continuous` is the bounded value before rounding, in the scale of `quantized`.

    Args:
        levels: Number of levels of each channel; their product is the number of codes.

    Raises:
        ValueError: If there are no levels, one is below 2, their product is 2^31 or more, `tokens` is below 1, or the
            features are a hierarchy or codes.

    Examples:
        >>> from modkit.types import TensorType
        >>> bottleneck = FiniteScalarQuantizer(TensorType((6, 4, 4)), levels=[4, 4])
        >>> latents = bottleneck(torch.zeros(2, 6, 4, 4), None)
        >>> {name: tuple(value.shape) for name, value in latents.values.items()}
        {'codes': (2, 4, 4), 'continuous': (2, 2, 4, 4), 'quantized': (2, 2, 4, 4)}
    """

    width: Tensor
    offset: Tensor
    shift: Tensor
    middle: Tensor

    def __init__(self, h: Event, *, levels: list[Annotated[int, Range(2)]] = [8, 5, 5, 5], tokens: Tokens = 8) -> None:  # noqa: B006
        num_codes = math.prod(levels)
        if not levels or num_codes >= 2**31:
            raise ValueError(f"FiniteScalarQuantizer expects one level or more and fewer than 2^31 codes, got {levels}")
        super().__init__(h, channels=len(levels), num_codes=num_codes, tokens=tokens)
        self.radix = MixedRadix(levels, rank=len(self._places.size))
        width = [(number - 1) * (1 + _TINY) / 2 for number in levels]
        offset = [0.0 if number % 2 else 0.5 for number in levels]
        shift = [math.atanh(o / w) for o, w in zip(offset, width)]
        middle = [float(number // 2) for number in levels]
        for name, values in (("width", width), ("offset", offset), ("shift", shift), ("middle", middle)):
            self.register_buffer(name, torch.tensor(values).view(-1, *(1,) * len(self._places.size)), persistent=False)

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Computes the codes, `b h w`, the bounded values and the rounded ones, both `b c h w`; there are no losses.

        Gradients of `quantized` pass to `continuous` unchanged.
        """
        z = self.to_continuous(h)
        codes = self.encode(z)
        return self._make_latents(z, codes, self.embed(codes), {})

    def to_continuous(self, h: Tensor) -> Tensor:
        """Computes f(z) / (L // 2), `b c h w`, in about [-1, 1]."""
        return (self.width * torch.tanh(super().to_continuous(h) + self.shift) - self.offset) / self.middle

    def encode(self, z: Tensor) -> Tensor:
        """Computes the codes `b h w` of the nearest levels; the first channel is the least significant digit."""
        digits = (z.detach() * self.middle).round().to(torch.int64) + self.middle.to(torch.int64)
        return self.radix.to_number(torch.minimum(digits.clamp_min(0), self.radix.levels - 1))

    def embed(self, codes: Tensor) -> Tensor:
        """Looks up the levels `b c h w` of codes, in [-1, 1]."""
        return (self.radix.to_digits(codes).to(self.middle.dtype) - self.middle) / self.middle
