"""An unregistered part: one that is not trained, such as a feature extractor, held by a module that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor, nn

__all__ = ["Unregistered"]

T = TypeVar("T")


class Unregistered(nn.Module, Generic[T]):
    """Holds a part that moves with it from device to device, but is not a submodule.

    No player owns its weights, and they are neither saved nor averaged nor counted as parameters.

    Args:
        held: The part. If it is a module, its gradients are turned off, and it is put in eval mode.

    Examples:
        >>> extractor = Unregistered(nn.Linear(2, 1)).double()
        >>> extractor.held.weight.dtype, list(extractor.parameters())
        (torch.float64, [])
    """

    def __init__(self, held: T) -> None:
        super().__init__()
        if isinstance(held, nn.Module):
            held.requires_grad_(False).eval()
        self._held = (held,)

    @property
    def held(self) -> T:
        """The part."""
        return self._held[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Unregistered[T]:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if isinstance(self.held, nn.Module):
            self.held._apply(fn)  # type: ignore[no-untyped-call]
        return self
