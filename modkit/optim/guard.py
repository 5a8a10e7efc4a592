r"""The guard of a player's steps, which measures and clips gradients, and leaves out steps that are not to be followed.

    |g|² = sum_p sum_i g_{p,i}²,   g <- g min(1, c / |g|)
    skipped if g is not finite (of losses that are scaled, in float16), or |g| > limit

Very deep hierarchies have rare gradients a hundred times as large as usual, and a single such step can undo the
training before it; clipped to the usual norm, it still points the wrong way. |g| is the norm of all of the player's
gradients, before they are clipped. A step is skipped in all processes if it is in one. It moves nothing: neither
weights nor the optimizer's state, learning rate, buffers, codebooks or averages. Whether it is skipped has to be known
on the host: once a turn, it waits for the device. A guard that never skips does not wait.

References:
    Very Deep VAEs Generalize Autoregressive Models (Child, 2021), section 3.2 and table 4: the threshold,
    https://arxiv.org/abs/2011.10650
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from modkit.engines.updates import list_parameters
from modkit.kinds import Engine, Optimizer
from modkit.nn.buffer_snapshot import BufferSnapshot
from modkit.optim.loss_scale import LossScale
from modkit.optim.shards import gather_whole, get_local

__all__ = ["Guard"]


class Guard:
    """Takes the steps of a player's optimizer, or skips them.

    Args:
        modules: Modules whose buffers the player's losses move; a skipped step leaves them as they were.
        scale: The scale of the losses, in float16.
        limit: Largest norm of a gradient that is followed.
        clip: Norm to which larger gradients are scaled down.

    Examples:
        >>> from modkit.engines import LocalEngine
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> optimizer, guard = torch.optim.SGD([weight], lr=1.0), Guard([], limit=4.0)
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> guard.begin()
        1.0
        >>> guard.step(LocalEngine("cpu"), optimizer), guard.skipped, guard.norm, weight.data
        ("its gradient's norm of 5 exceeds 4", 1, tensor(5.), tensor([0., 0.]))
    """

    norm: Tensor | None = None
    """Norm of the turn's gradient before it was clipped, which may be divided among processes; None without one."""

    def __init__(
        self,
        modules: Iterable[nn.Module],
        *,
        scale: LossScale | None = None,
        limit: float | None = None,
        clip: float | None = None,
    ) -> None:
        self.scale, self.limit, self.clip = scale, limit, clip
        self.skips = scale is not None or limit is not None
        self.skipped = 0
        self._held = BufferSnapshot(modules if self.skips else ())

    def begin(self) -> float:
        """Begins a turn: remembers the buffers, and returns the factor of the losses."""
        self._held.save()
        return self.scale.value if self.scale else 1.0

    def step(self, engine: Engine, optimizer: Optimizer) -> str | None:
        """Unscales, measures and clips the gradients and takes a step, or says why it is skipped.

        Raises:
            ValueError: If gradients are not finite at the least scale.
        """
        guarded = _Guarded(optimizer, engine, self)
        engine.step(guarded)
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

    def __init__(self, optimizer: Optimizer, engine: Engine, guard: Guard) -> None:
        self._optimizer, self._engine, self._guard = optimizer, engine, guard
        self.param_groups, self.state = optimizer.param_groups, optimizer.state
        self.zero_grad, self.state_dict = optimizer.zero_grad, optimizer.state_dict
        self.load_state_dict = optimizer.load_state_dict
        self.finite = True
        self.reason: str | None = None

    def step(self) -> None:
        self.reason = self._find_reason([one for one in list_parameters(self._optimizer) if one.grad is not None])
        if self.reason is None:
            self._optimizer.step()

    @torch.no_grad()
    def _find_reason(self, parameters: list[nn.Parameter]) -> str | None:
        """Unscales, measures and clips gradients, and finds what is wrong with them, the same in all processes."""
        guard, given = self._guard, [one.grad for one in parameters if one.grad is not None]
        guard.norm = None
        if guard.scale:
            self.finite = not self._engine.agree(not _unscale(given, guard.scale.value))
            if not self.finite:
                return "its gradients overflow float16"
        norm = nn.utils.get_total_norm(given)
        if guard.clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, guard.clip, norm)
        guard.norm = norm if given else None  # without gradients it is on the CPU
        if guard.limit is None:
            return None
        value = float(gather_whole(norm))
        exceeds = self._engine.agree(not value <= guard.limit)  # nor does a NaN pass
        return f"its gradient's norm of {value:.4g} exceeds {guard.limit:g}" if exceeds else None


def _unscale(given: Iterable[Tensor], scale: float) -> bool:
    """Divides gradients by the scale of the losses; returns whether all are finite."""
    gradients = [one for one in get_local(given) if one.numel()]
    if not gradients:
        return True
    torch._foreach_mul_(gradients, 1 / scale)
    return bool(torch.stack(torch._foreach_norm(gradients, math.inf)).isfinite().all())
