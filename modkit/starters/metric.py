r"""How far the mean of the samples is from that of the data.

    mean gap = |mean_i f(fake_i) - mean_i f(real_i)|        f the features

A metric says in `needs` what it is fed of the samples and in `sets` of which sets, and keeps a state that two processes
can merge (`modkit.kinds.Metric`). A score carries what it depends on: the counts, the direction that is better.

Shape letters: b batch, d features.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit import Rng, Score

__all__ = ["MeanGap", "Sums"]


class Sums(NamedTuple):
    """What is kept of a set.

    Args:
        num: Number of samples.
        total: Sum of their features, `d`, float64; `()` of none.
    """

    num: int
    total: Tensor


class MeanGap:
    """The distance between two means: blind to all else, but it needs few samples.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012), section 2.2, of a linear kernel,
        https://jmlr.org/papers/v13/gretton12a.html
    """

    needs: tuple[str, ...] = ("features",)
    sets: tuple[str, ...] = ("real", "fake")
    better: Literal["lower", "higher"] | None = "lower"

    def init(self) -> dict[str, Sums]:
        """No samples."""
        return {side: Sums(0, torch.zeros((), dtype=torch.float64)) for side in self.sets}

    def update(
        self, state: dict[str, Sums], set: str, values: Mapping[str, Tensor], indices: Tensor
    ) -> dict[str, Sums]:
        """The state with more samples of a set: `features`, `b d`."""
        features = values["features"].double().cpu()
        more = Sums(len(features), features.sum(0))
        return {**state, set: _added(state[set], more)}

    def merge(self, a: dict[str, Sums], b: dict[str, Sums]) -> dict[str, Sums]:
        """The state of both."""
        return {side: _added(a[side], b[side]) for side in self.sets}

    def result(self, state: dict[str, Sums], rng: Rng) -> dict[str, Score]:
        """The score `mean gap`; draws nothing.

        Raises:
            ValueError: If a set has no samples.
        """
        counts = {side: state[side].num for side in self.sets}
        if not all(counts.values()):
            raise ValueError(f"MeanGap expects samples of both sets, got {counts}")
        real, fake = (state[side].total / state[side].num for side in self.sets)
        gap = float(torch.linalg.vector_norm(fake - real))
        return {"mean gap": Score(gap, better=self.better, counts=counts)}


def _added(a: Sums, b: Sums) -> Sums:
    return Sums(a.num + b.num, a.total + b.total)
