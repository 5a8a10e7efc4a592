r"""Cascade: a Model a level of a hierarchy, each conditioned on the level above it; itself a Model.

    p(z_1, ..., z_n) = p(z_1) prod_l p(z_l | z_{l-1})        coarsest first

The upper level reaches the lower as `cond.concat`, as it is: codes with their classes, maps with their channels; the
lower one's network embeds it and brings it to its own size. Of several upper levels only the nearest does: under a
bottleneck that goes down from the top, each has heard of those above it. The prior of VQ-VAE-2 is
latent(autoencoder, cascade).

Shape letters: b batch.

References:
    Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi et al., 2019), section 3.2 and algorithm 2,
    https://arxiv.org/abs/1906.00446
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from modkit.kinds import Slot, Step, Unfit, Weight, default
from modkit.models.model import Model, Nested, Player, prefixed
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, Event, TensorType

__all__ = ["Cascade"]


class Cascade(Model):
    """A Model for each level of a hierarchy, from the coarsest down.

    Its players are the levels' under `level-0`, `level-1`, …, and all of them play at once: in training each is
    conditioned on the data's own upper level, so none waits for another.

    Args:
        x: Types of the levels, coarsest first.
        cond: Conditions from an enclosing Model, for every level.
        fields: The data's fields, for every level.
        level: The Model of each level, made for each.
        levels: The Models one by one, coarsest first, in place of `level`.

    Raises:
        ValueError: If x is no hierarchy, there is another number of Models than of levels, one does not accept its
            level, or `cond` has a map already.
    """

    def __init__(
        self,
        x: Event,
        cond: CondType,
        fields: dict[str, TensorType],
        *,
        level: Slot[Model] = default("autoregressive"),
        levels: list[Slot[Model]] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(x, tuple):
            raise ValueError(f"Cascade expects a hierarchy, got {x}")
        slots, slot_name = (level.each(len(x)), "level") if levels is None else (levels, "levels")
        if reason := _refusal(x, slots):
            raise Unfit(slot_name, reason)
        self.event = x
        self._names = [f"{slot_name}[{index}]" for index in range(len(x))]
        for index, (name, slot) in enumerate(zip(self._names, slots)):
            told = cond.merge(CondType(concat=x[index - 1])) if index else cond
            setattr(self, name, slot(x=x[index], cond=told, fields=fields))  # kept at its path in the spec
        self.reads = tuple(dict.fromkeys(field for model in self._levels for field in model.reads))

    @classmethod
    def accepts(cls, event: Event, **slots: Any) -> str | None:
        """Hierarchies whose levels its Models accept."""
        if not isinstance(event, tuple):
            return f"{cls.__name__} expects a hierarchy, got {event}"
        return _refusal(event, slots.get("levels") or [slots["level"]] * len(event))

    def players(self) -> tuple[Player, ...]:
        """The levels' players, coarsest first."""
        return tuple(
            _named(player, attribute, f"level-{index}")
            for index, (attribute, model) in enumerate(zip(self._names, self._levels))
            for player in model.active_players()
        )

    def stages(self) -> tuple[tuple[str, ...], ...]:
        """The levels' stages side by side."""
        each = [
            [tuple(f"level-{index}/{pattern}" for pattern in stage) for stage in model.stages()]
            for index, model in enumerate(self._levels)
            if model.active_players()
        ]
        return tuple(tuple(p for stage in stages for p in stage) for stages in zip_longest(*each, fillvalue=()))

    def weights(self, player: str) -> Mapping[str, Weight]:
        """Weights of the level that plays, by prefixed term."""
        index, side, name = _of(player)
        return {f"{side}/{term}": weight for term, weight in self._levels[index].weights(name).items()}

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The losses of the level that plays, given the data's upper level."""
        index, side, name = _of(player)
        losses = self._levels[index].losses(name, self.seen(batch, index), Nested(step, side))
        return {f"{side}/{term}": loss for term, loss in losses.items()}

    def update(self, player: str, step: Step) -> None:
        """Passes the call on."""
        index, side, name = _of(player)
        self._levels[index].update(name, Nested(step, side))

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Passes the call on, with what the level sees."""
        index, side, name = _of(player)
        self._levels[index].prepare(name, _Seen(self, batches, index), rng.at(side))

    def complete(self, num: int, fields: Mapping[str, Tensor], rng: Rng) -> Mapping[str, Tensor]:
        """The fields that its levels read, each drawn once where it is missing, by the first level that reads it."""
        for index, model in enumerate(self._levels):
            if model.reads:
                fields = model.complete(num, fields, rng.at(f"level-{index}"))
        return fields

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> tuple[Tensor, ...]:
        """Draws the levels from the top, each given the one above, all under the same fields."""
        fields = self.complete(num, fields, rng)
        drawn: list[Tensor] = []
        for index, model in enumerate(self._levels):
            told = cond.merge(Cond(concat=drawn[-1])) if drawn else cond
            value = model.draw(num, fields, told, rng.at(f"level-{index}"))
            if isinstance(value, tuple):
                raise ValueError(f"Cascade expects {type(model).__name__} to draw one level, got {len(value)}")
            drawn.append(value)
        return tuple(drawn)

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The sum of the levels' bounds, each given the data's upper level.

        Raises:
            ValueError: If a level has none.
        """
        bounds = [
            model.bound(self.seen(batch, index), num, rng.at(f"level-{index}"), grain=grain)
            for index, model in enumerate(self._levels)
        ]
        return torch.stack(bounds).sum(0)

    def seen(self, batch: Batch, index: int) -> Batch:
        """The batch of level `index`, conditioned on the level above.

        Raises:
            ValueError: If x is no hierarchy.
        """
        if not isinstance(batch.x, tuple):
            raise ValueError(f"Cascade expects a hierarchy of {len(self._names)} levels, got one tensor")
        cond = batch.cond.merge(Cond(concat=batch.x[index - 1])) if index else batch.cond
        return replace(batch, x=batch.x[index], cond=cond)

    @property
    def _levels(self) -> list[Model]:
        return [getattr(self, name) for name in self._names]


class _Seen:
    """What a level sees of a data set, anew at each iteration."""

    def __init__(self, owner: Cascade, batches: Iterable[Batch], index: int) -> None:
        self._owner, self._batches, self._index = owner, batches, index

    def __iter__(self) -> Iterator[Batch]:
        return (self._owner.seen(batch, self._index) for batch in self._batches)


def _refusal(event: tuple[TensorType, ...], slots: Sequence[Slot[Model]]) -> str | None:
    """Why Models in these slots cannot model these levels, or None."""
    if len(slots) != len(event):
        return f"Cascade of {len(slots)} Models expects as many levels, got a hierarchy of {len(event)}"
    for index, (slot, type) in enumerate(zip(slots, event)):
        if (reason := slot.accepts(type)) is not None:
            return f"level {index}: {reason}"
    return None


def _named(player: Player, attribute: str, name: str) -> Player:
    """The player of a level kept under an attribute, called by the level's name."""
    against = tuple(f"{name}/{other}" for other in player.against)
    return replace(prefixed(player, attribute), name=f"{name}/{player.name}", against=against)


def _of(player: str) -> tuple[int, str, str]:
    """Number and name of the level that a player is of, and the player's name in it."""
    side, _, name = player.partition("/")
    return int(side.removeprefix("level-")), side, name
