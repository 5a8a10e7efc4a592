r"""Restart: around any sampler, goes back to more noise and steps down again.

    x_high = alpha_high / alpha_low x_low + sqrt(sigma_high^2 - (alpha_high sigma_low / alpha_low)^2) eps

Fresh noise contracts the errors that the steps so far have gathered.

Shape letters: b batch, n times.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor

from modkit.diffusion.gaussian import combine, tau
from modkit.diffusion.schedules import get_std
from modkit.kinds import Denoise, Sampler, SamplerExtras, Schedule, Slot, Unfit, default, read_extras
from modkit.parts.filling import fill_slot
from modkit.rng import Rng
from modkit.types import TensorType

__all__ = ["Restart"]


class Restart:
    """Repeats the steps of a sampler between two noise levels, each time from fresh noise.

    Where `low` is 0 and `high` a little above, these are the resampled steps of RePaint; a restart around a restart
    repeats another interval.

    References:
        Restart Sampling for Improving Generative Processes (Xu et al., 2023), algorithm 1,
        https://arxiv.org/abs/2306.14878
        RePaint (Lugmayr et al., 2022), algorithm 1, https://arxiv.org/abs/2201.09865

    Args:
        schedule: The schedule.
        x: Type of a sample.
        sampler: The sampler.
        low: Noise level sigma_t / alpha_t down to which steps are repeated: the last time of the sampler's grid at this
            level or above is. By default .12 deviations of the data, the paper's .06 on CIFAR-10.
        high: Noise level to go back to, the last time at this level or above; by default .4 deviations of the data.
        repeats: How often the interval is repeated; 0 is the sampler itself.

    Raises:
        ValueError: If not 0 <= low < high, `repeats` is negative, the sampler cannot begin anew within its grid, or the
            grid has fewer than two times in the interval.

    Examples:
        >>> from functools import partial
        >>> from modkit.diffusion.schedules import EDM
        >>> from modkit.samplers import DDIM
        >>> schedule = EDM(sigma_max=80.0)
        >>> restart = Restart(schedule, TensorType((1,)), sampler=partial(DDIM, steps=9), low=0.1, high=3.0, repeats=2)
        >>> [f"{level:.2g}" for level in schedule.scales(restart.find_interval())[1].tolist()]
        ['4.1', '1.5', '0.47', '0.12']
    """

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        sampler: Slot[Sampler] = default("heun"),
        low: float | None = None,
        high: float | None = None,
        repeats: int = 1,
    ) -> None:
        self.low = 0.12 * get_std(x) if low is None else low
        self.high = 0.4 * get_std(x) if high is None else high
        if not 0 <= self.low < self.high:
            raise ValueError(f"Restart expects 0 <= low < high, got {self.low:g} and {self.high:g}")
        if repeats < 0:
            raise ValueError(f"Restart expects repeats of at least 0, got {repeats}")
        self.schedule, self.repeats = schedule, repeats
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
        self.ordered, self.learned_variance = extras.ordered, extras.learned_variance
        self.bounds, self.distilled, self.list_asked = extras.bounds, extras.distilled, extras.list_asked
        self.deterministic = extras.deterministic and repeats == 0
        self.times()

    def times(self) -> Tensor:
        """Those of the sampler."""
        times = self.sampler.times()
        alpha, sigma = self.schedule.scales(times)
        levels = (sigma / alpha).tolist()
        top, bottom = (sum(0 < level >= end for level in levels) - 1 for end in (self.high, self.low))
        if not 0 <= top < bottom:
            raise ValueError(
                f"Restart expects a grid with two times or more from {self.high:g} to {self.low:g}, got noise levels "
                f"{[float(f'{level:.3g}') for level in levels]}"
            )
        self._interval = times[top : bottom + 1]
        scales = list(zip(alpha.tolist(), sigma.tolist()))
        high, low = scales[top], scales[bottom]
        self._back = high[0] / low[0], high[1] * float(tau(high, low)) ** 0.5
        return times

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
