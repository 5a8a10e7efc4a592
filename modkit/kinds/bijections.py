"""Invertible maps, of which flows are made.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from modkit.types import Batch, Cond

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Bijection", "BijectionExtras"]


class Bijection(Protocol):
    """An invertible map of samples of type `x` to samples of the same shape, unbounded, given conditions.

    A flow calls it from data to noise, the posterior of a `gaussian` bottleneck from noise to the latent.
    """

    def __call__(self, x: Tensor, cond: Cond = Cond()) -> tuple[Tensor, Tensor]:
        """Computes y, and log|det dy/dx| in nats, `b`, in at least float32."""
        ...

    def inverse(self, y: Tensor, cond: Cond = Cond()) -> Tensor:
        """Computes the x that is mapped to `y` under the same conditions."""
        ...


@dataclass(frozen=True)
class BijectionExtras:
    """Optional members of a `Bijection`.

    Args:
        prepare: `prepare(batches)` is called before the first step; each iteration over `batches` is a new pass over
            samples, with their conditions, as they will reach the bijection.
    """

    prepare: Callable[[Iterable[Batch]], None] | None = None
