r"""A picture's spectrum: how much there is of each frequency, wherever it stands.

    vector = log(1 + |F x|^2)        F the discrete Fourier transform, orthonormal

An extractor maps pictures to features that distances make sense in, differentiably, each picture by itself
(`modkit.kinds.FeatureExtractor`). `label` names it in scores, `key` tells its settings apart, and `prepare` trains it,
if it needs that, on the training split.

Shape letters: b batch, c channels, h w spatial.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from modkit import Batch, Features, TensorType
from modkit.data.splits import content_key

__all__ = ["Spectrum"]


class Spectrum(nn.Module):
    """The logarithm of the power at each frequency.

    References:
        Watch your Up-Convolution: CNN Based Generative Deep Neural Networks are Failing to Reproduce Spectral
        Distributions (Durall et al., 2020), section 3.1, https://arxiv.org/abs/2003.01826

    Args:
        x: Type of the data: images.

    Raises:
        ValueError: If `x` is no image.
    """

    def __init__(self, x: TensorType) -> None:
        super().__init__()
        if len(x.shape) != 3 or x.classes is not None:
            raise ValueError(f"Spectrum expects images, (c, h, w), got {x}")
        self.label = "spectrum"

    def forward(self, x: Tensor) -> Features:
        """Features of `x`, `b c h w`."""
        power = torch.fft.rfft2(x.to(torch.float32), norm="ortho").abs().square()
        return Features(power.log1p().flatten(1))

    def key(self) -> str:
        """One hash for all: there are no weights."""
        return content_key("spectrum", 1)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Needs nothing; `batches` is left alone."""
