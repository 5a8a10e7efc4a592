r"""Masked decoding: all codes are drawn at once, the most confident are kept, and the others drawn again.

    c ~ softmax(logits),   confidence = log p(c) + temperature (1 - s/S) Gumbel noise
    after step s of S as many stay masked as cos(pi/2 s/S) says, those of least confidence

What is kept depends on what was drawn, so at a low temperature likely codes become likelier still.

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
from modkit.rng import Rng
from modkit.types import TensorType

__all__ = ["MaskGIT"]


class MaskGIT:
    """Draws all codes in a few steps.

    Args:
        codes: Type of the codes.
        steps: Evaluations of the network; one a code where there are fewer codes.
        temperature: Of the noise on confidences at the first step; it falls to 0. High: codes are kept in random order.

    Raises:
        ValueError: If `codes` are continuous, `steps` is below 1 or `temperature` negative.
    """

    causal = False

    def __init__(self, codes: TensorType, *, steps: int = 8, temperature: float = 4.5) -> None:
        if steps < 1 or temperature < 0 or codes.classes is None:
            received = f"steps {steps}, temperature {temperature}, {codes}"
            raise ValueError(f"MaskGIT expects steps >= 1, temperature >= 0 and codes, got {received}")
        self.temperature, self.mask = temperature, codes.classes
        self.masked = _schedule_masks(codes.numel, min(steps, codes.numel))

    def __call__(self, predict: Predict, num: int, rng: Rng) -> Tensor:
        """Draws codes `b n`; none is masked in the end."""
        size, steps = self.masked[0], len(self.masked) - 1
        codes = torch.full((num, size), self.mask)
        for step, masked in enumerate(self.masked[1:], 1):
            log_p = predict(codes, None).double().log_softmax(-1)
            codes = codes.to(log_p.device)
            unknown = codes == self.mask
            like = log_p[..., 0].float()
            drawn = sample_categorical(log_p.exp(), rng.at(step).uniform("codes", like))
            codes = torch.where(unknown, drawn, codes)
            if masked:
                noise = self.temperature * (1 - step / steps) * _to_gumbel(rng.at(step).uniform("order", like))
                confidence = log_p.gather(-1, codes[..., None])[..., 0] + noise
                confidence = confidence.masked_fill(~unknown, math.inf)
                least = confidence.argsort(dim=-1, stable=True)[:, :masked]
                codes = codes.scatter(-1, least, self.mask)
        return codes


def _schedule_masks(size: int, steps: int) -> list[int]:
    """How many of `size` codes are masked before each step, and 0 at last; each step reveals one at least."""
    masked = [size]
    for step in range(1, steps + 1):
        share = math.cos(math.pi / 2 * step / steps)
        masked.append(min(max(math.floor(size * share), steps - step), masked[-1] - 1))
    return masked


def _to_gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise of uniform numbers, which are multiples of 2^-24 in [0, 1); float64."""
    return -(-(uniform.double() + 2**-25).log()).log()
