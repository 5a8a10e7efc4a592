"""The game: who plays in a stage, what each owns, and what a turn is.

A turn is one player's: only its parameters take gradients, though gradients flow through the rest; the statistics of
the others (batch norm's) are put back after it. What no player of the stage owns is frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Tensor, nn

from modkit.kinds import Engine, Slot, Step, Weight
from modkit.models.model import Model, Player
from modkit.rng import Rng
from modkit.specs.settings import PlayerSettings, Settings, Term
from modkit.types import Batch

__all__ = ["Round", "Seat", "Turn", "matching", "rounds", "seats", "taking_turn", "unscoped", "weighted"]

T = TypeVar("T")


@dataclass(frozen=True)
class Round:
    """A stage to be played: its players, its steps, and the decay of the weights' average."""

    players: tuple[Player, ...]
    steps: int
    decay: float


@dataclass(frozen=True)
class Turn:
    """A player's turn in one step: the `Step` that losses are computed at.

    Args:
        index: Steps since the stage's first.
        rng: Source of its draws.
        terms: When terms are computed, by pattern.
        waiting: Those of its opponents that have yet to start.
        moves: Whether statistics move.
    """

    index: int
    rng: Rng
    terms: Mapping[str, Term]
    waiting: tuple[str, ...] = ()
    moves: bool = True

    def wants(self, term: str) -> bool:
        """Whether the term is due at this step and its opponent has started."""
        if any(_between(term, player) for player in self.waiting):
            return False
        due = [setting for pattern, setting in self.terms.items() if fnmatchcase(term, pattern)]
        return all(self.index >= one.start and (self.index - one.start) % one.every == 0 for one in due)


class Seat:
    """A player at the table of a stage, with its optimizer.

    Args:
        model: The model.
        player: The player.
        rivals: The other players of the stage.
        settings: How it is trained.
        steps: Steps of the stage.
        engine: What trains.
    """

    def __init__(
        self,
        model: Model,
        player: Player,
        rivals: Sequence[Player],
        settings: PlayerSettings,
        steps: int,
        engine: Engine,
    ) -> None:
        self.player = player
        self.clip = settings.clip
        self.modules = owned(model, player)
        self.parameters = _tensors(module.parameters(recurse=False) for module in self.modules)
        self.others = _tensors(m.buffers(recurse=False) for rival in rivals for m in owned(model, rival))
        self.weights = model.weights(player.name)
        self.last_layer = model.get_parameter(player.last_layer) if player.last_layer else None
        self.optimizer = _made(settings.optimizer)(parameters=self.parameters)
        turns = len(range(player.start, steps, player.every))
        self.schedule = _made(settings.lr_schedule)(optimizer=self.optimizer, steps=max(turns, 1))
        self.losses = engine.wrap(player.name, _Losses(model, player.name))

    def plays(self, index: int) -> bool:
        """Whether it plays at this step of the stage."""
        return index >= self.player.start and (index - self.player.start) % self.player.every == 0


class _Losses(nn.Module):
    """A player's losses as a module's forward, so that an engine can wrap it."""

    def __init__(self, model: Model, player: str) -> None:
        super().__init__()
        self.model, self.player = model, player

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return self.model.losses(self.player, batch, step)


def rounds(model: Model, settings: Settings) -> tuple[Round, ...]:
    """The stages to play: the settings', or the model's own, with the overrides of players applied.

    Raises:
        ValueError: If a pattern of players matches none, or all of the model is frozen.
    """
    players = tuple(_overridden(player, settings) for player in model.active_players())
    if not players:
        raise ValueError("training expects a model with something to train, got one that is frozen: say `train: true`")
    names = [player.name for player in players]
    for pattern in settings.players:
        matching(pattern, names, "train.players")
    stages = [(stage.players, stage.steps, stage.ema) for stage in settings.stages]
    result = []
    for patterns, steps, ema in stages or [(list(stage), None, None) for stage in model.stages()]:
        chosen = {name for pattern in patterns for name in matching(pattern, names, "train.stages")}
        result.append(
            Round(
                tuple(player for player in players if player.name in chosen),
                settings.steps if steps is None else steps,
                settings.ema if ema is None else ema,
            )
        )
    return tuple(result)


def seats(model: Model, settings: Settings, round: Round, engine: Engine) -> list[Seat]:
    """The players of a stage that have something to train, in the model's order."""
    return [
        Seat(model, player, [p for p in round.players if p is not player], _own(player, settings), round.steps, engine)
        for player in round.players
        if any(True for module in owned(model, player) for _ in module.parameters(recurse=False))
    ]


def owned(model: Model, player: Player) -> list[nn.Module]:
    """The modules that a player owns, without those frozen and those that another place defines (by `ref`)."""
    found: dict[int, nn.Module] = {}
    for path in player.modules:
        module: nn.Module = model
        owner: str | None = _place(model, "")
        for name in path.split("."):
            module, owner = module.get_submodule(name), _enter(module.get_submodule(name), owner)
        _collect(module, owner, found)
    return list(found.values())


def matching(pattern: str, names: Sequence[str], where: str) -> list[str]:
    """The names that a pattern matches.

    Raises:
        ValueError: If there is none.
    """
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise ValueError(f"{where}: the pattern {pattern!r} matches none of: {', '.join(names) or 'nothing'}")
    return found


@contextmanager
def taking_turn(seat: Seat, rivals: Sequence[Seat]) -> Iterator[None]:
    """Only the seat's parameters take gradients, and only its statistics move."""
    for rival in rivals:
        for parameter in rival.parameters:
            parameter.requires_grad_(False)
    for parameter in seat.parameters:
        parameter.requires_grad_(True)
    held = [buffer.clone() for buffer in seat.others]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(seat.others, held):
                buffer.copy_(value)


def weighted(
    losses: Mapping[str, Tensor], weights: Mapping[str, Weight], index: int, last_layer: Tensor | None
) -> Tensor:
    """The weighted sum of a player's losses, each weight being told the weighted ones before it."""
    seen: dict[str, Tensor] = {}
    for name, loss in losses.items():
        if (weight := weights.get(name)) is not None:
            scope = name.rpartition("/")[0]
            loss = (
                weight(
                    index, {unscoped(term, scope): value for term, value in {**seen, name: loss}.items()}, last_layer
                )
                * loss
            )
        seen[name] = loss
    return torch.stack([loss.float() for loss in seen.values()]).sum()


def unscoped(name: str, scope: str) -> str:
    """A name without the prefix of its Model."""
    return name.removeprefix(f"{scope}/") if scope else name


def _between(term: str, opponent: str) -> bool:
    scope, slash, name = opponent.rpartition("/")
    return term in (f"{scope}{slash}adversarial", f"{scope}{slash}adversarial/{name}")


def _own(player: Player, settings: Settings) -> PlayerSettings:
    """How one player is trained: later patterns override earlier ones."""
    own = PlayerSettings(settings.optimizer, settings.lr_schedule, clip=settings.clip)
    for pattern, override in settings.players.items():
        if fnmatchcase(player.name, pattern):
            own = replace(own, **{name: value for name, value in vars(override).items() if value is not None})
    return own


def _overridden(player: Player, settings: Settings) -> Player:
    own = _own(player, settings)
    every = player.every if own.every is None else own.every
    return replace(player, every=every, start=player.start if own.start is None else own.start)


def _made(slot: Slot[T] | None) -> Slot[T]:
    if slot is None:
        raise ValueError("Seat expects an optimizer and a learning-rate schedule, got None")
    return slot


def _collect(module: nn.Module, owner: str | None, found: dict[int, nn.Module]) -> None:
    """All modules of one that has been entered, without those that cannot be."""
    if owner is None:
        return
    found[id(module)] = module
    for child in module.children():
        _collect(child, _enter(child, owner), found)


def _enter(module: nn.Module, owner: str | None) -> str | None:
    """The place that a module's own parts belong to, or None where it is frozen or belongs to another than `owner`."""
    origin = getattr(module, "origin", None)
    if owner is None or getattr(module, "frozen", False) or (origin is not None and origin.owner != owner):
        return None
    return _place(module, owner)


def _place(module: nn.Module, owner: str) -> str:
    origin = getattr(module, "origin", None)
    return owner if origin is None else str(origin.path)


def _tensors(groups: Iterable[Iterable[T]]) -> list[T]:
    return list({id(tensor): tensor for group in groups for tensor in group}.values())
