r"""The pyramid of a U-Net: units down and up, with skips, whatever the units are and however they resample.

    down    conv_in([x, concat]); each level's units, then a halving; every result is kept as a skip
    middle  unit with attention, unit without
    up      each level's units over [h, skip], one more than down, then a doubling
    out     conv_out(SiLU(norm(h))), zero at first

Sizes are rounded up on the way down and cropped to the skips on the way up, so any size will do.

Shape letters: b batch, c channels, d width of the embedding, h w spatial (one, two or three sizes).

References:
    U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., 2015),
    https://arxiv.org/abs/1505.04597
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), appendix B, https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import attended
from modkit.nn.blocks import check_levels, conv, map_size, pyramid, zero
from modkit.nn.embeddings import MapJoin
from modkit.types import Cond, CondType, TensorType

__all__ = ["UNetBody", "levels"]


def levels(
    owner: str, x: TensorType, out: TensorType, channels: Sequence[int], blocks: int, attention: Sequence[int]
) -> list[bool]:
    """Which levels attend, finest first.

    Raises:
        ValueError: If `x` is a vector or codes, `out` has another size, there is no level or block, or a resolution is
            no level's; it names `owner`.
    """
    check_levels(owner, channels, blocks)
    size = map_size(owner, x)
    if map_size(owner, out) != size:
        raise ValueError(f"{owner} expects out of x's size {size}, got {out.shape[1:]}")
    return attended(owner, pyramid(size, len(channels)), attention)


class UNetBody(nn.Module, ABC):
    """The pyramid, given what makes its units; `halves` and `doubles` tell which modules of `down` and `up` resample.

    Args:
        x: Type of the input: continuous maps.
        out: Type of the output, of x's size; any number of channels.
        cond: The conditions; a map stands beside x.
        channels: Channels of each level, finest first; the resolution is halved between levels.
        blocks: Units a level on the way down; one more on the way up.
        attends: Which levels attend.
        unit: Makes a unit of the channels of its input and of its output, and whether it attends; it is called with
            `b c h w`, the embedding and the context.
        halve: Makes of a number of channels what halves each size; `resampled` calls it.
        double: Makes of a number of channels what doubles each size; `resampled` calls it.
        norm: Makes the last norm of its number of channels.
    """

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        channels: Sequence[int],
        blocks: int,
        attends: Sequence[bool],
        unit: Callable[[int, int, bool], nn.Module],
        halve: Callable[[int], nn.Module],
        double: Callable[[int], nn.Module],
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        rank, stem = len(x.shape) - 1, channels[0]
        self.join = MapJoin(x, cond.concat, stem)
        self.conv_in = conv(rank, self.join.channels, stem)
        self.down = nn.ModuleList()
        halves = list[bool]()
        skips, wide_in = [stem], stem
        for level, wide in enumerate(channels):
            if level:
                self.down.append(halve(wide_in))
                halves.append(True)
                skips.append(wide_in)
            for _ in range(blocks):
                self.down.append(unit(wide_in, wide, attends[level]))
                halves.append(False)
                wide_in = wide
                skips.append(wide)
        self.middle = nn.ModuleList([unit(wide_in, wide_in, True), unit(wide_in, wide_in, False)])
        self.up = nn.ModuleList()
        doubles = list[bool]()
        for level, wide in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.up.append(unit(wide_in + skips.pop(), wide, attends[level]))
                doubles.append(False)
                wide_in = wide
            if level:
                self.up.append(double(wide))
                doubles.append(True)
        self.halves, self.doubles = tuple(halves), tuple(doubles)
        self.norm_out = norm(wide_in)
        self.conv_out = zero(conv(rank, wide_in, out.shape[0]))

    @abstractmethod
    def resampled(self, module: nn.Module, h: Tensor, embedding: Tensor | None, size: Sequence[int] | None) -> Tensor:
        """`h`, `b c h w`, halved or doubled by a module made for it; doubled, cropped to `size`."""

    def embedded(self, x: Tensor, cond: Cond, embedding: Tensor | None) -> Tensor:
        """The network at `x`, `b c h w` of any size, given what modulates its units, `b d`.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        h = self.conv_in(self.join(x, cond.concat))
        skips = [h]
        for module, resamples in zip(self.down, self.halves):
            h = self.resampled(module, h, embedding, None) if resamples else module(h, embedding, cond.context)
            skips.append(h)
        for module in self.middle:
            h = module(h, embedding, cond.context)
        for module, resamples in zip(self.up, self.doubles):
            if resamples:
                h = self.resampled(module, h, embedding, skips[-1].shape[2:])
            else:
                h = module(torch.cat([h, skips.pop()], dim=1), embedding, cond.context)
        y: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return y
