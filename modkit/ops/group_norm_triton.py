"""The kernels of `modkit.ops.group_norm`, over x as `b c s` in two layouts: s innermost, or c innermost.

A program reads tiles of its channels, one after another, in its part of the positions. Reductions write the result of
each part, and a second kernel merges these by group, in one order. Forward, they are means and squared deviations
(Welford's, merged as by Chan et al.), so that a mean much larger than the deviation costs no digits. All is computed in
float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch_gradients", "launch_group_norm_silu"]

_TILE = 1024  # elements
_CHANNELS = 64  # of a tile, where they are innermost: a line of the cache in 16 bits
_PROGRAMS = 2048  # to aim at; a number of its own, so that sums do not depend on the card
_PARTS = 256  # of the positions, at most


class _Plan(NamedTuple):
    grid: tuple[int]
    shape: tuple[int, ...]  # channels, positions, the strides of both, and positions of a part
    tile: dict[str, int]


def launch_group_norm_silu(
    x: Tensor, gain: Tensor, offset: Tensor, groups: int, tiny: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes y, in the layout of x, and the means and reciprocal deviations of its groups, `b g`, in float32."""
    gain, offset = _pack(gain), _pack(offset)
    y = torch.empty_like(x)
    mean, rstd = (x.new_empty((len(x), groups), dtype=torch.float32) for _ in range(2))
    if not x.numel():
        return y, mean.fill_(float("nan")), rstd.fill_(float("nan"))
    grid, shape, tile = _plan(x)
    means, squares = (x.new_empty((*x.shape[:2], tile["PARTS"]), dtype=torch.float32) for _ in range(2))
    _measure[grid](x, means, squares, *shape, **tile)
    _merge[(len(x) * groups,)](
        means, squares, mean, rstd, x.shape[1] // groups, shape[1], shape[-1], tiny, PARTS=tile["PARTS"], BLOCK=_TILE
    )
    _apply[grid](x, gain, offset, mean, rstd, y, *shape, gain.stride(0), offset.stride(0), groups, **tile)
    return y, mean, rstd


def launch_gradients(
    grad: Tensor, x: Tensor, gain: Tensor, offset: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the gradients of x, in its layout, which is that of `grad`, and of gain and offset, `b c`."""
    groups = mean.shape[1]
    grad_x, grad_gain, grad_offset = torch.empty_like(x), gain.new_empty(gain.shape), offset.new_empty(offset.shape)
    gain, offset = _pack(gain), _pack(offset)
    if not x.numel():
        return grad_x, grad_gain.zero_(), grad_offset.zero_()
    grid, shape, tile = _plan(x)
    parts_gain, parts_offset = (x.new_empty((*x.shape[:2], tile["PARTS"]), dtype=torch.float32) for _ in range(2))
    slopes, shifts = torch.empty_like(mean), torch.empty_like(mean)
    strides = gain.stride(0), offset.stride(0), groups
    _sum[grid](grad, x, gain, offset, mean, rstd, parts_gain, parts_offset, *shape, *strides, **tile)
    _gather[(len(x) * groups,)](
        parts_gain, parts_offset, gain, grad_gain, grad_offset, slopes, shifts,
        x.shape[1], shape[1], gain.stride(0), groups, PARTS=tile["PARTS"], WIDE=_TILE // tile["PARTS"],
    )  # fmt: skip
    _differentiate[grid](grad, x, gain, offset, mean, rstd, slopes, shifts, grad_x, *shape, *strides, **tile)
    return grad_x, grad_gain, grad_offset


def _pack(vector: Tensor) -> Tensor:
    return vector if vector.stride(1) == 1 else vector.contiguous()


def _plan(x: Tensor) -> _Plan:
    channels, positions = x.shape[1], x[0, 0].numel()
    wide, long = triton.next_power_of_2(channels), triton.next_power_of_2(positions)
    if channels > 1 and positions > 1 and x.stride(1) == 1:
        wide = min(wide, _CHANNELS)
        long, strides = min(long, _TILE // wide), (1, channels)
    else:
        long = min(long, _TILE)
        wide, strides = min(wide, _TILE // long), (positions, 1)
    rows, steps = len(x) * triton.cdiv(channels, wide), triton.cdiv(positions, long)
    parts = triton.next_power_of_2(max(1, min(_PROGRAMS // rows, steps, _PARTS)))
    shape = (channels, positions, *strides, triton.cdiv(steps, parts) * long)
    return _Plan((rows * parts,), shape, {"PARTS": parts, "WIDE": wide, "LONG": long})


@triton.jit
def _locate(
    channels: tl.tensor, positions: tl.tensor, stride_c: tl.tensor, stride_s: tl.tensor, chunk: tl.tensor,
    PARTS: tl.constexpr, WIDE: tl.constexpr, LONG: tl.constexpr,
) -> tuple[tl.tensor, ...]:  # fmt: skip
    """Returns sample, channels `w 1`, part and its length of a program, and the places `w l` of its first tile."""
    part, block = tl.program_id(0) % PARTS, tl.program_id(0) // PARTS
    blocks = tl.cdiv(channels, WIDE)
    sample, c = tl.cast(block // blocks, tl.int64), (block % blocks) * WIDE + tl.arange(0, WIDE)[:, None]
    start = tl.cast(part, tl.int64) * chunk
    length = tl.maximum(tl.minimum(positions - start, chunk), 0)
    s = start + tl.arange(0, LONG)[None, :]
    return sample, c, part, length, sample * channels * positions + tl.cast(c, tl.int64) * stride_c + s * stride_s


@triton.jit
def _read(
    gain: tl.tensor, offset: tl.tensor, mean: tl.tensor, rstd: tl.tensor, sample: tl.tensor, c: tl.tensor,
    channels: tl.tensor, gain_b: tl.tensor, offset_b: tl.tensor, groups: tl.tensor,
) -> tuple[tl.tensor, ...]:  # fmt: skip
    """Returns gain, offset, mean, reciprocal deviation and group of the channels, `w 1`."""
    group = sample * groups + c // (channels // groups)
    a = tl.load(gain + sample * gain_b + c, c < channels, 0.0).to(tl.float32)
    b = tl.load(offset + sample * offset_b + c, c < channels, 0.0).to(tl.float32)
    return a, b, tl.load(mean + group, c < channels, 0.0), tl.load(rstd + group, c < channels, 0.0), group


@triton.jit
def _find_slope(
    grad: tl.tensor, x: tl.tensor, gain: tl.tensor, offset: tl.tensor, mean: tl.tensor, rstd: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """Returns the normalised x, and the gradient of h = gain x + offset, given that of SiLU(h)."""
    x = (x - mean) * rstd
    h = x * gain + offset
    share = tl.sigmoid(h)
    return x, grad * share * (1.0 + h * (1.0 - share))


@triton.jit
def _measure(
    x: tl.tensor, means: tl.tensor, squares: tl.tensor,
    channels: tl.tensor, positions: tl.tensor, stride_c: tl.tensor, stride_s: tl.tensor, chunk: tl.tensor,
    PARTS: tl.constexpr, WIDE: tl.constexpr, LONG: tl.constexpr,
) -> None:  # fmt: skip
    """Computes the mean of each channel in a part, and the sum of squared deviations from it."""
    sample, c, part, length, at = _locate(channels, positions, stride_c, stride_s, chunk, PARTS, WIDE, LONG)
    lane = tl.arange(0, LONG)[None, :]
    mean, square = tl.zeros([WIDE, LONG], tl.float32), tl.zeros([WIDE, LONG], tl.float32)
    count = 0.0
    for i in range(0, length, LONG):
        count += 1.0
        inside = (c < channels) & (i + lane < length)
        value = tl.load(x + at + i * stride_s, inside, 0.0).to(tl.float32)
        delta = tl.where(inside, value - mean, 0.0)
        mean += delta * (1.0 / count)
        square += delta * (value - mean)
    counts = (tl.maximum(length - lane + LONG - 1, 0) // LONG).to(tl.float32)  # values that each lane has seen
    whole = tl.sum(mean * counts, 1, keep_dims=True) / tl.maximum(length, 1).to(tl.float32)
    square += counts * (mean - whole) * (mean - whole)
    out = (sample * channels + c) * PARTS + part
    tl.store(means + out, whole, c < channels)
    tl.store(squares + out, tl.sum(square, 1, keep_dims=True), c < channels)


@triton.jit
def _merge(
    means: tl.tensor, squares: tl.tensor, mean: tl.tensor, rstd: tl.tensor,
    size: tl.tensor, positions: tl.tensor, chunk: tl.tensor, tiny: tl.tensor,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Merges the parts of a group's channels."""
    group, index = tl.program_id(0), tl.arange(0, BLOCK)
    base, stop = tl.cast(group, tl.int64) * size * PARTS, size * PARTS
    start = tl.cast(index % PARTS, tl.int64) * chunk  # PARTS divides BLOCK
    length = tl.maximum(tl.minimum(positions - start, chunk), 0).to(tl.float32)
    number = tl.cast(size, tl.float32) * positions
    whole, square = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for i in range(0, stop, BLOCK):
        whole += length * tl.load(means + base + i + index, i + index < stop, 0.0)
    average = tl.sum(whole) / number
    for i in range(0, stop, BLOCK):
        inside = i + index < stop
        deviation = tl.where(inside, tl.load(means + base + i + index, inside, 0.0) - average, 0.0)
        square += length * deviation * deviation + tl.load(squares + base + i + index, inside, 0.0)
    tl.store(mean + group, average)
    tl.store(rstd + group, 1.0 / tl.sqrt_rn(tl.sum(square) / number + tiny))


@triton.jit
def _apply(
    x: tl.tensor, gain: tl.tensor, offset: tl.tensor, mean: tl.tensor, rstd: tl.tensor, y: tl.tensor,
    channels: tl.tensor, positions: tl.tensor, stride_c: tl.tensor, stride_s: tl.tensor, chunk: tl.tensor,
    gain_b: tl.tensor, offset_b: tl.tensor, groups: tl.tensor,
    PARTS: tl.constexpr, WIDE: tl.constexpr, LONG: tl.constexpr,
) -> None:  # fmt: skip
    """Computes y = SiLU(gain (x - mean) rstd + offset)."""
    sample, c, _, length, at = _locate(channels, positions, stride_c, stride_s, chunk, PARTS, WIDE, LONG)
    a, b, m, r, _ = _read(gain, offset, mean, rstd, sample, c, channels, gain_b, offset_b, groups)
    for i in range(0, length, LONG):
        inside = (c < channels) & (i + tl.arange(0, LONG)[None, :] < length)
        h = (tl.load(x + at + i * stride_s, inside, 0.0).to(tl.float32) - m) * r * a + b
        tl.store(y + at + i * stride_s, (h * tl.sigmoid(h)).to(y.dtype.element_ty), inside)


@triton.jit
def _sum(
    grad: tl.tensor, x: tl.tensor, gain: tl.tensor, offset: tl.tensor, mean: tl.tensor, rstd: tl.tensor,
    parts_gain: tl.tensor, parts_offset: tl.tensor,
    channels: tl.tensor, positions: tl.tensor, stride_c: tl.tensor, stride_s: tl.tensor, chunk: tl.tensor,
    gain_b: tl.tensor, offset_b: tl.tensor, groups: tl.tensor,
    PARTS: tl.constexpr, WIDE: tl.constexpr, LONG: tl.constexpr,
) -> None:  # fmt: skip
    """Computes the part's share of the gradients of gain and offset, of each channel."""
    sample, c, part, length, at = _locate(channels, positions, stride_c, stride_s, chunk, PARTS, WIDE, LONG)
    a, b, m, r, _ = _read(gain, offset, mean, rstd, sample, c, channels, gain_b, offset_b, groups)
    sum_gain, sum_offset = tl.zeros([WIDE, LONG], tl.float32), tl.zeros([WIDE, LONG], tl.float32)
    for i in range(0, length, LONG):
        inside = (c < channels) & (i + tl.arange(0, LONG)[None, :] < length)
        g = tl.load(grad + at + i * stride_s, inside, 0.0).to(tl.float32)
        normal, g = _find_slope(g, tl.load(x + at + i * stride_s, inside, 0.0).to(tl.float32), a, b, m, r)
        sum_gain += g * normal
        sum_offset += g
    out = (sample * channels + c) * PARTS + part
    tl.store(parts_gain + out, tl.sum(sum_gain, 1, keep_dims=True), c < channels)
    tl.store(parts_offset + out, tl.sum(sum_offset, 1, keep_dims=True), c < channels)


@triton.jit
def _gather(
    parts_gain: tl.tensor, parts_offset: tl.tensor, gain: tl.tensor, grad_gain: tl.tensor, grad_offset: tl.tensor,
    slopes: tl.tensor, shifts: tl.tensor,
    channels: tl.tensor, positions: tl.tensor, gain_b: tl.tensor, groups: tl.tensor,
    PARTS: tl.constexpr, WIDE: tl.constexpr,
) -> None:  # fmt: skip
    """Adds up the parts of a group's channels, and computes the group's means of gain g x and of gain g."""
    sample, group = tl.cast(tl.program_id(0) // groups, tl.int64), tl.program_id(0) % groups
    size = channels // groups
    lane, part = tl.arange(0, WIDE)[:, None], tl.arange(0, PARTS)[None, :]
    slope, shift = tl.zeros([WIDE, 1], tl.float32), tl.zeros([WIDE, 1], tl.float32)
    for i in range(0, size, WIDE):
        inside = i + lane < size
        c = sample * channels + group * size + i + lane
        sum_gain = tl.sum(tl.load(parts_gain + c * PARTS + part, inside, 0.0), 1, keep_dims=True)
        sum_offset = tl.sum(tl.load(parts_offset + c * PARTS + part, inside, 0.0), 1, keep_dims=True)
        tl.store(grad_gain + c, sum_gain.to(grad_gain.dtype.element_ty), inside)
        tl.store(grad_offset + c, sum_offset.to(grad_offset.dtype.element_ty), inside)
        a = tl.load(gain + sample * gain_b + group * size + i + lane, inside, 0.0).to(tl.float32)
        slope += a * sum_gain
        shift += a * sum_offset
    number = tl.cast(size, tl.float32) * positions
    tl.store(slopes + tl.program_id(0), tl.sum(slope) / number)
    tl.store(shifts + tl.program_id(0), tl.sum(shift) / number)


@triton.jit
def _differentiate(
    grad: tl.tensor, x: tl.tensor, gain: tl.tensor, offset: tl.tensor, mean: tl.tensor, rstd: tl.tensor,
    slopes: tl.tensor, shifts: tl.tensor, grad_x: tl.tensor,
    channels: tl.tensor, positions: tl.tensor, stride_c: tl.tensor, stride_s: tl.tensor, chunk: tl.tensor,
    gain_b: tl.tensor, offset_b: tl.tensor, groups: tl.tensor,
    PARTS: tl.constexpr, WIDE: tl.constexpr, LONG: tl.constexpr,
) -> None:  # fmt: skip
    """Computes the gradient of x: rstd (gain g - mean(gain g) - x mean(gain g x)), of the normalised x."""
    sample, c, _, length, at = _locate(channels, positions, stride_c, stride_s, chunk, PARTS, WIDE, LONG)
    a, b, m, r, group = _read(gain, offset, mean, rstd, sample, c, channels, gain_b, offset_b, groups)
    slope, shift = tl.load(slopes + group, c < channels, 0.0), tl.load(shifts + group, c < channels, 0.0)
    for i in range(0, length, LONG):
        inside = (c < channels) & (i + tl.arange(0, LONG)[None, :] < length)
        g = tl.load(grad + at + i * stride_s, inside, 0.0).to(tl.float32)
        normal, g = _find_slope(g, tl.load(x + at + i * stride_s, inside, 0.0).to(tl.float32), a, b, m, r)
        out = r * (a * g - shift - normal * slope)
        tl.store(grad_x + at + i * stride_s, out.to(grad_x.dtype.element_ty), inside)
