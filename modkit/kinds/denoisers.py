"""The parts of a diffusion model: noise over time, a network that predicts, and a sampler from noise to data.

x_t = alpha_t x_0 + sigma_t eps; t in [0, 1] is float64, 0 clean; s < t. Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from modkit.types import Cond, Denoised, TensorType

if TYPE_CHECKING:
    from torch import Tensor, nn

    from modkit.rng import Rng

__all__ = [
    "Alignment",
    "Coefficients",
    "Coupling",
    "CouplingExtras",
    "Denoise",
    "Denoiser",
    "Grid",
    "GridExtras",
    "Guidance",
    "GuidanceExtras",
    "LossWeight",
    "LossWeightExtras",
    "Network",
    "NetworkExtras",
    "Parametrization",
    "ParametrizationExtras",
    "Sampler",
    "SamplerExtras",
    "Schedule",
    "ScheduleExtras",
    "Sides",
    "Times",
    "TimesExtras",
]


Coefficients: TypeAlias = "Mapping[str, float | Tensor]"
"""What a parametrization needs to know of a time, by names of its own: numbers for the whole batch, or `b` each."""


class Network(Protocol):
    """A conditional map from x to `out`, such as a denoiser."""

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network. It must not write to `x`, which may be the x_t of a sampler."""
        ...


@dataclass(frozen=True)
class NetworkExtras:
    """Optional members of a `Network`, and of an encoder, decoder, generator, discriminator or prior network.

    Args:
        units: Its repeated blocks, each a module inside it that computes when it is called. They are compiled, divided
            among processes and recomputed one by one.
        last_layer: Name of the parameter that produces its output, which a decoder must have: it is not divided, since
            weights of losses may ask for its gradient.
        taps: Types of its inner maps by name, in the order in which they are computed.
        self_attention: Its layers of self-attention. While their attribute `identity` is true, each position attends to
            itself alone.
        middle_attention: Index of the one of these in the middle of a network that is not the same on both sides of it,
            such as a U-Net; None is the one at half.
        tap: `tap(x, cond, read, add)` returns the output of a call and the maps that `read` names, `b c ...`, by name;
            `add` has by name what is added to maps on the way.
        update: Called after each step of the player that owns the network, in every process, to change its weights
            without gradients, such as to give them unit norm. Weights that are divided are so then: of the first
            dimension, a process holds some rows.
        own_conditions: Names of the own conditions (`CondType.own`) that it reads; given others, it is refused.
    """

    units: Sequence[nn.Module] = ()
    last_layer: str | None = None
    taps: Mapping[str, TensorType] = field(default_factory=dict)
    self_attention: Sequence[nn.Module] = ()
    middle_attention: int | None = None
    tap: Callable[[Tensor, Cond, Collection[str], Mapping[str, Tensor]], tuple[Tensor, Mapping[str, Tensor]]] | None = (
        None
    )
    update: Callable[[], None] | None = None
    own_conditions: tuple[str, ...] = ()


class Schedule(Protocol):
    """The amounts of signal and noise in x_t = alpha_t x_0 + sigma_t eps, where t = 0 is clean.

    `.num` is the length of the schedule's table, whose index i is t = (i + 1) / num, or None if it has no table. A
    class may state which times, parametrization and sampler go together with it (`ImpliedExtras`).
    """

    num: int | None

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t) in float64 on the device of `t`, for t in [0, 1] (above 1 if noise is unbounded)."""
        ...

    def time(self, sigma: Tensor) -> Tensor:
        """The time at which sigma_t / alpha_t equals `sigma`, float64: the inverse of `scales`."""
        ...


@dataclass(frozen=True)
class ScheduleExtras:
    """Optional members of a `Schedule`.

    Args:
        learn: `learn(t)` returns what `scales(t)` does, in the dtype of `t` and with the gradients by which training
            moves its parameters; those of `scales` flow only to `t`. The loss weight is then one of the likelihood.
        losses: `losses(x_0, t, denoising)` computes losses of its own by name, `b` each, of samples, their times and
            their weighted denoising losses.
    """

    learn: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    losses: Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]] | None = None


class Times(Protocol):
    """Draws the times at which the network is trained."""

    def __call__(self, num: int, rng: Rng) -> Tensor:
        """Draws `num` times, float64, on the CPU."""
        ...


@dataclass(frozen=True)
class TimesExtras:
    """Optional members of `Times`.

    Args:
        even: Whether they are uniform on (0, 1], or on the indices of a table.
    """

    even: bool = False


class Coupling(Protocol):
    """Draws the noise that each sample is trained to come from."""

    def __call__(self, x_0: Tensor, fields: Mapping[str, Tensor], rng: Rng) -> Tensor:
        """Returns eps, with the shape, dtype and device of `x_0`, `b ...`; `fields` are those of the batch.

        Over the whole data it is standard normal, and, where there are conditions, under each of them: samplers start
        from such noise, whatever the condition. Samples on the meta device have no values to pair.
        """
        ...


@dataclass(frozen=True)
class CouplingExtras:
    """Optional members of a `Coupling`.

    Args:
        independent: Whether eps is independent of x_0, so that p(x_t | x_0) is normal, as samplers that draw noise in
            their steps take it to be.
    """

    independent: bool = False


class Alignment(Protocol):
    """A loss of an inner map of a denoiser, beside what is known of the clean sample.

    `.tap` is the name of the map, one of the network's `taps`, whose types are given by name.
    """

    tap: str

    def __call__(self, h: Tensor, x_0: Tensor, fields: Mapping[str, Tensor]) -> Tensor:
        """Computes the loss, `b`, of the map `h`, `b c ...`, that the network made of `x_0`, `b ...`, under noise.

        `fields` are those of the batch. Gradients flow to `h` and to its own parameters, which the denoiser's player
        trains.
        """
        ...


class Parametrization(Protocol):
    """What a network is trained to predict."""

    def out(self, x: TensorType) -> TensorType:
        """The type of the network's output."""
        ...

    def coefficients(self, t: Tensor, scales: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """Computes what the other members need to know of the times `t` and the schedule's `scales` there.

        All are `b`, float64, on the CPU. Samples are not needed, so that this happens once a step of training, or for
        the whole grid of a sampler.
        """
        ...

    def inputs(self, x_t: Tensor, coefficients: Coefficients) -> tuple[Tensor, Tensor]:
        """Computes the network's inputs: x_in, and the time that it embeds, `b`.

        The coefficients are on the device, at least in float32; or numbers, where one time is that of all samples.
        """
        ...

    def denoised(self, out: Tensor, x_t: Tensor, coefficients: Coefficients) -> Denoised:
        """Converts the network's output to a prediction of x_0."""
        ...

    def losses(
        self, out: Tensor, x_0: Tensor, eps: Tensor, x_t: Tensor, coefficients: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """`denoising`: the squared error against its target, averaged over a sample's elements, `b`.

        A learned variance adds `bound`, in nats a dimension, `b`.
        """
        ...

    def error_scale(self, coefficients: Mapping[str, Tensor]) -> Tensor:
        """The squared scale |d x_0 / d out|^2, given `coefficients(...)`: `b`, float64."""
        ...


@dataclass(frozen=True)
class ParametrizationExtras:
    """Optional members of a `Parametrization`.

    Args:
        weights: Default weights of its losses by name; a loss without one weighs 1. The user's weights take precedence.
    """

    weights: Mapping[str, float] = field(default_factory=dict)


class LossWeight(Protocol):
    """The weight of the denoising loss over time."""

    def __call__(self, snr: Tensor, error_scale: Tensor) -> Tensor:
        """Computes the weight, `b`, in the dtype of `snr`.

        Given are the signal-to-noise ratio `(alpha_t / sigma_t)^2` of each sample and the parametrization's
        `error_scale`, both `b`, float64, on the CPU: a weight on the error of x_0 is multiplied by the latter. Of a
        schedule that is learned, they are on the device and have gradients.
        """
        ...


@dataclass(frozen=True)
class LossWeightExtras:
    """Optional members of a `LossWeight`.

    Args:
        likelihood: Whether it weighs a unit of log SNR, not of time, so that the loss is a term of the variational
            bound. It is then multiplied by the slope of log SNR in t, and needs even times.
        log_variance: `log_variance(log_snr)` computes u, `b`, by which a loss L becomes `exp(-u) L + u`, from the
            logarithms of the signal-to-noise ratios, `b`, on the device. Gradients flow to its parameters.
    """

    likelihood: bool = False
    log_variance: Callable[[Tensor], Tensor] | None = None


class Denoise(Protocol):
    """A denoiser with fixed conditions, called at one time for the whole batch."""

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Predicts x_0 from `x_t`; `t` is a float64 scalar on the CPU."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """A Model that denoises. `.schedule` is the noise in x_t."""

    schedule: Schedule

    def denoiser(self, fields: Mapping[str, Tensor], cond: Cond, times: Tensor | None = None) -> Denoise:
        """Returns the denoiser under the conditions of `b` samples, without guidance or clipping.

        Given are the data's fields, what an enclosing Model gives, and the times at which it will be called as far as
        they are known, so that what depends only on them is computed before the first call. The denoiser may also be
        called with a time for each sample, `b`. Gradients flow through it.
        """
        ...


class Grid(Protocol):
    """Where a sampler steps. It is asked at each draw, since a schedule may have been trained since the last one."""

    def __call__(self, steps: int) -> Tensor:
        """Makes the times of `steps` steps: `steps + 1`, float64 on the CPU, in descending order; the last is 0."""
        ...


@dataclass(frozen=True)
class GridExtras:
    """Optional members of a `Grid`.

    Args:
        noise_levels: Whether it spaces noise levels sigma_t / alpha_t, so that even its first time has a usable one;
            times may also begin where hardly any signal is left.
    """

    noise_levels: bool = False


class Sampler(Protocol):
    """Steps from noise to data; `modkit.sample` runs the loop over `times`, and each run has its own state.

    Ours have a slot `grid`, which says where they step.
    """

    def times(self) -> Tensor:
        """The times to visit, float64 on the CPU, in descending order; the last is 0."""
        ...

    def start(self, eps: Tensor, t: Tensor) -> Tensor:
        """Makes x_t at the first time from standard normal `eps`."""
        ...

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        """Computes x_s, for s < t, and the next state; the first state is None.

        What wraps it may begin anew, without a state, at any of its times, unless it is `ordered`, and may step between
        other times, unless it has `fixed_times` (`SamplerExtras`).
        The prediction of x_0 is clipped to `x.range` if there is one, unless the user has it otherwise.
        """
        ...


@dataclass(frozen=True)
class SamplerExtras:
    """Optional members of a `Sampler`.

    Args:
        bounds: The lowest and the highest value to which predictions of x_0 are clipped; None if they are not, and
            `range` if they are clipped to the range of x, if it has one, at whatever threshold.
        deterministic: Whether a sample is a function of the noise that it starts from: the steps draw nothing.
        distilled: Whether it takes each prediction for the end of a path, so that it is for networks that are trained
            to predict that, as in distillation; others predict a mean.
        fixed_times: Whether it can step between its own times only, and not between others that a wrapper adds.
        list_asked: `list_asked()` returns all times at which its steps call the denoiser, float64 on the CPU, in
            descending order, where these are not those of `times`, such as the higher ones of steps that add noise
            first. What cannot be asked at one of them is refused before training.
        learned_variance: Whether its steps need the variance that a denoiser learned (`Denoised.v`).
        ordered: Whether its steps must begin at the first of its times, so that nothing can go back to a later one.
    """

    bounds: tuple[float, float] | Literal["range"] | None = "range"
    deterministic: bool = False
    distilled: bool = False
    fixed_times: bool = False
    list_asked: Callable[[], Tensor] | None = None
    learned_variance: bool = False
    ordered: bool = False


class Sides(Protocol):
    """The predictions that guidance combines, by name.

    `cond` has the conditions, `null` has none. Codes have no others; of denoisers, `zero` is the x_0 of an output of
    zeros, for which the network is not evaluated, `perturbed` that under the conditions with maps of self-attention
    replaced by the identity, where the network names its layers (`GuidanceExtras.layers`), and there are those that
    guidance brings.
    """

    def __call__(self, x_t: Tensor, t: Tensor, *names: str) -> tuple[Denoised, ...]:
        """Predicts x_0 on each of the sides named; those asked for together are computed in one batch if they can be.

        `t` is a float64 scalar on the CPU.
        """
        ...


class Guidance(Protocol):
    """Combines a conditional denoiser and another into one.

    It may be told the schedule, x, the data's fields, those of them that the model is conditioned on (`conditions`) and
    what an enclosing Model gives (`cond`); of codes, only x.
    """

    def __call__(self, sides: Sides) -> Denoise:
        """Returns the guided denoiser; `none` never asks for `null`."""
        ...


@dataclass(frozen=True)
class GuidanceExtras:
    """Optional members of a `Guidance`.

    Args:
        sides: Further predictions that it combines, by name: `sides[name](fields, cond, times)` returns a denoiser
            under the conditions of a draw, whose sampler visits the `times`, float64 on the CPU; others may follow.
        layers: The layers that the side `perturbed` is without: indices into `NetworkExtras.self_attention`, or the one
            in the middle, or all.
        explain_refusal: `explain_refusal(times)` returns why it cannot be used at the times that a sampler visits,
            float64 on the CPU, or None. A model is then refused before training.
    """

    sides: Mapping[str, Callable[[Mapping[str, Tensor], Cond, Tensor], Denoise]] = field(default_factory=dict)
    layers: Sequence[int] | Literal["middle", "all"] = "all"
    explain_refusal: Callable[[Tensor], str | None] | None = None
