r"""The distance between the mean of the samples and the mean of the data.

    mean gap = |mean_i f(fake_i) - mean_i f(real_i)|        f are the features

A metric states in `needs` which values it takes and in `sets` from which sets of samples. It keeps a state that
processes can merge (`modkit.kinds.Metric`). A score records the counts that it depends on and which direction is
better.

Shape letters: b batch, d features.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit import Rng, Score

__all__ = ["MeanGap", "Sums"]


class Sums(NamedTuple):
    """The state for one set.

    Args:
        num: Number of samples.
        total: Sum of their features, `d`, float64; of shape `()` without samples.
    """

    num: int
    total: Tensor


class MeanGap:
    """Computes the distance between two means; it ignores all other differences but needs few samples.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012), section 2.2, with a linear kernel,
        https://jmlr.org/papers/v13/gretton12a.html
    """

    needs: tuple[str, ...] = ("features",)
    sets: tuple[str, ...] = ("real", "fake")
    better: Literal["lower", "higher"] | None = "lower"

    def init(self) -> dict[str, Sums]:
        """Returns the state without samples."""
        return {side: Sums(0, torch.zeros((), dtype=torch.float64)) for side in self.sets}

    def update(
        self, state: dict[str, Sums], set: str, values: Mapping[str, Tensor], indices: Tensor
    ) -> dict[str, Sums]:
        """Adds samples of a set to the state: `features`, `b d`."""
        features = values["features"].double().cpu()
        more = Sums(len(features), features.sum(0))
        return {**state, set: _add(state[set], more)}

    def merge(self, a: dict[str, Sums], b: dict[str, Sums]) -> dict[str, Sums]:
        """Merges two states."""
        return {side: _add(a[side], b[side]) for side in self.sets}

    def result(self, state: dict[str, Sums], rng: Rng) -> dict[str, Score]:
        """Computes the score `mean gap`; draws nothing.

        Raises:
            ValueError: If a set has no samples.
        """
        counts = {side: state[side].num for side in self.sets}
        if not all(counts.values()):
            raise ValueError(f"MeanGap expects samples of both sets, got {counts}")
        real, fake = (state[side].total / state[side].num for side in self.sets)
        gap = float(torch.linalg.vector_norm(fake - real))
        return {"mean gap": Score(gap, better=self.better, counts=counts)}


def _add(a: Sums, b: Sums) -> Sums:
    return Sums(a.num + b.num, a.total + b.total)
