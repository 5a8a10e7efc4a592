r"""Cascade: a Model for each level of a hierarchy, conditioned on the level above.

    p(z_1, ..., z_n) = p(z_1) prod_l p(z_l | z_{l-1})        coarsest first

The upper level is passed to the lower one unchanged as `cond.concat`: codes with their classes, maps with their
channels. The lower level's network embeds it and resizes it. Only the nearest of several upper levels is passed: with a
top-down bottleneck, each level already depends on the levels above it. The prior of VQ-VAE-2 is a cascade on the latent
of an autoencoder.

Shape letters: b batch.

References:
    Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi et al., 2019), section 3.2 and algorithm 2,
    https://arxiv.org/abs/1906.00446
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Annotated, Any

import torch
from torch import Tensor

from modkit.kinds import Note, Slot, Step, Unfit, Unless, Weight, default
from modkit.models.given import complete_in_turn
from modkit.models.model import Density, Model
from modkit.models.passes import Passes, select_fields
from modkit.models.player import Player, prefix_player
from modkit.models.prior_review import review_priors
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, Event, TensorType

__all__ = ["Cascade"]


class Cascade(Model):
    """A Model for each level of a hierarchy, from the coarsest down.

    The players of the levels have the prefixes `level-0`, `level-1`, …, and all of them are trained at the same time:
    in training, each level is conditioned on the upper level of the data.

    Args:
        x: Types of the levels, coarsest first.
        cond: Conditions from an enclosing Model, for every level.
        fields: The data's fields, for every level.
        level: The Model of every level; each level has its own.
        levels: The Models of the levels one by one, coarsest first, in place of `level`.

    Raises:
        ValueError: If `x` is not a hierarchy, the number of Models differs from the number of levels, a Model does not
            accept its level, or `cond` has a map already.

    Examples:
        >>> model = Cascade((TensorType((2, 2), classes=8), TensorType((4, 4), classes=8)))
        >>> [tuple(codes.shape) for codes in model.sample(2, seed=0)]
        [(2, 2, 2), (2, 4, 4)]
    """

    prefixes = {"level": "level-*"}

    def __init__(
        self,
        x: Event,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        *,
        level: Annotated[Slot[Model], Unless("levels")] = default("autoregressive"),
        levels: list[Slot[Model]] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(x, tuple):
            raise ValueError(f"Cascade expects a hierarchy, got {x}")
        slots, slot_name = (level.repeat(len(x)), "level") if levels is None else (levels, "levels")
        if reason := _explain_refusal(x, slots):
            raise Unfit(slot_name, reason)
        self.event = x
        fields = fields or {}
        self._names = [f"{slot_name}[{index}]" for index in range(len(x))]
        for index, (name, slot) in enumerate(zip(self._names, slots)):
            inner = cond.merge(CondType(concat=x[index - 1])) if index else cond
            setattr(self, name, slot(x=x[index], cond=inner, fields=fields))  # the attribute is its path in the spec
        self.reads = tuple(dict.fromkeys(field for model in self._levels for field in model.reads))

    @classmethod
    def accepts(cls, event: Event, **slots: Any) -> str | None:
        """Refuses any event but a hierarchy whose levels its Models accept."""
        if not isinstance(event, tuple):
            return f"{cls.__name__} expects a hierarchy, got {event}"
        return _explain_refusal(event, slots.get("levels") or [slots["level"]] * len(event))

    def players(self) -> tuple[Player, ...]:
        """The players of the levels, coarsest first."""
        return tuple(
            _prefix_level(player, attribute, f"level-{index}")
            for index, (attribute, model) in enumerate(zip(self._names, self._levels))
            for player in model.list_active_players()
        )

    def stages(self) -> tuple[tuple[str, ...], ...]:
        """The stages of the levels, trained at the same time."""
        each = [
            [tuple(f"level-{index}/{pattern}" for pattern in stage) for stage in model.stages()]
            for index, model in enumerate(self._levels)
            if model.list_active_players()
        ]
        return tuple(tuple(p for stage in stages for p in stage) for stages in zip_longest(*each, fillvalue=()))

    def weights(self, player: str) -> Mapping[str, Weight]:
        """The weights of the losses of the player's level, by prefixed term."""
        index, side, name = _parse_player(player)
        return {f"{side}/{term}": weight for term, weight in self._levels[index].weights(name).items()}

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes the losses of the player's level, given the upper level of the data."""
        index, side, name = _parse_player(player)
        losses = self._levels[index].losses(name, self.select_level(batch, index), step.at(side))
        return {f"{side}/{term}": loss for term, loss in losses.items()}

    def update(self, player: str, step: Step) -> None:
        """Updates the player's level."""
        index, side, name = _parse_player(player)
        self._levels[index].update(name, step.at(side))

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the player's level, given the upper level of the data."""
        index, side, name = _parse_player(player)
        selected = Passes(lambda: (self.select_level(batch, index) for batch in batches), select_fields(batches))
        self._levels[index].prepare(name, selected, rng.at(side))

    def complete(
        self, num: int, fields: Mapping[str, Tensor], rng: Rng, *, drawn: Mapping[str, Tensor] = {}
    ) -> Mapping[str, Tensor]:
        """Completes the fields that its levels read; the first level that reads a missing field draws it.

        If a later one reads it together with others, that one draws them all.
        """
        sides = ((f"level-{index}", model) for index, model in enumerate(self._levels))
        return complete_in_turn(sides, num, fields, rng, drawn)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> tuple[Tensor, ...]:
        """Draws the levels from the coarsest down, each given the level above, with the same fields for all."""
        fields = self.complete(num, fields, rng)
        drawn: list[Tensor] = []
        for index, model in enumerate(self._levels):
            inner = cond.merge(Cond(concat=drawn[-1])) if drawn else cond
            value = model.draw_as_latent(num, fields, inner, rng.at(f"level-{index}"))
            if isinstance(value, tuple):
                raise ValueError(f"Cascade expects {type(model).__name__} to draw one level, got {len(value)}")
            drawn.append(value)
        return tuple(drawn)

    def review(self) -> Iterator[Note]:
        """Whether the Models of its levels can draw."""
        yield from review_priors(dict(zip(self._names, self._levels)))

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The sum of the bounds of the levels, each given the upper level of the data.

        Raises:
            ValueError: If a level has no bound.
        """
        bounds = [
            model.bound(self.select_level(batch, index), num, rng.at(f"level-{index}"), grain=grain)
            for index, model in enumerate(self._levels)
        ]
        return torch.stack(bounds).sum(0)

    def explain_lack(self, density: Density, num: int = 1, name: str | None = None) -> str | None:
        """Returns the reason of the first level without a bound."""
        if density != "bound":
            return super().explain_lack(density, num, name)
        return next((reason for model in self._levels if (reason := model.explain_lack(density, num))), None)

    @property
    def differentiable(self) -> bool:
        """Whether the Models of all levels are."""
        return all(model.differentiable for model in self._levels)

    def cross_entropy(self, batch: Batch, step: Step) -> Tensor:
        """The sum of the cross entropies of the levels, through which gradients reach the upper levels as well."""
        nats = [
            model.cross_entropy(self.select_level(batch, index), step.at(f"level-{index}"))
            for index, model in enumerate(self._levels)
        ]
        return torch.stack(nats).sum(0)

    def review_cross_entropy(self) -> Iterator[Note]:
        """That of the levels."""
        for name, model in zip(self._names, self._levels):
            yield from (note.move(name) for note in model.review_cross_entropy())

    def select_level(self, batch: Batch, index: int) -> Batch:
        """Selects level `index` of a batch, conditioned on the level above.

        Raises:
            ValueError: If the batch holds one tensor instead of a hierarchy.
        """
        if not isinstance(batch.x, tuple):
            raise ValueError(f"Cascade expects a hierarchy of {len(self._names)} levels, got one tensor")
        cond = batch.cond.merge(Cond(concat=batch.x[index - 1])) if index else batch.cond
        return replace(batch, x=batch.x[index], cond=cond)

    @property
    def _levels(self) -> list[Model]:
        return [getattr(self, name) for name in self._names]


def _explain_refusal(event: tuple[TensorType, ...], slots: Sequence[Slot[Model]]) -> str | None:
    """Returns the reason why the Models in these slots cannot model these levels, or None."""
    if len(slots) != len(event):
        return f"Cascade of {len(slots)} Models expects a hierarchy of as many levels, got one of {len(event)}"
    for index, (slot, type) in enumerate(zip(slots, event)):
        if (reason := slot.accepts(type)) is not None:
            return f"level {index}: {reason}"
    return None


def _prefix_level(player: Player, attribute: str, name: str) -> Player:
    """Returns a player of the level in an attribute, with the level's name as its prefix."""
    against = tuple(f"{name}/{other}" for other in player.against)
    return replace(prefix_player(player, attribute), name=f"{name}/{player.name}", against=against)


def _parse_player(player: str) -> tuple[int, str, str]:
    """Splits a player's name into the number and the name of its level, and its name within the level."""
    side, _, name = player.partition("/")
    return int(side.removeprefix("level-")), side, name
