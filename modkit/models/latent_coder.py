"""What a `latent` tells its prior of its autoencoder: q(z | x), scaled as the latents are that the prior is given.

Shape letters: b batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from modkit.models.latent_scale import LatentScale
from modkit.models.model import Model
from modkit.types import TensorType

__all__ = ["LatentCoder"]


@dataclass(frozen=True)
class LatentCoder:
    """q(z | x) of one latent of an autoencoder, for the prior of that latent.

    It holds the autoencoder without owning it: a copy of the model has a copy of this, which reads the copied weights.

    Args:
        autoencoder: The autoencoder.
        at: Name of the latent.
        scale: The scale that the prior's latents have.
    """

    autoencoder: Model
    at: str
    scale: LatentScale

    @property
    def x(self) -> TensorType:
        """The type of the data."""
        return self.autoencoder.single

    def explain_lack(self) -> str | None:
        """Returns why q(z | x) has no moments that depend on x only, or None."""
        if self.at not in self.autoencoder.diagonal:
            known = ", ".join(self.autoencoder.diagonal) or "none"
            return f"got the latent {self.at!r}, which has none; those that have some: {known}"
        reads = (*self.autoencoder.reads, *self.autoencoder.inputs)
        return f"got an encoder that also reads the fields {', '.join(reads)}" if reads else None

    def encode_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes `x`, `b ...`, to the mean and the log variance of the scaled latent, both of its shape."""
        mean, std = self.autoencoder.encode_moments(x.to(self.autoencoder.allocate(0, self.x)), self.at)
        shift, deviation = self.scale.get_moments(0)
        return (mean - shift) / deviation, 2 * (std / deviation).log()
