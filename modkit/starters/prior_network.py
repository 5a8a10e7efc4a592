r"""A bag of codes: each position sees which codes occur before it and how often, and its own position.

    logits_i = W silu(V (mean of E[c_j]) + p_i + e(cond)) + b        over j < i if causal, else over all j

A prior-network computes the logits of every position of a code map, in raster order (`modkit.kinds.PriorNetwork`). If
it is causal, logits i depend only on the codes before i, and `step` computes them one position at a time, with a cache
in place of the codes. If it is not, the code k, one past the last, is the mask.

Shape letters: b batch, n positions, k classes, d width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit import Cond, CondType, TensorType
from modkit.nn import CondEmbedding
from modkit.types import PositiveInt, checked

__all__ = ["Bag"]


@checked
class Bag(nn.Module):
    """Computes logits from the mean of the embeddings of the known codes.

    References:
        Efficient Estimation of Word Representations in Vector Space (Mikolov et al., 2013), section 3.1,
        https://arxiv.org/abs/1301.3781

    Args:
        codes: Type of the codes.
        cond: Conditions without positions.
        causal: Whether a position sees only the positions before it.
        width: Width of the embeddings and of the hidden layer.

    Raises:
        ValueError: If `codes` are continuous, `cond` has tokens or a map, or `width` is below 1.
    """

    def __init__(self, codes: TensorType, cond: CondType, causal: bool, *, width: PositiveInt = 128) -> None:
        super().__init__()
        if codes.classes is None:
            raise ValueError(f"Bag expects codes, got {codes}")
        if cond.context is not None or cond.concat is not None:
            raise ValueError(f"Bag expects conditions without positions, got {cond}")
        self.causal = causal
        self.codes = nn.Embedding(codes.classes + (not causal), width)
        self.positions = nn.Parameter(0.02 * torch.randn(codes.numel, width))
        self.embedding = CondEmbedding(cond, width)
        self.mixed = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, codes.classes)

    def forward(self, codes: Tensor, cond: Cond) -> Tensor:
        """Returns the logits `b n k` of `codes`, `b h w`, int64."""
        tokens = self.codes(codes.flatten(1))
        if self.causal:
            before = F.pad(tokens.cumsum(1)[:, :-1], (0, 0, 1, 0))
            counts = torch.arange(tokens.shape[1], device=codes.device).clamp_min(1)
            mean = before / counts[:, None].to(tokens.dtype)
        else:
            mean = tokens.mean(1, keepdim=True)
        return self._compute_logits(mean, self.positions, cond)

    def step(self, previous: Tensor, i: int, cond: Cond, cache: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the logits of position i, `b k`, and the next cache: the sum of earlier embeddings, `b d`."""
        token = self.codes(previous)
        total = torch.zeros_like(token) if cache is None else cache + token
        return self._compute_logits((total / max(i, 1))[:, None], self.positions[i : i + 1], cond)[:, 0], total

    def _compute_logits(self, mean: Tensor, positions: Tensor, cond: Cond) -> Tensor:
        h = self.mixed(mean) + positions + self.embedding(cond, mean[:, 0])[:, None]
        logits: Tensor = self.out(F.silu(h))
        return logits
