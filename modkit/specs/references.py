"""References in a spec: `${train.seed}` is a scalar written elsewhere, `{ref: model.autoencoder}` a part built there.

Both ask for what stands at their path, so a path that leads back to the reference is a cycle. Scalars are put in
place; a `ref` stays, for the part is the same object, not an equal one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from modkit.errors import Position, Problem, SpecError, join, split
from modkit.specs.node import Node, Value, describe
from modkit.specs.spec import Spec
from modkit.specs.tree import Path, get_value, walk

__all__ = ["resolve"]

_REFERENCE = re.compile(r"\$\{\s*([^{}]*?)\s*\}")


def resolve(spec: Spec) -> Spec:
    """This spec with every `${path}` replaced by the scalar at that path, and every `ref` checked.

    Raises:
        SpecError: If a path leads nowhere, to the wrong thing, or in a circle, whose paths are listed.
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
    return spec.with_tree(_replaced(spec.tree, (), scalars)) if scalars else spec


def _is_reference(value: Value) -> bool:
    return isinstance(value, str) and "${" in value


def _follow(spec: Spec, path: Path, values: Mapping[Path, Value], scalars: dict[Path, Value]) -> None:
    """Puts into `scalars` what the reference at a path, and each on the way, comes to."""
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
            raise SpecError(Problem(join(last), message, position, "`ref:` shares a part"))
        if goal in chain:
            names = list(chain)
            raise _make_cycle_error([*names[names.index(goal) :], goal], position)
        chain[goal] = None
    scalars.update({path: value for path in chain if _is_reference(values[path])})


def _replaced(value: Node, path: Path, scalars: Mapping[Path, Value]) -> Node:
    def inside(value: Value, path: Path) -> Value:
        if isinstance(value, Node):
            return _replaced(value, path, scalars)
        if isinstance(value, tuple):
            return tuple(inside(item, (*path, index)) for index, item in enumerate(value))
        return scalars.get(path, value)

    return Node({key: inside(item, (*path, key)) for key, item in value.items()})


def _find_wrong_refs(spec: Spec, values: Mapping[Path, Value]) -> Iterator[Problem]:
    goals: dict[Path, Path] = {}
    for path, value in values.items():
        if isinstance(value, Node) and set(value) == {"ref"}:
            try:
                goals[path] = _find_goal(spec, path, value)
            except SpecError as error:
                yield from error.problems
    circle = _find_cycle(goals)
    if circle:
        first = next(path for path in circle if path in goals)
        yield from _make_cycle_error(circle, spec.source.at((*first, "ref")).position).problems


def _find_goal(spec: Spec, path: Path, node: Node) -> Path:
    position = spec.source.at((*path, "ref")).position
    if node.ref is None:
        raise SpecError(Problem(join(path), f"got ref: {describe(node['ref'])}, expected a path", position))
    goal = split(node.ref, position, join(path))
    value = get_value(spec.tree, goal, position, join(path))
    if not isinstance(value, (Node, str)):
        message = f"got ref: {join(goal)}, {describe(value)}, expected a part"
        raise SpecError(Problem(join(path), message, position))
    return goal


def _find_cycle(goals: Mapping[Path, Path]) -> list[Path] | None:
    """A circle of needs: a reference needs its goal, and what holds a reference needs that."""
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
                telling = {*goals, *goals.values()}
                circle = [name for name in names[names.index(following) :] if name in telling]
                return [*circle, circle[0]]
            elif following not in done:
                trail[following] = iter(needs.get(following, ()))
    return None


def _make_cycle_error(chain: Sequence[Path], position: Position | None) -> SpecError:
    shown = [join(path) for path in (chain if len(chain) <= 10 else [*chain[:8], ("…",), chain[-1]])]
    return SpecError(Problem(shown[0], f"got a cycle {' → '.join(shown)}, expected an end", position))
