"""Composing: the metaclass of Models, by which calling a class composes the objects in its slots."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

__all__ = ["Composing"]


class Composing(type):
    """The metaclass of Models: calling a class composes the objects in its slots, see `modkit.building.compose`."""

    composer: ClassVar[Callable[..., Any]]
    swapper: ClassVar[Callable[..., Any]]

    if not TYPE_CHECKING:  # type checkers read the constructor, whose arguments and class these are

        def __call__(cls, *types: Any, **arguments: Any) -> Any:
            """Composes a model from types and the objects in its slots."""
            return Composing.composer(cls, *types, **arguments)

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the constructor."""
        constructor = inspect.signature(cls.__init__)  # type: ignore[misc]
        return constructor.replace(parameters=list(constructor.parameters.values())[1:])

    def assemble(cls, *types: Any, **arguments: Any) -> Any:
        """Makes a model from types and the factories of its slots."""
        return super().__call__(*types, **arguments)
