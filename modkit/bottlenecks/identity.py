"""The bottleneck of a plain autoencoder: the features are the latent, without a prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from modkit.kinds import Step
from modkit.types import Event, Latents

if TYPE_CHECKING:
    from modkit.rng import Rng
    from modkit.types import Value

__all__ = ["Identity"]


class Identity:
    """Uses the features, or a hierarchy of them, as the latent `continuous`.

    Examples:
        >>> import torch
        >>> from modkit.types import TensorType
        >>> latents = Identity(TensorType((2,)))(torch.ones(1, 2), None)
        >>> latents.values, latents.kl
        ({'continuous': tensor([[1., 1.]])}, None)
    """

    def __init__(self, h: Event) -> None:
        self.latents: dict[str, Event] = {"continuous": h}

    def __call__(self, h: Value, step: Step | None) -> Latents:
        """Returns `h` unchanged, without a KL term; gradients flow through."""
        return Latents({"continuous": h}, None, {})

    def to_z(self, name: str, latent: Value) -> Value:
        """Returns `latent` unchanged.

        Raises:
            ValueError: If `name` is not `continuous`.
        """
        if name not in self.latents:
            raise ValueError(f"{type(self).__name__} expects one of the latents {list(self.latents)}, got {name!r}")
        return latent

    def sample(self, num: int, rng: Rng) -> NoReturn:
        """Raises a ValueError, since there is no prior."""
        expected = "combine the autoencoder with a prior by a `latent` model"
        raise ValueError(f"{type(self).__name__} has no prior to sample from; {expected}")
