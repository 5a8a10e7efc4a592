"""Corruptions: damaged or smaller copies of a sample, kept as fields, for models that restore the sample.

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
    """Computes fields from a sample, such as a masked or smaller copy; it can be pickled to workers.

    `.fields` gives the types of the fields by name.
    """

    fields: dict[str, TensorType]

    @property
    def key(self) -> str:
        """Hash of its settings."""
        ...

    def __call__(self, x: Tensor, rng: Rng) -> dict[str, Tensor]:
        """Computes the fields of `x`, `b ...`; each row has its own draws."""
        ...
