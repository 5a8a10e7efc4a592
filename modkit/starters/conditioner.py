r"""A class label as it is: a one at its place, and zeros where there is none.

    vector = e_label,    or 0 with probability `drop` in training, and on guidance's other side

A conditioner is told the types of the data's fields, says in `reads` which of them it takes and in `type` what it makes
of them (`modkit.kinds.Conditioner`). `Frequencies` counts classes in the data, to draw labels where none are given.

Shape letters: b batch, k classes.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit import Batch, Cond, CondType, Rng, TensorType
from modkit.conditioners.drawing import Frequencies
from modkit.conditioners.fields import check_drop, find_field

__all__ = ["OneHot"]


class OneHot(nn.Module):
    """One-hot labels.

    References:
        Conditional Generative Adversarial Nets (Mirza and Osindero, 2014), section 4.1,
        https://arxiv.org/abs/1411.1784

    Args:
        fields: Types of the data's fields.
        field: Name of the field of labels.
        drop: Probability with which a label is left out in training, in [0, 1].

    Raises:
        ValueError: If the field is missing or is no label, or `drop` is no probability.
    """

    def __init__(self, fields: dict[str, TensorType], *, field: str = "labels", drop: float = 0.1) -> None:
        super().__init__()
        self.field = find_field(self, fields, field)
        classes = self.field.type.classes
        if classes is None or self.field.type.shape:
            raise ValueError(f"OneHot expects field {field!r} to be one class a sample, got {self.field.type}")
        check_drop(self, drop)
        self.classes, self.drop = classes, drop
        self.reads: tuple[str, ...] = (field,)
        self.type = CondType(vector=classes)  # type: ignore[assignment, method-assign]  # the contract's name
        self.counted = Frequencies(self.field)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Vectors `b k` of labels, `b`; with an rng, some are left out."""
        labels = self.field.read_checked(fields, self.training)
        vector = F.one_hot(labels, self.classes).to(self.counted.frequencies.dtype)
        if rng is not None and self.drop > 0:
            kept = rng.uniform("drop", torch.empty(len(labels), 1, device=labels.device)) >= self.drop
            vector = vector * kept
        return Cond(vector=vector)

    def null(self, num: int) -> Cond:
        """No label, `num k`."""
        return Cond(vector=self.counted.frequencies.new_zeros(num, self.classes))

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Labels as often as they come in the data."""
        return self.counted.draw(num, rng)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Counts the labels."""
        self.counted.prepare(batches)
