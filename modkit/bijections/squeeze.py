r"""Squeeze: a bijection of blocks of 2×2 positions, whose values become channels; the result has the shape of x again.

    y = unsqueeze(bijection(squeeze(x))),    squeeze: c h w -> 4c h/2 w/2

With `half`, the bijection changes the second half of those channels and the first stays as it is, to be noise already:
squeezes inside each other are a multi-scale flow.

References:
    Density Estimation Using Real NVP (Dinh et al., 2017), section 3.6 and eq. 13 to 16,
    https://arxiv.org/abs/1605.08803

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).
"""

from __future__ import annotations

from collections.abc import Iterable

from einops import rearrange
from torch import Tensor, nn

from modkit.bijections.channels import count_channels
from modkit.bijections.splits import Halves
from modkit.kinds import Bijection, BijectionExtras, Slot, default, read_extras
from modkit.models.passes import Passes
from modkit.nn.blocks import get_map_size
from modkit.types import Batch, Cond, CondType, TensorType

__all__ = ["Squeeze"]


class Squeeze(nn.Module):
    """Applies a bijection to blocks of 2×2 positions (2 of a signal, 2×2×2 of a volume) as channels.

    Args:
        x: Type of x: continuous maps of even sizes.
        cond: Conditions, which the bijection is given; a map keeps its size.
        bijection: The bijection of the squeezed maps.
        half: Whether it changes only the second half of their channels.

    Raises:
        ValueError: If x is a vector or codes, or has an odd size.

    Examples:
        >>> import torch
        >>> from modkit import use
        >>> from modkit.models import Flow
        >>> inner = use("squeeze", bijection="linear", half=True)
        >>> model = Flow(TensorType((1, 8, 8)), bijection=use("squeeze", bijection=inner))
        >>> model.bijection(torch.zeros(2, 1, 8, 8))[0].shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        *,
        bijection: Slot[Bijection] = default("coupling"),
        half: bool = False,
    ) -> None:
        super().__init__()
        size = get_map_size("Squeeze", x)
        if any(one % 2 for one in size):
            raise ValueError(f"Squeeze expects maps of even sizes, got {x}")
        squeezed = TensorType((count_channels("Squeeze", x) * 2 ** len(size), *(one // 2 for one in size)))
        self.split = Halves(squeezed, first=True) if half else None
        outer, inner = (" ".join(f"{axis}{i}" for i in range(len(size))) for axis in "sp")
        pairs = " ".join(f"(s{i} p{i})" for i in range(len(size)))
        self.patterns = f"b c {pairs}", f"b (c {inner}) {outer}"
        self.sizes = {f"p{i}": 2 for i in range(len(size))}
        self.bijection = bijection(x=self.split.changed if self.split else squeezed, cond=cond)

    def forward(self, x: Tensor, cond: Cond = Cond()) -> tuple[Tensor, Tensor]:
        """Computes y, `b c h w`, and log|det dy/dx|, `b`."""
        y, log_det = self.bijection(self._select(x), cond)
        return self._restore(x, y), log_det

    def inverse(self, y: Tensor, cond: Cond = Cond()) -> Tensor:
        """Computes the x that is mapped to `y`."""
        return self._restore(y, self.bijection.inverse(self._select(y), cond))

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Prepares the bijection with what reaches it."""
        if prepare := read_extras(self.bijection, BijectionExtras).prepare:
            prepare(Passes(lambda: (Batch(self._select(batch.tensor), {}, batch.cond) for batch in batches)))

    def _split_blocks(self, x: Tensor) -> Tensor:
        return rearrange(x, " -> ".join(self.patterns), **self.sizes)

    def _select(self, x: Tensor) -> Tensor:
        """Returns what the bijection maps."""
        squeezed = self._split_blocks(x)
        return self.split.select(squeezed) if self.split else squeezed

    def _restore(self, x: Tensor, changed: Tensor) -> Tensor:
        """Returns x with other values in the place of those that the bijection maps."""
        squeezed = self.split.merge(self._split_blocks(x), changed) if self.split else changed
        return rearrange(squeezed, " -> ".join(reversed(self.patterns)), **self.sizes)
