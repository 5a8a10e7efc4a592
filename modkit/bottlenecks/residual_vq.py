r"""Residual quantisation: each position becomes a sum of codes, each the nearest to the remaining residual.

    r_0 = z,   k_d = argmin_k |r_{d-1} - e_k|^2,   r_d = r_{d-1} - e_{k_d},   z_q^(d) = sum_{i <= d} e_{k_i}
    commitment = beta sum_d |z - sg z_q^(d)|^2
    codebook = sum_d |sg r_{d-1} - e_{k_d}|^2 (gradient), or moving averages of the vectors nearest to each code (EMA)

Gradients pass straight through from z_q = z_q^(D) to z. D = 1 gives `vq`.

Shape letters: b batch, d depth, c channels, h w spatial (one, two or three sizes), n positions.

References:
    SoundStream (Zeghidour et al., 2021), algorithm 1, https://arxiv.org/abs/2107.03312
    Autoregressive Image Generation using Residual Quantization (Lee et al., 2022), eq. 2-3 and 7,
    https://arxiv.org/abs/2203.01941
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from modkit.bottlenecks.codebook import Codebook, sample_vectors
from modkit.bottlenecks.places import Tokens
from modkit.bottlenecks.pointwise import to_tokens
from modkit.bottlenecks.quantizer import Quantizer
from modkit.kinds import Step
from modkit.rng import Rng
from modkit.types import Event, Latents, NonNegativeFloat, PositiveInt, Range, checked

__all__ = ["ResidualQuantizer"]


@checked
class ResidualQuantizer(Quantizer):
    """Represents each position by the sum of `depth` learned codes, coarse to fine; codes are `depth h w`.

    Args:
        depth: Number of codes per position.
        shared: Whether all depths share one codebook (RQ-VAE); otherwise each has its own (SoundStream).
        num_codes: Number of codes of a codebook.
        channels: Channels of a code; a 1x1 convolution (a linear layer for vectors) maps the features to them.
        codebook: How the codes are updated: by `ema`, moving averages of the vectors nearest to each, or by the
            `gradient` of a loss.
        commitment: Weight beta of the commitment loss, which keeps the encoder's outputs close to the codes.
        decay: Decay gamma of the moving averages, in [0, 1).
        revive: A code whose average usage falls below this share of the mean usage is replaced by a residual of the
            step. With 0, codes are never replaced.

    Raises:
        ValueError: If a number is out of its range, `codebook` is unknown, or the features are a hierarchy or codes.

    Examples:
        >>> from modkit.types import TensorType
        >>> bottleneck = ResidualQuantizer(TensorType((8, 4, 4)), depth=3, num_codes=16)
        >>> latents = bottleneck(torch.zeros(2, 8, 4, 4), None)
        >>> {name: tuple(value.shape) for name, value in latents.values.items()}
        {'codes': (2, 3, 4, 4), 'continuous': (2, 4, 4, 4), 'quantized': (2, 4, 4, 4)}
    """

    def __init__(
        self,
        h: Event,
        *,
        depth: PositiveInt = 4,
        shared: bool = False,
        num_codes: PositiveInt = 256,
        channels: PositiveInt = 4,
        codebook: Literal["ema", "gradient"] = "ema",
        commitment: NonNegativeFloat = 0.25,
        decay: Annotated[float, Range(0, below=1)] = 0.99,
        revive: Annotated[float, Range(0, below=1)] = 0.05,
        tokens: Tokens = 8,
    ) -> None:
        super().__init__(h, channels=channels, num_codes=num_codes, tokens=tokens, depth=depth)
        self.depth, self.commitment, self.ema = depth, commitment, codebook == "ema"
        self.codebooks = nn.ModuleList(
            Codebook("ResidualQuantizer", num_codes, channels, ema=self.ema, decay=decay, revive=revive)
            for _ in range(1 if shared else depth)
        )

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Computes codes `b d h w`, the vectors before quantisation and the summed embeddings, both `b c h w`.

        Gradients of `quantized` pass to `continuous` unchanged and do not reach the codebooks. The sums for `update`
        are collected only in training, when the player that owns this part takes its turn.
        """
        z = self.to_continuous(h)
        z_q, commitment, codebook = torch.zeros_like(z), z.new_zeros(()), z.new_zeros(())
        codes = []
        for depth, (residual, chosen, embedding) in enumerate(self._descend(z)):
            codes.append(chosen)
            z_q = z_q + embedding
            commitment = commitment + F.mse_loss(z, z_q.detach())
            codebook = codebook + F.mse_loss(embedding, residual)
            if step is not None and step.training and self.training:
                self._get_book(depth).observe(to_tokens(residual), chosen, step.rng.at(depth))
        losses = {"commitment": self.commitment * commitment}
        if not self.ema:
            losses["codebook"] = codebook
        return self._make_latents(z, torch.stack(codes, 1), z_q, losses)

    def encode(self, z: Tensor) -> Tensor:
        """Computes the codes `b d h w`, each the nearest to the residual of the previous ones."""
        return torch.stack([codes for _, codes, _ in self._descend(z)], 1)

    def embed(self, codes: Tensor) -> Tensor:
        """Sums the embeddings of codes, `b c h w`; `codes` may hold only the first few depths."""
        z_q = self._embed(0, codes[:, 0])
        for depth in range(1, codes.shape[1]):
            z_q = z_q + self._embed(depth, codes[:, depth])
        return z_q

    def update(self, step: Step) -> None:
        """Updates usage and, with `ema`, the codes from the vectors of this step; replaces dead codes."""
        if step.training and self.training:
            for depth in range(len(self.codebooks)):
                self._get_book(depth).update(step)

    @torch.no_grad()
    def prepare(self, features: Iterable[Tensor], rng: Rng) -> None:
        """Initialises each codebook with k-means centres of the residuals of a uniform sample of vectors.

        A shared codebook is initialised with centres of the vectors and of their residuals after a first quantisation.

        Raises:
            ValueError: If there are no features.
        """
        sample = sample_vectors((to_tokens(self.to_continuous(h)) for h in features), self._get_book(0).limit, rng)
        residual = sample
        for depth in range(len(self.codebooks)):
            book = self._get_book(depth)
            book.start(residual, rng.at(depth))
            residual = residual - book(book.find_nearest(residual[None])[0])
        if len(self.codebooks) < self.depth:
            self._get_book(0).start(torch.cat([sample, residual]), rng.at(self.depth))

    def _descend(self, z: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields the detached residual `b c h w`, its codes `b h w` and their embeddings `b c h w` at each depth."""
        residual = z.detach()
        for depth in range(self.depth):
            codes = self._get_book(depth).find_nearest(to_tokens(residual)).view(len(z), *z.shape[2:])
            embedding = self._embed(depth, codes)
            yield residual, codes, embedding
            residual = residual - embedding.detach()

    def _embed(self, depth: int, codes: Tensor) -> Tensor:
        return rearrange(self._get_book(depth)(codes), "b ... c -> b c ...")

    def _get_book(self, depth: int) -> Codebook:
        book = self.codebooks[depth % len(self.codebooks)]
        assert isinstance(book, Codebook)
        return book
