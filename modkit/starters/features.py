r"""The spectrum of an image: the power at each frequency, wherever it occurs in the image.

    vector = log(1 + |F x|^2)        F is the orthonormal discrete Fourier transform

A feature extractor maps each image to features whose distances are meaningful, differentiably
(`modkit.kinds.FeatureExtractor`). `label` names it in scores, `key` identifies its settings, and `prepare` fits it to
the training split if it needs that.

Shape letters: b batch, c channels, h w spatial.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from modkit import Batch, Features, TensorType
from modkit.data import hash_contents

__all__ = ["Spectrum"]


class Spectrum(nn.Module):
    """Computes the logarithm of the power at each frequency.

    References:
        Watch your Up-Convolution: CNN Based Generative Deep Neural Networks are Failing to Reproduce Spectral
        Distributions (Durall et al., 2020), section 3.1, https://arxiv.org/abs/2003.01826

    Args:
        x: Type of the data: images.

    Raises:
        ValueError: If `x` is not an image type.
    """

    def __init__(self, x: TensorType) -> None:
        super().__init__()
        if len(x.shape) != 3 or x.classes is not None:
            raise ValueError(f"Spectrum expects images, (c, h, w), got {x}")
        self.label = "spectrum"

    def forward(self, x: Tensor) -> Features:
        """Returns the features of `x`, `b c h w`."""
        power = torch.fft.rfft2(x.to(torch.float32), norm="ortho").abs().square()
        return Features(power.log1p().flatten(1))

    def key(self) -> str:
        """Returns a constant hash, since there are no weights or settings."""
        return hash_contents("spectrum", 1)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Does nothing, since nothing is fitted."""
