"""The probe: what a reference call feeds a part with, drawn as functions of the row, and kept to see what became of it.

Row i is the same in any batch and dtype, so that batches of different sizes, and dtypes, can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modkit.rng import Rng
from modkit.types import Cond, CondType, Event, TensorType, Value

__all__ = ["Probe", "Training"]


@dataclass(frozen=True)
class Training:
    """A `Step` in training: the first of its stage, in the owner's turn, with every term wanted."""

    rng: Rng
    index: int = 0
    moves: bool = True

    def wants(self, term: str) -> bool:
        """True."""
        return True


class Probe:
    """Feeds one reference call.

    Args:
        num: Samples of the batch.
        dtype: Floating dtype of what it feeds.
        training: Whether losses are computed as in training (`step` is then given).
        gradients: Whether floating values take gradients.
        device: Where what it feeds is.
        seed: Of every draw.
    """

    def __init__(
        self,
        num: int = 4,
        *,
        dtype: torch.dtype = torch.float32,
        training: bool = False,
        gradients: bool = False,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        self.num, self.dtype, self.training, self.device = num, dtype, training, device
        self.gradients, self._seed = gradients, seed
        self._given: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def rng(self) -> Rng:
        """The part's own source of draws, the same at each asking."""
        return Rng(self._seed, "part")

    @property
    def step(self) -> Training | None:
        """The step of training, or None outside of it."""
        return Training(self.rng.at("step")) if self.training else None

    def draw_value(self, name: str, event: Event) -> Value:
        """Samples of an event: uniform over a range or classes, else standard normal."""
        if isinstance(event, tuple):
            return tuple(self.draw_tensor(f"{name}[{level}]", type) for level, type in enumerate(event))
        return self.draw_tensor(name, event)

    def draw_tensor(self, name: str, type: TensorType) -> Tensor:
        """Samples of one type, `num` rows."""
        rng = Rng(self._seed, "probe").at(name)
        blank = torch.empty(self.num, *type.shape)
        if type.classes is not None:
            x = rng.integers("x", blank, 0, type.classes)
        elif type.range is not None:
            low, high = type.range
            x = low + (high - low) * rng.uniform("x", blank)
        else:
            x = rng.normal("x", blank)
        return self.feed(name, x.to(self.dtype) if x.is_floating_point() else x)

    def feed(self, name: str, x: Tensor) -> Tensor:
        """A tensor made elsewhere, as one that this probe feeds."""
        x = x.to(self.device)
        self._given[name] = (x, x.clone())
        return x.clone().requires_grad_() if self.gradients and x.is_floating_point() else x

    def draw_cond(self, type: CondType) -> Cond:
        """Conditions of a type."""
        made: dict[str, Any] = {}
        if type.vector:
            made["vector"] = self.draw_tensor("vector", TensorType((type.vector,)))
        if type.noise:
            made["noise"] = self.draw_tensor("noise", TensorType((type.noise,)))
        if type.labels:
            made["labels"] = self.draw_tensor("labels", TensorType((), classes=type.labels + 1))
        if type.context:
            made["context"] = self.draw_tensor("context", TensorType(type.context))
        if type.concat:
            made["concat"] = self.draw_tensor("concat", type.concat)
        if type.time:
            made["time"] = self.draw_tensor("time", TensorType((), range=(0.1, 0.9)))
        return Cond(**made)

    def find_changed(self) -> list[str]:
        """Names of what it fed that is not as it was."""
        return [name for name, (x, before) in self._given.items() if not torch.equal(x, before)]
