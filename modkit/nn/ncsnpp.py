r"""NCSN++ with a noise beside the time, the generator of the denoising diffusion GAN; without it, a plain denoiser.

    block    y = (skip(R x) + conv_1(drop(SiLU(N_1(conv_0(R SiLU(N_0(x))) + W SiLU(e)))))) / sqrt(2)
    N(h)     gamma(w) GN(h) + beta(w),   w = MLP(z / |z|_rms);   a learned gamma and beta where there is no z
    e        MLP(sin, cos of time) + what else the conditions hold

R resamples by two under the filter [1, 3, 3, 1], or is the identity. Around the blocks stands a U-Net: down and up a
pyramid, skips joined, attention at chosen resolutions and in the middle. Beside the way down the input is resampled too
and added at each halving (`residual` and `skip` say how); beside the way up the output may be summed over resolutions.
The output is squashed into its range by a tanh. Sizes are rounded up on the way down and cropped on the way up.

Shape letters: b batch, c channels, d width of e, h w spatial (one, two or three sizes).

References:
    Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), appendix H,
    https://arxiv.org/abs/2011.13456
    Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao et al., 2022), appendix C,
    https://arxiv.org/abs/2112.07804
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from modkit.nn.attention import attended
from modkit.nn.blocks import check_levels, conv, map_size, pyramid
from modkit.nn.embeddings import CondEmbedding, MapJoin, sinusoidal
from modkit.nn.mlp import squash
from modkit.nn.ncsnpp_blocks import Block, Halving, Head, Output, Path, Unit, cropped, scaled
from modkit.types import Cond, CondType, TensorType

__all__ = ["NCSNpp"]


class NCSNpp(nn.Module):
    """A conditional map between signals, images or volumes of one size, in the NCSN++ manner.

    Args:
        x: Type of the input: continuous maps.
        out: Type of the output, of x's size; any number of channels; a tanh maps to its range where it has one.
        cond: The conditions: noise modulates each norm, time, vector and labels are added in each block, a map stands
            beside x; tokens are refused.
        channels: Channels of each level, finest first; the resolution is halved between levels.
        blocks: Residual blocks a level on the way down; one more on the way up.
        attention: Resolutions (the largest side of a level's maps) at which to attend; the middle always does.
        fir: Whether to resample under the filter [1, 3, 3, 1], else by means of two and repetition.
        progressive_input: How the resampled input is added on the way down: through a convolution and on to the next
            level (`residual`), as itself (`skip`), or not at all.
        progressive: How the output is made: at the finest level (`none`), a sum over levels (`skip`), or from a path of
            its own (`residual`).
        mapping: Number of hidden layers between the noise's first and what modulates.
        style: Width of what the noise becomes.
        dropout: Share of the values dropped in each residual block.

    Raises:
        ValueError: If `x` is a vector or codes, `out` has another size, `cond` has a context, there is no level or
            block, a resolution is no level's, a width is below 1 or `mapping` negative, or a mode is unknown.
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
        fir: bool = True,
        progressive_input: Literal["none", "skip", "residual"] = "residual",
        progressive: Literal["none", "skip", "residual"] = "none",
        mapping: int = 3,
        style: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_levels("NCSNpp", channels, blocks)
        size = map_size("NCSNpp", x)
        paths: dict[str, Path] = {"progressive_input": progressive_input, "progressive": progressive}
        _check(out, size, cond, (style, mapping), paths)
        attends = attended("NCSNpp", pyramid(size, len(channels)), attention)
        rank = len(size)
        self.out = out
        self.embedding = _Embedding(cond, channels[0])
        self.mapping = _Mapping(cond.noise, style, mapping) if cond.noise else None

        def block(wide_in: int, wide: int, resample: Literal["down", "up"] | None = None) -> Block:
            width = self.embedding.width if self.embedding.embeds else None
            modulated = style if cond.noise else None
            return Block(rank, wide_in, wide, width=width, style=modulated, resample=resample, fir=fir, dropout=dropout)

        self.join = MapJoin(x, cond.concat, channels[0])
        self.conv_in = scaled(conv(rank, self.join.channels, channels[0]))
        self.down = nn.ModuleList()
        skips, wide_in, beside = [channels[0]], channels[0], self.join.channels
        for level, wide in enumerate(channels):
            if level:
                halving = block(wide_in, wide_in, "down")
                self.down.append(Halving(halving, rank, beside, wide_in, path=progressive_input, fir=fir))
                beside = wide_in if progressive_input == "residual" else beside
                skips.append(wide_in)
            for _ in range(blocks):
                self.down.append(Unit(block(wide_in, wide), wide, attends[level]))
                wide_in = wide
                skips.append(wide)
        self.middle = nn.ModuleList([Unit(block(wide, wide), wide, True), Unit(block(wide, wide), wide, False)])
        self.up = nn.ModuleList()
        coarser = None
        for level, wide in reversed(list(enumerate(channels))):
            for index in range(blocks + 1):
                attend = attends[level] and index == blocks
                self.up.append(Unit(block(wide_in + skips.pop(), wide), wide, attend))
                wide_in = wide
            if progressive == "skip" or (progressive == "residual" and len(channels) > 1):
                width = out.shape[0] if progressive == "skip" else wide
                self.up.append(Output(rank, wide, width, coarser, path=progressive, fir=fir))
                coarser = width
            if level:
                self.up.append(block(wide, wide, "up"))
        self.head = None if progressive == "skip" else Head(rank, wide_in, out.shape[0])

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        embedding = self.embedding(cond, x) if self.embedding.embeds else None
        style = None if self.mapping is None else self.mapping(cond.noise, x)
        beside = self.join(x, cond.concat)
        h = self.conv_in(beside)
        skips = [h]
        for module in self.down:
            if isinstance(module, Halving):
                h, beside = module(h, beside, embedding, style)
            else:
                h = module(h, embedding, style)
            skips.append(h)
        for module in self.middle:
            h = module(h, embedding, style)
        y = h
        for module in self.up:
            if isinstance(module, Unit):
                h = module(torch.cat([h, skips.pop()], dim=1), embedding, style)
            elif isinstance(module, Output):
                h, y = module(h, y)
            else:
                h = cropped(module(h, embedding, style), skips[-1])
        raw: Tensor = y if self.head is None else self.head(h)
        return squash(raw, self.out)


class _Embedding(nn.Module):
    """Time and what else has no positions, but for the noise, as one vector of four times the first channels."""

    def __init__(self, cond: CondType, channels: int) -> None:
        super().__init__()
        self.channels = channels + channels % 2
        self.width = 4 * channels
        self.embeds = bool(cond.time or cond.vector or cond.labels)
        self.time = (
            nn.Sequential(
                scaled(nn.Linear(self.channels, self.width)), nn.SiLU(), scaled(nn.Linear(self.width, self.width))
            )
            if cond.time
            else None
        )
        self.rest = CondEmbedding(replace(cond, time=False, noise=None), self.width)

    def forward(self, cond: Cond, x: Tensor) -> Tensor:
        """The embedding, `b d`."""
        e: Tensor = self.rest(cond, x)
        if self.time is None:
            return e
        if cond.time is None:
            raise ValueError("NCSNpp expects a Cond with `time`, as its type says, got None")
        e = e + self.time(sinusoidal(cond.time, self.channels).to(x.dtype))
        return e


class _Mapping(nn.Module):
    """The noise, divided by its root mean square, through a network."""

    def __init__(self, noise: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(depth + 1):
            layers += [scaled(nn.Linear(width if index else noise, width)), nn.SiLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor | None, x: Tensor) -> Tensor:
        """What modulates the norms, `b d`, of noise `b d`."""
        if noise is None:
            raise ValueError("NCSNpp expects a Cond with `noise`, as its type says, got None")
        noise = noise.to(x.dtype)
        w: Tensor = self.layers(noise * torch.rsqrt(noise.square().mean(1, keepdim=True) + 1e-8))
        return w


def _check(
    out: TensorType, size: tuple[int, ...], cond: CondType, widths: tuple[int, int], paths: dict[str, Path]
) -> None:
    if map_size("NCSNpp", out) != size:
        raise ValueError(f"NCSNpp expects out of x's size {size}, got {out.shape[1:]}")
    if cond.context is not None:
        raise ValueError(f"NCSNpp expects cond without context, got {cond}")
    style, mapping = widths
    if style < 1 or mapping < 0:
        raise ValueError(f"NCSNpp expects style >= 1 and mapping >= 0, got {style} and {mapping}")
    for name, path in paths.items():
        if path not in ("none", "skip", "residual"):
            raise ValueError(f"NCSNpp expects {name} to be none, skip or residual, got {path!r}")
