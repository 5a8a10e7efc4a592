r"""An encoder of patches: an image is cut into squares, each of which becomes one feature vector.

    h = W patch + b

An encoder takes the type of the data and states in `h` the type that it emits (`modkit.kinds.Encoder`), so that users
never write a number of channels twice. For types that it does not support it raises a ValueError that states what was
expected and what was received.

Shape letters: b batch, c channels, h w spatial.
"""

from torch import Tensor, nn

from modkit import TensorType
from modkit.types import PositiveInt, checked

__all__ = ["PatchEncoder"]


@checked
class PatchEncoder(nn.Module):
    """Maps each patch of an image linearly, like the first layer of a vision transformer.

    References:
        An Image is Worth 16x16 Words (Dosovitskiy et al., 2021), eq. 1, https://arxiv.org/abs/2010.11929

    Args:
        x: Type of the data: images.
        channels: Channels of the features.
        patch: Side of a patch; it must divide the sides of the image.

    Raises:
        ValueError: If `x` is not an image type whose sides `patch` divides, or a number is below 1.
    """

    def __init__(self, x: TensorType, *, channels: PositiveInt = 32, patch: PositiveInt = 2) -> None:
        super().__init__()
        if x.classes is not None or len(x.shape) != 3 or x.shape[1] % patch or x.shape[2] % patch:
            raise ValueError(f"PatchEncoder expects images with sides divisible by {patch}, got {x}")
        self.h = TensorType((channels, x.shape[1] // patch, x.shape[2] // patch))
        self.project = nn.Conv2d(x.shape[0], channels, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the features of `x`, `b channels h/patch w/patch`."""
        features: Tensor = self.project(x)
        return features
