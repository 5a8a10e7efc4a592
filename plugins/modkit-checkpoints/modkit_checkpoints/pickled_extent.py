"""How large what a pickle holds is for whoever walks through it."""

from __future__ import annotations

from typing import Any

from modkit_checkpoints.placeholder import Placeholder

__all__ = ["check_extent"]

_MOST_VALUES = 10_000_000
_DEEPEST = 100


def check_extent(root: Any) -> None:
    """Refuses what is nested too deep, holds itself, or is too large to walk through; placeholders are walls.

    Raises:
        ValueError: If it is.
    """
    extents: dict[int, tuple[int, int] | None] = {}
    seen: set[int] = set()
    roots = [root]

    def extent(value: Any, depth: int) -> tuple[int, int]:
        """Number of values in it, and its height."""
        if isinstance(value, Placeholder):
            if id(value) not in seen:
                seen.add(id(value))
                roots.extend((value.args, value.kwargs, value.state, value.elements, value.entries))
            return 1, 1
        if not isinstance(value, dict | list | tuple | set | frozenset):
            return 1, 1
        if depth > _DEEPEST:
            raise ValueError(f"expected containers nested at most {_DEEPEST} deep, got more")
        if id(value) in extents:
            known = extents[id(value)]
            if known is None:
                raise ValueError("expected containers that do not hold themselves, got one that does")
            return known
        extents[id(value)] = None
        size, height = 1, 1
        for child in (*value.keys(), *value.values()) if isinstance(value, dict) else value:
            inner, below = extent(child, depth + 1)
            size, height = size + inner, max(height, below + 1)
        if size > _MOST_VALUES or height > _DEEPEST:
            raise ValueError(f"expected at most {_MOST_VALUES} values, {_DEEPEST} deep, got {size}, {height} deep")
        extents[id(value)] = size, height
        return size, height

    while roots:
        extent(roots.pop(), 1)
