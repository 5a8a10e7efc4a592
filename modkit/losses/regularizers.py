"""Regularizers: penalties on a critic.

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from modkit.kinds import Critic, Regularizer, Step
from modkit.nn.compiled import run_uncompiled
from modkit.precision import disable_autocast, widen
from modkit.types import Cond

__all__ = ["R1", "penalize"]


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
        >>> def critic(x, cond):
        ...     return 3 * x.sum((1, 2, 3))
        >>> R1(gamma=1.0)(critic, torch.zeros(4, 1, 2, 2), Cond())  # 3^2 for each of four elements, over 2
        tensor(18.)
    """

    per_sample = True

    def __init__(self, *, gamma: float = 1.0) -> None:
        if gamma < 0:
            raise ValueError(f"R1 expects gamma of at least 0, got {gamma}")
        self.gamma = gamma

    def __call__(self, discriminator: Critic, x: Tensor, cond: Cond) -> Tensor:
        """The penalty at real `x`, `b c h w`, a scalar; gradients reach the critic's parameters, but not `x`."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(discriminator(x, cond).sum(), x, create_graph=True)
            return self.gamma / 2 * gradient.square().reshape(len(x), -1).sum(1).mean()


def penalize(
    regularizers: Mapping[str, Regularizer], critic: Critic, x: Tensor, cond: Cond, step: Step
) -> dict[str, Tensor]:
    """Computes the penalties on a critic that are due at a step, by the names of their terms.

    Neither compiled code nor fused attention can be differentiated twice, so the critic runs without them. Autocast
    rounds the gradient that is penalized to its narrow type, so the critic runs without it, and the penalty is that of
    float32.

    Examples:
        >>> from modkit import Rng, StepContext
        >>> step = StepContext(Rng(0))
        >>> penalize({"r1": R1(gamma=2.0)}, lambda x, cond: 3 * x.sum(1), torch.zeros(4, 2), Cond(), step)
        {'r1': tensor(18.)}
    """
    due = {name: regularizer for name, regularizer in regularizers.items() if step.wants(name)}
    if not due:
        return {}
    x, cond = widen(x), cond.map(_widen_floats)
    with run_uncompiled(), sdpa_kernel(SDPBackend.MATH), disable_autocast(x.device):
        return {name: regularizer(critic, x, cond) for name, regularizer in due.items()}


def _widen_floats(value: Tensor) -> Tensor:
    return widen(value) if value.is_floating_point() else value
