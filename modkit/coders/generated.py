"""A decoder that is a generator: the latent takes the place of its noise.

Shape letters: b batch, d values of a latent.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from modkit.kinds import Generator, Slot, default
from modkit.parts.filling import fill_slot
from modkit.types import Cond, CondType, Event, TensorType

__all__ = ["Generated"]


class Generated(nn.Module):
    """Decodes a latent, flattened, by any generator.

    The generator draws no noise of its own and mixes no styles, so that z determines x. The strengths of such noise are
    then not trained; `{use: stylegan2, noise: false}` has none. A generator that normalizes its noise normalizes z,
    whose length then has no effect.

    Args:
        z: Type of the latent, continuous and of one level.
        x: Type of the output.
        cond: Type of the conditions, by default none; the generator is given them.
        generator: The generator of x.

    Raises:
        ValueError: If z is a hierarchy, or the generator does not fit z, x or the conditions.

    Examples:
        >>> import torch
        >>> from modkit.nn.stylegan2 import StyleGAN2Generator
        >>> decoder = Generated(TensorType((4, 2, 2)), TensorType((3, 16, 16)), generator=StyleGAN2Generator)
        >>> decoder(torch.zeros(2, 4, 2, 2)).shape
        torch.Size([2, 3, 16, 16])
    """

    conditional = True
    last_layer: str | None = None

    def __init__(
        self, z: Event, x: TensorType, cond: CondType = CondType(), *, generator: Slot[Generator] = default("mlp")
    ) -> None:
        super().__init__()
        if isinstance(z, tuple):
            raise ValueError(f"Generated expects z of one level, got a hierarchy of {len(z)}")
        self.generator = fill_slot("generator", generator, z=replace(z, shape=(z.numel,)), x=x, cond=cond)

    def forward(self, z: Tensor, cond: Cond = Cond()) -> Tensor:
        """Decodes `z`, `b ...`, which the generator is given as `b d`."""
        x: Tensor = self.generator(z.flatten(1), cond)
        return x
