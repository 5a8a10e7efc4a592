r"""Restart: around any sampler, goes back to more noise and steps down again.

    x_high = alpha_high / alpha_low x_low + sqrt(sigma_high^2 - (alpha_high sigma_low / alpha_low)^2) eps

Fresh noise contracts the errors that the steps so far have gathered. Steps of its own are EDM's, with rho = 7:

    sigma_i = (high^(1/rho) + i / n (low^(1/rho) - high^(1/rho)))^rho        i = 0 ... n

Shape letters: b batch, n times.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from modkit.diffusion.gaussian import combine, tau
from modkit.diffusion.schedules import find_noise_range, get_std
from modkit.grids.levels import space_levels
from modkit.kinds import Denoise, Sampler, SamplerExtras, Schedule, Slot, Unfit, default, read_extras
from modkit.parts.filling import fill_slot
from modkit.rng import Rng
from modkit.types import NonNegativeInt, PositiveInt, TensorType, checked

__all__ = ["Restart"]

_NEAR = 1e-9  # share of a level by which an end may be missed, in rounding


@checked
class Restart:
    """Repeats the steps of a sampler between two noise levels, each time from fresh noise.

    Where `low` is 0 and `high` a little above, these are the resampled steps of RePaint; a restart around a restart
    repeats another interval.

    The authors count noise levels, one more than `steps`. Around 18 steps of Heun's method their interval `[3, 2, .06,
    .30]` is `{use: restart, steps: 2, repeats: 2, low: 0.06, high: 0.3}`, with the same 43 evaluations. They end it at
    the grid's level nearest to `low`; here this level is moved to `low`.

    References:
        Restart Sampling for Improving Generative Processes (Xu et al., 2023), algorithm 1,
        https://arxiv.org/abs/2306.14878
        RePaint (Lugmayr et al., 2022), algorithm 1, https://arxiv.org/abs/2201.09865

    Args:
        schedule: The schedule.
        x: Type of a sample.
        sampler: The sampler.
        low: Noise level sigma_t / alpha_t down to which steps are repeated. By default .12 deviations of the data, the
            paper's .06 on CIFAR-10.
        high: Noise level to go back to; by default .4 deviations of the data.
        repeats: How often the interval is repeated; 0 is the sampler itself.
        steps: Number of steps from `high` to `low`, spaced as EDM does. By default the steps are the sampler's own:
            from the last time of its grid at `high` or above to the last one at `low` or above.

    Raises:
        Unfit: If the sampler cannot begin anew within its grid or, with `steps`, is bound to its own times.
        ValueError: If not 0 <= low < high, `repeats` is negative, `steps` is below 1, or the grid does not have the
            interval: it has fewer than two times in it or, with `steps`, begins below `high` or has no time to move to
            `low`.

    Examples:
        >>> from functools import partial
        >>> from modkit.diffusion.schedules import EDM
        >>> from modkit.samplers import DDIM
        >>> schedule = EDM(sigma_max=80.0)
        >>> restart = Restart(schedule, TensorType((1,)), sampler=partial(DDIM, steps=9), low=0.1, high=3.0, repeats=2)
        >>> [f"{level:.2g}" for level in schedule.scales(restart.find_interval())[1].tolist()]
        ['4.1', '1.5', '0.47', '0.12']
        >>> restart = Restart(schedule, TensorType((1,)), sampler=DDIM, low=0.1, high=3.0, steps=3)
        >>> [f"{level:.2g}" for level in schedule.scales(restart.find_interval())[1].tolist()]
        ['3', '1.1', '0.38', '0.1']
    """

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        sampler: Slot[Sampler] = default("heun"),
        low: float | None = None,
        high: float | None = None,
        repeats: NonNegativeInt = 1,
        steps: PositiveInt | None = None,
    ) -> None:
        self.low = 0.12 * get_std(x) if low is None else low
        self.high = 0.4 * get_std(x) if high is None else high
        if not 0 <= self.low < self.high:
            raise ValueError(f"Restart expects 0 <= low < high, got {self.low:g} and {self.high:g}")
        self.schedule, self.repeats, self.steps = schedule, repeats, steps
        self.sampler: Sampler = fill_slot("sampler", sampler, schedule=schedule, x=x)
        inner: tuple[str, ...] = self.sampler._key if isinstance(self.sampler, Restart) else ()
        self._key: tuple[str, ...] = ("restart", *inner)  # intervals that end together draw noise of their own
        extras = read_extras(self.sampler, SamplerExtras)
        if extras.ordered and repeats:
            raise Unfit(
                "sampler",
                "expected one that can begin at any of its times, "
                f"got {type(self.sampler).__name__}, whose steps begin at the first",
            )
        if extras.fixed_times and repeats and steps is not None:
            got = f"{type(self.sampler).__name__}, which is bound to its own; leave out `steps`"
            raise Unfit("sampler", f"expected one that can step between any times, got {got}")
        self.ordered, self.learned_variance = extras.ordered, extras.learned_variance
        self.bounds, self.distilled, self.fixed_times = extras.bounds, extras.distilled, extras.fixed_times
        self.deterministic = extras.deterministic and repeats == 0
        self.times()

    def times(self) -> Tensor:
        """The times of the sampler; with `steps`, the one whose level is nearest to `low` is moved there."""
        times = self.sampler.times()
        levels = self._find_levels(times)
        if self.steps is None:
            self._interval = self._take_interval(times, levels)
        else:
            self._interval = self._space_interval(levels, self.steps)
            times = self._move_nearest(times, levels) if self.repeats else times
        alpha, sigma = (scale.tolist() for scale in self.schedule.scales(self._interval[[0, -1]]))
        spread = sigma[0] * float(tau((alpha[0], sigma[0]), (alpha[1], sigma[1]))) ** 0.5
        self._back = alpha[0] / alpha[1], spread
        return times

    def list_asked(self) -> Tensor:
        """All times at which its steps call the denoiser, `n`, in descending order.

        With `steps`, these are the sampler's and all ends of steps, without those to which churn raises the latter.
        """
        of_sampler = read_extras(self.sampler, SamplerExtras).list_asked
        times = self.times()
        asked = of_sampler() if of_sampler else self.sampler.times()[:-1]
        if self.steps is None or not self.repeats:
            return asked
        every: Tensor = torch.cat([asked, times, self._interval]).unique().flip(0)
        return every[every > 0]

    def find_interval(self) -> Tensor:
        """The times of the repeated steps, `n`."""
        return self._interval.clone()

    def start(self, eps: Tensor, t: Tensor) -> Tensor:
        """That of the sampler."""
        return self.sampler.start(eps, t)

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        """Returns x_s; where the interval ends, after going through it again."""
        x_s, state = self.sampler.step(denoise, x_t, t, s, state, rng)
        for index in range(self.repeats if s == self._interval[-1] else 0):
            again, state = rng.at(*self._key, index), None
            x_s = combine(self._back[0], x_s, self._back[1], again.normal("eps", x_s))
            for number, (t, s) in enumerate(pairwise(self._interval)):
                x_s, state = self.sampler.step(denoise, x_s, t, s, state, again.at(number))
        return x_s, state

    @property
    def _ends(self) -> set[float]:
        """The times at which intervals end, also those of a restart inside."""
        inner = self.sampler._ends if isinstance(self.sampler, Restart) else set()
        return {*inner, float(self._interval[-1])}

    def _find_levels(self, times: Tensor) -> Tensor:
        alpha, sigma = self.schedule.scales(times)
        return sigma / alpha

    def _take_interval(self, times: Tensor, levels: Tensor) -> Tensor:
        """Takes the sampler's own times from `high` to `low`."""
        top, bottom = (int(((levels > 0) & (levels >= end)).sum()) - 1 for end in (self.high, self.low))
        if not 0 <= top < bottom:
            raise ValueError(
                f"Restart expects a grid with two times or more from {self.high:g} to {self.low:g}, got noise levels "
                f"{_format(levels)}"
            )
        return times[top : bottom + 1]

    def _space_interval(self, levels: Tensor, steps: int) -> Tensor:
        """Spaces the times of `steps` steps from `high` to `low`."""
        spaced = space_levels(self.high, self.low, steps + 1, rho=7.0)
        above = spaced[spaced > 0]
        lowest = 0.0 if self.schedule.num is None else find_noise_range(self.schedule)[0]
        if self.high > float(levels[0]) * (1 + _NEAR) or float(above[-1]) < lowest * (1 - _NEAR):
            expected = f"an interval between the noise levels {float(levels[0]):g} and {lowest:g}"
            raise ValueError(f"Restart expects {expected}, got {_format(spaced)}")
        return torch.cat([self.schedule.time(above), spaced.new_zeros(len(spaced) - len(above))])

    def _move_nearest(self, times: Tensor, levels: Tensor) -> Tensor:
        """Moves the time whose level is nearest to `low` to where the interval ends."""
        if self.low == 0:
            return times
        inner = self.sampler._ends if isinstance(self.sampler, Restart) else set()
        free = [index for index, t in enumerate(times.tolist()[1:-1], 1) if t not in inner]
        end = self._interval[-1:]
        if float(end) not in inner:
            index = min(free, key=lambda index: abs(float(levels[index]) - self.low), default=0)
            times = torch.cat([times[:index], end, times[index + 1 :]])
            if not index or not bool((times.diff() < 0).all()):
                expected = f"a grid with a time that can be moved to {self.low:g}, between the first and the last"
                raise ValueError(f"Restart expects {expected}, got noise levels {_format(levels)}")
        return times


def _format(levels: Tensor) -> list[float]:
    return [float(f"{level:.3g}") for level in levels.tolist()]
