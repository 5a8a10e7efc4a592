"""Hashes of the code of parts that a lock keeps: of modules that a plug-in's parts import, and of local parts.

    acme/net.py      from acme.layers import Block      ->   acme, acme.layers, and what these import of acme in turn

modkit's own parts together import nearly all of modkit, which its version stands for.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from modkit.part import Part
from modkit.parts.sources import find_module, read_sources
from modkit.runs.files import hash_data

__all__ = ["hash_local", "hash_sources"]

_OWN = __name__.partition(".")[0]


def hash_sources(parts: Iterable[Part]) -> dict[str, str]:
    """Hashes the modules that the parts of plug-ins import of their distributions, beside those that define the parts.

    Args:
        parts: Parts whose targets can be imported.

    Returns:
        The first half of the SHA-256 of each module, by its name.

    Examples:
        >>> list(hash_sources([Part("sampler", "acme/json", "json:loads", "…")]))
        ['json.decoder', 'json.encoder', 'json.scanner']
    """
    found: dict[str, str] = {}
    starts = {find_module(target): target for target in (part.load() for part in parts)}
    for start, target in starts.items():
        if start and start.partition(".")[0] != _OWN:
            found |= read_sources(target)
    return {name: found[name][:32] for name in sorted(found.keys() - starts)}


def hash_local(part: Any) -> str | None:
    """Hashes the code of a class or function that no package has registered, or of the classes of a built object.

    Bases in the same package count. What torch defines does not.

    Returns:
        The SHA-256; None if there is no code, or its text cannot be had, as in an interactive session.
    """
    while isinstance(part, functools.partial):
        part = part.func
    held = part.modules() if isinstance(part, nn.Module) else [part]
    made = {one if inspect.isclass(one) or inspect.isroutine(one) else type(one) for one in held}
    codes = {base for one in made for base in _list_bases(one) if base.__module__.partition(".")[0] != "torch"}
    try:
        texts = [f"{one.__module__}.{one.__qualname__}\n{inspect.getsource(one)}" for one in codes]
    except (OSError, TypeError):
        return None
    return hash_data("\n".join(sorted(texts))) if texts else None


def _list_bases(code: Callable[..., Any]) -> list[Any]:
    """Lists a class with its bases in the same package; a function is on its own."""
    root = code.__module__.partition(".")[0]
    return [one for one in getattr(code, "__mro__", (code,)) if one.__module__.partition(".")[0] == root]
