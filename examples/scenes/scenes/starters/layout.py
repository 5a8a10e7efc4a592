"""A layout whose spread is learned.

    p(places) = N(0, std^2)

A layout takes the type of `places`. It provides the `loss`, the mean of -log p, and `draw` (`scenes.parts.Layout`).

Shape letters: b batch.
"""

import torch
from torch import Tensor, distributions, nn

from modkit import Rng, TensorType

__all__ = ["Spread"]


class Spread(nn.Module):
    """Places around the middle, as far from it as in the data.

    Args:
        places: Type of the places.
        std: Initial standard deviation.

    Raises:
        ValueError: If `std` is not positive.
    """

    def __init__(self, places: TensorType, *, std: float = 1.0) -> None:
        super().__init__()
        if std <= 0:
            raise ValueError(f"Spread expects std > 0, got {std}")
        self.std = nn.Parameter(torch.full(places.shape, std))

    def loss(self, places: Tensor) -> Tensor:
        """Computes the mean of -log p of places, `b ...`."""
        normal = distributions.Normal(torch.zeros_like(self.std), self.std.abs(), validate_args=False)
        return -normal.log_prob(places).flatten(1).sum(1).mean()

    def draw(self, num: int, rng: Rng) -> Tensor:
        """Draws places, `num ...`."""
        return self.std * rng.normal("places", self.std.new_empty(num, *self.std.shape))
