r"""The body of a U-Net, independent of its units and its resampling.

    down    conv_in([x, concat]); each level's units, then a downsampling; every result is kept as a skip
    middle  unit with attention, unit without
    up      each level's units over [h, skip], one more than down, then an upsampling
    out     conv_out(SiLU(norm(h))), zero at first; without a norm, conv_out(h)

Sizes are rounded up on the way down and cropped to those of the skips on the way up, so maps of any size are accepted.

Shape letters: b batch, c channels, d width of the embedding, h w spatial (one, two or three sizes).

References:
    U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., 2015),
    https://arxiv.org/abs/1505.04597
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), appendix B, https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from modkit.nn.attention import find_attention_levels, find_self_attention
from modkit.nn.blocks import check_levels, conv, get_map_size, make_pyramid, zero_init
from modkit.nn.embeddings import MapJoin
from modkit.nn.taps import UNTAPPED, Tapped, Taps
from modkit.ops.group_norm import normalize_silu
from modkit.types import Cond, CondType, TensorType

__all__ = ["UNetBody", "UShape", "Unit", "check_pyramid", "expand_levels"]

_COARSEST = 8  # at most, along the shortest side
_ATTENDS = 16  # at most, along the longest side


def expand_levels(
    owner: str, x: TensorType, channels: int | Sequence[int], attention: Sequence[int] | None
) -> tuple[list[int], list[int]]:
    """Chooses the levels of a U-Net and the resolutions at which it attends, where the user leaves them to x's size.

    Args:
        owner: Name of the network, for error messages.
        x: Type of the input.
        channels: Channels of each level, finest first; or those of the finest one, of which the others have twice as
            many, down to a shortest side of 4 to 8.
        attention: The resolutions, or None: levels of a number of channels attend where their longest side is at most
            16, others do not.

    Raises:
        ValueError: If `x` is no map.

    Examples:
        >>> expand_levels("UNet", TensorType((3, 32, 32)), 64, None)
        ([64, 128, 128], [16, 8])
        >>> expand_levels("UNet", TensorType((3, 32, 32)), [64, 128], None)
        ([64, 128], [])
    """
    if not isinstance(channels, int):
        return list(channels), list(attention or ())
    sizes = [get_map_size(owner, x)]
    while min(sizes[-1]) > _COARSEST:
        sizes = make_pyramid(sizes[0], len(sizes) + 1)
    small = [max(size) for size in sizes if max(size) <= _ATTENDS]
    return [channels] + [2 * channels] * (len(sizes) - 1), small if attention is None else list(attention)


def check_pyramid(
    owner: str, x: TensorType, out: TensorType, channels: Sequence[int], blocks: int, attention: Sequence[int]
) -> list[bool]:
    """Checks the types and levels of a U-Net and determines which levels attend, finest first.

    Raises:
        ValueError: If `x` is a vector or codes, `out` has another size, there is no level or block, or a resolution
            belongs to no level. The message names `owner`.
    """
    check_levels(owner, channels)
    size = get_map_size(owner, x)
    if get_map_size(owner, out) != size:
        raise ValueError(f"{owner} expects out of x's size {size}, got {out.shape[1:]}")
    return find_attention_levels(owner, make_pyramid(size, len(channels)), attention)


class UShape(Tapped):
    """A network with modules on the way down, in the middle and on the way up, and the types of what they compute."""

    down: nn.ModuleList
    middle: nn.ModuleList
    up: nn.ModuleList
    maps: dict[str, TensorType]

    @property
    def taps(self) -> Mapping[str, TensorType]:
        """The maps after each module on the way down, in the middle and on the way up, by the modules' names."""
        return self.maps

    @property
    def units(self) -> list[nn.Module]:
        """The modules on the way down, in the middle and on the way up."""
        return [*self.down, *self.middle, *self.up]

    @property
    def self_attention(self) -> list[nn.Module]:
        """The layers of self-attention."""
        return find_self_attention(self)

    @property
    def middle_attention(self) -> int:
        """The index of the layer in the middle, which follows the ones on the way down."""
        return len(find_self_attention(self.down))


class Unit(nn.Module):
    """A residual block, followed by self-attention and cross-attention if its level attends.

    Args:
        block: The block.
        attend: The self-attention, or None.
        cross: The cross-attention, or None.
    """

    def __init__(self, block: nn.Module, attend: nn.Module | None, cross: nn.Module | None) -> None:
        super().__init__()
        self.block = block
        self.attend = attend
        self.cross = cross

    def forward(self, x: Tensor, embedding: Tensor | None, context: Tensor | None) -> Tensor:
        """Maps `b c h w`, modulated by `embedding`, `b d`, and attending to `context`, `b n d`, if it was built so."""
        x = self.block(x, embedding)
        if self.attend is not None:
            x = self.attend(x)
        return x if self.cross is None else self.cross(x, context)


class UNetBody(UShape):
    """The U-Net, given factories of its units and resampling modules; the arguments not listed are those of `UNet`.

    `downsamples` and `upsamples` tell for each module of `down` and `up` whether it resamples; `maps` has the types of
    what the modules compute, by their names. A subclass sets the module `embedding`, or has an `embed` of its own.

    Args:
        attends: Whether each level attends.
        unit: Creates a unit from the channels of its input, the channels of its output, and whether it attends. The
            unit is called with `b c h w`, the embedding and the context.
        unit_up: Creates the units in the middle and on the way up, if they are others.
        downsample: Creates a module that halves each size from the number of channels; `resample` calls it.
        upsample: Creates a module that doubles each size from the number of channels; `resample` calls it.
        norm: Creates the last norm from the number of channels; None if there is none.
        conv_in: Creates the first layer from the channels of its input and of its output; by default, a convolution.
        conv_out: Creates the last layer likewise; by default, a convolution that is zero at first.
    """

    embedding: nn.Module

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
        downsample: Callable[[int], nn.Module],
        upsample: Callable[[int], nn.Module],
        norm: Callable[[int], nn.GroupNorm] | None,
        unit_up: Callable[[int, int, bool], nn.Module] | None = None,
        conv_in: Callable[[int, int], nn.Module] | None = None,
        conv_out: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        rank, stem = len(x.shape) - 1, channels[0]
        sizes = make_pyramid(x.shape[1:], len(channels))
        self.maps = {}
        self.join = MapJoin(x, cond.concat, stem)
        self.conv_in = (conv_in or partial(conv, rank))(self.join.channels, stem)
        self.down = nn.ModuleList()
        downsamples = list[bool]()
        skips, wide_in = [stem], stem
        for level, wide in enumerate(channels):
            if level:
                self.down.append(downsample(wide_in))
                self.maps[f"down.{len(downsamples)}"] = TensorType((wide_in, *sizes[level]))
                downsamples.append(True)
                skips.append(wide_in)
            for _ in range(blocks):
                self.down.append(unit(wide_in, wide, attends[level]))
                self.maps[f"down.{len(downsamples)}"] = TensorType((wide, *sizes[level]))
                downsamples.append(False)
                wide_in = wide
                skips.append(wide)
        unit = unit_up or unit
        self.middle = nn.ModuleList([unit(wide_in, wide_in, True), unit(wide_in, wide_in, False)])
        self.maps |= {f"middle.{index}": TensorType((wide_in, *sizes[-1])) for index in range(2)}
        self.up = nn.ModuleList()
        upsamples = list[bool]()
        for level, wide in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.up.append(unit(wide_in + skips.pop(), wide, attends[level]))
                self.maps[f"up.{len(upsamples)}"] = TensorType((wide, *sizes[level]))
                upsamples.append(False)
                wide_in = wide
            if level:
                self.up.append(upsample(wide))
                self.maps[f"up.{len(upsamples)}"] = TensorType((wide, *sizes[level - 1]))
                upsamples.append(True)
        self.downsamples, self.upsamples = tuple(downsamples), tuple(upsamples)
        self.norm_out = norm(wide_in) if norm else None
        self.conv_out = conv_out(wide_in, out.shape[0]) if conv_out else zero_init(conv(rank, wide_in, out.shape[0]))

    @abstractmethod
    def resample(self, module: nn.Module, h: Tensor, embedding: Tensor | None, size: Sequence[int] | None) -> Tensor:
        """Downsamples `h`, `b c h w`, by `module` or, given a `size`, upsamples it and crops to `size`."""

    def embed(self, cond: Cond, x: Tensor) -> Tensor | None:
        """Computes the vector that modulates the units, `b d`, by the module `embedding`."""
        return self.embedding(cond, x)

    def join_skip(self, h: Tensor, skip: Tensor) -> Tensor:
        """Joins a skip to `h`, both `b c h w`, as further channels."""
        return torch.cat([h, skip], dim=1)

    def run(self, x: Tensor, cond: Cond, taps: Taps) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size, given only conditions."""
        return self.evaluate(x, cond, self.embed(cond, x), taps)

    def evaluate(self, x: Tensor, cond: Cond, embedding: Tensor | None, taps: Taps = UNTAPPED) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size, given the vector that modulates its units, `b d`.

        What the modules compute passes through `taps`, under the names of `maps`.

        Raises:
            ValueError: If a condition of the type `cond` is missing.
        """
        h = self.conv_in(self.join(x, cond.concat))
        skips = [h]
        for index, (module, resamples) in enumerate(zip(self.down, self.downsamples)):
            h = self.resample(module, h, embedding, None) if resamples else module(h, embedding, cond.context)
            h = taps(f"down.{index}", h)
            skips.append(h)
        for index, module in enumerate(self.middle):
            h = taps(f"middle.{index}", module(h, embedding, cond.context))
        for index, (module, resamples) in enumerate(zip(self.up, self.upsamples)):
            if resamples:
                h = self.resample(module, h, embedding, skips[-1].shape[2:])
            else:
                h = module(self.join_skip(h, skips.pop()), embedding, cond.context)
            h = taps(f"up.{index}", h)
        return self.conv_out(h if self.norm_out is None else normalize_silu(self.norm_out, h))
