"""Migration: what a run was made with by an older version of a plug-in, as the version that is here understands it.

A part whose parameters or weights have changed names a function in its declaration:

    Part("bottleneck", "fsq", "acme.parts:FSQ", "…", aliases=("old-name",), migrate="acme.migrations:fsq")

    def fsq(params: dict[str, Any], state: dict[str, Tensor], version: str) -> tuple[dict[str, Any], dict[str, Tensor]]

It is called for each node of a run's spec that the part stands at, where the run's lock has another version of its
distribution than the one that is here. `params` is all that the node holds but `use`, parts in it as dicts; `state`
the part's own tensors by the names that they have in it, those of parts in it included; `version` the lock's. What it
returns stands in their place. Inner parts go before those around them; a part built several times from one node is
asked once for each, and must give the same parameters every time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from modkit.errors import SpecError, join, split
from modkit.part import imported
from modkit.parts.registry import Entry, registry
from modkit.runs.lock import read_rows
from modkit.runs.run import Run
from modkit.specs.node import Node, Value, described
from modkit.specs.spec import Spec
from modkit.specs.tree import Path

__all__ = ["Current", "Migration", "current", "current_spec", "due", "known", "prefixes"]


@dataclass(frozen=True)
class Migration:
    """A part at one place of a run that must go from the version in the run's lock to the one that is here."""

    entry: Entry
    version: str
    path: str

    def __str__(self) -> str:
        part = self.entry.part
        return f"the migration {part.migrate} of {part} at {self.path}, from {self.version} to {self.entry.version}"

    def __call__(self, tree: Node, state: Mapping[str, Tensor]) -> tuple[Node, dict[str, Tensor]]:
        """A run's spec and weights after it.

        Raises:
            ValueError: If the function fails, or returns something else than parameters and tensors.
        """
        function = imported(self.entry.part.migrate or "", f"migrate of part {self.entry.part}")
        places = [self.path, *_shared(tree, self.path)]
        found = list(dict.fromkeys(prefix for place in places for prefix in prefixes(place, state)))
        made = {key: value for key, value in state.items() if not key.startswith(tuple(found))}

        def changed(node: Node) -> Node:
            nodes = []
            for prefix in found or [f"{self.path.partition('.')[2]}."]:
                params, tensors = self._asked(function, node, _under(prefix, state))
                nodes.append(Node({"use": node["use"], **params}))
                made.update({f"{prefix}{key}": tensor for key, tensor in tensors.items()})
            if any(other != nodes[0] for other in nodes):
                raise ValueError(f"{self} expects to give the same parameters for each part that is built, got others")
            return nodes[0]

        return _placed(tree, split(self.path), changed), made

    def _asked(
        self, function: Callable[..., Any], node: Node, state: dict[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What the function makes of one part."""
        try:
            answer = function({key: _plain(value) for key, value in node.params.items()}, dict(state), self.version)
        except Exception as error:
            raise ValueError(f"{self} failed: {type(error).__name__}: {error}") from error
        params, tensors = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
        if not (isinstance(params, dict) and isinstance(tensors, dict)) or not all(
            isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in tensors.items()
        ):
            raise ValueError(f"{self} expects to return (params, state), a dict and a dict of tensors, got {answer!r}")
        try:
            Node(params)
        except SpecError as error:
            raise ValueError(f"{self} gives parameters that no spec holds: {error}") from error
        return params, tensors


class Current(NamedTuple):
    """A run as what is installed now understands it.

    Args:
        spec: Its resolved spec.
        weights: Those of a checkpoint, the averaged ones inside a stage.
        migrations: What was migrated to get there.
    """

    spec: Spec
    weights: dict[str, Tensor]
    migrations: tuple[Migration, ...]


def current(run: Run, checkpoint: str | None = None) -> Current:
    """A run's spec and weights, migrated where that is due.

    Raises:
        ValueError: If there is no such checkpoint, it is damaged, or a migration fails.
    """
    spec, weights = _spec(run), run.load_weights(checkpoint)
    migrations = due(run)
    tree = spec.tree
    for migration in migrations:
        tree, weights = migration(tree, weights)
    return Current(spec.with_tree(tree) if migrations else spec, weights, migrations)


def current_spec(run: Run) -> Spec:
    """A run's resolved spec, migrated where that is due; reads weights only then.

    Raises:
        ValueError: If a migration fails.
    """
    return current(run).spec if due(run) else _spec(run)


def due(run: Run) -> tuple[Migration, ...]:
    """The migrations that a run needs, inner parts first.

    Raises:
        ValueError: If the run's lock is none.
    """
    found = [
        Migration(entry, row["version"], path)
        for row in read_rows(run.lock)
        if (entry := known(row)) and entry.part.migrate and entry.version != row["version"]
        for path in row.get("at", ())
    ]
    return tuple(sorted(found, key=lambda migration: -len(split(migration.path))))


def known(row: Mapping[str, Any]) -> Entry | None:
    """The part that is here of a row of a lock, under its name or a former one."""
    try:
        return registry().entry(row["kind"], row["name"])
    except ValueError:
        return None


def prefixes(path: str, keys: Mapping[str, object]) -> list[str]:
    """What the state-dict keys of the part at a path of the spec begin with, each part that the node was built into.

    A part is kept at its path in the spec; one of several that one node makes at `PATH[i]`.
    """
    root, *names = split(path)
    if root != "model":
        return []
    steps = [f"\\[{name}\\]" if isinstance(name, int) else f"\\.{re.escape(name)}(?:\\[\\d+\\])?" for name in names]
    pattern = re.compile("".join([*steps, "\\."]))
    return list(dict.fromkeys(match[0][1:] for key in keys if (match := pattern.match(f".{key}"))))


def _spec(run: Run) -> Spec:
    return Spec.from_yaml(run.spec_text, str(run.path / "spec.yaml"))


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _shared(tree: Node, path: str) -> list[str]:
    """The paths at which a spec refers to the part at a path, or to one around it."""
    refs = [(join(place), target) for place, target in _refs(tree, ())]
    return [place + path.removeprefix(to) for place, to in refs if f"{path}.".startswith((f"{to}.", f"{to}["))]


def _refs(tree: Value, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(tree, Node):
        if tree.ref is not None:
            yield path, tree.ref
        elif tree.use == "run" and "part" in tree:
            yield from _refs(tree["part"], path)
        else:
            for key, value in tree.items():
                yield from _refs(value, (*path, key))
    elif isinstance(tree, tuple):
        for index, value in enumerate(tree):
            yield from _refs(value, (*path, index))


def _placed(tree: Value, path: Path, changed: Callable[[Node], Node]) -> Any:
    """A tree with the part at a path changed; a trained piece of another run holds its own in `part`."""
    if isinstance(tree, Node) and tree.use == "run" and "part" in tree:
        return Node({**tree, "part": _placed(tree["part"], path, changed)})
    if not path and isinstance(tree, Node) and "use" in tree:
        return changed(tree)
    head, *rest = path or (None,)
    if isinstance(tree, tuple) and isinstance(head, int) and head < len(tree):
        return (*tree[:head], _placed(tree[head], tuple(rest), changed), *tree[head + 1 :])
    if isinstance(tree, Node) and isinstance(head, str) and head in tree:
        return Node({**tree, head: _placed(tree[head], tuple(rest), changed)})
    raise ValueError(f"a lock expects a part where it says that one stands, got {described(tree)}")


def _plain(value: Value) -> Any:
    if isinstance(value, Node):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
