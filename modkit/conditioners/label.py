"""A class label as a vector. Shape letters: b batch, k classes, d width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modkit.conditioners.drawing import Drawing, Frequencies
from modkit.conditioners.fields import find_field
from modkit.rng import Rng
from modkit.types import Cond, CondType, PositiveInt, Share, TensorType, checked

__all__ = ["Label"]


@checked
class Label(Drawing):
    """A learned vector for each class, and one for no class (classifier-free guidance).

    References:
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), algorithm 1, https://arxiv.org/abs/2207.12598

    Args:
        field: Name of the field of labels.
        width: Width of the vectors.
        drop: Probability in [0, 1] with which a label is replaced by no class in training.

    Raises:
        ValueError: If the field is missing or is not a label, `width` is below 1, or `drop` is outside [0, 1].

    Examples:
        >>> label = Label({"labels": TensorType((), classes=10)}, width=4)
        >>> label({"labels": torch.tensor([3, 7])}, None).vector.shape
        torch.Size([2, 4])
        >>> label.null(3).vector.shape
        torch.Size([3, 4])
    """

    source_name = "counted"

    def __init__(
        self, fields: dict[str, TensorType], *, field: str = "labels", width: PositiveInt = 128, drop: Share = 0.1
    ) -> None:
        super().__init__()
        self.field = find_field(self, fields, field)
        classes = self.field.type.classes
        if classes is None or self.field.type.shape:
            raise ValueError(f"Label expects field {field!r} to be one class per sample, got {fields[field]}")
        self.classes, self.drop = classes, drop
        self.reads: tuple[str, ...] = (field,)
        self.type = CondType(vector=width)  # type: ignore[assignment, method-assign]  # the contract's name
        self.embedding = nn.Embedding(classes + 1, width)
        self.counted = Frequencies(self.field)

    @property
    def frequencies(self) -> Tensor:
        """The frequency of each label, `k`: uniform before `prepare`, then that in the data."""
        return self.counted.frequencies

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Embeds labels `b` in [0, k) as vectors `b d`; given an rng, each is dropped with probability `drop`.

        Raises:
            ValueError: If the field is missing or is not int64 `b`, or, outside training on the CPU, if a label is out
                of range.
        """
        labels = self.field.read_checked(fields, self.training)
        if rng is not None and self.drop > 0:
            uniform = rng.uniform("drop", torch.empty(labels.shape, device=labels.device))
            labels = torch.where(uniform < self.drop, self.classes, labels)
        return Cond(vector=self.embedding(labels))

    def null(self, num: int) -> Cond:
        """Returns the vector of no class, `num d`."""
        return Cond(vector=self.embedding(torch.full((num,), self.classes, device=self.embedding.weight.device)))
