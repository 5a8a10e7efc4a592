"""What quantisers share whose codes are a function of the features: latents, decoding, and densities of codes.

    h -> z (`continuous`) -> codes -> z_q (`quantized`)

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions.
"""

from __future__ import annotations

import math
from typing import NoReturn

from torch import Tensor, nn

from modkit.bottlenecks.pointwise import feature_type, pointwise
from modkit.bottlenecks.straight_through import straight_through
from modkit.precision import widen
from modkit.rng import Rng
from modkit.types import Event, Latents, TensorType

__all__ = ["Quantizer"]


class Quantizer(nn.Module):
    """Maps features by one linear map a position, and quantises; what is named `encoded` and `embedded` is its own.

    Args:
        h: Type of the features.
        channels: Channels of z.
        num_codes: Number of codes at a place of the code map.
        depth: Codes a position, the first axis of the code map; None: one, and no such axis.

    Raises:
        ValueError: If `channels` or `num_codes` is below 1, or the features are a hierarchy or codes.
    """

    def __init__(self, h: Event, *, channels: int, num_codes: int, depth: int | None = None) -> None:
        super().__init__()
        self._owner = type(self).__name__
        h = feature_type(self._owner, h)
        if num_codes < 1 or channels < 1:
            received = f"{num_codes}, {channels}"
            raise ValueError(f"{self._owner} expects num_codes, channels of at least 1, got {received}")
        size = h.shape[1:]
        self.latents: dict[str, Event] = {
            "codes": TensorType((size or (1,)) if depth is None else (depth, *size), classes=num_codes),
            "continuous": TensorType((channels, *size)),
            "quantized": TensorType((channels, *size)),
        }
        self._num_codes, self._rank, self._vector = num_codes, len(size), not size
        self.project = pointwise(h, channels)

    def continuous(self, h: Tensor) -> Tensor:
        """The vectors before quantisation, `b c h w`, dtype of the weights: autocast's bfloat16 ends here."""
        z: Tensor = self.project(h)
        return z.to(next(self.project.parameters()).dtype)

    def encoded(self, z: Tensor) -> Tensor:
        """Codes of z, int64, `b h w` (`b 1` of vectors)."""
        raise NotImplementedError

    def embedded(self, codes: Tensor) -> Tensor:
        """z_q of codes, `b c h w`."""
        raise NotImplementedError

    def passed(self, z: Tensor, z_q: Tensor) -> Tensor:
        """Exactly `z_q`, with a gradient for `z`."""
        return straight_through(z, z_q)

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """Embeddings `b c h w` of codes, or of the codes of `continuous`; `quantized` as it is.

        Raises:
            ValueError: If there is no latent of that name.
        """
        if name == "codes":
            return self.embedded(latent)
        if name == "continuous":
            return self.passed(latent, self.embedded(self.encoded(latent)))
        if name == "quantized":
            return latent
        raise ValueError(f"{self._owner} expects one of the latents {list(self.latents)}, got {name!r}")

    def sample(self, num: int, rng: Rng) -> NoReturn:
        """Refuses: codes have no prior of their own.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{self._owner} has no prior to sample from: compose the autoencoder with one by `latent`")

    def posterior(self, name: str, h: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """The codes of `h`, and log q = 0, `b`: they are a function of `h`.

        Raises:
            ValueError: If `name` is not `codes`: what is continuous and certain has no density.
        """
        if name != "codes":
            raise ValueError(f"{self._owner} has a posterior of its codes alone, {name!r} has no density")
        z = self.continuous(h)
        return self.encoded(z), widen(z).new_zeros(len(z))

    def log_prior(self, name: str, latent: Tensor) -> Tensor:
        """The log probability of codes under the uniform prior of training, `b`: -n log K.

        Raises:
            ValueError: If `name` is not `codes`.
        """
        if name != "codes":
            raise ValueError(f"{self._owner} has a prior of its codes alone, none of {name!r}")
        weight = next(self.project.parameters())
        return widen(weight).new_full((len(latent),), -latent[0].numel() * math.log(self._num_codes))

    def _latents(self, z: Tensor, codes: Tensor, z_q: Tensor, losses: dict[str, Tensor]) -> Latents:
        return Latents({"codes": codes, "continuous": z, "quantized": self.passed(z, z_q)}, None, losses)
