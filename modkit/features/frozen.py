"""A frozen network: what every feature extractor with weights is.

It stays in eval mode whatever its owner is told, so features never depend on the batch, and its parameters take no
gradient, while its input does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from torch import nn

from modkit.types import Batch

__all__ = ["Frozen"]

FrozenT = TypeVar("FrozenT", bound="Frozen")


class Frozen(nn.Module):
    """A module in eval mode for good; a constructor ends with `freeze()`."""

    label: str

    def freeze(self: FrozenT) -> FrozenT:
        """Turns gradients of all parameters off, and eval mode on."""
        return self.requires_grad_(False).train(False)

    def train(self: FrozenT, mode: bool = True) -> FrozenT:
        """Stays in eval mode, whatever `mode`."""
        return super().train(False)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Needs nothing; `batches` is left alone."""
