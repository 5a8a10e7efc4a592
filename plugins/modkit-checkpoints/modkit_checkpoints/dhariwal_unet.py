r"""DhariwalUNet: ADM's U-Net as in EDM.

    e = W_1 SiLU(W_0 (g(time) + A a)) + E(cond),      g(t) = [cos(t w), sin(t w)],  w_i = 10000^(-i / n)

The blocks are modulated by e (FiLM); some resample, without weights, before their first convolution and in their skip.
The pyramid is `modkit.nn.unet_body`.

Shape letters: b batch, c channels, a augmentation labels, n frequencies, h w spatial (one, two or three sizes).

References:
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233
    Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), appendix F,
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from modkit.nn.attention import Attention
from modkit.nn.blocks import ResidualBlock, crop, group_norm
from modkit.nn.fir import BOX, FIRDownsample, FIRUpsample
from modkit.nn.unet_body import UNetBody, check_pyramid
from modkit.types import Cond, CondType, PositiveInt, TensorType, checked
from modkit_checkpoints.adm_blocks import embed_time
from modkit_checkpoints.adm_unet import Unit
from modkit_checkpoints.edm_embedding import Mapping

__all__ = ["DhariwalUNet"]


@checked
class DhariwalUNet(UNetBody):
    """A conditional map between signals, images or volumes of one size: ADM's network as in EDM.

    Args:
        x: Type of the input: continuous maps.
        out: Type of the output, of x's size; any number of channels.
        cond: The conditions: time, vector, labels and noise are embedded together, a map is concatenated with x;
            tokens are refused.
        channels: Channels of each level, finest first; the resolution is halved between levels.
        embedding: Width of the embedding; by default four times the first level's channels.
        features: Number of features of the time, even; by default the first level's channels.
        blocks: Residual blocks per level on the way down; there is one more on the way up.
        attention: Resolutions (the largest side of a level's maps) at which to attend; the middle always attends.
        head_channels: Least number of channels of an attention head; maps of fewer have one head.
        augment: Number of augmentation labels that `forward` accepts.
        dropout: Probability of dropout in each residual block.

    Raises:
        ValueError: If `x` is a vector or codes, `out` has another size, `cond` has a context, there is no level or
            block, a resolution belongs to no level, or a width is out of range.
    """

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        channels: list[PositiveInt] = [64, 128],  # noqa: B006
        embedding: int | None = None,
        features: int | None = None,
        blocks: PositiveInt = 2,
        attention: list[int] = [],  # noqa: B006
        head_channels: int = 32,
        augment: int = 0,
        dropout: float = 0.0,
    ) -> None:
        attends = check_pyramid("DhariwalUNet", x, out, channels, blocks, attention)
        if cond.context is not None:
            raise ValueError(f"DhariwalUNet expects cond without context, got {cond}")
        rank, stem = len(x.shape) - 1, channels[0]
        features = stem if features is None else features
        waves = partial(embed_time, width=features)
        width = 4 * stem if embedding is None else embedding
        mapping = Mapping(cond, features, width, waves=waves, late=True, augment=augment)
        modulation = width if mapping.embeds else None

        def block(wide_in: int, wide: int) -> ResidualBlock:
            return ResidualBlock(rank, wide_in, wide, width=modulation, dropout=dropout)

        def unit(wide_in: int, wide: int, attend: bool) -> Unit:
            return Unit(block(wide_in, wide), Attention(wide, head_channels=head_channels) if attend else None)

        def resampling(kind: type[FIRDownsample] | type[FIRUpsample], wide: int) -> Unit:
            resample, made = kind(rank, taps=BOX), block(wide, wide)
            made.conv_1, made.skip = nn.Sequential(resample, made.conv_1), resample
            return Unit(made)

        super().__init__(
            x,
            out,
            cond,
            channels=channels,
            blocks=blocks,
            attends=attends,
            unit=unit,
            downsample=partial(resampling, FIRDownsample),
            upsample=partial(resampling, FIRUpsample),
            norm=group_norm,
        )
        self.embedding = mapping

    def forward(self, x: Tensor, cond: Cond, augment: Tensor | None = None) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size, given augmentation labels, `b a`, if any.

        Raises:
            ValueError: If a condition of the type `cond` is missing.
        """
        return self.evaluate(x, cond, self.embed(cond, x, augment))

    def embed(self, cond: Cond, x: Tensor, augment: Tensor | None = None) -> Tensor | None:
        """Computes the vector that modulates the units, `b d`, or None if there is nothing to embed."""
        return self.embedding(cond, x, augment) if self.embedding.embeds else None

    def resample(self, module: nn.Module, h: Tensor, embedding: Tensor | None, size: Sequence[int] | None) -> Tensor:
        """Downsamples or upsamples `h` by a block."""
        y: Tensor = module(h, embedding)
        return y if size is None else crop(y, size)
