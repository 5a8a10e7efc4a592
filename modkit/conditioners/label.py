"""A class label as a vector. Shape letters: b batch, k classes, d width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modkit.conditioners.drawing import Drawing, Frequencies
from modkit.conditioners.fields import find_field
from modkit.rng import Rng
from modkit.types import Cond, CondType, PositiveInt, Share, TensorType, checked

__all__ = ["Classes", "Label"]


@checked
class Classes(Drawing):
    """Base of conditioners on a class: a subclass sets `counted`, after its own state, and embeds labels.

    Args:
        fields: The types of the fields.
        field: Name of the field of labels.
        drop: Probability in [0, 1] with which a label is replaced by no class in training.

    Raises:
        ValueError: If the field is missing or is not a label, or `drop` is outside [0, 1].
    """

    source_name = "counted"
    counted: Frequencies

    def __init__(self, fields: Mapping[str, TensorType], field: str, drop: Share) -> None:
        super().__init__()
        self.field = find_field(self, fields, field)
        classes = self.field.type.classes
        if classes is None or self.field.type.shape:
            owner = self.field.owner
            raise ValueError(f"{owner} expects field {field!r} to be one class per sample, got {fields[field]}")
        self.classes, self.drop = classes, drop
        self.reads: tuple[str, ...] = (field,)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Embeds labels `b` in [0, k); given an rng, each is dropped with probability `drop`.

        Raises:
            ValueError: If the field is missing or is not int64 `b`, or, outside training on the CPU, if a label is out
                of range.
        """
        labels = self.field.read_checked(fields, self.training)
        if rng is not None and self.drop > 0:
            uniform = rng.uniform("drop", torch.empty(labels.shape, device=labels.device))
            labels = torch.where(uniform < self.drop, self.classes, labels)
        return self.embed(labels)

    def null(self, num: int) -> Cond:
        """Embeds no class, `num` times."""
        return self.embed(torch.full((num,), self.classes, device=self.counted.frequencies.device))

    def embed(self, labels: Tensor) -> Cond:
        """Embeds labels `b` in [0, k], where k is no class."""
        raise NotImplementedError


@checked
class Label(Classes):
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

    def __init__(
        self, fields: dict[str, TensorType], *, field: str = "labels", width: PositiveInt = 128, drop: Share = 0.1
    ) -> None:
        super().__init__(fields, field, drop)
        self.type = CondType(vector=width)  # type: ignore[assignment, method-assign]  # the contract's name
        self.embedding = nn.Embedding(self.classes + 1, width)
        self.counted = Frequencies(self.field)

    @property
    def frequencies(self) -> Tensor:
        """The frequency of each label, `k`: uniform before `prepare`, then that in the data."""
        return self.counted.frequencies

    def embed(self, labels: Tensor) -> Cond:
        """Embeds labels `b` as vectors `b d`."""
        return Cond(vector=self.embedding(labels))
