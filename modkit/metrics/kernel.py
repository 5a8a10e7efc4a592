r"""Maximum mean discrepancy between two sets, squared: kernel distances.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)         x and x' from one set, y and y' from the other; x' is never x
    KD:  k(x, y) = (x . y / d + 1)^3, a mean over random subsets
    MMD: k(x, y) = mean_s exp(-|x - y|^2 / (2 s^2)), over all pairs

Shape letters: b batch, n m samples, d features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from modkit.metrics.jackknife import assign_groups
from modkit.metrics.pair_sums import PairSums, average_scores
from modkit.metrics.store import Rows, StoredMetric, Stores
from modkit.rng import Rng
from modkit.types import PositiveFloat, PositiveInt, Range, Score, checked

__all__ = ["CMMD", "MMD", "KernelDistance", "kernel_distance"]

_GROUPS = 10
_MEDIAN_OF = 1000  # real samples that the median distance is taken over


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """Computes the unbiased squared MMD with the kernel (x . y / d + 1)^3, `n d` and `m d`: KID of one pair of subsets.

    Raises:
        ValueError: If shapes do not match or a set has fewer than two samples.

    Examples:
        Kernels are 1 within the zeros, 8 within the ones and 1 across: 1 + 8 - 2.

        >>> kernel_distance(torch.zeros(2, 1), torch.ones(2, 1))
        7.0
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or min(len(real), len(fake)) < 2:
        received = f"{tuple(real.shape)} and {tuple(fake.shape)}"
        raise ValueError(f"kernel_distance expects shapes (n, d), (m, d) with n, m of at least 2, got {received}")
    one = torch.zeros(len(real), dtype=torch.int64), torch.zeros(len(fake), dtype=torch.int64)
    return PairSums.from_sets(_apply_polynomial, (real, one[0]), (fake, one[1]), groups=1).compute_distance()


@checked
class KernelDistance(StoredMetric):
    """Squared MMD with a cubic kernel, the mean over random subsets; with Inception's features it is the KID.

    It is unbiased for any number of samples. The error is the delete-a-group jackknife's of that mean.

    References:
        Demystifying MMD GANs (Bińkowski et al., 2018), section 4, https://arxiv.org/abs/1801.01401

    Args:
        num_subsets: Number of pairs of subsets, each drawn without replacement. If subsets would be the whole sets,
            there is one.
        subset_size: Number of samples of each set in a subset; at most the whole set.

    Raises:
        ValueError: If there is no subset, or it has fewer than two samples.

    Examples:
        >>> KernelDistance().compute(real=torch.zeros(20, 1), fake=torch.ones(20, 1))["KD"].value
        7.0
    """

    better: Literal["lower", "higher"] = "lower"

    def __init__(self, *, num_subsets: PositiveInt = 100, subset_size: Annotated[int, Range(2)] = 1000) -> None:
        self.num_subsets, self.subset_size = num_subsets, subset_size

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """Computes the score `KD`; `rng` draws the subsets."""
        sides = self.rows(state)
        counts = {name: len(indices) for name, (indices, _) in sides.items()}
        size = min(self.subset_size, *counts.values())
        num = 1 if size == max(counts.values()) else self.num_subsets
        sums = []
        for subset in range(num):
            drawn = [_draw_subset(rng.rows(subset), name, *sides[name], size) for name in self.sets]
            sums.append(PairSums.from_sets(_apply_polynomial, *drawn, groups=_GROUPS))
        settings = {"num_subsets": num, "subset_size": size}
        return {"KD": average_scores(sums, counts, settings, unbiased=True)}


@checked
class MMD(StoredMetric):
    """Squared MMD with Gaussian kernels over all pairs, for points of few dimensions.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012), eq. 3 and 5, https://jmlr.org/papers/v13/gretton12a.html

    Args:
        of: What is compared: `points` or `features`.
        bandwidths: Standard deviations s of the kernels; None is one kernel, whose s is the median distance between
            1,000 real samples, so that scores against the same real samples have the same kernel.
        unbiased: Whether to leave out the pairs of a sample with itself; the score may then be below zero.

    Raises:
        ValueError: If a bandwidth is not positive, the list is empty, or `of` is unknown.

    Examples:
        Kernels are 1 within each set and exp(-1/2) across:

        >>> scores = MMD(bandwidths=[1.0]).compute(real=torch.zeros(20, 1), fake=torch.ones(20, 1))
        >>> round(scores["MMD"].value, 6)
        0.786939
    """

    better: Literal["lower", "higher"] = "lower"

    def __init__(
        self,
        *,
        of: Literal["points", "features"] = "points",
        bandwidths: list[PositiveFloat] | None = None,
        unbiased: bool = True,
    ) -> None:
        if bandwidths == []:
            raise ValueError(f"{type(self).__name__} expects one bandwidth or more, got none")
        self.needs = (of,)
        self.bandwidths, self.unbiased = bandwidths, unbiased

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """Computes the score `MMD`; `rng` is not used.

        Raises:
            ValueError: If a set has fewer than two samples, or no bandwidth is given and most real samples are the
                same.
        """
        sides = self.rows(state)
        bandwidths = self.bandwidths or [_find_median(sides["real"])]
        return {"MMD": _score_gaussian(sides, bandwidths, unbiased=self.unbiased)}


@checked
class CMMD(StoredMetric):
    """1,000 times the squared MMD of normalised features with one Gaussian kernel; with CLIP's features it is CMMD.

    Between n samples each of the same distribution, the score is above zero by a bias that falls as 1/n and that the
    error does not include, so only scores of equally many samples can be compared; `unbiased` removes it.

    References:
        Rethinking FID: Towards a Better Evaluation Metric for Image Generation (Jayasumana et al., 2024), section 4,
        https://arxiv.org/abs/2401.09603

    Args:
        bandwidth: Standard deviation of the kernel.
        unbiased: Whether to leave out the pairs of a sample with itself; the authors keep them.

    Raises:
        ValueError: If the bandwidth is not positive.

    Examples:
        Opposite directions are 2 apart, so the kernel across is exp(-4 / 200):

        >>> x = torch.tensor([[1.0, 0.0]]).repeat(20, 1)
        >>> round(CMMD().compute(real=x, fake=-5 * x)["CMMD"].value, 6)
        39.602653
    """

    better: Literal["lower", "higher"] = "lower"

    def __init__(self, *, bandwidth: PositiveFloat = 10.0, unbiased: bool = False) -> None:
        self.bandwidth, self.unbiased = bandwidth, unbiased

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """Computes the score `CMMD`; `rng` is not used."""
        sides = {name: (indices, normalize(values.double())) for name, (indices, values) in self.rows(state).items()}
        return {"CMMD": _score_gaussian(sides, [self.bandwidth], unbiased=self.unbiased, scale=1000.0)}


def _draw_subset(rng: Rng, name: str, indices: Tensor, values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Draws `size` samples without replacement; returns their values and groups."""
    chosen = rng.uniform(name, torch.empty(1, len(indices)))[0].argsort(stable=True)[:size]
    return values[chosen], assign_groups(indices[chosen], _GROUPS)


def _score_gaussian(sides: Mapping[str, Rows], bandwidths: list[float], *, unbiased: bool, scale: float = 1.0) -> Score:
    pairs = {name: (values, assign_groups(indices, _GROUPS)) for name, (indices, values) in sides.items()}
    sums = PairSums.from_sets(partial(_apply_gaussian, bandwidths), pairs["real"], pairs["fake"], groups=_GROUPS)
    counts = {name: len(indices) for name, (indices, _) in sides.items()}
    settings = {"bandwidths": bandwidths, "unbiased": unbiased}
    return average_scores([sums], counts, settings, unbiased=unbiased, scale=scale)


def _find_median(real: Rows) -> float:
    """The median distance between random real samples, the same ones for each seed of an evaluation."""
    _, values = real
    order = Rng(0).uniform("median", torch.empty(1, len(values)))[0].argsort(stable=True)
    median = float(torch.pdist(values[order[:_MEDIAN_OF]].double()).median())
    if median == 0:
        raise ValueError("MMD expects `bandwidths` where most real samples are the same, got none")
    return median


def _apply_polynomial(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _apply_gaussian(bandwidths: Sequence[float], x: Tensor, y: Tensor) -> Tensor:
    centre = y.mean(0)  # a large mean would cost digits of the difference below
    x, y = x - centre, y - centre
    squared = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp_min_(0)
    kernel = torch.zeros_like(squared)
    for s in bandwidths:
        kernel += torch.exp(squared / (-2 * s**2))
    return kernel / len(bandwidths)
