r"""Masked decoding: all codes are drawn at once, the most confident ones are kept, and the others are drawn again.

    c ~ softmax(logits),   confidence = log p(c) + temperature (1 - s/S) Gumbel noise
    after step s of S, the share cos(pi/2 s/S) of the codes stays masked: those of least confidence

The kept codes depend on the drawn ones, so a low temperature makes likely codes even more likely.

Shape letters: b batch, n positions, k classes.

References:
    MaskGIT: Masked Generative Image Transformer (Chang et al., 2022), section 3.2 and 3.3,
    https://arxiv.org/abs/2202.04200
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modkit.decodings.categorical import sample_categorical
from modkit.kinds import Predict
from modkit.precision import widen_fully
from modkit.rng import Rng
from modkit.samplers.sampling import report_step
from modkit.types import NonNegativeFloat, PositiveInt, TensorType, checked

__all__ = ["MaskGIT"]


@checked
class MaskGIT:
    """Draws all codes in a few steps.

    Args:
        codes: Type of the codes.
        steps: Number of evaluations of the network, at most one per code.
        temperature: Temperature of the noise on the confidences at the first step; it decreases to 0. With a high
            temperature codes are kept in random order.

    Raises:
        ValueError: If `codes` are continuous, `steps` is below 1, or `temperature` is negative.

    Examples:
        >>> decoding = MaskGIT(TensorType((2, 2), classes=3), steps=2)
        >>> always_one = lambda codes, i, known: torch.tensor([-9.0, 9.0, -9.0]).expand(*codes.shape, 3)
        >>> decoding(always_one, 1, Rng(0))
        tensor([[1, 1, 1, 1]])
    """

    causal = False

    def __init__(self, codes: TensorType, *, steps: PositiveInt = 8, temperature: NonNegativeFloat = 4.5) -> None:
        if codes.classes is None:
            raise ValueError(f"MaskGIT expects codes, got {codes}")
        self.temperature, self.mask, self.shape = temperature, codes.classes, codes.shape
        self.masked = _schedule_masks(codes.numel, min(steps, codes.numel))

    def __call__(self, predict: Predict, num: int, rng: Rng) -> Tensor:
        """Draws codes `b n`; at the end none is masked."""
        size, steps = self.masked[0], len(self.masked) - 1
        codes = torch.full((num, size), self.mask)
        for step, masked in enumerate(self.masked[1:], 1):
            log_p = widen_fully(predict(codes, None, size - self.masked[step - 1])).log_softmax(-1)
            codes = codes.to(log_p.device)
            unknown = codes == self.mask
            like = log_p[..., 0].float()
            drawn = sample_categorical(log_p.exp(), rng.at(step).uniform("codes", like))
            before, codes = codes, torch.where(unknown, drawn, codes)
            report_step(rng, step - 1, steps, before.view(num, *self.shape), codes.view(num, *self.shape))
            if masked:
                noise = self.temperature * (1 - step / steps) * _to_gumbel(rng.at(step).uniform("order", like))
                confidence = log_p.gather(-1, codes[..., None])[..., 0] + noise
                confidence = confidence.masked_fill(~unknown, math.inf)
                least = confidence.argsort(dim=-1, stable=True)[:, :masked]
                codes = codes.scatter(-1, least, self.mask)
        return codes


def _schedule_masks(size: int, steps: int) -> list[int]:
    """Computes how many of `size` codes are masked before each step and at the end; each step reveals at least one."""
    masked = [size]
    for step in range(1, steps + 1):
        share = math.cos(math.pi / 2 * step / steps)
        masked.append(min(max(math.floor(size * share), steps - step), masked[-1] - 1))
    return masked


def _to_gumbel(uniform: Tensor) -> Tensor:
    """Computes Gumbel noise from uniform numbers that are multiples of 2^-24 in [0, 1)."""
    return -(-(widen_fully(uniform) + 2**-25).log()).log()
