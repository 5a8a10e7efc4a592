"""The U-Net of diffusion models: residual blocks down and up a pyramid, with skips, attention and conditions.

A unit is a residual block, modulated by the embedding of time, vector, noise and labels, and where its level attends,
self-attention and cross-attention to the context. The middle always attends, as in DDPM. The pyramid around them is in
`unet_body`.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), appendix B, https://arxiv.org/abs/2006.11239
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from modkit.nn.attention import Attention
from modkit.nn.blocks import Downsample, ResidualBlock, Upsample, norm
from modkit.nn.embeddings import CondEmbedding
from modkit.nn.unet_body import UNetBody, levels
from modkit.types import Cond, CondType, TensorType

__all__ = ["UNet"]


class UNet(UNetBody):
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
        attends = levels("UNet", x, out, channels, blocks, attention)
        rank, context = len(x.shape) - 1, cond.context[1] if cond.context else None
        made = CondEmbedding(cond, embedding or 4 * channels[0])
        width = made.width if made.embeds else None

        def unit(wide_in: int, wide: int, attend: bool) -> _Unit:
            block = ResidualBlock(rank, wide_in, wide, width=width, dropout=dropout)
            return _Unit(block, wide, attend, context, head_channels)

        super().__init__(
            x,
            out,
            cond,
            channels=channels,
            blocks=blocks,
            attends=attends,
            unit=unit,
            halve=partial(Downsample, rank),
            double=partial(Upsample, rank),
            norm=norm,
        )
        self.embedding = made

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        return self.embedded(x, cond, self.embedding(cond, x))

    def resampled(self, module: nn.Module, h: Tensor, embedding: Tensor | None, size: Sequence[int] | None) -> Tensor:
        """`h`, halved or doubled; what resamples is not modulated."""
        y: Tensor = module(h) if size is None else module(h, size)
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
