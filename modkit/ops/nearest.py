r"""Nearest codes: the index of the code with the smallest distance to each vector.

    nearest(z) = argmin_k |z - e_k|^2 = argmin_k |e_k|^2 / 2 - z . e_k

|z|^2 is the same for all codes and left out. Of equally near codes, the lowest index is found; a vector with a NaN is
given index 0. Scores are float32, or float64 where an input is, which has no kernel; the kernel multiplies in full
float32, never in tf32.

Shape letters: n vectors, k codes, c channels.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from modkit.ops.kernel import Kernel, has_triton, use_device

__all__ = ["find_nearest", "find_nearest_reference"]

KERNEL = Kernel("nearest", size="scores", smallest=2**16)  # an estimate, not yet timed on a card
_CPU = 2**22, 2**10
"""The most scores in memory at once (16 MB in float32; with fewer, threads would often wait for each other), and the
most codes in a block (the minimum of such short rows is found in cache)."""
_CARD = 2**26, 2**14
"""The same on a card: 256 MB, since each block is two launches."""
_LANES = 48
"""Columns that a matrix product takes together, or a multiple: 16 or 48 with AVX-512, 12 (float64) or 24 with AVX2."""


@torch.no_grad()
def find_nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Finds the index of the code nearest to each vector; of equally near codes, the lowest index.

    The n x k scores are never in memory at once. They are computed in at least float32, with autocast or without.

    Args:
        z: Vectors, `n c`.
        codebook: Codes, `k c`, at least one.

    Returns:
        Indices, int64, `n`.

    Examples:
        >>> find_nearest(torch.tensor([[0.1], [0.9]]), torch.tensor([[0.0], [1.0]]))
        tensor([0, 1])
    """
    if z.is_meta:  # a check of a spec, which may have billions of codes
        return compute_nearest(z, codebook)
    double = torch.float64 in (z.dtype, codebook.dtype)
    if not double and KERNEL.is_due(z, len(z) * len(codebook)):
        return compute_nearest(z, codebook)
    return find_nearest_reference(z, codebook)


def find_nearest_reference(z: Tensor, codebook: Tensor) -> Tensor:
    """Does what `find_nearest` does, in torch's operations: blocks are compared with a running minimum."""
    dtype = torch.promote_types(torch.promote_types(z.dtype, codebook.dtype), torch.float32)
    z, codebook = z.to(dtype), codebook.to(dtype)
    kind = z.device.type
    limit, widest = _CARD if kind == "cuda" else _CPU
    # Equal codes tie exactly only if every column takes the same path through the matrix product, so all blocks have
    # the same width, a multiple of _LANES.
    blocks = -(-len(codebook) // widest)
    width = -(-len(codebook) // (blocks * _LANES)) * _LANES
    missing = blocks * width - len(codebook)  # the last code again
    codes = torch.cat([codebook, codebook[-1:].expand(missing, -1)]) if missing else codebook
    half = codes.square().sum(1) / 2
    rows = max(1, limit // width)
    scores = z.new_empty(min(len(z), rows), width)
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        found = torch.cat([_find_nearest(part, codes, half, scores[: len(part)]) for part in torch.split(z, rows)])
    return found.clamp_(max=len(codebook) - 1)  # should a product round a copy of the last code differently


def _find_nearest(z: Tensor, codes: Tensor, half: Tensor, scores: Tensor) -> Tensor:
    """Finds the nearest codes of a block of vectors, comparing w codes at a time in the buffer `scores`, `n w`."""
    width = scores.shape[1]
    lowest, index = torch.addmm(half[:width], z, codes[:width].T, alpha=-1, out=scores).min(1)
    for first in range(width, len(codes), width):
        block = slice(first, first + width)
        low, at = torch.addmm(half[block], z, codes[block].T, alpha=-1, out=scores).min(1)
        index = torch.where(low < lowest, at + first, index)
        lowest = torch.minimum(low, lowest)
    return index


@torch.library.custom_op("modkit::nearest", mutates_args=())
def compute_nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Finds the nearest codes by the kernel, where Triton runs."""
    if not has_triton(z.device):
        return find_nearest_reference(z, codebook)
    from modkit.ops.nearest_triton import launch_nearest

    with use_device(z):
        return launch_nearest(z, codebook)


@compute_nearest.register_fake
def _allocate(z: Tensor, codebook: Tensor) -> Tensor:
    return z.new_empty(len(z), dtype=torch.int64)
