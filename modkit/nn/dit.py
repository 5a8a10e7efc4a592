r"""The diffusion transformer: a transformer over the patches of a signal, a picture or a volume.

    h   = W [x, concat] + b + positions        a row for each patch; positions are fixed, see `patches`
    h   = block_i(h, e, tokens)                for each block; e = SiLU(embedding of time, vector, noise and labels)
    out = W_out ((1 + s) LN(h) + m)            (m, s) = W e + b; a patch for each row

W_out is zero at first, and so are the blocks' residuals (adaLN-zero). As in DiT and SiT, the weights that embed times
and labels are N(0, .02^2); so that a label embedded by a conditioner enters as much, a vector of unit variance has a
deviation of .02 in e.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), n patches, d width.

References:
    Scalable Diffusion Models with Transformers (Peebles & Xie, 2023), https://arxiv.org/abs/2212.09748
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.blocks import get_map_size, init_xavier, zero_init
from modkit.nn.dit_block import DiTBlock, Modulation, make_norm
from modkit.nn.embeddings import CondEmbedding, MapJoin
from modkit.nn.patches import choose_patch, count_patches, embed_positions, join_patches, split_patches
from modkit.nn.taps import Tapped, Taps
from modkit.types import Cond, CondType, PositiveInt, Range, TensorType, checked

__all__ = ["DiT"]

_STD = 0.02  # of weights that embed conditions, at first


@checked
class DiT(Tapped):
    """A conditional transformer between signals, images or volumes of one size.

    Args:
        x: Type of the input: continuous maps.
        out: Type of the output, of x's size; any number of channels.
        cond: Type of the conditions. Time, vector, noise and labels modulate each block, tokens are attended to, and a
            map is joined to x.
        patch: Size of a patch along each axis, or one number for all; by default 2 along axes that 2 divides, and 1
            along others.
        width: Width of a position.
        depth: Number of blocks.
        heads: Number of attention heads.
        dropout: Probability of dropout of what each residual adds.

    Raises:
        ValueError: If `x` is a vector or codes, `out` has another size, `patch` has another number of axes or does not
            divide x's size, `heads` does not divide `width`, `width` is below twice the number of axes, `depth` is
            below 1, or `dropout` is outside [0, 1).

    Examples:
        >>> import torch
        >>> x = TensorType((3, 16, 16), range=(-1.0, 1.0))
        >>> net = DiT(x, x, CondType(time=True, labels=10), patch=4, width=32, depth=1)
        >>> cond = Cond(time=torch.tensor([0.1, 0.9]), labels=torch.tensor([3, 7]))
        >>> net(torch.zeros(2, 3, 16, 16), cond).shape
        torch.Size([2, 3, 16, 16])
    """

    positions: Tensor

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        patch: int | list[int] | None = None,
        width: int = 128,
        depth: PositiveInt = 6,
        heads: PositiveInt = 4,
        dropout: Annotated[float, Range(0, below=1)] = 0.0,
    ) -> None:
        super().__init__()
        size = get_map_size("DiT", x)
        if get_map_size("DiT", out) != size:
            raise ValueError(f"DiT expects out of x's size {size}, got {out.shape[1:]}")
        _check(len(size), width, heads)
        self.width, self.patch = width, choose_patch("DiT", size, patch)
        self.grid = count_patches("DiT", size, self.patch)
        self.join = MapJoin(x, cond.concat, width)
        self.embedding = _init_embedding(CondEmbedding(cond, width))
        modulated = width if self.embedding.embeds else 0
        context = cond.context[1] if cond.context else 0
        self.patch_in = init_xavier(nn.Linear(self.join.channels * math.prod(self.patch), width))
        self.register_buffer("positions", self._embed_positions(self.grid), persistent=False)
        self.blocks = nn.ModuleList(
            DiTBlock(width, heads=heads, embedding=modulated, context=context, dropout=dropout) for _ in range(depth)
        )
        self.norm = make_norm(width)
        self.modulation = Modulation(2, width, modulated)
        self.out = zero_init(nn.Linear(width, out.shape[0] * math.prod(self.patch)))

    @property
    def units(self) -> list[nn.Module]:
        """The blocks."""
        return list(self.blocks)

    @property
    def self_attention(self) -> list[nn.Module]:
        """The blocks' layers of self-attention."""
        return [block.get_submodule("attend") for block in self.blocks]

    @property
    def taps(self) -> Mapping[str, TensorType]:
        """The maps after each block, a position for each patch, by the blocks' names."""
        return {f"blocks.{index}": TensorType((self.width, *self.grid)) for index in range(len(self.blocks))}

    def run(self, x: Tensor, cond: Cond, taps: Taps) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size that the patch divides.

        What the blocks compute passes through `taps`, as maps.

        Raises:
            ValueError: If a condition of the type `cond` is missing, or the patch does not divide the size.
        """
        grid = count_patches("DiT", x.shape[2:], self.patch)
        positions = self.positions if grid == self.grid else self._embed_positions(grid)
        h: Tensor = self.patch_in(split_patches(self.join(x, cond.concat), self.patch)) + positions
        embedding = F.silu(self.embedding(cond, x))
        for index, block in enumerate(self.blocks):
            h = block(h, embedding, cond.context)
            if (name := f"blocks.{index}") in taps:
                one = (1,) * len(grid)
                h = split_patches(taps(name, join_patches(h, one, grid)), one)
        shift, scale = self.modulation(embedding)
        return join_patches(self.out(self.norm(h) * (1 + scale) + shift), self.patch, grid)

    def _embed_positions(self, grid: tuple[int, ...]) -> Tensor:
        return embed_positions(grid, self.width).to(self.patch_in.weight)


def _init_embedding(embedding: CondEmbedding) -> CondEmbedding:
    for layer in embedding.time or ():
        if isinstance(layer, nn.Linear):
            _init_normal(layer, _STD)
    if embedding.vector is not None:
        _init_normal(embedding.vector, _STD / math.sqrt(embedding.vector.in_features))
    if embedding.labels is not None:
        nn.init.normal_(embedding.labels.weight, std=_STD)
    return embedding


def _init_normal(layer: nn.Linear, std: float) -> None:
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)


def _check(rank: int, width: int, heads: int) -> None:
    if width < 2 * rank or width % heads:
        raise ValueError(f"DiT expects heads that divide a width of at least {2 * rank}, got {heads} and {width}")
