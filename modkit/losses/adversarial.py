"""Adversarial losses: those of the generator and of the discriminator, as means over logits.

Logits are `b`, or `b 1 h w` for a critic of patches; they are higher for real data, and lower in `reverse-kl`. The
means are computed in float32 or wider. Gradients flow through all logits: the caller detaches the samples that must not
learn.

Shape letters: b batch, h w patches.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from modkit.precision import widen
from modkit.types import Range, checked

__all__ = [
    "KL",
    "DensityRatio",
    "Hinge",
    "LeastSquares",
    "Minimax",
    "NonSaturating",
    "Relativistic",
    "ReverseKL",
    "Wasserstein",
]

_LOW = -15.0  # below this, log softplus(l) equals l to within 2e-7


class NonSaturating:
    r"""The non-saturating losses of the original GAN.

        generator      E softplus(-D(fake))
        discriminator  E softplus(-D(real)) + E softplus(D(fake))

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014), eq. 1 and section 3, https://arxiv.org/abs/1406.2661

    Examples:
        >>> real, fake = torch.tensor([0.0]), torch.tensor([0.0])
        >>> NonSaturating().generator(fake), NonSaturating().discriminator(real, fake)  # log 2 and 2 log 2
        (tensor(0.6931), tensor(1.3863))
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """-log D(fake), a scalar."""
        return F.softplus(-widen(fake_logits)).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-log D(real) - log(1 - D(fake)), a scalar."""
        return F.softplus(-widen(real_logits)).mean() + F.softplus(widen(fake_logits)).mean()


class DensityRatio(NonSaturating):
    r"""A discriminator of the original GAN, whose logits are taken for what they converge to, a ratio of densities.

        generator      -E D(fake)
        discriminator  E softplus(-D(real)) + E softplus(D(fake)),   D* = log p / q

    At the optimal discriminator D*, the generator's loss is KL(q | p) in nats, where p is the density of real samples
    and q that of fake ones. FactorVAE estimates the total correlation of latents so.

    References:
        Disentangling by Factorising (Kim and Mnih, 2018), eq. 3 and algorithm 2, https://arxiv.org/abs/1802.05983

    Examples:
        >>> real, fake = torch.tensor([0.0]), torch.tensor([-1.0])
        >>> DensityRatio().generator(fake), DensityRatio().discriminator(real, fake)
        (tensor(1.), tensor(1.0064))
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """-D(fake), a scalar."""
        return -widen(fake_logits).mean()


class Minimax:
    r"""The minimax game of the original GAN, whose value V the discriminator maximises and the generator minimises.

        V = E log D(real) + E log(1 - D(fake)),   D = sigmoid(logits)

        generator      E log(1 - D(fake))
        discriminator  -V

    `non-saturating` has the same equilibrium, where D = 1/2, and a gradient that does not vanish where the generator
    loses.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014), eq. 1, https://arxiv.org/abs/1406.2661

    Examples:
        >>> real, fake = torch.tensor([0.0]), torch.tensor([0.0])
        >>> Minimax().generator(fake), Minimax().discriminator(real, fake)  # -log 2 and 2 log 2
        (tensor(-0.6931), tensor(1.3863))
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """log(1 - D(fake)), a scalar."""
        return -F.softplus(widen(fake_logits)).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-log D(real) - log(1 - D(fake)), a scalar."""
        return NonSaturating().discriminator(real_logits, fake_logits)


class LeastSquares:
    r"""The least-squares losses: logits regress to 1 for real samples and to 0 for generated ones.

        generator      1/2 E (D(fake) - 1)^2
        discriminator  1/2 E (D(real) - 1)^2 + 1/2 E D(fake)^2,   D* = p / (p + q)

    References:
        Least Squares Generative Adversarial Networks (Mao et al., 2017), eq. 2 and 9, https://arxiv.org/abs/1611.04076

    Examples:
        >>> real, fake = torch.tensor([3.0]), torch.tensor([2.0])
        >>> LeastSquares().generator(fake), LeastSquares().discriminator(real, fake)
        (tensor(0.5000), tensor(4.))
    """

    boundary = 0.5

    def generator(self, fake_logits: Tensor) -> Tensor:
        """(D(fake) - 1)^2 / 2, a scalar."""
        return (widen(fake_logits) - 1).square().mean() / 2

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """((D(real) - 1)^2 + D(fake)^2) / 2, a scalar."""
        return ((widen(real_logits) - 1).square().mean() + widen(fake_logits).square().mean()) / 2


class Wasserstein:
    r"""The Wasserstein losses: the critic, if its slope is at most one, measures the distance W(data, model).

        generator      -E D(fake)
        discriminator  E D(fake) - E D(real)

    The slope is bounded by the regularizer `gradient-penalty`, or by spectral normalization.

    References:
        Wasserstein GAN (Arjovsky et al., 2017), eq. 2, https://arxiv.org/abs/1701.07875

    Examples:
        >>> real, fake = torch.tensor([3.0]), torch.tensor([2.0])
        >>> Wasserstein().generator(fake), Wasserstein().discriminator(real, fake)
        (tensor(-2.), tensor(-1.))
    """

    boundary = None

    def generator(self, fake_logits: Tensor) -> Tensor:
        """-D(fake), a scalar."""
        return -widen(fake_logits).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """D(fake) - D(real), a scalar."""
        return widen(fake_logits).mean() - widen(real_logits).mean()


class Relativistic:
    r"""The relativistic losses of pairs: a real sample is more real than a generated one, or less.

        generator      E softplus(D(real) - D(fake))
        discriminator  E softplus(D(fake) - D(real))

    Sample i of the reals is paired with fake i. As a logit counts only beside another, no mode of the data is left for
    good; with the regularizers `r1` and `r2` the game converges locally.

    References:
        The Relativistic Discriminator (Jolicoeur-Martineau, 2019), section 4, https://arxiv.org/abs/1807.00734
        The GAN is dead; long live the GAN! (Huang et al., 2024), eq. 2, https://arxiv.org/abs/2501.05441

    Examples:
        >>> real, fake = torch.tensor([0.0]), torch.tensor([0.0])
        >>> Relativistic().generator(fake, real), Relativistic().discriminator(real, fake)
        (tensor(0.6931), tensor(0.6931))
    """

    paired = True
    boundary = None

    def generator(self, fake_logits: Tensor, real_logits: Tensor) -> Tensor:
        """-log sigmoid(D(fake) - D(real)), a scalar."""
        return F.softplus(widen(real_logits) - widen(fake_logits)).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-log sigmoid(D(real) - D(fake)), a scalar."""
        return F.softplus(widen(fake_logits) - widen(real_logits)).mean()


class Hinge:
    r"""The hinge losses: the discriminator ignores samples that it classifies correctly by a margin of one.

        generator      -E D(fake)
        discriminator  E max(0, 1 - D(real)) + E max(0, 1 + D(fake))

    References:
        Geometric GAN (Lim and Ye, 2017), https://arxiv.org/abs/1705.02894

    Examples:
        >>> real, fake = torch.tensor([3.0, 0.5]), torch.tensor([-2.0, 0.5])
        >>> Hinge().generator(fake), Hinge().discriminator(real, fake)
        (tensor(0.7500), tensor(1.))
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """-D(fake), a scalar."""
        return -widen(fake_logits).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """max(0, 1 - D(real)) + max(0, 1 + D(fake)), a scalar."""
        return F.relu(1 - widen(real_logits)).mean() + F.relu(1 + widen(fake_logits)).mean()


@checked
class KL:
    r"""The losses of D2GAN's first discriminator, D = softplus(logits) > 0, for alpha KL(data | model).

        generator      -E D(fake)
        discriminator  -alpha E log D(real) + E D(fake),   D* = alpha p / q

    With the optimal discriminator D*, the generator minimises alpha KL(p | q) up to a constant, where p is the data's
    density and q the model's, and so learns to cover the data.

    References:
        Dual Discriminator Generative Adversarial Nets (Nguyen et al., 2017), eq. 1, https://arxiv.org/abs/1709.03831

    Args:
        alpha: Weight of the divergence, in (0, 1].

    Raises:
        ValueError: If `alpha` is outside (0, 1].

    Examples:
        >>> one = torch.tensor([1.0]).expm1().log()  # the logit at which D is 1
        >>> KL(alpha=0.5).generator(one), KL(alpha=0.5).discriminator(one, one)
        (tensor(-1.), tensor(1.))
    """

    def __init__(self, *, alpha: Annotated[float, Range(above=0, high=1)] = 1.0) -> None:
        self._weight = alpha
        self.boundary = math.log(math.expm1(alpha))  # where D = alpha

    def generator(self, fake_logits: Tensor) -> Tensor:
        """-D(fake), a scalar."""
        return -F.softplus(widen(fake_logits)).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-alpha log D(real) + D(fake), a scalar."""
        return -self._weight * _log_softplus(real_logits).mean() + F.softplus(widen(fake_logits)).mean()


@checked
class ReverseKL:
    r"""The losses of D2GAN's second discriminator, D = softplus(logits) > 0, for beta KL(model | data).

        generator      beta E log D(fake)
        discriminator  E D(real) - beta E log D(fake),   D* = beta q / p

    With the optimal discriminator D*, the generator minimises beta KL(q | p) up to a constant, where p is the data's
    density and q the model's, and so learns to make only samples that are likely under the data.

    References:
        Dual Discriminator Generative Adversarial Nets (Nguyen et al., 2017), eq. 1, https://arxiv.org/abs/1709.03831

    Args:
        beta: Weight of the divergence, in (0, 1].

    Raises:
        ValueError: If `beta` is outside (0, 1].

    Examples:
        >>> e = torch.ones(1).exp().expm1().log()  # the logit at which D is e
        >>> ReverseKL(beta=0.5).generator(e)
        tensor(0.5000)
    """

    sign = -1.0

    def __init__(self, *, beta: Annotated[float, Range(above=0, high=1)] = 1.0) -> None:
        self._weight = beta
        self.boundary = math.log(math.expm1(beta))  # where D = beta

    def generator(self, fake_logits: Tensor) -> Tensor:
        """`beta log D(fake)`, a scalar."""
        return self._weight * _log_softplus(fake_logits).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """D(real) - beta log D(fake), a scalar."""
        return F.softplus(widen(real_logits)).mean() - self._weight * _log_softplus(fake_logits).mean()


def _log_softplus(logits: Tensor) -> Tensor:
    """The logarithm of softplus(l): for very negative l, where softplus underflows, it is l itself."""
    logits = widen(logits)
    low = logits < _LOW
    return torch.where(low, logits, F.softplus(logits.where(~low, torch.zeros_like(logits))).log())
