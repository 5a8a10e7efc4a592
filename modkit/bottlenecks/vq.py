r"""Vector quantisation: each position is replaced by the nearest of a set of learned codes.

    k = argmin_k |z - e_k|^2,   z_q = e_k,   dz_q / dz = I (straight through) or a rotation
    commitment = beta |z - sg e_k|^2
    codebook = |sg z - e_k|^2 (gradient), or moving averages of the vectors nearest to each code (EMA)

With the cosine distance, z and the codes are divided by their lengths; on the unit sphere |z - e_k|^2 = 2 - 2 cos(z,
e_k).

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), n positions, k codes.

References:
    Neural Discrete Representation Learning (van den Oord et al., 2017), eq. 1-3 and appendix A.1,
    https://arxiv.org/abs/1711.00937
    Vector-quantized Image Modeling with Improved VQGAN (Yu et al., 2022), section 3.2: the cosine,
    https://arxiv.org/abs/2110.04627
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from modkit.bottlenecks.codebook import Codebook, sample_vectors
from modkit.bottlenecks.places import Tokens
from modkit.bottlenecks.pointwise import to_tokens
from modkit.bottlenecks.quantizer import Quantizer
from modkit.bottlenecks.straight_through import rotation_trick, straight_through
from modkit.kinds import Step
from modkit.rng import Rng
from modkit.types import Event, Latents, NonNegativeFloat, PositiveInt, Range, checked

__all__ = ["VectorQuantizer"]


@checked
class VectorQuantizer(Quantizer):
    """Replaces each position by the nearest of `num_codes` learned codes; a vector becomes several.

    Args:
        num_codes: Number of codes.
        channels: Channels of a code; a 1x1 convolution (a linear layer for vectors) maps the features to them.
        codebook: How the codes are updated: by `ema`, moving averages of the vectors nearest to each, or by the
            `gradient` of a loss.
        distance: `euclidean`, or `cosine`, for which codes and vectors lie on the unit sphere.
        gradient: How gradients pass the quantisation: unchanged (`straight-through`), or rotated and scaled as the
            vector is to become its code (`rotation`).
        commitment: Weight beta of the commitment loss, which keeps the encoder's outputs close to the codes.
        decay: Decay gamma of the moving averages, in [0, 1).
        revive: A code whose average usage falls below this share of the mean usage is replaced by an encoder output of
            the step. With 0, codes are never replaced.

    Raises:
        ValueError: If a number is out of its range, a choice is unknown, or the features are a hierarchy or codes.

    Examples:
        >>> from modkit.types import TensorType
        >>> bottleneck = VectorQuantizer(TensorType((8, 4, 4)), num_codes=16)
        >>> latents = bottleneck(torch.zeros(2, 8, 4, 4), None)
        >>> {name: tuple(value.shape) for name, value in latents.values.items()}
        {'codes': (2, 4, 4), 'continuous': (2, 4, 4, 4), 'quantized': (2, 4, 4, 4)}
        >>> sorted(latents.losses)
        ['commitment']
    """

    def __init__(
        self,
        h: Event,
        *,
        num_codes: PositiveInt = 256,
        channels: PositiveInt = 4,
        codebook: Literal["ema", "gradient"] = "ema",
        distance: Literal["euclidean", "cosine"] = "euclidean",
        gradient: Literal["straight-through", "rotation"] = "straight-through",
        commitment: NonNegativeFloat = 0.25,
        decay: Annotated[float, Range(0, below=1)] = 0.99,
        revive: Annotated[float, Range(0, below=1)] = 0.05,
        tokens: Tokens = 8,
    ) -> None:
        super().__init__(h, channels=channels, num_codes=num_codes, tokens=tokens)
        self.commitment = commitment
        self._estimate = {"straight-through": straight_through, "rotation": rotation_trick}[gradient]
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
        """Computes codes `b h w`, the vectors before quantisation and the codes' embeddings, both `b c h w`.

        Gradients of `quantized` pass to `continuous` and do not reach the codebook. The sums for `update` are collected
        only in training, when the player that owns this part takes its turn.
        """
        z = self.to_continuous(h)
        codes = self.encode(z)
        z_q = self.embed(codes)
        losses = {"commitment": self.commitment * F.mse_loss(z, z_q.detach())}
        if not self.codebook.ema:
            losses["codebook"] = F.mse_loss(z_q, z.detach())
        if step is not None and step.training and self.training:
            self.codebook.observe(to_tokens(z), codes.flatten(1), step.rng)
        return self._make_latents(z, codes, z_q, losses)

    def to_continuous(self, h: Tensor) -> Tensor:
        """Computes the vectors before quantisation, `b c h w`; with the cosine distance they have length one."""
        return self._normalize(super().to_continuous(h))

    def encode(self, z: Tensor) -> Tensor:
        """Finds the nearest codes, `b h w`."""
        return self.codebook.find_nearest(to_tokens(z)).view(len(z), *z.shape[2:])

    def embed(self, codes: Tensor) -> Tensor:
        """Looks up the embeddings of codes, `b c h w`."""
        return rearrange(self.codebook(codes), "b ... c -> b c ...")

    def pass_gradient(self, z: Tensor, z_q: Tensor) -> Tensor:
        """Returns exactly `z_q`, with the chosen gradient."""
        return self._estimate(self._normalize(z), z_q)

    def update(self, step: Step) -> None:
        """Updates usage and, with `ema`, the codes from the vectors of this step; replaces dead codes."""
        if step.training and self.training:
            self.codebook.update(step)

    @torch.no_grad()
    def prepare(self, features: Iterable[Tensor], rng: Rng) -> None:
        """Initialises the codes with k-means centres of a uniform sample of the features' vectors.

        Raises:
            ValueError: If there are no features.
        """
        vectors = sample_vectors((to_tokens(self.to_continuous(h)) for h in features), self.codebook.limit, rng)
        self.codebook.start(vectors, rng)

    def _normalize(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=1) if self.codebook.sphere else z
