r"""The least-squares game: both players pull the logits towards fixed targets.

    generator      1/2 E (D(fake) - 1)^2
    discriminator  1/2 E (D(real) - 1)^2 + 1/2 E D(fake)^2

An adversarial loss takes logits that are higher for real samples: `b`, or `b 1 h w` for patches
(`modkit.kinds.Adversarial`). Each player gets tensors in which the other player's parts are detached. Means are
computed in float32 or higher precision.

Shape letters: b batch, h w patches.
"""

from torch import Tensor

from modkit.precision import widen

__all__ = ["LeastSquares"]


class LeastSquares:
    """The losses of LSGAN.

    References:
        Least Squares Generative Adversarial Networks (Mao et al., 2017), eq. 9, https://arxiv.org/abs/1611.04076
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """Returns the loss of the generator, a scalar."""
        return (widen(fake_logits) - 1).square().mean() / 2

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Returns the loss of the discriminator, a scalar."""
        return (widen(real_logits) - 1).square().mean() / 2 + widen(fake_logits).square().mean() / 2
