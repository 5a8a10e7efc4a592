r"""The scale of a player's loss in float16, whose smallest numbers are larger than most gradients of activations.

    g = 1/s grad (s L);   the step is skipped and s halved if g is not finite;   s doubled after n steps that were not

The least positive number of float16 is 6e-8, and a mean over the pixels of a batch has gradients below it. s is a power
of two, so that scaling and unscaling round nothing. Whether g is finite has to be known on the host, since a skipped
step moves neither the learning rate nor a codebook or average: once a turn, the host waits for the device.

References:
    Mixed Precision Training (Micikevicius et al., 2018), section 3.2, https://arxiv.org/abs/1710.03740
"""

from __future__ import annotations

from typing import Any

import torch

from modkit.engines.updates import list_parameters
from modkit.kinds import Engine, Optimizer
from modkit.nn.held import Held
from modkit.optim.shards import get_local

__all__ = ["LossScale"]

_LEAST = 1.0  # below which gradients are out of bounds themselves, not their multiples


class LossScale:
    """The scale of a player's loss, and its steps.

    Args:
        held: Buffers that the player's losses move, such as statistics; a skipped step leaves them as they were.
        value: The first scale, a power of two.
        patience: Number of steps after which the scale is doubled.

    Examples:
        >>> from modkit.engines import LocalEngine
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer, scale = torch.optim.SGD([weight], lr=1.0), LossScale(Held([]))
        >>> weight.grad = torch.tensor([float("inf")])
        >>> scale.begin()
        65536.0
        >>> scale.step(LocalEngine("cpu"), optimizer, max_norm=None), scale.value, weight.data
        (False, 32768.0, tensor([0.]))
    """

    def __init__(self, held: Held, *, value: float = 2.0**16, patience: int = 2000) -> None:
        self.value, self.patience = value, patience
        self.steps = 0  # since the scale changed
        self._held = held

    def begin(self) -> float:
        """Begins a turn: remembers the buffers, and returns the scale."""
        self._held.save()
        return self.value

    def step(self, engine: Engine, optimizer: Optimizer, max_norm: float | None) -> bool:
        """Unscales the gradients, clips them to `max_norm` and takes a step, unless they are not finite in a process.

        Returns:
            Whether the step was taken.

        Raises:
            ValueError: If gradients are not finite at the least scale.
        """
        guarded = _Guarded(optimizer, self.value, engine)
        engine.step(guarded, None if max_norm is None else max_norm * self.value)
        if guarded.finite:
            self.steps += 1
            if self.steps == self.patience:
                self.value, self.steps = 2 * self.value, 0
            return True
        self._held.restore()
        if self.value <= _LEAST:
            raise ValueError(
                f"gradients are not finite in float16 at a loss scale of {self.value:g}: train.precision=bf16 has the "
                "range of float32"
            )
        self.value, self.steps = self.value / 2, 0
        return False

    def state_dict(self) -> dict[str, Any]:
        """The scale, and the number of steps since it changed."""
        return {"value": self.value, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.value, self.steps = float(state["value"]), int(state["steps"])


class _Guarded:
    """An optimizer that is given scaled gradients, clipped to a scaled norm, and steps if all are finite."""

    def __init__(self, optimizer: Optimizer, scale: float, engine: Engine) -> None:
        self._optimizer, self._scale, self._engine = optimizer, scale, engine
        self.param_groups, self.state = optimizer.param_groups, optimizer.state
        self.zero_grad, self.state_dict = optimizer.zero_grad, optimizer.state_dict
        self.load_state_dict = optimizer.load_state_dict
        self.finite = True

    @torch.no_grad()
    def step(self) -> None:
        given = [parameter.grad for parameter in list_parameters(self._optimizer) if parameter.grad is not None]
        gradients = [one for one in get_local(given) if one.numel()]
        largest = torch.zeros(1)
        if gradients:
            torch._foreach_mul_(gradients, 1 / self._scale)
            largest = torch.stack(torch._foreach_norm(gradients, float("inf")))
        self.finite = not self._engine.agree(not bool(largest.isfinite().all()))
        if self.finite:
            self._optimizer.step()
