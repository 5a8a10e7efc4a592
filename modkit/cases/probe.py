"""The probe: supplies the inputs of a reference call, and detects changes to them.

Inputs are functions of their row: row i is equal in batches of any size and dtype, so that these can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Cond, CondType, Event, TensorType, Value

__all__ = ["Probe"]


class Probe:
    """Supplies the inputs of one reference call.

    Args:
        num: Number of samples in the batch.
        dtype: Dtype of floating-point inputs.
        training: Whether losses are computed as in training; `step` is then not None.
        gradients: Whether floating-point inputs require gradients.
        device: Device of the inputs.
        seed: Seed of all draws.

    Examples:
        >>> x = TensorType((2,))
        >>> torch.equal(Probe(4).draw_value("x", x)[:2], Probe(2).draw_value("x", x))
        True
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
        self.leaves: list[tuple[str, Tensor]] = []
        """The inputs that require gradients, by name; one that is drawn more than once is as many leaves."""
        self._given: list[tuple[str, Tensor, Tensor]] = []

    @property
    def rng(self) -> Rng:
        """The source of draws for the part, a new equal one at each access."""
        return Rng(self._seed, "part")

    @property
    def step(self) -> StepContext | None:
        """The step of training, or None outside of training."""
        return StepContext(self.rng.at("step"), training=True) if self.training else None

    def draw_value(self, name: str, event: Event) -> Value:
        """Draws samples of an event: uniform over a range or classes, otherwise standard normal."""
        if isinstance(event, tuple):
            return tuple(self.draw_tensor(f"{name}[{level}]", type) for level, type in enumerate(event))
        return self.draw_tensor(name, event)

    def draw_tensor(self, name: str, type: TensorType) -> Tensor:
        """Draws samples of one type, `num` rows."""
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
        """Registers a tensor as an input of this probe, and returns it."""
        x = self.watch(name, x.to(self.device))
        if not self.gradients or not x.is_floating_point():
            return x
        self.leaves.append((name, x.clone().requires_grad_()))
        return self.leaves[-1][1]

    def watch(self, name: str, x: Tensor) -> Tensor:
        """Registers a tensor that reaches the part on its way as an input of this probe, and returns it as it is."""
        self._given.append((name, x, x.detach().clone()))
        return x

    def draw_cond(self, type: CondType) -> Cond:
        """Draws conditions of a type."""
        return Cond.make({name: self.draw_tensor(name, one) for name, one in type.list_types().items()})

    def find_changed(self) -> list[str]:
        """Returns the names of inputs that have been changed."""
        return list(dict.fromkeys(name for name, x, before in self._given if not torch.equal(x, before)))
