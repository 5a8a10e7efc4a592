"""The losses of the two sides of an adversarial game, as means over logits.

Logits are `b`, or `b 1 h w` for a critic of patches; they are higher for real data. The means are taken in float32 at
least. Gradients flow through every logit given: whoever plays detaches what is not theirs.

Shape letters: b batch, h w patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modkit.precision import widen

__all__ = ["KL", "Hinge", "NonSaturating", "ReverseKL"]


_LOW = -15.0  # below, log softplus(l) is l to 2e-7


class NonSaturating:
    r"""The non-saturating game.

        generator      E softplus(-D(fake))
        discriminator  E softplus(-D(real)) + E softplus(D(fake))

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014), eq. 1 and section 3, https://arxiv.org/abs/1406.2661
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """-log D(fake), a scalar."""
        return F.softplus(-widen(fake_logits)).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-log D(real) - log(1 - D(fake)), a scalar."""
        return F.softplus(-widen(real_logits)).mean() + F.softplus(widen(fake_logits)).mean()


class Hinge:
    r"""The hinge game: the discriminator ignores what it tells apart by a margin of one.

        generator      -E D(fake)
        discriminator  E max(0, 1 - D(real)) + E max(0, 1 + D(fake))

    References:
        Geometric GAN (Lim and Ye, 2017), https://arxiv.org/abs/1705.02894
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """-D(fake), a scalar."""
        return -widen(fake_logits).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Both hinges, a scalar."""
        return F.relu(1 - widen(real_logits)).mean() + F.relu(1 + widen(fake_logits)).mean()


class KL:
    r"""D2GAN's first game, D = softplus(logits) > 0: at its optimum the generator sees alpha KL(data | model).

        generator      -E D(fake)
        discriminator  -alpha E log D(real) + E D(fake),   D* = alpha p / q

    The generator's loss at D* is its part of alpha KL(p | q), up to a constant, and drives it to cover the data.

    References:
        Dual Discriminator Generative Adversarial Nets (Nguyen et al., 2017), eq. 1, https://arxiv.org/abs/1709.03831

    Args:
        alpha: Weight of the divergence, in (0, 1].

    Raises:
        ValueError: If it is out of its range.
    """

    def __init__(self, *, alpha: float = 1.0) -> None:
        self._weight = _checked("KL", "alpha", alpha)

    def generator(self, fake_logits: Tensor) -> Tensor:
        """-D(fake), a scalar."""
        return -F.softplus(widen(fake_logits)).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-alpha log D(real) + D(fake), a scalar."""
        return -self._weight * _log_softplus(real_logits).mean() + F.softplus(widen(fake_logits)).mean()


class ReverseKL:
    r"""D2GAN's second game, D = softplus(logits) > 0: at its optimum the generator sees beta KL(model | data).

        generator      beta E log D(fake)
        discriminator  E D(real) - beta E log D(fake),   D* = beta q / p

    The generator's loss at D* is beta KL(q | p), up to a constant, and drives it to samples like the data's.

    References:
        Dual Discriminator Generative Adversarial Nets (Nguyen et al., 2017), eq. 1, https://arxiv.org/abs/1709.03831

    Args:
        beta: Weight of the divergence, in (0, 1].

    Raises:
        ValueError: If it is out of its range.
    """

    def __init__(self, *, beta: float = 1.0) -> None:
        self._weight = _checked("ReverseKL", "beta", beta)

    def generator(self, fake_logits: Tensor) -> Tensor:
        """Beta log D(fake), a scalar."""
        return self._weight * _log_softplus(fake_logits).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """D(real) - beta log D(fake), a scalar."""
        return F.softplus(widen(real_logits)).mean() - self._weight * _log_softplus(fake_logits).mean()


def _checked(name: str, parameter: str, weight: float) -> float:
    if not 0 < weight <= 1:
        raise ValueError(f"{name} expects {parameter} in (0, 1], got {weight}")
    return weight


def _log_softplus(logits: Tensor) -> Tensor:
    """The logarithm of softplus(l), which is l itself where softplus underflows, as l falls."""
    logits = widen(logits)
    low = logits < _LOW
    return torch.where(low, logits, F.softplus(logits.where(~low, torch.zeros_like(logits))).log())
