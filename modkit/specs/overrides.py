"""Overrides: `model.prior.sampler=dpm-solver++` changes a spec from the command line.

An override consists of a path, `=`, and a value in YAML. An override that names a part for a slot swaps the part. Swaps
are applied before other values, whatever their order. Another model keeps its conditioner only; any other part keeps
those parameters that both parts declare and whose values fit; notices list the dropped ones. A mapping that names no
part has the parameters of the one that the slot names. What was written in names that a part had formerly is read in
those of today where an override adds to it, so that the override replaces what it names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modkit.errors import Position, Problem, SpecError, join, split, suggest
from modkit.parts.signature import SlotShape
from modkit.specs.node import Node, Path, Value, find_value, freeze
from modkit.specs.places import (
    expand_node,
    find_known,
    find_place,
    get_part,
    keep_outermost,
    list_named,
    read_known,
    walk_slots,
)
from modkit.specs.spec import TOP, Spec
from modkit.specs.swaps import swap
from modkit.specs.yaml import Source, parse

__all__ = [
    *("SLOTS", "apply", "expand", "get_path", "is_override", "locate", "normalize", "require_list", "split_values"),
]

SLOTS = ("sampler", "guidance")
"""Slots that only sampling uses: overrides of a run may give them by their bare names."""

_FILE = "<override"
_TOKEN = re.compile(r"""(?:^|(?<=[\[{,:]))\s*(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')|.""", re.DOTALL)


@dataclass(frozen=True)
class _Override:
    """A path and its new value."""

    parts: Path
    value: Value
    source: Source

    @property
    def position(self) -> Position | None:
        return self.source.position


def apply(spec: Spec, overrides: Sequence[str]) -> tuple[Spec, list[str]]:
    """Applies overrides to a spec.

    Args:
        spec: The spec.
        overrides: `path=value` strings, with values in YAML (`channels=[32, 64]`, `{use: ddim, steps: 5}`).

    Returns:
        The new spec, and notices of the parameters that swaps dropped, each with a reason.

    Examples:
        >>> spec = Spec.from_yaml("{model: {use: diffusion, sampler: {use: ddim, steps: 50, eta: 0.5}}}")
        >>> changed, notices = apply(spec, ["model.sampler=heun"])
        >>> changed.model["sampler"], notices
        (use('heun', steps=50), ['swap model.sampler: dropped eta (unknown to heun)'])

    Raises:
        SpecError: If an override is malformed or its path cannot be set. The position of the n-th override is
            `<override n>`, counted from 1.
    """
    require_list(overrides, "overrides")
    parsed = list(_parse(overrides))
    if problems := [_make_problem(spec, one) for one in parsed if one.parts[0] not in TOP]:
        raise SpecError(problems)
    for index, override in enumerate(parsed):
        spec, parts = _renew_names(spec, override.parts)
        parsed[index] = replace(override, parts=parts)
    changed, notices, swapped = _apply_swaps(spec, parsed)
    for override in parsed:
        if override not in swapped:
            named = _keep_name(changed, override)
            changed = changed.with_value(join(named.parts), named.value, named.source)
    return replace(changed, before=spec) if swapped else changed, notices


def _make_problem(spec: Spec, override: _Override) -> Problem:
    """Makes the problem of a path that begins with no key of a spec, with the places that its first name may mean."""
    first, *rest = override.parts
    paths = [join((*path, *rest)) for path in list_named(spec, str(first))]
    hint = f"did you mean {' or '.join(paths[:3])}?" if paths else suggest(str(first), TOP)
    return Problem(
        join(override.parts[:1]),
        f"got a path that does not exist, expected one of {', '.join(TOP)}",
        override.position,
        hint,
    )


def normalize(overrides: Sequence[str]) -> tuple[str, ...]:
    """Returns the overrides among `overrides` that count, the last for each path, in the order of their paths.

    They are returned as they are if one is malformed, or if their order has a meaning: one that names no part replaces
    all that the ones before it set inside its path.

    Examples:
        >>> normalize(["sampler.steps=2", "guidance.scale=4", "guidance.scale=3", "sampler=ddim"])
        ('guidance.scale=3', 'sampler=ddim', 'sampler.steps=2')
    """
    try:
        parsed = list(_parse(overrides))
    except SpecError:
        return tuple(overrides)
    paths = [_get_slot_path(one) if _has_name(one) else one.parts for one in parsed]
    plain = [(one, path) for one, path in zip(parsed, paths) if not _has_name(one)]
    for one, path in plain:
        least = len(path) + (not isinstance(one.value, Node))  # a mapping adds to the part that another names as well
        if any(other is not one and len(at) >= least and at[: len(path)] == path for other, at in zip(parsed, paths)):
            return tuple(overrides)
    last = dict(zip(paths, overrides))
    return tuple(last[path] for path in sorted(last, key=join))


def get_path(override: str, position: Position | None = None) -> Path:
    """Returns the path of an override, without looking at its value.

    Examples:
        >>> get_path("train.stages[0].steps=5")
        ('train', 'stages', 0, 'steps')

    Raises:
        SpecError: If it is malformed, at the position.
    """
    return split(override.partition("=")[0].strip(), position)


def is_override(position: Position | None) -> bool:
    """Whether a position is in an override, not in a spec."""
    return position is not None and position.file.startswith(_FILE)


def require_list(texts: Sequence[str], what: str) -> None:
    """Refuses a string in place of a list of strings: its letters would be the items.

    Raises:
        SpecError: If it is one.
    """
    if isinstance(texts, str):
        raise SpecError(Problem("", f"got the string {texts!r}, expected a list of {what}: [{texts!r}]"))


def locate(spec: Spec, name: str) -> list[str]:
    """Returns the paths of all slots of this name in the spec's model, including slots of default parts."""
    root = ("model",)
    return [join(path) for path, _ in walk_slots(spec.model, SlotShape("model"), root) if path[-1] == name]


def expand(spec: Spec, names: Collection[str], override: str) -> str:
    """Expands an override that starts with the name of a slot (`sampler=ddim`, `guidance.scale=3`) to its full path.

    Args:
        spec: The spec that has the slot.
        names: The slots that may be abbreviated to their name.
        override: The override. One that starts with `model` or `evaluate`, or with `data` if the spec has no data or
            gives the types in `x`, is returned unchanged.

    Examples:
        >>> expand(Spec(model="diffusion"), ["sampler"], "sampler.steps=20")
        'model.sampler.steps=20'

    Raises:
        SpecError: If the override is malformed or names another slot, or if the model does not have exactly one slot
            of this name, apart from those of parts beside it.
    """
    path, equals, value = override.partition("=")
    first, *rest = _parse_path(override, equals, Position(f"{_FILE}>", 1, 1))
    if first in ("model", "evaluate") or (first == "data" and (spec.data is None or spec.x)):
        return override
    if first not in names:
        begin = f"a path that begins with model or evaluate, or one of: {', '.join(sorted(names))}"
        message = f"`{join([first])}` cannot be changed here; give {begin}"
        raise SpecError(Problem(path.strip(), message, hint=suggest(str(first), names)))
    places = keep_outermost(locate(spec, str(first)))
    if len(places) != 1:
        message = f"got a name that {len(places)} slots have, expected one of {', '.join(places)}"
        missing = f"the model has no such slot, expected one of: {', '.join(_list_present(spec, names))}"
        raise SpecError(Problem(path.strip(), message if places else missing))
    return f"{join([*split(places[0]), *rest])}={value}"


def split_values(text: str) -> list[str]:
    """Splits values at commas outside brackets and quotes; `'` inside a word is an apostrophe.

    Examples:
        >>> split_values("2, [4, 8], a'b")
        ['2', '[4, 8]', "a'b"]
    """
    values, depth = [""], 0
    for token in _TOKEN.findall(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token, 0)
        if token == "," and depth <= 0:
            values.append("")
        else:
            values[-1] += token
    return [value.strip() for value in values]


def _list_present(spec: Spec, names: Iterable[str]) -> list[str]:
    return [name for name in sorted(names) if locate(spec, name)] or ["none"]


def _parse(overrides: Sequence[str]) -> Iterator[_Override]:
    problems: list[Problem] = []
    for number, override in enumerate(overrides, 1):
        file = f"{_FILE} {number}>"
        try:
            path, equals, text = override.partition("=")
            parts = _parse_path(override, equals, Position(file, 1, 1))
            data, source = _parse_value(
                " " * (len(path) + 1) + text, file, parts
            )  # so that columns count from the path
            value = freeze(data, parts)
        except SpecError as error:
            problems.extend(error.problems)
            continue
        if text.strip() == "":
            source = replace(source, position=Position(file, 1, len(path) + 2))
        yield _Override(parts, value, replace(source, key=Position(file, 1, 1)))
    if problems:
        raise SpecError(problems)


def _parse_value(text: str, file: str, parts: Path) -> tuple[Any, Source]:
    """Parses a value, whose problems are those of the path that it is given."""
    try:
        return parse(text, file)
    except SpecError as error:
        inside = [(one, split(one.path) if one.path else ()) for one in error.problems]
        raise SpecError(replace(one, path=join((*parts, *below))) for one, below in inside) from None


def _parse_path(override: str, equals: str, position: Position) -> Path:
    if not equals:
        raise SpecError(Problem("", f"got {override!r}, expected path=value", position))
    return get_path(override, position)


def _renew_names(spec: Spec, path: Path) -> tuple[Spec, Path]:
    """Writes the parts on a path with their parameters of today, if they have any former ones, and so the path."""
    for depth in range(1, len(path)):
        place, node = find_place(spec, path[:depth]), find_value(spec.tree, path[:depth])
        if place is None or place.container is not None:
            continue
        kind, name = place.kind, get_part(node, place)
        part, declared = find_known(kind, name), read_known(kind, name)
        if part is None or declared is None:
            continue
        key = part.renamed.get(str(path[depth]), path[depth])
        path = (*path[:depth], key, *path[depth + 1 :])
        if not isinstance(node, Node) or key in node or node.params.keys() <= declared.keys():
            continue
        try:
            renewed = expand_node(part, node)
        except ValueError:  # the planner reports it, with its place
            continue
        if renewed.params.keys() <= declared.keys():
            spec = spec.with_value(join(path[:depth]), renewed, spec.source.at(path[:depth]))
    return spec, path


def _apply_swaps(spec: Spec, overrides: Sequence[_Override]) -> tuple[Spec, list[str], list[_Override]]:
    """Applies all swaps, outermost first; if several swap the same slot, the last one counts."""
    notices: list[str] = []
    swaps: dict[Path, list[_Override]] = {}
    for override in overrides:
        if _has_name(override) and override.parts[0] in ("model", "data", "train", "evaluate"):
            swaps.setdefault(_get_slot_path(override), []).append(override)
    done: list[_Override] = []
    for path in sorted(swaps, key=len):
        place = find_place(spec, path)
        if place is not None and place.container is None:
            last = swaps[path][-1]
            source = last.source
            if last.parts != path:  # `PATH.use=NAME`
                source = Source(source.position, source.key, {"use": source})
            spec, dropped = swap(spec, path, place, last.value, source)
            notices += dropped
            done += swaps[path]
    return spec, notices, done


def _has_name(override: _Override) -> bool:
    """Whether the value names a part, if it is that of a slot."""
    value = override.value
    return isinstance(value, str) or (isinstance(value, Node) and ("use" in value or value.ref is not None))


def _keep_name(spec: Spec, override: _Override) -> _Override:
    """Returns an override that keeps the name of the part in a slot, if it gives parameters without a name."""
    value, former = override.value, find_value(spec.tree, override.parts)
    use = former.use if isinstance(former, Node) else former
    if not isinstance(value, Node) or value.ref is not None or "use" in value or use is None:
        return override
    place = find_place(spec, override.parts)
    if place is None or place.container is not None:
        return override
    source = override.source.with_child(("use",), spec.source.at((*override.parts, "use")))
    return replace(override, value=Node({"use": use, **value}), source=source)


def _get_slot_path(override: _Override) -> Path:
    return override.parts[:-1] if override.parts[-1] == "use" else override.parts
