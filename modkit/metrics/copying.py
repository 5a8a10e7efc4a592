r"""Copying: whether samples lie closer to the training set than held-out images do.

    copying = P(d(fake) < d(real)) - P(d(fake) > d(real)),   d(x) = min_t |x - t| over the training set

This is the Mann-Whitney statistic of the two sets of distances, centred: 0 for held-out images and 1 for copies. If a
share s of the samples are copies, it rises by about s. Below 0, samples are farther from the training set than held-out
images.

Shape letters: b batch, n m samples, d features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.metrics.halves import SPLITS, count_smallest_half, estimate_error
from modkit.metrics.neighbours import compute_radii, prepare_points
from modkit.metrics.store import StoredMetric, Stores
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["Copying"]


class Copying(StoredMetric):
    """How much closer samples are to the training images than held-out images are, in [-1, 1].

    It is 0 for held-out images and 1 for copies. The error is estimated from balanced half-samples of the three sets.

    References:
        A Non-Parametric Test to Detect Data-Copying in Generative Models (Meehan et al., 2020), section 3,
        https://arxiv.org/abs/2004.05675

    Examples:
        >>> train = torch.tensor([[0.0], [10.0]])
        >>> Copying().compute(real=train + 1, fake=train, train=train)["copying"].value
        1.0
    """

    sets = ("real", "fake", "train")
    better = None  # neither closer nor farther than held-out images

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """Computes the score `copying`; `rng` is not used."""
        rows = self.rows(state)
        sets = prepare_points(state["fake"].device, **rows)
        nearest = {name: compute_radii(sets[name], [1], of=sets["train"])[1] for name in ("real", "fake")}
        value = _compare_distances(nearest["real"][:, 0], nearest["fake"][:, 0])
        error = None
        if min(count_smallest_half(each.sides) for each in sets.values()):
            pairs = []
            for column in range(1, SPLITS + 1):
                halves = [
                    [each[sets[name].sides[:, column] == side, column] for name, each in nearest.items()]
                    for side in (True, False)
                ]
                pairs.append((_compare_distances(*halves[0]), _compare_distances(*halves[1])))
            error = estimate_error(pairs)
        counts = {name: len(each.sides) for name, each in sets.items()}
        return {"copying": Score(value, error, self.better, counts)}


def _compare_distances(real: Tensor, fake: Tensor) -> float:
    """P(fake < real) - P(fake > real)."""
    ordered = real.sort().values
    fake = fake.contiguous()
    below = torch.searchsorted(ordered, fake)
    above = len(ordered) - torch.searchsorted(ordered, fake, right=True)
    return float((above - below).double().mean() / len(ordered))
