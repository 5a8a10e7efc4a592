"""Functions that plug-ins provide by name, such as formats of exports: each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modkit.errors import suggest
from modkit.part import import_target
from modkit.parts.registry import get_registry

__all__ = ["find_target"]


def find_target(hook: str, noun: str, name: str) -> Callable[..., Any]:
    """Finds the function that a plug-in provides under a name.

    Args:
        hook: The hook that returns targets by name, such as `modkit_exporters`.
        noun: What a name stands for, for messages: `format`.
        name: The name.

    Raises:
        ValueError: If no plug-in provides it, several do, or its target cannot be imported.
    """
    targets: dict[str, str] = {}
    for answer in get_registry().call(hook):
        if not isinstance(answer, Mapping) or not all(isinstance(text, str) for text in (*answer, *answer.values())):
            raise ValueError(f"{hook} must return a mapping from {noun}s to targets, got {answer!r}")
        for known, target in answer.items():
            if targets.setdefault(known, target) != target:
                raise ValueError(f"the {noun} {known!r} is declared more than once, by {targets[known]} and {target}")
    if name not in targets:
        known = ", ".join(sorted(targets)) or "none, since no installed plug-in provides one"
        raise ValueError(f"unknown {noun} {name!r}{suggest(name, targets, '; ')}; available: {known}")
    return import_target(targets[name], f"{noun} {name}")
