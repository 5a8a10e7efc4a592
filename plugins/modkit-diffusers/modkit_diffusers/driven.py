r"""One adapter by which modkit's sampling loop drives any of diffusers' schedulers.

A scheduler expects an evaluation of the network at each of its `timesteps`, and its samples have their own scale;
modkit's loop visits decreasing times and holds x_t. They are related by

    x_t = scale_model_input(sample)             the sample times a number, the network's input
    eps = (x_t - alpha_t x_0) / sigma_t         the network's own prediction, recovered from x_0
    v   = alpha_t eps - sigma_t x_0             with the same scales in both directions, so that nothing is lost

for whichever of eps, v, x_0 and `eps - x_0` the scheduler expects. Evaluations that belong to one step (a corrector's,
Runge-Kutta's) are made within it. A scheduler keeps a state, so each run of the loop has its own.

Shape letters: b batch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modkit import Rng, TensorType
from modkit.kinds import Denoise, Schedule
from modkit_diffusers.following import Following

__all__ = ["Driven", "Scheduler"]


@dataclass(frozen=True)
class Scheduler:
    """One of diffusers' schedulers, and how it is driven.

    Args:
        name: Its class in `diffusers`, which is imported when one is built.
        config: Its configuration, without what follows from the schedule.
        prediction: The network's prediction that it expects.
        lead: Evaluations of each of its first steps.
        each: Evaluations of each later step; the last may have fewer.
        draws: Whether a step draws noise.
        options: Further arguments of its `step`.
    """

    name: str
    config: Mapping[str, Any]
    prediction: str = "epsilon"
    lead: tuple[int, ...] = ()
    each: int = 1
    draws: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


class _Run(NamedTuple):
    """A run of the loop: its own scheduler, and the next step."""

    scheduler: Any
    step: int


class Driven:
    """A sampler that steps by one of diffusers' schedulers.

    Args:
        schedule: The schedule.
        x: Type of a sample; predictions are clipped to its range, if any, before the scheduler gets them.
        following: How the scheduler follows the schedule.
        scheduler: The scheduler.
        steps: Number of steps.

    Raises:
        ValueError: If `steps` is outside [1, num], or the times do not decrease for so many.
    """

    def __init__(
        self, schedule: Schedule, x: TensorType, following: Following, scheduler: Scheduler, steps: int
    ) -> None:
        name, num = scheduler.name, following.num
        if not 1 <= steps <= num:
            raise ValueError(f"{name} expects steps in [1, {num}] of its {num} timesteps, got {steps}")
        self.schedule, self.x, self.steps = schedule, x, steps
        self._which, self._following = scheduler, following
        first = self.make_scheduler()
        timesteps = first.timesteps.to("cpu", torch.float64)
        self._times = (timesteps + following.offset) / num
        self._scales = list(zip(*(scale.tolist() for scale in schedule.scales(self._times)), strict=True))
        self._starts = _find_starts(scheduler, len(timesteps))
        self._grid = torch.cat([self._times[self._starts[:-1]], self._times.new_zeros(1)])
        if not bool((self._grid.diff() < 0).all()):
            raise ValueError(f"{name} expects steps at decreasing timesteps, got {steps} at {timesteps.tolist()}")
        noise = torch.as_tensor(getattr(first, "init_noise_sigma", 1.0))
        self._noise = float(_scale_input(first, noise, first.timesteps[0]))

    def times(self) -> Tensor:
        """Returns the times visited, float64 on the CPU, descending to 0."""
        return self._grid.clone()

    def start(self, eps: Tensor, t: Tensor) -> Tensor:
        """Returns x_t at the first time: `eps`, `b ...`, at the scheduler's own noise level."""
        return self._noise * eps

    def step(
        self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: _Run | None, rng: Rng
    ) -> tuple[Tensor, _Run]:
        """Computes x_s; the state holds a scheduler that has made the steps before.

        Raises:
            ValueError: If t and s are not the times of its next step.
        """
        scheduler, index = self._check_step(t, s, state)
        start, stop = self._starts[index : index + 2]
        options = {
            **self._which.options,
            **({"generator": rng.make_generators(len(x_t))} if self._which.draws else {}),
        }
        timesteps = scheduler.timesteps[start:stop]
        sample = x_t / _scale_input(scheduler, torch.ones((), dtype=x_t.dtype), timesteps[0])
        for at, timestep in enumerate(timesteps, start):
            out = self._predict(denoise, _scale_input(scheduler, sample, timestep), at)
            sample = scheduler.step(out, timestep, sample, **options).prev_sample
        return _scale_input(scheduler, sample, timesteps[-1]), _Run(scheduler, index + 1)

    def make_scheduler(self) -> Any:
        """Makes the scheduler of diffusers, at its first step."""
        scheduler = getattr(importlib.import_module("diffusers"), self._which.name)(
            **self._following.config, **self._which.config
        )
        scheduler.set_timesteps(self.steps)
        return scheduler

    def _check_step(self, t: Tensor, s: Tensor, state: _Run | None) -> _Run:
        """Returns the run after checking that its next step is from t to s."""
        run = _Run(self.make_scheduler(), 0) if state is None else state
        ends = self._grid[run.step : run.step + 2].tolist()
        if ends != [float(t), float(s)]:
            raise ValueError(
                f"{self._which.name} expects its times in order, now {ends}, got {float(t)} and {float(s)}"
            )
        return run

    def _predict(self, denoise: Denoise, x_t: Tensor, at: int) -> Tensor:
        """Computes the prediction that the scheduler expects at an evaluation."""
        x_0, v = denoise(x_t, self._times[at])
        if self.x.range is not None:
            x_0 = x_0.clamp(*self.x.range)
        alpha_t, sigma_t = self._scales[at]
        out = _PREDICTIONS[self._which.prediction]((x_t - alpha_t * x_0) / sigma_t, x_0, alpha_t, sigma_t)
        if self._which.config.get("variance_type") != "learned_range":
            return out
        if v is None:
            raise ValueError(f"{self._which.name} expects a learned variance for learned_range, got a denoiser without")
        return torch.cat([out, 2 * v - 1], dim=1)


def _find_starts(scheduler: Scheduler, num: int) -> list[int]:
    """Finds the index of each step's first evaluation among `num`, and the end of the last step's."""
    sizes, starts = chain(scheduler.lead, repeat(scheduler.each)), [0]
    while starts[-1] < num:
        starts.append(min(starts[-1] + next(sizes), num))
    return starts


def _scale_input(scheduler: Any, sample: Tensor, timestep: Tensor) -> Tensor:
    """Scales a sample to the network's input at the scheduler's next evaluation, if the scheduler has a scale."""
    scale: Callable[[Tensor, Tensor], Tensor] | None = getattr(scheduler, "scale_model_input", None)
    return sample if scale is None else scale(sample, timestep)


_PREDICTIONS: dict[str, Callable[[Tensor, Tensor, float, float], Tensor]] = {
    "epsilon": lambda eps, x_0, alpha_t, sigma_t: eps,
    "sample": lambda eps, x_0, alpha_t, sigma_t: x_0,
    "v_prediction": lambda eps, x_0, alpha_t, sigma_t: alpha_t * eps - sigma_t * x_0,
    "flow_prediction": lambda eps, x_0, alpha_t, sigma_t: eps - x_0,
}
