"""The parts of an adversarial game: the two networks, the losses of each, and penalties on the discriminator.

Shape letters: b batch, d features, h w spatial. Logits are higher for real samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from modkit.types import Cond

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Adversarial",
    "Critic",
    "Discriminator",
    "DiscriminatorExtras",
    "Generator",
    "Regularizer",
    "RegularizerExtras",
]


class Generator(Protocol):
    """Maps noise z, `b d`, to x."""

    def __call__(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates x."""
        ...


class Discriminator(Protocol):
    """Tells real samples from generated ones, by logits `b` or `b 1 h w` that are higher for real samples."""

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of `x`."""
        ...


class Critic(Protocol):
    """A discriminator, as regularizers are given it."""

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of `x`."""
        ...


class Adversarial(Protocol):
    """The losses of the two sides of an adversarial game: scalars, averaged over logits."""

    def generator(self, fake_logits: Tensor) -> Tensor:
        """The loss that the generator minimises."""
        ...

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The loss that the discriminator minimises."""
        ...


class Regularizer(Protocol):
    """A penalty on a discriminator, such as R1: a scalar, differentiated with respect to `x` only."""

    def __call__(self, discriminator: Critic, x: Tensor, cond: Cond) -> Tensor:
        """Computes the penalty at `x`; `discriminator` runs without compilation, so it can be differentiated twice."""
        ...


@dataclass(frozen=True)
class DiscriminatorExtras:
    """Optional members of a `Discriminator`, and of the modules inside it.

    Args:
        bounded: Whether each of its weights is bounded by spectral normalisation in a way that PyTorch's
            parametrizations do not show. `modkit check` warns of a weight that is not, beside others that are.
    """

    bounded: bool = False


@dataclass(frozen=True)
class RegularizerExtras:
    """Optional members of a `Regularizer`.

    Args:
        per_sample: Whether it needs the gradient of each sample's own logit. A critic that normalises over the batch
            couples the samples and defeats it, of which `modkit check` warns.
    """

    per_sample: bool = False
