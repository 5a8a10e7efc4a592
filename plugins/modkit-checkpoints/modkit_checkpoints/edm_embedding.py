r"""The embedding of the time, labels and augmentation labels in EDM's two U-Nets.

    e = W_1 SiLU(W_0 (g(time) + A a + E_early)) + E_late

g holds sines and cosines of the time (of several, concatenated), a the augmentation labels (no term if none are given),
and E the other conditions (`CondEmbedding`), which SongUNet adds early and DhariwalUNet late.

Shape letters: b batch, n frequencies, a augmentation labels, d width.

References:
    Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), appendix F,
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn

from modkit.nn.blocks import init_xavier
from modkit.nn.embeddings import CondEmbedding, require_times
from modkit.nn.ncsnpp_body import Embedding
from modkit.types import Cond, CondType, NonNegativeInt, PositiveInt, Range, checked

__all__ = ["Fourier", "Mapping"]

_SCALE = 16.0


class Fourier(nn.Module):
    """Computes sines, then cosines, of the time at fixed random frequencies `2 pi f`, `f ~ N(0, 16^2)`.

    References:
        Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains (Tancik et al., 2020),
        https://arxiv.org/abs/2006.10739

    Args:
        features: Number of features, even.
    """

    frequencies: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * _SCALE * torch.randn(features // 2))

    def forward(self, time: Tensor) -> Tensor:
        """Computes features `... 2n` of times `...`, at least float32."""
        time = time if time.dtype == torch.float64 else time.float()
        angles = time[..., None] * self.frequencies.to(time.dtype)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


@checked
class Mapping(Embedding):
    """Embeds the conditions of one of EDM's U-Nets as one vector; see the module's equation.

    Args:
        cond: The conditions; a map is left to the network.
        features: Number of features of the time, even.
        width: Width of the vector.
        waves: Computes the `features` features of each time.
        late: Whether the other conditions are added after the layers; otherwise before.
        augment: Number of augmentation labels.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        cond: CondType,
        features: Annotated[int, Range(2)],
        width: PositiveInt,
        *,
        waves: Callable[[Tensor], Tensor],
        late: bool,
        augment: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        if features % 2:
            raise ValueError(f"Mapping expects an even number of features, got {features}")
        self.features, self.width, self.late, self.num_times = max(cond.time, 1) * features, width, late, cond.time
        self.waves = waves
        self.rest = CondEmbedding(replace(cond, time=0), width if late else self.features)
        self.augment = init_xavier(nn.Linear(augment, self.features, bias=False)) if augment else None
        layered = cond.time > 0 or augment > 0 or (self.rest.embeds and not late)
        self.layers = _make_layers(self.features, width) if layered else None
        self.embeds = layered or self.rest.embeds

    def forward(self, cond: Cond, x: Tensor, augment: Tensor | None = None) -> Tensor:
        """Computes the vector, `b d`, given augmentation labels, `b a`, if any.

        Raises:
            ValueError: If a condition of the type `cond` is missing.
        """
        rest: Tensor = self.rest(cond, x)
        if self.layers is None:
            return rest
        h = x.new_zeros(len(x), self.features) if self.late else rest
        if self.num_times:
            h = h + self.waves(require_times(cond, self.num_times)).flatten(1).to(x.dtype)
        if augment is not None:
            if self.augment is None:
                raise ValueError("Mapping expects no augmentation labels, since it was built for none, got some")
            h = h + self.augment(augment.to(x.dtype))
        e: Tensor = self.layers(h)
        return e + rest if self.late else e


def _make_layers(features: int, width: int) -> nn.Sequential:
    return nn.Sequential(init_xavier(nn.Linear(features, width)), nn.SiLU(), init_xavier(nn.Linear(width, width)))
