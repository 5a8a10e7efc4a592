"""Data sets that keep what they were made with, so that a run of the object has them in its spec.

fit(model, Augmented(data=Digits(size=8)))      ->      data: {use: augmented, data: {use: digits, size: 8}}
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

__all__ = ["recorded"]

_C = TypeVar("_C", bound=type[Any])


def recorded(cls: _C) -> _C:
    """Makes a data set keep the keywords that it is made with, as `arguments`, and take built data in its slots.

    Args:
        cls: The class. Objects of classes that inherit it and have an `__init__` of their own keep nothing.

    Examples:
        >>> from modkit.data import Augmented, Digits
        >>> data = Augmented(data=Digits(size=8), p=0.5)
        >>> data.arguments["p"], data.arguments["data"].arguments
        (0.5, {'size': 8})
    """
    init: Callable[..., None] = cls.__init__

    @wraps(init)
    def keep(self: Any, **arguments: Any) -> None:
        if type(self).__init__ is keep:
            self.arguments = arguments
        factories = {name: partial(_get, one) for name, one in arguments.items() if hasattr(one, "arguments")}
        init(self, **{**arguments, **factories})

    cls.__init__ = keep
    return cls


def _get(part: Any) -> Any:
    return part
