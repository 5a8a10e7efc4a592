"""Time weighting: how much the denoising loss counts at each time.

A weight w on the error of x_0 is the weight `w * error_scale(t)` on the error of what the network predicts, so one
formula serves every parametrization. How much the denoising loss counts beside other losses is not set here, but by the
coefficients in `modkit.losses.coefficients`.

Shape letters: b batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.diffusion.gaussian import snr
from modkit.kinds import Parametrization, Schedule

__all__ = ["MinSNR", "Simple"]


class Simple:
    """Weighs the error of what the network predicts by 1 at every time.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), eq. 14, https://arxiv.org/abs/2006.11239

    Examples:
        >>> Simple()(torch.tensor([0.1, 0.9]))
        tensor([1., 1.], dtype=torch.float64)
    """

    def __call__(self, t: Tensor) -> Tensor:
        """The weight at `t`, which is 1: `b`, float64."""
        return torch.ones_like(t, dtype=torch.float64)


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
        >>> from modkit.diffusion.parametrizations import Eps
        >>> from modkit.diffusion.schedules import EDM
        >>> schedule = EDM()  # S = 1 / sigma^2
        >>> MinSNR(schedule, Eps(schedule), gamma=5.0)(schedule.time(torch.tensor([0.1, 1.0])))
        tensor([0.0500, 1.0000], dtype=torch.float64)
    """

    def __init__(self, schedule: Schedule, parametrization: Parametrization, *, gamma: float = 5.0) -> None:
        if gamma <= 0:
            raise ValueError(f"MinSNR expects gamma above 0, got {gamma}")
        self.schedule = schedule
        self.parametrization = parametrization
        self.gamma = gamma

    def __call__(self, t: Tensor) -> Tensor:
        """The weight at `t`, `b`, float64."""
        return snr(self.schedule.scales(t)).clamp(max=self.gamma) * self.parametrization.error_scale(t)
