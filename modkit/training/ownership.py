"""What a player owns: the modules of its paths, but neither frozen ones nor those that a `ref` borrows.

It trains those of their parameters that require gradients when the stage begins; see `modkit.nn.frozen`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from torch import nn

from modkit.losses.perceptual import Perceptual
from modkit.models.model import Model
from modkit.models.player import Player
from modkit.nn.frozen import is_frozen

__all__ = ["collect_modules", "collect_trained", "find_frozen", "find_origins", "find_untrained"]

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


def collect_trained(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Collects the parameters that the owner of some modules, each on its own, trains: those that require gradients."""
    every = {id(one): one for module in modules for one in module.parameters(recurse=False)}
    return [one for one in every.values() if one.requires_grad]


def find_frozen(model: Model, trained: Iterable[nn.Parameter]) -> list[nn.Module]:
    """Finds the modules without any of the parameters that are trained, extractors of perceptual losses included."""
    own = set(map(id, trained))
    hidden = [one.features for one in model.modules() if isinstance(one, Perceptual)]  # they are no submodules
    extractors = [module for one in hidden if isinstance(one, nn.Module) for module in one.modules()]
    every = (*model.modules(), *extractors)
    return [module for module in every if own.isdisjoint(map(id, module.parameters(recurse=False)))]


def find_untrained(model: Model, players: Iterable[Player]) -> frozenset[str]:
    """Finds the parameters, by their names in the state dict, that none of the players trains."""
    own = {id(one) for player in players for one in collect_trained(collect_modules(model, player))}
    return frozenset(name for name, one in model.named_parameters(remove_duplicate=False) if id(one) not in own)


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
    if owner is None or is_frozen(module) or (origin is not None and origin.owner != owner):
        return None
    return _place(module, owner, origins)


def _place(module: nn.Module, owner: str, origins: _Origins) -> str:
    origin = origins.get(module)
    return owner if origin is None else str(origin.path)
