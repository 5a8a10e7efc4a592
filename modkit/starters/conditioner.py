r"""A class label as a one-hot vector; all zeros if there is no label.

    vector = e_label,    or 0 with probability `drop` in training, and for unconditional guidance

A conditioner takes the types of the data's fields. It states in `reads` which fields it uses and in `type` the type of
the condition (`modkit.kinds.Conditioner`). `Frequencies` counts the classes in the data, to draw labels if none are
given.

Shape letters: b batch, k classes.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit import Batch, Cond, CondType, Rng, TensorType
from modkit.conditioners import Frequencies, find_field
from modkit.types import Share, checked

__all__ = ["OneHot"]


@checked
class OneHot(nn.Module):
    """One-hot labels.

    References:
        Conditional Generative Adversarial Nets (Mirza and Osindero, 2014), section 4.1,
        https://arxiv.org/abs/1411.1784

    Args:
        fields: Types of the data's fields.
        field: Name of the field of labels.
        drop: Probability of dropping a label in training, in [0, 1].

    Raises:
        ValueError: If the field is missing or not a label, or `drop` is not a probability.
    """

    def __init__(self, fields: dict[str, TensorType], *, field: str = "labels", drop: Share = 0.1) -> None:
        super().__init__()
        self.field = find_field(self, fields, field)
        classes = self.field.type.classes
        if classes is None or self.field.type.shape:
            raise ValueError(f"OneHot expects field {field!r} to be one class per sample, got {self.field.type}")
        self.classes, self.drop = classes, drop
        self.reads: tuple[str, ...] = (field,)
        self.type = CondType(vector=classes)  # type: ignore[assignment, method-assign]  # the contract's name
        self.counted = Frequencies(self.field)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Returns vectors `b k` for labels `b`; with an rng, some labels are dropped."""
        labels = self.field.read_checked(fields, self.training)
        vector = F.one_hot(labels, self.classes).to(self.counted.frequencies.dtype)
        if rng is not None and self.drop > 0:
            kept = rng.uniform("drop", torch.empty(len(labels), 1, device=labels.device)) >= self.drop
            vector = vector * kept
        return Cond(vector=vector)

    def null(self, num: int) -> Cond:
        """Returns vectors for samples without a label, `num k`."""
        return Cond(vector=self.counted.frequencies.new_zeros(num, self.classes))

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Draws labels with their frequencies in the data."""
        return self.counted.draw(num, rng)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Counts the labels in the data."""
        self.counted.prepare(batches)
