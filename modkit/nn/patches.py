r"""Patches: a map cut into equal blocks, each a row of a sequence, and the fixed vectors of their positions.

    [sin(p w_0), ..., sin(p w_{k-1}), cos(p w_0), ..., cos(p w_{k-1})]     w_i = 10000^(-i / k)

is the vector of an axis at the index p of a patch along it. A position's vector joins those of all axes, the last axis
first, as in DiT's code.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), p q sizes of a patch, n patches, d width.

References:
    Attention Is All You Need (Vaswani et al., 2017), section 3.5, https://arxiv.org/abs/1706.03762
    Scalable Diffusion Models with Transformers (Peebles & Xie, 2023), section 3.2, https://arxiv.org/abs/2212.09748
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

__all__ = ["choose_patch", "count_patches", "embed_positions", "join_patches", "split_patches"]


def choose_patch(owner: str, size: Sequence[int], patch: int | Sequence[int] | None) -> tuple[int, ...]:
    """Chooses the size of a patch along each axis, by default 2 where that divides the map's size and 1 elsewhere.

    Raises:
        ValueError: If `patch` has another number of axes, or does not divide `size`. The message names `owner`.

    Examples:
        >>> choose_patch("DiT", (16, 7), None), choose_patch("DiT", (16, 8), 4)
        ((2, 1), (4, 4))
    """
    if patch is None:
        return tuple(1 + (length % 2 == 0) for length in size)
    chosen = (patch,) * len(size) if isinstance(patch, int) else tuple(patch)
    if len(chosen) != len(size) or min(chosen) < 1:
        raise ValueError(f"{owner} expects a patch of {len(size)} sizes of at least 1, got {patch}")
    count_patches(owner, size, chosen)
    return chosen


def count_patches(owner: str, size: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """Counts the patches along each axis.

    Raises:
        ValueError: If `patch` does not divide `size`. The message names `owner`.

    Examples:
        >>> count_patches("DiT", (16, 8), (4, 2))
        (4, 4)
    """
    if any(length % one for length, one in zip(size, patch)):
        raise ValueError(
            f"{owner} expects a patch that divides the map's size {tuple(size)} along each axis, got {tuple(patch)}"
        )
    return tuple(length // one for length, one in zip(size, patch))


def split_patches(x: Tensor, patch: Sequence[int]) -> Tensor:
    """Splits a map `b c h w` into patches, `b n (c p q)`, in row-major order.

    Examples:
        >>> split_patches(torch.arange(4.0).view(1, 1, 4), [2])
        tensor([[[0., 1.],
                 [2., 3.]]])
    """
    outer, inner, sizes = _name_axes(patch)
    axes = " ".join(f"({one} {other})" for one, other in zip(outer, inner))
    # Contiguous, since for other inputs torch's Linear chooses its kernel by whether the weights require gradients.
    return rearrange(x, f"b c {axes} -> b ({' '.join(outer)}) (c {' '.join(inner)})", **sizes).contiguous()


def join_patches(rows: Tensor, patch: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Joins patches `b n (p q c)`, of which there are `grid` along each axis, to a map `b c h w`.

    Examples:
        >>> join_patches(torch.arange(4.0).view(1, 2, 2), [2], [2])
        tensor([[[0., 1., 2., 3.]]])
    """
    outer, inner, sizes = _name_axes(patch)
    axes = " ".join(f"({one} {other})" for one, other in zip(outer, inner))
    sizes |= dict(zip(outer, grid))
    return rearrange(rows, f"b ({' '.join(outer)}) ({' '.join(inner)} c) -> b c {axes}", **sizes)


def embed_positions(grid: Sequence[int], width: int) -> Tensor:
    """Computes the vectors of the positions of `grid`, `n d`, in float64; what is left of an uneven width is 0.

    Examples:
        >>> embed_positions([2, 1], 4)  # the row's sine and cosine come last
        tensor([[0.0000, 1.0000, 0.0000, 1.0000],
                [0.0000, 1.0000, 0.8415, 0.5403]], dtype=torch.float64)
    """
    num = width // (2 * len(grid))
    frequencies = 10000.0 ** -(torch.arange(num, dtype=torch.float64) / num)
    tables = []
    for length in grid:
        angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
        tables.append(torch.cat([angles.sin(), angles.cos()], dim=-1))
    indices = torch.tensor(list(itertools.product(*(range(length) for length in grid))))
    joined = torch.cat([table[index] for table, index in zip(reversed(tables), reversed(indices.unbind(1)))], dim=-1)
    return F.pad(joined, (0, width - joined.shape[1]))


def _name_axes(patch: Sequence[int]) -> tuple[list[str], list[str], dict[str, int]]:
    """Names the axes of the grid of patches and of a patch, and gives the sizes of the latter."""
    outer, inner = ([f"{letter}{axis}" for axis in range(len(patch))] for letter in "np")
    return outer, inner, dict(zip(inner, patch))
