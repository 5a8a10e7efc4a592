r"""FIR resampling: a filter along each spatial size with a stride, or transposed.

    resampled:   y_i = sum_j k_j x_{s i + j - p}           transposed:   y_o = sum_i k_{o + p - s i} x_i

x is zero beyond its ends. Each is the other's transpose, so the derivatives of any order are the op itself. The kernel
sums in float32 and rounds once.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.ops.kernel import DEVICES, Kernel, has_triton, use_device
from modkit.ops.layout import choose_format

__all__ = ["resample_fir", "resample_fir_reference"]

KERNEL = Kernel("fir", size="values", smallest=2**16)  # read and written; an estimate, not yet timed on a card
_CONV = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def resample_fir(
    x: Tensor, taps: Tensor, *, stride: int, padding: int, size: Sequence[int], transposed: bool = False
) -> Tensor:
    """Filters each channel of `x` alike, keeping every `stride`-th value or, transposed, with zeros between its values.

    Under autocast, x is cast, as for a convolution.

    Args:
        x: `b c h w`.
        taps: k, the filter along each size, `l`; no gradient reaches them.
        stride: s.
        padding: p, less than l.
        size: The spatial sizes of the result.
        transposed: Whether the filter is transposed.

    Returns:
        The result, with `size` as its spatial sizes.

    Examples:
        >>> x, box = torch.tensor([[[1.0, 3.0, 5.0, 7.0]]]), torch.tensor([0.5, 0.5])
        >>> halved = resample_fir(x, box, stride=2, padding=0, size=[2])
        >>> halved
        tensor([[[2., 6.]]])
        >>> resample_fir(halved, box, stride=2, padding=0, size=[4], transposed=True)
        tensor([[[1., 1., 3., 3.]]])
    """
    known = x.ndim == 4 and x.dtype != torch.float64 and (stride == 1 or (stride == 2 and len(taps) % 2 == 0))
    if x.device.type in DEVICES and known and KERNEL.is_due(x, x.numel() + math.prod((*x.shape[:2], *size))):
        if torch.is_autocast_enabled(x.device.type):  # a convolution casts by itself
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return compute_fir(x, taps, stride, padding, list(size), transposed)
    return resample_fir_reference(x, taps, stride=stride, padding=padding, size=size, transposed=transposed)


def resample_fir_reference(
    x: Tensor, taps: Tensor, *, stride: int, padding: int, size: Sequence[int], transposed: bool = False
) -> Tensor:
    """Does what `resample_fir` does, by a convolution of each channel, which also pads x."""
    channels, sizes, length = x.shape[1], x.shape[2:], len(taps)
    rank, kernel = len(sizes), taps
    for _ in range(rank - 1):
        kernel = kernel[..., None] * taps
    weight = kernel.to(x.dtype).expand(channels, 1, *kernel.shape)
    if transposed:
        reach = [(n - 1) * stride + length for n in sizes]
        if all(want == full - 2 * padding for want, full in zip(size, reach)):
            return _TRANSPOSED[rank - 1](x, weight, stride=stride, padding=padding, groups=channels)
        y = _TRANSPOSED[rank - 1](x, weight, stride=stride, groups=channels)
        return _fit_ends(y, [want - full + padding for want, full in zip(size, reach)], -padding)
    missing = [max(0, (want - 1) * stride + length - 2 * padding - n) for want, n in zip(size, sizes)]
    y = _CONV[rank - 1](_fit_ends(x, missing), weight, stride=stride, padding=padding, groups=channels)
    return _fit_ends(y, [want - n for want, n in zip(size, y.shape[2:])])


def _fit_ends(x: Tensor, after: Sequence[int], before: int = 0) -> Tensor:
    """Adds zeros before and after along each size, or removes values; mostly there is nothing to do, and no copy."""
    return F.pad(x, [end for one in reversed(after) for end in (before, one)]) if before or any(after) else x


@torch.library.custom_op("modkit::fir", mutates_args=())
def compute_fir(x: Tensor, taps: Tensor, stride: int, padding: int, size: Sequence[int], transposed: bool) -> Tensor:
    """Resamples by the kernel, where Triton runs."""
    if not has_triton(x.device):
        y = resample_fir_reference(x, taps, stride=stride, padding=padding, size=size, transposed=transposed)
        return y.contiguous(memory_format=choose_format(x))
    from modkit.ops.fir_triton import launch_fir

    with use_device(x):
        return launch_fir(x, taps, stride, padding, size, transposed)


@compute_fir.register_fake
def _allocate(x: Tensor, taps: Tensor, stride: int, padding: int, size: Sequence[int], transposed: bool) -> Tensor:
    return torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=choose_format(x))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, taps, ctx.stride, ctx.padding, _, ctx.transposed = inputs
    ctx.size = x.shape[2:]
    ctx.save_for_backward(taps)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (taps,) = ctx.saved_tensors
    same: dict[str, Any] = {"stride": ctx.stride, "padding": ctx.padding, "size": ctx.size}
    return resample_fir(grad, taps, **same, transposed=not ctx.transposed), None, None, None, None, None


compute_fir.register_autograd(_differentiate, setup_context=_save)
