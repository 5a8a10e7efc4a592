r"""Residual quantisation by the library's `ResidualVQ` and `GroupedResidualVQ`: a sum of codes, coarse to fine.

    r_0 = z,   k_d = argmin_k |r_{d-1} - e_k|,   r_d = r_{d-1} - e_{k_d},   z_q = sum_d e_{k_d}
    commitment = beta sum_d |r_{d-1} - sg e_{k_d}|^2

Grouped, the channels are split and each group has residual codes of its own.

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions, q depth, g groups.

References:
    SoundStream (Zeghidour et al., 2021), algorithm 1, https://arxiv.org/abs/2107.03312
    HiFi-Codec (Yang et al., 2023), section 3.2: groups, https://arxiv.org/abs/2305.02765
"""

from __future__ import annotations

import torch
from torch import Tensor
from vector_quantize_pytorch import GroupedResidualVQ, ResidualVQ  # type: ignore[import-untyped, unused-ignore]

from modkit.rng import Rng
from modkit.types import Event
from modkit_quantizers.moving import Distance, Gradient, Moved, Moving, checked
from modkit_quantizers.wrapped import Quantized, at_least

__all__ = ["GroupedResidualQuantizer", "ResidualQuantizer"]


class ResidualQuantizer(Moving):
    """The sum of `depth` learned codes at each position, by the library's `ResidualVQ`; codes are `depth h w`.

    Args:
        depth: Codes a position, each from a codebook of its own.
        num_codes: Number of codes of a codebook.
        channels: Channels of z; a 1x1 convolution (a linear layer for vectors) maps the features to them.
        codebook: What moves the codes: `ema`, moving averages of the vectors nearest to each; `gradient`, the
            commitment loss, which then pulls both ways.
        distance: `euclidean`, or `cosine`: codes and residuals are on the unit sphere.
        gradient: How gradients pass: `straight-through`, unchanged; `rotation`, turned and scaled as a residual is
            to become its code.
        commitment: Weight of the commitment loss.
        decay: Decay of the moving averages, in [0, 1).
        expire: A code whose average count of residuals a step is below this is replaced by one of the step; 0: never.
        kmeans: Whether the codes start at k-means centres of encoded data and of what is left of it.

    Raises:
        ValueError: If a number is out of its range, a choice is unknown, the features are a hierarchy or codes, or
            `codebook: gradient` meets `distance: cosine` or `expire`.
    """

    def __init__(
        self,
        h: Event,
        *,
        depth: int = 4,
        num_codes: int = 256,
        channels: int = 4,
        codebook: Moved = "ema",
        distance: Distance = "euclidean",
        gradient: Gradient = "rotation",
        commitment: float = 1.0,
        decay: float = 0.8,
        expire: float = 0.0,
        kmeans: bool = True,
    ) -> None:
        chosen = checked("ResidualQuantizer", codebook, distance, gradient, commitment, decay, expire)
        at_least("ResidualQuantizer", depth=(depth, 1))
        super().__init__(h, channels=channels, num_codes=num_codes, depth=depth, codebook=codebook, kmeans=kmeans)
        self.quantizer = ResidualVQ(dim=channels, num_quantizers=depth, codebook_size=num_codes, **chosen)

    def decoded(self, indices: Tensor) -> Tensor:
        """Sums of the codes' vectors, `b n c`."""
        z_q: Tensor = self.quantizer.get_output_from_indices(indices)
        return z_q

    def _frozen(self, vectors: Tensor) -> Quantized:
        z_q, indices, losses = self.quantizer(vectors, freeze_codebook=self.averaged)
        return Quantized(z_q, indices, {"commitment": losses.sum()})


class GroupedResidualQuantizer(Moving):
    """Residual codes for each group of channels, by the library's `GroupedResidualVQ`; codes are `groups*depth h w`.

    Args:
        groups: Groups of channels; the codes of the first group come first.
        depth: Codes a position and group, each from a codebook of its own.
        num_codes: Number of codes of a codebook.
        channels: Channels of z; a 1x1 convolution (a linear layer for vectors) maps the features to them.
        codebook: What moves the codes: `ema`, moving averages of the vectors nearest to each; `gradient`, the
            commitment loss, which then pulls both ways.
        distance: `euclidean`, or `cosine`: codes and residuals are on the unit sphere.
        gradient: How gradients pass: `straight-through`, unchanged; `rotation`, turned and scaled as a residual is
            to become its code.
        commitment: Weight of the commitment loss.
        decay: Decay of the moving averages, in [0, 1).
        expire: A code whose average count of residuals a step is below this is replaced by one of the step; 0: never.
        kmeans: Whether the codes start at k-means centres of encoded data and of what is left of it.

    Raises:
        ValueError: If a number is out of its range, a choice is unknown, the features are a hierarchy or codes, groups
            do not divide channels, or `codebook: gradient` meets `distance: cosine` or `expire`.
    """

    def __init__(
        self,
        h: Event,
        *,
        groups: int = 2,
        depth: int = 2,
        num_codes: int = 256,
        channels: int = 4,
        codebook: Moved = "ema",
        distance: Distance = "euclidean",
        gradient: Gradient = "rotation",
        commitment: float = 1.0,
        decay: float = 0.8,
        expire: float = 0.0,
        kmeans: bool = True,
    ) -> None:
        owner = "GroupedResidualQuantizer"
        chosen = checked(owner, codebook, distance, gradient, commitment, decay, expire)
        at_least(owner, groups=(groups, 1), depth=(depth, 1))
        if channels % groups:
            raise ValueError(f"{owner} expects groups that divide channels, got {groups} of {channels}")
        codes = groups * depth
        super().__init__(h, channels=channels, num_codes=num_codes, depth=codes, codebook=codebook, kmeans=kmeans)
        self.groups = groups
        self.quantizer = GroupedResidualVQ(
            dim=channels, groups=groups, num_quantizers=depth, codebook_size=num_codes, **chosen
        )

    def decoded(self, indices: Tensor) -> Tensor:
        """Sums of the codes' vectors, `b n c`, from indices `b n g*q`."""
        z_q: Tensor = self.quantizer.get_output_from_indices(torch.stack(indices.chunk(self.groups, -1)))
        return z_q

    def _frozen(self, vectors: Tensor) -> Quantized:
        with Rng(0).seed_torch():  # in train mode the library draws the seed of a dropout of codes that is not used
            z_q, indices, losses = self.quantizer(vectors, freeze_codebook=self.averaged)
        return Quantized(z_q, torch.cat(tuple(indices), -1), {"commitment": losses.sum()})
