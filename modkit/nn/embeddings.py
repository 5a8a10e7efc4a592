"""Conditions as a network takes them: what carries no positions as one vector, a map as channels beside x.

    e = MLP(gamma(time)) + W vector + MLP(noise) + E[labels]
    gamma(t) = [sin(t w_0), ..., sin(t w_m), cos(t w_0), ..., cos(t w_m)]      w_i = 10000^(-i / m), from 1 to 1e-4

The frequencies are DDPM's, and those of EDM's DDPM++ networks. A network that modulates by e applies SiLU first.
Tokens (`context`) have positions, so a network attends to them itself.

Shape letters: b batch, c channels, d width, h w spatial (one, two or three sizes).

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), appendix B, https://arxiv.org/abs/2006.11239
    Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), appendix F.1,
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.types import Cond, CondType, TensorType

__all__ = ["CondEmbedding", "MapJoin", "regridded", "sinusoidal"]


class CondEmbedding(nn.Module):
    """Embeds time, vector, noise and labels, those that the type has, as one vector.

        embedding = CondEmbedding(cond, 256)
        e = embedding(values, x)                # b d

    `embeds` tells whether there is anything to embed; where not, there are no parameters and the result is zero.

    Args:
        cond: Which conditions there are; `context` and `concat` are left to the network.
        width: Width d of the result.
    """

    embeds: bool
    width: int

    def __init__(self, cond: CondType, width: int) -> None:
        super().__init__()
        self.width = width
        self.embeds = bool(cond.time or cond.vector or cond.noise or cond.labels)
        self.time = _mlp(width + width % 2, width) if cond.time else None
        self.vector = nn.Linear(cond.vector, width) if cond.vector else None
        self.noise = _mlp(cond.noise, width) if cond.noise else None
        self.labels = nn.Embedding(cond.labels + 1, width) if cond.labels else None

    def forward(self, cond: Cond, like: Tensor) -> Tensor:
        """Embeds `cond`.

        Args:
            cond: The conditions, of the type this was built for; what else it carries is not looked at.
            like: The network's input, `b ...`: gives batch, dtype and device.

        Returns:
            The embedding, `b d`.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        total = like.new_zeros(len(like), self.width)
        if self.time is not None:
            total = total + self.time(sinusoidal(_given("time", cond.time), self.width + self.width % 2).to(like.dtype))
        if self.vector is not None:
            total = total + self.vector(_given("vector", cond.vector).to(like.dtype))
        if self.noise is not None:
            total = total + self.noise(_given("noise", cond.noise).to(like.dtype))
        if self.labels is not None:
            total = total + self.labels(_given("labels", cond.labels))
        return total


class MapJoin(nn.Module):
    """Joins the map of a condition to x as further channels; the identity where there is none.

    A coarser map (the upper codes of a hierarchy) is repeated to x's size, a finer one (a mask, beside a latent)
    averaged; codes are embedded first.

    Args:
        x: Type of x.
        concat: Type of the map, of x's rank (codes: without channels), or None.
        width: Channels in which codes are embedded.

    Raises:
        ValueError: If the map has another rank than x, or holds codes and is finer.
    """

    channels: int

    def __init__(self, x: TensorType, concat: TensorType | None, width: int) -> None:
        super().__init__()
        self.joins = concat is not None
        self.codes = nn.Embedding(concat.classes, width) if concat is not None and concat.classes else None
        self.channels = x.shape[0]
        if concat is not None:
            size = concat.shape if concat.classes else concat.shape[1:]
            if len(size) != len(x.shape) - 1:
                raise ValueError(f"MapJoin expects a map of {len(x.shape) - 1} sizes beside x {x}, got {concat}")
            if concat.classes and any(map_ > own for map_, own in zip(size, x.shape[1:])):
                raise ValueError(f"MapJoin expects codes at no more than {x.shape[1:]} positions, got {concat}")
            self.channels += width if concat.classes else concat.shape[0]

    def forward(self, x: Tensor, concat: Tensor | None) -> Tensor:
        """Joins the map to x, `b c h w`, where c is `channels`.

        Raises:
            ValueError: If the map is missing.
        """
        if not self.joins:
            return x
        concat = _given("concat", concat)
        if self.codes is not None:
            concat = self.codes(concat).movedim(-1, 1)
        return torch.cat([x, regridded(concat, x.shape[2:]).to(x.dtype)], dim=1)


def regridded(x: Tensor, size: Sequence[int]) -> Tensor:
    """A map `b c h w` at another size: averaged over areas where it is finer along any size, else repeated."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    finer = any(own > wanted for own, wanted in zip(x.shape[2:], size))
    return F.interpolate(x, size=tuple(size), mode="area" if finer else "nearest")


def sinusoidal(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of `t` at frequencies from 1 down to 1e-4.

    Args:
        t: Times or positions, `...`, of any scale.
        width: Number of features, even and positive.

    Returns:
        Features `... width`, the sines first; float64 where `t` is, else float32, since neither a time of 999 nor a
        table's index survives bfloat16.

    Raises:
        ValueError: If `width` is odd or not positive.
    """
    if width % 2 or width < 2:
        raise ValueError(f"sinusoidal expects an even, positive width, got {width}")
    t = t if t.dtype == torch.float64 else t.float()
    exponents = torch.arange(width // 2, dtype=t.dtype, device=t.device) / max(width // 2 - 1, 1)
    angles = t[..., None] * torch.exp(-math.log(10000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _mlp(size: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width))


def _given(name: str, value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError(f"the network expects a Cond with `{name}`, as its type says, got None")
    return value
