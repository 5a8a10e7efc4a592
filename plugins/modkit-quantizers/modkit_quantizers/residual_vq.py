r"""Residual quantization by the library's `ResidualVQ` and `GroupedResidualVQ`: a sum of codes, coarse to fine.

    r_0 = z,   k_d = argmin_k |r_{d-1} - e_k|,   r_d = r_{d-1} - e_{k_d},   z_q = sum_d e_{k_d}
    commitment = beta sum_d |r_{d-1} - sg e_{k_d}|^2

With groups, the channels are split and each group has its own residual codes.

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions, q depth, g groups.

References:
    SoundStream (Zeghidour et al., 2021), algorithm 1, https://arxiv.org/abs/2107.03312
    HiFi-Codec (Yang et al., 2023), section 3.2: groups, https://arxiv.org/abs/2305.02765
"""

from __future__ import annotations

import torch
from torch import Tensor
from vector_quantize_pytorch import GroupedResidualVQ, ResidualVQ  # type: ignore[import-untyped, unused-ignore]

from modkit.bottlenecks.places import Tokens
from modkit.rng import Rng
from modkit.types import Event, PositiveInt, checked
from modkit_quantizers import moving
from modkit_quantizers.wrapped import Quantized

__all__ = ["GroupedResidualQuantizer", "ResidualQuantizer"]


@checked
class ResidualQuantizer(moving.Moving):
    """The sum of `depth` learned codes at each position, by the library's `ResidualVQ`; codes are `depth h w`.

    Args:
        depth: Codes per position, each from its own codebook.

    Raises:
        ValueError: If a number is out of its range, a choice is unknown, the features are a hierarchy or codes, or
            `codebook: gradient` meets `distance: cosine` or `expire`.
    """

    def __init__(
        self,
        h: Event,
        *,
        depth: PositiveInt = 4,
        num_codes: moving.NumCodes = 256,
        channels: moving.Channels = 4,
        codebook: moving.Moved = "ema",
        distance: moving.Distance = "euclidean",
        gradient: moving.Gradient = "rotation",
        commitment: moving.Commitment = 1.0,
        decay: moving.Decay = 0.8,
        expire: moving.Expire = 0.0,
        kmeans: moving.KMeans = True,
        tokens: Tokens = 8,
    ) -> None:
        chosen = moving.check_choices("ResidualQuantizer", codebook, distance, gradient, commitment, decay, expire)
        super().__init__(
            h,
            channels=channels,
            num_codes=num_codes,
            tokens=tokens,
            depth=depth,
            codebook=codebook,
            kmeans=kmeans,
        )
        self.quantizer = ResidualVQ(dim=channels, num_quantizers=depth, codebook_size=num_codes, **chosen)

    def look_up(self, indices: Tensor) -> Tensor:
        """Sums the codes' vectors, `b n c`."""
        return self.quantizer.get_output_from_indices(indices)

    def _quantize(self, vectors: Tensor) -> Quantized:
        z_q, indices, losses = self.quantizer(vectors, freeze_codebook=self.averaged)
        return Quantized(z_q, indices, {"commitment": losses.sum()})


@checked
class GroupedResidualQuantizer(moving.Moving):
    """Residual codes for each group of channels, by the library's `GroupedResidualVQ`; codes are `groups*depth h w`.

    Args:
        groups: Number of groups of channels; the codes of the first group come first.
        depth: Codes per position and group, each from its own codebook.

    Raises:
        ValueError: If a number is out of its range, a choice is unknown, the features are a hierarchy or codes, groups
            do not divide channels, or `codebook: gradient` meets `distance: cosine` or `expire`.
    """

    def __init__(
        self,
        h: Event,
        *,
        groups: PositiveInt = 2,
        depth: PositiveInt = 2,
        num_codes: moving.NumCodes = 256,
        channels: moving.Channels = 4,
        codebook: moving.Moved = "ema",
        distance: moving.Distance = "euclidean",
        gradient: moving.Gradient = "rotation",
        commitment: moving.Commitment = 1.0,
        decay: moving.Decay = 0.8,
        expire: moving.Expire = 0.0,
        kmeans: moving.KMeans = True,
        tokens: Tokens = 8,
    ) -> None:
        owner = "GroupedResidualQuantizer"
        chosen = moving.check_choices(owner, codebook, distance, gradient, commitment, decay, expire)
        if channels % groups:
            raise ValueError(f"{owner} expects groups that divide channels, got {groups} of {channels}")
        codes = groups * depth
        super().__init__(
            h,
            channels=channels,
            num_codes=num_codes,
            tokens=tokens,
            depth=codes,
            codebook=codebook,
            kmeans=kmeans,
        )
        self.groups = groups
        self.quantizer = GroupedResidualVQ(
            dim=channels, groups=groups, num_quantizers=depth, codebook_size=num_codes, **chosen
        )

    def look_up(self, indices: Tensor) -> Tensor:
        """Sums the codes' vectors, `b n c`, for indices `b n g*q`."""
        return self.quantizer.get_output_from_indices(torch.stack(indices.chunk(self.groups, -1)))

    def _quantize(self, vectors: Tensor) -> Quantized:
        with Rng(0).seed_torch():  # in training the library draws the seed of an unused dropout of codes
            z_q, indices, losses = self.quantizer(vectors, freeze_codebook=self.averaged)
        return Quantized(z_q, torch.cat(tuple(indices), -1), {"commitment": losses.sum()})
