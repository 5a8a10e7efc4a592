"""The base class of samplers on a grid of times, and the grid in its slot.

A grid is asked for its times at each draw. Their scales are computed at once, so that the scalar arithmetic of a step
uses Python floats, which are float64.

Shape letters: n times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

from torch import Tensor

from modkit.diffusion.coefficients import GridCoefficients
from modkit.grids.levels import space_noise_levels
from modkit.kinds import Denoise, Grid, Schedule, Slot
from modkit.parts.filling import fill_slot
from modkit.samplers.clipping import Clip, find_bounds, make_clipping
from modkit.types import Denoised, TensorType

__all__ = ["GridSampler", "GridSlot", "StepGrid", "move_spacing", "space_noise_levels"]

_LEVELS = ("rho", "sigma_min", "sigma_max")

GridSlot: TypeAlias = Annotated[Slot[Grid], "Where it steps."]


class StepGrid:
    """A grid with a number of steps; it is called for the times.

    Args:
        grid: Makes the grid from the schedule and `x`.
        schedule: The schedule.
        x: Type of a sample.
        steps: Number of steps.

    Examples:
        >>> from functools import partial
        >>> from modkit.diffusion.schedules import Flow
        >>> from modkit.grids import Even
        >>> StepGrid(partial(Even, shift=3.0), Flow(), TensorType((1,)), 2)()
        tensor([1.0000, 0.7500, 0.0000], dtype=torch.float64)
    """

    def __init__(self, grid: Slot[Grid], schedule: Schedule, x: TensorType, steps: int) -> None:
        self.grid: Grid = fill_slot("grid", grid, schedule=schedule, x=x)
        self.steps = steps

    def __call__(self) -> Tensor:
        """The times, `n`, float64 on the CPU."""
        return self.grid(self.steps)


class GridSampler:
    """A sampler on a grid of times; a subclass adds `step`.

    `bounds` is what predictions are clipped to, `(low, high)`, or None.

    Args:
        schedule: The schedule.
        x: Type of a sample.
        times: The times visited, `n`, float64, descending, the last 0; or what makes them, such as a `StepGrid`, which
            is called whenever times are asked for.
        clip: What predictions of x_0 are clipped to: true is the range of `x`, if it has one; false is nothing; a
            number in (0, 1), or `dynamic`, thresholds at a quantile, see `modkit.samplers.clipping`.

    Raises:
        ValueError: If `clip` is malformed, or dynamic where `x` has no range.

    Examples:
        A sampler that returns the first prediction of x_0, in one step:

        >>> import torch
        >>> from modkit.diffusion.schedules import Cosine
        >>> class OneStep(GridSampler):
        ...     def step(self, denoise, x_t, t, s, state, rng):
        ...         return self.predict(denoise, x_t, t).x_0, None
        >>> OneStep(Cosine(), TensorType((1,)), torch.tensor([1.0, 0.0], dtype=torch.float64)).times()
        tensor([1., 0.], dtype=torch.float64)
    """

    def __init__(
        self, schedule: Schedule, x: TensorType, times: Tensor | Callable[[], Tensor], *, clip: Clip = True
    ) -> None:
        self.schedule = schedule
        self.x = x
        self.bounds = find_bounds(self, clip, x)
        self._clip = None if self.bounds is None else make_clipping(clip, self.bounds)
        self._make_times = times.clone if isinstance(times, Tensor) else times
        GridSampler.times(self)  # a subclass may have its own, of what it sets afterwards

    def times(self) -> Tensor:
        """The times visited, `n`, float64 on the CPU, descending, the last 0."""
        times = self._make_times()
        self._grid = GridCoefficients(self._compute_scales, times)
        return times

    def start(self, eps: Tensor, t: Tensor) -> Tensor:
        """x_t at the first time, `sigma_t eps` with standard normal `eps`, `b ...`: noise without signal."""
        return self.scales(t)[1] * eps

    def scales(self, t: Tensor) -> tuple[float, float]:
        """`(alpha_t, sigma_t)` at a scalar `t`, whether on the grid or not."""
        scales = self._grid.at(t)
        return scales["alpha"], scales["sigma"]

    def predict(self, denoise: Denoise, x_t: Tensor, t: Tensor) -> Denoised:
        """Calls the denoiser and clips its x_0 to `bounds`."""
        denoised = denoise(x_t, t)
        return denoised if self._clip is None else Denoised(self._clip(denoised.x_0), denoised.v)

    def _compute_scales(self, t: Tensor) -> dict[str, Tensor]:
        alpha, sigma = self.schedule.scales(t)
        return {"alpha": alpha, "sigma": sigma}


def move_spacing(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rewrites the parameters of a sampler from before grids were parts: `spacing`, `rho`, `sigma_min`, `sigma_max`.

    Raises:
        ValueError: If one of them is beside a `grid` that it cannot be a parameter of.

    Examples:
        >>> move_spacing({"steps": 8, "spacing": "karras", "rho": 5.0})
        {'steps': 8, 'grid': {'use': 'karras', 'rho': 5.0}}
        >>> move_spacing({"spacing": "even", "rho": 7.0})
        {'grid': {'use': 'even'}}
    """
    former = {key: value for key, value in params.items() if key in ("spacing", *_LEVELS)}
    if not former:
        return params
    received = ", ".join(f"{name} {params[name]!r}" for name in (*former, "grid") if name in params)
    if "grid" in params and "spacing" in former:
        raise ValueError(f"expected `grid` alone, whose former name is `spacing`, got {received}")
    grid = former.pop("spacing", params.get("grid", "karras"))
    written = dict(grid) if isinstance(grid, Mapping) else {"use": grid}
    of_levels = written.get("use") == "karras"
    if "grid" in params and not of_levels:
        raise ValueError(f"expected {', '.join(_LEVELS)} in a grid, such as {{use: karras, rho: 5}}, got {received}")
    kept = {key: value for key, value in params.items() if key not in ("grid", "spacing", *_LEVELS)}
    return {**kept, "grid": {**written, **(former if of_levels else {})}}
