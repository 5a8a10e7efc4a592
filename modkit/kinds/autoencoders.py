"""The parts of an autoencoder: x -> encoder -> h -> bottleneck -> z -> decoder -> p(x | z).

Shape letters: b batch, c channels, h w spatial, d values of a latent; bare `h` is the output of an encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from modkit.kinds.training import Step
from modkit.types import Event, Latents, TensorType, Value

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.rng import Rng

__all__ = [
    "Bottleneck",
    "BottleneckExtras",
    "Decoder",
    "DecoderExtras",
    "Draw",
    "Encoder",
    "EncoderExtras",
    "Evidence",
    "Likelihood",
    "LikelihoodExtras",
    "Objective",
    "ObjectiveExtras",
]


class Encoder(Protocol):
    """Maps data to features."""

    @property
    def h(self) -> Event:
        """The type of the features."""
        ...

    def __call__(self, x: Tensor) -> Value:
        """Encodes `x`, `b c h w` or the shape that its type gives."""
        ...


@dataclass(frozen=True)
class EncoderExtras:
    """Optional members of an `Encoder`.

    Args:
        conditional: Whether its call takes the conditions, a `Cond`, as its second argument. Its constructor then takes
            their type as `cond`, which is empty if there are none.
    """

    conditional: bool = False


class Bottleneck(Protocol):
    """Maps features to latents.

    `.latents` gives the types of the latents by name, in the order in which they are offered to a prior. The decoder
    takes the last.
    """

    latents: dict[str, Event]

    def __call__(self, h: Value, step: Step | None) -> Latents:
        """Computes the latents of `h`; without a step, their means or nearest codes, and nothing is updated."""
        ...

    def to_z(self, name: str, latent: Value) -> Value:
        """Converts the latent `name` to the decoder's input."""
        ...

    def sample(self, num: int, rng: Rng) -> Value:
        """Draws `num` decoder inputs from the bottleneck's own prior.

        Raises:
            ValueError: If it has no prior.
        """
        ...


@dataclass(frozen=True)
class BottleneckExtras:
    """Optional members of a `Bottleneck`.

    `Model.bound` takes its densities from `posterior` and `log_prior`, which are those of the first latent. Both raise
    ValueError for a latent that has no density.

    Args:
        moments: Mean and standard deviation of the latents whose scale is already known, by name, for a bottleneck that
            was trained elsewhere. A prior is then given latents scaled by these values, and nothing is measured.
        start_noise: The type of the noise that `sample` reads by `modkit.samplers.draw_start`, so that a caller of
            `Model.sample` can give it; None if it does not.
        update: `update(step)` is called once a step, after the optimizer, and updates codebooks.
        prepare: `prepare(features, rng)` is called before the first step; each iteration over `features` is a new pass
            over the encoder's features.
        posterior: `posterior(name, h, rng)` returns a draw of q(latent | h) and its log density (for codes, its log
            probability) in nats, `b`.
        log_prior: `log_prior(name, latent)` returns the log density under the prior of `sample` in nats, `b`.
        posterior_entropy: `posterior_entropy(name, h)` returns the entropy of q(latent | h) in nats, `b`, through which
            gradients reach `h`. Another Model that is trained jointly as the prior of the first latent needs it. Where
            it is None, log q of the draw of `posterior` stands for its negative, if the latent is continuous.
        posterior_moments: `posterior_moments(name, h)` returns the means and standard deviations of q(latent | h), both
            of the latent's shape; a part has it where q is a diagonal Gaussian.
        condense: `condense(name, h)` returns what the latent depends on, without draws, in few values: the parameters
            of q(latent | h), or codes. A stage with `cache` keeps these. By default, it keeps `h`.
        expand: `expand(name, condensed, rng)` returns the latent that a call on `h` gives with this rng, or its mean if
            that is None; `condense` and `expand` come together.
    """

    moments: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    start_noise: TensorType | None = None
    update: Callable[[Step], None] | None = None
    prepare: Callable[[Iterable[Value], Rng], None] | None = None
    posterior: Callable[[str, Value, Rng], tuple[Value, Tensor]] | None = None
    log_prior: Callable[[str, Value], Tensor] | None = None
    posterior_entropy: Callable[[str, Value], Tensor] | None = None
    posterior_moments: Callable[[str, Value], tuple[Tensor, Tensor]] | None = None
    condense: Callable[[str, Value], tuple[Tensor, ...]] | None = None
    expand: Callable[[str, tuple[Tensor, ...], Rng | None], Value] | None = None


class Decoder(Protocol):
    """Maps z to the parameters of a likelihood.

    `.last_layer` is the name of the parameter that produces its output, or None. Weights that need it (`adaptive`)
    refuse None.
    """

    last_layer: str | None

    def __call__(self, z: Value) -> Tensor:
        """Decodes `z`."""
        ...


@dataclass(frozen=True)
class DecoderExtras:
    """Optional members of a `Decoder`.

    Args:
        conditional: Whether its call takes the conditions, a `Cond`, as its second argument. Its constructor then takes
            their type as `cond`, which is empty if there are none.
    """

    conditional: bool = False


class Likelihood(Protocol):
    """The distribution p(x | z), whose parameters are a decoder's output."""

    def out(self, x: TensorType) -> TensorType:
        """The type of the decoder's output."""
        ...

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """-log p(x | out) in nats per sample, `b`."""
        ...

    def mean(self, out: Tensor) -> Tensor:
        """The mean of x."""
        ...

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """Draws x, as it is drawn where x is a latent of an enclosing Model."""
        ...


@dataclass(frozen=True)
class LikelihoodExtras:
    """Optional members of a `Likelihood`.

    Args:
        constant: Nats per value of x that `nll` leaves out of -log p(x), 0.0 if it is complete. None if the likelihood
            is no distribution of x; there is then no bound on log p(x).
        levels: Number of values, evenly spaced over the range of x, whose probability `nll` gives; the bound holds for
            such x alone. None if `nll` gives a density.
    """

    constant: float | None = None
    levels: int | None = None


class Draw(NamedTuple):
    """Draws of the latents of a batch, and what the decoder makes of them.

    Args:
        z: The decoder's input, `b ...`, of the first draw of each sample: the draw that critics and penalties see.
        out: The decoder's output for it.
        losses: The bottleneck's own losses.
        nats: The distance of x from `out` in nats per sample, `b`, by the name of its term: -log p(x | z) as `nll`, or
            what stands in its place.
        kl: KL(q || p) in nats of each group of latent variables, `b g`; None if the bottleneck has none.
        latent: The first latent, `(b k) ...`, with k draws of each sample, if these were weighed.
        log_weights: log p(x | z) + log p(latent) - log q(latent | x) of each, `b k`, if they were weighed.
    """

    z: Value
    out: Tensor
    losses: Mapping[str, Tensor] = {}
    nats: Mapping[str, Tensor] = {}
    kl: Tensor | None = None
    latent: Value | None = None
    log_weights: Tensor | None = None


class Evidence(Protocol):
    """q(z | x), p(x | z) and p(z) at a batch of x, which a Model gives to its objective.

    Each turn draws once, by one of the methods.
    """

    def draw(self) -> Draw:
        """Draws the latents of each sample once, with their KL and the bottleneck's own losses."""
        ...

    def weigh(self, num: int, *, hold: bool = False) -> Draw:
        """Draws the first latent `num` times for each sample, and weighs it; all draws are in memory at once.

        Args:
            num: The number of draws.
            hold: Whether the density log q(latent | x) passes no gradients to the parameters of q.
        """
        ...


class Objective(Protocol):
    """What an autoencoder maximises: the ELBO or another one; a part is given the type `z` of the first latent."""

    def __call__(self, evidence: Evidence, step: Step) -> tuple[Draw, dict[str, Tensor]]:
        """Draws latents, and computes the losses in nats, `b` or a scalar, by the names of their terms.

        Args:
            evidence: The distributions, at the rows of this process.
            step: The step; what depends on the batch's mean other than linearly sums it over processes by `total`.
        """
        ...


@dataclass(frozen=True)
class ObjectiveExtras:
    """Optional members of an `Objective`.

    Args:
        exact: Whether the losses are the ELBO's, with `kl` the KL itself, in whose place another Model's cross entropy
            may stand in joint training.
        weighs: Whether it weighs draws. A bottleneck without densities, or with draws that pass no gradients
            on, is refused.
        holds: Whether it weighs with `hold`, and scales the gradients that reach the draws. A posterior that is no
            diagonal Gaussian is then refused, and so is every loss beside the objective that reaches the draws.
    """

    exact: bool = False
    weighs: bool = False
    holds: bool = False
