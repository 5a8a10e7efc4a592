r"""Corruptions: fields that contain a damaged copy of a sample, for models that restore it.

    masked = (1 - mask) x + mask m        mask is 1 where x is hidden; m is the middle of x's range
    low_res = means of x over blocks of factor^r

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), r their number.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), sections 4.4 and 4.5,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.data.splits import hash_contents
from modkit.rng import Rng
from modkit.types import Range, TensorType, checked

__all__ = ["LowRes", "Mask"]


class Mask:
    """Hides a box or half of each sample; gives the fields `masked` (of x's type) and `mask` (1 where hidden, else 0).

    The sides of a box are drawn uniformly between the smallest and the largest, then its position. A half is the first
    or second half along a random axis.

    Args:
        x: Type of the samples: continuous maps.
        regions: Which regions may be hidden, `box` and `half`; one is drawn for each sample.
        smallest: Smallest side of a box, relative to that of the sample, in (0, 1].
        largest: Largest side, likewise.

    Raises:
        ValueError: If `x` is not a map, there is no region, or 0 < smallest <= largest <= 1 does not hold.

    Examples:
        Half of the values of each image are hidden:

        >>> mask = Mask(TensorType((1, 4, 4), range=(-1, 1)), regions=["half"])
        >>> fields = mask(torch.ones(2, 1, 4, 4), Rng(0))
        >>> fields["mask"].sum((1, 2, 3)), fields["masked"].sum((1, 2, 3))
        (tensor([8., 8.]), tensor([8., 8.]))
    """

    def __init__(
        self,
        x: TensorType,
        *,
        regions: list[Literal["box", "half"]] = ["box", "half"],  # noqa: B006
        smallest: float = 0.25,
        largest: float = 0.75,
    ) -> None:
        _check_map("Mask", x)
        if not regions:
            raise ValueError("Mask expects one or more regions, box or half, got none")
        if not 0 < smallest <= largest <= 1:
            raise ValueError(f"Mask expects 0 < smallest <= largest <= 1, got {smallest} and {largest}")
        self.size = x.shape[1:]
        self.middle = sum(x.range) / 2 if x.range else 0.0
        self.regions, self.smallest, self.largest = tuple(regions), smallest, largest
        self.fields = {"masked": x, "mask": TensorType((1, *self.size), range=(0.0, 1.0))}

    @property
    def key(self) -> str:
        """Hash of the settings."""
        return hash_contents("mask", *self.regions, self.smallest, self.largest)

    def __call__(self, x: Tensor, rng: Rng) -> dict[str, Tensor]:
        """Computes `masked`, `b c h w`, and `mask`, `b 1 h w`.

        Raises:
            ValueError: If `x` has another size.
        """
        _check_size("Mask", x, self.size)
        uniform = rng.uniform("region", torch.empty(len(x), 2 * len(self.size) + 1, device=x.device)).double()
        start, stop = self._place_boxes(uniform)
        inside = torch.ones((len(x), 1, *self.size), dtype=torch.bool, device=x.device)
        for axis, size in enumerate(self.size):
            at = torch.arange(size, device=x.device)
            within = (at >= start[:, axis, None]) & (at < stop[:, axis, None])
            inside &= within.view(len(x), 1, *(size if other == axis else 1 for other in range(len(self.size))))
        return {"masked": torch.where(inside, self.middle, x), "mask": inside.to(x.dtype)}

    def _place_boxes(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The first hidden position along each axis and the one after the last, `b r`, from draws, `b 2r+1`."""
        chosen, sides, places = uniform.tensor_split([1, 1 + len(self.size)], dim=1)
        size = torch.tensor(self.size, device=uniform.device)
        least = (size * self.smallest).round().clamp_min(1)
        most = (size * self.largest).round().clamp_min(1)
        length = (least + (sides * (most - least + 1)).floor()).long()
        start = (places * (size - length + 1)).floor().long()
        stop = start + length

        axis = (sides[:, :1] * len(self.size)).long() == torch.arange(len(self.size), device=uniform.device)
        second = places[:, :1] >= 0.5
        half_start = torch.where(axis & second, size // 2, 0)
        half_stop = torch.where(axis & ~second, (size + 1) // 2, size)

        index = (chosen * len(self.regions)).long()
        half = torch.tensor([region == "half" for region in self.regions], device=uniform.device)[index]
        return torch.where(half, half_start, start), torch.where(half, half_stop, stop)


@checked
class LowRes:
    """A smaller copy of each sample, averaged over blocks, as the field `low_res`; it makes no random draws.

    Args:
        x: Type of the samples: continuous maps, of sizes divisible by `factor`.
        factor: Factor by which each size is reduced, at least 2.

    Raises:
        ValueError: If `x` is not a map, or `factor` is below 2 or does not divide a size.

    Examples:
        >>> low_res = LowRes(TensorType((1, 2, 2), range=(0, 3)))
        >>> low_res(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), Rng(0))["low_res"]
        tensor([[[[1.5000]]]])
    """

    def __init__(self, x: TensorType, *, factor: Annotated[int, Range(2)] = 2) -> None:
        _check_map("LowRes", x)
        if any(size % factor for size in x.shape[1:]):
            raise ValueError(f"LowRes expects a factor that divides the sizes of {x}, got {factor}")
        self.factor, self.size = factor, x.shape[1:]
        self.fields = {"low_res": TensorType((x.shape[0], *(n // factor for n in self.size)), range=x.range)}

    @property
    def key(self) -> str:
        """Hash of the settings."""
        return hash_contents("low-res", self.factor)

    def __call__(self, x: Tensor, rng: Rng) -> dict[str, Tensor]:
        """Computes `low_res`, `b c h/factor w/factor`.

        Raises:
            ValueError: If `x` has another size.
        """
        _check_size("LowRes", x, self.size)
        return {"low_res": F.interpolate(x, size=self.fields["low_res"].shape[1:], mode="area")}


def _check_map(owner: str, x: TensorType) -> None:
    if x.classes is not None or not 2 <= len(x.shape) <= 4:
        raise ValueError(f"{owner} expects continuous maps of shape (c, t), (c, h, w) or (c, t, h, w), got {x}")


def _check_size(owner: str, x: Tensor, size: tuple[int, ...]) -> None:
    if tuple(x.shape[2:]) != size:
        raise ValueError(f"{owner} expects samples of size {size}, got {tuple(x.shape[2:])}")
