"""The players of a stage: which of them play, the modules that each owns, and their turns.

In a player's turn, only its own parameters receive gradients, though gradients flow through the other modules. The
statistics of the others (batch norm's) are restored after the turn. Modules that no player of the stage owns stay
frozen.
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
from modkit.specs.settings import PlayerSettings, Settings
from modkit.types import Batch

__all__ = [
    "PlayerState",
    "StageSchedule",
    "collect_modules",
    "make_player_states",
    "match_names",
    "schedule_stages",
    "strip_scope",
    "take_turn",
    "weigh_losses",
]

T = TypeVar("T")


@dataclass(frozen=True)
class StageSchedule:
    """A stage of training.

    Args:
        players: The players that play in it.
        steps: Number of steps.
        decay: Decay of the average of the weights, 0 for no average.
    """

    players: tuple[Player, ...]
    steps: int
    decay: float


class PlayerState:
    """A player during a stage: its modules, parameters, optimizer and learning-rate schedule.

    Args:
        model: The model.
        player: The player.
        rivals: The other players of the stage.
        settings: The player's training settings.
        steps: Number of steps of the stage.
        engine: The engine that training runs on.

    Raises:
        ValueError: If the settings have no optimizer or no learning-rate schedule.
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
        self.modules = collect_modules(model, player)
        self.parameters = _list_distinct(module.parameters(recurse=False) for module in self.modules)
        self.others = _list_distinct(
            m.buffers(recurse=False) for rival in rivals for m in collect_modules(model, rival)
        )
        self.weights = model.weights(player.name)
        self.last_layer = model.get_parameter(player.last_layer) if player.last_layer else None
        self.optimizer = _require(settings.optimizer)(parameters=self.parameters)
        turns = len(range(player.start, steps, player.every))
        self.schedule = _require(settings.lr_schedule)(optimizer=self.optimizer, steps=max(turns, 1))
        self.losses = engine.wrap(player.name, _Losses(model, player.name))

    def plays(self, index: int) -> bool:
        """Whether the player plays at this step of the stage."""
        return index >= self.player.start and (index - self.player.start) % self.player.every == 0


class _Losses(nn.Module):
    """A player's losses as the forward of a module, which an engine can wrap."""

    def __init__(self, model: Model, player: str) -> None:
        super().__init__()
        self.model, self.player = model, player

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return self.model.losses(self.player, batch, step)


def schedule_stages(model: Model, settings: Settings) -> tuple[StageSchedule, ...]:
    """Returns the stages to train, those of the settings or else the model's own, with the players' overrides applied.

    Raises:
        ValueError: If a pattern matches no player, or the whole model is frozen.
    """
    players = tuple(_override(player, settings) for player in model.active_players())
    if not players:
        raise ValueError("training expects a model with something to train, got a frozen one: set `train: true`")
    names = [player.name for player in players]
    for pattern in settings.players:
        match_names(pattern, names, "train.players")
    stages = [(stage.players, stage.steps, stage.ema) for stage in settings.stages]
    result = []
    for patterns, steps, ema in stages or [(list(stage), None, None) for stage in model.stages()]:
        chosen = {name for pattern in patterns for name in match_names(pattern, names, "train.stages")}
        result.append(
            StageSchedule(
                tuple(player for player in players if player.name in chosen),
                settings.steps if steps is None else steps,
                settings.ema if ema is None else ema,
            )
        )
    return tuple(result)


def make_player_states(model: Model, settings: Settings, stage: StageSchedule, engine: Engine) -> list[PlayerState]:
    """Makes the states of a stage's players that have parameters, in the model's order."""
    return [
        PlayerState(
            model,
            player,
            [other for other in stage.players if other is not player],
            _select_settings(player, settings),
            stage.steps,
            engine,
        )
        for player in stage.players
        if any(True for module in collect_modules(model, player) for _ in module.parameters(recurse=False))
    ]


def collect_modules(model: Model, player: Player) -> list[nn.Module]:
    """Collects the modules that a player owns, except frozen ones and those that a `ref` borrows from elsewhere."""
    found: dict[int, nn.Module] = {}
    for path in player.modules:
        module: nn.Module = model
        owner: str | None = _place(model, "")
        for name in path.split("."):
            module, owner = module.get_submodule(name), _enter(module.get_submodule(name), owner)
        _collect(module, owner, found)
    return list(found.values())


def match_names(pattern: str, names: Sequence[str], where: str) -> list[str]:
    """Returns the names that a pattern matches.

    Raises:
        ValueError: If it matches none; the message starts with `where`.
    """
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise ValueError(f"{where}: the pattern {pattern!r} matches none of: {', '.join(names) or '(no names)'}")
    return found


@contextmanager
def take_turn(state: PlayerState, rivals: Sequence[PlayerState]) -> Iterator[None]:
    """Limits gradients to a player's own parameters, and afterwards restores the statistics of its rivals."""
    for rival in rivals:
        for parameter in rival.parameters:
            parameter.requires_grad_(False)
    for parameter in state.parameters:
        parameter.requires_grad_(True)
    held = [buffer.clone() for buffer in state.others]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(state.others, held):
                buffer.copy_(value)


def weigh_losses(
    losses: Mapping[str, Tensor], weights: Mapping[str, Weight], index: int, last_layer: Tensor | None
) -> Tensor:
    """Sums a player's losses, each multiplied by its weight.

    Weights are computed in order: each is given its own loss, and the weighted losses before it.
    """
    seen: dict[str, Tensor] = {}
    for name, loss in losses.items():
        if (weight := weights.get(name)) is not None:
            scope = name.rpartition("/")[0]
            loss = (
                weight(
                    index, {strip_scope(term, scope): value for term, value in {**seen, name: loss}.items()}, last_layer
                )
                * loss
            )
        seen[name] = loss
    return torch.stack([loss.float() for loss in seen.values()]).sum()


def strip_scope(name: str, scope: str) -> str:
    """Removes the prefix of a nested Model from a name."""
    return name.removeprefix(f"{scope}/") if scope else name


def _select_settings(player: Player, settings: Settings) -> PlayerSettings:
    """The settings of one player; later patterns override earlier ones."""
    own = PlayerSettings(settings.optimizer, settings.lr_schedule, clip=settings.clip)
    for pattern, override in settings.players.items():
        if fnmatchcase(player.name, pattern):
            own = replace(own, **{name: value for name, value in vars(override).items() if value is not None})
    return own


def _override(player: Player, settings: Settings) -> Player:
    own = _select_settings(player, settings)
    every = player.every if own.every is None else own.every
    return replace(player, every=every, start=player.start if own.start is None else own.start)


def _require(slot: Slot[T] | None) -> Slot[T]:
    if slot is None:
        raise ValueError("PlayerState expects an optimizer and a learning-rate schedule, got None")
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


def _list_distinct(groups: Iterable[Iterable[T]]) -> list[T]:
    return list({id(tensor): tensor for group in groups for tensor in group}.values())
