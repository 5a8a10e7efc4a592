r"""Autoregressive decoding: codes are drawn one after another in raster order, each given the previous ones.

    c_i ~ softmax(logits_i / temperature), truncated

Shape letters: b batch, n positions, k classes.

References:
    The Curious Case of Neural Text Degeneration (Holtzman et al., 2020), section 3, https://arxiv.org/abs/1904.09751
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from modkit.decodings.categorical import sample_categorical, truncate
from modkit.kinds import Predict
from modkit.precision import widen_fully
from modkit.rng import Rng
from modkit.samplers.sampling import report_step
from modkit.types import NonNegativeFloat, PositiveInt, Range, TensorType, checked

__all__ = ["Raster"]


@checked
class Raster:
    """Ancestral sampling of codes; with the defaults, from the distribution of the model.

    Args:
        codes: Type of the codes.
        temperature: Divisor of the logits. Values below 1 favour likely codes; 0 takes the most likely one.
        top_k: Number of most likely codes to draw from; all by default.
        top_p: Share of the probability, in (0, 1], to draw from: the smallest set of most likely codes that holds it.

    Raises:
        ValueError: If a number is out of range.

    Examples:
        >>> decoding = Raster(TensorType((2, 2), classes=3), temperature=0)
        >>> count_up = lambda codes, i: torch.eye(3)[torch.full((len(codes),), i % 3)]
        >>> decoding(count_up, 1, Rng(0))
        tensor([[0, 1, 2, 0]])
    """

    causal = True

    def __init__(
        self,
        codes: TensorType,
        *,
        temperature: NonNegativeFloat = 1.0,
        top_k: PositiveInt | None = None,
        top_p: Annotated[float, Range(above=0, high=1)] = 1.0,
    ) -> None:
        self.num, self.shape = codes.numel, codes.shape
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p

    def __call__(self, predict: Predict, num: int, rng: Rng) -> Tensor:
        """Draws codes `b n`, one position at a time."""
        codes = torch.zeros(num, self.num, dtype=torch.int64)
        uniform = rng.uniform("codes", torch.empty(num, self.num))
        for i in range(self.num):
            logits = widen_fully(predict(codes, i))
            if i == 0:
                codes, uniform = codes.to(logits.device), uniform.to(logits.device)
            before = codes.clone()
            codes[:, i] = self._draw(logits, uniform[:, i])
            report_step(rng, i, self.num, before.view(num, *self.shape))
        return codes

    def _draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        if self.temperature == 0:
            return logits.argmax(-1)
        probabilities = (logits / self.temperature).softmax(-1)
        return sample_categorical(truncate(probabilities, self.top_k, self.top_p), uniform)
