r"""Uncertainty: a learned scale of the denoising loss at each noise level, so that all levels count equally.

    exp(-u) L + u,    u = w . sqrt(2 / m) cos(f c + phi),    c = ln(sigma_t / alpha_t) / 4

At the best u, exp(u) is the mean of L at that noise level. So the gradients of levels at which little can be learned
are no larger than those of others, whatever the network has learned so far.

Shape letters: b batch, m features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modkit.kinds import LossWeight, LossWeightExtras, Slot, default, read_extras
from modkit.parts.filling import fill_slot
from modkit.types import PositiveInt, checked

__all__ = ["Uncertainty"]


@checked
class Uncertainty(nn.Module):
    """Weighs as another loss weight does, then divides the loss by its learned mean at each noise level.

    The loss `denoising` is about 1 at every level once u has been learned, and `uncertainty`, the mean of u, falls in
    its place. u is 0 before training, where the weight is that of `base`.

    References:
        Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), eq. 21,
        https://arxiv.org/abs/2312.02696
        Multi-Task Learning Using Uncertainty to Weigh Losses (Kendall et al., 2018), eq. 7,
        https://arxiv.org/abs/1705.07115

    Args:
        base: The weight of the loss L over time.
        features: Number of random Fourier features of the noise level.

    Raises:
        ValueError: If `features` is below 1, or `base` has a learned scale itself or is `likelihood`, whose bound would
            no longer be one.

    Examples:
        >>> weight = Uncertainty()
        >>> weight(torch.tensor([9.0, 0.1]), torch.tensor([0.1, 0.9]))
        tensor([1., 1.])
        >>> weight.log_variance(torch.tensor([2.0, -2.0])).tolist()
        [0.0, 0.0]
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, *, base: Slot[LossWeight] = default("simple"), features: PositiveInt = 128) -> None:
        super().__init__()
        self.base = fill_slot("loss-weight", base)
        if read_extras(self.base, LossWeightExtras) != LossWeightExtras():
            name = type(self.base).__name__
            raise ValueError(f"Uncertainty expects a base that is neither learned nor a likelihood's, got {name}")
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(features))
        self.register_buffer("phases", 2 * math.pi * torch.rand(features))
        self.weight = nn.Parameter(torch.zeros(features))

    def __call__(self, snr: Tensor, error_scale: Tensor) -> Tensor:
        """The weight of `base`, `b`, in the dtype of `snr`."""
        return self.base(snr, error_scale)

    def log_variance(self, log_snr: Tensor) -> Tensor:
        """u, `b`, in the dtype of `log_snr`, with gradients to w."""
        angles = torch.outer(-log_snr / 8, self.frequencies.to(log_snr)) + self.phases.to(log_snr)
        return (math.sqrt(2 / len(self.phases)) * angles.cos() * self.weight.to(log_snr)).sum(1)
