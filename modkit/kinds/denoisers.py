"""What a diffusion model is made of: noise over time, a network that predicts, and the way back from noise to data.

x_t = alpha_t x_0 + sigma_t eps; t in [0, 1] is float64, 0 clean; s < t. Shape letters: b batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from modkit.types import Cond, Denoised, TensorType

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.rng import Rng

__all__ = ["Denoise", "Guidance", "LossWeight", "Network", "Parametrization", "Sampler", "Schedule", "Times"]


class Network(Protocol):
    """A conditional map from x to `out`: every denoiser."""

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network."""
        ...


class Schedule(Protocol):
    """How much signal and noise x_t holds: x_t = alpha_t x_0 + sigma_t eps, t = 0 clean.

    `.num` is the length of a table, whose index i is t = (i + 1) / num, or None for a schedule without one.
    """

    num: int | None

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t) in float64 on `t`'s device, for t in [0, 1] (past 1 where noise is unbounded)."""
        ...

    def time(self, sigma: Tensor) -> Tensor:
        """The t at which sigma_t / alpha_t is `sigma`, float64: the inverse of `scales`."""
        ...


class Times(Protocol):
    """Draws times for training."""

    def __call__(self, num: int, rng: Rng) -> Tensor:
        """`num` times, float64."""
        ...


class Parametrization(Protocol):
    """What a network is trained to predict.

    An optional attribute `weights` holds default weights of its losses by name; a loss without one weighs 1. Weights
    that the user gives take precedence.
    """

    def out(self, x: TensorType) -> TensorType:
        """The type that the network must emit."""
        ...

    def inputs(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(x_in, time): what the network is fed, time as it embeds it, `b`; `t` is `b`, float64."""
        ...

    def denoised(self, out: Tensor, x_t: Tensor, t: Tensor) -> Denoised:
        """The prediction of x_0 that `out` stands for."""
        ...

    def losses(self, out: Tensor, x_0: Tensor, eps: Tensor, x_t: Tensor, t: Tensor) -> dict[str, Tensor]:
        """`denoising`: the squared error against its target, averaged over a sample's elements, `b`.

        A learned variance adds `bound`, in nats a dimension, `b`.
        """
        ...

    def error_scale(self, t: Tensor) -> Tensor:
        """|d x_0 / d out|^2, `b`, float64."""
        ...


class LossWeight(Protocol):
    """Multiplies the denoising loss."""

    def __call__(self, t: Tensor) -> Tensor:
        """The weight at `t`, `b`, float64."""
        ...


class Denoise(Protocol):
    """A denoiser at one time for the whole batch."""

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Predicts x_0 from `x_t`; `t` is a float64 scalar on the CPU."""
        ...


class Sampler(Protocol):
    """Steps from noise to data; `modkit.sample` runs the loop over `times`, and each run has its own state."""

    def times(self) -> Tensor:
        """The times visited, float64 on the CPU, descending, the last 0."""
        ...

    def start(self, eps: Tensor, t: Tensor) -> Tensor:
        """x_t at the first time, from standard normal `eps`."""
        ...

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        """(x_s, state) for s < t; the state is None at first. Clips x_0 only where `x.range` says so."""
        ...


class Guidance(Protocol):
    """Combines a conditional and an unconditional denoiser into one."""

    def __call__(self, denoise_cond: Denoise, denoise_null: Denoise) -> Denoise:
        """The guided denoiser; `none` never calls the second."""
        ...
