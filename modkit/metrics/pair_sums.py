r"""Sums of a kernel over pairs of samples, from which a squared MMD follows with or without any group of samples.

    MMD^2 = sum_{i != j} k(x_i, x_j) / (n (n - 1)) + the same of y - 2 sum_{ij} k(x_i, y_j) / (n m)      unbiased
    MMD^2 = sum_{ij} k(x_i, x_j) / n^2 + the same of y - 2 sum_{ij} k(x_i, y_j) / (n m)                  biased

Kernels are computed in float64 and in tiles, so memory is linear in n. Sums are stored for each pair of groups, from
which the jackknife's errors follow at no further cost.

Shape letters: n m samples, d features, g groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from modkit.metrics.jackknife import compute_variance, standard_error
from modkit.types import Score

__all__ = ["Kernel", "PairSums", "average_scores"]

_TILE = 2**24  # entries of a kernel in memory: 128 MB

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Computes the kernel, `n m`, of values `n d` and `m d`."""


class PairSums(NamedTuple):
    """Sums of a kernel over the pairs of samples of two sets, by the samples' groups."""

    real: Tensor  # g g, without the pairs of a sample with itself
    fake: Tensor  # g g
    cross: Tensor  # g g
    own: tuple[Tensor, Tensor]  # g, only the pairs of a sample with itself
    counts: tuple[Tensor, Tensor]  # g

    @classmethod
    def from_sets(
        cls, kernel: Kernel, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], *, groups: int
    ) -> PairSums:
        """Computes the sums of two sets, each given by values, `n d`, and their groups, `n`."""
        x, y = real[0].detach().to("cpu", torch.float64), fake[0].detach().to("cpu", torch.float64)
        one_x, one_y = (one_hot(group, groups).double() for group in (real[1], fake[1]))
        within_x, own_x = _sum_blocks(kernel, (x, one_x), (x, one_x), same=True)
        within_y, own_y = _sum_blocks(kernel, (y, one_y), (y, one_y), same=True)
        cross, _ = _sum_blocks(kernel, (x, one_x), (y, one_y), same=False)
        return cls(within_x, within_y, cross, (own_x, own_y), (one_x.sum(0), one_y.sum(0)))

    def compute_distance(
        self, *, without: tuple[int | None, int | None] = (None, None), unbiased: bool = True
    ) -> float:
        """The squared MMD, without one group of the real and one of the fake samples; NaN if too few are left."""
        keep = [torch.ones_like(counts) for counts in self.counts]
        for mask, group in zip(keep, without, strict=True):
            if group is not None:
                mask[group] = 0
        sizes = [float(mask @ counts) for mask, counts in zip(keep, self.counts, strict=True)]
        if min(sizes) < 2:
            return math.nan
        value = -2 * float(keep[0] @ self.cross @ keep[1]) / (sizes[0] * sizes[1])
        for sums, own, mask, size in zip((self.real, self.fake), self.own, keep, sizes, strict=True):
            pairs = float(mask @ sums @ mask)
            value += pairs / (size * (size - 1)) if unbiased else (pairs + float(mask @ own)) / size**2
        return value


def average_scores(
    sums: Sequence[PairSums],
    counts: Mapping[str, int],
    settings: Mapping[str, object],
    *,
    unbiased: bool,
    scale: float = 1.0,
) -> Score:
    """Averages the squared MMD over subsets, times `scale`, with its jackknife error over both sets."""

    def mean(real: int | None = None, fake: int | None = None) -> float:
        return sum(one.compute_distance(without=(real, fake), unbiased=unbiased) for one in sums) / len(sums)

    value = mean()
    variances = []
    for side in (0, 1):
        uses = torch.stack([one.counts[side] for one in sums]).sum(0).long().tolist()
        variances.append(compute_variance(value, mean if side == 0 else partial(mean, None), uses))
    error = standard_error(*variances)
    error = None if error is None else error * scale
    return Score(value * scale, error, "lower", dict(counts), settings=dict(settings))


def _sum_blocks(
    kernel: Kernel, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], *, same: bool
) -> tuple[Tensor, Tensor]:
    """Sums by pair of groups, and of samples with themselves by group, from values and one-hot groups."""
    (x, one_x), (y, one_y) = a, b
    sums, own = x.new_zeros(one_x.shape[1], one_y.shape[1]), x.new_zeros(one_x.shape[1])
    rows = max(1, _TILE // len(y))
    for first in range(0, len(x), rows):
        tile, groups = kernel(x[first : first + rows], y), one_x[first : first + rows]
        if same:
            diagonal = tile.diagonal(first)
            own += groups.T @ diagonal
            diagonal.zero_()
        sums += groups.T @ (tile @ one_y)
    return sums, own
