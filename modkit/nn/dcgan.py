"""DCGAN: a generator of transposed convolutions and a critic of strided ones, for images of any size.

    generator      [z, e(cond)] -> project -> BN, ReLU -> (up -> BN, ReLU) x (k - 1) -> up -> crop -> squash
    discriminator  [x, concat] -> down -> LReLU -> (down -> BN, LReLU) x (k - 1) -> phi
                   logits = w . phi + b + mean_hw(phi)^T V e(cond) / sqrt(d)

`up` and `down` are 4x4 (transposed) convolutions of stride 2 and padding 1. k, their number, is chosen so that the
smallest map is about 4x4, as in the paper's 64x64 model; images of 8x8 to 12x12 still get two, down to a 2x2 map.
Channels double with each halving, up to eightfold. The paper gives a discriminator no label; here it is projected.

Shape letters: b batch, c channels, h w spatial, d features.

References:
    Unsupervised Representation Learning with DCGANs (Radford et al., 2016), https://arxiv.org/abs/1511.06434
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from modkit.nn.embeddings import CondEmbedding, MapJoin
from modkit.nn.minibatch import MinibatchDiscrimination
from modkit.nn.mlp import Projection, squash
from modkit.types import Cond, CondType, TensorType

__all__ = ["DCGANDiscriminator", "DCGANGenerator", "initialise"]


class DCGANGenerator(nn.Module):
    """Maps noise, joined with the embedded conditions, to images by transposed convolutions.

    Batch norm looks across the batch in training. A size that is no multiple of 2^k is made larger and cropped.

    Args:
        z: Type of the noise, continuous.
        x: Type to emit: images `(c, h, w)` of any size, continuous; a tanh maps to its range where it has one.
        cond: Conditions; tokens and maps are refused.
        channels: Channels of the finest hidden map; each coarser one has twice as many, up to eightfold.

    Raises:
        ValueError: If x is no image, z or x holds codes, `cond` has a context or a map, or `channels` is below 1.
    """

    def __init__(self, z: TensorType, x: TensorType, cond: CondType, *, channels: int = 64) -> None:
        super().__init__()
        height, width = _size(self, x)
        if z.classes is not None:
            raise ValueError(f"DCGANGenerator expects continuous z, got {z}")
        if cond.context is not None or cond.concat is not None:
            raise ValueError(f"DCGANGenerator expects cond without context and concat, got {cond}")
        self.x = x
        widths = _widths(self, x, channels)[::-1]
        scale = 2 ** len(widths)
        self.start = (widths[0], math.ceil(height / scale), math.ceil(width / scale))
        self.embedding = CondEmbedding(cond, channels)
        size = z.numel + (channels if self.embedding.embeds else 0)
        self.project = nn.Linear(size, math.prod(self.start), bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for wide, narrow in pairwise(widths):
            layers += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], x.shape[0], 4, 2, 1))
        nn.init.normal_(self.project.weight, std=0.02)
        self.layers.apply(initialise)

    def forward(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates images from `z`, `b d`."""
        joined = z.flatten(1)
        if self.embedding.embeds:
            joined = torch.cat([joined, self.embedding(cond, z)], dim=1)
        raw: Tensor = self.layers(self.project(joined).reshape(-1, *self.start))
        return squash(raw[:, :, : self.x.shape[1], : self.x.shape[2]], self.x)


class DCGANDiscriminator(nn.Module):
    """Tells real from fake images by strided convolutions, conditioned by projection.

    Batch norm looks across the batch in training: real and fake ones are best given apart.

    Args:
        x: Type of the images, `(c, h, w)` of at least 2x2, continuous.
        cond: Conditions; a map is joined to x as further channels, tokens are refused.
        channels: Channels of the first map; each later one has twice as many, up to eightfold.
        spectral_norm: Whether each weight is divided by its largest singular value (Miyato et al., 2018), the
            embedding of conditions excepted; there is then no batch norm.
        minibatch: Kernels of minibatch discrimination joined to the last features (Salimans et al., 2016); 0: none.
            Logits then depend on the whole batch.

    Raises:
        ValueError: If x is no image, is too small or holds codes, `cond` has a context or codes that are finer or
            no map, `channels` is below 1, or `minibatch` is negative.
    """

    def __init__(
        self, x: TensorType, cond: CondType, *, channels: int = 64, spectral_norm: bool = False, minibatch: int = 0
    ) -> None:
        super().__init__()
        height, width = _size(self, x)
        if min(height, width) < 2:
            raise ValueError(f"DCGANDiscriminator expects images of at least 2×2, got {x}")
        if cond.context is not None:
            raise ValueError(f"DCGANDiscriminator expects cond without context, got {cond}")
        widths = _widths(self, x, channels)
        self.join = MapJoin(x, cond.concat, channels)
        layers: list[nn.Module] = []
        for level, (narrow, wide) in enumerate(pairwise([self.join.channels, *widths])):
            normed = level > 0 and not spectral_norm
            layers.append(nn.Conv2d(narrow, wide, 4, 2, 1, bias=not normed))
            layers += [nn.BatchNorm2d(wide)] if normed else []
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers)
        scale = 2 ** len(widths)
        features = widths[-1] * (height // scale) * (width // scale)
        self.compare = MinibatchDiscrimination(features, minibatch) if minibatch else nn.Identity()
        self.out = nn.Linear(features + minibatch, 1)
        self.layers.apply(initialise)
        nn.init.normal_(self.out.weight, std=0.02)
        self.projection = Projection(cond, widths[-1], spectral_norm=spectral_norm)
        if spectral_norm:
            for layer in (*self.layers, self.out):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    parametrizations.spectral_norm(layer)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Logits of `x`, `b`."""
        features = self.layers(self.join(x, cond.concat))
        logits: Tensor = self.out(self.compare(features.flatten(1))).squeeze(1)
        logits = logits + self.projection(features.mean((2, 3)), cond)
        return logits


def initialise(module: nn.Module) -> None:
    """DCGAN's initialisation, to `apply`: convolutions from N(0, 0.02^2), batch norms' weights from N(1, 0.02^2)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)


def _size(owner: nn.Module, x: TensorType) -> tuple[int, int]:
    if len(x.shape) != 3 or x.classes is not None:
        raise ValueError(f"{type(owner).__name__} expects continuous images (c, h, w), got {x}")
    return x.shape[1], x.shape[2]


def _widths(owner: nn.Module, x: TensorType, channels: int) -> list[int]:
    """Channels of the k maps, finest first: the last is about 4x4, or 2x2 where only that allows two of them."""
    if channels < 1:
        raise ValueError(f"{type(owner).__name__} expects channels >= 1, got {channels}")
    halvings = math.log2(min(x.shape[1:]))
    num = max(1, round(halvings - 2), min(2, math.floor(halvings - 1)))
    return [channels * min(2**level, 8) for level in range(num)]
