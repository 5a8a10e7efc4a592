"""Time weighting: how much the denoising loss counts at each time.

A weight w on the error of x_0 is the weight `w error_scale` on the error of what the network predicts, so one formula
of the signal-to-noise ratio serves every schedule and parametrization. How much the denoising loss counts beside other
losses is not set here, but by the coefficients in `modkit.losses.coefficients`.

Shape letters: b batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MinSNR", "Simple"]


class Simple:
    """Weighs the error of what the network predicts by 1 at every time.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), eq. 14, https://arxiv.org/abs/2006.11239

    Examples:
        >>> Simple()(torch.tensor([9.0, 0.1]), torch.tensor([0.1, 0.9]))
        tensor([1., 1.])
    """

    def __call__(self, snr: Tensor, error_scale: Tensor) -> Tensor:
        """The weight, which is 1: `b`, in the dtype of `snr`."""
        return torch.ones_like(snr)


class MinSNR:
    """Weighs the error of x_0 by the signal-to-noise ratio `S = (alpha_t / sigma_t)^2`, clamped to at most gamma.

    The weight on the network's own error is min(S, gamma) if it predicts x_0, min(S, gamma) / S for eps, and
    min(S, gamma) / (S + 1) for v.

    References:
        Efficient Diffusion Training via Min-SNR Weighting Strategy (Hang et al., 2023), section 3.4,
        https://arxiv.org/abs/2303.09556

    Args:
        gamma: Upper bound of the ratio.

    Raises:
        ValueError: If `gamma` is not positive.

    Examples:
        The weights on the error of eps, whose `error_scale` is 1 / S:

        >>> snr = torch.tensor([100.0, 1.0])
        >>> MinSNR(gamma=5.0)(snr, 1 / snr)
        tensor([0.0500, 1.0000])
    """

    def __init__(self, *, gamma: float = 5.0) -> None:
        if gamma <= 0:
            raise ValueError(f"MinSNR expects gamma above 0, got {gamma}")
        self.gamma = gamma

    def __call__(self, snr: Tensor, error_scale: Tensor) -> Tensor:
        """The weight, `b`, in the dtype of `snr`."""
        return snr.clamp(max=self.gamma) * error_scale
