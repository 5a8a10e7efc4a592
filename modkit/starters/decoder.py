r"""A decoder of patches: each position of the latent becomes a square of pixels.

    patch = squash(W act(V z + a) + b)

A decoder takes the type of the latent and the type to emit (`modkit.kinds.Decoder`); `squash` maps the output into the
range of x if it has one. `last_layer` names the parameter that computes the output, for loss weights that balance
gradients.

Shape letters: b batch, c channels, h w spatial.
"""

from torch import Tensor, nn

from modkit import Event, TensorType
from modkit.nn import squash
from modkit.types import PositiveInt, checked

__all__ = ["PatchDecoder"]


@checked
class PatchDecoder(nn.Module):
    """Applies a small network at each position, which emits the pixels of its patch.

    References:
        Scalable Diffusion Models with Transformers (Peebles and Xie, 2023), section 3.2, the decoder,
        https://arxiv.org/abs/2212.09748

    Args:
        z: Type of the latent: a map whose sides divide those of the image by the same factor.
        x: Type to emit: images.
        width: Width of the hidden layer.

    Raises:
        ValueError: If `x` is not an image type, `z` is not such a map, or `width` is below 1.
    """

    last_layer: str | None = "out.weight"

    def __init__(self, z: Event, x: TensorType, *, width: PositiveInt = 64) -> None:
        super().__init__()
        if isinstance(z, tuple) or not _fits(z, x):
            received = " and ".join(map(str, z)) if isinstance(z, tuple) else z
            expected = "a map whose sides divide those of the image by the same factor"
            raise ValueError(f"PatchDecoder expects {expected}, got {received} for x {x}")
        self.x = x
        patch = x.shape[1] // z.shape[1]
        self.hidden = nn.Sequential(nn.Conv2d(z.shape[0], width, 1), nn.SiLU())
        self.out = nn.Conv2d(width, x.shape[0] * patch**2, 1)
        self.unfold = nn.PixelShuffle(patch)

    def forward(self, z: Tensor) -> Tensor:
        """Decodes `z`, `b c h w`, to the shape of x."""
        return squash(self.unfold(self.out(self.hidden(z))), self.x)


def _fits(z: TensorType, x: TensorType) -> bool:
    if len(z.shape) != 3 or len(x.shape) != 3 or z.classes is not None or x.classes is not None:
        return False
    (height, width), (tall, wide) = z.shape[1:], x.shape[1:]
    return tall % height == 0 and wide % width == 0 and tall // height == wide // width
