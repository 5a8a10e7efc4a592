r"""Perception prioritised weighting: the more noise, the more a mistake counts.

    weight = 1 / (k + S)^gamma  on the error of eps,    S = (alpha_t / sigma_t)^2 the signal-to-noise ratio

A loss weight multiplies the denoising loss, which is measured on whatever the network predicts
(`modkit.kinds.LossWeight`). An error of eps is S times that of x_0, and `error_scale(t)` turns a weight on the error of
x_0 into one on the network's own: so one formula serves every parametrization.

Shape letters: b batch.
"""

from torch import Tensor

from modkit.kinds import Parametrization, Schedule

__all__ = ["P2"]


class P2:
    """Weighs down what is nearly clean.

    References:
        Perception Prioritized Training of Diffusion Models (Choi et al., 2022), eq. 8,
        https://arxiv.org/abs/2204.00227

    Args:
        gamma: How much; 0 weighs all errors of eps alike.
        k: Keeps the weight bounded where there is hardly any signal.

    Raises:
        ValueError: If `gamma` is negative, or `k` is not positive.
    """

    def __init__(
        self, schedule: Schedule, parametrization: Parametrization, *, gamma: float = 1.0, k: float = 1.0
    ) -> None:
        if gamma < 0 or k <= 0:
            raise ValueError(f"P2 expects gamma of at least 0 and k above 0, got {gamma} and {k}")
        self.schedule, self.parametrization = schedule, parametrization
        self.gamma, self.k = gamma, k

    def __call__(self, t: Tensor) -> Tensor:
        """The weight at `t`, `b`, float64."""
        alpha_t, sigma_t = self.schedule.scales(t)
        snr = (alpha_t / sigma_t) ** 2
        return snr / (self.k + snr) ** self.gamma * self.parametrization.error_scale(t)
