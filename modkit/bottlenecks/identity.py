"""The bottleneck of a plain autoencoder: features are the latent, and nothing is known of their distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from modkit.kinds import Step
from modkit.types import Event, Latents

if TYPE_CHECKING:
    from modkit.rng import Rng
    from modkit.types import Value

__all__ = ["Identity"]


class Identity:
    """Hands the features on as the latent `continuous`; hierarchies too."""

    def __init__(self, h: Event) -> None:
        self.latents: dict[str, Event] = {"continuous": h}

    def __call__(self, h: Value, step: Step | None) -> Latents:
        """`h` itself, without a KL term; gradients flow through."""
        return Latents({"continuous": h}, None, {})

    def to_z(self, name: str, latent: Value) -> Value:
        """`latent` itself.

        Raises:
            ValueError: If `name` is not `continuous`.
        """
        if name not in self.latents:
            raise ValueError(f"Identity expects one of the latents {list(self.latents)}, got {name!r}")
        return latent

    def sample(self, num: int, rng: Rng) -> NoReturn:
        """Refuses: there is no prior.

        Raises:
            ValueError: Always.
        """
        raise ValueError("Identity has no prior to sample from: compose the autoencoder with one by `latent`")
