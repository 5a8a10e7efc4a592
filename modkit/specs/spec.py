"""The spec: the description of a system as a frozen tree, made from YAML text or in Python.

The tree holds what was written; short forms (`schedule: cosine`) and default parts are expanded when it is built. The
spec also records where each value was written. `Spec.from_yaml(spec.to_yaml()) == spec`.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from modkit.errors import Position, Problem, SpecError, join, split, suggest
from modkit.escapes import escape_controls
from modkit.part import format_target
from modkit.specs.node import (
    Node,
    Value,
    describe,
    freeze,
    get_value,
    make_path_error,
    rebuild,
    replace_value,
    suggest_place,
    use,
    walk,
)
from modkit.specs.yaml import MAX_DEPTH, MAX_NODES, Source, dump, parse, weigh

__all__ = ["SURROUNDINGS", "TOP", "Node", "Spec", "Value", "require_spec", "use"]

TOP = ("name", "data", "model", "train", "evaluate", "x")
"""The keys of a spec."""

SURROUNDINGS = frozenset(("data", "train", "evaluate"))
"""Those that hold the parts around the model."""

_FIT = "modkit.fit(model, data) trains a model composed from objects on tensors, a torch Dataset or a DataLoader"


@dataclass(frozen=True)
class Spec:
    """A model with its data, training and evaluation.

    Mappings become frozen nodes. `model` and `data` may be just the name of a part.

    Args:
        model: The model's node.
        name: The system's name.
        data: The data set's node, or None.
        train: Training settings, or None for the defaults.
        evaluate: How the trained model is measured, or None if training ends without an evaluation.
        x: Type of one sample (`shape`, `range`, `classes`, and the types of its `fields` by name) for a spec without
            data.
        source: Where each value was written; ignored when specs are compared.
        before: The spec before overrides swapped some of its parts, or None; neither compared nor written.

    Examples:
        >>> spec = Spec(model=use("gan", z_dim=8), data="digits")
        >>> print(spec)
        name: model
        data: {use: digits}
        model: {use: gan, z_dim: 8}
        <BLANKLINE>
        >>> Spec.from_yaml(str(spec)) == spec
        True

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
    before: Spec | None = field(default=None, compare=False, repr=False)

    if TYPE_CHECKING:  # what is given, from which the nodes above are made

        def __init__(
            self,
            model: Mapping[str, Any] | str,
            name: str = ...,
            data: Mapping[str, Any] | str | None = ...,
            train: Mapping[str, Any] | None = ...,
            evaluate: Mapping[str, Any] | None = ...,
            x: Mapping[str, Any] | None = ...,
            source: Source = ...,
            before: Spec | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for key in TOP:
            try:
                object.__setattr__(self, key, self._freeze_field(key))
            except SpecError as error:
                problems.extend(error.problems)
        if not problems:
            problems.extend(self._check_size())
        if problems:
            raise SpecError(problems)

    @classmethod
    def from_yaml(cls, text: str, file: str = "<string>") -> Spec:
        """Reads a spec from YAML text.

        Args:
            text: The text.
            file: Its name in error messages.

        Raises:
            SpecError: If anything is wrong; the error lists every problem.
        """
        tree, source = parse(text, file)
        if not isinstance(tree, dict):
            message = f"got {describe(tree)}, expected a mapping with the keys {', '.join(TOP)}"
            raise SpecError(Problem("", message, source.position))
        expected = f"got an unknown key, expected one of {', '.join(TOP)}"
        problems = [
            Problem(join([key]), expected, source.children[key].key, suggest(key, TOP))
            for key in tree
            if key not in TOP
        ]
        if "model" not in tree:
            problems.append(Problem("model", "missing, expected a part", source.position))
            tree["model"] = {}
        try:
            spec = cls(**{key: tree[key] for key in TOP if key in tree}, source=source)  # type: ignore[arg-type]
        except SpecError as error:
            problems.extend(error.problems)
        if problems:
            raise SpecError(problems)
        return spec

    def to_yaml(self) -> str:
        """Writes the spec as YAML, keys in their order.

        Raises:
            SpecError: If a part is an unregistered class or function.
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

    def _repr_html_(self) -> str:
        """In a notebook: its YAML; unregistered classes and functions are shown by their names."""
        shown: Node = rebuild(self.tree, lambda _, value: format_target(value) if callable(value) else value)
        return f"<pre>{html.escape(escape_controls(dump(shown)))}</pre>"

    @property
    def local(self) -> dict[str, str]:
        """The unregistered classes and functions among its parts, by path: a file cannot hold them."""
        return {join(path): format_target(value) for path, value in walk(self.tree) if callable(value)}

    def at(self, path: str) -> Value:
        """Returns the value at a dotted path.

        Examples:
            >>> Spec(model=use("gan", generator=use("mlp", width=64))).at("model.generator.width")
            64

        Raises:
            SpecError: If the path does not exist; the error suggests the closest names.
        """
        parts = split(path)
        return getattr(self, path) if path in TOP else get_value(self.tree, parts)

    def find_position(self, path: str, *, key: bool = False) -> Position | None:
        """Returns where the value at a path was written, or the closest value around it; None for a spec from Python.

        Args:
            path: The path.
            key: Whether to return the position of the value's key.
        """
        parts = split(path)
        source = self.source.at(parts)
        if key and source is not self.source.at(parts[:-1]):
            return source.key or source.position
        return source.position

    def with_value(self, path: str, value: Any, position: Position | Source | None = None) -> Spec:
        """Returns a copy of the spec with another value at a path.

        Missing mappings along the path are created, and a part that is given only by its name becomes a node.

        Args:
            path: The path.
            value: The new value.
            position: Where the value was written, if in a file.

        Examples:
            >>> Spec(model="gan").with_value("model.generator.width", 64).model
            use('gan', generator={'width': 64})

        Raises:
            SpecError: If the path leads through a scalar or a reference, or to an item beyond the end of a list.
        """
        parts = split(path)
        source = position if isinstance(position, Source) else Source(position)
        if parts[0] not in TOP:
            raise make_path_error(parts[:1], TOP, source.position)
        tree: Any = replace_value(self.tree, parts, freeze(value, parts, len(parts)), source.position)
        return replace(self, source=self.source.with_child(parts, source)).with_tree(tree)

    @property
    def tree(self) -> Node:
        """All fields that are set, as one node."""
        return Node({key: value for key in TOP if (value := getattr(self, key)) is not None})

    def with_tree(self, tree: Mapping[str, Any]) -> Spec:
        """Returns a copy of the spec with the values of another tree, and the same source positions."""
        return replace(self, **{key: tree[key] for key in TOP if key in tree})

    def _freeze_field(self, key: str) -> Any:
        value = getattr(self, key)
        position = self.source.at([key]).position
        if key == "name":
            if isinstance(value, str) and value:
                return freeze(value, (key,), 1)
            raise SpecError(Problem(key, f"got {describe(value)}, expected a name", position))
        if value is None and key != "model":
            return None
        if isinstance(value, str) and key in ("model", "data"):
            value = {"use": value}
        if not isinstance(value, Mapping):
            expected = "a mapping or a part's name" if key in ("model", "data") else "a mapping"
            hint = _FIT if key == "data" and suggest_place(value) else suggest_place(value)
            raise SpecError(Problem(key, f"got {describe(value)}, expected {expected}", position, hint))
        try:
            frozen = freeze(value, (key,), 1)
        except SpecError as error:
            raise SpecError(replace(problem, position=position) for problem in error.problems) from None
        if key == "model" and "model" in value and "use" not in value:
            message = "got the keys of a whole spec, expected those of a model"
            raise SpecError(Problem(key, message, position, "a spec is made of a mapping by Spec(**mapping)"))
        return frozen

    def _check_size(self) -> Iterator[Problem]:
        total = 0
        for path, value in walk(self.tree):
            total += weigh(value)
            if total > MAX_NODES:
                yield Problem("", f"got more than {MAX_NODES} nodes, expected fewer")
                return
            if len(path) > MAX_DEPTH:
                yield Problem("", f"got more than {MAX_DEPTH} levels of nesting at {join(path[:4])}…, expected fewer")
                return


def require_spec(value: object, user: str) -> None:
    """Refuses what is no spec, and tells how one is made of it or what to do with it instead.

    Raises:
        SpecError: If it is no spec; `user` is the function that expects one.
    """
    if not isinstance(value, Spec):
        hint = suggest_place(value) or "Spec(model=use(…), data=use(…)), or load_spec(file)"
        raise SpecError(Problem("", f"{user} expects a Spec, got {describe(value)}", hint=hint))
