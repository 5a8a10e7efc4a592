r"""A transformer for codes, with GPT-2's blocks: it predicts the next code in raster order, or masked codes.

    causal        [context..., start, e(c_0) ... e(c_{n-2})] + [..., p_0, p_1 ... p_{n-1}]  ->  logits 0 ... n - 1
    not causal    [context..., start, e(c_0) ... e(c_{n-1})] + [..., 0, p_0 ... p_{n-1}]    ->  logits 0 ... n - 1

Conditions without positions (a vector, time, noise or labels) are embedded in the start token, and the tokens of a
context are a prefix. p_i is learned: the sum of a row's and a column's vector, or one vector for each position. The
embedding of a conditioning map at position i is added to p_i, also in the causal case, since the whole map is known.

Given a continuous map, e is linear, and the last block's vectors, normalised, are returned in place of logits.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), n positions, m tokens, k classes, d width.

References:
    Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), section 3.2,
    https://arxiv.org/abs/2012.09841
    MaskGIT: Masked Generative Image Transformer (Chang et al., 2022), section 3, https://arxiv.org/abs/2202.04200
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from modkit.nn.embeddings import CondEmbedding, resize_map
from modkit.nn.transformer_block import Block, KVCache, linear
from modkit.types import Cond, CondType, PositiveInt, TensorType, checked

__all__ = ["Transformer"]


@dataclass
class _Cache:
    """The state between steps: each block's keys and values, and the vectors added at each position, `b n d`."""

    blocks: list[KVCache]
    positions: Tensor


@checked
class Transformer(nn.Module):
    """Computes the logits of each code of a map by attention, or a vector at each position of a continuous map.

    Args:
        codes: Type of the codes, `h w`, or of a continuous map, `c h w`, if it is causal.
        cond: Type of the conditions. A vector, time, noise or labels determine the start token, a context is a prefix,
            and a map of any size is added at each position.
        causal: Whether logits i depend only on the codes before i. Otherwise they depend on all codes, and code k is
            the mask.
        width: Width of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        dropout: Probability of dropout.
        positions: `axial`, the sum of a vector for each row and one for each column; `table`, one for each position.

    Raises:
        ValueError: If the map has no or more than three sizes, or is continuous and the network is not causal, a
            conditioning map has another rank, or a number is out of range.

    Examples:
        >>> codes = TensorType((4, 4), classes=16)
        >>> net = Transformer(codes, CondType(labels=10), causal=True, width=8, depth=1, heads=2)
        >>> net(torch.zeros(2, 4, 4, dtype=torch.int64), Cond(labels=torch.tensor([3, 7]))).shape
        torch.Size([2, 16, 16])
    """

    def __init__(
        self,
        codes: TensorType,
        cond: CondType,
        causal: bool,
        *,
        width: int = 128,
        depth: PositiveInt = 4,
        heads: int = 4,
        dropout: float = 0.1,
        positions: Literal["axial", "table"] = "axial",
    ) -> None:
        super().__init__()
        sizes = _get_sizes(codes)
        if not (codes.classes or causal) or not 1 <= len(sizes) <= 3:
            raise ValueError(f"Transformer expects codes in one, two or three sizes, got {codes}")
        self.shape, self.num, self.causal = codes.shape, math.prod(sizes), causal
        self.width = None if codes.classes else width
        self.codes: nn.Module = (
            _make_embedding(codes.classes + (not causal), width) if codes.classes else linear(codes.shape[0], width)
        )
        sizes = sizes if positions == "axial" else (self.num,)
        self.positions = nn.ParameterList(_make_table(size, width) for size in sizes)
        self.start = _make_table(1, width)
        self.embedding = CondEmbedding(cond, width)
        self.context = linear(cond.context[1], width) if cond.context else None
        self.context_positions = _make_table(cond.context[0], width) if cond.context else None
        self.map = _MapEmbedding(codes, cond.concat, width) if cond.concat else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads=heads, dropout=dropout, residuals=2 * depth) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.out = linear(width, codes.classes, bias=False) if codes.classes else nn.Identity()

    @property
    def units(self) -> list[nn.Module]:
        """The blocks."""
        return list(self.blocks)

    def forward(self, codes: Tensor, cond: Cond) -> Tensor:
        """Computes the logits `b n k` of `codes`, `b h w`, int64, or vectors `b n d` of a map `b c h w`.

        Raises:
            ValueError: If the codes have another shape, or a condition is missing.
        """
        if codes.shape[1:] != self.shape:
            raise ValueError(f"Transformer expects codes b×{'×'.join(map(str, self.shape))}, got {tuple(codes.shape)}")
        tokens = self.codes(codes.flatten(1) if self.width is None else codes.flatten(2).mT)
        positions = self._embed_positions(cond)
        *context, start = self._embed_prefix(cond, len(codes))
        if self.causal:
            x = torch.cat([*context, torch.cat([start, tokens[:, :-1]], 1) + positions], 1)
        else:
            x = torch.cat([*context, start, tokens + positions], 1)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, causal=self.causal)
        return self._compute_logits(x[:, -self.num :])

    def step(self, previous: Tensor, i: int, cond: Cond, cache: _Cache | None) -> tuple[Tensor, _Cache]:
        """Computes the logits `b k` of position i, equal to those of `forward`, and the cache for the next step.

        Args:
            previous: Codes at i - 1, `b`, or vectors, `b c`; at 0 only their number matters.
            i: The position.
            cond: The conditions, the same at every step.
            cache: The cache of the previous step, which cannot be used again; None at 0.

        Raises:
            ValueError: If the network is not causal, if a cache is passed at position 0, or if none is passed later.
        """
        if not self.causal or (cache is None) != (i == 0):
            expected = "to be causal, and a cache at every position but 0"
            raise ValueError(f"Transformer.step expects {expected}, got causal {self.causal}, position {i}")
        if cache is None:
            x = torch.cat(list(self._embed_prefix(cond, len(previous))), 1)
            positions = self._embed_positions(cond)
            x[:, -1] += positions[:, 0]
            cache = _Cache([KVCache(x.shape[1] + self.num - 1) for _ in self.blocks], positions)
        else:
            x = self.codes(previous)[:, None] + cache.positions[:, i : i + 1]
        for block, keys_and_values in zip(self.blocks, cache.blocks):
            x = block(x, causal=True, cache=keys_and_values)
        return self._compute_logits(x[:, -1]), cache

    def _embed_prefix(self, cond: Cond, num: int) -> tuple[Tensor, ...]:
        """Embeds the context's tokens, `b m d`, if there are any, and the start token, `b 1 d`."""
        like = self.start.detach().expand(num, -1)
        start = (self.start + self.embedding(cond, like))[:, None]
        if self.context is None or self.context_positions is None:
            return (start,)
        if cond.context is None:
            raise ValueError("Transformer expects a Cond with `context`, as its type says, got None")
        return self.context(cond.context.to(like.dtype)) + self.context_positions, start

    def _embed_positions(self, cond: Cond) -> Tensor:
        """Sums the vector of each position and that of the map there; `b n d` or `1 n d`."""
        first, *others = self.positions
        positions: Tensor = first
        for table in others:
            positions = positions[..., None, :] + table
        positions = rearrange(positions, "... d -> 1 (...) d")
        return positions if self.map is None else positions + self.map(cond.concat)

    def _compute_logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.norm(x))
        return logits


class _MapEmbedding(nn.Module):
    """Embeds a conditioning map, of codes or continuous, as a vector at each position of another grid.

    The embedded values of a coarser map are repeated, those of a finer map are averaged.
    """

    def __init__(self, codes: TensorType, concat: TensorType, width: int) -> None:
        super().__init__()
        self.shape = _get_sizes(codes)
        if len(_get_sizes(concat)) != len(self.shape):
            raise ValueError(f"Transformer expects a map of {len(self.shape)} sizes for {codes}, got {concat}")
        self.embedding = _make_embedding(concat.classes, width) if concat.classes else linear(concat.shape[0], width)

    def forward(self, concat: Tensor | None) -> Tensor:
        """Computes the vectors, `b n d`."""
        if concat is None:
            raise ValueError("Transformer expects a Cond with `concat`, as its type says, got None")
        if isinstance(self.embedding, nn.Linear):
            concat = rearrange(concat, "b c ... -> b ... c").to(self.embedding.weight.dtype)
        grid = resize_map(rearrange(self.embedding(concat), "b ... d -> b d ..."), self.shape)
        return rearrange(grid, "b d ... -> b (...) d")


def _get_sizes(map_: TensorType) -> tuple[int, ...]:
    return map_.shape if map_.classes else map_.shape[1:]


def _make_embedding(num: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(num, width)
    nn.init.normal_(embedding.weight, std=0.02)
    return embedding


def _make_table(num: int, width: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(num, width))
