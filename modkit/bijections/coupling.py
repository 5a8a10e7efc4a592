r"""Coupling: half of the values are changed given the other half, and then the other way round.

    y_b = transform(x_b; network_1(x_a, cond)),    y_a = transform(x_a; network_2(y_b, cond))
    log|det dy/dx| = sum log transform'

The Jacobian of each half is triangular, and the inverse takes as long as the map itself. Both halves are changed, so
that couplings can follow each other without a permutation.

References:
    Density Estimation Using Real NVP (Dinh et al., 2017), eq. 7 to 9 and section 3.5, https://arxiv.org/abs/1605.08803
    Neural Spline Flows (Durkan et al., 2019), section 3.1, https://arxiv.org/abs/1906.04032

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from modkit.bijections.channels import count_channels
from modkit.bijections.splits import Checkerboard, Halves
from modkit.bijections.transforms import Bins, Bound, TransformName, make_transform
from modkit.kinds import Network, Slot, default
from modkit.precision import widen
from modkit.types import Cond, CondType, TensorType, checked

__all__ = ["Coupling"]


@checked
class Coupling(nn.Module):
    """Two affine or spline couplings, which change complementary halves of x.

    Args:
        x: Type of x, continuous, of two or more values.
        cond: Conditions, which the networks are given.
        network: Computes the parameters of the transform from the values that are kept.
        split: Halves of the channels (or of a vector), or a checkerboard of positions; by default `halves` where there
            are two or more channels.

    Raises:
        ValueError: If x holds codes, has a single value or, for `halves`, a single channel, or a choice is unknown.

    Examples:
        >>> from modkit import use
        >>> from modkit.models import Flow
        >>> model = Flow(TensorType((2,)), bijection=use("coupling", network=use("mlp", width=16)))
        >>> y, log_det = model.bijection(torch.ones(3, 2))
        >>> y.tolist()[0], log_det.shape
        ([1.0, 1.0], torch.Size([3]))
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        *,
        network: Slot[Network] = default("mlp"),
        transform: TransformName = "affine",
        split: Literal["halves", "checkerboard"] | None = None,
        bins: Bins = 8,
        bound: Bound = 4.0,
    ) -> None:
        super().__init__()
        channels = count_channels("Coupling", x)
        split = split or ("halves" if channels > 1 else "checkerboard")
        if split == "halves":
            count_channels("Coupling with the split `halves`", x, least=2)
        elif x.numel // (channels if len(x.shape) > 1 else 1) < 2:
            raise ValueError(f"Coupling expects x with two or more positions to split, got {x}")
        self.transform = make_transform(transform, bins, bound)
        splits = [Halves(x, first=one) if split == "halves" else Checkerboard(x, even=one) for one in (True, False)]
        self.splits = nn.ModuleList(splits)
        for index, (part, make) in enumerate(zip(splits, network.repeat(2))):
            wide, *size = part.changed.shape
            out = replace(part.changed, shape=(wide * self.transform.num, *size))
            setattr(self, f"network[{index}]", make(x=part.kept, out=out, cond=cond))  # kept at its path in the spec

    def forward(self, x: Tensor, cond: Cond = Cond()) -> tuple[Tensor, Tensor]:
        """Computes y, `b c h w`, and log|det dy/dx|, `b`."""
        y, log_det = widen(x), widen(x).new_zeros(len(x))
        for split, network in self._list_halves():
            changed, log_slope = self.transform.forward(split.select(y), self._run(split, network, y, x, cond))
            y, log_slope = split.merge(y, changed), split.merge(torch.zeros_like(y), log_slope)
            log_det = log_det + log_slope.flatten(1).sum(1)
        return y.to(x.dtype), log_det

    def inverse(self, y: Tensor, cond: Cond = Cond()) -> Tensor:
        """Computes the x that is mapped to `y`."""
        x = widen(y)
        for split, network in reversed(list(self._list_halves())):
            x = split.merge(x, self.transform.inverse(split.select(x), self._run(split, network, x, y, cond)))
        return x.to(y.dtype)

    def _list_halves(self) -> Iterator[tuple[Halves | Checkerboard, Network]]:
        for index, split in enumerate(self.splits):
            yield split, getattr(self, f"network[{index}]")  # type: ignore[misc]  # of a ModuleList

    def _run(self, split: Halves | Checkerboard, network: Network, y: Tensor, like: Tensor, cond: Cond) -> Tensor:
        """Computes the parameters of the values that are changed, `b c h w num`."""
        out = network(split.keep(y).to(like.dtype), cond)
        return rearrange(widen(out), "b (c n) ... -> b c ... n", n=self.transform.num)
