r"""The least-squares game: both sides are pulled to a number instead of being pushed away from one.

    generator      1/2 E (D(fake) - 1)^2
    discriminator  1/2 E (D(real) - 1)^2 + 1/2 E D(fake)^2

An adversarial loss is given logits, higher for real: `b`, or `b 1 h w` of patches (`modkit.kinds.Adversarial`). Whoever
plays has detached what is not theirs. Means are taken in float32 at least.

Shape letters: b batch, h w patches.
"""

from torch import Tensor

from modkit.precision import widen

__all__ = ["LeastSquares"]


class LeastSquares:
    """The game of LSGAN.

    References:
        Least Squares Generative Adversarial Networks (Mao et al., 2017), eq. 9, https://arxiv.org/abs/1611.04076
    """

    def generator(self, fake_logits: Tensor) -> Tensor:
        """How far fakes are from being taken for real, a scalar."""
        return (widen(fake_logits) - 1).square().mean() / 2

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """How far both are from what they are, a scalar."""
        return (widen(real_logits) - 1).square().mean() / 2 + widen(fake_logits).square().mean() / 2
