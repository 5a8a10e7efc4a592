r"""Mean and covariance of a stream, in float64 and O(d^2) memory, mergeable from any split.

    m = mean x,   S = sum (x - m)(x - m)^T,   C = S / (n - 1)
    S_ab = S_a + S_b + (m_b - m_a)(m_b - m_a)^T n_a n_b / (n_a + n_b)

Each batch is centred before it is squared, so that a large mean costs no precision (with raw sums in float32 a
covariance may be wrong by 5 %).

Shape letters: b batch, n samples, d features.

References:
    Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan et al., 1979), eq. 1.5,
    http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modkit.types import PositiveInt, checked

__all__ = ["Gaussian", "Moments"]

_SKEW = 1e-6  # relative rounding of float32 statistics


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean and covariance of a set, from which a Fréchet distance is computed.

    Args:
        mean: `d`, float64.
        covariance: `d d`, float64.
        count: Number of samples it was measured on, which bounds the rank of the covariance; None if unknown.
        origin: What it was computed of, see `modkit.evaluation.origins`; empty if unknown.

    Raises:
        ValueError: If shapes do not match, a value is not finite, or the covariance is not symmetric.

    Examples:
        >>> Gaussian(torch.zeros(2), torch.eye(2)).mean.dtype
        torch.float64
    """

    mean: Tensor
    covariance: Tensor
    count: int | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mean, covariance = self.mean, self.covariance
        if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
            received = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
            raise ValueError(f"Gaussian expects a mean of shape (d,) and a covariance of shape (d, d), got {received}")
        if not bool(torch.isfinite(mean).all() & torch.isfinite(covariance).all()):
            raise ValueError("Gaussian expects finite values, got NaN or infinity")
        skew = float((covariance - covariance.T).abs().max())
        if skew > _SKEW * float(covariance.abs().max()):
            raise ValueError(f"Gaussian expects a symmetric covariance, got entries that differ by {skew:g}")
        object.__setattr__(self, "mean", mean.to("cpu", torch.float64))
        object.__setattr__(self, "covariance", covariance.to("cpu", torch.float64))


@checked
class Moments:
    """Running moments of vectors, float64 on the CPU.

    Args:
        dim: Number d of features.

    Raises:
        ValueError: If `dim` is not positive.

    Examples:
        >>> moments = Moments.from_samples(torch.tensor([[0.0], [2.0]]))
        >>> moments = moments.merge(Moments.from_samples(torch.tensor([[4.0]])))
        >>> moments.count, moments.mean.item(), moments.covariance().item()
        (3, 2.0, 4.0)
    """

    def __init__(self, dim: PositiveInt) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)

    @classmethod
    def from_samples(cls, x: Tensor) -> Moments:
        """Computes the moments of `x`, `n d`."""
        _check(x, x.shape[-1] if x.ndim else 0)
        moments = cls(x.shape[1])
        moments.update(x)
        return moments

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Adds the rows of `x`, `b d`.

        Raises:
            ValueError: If the shape does not match or a value is not finite.
        """
        _check(x, len(self.mean))
        if not len(x):
            return
        x = x.detach().to("cpu", torch.float64)
        mean = x.mean(0)
        if not bool(torch.isfinite(mean).all()):
            raise ValueError("Moments expects finite values, got NaN or infinity")
        centred = x - mean
        self.scatter.addmm_(centred.T, centred)
        self._shift(len(x), mean)

    def merge(self, other: Moments) -> Moments:
        """Computes the moments of both sets of samples together; neither changes.

        Raises:
            ValueError: If the numbers of features differ.
        """
        if len(self.mean) != len(other.mean):
            raise ValueError(f"Moments.merge expects as many features, got {len(self.mean)} and {len(other.mean)}")
        merged = Moments(len(self.mean))
        merged.count, merged.mean, merged.scatter = self.count, self.mean.clone(), self.scatter + other.scatter
        merged._shift(other.count, other.mean)
        return merged

    def covariance(self) -> Tensor:
        """The unbiased covariance C, `d d`.

        Raises:
            ValueError: If there are fewer than two samples.
        """
        if self.count < 2:
            raise ValueError(f"Moments.covariance expects at least 2 samples, got {self.count}")
        return self.scatter / (self.count - 1)

    def to_gaussian(self) -> Gaussian:
        """Mean, covariance and count.

        Raises:
            ValueError: If there are fewer than two samples.
        """
        return Gaussian(self.mean, self.covariance(), self.count)

    def _shift(self, count: int, mean: Tensor) -> None:
        """Adds `count` samples around `mean`, whose scatter has been added already."""
        if count:
            total = self.count + count
            delta = mean - self.mean
            self.scatter.addr_(delta, delta, alpha=self.count * count / total)
            self.mean = self.mean + delta * (count / total)
            self.count = total


def _check(x: Tensor, dim: int) -> None:
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"Moments expects values of shape (b, {dim or 'd'}), got {tuple(x.shape)}")
