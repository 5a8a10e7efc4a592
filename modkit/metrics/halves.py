r"""Standard errors from balanced half-samples, for scores of neighbours, whose errors a jackknife overestimates.

    var theta = mean_s (theta(A_s) - theta(B_s))^2 / 4,   where A_s and B_s are the halves of split s

Two halves share no sample, so half of each squared difference is, on average and for any score, the variance at n / 2
samples. Another half gives the variance at n, since variances fall as 1 / n. The splits divide 12 groups of samples by
the columns of a Hadamard matrix, so that any two groups are separated equally often, and the mean has the variance of
its group means.

Shape letters: n samples, g groups, s splits.

References:
    Pseudo-Replication: Half Samples (McCarthy, 1969), section 3, https://doi.org/10.2307/1402116
    The Design of Optimum Multifactorial Experiments (Plackett and Burman, 1946), section 5,
    https://doi.org/10.1093/biomet/33.4.305
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups

__all__ = ["SPLITS", "estimate_error", "compute_mean_and_error", "assign_sides", "count_smallest_half"]

SPLITS = 11

_SQUARES = {1, 3, 4, 5, 9}  # modulo 11
_SIDES = torch.tensor(
    [[True] * (SPLITS + 1)]
    + [[True, *((split - group) % SPLITS in _SQUARES for split in range(SPLITS))] for group in range(SPLITS)]
)
"""Paley's Hadamard matrix of order 12, `g s+1`; True stands for 1."""


def assign_sides(indices: Tensor) -> Tensor:
    """Assigns each sample to a half of each split by a hash of its index: bool, `n s+1`; column 0 is all True."""
    return _SIDES[assign_groups(indices, SPLITS + 1)]


def count_smallest_half(sides: Tensor) -> int:
    """Counts the samples in the smallest half of any split."""
    num = sides[:, 1:].sum(0)
    return int(torch.minimum(num, len(sides) - num).min())


def estimate_error(pairs: Sequence[tuple[float, float]]) -> float:
    """The standard error of a score, given its values on both halves of each split.

    Examples:
        >>> estimate_error([(1.0, 3.0), (2.0, 2.0)])
        0.7071067811865476
    """
    return math.sqrt(sum((a - b) ** 2 for a, b in pairs) / (4 * len(pairs)))


def compute_mean_and_error(each: Tensor, sides: Tensor) -> tuple[float, float]:
    """The mean over samples and its standard error, which is NaN if a half is empty.

    The values, `n s+1`, are computed among all samples in column 0, and in column 1 + s among those of the sample's
    half, which `sides` states, `n s+1`, from `assign_sides`.
    """
    each = each.double()
    first, second = ((each * half).sum(0) / half.sum(0) for half in (sides, ~sides))
    pairs = list(zip(first[1:].tolist(), second[1:].tolist(), strict=True))
    return float(first[0]), estimate_error(pairs)
