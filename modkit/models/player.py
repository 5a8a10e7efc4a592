"""Player: the owner of modules in the game that trains a Model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from modkit.nn.frozen import is_frozen

__all__ = ["Player", "is_idle", "join_players", "prefix_player"]


@dataclass(frozen=True)
class Player:
    """A player owns modules and minimises its named losses.

    Args:
        name: Its name, such as `generator`; a player of a nested Model has a prefix, such as `prior/denoiser`.
        modules: Paths of the modules that it owns. A player without parameters (EM) is trained by `Model.prepare`.
        every: Number of steps from one of its turns to the next.
        start: First step of the stage at which it plays.
        against: Its opponents. The terms `adversarial` and `class`, also as `…/PLAYER`, and those named after an
            opponent are computed only once it has started.
        last_layer: Path of the parameter that produces its output, for gradient-balanced weights.
        least: Fewest training samples that it can be prepared with; data with fewer are refused before training.

    Raises:
        ValueError: If `every` is below 1 or `start` below 0.

    Examples:
        >>> prefix_player(Player("denoiser", ("network",)), "prior").modules
        ('prior.network',)
    """

    name: str
    modules: tuple[str, ...]
    every: int = 1
    start: int = 0
    against: tuple[str, ...] = ()
    last_layer: str | None = None
    least: int = 1

    def __post_init__(self) -> None:
        if self.every < 1 or self.start < 0:
            given = f"{self.every} and {self.start}"
            raise ValueError(f"Player {self.name} expects every of at least 1 and start of at least 0, got {given}")


def prefix_player(player: Player, name: str) -> Player:
    """Returns a player of the nested Model `name` as the enclosing Model names it."""
    return replace(
        player,
        name=f"{name}/{player.name}",
        modules=tuple(f"{name}.{path}" for path in player.modules),
        against=tuple(f"{name}/{other}" for other in player.against),
        last_layer=player.last_layer and f"{name}.{player.last_layer}",
    )


def join_players(players: tuple[Player, ...], name: str, joined: str, modules: tuple[str, ...]) -> tuple[Player, ...]:
    """Returns the players of the nested Model `name`; the one then named `joined` owns `modules` as well.

    Examples:
        >>> join_players((Player("denoiser", ("network",)),), "decoder", "decoder/denoiser", ("encoder",))[0].modules
        ('encoder', 'decoder.network')
    """
    prefixed = [prefix_player(player, name) for player in players]
    return tuple(replace(one, modules=(*modules, *one.modules)) if one.name == joined else one for one in prefixed)


def is_idle(player: Player, model: nn.Module) -> bool:
    """Whether all parameters of a player are in frozen modules of its model; one without any may still be prepared.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> model[0].requires_grad_(False)
        Linear(in_features=2, out_features=2, bias=True)
        >>> is_idle(Player("one", ("0",)), model), is_idle(Player("other", ("1",)), model)
        (True, False)
    """
    modules = [one for one in map(model.get_submodule, player.modules) if any(True for _ in one.parameters())]
    return bool(modules) and all(map(is_frozen, modules))
