"""Sampling: the context of one call of `Model.sample`, its source of noise with the caller's wishes.

It is an `Rng`, and so are its children. A Model that gives `rng.at(…)` to its parts and nested Models passes it on
whole, whether it knows of it or not: the start noise reaches the Model that starts from it, and each step is reported
to the caller. With any other `Rng` the start noise is drawn, and nothing is reported.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from modkit.progress import Progress, Silent
from modkit.rng import Key, Rng

__all__ = ["Callback", "Sampling", "SamplingStep", "draw_start", "drop_start", "report_step", "show_steps"]


@dataclass(frozen=True)
class SamplingStep:
    """One step of a sampler, as a callback is given it. The tensors are the sampler's own: copy one to change it.

    Args:
        index: Number of the step, from 0.
        num: Number of steps.
        x_t: What the step started from, `b ...`, in the space of the Model that has the sampler. Codes that are not
            drawn yet are masks (`masked`), or 0 (`autoregressive`).
        x_0: The prediction of x_0 from `x_t`, guided but not clipped; all codes as the step drew them; or None if the
            step predicts none.
        first: Number of the first of its samples, counted as in `Model.sample`.
    """

    index: int
    num: int
    x_t: Tensor
    x_0: Tensor | None = None
    first: int = 0


Callback = Callable[[SamplingStep], object]
"""What is called after each step of a sampler; its result is ignored."""


class Sampling(Rng):
    """A source of noise with the start noise and the callback that the caller gave.

    Args:
        rng: The source of noise.
        start_noise: Standard normal noise to start from, its first row belonging to the first row of `rng`; drawn if it
            is None.
        callback: Called after each step of a sampler.

    Examples:
        >>> import torch
        >>> sampling = Sampling(Rng(0), start_noise=torch.arange(3.0))
        >>> draw_start(sampling.at("prior").rows(1), "start", torch.empty(2))
        tensor([1., 2.])
        >>> eps = sampling.at("prior").normal("eps", torch.empty(2))
        >>> torch.equal(eps, Rng(0).at("prior").normal("eps", torch.empty(2)))
        True
    """

    def __init__(self, rng: Rng, *, start_noise: Tensor | None = None, callback: Callback | None = None) -> None:
        super().__init__(source=rng)
        self._start = None if start_noise is None else _StartNoise(start_noise, rng.first)
        self.callback = callback

    @property
    def used(self) -> bool:
        """Whether the start noise has been used, or there is none."""
        return self._start is None or self._start.used

    def _derive(self, key: Key, first: int) -> Sampling:
        child = Sampling(super()._derive(key, first), callback=self.callback)
        child._start = self._start
        return child


class _StartNoise:
    """Start noise, shared by a context and its children; `first` is the number of its first row."""

    def __init__(self, noise: Tensor, first: int) -> None:
        self.noise, self.first, self.used = noise, first, False

    def read(self, first: int, like: Tensor) -> Tensor:
        self.used = True
        return self.noise[first - self.first :][: len(like)].to(like)


def draw_start(rng: Rng, name: str, like: Tensor) -> Tensor:
    """Returns the start noise that the caller gave, in the dtype and on the device of `like`, or draws it by `name`.

    A Model that starts from it states its type in `start_noise`.
    """
    if isinstance(rng, Sampling) and rng._start is not None:
        return rng._start.read(rng.first, like)
    return rng.normal(name, like)


def drop_start(rng: Rng) -> Rng:
    """Returns the same source without the start noise, for a Model inside that starts from noise of its own.

    Examples:
        >>> import torch
        >>> sampling = Sampling(Rng(0), start_noise=torch.arange(3.0))
        >>> torch.equal(draw_start(drop_start(sampling), "z", torch.empty(2)), Rng(0).normal("z", torch.empty(2)))
        True
    """
    return Sampling(rng, callback=rng.callback) if isinstance(rng, Sampling) else rng


def show_steps(progress: Progress, callback: Callback | None) -> Callback | None:
    """Returns a callback that shows the steps of each batch before it calls another one, where anything is shown."""
    if isinstance(progress, Silent):
        return callback

    def show(step: SamplingStep) -> None:
        if step.index == 0:
            progress.begin_stage(f"samples from {step.first}" if step.first else "samples", 0, step.num)
        progress.step(None)
        if callback is not None:
            callback(step)

    return show


def report_step(rng: Rng, index: int, num: int, x_t: Tensor, x_0: Tensor | None = None) -> None:
    """Reports a step to the callback of the caller, if there is one; see `SamplingStep`."""
    if isinstance(rng, Sampling) and rng.callback is not None:
        rng.callback(SamplingStep(index, num, x_t, x_0, rng.first))
