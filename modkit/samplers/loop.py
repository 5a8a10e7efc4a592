"""The sampling loop: from noise at a sampler's first time to a sample at its last, which is 0."""

from __future__ import annotations

import secrets
from itertools import pairwise
from typing import Any

from torch import Tensor

from modkit.kinds import Denoise, Sampler
from modkit.precision import widen
from modkit.progress import show_progress
from modkit.rng import Rng
from modkit.samplers.sampling import Callback, Sampling, report_step
from modkit.types import Denoised

__all__ = ["sample"]


def sample(
    sampler: Sampler,
    denoise: Denoise,
    x_t: Tensor,
    *,
    times: Tensor | None = None,
    rng: Rng | None = None,
    seed: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Runs a sampler from `x_t` at its first time to x_0.

    Between the steps x_t is kept in float32 at least: in bfloat16 the rounding of many small steps adds up.

    Every model that has a sampler draws its samples through this function. It keeps no state between calls, so one
    sampler can serve several of them, and it leaves gradients on: use `torch.no_grad()` where none are needed.

    Args:
        sampler: A sampler of modkit's, or of your own (`modkit.kinds.Sampler`).
        denoise: Predicts x_0: it is called as `denoise(x_t, t)`, with `t` a float64 scalar on the CPU, and returns a
            `Denoised`. It is given `x_t` in float32 at least.
        x_t: Noise at the first time, `b ...`: `sampler.start(eps, sampler.times()[0])` of standard normal `eps`.
        times: The sampler's times, if it has been asked for them in this draw already: making a grid takes as long as
            several steps. By default, it is asked here.
        rng: Source of the noise that the sampler adds; step `index` draws from `rng.at("sampler", index)`.
        seed: Seed of that noise, in place of `rng`; without either, the noise is different in each call.
        callback: Called with a `SamplingStep` after each step; by default, that of `rng` if it is a `Sampling`, which
            the `rng` of `Model.draw` is. A sampler need not know of it.

    Returns:
        The sample, shape and dtype of `x_t`.

    Raises:
        ValueError: If both `rng` and `seed` are given.

    Examples:
        The denoiser of Gaussian data is known in closed form. Samples of N(2, 0.5^2) by DDIM:

        >>> import modkit, torch
        >>> from modkit.diffusion.schedules import Cosine
        >>> from modkit.samplers import DDIM
        >>> schedule = Cosine()
        >>> def denoise(x_t, t):
        ...     alpha, sigma = schedule.scales(t)
        ...     gain = alpha * 0.5**2 / (alpha**2 * 0.5**2 + sigma**2)
        ...     return modkit.Denoised(2 + gain * (x_t - alpha * 2))
        >>> sampler = DDIM(schedule, modkit.TensorType((1,)), steps=50)
        >>> eps = modkit.Rng(0).normal("start", torch.empty(2000, 1))
        >>> x = modkit.sample(sampler, denoise, sampler.start(eps, sampler.times()[0]))
        >>> print(f"mean {x.mean():.1f}, standard deviation {x.std():.1f}")
        mean 2.0, standard deviation 0.5
    """
    if rng is not None and seed is not None:
        raise ValueError(f"modkit.sample expects an rng or a seed, got both: {rng} and {seed}")
    if rng is None:
        rng = Rng("sample", secrets.randbits(63) if seed is None else seed)
    if callback is not None:
        rng = Sampling(rng, callback=callback)
    state: Any = None
    dtype, x_t = x_t.dtype, widen(x_t)
    steps = list(pairwise(sampler.times() if times is None else times))
    with show_progress(brief=True) as shown:
        shown.begin_stage("sample", 0, len(steps))
        for index, (t, s) in enumerate(steps):
            watched = _Watched(denoise)
            x_s, state = sampler.step(watched, x_t, t, s, state, rng.at("sampler", index))
            report_step(rng, index, len(steps), x_t, watched.x_0)
            shown.step(None)
            x_t = x_s
    return x_t.to(dtype)


class _Watched:
    """A denoiser that keeps its first prediction of x_0, which is made from the x_t of the step."""

    def __init__(self, denoise: Denoise) -> None:
        self._denoise = denoise
        self.x_0: Tensor | None = None

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        denoised = self._denoise(x_t, t)
        self.x_0 = denoised.x_0 if self.x_0 is None else self.x_0
        return denoised
