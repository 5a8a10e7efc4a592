"""Conditioners: what a data set's fields say, as conditions. Shape letters: b batch, k classes, d width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType

__all__ = ["Label", "NoConditioner"]


class NoConditioner:
    """No conditions, whatever the fields."""

    type = CondType()
    reads: tuple[str, ...] = ()

    def __call__(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Nothing."""
        return Cond()

    def null(self, num: int) -> Cond:
        """Nothing."""
        return Cond()

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """No fields."""
        return {}

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Leaves `batches` alone."""


class Label(nn.Module):
    """A learned vector for each class, and one for no class (classifier-free guidance).

    References:
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), algorithm 1, https://arxiv.org/abs/2207.12598

    Args:
        field: Name of the field of labels.
        width: Width of the vectors.
        drop: Probability with which a label is replaced by none in training, in [0, 1].

    Raises:
        ValueError: If the field is missing or is no label, `width` is below 1, or `drop` is no probability.
    """

    frequencies: Tensor

    def __init__(
        self, fields: dict[str, TensorType], *, field: str = "labels", width: int = 128, drop: float = 0.1
    ) -> None:
        super().__init__()
        if field not in fields:
            raise ValueError(f"Label expects the data's field {field!r}, got fields {sorted(fields)}")
        classes = fields[field].classes
        if classes is None or fields[field].shape:
            raise ValueError(f"Label expects field {field!r} to be one class a sample, got {fields[field]}")
        if width < 1 or not 0 <= drop <= 1:
            raise ValueError(f"Label expects width >= 1 and drop in [0, 1], got {width} and {drop}")
        self.field, self.classes, self.drop = field, classes, drop
        self.reads: tuple[str, ...] = (field,)
        self.type = CondType(vector=width)  # type: ignore[assignment, method-assign]  # the contract's name
        self.embedding = nn.Embedding(classes + 1, width)
        self.register_buffer("frequencies", torch.full((classes,), 1 / classes))

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Vectors `b d` of labels `b` in [0, k); with an rng, each becomes none with probability `drop`.

        Raises:
            ValueError: If the field is missing or is not int64 `b`; outside training, on the CPU, if a label is out of
                range.
        """
        labels = self._labels(fields)
        if rng is not None and self.drop > 0:
            uniform = rng.uniform("drop", torch.empty(labels.shape, device=labels.device))
            labels = torch.where(uniform < self.drop, self.classes, labels)
        return Cond(vector=self.embedding(labels))

    def null(self, num: int) -> Cond:
        """The vector of no class, `num d`."""
        return Cond(vector=self.embedding(torch.full((num,), self.classes, device=self.frequencies.device)))

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Labels drawn from the frequencies: uniform before `prepare`, then the data's."""
        cumulative = self.frequencies.double().cumsum(0)
        uniform = rng.uniform("labels", cumulative.new_empty(num))
        labels = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
        return {self.field: labels.clamp_max(self.classes - 1)}

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        """Counts the labels of `batches`.

        Raises:
            ValueError: If there are none, or one is out of range.
        """
        counts = torch.zeros(self.classes, dtype=torch.int64)
        for batch in batches:
            labels = self._labels(batch.fields).cpu()
            self._check_range(labels)
            counts += labels.bincount(minlength=self.classes)
        if not counts.any():
            raise ValueError(f"Label expects labels to count in field {self.field!r}, got none")
        self.frequencies.copy_(counts / counts.sum())

    def _labels(self, fields: Mapping[str, Tensor]) -> Tensor:
        if self.field not in fields:
            raise ValueError(f"Label expects field {self.field!r}, got fields {sorted(fields)}")
        labels = fields[self.field]
        if labels.ndim != 1 or labels.dtype != torch.int64:
            raise ValueError(f"Label expects int64 labels of shape (b,), got {labels.dtype} {tuple(labels.shape)}")
        if labels.device.type == "cpu" and not self.training:  # elsewhere looking at them would wait for the device
            self._check_range(labels)
        return labels

    def _check_range(self, labels: Tensor) -> None:
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            received = f"{int(labels.min())}..{int(labels.max())}"
            raise ValueError(f"Label expects labels in [0, {self.classes}), got {received}")
