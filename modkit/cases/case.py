"""Cases: example types from which the parts of a kind are built, a reference call, and the checks that apply.

A reference call uses a part as its assembly would. It returns each output as an `Emitted`, with the type that the part
declares for it and that the checks compare with the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from modkit.specs.spec import Spec
from modkit.types import Event, TensorType, Value, split_levels

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.cases.probe import Probe

__all__ = ["Call", "Case", "Emitted", "Example", "Flow", "Host", "TRAINED", "emit", "emit_all", "emit_scalar"]

TRAINED = ("modules", "gradients", "independence")
"""The groups of checks of parts with parameters that are trained by gradient descent."""


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


class Flow(NamedTuple):
    """Gradients that must flow: from the outputs of a name to one of these inputs, in some example that has both.

    Args:
        outputs: Pattern of the outputs' names, without levels: `to_z(*)`.
        inputs: The inputs' names, without levels.
    """

    outputs: str
    inputs: tuple[str, ...]

    def has_output(self, name: str) -> bool:
        """Whether an output is among these, given its name with its level, if it is of a hierarchy."""
        return fnmatchcase(name.partition("[")[0], self.outputs)

    def has_input(self, name: str) -> bool:
        """Whether an input is among these, given its name with its level, if it is of a hierarchy."""
        return name.partition("[")[0] in self.inputs


class Host(NamedTuple):
    """A small spec in which parts of a kind are trained for two steps and sampled from.

    Args:
        spec: The spec, which names its data.
        path: The slot of the part.
    """

    spec: Spec
    path: str


@dataclass(frozen=True)
class Case:
    """The case of one kind.

    Args:
        kind: The kind.
        table: Types by name, or a function that makes them, for each example; a part must accept at least one example.
        call: The reference call.
        checks: Names of groups of checks in addition to those for every part.
        flows: The gradients that must flow through a part to its inputs, which the check `gradients` finds.
        learn: Does to a part what a turn of training does besides the optimizer's step, given what `call` is given; the
            reference call in training by default.
        hosts: The specs in which parts of the kind are played; modkit's kinds have theirs in `hosts.yaml`.
    """

    kind: str
    table: Mapping[str, Mapping[str, Any] | Callable[[], Mapping[str, Any]]]
    call: Call
    checks: tuple[str, ...] = ()
    flows: tuple[Flow, ...] = ()
    learn: Callable[[Any, Mapping[str, Any], Probe], object] | None = None
    hosts: tuple[Host, ...] = ()

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """The examples of the table."""
        rows = self.table.items()
        return tuple(Example(name, partial(dict, row) if isinstance(row, Mapping) else row) for name, row in rows)


def emit(name: str, value: Value, event: Event, *, learns: bool = True) -> dict[str, Emitted]:
    """Emits a value of an event; a hierarchy yields one entry per level. No gradients flow through codes."""
    values = value if isinstance(value, tuple) else (value,)
    types = split_levels(event)
    if len(values) != len(types):
        raise AssertionError(f"{name}: expected {len(types)} levels, got {len(values)}")
    names = [name] if len(types) == 1 else [f"{name}[{level}]" for level in range(len(types))]
    return {
        name: Emitted(one, type, learns=learns and type.classes is None)
        for name, one, type in zip(names, values, types)
    }


def emit_all(values: Mapping[str, Value], types: Mapping[str, Event], *, learns: bool = True) -> dict[str, Emitted]:
    """Emits values by name, each of the event of its name."""
    return {k: v for name, value in values.items() for k, v in emit(name, value, types[name], learns=learns).items()}


def emit_scalar(name: str, value: Tensor, *, rows: bool = True, learns: bool = True) -> dict[str, Emitted]:
    """Emits a number per sample, or one for the whole batch."""
    return {name: Emitted(value, TensorType(()), rows, learns)}
