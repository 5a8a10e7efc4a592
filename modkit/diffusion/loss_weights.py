"""Loss weights: how much the denoising loss counts at each time.

A weight w on the error of x_0 is the weight `w * error_scale(t)` on the error of what the network predicts, so one
formula serves every parametrization.

Shape letters: b batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.kinds import Parametrization, Schedule

__all__ = ["MinSNR", "Simple"]


class Simple:
    """Every time counts 1, whatever the network predicts.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), eq. 14, https://arxiv.org/abs/2006.11239
    """

    def __call__(self, t: Tensor) -> Tensor:
        """Ones, `b`, float64."""
        return torch.ones_like(t, dtype=torch.float64)


class MinSNR:
    """The signal-to-noise ratio `S = (alpha_t / sigma_t)^2`, at most gamma, on the error of x_0.

    On the network's own error that is min(S, gamma) for x_0, over S for eps and over S + 1 for v.

    References:
        Efficient Diffusion Training via Min-SNR Weighting Strategy (Hang et al., 2023), section 3.4,
        https://arxiv.org/abs/2303.09556

    Args:
        gamma: Highest ratio that counts.

    Raises:
        ValueError: If `gamma` is not positive.
    """

    def __init__(self, schedule: Schedule, parametrization: Parametrization, *, gamma: float = 5.0) -> None:
        if gamma <= 0:
            raise ValueError(f"MinSNR expects gamma above 0, got {gamma}")
        self.schedule = schedule
        self.parametrization = parametrization
        self.gamma = gamma

    def __call__(self, t: Tensor) -> Tensor:
        """The weight at `t`, `b`, float64."""
        alpha_t, sigma_t = self.schedule.scales(t)
        snr = (alpha_t / sigma_t) ** 2
        return snr.clamp(max=self.gamma) * self.parametrization.error_scale(t)
