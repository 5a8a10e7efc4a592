r"""A Gaussian model: every value of x has its own mean and standard deviation, learned by gradient descent.

    -log p(x) = 1/2 sum (((x - mean) / std)^2 + log (2 pi std^2))

A Model is a distribution over an event, together with the game that trains it (`modkit.Model`): players that own
modules, and named, unweighted losses for each player. This model fits any continuous tensor, alone or as the prior of
an autoencoder's latent.

Shape letters: b batch; all other axes are those of x.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modkit import Batch, Cond, CondType, Model, Player, Rng, Step, TensorType
from modkit.models import check_draws
from modkit.precision import widen
from modkit.types import PositiveFloat, checked

__all__ = ["Gaussian"]


@checked
class Gaussian(Model):
    """Models each value by an independent Gaussian.

    References:
        Pattern Recognition and Machine Learning (Bishop, 2006), section 2.3.4

    Args:
        x: Type of the data, continuous; samples are clamped to its range if it has one.
        cond: Conditions; must be empty.
        std: Initial standard deviation.

    Raises:
        ValueError: If `x` holds codes or is a hierarchy, there are conditions, or `std` is not positive.
    """

    def __init__(self, x: TensorType, cond: CondType, *, std: PositiveFloat = 1.0) -> None:
        super().__init__()
        if (reason := self.accepts(x)) is not None:
            raise ValueError(reason)
        if cond:
            raise ValueError(f"Gaussian expects no conditions, got {cond}")
        self.event = x
        self.density = _Density(x, std)

    def players(self) -> tuple[Player, ...]:
        """Returns the only player, `density`, which owns the means and standard deviations."""
        return (Player("density", ("density",)),)

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Returns `nll`, averaged over the batch and the values."""
        return {"nll": -self.density(batch.tensor).mean() / self.single.numel}

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Draws `num` samples."""
        x = self.density.mean + self.density.log_std.exp() * rng.normal("x", self.allocate(num, self.single))
        return x if self.single.range is None else x.clamp(*self.single.range)

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """Returns the exact log density in nats, `b`; nothing is drawn."""
        check_draws(self, num)
        log_p: Tensor = self.density(batch.tensor)
        return log_p


class _Density(nn.Module):
    """The trained parameters, in a module since players own modules."""

    def __init__(self, x: TensorType, std: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(x.shape))
        self.log_std = nn.Parameter(torch.full(x.shape, math.log(std)))

    def forward(self, x: Tensor) -> Tensor:
        """Computes the log density of x in nats, `b`."""
        error = widen(x - self.mean) * widen(-self.log_std).exp()
        return -(0.5 * error.square() + widen(self.log_std) + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)
