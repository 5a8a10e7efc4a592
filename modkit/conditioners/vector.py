r"""Real values as a vector: fields that are standardised, joined and embedded by an MLP.

    z = (fields - mean) / std,   n = 0          or z = 0, n = 1: no condition, with probability `drop` in training
    h_0 = [z, n],   h_i = SiLU(W_i h_(i-1) + b_i),   vector = W h_depth + b

Mean and deviation are those of the training data. A dimension that is constant there is only shifted.

Shape letters: b batch, v values, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from modkit.conditioners.drawing import Drawing, Examples
from modkit.conditioners.fields import find_field
from modkit.data.moments import RunningMoments
from modkit.nn.trained import is_trained
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, NonNegativeInt, PositiveInt, Share, TensorType, checked

__all__ = ["Vector"]

_CONSTANT = 1e-6  # a deviation, relative to the mean, that float32 cannot tell from none


@checked
class Vector(Drawing):
    """An embedding of real values, such as measurements or the parameters of an augmentation; and one of no values.

    References:
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), algorithm 1, https://arxiv.org/abs/2207.12598

    Args:
        names: Names of the fields, of any shape; by default all continuous fields of the data.
        width: Width of the vectors.
        depth: Number of hidden layers, of the same width; with 0 the embedding is linear.
        drop: Probability in [0, 1] with which all values of a sample are dropped in training.
        keep: Number of training samples whose fields are stored, to be drawn when none are given; with 0 nothing can be
            drawn.

    Raises:
        ValueError: If there is no such field, a field is named twice or holds classes, or a number is out of range.

    Examples:
        >>> vector = Vector({"age": TensorType(()), "pose": TensorType((2, 3))}, width=4)
        >>> vector({"age": torch.zeros(2), "pose": torch.zeros(2, 2, 3)}, None).vector.shape
        torch.Size([2, 4])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        fields: dict[str, TensorType],
        *,
        names: list[str] | None = None,
        width: PositiveInt = 128,
        depth: NonNegativeInt = 1,
        drop: Share = 0.1,
        keep: NonNegativeInt = 64,
    ) -> None:
        super().__init__()
        names = [name for name, type in fields.items() if type.classes is None] if names is None else names
        self.fields = tuple(find_field(self, fields, name) for name in names)
        if not names or len(set(names)) < len(names) or any(one.type.classes is not None for one in self.fields):
            found = ", ".join(f"{name} {type}" for name, type in fields.items()) or "none"
            raise ValueError(f"Vector expects continuous fields among the data's ({found}), each once, got {names}")
        self.drop = drop
        self.reads: tuple[str, ...] = tuple(names)
        self.together = (self.reads,)
        self.type = CondType(vector=width)  # type: ignore[assignment, method-assign]  # the contract's name
        num = sum(one.type.numel for one in self.fields)
        self.register_buffer("mean", torch.zeros(num))
        self.register_buffer("std", torch.ones(num))
        widths = [num + 1, *depth * [width]]
        hidden = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.embed = nn.Sequential(*hidden, nn.Linear(widths[-1], width))
        self.examples = Examples(self.fields, keep)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Embeds the fields as vectors `b d`; given an rng, those of a sample are dropped with probability `drop`.

        Raises:
            ValueError: If a field is missing or has another type.
        """
        values = (self._join(fields).to(self.mean.dtype) - self.mean) / self.std
        none = values.new_zeros(len(values), 1)
        if rng is not None and self.drop > 0:
            none = (rng.uniform("drop", torch.empty_like(none)) < self.drop).to(values.dtype)
        return Cond(vector=self.embed(torch.cat([values * (1 - none), none], 1)))

    def null(self, num: int) -> Cond:
        """Returns the vector of no values, `num d`."""
        none = torch.cat([torch.zeros_like(self.mean), self.mean.new_ones(1)])
        return Cond(vector=self.embed(none).expand(num, -1))

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measures the mean and the deviation of each value, and stores the fields of the first samples.

        A trained conditioner keeps the mean and the deviation that its embedding was trained with.

        Raises:
            ValueError: If there are no samples.
        """
        moments = RunningMoments(by_channel=True)
        measured = self._measure(batches, moments)
        super().prepare(measured)
        for _ in measured:  # those after the stored ones
            pass
        if is_trained(self):
            return
        mean, std = moments.compute()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > _CONSTANT * mean.abs(), std, 1.0))

    def _measure(self, batches: Iterable[Batch], moments: RunningMoments) -> Iterator[Batch]:
        for batch in batches:
            moments.add(self._join(batch.fields))
            yield batch

    def _join(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Reads the fields and flattens them, `b v`."""
        return torch.cat([one.read(fields).reshape(-1, one.type.numel) for one in self.fields], 1)
