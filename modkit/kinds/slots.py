"""Slots: constructor parameters that receive a factory, to be called with types by name (`encoder(x=x)`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from modkit.types import Event

__all__ = ["Default", "Slot", "Unfit", "default"]

P_co = TypeVar("P_co", covariant=True)


class Slot(Protocol[P_co]):
    """A factory of a part of one kind, waiting to be told its types.

    `.where` says where it was declared, for messages.
    """

    where: str

    def __call__(self, **types: Any) -> P_co:
        """Builds the part; of the types given, it receives those that it declares."""
        ...

    def accepts(self, event: Event) -> str | None:
        """Of a Model: why it cannot model `event`, or None."""
        ...

    def each(self, num: int) -> Sequence[Slot[P_co]]:
        """This slot `num` times: part i is one of its own, to be kept under the attribute `NAME[i]`."""
        ...

    def fed(self, source: str) -> Slot[P_co]:
        """This slot, telling where its types come from when it or a part in it cannot take them."""
        ...


class Unfit(ValueError):
    """Raised by an assembly: the part in `slot` does not fit its neighbours."""

    def __init__(self, slot: str, message: str) -> None:
        super().__init__(message)
        self.slot = slot


@dataclass(frozen=True)
class Default:
    """The name of a slot's default part."""

    name: str


def default(name: str) -> Any:
    """The default of a slot: the part of its kind that is registered as `name`."""
    return Default(name)
