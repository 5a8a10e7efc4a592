"""Filling: builds the part in a slot of a part that is constructed in plain Python, where nobody has filled it."""

from __future__ import annotations

from typing import Any

from modkit.kinds import Default, Slot
from modkit.part import Local
from modkit.parts.registry import find
from modkit.parts.signature import list_given_types

__all__ = ["fill_slot"]


def fill_slot(kind: str, slot: Slot[Any], **types: Any) -> Any:
    """Builds the part in a slot, or its default; a class or function is given the types that it declares.

    Args:
        kind: The slot's kind.
        slot: A factory that a composition or a spec has put there; or the slot's default, a class or a function.
        types: The types that the kind is given.

    Examples:
        >>> from modkit.kinds import default
        >>> fill_slot("loss-weight", default("min-snr")).gamma
        5.0
    """
    if isinstance(slot, Default):
        part = find(kind, slot.name)
        return part.load()(**{name: types[name] for name in list_given_types(part)}, **slot.params)
    if hasattr(slot, "where"):
        return slot(**types)
    return slot(**{name: types[name] for name in list_given_types(Local.wrap(kind, slot))})
