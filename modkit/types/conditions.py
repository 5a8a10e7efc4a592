"""Conditions: what a network receives beside x, and the type of it.

Shape letters: b batch, c channels, h w spatial, d features, n tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from modkit.types.tensor_type import TensorType

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Cond", "CondType"]


@dataclass(frozen=True)
class CondType:
    """The conditions that a part receives; each is None (or 0) if absent.

    Args:
        vector: Width of a vector per sample, `b vector` (FiLM, AdaLN).
        noise: Width of a generator's z, `b noise`; kept apart from `vector`, which may embed a label.
        labels: Number of classes K, for parts that embed labels themselves. Labels are in [0, K]; K means no label.
        context: Number of tokens and their width, `b n d`, for cross-attention or a prefix.
        concat: Type of a map that is concatenated to x, `b c h w`.
        time: Number of times per sample: one, `b`, for which True stands too, or several, `b time`. A flow map has
            two, between which it goes.
        own: Types of a package's own conditions, by names that the above do not have: a second map, a graph. Networks
            name those that they read in `NetworkExtras.own_conditions`.

    Raises:
        ValueError: If an own condition has the name of another one.

    Examples:
        >>> cond = CondType(vector=64).merge(CondType(time=True))
        >>> print(cond)
        vector 64, time
        >>> bool(CondType())
        False
        >>> print(CondType(vector=64, own={"graph": TensorType((5, 5))}))
        vector 64, graph 5×5 unbounded
    """

    vector: int | None = None
    noise: int | None = None
    labels: int | None = None
    context: tuple[int, int] | None = None
    concat: TensorType | None = None
    time: int = 0
    own: Mapping[str, TensorType] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if taken := self.own.keys() & {one.name for one in fields(self)}:
            raise ValueError(f"CondType expects names of its own in `own`, got {', '.join(sorted(taken))}")

    def __bool__(self) -> bool:
        return any(bool(getattr(self, one.name)) for one in fields(self))

    def __str__(self) -> str:
        given = {one.name: value for one in fields(self) if one.name != "own" and (value := getattr(self, one.name))}
        given |= self.own
        named = [name if (name, value) == ("time", 1) else f"{name} {value}" for name, value in given.items()]
        return ", ".join(named) or "none"

    def list_types(self) -> dict[str, TensorType]:
        """Lists the types of the entries of a `Cond`, by name: `own` ones last."""
        types = {
            "vector": TensorType((self.vector,)) if self.vector else None,
            "noise": TensorType((self.noise,)) if self.noise else None,
            "labels": TensorType((), classes=self.labels + 1) if self.labels else None,
            "context": TensorType(self.context) if self.context else None,
            "concat": self.concat,
            "time": TensorType((self.time,) if self.time > 1 else (), range=(0.1, 0.9)) if self.time else None,
        }
        return {name: one for name, one in types.items() if one is not None} | dict(self.own)

    def merge(self, other: CondType) -> CondType:
        """Returns the type of two merged `Cond`s: vectors and tokens are concatenated, the rest comes from either one.

        Raises:
            ValueError: If both have noise, labels, maps, time or an own condition of one name, or if their contexts
                differ in width.
        """
        if both := self.own.keys() & other.own.keys():
            raise ValueError(f"conditions expect `{min(both)}` from one side only, got {self} and {other}")
        for name in ("noise", "labels", "concat", "time"):
            if getattr(self, name) and getattr(other, name):
                raise ValueError(f"conditions expect `{name}` from one side only, got {self} and {other}")
        context = self.context or other.context
        if self.context and other.context:
            if self.context[1] != other.context[1]:
                raise ValueError(f"joined contexts expect one width, got {self.context[1]} and {other.context[1]}")
            context = (self.context[0] + other.context[0], self.context[1])
        vector = (self.vector or 0) + (other.vector or 0)
        return CondType(
            vector=vector or None,
            noise=self.noise or other.noise,
            labels=self.labels or other.labels,
            context=context,
            concat=self.concat or other.concat,
            time=self.time or other.time,
            own={**self.own, **other.own},
        )


@dataclass(frozen=True)
class Cond:
    """The conditions of a batch; see `CondType` for their shapes.

    Examples:
        >>> import torch
        >>> cond = Cond(vector=torch.zeros(2, 3)).merge(Cond(vector=torch.ones(2, 1)))
        >>> cond.vector.shape, cond.map(torch.Tensor.double).vector.dtype
        (torch.Size([2, 4]), torch.float64)
    """

    vector: Tensor | None = None
    noise: Tensor | None = None
    labels: Tensor | None = None
    context: Tensor | None = None
    concat: Tensor | None = None
    time: Tensor | None = None
    own: Mapping[str, Tensor] = field(default_factory=dict, hash=False)

    @staticmethod
    def make(entries: Mapping[str, Tensor]) -> Cond:
        """Makes conditions of entries by name; entries of other names are `own`."""
        named = {one.name for one in fields(Cond)}
        own = {name: value for name, value in entries.items() if name not in named}
        return Cond(**{name: value for name, value in entries.items() if name in named}, own=own)

    def list_entries(self) -> dict[str, Tensor]:
        """Lists the conditions that there are, by name: `own` ones last."""
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "own"}
        return {name: value for name, value in given.items() if value is not None} | dict(self.own)

    def merge(self, other: Cond) -> Cond:
        """Returns both conditions as one; `CondType.merge` lists what may be merged."""
        mine, yours = self.list_entries(), other.list_entries()
        both = {name: _join(mine[name], yours[name]) for name in mine if name in yours}
        return Cond.make({**mine, **yours, **both})

    def map(self, change: Callable[[Tensor], Tensor]) -> Cond:
        """Returns these conditions, each changed by a function, such as `torch.Tensor.detach`."""
        return Cond.make({name: change(value) for name, value in self.list_entries().items()})

    def combine(self, other: Cond, combine: Callable[[Tensor, Tensor], Tensor]) -> Cond:
        """Returns these conditions, each combined with the same one of `other`, which has the same type.

        Examples:
            >>> import torch
            >>> Cond(vector=torch.ones(1, 2)).combine(Cond(vector=torch.ones(1, 2)), torch.add).vector
            tensor([[2., 2.]])
        """
        others = other.list_entries()
        return Cond.make({name: combine(value, others[name]) for name, value in self.list_entries().items()})

    def at(self, time: Tensor) -> Cond:
        """Returns these conditions with another time, `b`, or several, `b n`."""
        return replace(self, time=time)

    @staticmethod
    def join(conds: Sequence[Cond]) -> Cond | None:
        """Joins the rows of several batches' conditions; None if they differ in more than their values and rows."""
        import torch

        entries = [cond.list_entries() for cond in conds]
        if len({frozenset((name, v.shape[1:], v.dtype) for name, v in one.items()) for one in entries}) > 1:
            return None
        return Cond.make({name: torch.cat([one[name] for one in entries]) for name in entries[0]})


def _join(a: Tensor, b: Tensor) -> Tensor:
    import torch

    return torch.cat([a, b], dim=1)
