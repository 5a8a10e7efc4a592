r"""EDM2's U-Net, whose layers preserve magnitudes, so that neither activations nor weights grow during training.

    conv_in  over x, the map beside it and a channel of ones, which stands for all biases
    e        SiLU(sum of W waves(time), W vector, W noise, W labels)     waves: sqrt(2) cos(2 pi (f_i t + phi_i))
    block    y = conv_2(dropout(SiLU(conv_1(SiLU(x)) (1 + g W e))))
             down: x <- mix(x', y(x'), .3),  x' = norm(skip(x));   up: x <- mix(skip(x), y(x), .3)
    attend   x <- mix(x, W_o softmax(Q K^T / sqrt(d)) V, .3)             the vectors of Q, K and V have magnitude 1
    out      g conv_out(h)                                               all gains g are zero at first

All convolutions and matrices have rows of unit norm, and sums and concatenations are weighted (see `magnitude`). Where
the size changes, means over windows or repeated values go through a block. Skips, middle and sizes are those of every
U-Net here, see `unet_body`. In the paper, waves have frequencies from N(0, 1), for times ln(sigma) / 4; here they are
spread evenly on a logarithmic scale, from 2 to 1e-4 periods a unit of time, for these times and the indices of a table.
The waves of several times are concatenated.

Shape letters: b batch, c channels, d width (in patterns of heads: of a head), h w spatial (one, two or three sizes), n
positions or tokens.

References:
    Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), section 2 and appendix B,
    config G, https://arxiv.org/abs/2312.02696
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import attend, count_heads
from modkit.nn.blocks import Downsample, Upsample, broadcast
from modkit.nn.embeddings import require_condition, require_times
from modkit.nn.magnitude import UnitConv, activate, concatenate, mix, normalize, normalize_weights
from modkit.nn.unet_body import UNetBody, Unit, check_pyramid, expand_levels
from modkit.precision import widen
from modkit.types import Cond, CondType, PositiveInt, TensorType, checked

__all__ = ["EDM2UNet"]

_SHARE = 0.3  # of what a residual branch adds
_FASTEST, _SLOWEST = 2.0, 1e-4  # periods a unit of time


@checked
class EDM2UNet(UNetBody):
    """A conditional network between signals, images or volumes of one size, as in EDM2.

    It is meant for a large learning rate that falls, such as `adam` at 0.01 with the schedule `inverse-root`: `update`
    keeps the length of its weights, so that the rate says how far a step turns them. Weight decay would do nothing.

    Args:
        x: Type of the input: continuous maps, of about unit variance.
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
        >>> x = TensorType((3, 16, 16), range=(-1.0, 1.0))
        >>> net = EDM2UNet(x, x, CondType(time=True, labels=10), channels=[8, 16], blocks=1, attention=[8])
        >>> cond = Cond(time=torch.tensor([0.1, 0.9]), labels=torch.tensor([3, 7]))
        >>> net(torch.zeros(2, 3, 16, 16), cond).shape
        torch.Size([2, 3, 16, 16])
        >>> net.update()  # after each step of an optimizer, as training does
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
        head_channels: int = 64,
        embedding: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        levels, resolutions = expand_levels("EDM2UNet", x, channels, attention)
        attends = check_pyramid("EDM2UNet", x, out, levels, blocks, resolutions)
        rank, context = len(x.shape) - 1, cond.context[1] if cond.context else None
        made = _Embedding(cond, levels[0], embedding or 4 * levels[0])

        def unit(wide_in: int, wide: int, attend: bool, down: bool = False) -> Unit:
            block = _Block(rank, wide_in, wide, width=made.width if made.embeds else None, down=down, dropout=dropout)
            own = _Attention(wide, None, head_channels) if attend else None
            return Unit(block, own, _Attention(wide, context, head_channels) if attend and context else None)

        super().__init__(
            x,
            out,
            cond,
            channels=levels,
            blocks=blocks,
            attends=attends,
            unit=partial(unit, down=True),
            unit_up=unit,
            downsample=lambda wide: unit(wide, wide, False, True),
            upsample=lambda wide: unit(wide, wide, False),
            norm=None,
            conv_in=partial(_ConvIn, rank),
            conv_out=partial(_ConvOut, rank),
        )
        self.embedding = made
        self._halve, self._double = Downsample(rank, 0, learned=False), Upsample(rank, 0, learned=False)

    def update(self) -> None:
        """Gives its weights, which a step has lengthened, unit norm again; the function stays the same."""
        normalize_weights(self)

    def join_skip(self, h: Tensor, skip: Tensor) -> Tensor:
        """Joins a skip to `h`, both `b c h w`, each with the same weight."""
        return concatenate(h, skip)

    def resample(self, module: nn.Module, h: Tensor, embedding: Tensor | None, size: Sequence[int] | None) -> Tensor:
        """Averages windows of `h`, or repeats its values and crops them to a size; then evaluates a unit."""
        return module(self._halve(h) if size is None else self._double(h, size), embedding, None)


class _Embedding(nn.Module):
    """Embeds those of time, vector, noise and labels that `cond` has as one vector of magnitude 1."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, cond: CondType, waves: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.embeds = bool(cond.time or cond.vector or cond.noise or cond.labels)
        self.register_buffer("frequencies", torch.logspace(math.log10(_FASTEST), math.log10(_SLOWEST), waves))
        self.register_buffer("phases", torch.rand(waves))
        self.num_times = cond.time
        self.time = UnitConv(0, cond.time * waves, width) if cond.time else None
        self.vector = UnitConv(0, cond.vector, width) if cond.vector else None
        self.noise = UnitConv(0, cond.noise, width) if cond.noise else None
        self.labels = UnitConv(0, cond.labels + 1, width) if cond.labels else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Embedding:
        waves = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, wave in waves.items():
            moved = self.get_buffer(name)
            if wave is not None and moved.dtype.itemsize < 4:  # bfloat16 cannot represent times such as 999
                self._buffers[name] = wave.to(moved.device)
        return self

    def forward(self, cond: Cond, like: Tensor) -> Tensor:
        """Embeds `cond`, `b d`, in the dtype of `like`; zeros if there is nothing to embed."""
        terms = []
        if self.time is not None:
            time = widen(require_times(cond, self.num_times))[..., None]
            waves = math.sqrt(2) * torch.cos(2 * math.pi * (time * self.frequencies + self.phases))
            terms.append(self.time(waves.flatten(1).to(like.dtype)))
        if self.vector is not None:
            terms.append(self.vector(require_condition("vector", cond.vector).to(like.dtype)))
        if self.noise is not None:
            terms.append(self.noise(require_condition("noise", cond.noise).to(like.dtype)))
        if self.labels is not None:  # a one-hot vector of length N times sqrt(N) has magnitude 1
            table = self.labels.scale_rows(math.sqrt(self.labels.weight.shape[1])).mT
            terms.append(F.embedding(require_condition("labels", cond.labels), table))
        if not terms:
            return like.new_zeros(len(like), self.width)
        return activate(torch.stack([term.to(like.dtype) for term in terms]).sum(0) / math.sqrt(len(terms)))


class _ConvIn(nn.Module):
    """A convolution of a map and a channel of ones."""

    def __init__(self, rank: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = UnitConv(rank, channels + 1, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))


class _ConvOut(nn.Module):
    """A convolution, times a learned gain that is zero at first."""

    def __init__(self, rank: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = UnitConv(rank, channels, out_channels)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.gain)


class _Block(nn.Module):
    """A residual block, modulated by an embedding of a width if there is one."""

    def __init__(
        self, rank: int, channels: int, out_channels: int, *, width: int | None, down: bool, dropout: float
    ) -> None:
        super().__init__()
        self.normalizes = down
        self.skip = UnitConv(rank, channels, out_channels, kernel=1) if channels != out_channels else None
        self.conv_1 = UnitConv(rank, out_channels if down else channels, out_channels)
        self.conv_2 = UnitConv(rank, out_channels, out_channels)
        self.film = UnitConv(0, width, out_channels) if width else None
        if width:
            self.gain = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        if self.normalizes:
            x = normalize(x if self.skip is None else self.skip(x))
        y = self.conv_1(activate(x))
        if self.film is not None and embedding is not None:
            y = y * broadcast(1 + self.film(embedding, self.gain), y)
        y = self.conv_2(self.dropout(activate(y)))
        if not self.normalizes and self.skip is not None:
            x = self.skip(x)
        return mix(x, y, _SHARE)


class _Attention(nn.Module):
    """Cosine attention between the positions of a map, or from them to tokens of a width."""

    identity = False

    def __init__(self, channels: int, context: int | None, head_channels: int) -> None:
        super().__init__()
        self.heads, self.crosses = count_heads(channels, head_channels), context is not None
        self.query = UnitConv(0, channels, channels)
        self.key_value = UnitConv(0, context or channels, 2 * channels)
        self.out = UnitConv(0, channels, channels)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        positions = rearrange(x, "b c ... -> b (...) c").contiguous()
        tokens = require_condition("context", context).to(x.dtype) if self.crosses else positions
        query = rearrange(self.query(positions), "b n (heads d) -> b heads n d", heads=self.heads)
        key, value = rearrange(self.key_value(tokens), "b n (kv heads d) -> kv b heads n d", kv=2, heads=self.heads)
        query, key, value = (normalize(one, dim=-1) for one in (query, key, value))
        y = value if self.identity else attend(query, key, value)
        y = self.out(rearrange(y, "b heads n d -> b n (heads d)"))
        return mix(x, rearrange(y, "b n c -> b c n").reshape(x.shape), _SHARE)
