"""The kernels of `modkit.ops.fir`, in two dimensions: each program computes a few rows of a block of channels.

A row of x is filtered along its columns once and kept in registers until no row of the result needs it. A result is
gathered from the values that reach it, so nothing is added in memory, and the sums have one order.
"""
# mypy: disable-error-code="assignment, misc"
# In Triton's language, tuples may grow while the compiler unrolls a loop.

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from modkit.ops.layout import choose_format

__all__ = ["FIRTiling", "launch_fir", "plan_tiling"]

_VALUES = 1024  # in a row of a program: 8 for each of its threads
_ROWS = 4


class FIRTiling(NamedTuple):
    """Sizes of the blocks of channels and columns."""

    block_c: int
    block_w: int


def plan_tiling(channels: int, columns: int, last: bool) -> FIRTiling:
    """Plans the tiling: widest where values are adjacent, along channels where these are `last`, else along columns."""
    c, w = (max(2, int(triton.next_power_of_2(size))) for size in (channels, columns))
    return FIRTiling(min(c, 128), min(w, 8)) if last else FIRTiling(min(c, max(1, _VALUES // min(w, 128))), min(w, 128))


def launch_fir(x: Tensor, taps: Tensor, stride: int, padding: int, size: Sequence[int], transposed: bool) -> Tensor:
    """Resamples `x`, `b c h w`, as `modkit.ops.fir.resample_fir` does; with stride 2, by an even number of taps."""
    (batch, channels, height, width), (rows, columns) = x.shape, size
    y = torch.empty(batch, channels, rows, columns, dtype=x.dtype, device=x.device, memory_format=choose_format(x))
    if not y.numel():
        return y
    block_c, block_w = plan_tiling(channels, columns, choose_format(x) is torch.channels_last)
    blocks = triton.cdiv(channels, block_c) * triton.cdiv(columns, block_w) * triton.cdiv(rows, _ROWS)
    flipped = transposed and stride == 1  # then a filter again
    kernel = _spread if transposed and not flipped else _filter
    kernel[(batch * blocks,)](
        x, taps.flip(0) if flipped else taps, y, channels, height, width, rows, columns, *x.stride(), *y.stride(),
        PADDING=len(taps) - 1 - padding if flipped else padding, STRIDE=stride, TAPS=len(taps), ROWS=_ROWS,
        BLOCK_C=block_c, BLOCK_W=block_w,
    )  # fmt: skip
    return y


@triton.jit
def _place(
    x: tl.tensor, y: tl.tensor, channels: tl.tensor, rows: tl.tensor, columns: tl.tensor,
    x_b: tl.tensor, x_c: tl.tensor, y_b: tl.tensor, y_c: tl.tensor,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_W: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Places a program: its channels in x and y, which of them there are, its first column and its first row.

    Programs side by side share rows of x.
    """
    program = tl.program_id(0)
    row = program % tl.cdiv(rows, ROWS) * ROWS
    program //= tl.cdiv(rows, ROWS)
    column = program % tl.cdiv(columns, BLOCK_W) * BLOCK_W
    program //= tl.cdiv(columns, BLOCK_W)
    c = (program % tl.cdiv(channels, BLOCK_C) * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    b, at = (program // tl.cdiv(channels, BLOCK_C)).to(tl.int64), c.to(tl.int64)
    return x + b * x_b + at * x_c, y + b * y_b + at * y_c, c < channels, column, row


@triton.jit
def _filter(
    x: tl.tensor, taps: tl.tensor, y: tl.tensor,
    channels: tl.tensor, height: tl.tensor, width: tl.tensor, rows: tl.tensor, columns: tl.tensor,
    x_b: tl.tensor, x_c: tl.tensor, x_h: tl.tensor, x_w: tl.tensor,
    y_b: tl.tensor, y_c: tl.tensor, y_h: tl.tensor, y_w: tl.tensor,
    PADDING: tl.constexpr, STRIDE: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_W: tl.constexpr,
) -> None:  # fmt: skip
    x, y, held, column, row = _place(x, y, channels, rows, columns, x_b, x_c, y_b, y_c, ROWS, BLOCK_C, BLOCK_W)
    o_w = column + tl.arange(0, BLOCK_W)
    lines, k = (), ()
    for j in tl.static_range(TAPS):
        lines, k = lines + (tl.zeros([BLOCK_C, BLOCK_W], tl.float32),), k + (tl.load(taps + j).to(tl.float32),)
    for n in tl.static_range(STRIDE * (ROWS - 1) + TAPS):
        i_h = STRIDE * row + n - PADDING
        limit = tl.where((i_h >= 0) & (i_h < height), width, 0)
        line = tl.zeros([BLOCK_C, BLOCK_W], tl.float32)
        for j in tl.static_range(TAPS):
            i_w = STRIDE * o_w + (j - PADDING)
            reached = ((i_w >= 0) & (i_w < limit))[None, :] & held
            places = x + i_h.to(tl.int64) * x_h + i_w[None, :].to(tl.int64) * x_w
            line += k[j] * tl.load(places, reached, 0.0).to(tl.float32)
        lines = lines[1:] + (line,)
        if n >= TAPS - 1 and (n - TAPS + 1) % STRIDE == 0:
            o_h = row + (n - TAPS + 1) // STRIDE
            total = k[0] * lines[0]
            for j in tl.static_range(1, TAPS):
                total += k[j] * lines[j]
            there = (o_w < tl.where(o_h < rows, columns, 0))[None, :] & held
            places = y + o_h.to(tl.int64) * y_h + o_w[None, :].to(tl.int64) * y_w
            tl.store(places, total.to(y.dtype.element_ty), there)


@triton.jit
def _spread(
    x: tl.tensor, taps: tl.tensor, y: tl.tensor,
    channels: tl.tensor, height: tl.tensor, width: tl.tensor, rows: tl.tensor, columns: tl.tensor,
    x_b: tl.tensor, x_c: tl.tensor, x_h: tl.tensor, x_w: tl.tensor,
    y_b: tl.tensor, y_c: tl.tensor, y_h: tl.tensor, y_w: tl.tensor,
    PADDING: tl.constexpr, STRIDE: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_W: tl.constexpr,
) -> None:  # fmt: skip
    """Computes y_{2m+a} = sum_t k_{e_a + 2t} x_{m + s_a - t}, where a + p = 2 s_a + e_a, for both a side by side."""
    x, y, held, column, row = _place(x, y, channels, rows, columns, x_b, x_c, y_b, y_c, ROWS, BLOCK_C, BLOCK_W)
    o_w = column + tl.arange(0, BLOCK_W)
    m_w = column // 2 + tl.arange(0, BLOCK_W // 2)
    HALF: tl.constexpr = TAPS // 2
    FIRST: tl.constexpr = PADDING // 2 - HALF + 1  # of the values that reach an even place, and by one more an odd one
    REACH: tl.constexpr = HALF + PADDING % 2
    lines, k = (), ()
    for j in tl.static_range(TAPS):
        k = k + (tl.load(taps + j).to(tl.float32),)
    for _ in tl.static_range(REACH):
        lines = lines + (tl.zeros([BLOCK_C, BLOCK_W], tl.float32),)
    for n in tl.static_range(ROWS // 2 + REACH - 1):
        i_h = row // 2 + n + FIRST
        limit = tl.where((i_h >= 0) & (i_h < height), width, 0)
        even = tl.zeros([BLOCK_C, BLOCK_W // 2], tl.float32)
        odd = tl.zeros([BLOCK_C, BLOCK_W // 2], tl.float32)
        for d in tl.static_range(REACH):
            i_w = m_w + (d + FIRST)
            reached = ((i_w >= 0) & (i_w < limit))[None, :] & held
            places = x + i_h.to(tl.int64) * x_h + i_w[None, :].to(tl.int64) * x_w
            value = tl.load(places, reached, 0.0).to(tl.float32)
            if d < HALF:
                even += k[PADDING % 2 + 2 * (HALF - 1 - d)] * value
            if d >= PADDING % 2:
                odd += k[1 - PADDING % 2 + 2 * (REACH - 1 - d)] * value
        lines = lines[1:] + (tl.interleave(even, odd),)
        if n >= REACH - 1:
            for a in tl.static_range(2):
                o_h = row + 2 * (n - REACH + 1) + a
                total = tl.zeros([BLOCK_C, BLOCK_W], tl.float32)
                for t in tl.static_range(HALF):
                    total += k[(a + PADDING) % 2 + 2 * t] * lines[HALF - 1 - t + a * (PADDING % 2)]
                there = (o_w < tl.where(o_h < rows, columns, 0))[None, :] & held
                places = y + o_h.to(tl.int64) * y_h + o_w[None, :].to(tl.int64) * y_w
                tl.store(places, total.to(y.dtype.element_ty), there)
