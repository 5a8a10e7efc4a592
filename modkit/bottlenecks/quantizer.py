"""Base of quantisers whose codes are a function of the features: latents, decoding, and densities of codes.

    h -> z (`continuous`) -> codes -> z_q (`quantized`)

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions.
"""

from __future__ import annotations

import math
from typing import NoReturn

from torch import Tensor, nn

from modkit.bottlenecks.pointwise import check_features, pointwise
from modkit.bottlenecks.straight_through import straight_through
from modkit.precision import widen
from modkit.rng import Rng
from modkit.types import Event, Latents, TensorType

__all__ = ["Quantizer"]


class Quantizer(nn.Module):
    """Maps features linearly at each position and quantises them; subclasses implement `encode` and `embed`.

    Args:
        h: Type of the features.
        channels: Channels of z.
        num_codes: Number of values of each code.
        depth: Number of codes per position, the first axis of the code map; with None there is one code and no such
            axis.

    Raises:
        ValueError: If `channels` or `num_codes` is below 1, or the features are a hierarchy or codes.
    """

    def __init__(self, h: Event, *, channels: int, num_codes: int, depth: int | None = None) -> None:
        super().__init__()
        self._owner = type(self).__name__
        h = check_features(self._owner, h)
        if num_codes < 1 or channels < 1:
            received = f"{num_codes}, {channels}"
            raise ValueError(f"{self._owner} expects num_codes and channels of at least 1, got {received}")
        size = h.shape[1:]
        self.latents: dict[str, Event] = {
            "codes": TensorType((size or (1,)) if depth is None else (depth, *size), classes=num_codes),
            "continuous": TensorType((channels, *size)),
            "quantized": TensorType((channels, *size)),
        }
        self._num_codes, self._rank, self._vector = num_codes, len(size), not size
        self.project = pointwise(h, channels)

    def to_continuous(self, h: Tensor) -> Tensor:
        """Computes the vectors before quantisation, `b c h w`, in the dtype of the weights, also under autocast."""
        z: Tensor = self.project(h)
        return z.to(next(self.project.parameters()).dtype)

    def encode(self, z: Tensor) -> Tensor:
        """Computes the codes of z, int64, `b h w` (`b 1` for vectors)."""
        raise NotImplementedError

    def embed(self, codes: Tensor) -> Tensor:
        """Looks up z_q of codes, `b c h w`."""
        raise NotImplementedError

    def pass_gradient(self, z: Tensor, z_q: Tensor) -> Tensor:
        """Returns exactly `z_q`, with a gradient for `z`."""
        return straight_through(z, z_q)

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """Embeds codes, or quantises `continuous`, as `b c h w`; returns `quantized` unchanged.

        Raises:
            ValueError: If there is no latent of that name.
        """
        if name == "codes":
            return self.embed(latent)
        if name == "continuous":
            return self.pass_gradient(latent, self.embed(self.encode(latent)))
        if name == "quantized":
            return latent
        raise ValueError(f"{self._owner} expects one of the latents {list(self.latents)}, got {name!r}")

    def sample(self, num: int, rng: Rng) -> NoReturn:
        """Raises a ValueError, since the codes have no prior."""
        expected = "combine the autoencoder with a prior by a `latent` model"
        raise ValueError(f"{self._owner} has no prior to sample from; {expected}")

    def posterior(self, name: str, h: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Computes the codes of `h` and log q, `b`, which is 0, since the codes are a function of `h`.

        Raises:
            ValueError: If `name` is not `codes`, since deterministic continuous latents have no density.
        """
        if name != "codes":
            raise ValueError(f"{self._owner} has a posterior of its codes only; {name!r} has no density")
        z = self.to_continuous(h)
        return self.encode(z), widen(z).new_zeros(len(z))

    def log_prior(self, name: str, latent: Tensor) -> Tensor:
        """Computes the log probability of codes under the uniform prior of training, -n log K, `b`.

        Raises:
            ValueError: If `name` is not `codes`.
        """
        if name != "codes":
            raise ValueError(f"{self._owner} has a prior of its codes only, not of {name!r}")
        weight = next(self.project.parameters())
        return widen(weight).new_full((len(latent),), -latent[0].numel() * math.log(self._num_codes))

    def _make_latents(self, z: Tensor, codes: Tensor, z_q: Tensor, losses: dict[str, Tensor]) -> Latents:
        return Latents({"codes": codes, "continuous": z, "quantized": self.pass_gradient(z, z_q)}, None, losses)
