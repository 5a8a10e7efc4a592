"""The kernel of `modkit.ops.noise`: each lane computes two blocks of Philox 4x64-10, i.e. sixteen words of a row.

Word j of the first half of a row and word j of the second half make normals j of both halves, so a lane has blocks b
and `blocks / 2 + b`. Of numpy's counter of 256 bits, to which one is added before each block, 128 are enough.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch_noise"]

_LANES = 128  # pairs of Philox blocks a program
_UNIT, _TURN = tl.constexpr(2.0**-32), tl.constexpr(float(torch.tensor(2 * math.pi * 2**-24, dtype=torch.float32)))


def launch_noise(state: Tensor, num: int, size: int, law: str, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """Draws `n s` from the stream of `state`, `6`; see `modkit.ops.noise`."""
    out = state.new_empty((num, size), dtype=dtype)
    if not out.numel():
        return out
    pairs = -(-size // 64) * 4  # pairs of Philox blocks a row
    width = min(triton.next_power_of_2(pairs), _LANES)
    grid = (triton.cdiv(num, _LANES // width) * triton.cdiv(pairs, width),)
    _draw[grid](
        state, out, num, size, pairs, low, high - low, LAW=law, LANES=_LANES, WIDTH=width, enable_fp_fusion=False
    )
    return out


@triton.jit(do_not_specialize=["num", "size", "pairs", "low", "span"])
def _draw(
    state: tl.tensor, out: tl.tensor, num: tl.tensor, size: tl.tensor, pairs: tl.tensor, low: tl.tensor,
    span: tl.tensor, LAW: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr,
) -> None:  # fmt: skip
    """Draws a tile of `LANES / WIDTH` rows by WIDTH pairs of blocks."""
    size, pairs = tl.cast(size, tl.int64), tl.cast(pairs, tl.int64)  # integers below 2^31 arrive as int32
    tile, tiles = tl.program_id(0), tl.cdiv(pairs, WIDTH)
    lane = tl.arange(0, LANES)
    row, pair = (tile // tiles) * (LANES // WIDTH) + lane // WIDTH, (tile % tiles) * WIDTH + lane % WIDTH
    first, second = _draw_block(state, row * 2 * pairs + pair), _draw_block(state, row * 2 * pairs + pairs + pair)
    if LAW == "normal":
        u = (first.to(tl.float32) + 0.5) * _UNIT
        angle = (second >> 8).to(tl.float32) * _TURN
        radius = tl.sqrt_rn(-2.0 * tl.log(u))
        first, second = radius * tl.cos(angle), radius * tl.sin(angle)
    elif LAW == "uniform":
        first, second = (first >> 8).to(tl.float32) * 2.0**-24, (second >> 8).to(tl.float32) * 2.0**-24
    else:
        wide, low = tl.cast(span, tl.uint64), tl.cast(low, tl.int64)
        first = ((first.to(tl.uint64) * wide) >> 32).to(tl.int64) + low
        second = ((second.to(tl.uint64) * wide) >> 32).to(tl.int64) + low
    word = tl.arange(0, 8)[None, :]
    column = pair[:, None] * 8 + word
    at = out + row[:, None] * size + column
    inside = ((row < num) & (pair < pairs))[:, None]
    half = pairs * 8
    tl.store(at, first.to(out.dtype.element_ty), inside & (column < size))
    tl.store(at + half, second.to(out.dtype.element_ty), inside & (column + half < size))


@triton.jit
def _draw_block(state: tl.tensor, offset: tl.tensor) -> tl.tensor:
    """Computes the eight words of each block, `n 8`, as uint32."""
    key_0, key_1 = tl.load(state).to(tl.uint64, bitcast=True), tl.load(state + 1).to(tl.uint64, bitcast=True)
    low, high = tl.load(state + 2).to(tl.uint64, bitcast=True), tl.load(state + 3).to(tl.uint64, bitcast=True)
    step = offset.to(tl.uint64) + 1
    c_0 = low + step
    c_1 = high + (c_0 < low).to(tl.uint64)
    zero = c_0 * 0
    a, b, c, d = tl.philox_impl(c_0, c_1, zero, zero, key_0 + zero, key_1 + zero, 10)
    mask = 0xFFFFFFFF
    x = tl.join(tl.join(a & mask, c & mask), tl.join(b & mask, d & mask))  # [n, 2, 2]: word 2 (2 i + j) of each word
    y = tl.join(tl.join(a >> 32, c >> 32), tl.join(b >> 32, d >> 32))
    return tl.reshape(tl.join(x, y), (offset.shape[0], 8)).to(tl.uint32)
