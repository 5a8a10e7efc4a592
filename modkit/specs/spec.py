"""The spec: the one description of a system, a frozen tree that YAML text and Python build alike.

The tree keeps what was written: short forms (`schedule: cosine`) and default parts expand where it is built. Where
things were written is kept beside it. `Spec.from_yaml(spec.to_yaml()) == spec`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modkit.errors import Position, Problem, SpecError, join, nearest, split
from modkit.specs.node import Node, Value, described, frozen, target, use
from modkit.specs.tree import found, placed, unknown, walk
from modkit.specs.yaml import MAX_DEPTH, MAX_NODES, Source, dump, parse, weight

__all__ = ["Node", "Spec", "Value", "use"]

_TOP = ("name", "data", "model", "train", "evaluate", "x")


@dataclass(frozen=True)
class Spec:
    """A model and what surrounds it. Mappings are frozen into nodes; `model` and `data` may be a part's bare name.

    Args:
        model: The model's node.
        name: The system's name.
        data: The data set's node, or None.
        train: Settings of training, or None for their defaults.
        evaluate: How the trained model is measured, or None where training does not end in that.
        x: Type of one sample (`shape`, `range`, and those of its `fields` by name), where there are no data.
        source: Where everything was written; no part of the spec's identity.

    Raises:
        SpecError: If a field has the wrong type, or the tree is too deep or too large.
    """

    model: Node
    name: str = "model"
    data: Node | None = None
    train: Node | None = None
    evaluate: Node | None = None
    x: Node | None = None
    source: Source = field(default_factory=Source, compare=False, repr=False)

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for key in _TOP:
            try:
                object.__setattr__(self, key, self._field(key))
            except SpecError as error:
                problems.extend(error.problems)
        if not problems:
            problems.extend(self._oversized())
        if problems:
            raise SpecError(problems)

    @classmethod
    def from_yaml(cls, text: str, file: str = "<string>") -> Spec:
        """Reads a spec from YAML text.

        Raises:
            SpecError: With every problem found in it.
        """
        tree, source = parse(text, file)
        if not isinstance(tree, dict):
            message = f"got {described(tree)}, expected a mapping with the keys {', '.join(_TOP)}"
            raise SpecError(Problem("", message, source.position))
        expected = f"got an unknown key, expected one of {', '.join(_TOP)}"
        problems = [
            Problem(join([key]), expected, source.children[key].key, nearest(key, _TOP))
            for key in tree
            if key not in _TOP
        ]
        if "model" not in tree:
            problems.append(Problem("model", "missing, expected a part", source.position))
            tree["model"] = {}
        try:
            spec = cls(**{key: tree[key] for key in _TOP if key in tree}, source=source)  # type: ignore[arg-type]
        except SpecError as error:
            problems.extend(error.problems)
        if problems:
            raise SpecError(problems)
        return spec

    def to_yaml(self) -> str:
        """The YAML text of this spec, the same for equal key orders.

        Raises:
            SpecError: If a part is a class without a registered name.
        """
        problems = [
            Problem(path, f"got the local {name}, which cannot be loaded by name, expected a registered part")
            for path, name in self.local.items()
        ]
        if problems:
            raise SpecError(problems)
        return dump(self.tree)

    def __str__(self) -> str:
        return self.to_yaml()

    @property
    def local(self) -> dict[str, str]:
        """The classes and functions that stand in place of a name, by path: no file can hold them."""
        return {join(path): target(value) for path, value in walk(self.tree) if callable(value)}

    def at(self, path: str) -> Value:
        """The value at a dotted path.

        Raises:
            SpecError: If there is none, with the nearest names.
        """
        parts = split(path)
        return getattr(self, path) if path in _TOP else found(self.tree, parts)

    def position(self, path: str, *, key: bool = False) -> Position | None:
        """Where the value at a path (or its key) was written, or what is nearest around it; None if in Python."""
        parts = split(path)
        source = self.source.at(parts)
        if key and source is not self.source.at(parts[:-1]):
            return source.key or source.position
        return source.position

    def with_value(self, path: str, value: Any, position: Position | Source | None = None) -> Spec:
        """This spec with another value at a path.

        Mappings that are absent on the way are made, and a part's bare name on the way becomes a node.

        Args:
            path: Where.
            value: What stands there, frozen.
            position: Where it is written.

        Raises:
            SpecError: If the path leads through anything else, or to an item that a list has not.
        """
        parts = split(path)
        source = position if isinstance(position, Source) else Source(position)
        if parts[0] not in _TOP:
            raise unknown(parts[:1], _TOP, source.position)
        tree: Any = placed(self.tree, parts, frozen(value, parts, len(parts)), source.position)
        return replace(self, source=self.source.placed(parts, source)).with_tree(tree)

    @property
    def tree(self) -> Node:
        """Everything that is set, as one node."""
        return Node({key: value for key in _TOP if (value := getattr(self, key)) is not None})

    def with_tree(self, tree: Mapping[str, Any]) -> Spec:
        """The spec of another tree, written at the same places."""
        return replace(self, **{key: tree[key] for key in _TOP if key in tree})

    def _field(self, key: str) -> Any:
        value = getattr(self, key)
        position = self.source.at([key]).position
        if key == "name":
            if isinstance(value, str) and value:
                return frozen(value, (key,), 1)
            raise SpecError(Problem(key, f"got {described(value)}, expected a name", position))
        if value is None and key != "model":
            return None
        if isinstance(value, str) and key in ("model", "data"):
            value = {"use": value}
        if not isinstance(value, Mapping):
            expected = "a mapping or a part's name" if key in ("model", "data") else "a mapping"
            raise SpecError(Problem(key, f"got {described(value)}, expected {expected}", position))
        try:
            return frozen(value, (key,), 1)
        except SpecError as error:
            raise SpecError(replace(problem, position=position) for problem in error.problems) from None

    def _oversized(self) -> Iterator[Problem]:
        total = 0
        for path, value in walk(self.tree):
            total += weight(value)
            if total > MAX_NODES:
                yield Problem("", f"got more than {MAX_NODES} nodes, expected fewer")
                return
            if len(path) > MAX_DEPTH:
                yield Problem("", f"got more than {MAX_DEPTH} levels of nesting at {join(path[:4])}…, expected fewer")
                return
