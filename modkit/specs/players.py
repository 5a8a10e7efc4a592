"""Settings of players in a swap of models: those of the former model's players go, and the new model's own come."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from modkit.specs.node import Node
from modkit.specs.spec import Spec

__all__ = ["renew_settings"]

_Optimizers: TypeAlias = "Mapping[str, str | Mapping[str, Any]]"


def renew_settings(spec: Spec, scope: str, former: _Optimizers, new: _Optimizers) -> tuple[Spec, list[str], list[str]]:
    """Renews the training settings that name players of a model.

    Patterns that match whatever players a model has (`*`, `prior/*`) stay as they are, unless a swap wrote them; one
    without an optimizer is given the new model's.

    Args:
        spec: The spec, in which the new model has its place.
        scope: What stands before the names of its players, such as `prior/` or `level-*/`.
        former: Optimizers of the former model's players by pattern (`modkit.kinds.GameExtras`).
        new: Those of the new model's players.

    Returns:
        The new spec, the settings that were dropped, and those that were written, as paths from `train`.
    """
    written, own = _prefix_settings(former, scope), _prefix_settings(new, scope)
    train = dict(spec.train or {})
    dropped: list[str] = []
    for group in ("players", "terms"):
        given = train.get(group)
        given = given if isinstance(given, Node) else Node({})
        if gone := [key for key in given if _is_chosen(key, scope) or given[key] == written.get(key)]:
            train[group] = Node({key: value for key, value in given.items() if key not in gone})
            dropped += [f"{group}.{key}" for key in gone]
    given = train.get("players")
    players = dict(given) if isinstance(given, Node) else {}
    come = []
    for key, settings in own.items():
        before = players.get(key)
        before = before if isinstance(before, Node) else Node({})
        if "optimizer" not in before:
            players[key] = Node({**before, **settings})
            come.append(f"players.{key}.optimizer")
    if come:
        train["players"] = Node(players)
    return spec.with_tree({**spec.tree, "train": Node(train)}) if dropped or come else spec, dropped, come


def _prefix_settings(optimizers: _Optimizers, scope: str) -> dict[str, Node]:
    """Returns optimizers as settings of players, by patterns with the prefix of the model."""
    return {f"{scope}{pattern}": Node({"optimizer": optimizer}) for pattern, optimizer in optimizers.items()}


def _is_chosen(pattern: str, scope: str) -> bool:
    """Whether a pattern was chosen for players or terms of a model, rather than for all that any model has."""
    inside = re.match(re.escape(scope).replace(r"\*", "[^/]*"), pattern)
    return inside is not None and pattern[inside.end() :].strip("*") != ""
