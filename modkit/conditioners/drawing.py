"""Sources of fields that are not given: the frequencies of classes, or a few examples of the data.

Both read the training data once, in `prepare`, and store the result in buffers.

Shape letters: b batch, k classes, m examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from modkit.conditioners.fields import Field
from modkit.rng import Rng
from modkit.types import Batch

__all__ = ["Drawing", "Examples", "Frequencies"]


class Frequencies(nn.Module):
    """The frequency of each class: uniform before `prepare`, then that in the data.

    Args:
        field: A field with one class per sample.
    """

    frequencies: Tensor

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field, self.classes = field, field.type.classes or 1
        self.register_buffer("frequencies", torch.full((self.classes,), 1 / self.classes))

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Draws classes by their frequencies, `b`, on the CPU: some devices have no float64."""
        cumulative = self.frequencies.cpu().double().cumsum(0)
        uniform = rng.uniform("labels", cumulative.new_empty(num))
        labels = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
        return {self.field.name: labels.clamp_max(self.classes - 1).to(self.frequencies.device)}

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        """Counts the classes of `batches`.

        Raises:
            ValueError: If there are no classes, or one is out of range.
        """
        counts = torch.zeros(self.classes, dtype=torch.int64)
        for batch in batches:
            labels = self.field.read(batch.fields).cpu()
            self.field.check_range(labels)
            counts += labels.bincount(minlength=self.classes)
        if not counts.any():
            raise ValueError(f"{self.field.owner} expects classes to count in field {self.field.name!r}, got none")
        self.frequencies.copy_(counts / counts.sum())


class Examples(nn.Module):
    """The fields of the first samples of a pass; all fields of a draw come from the same sample.

    Args:
        fields: The fields.
        keep: Number m of samples to store; they are saved with the model. With 0 nothing can be drawn.

    Raises:
        ValueError: If `keep` is negative.
    """

    num: Tensor

    def __init__(self, fields: Sequence[Field], keep: int) -> None:
        super().__init__()
        self.fields, self.keep = tuple(fields), keep
        self.register_buffer("num", torch.zeros((), dtype=torch.int64))
        for number, one in enumerate(self.fields):
            dtype = torch.float32 if one.type.classes is None else torch.int64
            self.register_buffer(f"examples_{number}", torch.zeros((keep, *one.type.shape), dtype=dtype))

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Draws the fields of `num` examples uniformly, with replacement.

        Raises:
            ValueError: If there are no examples. The message names the fields to give.
        """
        if not int(self.num):
            names = ", ".join(one.name for one in self.fields)
            raise ValueError(f"{self.fields[0].owner} has no examples to draw from: give {names}")
        rows = rng.integers("examples", torch.empty(num), 0, int(self.num)).to(self.num.device)
        return {one.name: self._get_examples(number)[rows] for number, one in enumerate(self.fields)}

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        """Stores the first m samples of `batches`."""
        filled = 0
        for batch in batches if self.keep else ():
            count = min(len(batch), self.keep - filled)
            for number, one in enumerate(self.fields):
                self._get_examples(number)[filled : filled + count] = one.read(batch.fields)[:count]
            filled += count
            if filled == self.keep:
                break
        self.num.fill_(filled)

    def _get_examples(self, number: int) -> Tensor:
        return self.get_buffer(f"examples_{number}")


class Drawing(nn.Module):
    """Base of conditioners with one source of the fields that are not given, the submodule named `source_name`."""

    source_name = "examples"

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Draws labels by their frequencies, or fields from the stored examples, those of one row from one sample.

        Raises:
            ValueError: If no example is stored. The message names the fields to give.
        """
        return self._source.draw(num, rng)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Counts the labels of `batches`, or stores the fields of the first samples.

        Raises:
            ValueError: If there are no labels, or one is out of range.
        """
        self._source.prepare(batches)

    @property
    def _source(self) -> Frequencies | Examples:
        return getattr(self, self.source_name)
