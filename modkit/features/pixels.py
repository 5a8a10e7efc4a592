"""Pixels: the values themselves as features."""

from __future__ import annotations

from torch import Tensor

from modkit.data.splits import hash_contents
from modkit.features.frozen import Frozen
from modkit.types import Features, TensorType

__all__ = ["Pixels"]


class Pixels(Frozen):
    """The values themselves, flattened from `b ...` to `b d`, for images, signals and vectors.

    Args:
        x: Type of the data: continuous values of any rank.

    Raises:
        ValueError: If the data are discrete.

    Examples:
        >>> import torch
        >>> Pixels(TensorType((1, 2, 2)))(torch.ones(3, 1, 2, 2)).vector.shape
        torch.Size([3, 4])
    """

    def __init__(self, x: TensorType) -> None:
        super().__init__()
        if x.classes is not None:
            raise ValueError(f"Pixels expects continuous data, got {x}")
        self.label, self._key = "pixels", hash_contents("pixels", 1)
        self.rank = len(x.shape)
        self.freeze()

    def forward(self, x: Tensor) -> Features:
        """Flattens `x`, `b ...` of any size; integers become float32.

        Raises:
            ValueError: If the rank of `x` differs from that of the data.
        """
        if x.ndim != self.rank + 1:
            raise ValueError(f"Pixels expects x of {self.rank + 1} dimensions, batch first, got {tuple(x.shape)}")
        return Features((x if x.is_floating_point() else x.float()).flatten(1))
