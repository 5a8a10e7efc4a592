r"""The network predicts the straight path from data to noise, as in rectified flow, for any schedule.

    target = eps - x_0
    x_t = alpha_t x_0 + sigma_t eps   =>   x_0 = (x_t - sigma_t out) / (alpha_t + sigma_t)

A parametrization defines the target of the network and how its output gives x_0 (`modkit.kinds.Parametrization`).
`Affine` handles targets that are weighted sums of x_0 and eps; a subclass provides the two pairs of weights, in
float64, given those of x_t.

Shape letters: b batch.
"""

import torch
from torch import Tensor

from modkit.diffusion.parametrizations import Affine

__all__ = ["Flow"]


class Flow(Affine):
    """Predicts eps - x_0.

    References:
        Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow (Liu et al., 2023), eq. 1,
        https://arxiv.org/abs/2209.03003
    """

    def compute_target_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the weights of x_0 and eps in the target, `b`."""
        one = torch.ones_like(alpha_t)
        return -one, one

    def compute_prediction_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the weights of x_t and of the network's output in x_0, `b`."""
        total = alpha_t + sigma_t
        return 1 / total, -sigma_t / total
