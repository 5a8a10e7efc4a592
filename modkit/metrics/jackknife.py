r"""Standard errors by the delete-a-group jackknife, over groups of samples of any size.

    tau_g = h_g theta - (h_g - 1) theta_(g),   h_g = n / n_g
    theta_J = G theta - sum_g (1 - n_g / n) theta_(g)
    var theta = 1/G sum_g (tau_g - theta_J)^2 / (h_g - 1)

A sample's group is a hash of its index, so it is the same in any order, batch or process, and does not depend on how a
data set is ordered (by class, say). The weights remove a bias of order 1/n, which groups of different sizes would
otherwise turn into error. A bootstrap is unsuitable: it makes points their own neighbours.

References:
    Delete-m Jackknife for Unequal m (Busing et al., 1999), eq. 4-7, https://doi.org/10.1023/A:1008800423698
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["assign_groups", "compute_variance", "jackknife_variance", "standard_error"]

_MIX = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)  # SplitMix64's multipliers as signed numbers
_STEP = 0x9E3779B97F4A7C15 - 2**64


def assign_groups(indices: Tensor, num: int) -> Tensor:
    """Assigns each sample to a group in [0, num) by a hash (SplitMix64) of its index; int64, shape of `indices`."""
    x: Tensor = (indices.detach().to("cpu", torch.int64) + 1) * _STEP
    for shift, factor in zip((30, 27), _MIX, strict=True):
        x = (x ^ _shift_right(x, shift)) * factor
    return _shift_right(x ^ _shift_right(x, 31), 33) % num


def jackknife_variance(value: float, left_out: Sequence[float], sizes: Sequence[int]) -> float | None:
    """Estimates the variance of a statistic of one set of samples; variances over independent sets add.

    Args:
        value: The statistic, of all samples.
        left_out: For each group, the statistic of all samples outside it.
        sizes: For each group, its number of samples, at least 1.

    Returns:
        The variance, or None if there are fewer than two groups.

    Raises:
        ValueError: If the numbers differ or a group is empty.

    Examples:
        The mean of 0 and 2, whose standard error is 1:

        >>> jackknife_variance(1.0, [2.0, 0.0], [1, 1])
        1.0
    """
    if len(left_out) != len(sizes) or any(size < 1 for size in sizes):
        received = f"{len(left_out)} values and sizes {list(sizes)}"
        raise ValueError(f"jackknife_variance expects a value for each non-empty group, got {received}")
    if len(sizes) < 2:
        return None
    total = sum(sizes)
    changes = [left - value for left in left_out]  # zeros, and no rounding, where all values are the same
    centre = sum((1 - size / total) * change for change, size in zip(changes, sizes, strict=True))
    terms = []
    for change, size in zip(changes, sizes, strict=True):
        h = total / size
        terms.append((centre - (h - 1) * change) ** 2 / (h - 1))
    return sum(terms) / len(terms)


def compute_variance(value: float, without: Callable[[int], float], sizes: Iterable[int]) -> float | None:
    """Computes the jackknife's variance from `without(g)`, the statistic of all samples outside a group.

    Groups without samples are skipped; the variance is None if fewer than two are left, or if the statistic is not
    finite without one of them.
    """
    present = {group: size for group, size in enumerate(sizes) if size}
    left_out = [without(group) for group in present] if len(present) > 1 else []
    known = left_out and all(map(math.isfinite, left_out))
    return jackknife_variance(value, left_out, list(present.values())) if known else None


def standard_error(*variances: float | None) -> float | None:
    """The square root of the sum of independent variances, or None if one is unknown."""
    known = [one for one in variances if one is not None]
    return math.sqrt(sum(known)) if len(known) == len(variances) else None


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of signed words."""
    return (x >> bits) & (2 ** (64 - bits) - 1)
