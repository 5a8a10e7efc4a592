"""Adapters: parts that turn a part of another kind into one of their own, such as a generator into a decoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from modkit.parts.registry import Registry
from modkit.parts.signature import read_parameters

__all__ = ["suggest_adapters"]

_MOST = 2  # of more, such as all samplers of a grid, none is what was meant


def suggest_adapters(registry: Registry, kind: str, name: str) -> str:
    """Returns a hint that names the adapters which turn the part `name` into one of `kind`, or an empty string.

    An adapter is a part with a single slot, which holds exactly one part.

    Examples:
        >>> from modkit.parts.registry import get_registry
        >>> suggest_adapters(get_registry(), "decoder", "stylegan2")
        'did you mean {use: generated, generator: stylegan2}?'
    """
    kinds = {entry.part.kind for entry in registry.list_parts() if entry.part.name == name}
    found = [f"{{use: {adapter}, {slot}: {name}}}" for adapter, slot in _list_adapters(registry, kind, kinds)]
    return f"did you mean {' or '.join(found)}?" if 0 < len(found) <= _MOST else ""


def _list_adapters(registry: Registry, kind: str, kinds: set[str]) -> Iterator[tuple[str, str]]:
    """Yields the adapters of parts of `kinds`, each with the name of its slot."""
    for entry in registry.list_parts(kind) if kinds else ():
        with suppress(Exception):  # a plug-in's signature may fail to be read in any way
            slots = [(one.name, one.slot) for one in read_parameters(entry.part).values() if one.slot is not None]
            if len(slots) == 1 and slots[0][1].kind in kinds and not slots[0][1].container and not slots[0][1].optional:
                yield entry.part.name, slots[0][0]
