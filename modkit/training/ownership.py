"""Which modules a player owns: those of its paths, but neither frozen ones nor those that a `ref` borrows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from torch import nn

from modkit.losses.perceptual import Perceptual
from modkit.models.model import Model
from modkit.models.player import Player

__all__ = ["collect_modules", "find_frozen", "find_origins", "find_untrained"]

_Origins: TypeAlias = Mapping[nn.Module, Any]


def find_origins(model: nn.Module) -> dict[nn.Module, Any]:
    """Finds where the modules of a model were built (`modkit.building.composition.Origin`): as its composition has it.

    Where it has none, as they have it themselves: of a module in several models, that is the place in the last one.
    """
    composition = getattr(model, "composition", None)
    if composition is None:
        return {module: module.origin for module in model.modules() if hasattr(module, "origin")}
    named, origins = model.named_modules(remove_duplicate=False), composition.origins
    return {module: origins[name] for name, module in named if name in origins}


def collect_modules(model: Model, player: Player) -> list[nn.Module]:
    """Collects the modules that a player owns, except frozen ones and those that a `ref` borrows from elsewhere."""
    origins = find_origins(model)
    found: dict[int, nn.Module] = {}
    for path in player.modules:
        module: nn.Module = model
        owner: str | None = _place(model, "", origins)
        for name in path.split("."):
            module = module.get_submodule(name)
            owner = _enter(module, owner, origins)
        _collect(module, owner, origins, found)
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


def _collect(module: nn.Module, owner: str | None, origins: _Origins, found: dict[int, nn.Module]) -> None:
    """Collects a module and the modules inside it, except those that another place owns or that are frozen."""
    if owner is None:
        return
    found[id(module)] = module
    for child in module.children():
        _collect(child, _enter(child, owner, origins), origins, found)


def _enter(module: nn.Module, owner: str | None, origins: _Origins) -> str | None:
    """Returns the path that owns what is inside a module, or None if it is frozen or `owner` does not own it."""
    origin = origins.get(module)
    if owner is None or getattr(module, "frozen", False) or (origin is not None and origin.owner != owner):
        return None
    return _place(module, owner, origins)


def _place(module: nn.Module, owner: str, origins: _Origins) -> str:
    origin = origins.get(module)
    return owner if origin is None else str(origin.path)
