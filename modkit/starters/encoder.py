r"""Patches: an image is cut into squares, each of which becomes one vector of features.

    h = W patch + b

An encoder is told the type of the data and says in `h` what it emits (`modkit.kinds.Encoder`); nobody writes a number
of channels twice. Types that it cannot take it refuses, by a ValueError with what it expects and what it got.

Shape letters: b batch, c channels, h w spatial.
"""

from torch import Tensor, nn

from modkit import TensorType

__all__ = ["PatchEncoder"]


class PatchEncoder(nn.Module):
    """One linear map of each patch of an image, as a vision transformer begins.

    References:
        An Image is Worth 16x16 Words (Dosovitskiy et al., 2021), eq. 1, https://arxiv.org/abs/2010.11929

    Args:
        x: Type of the data: images.
        channels: Channels of the features.
        patch: Side of a patch, a divisor of the image's sides.

    Raises:
        ValueError: If `x` is no image that `patch` divides, or a number is below 1.
    """

    def __init__(self, x: TensorType, *, channels: int = 32, patch: int = 2) -> None:
        super().__init__()
        if channels < 1 or patch < 1:
            raise ValueError(f"PatchEncoder expects channels and patch of at least 1, got {channels} and {patch}")
        if x.classes is not None or len(x.shape) != 3 or x.shape[1] % patch or x.shape[2] % patch:
            raise ValueError(f"PatchEncoder expects images whose sides {patch} divides, got {x}")
        self.h = TensorType((channels, x.shape[1] // patch, x.shape[2] // patch))
        self.project = nn.Conv2d(x.shape[0], channels, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Features of `x`, `b channels h/patch w/patch`."""
        features: Tensor = self.project(x)
        return features
