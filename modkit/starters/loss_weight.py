r"""Perception prioritised weighting: errors at high noise levels count more.

    weight = 1 / (k + S)^gamma  on the error of eps,    S = (alpha_t / sigma_t)^2 the signal-to-noise ratio

A loss weight multiplies the denoising loss, which is the error of the network's own target (`modkit.kinds.LossWeight`).
The squared error of eps is S times that of x_0, and `error_scale` converts a weight of the error of x_0 into one of the
network's error, so that one formula works for every schedule and parametrization.

Shape letters: b batch.
"""

from torch import Tensor

from modkit.types import NonNegativeFloat, PositiveFloat, checked

__all__ = ["P2"]


@checked
class P2:
    """Gives less weight to samples with little noise.

    References:
        Perception Prioritized Training of Diffusion Models (Choi et al., 2022), eq. 8,
        https://arxiv.org/abs/2204.00227

    Args:
        gamma: Strength of the weighting; 0 weighs all errors of eps equally.
        k: Keeps the weight bounded when there is almost no signal.

    Raises:
        ValueError: If `gamma` is negative, or `k` is not positive.
    """

    def __init__(self, *, gamma: NonNegativeFloat = 1.0, k: PositiveFloat = 1.0) -> None:
        self.gamma, self.k = gamma, k

    def __call__(self, snr: Tensor, error_scale: Tensor) -> Tensor:
        """Returns the weight at each signal-to-noise ratio, `b`, float64."""
        return snr / (self.k + snr) ** self.gamma * error_scale
