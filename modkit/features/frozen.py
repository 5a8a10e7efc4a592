"""A frozen network: the base of all feature extractors with weights.

It stays in eval mode even if its owner is set to train mode, so features never depend on the batch. Its parameters
receive no gradient, but its input does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from torch import Tensor, nn

from modkit.features.images import check_images
from modkit.types import Batch, Features

__all__ = ["Frozen"]

FrozenT = TypeVar("FrozenT", bound="Frozen")


class Frozen(nn.Module):
    """A module that always stays in eval mode; a subclass calls `freeze()` at the end of its constructor.

    A subclass sets `label`, `channels` and `_key`, and defines `_extract`.
    """

    label: str
    channels: int
    _key: str

    def forward(self, x: Tensor) -> Features:
        """Computes the features of `x`, `b c h w`.

        Raises:
            ValueError: If `x` has another rank or number of channels.
        """
        check_images(type(self).__name__, x, self.channels)
        return self._extract(x)

    def key(self) -> str:
        """Hash of the weights and of everything else that determines the features."""
        return self._key

    def _extract(self, x: Tensor) -> Features:
        raise NotImplementedError

    def freeze(self: FrozenT) -> FrozenT:
        """Turns off the gradients of all parameters, and turns on eval mode."""
        return self.requires_grad_(False).train(False)

    def train(self: FrozenT, mode: bool = True) -> FrozenT:
        """Keeps eval mode, whatever `mode` is."""
        return super().train(False)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Does nothing: no preparation is necessary, and `batches` is not read."""
