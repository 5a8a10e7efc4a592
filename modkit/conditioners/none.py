"""No conditioner, for unconditional Models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType

__all__ = ["NoConditioner"]


class NoConditioner:
    """Gives no conditions, whatever the fields.

    Examples:
        >>> NoConditioner()({}, None) == Cond()
        True
    """

    type = CondType()
    reads: tuple[str, ...] = ()
    drop = 0.0

    def __call__(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Returns no conditions."""
        return Cond()

    def null(self, num: int) -> Cond:
        """Returns no conditions."""
        return Cond()

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Returns no fields."""
        return {}

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Does nothing; `batches` is not read."""
