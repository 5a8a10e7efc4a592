"""The losses of the two sides of an adversarial game, as means over logits.

Logits are `b`, or `b 1 h w` for a critic of patches; they are higher for real data. The means are taken in float32 at
least. Gradients flow through every logit given: whoever plays detaches what is not theirs.

Shape letters: b batch, h w patches.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from modkit.precision import widened

__all__ = ["Hinge", "NonSaturating"]


class NonSaturating:
    r"""The non-saturating game.

        generator      E softplus(-D(fake))
        discriminator  E softplus(-D(real)) + E softplus(D(fake))

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014), eq. 1 and section 3, https://arxiv.org/abs/1406.2661
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """-log D(fake), a scalar."""
        return F.softplus(-widened(fake_logits)).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-log D(real) - log(1 - D(fake)), a scalar."""
        return F.softplus(-widened(real_logits)).mean() + F.softplus(widened(fake_logits)).mean()


class Hinge:
    r"""The hinge game: the discriminator ignores what it tells apart by a margin of one.

        generator      -E D(fake)
        discriminator  E max(0, 1 - D(real)) + E max(0, 1 + D(fake))

    References:
        Geometric GAN (Lim and Ye, 2017), https://arxiv.org/abs/1705.02894
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """-D(fake), a scalar."""
        return -widened(fake_logits).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Both hinges, a scalar."""
        return F.relu(1 - widened(real_logits)).mean() + F.relu(1 + widened(fake_logits)).mean()
