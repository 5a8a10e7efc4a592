r"""A transformer over codes: GPT-2's blocks on embedded codes, reading in raster order or filling in masks.

    causal        [context..., start, e(c_0) ... e(c_{n-2})] + [..., p_0, p_1 ... p_{n-1}]  ->  logits 0 ... n - 1
    not causal    [context..., start, e(c_0) ... e(c_{n-1})] + [..., 0, p_0 ... p_{n-1}]    ->  logits 0 ... n - 1

A vector (time, noise or labels) makes the start token, tokens of a context are a prefix. p_i is learned, a row's and
a column's vector or one for each place, and to it is added what a map of conditions says there: causal or not, the
whole of it is known, so position i sees it at i.

Shape letters: b batch, h w spatial (one, two or three sizes), n positions, m tokens, k classes, d width.

References:
    Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), section 3.2,
    https://arxiv.org/abs/2012.09841
    MaskGIT: Masked Generative Image Transformer (Chang et al., 2022), section 3, https://arxiv.org/abs/2202.04200
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from modkit.nn.embeddings import CondEmbedding, regridded
from modkit.nn.transformer_block import Block, Memory, linear
from modkit.types import Cond, CondType, TensorType

__all__ = ["Transformer"]


@dataclass
class _Cache:
    """What a step needs of those before: each block's memory, and what is added at each position, `b n d`."""

    memories: list[Memory]
    places: Tensor


class Transformer(nn.Module):
    """Logits of each code of a map, by attention.

    Args:
        codes: Type of the codes.
        cond: Conditions: a vector, time, noise or labels as the start token, a context as a prefix, a map at each
            position, whatever its size.
        causal: Whether logits i see codes before i only; otherwise they see all, and code k is the mask.
        width: Width of a token.
        depth: Number of blocks.
        heads: Heads of each attention.
        dropout: Probability of dropout.
        positions: `axial`, a vector for each row and one for each column, summed; `table`, one for each position.

    Raises:
        ValueError: If `codes` are continuous, a map of conditions has another rank, or a number is out of range.
    """

    def __init__(
        self,
        codes: TensorType,
        cond: CondType,
        causal: bool,
        *,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        positions: Literal["axial", "table"] = "axial",
    ) -> None:
        super().__init__()
        if codes.classes is None or not 1 <= len(codes.shape) <= 3:
            raise ValueError(f"Transformer expects codes in one, two or three sizes, got {codes}")
        if depth < 1:
            raise ValueError(f"Transformer expects depth of at least 1, got {depth}")
        if positions not in ("axial", "table"):
            raise ValueError(f"Transformer expects positions 'axial' or 'table', got {positions!r}")
        self.shape, self.num, self.causal = codes.shape, codes.numel, causal
        self.codes = _embedding(codes.classes + (not causal), width)
        sizes = codes.shape if positions == "axial" else (codes.numel,)
        self.positions = nn.ParameterList(_table(size, width) for size in sizes)
        self.start = _table(1, width)
        self.embedding = CondEmbedding(cond, width)
        self.context = linear(cond.context[1], width) if cond.context else None
        self.context_positions = _table(cond.context[0], width) if cond.context else None
        self.map = _MapEmbedding(codes, cond.concat, width) if cond.concat else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads=heads, dropout=dropout, residuals=2 * depth) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.out = linear(width, codes.classes, bias=False)

    def forward(self, codes: Tensor, cond: Cond) -> Tensor:
        """Logits `b n k` of `codes`, `b h w`, int64.

        Raises:
            ValueError: If the codes have another shape, or a condition is missing.
        """
        if codes.shape[1:] != self.shape:
            raise ValueError(f"Transformer expects codes b×{'×'.join(map(str, self.shape))}, got {tuple(codes.shape)}")
        tokens, places = self.codes(codes.flatten(1)), self._places(cond)
        *context, start = self._prefix(cond, len(codes))
        if self.causal:
            x = torch.cat([*context, torch.cat([start, tokens[:, :-1]], 1) + places], 1)
        else:
            x = torch.cat([*context, start, tokens + places], 1)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, causal=self.causal)
        return self._logits(x[:, -self.num :])

    def step(self, previous: Tensor, i: int, cond: Cond, cache: _Cache | None) -> tuple[Tensor, _Cache]:
        """Logits `b k` of position i, after steps 0 to i - 1, equal to those of `forward`; and the cache to go on with.

        Args:
            previous: Codes at i - 1, `b`; at 0 only their number counts.
            i: The position.
            cond: The conditions, the same at every step.
            cache: That of the step before, which is spent; None at 0.

        Raises:
            ValueError: If the network is not causal, or there is a cache at 0 or none after it.
        """
        if not self.causal or (cache is None) != (i == 0):
            expected = "to be causal, and a cache at every position but 0"
            raise ValueError(f"Transformer.step expects {expected}, got causal {self.causal}, position {i}")
        if cache is None:
            x = torch.cat(list(self._prefix(cond, len(previous))), 1)
            places = self._places(cond)
            x[:, -1] += places[:, 0]
            cache = _Cache([Memory(x.shape[1] + self.num - 1) for _ in self.blocks], places)
        else:
            x = self.codes(previous)[:, None] + cache.places[:, i : i + 1]
        for block, memory in zip(self.blocks, cache.memories):
            x = block(x, causal=True, memory=memory)
        return self._logits(x[:, -1]), cache

    def _prefix(self, cond: Cond, num: int) -> tuple[Tensor, ...]:
        """The context's tokens `b m d`, where there are any, then the start token `b 1 d`."""
        like = self.start.detach().expand(num, -1)
        start = (self.start + self.embedding(cond, like))[:, None]
        if self.context is None or self.context_positions is None:
            return (start,)
        if cond.context is None:
            raise ValueError("Transformer expects a Cond with `context`, as its type says, got None")
        return self.context(cond.context.to(like.dtype)) + self.context_positions, start

    def _places(self, cond: Cond) -> Tensor:
        """What is added at each position: its own vector, and that of the map; `b n d` or `1 n d`."""
        first, *others = self.positions
        places: Tensor = first
        for table in others:
            places = places[..., None, :] + table
        places = places.reshape(1, self.num, -1)
        return places if self.map is None else places + self.map(cond.concat)

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.norm(x))
        return logits


class _MapEmbedding(nn.Module):
    """A map of conditions, of codes or continuous, as a vector at each position of another grid.

    A coarser map is repeated, of a finer one (the embedded) values are averaged.
    """

    def __init__(self, codes: TensorType, concat: TensorType, width: int) -> None:
        super().__init__()
        size = concat.shape if concat.classes else concat.shape[1:]
        if len(size) != len(codes.shape):
            raise ValueError(f"Transformer expects a map of {len(codes.shape)} sizes beside {codes}, got {concat}")
        self.shape = codes.shape
        self.embedding = _embedding(concat.classes, width) if concat.classes else linear(concat.shape[0], width)

    def forward(self, concat: Tensor | None) -> Tensor:
        """Vectors `b n d`."""
        if concat is None:
            raise ValueError("Transformer expects a Cond with `concat`, as its type says, got None")
        if isinstance(self.embedding, nn.Linear):
            concat = concat.movedim(1, -1).to(self.embedding.weight.dtype)
        return regridded(self.embedding(concat).movedim(-1, 1), self.shape).flatten(2).transpose(1, 2)


def _embedding(num: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(num, width)
    nn.init.normal_(embedding.weight, std=0.02)
    return embedding


def _table(num: int, width: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(num, width))
