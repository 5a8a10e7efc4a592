"""Base of quantisers whose codes are a function of the features: latents, decoding, and densities of codes.

    h -> z (`continuous`) -> codes -> z_q (`quantized`)

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), t tokens, n positions.
"""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor, nn

from modkit.bottlenecks.places import Places
from modkit.bottlenecks.pointwise import check_features
from modkit.bottlenecks.straight_through import straight_through
from modkit.precision import widen
from modkit.rng import Rng
from modkit.types import Event, Latents, PositiveInt, TensorType, checked

__all__ = ["Quantizer"]


@checked
class Quantizer(nn.Module):
    """Maps features linearly at each position and quantises them; subclasses implement `encode` and `embed`.

    Args:
        h: Type of the features.
        channels: Channels of z.
        num_codes: Number of values of each code.
        tokens: Number of codes of a vector; maps do not use it.
        depth: Number of codes per position, the first axis of the code map; with None there is one code and no such
            axis.

    Raises:
        ValueError: If `channels`, `num_codes` or `tokens` is below 1, or the features are a hierarchy or codes.
    """

    def __init__(
        self,
        h: Event,
        *,
        channels: PositiveInt,
        num_codes: PositiveInt,
        tokens: PositiveInt = 1,
        depth: int | None = None,
    ) -> None:
        super().__init__()
        self._owner = type(self).__name__
        h = check_features(self._owner, h)
        self._places = places = Places(h, tokens)
        latent = places.make_type(channels)
        self.latents: dict[str, Event] = {
            "codes": TensorType(places.size if depth is None else (depth, *places.size), classes=num_codes),
            "continuous": latent,
            "quantized": latent,
        }
        self._num_codes = num_codes
        self.project = places.make_projection(channels)

    def to_continuous(self, h: Tensor) -> Tensor:
        """Computes the vectors before quantisation, `b c h w` (`b c t` for a vector).

        They have the dtype of the weights, also under autocast.
        """
        z = self._places.split(self.project(h))
        return z.to(next(self.project.parameters()).dtype)

    def encode(self, z: Tensor) -> Tensor:
        """Computes the codes `b h w` of z, int64."""
        raise NotImplementedError

    def embed(self, codes: Tensor) -> Tensor:
        """Looks up z_q `b c h w` of codes."""
        raise NotImplementedError

    def pass_gradient(self, z: Tensor, z_q: Tensor) -> Tensor:
        """Returns exactly `z_q`, with a gradient for `z`."""
        return straight_through(z, z_q)

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """Embeds codes, or quantises `continuous`; returns `quantized` unchanged.

        Raises:
            ValueError: If there is no latent of that name.
        """
        if name == "codes":
            return self._places.join(self.embed(latent))
        if name == "continuous":
            z = self._places.split(latent)
            return self._places.join(self.pass_gradient(z, self.embed(self.encode(z))))
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

    def condense(self, name: str, h: Tensor) -> tuple[Tensor]:
        """Computes the codes of `h`, int32, or for `continuous` the vectors themselves."""
        z = self.to_continuous(h)
        return (self._places.join(z) if name == "continuous" else self.encode(z).to(torch.int32),)

    def expand(self, name: str, condensed: tuple[Tensor, ...], rng: Rng | None) -> Tensor:
        """Returns codes or vectors, or embeds the codes for `quantized`; there is nothing to draw."""
        if name == "continuous":
            return condensed[0]
        codes = condensed[0].long()
        return codes if name == "codes" else self.to_z("codes", codes)

    def _make_latents(self, z: Tensor, codes: Tensor, z_q: Tensor, losses: dict[str, Tensor]) -> Latents:
        quantized = self._places.join(self.pass_gradient(z, z_q))
        return Latents({"codes": codes, "continuous": self._places.join(z), "quantized": quantized}, None, losses)
