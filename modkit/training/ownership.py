"""Which modules a player owns: those of its paths, but neither frozen ones nor those that a `ref` borrows."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from modkit.losses.perceptual import Perceptual
from modkit.models.model import Model
from modkit.models.player import Player

__all__ = ["collect_modules", "find_frozen", "find_untrained"]


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


def find_frozen(model: Model, players: Iterable[Player]) -> list[nn.Module]:
    """Finds the modules of whose parameters the players train none, extractors of perceptual losses included."""
    own = _collect_parameters(model, players)
    hidden = [one.features for one in model.modules() if isinstance(one, Perceptual)]  # they are no submodules
    extractors = [module for one in hidden if isinstance(one, nn.Module) for module in one.modules()]
    every = (*model.modules(), *extractors)
    return [module for module in every if own.isdisjoint(map(id, module.parameters(recurse=False)))]


def find_untrained(model: Model, players: Iterable[Player]) -> frozenset[str]:
    """Finds the parameters, by their names in the state dict, that none of the players trains."""
    own = _collect_parameters(model, players)
    return frozenset(name for name, one in model.named_parameters(remove_duplicate=False) if id(one) not in own)


def _collect_parameters(model: Model, players: Iterable[Player]) -> set[int]:
    """Collects the identities of the parameters that players train."""
    return {
        id(p) for one in players for module in collect_modules(model, one) for p in module.parameters(recurse=False)
    }


def _collect(module: nn.Module, owner: str | None, found: dict[int, nn.Module]) -> None:
    """Collects a module and the modules inside it, except those that another place owns or that are frozen."""
    if owner is None:
        return
    found[id(module)] = module
    for child in module.children():
        _collect(child, _enter(child, owner), found)


def _enter(module: nn.Module, owner: str | None) -> str | None:
    """Returns the path that owns what is inside a module, or None if it is frozen or `owner` does not own it."""
    origin = getattr(module, "origin", None)
    if owner is None or getattr(module, "frozen", False) or (origin is not None and origin.owner != owner):
        return None
    return _place(module, owner)


def _place(module: nn.Module, owner: str) -> str:
    origin = getattr(module, "origin", None)
    return owner if origin is None else str(origin.path)
