r"""Actnorm: a scale and a shift of each channel, set from the first data so that y has mean 0 and deviation 1.

    y = exp(log_scale) x + shift,    log|det dy/dx| = positions * sum log_scale

References:
    Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma and Dhariwal, 2018), section 3.1,
    https://arxiv.org/abs/1807.03039

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from modkit.bijections.channels import count_channels
from modkit.data.moments import RunningMoments
from modkit.precision import widen
from modkit.types import Batch, Cond, CondType, TensorType

__all__ = ["Actnorm"]

_TINY = 1e-6


class Actnorm(nn.Module):
    """Scales and shifts each channel, or each value of a vector.

    It is the identity until `prepare` sees data.

    Args:
        x: Type of x, continuous.
        cond: Conditions, which it does not use.

    Raises:
        ValueError: If x holds codes.

    Examples:
        >>> actnorm = Actnorm(TensorType((1,)))
        >>> actnorm.prepare([Batch(torch.tensor([[1.0], [3.0]]), {})])
        >>> actnorm(torch.tensor([[5.0]]))[0]
        tensor([[3.]], grad_fn=<AddBackward0>)
    """

    def __init__(self, x: TensorType, cond: CondType = CondType()) -> None:
        super().__init__()
        channels = count_channels("Actnorm", x)
        self.positions = x.numel // channels
        shape = (channels, *(1 for _ in x.shape[1:]))
        self.log_scale = nn.Parameter(torch.zeros(shape))
        self.shift = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor, cond: Cond = Cond()) -> tuple[Tensor, Tensor]:
        """Computes y, `b c h w`, and log|det dy/dx|, `b`."""
        log_scale = widen(self.log_scale)
        y = widen(x) * log_scale.exp() + widen(self.shift)
        return y.to(x.dtype), (self.positions * log_scale.sum()).expand(len(x))

    def inverse(self, y: Tensor, cond: Cond = Cond()) -> Tensor:
        """Computes the x that is mapped to `y`."""
        x = (widen(y) - widen(self.shift)) * (-widen(self.log_scale)).exp()
        return x.to(y.dtype)

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measures the mean and the deviation of each channel, over one pass."""
        moments = RunningMoments(by_channel=True)
        for batch in batches:
            moments.add(batch.tensor)
        mean, std = (moment.view_as(self.shift) for moment in moments.compute())
        self.log_scale.copy_(-std.clamp(min=_TINY).log())
        self.shift.copy_(-mean * self.log_scale.cpu().exp())  # moments are on the CPU
