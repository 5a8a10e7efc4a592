"""Conditions: what a network receives beside x, and the type of it.

Shape letters: b batch, c channels, h w spatial, d features, n tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
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

    Examples:
        >>> cond = CondType(vector=64).merge(CondType(time=True))
        >>> print(cond)
        vector 64, time
        >>> bool(CondType())
        False
    """

    vector: int | None = None
    noise: int | None = None
    labels: int | None = None
    context: tuple[int, int] | None = None
    concat: TensorType | None = None
    time: int = 0

    def __bool__(self) -> bool:
        return any(bool(getattr(self, one.name)) for one in fields(self))

    def __str__(self) -> str:
        given = {field.name: value for field in fields(self) if (value := getattr(self, field.name))}
        named = [name if (name, value) == ("time", 1) else f"{name} {value}" for name, value in given.items()]
        return ", ".join(named) or "none"

    def merge(self, other: CondType) -> CondType:
        """Returns the type of two merged `Cond`s: vectors and tokens are concatenated, the rest comes from either one.

        Raises:
            ValueError: If both have noise, labels, maps or time, or if their contexts differ in width.
        """
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

    def merge(self, other: Cond) -> Cond:
        """Returns both conditions as one; `CondType.merge` lists what may be merged."""
        merged: dict[str, Tensor | None] = {}
        for one in fields(self):
            mine, yours = getattr(self, one.name), getattr(other, one.name)
            if mine is not None and yours is not None:
                mine = _join(mine, yours)
            merged[one.name] = yours if mine is None else mine
        return Cond(**merged)

    def map(self, change: Callable[[Tensor], Tensor]) -> Cond:
        """Returns these conditions, each changed by a function, such as `torch.Tensor.detach`."""
        return Cond(**{f.name: None if (v := getattr(self, f.name)) is None else change(v) for f in fields(self)})

    def combine(self, other: Cond, combine: Callable[[Tensor, Tensor], Tensor]) -> Cond:
        """Returns these conditions, each combined with the same one of `other`, which has the same type.

        Examples:
            >>> import torch
            >>> Cond(vector=torch.ones(1, 2)).combine(Cond(vector=torch.ones(1, 2)), torch.add).vector
            tensor([[2., 2.]])
        """
        given = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return Cond(**{name: None if a is None else combine(a, b) for name, (a, b) in given.items()})

    def at(self, time: Tensor) -> Cond:
        """Returns these conditions with another time, `b`, or several, `b n`."""
        return replace(self, time=time)

    @staticmethod
    def join(conds: Sequence[Cond]) -> Cond | None:
        """Joins the rows of several batches' conditions; None if they differ in more than their values and rows."""
        import torch

        joined: dict[str, Tensor | None] = {}
        for one in fields(Cond):
            values = [getattr(cond, one.name) for cond in conds]
            if len({None if value is None else (value.shape[1:], value.dtype) for value in values}) > 1:
                return None
            joined[one.name] = None if values[0] is None else torch.cat(values)
        return Cond(**joined)


def _join(a: Tensor, b: Tensor) -> Tensor:
    import torch

    return torch.cat([a, b], dim=1)
