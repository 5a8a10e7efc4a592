"""What is taken from a sample, to be given back: the fields that a damaged or smaller copy of it makes.

Shape letters: b batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from modkit.types import TensorType

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.rng import Rng

__all__ = ["Corruption"]


class Corruption(Protocol):
    """Makes fields of a sample: a masked copy, a smaller one. `.fields` types them; `.key` is a hash of its settings.

    It is picklable to workers.
    """

    fields: dict[str, TensorType]

    @property
    def key(self) -> str:
        """Hash of its settings."""
        ...

    def __call__(self, x: Tensor, rng: Rng) -> dict[str, Tensor]:
        """The fields of `x`, `b ...`, each row with draws of its own."""
        ...
