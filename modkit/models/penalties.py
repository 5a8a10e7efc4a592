"""The penalties of an assembly: the regularizers in its slot, each computed in the turn of its side.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from modkit.kinds import Regularizer, RegularizerExtras, Round, Slot, Step, Unfit, read_extras
from modkit.nn.compiled import run_uncompiled
from modkit.precision import disable_autocast, widen
from modkit.types import Cond, Event

__all__ = ["Penalties"]


class _Owner(Protocol):
    @property
    def event(self) -> Event: ...


class Penalties(nn.Module):
    """The regularizers of an assembly, which keeps them in its attribute `penalties`.

    `.parts` has them by the names of their terms; those with state are children.

    Args:
        owner: The assembly, whose event they are of, and which messages name; or a critic of it.
        slots: The factories in its slot `regularizers`, by the names of their terms.
        offers: The members of `Round` that the assembly gives, by the sides that it has.

    Raises:
        Unfit: If a penalty is one on a side that the assembly does not have, or needs a member that it does not give.

    Examples:
        >>> import torch
        >>> from modkit import Cond, Rng, StepContext, TensorType
        >>> from modkit.models import GAN
        >>> penalties = GAN(TensorType((2,)), regularizers={"r1": "r1"}).penalties
        >>> step = StepContext(Rng(0))
        >>> penalties.is_due("discriminator", step), penalties.is_due("generator", step)
        (True, False)
        >>> round = Round(torch.zeros(4, 2), Cond(), step.rng, critic=lambda x, cond: 3 * x.sum(1))
        >>> penalties.compute("discriminator", step, round)
        {'r1': tensor(9.)}
    """

    def __init__(
        self, owner: _Owner, slots: Mapping[str, Slot[Regularizer]] | None, offers: Mapping[str, Sequence[str]]
    ) -> None:
        super().__init__()
        self.parts = {name: make(x=owner.event) for name, make in (slots or {}).items()}
        for name, part in self.parts.items():
            extras = read_extras(part, RegularizerExtras)
            who, given = type(part).__name__, f"{type(owner).__name__} as it is composed here"
            if extras.side not in offers:
                reason = f"{who} is a penalty on the side `{extras.side}`, expected {' or '.join(offers)} of {given}"
                raise Unfit(f"regularizers.{name}", reason)
            if missing := [one for one in extras.needs if one not in offers[extras.side]]:
                received = f"got {', '.join(offers[extras.side])} of {given}"
                raise Unfit(f"regularizers.{name}", f"{who} needs `{'`, `'.join(missing)}` of a round, {received}")
            if isinstance(part, nn.Module):
                self.add_module(name, part)

    def list_modules(self, side: str) -> tuple[str, ...]:
        """Lists the paths in the assembly of those on a side that have state, for `Player.modules`."""
        return tuple(f"penalties.{name}" for name, part in self._select(side).items() if isinstance(part, nn.Module))

    def is_due(self, side: str, step: Step) -> bool:
        """Whether any penalty on a side is to be computed at a step."""
        return any(map(step.wants, self._select(side)))

    def compute(self, side: str, step: Step, round: Round) -> dict[str, Tensor]:
        """Computes the penalties on a side that are due, by the names of their terms; each has draws of its own.

        Neither compiled code nor fused attention can be differentiated twice, so networks run without them. Autocast
        rounds the gradients that are penalized to its narrow type, so networks run without it, and a penalty is that of
        float32.
        """
        due = {name: part for name, part in self._select(side).items() if step.wants(name)}
        if not due:
            return {}
        with run_uncompiled(), sdpa_kernel(SDPBackend.MATH), disable_autocast(round.real.device):
            values = {name: _widen(getattr(round, name)) for name in ("real", "cond", "fake", "z", "beside")}
            round = replace(round, **values)
            return {name: part(replace(round, rng=round.rng.at(name), step=step)) for name, part in due.items()}

    def update(self, side: str, step: Step) -> None:
        """Updates the penalties on a side that were computed in its turn."""
        for name, part in self._select(side).items():
            update = read_extras(part, RegularizerExtras).update
            if update and step.wants(name):
                update(step)

    def _select(self, side: str) -> dict[str, Regularizer]:
        return {name: one for name, one in self.parts.items() if read_extras(one, RegularizerExtras).side == side}


def _widen(value: Any) -> Any:
    """Widens floating-point tensors, also in conditions and tuples; anything else stays as it is."""
    if isinstance(value, tuple):
        return tuple(map(_widen, value))
    if isinstance(value, Cond):
        return value.map(_widen)
    return widen(value) if isinstance(value, Tensor) and value.is_floating_point() else value
