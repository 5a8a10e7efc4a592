r"""Group normalisation, modulation and SiLU: what stands between two convolutions of a residual block.

    y = SiLU(h),    h = gain x_hat + offset,    x_hat = (x - mean) / sqrt(var + tiny)        mean and var of each group

With g the gradient of h and means over each group:

    grad_x = (gain g - mean(gain g) - x_hat mean(gain g x_hat)) / sqrt(var + tiny)
    grad_gain = sum(g x_hat),    grad_offset = sum(g)                                    sums over positions

The kernel computes in float32 and reads x twice, forward and backward. Its y has the dtype of x and its layout,
channels first or last; under autocast torch's group norm gives float32, which the next convolution rounds likewise.

Shape letters: b batch, c channels, g groups.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.ops.kernel import DEVICES, Kernel, has_triton, use_device
from modkit.ops.layout import choose_format

__all__ = ["normalize_silu", "normalize_silu_reference"]

KERNEL = Kernel("group-norm-silu", size="values", smallest=2**16)  # an estimate, not yet timed on a card
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def normalize_silu(norm: nn.GroupNorm, x: Tensor, modulation: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Computes `SiLU(gain norm(x) + offset)`, which is differentiable any number of times.

    Args:
        norm: The normalisation, which may have weights of its own.
        x: The map, `b c ...`.
        modulation: Gain and offset of each channel of each sample, `b c`; None for 1 and 0.

    Returns:
        `b c ...`.

    Examples:
        >>> norm, x = nn.GroupNorm(2, 4), torch.randn(3, 4, 8, 8)
        >>> y = normalize_silu(norm, x)
        >>> torch.equal(normalize_silu(norm, x, (torch.ones(3, 4), torch.zeros(3, 4))), y)
        True
    """
    able = x.device.type in DEVICES and x.dtype in _DTYPES  # asked first: a small network on the CPU would notice more
    compiling = torch.compiler.is_compiling()  # a compiler fuses the reference
    if x.is_meta or (able and not compiling and KERNEL.is_due(x, x.numel())):  # a check allocates faster by the op
        return normalize_silu_by_op(norm, x, modulation)
    return normalize_silu_reference(norm, x, modulation)


def normalize_silu_reference(norm: nn.GroupNorm, x: Tensor, modulation: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Does what `normalize_silu` does, in torch's operations."""
    h = norm(x)
    if modulation is not None:
        gain, offset = (_spread(vector, x) for vector in modulation)
        h = h * gain + offset
    return F.silu(h)


def normalize_silu_by_op(norm: nn.GroupNorm, x: Tensor, modulation: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Does what `normalize_silu` does, by an op that is given gain and offset of norm and modulation together."""
    if modulation is None:
        c = norm.num_channels
        gain, offset = (norm.weight, norm.bias) if norm.affine else (x.new_ones(c), x.new_zeros(c))
    else:
        gain, offset = modulation
        if norm.affine:
            gain, offset = gain * norm.weight, gain * norm.bias + offset
    gain, offset = gain.expand(x.shape[:2]), offset.expand(x.shape[:2])
    return compute_group_norm_silu(
        x.contiguous(memory_format=choose_format(x)), gain, offset, norm.num_groups, norm.eps
    )[0]


@torch.library.custom_op("modkit::group_norm_silu", mutates_args=())
def compute_group_norm_silu(
    x: Tensor, gain: Tensor, offset: Tensor, groups: int, tiny: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes y, and means and reciprocal deviations, `b g`, for the backward pass, given gain and offset, `b c`."""
    if has_triton(x.device):
        from modkit.ops.group_norm_triton import launch_group_norm_silu

        with use_device(x):
            return launch_group_norm_silu(x, gain, offset, groups, tiny)
    x_hat, mean, rstd = _normalize(x, groups, tiny)
    y = F.silu(x_hat * _spread(gain, x) + _spread(offset, x))
    return y.to(x.dtype).contiguous(memory_format=choose_format(x)), mean, rstd


@compute_group_norm_silu.register_fake
def _allocate(x: Tensor, gain: Tensor, offset: Tensor, groups: int, tiny: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.new_empty((len(x), groups), dtype=torch.promote_types(x.dtype, torch.float32))
    return torch.empty_like(x), mean, torch.empty_like(mean)


@torch.library.custom_op("modkit::group_norm_silu_backward", mutates_args=())
def compute_gradients(
    grad: Tensor, x: Tensor, gain: Tensor, offset: Tensor, mean: Tensor, rstd: Tensor, tiny: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the gradients of x, gain and offset."""
    if has_triton(x.device):
        from modkit.ops.group_norm_triton import launch_gradients

        with use_device(x):
            return launch_gradients(grad.contiguous(memory_format=choose_format(x)), x, gain, offset, mean, rstd)
    grad_x, grad_gain, grad_offset = _differentiate(grad, x, gain, offset, mean.shape[1], tiny)
    return grad_x.contiguous(memory_format=choose_format(x)), grad_gain.contiguous(), grad_offset.contiguous()


@compute_gradients.register_fake
def _allocate_gradients(
    grad: Tensor, x: Tensor, gain: Tensor, offset: Tensor, mean: Tensor, rstd: Tensor, tiny: float
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), gain.new_empty(gain.shape), offset.new_empty(offset.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, gain, offset, ctx.groups, ctx.tiny = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, gain, offset, mean, rstd)


def _find_gradients(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, gain, offset, mean, rstd = ctx.saved_tensors
    if torch.is_grad_enabled():  # the gradients are differentiated in their turn
        return *_differentiate(grad, x, gain, offset, ctx.groups, ctx.tiny), None, None
    return *compute_gradients(grad, x, gain, offset, mean, rstd, ctx.tiny), None, None


compute_group_norm_silu.register_autograd(_find_gradients, setup_context=_save)


def _differentiate(
    grad: Tensor, x: Tensor, gain: Tensor, offset: Tensor, groups: int, tiny: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the gradients of x, gain and offset in torch's operations."""
    x_hat, _, rstd = _normalize(x, groups, tiny)
    h = x_hat * _spread(gain, x) + _spread(offset, x)
    share = torch.sigmoid(h)
    g = grad * share * (1 + h * (1 - share))
    inner, outer = (part.reshape(len(x), groups, -1) for part in (g * _spread(gain, x), x_hat))
    inner = inner - inner.mean(2, keepdim=True) - outer * (inner * outer).mean(2, keepdim=True)
    grad_x = (inner * rstd[..., None]).reshape(x.shape)
    grad_gain, grad_offset = (part.reshape(*x.shape[:2], -1).sum(2) for part in (g * x_hat, g))
    return grad_x.to(x.dtype), grad_gain.to(gain.dtype), grad_offset.to(offset.dtype)


def _normalize(x: Tensor, groups: int, tiny: float) -> tuple[Tensor, Tensor, Tensor]:
    """Computes x_hat, and mean and reciprocal deviation of each group, `b g`, in at least float32."""
    grouped = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(len(x), groups, -1)
    mean = grouped.mean(2, keepdim=True)
    centred = grouped - mean
    rstd = torch.rsqrt(centred.square().mean(2, keepdim=True) + tiny)
    return (centred * rstd).reshape(x.shape), mean[..., 0], rstd[..., 0]


def _spread(vector: Tensor, x: Tensor) -> Tensor:
    return vector.reshape(*vector.shape, *(1 for _ in x.shape[2:]))
