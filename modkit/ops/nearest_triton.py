"""The kernel of `modkit.ops.nearest`: tiles of scores in registers, and a running minimum.

A program holds BLOCK_N vectors and goes over its share of the codes, BLOCK_K at a time. Where there are fewer blocks of
vectors than the card has room for, the codes are divided into `splits` shares, and the lowest of their minima is found
afterwards: the first of equal ones, which has the lowest index.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["NearestTiling", "launch_nearest", "plan_tiling"]

_INTERPRETED = 4  # programs at once, where the kernel is interpreted


class NearestTiling(NamedTuple):
    """Sizes of the blocks of vectors, codes and channels, and the number of shares of the codes."""

    block_n: int
    block_k: int
    block_c: int
    splits: int


def plan_tiling(num: int, num_codes: int, channels: int, programs: int) -> NearestTiling:
    """Plans the tiling for `programs` programs at once."""
    block_n, block_k, block_c = _fit(num, 128), _fit(num_codes, 128), _fit(channels, 32)
    splits = max(1, programs // triton.cdiv(num, block_n))
    return NearestTiling(block_n, block_k, block_c, min(splits, triton.cdiv(num_codes, block_k)))


def launch_nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Finds the nearest codes `n` of vectors `n c` among `k c`."""
    (num, channels), num_codes = z.shape, len(codebook)
    if not num:
        return z.new_empty(0, dtype=torch.int64)
    half = codebook.float().square().sum(1) / 2
    programs = torch.cuda.get_device_properties(z.device).multi_processor_count if z.is_cuda else _INTERPRETED
    tiling = plan_tiling(num, num_codes, channels, programs)
    lowest = z.new_empty(tiling.splits, num, dtype=torch.float32)
    index = z.new_empty(tiling.splits, num, dtype=torch.int64)
    share = triton.cdiv(triton.cdiv(num_codes, tiling.block_k), tiling.splits) * tiling.block_k
    _find_lowest[(triton.cdiv(num, tiling.block_n), tiling.splits)](
        z, codebook, half, lowest, index, num, num_codes, channels, share, *z.stride(), *codebook.stride(),
        BLOCK_N=tiling.block_n, BLOCK_K=tiling.block_k, BLOCK_C=tiling.block_c, num_warps=8,
    )  # fmt: skip
    return index[0] if tiling.splits == 1 else index.gather(0, lowest.argmin(0, keepdim=True))[0]


def _fit(size: int, largest: int) -> int:
    return min(largest, max(16, int(triton.next_power_of_2(size))))  # 16 is the least that a product takes


@triton.jit
def _find_lowest(
    z: tl.tensor, codebook: tl.tensor, half: tl.tensor, lowest: tl.tensor, index: tl.tensor,
    num: tl.tensor, num_codes: tl.tensor, channels: tl.tensor, share: tl.tensor,
    z_n: tl.tensor, z_c: tl.tensor, codebook_k: tl.tensor, codebook_c: tl.tensor,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr,
) -> None:  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    begin = tl.program_id(1) * share
    end = tl.minimum(begin + share, num_codes)
    low = tl.full([BLOCK_N], float("inf"), tl.float32)
    at = tl.zeros([BLOCK_N], tl.int32) + begin
    for first in range(begin, end, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        product = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
        for start in range(0, channels, BLOCK_C):
            c = start + tl.arange(0, BLOCK_C)
            held = (c < channels)[None, :]
            left = tl.load(z + n[:, None] * z_n + c[None, :] * z_c, (n < num)[:, None] & held, 0.0)
            codes = codebook + k[:, None].to(tl.int64) * codebook_k + c[None, :] * codebook_c
            right = tl.load(codes, (k < end)[:, None] & held, 0.0)
            product = tl.dot(left.to(tl.float32), right.to(tl.float32).T, product, input_precision="ieee")
        scores = tl.load(half + k, k < end, float("inf"))[None, :] - product
        scores = tl.where(scores == scores, scores, float("inf"))  # a NaN is never the lowest
        best, column = tl.min(scores, 1, return_indices=True, return_indices_tie_break_left=True)
        at = tl.where(best < low, first + column, at)
        low = tl.minimum(best, low)
    out = tl.program_id(1).to(tl.int64) * num + n
    tl.store(lowest + out, low, n < num)
    tl.store(index + out, at.to(tl.int64), n < num)
