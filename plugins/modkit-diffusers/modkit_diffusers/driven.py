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
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modkit import Rng, TensorType
from modkit.kinds import Denoise, Schedule
from modkit_diffusers.following import Following

__all__ = ["Clipping", "Driven", "Scheduler"]


class Clipping(NamedTuple):
    """How a scheduler itself clips predictions of x_0, from which it recovers all else, as a sampler does before it.

    Args:
        config: Its further configuration.
        options: Further arguments of its `step`.
    """

    config: Mapping[str, Any]
    options: Mapping[str, Any] = {}


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
        ordered: Whether its first step must be that of its grid, as its steps are weighted by the ones before.
        options: Further arguments of its `step`.
        clip: Returns how it clips to [-high, high] by itself, given `high`; None if it cannot.
    """

    name: str
    config: Mapping[str, Any]
    prediction: str = "epsilon"
    lead: tuple[int, ...] = ()
    each: int = 1
    draws: bool = False
    ordered: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    clip: Callable[[float], Clipping | None] = lambda high: None


class _Course(NamedTuple):
    """Where a scheduler steps on a schedule as it is now.

    Args:
        scheduler: The scheduler, at its first step.
        times: The times of all evaluations, float64.
        scales: `(alpha_t, sigma_t)` of each.
        starts: Index of each step's first evaluation, and their number.
        grid: The times of the steps, descending to 0.
    """

    scheduler: Any
    times: Tensor
    scales: Sequence[tuple[float, float]]
    starts: Sequence[int]
    grid: Tensor


class _Run(NamedTuple):
    """A run of the loop: its own course, whose scheduler has made the steps before, and the next step."""

    course: _Course
    step: int


class Driven:
    """A sampler that steps by one of diffusers' schedulers.

    A schedule may be trained, so that each run asks anew what the scheduler's timesteps are. It
    steps between these only.

    Args:
        schedule: The schedule.
        x: Type of a sample; predictions are clipped to its range, if any, before the scheduler gets them.
        follow: How a scheduler, given its name, follows the schedule.
        scheduler: The scheduler.
        steps: Number of steps.

    Raises:
        ValueError: If `steps` is outside [1, num], or the times do not decrease for so many.
    """

    fixed_times = True

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        follow: Callable[[str, Schedule], Following],
        scheduler: Scheduler,
        steps: int,
    ) -> None:
        self.schedule, self.x, self.steps = schedule, x, steps
        self._which, self._follow = scheduler, follow
        num = self._find_following().num
        if not 1 <= steps <= num:
            raise ValueError(f"{scheduler.name} expects steps in [1, {num}] of its {num} timesteps, got {steps}")
        self._plan()

    @property
    def prediction(self) -> str:
        """The network's prediction that the scheduler expects."""
        return self._which.prediction

    @property
    def learned_variance(self) -> bool:
        """Whether the scheduler expects a learned variance."""
        return self._which.config.get("variance_type") == "learned_range"

    @property
    def ordered(self) -> bool:
        """Whether a run must begin at the first time."""
        return self._which.ordered

    def times(self) -> Tensor:
        """Returns the times visited, float64 on the CPU, descending to 0."""
        return self._plan().grid

    def start(self, eps: Tensor, t: Tensor) -> Tensor:
        """Returns x_t at the first time: `eps`, `b ...`, at the scheduler's own noise level."""
        scheduler = self._plan().scheduler
        noise = torch.as_tensor(getattr(scheduler, "init_noise_sigma", 1.0))
        return float(_scale_input(scheduler, noise, scheduler.timesteps[0])) * eps

    def step(
        self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: _Run | None, rng: Rng
    ) -> tuple[Tensor, _Run]:
        """Computes x_s; the state holds a scheduler that has made the steps before.

        Raises:
            ValueError: If t and s are not the times of its next step, or without a state of a step that can be first.
        """
        course, index = self._check_step(t, s, state)
        scheduler, (start, stop) = course.scheduler, course.starts[index : index + 2]
        options = {
            **self._which.options,
            **({"generator": rng.make_generators(len(x_t))} if self._which.draws else {}),
        }
        timesteps = scheduler.timesteps[start:stop]
        sample = x_t / _scale_input(scheduler, torch.ones((), dtype=x_t.dtype), timesteps[0])
        for at, timestep in enumerate(timesteps, start):
            x_in = _scale_input(scheduler, sample, timestep)
            out = self._predict(denoise, x_in, course.times[at], *course.scales[at])
            sample = scheduler.step(out, timestep, sample, **options).prev_sample
        return _scale_input(scheduler, sample, timesteps[-1]), _Run(course, index + 1)

    def make_scheduler(self) -> Any:
        """Makes the scheduler of diffusers, at its first step; it clips to the range of x by itself, if it can."""
        clipping = self.find_clipping()
        return self._make_scheduler(self._find_following(), clipping.config if clipping else {})

    def find_clipping(self) -> Clipping | None:
        """Finds how the scheduler itself clips to the range of x; None if it cannot."""
        if self.x.range is None:
            return Clipping({})
        low, high = self.x.range
        return self._which.clip(high) if low == -high else None

    def find_options(self) -> dict[str, Any]:
        """Finds the arguments that each `step` of the scheduler must be given: its configuration cannot hold them."""
        clipping = self.find_clipping()
        options = {**self._which.options, **(clipping.options if clipping else {})}
        known = inspect.signature(getattr(importlib.import_module("diffusers"), self._which.name).step).parameters
        return {name: value for name, value in options.items() if value != known[name].default}

    def find_times(self, scheduler: Any) -> Tensor:
        """Finds the times, float64, of a scheduler's timesteps."""
        return _find_times(scheduler, self._find_following())

    def _find_following(self) -> Following:
        return self._follow(self._which.name, self.schedule)

    def _make_scheduler(self, following: Following, more: Mapping[str, Any]) -> Any:
        scheduler = getattr(importlib.import_module("diffusers"), self._which.name)(
            **{**following.config, **self._which.config, **more}
        )
        scheduler.set_timesteps(self.steps)
        return scheduler

    def _plan(self) -> _Course:
        """Plans a run on the schedule as it is now."""
        following = self._find_following()
        scheduler = self._make_scheduler(following, {})
        times = _find_times(scheduler, following)
        scales = list(zip(*(scale.tolist() for scale in self.schedule.scales(times)), strict=True))
        starts = _find_starts(self._which, len(times))
        grid = torch.cat([times[starts[:-1]], times.new_zeros(1)])
        if not bool((grid.diff() < 0).all()):
            timesteps = scheduler.timesteps.tolist()
            spaced = self._which.config.get("use_karras_sigmas")
            mends = "fewer steps, another schedule, or use_karras_sigmas: false" if spaced else "fewer steps"
            raise ValueError(
                f"{self._which.name} expects steps at decreasing timesteps, got {self.steps} at {timesteps}; use "
                f"{mends}"
            )
        return _Course(scheduler, times, scales, starts, grid)

    def _begin(self, t: float) -> _Run:
        """Begins a run at the step from t; at the first one if there is none, or the scheduler begins nowhere else."""
        course = self._plan()
        times = course.grid[:-1].tolist()
        index = times.index(t) if t in times and not self.ordered else 0
        if begin := getattr(course.scheduler, "set_begin_index", None):
            begin(course.starts[index])
        return _Run(course, index)

    def _check_step(self, t: Tensor, s: Tensor, state: _Run | None) -> _Run:
        """Returns the run after checking that its next step is from t to s."""
        run = self._begin(float(t)) if state is None else state
        ends = run.course.grid[run.step : run.step + 2].tolist()
        if ends != [float(t), float(s)]:
            raise ValueError(
                f"{self._which.name} expects its times in order, now {ends}, got {float(t)} and {float(s)}"
            )
        return run

    def _predict(self, denoise: Denoise, x_t: Tensor, t: Tensor, alpha_t: float, sigma_t: float) -> Tensor:
        """Computes the prediction that the scheduler expects at an evaluation."""
        x_0, v = denoise(x_t, t)
        if self.x.range is not None:
            x_0 = x_0.clamp(*self.x.range)
        out = _PREDICTIONS[self._which.prediction]((x_t - alpha_t * x_0) / sigma_t, x_0, alpha_t, sigma_t)
        if not self.learned_variance:
            return out
        if v is None:
            raise ValueError(f"{self._which.name} expects a learned variance for learned_range, got a denoiser without")
        return torch.cat([out, 2 * v - 1], dim=1)


def _find_times(scheduler: Any, following: Following) -> Tensor:
    timesteps: Tensor = scheduler.timesteps.to("cpu", torch.float64)
    return (timesteps + following.offset) / following.num


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
