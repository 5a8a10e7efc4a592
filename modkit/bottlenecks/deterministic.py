"""The bottleneck of a Wasserstein or adversarial autoencoder: a point for each x, and a standard normal prior.

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes).

References:
    Wasserstein Auto-Encoders (Tolstikhin et al., 2018), section 3, https://arxiv.org/abs/1711.01558
"""

from __future__ import annotations

from torch import Tensor, nn

from modkit.bottlenecks.pointwise import check_features, pointwise
from modkit.kinds import Step
from modkit.rng import Rng
from modkit.samplers.sampling import draw_start
from modkit.types import Event, Latents, PositiveInt, TensorType, checked

__all__ = ["Deterministic"]


@checked
class Deterministic(nn.Module):
    """A linear map of the features to z, without noise; samples come from a standard normal prior.

    It has no KL. Nothing here makes the latents follow the prior; that takes a judge of an
    autoencoder, such as `mmd` or `latent-critic`.

    Args:
        channels: Channels of the latent map, or the width of a latent vector.

    Raises:
        ValueError: If `channels` is below 1, or the features are a hierarchy or codes.

    Examples:
        >>> import torch
        >>> bottleneck = Deterministic(TensorType((8, 4, 4)), channels=2)
        >>> latents = bottleneck(torch.zeros(2, 8, 4, 4), None)
        >>> latents.values["continuous"].shape, latents.kl
        (torch.Size([2, 2, 4, 4]), None)
    """

    def __init__(self, h: Event, *, channels: PositiveInt = 4) -> None:
        super().__init__()
        h = check_features("Deterministic", h)
        self._z = TensorType((channels, *h.shape[1:]))
        self.start_noise = TensorType(self._z.shape, std=1.0)
        self.latents: dict[str, Event] = {"continuous": self._z}
        self.project = pointwise(h, channels)

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Maps features to z, `b channels h w`."""
        return Latents({"continuous": self.project(h)}, None, {})

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """Returns `latent` unchanged.

        Raises:
            ValueError: If `name` is not `continuous`.
        """
        if name not in self.latents:
            raise ValueError(f"Deterministic expects one of the latents {list(self.latents)}, got {name!r}")
        return latent

    def sample(self, num: int, rng: Rng) -> Tensor:
        """Draws a standard normal z, `num channels h w`."""
        return draw_start(rng, "prior", next(self.project.parameters()).new_empty((num, *self._z.shape)))
