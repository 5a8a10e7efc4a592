"""The U-Net of diffusion models: residual blocks down and up a pyramid, with skips, attention and conditions.

    down: conv_in([x, concat]), then each level's units and a halving; every result is kept as a skip
    middle: residual block, attention, residual block
    up: each level's units over [h, skip], one more than down, and a doubling
    out: conv_out(SiLU(norm(h))), zero at first

A unit is a residual block, modulated by the embedding of time, vector, noise and labels, and where its level attends,
self-attention and cross-attention to the context. The middle always attends, as in DDPM. Sizes are rounded up on the
way down and cropped to the skips on the way up, so any size will do.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), appendix B, https://arxiv.org/abs/2006.11239
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import Attention, attended
from modkit.nn.blocks import Downsample, ResidualBlock, Upsample, check_levels, conv, map_size, norm, pyramid, zero
from modkit.nn.embeddings import CondEmbedding, MapJoin
from modkit.types import Cond, CondType, TensorType

__all__ = ["UNet"]


class UNet(nn.Module):
    """A conditional map between signals, images or volumes of one size (DDPM's and ADM's network).

    Args:
        x: Type of the input: continuous maps.
        out: Type of the output, of x's size; any number of channels.
        cond: The conditions: time, vector, noise and labels modulate each block, tokens are attended to, a map stands
            beside x.
        channels: Channels of each level, finest first; the resolution is halved between levels.
        blocks: Residual blocks a level on the way down; one more on the way up.
        attention: Resolutions (the largest side of a level's maps) at which to attend; the middle always does.
        head_channels: Channels of an attention head, at least.
        embedding: Width of the conditions' embedding; None: four times the first level's channels.
        dropout: Share of the values dropped in each residual block.

    Raises:
        ValueError: If `x` is a vector or codes, `out` has another size, there is no level or block, or a resolution is
            no level's.
    """

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        channels: list[int] = [64, 128],  # noqa: B006
        blocks: int = 2,
        attention: list[int] = [],  # noqa: B006
        head_channels: int = 32,
        embedding: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_levels("UNet", channels, blocks)
        size = map_size("UNet", x)
        if map_size("UNet", out) != size:
            raise ValueError(f"UNet expects out of x's size {size}, got {out.shape[1:]}")
        sizes = pyramid(size, len(channels))
        attends = attended("UNet", sizes, attention)
        rank = len(size)
        context = cond.context[1] if cond.context else None

        self.embedding = CondEmbedding(cond, embedding or 4 * channels[0])
        width = self.embedding.width if self.embedding.embeds else None

        def unit(wide_in: int, wide: int, attend: bool) -> _Unit:
            block = ResidualBlock(rank, wide_in, wide, width=width, dropout=dropout)
            return _Unit(block, wide, attend, context, head_channels)

        self.join = MapJoin(x, cond.concat, channels[0])
        self.conv_in = conv(rank, self.join.channels, channels[0])
        self.down = nn.ModuleList()
        skips, wide_in = [channels[0]], channels[0]
        for level, wide in enumerate(channels):
            if level:
                self.down.append(Downsample(rank, wide_in))
                skips.append(wide_in)
            for _ in range(blocks):
                self.down.append(unit(wide_in, wide, attends[level]))
                wide_in = wide
                skips.append(wide)
        self.middle = nn.ModuleList([unit(wide_in, wide_in, True), unit(wide_in, wide_in, False)])
        self.up = nn.ModuleList()
        for level, wide in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.up.append(unit(wide_in + skips.pop(), wide, attends[level]))
                wide_in = wide
            if level:
                self.up.append(Upsample(rank, wide))
        self.norm_out = norm(wide_in)
        self.conv_out = zero(conv(rank, wide_in, out.shape[0]))

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        embedding = self.embedding(cond, x)
        h = self.conv_in(self.join(x, cond.concat))
        skips = [h]
        for module in self.down:
            h = module(h, embedding, cond.context) if isinstance(module, _Unit) else module(h)
            skips.append(h)
        for module in self.middle:
            h = module(h, embedding, cond.context)
        for module in self.up:
            if isinstance(module, _Unit):
                h = module(torch.cat([h, skips.pop()], dim=1), embedding, cond.context)
            else:
                h = module(h, skips[-1].shape[2:])
        y: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return y


class _Unit(nn.Module):
    """A residual block and, where its level attends, self-attention and cross-attention."""

    def __init__(
        self, block: ResidualBlock, channels: int, attend: bool, context: int | None, head_channels: int
    ) -> None:
        super().__init__()
        self.block = block
        self.attend = Attention(channels, head_channels=head_channels) if attend else None
        self.cross = Attention(channels, context=context, head_channels=head_channels) if attend and context else None

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        x = self.block(x, embedding)
        if self.attend is not None:
            x = self.attend(x)
        if self.cross is not None:
            x = self.cross(x, context)
        return x
