"""What an autoencoder is made of: x -> encoder -> h -> bottleneck -> z -> decoder -> p(x | z).

Shape letters: b batch, c channels, h w spatial; h is also what an encoder emits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from modkit.kinds.training import Step
from modkit.types import Event, Latents, TensorType, Value

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.rng import Rng

__all__ = ["Bottleneck", "Decoder", "Encoder", "Likelihood"]


class Encoder(Protocol):
    """Maps data to features `h`, of type `.h`."""

    h: Event

    def __call__(self, x: Tensor) -> Value:
        """Encodes `x`, `b c h w` (as its type says)."""
        ...


class Bottleneck(Protocol):
    """Makes latents of features.

    `.latents` types them by name, in the order a prior is offered them; the decoder takes the last. Two methods are
    optional: `update(step)` once a step after the optimizer (codebooks move), and `prepare(features, rng)` before the
    first, where each iteration over `features` is a fresh pass of h. Two more, optional too, are what `Model.bound`
    takes its densities from; either refuses, by a ValueError, a latent that has none:

        posterior(name, h, rng) -> (latent, log_q)   a draw of q(latent | h) with its log density or, of codes, log
                                                     probability, nats, `b`
        log_prior(name, latent) -> log_p             under the prior that `sample` draws from, nats, `b`

    One more, optional again, lets another Model be trained jointly as the prior of its first latent:

        posterior_entropy(name, h) -> b              that of q(latent | h), nats, through which gradients reach h

    And one attribute, of a bottleneck that was trained elsewhere: `moments`, (mean, standard deviation) of those
    latents whose scale is known, by name; a prior then sees them scaled by these, and nothing is measured.
    """

    latents: dict[str, Event]

    def __call__(self, h: Value, step: Step | None) -> Latents:
        """The latents of `h`; without a step their mean or nearest code, and nothing moves."""
        ...

    def to_z(self, name: str, latent: Value) -> Value:
        """What the decoder takes, from the latent of that name."""
        ...

    def sample(self, num: int, rng: Rng) -> Value:
        """Draws what the decoder takes from the bottleneck's own prior.

        Raises:
            ValueError: If it has none.
        """
        ...


class Decoder(Protocol):
    """Maps z to the parameters of a likelihood.

    `.last_layer` is the name of the parameter that makes its output, or None (then `adaptive` weights are refused).
    """

    last_layer: str | None

    def __call__(self, z: Value) -> Tensor:
        """Decodes `z`."""
        ...


class Likelihood(Protocol):
    """p(x | z), its parameters being a decoder's output.

    An optional attribute `constant` says that `nll` lacks so many nats a value of being -log of a density of x (0.0:
    none); without it there is no bound on log p(x).
    """

    def out(self, x: TensorType) -> TensorType:
        """The type that the decoder must emit."""
        ...

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """-log p(x | out) in nats a sample, `b`."""
        ...

    def mean(self, out: Tensor) -> Tensor:
        """The mean of x."""
        ...

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """A draw of x."""
        ...
