r"""Residual GANs, from SNGAN over SAGAN to BigGAN: networks of images, signals or volumes.

    generator      v = [z, e(cond)] -> linear -> (up block -> attention) x k -> BN -> ReLU -> conv -> squash
    up block       y = conv_1x1(up x) + conv(ReLU(N(conv(up ReLU(N(x))))))        N modulated by e(cond), or by v
    discriminator  [x, concat] -> (down block -> attention) x (k + 1) -> phi = sum over positions of ReLU(h)
    down block     y = down conv_1x1(x) + down conv(ReLU(conv(ReLU(x))))           no ReLU before the first convolution
                   logits = w . phi + b + phi^T V e(cond) / sqrt(d)

`up` repeats values and `down` averages them; the last block of the discriminator keeps its size. N is batch
normalisation, whose scale and offset depend on the conditions. SNGAN has spectral normalisation in the discriminator,
SAGAN and BigGAN in both networks; SAGAN and BigGAN have attention (`modkit.nn.gan_attention`); in BigGAN, the noise
modulates each norm as well.

Shape letters: b batch, c channels, d features, h w spatial (one, two or three sizes).

References:
    Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018), appendix B.4,
    https://arxiv.org/abs/1802.05957
    Self-Attention Generative Adversarial Networks (Zhang et al., 2019), https://arxiv.org/abs/1805.08318
    Large Scale GAN Training for High Fidelity Natural Image Synthesis (Brock et al., 2019), appendix B,
    https://arxiv.org/abs/1809.11096
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import Attention, find_attention_levels
from modkit.nn.blocks import Downsample, Level, Upsample, choose_levels, conv, init_xavier
from modkit.nn.conditional_norm import ConditionalBatchNorm
from modkit.nn.embeddings import Balance, CondEmbedding, MapJoin, check_context, check_noise, embed_beside
from modkit.nn.gan_attention import GANAttention
from modkit.nn.heads import Heads
from modkit.nn.mlp import squash
from modkit.nn.projection import Projection
from modkit.nn.spectral_norm import normalize_spectrum
from modkit.types import Cond, CondType, Judgement, PositiveInt, TensorType, checked

__all__ = ["ResNetDiscriminator", "ResNetGenerator"]

AttentionNorm: TypeAlias = Annotated[
    bool,
    "Whether attention is that of diffusion's networks, with a norm, in place of SAGAN's. No norm of the weights then "
    "bounds the network's slope. Runs made before this could be chosen have it.",
]


@checked
class ResNetGenerator(nn.Module):
    """Maps noise, concatenated with the embedded conditions, to signals, images or volumes.

    In training, batch norm computes its statistics over the batch.

    Args:
        z: Type of the noise, continuous.
        x: Type of the output: continuous maps of any size. If it has a range, a tanh maps the output to it.
        cond: Type of the conditions; tokens and maps are not supported.
        channels: Channels of the finest maps; each coarser level has twice as many, up to eight times as many.
        attention: Resolutions (the largest side of a level's maps) at which to attend.
        modulate: Whether the noise modulates each norm, as the conditions do.
        spectral_norm: Whether to divide each weight by its largest singular value.

    Raises:
        ValueError: If x is no map, z or x holds codes, `cond` has a context or a map, a resolution belongs to no level,
            or `channels` is below 1.

    Examples:
        >>> x = TensorType((3, 16, 12), range=(-1.0, 1.0))
        >>> generator = ResNetGenerator(TensorType((8,)), x, CondType(labels=10), channels=4, attention=[8])
        >>> generator(torch.zeros(2, 8), Cond(labels=torch.tensor([3, 7]))).shape
        torch.Size([2, 3, 16, 12])
    """

    def __init__(
        self,
        z: TensorType,
        x: TensorType,
        cond: CondType,
        *,
        channels: PositiveInt = 64,
        attention: list[int] = [],  # noqa: B006
        attention_norm: AttentionNorm = False,
        modulate: bool = False,
        spectral_norm: bool = False,
        balance: Balance = True,
    ) -> None:
        super().__init__()
        levels = choose_levels("ResNetGenerator", x, channels)[::-1]
        attends = find_attention_levels("ResNetGenerator", [level.size for level in levels], attention)
        check_noise("ResNetGenerator", z, cond)
        self.x, self.modulate, self.first = x, modulate, levels[0]
        rank = len(self.first.size)
        self.embedding = embed_beside(z, cond) if balance else CondEmbedding(cond, channels)
        embedded = self.embedding.width if self.embedding.embeds else 0
        start = self.first.channels * math.prod(self.first.size)
        self.project = init_xavier(nn.Linear(z.numel + embedded, start))
        width = embedded + (z.numel if modulate else 0)
        self.blocks = nn.ModuleList(_UpBlock(coarse, fine, width) for coarse, fine in pairwise(levels))
        self.attentions = _make_attentions(levels, attends, attention_norm)
        self.norm = ConditionalBatchNorm(rank, channels, 0)
        self.out = init_xavier(conv(rank, channels, x.shape[0]))
        if spectral_norm:
            _normalize_spectra(self.project, self.blocks, self.attentions, self.out)

    @property
    def units(self) -> list[nn.Module]:
        """The residual blocks and attention."""
        return [*self.blocks, *self.attentions]

    def forward(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates x from `z`, `b d`."""
        z = z.flatten(1)
        vector = self.embedding(cond, z) if self.embedding.embeds else z[:, :0]
        joined = torch.cat([z, vector], dim=1)
        first, *attentions = self.attentions
        h = first(self.project(joined).reshape(len(z), self.first.channels, *self.first.size))
        for block, attention in zip(self.blocks, attentions):
            h = attention(block(h, joined if self.modulate else vector))
        return squash(self.out(F.relu(self.norm(h, vector))), self.x)


@checked
class ResNetDiscriminator(nn.Module):
    """Distinguishes real from fake signals, images or volumes, conditioned by projection.

    Args:
        x: Type of the data: continuous maps.
        cond: Type of the conditions. A map is joined to x as further channels; tokens are not supported.
        heads: Widths of the heads by name, linear layers of phi; by default none.
        channels: Channels of the finest maps; each coarser level has twice as many, up to eight times as many.
        attention: Resolutions (the largest side of a level's maps) at which to attend, after the level's block has
            halved them; the finest is not among them.
        spectral_norm: Whether to divide each weight, except one that embeds a map of codes, by its largest singular
            value.

    Raises:
        ValueError: If x is no map, `cond` has a context, or a map that has another rank than x or is a finer map of
            codes, a resolution belongs to no level, or `channels` is below 1.

    Examples:
        >>> discriminator = ResNetDiscriminator(TensorType((3, 16, 16)), CondType(labels=10), channels=4)
        >>> discriminator(torch.zeros(2, 3, 16, 16), Cond(labels=torch.tensor([3, 7]))).shape
        torch.Size([2])
    """

    batch_independent = True

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        heads: Mapping[str, int] | None = None,
        *,
        channels: PositiveInt = 64,
        attention: list[int] = [],  # noqa: B006
        attention_norm: AttentionNorm = False,
        spectral_norm: bool = True,
    ) -> None:
        super().__init__()
        levels = choose_levels("ResNetDiscriminator", x, channels)
        sizes = [level.size for level in levels]
        emitted = [Level(size, level.channels) for size, level in zip([*sizes[1:], sizes[-1]], levels)]
        attends = find_attention_levels("ResNetDiscriminator", sizes[1:] or sizes, attention)
        check_context("ResNetDiscriminator", cond)
        self.join = MapJoin(x, cond.concat, channels)
        given = [Level(sizes[0], self.join.channels), *emitted]
        self.blocks = nn.ModuleList(
            _DownBlock(one, other, activates=index > 0) for index, (one, other) in enumerate(pairwise(given))
        )
        self.attentions = _make_attentions(emitted, [*attends, False], attention_norm)
        self.out = init_xavier(nn.Linear(levels[-1].channels, 1))
        self.projection = Projection(cond, levels[-1].channels, spectral_norm=spectral_norm)
        if spectral_norm:
            _normalize_spectra(self.blocks, self.attentions, self.out)
        self.heads = Heads(heads, levels[-1].channels, spectral_norm=spectral_norm)

    @property
    def units(self) -> list[nn.Module]:
        """The residual blocks and attention."""
        return [*self.blocks, *self.attentions]

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of `x`, `b`."""
        return self._judge(x, cond).logits

    def judge(self, x: Tensor, cond: Cond) -> Judgement:
        """Computes the logits of `x`, the maps of each block, and the heads."""
        return self._judge(x, cond)

    def _judge(self, x: Tensor, cond: Cond) -> Judgement:
        h, maps = self.join(x, cond.concat), []
        for block, attention in zip(self.blocks, self.attentions):
            h = attention(block(h))
            maps.append(h)
        features = F.relu(h).flatten(2).sum(2)
        logits = self.out(features).squeeze(1) + self.projection(features, cond)
        return Judgement(logits, tuple(maps), self.heads(features))


class _UpBlock(nn.Module):
    """A residual block that doubles the size."""

    def __init__(self, coarse: Level, fine: Level, width: int) -> None:
        super().__init__()
        self.size, rank = fine.size, len(fine.size)
        self.norm_1 = ConditionalBatchNorm(rank, coarse.channels, width)
        self.conv_1 = init_xavier(conv(rank, coarse.channels, fine.channels))
        self.norm_2 = ConditionalBatchNorm(rank, fine.channels, width)
        self.conv_2 = init_xavier(conv(rank, fine.channels, fine.channels))
        self.skip = init_xavier(conv(rank, coarse.channels, fine.channels, kernel=1))
        self.upsample = Upsample(rank, coarse.channels, learned=False)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Maps `b c h w` to the finer level, its norms modulated by `vector`, `b d`."""
        h = self.conv_1(self.upsample(F.relu(self.norm_1(x, vector)), self.size))
        h = self.conv_2(F.relu(self.norm_2(h, vector)))
        return self.upsample(self.skip(x), self.size) + h


class _DownBlock(nn.Module):
    """A residual block that halves the size, if that of the coarser level differs."""

    def __init__(self, fine: Level, coarse: Level, *, activates: bool) -> None:
        super().__init__()
        self.activates, rank = activates, len(fine.size)
        self.conv_1 = init_xavier(conv(rank, fine.channels, coarse.channels))
        self.conv_2 = init_xavier(conv(rank, coarse.channels, coarse.channels))
        self.skip = init_xavier(conv(rank, fine.channels, coarse.channels, kernel=1))
        halves = fine.size != coarse.size
        self.halve = Downsample(rank, coarse.channels, learned=False) if halves else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to the coarser level."""
        h = self.conv_2(F.relu(self.conv_1(F.relu(x) if self.activates else x)))
        return self.skip(self.halve(x)) + self.halve(h)


def _make_attentions(levels: Sequence[Level], attends: Sequence[bool], normed: bool) -> nn.ModuleList:
    """Makes attention with one head for each level, or the identity."""

    def make(level: Level) -> nn.Module:
        if normed:
            return Attention(level.channels, head_channels=level.channels)
        return GANAttention(len(level.size), level.channels)

    return nn.ModuleList(make(level) if attend else nn.Identity() for level, attend in zip(levels, attends))


def _normalize_spectra(*modules: nn.Module) -> None:
    """Divides the weight of each layer by its largest singular value; one that starts at zero is drawn first."""
    for layer in [layer for module in modules for layer in module.modules()]:
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            if isinstance(layer, nn.Linear):
                init_xavier(layer)  # of attention with a norm, which would divide zero by zero
            normalize_spectrum(layer)
