r"""Regularizers: penalties on the slope of a critic.

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.kinds import Critic, Round
from modkit.types import Cond, NonNegativeFloat, checked

__all__ = ["GradientPenalty", "R1", "R2"]


@checked
class R1:
    r"""The squared norm of the critic's gradient at real data.

        R1 = gamma / 2 E |grad_x D(x)|^2

    The norm is over a sample's elements and the mean over samples; the logits of a critic of patches are summed.

    References:
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), eq. 9,
        https://arxiv.org/abs/1801.04406

    Args:
        gamma: Weight of the penalty.

    Raises:
        ValueError: If `gamma` is negative.

    Examples:
        >>> from modkit import Cond, Rng
        >>> def critic(x, cond):
        ...     return 3 * x.sum((1, 2, 3))
        >>> played = Round(torch.zeros(4, 1, 2, 2), Cond(), Rng(0), critic=critic)
        >>> R1(gamma=1.0)(played)  # 3^2 for each of four elements, over 2
        tensor(18.)
    """

    per_sample = True

    def __init__(self, *, gamma: NonNegativeFloat = 1.0) -> None:
        self.gamma = gamma

    def __call__(self, round: Round) -> Tensor:
        """The penalty at real samples, a scalar; gradients reach the critic's parameters, but not the samples."""
        return self.gamma / 2 * _differentiate(round.critic, *round.judged[0]).square().sum(1).mean()


@checked
class R2:
    r"""The squared norm of the critic's gradient at generated data.

        R2 = gamma / 2 E |grad_x D(G(z))|^2

    The norm is that of `R1`. Both together keep a relativistic game stable (Huang et al., 2024).

    References:
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), eq. 10,
        https://arxiv.org/abs/1801.04406
        The GAN is dead; long live the GAN! (Huang et al., 2024), https://arxiv.org/abs/2501.05441

    Args:
        gamma: Weight of the penalty.

    Raises:
        ValueError: If `gamma` is negative.

    Examples:
        >>> from modkit import Cond, Rng
        >>> x = torch.ones(4, 3)
        >>> played = Round(0 * x, Cond(), Rng(0), fake=x, critic=lambda x, cond: x.square().sum(1))
        >>> R2(gamma=1.0)(played).item()  # 2^2 for each of three elements, over 2
        6.0
    """

    needs = ("fake",)
    per_sample = True

    def __init__(self, *, gamma: NonNegativeFloat = 1.0) -> None:
        self.gamma = gamma

    def __call__(self, round: Round) -> Tensor:
        """The penalty at fakes, a scalar; gradients reach the critic's parameters, but not the fakes."""
        return self.gamma / 2 * _differentiate(round.critic, *round.judged[1]).square().sum(1).mean()


@checked
class GradientPenalty:
    r"""WGAN-GP's penalty: the norm of the critic's gradient is one between real and generated data.

        x_hat = eps x + (1 - eps) G(z),   eps ~ U[0, 1) for each sample
        penalty = gamma E (|grad_x D(x_hat)| - 1)^2

    The logits of a critic of patches are summed. Real sample i is joined to fake i, and so are the conditions beside
    them where they differ; the gradient is with respect to x.

    References:
        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), eq. 3, https://arxiv.org/abs/1704.00028

    Args:
        gamma: Weight of the penalty.

    Raises:
        ValueError: If `gamma` is negative.

    Examples:
        >>> from modkit import Cond, Rng
        >>> x = torch.ones(4, 1)
        >>> GradientPenalty(gamma=10.0)(Round(x, Cond(), Rng(0), fake=0 * x, critic=lambda x, cond: 3 * x.sum(1)))
        tensor(40.)
    """

    needs = ("fake",)
    per_sample = True

    def __init__(self, *, gamma: NonNegativeFloat = 10.0) -> None:
        self.gamma = gamma

    def __call__(self, round: Round) -> Tensor:
        """The penalty between real samples and fakes, a scalar; gradients reach only the critic's parameters."""
        one_each = round.real.new_empty(len(round.real), *[1] * (round.real.ndim - 1))
        share = round.rng.uniform("eps", one_each)
        (real, cond), (fake, beside_fake) = round.judged
        if cond is not beside_fake:
            cond = cond.combine(beside_fake, lambda a, b: _mix(a, b, share))
        slope = _differentiate(round.critic, _mix(real, fake, share), cond)
        norm: Tensor = torch.linalg.vector_norm(slope, dim=1)
        return self.gamma * (norm - 1).square().mean()


def _mix(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Mixes rows by the share of each real one; rows of integers are the same in both."""
    share = share.view(-1, *[1] * (real.ndim - 1))
    return share * real + (1 - share) * fake if real.is_floating_point() else real


def _differentiate(critic: Critic, x: Tensor, cond: Cond) -> Tensor:
    """The gradient of a critic's logits at samples, `b n`, which can be differentiated again."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x, cond).sum(), x, create_graph=True)
        return gradient.flatten(1)
