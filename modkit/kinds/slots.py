"""Slots: constructor parameters that receive a factory, which is called with types by name (`encoder(x=x)`).

A swap puts another part into a slot, and keeps the parameters of the former part that the new one has as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from modkit.types import Event

__all__ = ["Default", "Implies", "Initial", "Own", "Sampling", "Slot", "Unfit", "Unless", "default"]

P_co = TypeVar("P_co", covariant=True)


class Factory(Protocol[P_co]):
    """A factory of a part of one kind, which the assembly calls with the part's types.

    `.where` says where the part was declared, for messages.
    """

    where: str

    def __call__(self, **types: Any) -> P_co:
        """Builds the part; it receives those of the types that it declares as parameters."""
        ...

    def accepts(self, event: Event) -> str | None:
        """For a Model: the reason it cannot model `event`, or None."""
        ...

    def repeat(self, num: int) -> Sequence[Factory[P_co]]:
        """Returns `num` factories of separate parts; the assembly keeps part i under the attribute `NAME[i]`."""
        ...

    def name_source(self, source: str) -> Factory[P_co]:
        """Returns the same factory with messages that name `source` as the origin of types that do not fit."""
        ...


if TYPE_CHECKING:
    # What an assembly receives in a slot, or what its caller gives: a name, `use(…)`, a class, a `functools.partial`.
    Slot: TypeAlias = Factory[P_co] | Any
else:
    Slot = Factory
    Slot.__name__ = Slot.__qualname__ = "Slot"  # as messages have it


class Unfit(ValueError):
    """Raised by an assembly when the part in `slot` does not fit the parts next to it."""

    def __init__(self, slot: str, message: str) -> None:
        super().__init__(message)
        self.slot = slot


class Initial:
    """Marks a parameter of which only a new model reads what it names, as weights to start from.

    A run that is loaded has weights of its own, so an export keeps only the name of a path on this machine.

    Examples:
        >>> from typing import Annotated
        >>> Start = Annotated[str | None, "Folder of the initial weights.", Initial]
        >>> def network(x, out, cond, *, pretrained: Start = None): ...
    """


class Own:
    """Marks a parameter whose values suit only its part, so that a swap keeps them neither from nor for another part.

    Examples:
        >>> from typing import Annotated
        >>> Rate = Annotated[float, "Learning rate of plain gradients.", Own]
        >>> def sgd(parameters, *, lr: Rate = 1e-2): ...
    """


class Sampling:
    """Marks a parameter that only sampling reads, though its part is trained: it may change in a run, as a sampler may.

    Examples:
        >>> from typing import Annotated
        >>> Truncation = Annotated[float, "Share of a style's distance from the mean that is kept.", Sampling]
        >>> def generator(z, x, *, truncation: Truncation = 1.0): ...
    """


@dataclass(frozen=True)
class Implies:
    """Marks a parameter whose values go together with certain parts in the slots beside it, if these are left out.

    Args:
        parts: The parts that a value implies, by value and slot, as in `ImpliedExtras`.

    Examples:
        >>> from typing import Annotated, Literal
        >>> from modkit.kinds import Adversarial
        >>> Rules = Annotated[Literal["gan", "wgan"], Implies({"wgan": {"adversarial": "wasserstein"}})]
        >>> def game(*, rules: Rules = "gan", adversarial: Slot[Adversarial] = default("non-saturating")): ...
    """

    parts: Mapping[str, Mapping[str, str | Mapping[str, Any]]] = field(hash=False)


@dataclass(frozen=True)
class Unless:
    """Marks a parameter that has no effect where another one is given: it is refused beside that, and not written out.

    Args:
        name: The other parameter, whose default is None.

    Examples:
        >>> from typing import Annotated
        >>> from modkit.kinds import Encoder
        >>> def stack(x, *, depth: Annotated[int, Unless("layers")] = 4, layers: list[Slot[Encoder]] | None = None): ...
    """

    name: str


@dataclass(frozen=True)
class Default:
    """A slot's default part.

    Args:
        name: Its name.
        params: Its parameters, where they differ from their defaults.
        fixed: Whether it stays the default whatever the parts in other slots imply.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    fixed: bool = False


def default(name: str, *, fixed: bool = False) -> Any:
    """Declares a slot's default: the part of its kind that is registered as `name`.

    A part in another slot of the same assembly may imply a different default (`ImpliedExtras`), unless this is `fixed`.

    Examples:
        >>> from modkit.kinds import Encoder
        >>> def coder(x, *, encoder: Slot[Encoder] = default("conv")): ...
        >>> coder.__kwdefaults__["encoder"]
        Default(name='conv', params={}, fixed=False)
    """
    return Default(name, fixed=fixed)
