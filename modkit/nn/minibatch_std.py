r"""Minibatch standard deviation: a feature that tells how much the samples of a group differ.

    s_g = mean over c, h, w of sqrt(var_{i in g} x_{i c h w} + 1e-8)                (biased variance)

A batch of b = m n + r samples has m groups of n samples; group g consists of the samples g, g + m, g + 2 m, ... The
last r samples form another group. The statistic depends on the whole batch, so losses depend on how a batch is split.

Shape letters: b batch, c channels, h w spatial, n size of a group, m groups.

References:
    Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., 2018), section 3,
    https://arxiv.org/abs/1710.10196
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from modkit.precision import widen
from modkit.types import PositiveInt, checked

__all__ = ["MinibatchStd", "minibatch_std"]

_TINY = 1e-8  # in the square root, whose gradient at 0 is infinite


def minibatch_std(x: Tensor, group: int) -> Tensor:
    """Computes the statistic of each sample's group.

    Args:
        x: Features, `b ...`; gradients flow to every sample of a group.
        group: Size n of a group, at least 1.

    Returns:
        One number per sample, `b`, in at least float32.

    Examples:
        >>> minibatch_std(torch.tensor([[1.0], [5.0], [3.0], [5.0]]), group=2)
        tensor([1.0000e+00, 1.0000e-04, 1.0000e+00, 1.0000e-04])
    """
    x, whole = widen(x), len(x) - len(x) % group
    return torch.cat([_compute_deviation(x[:whole], group), _compute_deviation(x[whole:], len(x) - whole)])


@checked
class MinibatchStd(nn.Module):
    """Appends the statistic to `x` as one more channel.

    Args:
        group: Size of a group.

    Raises:
        ValueError: If `group` is below 1.

    Examples:
        >>> MinibatchStd(group=2)(torch.zeros(4, 3, 8, 8)).shape
        torch.Size([4, 4, 8, 8])
    """

    def __init__(self, *, group: PositiveInt = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to `b (c + 1) h w`."""
        std = minibatch_std(x, self.group).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        return torch.cat([x, std.expand(-1, 1, *x.shape[2:])], dim=1)


def _compute_deviation(x: Tensor, group: int) -> Tensor:
    """Computes the statistic of a batch of complete groups, `b`."""
    if not len(x):
        return x.new_empty(0)
    grouped = rearrange(x, "(n m) ... -> n m (...)", n=group)
    std = torch.sqrt(grouped.var(0, unbiased=False) + _TINY).mean(1)
    return repeat(std, "m -> (n m)", n=group)
