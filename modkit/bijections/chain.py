"""Chain: bijections one after another.

    y = f_n(... f_1(x)),    log|det dy/dx| = sum of theirs

A chain is a bijection, so chains of chains repeat several layers: Glow's step is one of `actnorm`, `linear` and
`coupling`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from modkit.kinds import Bijection, BijectionExtras, Slot, Unless, default, read_extras
from modkit.models.passes import Passes
from modkit.nn.trained import is_trained
from modkit.types import Batch, Cond, CondType, Range, TensorType, checked

__all__ = ["Chain"]


@checked
class Chain(nn.Module):
    """Composes bijections: several of one kind, or a list.

    Args:
        x: Type of x.
        cond: Conditions, which each of them is given.
        layer: The bijection that is repeated.
        depth: How often.
        layers: Bijections in place of the repeated one, in the order from x to y.

    Raises:
        ValueError: If there are none.

    Examples:
        >>> from modkit import use
        >>> from modkit.models import Flow
        >>> coupling = use("coupling", network=use("mlp", width=16))
        >>> step = use("chain", layers=["actnorm", "linear", coupling])
        >>> model = Flow(TensorType((4, 8, 8)), bijection=use("chain", layer=step, depth=2))
        >>> [len(list(one.list_layers())) for one in model.bijection.list_layers()]
        [3, 3]
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        *,
        layer: Annotated[Slot[Bijection], Unless("layers")] = default("coupling"),
        depth: Annotated[int, Unless("layers"), Range(1)] = 4,
        layers: list[Slot[Bijection]] | None = None,
    ) -> None:
        super().__init__()
        if layers == []:
            raise ValueError("Chain expects layers of one bijection or more, got none")
        slots, slot_name = (layer.repeat(depth), "layer") if layers is None else (layers, "layers")
        self._names = [f"{slot_name}[{index}]" for index in range(len(slots))]
        for name, slot in zip(self._names, slots):
            setattr(self, name, slot(x=x, cond=cond))  # kept at its path in the spec

    def forward(self, x: Tensor, cond: Cond = Cond()) -> tuple[Tensor, Tensor]:
        """Computes y, of the shape of x, and log|det dy/dx|, `b`."""
        gained = []
        for layer in self.list_layers():
            x, log_det = layer(x, cond)
            gained.append(log_det)
        return x, torch.stack(gained).sum(0)

    def inverse(self, y: Tensor, cond: Cond = Cond()) -> Tensor:
        """Computes the x that is mapped to `y`."""
        for layer in reversed(list(self.list_layers())):
            y = layer.inverse(y, cond)
        return y

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Prepares each bijection with what reaches it, after those before it."""
        for index, layer in enumerate(self.list_layers()):
            if (prepare := read_extras(layer, BijectionExtras).prepare) and not is_trained(layer):
                prepare(Passes(partial(map, partial(self._map_first, num=index), batches)))

    def list_layers(self) -> Iterator[Bijection]:
        """Yields the bijections, in the order from x to y."""
        return (getattr(self, name) for name in self._names)

    @torch.no_grad()
    def _map_first(self, batch: Batch, num: int) -> Batch:
        """Maps samples by the first `num` bijections."""
        x = batch.tensor
        for layer, _ in zip(self.list_layers(), range(num)):
            x = layer(x, batch.cond)[0]
        return Batch(x, {}, batch.cond)
