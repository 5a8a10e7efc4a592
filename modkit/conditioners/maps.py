"""Maps beside x: a damaged picture and its mask, a smaller picture. Shape letters: b batch, c channels, h w spatial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from modkit.conditioners.drawing import Examples
from modkit.conditioners.fields import find_field
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType

__all__ = ["Map"]


class Map(nn.Module):
    """Fields that are maps, joined as the channels of one map beside x; the network brings it to its own grid.

    A map is never dropped: guidance is by what else there is, and the null side keeps the maps. It has no parameters.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), sections 4.4 and 4.5
        (super-resolution and in-painting by concatenation), https://arxiv.org/abs/2112.10752

    Args:
        maps: Names of the fields, of one size; where not given, all the data's fields that are continuous maps.
        keep: Number of training samples whose maps are kept, to be drawn where none are given; 0 draws none.

    Raises:
        ValueError: If there is no such field, a field is no map, sizes differ, or `keep` is negative.
    """

    def __init__(self, fields: dict[str, TensorType], *, maps: list[str] | None = None, keep: int = 16) -> None:
        super().__init__()
        names = [name for name, type in fields.items() if _is_map(type)] if maps is None else maps
        if not names or len(set(names)) < len(names):
            found = ", ".join(f"{name} {type}" for name, type in fields.items()) or "none"
            raise ValueError(f"Map expects one or more maps among the data's fields ({found}), got {names}")
        self.fields = tuple(find_field(self, fields, name) for name in names)
        types = [one.type for one in self.fields]
        told = ", ".join(f"{one.name} {one.type}" for one in self.fields)
        if not all(map(_is_map, types)):
            raise ValueError(f"Map expects continuous maps of shape (c, t), (c, h, w) or (c, t, h, w), got {told}")
        if len({type.shape[1:] for type in types}) > 1:
            raise ValueError(f"Map expects maps of one size, got {told}")
        self.reads: tuple[str, ...] = tuple(names)
        self.together = (self.reads,)
        ranges = {type.range for type in types}
        shape = (sum(type.shape[0] for type in types), *types[0].shape[1:])
        concat = TensorType(shape, range=ranges.pop() if len(ranges) == 1 else None)
        self.type = CondType(concat=concat)  # type: ignore[assignment, method-assign]  # the contract's name
        self.examples = Examples(self.fields, keep)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """The maps `b c h w`, whatever the rng.

        Raises:
            ValueError: If a field is missing or has another type.
        """
        return Cond(concat=torch.cat([one.read(fields) for one in self.fields], dim=1))

    def null(self, num: int) -> Cond:
        """Nothing: whoever guides keeps the maps."""
        return Cond()

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """The maps of examples of the training data, those of one row from one sample.

        Raises:
            ValueError: If none were kept: it names the fields to give.
        """
        return self.examples.draw(num, rng)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Keeps the maps of the first samples of `batches`."""
        self.examples.prepare(batches)


def _is_map(type: TensorType) -> bool:
    return type.classes is None and 2 <= len(type.shape) <= 4
