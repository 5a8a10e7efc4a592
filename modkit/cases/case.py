"""What the battery knows of a kind: example types to build its parts from, a reference call, and the checks that apply.

A reference call plays a part as its assembly would and says what each value should be: an `Emitted` with the type that
the part promised, which the checks hold it to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from modkit.types import Event, TensorType, Value, split_levels

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.cases.probe import Probe

__all__ = ["Call", "Case", "Emitted", "Example", "emit", "emit_scalar"]


@dataclass(frozen=True)
class Emitted:
    """A value that a part gave, and what it said it would be.

    Args:
        value: The value.
        type: Its promised type, a sample's; None where nothing is promised of its shape.
        rows: Whether its first axis is the batch's.
        learns: Whether gradients should flow through it.
    """

    value: Tensor
    type: TensorType | None
    rows: bool = True
    learns: bool = True


@dataclass(frozen=True)
class Example:
    """Types that a part of a kind may be told.

    Args:
        name: What messages call it: `2-D`.
        types: Makes them, by name; parts among them (a schedule) are built anew at each call.
    """

    name: str
    types: Callable[[], Mapping[str, Any]]


Call: TypeAlias = "Callable[[Any, Mapping[str, Any], Probe], dict[str, Emitted]]"
"""Plays a part that was told these types: `call(part, types, probe)` gives what it emits, by name."""


@dataclass(frozen=True)
class Case:
    """A row of the table of cases.

    Args:
        kind: The kind.
        examples: Types to build its parts from; a part accepts at least one.
        call: The reference call.
        checks: Names of the checks of its parts, beside those that every part has.
    """

    kind: str
    examples: tuple[Example, ...]
    call: Call
    checks: tuple[str, ...]


def emit(name: str, value: Value, event: Event) -> dict[str, Emitted]:
    """A value of an event, a name a level."""
    values = value if isinstance(value, tuple) else (value,)
    types = split_levels(event)
    if len(values) != len(types):
        raise AssertionError(f"{name}: expected {len(types)} levels, got {len(values)}")
    if len(types) == 1:
        return {name: Emitted(values[0], types[0], learns=types[0].classes is None)}
    return {
        f"{name}[{level}]": Emitted(one, type, learns=type.classes is None)
        for level, (one, type) in enumerate(zip(values, types))
    }


def emit_scalar(name: str, value: Tensor, *, rows: bool = True) -> dict[str, Emitted]:
    """A number a sample, or one of all."""
    return {name: Emitted(value, TensorType(()), rows=rows)}
