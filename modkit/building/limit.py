"""The limit on the modules of a model, so that absurd sizes are refused before they take all memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from torch import nn

__all__ = ["MAX_REGISTRATIONS", "limit_modules"]

MAX_REGISTRATIONS = 20_000
"""Most modules and parameters of a model; a large published one has a few thousand."""


@contextmanager
def limit_modules() -> Iterator[None]:
    """Limits the modules and parameters that are made in the context to `MAX_REGISTRATIONS`.

    Raises:
        ValueError: If there are more, as soon as there are.

    Examples:
        >>> with limit_modules():
        ...     layers = nn.ModuleList(nn.ReLU() for _ in range(1000))
        >>> len(layers)
        1000
    """
    number = count(1)

    def count_one(*_: object) -> None:
        if next(number) > MAX_REGISTRATIONS:
            raise ValueError(f"expected at most {MAX_REGISTRATIONS} modules and parameters in one part, got more")

    handles = (
        nn.modules.module.register_module_module_registration_hook(count_one),
        nn.modules.module.register_module_parameter_registration_hook(count_one),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
