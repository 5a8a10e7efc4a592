r"""StyleGAN2's generator: noise is mapped to styles w, which modulate every layer of a synthesis network.

    mapping     w = MLP([z / |z|_rms, e(cond) / |e(cond)|_rms])                at a hundredth of the learning rate
    layer       h <- a(conv(h; w) + n noise + b),   a(h) = sqrt(2) LReLU(h)   conv modulated and demodulated
    synthesis   const -> layer -> (up layer -> layer) x k,   x = squash(y_k),   y_i = up(y_(i-1)) + conv_1x1(h_i; w)
    truncation  w <- w_bar + psi (w - w_bar),   w_bar = E_z w                 in eval mode

`up` is the filter [1, 3, 3, 1]. Learning rates are equalised. In training, a part of the samples has the styles of a
second noise from a random layer on. w_bar is a mean over fixed draws of z, under each sample's own conditions. The
paper's generator does not squash its output.

Shape letters: b batch, c channels, d style, l layers with styles of their own, h w spatial (one, two or three sizes).

References:
    A Style-Based Generator Architecture for Generative Adversarial Networks (Karras et al., 2019), section 2, 3.1 and
    appendix B: mixing and truncation, https://arxiv.org/abs/1812.04948
    Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), figures 2 and 7,
    https://arxiv.org/abs/1912.04958
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, cast

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.kinds import Sampling
from modkit.nn.blocks import Level, choose_levels, crop
from modkit.nn.embeddings import Balance, CondEmbedding, check_noise, embed_beside, normalize_rms
from modkit.nn.equalized import equalize
from modkit.nn.fir import FIRUpsample
from modkit.nn.mlp import squash
from modkit.nn.modulated import ModulatedConv
from modkit.rng import Rng
from modkit.types import Cond, CondType, PositiveInt, Range, Share, TensorType, checked

__all__ = ["StyleGAN2Generator", "activate"]

_RATE = 0.01  # of the mapping's learning
_DRAWS = 256  # for the mean of the styles


@checked
class StyleGAN2Generator(nn.Module):
    """Maps noise to styles, and these to signals, images or volumes.

    Args:
        z: Type of the noise, continuous and normally distributed.
        x: Type of the output: continuous maps of any size. If it has a range, a tanh maps the output to it.
        cond: Type of the conditions; tokens and maps are not supported.
        channels: Channels of the finest maps; each coarser level has twice as many, up to eight times as many.
        style: Width of the styles.
        mapping: Number of layers of the mapping.
        noise: Whether each layer adds noise, of a learned strength that starts at zero.
        mixing: Share of the samples with mixed styles in training, in [0, 1].
        truncation: psi, at least 0: below 1, samples are less diverse and nearer to the typical one.

    Raises:
        ValueError: If x is no map, z or x holds codes, `cond` has a context or a map, or a number is out of its range.

    Examples:
        >>> x = TensorType((3, 16, 12), range=(-1.0, 1.0))
        >>> generator = StyleGAN2Generator(TensorType((8,)), x, CondType(), channels=4, style=6)
        >>> w = generator.styles(torch.zeros(2, 8), Cond())
        >>> w.shape, generator.synthesis(w).shape, generator(torch.zeros(2, 8), Cond(), Rng(0)).shape
        (torch.Size([2, 6]), torch.Size([2, 3, 16, 12]), torch.Size([2, 3, 16, 12]))
    """

    def __init__(
        self,
        z: TensorType,
        x: TensorType,
        cond: CondType,
        *,
        channels: PositiveInt = 64,
        style: PositiveInt = 128,
        mapping: PositiveInt = 2,
        noise: bool = True,
        mixing: Share = 0.9,
        truncation: Annotated[float, Sampling, Range(0)] = 1.0,
        balance: Balance = True,
    ) -> None:
        super().__init__()
        levels = choose_levels("StyleGAN2Generator", x, channels)[::-1]
        check_noise("StyleGAN2Generator", z, cond)
        self.x, self.w, self.draws = x, TensorType((style,)), noise or mixing > 0
        self.mixing, self.truncation = mixing, truncation
        self.embedding = equalize(embed_beside(z, cond) if balance else CondEmbedding(cond, style, rms=1.0))
        widths = [z.numel + (self.embedding.width if self.embedding.embeds else 0), *[style] * mapping]
        self.mapping = nn.ModuleList(equalize(nn.Linear(*pair), gain=_RATE) for pair in pairwise(widths))
        first, changes = levels[0], [(level, level) for level in levels]
        self.start = nn.Parameter(torch.randn(first.channels, *first.size))
        for index, pair in enumerate(pairwise(levels)):
            changes.insert(2 * index + 1, pair)
        self.layers = nn.ModuleList(_Layer(coarse, fine, style, noise) for coarse, fine in changes)
        self.outs = nn.ModuleList(_Out(level.channels, x, style) for level in levels)
        self.upsample = FIRUpsample(len(first.size))

    @property
    def units(self) -> list[nn.Module]:
        """The layers of the synthesis, and what each level adds to the output."""
        return [*self.layers, *self.outs]

    def forward(self, z: Tensor, cond: Cond, rng: Rng | None = None) -> Tensor:
        """Generates x from `z`, `b d`; without `rng`, no noise is added and no styles are mixed."""
        return self._synthesize(self._map_layers(z, cond, rng), rng)

    def styles(self, z: Tensor, cond: Cond) -> Tensor:
        """Maps `z`, `b ...`, to styles, `b d`, truncated in eval mode."""
        return self._map(z, cond)

    def map_layers(self, z: Tensor, cond: Cond, rng: Rng | None = None) -> Tensor:
        """Maps `z`, `b ...`, to the styles of each layer, `b l d`, of which `rng` mixes some in training."""
        return self._map_layers(z, cond, rng)

    def _map_layers(self, z: Tensor, cond: Cond, rng: Rng | None) -> Tensor:
        w = self._map(z, cond)
        if self.training and self.mixing and rng is not None:
            return self._mix(w, self._map(rng.normal("z", z), cond), rng)
        return w[:, None].expand(-1, len(self.layers) + 1, -1)

    def synthesis(self, w: Tensor, rng: Rng | None = None) -> Tensor:
        """Generates x from styles, `b d` or `b l d`; without `rng`, no noise is added.

        Raises:
            ValueError: If there are styles for another number of layers.
        """
        return self._synthesize(w, rng)

    def _map(self, z: Tensor, cond: Cond) -> Tensor:
        w = self._map_all(z, cond)
        if self.training or self.truncation == 1:
            return w
        return torch.lerp(self._find_center(z, cond), w, self.truncation)

    def _find_center(self, z: Tensor, cond: Cond) -> Tensor:
        """Computes the mean of the styles, `b d`, or `1 d` if there are no conditions."""
        draws = Rng(0, "center").normal("z", z.new_empty(_DRAWS, *z.shape[1:]))
        if not self.embedding.embeds:
            return self._map_all(draws, cond).mean(0, keepdim=True)
        every = cond.map(lambda one: one.repeat_interleave(_DRAWS, 0))
        w = self._map_all(draws.repeat(len(z), *[1] * (z.ndim - 1)), every)
        return reduce(w, "(b n) d -> b d", "mean", n=_DRAWS)

    def _map_all(self, z: Tensor, cond: Cond) -> Tensor:
        h = normalize_rms(z.flatten(1))
        if self.embedding.embeds:
            h = torch.cat([h, self.embedding(cond, z)], dim=1)
        for layer in self.mapping:
            h = activate(layer(h))
        return h

    def _mix(self, w: Tensor, other: Tensor, rng: Rng) -> Tensor:
        """Replaces the styles of a part of the samples from a random layer on; the result is `b l d`."""
        num, one_each = len(self.layers) + 1, w.new_empty(len(w), 1)
        first = rng.integers("layer", one_each, 1, num)
        mixed = rng.uniform("mixed", one_each) < self.mixing
        replaced = mixed & (torch.arange(num, device=w.device) >= first)
        return torch.where(replaced[..., None], other[:, None], w[:, None])

    def _synthesize(self, w: Tensor, rng: Rng | None) -> Tensor:
        num = len(self.layers) + 1
        if w.ndim == 3 and w.shape[1] != num:
            raise ValueError(f"StyleGAN2Generator expects styles of {num} layers, got {tuple(w.shape)}")
        each = w.unbind(1) if w.ndim == 3 else (w,) * num
        h, y = self.start.expand(len(w), *self.start.shape), None
        for index, layer in enumerate(cast(Iterable[_Layer], self.layers)):
            h = layer(h, each[index], layer.draw_noise(index, h, rng))
            if index % 2 == 0:  # the last layer of a level; its output has the next layer's styles
                share = self.outs[index // 2](h, each[index + 1])
                y = share if y is None else crop(self.upsample(y), share.shape[2:]) + share
        assert y is not None
        return squash(y, self.x)


def activate(h: Tensor) -> Tensor:
    """Computes sqrt(2) LReLU(h), which keeps the second moment of normal values."""
    return F.leaky_relu(h, 0.2) * math.sqrt(2)


class _Layer(nn.Module):
    """A layer of the synthesis from one level to the same or the next; see the module's equation."""

    def __init__(self, coarse: Level, fine: Level, style: int, noise: bool) -> None:
        super().__init__()
        self.size, rank = fine.size, len(fine.size)
        self.conv = ModulatedConv(rank, coarse.channels, fine.channels, style=style, upsample=coarse.size != fine.size)
        self.strength = nn.Parameter(torch.zeros(())) if noise else None
        self.bias = nn.Parameter(torch.zeros(fine.channels, *(1,) * rank))

    def draw_noise(self, index: int, h: Tensor, rng: Rng | None) -> Tensor | None:
        """Draws the noise of the layer, `b 1 h w`, if it has any."""
        if self.strength is None or rng is None:
            return None
        return rng.normal(f"noise-{index}", h.new_empty(len(h), 1, *self.size))

    def forward(self, h: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Maps `b c h w` to the layer's size by styles `b d`."""
        h = crop(self.conv(h, w), self.size)
        if self.strength is not None and noise is not None:
            h = h + self.strength * noise
        return activate(h + self.bias)


class _Out(nn.Module):
    """What a level adds to the output: a modulated 1x1 convolution."""

    def __init__(self, channels: int, x: TensorType, style: int) -> None:
        super().__init__()
        rank = len(x.shape) - 1
        self.conv = ModulatedConv(rank, channels, x.shape[0], style=style, kernel=1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(x.shape[0], *(1,) * rank))

    def forward(self, h: Tensor, w: Tensor) -> Tensor:
        """Maps `b c h w` to the channels of the output by styles `b d`."""
        return self.conv(h, w) + self.bias
