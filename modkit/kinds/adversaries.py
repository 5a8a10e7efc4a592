"""What an adversarial game is made of: the two sides, the losses of each, and penalties on one.

Shape letters: b batch, d features, h w spatial. Logits are higher for real.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from modkit.types import Cond

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Adversarial", "Critic", "Discriminator", "Generator", "Regularizer"]


class Generator(Protocol):
    """Maps noise z, `b d`, to x."""

    def __call__(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates x."""
        ...


class Discriminator(Protocol):
    """Tells real from fake: logits `b` or `b 1 h w`, higher for real."""

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Logits of `x`."""
        ...

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """The same, never compiled, so that a penalty can differentiate it twice."""
        ...


class Critic(Protocol):
    """A discriminator with its conditions bound."""

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Logits of `x`."""
        ...


class Adversarial(Protocol):
    """The losses of the two sides of an adversarial game; means over logits, scalars."""

    def generator(self, fake_logits: Tensor) -> Tensor:
        """What the generator minimises."""
        ...

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """What the discriminator minimises."""
        ...


class Regularizer(Protocol):
    """A penalty on a discriminator: R1 and its like; differentiates `x` only, a scalar."""

    def __call__(self, discriminator: Critic, x: Tensor, cond: Cond) -> Tensor:
        """The penalty at `x`; `discriminator` is the plain, uncompiled forward."""
        ...
