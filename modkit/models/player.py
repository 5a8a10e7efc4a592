"""Player: the owner of modules in the game that trains a Model."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Player", "prefix_player"]


@dataclass(frozen=True)
class Player:
    """A player owns modules and minimises its named losses.

    Args:
        name: Its name, such as `generator`; a player of a nested Model has a prefix, such as `prior/denoiser`.
        modules: Paths of the modules that it owns. A player without parameters (EM) is trained by `Model.prepare`.
        every: Number of steps from one of its turns to the next.
        start: First step of the stage at which it plays.
        against: Its opponents. The terms `adversarial` and `adversarial/PLAYER` are computed only once the opponent has
            started.
        last_layer: Path of the parameter that produces its output, for gradient-balanced weights.

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


def prefix_player(player: Player, name: str) -> Player:
    """Returns a player of the nested Model `name` as the enclosing Model names it."""
    return replace(
        player,
        name=f"{name}/{player.name}",
        modules=tuple(f"{name}.{path}" for path in player.modules),
        against=tuple(f"{name}/{other}" for other in player.against),
        last_layer=player.last_layer and f"{name}.{player.last_layer}",
    )
