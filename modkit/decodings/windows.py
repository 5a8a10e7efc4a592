r"""Windows of a code map, for a network that reads fewer codes than there are.

    training     a window anywhere, for each sample its own
    code i       read in the window that has it in the middle, clamped at the map's borders

What comes before i in its window comes before it in the map, too, so that sampling knows it. Where a window is, a
network is told by a map of conditions: the one that there is or, without one, the number of each position.

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
from torch import Tensor

from modkit.nn.embeddings import resize_map
from modkit.rng import Rng
from modkit.types import Cond, CondType, TensorType

__all__ = ["Windows"]

Origin = tuple[int, ...]


class Windows:
    """All places of a window in a map.

    Args:
        codes: Type of the map.
        window: Sizes of the window, or None: the map is its own.

    Raises:
        ValueError: If the window has another rank than the map or is larger.
    """

    def __init__(self, codes: TensorType, window: Sequence[int] | None) -> None:
        sizes = codes.shape if window is None else tuple(window)
        if len(sizes) != len(codes.shape) or not all(1 <= own <= size for own, size in zip(sizes, codes.shape)):
            raise ValueError(f"Windows expects a window of at least 1 and at most {codes.shape}, got {sizes}")
        self.codes = replace(codes, shape=sizes)
        self.whole = sizes == codes.shape
        self._map = codes.shape

    def cut_type(self, cond: CondType) -> CondType:
        """The conditions of a network that reads a window.

        Raises:
            ValueError: If the map of conditions has another rank, or holds codes and is finer.
        """
        if self.whole:
            return cond
        map_ = cond.concat or TensorType(self._map, classes=math.prod(self._map))
        sizes = map_.shape if map_.classes else map_.shape[1:]
        if len(sizes) != len(self._map) or (map_.classes and any(o > s for o, s in zip(sizes, self._map))):
            raise ValueError(f"Windows of {self._map} codes expect a map of no finer codes beside them, got {map_}")
        window = self.codes.shape if map_.classes else (map_.shape[0], *self.codes.shape)
        return replace(cond, concat=replace(map_, shape=window))

    def group_by_window(self) -> dict[Origin, tuple[list[int], list[int]]]:
        """For each window that a code is read in: the codes read there, by number in the map and in the window."""
        places: dict[Origin, tuple[list[int], list[int]]] = {}
        for i in range(math.prod(self._map)):
            origin, inner = self.locate(i)
            outer = places.setdefault(origin, ([], []))
            outer[0].append(i)
            outer[1].append(inner)
        return places

    def locate(self, i: int) -> tuple[Origin, int]:
        """Where the window of code i starts, and the number of i in it."""
        origin, inner, scale = [], 0, 1
        for size, own in zip(reversed(self._map), reversed(self.codes.shape)):
            i, at = divmod(i, size)
            start = min(max(at - own // 2, 0), size - own)
            origin.append(start)
            inner += (at - start) * scale
            scale *= own
        return tuple(reversed(origin)), inner

    def draw_origins(self, like: Tensor, rng: Rng) -> Tensor:
        """Where a window starts for each sample of `like`, `b ...`: anywhere; `b r`, int64."""
        each = like.new_empty(len(like), dtype=torch.int64)
        highs = [size - own + 1 for size, own in zip(self._map, self.codes.shape)]
        return torch.stack([rng.integers(f"window-{axis}", each, 0, high) for axis, high in enumerate(highs)], 1)

    def cut(self, codes: Tensor, origins: Tensor) -> Tensor:
        """The windows of codes `b h w` at `origins`, `b r`."""
        return codes if self.whole else self._cut(codes, origins)

    def cut_cond(self, cond: Cond, origins: Tensor) -> Cond:
        """The conditions as they are in the windows at `origins`, `b r`."""
        if self.whole:
            return cond
        if cond.concat is None:
            numbers = torch.arange(math.prod(self._map), device=origins.device).view(1, *self._map)
            return replace(cond, concat=self._cut(numbers.expand(len(origins), *self._map), origins))
        if cond.concat.is_floating_point():
            values = resize_map(cond.concat, self._map).movedim(1, -1)
            return replace(cond, concat=self._cut(values, origins).movedim(-1, 1))
        codes = cond.concat
        for axis, size in enumerate(self._map, 1):
            index = torch.arange(size, device=codes.device) * codes.shape[axis] // size
            codes = codes.index_select(axis, index)
        return replace(cond, concat=self._cut(codes, origins))

    def _cut(self, x: Tensor, origins: Tensor) -> Tensor:
        rank = len(self._map)
        index = [torch.arange(len(x), device=x.device).view(-1, *[1] * rank)]
        for axis, own in enumerate(self.codes.shape):
            places = origins[:, axis, None] + torch.arange(own, device=x.device)
            index.append(places.view(-1, *[own if other == axis else 1 for other in range(rank)]))
        return x[tuple(index)]
