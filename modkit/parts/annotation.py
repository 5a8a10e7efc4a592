"""Annotations of parameters: taking them apart, and rendering them for readers."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from modkit.kinds import KINDS, Slot
from modkit.part import locate_target
from modkit.parts.discovery import GROUP
from modkit.parts.registry import get_registry
from modkit.types import list_ranges

__all__ = ["DICTS", "LISTS", "strip_annotated", "name_kind", "list_members", "render", "render_declared"]

LISTS = (list, Sequence)
"""Annotations of lists."""
DICTS = (dict, Mapping)
"""Annotations of dicts."""
_KIND_OF = {kind.protocol: kind.name for kind in KINDS.values()}


def strip_annotated(annotation: Any) -> Any:
    """Returns an annotation without its `Annotated` metadata."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def list_members(annotation: Any) -> list[Any]:
    """Returns the members of a union, or any other annotation as the only member."""
    annotation = strip_annotated(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for arg in get_args(annotation) for member in list_members(arg)]
    return [annotation]


def name_kind(protocol: Any) -> str | None:
    """Returns the name of the kind whose Protocol (or Model) a class is, or None; a plug-in's by its module as well."""
    module, name = getattr(protocol, "__module__", ""), getattr(protocol, "__qualname__", "")
    if module.partition(".")[0] == GROUP:
        return _KIND_OF.get(name)
    others = (kind for kind in get_registry().kinds.values() if kind.name not in KINDS)
    return next((kind.name for kind in others if locate_target(kind.protocol) == f"{module}:{name}"), None)


def render(annotation: Any) -> str:
    """Renders an annotation for readers: `list[int]`, `'a' | 'b'`, `slot of encoder`.

    Examples:
        >>> render(list[int] | None)
        'list[int] | None'
    """
    annotation = strip_annotated(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is type(None) or annotation is None:
        return "None"
    if annotation is Ellipsis:
        return "..."
    if origin in (Union, types.UnionType):
        return " | ".join(map(render, args))
    if origin is Literal:
        return " | ".join(map(repr, args))
    if origin is Slot:
        return f"slot of {name_kind(args[0]) or getattr(args[0], '__name__', args[0])}"
    name = getattr(origin or annotation, "__name__", None) or str(annotation).removeprefix("typing.")
    return f"{name}[{', '.join(map(render, args))}]" if args else name


def render_declared(annotation: Any) -> str:
    """Renders an annotation with the ranges that it declares.

    Examples:
        >>> from modkit.types import PositiveInt
        >>> render_declared(PositiveInt | None)
        'int | None, at least 1'
    """
    return ", ".join([render(annotation), *dict.fromkeys(map(str, list_ranges(annotation)))])
