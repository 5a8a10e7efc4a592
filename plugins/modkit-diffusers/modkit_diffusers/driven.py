r"""A scheduler of diffusers', driven by modkit's loop: one adapter for all of them.

A scheduler wants an evaluation of the network at each of its `timesteps`, and steps in a scale of its own; modkit's
loop visits falling times and holds x_t. Between the two

    x_t = scale_model_input(sample)             the sample times a number, what the network is fed
    eps = (x_t - alpha_t x_0) / sigma_t         the network's own prediction, from x_0 as it was made of it
    v   = alpha_t eps - sigma_t x_0             with modkit's scales on both ways, so that nothing is lost

whichever of eps, v, x_0 and `eps - x_0` the scheduler is told to expect. Evaluations that belong to one step (a
corrector's, Runge-Kutta's) are made within it. A scheduler keeps what it has seen, so each run of the loop has its own.

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
    """Which of diffusers' schedulers, and how it goes.

    Args:
        name: Its class in `diffusers`, which is imported when one is built.
        config: Its configuration, but for what it is told of the schedule.
        prediction: What it is told that the network predicts.
        lead: Evaluations of each of its first steps.
        each: Evaluations of each step after these; the last may have fewer.
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
    """A run of the loop: its own scheduler, and the step that is next."""

    scheduler: Any
    step: int


class Driven:
    """A sampler that steps by a scheduler of diffusers'.

    Args:
        schedule: The schedule.
        x: Type of a sample; predictions are clipped to its range, where it has one, before the scheduler sees them.
        following: How the scheduler follows the schedule.
        scheduler: The scheduler.
        steps: Number of steps.

    Raises:
        ValueError: If `steps` is outside [1, num], or so many have times that do not fall.
    """

    def __init__(
        self, schedule: Schedule, x: TensorType, following: Following, scheduler: Scheduler, steps: int
    ) -> None:
        name, num = scheduler.name, following.num
        if not 1 <= steps <= num:
            raise ValueError(f"{name} expects steps in [1, {num}] of its {num} timesteps, got {steps}")
        self.schedule, self.x, self.steps = schedule, x, steps
        self._what, self._following = scheduler, following
        first = self.scheduler()
        timesteps = first.timesteps.to("cpu", torch.float64)
        self._times = (timesteps + following.offset) / num
        self._scales = list(zip(*(scale.tolist() for scale in schedule.scales(self._times)), strict=True))
        self._starts = _starts(scheduler, len(timesteps))
        self._grid = torch.cat([self._times[self._starts[:-1]], self._times.new_zeros(1)])
        if not bool((self._grid.diff() < 0).all()):
            raise ValueError(f"{name} expects steps at timesteps that fall, got {steps} at {timesteps.tolist()}")
        noise = torch.as_tensor(getattr(first, "init_noise_sigma", 1.0))
        self._noise = float(_scaled(first, noise, first.timesteps[0]))

    def times(self) -> Tensor:
        """The times visited, float64 on the CPU, descending, the last 0."""
        return self._grid.clone()

    def start(self, eps: Tensor, t: Tensor) -> Tensor:
        """x_t at the first time, from standard normal `eps`, `b ...`: noise of the scheduler's own scale."""
        return self._noise * eps

    def step(
        self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: _Run | None, rng: Rng
    ) -> tuple[Tensor, _Run]:
        """x_s; the state is a scheduler that has gone as far.

        Raises:
            ValueError: If t and s are not the times of its next step.
        """
        scheduler, index = self._run(t, s, state)
        start, stop = self._starts[index : index + 2]
        options = {**self._what.options, **({"generator": rng.make_generators(len(x_t))} if self._what.draws else {})}
        timesteps = scheduler.timesteps[start:stop]
        sample = x_t / _scaled(scheduler, torch.ones((), dtype=x_t.dtype), timesteps[0])
        for at, timestep in enumerate(timesteps, start):
            out = self._predicted(denoise, _scaled(scheduler, sample, timestep), at)
            sample = scheduler.step(out, timestep, sample, **options).prev_sample
        return _scaled(scheduler, sample, timesteps[-1]), _Run(scheduler, index + 1)

    def scheduler(self) -> Any:
        """A scheduler of diffusers, at its start."""
        scheduler = getattr(importlib.import_module("diffusers"), self._what.name)(
            **self._following.config, **self._what.config
        )
        scheduler.set_timesteps(self.steps)
        return scheduler

    def _run(self, t: Tensor, s: Tensor, state: _Run | None) -> _Run:
        """The run, checked to be at the step from t to s."""
        run = _Run(self.scheduler(), 0) if state is None else state
        ends = self._grid[run.step : run.step + 2].tolist()
        if ends != [float(t), float(s)]:
            raise ValueError(
                f"{self._what.name} expects its times in their order, now {ends}, got {float(t)} and {float(s)}"
            )
        return run

    def _predicted(self, denoise: Denoise, x_t: Tensor, at: int) -> Tensor:
        """What the scheduler is told that the network said at an evaluation."""
        x_0, v = denoise(x_t, self._times[at])
        if self.x.range is not None:
            x_0 = x_0.clamp(*self.x.range)
        alpha_t, sigma_t = self._scales[at]
        out = _PREDICTIONS[self._what.prediction]((x_t - alpha_t * x_0) / sigma_t, x_0, alpha_t, sigma_t)
        if self._what.config.get("variance_type") != "learned_range":
            return out
        if v is None:
            raise ValueError(f"{self._what.name} expects a learned variance for learned_range, got a denoiser without")
        return torch.cat([out, 2 * v - 1], dim=1)


def _starts(scheduler: Scheduler, num: int) -> list[int]:
    """Where each step's evaluations start among `num`, and where the last one's end."""
    sizes, starts = chain(scheduler.lead, repeat(scheduler.each)), [0]
    while starts[-1] < num:
        starts.append(min(starts[-1] + next(sizes), num))
    return starts


def _scaled(scheduler: Any, sample: Tensor, timestep: Tensor) -> Tensor:
    """What the network is fed at the scheduler's next evaluation: some have no scale of their own."""
    scale: Callable[[Tensor, Tensor], Tensor] | None = getattr(scheduler, "scale_model_input", None)
    return sample if scale is None else scale(sample, timestep)


_PREDICTIONS: dict[str, Callable[[Tensor, Tensor, float, float], Tensor]] = {
    "epsilon": lambda eps, x_0, alpha_t, sigma_t: eps,
    "sample": lambda eps, x_0, alpha_t, sigma_t: x_0,
    "v_prediction": lambda eps, x_0, alpha_t, sigma_t: alpha_t * eps - sigma_t * x_0,
    "flow_prediction": lambda eps, x_0, alpha_t, sigma_t: eps - x_0,
}
