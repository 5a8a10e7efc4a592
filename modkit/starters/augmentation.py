r"""Instance noise: a critic judges real and generated samples with noise on them.

    T(x) = x + std eps,   eps ~ N(0, I)

An augmentation is called with samples and a source of draws (`modkit.kinds.Augmentation`); gradients flow through it to
the samples. One whose strength follows the game has `observe` and `update` (`modkit.kinds.AugmentationExtras`).

Shape letters: b batch.
"""

from torch import Tensor

from modkit import Rng, TensorType
from modkit.types import NonNegativeFloat, checked

__all__ = ["InstanceNoise"]


@checked
class InstanceNoise:
    """Adds Gaussian noise to samples.

    References:
        Amortised MAP Inference for Image Super-resolution (Sønderby et al., 2017), section 3.3,
        https://arxiv.org/abs/1610.04490

    Args:
        x: Type of the data, continuous.
        std: Standard deviation of the noise.

    Raises:
        ValueError: If `x` holds codes, or `std` is negative.
    """

    def __init__(self, x: TensorType, *, std: NonNegativeFloat = 0.1) -> None:
        if x.classes is not None:
            raise ValueError(f"InstanceNoise expects continuous data, got {x}")
        self.std = std

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        """Returns `x`, `b ...`, with noise."""
        return x + self.std * rng.normal("eps", x)
