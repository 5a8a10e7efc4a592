r"""NCSN++: given noise, the generator of the denoising diffusion GAN; without noise, a plain denoiser.

    block    y = (skip(R x) + conv_1(drop(SiLU(N_1(conv_0(R SiLU(N_0(x))) + W SiLU(e)))))) / sqrt(2)
    N(h)     gamma(w) GN(h) + beta(w),   w = MLP(z / |z|_rms);   a learned gamma and beta if there is no z
    e        MLP(sin, cos of time) + the embedding of the other conditions

R resamples by two with the filter [1, 3, 3, 1], or is the identity. The blocks form a U-Net, `ncsnpp_body`, with
attention at chosen resolutions and in the middle. A tanh squashes the output into its range.

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

from modkit.nn.blocks import check_levels, get_map_size, init_xavier
from modkit.nn.embeddings import CondEmbedding, MapJoin, check_context, require_times, sinusoidal_embedding
from modkit.nn.ncsnpp_body import Body, Embedding
from modkit.types import Cond, CondType, NonNegativeInt, PositiveInt, TensorType, checked

__all__ = ["NCSNpp"]


@checked
class NCSNpp(Body):
    """A conditional network between signals, images or volumes of one size, as in NCSN++.

    Args:
        x: Type of the input: continuous maps.
        out: Type of the output, of x's size; any number of channels. If it has a range, a tanh maps the output to it.
        cond: Type of the conditions. Noise modulates each norm; time, vector and labels are added in each block; a map
            is joined to x. Tokens are not supported.
        channels: Channels of each level, finest first; the resolution is halved between levels.
        stem: Channels of the first map, a quarter of the embedding's width; those of the first level by default.
        blocks: Residual blocks per level on the way down; there is one more on the way up.
        attention: Resolutions (the largest side of a level's maps) at which to attend; the middle always attends.
        fir: Whether to resample with the filter [1, 3, 3, 1]; otherwise pairs are averaged and values repeated.
        progressive_input: How the downsampled input is added on the way down: through a convolution that also feeds the
            next level (`residual`), as it is (`skip`), or not at all (`none`).
        progressive: How the output is computed: from the finest level (`none`), as a sum over levels (`skip`), or from
            a separate path of features (`residual`).
        mapping: Number of hidden layers after the first in the network that maps the noise.
        style: Width of the mapped noise.
        dropout: Probability of dropout in each residual block.

    Raises:
        ValueError: If `x` is a vector or codes, `out` has another size, `cond` has a context, there is no level or
            block, a resolution belongs to no level, a width is below 1 or `mapping` negative, or a mode is unknown.

    Examples:
        >>> x = TensorType((3, 16, 16), range=(-1.0, 1.0))
        >>> net = NCSNpp(x, x, CondType(time=True, noise=4), channels=[8, 16], blocks=1, style=8)
        >>> cond = Cond(time=torch.tensor([0.5, 0.5]), noise=torch.zeros(2, 4))
        >>> net(torch.zeros(2, 3, 16, 16), cond).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        channels: list[PositiveInt] = [64, 128],  # noqa: B006
        stem: PositiveInt | None = None,
        blocks: PositiveInt = 2,
        attention: list[int] = [],  # noqa: B006
        fir: bool = True,
        progressive_input: Literal["none", "skip", "residual"] = "residual",
        progressive: Literal["none", "skip", "residual"] = "none",
        mapping: NonNegativeInt = 3,
        style: PositiveInt = 128,
        dropout: float = 0.0,
    ) -> None:
        check_levels("NCSNpp", channels)
        size = get_map_size("NCSNpp", x)
        stem = channels[0] if stem is None else stem
        _check(out, size, cond)
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
    """Embeds the time, the vector and the labels as one vector, four times as wide as the first map."""

    def __init__(self, cond: CondType, channels: int) -> None:
        super().__init__()
        self.channels = channels + channels % 2
        self.width = 4 * channels
        self.embeds = bool(cond.time or cond.vector or cond.labels)
        self.num_times = cond.time
        self.time = _make_time_mlp(cond.time * self.channels, self.width) if cond.time else None
        self.rest = CondEmbedding(replace(cond, time=0, noise=None), self.width)

    def forward(self, cond: Cond, x: Tensor) -> Tensor:
        """Computes the embedding, `b d`."""
        e: Tensor = self.rest(cond, x)
        if self.time is None:
            return e
        waves = sinusoidal_embedding(require_times(cond, self.num_times), self.channels)
        e = e + self.time(waves.flatten(1).to(x.dtype))
        return e


class _Mapping(nn.Module):
    """Divides the noise by its root mean square and maps it by a fully connected network."""

    def __init__(self, noise: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(depth + 1):
            layers += [init_xavier(nn.Linear(width if index else noise, width)), nn.SiLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor | None, x: Tensor) -> Tensor:
        """Computes the vector that modulates the norms, `b style`, from noise, `b noise`."""
        if noise is None:
            raise ValueError("NCSNpp expects a Cond with `noise`, as its type says, got None")
        noise = noise.to(x.dtype)
        return self.layers(noise * torch.rsqrt(noise.square().mean(1, keepdim=True) + 1e-8))


def _make_time_mlp(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(init_xavier(nn.Linear(channels, width)), nn.SiLU(), init_xavier(nn.Linear(width, width)))


def _check(out: TensorType, size: tuple[int, ...], cond: CondType) -> None:
    if get_map_size("NCSNpp", out) != size:
        raise ValueError(f"NCSNpp expects out of x's size {size}, got {out.shape[1:]}")
    check_context("NCSNpp", cond)
