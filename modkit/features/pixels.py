"""Pixels: the values themselves as features."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from modkit.data.splits import content_key
from modkit.types import Batch, Features, TensorType

__all__ = ["Pixels"]


class Pixels(nn.Module):
    """The values as given, flattened: `b ...` to `b d`. Images, signals and vectors alike.

    Args:
        x: Type of the data: continuous values of any rank.

    Raises:
        ValueError: If the data are codes.
    """

    def __init__(self, x: TensorType) -> None:
        super().__init__()
        if x.classes is not None:
            raise ValueError(f"Pixels expects continuous data, got {x}")
        self.label = "pixels"
        self.rank = len(x.shape)

    def forward(self, x: Tensor) -> Features:
        """`x`, `b ...` of any size, as rows; integers become float32.

        Raises:
            ValueError: If `x` has another rank than the data.
        """
        if x.ndim != self.rank + 1:
            raise ValueError(f"Pixels expects x of {self.rank + 1} dimensions, batch first, got {tuple(x.shape)}")
        return Features((x if x.is_floating_point() else x.float()).flatten(1))

    def key(self) -> str:
        """One hash for all: there are no weights."""
        return content_key("pixels", 1)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Needs nothing; `batches` is left alone."""
