r"""Maximum mean discrepancy between two sets, squared: kernel distances.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)         x, x' of one set, y, y' of the other; x' is never x
    KD:  k(x, y) = (x . y / d + 1)^3, a mean over random subsets
    MMD: k(x, y) = mean_s exp(-|x - y|^2 / (2 s^2)), over all pairs

Shape letters: b batch, n m samples, d features.

References:
    Demystifying MMD GANs (Bińkowski et al., 2018), section 4, https://arxiv.org/abs/1801.01401
    A Kernel Two-Sample Test (Gretton et al., 2012), eq. 3 and 5, https://jmlr.org/papers/v13/gretton12a.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from modkit.metrics.jackknife import assign_groups
from modkit.metrics.pair_sums import PairSums, average_scores
from modkit.metrics.store import Rows, StoredMetric, Stores
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["CMMD", "MMD", "KernelDistance", "kernel_distance"]

_GROUPS = 10
_MEDIAN_OF = 1000  # samples of each set that the median distance is taken over


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """The unbiased squared MMD with the kernel (x . y / d + 1)^3: KID's of one pair of subsets, `n d` and `m d`.

    Raises:
        ValueError: If shapes don't fit or a set has fewer than two samples.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or min(len(real), len(fake)) < 2:
        received = f"{tuple(real.shape)} and {tuple(fake.shape)}"
        raise ValueError(f"kernel_distance expects shapes (n, d), (m, d) with n, m of at least 2, got {received}")
    one = torch.zeros(len(real), dtype=torch.int64), torch.zeros(len(fake), dtype=torch.int64)
    return PairSums.of(_polynomial, (real, one[0]), (fake, one[1]), groups=1).distance()


class KernelDistance(StoredMetric):
    """Squared MMD with a cubic kernel, a mean over random subsets: KID where the features are Inception's.

    Unbiased for any number of samples. Its error is the delete-a-group jackknife's of that mean.

    References:
        Demystifying MMD GANs (Bińkowski et al., 2018), section 4, https://arxiv.org/abs/1801.01401

    Args:
        num_subsets: Number of pairs of subsets, each drawn without replacement; one where they would be the whole sets.
        subset_size: Samples of each set in a subset; at most those there are.

    Raises:
        ValueError: If there is no subset, or it has fewer than two samples.
    """

    better: Literal["lower"] = "lower"

    def __init__(self, *, num_subsets: int = 100, subset_size: int = 1000) -> None:
        if num_subsets < 1 or subset_size < 2:
            received = f"{num_subsets}, {subset_size}"
            raise ValueError(f"KernelDistance expects num_subsets >= 1 and subset_size >= 2, got {received}")
        self.num_subsets, self.subset_size = num_subsets, subset_size

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """The score `KD`.

        Raises:
            ValueError: If a set has fewer than two samples.
        """
        sides = self.rows(state)
        counts = {name: len(indices) for name, (indices, _) in sides.items()}
        size = min(self.subset_size, *counts.values())
        num = 1 if size == max(counts.values()) else self.num_subsets
        sums = []
        for subset in range(num):
            drawn = [_draw_subset(rng.rows(subset), name, *sides[name], size) for name in self.sets]
            sums.append(PairSums.of(_polynomial, *drawn, groups=_GROUPS))
        settings = {"num_subsets": num, "subset_size": size}
        return {"KD": average_scores(sums, counts, settings, unbiased=True)}


class MMD(StoredMetric):
    """Squared MMD with Gaussian kernels over all pairs: for points of few dimensions.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012), eq. 3 and 5, https://jmlr.org/papers/v13/gretton12a.html

    Args:
        of: What is compared: `points` or `features`.
        bandwidths: Standard deviations s of the kernels; None: one, the median distance between samples of both sets.
        unbiased: Leave out the pairs of a sample with itself; then a score may be below zero.

    Raises:
        ValueError: If a bandwidth is not positive or there is none.
    """

    better: Literal["lower"] = "lower"

    def __init__(
        self,
        *,
        of: Literal["points", "features"] = "points",
        bandwidths: list[float] | None = None,
        unbiased: bool = True,
    ) -> None:
        if bandwidths is not None and not (bandwidths and all(s > 0 for s in bandwidths)):
            raise ValueError(f"{type(self).__name__} expects positive bandwidths, got {bandwidths}")
        if of not in ("points", "features"):
            raise ValueError(f"{type(self).__name__} expects of 'points' or 'features', got {of!r}")
        self.needs = (of,)
        self.bandwidths, self.unbiased = bandwidths, unbiased

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """The score `MMD`.

        Raises:
            ValueError: If a set has fewer than two samples, or most are the same and no bandwidth is given.
        """
        sides = self.rows(state)
        bandwidths = self.bandwidths or [_median(sides, rng)]
        return {"MMD": _gaussian_score(sides, bandwidths, unbiased=self.unbiased)}


class CMMD(StoredMetric):
    """A thousand times the squared MMD of normalised features with one Gaussian kernel: CMMD where they are CLIP's.

    References:
        Rethinking FID: Towards a Better Evaluation Metric for Image Generation (Jayasumana et al., 2024), section 4,
        https://arxiv.org/abs/2401.09603

    Args:
        bandwidth: Standard deviation of the kernel.
        unbiased: Leave out the pairs of a sample with itself; the authors keep them.

    Raises:
        ValueError: If the bandwidth is not positive.
    """

    better: Literal["lower"] = "lower"

    def __init__(self, *, bandwidth: float = 10.0, unbiased: bool = False) -> None:
        if not bandwidth > 0:
            raise ValueError(f"CMMD expects a positive bandwidth, got {bandwidth}")
        self.bandwidth, self.unbiased = bandwidth, unbiased

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """The score `CMMD`; draws nothing.

        Raises:
            ValueError: If a set has fewer than two samples.
        """
        sides = {name: (indices, normalize(values.double())) for name, (indices, values) in self.rows(state).items()}
        return {"CMMD": _gaussian_score(sides, [self.bandwidth], unbiased=self.unbiased, scale=1000.0)}


def _draw_subset(rng: Rng, name: str, indices: Tensor, values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """`size` samples without replacement: their values and groups."""
    chosen = rng.uniform(name, torch.empty(1, len(indices)))[0].argsort(stable=True)[:size]
    return values[chosen], assign_groups(indices[chosen], _GROUPS)


def _gaussian_score(sides: Mapping[str, Rows], bandwidths: list[float], *, unbiased: bool, scale: float = 1.0) -> Score:
    pairs = {name: (values, assign_groups(indices, _GROUPS)) for name, (indices, values) in sides.items()}
    sums = PairSums.of(partial(_gaussian, bandwidths), pairs["real"], pairs["fake"], groups=_GROUPS)
    counts = {name: len(indices) for name, (indices, _) in sides.items()}
    settings = {"bandwidths": bandwidths, "unbiased": unbiased}
    return average_scores([sums], counts, settings, unbiased=unbiased, scale=scale)


def _median(sides: Mapping[str, Rows], rng: Rng) -> float:
    """The median distance between some samples of both sets."""
    few = []
    for name, (_, values) in sides.items():
        order = rng.uniform(f"median/{name}", torch.empty(1, len(values)))[0].argsort(stable=True)
        few.append(values[order[:_MEDIAN_OF]].double())
    median = float(torch.pdist(torch.cat(few)).median())
    if median == 0:
        raise ValueError("MMD expects bandwidths where most samples are the same, got none")
    return median


def _polynomial(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _gaussian(bandwidths: Sequence[float], x: Tensor, y: Tensor) -> Tensor:
    centre = y.mean(0)  # a large mean would cost digits of the difference below
    x, y = x - centre, y - centre
    squared = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp_min_(0)
    kernel = torch.zeros_like(squared)
    for s in bandwidths:
        kernel += torch.exp(squared / (-2 * s**2))
    return kernel / len(bandwidths)
