r"""Times spread evenly over a batch, which lowers the variance of the loss.

    u_i = (u + 0.b_0 b_1 b_2 ...) mod 1,    i = ... b_2 b_1 b_0 in binary,    u ~ U(0, 1), one for the batch

The digits of a row's number behind the point, lowest first, are van der Corput's sequence. Its first b = 2^k terms are
i / b in another order, so that the u_i are those of VDM, (u + i / b) mod 1, and it needs no b: row i has its time
however a batch is divided among processes and microbatches, each of which has times that are spread as well.

Shape letters: b batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.kinds import Schedule, Slot, Times, TimesExtras, default, read_extras
from modkit.parts.filling import fill_slot
from modkit.rng import Key, Rng
from modkit.types import TensorType

__all__ = ["LowDiscrepancy"]


class LowDiscrepancy:
    """Draws the times of another distribution, spread evenly over its quantiles.

    Each time is distributed as before, and so are the times of one row over steps. The mean of b uniform times, b a
    power of two, has the variance 1 / (12 b^2) in place of 1 / (12 b).

    References:
        Variational Diffusion Models (Kingma et al., 2021), appendix I.1, https://arxiv.org/abs/2107.00630

    Args:
        schedule: The schedule.
        x: Type of the data.
        times: The distribution of a time.

    Examples:
        >>> from modkit.diffusion.schedules import Cosine
        >>> from modkit.diffusion.time_sampling import Uniform
        >>> t = LowDiscrepancy(Cosine(num=4), times=Uniform)(4, Rng(0))
        >>> t.sort().values
        tensor([0.2500, 0.5000, 0.7500, 1.0000], dtype=torch.float64)
    """

    def __init__(
        self, schedule: Schedule, x: TensorType | None = None, *, times: Slot[Times] = default("uniform")
    ) -> None:
        self.times: Times = fill_slot("times", times, schedule=schedule, x=x)
        self.even = read_extras(self.times, TimesExtras).even

    def __call__(self, num: int, rng: Rng) -> Tensor:
        """Draws `num` times, `b`, float64."""
        return self.times(num, _Spread(rng))


class _Spread(Rng):
    """A source whose draws are spread evenly over the rows of each name."""

    def __init__(self, rng: Rng) -> None:
        super().__init__(source=rng)

    def _derive(self, key: Key, first: int) -> Rng:
        return _Spread(super()._derive(key, first))

    def normal(self, name: str, like: Tensor) -> Tensor:
        drawn: Tensor = torch.special.ndtri(self._spread(name, like))
        return drawn.to(like)

    def uniform(self, name: str, like: Tensor) -> Tensor:
        return self._spread(name, like).to(like)

    def integers(self, name: str, like: Tensor, low: int, high: int) -> Tensor:
        return (low + (high - low) * self._spread(name, like)).floor().to(like.device, torch.int64)

    def _spread(self, name: str, like: Tensor) -> Tensor:
        """Draws from (0, 1), `b ...`, float64; the columns have shifts of their own."""
        one = torch.empty(1, *like.shape[1:], dtype=torch.float64, device="cpu")
        shift = self.replay().rows(-self.first).uniform(name, one) + 2**-25  # half a step of its grid: never 0
        rows = torch.arange(self.first, self.first + len(like), device="cpu")
        return (shift + _compute_radical_inverse(rows).view(-1, *[1] * (like.ndim - 1))) % 1


def _compute_radical_inverse(numbers: Tensor) -> Tensor:
    """Mirrors whole numbers below 2^32 at the binary point: float64 in [0, 1)."""
    bits = torch.arange(32, device=numbers.device)
    return ((numbers[:, None] >> bits & 1) * 2.0 ** -(bits + 1).double()).sum(1)
