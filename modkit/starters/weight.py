r"""A weight that rises from zero in each of many periods.

    weight = value min(1, u / rise),    u = (step mod period) / period

A weight multiplies a loss term. At each step it gets the losses and the parameter that computes the player's output,
for weights that depend on gradients (`modkit.kinds.Weight`).
"""

from collections.abc import Mapping
from typing import Annotated

from torch import Tensor

from modkit.kinds import Step
from modkit.types import PositiveInt, Range, checked

__all__ = ["Cyclic"]


@checked
class Cyclic:
    """Rises during a part of each period, then stays constant: cyclical annealing of a KL term.

    References:
        Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing (Fu et al., 2019), eq. 6 and 7,
        https://arxiv.org/abs/1903.10145

    Args:
        value: The weight after the rise.
        period: Number of steps in a period.
        rise: Fraction of a period that the rise takes, in (0, 1].

    Raises:
        ValueError: If `period` is below 1 or `rise` out of range.
    """

    def __init__(
        self, *, value: float = 1.0, period: PositiveInt = 500, rise: Annotated[float, Range(above=0, high=1)] = 0.5
    ) -> None:
        self.value, self.period, self.rise = value, period, rise

    def __call__(self, step: Step, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> float:
        """Returns the weight at `step`."""
        return self.value * min(1.0, step.index % self.period / self.period / self.rise)
