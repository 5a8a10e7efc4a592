"""Cases: example types from which the parts of a kind are built, a reference call, and the checks that apply.

A reference call uses a part as its assembly would. It returns each output as an `Emitted`, with the type that the part
declares for it and that the checks compare with the value.
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
    """An output of a part, and the type that the part declares for it.

    Args:
        value: The output.
        type: The declared type of one sample, or None if there is none.
        rows: Whether the first axis is the batch axis.
        learns: Whether gradients should flow through it.
    """

    value: Tensor
    type: TensorType | None
    rows: bool = True
    learns: bool = True


@dataclass(frozen=True)
class Example:
    """Example types from which a part of a kind can be built.

    Args:
        name: Name in messages: `2-D`.
        types: Returns the types by name; parts among them (a schedule) are built anew at each call.
    """

    name: str
    types: Callable[[], Mapping[str, Any]]


Call: TypeAlias = "Callable[[Any, Mapping[str, Any], Probe], dict[str, Emitted]]"
"""A reference call of a part built from these types: `call(part, types, probe)` returns its outputs by name."""


@dataclass(frozen=True)
class Case:
    """The case of one kind.

    Args:
        kind: The kind.
        examples: Types from which its parts are built; a part must accept at least one example.
        call: The reference call.
        checks: Names of groups of checks in addition to those for every part.
    """

    kind: str
    examples: tuple[Example, ...]
    call: Call
    checks: tuple[str, ...]


def emit(name: str, value: Value, event: Event) -> dict[str, Emitted]:
    """Emits a value of an event; a hierarchy yields one entry per level."""
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
    """Emits a number per sample, or one for the whole batch."""
    return {name: Emitted(value, TensorType(()), rows=rows)}
