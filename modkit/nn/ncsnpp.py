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

from modkit.nn.blocks import check_levels, map_size
from modkit.nn.embeddings import CondEmbedding, MapJoin, sinusoidal
from modkit.nn.ncsnpp_blocks import scaled
from modkit.nn.ncsnpp_body import Body, Embedding
from modkit.types import Cond, CondType, TensorType

__all__ = ["NCSNpp"]


class NCSNpp(Body):
    """A conditional map between signals, images or volumes of one size, in the NCSN++ manner.

    Args:
        x: Type of the input: continuous maps.
        out: Type of the output, of x's size; any number of channels; a tanh maps to its range where it has one.
        cond: The conditions: noise modulates each norm, time, vector and labels are added in each block, a map stands
            beside x; tokens are refused.
        channels: Channels of each level, finest first; the resolution is halved between levels.
        stem: Channels of the first map, a quarter of the embedding's width; None: those of the first level.
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
        stem: int | None = None,
        blocks: int = 2,
        attention: list[int] = [],  # noqa: B006
        fir: bool = True,
        progressive_input: Literal["none", "skip", "residual"] = "residual",
        progressive: Literal["none", "skip", "residual"] = "none",
        mapping: int = 3,
        style: int = 128,
        dropout: float = 0.0,
    ) -> None:
        check_levels("NCSNpp", channels, blocks)
        size = map_size("NCSNpp", x)
        stem = channels[0] if stem is None else stem
        _check(out, size, cond, {"stem": stem, "style": style}, mapping)
        super().__init__(
            size,
            out,
            embedding=_Embedding(cond, stem),
            mapping=_Mapping(cond.noise, style, mapping) if cond.noise else None,
            join=MapJoin(x, cond.concat, stem),
            channels=channels,
            stem=stem,
            blocks=blocks,
            attention=attention,
            fir=fir,
            progressive_input=progressive_input,
            progressive=progressive,
            style=style if cond.noise else None,
            dropout=dropout,
        )


class _Embedding(Embedding):
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


def _check(out: TensorType, size: tuple[int, ...], cond: CondType, widths: dict[str, int], mapping: int) -> None:
    if map_size("NCSNpp", out) != size:
        raise ValueError(f"NCSNpp expects out of x's size {size}, got {out.shape[1:]}")
    if cond.context is not None:
        raise ValueError(f"NCSNpp expects cond without context, got {cond}")
    for name, width in widths.items():
        if width < 1:
            raise ValueError(f"NCSNpp expects {name} of at least 1, got {width}")
    if mapping < 0:
        raise ValueError(f"NCSNpp expects mapping of at least 0, got {mapping}")
