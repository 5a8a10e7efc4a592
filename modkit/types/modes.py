"""Modes: the true distribution of synthetic data.

Shape letters: k modes, d values of a sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Modes"]


class Modes(NamedTuple):
    """The true distribution of synthetic data: a mixture of equally likely isotropic Gaussians.

    Args:
        centers: Their means, `k d`.
        std: Their standard deviation.
    """

    centers: Tensor
    std: float
