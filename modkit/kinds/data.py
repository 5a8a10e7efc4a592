"""What a model learns from: a data set, and the conditions made of its fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from modkit.types import Batch, Cond, CondType, TensorType

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.rng import Rng

__all__ = ["Conditioner", "Data"]


class Data(Protocol):
    """A data set: it reads what it is asked for and has no order of its own; picklable to workers.

    `.levels` is the number of values a pixel can take (256 for 8-bit images), or None; `.key` a hash of content and
    preprocessing; `.splits` the number of samples in each split.

    Optional: `.features` names the features that suit its samples (`classifier:digits`); runs are measured with them
    unless others are requested. Without it, a classifier is trained on labelled images, and other data are compared by
    their values.
    """

    x: TensorType
    fields: dict[str, TensorType]
    splits: dict[str, int]
    levels: int | None

    @property
    def key(self) -> str:
        """Hash of content and preprocessing."""
        ...

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """The samples at `indices`; augmentation draws from `rng.at(index)`, a function of (seed, epoch, index)."""
        ...


class Conditioner(Protocol):
    """Turns the data's fields, those named in `.reads`, into conditions of type `.type`.

    Optional: `.together`, groups of fields that belong to one sample, to be given or drawn as one.
    """

    type: CondType
    reads: tuple[str, ...]

    def __call__(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """The conditions of `fields`; with an rng, rows become null with the conditioner's probability `drop`."""
        ...

    def null(self, num: int) -> Cond:
        """`num` rows of no vector, labels and tokens, and no maps: whoever guides keeps those of the fields."""
        ...

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Fields drawn from the frequencies kept in its buffers.

        Raises:
            ValueError: If it cannot, naming the field to give.
        """
        ...

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measures the frequencies of its fields; `batches` is left alone where it needs none."""
        ...
