r"""The guard of a player's steps, which leaves out those whose gradients are not to be followed.

    skipped if g is not finite (of losses that are scaled, in float16), or |g| > limit

Very deep hierarchies have rare gradients a hundred times as large as usual, and a single such step can undo the
training before it; clipped to the usual norm, it still points the wrong way. |g| is the norm of all of the player's
gradients, before they are clipped. A step is skipped in all processes if it is in one. It moves nothing: neither
weights nor the optimizer's state, learning rate, buffers, codebooks or averages. Whether it is skipped has to be known
on the host: once a turn, it waits for the device.

References:
    Very Deep VAEs Generalize Autoregressive Models (Child, 2021), section 3.2 and table 4: the threshold,
    https://arxiv.org/abs/2011.10650
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from modkit.engines.updates import list_parameters
from modkit.kinds import Engine, Optimizer
from modkit.nn.buffer_snapshot import BufferSnapshot
from modkit.optim.loss_scale import LossScale
from modkit.optim.shards import gather_whole, get_local

__all__ = ["Guard"]


class Guard:
    """Takes the steps of a player's optimizer, or skips them.

    Args:
        held: Buffers that the player's losses move, such as statistics; a skipped step leaves them as they were.
        scale: The scale of the losses, in float16.
        limit: Largest norm of a gradient that is followed.

    Examples:
        >>> from modkit.engines import LocalEngine
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> optimizer, guard = torch.optim.SGD([weight], lr=1.0), Guard(BufferSnapshot([]), limit=4.0)
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> guard.begin()
        1.0
        >>> guard.step(LocalEngine("cpu"), optimizer, max_norm=None), guard.skipped, weight.data
        ("its gradient's norm of 5 exceeds 4", 1, tensor([0., 0.]))
    """

    def __init__(self, held: BufferSnapshot, *, scale: LossScale | None = None, limit: float | None = None) -> None:
        self.scale, self.limit = scale, limit
        self.skipped = 0
        self._held = held

    def begin(self) -> float:
        """Begins a turn: remembers the buffers, and returns the factor of the losses."""
        self._held.save()
        return self.scale.value if self.scale else 1.0

    def step(self, engine: Engine, optimizer: Optimizer, max_norm: float | None) -> str | None:
        """Unscales the gradients, clips them to `max_norm` and takes a step, or says why it is skipped.

        Raises:
            ValueError: If gradients are not finite at the least scale.
        """
        guarded = _Guarded(optimizer, engine, self.scale, self.limit, max_norm)
        engine.step(guarded, None)
        if guarded.reason is not None:
            self._held.restore()
            self.skipped += 1
        if self.scale:
            self.scale.update(guarded.finite)
        return guarded.reason

    def state_dict(self) -> dict[str, Any]:
        """The number of skipped steps, and the scale if there is one."""
        return {"skipped": self.skipped, **({"loss_scale": self.scale.state_dict()} if self.scale else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned; before steps were counted, there was only the scale."""
        self.skipped = int(state.get("skipped", 0))
        if self.scale:
            self.scale.load_state_dict(state["loss_scale"])


class _Guarded:
    """An optimizer that is given scaled gradients, and steps unless there is a reason not to."""

    def __init__(
        self,
        optimizer: Optimizer,
        engine: Engine,
        scale: LossScale | None,
        limit: float | None,
        max_norm: float | None,
    ) -> None:
        self._optimizer, self._engine, self._scale = optimizer, engine, scale
        self._limit, self._max_norm = limit, max_norm
        self.param_groups, self.state = optimizer.param_groups, optimizer.state
        self.zero_grad, self.state_dict = optimizer.zero_grad, optimizer.state_dict
        self.load_state_dict = optimizer.load_state_dict
        self.finite = True
        self.reason: str | None = None

    @torch.no_grad()
    def step(self) -> None:
        self.reason = self._find_reason([one for one in list_parameters(self._optimizer) if one.grad is not None])
        if self.reason is None:
            self._optimizer.step()

    def _find_reason(self, parameters: list[nn.Parameter]) -> str | None:
        """Unscales and clips gradients, and finds what is wrong with them, the same in all processes."""
        if self._scale:
            self.finite = not self._engine.agree(not _unscale(parameters, self._scale.value))
            if not self.finite:
                return "its gradients overflow float16"
        if self._limit is None and self._max_norm is None:
            return None
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if self._max_norm is None else self._max_norm)
        if self._limit is None:
            return None
        value = float(gather_whole(norm))
        exceeds = self._engine.agree(not value <= self._limit)  # nor does a NaN pass
        return f"its gradient's norm of {value:.4g} exceeds {self._limit:g}" if exceeds else None


def _unscale(parameters: list[nn.Parameter], scale: float) -> bool:
    """Divides gradients by the scale of the losses; returns whether all are finite."""
    given = [parameter.grad for parameter in parameters if parameter.grad is not None]
    gradients = [one for one in get_local(given) if one.numel()]
    if not gradients:
        return True
    torch._foreach_mul_(gradients, 1 / scale)
    return bool(torch.stack(torch._foreach_norm(gradients, math.inf)).isfinite().all())
