"""DCGAN: a generator of transposed convolutions and a critic of strided ones, for images of any size.

The same networks without the critic's head are an encoder and a decoder of a latent that is a vector.

    generator      [z, e(cond)] -> project -> BN, ReLU -> (up -> BN, ReLU) x (k - 1) -> up -> crop -> squash
    encoder        [x, concat, e(cond)] -> down -> LReLU -> (down -> BN, LReLU) x (k - 1) -> flatten
    decoder        the generator, of a latent z
    discriminator  [x, concat] -> down -> LReLU -> (down -> BN, LReLU) x (k - 1) -> phi
                   logits = w . phi + b + mean_hw(phi)^T V e(cond) / sqrt(d)

`up` and `down` are 4x4 (transposed) convolutions of stride 2 and padding 1. Their number k is chosen such that the
smallest map is about 4x4, as in the paper's 64x64 model; images of 8x8 to 12x12 still get two, down to a 2x2 map. The
channels double with each downsampling, up to a factor of eight. BN is the paper's choice of `norm`. The paper's
discriminator receives no conditions; here they are projected.

Shape letters: b batch, c channels, h w spatial, d features.

References:
    Unsupervised Representation Learning with DCGANs (Radford et al., 2016), https://arxiv.org/abs/1511.06434
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

import torch
from einops import rearrange
from torch import Tensor, nn

from modkit.nn.activations import collect_activations
from modkit.nn.blocks import broadcast, group_norm
from modkit.nn.embeddings import Balance, CondEmbedding, MapJoin, check_context, check_noise, embed_beside
from modkit.nn.heads import Heads
from modkit.nn.minibatch import MinibatchDiscrimination
from modkit.nn.mlp import squash
from modkit.nn.projection import Projection
from modkit.nn.spectral_norm import normalize_spectrum
from modkit.types import Cond, CondType, Event, Judgement, PositiveInt, TensorType, checked

__all__ = ["DCGANDecoder", "DCGANDiscriminator", "DCGANEncoder", "DCGANGenerator", "init_weights"]

Norm: TypeAlias = Annotated[
    Literal["batch", "group", "layer", "none"],
    "Normalisation of hidden maps, except the first of an encoder or a critic: by statistics of the batch in training, "
    "or of each sample, of groups of its channels or of all. With `none`, layers have biases in its place.",
]

_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": group_norm,
    "layer": partial(nn.GroupNorm, 1),
}


@checked
class DCGANGenerator(nn.Module):
    """Maps noise, concatenated with the embedded conditions, to images by transposed convolutions.

    Sizes that are not a multiple of 2^k are rounded up, and the output is cropped.

    Args:
        z: Type of the noise, continuous.
        x: Type of the output: continuous images `(c, h, w)` of any size. If it has a range, a tanh maps the output to
            it.
        cond: Type of the conditions; tokens and maps are not supported.
        channels: Channels of the finest hidden map; each coarser map has twice as many, up to eight times as many.

    Raises:
        ValueError: If x is not an image, z or x holds codes, `cond` has a context or a map, or `channels` is below 1.

    Examples:
        >>> x = TensorType((3, 20, 20), range=(-1.0, 1.0))
        >>> generator = DCGANGenerator(TensorType((16,)), x, CondType(labels=10), channels=4)
        >>> generator(torch.zeros(2, 16), Cond(labels=torch.tensor([3, 7]))).shape
        torch.Size([2, 3, 20, 20])
    """

    def __init__(
        self,
        z: TensorType,
        x: TensorType,
        cond: CondType,
        *,
        channels: PositiveInt = 64,
        norm: Norm = "batch",
        balance: Balance = True,
    ) -> None:
        super().__init__()
        height, width = _get_image_size(self, x)
        check_noise("DCGANGenerator", z, cond)
        self.x = x
        widths = _choose_widths(self, x, channels)[::-1]
        scale = 2 ** len(widths)
        self.start = (widths[0], math.ceil(height / scale), math.ceil(width / scale))
        self.embedding = embed_beside(z, cond) if balance else CondEmbedding(cond, channels)
        size = z.numel + (self.embedding.width if self.embedding.embeds else 0)
        self.project = nn.Linear(size, math.prod(self.start), bias=norm == "none")
        layers = [*_make_norm(norm, widths[0]), nn.ReLU()]
        for wide, narrow in pairwise(widths):
            up = nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=norm == "none")
            layers += [up, *_make_norm(norm, narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], x.shape[0], 4, 2, 1))
        nn.init.normal_(self.project.weight, std=0.02)
        self.layers.apply(init_weights)

    def forward(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates images from `z`, `b d`."""
        joined = z.flatten(1)
        if self.embedding.embeds:
            joined = torch.cat([joined, self.embedding(cond, z)], dim=1)
        c, h, w = self.start
        raw: Tensor = self.layers(rearrange(self.project(joined), "b (c h w) -> b c h w", c=c, h=h, w=w))
        return squash(raw[:, :, : self.x.shape[1], : self.x.shape[2]], self.x)


@checked
class DCGANEncoder(nn.Module):
    """Maps images to a vector of features: the discriminator without its head.

    Args:
        x: Type of the images, `(c, h, w)` of at least 2x2, continuous.
        cond: Type of the conditions, by default none. A map is joined to x as further channels, and so is the embedding
            of the others, repeated over all positions; tokens are not supported.
        channels: Channels of the first map; each later map has twice as many, up to eight times as many.

    Raises:
        ValueError: If x is not an image, is too small or holds codes; if `cond` has a context, or a map that has
            another rank than x or is a finer map of codes; or if `channels` is below 1.

    Examples:
        >>> encoder = DCGANEncoder(TensorType((3, 16, 16)), channels=4)
        >>> encoder.h.shape, encoder(torch.zeros(2, 3, 16, 16)).shape
        ((128,), torch.Size([2, 128]))
    """

    h: TensorType
    conditional = True

    def __init__(
        self, x: TensorType, cond: CondType = CondType(), *, channels: PositiveInt = 64, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        _check_downs(self, x, cond)
        widths = _choose_widths(self, x, channels)
        self.join = MapJoin(x, cond.concat, channels)
        self.embedding = CondEmbedding(cond, channels)
        given = self.join.channels + (channels if self.embedding.embeds else 0)
        self.layers = _make_downs([given, *widths], norm).apply(init_weights)
        self.h = TensorType((_count_features(x, widths),))

    def forward(self, x: Tensor, cond: Cond = Cond()) -> Tensor:
        """Computes features of `x`, `b d`."""
        joined = self.join(x, cond.concat)
        if self.embedding.embeds:
            embedded = broadcast(self.embedding(cond, x), x)
            joined = torch.cat([joined, embedded.expand(-1, -1, *x.shape[2:])], dim=1)
        return self.layers(joined).flatten(1)


@checked
class DCGANDecoder(nn.Module):
    """Maps a latent, flattened and concatenated with the embedded conditions, to images: the generator.

    Args:
        z: Type of the latent, continuous and of one level.
        x: Type of the output: continuous images `(c, h, w)` of any size. If it has a range, a tanh maps the output to
            it.
        cond: Type of the conditions, by default none; tokens and maps are not supported.
        channels: Channels of the finest hidden map; each coarser map has twice as many, up to eight times as many.

    Raises:
        ValueError: If x is not an image, z is a hierarchy, z or x holds codes, `cond` has a context or a map, or
            `channels` is below 1.

    Examples:
        >>> decoder = DCGANDecoder(TensorType((6,)), TensorType((3, 16, 16), range=(-1.0, 1.0)), channels=4)
        >>> decoder(torch.zeros(2, 6)).shape
        torch.Size([2, 3, 16, 16])
    """

    conditional = True

    def __init__(
        self,
        z: Event,
        x: TensorType,
        cond: CondType = CondType(),
        *,
        channels: PositiveInt = 64,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if isinstance(z, tuple):
            raise ValueError(f"DCGANDecoder expects z of one level, got a hierarchy of {len(z)}")
        _get_image_size(self, x)
        balance = False  # z is no noise of known scale
        self.generator = DCGANGenerator(z, x, cond, channels=channels, norm=norm, balance=balance)
        self.last_layer: str | None = f"generator.layers.{len(self.generator.layers) - 1}.weight"

    def forward(self, z: Tensor, cond: Cond = Cond()) -> Tensor:
        """Decodes `z`, `b ...`, to images."""
        return self.generator(z, cond)


@checked
class DCGANDiscriminator(nn.Module):
    """Distinguishes real from fake images by strided convolutions, conditioned by projection.

    In training, batch norm computes its statistics over the batch, so real and fake images should be passed in separate
    calls, and the gradient of one image's logit reaches the others: for a gradient penalty, choose another `norm`.

    Args:
        x: Type of the images, `(c, h, w)` of at least 2x2, continuous.
        cond: Type of the conditions. A map is joined to x as further channels; tokens are not supported.
        heads: Widths of the heads by name, linear layers of the last features; by default none.
        channels: Channels of the first map; each later map has twice as many, up to eight times as many.
        spectral_norm: Whether to divide each weight, except one that embeds a map of codes, by its largest singular
            value (Miyato et al., 2018); this replaces `norm`.
        minibatch: Number of kernels of minibatch discrimination, whose outputs are joined to the last features
            (Salimans et al., 2016), or 0. With any, logits depend on the whole batch.

    Raises:
        ValueError: If x is not an image, is too small or holds codes; if `cond` has a context, or a map that has
            another rank than x or is a finer map of codes; if there is no such `norm`; or if `channels` is below 1 or
            `minibatch` is negative.

    Examples:
        >>> discriminator = DCGANDiscriminator(TensorType((3, 16, 16)), CondType(labels=10), channels=4)
        >>> discriminator(torch.zeros(2, 3, 16, 16), Cond(labels=torch.tensor([3, 7]))).shape
        torch.Size([2])
    """

    batch_independent: bool

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        heads: Mapping[str, int] | None = None,
        *,
        channels: PositiveInt = 64,
        norm: Norm = "batch",
        spectral_norm: bool = False,
        minibatch: int = 0,
    ) -> None:
        super().__init__()
        _check_downs(self, x, cond)
        widths = _choose_widths(self, x, channels)
        self.join = MapJoin(x, cond.concat, channels)
        self.layers = _make_downs([self.join.channels, *widths], "none" if spectral_norm else norm)
        self.batch_independent = not minibatch and not any(isinstance(layer, nn.BatchNorm2d) for layer in self.layers)
        features = _count_features(x, widths)
        self.compare = MinibatchDiscrimination(features, minibatch) if minibatch else nn.Identity()
        self.out = nn.Linear(features + minibatch, 1)
        self.layers.apply(init_weights)
        nn.init.normal_(self.out.weight, std=0.02)
        self.projection = Projection(cond, widths[-1], spectral_norm=spectral_norm)
        if spectral_norm:
            for layer in (*self.layers, self.out):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    normalize_spectrum(layer)
        self.heads = Heads(heads, features, spectral_norm=spectral_norm)  # last, so that it moves no other draw

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of `x`, `b`."""
        return self._compute_logits(self.layers(self.join(x, cond.concat)), cond)

    def judge(self, x: Tensor, cond: Cond) -> Judgement:
        """Computes the logits of `x`, the maps after each convolution, and the heads."""
        maps = collect_activations(self.layers, self.join(x, cond.concat))
        return Judgement(self._compute_logits(maps[-1], cond), maps, self.heads(maps[-1].flatten(1)))

    def _compute_logits(self, features: Tensor, cond: Cond) -> Tensor:
        logits: Tensor = self.out(self.compare(features.flatten(1))).squeeze(1)
        logits = logits + self.projection(features.mean((2, 3)), cond)
        return logits


def init_weights(module: nn.Module) -> None:
    """Initialises a convolution's weights from N(0, 0.02^2), a batch norm's from N(1, 0.02^2); for `Module.apply`."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)


def _check_downs(owner: nn.Module, x: TensorType, cond: CondType) -> None:
    name = type(owner).__name__
    if min(_get_image_size(owner, x)) < 2:
        raise ValueError(f"{name} expects images of at least 2×2, got {x}")
    check_context(name, cond)


def _make_norm(norm: Norm, channels: int) -> list[nn.Module]:
    return [_NORMS[norm](channels)] if norm in _NORMS else []


def _make_downs(widths: Sequence[int], norm: Norm) -> nn.Sequential:
    """Creates the strided convolutions between maps of these channels; all but the first map are normalised."""
    layers: list[nn.Module] = []
    for level, (narrow, wide) in enumerate(pairwise(widths)):
        layers.append(nn.Conv2d(narrow, wide, 4, 2, 1, bias=not level or norm == "none"))
        layers += _make_norm(norm, wide) if level else []
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers)


def _count_features(x: TensorType, widths: Sequence[int]) -> int:
    """Counts the values of the last map."""
    scale: int = 2 ** len(widths)
    return widths[-1] * math.prod(size // scale for size in x.shape[1:])


def _get_image_size(owner: nn.Module, x: TensorType) -> tuple[int, int]:
    if len(x.shape) != 3 or x.classes is not None:
        raise ValueError(f"{type(owner).__name__} expects continuous images (c, h, w), got {x}")
    return x.shape[1], x.shape[2]


def _choose_widths(owner: nn.Module, x: TensorType, channels: int) -> list[int]:
    """Chooses the channels of the k maps, finest first. The last is about 4x4, or 2x2 where k would else be below 2."""
    halvings = math.log2(min(x.shape[1:]))
    num = max(1, round(halvings - 2), min(2, math.floor(halvings - 1)))
    return [channels * min(2**level, 8) for level in range(num)]
