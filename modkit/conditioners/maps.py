"""Maps joined to x, such as a damaged image and its mask, or a smaller image.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modkit.conditioners.drawing import Drawing, Examples
from modkit.conditioners.fields import find_field
from modkit.rng import Rng
from modkit.types import Cond, CondType, NonNegativeInt, TensorType, checked

__all__ = ["Map"]


@checked
class Map(Drawing):
    """Concatenates fields that are maps as the channels of one map, which the network resizes and joins to x.

    Maps are never dropped: guidance acts on the other conditions, and its unconditional side keeps the maps. There are
    no parameters.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), sections 4.4 and 4.5
        (super-resolution and in-painting by concatenation), https://arxiv.org/abs/2112.10752

    Args:
        maps: Names of the fields, which must have the same size; by default all continuous maps of the data.
        keep: Number of training samples whose maps are stored, to be drawn when none are given; with 0 nothing can be
            drawn.

    Raises:
        ValueError: If there is no such field, a field is not a map, sizes differ, or `keep` is negative.

    Examples:
        >>> conditioner = Map({"masked": TensorType((3, 8, 8)), "mask": TensorType((1, 8, 8))})
        >>> str(conditioner.type)
        'concat 4×8×8 unbounded'
        >>> fields = {"masked": torch.zeros(2, 3, 8, 8), "mask": torch.ones(2, 1, 8, 8)}
        >>> conditioner(fields, None).concat.shape
        torch.Size([2, 4, 8, 8])
    """

    drop = 0.0

    def __init__(
        self, fields: dict[str, TensorType], *, maps: list[str] | None = None, keep: NonNegativeInt = 16
    ) -> None:
        super().__init__()
        names = [name for name, type in fields.items() if _is_map(type)] if maps is None else maps
        if not names or len(set(names)) < len(names):
            found = ", ".join(f"{name} {type}" for name, type in fields.items()) or "none"
            raise ValueError(f"Map expects one or more maps among the data's fields ({found}), got {names}")
        self.fields = tuple(find_field(self, fields, name) for name in names)
        types = [one.type for one in self.fields]
        received = ", ".join(f"{one.name} {one.type}" for one in self.fields)
        if not all(map(_is_map, types)):
            raise ValueError(f"Map expects continuous maps of shape (c, t), (c, h, w) or (c, t, h, w), got {received}")
        if len({type.shape[1:] for type in types}) > 1:
            raise ValueError(f"Map expects maps of one size, got {received}")
        self.reads: tuple[str, ...] = tuple(names)
        self.together = (self.reads,)
        ranges = {type.range for type in types}
        shape = (sum(type.shape[0] for type in types), *types[0].shape[1:])
        concat = TensorType(shape, range=ranges.pop() if len(ranges) == 1 else None)
        self.type = CondType(concat=concat)  # type: ignore[assignment, method-assign]  # the contract's name
        self.examples = Examples(self.fields, keep)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Concatenates the maps, `b c h w`; the rng is not used.

        Raises:
            ValueError: If a field is missing or has another type.
        """
        return Cond(concat=torch.cat([one.read(fields) for one in self.fields], dim=1))

    def null(self, num: int) -> Cond:
        """Returns no conditions, since guidance keeps the maps."""
        return Cond()


def _is_map(type: TensorType) -> bool:
    return type.classes is None and 2 <= len(type.shape) <= 4
