r"""Windows of a code map, for networks that read fewer codes than the map has.

    training     a random window for each sample
    code i       is predicted in the window centred on it, clamped at the borders of the map

Codes that precede i in its window precede it in the map as well, so they are known in sampling. A conditioning map
tells the network where a window lies: the existing map or, without one, the index of each position.

Shape letters: b batch, r number of sizes (1, 2 or 3), h w sizes of the map.

References:
    Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), section 3.2 and figure 3,
    https://arxiv.org/abs/2012.09841
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange, repeat
from torch import Tensor

from modkit.nn.embeddings import resize_map
from modkit.rng import Rng
from modkit.types import Cond, CondType, TensorType

__all__ = ["Windows"]

Origin = tuple[int, ...]


class Windows:
    """All positions of a window in a map.

    Args:
        codes: Type of the map.
        window: Sizes of the window; with None, the window is the whole map.

    Raises:
        ValueError: If the window has another rank than the map or is larger.

    Examples:
        >>> windows = Windows(TensorType((6, 6), classes=8), (3, 3))
        >>> windows.locate(0), windows.locate(14)
        (((0, 0), 0), ((1, 1), 4))
        >>> codes = torch.arange(36).view(1, 6, 6)
        >>> windows.cut(codes, torch.tensor([[1, 1]]))
        tensor([[[ 7,  8,  9],
                 [13, 14, 15],
                 [19, 20, 21]]])
    """

    def __init__(self, codes: TensorType, window: Sequence[int] | None) -> None:
        sizes = codes.shape if window is None else tuple(window)
        if len(sizes) != len(codes.shape) or not all(1 <= own <= size for own, size in zip(sizes, codes.shape)):
            raise ValueError(f"Windows expects a window of at least 1 and at most {codes.shape}, got {sizes}")
        self.codes = replace(codes, shape=sizes)
        self.whole = sizes == codes.shape
        self._map = codes.shape

    def cut_type(self, cond: CondType) -> CondType:
        """Computes the type of the conditions of a network that reads a window.

        Raises:
            ValueError: If the conditioning map has another rank than the codes, or is a finer map of codes.
        """
        if self.whole:
            return cond
        map_ = cond.concat or TensorType(self._map, classes=math.prod(self._map))
        sizes = map_.shape if map_.classes else map_.shape[1:]
        if len(sizes) != len(self._map) or (map_.classes and any(o > s for o, s in zip(sizes, self._map))):
            expected = f"a conditioning map of rank {len(self._map)} and, if it holds codes, of at most their size"
            raise ValueError(f"Windows of {self._map} codes expect {expected}, got {map_}")
        window = self.codes.shape if map_.classes else (map_.shape[0], *self.codes.shape)
        return replace(cond, concat=replace(map_, shape=window))

    def group_by_window(self) -> dict[Origin, tuple[list[int], list[int]]]:
        """Groups the codes by the window in which they are predicted.

        Returns:
            For the origin of each window, the indices of its codes in the map and in the window.
        """
        groups: dict[Origin, tuple[list[int], list[int]]] = {}
        for i in range(math.prod(self._map)):
            origin, inner = self.locate(i)
            outer = groups.setdefault(origin, ([], []))
            outer[0].append(i)
            outer[1].append(inner)
        return groups

    def locate(self, i: int) -> tuple[Origin, int]:
        """Computes the origin of the window of code i and the index of i in it."""
        origin, inner, scale = [], 0, 1
        for size, own in zip(reversed(self._map), reversed(self.codes.shape)):
            i, at = divmod(i, size)
            start = min(max(at - own // 2, 0), size - own)
            origin.append(start)
            inner += (at - start) * scale
            scale *= own
        return tuple(reversed(origin)), inner

    def draw_origins(self, like: Tensor, rng: Rng) -> Tensor:
        """Draws the origin of a window, `b r`, int64, uniformly for each sample of `like`, `b ...`."""
        each = like.new_empty(len(like), dtype=torch.int64)
        highs = [size - own + 1 for size, own in zip(self._map, self.codes.shape)]
        return torch.stack([rng.integers(f"window-{axis}", each, 0, high) for axis, high in enumerate(highs)], 1)

    def cut(self, codes: Tensor, origins: Tensor) -> Tensor:
        """Cuts out the windows of codes `b h w` at `origins`, `b r`."""
        return codes if self.whole else self._cut(codes, origins)

    def cut_cond(self, cond: Cond, origins: Tensor) -> Cond:
        """Cuts out the conditions of the windows at `origins`, `b r`."""
        if self.whole:
            return cond
        if cond.concat is None:
            indices = torch.arange(math.prod(self._map), device=origins.device).view(self._map)
            return replace(cond, concat=self._cut(repeat(indices, "... -> b ...", b=len(origins)), origins))
        if cond.concat.is_floating_point():
            values = rearrange(resize_map(cond.concat, self._map), "b c ... -> b ... c")
            return replace(cond, concat=rearrange(self._cut(values, origins), "b ... c -> b c ..."))
        codes = cond.concat
        for axis, size in enumerate(self._map, 1):
            index = torch.arange(size, device=codes.device) * codes.shape[axis] // size
            codes = codes.index_select(axis, index)
        return replace(cond, concat=self._cut(codes, origins))

    def _cut(self, x: Tensor, origins: Tensor) -> Tensor:
        rank = len(self._map)
        index = [torch.arange(len(x), device=x.device).view(-1, *[1] * rank)]
        for axis, own in enumerate(self.codes.shape):
            positions = origins[:, axis, None] + torch.arange(own, device=x.device)
            index.append(positions.view(-1, *[own if other == axis else 1 for other in range(rank)]))
        return x[tuple(index)]
