"""Validation of plain data against annotations.

Plain data is what a spec can hold: bool, int, float, str, None, and lists and mappings of them. A mapping of its fields
is valid for a dataclass. Floats must be finite and ints below 2^31 in size; a bool is not a number.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from modkit.errors import shorten, suggest
from modkit.parts.annotation import DICTS, LISTS, list_members, render, strip_annotated

__all__ = ["LIMIT", "validate"]

LIMIT = 2**31
"""Exclusive bound on the absolute value of ints."""
_Mismatch = tuple[str, str]  # the place inside the value, and the reason


def validate(value: object, annotation: Any) -> str | None:
    """Validates plain data against an annotation.

    Returns:
        None if the value is valid; otherwise the reason, after the place inside the value if it is nested.

    Examples:
        >>> validate([1, "a"], list[int])
        "[1]: expected int, got 'a'"
        >>> validate(3, float) is None
        True
    """
    found = _validate(value, strip_annotated(annotation))
    if found is None:
        return None
    place, reason = found
    return f"{place.removeprefix('.')}: {reason}" if place else reason


def _validate(value: object, annotation: Any) -> _Mismatch | None:
    annotation = strip_annotated(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _validate_union(value, annotation)
    if origin is Literal:
        fits = any(type(value) is type(choice) and value == choice for choice in args)
        return None if fits else _make_mismatch(annotation, value)
    if annotation is Any:
        return _validate_any(value)
    kind = origin or annotation
    if kind in LISTS or kind is tuple:
        return _validate_sequence(value, annotation)
    if kind in DICTS:
        return _validate_mapping(value, annotation)
    if isinstance(annotation, type) and is_dataclass(annotation):
        return _validate_dataclass(value, annotation)
    return _validate_scalar(value, annotation)


def _validate_scalar(value: object, annotation: Any) -> _Mismatch | None:
    accepted = {bool: bool, int: int, float: int | float, str: str, type(None): type(None), None: type(None)}
    if annotation not in accepted or not isinstance(value, accepted[annotation]):
        return _make_mismatch(annotation, value)
    if isinstance(value, bool) and annotation is not bool:
        return _make_mismatch(annotation, value)
    if isinstance(value, int) and abs(value) >= LIMIT:
        return "", f"expected a number below 2^31 in size, got {shorten(repr(value))}"
    if isinstance(value, float) and not math.isfinite(value):
        return "", f"expected a finite number, got {value}"
    return None


def _validate_any(value: object) -> _Mismatch | None:
    if isinstance(value, list | tuple):
        return _validate_sequence(value, list[Any])
    if isinstance(value, Mapping):
        return _validate_mapping(value, dict[str, Any])
    for kind in (bool, int, float, str, type(None)):
        if isinstance(value, kind):
            return _validate_scalar(value, kind)
    return "", f"expected plain data, got {shorten(repr(value))}"


def _validate_union(value: object, annotation: Any) -> _Mismatch | None:
    """Prefers a reason from inside the value over a wrong outer type, since it comes from the intended member."""
    deeper: list[_Mismatch] = []
    for member in list_members(annotation):
        found = _validate(value, member)
        if found is None:
            return None
        if found != _make_mismatch(member, value):
            deeper.append(found)
    return deeper[0] if deeper else _make_mismatch(annotation, value)


def _validate_sequence(value: object, annotation: Any) -> _Mismatch | None:
    if not isinstance(value, list | tuple):
        return _make_mismatch(annotation, value)
    args = get_args(annotation)
    if get_origin(annotation) is tuple and args[-1:] != (Ellipsis,):
        items = list(args)
        if len(items) != len(value):
            return "", f"expected {len(items)} values, {render(annotation)}, got {len(value)}: {shorten(repr(value))}"
    else:
        items = [args[0] if args else Any] * len(value)
    return _find_first(((f"[{index}]", item, kind) for index, (item, kind) in enumerate(zip(value, items))))


def _validate_mapping(value: object, annotation: Any) -> _Mismatch | None:
    if not isinstance(value, Mapping):
        return _make_mismatch(annotation, value)
    key_type, value_type = get_args(annotation) or (str, Any)
    for key in value:
        if found := _validate(key, key_type):
            return "", f"expected keys of type {render(key_type)}, {found[1]}"
    return _find_first((f".{key}", item, value_type) for key, item in value.items())


def _validate_dataclass(value: object, annotation: type[Any]) -> _Mismatch | None:
    if not isinstance(value, Mapping):
        return _make_mismatch(annotation, value)
    known = _get_field_types(annotation)
    for key in value:
        if key not in known:
            names = ", ".join(known)
            return "", f"unknown key {key!r}{suggest(str(key), known, '; ')}; {annotation.__name__} has: {names}"
    for field in fields(annotation):
        if field.init and field.name not in value and field.default is MISSING and field.default_factory is MISSING:
            return "", f"expected a value for {field.name!r} of {annotation.__name__}, got none"
    return _find_first((f".{key}", item, known[key]) for key, item in value.items())


def _find_first(items: Iterable[tuple[str, object, Any]]) -> _Mismatch | None:
    for place, item, annotation in items:
        if found := _validate(item, annotation):
            return place + found[0], found[1]
    return None


def _get_field_types(annotation: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(annotation, include_extras=True)
    return {field.name: hints[field.name] for field in fields(annotation) if field.init}


def _make_mismatch(annotation: Any, value: object) -> _Mismatch:
    wanted = f"the keys of {annotation.__name__}" if is_dataclass(annotation) else render(annotation)  # type: ignore[union-attr]
    return "", f"expected {wanted}, got {shorten(repr(value))}"
