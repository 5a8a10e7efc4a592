r"""Residual quantisation: each position becomes a sum of codes, each the nearest to what those before it left.

    r_0 = z,   k_d = argmin_k |r_{d-1} - e_k|^2,   r_d = r_{d-1} - e_{k_d},   z_q^(d) = sum_{i <= d} e_{k_i}
    commitment = beta sum_d |z - sg z_q^(d)|^2
    codebook = sum_d |sg r_{d-1} - e_{k_d}|^2 (gradient), or moving averages of what each code is nearest to (EMA)

Gradients pass straight through from z_q = z_q^(D) to z. With D = 1 it is `vq`.

Shape letters: b batch, d depth, c channels, h w spatial (none, one, two or three sizes), n positions.

References:
    SoundStream (Zeghidour et al., 2021), algorithm 1, https://arxiv.org/abs/2107.03312
    Autoregressive Image Generation using Residual Quantization (Lee et al., 2022), eq. 2-3 and 7,
    https://arxiv.org/abs/2203.01941
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.bottlenecks.codebook import Codebook, fair_sample
from modkit.bottlenecks.pointwise import tokens
from modkit.bottlenecks.quantizer import Quantizer
from modkit.kinds import Step
from modkit.rng import Rng
from modkit.types import Event, Latents

__all__ = ["ResidualQuantizer"]


class ResidualQuantizer(Quantizer):
    """The sum of `depth` learned codes at each position, coarse to fine; codes are `depth h w`.

    Args:
        depth: Codes a position.
        shared: One codebook for all depths (RQ-VAE), or one for each (SoundStream).
        num_codes: Number of codes of a codebook.
        channels: Channels of a code; a 1x1 convolution (a linear layer for vectors) maps the features to them.
        codebook: What moves the codes: `ema`, moving averages of the vectors nearest to each; `gradient`, a loss.
        commitment: Weight beta of the commitment loss, which keeps the encoder near its codes.
        decay: Decay gamma of the moving averages, in [0, 1).
        revive: A code is dead when its average usage falls below this share of the mean usage; it is then replaced by
            a residual of the step. 0: never.

    Raises:
        ValueError: If a number is out of its range, `codebook` is unknown, or the features are a hierarchy or codes.
    """

    def __init__(
        self,
        h: Event,
        *,
        depth: int = 4,
        shared: bool = False,
        num_codes: int = 256,
        channels: int = 4,
        codebook: Literal["ema", "gradient"] = "ema",
        commitment: float = 0.25,
        decay: float = 0.99,
        revive: float = 0.05,
    ) -> None:
        if depth < 1:
            raise ValueError(f"ResidualQuantizer expects depth of at least 1, got {depth}")
        super().__init__(h, channels=channels, num_codes=num_codes, depth=depth)
        if codebook not in ("ema", "gradient"):
            raise ValueError(f"ResidualQuantizer expects codebook 'ema' or 'gradient', got {codebook!r}")
        if commitment < 0:
            raise ValueError(f"ResidualQuantizer expects commitment >= 0, got {commitment}")
        self.depth, self.commitment, self.ema = depth, commitment, codebook == "ema"
        self.codebooks = nn.ModuleList(
            Codebook("ResidualQuantizer", num_codes, channels, ema=self.ema, decay=decay, revive=revive)
            for _ in range(1 if shared else depth)
        )

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Codes `b d h w`, the vectors before them and the sums of the codes' embeddings, both `b c h w`.

        Gradients of `quantized` pass to `continuous` unchanged, and none reach the codebooks through it. The sums for
        `update` are kept in the owner's turn in training only.
        """
        z = self.continuous(h)
        z_q, commitment, codebook = torch.zeros_like(z), z.new_zeros(()), z.new_zeros(())
        codes = []
        for depth, (residual, chosen, embedding) in enumerate(self._descent(z)):
            codes.append(chosen)
            z_q = z_q + embedding
            commitment = commitment + F.mse_loss(z, z_q.detach())
            codebook = codebook + F.mse_loss(embedding, residual)
            if step is not None and step.training:
                self._book(depth).observe(tokens(residual), chosen, step.rng.at(depth))
        losses = {"commitment": self.commitment * commitment}
        if not self.ema:
            losses["codebook"] = codebook
        return self._latents(z, torch.stack(codes, 1), z_q, losses)

    def encoded(self, z: Tensor) -> Tensor:
        """Codes `b d h w`, each the nearest to what those before it left."""
        return torch.stack([codes for _, codes, _ in self._descent(z)], 1)

    def embedded(self, codes: Tensor) -> Tensor:
        """Sums of the codes' embeddings, `b c h w`; of the first codes alone where `codes` has fewer than all."""
        z_q = self._embedding(0, codes[:, 0])
        for depth in range(1, codes.shape[1]):
            z_q = z_q + self._embedding(depth, codes[:, depth])
        return z_q

    def update(self, step: Step) -> None:
        """Moves usage and, under `ema`, the codes by what this step has seen; revives dead codes."""
        if step.training:
            for depth in range(len(self.codebooks)):
                self._book(depth).update()

    @torch.no_grad()
    def prepare(self, features: Iterable[Tensor], rng: Rng) -> None:
        """Starts each codebook at k-means centres of what those before it leave of a fair sample of vectors.

        A shared codebook starts at centres of vectors and of what a first start leaves of them.

        Raises:
            ValueError: If there are no features.
        """
        sample = fair_sample((tokens(self.continuous(h)) for h in features), self._book(0).limit, rng)
        residual = sample
        for depth in range(len(self.codebooks)):
            book = self._book(depth)
            book.start(residual, rng.at(depth))
            residual = residual - book(book.nearest(residual[None])[0])
        if len(self.codebooks) < self.depth:
            self._book(0).start(torch.cat([sample, residual]), rng.at(self.depth))

    def _descent(self, z: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """At each depth what is left, `b c h w`, detached, its codes `b h w` and their embeddings `b c h w`."""
        residual = z.detach()
        for depth in range(self.depth):
            codes = self._book(depth).nearest(tokens(residual)).view(len(z), *z.shape[2:])
            embedding = self._embedding(depth, codes)
            yield residual, codes, embedding
            residual = residual - embedding.detach()

    def _embedding(self, depth: int, codes: Tensor) -> Tensor:
        embedding: Tensor = self._book(depth)(codes)
        return embedding.movedim(-1, 1)

    def _book(self, depth: int) -> Codebook:
        book = self.codebooks[depth % len(self.codebooks)]
        assert isinstance(book, Codebook)
        return book
