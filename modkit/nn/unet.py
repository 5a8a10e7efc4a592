"""The U-Net of diffusion models: residual blocks down and up a pyramid, with skips, attention and conditions.

A unit is a residual block that is modulated by the embedding of time, vector, noise and labels. On levels that attend,
self-attention and cross-attention to the context follow it. The middle always attends, as in DDPM. `unet_body` connects
the units.

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
from modkit.nn.blocks import Downsample, ResidualBlock, Upsample, group_norm
from modkit.nn.embeddings import CondEmbedding
from modkit.nn.unet_body import UNetBody, Unit, check_pyramid, expand_levels
from modkit.types import CondType, PositiveInt, TensorType, checked

__all__ = ["UNet"]


@checked
class UNet(UNetBody):
    """A conditional network between signals, images or volumes of one size, as in DDPM and ADM.

    Args:
        x: Type of the input: continuous maps.
        out: Type of the output, of x's size; any number of channels.
        cond: Type of the conditions. Time, vector, noise and labels modulate each block, tokens are attended to, and a
            map is joined to x.
        channels: Channels of each level, finest first; the resolution is halved between levels. Or one number, the
            finest level's, of which the others have twice as many, down to a shortest side of 4 to 8.
        blocks: Residual blocks per level on the way down; there is one more on the way up.
        attention: Resolutions (the largest side of a level's maps) at which to attend; the middle always attends. By
            default, those up to 16 if `channels` is a number, and none if it is a list.
        head_channels: Minimum number of channels of an attention head.
        embedding: Width of the embedding of the conditions; four times the first level's channels by default.
        dropout: Probability of dropout in each residual block.

    Raises:
        ValueError: If `x` is a vector or codes, `out` has another size, there is no level or block, or a resolution
            belongs to no level.

    Examples:
        >>> import torch
        >>> from modkit.types import Cond
        >>> x = TensorType((3, 16, 16), range=(-1.0, 1.0))
        >>> net = UNet(x, x, CondType(time=True, labels=10), channels=[8, 16], blocks=1, attention=[8])
        >>> cond = Cond(time=torch.tensor([0.1, 0.9]), labels=torch.tensor([3, 7]))
        >>> net(torch.zeros(2, 3, 16, 16), cond).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        channels: int | list[int] = [64, 128],  # noqa: B006
        blocks: PositiveInt = 2,
        attention: list[int] | None = None,
        head_channels: int = 32,
        embedding: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        levels, resolutions = expand_levels("UNet", x, channels, attention)
        attends = check_pyramid("UNet", x, out, levels, blocks, resolutions)
        rank, context = len(x.shape) - 1, cond.context[1] if cond.context else None
        made = CondEmbedding(cond, embedding or 4 * levels[0])
        width = made.width if made.embeds else None

        def unit(wide_in: int, wide: int, attend: bool) -> Unit:
            block = ResidualBlock(rank, wide_in, wide, width=width, dropout=dropout)
            own = Attention(wide, head_channels=head_channels) if attend else None
            cross = Attention(wide, context=context, head_channels=head_channels) if attend and context else None
            return Unit(block, own, cross)

        super().__init__(
            x,
            out,
            cond,
            channels=levels,
            blocks=blocks,
            attends=attends,
            unit=unit,
            downsample=partial(Downsample, rank),
            upsample=partial(Upsample, rank),
            norm=group_norm,
        )
        self.embedding = made

    def resample(self, module: nn.Module, h: Tensor, embedding: Tensor | None, size: Sequence[int] | None) -> Tensor:
        """Downsamples or upsamples `h`; the resampling modules are not modulated."""
        return module(h) if size is None else module(h, size)
