"""Ranges of plain values, declared once in the annotation of a parameter.

    @checked
    class Blur:
        def __init__(self, x: TensorType, *, width: PositiveInt = 64, p: Annotated[float, Range(0, below=1)] = 0.1): ...

A range holds for every number in the value, so `Annotated[list[int], Range(1)]` is about each item. A spec is checked
before anything is built; `checked` refuses direct calls with the same message.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, wraps
from types import NoneType, SimpleNamespace
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin

__all__ = [
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "Range",
    "Share",
    "checked",
    "list_ranges",
    "refuse_value",
]

_C = TypeVar("_C", bound=Callable[..., Any])


@dataclass(frozen=True)
class Range:
    """The range of a number, a mark in an annotation.

    Args:
        low: Least value.
        high: Greatest value.
        above: Exclusive lower bound.
        below: Exclusive upper bound.
        note: What a message says beside the range: a unit, or what to do instead.

    Examples:
        >>> str(Range(1)), str(Range(0, below=1)), str(Range(above=0, note="seconds"))
        ('at least 1', 'in [0, 1)', 'above 0 (seconds)')
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    note: str = ""

    def has(self, value: float) -> bool:
        """Whether a number lies in the range; infinity and NaN lie in none."""
        return (
            abs(value) < math.inf
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def write_schema(self) -> dict[str, float]:
        """Writes the range as the keys that JSON Schema has for it."""
        names = {"low": "minimum", "high": "maximum", "above": "exclusiveMinimum", "below": "exclusiveMaximum"}
        bounds = {word: getattr(self, name) for name, word in names.items()}
        return {word: bound for word, bound in bounds.items() if bound is not None}

    def __str__(self) -> str:
        low, high, above, below = (
            f"{one:.4g}" if isinstance(one, float) else one for one in (self.low, self.high, self.above, self.below)
        )
        if high is None and below is None:
            text = f"at least {low}" if above is None else f"above {above}"
        elif low is None and above is None:
            text = f"at most {high}" if below is None else f"below {below}"
        else:
            start = f"[{low}" if above is None else f"({above}"
            text = f"in {start}, {high}]" if below is None else f"in {start}, {below})"
        return f"{text} ({self.note})" if self.note else text


PositiveInt: TypeAlias = Annotated[int, Range(1)]
NonNegativeInt: TypeAlias = Annotated[int, Range(0)]
PositiveFloat: TypeAlias = Annotated[float, Range(above=0)]
NonNegativeFloat: TypeAlias = Annotated[float, Range(0)]
Share: TypeAlias = Annotated[float, Range(0, 1)]


def list_ranges(annotation: Any) -> list[Range]:
    """Lists the ranges that an annotation declares, those inside it included.

    Examples:
        >>> [str(each) for each in list_ranges(list[PositiveInt] | None)]
        ['at least 1']
    """
    own = [mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Range)]
    inner = () if get_origin(annotation) is Literal else get_args(annotation)
    return own + [mark for arg in inner for mark in list_ranges(arg)]


def refuse_value(owner: str, name: str, value: object, annotation: Any) -> str | None:
    """Returns why a parameter's value is outside of its ranges or choices, or None.

    Examples:
        >>> refuse_value("Blur", "widths", [8, 0], list[PositiveInt])
        'Blur expects widths[1] to be at least 1, got 0'
        >>> refuse_value("Blur", "edge", "wrap", Literal["zero", "copy"])
        "Blur expects edge to be 'zero' or 'copy', got 'wrap'"
    """
    choices, others = _split(annotation)
    words = [repr(choice) for choice in choices]
    for mark in list_ranges(annotation):
        for place, number in _list_numbers(value):
            if not mark.has(number):
                allowed = f"{mark}" if abs(number) < math.inf else f"finite and {mark}"
                return f"{owner} expects {name}{place} to be {_join([allowed, *words])}, got {number}"
    kinds: tuple[type, ...] = {str: (str,), int: (int, float), float: (float,)}.get(type(value), ())
    if choices and kinds and value not in choices and others.isdisjoint(kinds):
        return f"{owner} expects {name} to be {_join(words)}, got {value!r}"
    return None


def checked(target: _C) -> _C:
    """Makes a class or function refuse values outside of the ranges and choices that its annotations declare.

    Examples:
        >>> @checked
        ... def blur(*, p: Share = 0.5): ...
        >>> blur(p=2.0)
        Traceback (most recent call last):
            ...
        ValueError: blur expects p to be in [0, 1], got 2.0

    Raises:
        ValueError: If a value is not allowed; from the call, with the names of the class and the parameter.
    """
    if isinstance(target, type):
        target.__init__ = checked(target.__init__)  # type: ignore[misc]
        return target
    function: Any = target
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    is_init = function.__name__ == "__init__"

    @cache
    def read() -> dict[str, Any]:
        return _read_checked(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        declared = read()
        owner = type(args[0]).__name__ if is_init else function.__name__
        for name, value in (*zip(names, args), *kwargs.items()):
            if name in declared and (reason := refuse_value(owner, name, value, declared[name])):
                raise ValueError(reason)
        return function(*args, **kwargs)

    return typing.cast(_C, call)


def _read_checked(function: Any) -> dict[str, Any]:
    """Reads the annotations that declare a range or choices; those that do not resolve are of types."""
    found = {}
    for name, annotation in function.__annotations__.items():
        holder: Any = SimpleNamespace(__annotations__={name: annotation})
        try:
            hint = typing.get_type_hints(holder, function.__globals__, include_extras=True)[name]
        except NameError:
            continue
        if list_ranges(hint) or _split(hint)[0]:
            found[name] = hint
    return found


@cache
def _split(annotation: Any) -> tuple[list[Any], set[Any]]:
    """Splits an annotation into the values of its Literals, None among them, and the other members of the union."""
    if get_origin(annotation) is Annotated:
        return _split(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return list(get_args(annotation)), set()
    if get_origin(annotation) in (typing.Union, type(int | None)):
        parts = [_split(arg) for arg in get_args(annotation)]
        return [one for part in parts for one in part[0]], set().union(*(part[1] for part in parts))
    return [], {annotation} - {NoneType}


def _join(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _list_numbers(value: object, place: str = "") -> Iterator[tuple[str, float]]:
    """Lists the numbers in plain data with their places."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _list_numbers(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _list_numbers(item, f"{place}[{index}]")
