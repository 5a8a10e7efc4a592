r"""Vector quantisation: each position becomes the nearest of a set of learned codes.

    k = argmin_k |z - e_k|^2,   z_q = e_k,   dz_q / dz = I (straight through) or a rotation
    commitment = beta |z - sg e_k|^2
    codebook = |sg z - e_k|^2 (gradient), or moving averages of what each code is nearest to (EMA)

By the cosine, z and codes are divided by their lengths; on the unit sphere |z - e_k|^2 = 2 - 2 cos(z, e_k).

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions, k codes.

References:
    Neural Discrete Representation Learning (van den Oord et al., 2017), eq. 1-3 and appendix A.1,
    https://arxiv.org/abs/1711.00937
    Vector-quantized Image Modeling with Improved VQGAN (Yu et al., 2022), section 3.2: the cosine,
    https://arxiv.org/abs/2110.04627
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modkit.bottlenecks.codebook import Codebook, fair_sample
from modkit.bottlenecks.pointwise import tokens
from modkit.bottlenecks.quantizer import Quantizer
from modkit.bottlenecks.straight_through import rotated, straight_through
from modkit.kinds import Step
from modkit.rng import Rng
from modkit.types import Event, Latents

__all__ = ["VectorQuantizer"]


class VectorQuantizer(Quantizer):
    """The nearest of `num_codes` learned codes at each position; a vector becomes one code.

    Args:
        num_codes: Number of codes.
        channels: Channels of a code; a 1x1 convolution (a linear layer for vectors) maps the features to them.
        codebook: What moves the codes: `ema`, moving averages of the vectors nearest to each; `gradient`, a loss.
        distance: `euclidean`, or `cosine`: codes and vectors are on the unit sphere.
        gradient: How gradients pass: `straight-through`, unchanged; `rotation`, turned and scaled as the vector is
            to become its code.
        commitment: Weight beta of the commitment loss, which keeps the encoder near its codes.
        decay: Decay gamma of the moving averages, in [0, 1).
        revive: A code is dead when its average usage falls below this share of the mean usage; it is then replaced by
            an encoder output of the step. 0: never.

    Raises:
        ValueError: If a number is out of its range, a choice is unknown, or the features are a hierarchy or codes.
    """

    def __init__(
        self,
        h: Event,
        *,
        num_codes: int = 256,
        channels: int = 4,
        codebook: Literal["ema", "gradient"] = "ema",
        distance: Literal["euclidean", "cosine"] = "euclidean",
        gradient: Literal["straight-through", "rotation"] = "straight-through",
        commitment: float = 0.25,
        decay: float = 0.99,
        revive: float = 0.05,
    ) -> None:
        super().__init__(h, channels=channels, num_codes=num_codes)
        if codebook not in ("ema", "gradient"):
            raise ValueError(f"VectorQuantizer expects codebook 'ema' or 'gradient', got {codebook!r}")
        if distance not in ("euclidean", "cosine"):
            raise ValueError(f"VectorQuantizer expects distance 'euclidean' or 'cosine', got {distance!r}")
        if gradient not in ("straight-through", "rotation"):
            raise ValueError(f"VectorQuantizer expects gradient 'straight-through' or 'rotation', got {gradient!r}")
        if commitment < 0:
            raise ValueError(f"VectorQuantizer expects commitment >= 0, got {commitment}")
        self.commitment, self._gradient = (
            commitment,
            {"straight-through": straight_through, "rotation": rotated}[gradient],
        )
        self.codebook = Codebook(
            "VectorQuantizer",
            num_codes,
            channels,
            ema=codebook == "ema",
            decay=decay,
            revive=revive,
            sphere=distance == "cosine",
        )

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Codes `b h w`, the vectors before them and the codes' embeddings, both `b c h w`.

        Gradients of `quantized` pass to `continuous`, and none reach the codebook through it. The sums for `update` are
        kept in the owner's turn in training only.
        """
        z = self.continuous(h)
        codes = self.encoded(z)
        z_q = self.embedded(codes)
        losses = {"commitment": self.commitment * F.mse_loss(z, z_q.detach())}
        if not self.codebook.ema:
            losses["codebook"] = F.mse_loss(z_q, z.detach())
        if step is not None and step.training:
            self.codebook.observe(tokens(z), codes.flatten(1), step.rng)
        return self._latents(z, codes, z_q, losses)

    def continuous(self, h: Tensor) -> Tensor:
        """Vectors before quantisation, `b c h w`, of length one by the cosine."""
        return self._placed(super().continuous(h))

    def encoded(self, z: Tensor) -> Tensor:
        """The nearest codes, `b h w`."""
        return self.codebook.nearest(tokens(z)).view(len(z), *(z.shape[2:] or (1,)))

    def embedded(self, codes: Tensor) -> Tensor:
        """The codes' embeddings, `b c h w`."""
        z_q: Tensor = self.codebook(codes).movedim(-1, 1)
        return z_q.flatten(1) if self._vector else z_q

    def passed(self, z: Tensor, z_q: Tensor) -> Tensor:
        """Exactly `z_q`, with the gradient that was chosen."""
        return self._gradient(self._placed(z), z_q)

    def update(self, step: Step) -> None:
        """Moves usage and, under `ema`, the codes by what this step has seen; revives dead codes."""
        if step.training:
            self.codebook.update()

    @torch.no_grad()
    def prepare(self, features: Iterable[Tensor], rng: Rng) -> None:
        """Starts the codes at k-means centres of a fair sample of the features' vectors.

        Raises:
            ValueError: If there are no features.
        """
        vectors = fair_sample((tokens(self.continuous(h)) for h in features), self.codebook.limit, rng)
        self.codebook.start(vectors, rng)

    def _placed(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=1) if self.codebook.sphere else z
