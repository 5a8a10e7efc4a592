r"""DhariwalUNet: ADM's U-Net as EDM trains it.

    e = W_1 SiLU(W_0 (g(time) + A a)) + E(cond),      g(t) = [cos(t w), sin(t w)],  w_i = 10000^(-i / n)

    down    conv(x); each level's residual blocks, each attended where the level is, then a halving block
    middle  block, attention, block
    up      each level's blocks over [h, skip], one more than down, then a doubling block

The blocks are modulated by e (FiLM); those that resample do so, without a weight, before their first convolution and in
their skip. Sizes are rounded up on the way down and cropped on the way up.

Shape letters: b batch, c channels, a augmentation labels, n frequencies, h w spatial (one, two or three sizes).

References:
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233
    Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), appendix F.3,
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import Attention, attended
from modkit.nn.blocks import ResidualBlock, check_levels, conv, map_size, norm, pyramid, zero
from modkit.nn.embeddings import MapJoin
from modkit.nn.fir import Double, Halve
from modkit.nn.ncsnpp_blocks import cropped
from modkit.types import Cond, CondType, TensorType
from modkit_checkpoints.adm_blocks import embedded_time
from modkit_checkpoints.edm_embedding import Mapping

__all__ = ["DhariwalUNet"]


class DhariwalUNet(nn.Module):
    """A conditional map between signals, images or volumes of one size: ADM's network as EDM has it.

    Args:
        x: Type of the input: continuous maps.
        out: Type of the output, of x's size; any number of channels.
        cond: The conditions: time, vector, labels and noise are embedded together, a map stands beside x; tokens are
            refused.
        channels: Channels of each level, finest first; the resolution is halved between levels.
        embedding: Width of the embedding; None: four times the first level's channels.
        features: Number of features of the time, even; None: the first level's channels.
        blocks: Residual blocks a level on the way down; one more on the way up.
        attention: Resolutions (the largest side of a level's maps) at which to attend; the middle always does.
        head_channels: Channels of an attention head, at least; maps of fewer have one head.
        augment: Number of labels of an augmentation, which `forward` may be told.
        dropout: Share of the values dropped in each residual block.

    Raises:
        ValueError: If `x` is a vector or codes, `out` has another size, `cond` has a context, there is no level or
            block, a resolution is no level's, or a width is out of range.
    """

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        channels: list[int] = [64, 128],  # noqa: B006
        embedding: int | None = None,
        features: int | None = None,
        blocks: int = 2,
        attention: list[int] = [],  # noqa: B006
        head_channels: int = 32,
        augment: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_levels("DhariwalUNet", channels, blocks)
        size = map_size("DhariwalUNet", x)
        _check(out, size, cond)
        attends, rank = attended("DhariwalUNet", pyramid(size, len(channels)), attention), len(size)
        stem = channels[0]
        features = stem if features is None else features
        waves = partial(embedded_time, width=features)
        width = 4 * stem if embedding is None else embedding
        self.embedding = Mapping(cond, features, width, waves=waves, late=True, augment=augment)
        modulation = width if self.embedding.embeds else None

        def unit(wide_in: int, wide: int, attend: bool) -> _Unit:
            block = ResidualBlock(rank, wide_in, wide, width=modulation, dropout=dropout)
            return _Unit(block, Attention(wide, head_channels=head_channels) if attend else None)

        def resampling(wide: int, resample: nn.Module) -> _Unit:
            block = ResidualBlock(rank, wide, wide, width=modulation, dropout=dropout)
            block.conv_1 = nn.Sequential(resample, block.conv_1)
            block.skip = resample
            return _Unit(block, resamples=True)

        self.join = MapJoin(x, cond.concat, stem)
        self.conv_in = conv(rank, self.join.channels, stem)
        self.down = nn.ModuleList()
        skips, wide_in = [stem], stem
        for level, wide in enumerate(channels):
            if level:
                self.down.append(resampling(wide_in, Halve(rank, fir=False)))
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
                self.up.append(resampling(wide, Double(rank, fir=False)))
        self.norm_out = norm(wide_in)
        self.conv_out = zero(conv(rank, wide_in, out.shape[0]))

    def forward(self, x: Tensor, cond: Cond, augment: Tensor | None = None) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size, given the labels of an augmentation, `b a`, if any.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        embedding = self.embedding(cond, x, augment) if self.embedding.embeds else None
        h = self.conv_in(self.join(x, cond.concat))
        skips = [h]
        for module in self.down:
            h = module(h, embedding)
            skips.append(h)
        for module in self.middle:
            h = module(h, embedding)
        for module in self.up:
            if module.resamples:
                h = cropped(module(h, embedding), skips[-1])
            else:
                h = module(torch.cat([h, skips.pop()], dim=1), embedding)
        y: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return y


class _Unit(nn.Module):
    """A residual block and, where its level attends, self-attention."""

    def __init__(self, block: ResidualBlock, attend: Attention | None = None, *, resamples: bool = False) -> None:
        super().__init__()
        self.block = block
        self.attend = attend
        self.resamples = resamples

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h: Tensor = self.block(x, embedding)
        return h if self.attend is None else self.attend(h)


def _check(out: TensorType, size: tuple[int, ...], cond: CondType) -> None:
    if map_size("DhariwalUNet", out) != size:
        raise ValueError(f"DhariwalUNet expects out of x's size {size}, got {out.shape[1:]}")
    if cond.context is not None:
        raise ValueError(f"DhariwalUNet expects cond without context, got {cond}")
