r"""ADM's U-Net as in latent diffusion: norms of 32 groups, residual blocks that resample, spatial transformers.

A unit is a residual block, modulated by the embedding of time, vector, noise and labels, and, if its level attends,
self-attention or, given tokens, a spatial transformer. The middle always attends. The pyramid is `modkit.nn.unet_body`.

Shape letters: b batch, c channels, e width of the embedding, h w spatial (one, two or three sizes).

References:
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), section 3, https://arxiv.org/abs/2105.05233
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), appendix E,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from torch import Tensor, nn

from modkit.nn.attention import Attention
from modkit.nn.blocks import Downsample, ResidualBlock, Upsample
from modkit.nn.embeddings import CondEmbedding, require_times
from modkit.nn.unet_body import UNetBody, check_pyramid
from modkit.types import Cond, CondType, PositiveInt, TensorType, checked
from modkit_checkpoints.adm_blocks import AdmBlock, Direction, embed_time, make_norm, make_resampler
from modkit_checkpoints.spatial_transformer import SpatialTransformer

__all__ = ["AdmUNet", "Resampler", "Unit"]

_NORMED = 32  # channels are a multiple of the groups


@checked
class AdmUNet(UNetBody):
    """A conditional map between signals, images or volumes of one size (ADM's and latent diffusion's network).

    Args:
        x: Type of the input: continuous maps.
        out: Type of the output, of x's size; any number of channels.
        cond: The conditions: time, vector, noise and labels modulate each block, tokens are attended to, a map is
            concatenated with x.
        channels: Channels of each level, finest first, multiples of 32 (with 32 itself a norm loses each channel's
            mean); the resolution is halved between levels.
        blocks: Residual blocks per level on the way down; there is one more on the way up.
        attention: Resolutions (the largest side of a level's maps) at which to attend; the middle always attends.
        heads: Number of attention heads; by default it follows from `head_channels`.
        head_channels: Channels of an attention head, if `heads` is None.
        depth: Layers of each transformer, if there are tokens.
        film: Whether the embedding scales and shifts after a norm; otherwise it is added before.
        resampling: How to resample: with a convolution (`conv`), with a residual block (`block`), or by averaging and
            repetition (`plain`).
        dropout: Probability of dropout in each residual block.

    Raises:
        ValueError: If `x` is a vector or codes, `out` has another size, there is no level or block, channels are not
            multiples of 32, a resolution belongs to no level, the heads do not divide the channels of a level that
            attends, a number is below 1, or a choice is unknown.

    Examples:
        >>> import torch
        >>> x = TensorType((1, 8, 8))
        >>> AdmUNet(x, x, CondType(time=True))(torch.zeros(2, 1, 8, 8), Cond(time=torch.zeros(2))).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        channels: list[PositiveInt] = [64, 128],  # noqa: B006
        blocks: PositiveInt = 1,
        attention: list[int] = [],  # noqa: B006
        heads: PositiveInt | None = None,
        head_channels: PositiveInt = 32,
        depth: PositiveInt = 1,
        film: bool = False,
        resampling: Literal["conv", "block", "plain"] = "conv",
        dropout: float = 0.0,
    ) -> None:
        attends = check_pyramid("AdmUNet", x, out, channels, blocks, attention)
        if any(wide % _NORMED for wide in channels):
            raise ValueError(f"AdmUNet expects channels in multiples of {_NORMED}, got {channels}")
        rank, width = len(x.shape) - 1, 4 * channels[0]
        time = _make_time_layers(cond.time * channels[0], width) if cond.time else None
        others = CondEmbedding(replace(cond, time=0), width)
        context = cond.context[1] if cond.context else None
        embeds = width if cond.time or others.embeds else None

        def block(wide_in: int, wide: int, resampling: Direction | None = None) -> AdmBlock:
            return AdmBlock(rank, wide_in, wide, width=embeds, film=film, dropout=dropout, resampling=resampling)

        def unit(wide_in: int, wide: int, attend: bool) -> Unit:
            attention = _make_attention(wide, context, heads, head_channels, depth) if attend else None
            return Unit(block(wide_in, wide), attention)

        def resampler(direction: Direction, wide: int) -> Resampler:
            if resampling == "block":
                return Resampler(block(wide, wide, direction))
            if resampling == "plain":
                return Resampler(make_resampler(rank, wide, direction))
            return Resampler((Downsample if direction == "down" else Upsample)(rank, wide))

        super().__init__(
            x,
            out,
            cond,
            channels=channels,
            blocks=blocks,
            attends=attends,
            unit=unit,
            downsample=partial(resampler, "down"),
            upsample=partial(resampler, "up"),
            norm=make_norm,
        )
        self.base, self.num_times, self.time, self.others = channels[0], cond.time, time, others

    def resample(self, module: nn.Module, h: Tensor, embedding: Tensor | None, size: Sequence[int] | None) -> Tensor:
        """Downsamples or upsamples `h`; a residual block is modulated."""
        return module(h, embedding, () if size is None else size)

    def embed(self, cond: Cond, x: Tensor) -> Tensor:
        """Computes the vector that modulates the units, `b d`."""
        embedding: Tensor = self.others(cond, x)
        if self.time is None:
            return embedding
        waves = embed_time(require_times(cond, self.num_times), self.base).flatten(1)
        time: Tensor = self.time(waves.to(x.dtype))
        return time + embedding


class Unit(nn.Module):
    """A residual block and, if its level attends, self-attention or a transformer."""

    def __init__(self, block: AdmBlock | ResidualBlock, attend: Attention | SpatialTransformer | None = None) -> None:
        super().__init__()
        self.block = block
        self.attend = attend

    def forward(self, x: Tensor, embedding: Tensor | None, context: Tensor | None = None) -> Tensor:
        """Maps `b c h w`, modulated by `embedding`, `b e`, and attending to `context`, `b n d`, if it was built so."""
        y: Tensor = self.block(x, embedding)
        if isinstance(self.attend, SpatialTransformer):
            if context is None:
                raise ValueError("AdmUNet expects a Cond with `context`, as its type says, got None")
            y = self.attend(y, context)
        elif self.attend is not None:
            y = self.attend(y)
        return y


class Resampler(nn.Module):
    """Halves or doubles each size of a map."""

    def __init__(self, module: AdmBlock | Downsample | Upsample) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, embedding: Tensor, size: Sequence[int]) -> Tensor:
        """Maps `b c h w` to the other size; if upsampled, cropped to `size`."""
        if isinstance(self.module, AdmBlock):
            return self.module(x, embedding, size)
        return self.module(x, size) if isinstance(self.module, Upsample) else self.module(x)


def _make_attention(
    channels: int, context: int | None, heads: int | None, head_channels: int, depth: int
) -> Attention | SpatialTransformer:
    rest = channels % (head_channels if heads is None else heads)
    if rest:
        got = f"head_channels {head_channels}" if heads is None else f"heads {heads}"
        expected = f"heads that divide the {channels} channels of a level that attends"
        raise ValueError(f"AdmUNet expects {expected}, got {got}")
    num = channels // head_channels if heads is None else heads
    if context is None:
        return Attention(channels, head_channels=channels // num, normalize=make_norm)
    return SpatialTransformer(channels, context=context, heads=num, depth=depth)


def _make_time_layers(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))
