"""Aggregate: a judge of the latents of a batch as a whole, by which q(z), the mean of q(z | x) over the data, is known.

Shape letters: b batch, d values of the decoder's input, over all levels of a hierarchy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from modkit.kinds import Round, Step
from modkit.precision import disable_autocast, widen
from modkit.types import Value

__all__ = ["Aggregate", "Gather", "read_rows"]

Gather: TypeAlias = Annotated[
    bool,
    "Whether it is computed over the latents of all processes, as one process would, or by each process over its own.",
]


class Aggregate:
    """A penalty that is called with rows, `b d`, of what it `needs` of a round: `z`, `prior`, or `moments`.

    Args:
        name: The name of its term.
        gather: Whether it is given the rows of all processes.
    """

    across = True
    latent = True
    needs: tuple[str, ...] = ()
    __call__: Callable[..., Tensor]

    def __init__(self, name: str, *, gather: Gather = True) -> None:
        self.name, self.gather = name, gather

    def losses(self, round: Round, step: Step) -> Mapping[str, Tensor]:
        """Computes the penalty in at least float32; gradients flow to all but the prior's draws."""
        if not step.wants(self.name):
            return {}
        rows = read_rows(round, self.needs, step if self.gather and step.training else None)
        with disable_autocast(rows[0].device):
            return {self.name: self(*rows)}


def read_rows(round: Round, names: Sequence[str], step: Step | None = None) -> tuple[Tensor, ...]:
    """Reads latents of a round, each flattened to `b d`, in at least float32.

    Args:
        round: The round.
        names: Which: `z`, `prior` (as many draws of it), `moments` (the means, and the deviations, of q(z | x)).
        step: The step, at which the rows of all processes are gathered; None for only this process's.

    Examples:
        >>> from modkit import Cond, Rng
        >>> round = Round(torch.zeros(3, 2), Cond(), Rng(0), z=torch.ones(3, 2, 2))
        >>> read_rows(round, ["z"])[0].shape
        torch.Size([3, 4])
    """
    reads: dict[str, Callable[[], tuple[Value, ...]]] = {
        "z": lambda: (round.z,),
        "prior": lambda: (round.prior(round.rng),),
        "moments": lambda: round.moments(),
    }
    rows = [_flatten(one) for name in names for one in reads[name]()]
    return step.gather(torch.cat(rows, 1)).chunk(len(rows), 1) if step else tuple(rows)


def _flatten(z: Value) -> Tensor:
    return torch.cat([widen(level.flatten(1)) for level in (z if isinstance(z, tuple) else (z,))], 1)
