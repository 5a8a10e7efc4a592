"""References in a spec: `${train.seed}` copies a scalar, and `{ref: model.autoencoder}` shares a part.

Scalars are replaced by their values when references are resolved. A `ref` stays in the tree, since it stands for the
same object, not for an equal one. A path that leads back to its own reference is a cycle, which is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modkit.errors import Position, Problem, SpecError, join, split
from modkit.specs.node import Node, Path, Value, describe, find_written, get_value, rebuild, strip_parts, walk
from modkit.specs.spec import Spec

__all__ = ["list_refs", "move", "rebase", "resolve"]

_REFERENCE = re.compile(r"\$\{\s*([^{}]*?)\s*\}")


def resolve(spec: Spec) -> Spec:
    """Replaces every `${path}` of a spec by the scalar at that path, and checks every `ref`.

    Examples:
        >>> resolve(Spec.from_yaml("{model: {use: gan, z_dim: '${train.seed}'}, train: {seed: 3}}")).model["z_dim"]
        3

    Raises:
        SpecError: If a path does not exist, leads to a value of the wrong type, or is part of a cycle.
    """
    values = dict(walk(spec.tree))
    scalars: dict[Path, Value] = {}
    problems: list[Problem] = []
    for path, value in values.items():
        if _is_reference(value):
            try:
                _follow(spec, path, values, scalars)
            except SpecError as error:
                problems.extend(error.problems)
    problems.extend(_find_wrong_refs(spec, values))
    if problems:
        raise SpecError(problems)
    if not scalars:
        return spec
    return spec.with_tree(rebuild(spec.tree, lambda path, value: scalars.get(path, value)))


def list_refs(tree: Node) -> dict[str, str]:
    """Lists every `ref` of a tree by its path, with the path of the part that it shares.

    Examples:
        >>> list_refs(Node({"model": {"critic": {"ref": "model.encoder"}, "encoder": {"use": "mlp"}}}))
        {'model.critic': 'model.encoder'}
    """
    nodes = {path: value for path, value in walk(tree) if isinstance(value, Node)}
    return {join(strip_parts(tree, path)): node.ref for path, node in nodes.items() if node.ref is not None}


def move(path: str, places: Mapping[str, str]) -> str:
    """Moves a path that is one of `places`, or inside one of them, to where that is now.

    Examples:
        >>> move("model.encoder", {"model": "model.autoencoder"})
        'model.autoencoder.encoder'
    """
    found = (new + path.removeprefix(old) for old, new in places.items() if f"{path}.".startswith(f"{old}."))
    return next(found, path)


def rebase(tree: Value, places: Mapping[str, str]) -> Any:
    """Returns a tree whose references lead to where the parts at `places`, and what is inside them, are now."""

    def follow(_: Path, value: Value) -> Value:
        return Node({"ref": move(value.ref, places)}) if isinstance(value, Node) and value.ref is not None else value

    return rebuild(tree, follow)


def _is_reference(value: Value) -> bool:
    return isinstance(value, str) and "${" in value


def _follow(spec: Spec, path: Path, values: Mapping[Path, Value], scalars: dict[Path, Value]) -> None:
    """Follows the chain of references from a path, and adds the value of each one to `scalars`."""
    chain = {path: None}
    value = values[path]
    while _is_reference(value):
        last = next(reversed(chain))
        position = spec.source.at(last).position
        reference = _REFERENCE.fullmatch(str(value))
        if reference is None:
            message = f"got {describe(value)}, expected ${{path}} as the whole value"
            raise SpecError(Problem(join(last), message, position))
        goal = split(reference[1], position, join(last))
        value = scalars[goal] if goal in scalars else get_value(spec.tree, goal, position, join(last))
        if isinstance(value, (Node, tuple)):
            message = f"got ${{{join(goal)}}}, {describe(value)}, expected a scalar"
            raise SpecError(Problem(join(last), message, position, "to share a part, use `ref:`"))
        if goal in chain:
            names = list(chain)
            raise _make_cycle_error([*names[names.index(goal) :], goal], position)
        chain[goal] = None
    scalars.update({path: value for path in chain if _is_reference(values[path])})


def _find_wrong_refs(spec: Spec, values: Mapping[Path, Value]) -> Iterator[Problem]:
    goals: dict[Path, Path] = {}
    for path, value in values.items():
        if isinstance(value, Node) and set(value) == {"ref"}:
            try:
                goals[path] = _find_goal(spec, path, value)
            except SpecError as error:
                yield from error.problems
    cycle = _find_cycle(goals)
    if cycle:
        first = next(path for path in cycle if path in goals)
        yield from _make_cycle_error(cycle, spec.source.at((*first, "ref")).position).problems


def _find_goal(spec: Spec, path: Path, node: Node) -> Path:
    position = spec.source.at((*path, "ref")).position
    if node.ref is None:
        raise SpecError(Problem(join(path), f"got ref: {describe(node['ref'])}, expected a path", position))
    goal = find_written(spec.tree, split(node.ref, position, join(path)))
    value = get_value(spec.tree, goal, position, join(path))
    if not isinstance(value, (Node, str)):
        message = f"got ref: {join(goal)}, {describe(value)}, expected a part"
        raise SpecError(Problem(join(path), message, position))
    return goal


def _find_cycle(goals: Mapping[Path, Path]) -> list[Path] | None:
    """Finds a cycle: a reference depends on its goal, and a mapping or list on the references that it holds."""
    needs: dict[Path, dict[Path, None]] = {path: {goal: None} for path, goal in goals.items()}
    for path in goals:
        for stop in range(len(path) - 1, 0, -1):
            needs.setdefault(path[:stop], {})[path[: stop + 1]] = None
    done: set[Path] = set()
    for start in goals:
        trail: dict[Path, Iterator[Path]] = {} if start in done else {start: iter(needs[start])}
        while trail:
            path, rest = next(reversed(trail.items()))
            following = next(rest, None)
            if following is None:
                done.add(path)
                del trail[path]
            elif following in trail:
                names = list(trail)
                named = {*goals, *goals.values()}
                cycle = [name for name in names[names.index(following) :] if name in named]
                return [*cycle, cycle[0]]
            elif following not in done:
                trail[following] = iter(needs.get(following, ()))
    return None


def _make_cycle_error(chain: Sequence[Path], position: Position | None) -> SpecError:
    shown = [join(path) for path in (chain if len(chain) <= 10 else [*chain[:8], ("…",), chain[-1]])]
    message = f"got a cycle {' → '.join(shown)}, expected references without cycles"
    return SpecError(Problem(shown[0], message, position))
