"""The types and values that parts exchange.

A `TensorType` describes one sample. An `Event` is one `TensorType` or, for a hierarchy of latents, several, coarsest
first. A `CondType` describes the conditions that a network receives, and a `Cond` holds them. Parts receive types when
they are built and exchange values when they run. Importing this module does not import torch.

Shape letters: b batch, c channels, h w spatial, d features, n tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
    "Judgement",
    "LatentBatch",
    "Latents",
    "Modes",
    "Precision",
    "Score",
    "TensorType",
    "Value",
    "split_levels",
]

Value: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""The value of an `Event`: one tensor, or one per level."""

Precision: TypeAlias = Literal["float32", "tf32", "bf16", "fp16"]
"""What networks compute in, see `modkit.precision`; weights are float32 whichever it is."""


@dataclass(frozen=True)
class TensorType:
    """The type of one sample.

    Args:
        shape: Shape of one sample, without the batch axis: `(c, h, w)`, `(c, t)`, `(c, t, h, w)`, `(d,)`, `()` for a
            scalar such as a label, `(h, w)` for a map of codes.
        range: Lowest and highest value, or None if values are unbounded (they are then neither squashed nor clipped).
        classes: Number of classes if values are integers in [0, classes); None if values are continuous.
        std: Standard deviation of the values over all samples, or None if it is unknown. Types that differ in it alone
            are equal: it sets the noise levels of a diffusion model, and no shape depends on it.
        levels: Number of values, evenly spaced over the range, that a value takes, or None if they are unknown or the
            values are continuous. Types that differ in it alone are equal, too.

    Examples:
        >>> x = TensorType((1, 28, 28), range=(-1, 1))
        >>> print(x, x.numel)
        1×28×28 in [-1, 1] 784
        >>> print(TensorType((4, 4), classes=512))
        4×4 codes of 512 classes

    Raises:
        ValueError: If a size is not positive, the range is empty, a discrete type has a range, the standard deviation
            is not positive and finite, or there are fewer than 2 levels.
    """

    shape: tuple[int, ...]
    range: tuple[float, float] | None = None
    classes: int | None = None
    std: float | None = field(default=None, compare=False, repr=False)
    levels: int | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.shape):
            raise ValueError(f"TensorType expects sizes of at least 1, got shape {self.shape}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"TensorType expects range (low, high) with low < high, got {self.range}")
        if self.classes is not None and (self.classes < 1 or self.range is not None):
            raise ValueError(
                f"TensorType expects classes >= 1 and no range beside them, got {self.classes}, {self.range}"
            )
        if self.std is not None and not 0 < self.std < math.inf:
            raise ValueError(f"TensorType expects a positive std, or None, got {self.std}")
        if self.levels is not None and self.levels < 2:
            raise ValueError(f"TensorType expects levels >= 2, or None, got {self.levels}")

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
"""The type of what a Model models: that of one tensor, or of each level of a hierarchy, coarsest first."""


def split_levels(event: Event) -> tuple[TensorType, ...]:
    """Returns the levels of a hierarchy, coarsest first; a plain type is its own only level.

    Examples:
        >>> split_levels(TensorType((2,)))
        (TensorType(shape=(2,), range=None, classes=None),)
    """
    return event if isinstance(event, tuple) else (event,)


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


@dataclass(frozen=True)
class Batch:
    """Samples, the data's fields, and conditions.

    Args:
        x: The samples; condensed ones (`Model.condense`) are a tuple, even of one tensor.
        fields: The raw fields of the data by name: labels, captions, masks.
        cond: Conditions that an enclosing Model provides.

    Examples:
        >>> import torch
        >>> batch = Batch(torch.zeros(4, 2), {"labels": torch.tensor([0, 1, 2, 3])})
        >>> len(batch), batch.rows(slice(1, 3)).fields["labels"].tolist()
        (4, [1, 2])
    """

    x: Value
    fields: Mapping[str, Tensor]
    cond: Cond = Cond()

    def __len__(self) -> int:
        return len(self.x[0]) if isinstance(self.x, tuple) else len(self.x)

    @property
    def tensor(self) -> Tensor:
        """`x`, if it is a single tensor.

        Raises:
            ValueError: If `x` is a hierarchy.
        """
        if isinstance(self.x, tuple):
            raise ValueError(f"expected one tensor, got a hierarchy of {len(self.x)} levels")
        return self.x

    def rows(self, rows: slice) -> Batch:
        """Returns some of the samples with their fields; `cond` stays as it is."""
        x = tuple(level[rows] for level in self.x) if isinstance(self.x, tuple) else self.x[rows]
        return Batch(x, {name: value[rows] for name, value in self.fields.items()}, self.cond)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Returns the batch with each of its tensors changed by a function."""
        x = tuple(map(change, self.x)) if isinstance(self.x, tuple) else change(self.x)
        return Batch(x, {name: change(value) for name, value in self.fields.items()}, self.cond.map(change))

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch on another device; copies from pinned memory to CUDA do not wait."""
        import torch

        non_blocking = torch.device(device).type == "cuda"
        return self.map(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Returns the batch in pinned memory, but for what is on a device already; torch's loader calls this."""
        return self.map(lambda value: value.pin_memory() if value.device.type == "cpu" else value)


class Latents(NamedTuple):
    """What a bottleneck returns for features `h`.

    Args:
        values: The latents by name, of the types in its `latents`; the decoder receives the last.
        kl: KL(q(z | x) || p(z)) in nats per sample: `b`, or `b g` with a column for each group of latent variables (a
            channel, a level of a hierarchy), whose sum over groups is the KL; None if the bottleneck has no KL term.
        losses: Further named losses, averaged over elements (codebook loss, commitment loss).
    """

    values: dict[str, Value]
    kl: Tensor | None
    losses: dict[str, Tensor]

    @property
    def total_kl(self) -> Tensor | None:
        """The KL of all groups together, `b`, or None."""
        return self.kl if self.kl is None or self.kl.ndim == 1 else self.kl.sum(1)


class LatentBatch(NamedTuple):
    """What an aggregate part is given: a batch of latents, and what it asks for beside them.

    Latents are flattened: d is the number of values of the decoder's input, over all levels of a hierarchy.

    Args:
        z: Draws of q(z | x), one for each x of the batch, `b d`.
        prior: As many draws of the bottleneck's prior, `b d`, or None.
        mean: Means of q(z | x), a diagonal Gaussian, `b d`, or None.
        std: Standard deviations of q(z | x), `b d`, or None.
        num_samples: Number of training samples, a scalar, 0 before it is known, or None.
    """

    z: Tensor
    prior: Tensor | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    num_samples: Tensor | None = None

    def require(self, name: str) -> Tensor:
        """Returns a member by name.

        Raises:
            ValueError: If it is None.

        Examples:
            >>> import torch
            >>> LatentBatch(torch.zeros(2, 1)).require("z").shape
            torch.Size([2, 1])
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise ValueError(f"expected a LatentBatch with `{name}`, got None; a part names what it needs in `reads`")
        return value


class Denoised(NamedTuple):
    """What a denoiser returns.

    Args:
        x_0: The predicted clean sample, shape of `x_t`.
        v: The interpolation weight of a learned variance, in [0, 1] (Improved DDPM, eq. 15), or None.
    """

    x_0: Tensor
    v: Tensor | None = None


class Features(NamedTuple):
    """What a feature extractor returns for images.

    Args:
        vector: Feature vectors, `b d`.
        maps: Feature maps `b c h w`, from shallow to deep; may be empty.
        logits: Class logits, `b k`, if the extractor is a classifier.
    """

    vector: Tensor
    maps: tuple[Tensor, ...] = ()
    logits: Tensor | None = None


class Judgement(NamedTuple):
    """What a discriminator returns for samples, with what it saw in them.

    Args:
        logits: The logits, `b` or `b 1 h w`, higher for real samples.
        maps: Its hidden features `b c ...`, from shallow to deep.
        heads: What its heads computed, by name, `b width`; of a classifier, the logits of classes.
    """

    logits: Tensor
    maps: tuple[Tensor, ...]
    heads: Mapping[str, Tensor] = {}


@dataclass(frozen=True)
class Score:
    """One number that a metric reports, with everything that it depends on.

    Args:
        value: The number.
        error: Its standard error, or None if there is no estimate.
        better: Which direction is better, or None if neither is.
        counts: Number of samples by set (`real`, `fake`, `train`).
        seed: Seed of the random draws behind it.
        settings: Other settings that it depends on, such as k, the features or the device; plain JSON.
        details: Additional results, such as operators and sizes; plain JSON.
        warnings: Caveats for the reader.

    Examples:
        >>> a, b = Score(3.2, counts={"fake": 100}), Score(2.9, counts={"fake": 50})
        >>> a.is_comparable_to(b)
        False
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
        """Whether two scores of the same name may be ranked: their counts and settings are equal."""
        return self.counts == other.counts and self.settings == other.settings


class Modes(NamedTuple):
    """The true distribution of synthetic data: a mixture of equally likely isotropic Gaussians.

    Args:
        centers: Their means, `k d`.
        std: Their standard deviation.
    """

    centers: Tensor
    std: float
