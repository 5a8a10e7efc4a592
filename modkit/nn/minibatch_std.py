r"""Minibatch standard deviation: how much a group of samples differs, as a feature of each of them.

    s_g = mean over c, h, w of sqrt(var_{i in g} x_{i c h w} + 1e-8)                (biased variance)

A batch of b = m n + r samples has m groups of n, of which the g-th holds the samples g, g + m, g + 2 m, ..., and the
last r samples are a group of their own. It looks across the batch: losses depend on how a batch is split.

Shape letters: b batch, c channels, h w spatial, n size of a group, m groups.

References:
    Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., 2018), section 3,
    https://arxiv.org/abs/1710.10196
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modkit.precision import widen

__all__ = ["MinibatchStd", "minibatch_std"]

_TINY = 1e-8  # in the square root, whose gradient at 0 is infinite


def minibatch_std(x: Tensor, group: int) -> Tensor:
    """The statistic of each sample's group.

    Args:
        x: Features, `b ...`; gradients flow to every sample of a group.
        group: Size n of a group, at least 1.

    Returns:
        One number a sample, `b`, float32 at least.
    """
    x, whole = widen(x), len(x) - len(x) % group
    return torch.cat([_deviation(x[:whole], group), _deviation(x[whole:], len(x) - whole)])


class MinibatchStd(nn.Module):
    """Adds the statistic to `x` as one more channel.

    Args:
        group: Size of a group.

    Raises:
        ValueError: If `group` is below 1.
    """

    def __init__(self, *, group: int = 4) -> None:
        super().__init__()
        if group < 1:
            raise ValueError(f"MinibatchStd expects group of at least 1, got {group}")
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to `b (c + 1) h w`."""
        std = minibatch_std(x, self.group).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        return torch.cat([x, std.expand(-1, 1, *x.shape[2:])], dim=1)


def _deviation(x: Tensor, group: int) -> Tensor:
    """The statistic of a batch of whole groups, `b`."""
    if not len(x):
        return x.new_empty(0)
    grouped = x.reshape(group, len(x) // group, -1)
    std = torch.sqrt(grouped.var(0, unbiased=False) + _TINY).mean(1)
    return std.repeat(group)
