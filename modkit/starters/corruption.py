r"""Lost pixels: each position of an image is hidden with the same probability.

    masked = (1 - mask) x + mask m        mask is 1 where x is hidden, m is the middle of x's range

A corruption takes the type of the samples and states in `fields` the types of the fields that it makes from a sample
(`modkit.kinds.Corruption`). Each row has its own random draws. A conditioner (`map`) passes the fields to a model,
which learns to restore the hidden values.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).
"""

from typing import Annotated

import torch
from torch import Tensor

from modkit import Rng, TensorType
from modkit.data import hash_contents
from modkit.types import Range, checked

__all__ = ["LostPixels"]


@checked
class LostPixels:
    """Hides random positions; makes the fields `masked`, of x's type, and `mask`, 1 where hidden and 0 elsewhere.

    References:
        AmbientGAN: Generative Models From Lossy Measurements (Bora et al., 2018), section 5: block-pixels,
        https://openreview.net/forum?id=Hy7fDog0b

    Args:
        x: Type of the samples: continuous maps.
        rate: Probability of hiding a position, in (0, 1).

    Raises:
        ValueError: If `x` is not a continuous map, or `rate` is out of range.
    """

    def __init__(self, x: TensorType, *, rate: Annotated[float, Range(above=0, below=1)] = 0.5) -> None:
        if x.classes is not None or not 2 <= len(x.shape) <= 4:
            raise ValueError(f"LostPixels expects continuous maps, such as (c, h, w), got {x}")
        self.rate, self.middle = rate, sum(x.range) / 2 if x.range else 0.0
        self.fields = {"masked": x, "mask": TensorType((1, *x.shape[1:]), range=(0.0, 1.0))}

    @property
    def key(self) -> str:
        """Hash of the settings."""
        return hash_contents("lost-pixels", self.rate)

    def __call__(self, x: Tensor, rng: Rng) -> dict[str, Tensor]:
        """Returns the fields `masked`, `b c h w`, and `mask`, `b 1 h w`."""
        hidden = rng.uniform("hidden", torch.empty_like(x[:, :1])) < self.rate
        return {"masked": torch.where(hidden, self.middle, x), "mask": hidden.to(x.dtype)}
