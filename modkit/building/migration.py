"""Migration: updates the spec and weights of a run that was made with an older version of a plug-in.

A part whose parameters or weights have changed declares a function:

    Part("bottleneck", "fsq", "acme.parts:FSQ", "…", aliases=("old-name",), migrate="acme.migrations:fsq")

    def fsq(params: dict[str, Any], state: dict[str, Tensor], version: str) -> tuple[dict[str, Any], dict[str, Tensor]]

It is called for each node of the part in a run's spec if the run's lock has another version of its distribution than
the installed one, or `expand_params` writes the node otherwise. `params` holds the node's parameters (everything but
`use`), with inner parts as dicts. `state` holds the part's tensors, including those of inner parts, by
their names within the part. `version` is the one in the lock. The returned values replace them. Inner parts are
migrated before outer ones. If several parts were built from one node, the function is called for each, and must return
the same parameters every time.

A parameter that was added, or whose default was None, needs no function: `Part(earlier={"name": value})` states the
value with which the part does what it did before. A run's spec has all parameters of its parts, but of those whose
default is None only the ones with an `earlier` value; so a node that lacks the name was made before, and is loaded with
that value. `Part(renamed={"width": "channels"})` states the former name of a parameter: specs, overrides and runs may
have either. If a part is in it, the names of its weights change with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modkit.errors import SpecError, join, split
from modkit.part import Part, import_target
from modkit.parts.entry import Entry
from modkit.parts.registry import get_registry
from modkit.runs.lock import read_rows
from modkit.runs.run import Run
from modkit.specs.node import Node, Path, Value, describe, find_written, get_value, replace_value, thaw
from modkit.specs.places import expand_node
from modkit.specs.references import list_refs
from modkit.specs.spec import Spec

__all__ = [
    "Current",
    "Migration",
    "load_current",
    "load_current_spec",
    "find_due",
    "find_known",
    "find_prefixes",
    "has_other_weights",
    "make_refusal",
    "read_spec",
]

_KINDS = {"aggregate": "judge", "rate": "objective"}  # the present kinds of parts, by their former ones in locks


@dataclass(frozen=True)
class Migration:
    """A part of a run that must be migrated from the version in the run's lock to the installed one."""

    entry: Entry
    version: str
    path: str
    modules: Mapping[str, Sequence[str]] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        part = self.entry.part
        return f"the migration {part.migrate} of {part} at {self.path}, from {self.version} to {self.entry.version}"

    def __call__(self, tree: Node, state: Mapping[str, Tensor]) -> tuple[Node, dict[str, Tensor]]:
        """Migrates the tree of a run's spec, and its weights.

        Raises:
            ValueError: If the function fails, or returns anything but parameters and tensors.
        """
        function = import_target(self.entry.part.migrate or "", f"migrate of part {self.entry.part}")
        places = [self.path, *(() if self.path in self.modules else _find_shared(tree, self.path))]
        every = (prefix for place in places for prefix in find_prefixes(place, state, self.modules))
        found = list(dict.fromkeys(every))
        made = {key: value for key, value in state.items() if not key.startswith(tuple(found))}

        place = _locate_part(tree, split(self.path))
        node: Any = get_value(tree, place)
        nodes = []
        for prefix in found or [f"{self.path.partition('.')[2]}."]:
            params, tensors = self._call(function, node, _select_under(prefix, state))
            nodes.append(Node({"use": node["use"], **params}))
            made.update({f"{prefix}{key}": tensor for key, tensor in tensors.items()})
        if any(other != nodes[0] for other in nodes):
            raise ValueError(f"{self} must return the same parameters for each part of one node, got different ones")
        migrated: Any = replace_value(tree, place, nodes[0])
        return migrated, made

    def _call(
        self, function: Callable[..., Any], node: Node, state: dict[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Calls the function for one part and checks what it returns."""
        try:
            answer = function({key: thaw(value) for key, value in node.params.items()}, dict(state), self.version)
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
            raise ValueError(f"{self} returned parameters that a spec cannot hold: {error}") from error
        return params, tensors


@dataclass(frozen=True)
class Renaming(Migration):
    """The weights of parts in slots that have other names by now; the planner reads the run's spec as it is."""

    def __str__(self) -> str:
        names = ", ".join(f"{former} to {now}" for former, now in self.entry.part.renamed.items())
        return f"{self.entry.part} at {self.path}, which renames {names}"

    def __call__(self, tree: Node, state: Mapping[str, Tensor]) -> tuple[Node, dict[str, Tensor]]:
        """Renames weights."""
        made = dict(state)
        for prefix in find_prefixes(self.path, state, self.modules):
            for former, now in self.entry.part.renamed.items():
                pattern = re.compile(rf"({re.escape(prefix)}){re.escape(former)}(?=[.\[])")
                made = {pattern.sub(rf"\g<1>{now}", key): tensor for key, tensor in made.items()}
        return tree, made


class Current(NamedTuple):
    """A run in the form that the installed parts expect.

    Args:
        spec: Its resolved spec.
        weights: The weights of a checkpoint; within a stage, the averaged ones.
        migrations: The migrations that were applied.
        checkpoint: The name of the checkpoint.
    """

    spec: Spec
    weights: dict[str, Tensor]
    migrations: tuple[Migration, ...]
    checkpoint: str


def load_current(run: Run, checkpoint: str | None = None) -> Current:
    """Loads a run's spec and weights, and applies the migrations that are due.

    Args:
        run: The run.
        checkpoint: Name of the checkpoint; the latest by default.

    Raises:
        ValueError: If there is no such checkpoint, it is damaged, or a migration fails.
    """
    spec, (name, weights) = read_spec(run), run.read_weights(checkpoint)
    migrations = find_due(run)
    tree = spec.tree
    for migration in migrations:
        tree, weights = migration(tree, weights)
    return Current(spec.with_tree(tree) if migrations else spec, weights, migrations, name)


def make_refusal(place: object, verb: str, migration: Migration) -> ValueError:
    """Makes the error that a run or a checkpoint cannot be trained further, since a migration changes it."""
    return ValueError(
        f"{place} cannot be {verb}: {migration}, changes it, and optimizer states cannot be migrated; install the "
        "former version, or train a new run from its weights with `use: run`"
    )


def has_other_weights(run: Run, current: Current) -> bool:
    """Whether migrations changed the weights of a run, so that the states of its optimizers no longer fit them."""
    before, now = run.load_weights(current.checkpoint), current.weights
    return before.keys() != now.keys() or not all(torch.equal(now[key], value) for key, value in before.items())


def load_current_spec(run: Run) -> Spec:
    """Loads a run's resolved spec, and applies the migrations that are due; reads weights only if there are any.

    Raises:
        ValueError: If a migration fails.
    """
    return load_current(run).spec if find_due(run) else read_spec(run)


def read_spec(run: Run) -> Spec:
    """Reads a run's resolved spec, and adds what parts were before they had all of their parameters (`Part.earlier`).

    Raises:
        ValueError: If the run's lock is not valid.
    """
    spec = Spec.from_yaml(run.spec_text, str(run.path / "spec.yaml"))
    tree: Any = spec.tree
    for path, entry, _ in _list_known(run):
        if not entry.part.earlier:
            continue
        place = _locate_part(tree, path)
        node: Any = get_value(tree, place)
        if not entry.part.earlier.keys() <= node.keys():
            tree = replace_value(tree, place, _add_earlier(entry.part, node))
    return spec.with_tree(tree)


def find_due(run: Run) -> tuple[Migration, ...]:
    """Returns the migrations that a run needs, inner parts first.

    Raises:
        ValueError: If the run's lock is not valid.
    """
    found: list[Migration] = []
    known = _list_known(run)
    read = cache(lambda: Spec.from_yaml(run.spec_text).tree)
    for path, entry, version in known:
        given = (entry, version, join(path), run.lock.get("modules", {}))
        due = entry.part.migrate and (entry.version != version or _is_former(read(), path, entry.part))
        found += [Migration(*given)] if due else []
        found += [Renaming(*given)] if entry.part.renamed and _has_former(read(), path, entry.part) else []
    return tuple(found)


def _is_former(tree: Node, path: Path, part: Part) -> bool:
    """Whether a tree gives parameters of a part that it writes otherwise by now."""
    node: Any = get_value(tree, _locate_part(tree, path))
    return bool(expand_node(part, node) != node)


def _list_known(run: Run) -> list[tuple[Path, Entry, str]]:
    """Lists the paths of a run's registered parts, inner ones first, each with its entry and its locked version."""
    rows = ((row, entry) for row in read_rows(run.lock) if (entry := find_known(row)))
    found = [(split(path), entry, row["version"]) for row, entry in rows for path in row.get("at", ())]
    return sorted(found, key=lambda one: -len(one[0]))


def _has_former(tree: Node, path: Path, part: Part) -> bool:
    """Whether a tree gives a parameter of a part its former name."""
    node: Any = get_value(tree, _locate_part(tree, path))
    return not part.renamed.keys().isdisjoint(node)


def find_known(row: Mapping[str, Any]) -> Entry | None:
    """Returns the registered part of a row of a lock, under its name or a former one, or None."""
    try:
        return get_registry().find_entry(_KINDS.get(row["kind"], row["kind"]), row["name"])
    except ValueError:
        return None


def find_prefixes(path: str, keys: Mapping[str, object], modules: Mapping[str, Sequence[str]] = {}) -> list[str]:
    """Returns the prefixes of the state-dict keys of all parts that were built from the node at a path.

    A part's keys start with its path in the spec; with `PATH[i]` if several parts were built from one node. Where its
    module has another name, a run's lock has that in `modules`.
    """
    root, *names = split(path)
    if root != "model":
        return []
    steps = [f"\\[{name}\\]" if isinstance(name, int) else f"\\.{re.escape(name)}(?:\\[\\d+\\])?" for name in names]
    pattern = re.compile("".join([*steps, "\\."]))
    places = [place for place in modules if pattern.fullmatch(f"{place.removeprefix(root)}.")]
    if places:
        return [f"{name}." for place in places for name in modules[place]]
    return list(dict.fromkeys(match[0][1:] for key in keys if (match := pattern.match(f".{key}"))))


def _add_earlier(part: Part, node: Node) -> Node:
    """Adds what a part did before it had all of its parameters, as far as those of former names do not tell it."""
    now, earlier = expand_node(part, node), Node(part.earlier)
    inner = {
        key: Node({**value, **own})
        for key, value in earlier.items()
        if isinstance(value, Node) and isinstance(own := now.get(key), Node) and own.use == value.use
    }
    return Node({"use": node["use"], **earlier, **now.params, **inner})


def _select_under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _find_shared(tree: Node, path: str) -> list[str]:
    """Returns the paths at which a spec refers to the part at a path, or to a part around it."""
    refs = list_refs(tree).items()
    return [place + path.removeprefix(to) for place, to in refs if f"{path}.".startswith((f"{to}.", f"{to}["))]


def _locate_part(tree: Value, path: Path) -> Path:
    """Returns where a resolved spec holds the part at a path: in `part` where the part comes from another run."""
    place = find_written(tree, path)
    found = get_value(tree, place)
    if not isinstance(found, Node) or "use" not in found:
        raise ValueError(f"modkit.lock names a part at {join(path)}, where the run's spec has {describe(found)}")
    return place
