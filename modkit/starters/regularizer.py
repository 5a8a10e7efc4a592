r"""A penalty on a critic whose slope exceeds one.

    penalty = weight E max(0, |grad_x D(x)| - 1)^2

A regularizer takes a round of the game (`modkit.kinds.Round`): real samples x, their conditions, the critic, and more.
It differentiates with respect to x, with `create_graph=True`, since the penalty is differentiated again with respect to
the critic's parameters.

Shape letters: b batch.
"""

import torch
from torch import Tensor

from modkit.kinds import Round
from modkit.types import NonNegativeFloat, checked

__all__ = ["Lipschitz"]


@checked
class Lipschitz:
    """Penalizes gradient norms of the critic above one at real samples.

    References:
        On the Regularization of Wasserstein GANs (Petzka et al., 2018), eq. 8, https://arxiv.org/abs/1709.08894

    Args:
        weight: Weight of the penalty.

    Raises:
        ValueError: If `weight` is negative.
    """

    per_sample = True

    def __init__(self, *, weight: NonNegativeFloat = 10.0) -> None:
        self.weight = weight

    def __call__(self, round: Round) -> Tensor:
        """Returns the penalty at the real samples, `b ...`, a scalar."""
        with torch.enable_grad():
            real, cond = round.judged[0]
            x = real.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(round.critic(x, cond).sum(), x, create_graph=True)
            excess = torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1
            penalty: Tensor = self.weight * excess.clamp_min(0).square().mean()
            return penalty
