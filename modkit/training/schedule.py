"""The stages of a training: which players play in each, for how many steps, and with which settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from modkit.errors import Problem, SpecError
from modkit.models.condensing import check_condensed
from modkit.models.model import Model
from modkit.models.player import Player
from modkit.specs.settings import PlayerSettings, PowerAverage, Settings, Stage
from modkit.training.ownership import collect_modules, collect_trained

__all__ = [
    "StageSchedule",
    "check_trainable",
    "count_steps",
    "explain_frozen",
    "explain_idle",
    "match_names",
    "schedule_stages",
    "select_settings",
]


@dataclass(frozen=True)
class StageSchedule:
    """A stage of training.

    Args:
        players: The players that play in it.
        steps: Number of steps.
        ema: Average of the weights: a decay, 0 for no average, or that of a power function.
        cache: Number of views of each sample that are condensed before the stage, 0 for none.
    """

    players: tuple[Player, ...]
    steps: int
    ema: float | PowerAverage
    cache: int = 0


def schedule_stages(model: Model, settings: Settings) -> tuple[StageSchedule, ...]:
    """Returns the stages to train, those of the settings or else the model's own, with the players' overrides applied.

    Raises:
        ValueError: If a pattern matches no player, the whole model is frozen, or a stage with `cache` has players that
            cannot be trained with condensed samples.
    """
    players = tuple(_override(player, settings) for player in model.list_active_players())
    if reason := explain_frozen(model):
        raise ValueError(reason)
    names = [player.name for player in players]
    for pattern in settings.players:
        match_names(pattern, names, "train.players")
    result = []
    for number, stage in enumerate(settings.stages or [Stage(list(patterns)) for patterns in model.stages()]):
        chosen = {name for pattern in stage.players for name in match_names(pattern, names, "train.stages")}
        playing = tuple(player for player in players if player.name in chosen)
        if stage.cache:
            owned = {player.name: collect_modules(model, player) for player in playing}
            check_condensed(model, owned, f"train.stages[{number}].cache")
        result.append(
            StageSchedule(
                playing,
                settings.steps if stage.steps is None else stage.steps,
                settings.ema if stage.ema is None else stage.ema,
                stage.cache or 0,
            )
        )
    return tuple(result)


def explain_frozen(model: Model) -> str | None:
    """Returns why training a model is refused, if all its players are frozen, or None."""
    if model.list_active_players():
        return None
    remedy = "set `train: true`, or `requires_grad_(True)` on it"
    return f"training expects a model with something to train, got a frozen one: {remedy}"


def explain_idle(model: Model, stage: StageSchedule) -> str | None:
    """Returns why a stage is refused, if its players own modules, but nothing to train and no buffers, or None."""
    paths = [path for player in stage.players for path in player.modules]
    modules = [module for player in stage.players for module in collect_modules(model, player)]
    buffers = (one for module in modules for one in module.buffers(recurse=False))
    if not paths or collect_trained(modules) or next(buffers, None) is not None:
        return None
    names = ", ".join(player.name for player in stage.players)
    reason = f"no parameters to train and no buffers in {', '.join(paths)}"
    return f"training expects stages with something to train, got one of {names} with {reason}"


def check_trainable(model: Model, stage: StageSchedule) -> None:
    """Checks that a stage has something to train or to prepare.

    Raises:
        SpecError: If it has not.
    """
    if reason := explain_idle(model, stage):
        raise SpecError(Problem("", reason))


def count_steps(model: Model, stages: Sequence[StageSchedule]) -> list[int]:
    """Counts the steps that each stage trains: none without parameters, for to prepare it is all of its training."""
    return [
        stage.steps if any(collect_trained(collect_modules(model, player)) for player in stage.players) else 0
        for stage in stages
    ]


def match_names(pattern: str, names: Sequence[str], where: str) -> list[str]:
    """Returns the names that a pattern matches.

    Raises:
        SpecError: If it matches none, at `where`.
    """
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        message = f"the pattern {pattern!r} matches none of: {', '.join(names) or '(no names)'}"
        raise SpecError(Problem(where, message))
    return found


def select_settings(player: Player, settings: Settings) -> PlayerSettings:
    """The settings of one player; later patterns override earlier ones."""
    own = PlayerSettings(settings.optimizer, settings.lr_schedule, clip=settings.clip)
    for pattern, override in settings.players.items():
        if fnmatchcase(player.name, pattern):
            own = replace(own, **{name: value for name, value in vars(override).items() if value is not None})
    return own


def _override(player: Player, settings: Settings) -> Player:
    own = select_settings(player, settings)
    every = player.every if own.every is None else own.every
    return replace(player, every=every, start=player.start if own.start is None else own.start)
