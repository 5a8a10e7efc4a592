"""No conditioner: what makes a Model unconditional."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType

__all__ = ["NoConditioner"]


class NoConditioner:
    """No conditions, whatever the fields."""

    type = CondType()
    reads: tuple[str, ...] = ()

    def __call__(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Nothing."""
        return Cond()

    def null(self, num: int) -> Cond:
        """Nothing."""
        return Cond()

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """No fields."""
        return {}

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Leaves `batches` alone."""
