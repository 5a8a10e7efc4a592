"""Condition: `model.prior.sampler=ddim`, which holds for the specs that have this value at this path."""

from __future__ import annotations

from dataclasses import dataclass

from modkit.errors import Position, Problem, SpecError, split
from modkit.specs.node import Node, Path, Value, freeze, strip_parts, walk
from modkit.specs.spec import Spec
from modkit.specs.yaml import parse

__all__ = ["SpecCondition"]


@dataclass(frozen=True)
class SpecCondition:
    """A value that a spec must have at a path, or at any path with this end.

    Args:
        path: The path, or its end: `(sampler, steps)` is any sampler's number of steps.
        value: The value; a part's name stands for the part with any parameters.

    Examples:
        >>> spec = Spec.from_yaml("{model: {use: latent, prior: {use: diffusion, sampler: {use: ddim, steps: 50}}}}")
        >>> texts = ("model.prior.sampler=ddim", "steps=50", "sampler.steps=5")
        >>> [SpecCondition.read(text).holds(spec) for text in texts]
        [True, True, False]
    """

    path: Path
    value: Value

    @classmethod
    def read(cls, text: str) -> SpecCondition:
        """Reads a condition `path=value`, with the value in YAML.

        Raises:
            SpecError: If it is malformed.
        """
        position = Position("<condition>", 1, 1)
        path, equals, value = text.partition("=")
        if not path.strip() or not equals:
            raise SpecError(Problem(path.strip(), f"got {text!r}, expected PATH=VALUE", position))
        parts = split(path.strip(), position)
        return cls(parts, freeze(parse(value, "<condition>")[0], parts, len(parts)))

    def holds(self, spec: Spec) -> bool:
        """Whether a spec, which should be resolved, has the value there, inside a piece of another run too."""
        tree, end = spec.tree, slice(-len(self.path), None)
        return any(
            self._is_met_by(value) and self.path in (path[end], strip_parts(tree, path)[end])
            for path, value in walk(tree)
        )

    def _is_met_by(self, value: Value) -> bool:
        if isinstance(value, Node) and isinstance(self.value, str):
            return value.use == self.value
        return value == self.value and isinstance(value, bool) == isinstance(self.value, bool)
