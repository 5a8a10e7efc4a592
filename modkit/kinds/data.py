"""What a model learns from: a data set, and the conditions computed from its fields."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from modkit.kinds.review import Note
from modkit.types import Batch, Cond, CondType, Modes, TensorType

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.rng import Rng

__all__ = ["Conditioner", "ConditionerExtras", "Data", "DataExtras"]


class Data(Protocol):
    """A data set: it reads the samples at given indices, in any order, and can be pickled to workers.

    `.fields` gives the types of the fields beside a sample. `.splits` gives the number of samples of each split.
    """

    fields: dict[str, TensorType]
    splits: dict[str, int]

    @property
    def levels(self) -> int | None:
        """The number of values that a pixel can take (256 for 8-bit images), or None."""
        ...

    @property
    def x(self) -> TensorType:
        """The type of a sample; if it states no standard deviation, one is measured where a model is made for it."""
        ...

    @property
    def key(self) -> str:
        """Hash of its content and preprocessing."""
        ...

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`; a data set with `finish` may leave the last steps to it.

        Augmentation draws from `rng.at(index)`, a function of (seed, epoch, index).
        """
        ...


@dataclass(frozen=True)
class DataExtras:
    """Optional members of a data set.

    Args:
        truth: The modes of synthetic data, against which metrics of modes compare samples.
        features: The features that suit its samples, by name (`classifier:digits`). A run is measured with them unless
            others are requested. Without them, a classifier is trained on labelled images, and other data are compared
            by their values.
        conditions: Names of fields that exist for the model to read, such as a damaged copy of the sample. Training a
            model that does not read all of them is refused; other fields, such as labels, may be left unread.
        factors: Names of the fields, each with classes, that are the factors of variation of a sample: independent of
            each other, and together all that samples differ in. Metrics of disentanglement compare latents with them.
        finish: Makes the samples of type `x` from a batch that `read` returned, on the device of the batch and without
            draws, row by row. With it, `read` may return bytes, a quarter of what floats take on the way from the
            processes that read.
        read_fields: `read_fields(split, indices)` reads the fields without the samples, if they depend on no draw.
        plain: The same data without augmentation, of the same types and splits, for data that tell how samples are
            changed: the fields that say so are those of samples as they are. Conditioners are prepared with its fields,
            and samples are compared with its pictures.
        stream: For data that cannot be read by index, whose `read` then raises ValueError. `stream(split, part, parts,
            rng)` reads one pass over share `part` of `parts` disjoint shares of a split, in an order drawn from `rng`,
            which is the same for all shares. It yields batches of any number of rows, as `read` would return them.
            `splits` states how many samples a whole pass has. Training on a stream is inexact: see
            `modkit.data.stream`.
        class_names: Names of the classes of fields, by field: `{"labels": ("cat", "dog")}`.
        review: What the data set says of itself in `modkit check` and when training begins, with paths relative to it:
            facts, such as how many files were skipped and why, and findings, such as labels with gaps.
        arguments: The keywords that it was made with, which the spec of a run of the object holds; the decorator
            `modkit.data.recorded` keeps them.
    """

    truth: Modes | None = None
    features: str | None = None
    conditions: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    finish: Callable[[Batch], Batch] | None = None
    read_fields: Callable[[str, Sequence[int]], Mapping[str, Tensor]] | None = None
    plain: Data | None = None
    stream: Callable[[str, int, int, Rng], Iterator[Batch]] | None = None
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    review: Callable[[], Iterable[Note]] | None = None
    arguments: Mapping[str, object] | None = None


class Conditioner(Protocol):
    """Computes conditions of type `.type` from the data's fields that `.reads` names."""

    type: CondType
    reads: tuple[str, ...]

    def __call__(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Computes the conditions of `fields`.

        Given an rng, it replaces rows by null conditions with its probability `drop`.
        """
        ...

    def null(self, num: int) -> Cond:
        """Returns `num` rows of null vectors, labels and tokens, without maps.

        Guidance keeps the maps of the fields.
        """
        ...

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Draws fields by the frequencies stored in its buffers.

        Raises:
            ValueError: If it cannot; the message names the field to pass.
        """
        ...

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measures the frequencies of its fields; a conditioner without frequencies does not read `batches`.

        Batches have fields, and no samples where fields can be read by themselves.
        """
        ...


@dataclass(frozen=True)
class ConditionerExtras:
    """Optional members of a `Conditioner`.

    Args:
        together: Groups of fields that belong to one sample (a mask and what it hides); the fields of a group are
            either all given or all drawn.
        drop: Probability with which conditions are replaced by null conditions in training, 0.0 if they never are (maps
            are kept), or None if it is unknown. Guidance that calls the unconditional denoiser is refused with 0.0.
        hide: `hide(fields, num)` returns the conditions of guidance's unconditional side, without maps, if some of the
            null conditions are not used in training, and what the fields say is kept in their place.
        draw_missing: `draw_missing(num, rng, given)` does what `draw` does where the fields named in `given` are known;
            it may leave these out, and a source that only they need is not asked. `given` has all of a group or none.
    """

    together: tuple[tuple[str, ...], ...] = ()
    drop: float | None = None
    hide: Callable[[Mapping[str, Tensor], int], Cond] | None = None
    draw_missing: Callable[[int, Rng, Collection[str]], dict[str, Tensor]] | None = None
