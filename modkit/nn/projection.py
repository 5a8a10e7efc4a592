r"""The conditional term of a projection discriminator's logits, an inner product.

    phi^T V e(cond) / sqrt(d)

This is the first term of eq. 3, scaled as in StyleGAN2-ADA to keep it independent of the number d of features. Without
conditions to embed there are no parameters and the result is zero.

With spectral normalisation, V and the matrices of e (a row for each class, the layers that embed a vector, noise or the
time) are divided by their largest singular values. That of V is tracked by power iteration, as in the other layers of a
critic. Those of e are computed exactly at each call, which takes little time at their size and stores nothing.

Shape letters: b batch, d features.

References:
    cGANs with Projection Discriminator (Miyato & Koyama, 2018), eq. 3, https://arxiv.org/abs/1802.05637
    Training Generative Adversarial Networks with Limited Data (Karras et al., 2020), code,
    https://arxiv.org/abs/2006.06676
"""

from __future__ import annotations

import math
from typing import cast

import torch
from einops import einsum
from torch import Tensor, nn
from torch.func import functional_call

from modkit.nn.embeddings import CondEmbedding
from modkit.nn.spectral_norm import normalize_spectrum
from modkit.precision import widen
from modkit.types import Cond, CondType

__all__ = ["Projection"]


class Projection(nn.Module):
    """Computes the conditional term of logits.

    Args:
        cond: Type of the conditions; those without positions are embedded.
        features: Number d of features.
        spectral_norm: Whether to divide V and the matrices of the embedding by their largest singular values.

    Examples:
        >>> projection = Projection(CondType(labels=10), 8)
        >>> projection(torch.zeros(2, 8, 3, 3), Cond(labels=torch.tensor([3, 7]))).shape
        torch.Size([2, 3, 3])
    """

    def __init__(self, cond: CondType, features: int, *, spectral_norm: bool = False) -> None:
        super().__init__()
        self.embedding = CondEmbedding(cond, features)
        self.v = nn.Linear(features, features, bias=False) if self.embedding.embeds else None
        self.bounded = spectral_norm  # of the embedding, at each call
        if self.v is not None and spectral_norm:
            normalize_spectrum(self.v)

    def forward(self, features: Tensor, cond: Cond) -> Tensor:
        """Computes the term of features `b d ...`; the result is `b ...`."""
        if self.v is None:
            return features.new_zeros(())
        e = self._embed(cond, features)
        projected: Tensor = einsum(features, self.v(e), "b d ..., b d -> b ...")
        return projected / math.sqrt(features.shape[1])

    def _embed(self, cond: Cond, features: Tensor) -> Tensor:
        if not self.bounded:
            return cast(Tensor, self.embedding(cond, features))
        matrices = {name: w for name, w in self.embedding.named_parameters() if w.ndim == 2}
        normalized = {name: w / torch.linalg.matrix_norm(widen(w), 2).to(w.dtype) for name, w in matrices.items()}
        return cast(Tensor, functional_call(self.embedding, normalized, (cond, features)))
