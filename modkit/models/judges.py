"""The judges in a Model's slot: their players, and the losses of both sides.

Shape letters: b batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from torch import Tensor, nn

from modkit.kinds import Conditioner, Judge, JudgeExtras, Note, Round, Slot, Step, Unfit, read_extras
from modkit.models.player import Player
from modkit.types import Batch

__all__ = ["Judges"]


class Judges(nn.Module):
    """The judges of a Model, which keeps them in its attribute `judges`.

    `.parts` has them by name; those with state are children. `.conditioners` has those that judges train in place of
    the Model's. `.needs` names the members of `Round` that any of them uses.

    Args:
        slots: The factories in the slot, by name.
        types: The types that they are given, by the names of the kind; `repeat` is called with the path in the Model at
            which a judge's conditioner is kept.
        offers: The members of `Round` that the Model gives, each with None, or with the reason why it is not there.

    Raises:
        Unfit: If a judge needs a member that is not there, or its name cannot be one.

    Examples:
        >>> import torch
        >>> from modkit import Cond, Rng, StepContext
        >>> from modkit.judges import MMD
        >>> judges = Judges({"mmd": lambda name, **types: MMD(name)}, {}, {"z": None, "prior": None})
        >>> round = Round(torch.zeros(4, 2), Cond(), Rng(0), z=torch.ones(4, 2), prior=lambda rng: torch.zeros(4, 2))
        >>> list(judges.compute(round, StepContext(Rng(0)), 2)), sorted(judges.needs)
        (['mmd'], ['prior', 'z'])
    """

    def __init__(
        self, slots: Mapping[str, Slot[Judge]] | None, types: Mapping[str, Any], offers: Mapping[str, str | None]
    ) -> None:
        super().__init__()
        self.parts: dict[str, Judge] = {}
        self.conditioners = nn.ModuleDict()
        for name, make in (slots or {}).items():
            if "." in name or hasattr(self, name):
                raise Unfit(f"judges.{name}", "expected a name without a dot that is no attribute of its container's")
            given = {**types, "repeat": partial(self._repeat, name, types.get("repeat"))}
            self.parts[name] = part = make(name=name, **given)
            for need in read_extras(part, JudgeExtras).needs:
                if reason := offers.get(need, f"expected one of {', '.join(offers)}"):
                    raise Unfit(f"judges.{name}", f"{type(part).__name__} needs `{need}` of a round: {reason}")
            if isinstance(part, nn.Module):
                self.add_module(name, part)
        self._extras = {name: read_extras(part, JudgeExtras) for name, part in self.parts.items()}
        self.needs = frozenset(need for one in self._extras.values() for need in one.needs)

    def players(self) -> tuple[Player, ...]:
        """The judges that play."""
        playing = [(name, one.start) for name, one in self._extras.items() if one.play]
        return tuple(Player(name, self._list_modules(name), start=start) for name, start in playing)

    @property
    def replacing(self) -> str | None:
        """The judge that compares in place of `nll`."""
        return next((name for name, one in self._extras.items() if one.replaces), None)

    def replace(self, round: Round) -> Mapping[str, Tensor]:
        """Compares samples with what was made of them by that judge, in nats per sample, by term."""
        name = self.replacing
        compare = self._extras[name].replaces if name else None
        assert name and compare, "asked for only where there is one"
        return compare(self._show(name, round))

    def list_modules(self) -> tuple[str, ...]:
        """Lists the paths in the Model of the judges with state that do not play, for `Player.modules`."""
        return tuple(path for name, one in self._extras.items() if not one.play for path in self._list_modules(name))

    def compute(self, round: Round, step: Step, num_values: int) -> dict[str, Tensor]:
        """Computes the losses of what is judged, by term.

        Args:
            round: The turn.
            step: The step.
            num_values: The number of values of x, by which losses in nats per sample are divided.
        """
        losses: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            own = part.losses(self._show(name, round), step)
            losses |= {term: one / num_values for term, one in own.items()} if self._extras[name].latent else own
        return losses

    def play(self, player: str, round: Round, step: Step) -> dict[str, Tensor]:
        """Computes the losses of a judge that plays.

        Raises:
            ValueError: If there is no such judge.
        """
        return dict(self._find(player)(self._show(player, round), step))

    def read_needs(self, player: str) -> tuple[str, ...]:
        """The members of `Round` that a judge that plays uses."""
        self._find(player)
        return self._extras[player].needs

    def prepare(self, player: str, batches: Iterable[Batch]) -> None:
        """Prepares a judge that plays, or the others in the turn of any other player."""
        for prepare in (one.prepare for one in self._select(player) if one.prepare):
            prepare(batches)

    def update(self, player: str, step: Step) -> None:
        """Updates a judge that plays, or the others after the turn of any other player."""
        for update in (one.update for one in self._select(player) if one.update):
            update(step)

    def review(self) -> Iterator[Note]:
        """What they state of themselves."""
        for name, one in self._extras.items():
            yield from one.review(f"judges.{name}") if one.review else ()

    def _show(self, name: str, round: Round) -> Round:
        return dataclasses.replace(round, rng=round.rng.at("judges", name))

    def _find(self, player: str) -> Callable[[Round, Step], Mapping[str, Tensor]]:
        play = self._extras[player].play if player in self._extras else None
        if play is None:
            known = ", ".join(one.name for one in self.players()) or "none"
            raise ValueError(f"expected a player, a judge that plays ({known}), got {player!r}")
        return play

    def _select(self, player: str) -> list[JudgeExtras]:
        if player in self._extras:
            return [self._extras[player]]
        return [one for one in self._extras.values() if not one.play]

    def _repeat(self, name: str, repeat: Callable[[str], Conditioner | None] | None) -> Conditioner | None:
        made = repeat(f"judges.conditioners.{name}") if repeat else None
        if isinstance(made, nn.Module):
            self.conditioners[name] = made
        return made

    def _list_modules(self, name: str) -> tuple[str, ...]:
        """The paths of a judge with state of its own and of its conditioner; an extractor's weights are no player's."""
        part = self.parts[name]
        has_state = isinstance(part, nn.Module) and any(True for _ in chain(part.parameters(), part.buffers()))
        own = (f"judges.{name}",) if has_state else ()
        return (*own, f"judges.conditioners.{name}") if name in self.conditioners else own
