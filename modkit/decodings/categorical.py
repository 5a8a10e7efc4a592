r"""Draws of categories: the inverse of their distribution function at a uniform number.

    c(u) = the first k with p_0 + ... + p_k > u

One uniform number a draw, classes in their own order, so that rounding seldom changes what is drawn.

Shape letters: k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sample_categorical", "truncate"]


def sample_categorical(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draws a class for each row of `probabilities`, `... k`, at `uniform`, `...` in [0, 1); int64, `...`.

    Rows need not sum to one; a class of probability 0 is never drawn.
    """
    cumulative = probabilities.double().cumsum(-1)
    height = uniform.double()[..., None] * cumulative[..., -1:]
    drawn: Tensor = torch.searchsorted(cumulative, height, right=True)[..., 0]
    return drawn.clamp_max(probabilities.shape[-1] - 1)


def truncate(probabilities: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Probabilities `... k` with what is unlikely set to 0; the rest is left as it is.

    Kept are the `top_k` likeliest classes and, of those, the fewest likeliest that hold `top_p` of their mass; of
    equals the first.

    References:
        The Curious Case of Neural Text Degeneration (Holtzman et al., 2020), section 3.1,
        https://arxiv.org/abs/1904.09751
    """
    if top_k is None and top_p == 1:
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[..., top_k:] = 0
    before = ordered.cumsum(-1) - ordered
    keep = before < top_p * ordered.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, ordered * keep)
