r"""A weight that rises from nothing and falls back to it, again and again.

    weight = value min(1, u / rise),    u = (step mod period) / period

A weight multiplies a loss term; it is told the term's name when it is built, and at each step the losses and the
parameter that makes the player's output, for weights that look at gradients (`modkit.kinds.Weight`).
"""

from collections.abc import Mapping

from torch import Tensor

__all__ = ["Cyclic"]


class Cyclic:
    """Rises over a part of each period and stays: cyclical annealing of a KL term.

    References:
        Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing (Fu et al., 2019), eq. 6 and 7,
        https://arxiv.org/abs/1903.10145

    Args:
        value: The weight once it has risen.
        period: Steps from one start to the next.
        rise: Part of a period that it takes to rise, in (0, 1].

    Raises:
        ValueError: If `period` is below 1 or `rise` out of range.
    """

    def __init__(self, *, value: float = 1.0, period: int = 500, rise: float = 0.5) -> None:
        if period < 1 or not 0 < rise <= 1:
            raise ValueError(f"Cyclic expects period >= 1 and rise in (0, 1], got {period} and {rise}")
        self.value, self.period, self.rise = value, period, rise

    def __call__(self, step: int, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> float:
        """The weight at `step`."""
        return self.value * min(1.0, step % self.period / self.period / self.rise)
