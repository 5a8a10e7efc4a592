"""Mentions: where a spec names losses and players of its model.

These are weights, the patterns of `train.terms`, `train.players` and `train.stages`, and `checkpoints.best`. Mentions
that named something before a swap and name nothing after it are its leftovers, which are dropped with a notice, as are
metrics of the evaluation that need what only the part before it provided.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from modkit.building.builder import Site
from modkit.errors import Problem, SpecError, join, split, suggest
from modkit.kinds import Weight
from modkit.models.model import Model
from modkit.specs.node import Node, Path, get_value
from modkit.specs.settings import Settings
from modkit.specs.spec import Spec
from modkit.specs.yaml import Source
from modkit.training.ownership import find_origins
from modkit.training.players import strip_scope

__all__ = ["drop_leftovers", "find_unknown", "find_unknown_weights", "find_weight"]

_logger = logging.getLogger(__name__)


def find_unknown(
    site: Site, model: Model, settings: Settings, terms: Mapping[str, Iterable[str]], *, complete: bool
) -> list[Problem]:
    """Finds the mentions that name nothing, each as a problem at its path.

    Args:
        site: The site that built the model.
        model: The model.
        settings: The settings of training.
        terms: Names of each player's losses.
        complete: Whether these are all losses; otherwise only players are looked for.
    """
    every = {term for names in terms.values() for term in names}
    players = [player.name for player in model.list_active_players()]
    found = [*find_unknown_weights(site, model, terms)] if complete else []

    def compare(pattern: str, names: Iterable[str], what: str, *path: str | int) -> None:
        if not any(fnmatchcase(name, pattern) for name in names):
            message = f"the pattern {pattern!r} matches none of the {what}: {', '.join(sorted(names))}"
            found.append(Problem(join(path), message, site.plan.spec.find_position(join(path), key=True)))

    for pattern in settings.terms if complete else ():
        compare(pattern, every, "losses", "train", "terms", pattern)
    if players:  # a frozen model cannot be trained at all
        for pattern in settings.players:
            compare(pattern, players, "players", "train", "players", pattern)
        for index, stage in enumerate(settings.stages):
            for number, pattern in enumerate(stage.players):
                compare(pattern, players, "players", "train", "stages", index, "players", number)
    best = settings.checkpoints.best
    logged = {f"{p}/{strip_scope(term, p.rpartition('/')[0])}" for p, names in terms.items() for term in names}
    if complete and best is not None and best not in logged:
        message = f"got {best!r}, expected one of the logged losses: {', '.join(sorted(logged))}"
        where = "train.checkpoints.best"
        found.append(Problem(where, message, site.plan.spec.find_position(where), suggest(best, logged)))
    return found


def find_unknown_weights(site: Site, model: Model, terms: Mapping[str, Iterable[str]]) -> Iterator[Problem]:
    """Finds the weights of losses that no player has, each as a problem at its path.

    Args:
        site: The site that built the model.
        model: The model.
        terms: Names of each player's losses.
    """
    each = {player.name: model.weights(player.name) for player in model.list_active_players()}
    weighed = {term for player, names in terms.items() for term in names if term in each.get(player, ())}
    for name, weight in {name: weight for weights in each.values() for name, weight in weights.items()}.items():
        if name not in weighed:
            path = find_weight(model, weight, name)
            *owner, _, term = split(path)
            scope = name.removesuffix(f"/{term}") if name != term else ""
            every = {one for names in terms.values() for one in names} - {name}
            known = ", ".join(sorted(strip_scope(one, scope) for one in every))
            parts = _describe_parts(site, join(owner))
            got = f"got a weight of {term!r}, expected one of the losses: {known}; {parts}"
            yield Problem(path, got, site.plan.spec.find_position(path))


def find_weight(model: Model, weight: Weight, name: str) -> str:
    """Returns the path in the spec of the weight of a term, whose name has the prefixes of nested Models."""
    found = [
        (*split(origin.path), "weights", term)
        for inner, origin in find_origins(model).items()
        if isinstance(inner, Model)
        for player in inner.list_active_players()
        for term, other in inner.weights(player.name).items()
        if other is weight
    ]
    return join(max(found, key=len, default=("model", "weights", name)))


def drop_leftovers(
    spec: Spec, unknown: Iterable[Problem], find_before: Callable[[Spec], Iterable[Problem]]
) -> tuple[Spec, tuple[str, ...]] | None:
    """Drops the leftovers of the swaps that made a spec, each with a notice; returns None if there are none.

    What an override has written is no leftover. Their paths are returned as well, in the order of their removal.

    Args:
        spec: The spec.
        unknown: Its mentions that name nothing.
        find_before: Finds those of an earlier spec.
    """
    paths = {problem.path for problem in unknown}
    gone: set[str] = set()
    earlier = spec.before
    while earlier is not None:
        if kept := {path for path in paths - gone if _is_same(path, spec, earlier)}:
            try:
                gone |= kept - {problem.path for problem in find_before(earlier)}
            except SpecError:
                pass  # then nobody knows what it named
        earlier = earlier.before
    if not gone:
        return None
    dropped = sorted(_widen(spec, {split(path) for path in gone}))
    for path in dropped:
        reason = "it names no player any more" if path[1] in ("players", "stages") else "it names no loss any more"
        reason = "nothing provides what it needs any more" if path[0] == "evaluate" else reason
        _logger.warning("swap: dropped %s (%s)", join(path), reason)
    for path in reversed(dropped):  # so that indices of lists stay valid
        spec = _remove(spec, path)
    return spec, tuple(map(join, reversed(dropped)))


def _describe_parts(site: Site, path: str) -> str:
    """Describes a model and the parts that compute its losses, for a message."""
    inside = [built.part for where, built in site.built.items() if where.rpartition(".")[0] == path]
    owner = site.built.get(path)
    return f"{path} ({owner.part.name if owner else 'model'}) has {', '.join(map(str, inside))}"


def _is_same(path: str, spec: Spec, earlier: Spec) -> bool:
    """Whether a spec has a value from an earlier one, rather than from an override."""
    try:
        same = spec.at(path) == earlier.at(path)
    except SpecError:
        return False
    return same and spec.find_position(path) == earlier.find_position(path)


def _widen(spec: Spec, gone: set[Path]) -> Iterator[Path]:
    """Replaces the patterns of a stage by the stage itself if it has no others."""
    for path in gone:
        if path[:2] == ("train", "stages"):
            stage = path[:3]
            patterns = spec.at(join((*stage, "players")))
            assert isinstance(patterns, tuple)
            if all((*stage, "players", number) in gone for number in range(len(patterns))):
                if path[-1] == 0:
                    yield stage
                continue
        yield path


def _remove(spec: Spec, path: Path, *, whole: bool = False) -> Spec:
    """Removes an item from a mapping or list of a spec, and the mapping or list itself if nothing is left in it.

    What held that one stays in any case: without `weights`, `levels: [{weights: {kl: 1}}]` still has a level. With
    `whole`, `path` is a mapping or list, which goes by itself.
    """
    *parent, last = path
    value, source = get_value(spec.tree, tuple(parent)), spec.source
    for part in parent:
        source = source.children.get(part, Source())
    if isinstance(value, Node):
        rest: Any = {key: item for key, item in value.items() if key != last}
        children = {key: child for key, child in source.children.items() if key != last}
    else:
        assert isinstance(value, tuple) and isinstance(last, int)
        rest = value[:last] + value[last + 1 :]
        children = {int(key) - (int(key) > last): child for key, child in source.children.items() if key != last}
    if not rest and not whole:
        return _remove(spec, tuple(parent), whole=True)
    return spec.with_value(join(parent), rest, replace(source, children=children))
