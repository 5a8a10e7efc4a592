r"""Sampling from categorical distributions by inverting the cumulative distribution function.

    c(u) = the first k with p_0 + ... + p_k > u

Each draw uses one uniform number and keeps the order of the classes, so that rounding rarely changes the result.

Shape letters: k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.precision import widen_fully

__all__ = ["sample_categorical", "truncate"]


def sample_categorical(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draws a class for each row of `probabilities`, `... k`, given `uniform`, `...` in [0, 1); int64, `...`.

    Rows need not sum to one; a class of probability 0 is never drawn.

    Examples:
        >>> sample_categorical(torch.tensor([0.5, 0.0, 0.5]), torch.tensor(0.7))
        tensor(2)
    """
    cumulative = widen_fully(probabilities).cumsum(-1)
    height = widen_fully(uniform)[..., None] * cumulative[..., -1:]
    drawn: Tensor = torch.searchsorted(cumulative, height, right=True)[..., 0]
    return drawn.clamp_max(probabilities.shape[-1] - 1)


def truncate(probabilities: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Sets the probabilities `... k` of unlikely classes to 0; the others are not rescaled.

    The `top_k` most likely classes are kept and, of these, the smallest set of most likely classes that holds `top_p`
    of their mass. Of equally likely classes the first are kept.

    References:
        The Curious Case of Neural Text Degeneration (Holtzman et al., 2020), section 3.1,
        https://arxiv.org/abs/1904.09751

    Examples:
        >>> truncate(torch.tensor([0.5, 0.3, 0.2]), top_k=2, top_p=1.0)
        tensor([0.5000, 0.3000, 0.0000])
    """
    if top_k is None and top_p == 1:
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[..., top_k:] = 0
    before = ordered.cumsum(-1) - ordered
    keep = before < top_p * ordered.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, ordered * keep)
