"""What flows between parts: the types that a part is told, and the values that carry them.

A `TensorType` says what one sample is; an `Event` is one of them or, for a hierarchy of latents, several (coarsest
first). A `CondType` says which conditions reach a network; a `Cond` carries them. Parts are told types when they
are built and exchange values when they run. Nothing here imports torch at import time.

Shape letters: b batch, c channels, h w spatial, d features, n tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "Batch",
    "Cond",
    "CondType",
    "Denoised",
    "Event",
    "Features",
    "Latents",
    "Modes",
    "Score",
    "TensorType",
    "Value",
    "split_levels",
]

Value: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""What an `Event` types: a tensor, or one a level."""


@dataclass(frozen=True)
class TensorType:
    """The type of one sample.

    Args:
        shape: Shape of one sample, without the batch: `(c, h, w)`, `(c, t)`, `(c, t, h, w)`, `(d,)`, `()` for a
            scalar such as a label; codes: `(h, w)`.
        range: Lowest and highest value, or None where values are unbounded (then nothing squashes or clips).
        classes: Number of classes where values are integers in [0, classes); None where they are continuous.

    Raises:
        ValueError: If a size is not positive, the range is empty, or a discrete type has a range.
    """

    shape: tuple[int, ...]
    range: tuple[float, float] | None = None
    classes: int | None = None

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.shape):
            raise ValueError(f"TensorType expects sizes of at least 1, got shape {self.shape}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"TensorType expects range (low, high) with low < high, got {self.range}")
        if self.classes is not None and (self.classes < 1 or self.range is not None):
            raise ValueError(
                f"TensorType expects classes >= 1 and no range beside them, got {self.classes}, {self.range}"
            )

    @property
    def numel(self) -> int:
        """Number of values in one sample."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        shape = "×".join(map(str, self.shape)) or "scalar"
        if self.classes is not None:
            return f"{shape} codes of {self.classes} classes"
        if self.range is not None:
            return f"{shape} in [{self.range[0]:g}, {self.range[1]:g}]"
        return f"{shape} unbounded"


Event: TypeAlias = TensorType | tuple[TensorType, ...]


def split_levels(event: Event) -> tuple[TensorType, ...]:
    """The levels of a hierarchy, coarsest first; one level for a plain type."""
    return event if isinstance(event, tuple) else (event,)


@dataclass(frozen=True)
class CondType:
    """Which conditions a part receives; each None (or False) where absent.

    Args:
        vector: Width of a vector per sample, `b vector` (FiLM, AdaLN).
        noise: Width of a generator's z, `b noise`; never mixed with a label.
        labels: Number of classes K; ids in [0, K], where K is none: for parts that embed them themselves.
        context: Tokens and their width, `b n d`: cross-attention, or a prefix.
        concat: Type of a map beside x, `b c h w`.
        time: Whether a time per sample, `b`, is given.
    """

    vector: int | None = None
    noise: int | None = None
    labels: int | None = None
    context: tuple[int, int] | None = None
    concat: TensorType | None = None
    time: bool = False

    def __bool__(self) -> bool:
        return any(bool(getattr(self, one.name)) for one in fields(self))

    def __str__(self) -> str:
        given = {field.name: value for field in fields(self) if (value := getattr(self, field.name))}
        return ", ".join(name if value is True else f"{name} {value}" for name, value in given.items()) or "none"

    def merge(self, other: CondType) -> CondType:
        """The type of `Cond.merge` of both: vectors and tokens are joined, everything else stands on one side only.

        Raises:
            ValueError: If both have noise, labels, maps or time, or contexts of different widths.
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
    """The conditions themselves; see `CondType` for shapes."""

    vector: Tensor | None = None
    noise: Tensor | None = None
    labels: Tensor | None = None
    context: Tensor | None = None
    concat: Tensor | None = None
    time: Tensor | None = None

    def merge(self, other: Cond) -> Cond:
        """Both conditions as one; `CondType.merge` says what may meet."""
        merged: dict[str, Tensor | None] = {}
        for one in fields(self):
            mine, yours = getattr(self, one.name), getattr(other, one.name)
            if mine is not None and yours is not None:
                mine = _join(mine, yours)
            merged[one.name] = yours if mine is None else mine
        return Cond(**merged)

    def at(self, time: Tensor) -> Cond:
        """These conditions at another time, `b`."""
        return replace(self, time=time)


def _join(a: Tensor, b: Tensor) -> Tensor:
    import torch

    return torch.cat([a, b], dim=1)


@dataclass(frozen=True)
class Batch:
    """Samples with the data's fields (raw labels, captions, masks) and what an enclosing Model gives as `cond`."""

    x: Value
    fields: Mapping[str, Tensor]
    cond: Cond = Cond()

    def __len__(self) -> int:
        return len(self.x[0]) if isinstance(self.x, tuple) else len(self.x)

    @property
    def tensor(self) -> Tensor:
        """`x` where it is one tensor.

        Raises:
            ValueError: If `x` is a hierarchy.
        """
        if isinstance(self.x, tuple):
            raise ValueError(f"expected one tensor, got a hierarchy of {len(self.x)} levels")
        return self.x

    def rows(self, rows: slice) -> Batch:
        """Some of its samples, under the same `cond`."""
        x = tuple(level[rows] for level in self.x) if isinstance(self.x, tuple) else self.x[rows]
        return Batch(x, {name: value[rows] for name, value in self.fields.items()}, self.cond)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        x = tuple(v.to(device) for v in self.x) if isinstance(self.x, tuple) else self.x.to(device)
        cond = Cond(
            **{f.name: None if (v := getattr(self.cond, f.name)) is None else v.to(device) for f in fields(Cond)}
        )
        return Batch(x, {name: value.to(device) for name, value in self.fields.items()}, cond)


class Latents(NamedTuple):
    """What a bottleneck makes of `h`.

    Args:
        values: The latents by name, as its `latents` types them; the last is what the decoder takes.
        kl: KL(q(z | x) || p(z)) in nats a sample, `b`, or None where there is none.
        losses: Further named losses, means over elements (a codebook's, a commitment's).
    """

    values: dict[str, Value]
    kl: Tensor | None
    losses: dict[str, Tensor]


class Denoised(NamedTuple):
    """A denoiser's answer: the predicted `x_0`, shape of x_t, and and, of a learned variance, its weight `v` in [0, 1]
    (Improved DDPM, eq. 15), or None.
    """

    x_0: Tensor
    v: Tensor | None = None


class Features(NamedTuple):
    """What a feature extractor makes of images.

    Args:
        vector: `b d`.
        maps: Feature maps `b c h w`, from shallow to deep; perhaps none.
        logits: Logits of classes, `b k`, where it classifies.
    """

    vector: Tensor
    maps: tuple[Tensor, ...] = ()
    logits: Tensor | None = None


@dataclass(frozen=True)
class Score:
    """One number that a metric gives, with all that it depends on.

    Args:
        value: The number.
        error: Its standard error, or None where it has none.
        better: Which direction is better, or None where neither is.
        counts: Number of samples by set (`real`, `fake`, `train`).
        seed: Seed of what was drawn to compute it.
        settings: What else it depends on: k, the comparison, the device; plain JSON.
        details: What it was found to be made of: operators, sizes; plain JSON.
        warnings: What a reader must know.
    """

    value: float
    error: float | None = None
    better: Literal["lower", "higher"] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def is_comparable_to(self, other: Score) -> bool:
        """Whether two scores of one name may be ranked: equal counts and settings."""
        return self.counts == other.counts and self.settings == other.settings


class Modes(NamedTuple):
    """The truth of synthetic data: an even mixture of isotropic Gaussians.

    Args:
        centers: The modes, `k d`.
        std: Standard deviation of each.
    """

    centers: Tensor
    std: float
