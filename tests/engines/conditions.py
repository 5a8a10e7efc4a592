"""A conditioner and a network of a package with a condition of its own, an entry of `Cond.own`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modkit import Cond, CondType, TensorType
from modkit.conditioners import Frequencies
from modkit.conditioners.label import Classes

__all__ = ["ClassMap", "Joined"]


class ClassMap(Classes):
    """A learned map of each class, and one of no class, as the own condition `map`."""

    def __init__(self, fields: Mapping[str, TensorType]) -> None:
        super().__init__(fields, "labels", 0.1)
        self.type = CondType(own={"map": TensorType((1, 8, 8))})
        self.maps = nn.Embedding(self.classes + 1, 64)
        self.counted = Frequencies(self.field)

    def embed(self, labels: Tensor) -> Cond:
        """Looks up the maps of labels."""
        return Cond(own={"map": self.maps(labels).unflatten(1, (1, 8, 8))})


class Joined(nn.Module):
    """One hidden layer of x beside its own map, a vector and the time."""

    own_conditions = ("map",)

    def __init__(self, x: TensorType, out: TensorType, cond: CondType) -> None:
        super().__init__()
        self.first = nn.Linear(x.numel + cond.own["map"].numel + (cond.vector or 0) + 1, 32)
        self.last = nn.Linear(32, out.numel)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the output, `b c h w`."""
        given = [x.flatten(1), cond.own["map"].flatten(1), cond.vector, cond.time[:, None]]
        return self.last(self.first(torch.cat(given, 1)).tanh()).view_as(x)
