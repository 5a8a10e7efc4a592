"""Embeds conditions for networks: those without positions as one vector, a map as further channels of x.

    e = MLP(gamma(time)) + W vector + MLP(noise) + E[labels]
    gamma(t) = [sin(t w_0), ..., sin(t w_m), cos(t w_0), ..., cos(t w_m)]      w_i = 10000^(-i / m), from 1 to 1e-4

The features of several times are concatenated, so that each has weights of its own in the first layer. The frequencies
are those of DDPM and of EDM's DDPM++ networks. Networks that are modulated by e apply SiLU to it first. Tokens
(`context`) are not embedded here; a network attends to them.

A generator concatenates e with its noise z. It starts with as much of the one as of the other if both have the same
width and scale, as in StyleGAN2 and R3GAN; a narrow z beside an e as wide as the network is drowned (`embed_beside`).

Shape letters: b batch, c channels, d width, h w spatial (one, two or three sizes).

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), appendix B, https://arxiv.org/abs/2006.11239
    Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), appendix F,
    https://arxiv.org/abs/2206.00364
    Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), https://arxiv.org/abs/1912.04958
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.precision import widen
from modkit.types import Cond, CondType, TensorType

__all__ = [
    "Balance",
    "CondEmbedding",
    "MapJoin",
    "embed_beside",
    "normalize_rms",
    "require_condition",
    "require_times",
    "resize_map",
    "sinusoidal_embedding",
]

Balance: TypeAlias = Annotated[
    bool,
    "Whether the embedded conditions have the width of z (at least 8) and its scale, so that the first layer starts "
    "with as much of z as of them. Otherwise they are as wide as the network, as in runs made before this could be "
    "chosen, and drown a narrow z.",
]

_NARROWEST = 8  # of an embedding beside z: one value would leave a condition its sign only
_TINY = 1e-8


class CondEmbedding(nn.Module):
    """Embeds those of time, vector, noise and labels that `cond` has as one vector.

    `embeds` tells whether there is anything to embed. If not, there are no parameters and the result is zero.

    Args:
        cond: Type of the conditions; `context` and `concat` are left to the network.
        width: Width d of the result.
        rms: Root mean square to which each result is scaled; None leaves it as it is.

    Examples:
        >>> embedding = CondEmbedding(CondType(time=True, labels=10), 16)
        >>> cond = Cond(time=torch.tensor([0.1, 0.9]), labels=torch.tensor([3, 7]))
        >>> embedding(cond, torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 16])
    """

    embeds: bool
    width: int

    def __init__(self, cond: CondType, width: int, *, rms: float | None = None) -> None:
        super().__init__()
        self.width, self.rms = width, rms
        self.embeds = bool(cond.time or cond.vector or cond.noise or cond.labels)
        self.num_times = cond.time
        self.time = _make_mlp(cond.time * (width + width % 2), width) if cond.time else None
        self.vector = nn.Linear(cond.vector, width) if cond.vector else None
        self.noise = _make_mlp(cond.noise, width) if cond.noise else None
        self.labels = nn.Embedding(cond.labels + 1, width) if cond.labels else None

    def forward(self, cond: Cond, like: Tensor) -> Tensor:
        """Embeds `cond`.

        Args:
            cond: The conditions, of the type `cond`; others that it carries are ignored.
            like: The network's input, `b ...`, which determines batch size, dtype and device.

        Returns:
            The embedding, `b d`.

        Raises:
            ValueError: If a condition of the type `cond` is missing.
        """
        total = like.new_zeros(len(like), self.width)
        if self.time is not None:
            waves = sinusoidal_embedding(require_times(cond, self.num_times), self.width + self.width % 2)
            total = total + self.time(waves.flatten(1).to(like.dtype))
        if self.vector is not None:
            total = total + self.vector(require_condition("vector", cond.vector).to(like.dtype))
        if self.noise is not None:
            total = total + self.noise(require_condition("noise", cond.noise).to(like.dtype))
        if self.labels is not None:
            total = total + self.labels(require_condition("labels", cond.labels))
        return total if self.rms is None else normalize_rms(total) * self.rms


class MapJoin(nn.Module):
    """Joins a conditioning map to x as further channels; the identity if there is no map.

    Values of a coarser map (the upper codes of a hierarchy) are repeated up to the size of x, those of a finer map (a
    mask for a latent) are averaged. Codes are embedded first.

    Args:
        x: Type of x.
        concat: Type of the map, of x's rank (a map of codes has no channels), or None.
        width: Channels of the embedding of codes.

    Raises:
        ValueError: If the map has another rank than x, or is a finer map of codes.

    Examples:
        >>> join = MapJoin(TensorType((3, 8, 8)), TensorType((4, 4), classes=16), width=5)
        >>> join(torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 4, dtype=torch.int64)).shape
        torch.Size([2, 8, 8, 8])
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
                raise ValueError(f"MapJoin expects a map of {len(x.shape) - 1} sizes for x {x}, got {concat}")
            if concat.classes and any(map_ > own for map_, own in zip(size, x.shape[1:])):
                raise ValueError(f"MapJoin expects codes at no more than {x.shape[1:]} positions, got {concat}")
            self.channels += width if concat.classes else concat.shape[0]

    def forward(self, x: Tensor, concat: Tensor | None) -> Tensor:
        """Joins the map to x; the result is `b channels h w`.

        Raises:
            ValueError: If the map is missing.
        """
        if not self.joins:
            return x
        concat = require_condition("concat", concat)
        if self.codes is not None:
            concat = rearrange(self.codes(concat), "b ... c -> b c ...")
        return torch.cat([x, resize_map(concat, x.shape[2:]).to(x.dtype)], dim=1)


def embed_beside(z: TensorType, cond: CondType) -> CondEmbedding:
    """Makes the embedding of conditions that a generator concatenates with its noise z.

    It is as wide as z, or 8 if z is narrower, and its squares have the sum that is expected of standard normal z.

    Examples:
        >>> embedding = embed_beside(TensorType((16,)), CondType(labels=10))
        >>> embedding.width, embedding(Cond(labels=torch.tensor([3])), torch.zeros(1, 16)).square().mean().round()
        (16, tensor(1., grad_fn=<RoundBackward0>))
    """
    width = max(z.numel, _NARROWEST)
    embedding = CondEmbedding(cond, width, rms=math.sqrt(z.numel / width))
    for name, parameter in embedding.named_parameters():
        if name.endswith("bias"):  # a constant would take a share that says nothing of the condition
            nn.init.zeros_(parameter)
    return embedding


def normalize_rms(x: Tensor) -> Tensor:
    """Divides `x`, `b d`, by the root of its mean square, which is computed in at least float32.

    Examples:
        >>> normalize_rms(torch.tensor([[3.0, 0.0, 0.0, 0.0]]))
        tensor([[2., 0., 0., 0.]])
    """
    return (x * (widen(x).square().mean(1, keepdim=True) + _TINY).rsqrt()).to(x.dtype)


def resize_map(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes a map `b c h w`: averages over areas if it is finer along any dimension, otherwise repeats values.

    Examples:
        >>> resize_map(torch.tensor([[[1.0, 3.0]]]), [4])
        tensor([[[1., 1., 3., 3.]]])
        >>> resize_map(torch.tensor([[[1.0, 3.0]]]), [1])
        tensor([[[2.]]])
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    finer = any(own > wanted for own, wanted in zip(x.shape[2:], size))
    return F.interpolate(x, size=tuple(size), mode="area" if finer else "nearest")


def sinusoidal_embedding(t: Tensor, width: int) -> Tensor:
    """Computes sines and cosines of `t` at frequencies from 1 down to 1e-4.

    Args:
        t: Times or positions, `...`, of any scale.
        width: Number of features, even and positive.

    Returns:
        Features `... width`, the sines first; float64 if `t` is, otherwise float32, since bfloat16 represents neither a
        time of 999 nor the index of a table.

    Raises:
        ValueError: If `width` is odd or not positive.

    Examples:
        >>> sinusoidal_embedding(torch.tensor([0.0, 1.0]), 2)
        tensor([[0.0000, 1.0000],
                [0.8415, 0.5403]])
    """
    if width % 2 or width < 2:
        raise ValueError(f"sinusoidal_embedding expects an even, positive width, got {width}")
    t = t if t.dtype == torch.float64 else t.float()
    exponents = torch.arange(width // 2, dtype=t.dtype, device=t.device) / max(width // 2 - 1, 1)
    angles = t[..., None] * torch.exp(-math.log(10000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def check_noise(owner: str, z: TensorType, cond: CondType) -> None:
    """Checks what a generator of maps is built from: continuous noise, and conditions without positions.

    Raises:
        ValueError: If z holds codes, or `cond` has a context or a map. The message names `owner`.
    """
    if z.classes is not None:
        raise ValueError(f"{owner} expects continuous z, got {z}")
    if cond.context is not None or cond.concat is not None:
        raise ValueError(f"{owner} expects cond without context and concat, got {cond}")


def check_context(owner: str, cond: CondType) -> None:
    """Checks the conditions of a network that does not attend to tokens.

    Raises:
        ValueError: If `cond` has a context. The message names `owner`.
    """
    if cond.context is not None:
        raise ValueError(f"{owner} expects cond without context, got {cond}")


def require_condition(name: str, value: Tensor | None) -> Tensor:
    """Returns the condition of a name, which must be there.

    Raises:
        ValueError: If it is None.
    """
    if value is None:
        raise ValueError(f"the network expects a Cond with `{name}`, as its type says, got None")
    return value


def require_times(cond: Cond, num: int) -> Tensor:
    """Returns the times of `cond`: one of each sample, `b`, or several, `b num`.

    Raises:
        ValueError: If there are none, or another number of them.

    Examples:
        >>> require_times(Cond(time=torch.zeros(3, 2)), 2).shape
        torch.Size([3, 2])
    """
    time = require_condition("time", cond.time)
    if time.shape[1:] != ((num,) if num > 1 else ()):
        expected = f"{num} times of each sample, `b {num}`" if num > 1 else "one time of each sample, `b`"
        raise ValueError(f"the network expects {expected}, got the shape {tuple(time.shape)}")
    return time


def _make_mlp(size: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width))
