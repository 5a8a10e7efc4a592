"""The type of a sample: of one tensor, or of each level of a hierarchy, coarsest first."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Event", "TensorType", "Value", "split_levels"]

Value: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""The value of an `Event`: one tensor, or one per level."""


@dataclass(frozen=True)
class TensorType:
    """The type of one sample.

    Args:
        shape: Shape of one sample, without the batch axis: `(c, h, w)`, `(c, t)`, `(c, t, h, w)`, `(d,)`, `()` for a
            scalar such as a label, `(h, w)` for a map of codes.
        range: Lowest and highest value, or None if values are unbounded (they are then neither squashed nor clipped).
        classes: Number of classes if values are integers in [0, classes); None if values are continuous.
        std: Standard deviation of the values over all samples, or None if it is unknown. Types that differ only in it
            are equal: it sets the noise levels of a diffusion model, and no shape depends on it.
        levels: Number of values, evenly spaced over the range, that a value takes, or None if they are unknown or the
            values are continuous. Types that differ only in it are equal as well.

    Examples:
        >>> x = TensorType((1, 28, 28), range=(-1, 1))
        >>> print(x, x.numel)
        1×28×28 in [-1, 1] 784
        >>> print(TensorType((4, 4), classes=512))
        4×4 codes of 512 classes

    Raises:
        ValueError: If a size is not positive, the range is empty, a discrete type has a range, the standard deviation
            is not positive and finite, or there are fewer than 2 levels.
    """

    shape: tuple[int, ...]
    range: tuple[float, float] | None = None
    classes: int | None = None
    std: float | None = field(default=None, compare=False, repr=False)
    levels: int | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.shape):
            raise ValueError(f"TensorType expects sizes of at least 1, got shape {self.shape}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"TensorType expects range (low, high) with low < high, got {self.range}")
        if self.classes is not None and (self.classes < 1 or self.range is not None):
            raise ValueError(
                f"TensorType expects classes >= 1 and no range beside them, got {self.classes}, {self.range}"
            )
        if self.std is not None and not 0 < self.std < math.inf:
            raise ValueError(f"TensorType expects a positive std, or None, got {self.std}")
        if self.levels is not None and self.levels < 2:
            raise ValueError(f"TensorType expects levels >= 2, or None, got {self.levels}")

    @property
    def numel(self) -> int:
        """Number of values in one sample."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        shape = "×".join(map(str, self.shape)) or "scalar"
        if self.classes is not None:
            return f"{shape} codes of {self.classes} classes"
        if self.range is not None:
            return f"{shape} in [{self.range[0]:g}, {self.range[1]:g}]"
        return f"{shape} unbounded"


Event: TypeAlias = TensorType | tuple[TensorType, ...]
"""The type of what a Model models: that of one tensor, or of each level of a hierarchy, coarsest first."""


def split_levels(event: Event) -> tuple[TensorType, ...]:
    """Returns the levels of a hierarchy, coarsest first; a plain type is its own only level.

    Examples:
        >>> split_levels(TensorType((2,)))
        (TensorType(shape=(2,), range=None, classes=None),)
    """
    return event if isinstance(event, tuple) else (event,)
