"""Overrides: `model.prior.sampler=dpm-solver++` changes a spec from the command line.

An override consists of a path, `=`, and a value in YAML. An override that names a part for a slot swaps the part. Swaps
are applied before other values, whatever their order. The new part keeps those parameters that both parts declare and
whose values fit; a notice lists the dropped ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modkit.errors import Position, Problem, SpecError, join, split, suggest
from modkit.kinds import Default
from modkit.part import Local, Part
from modkit.parts.registry import get_registry
from modkit.parts.signature import Parameter, SlotShape, read_parameters
from modkit.parts.validation import validate
from modkit.specs.implied import derive_defaults
from modkit.specs.node import Node, Value, describe, freeze
from modkit.specs.spec import Spec
from modkit.specs.tree import Path, get_value
from modkit.specs.yaml import Source, parse

__all__ = ["apply", "locate", "expand"]

_ROOTS: Mapping[Path, str] = {
    ("model",): "model",
    ("data",): "data",
    ("train", "optimizer"): "optimizer",
    ("train", "lr_schedule"): "lr-schedule",
    ("evaluate", "features"): "features",
}


@dataclass(frozen=True)
class _Override:
    """A path and its new value."""

    parts: Path
    value: Value
    source: Source

    @property
    def position(self) -> Position | None:
        return self.source.position


@dataclass(frozen=True)
class _Place:
    """What a slot expects: a part of a kind, or several, and its default part."""

    shape: SlotShape
    default: str | None = None


def apply(spec: Spec, overrides: Sequence[str]) -> tuple[Spec, list[str]]:
    """Applies overrides to a spec.

    Args:
        spec: The spec.
        overrides: `path=value` strings, with values in YAML (`channels=[32, 64]`, `{use: ddim, steps: 5}`).

    Returns:
        The new spec, and a notice for each parameter that a swap dropped.

    Examples:
        >>> spec = Spec.from_yaml("{model: {use: diffusion, sampler: {use: ddim, steps: 50, eta: 0.5}}}")
        >>> changed, notices = apply(spec, ["model.sampler=heun"])
        >>> changed.model["sampler"], notices
        (use('heun', steps=50), ['swap model.sampler: dropped eta (unknown to heun)'])

    Raises:
        SpecError: If an override is malformed or its path cannot be set. The position of the n-th override is
            `<override n>`, counted from 1.
    """
    parsed = list(_parse(overrides))
    spec, notices, swapped = _apply_swaps(spec, parsed)
    for override in parsed:
        if override not in swapped:
            spec = spec.with_value(join(override.parts), override.value, override.source)
    return spec, notices


def locate(spec: Spec, name: str) -> list[str]:
    """Returns the paths of all slots of this name in the spec's model, including slots of default parts."""
    root = ("model",)
    return [join(path) for path in _walk_slots(spec.model, _Place(SlotShape("model")), root) if path[-1] == name]


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
            of this name.
    """
    path, equals, value = override.partition("=")
    first, *rest = _parse_path(override, equals, Position("<override>", 1, 1))
    if first in ("model", "evaluate") or (first == "data" and (spec.data is None or spec.x)):
        return override
    if first not in names:
        message = f"got {join([first])}, expected one of {', '.join(sorted(names))} or a path from model"
        raise SpecError(Problem(path.strip(), message, hint=suggest(str(first), names)))
    places = locate(spec, str(first))
    if len(places) != 1:
        message = f"got a name that {len(places)} slots have, expected one of {', '.join(places)}"
        missing = f"the model has no such slot, expected one of: {', '.join(_list_present(spec, names))}"
        raise SpecError(Problem(path.strip(), message if places else missing))
    return f"{join([*split(places[0]), *rest])}={value}"


def _list_present(spec: Spec, names: Iterable[str]) -> list[str]:
    return [name for name in sorted(names) if locate(spec, name)] or ["none"]


def _parse(overrides: Sequence[str]) -> Iterator[_Override]:
    problems: list[Problem] = []
    for number, override in enumerate(overrides, 1):
        file = f"<override {number}>"
        try:
            path, equals, text = override.partition("=")
            parts = _parse_path(override, equals, Position(file, 1, 1))
            data, source = parse(" " * (len(path) + 1) + text, file)  # blanks, so that columns count from the path
            value = freeze(data, parts)
        except SpecError as error:
            problems.extend(error.problems)
            continue
        if text.strip() == "":
            source = replace(source, position=Position(file, 1, len(path) + 2))
        yield _Override(parts, value, replace(source, key=Position(file, 1, 1)))
    if problems:
        raise SpecError(problems)


def _parse_path(override: str, equals: str, position: Position) -> Path:
    if not equals:
        raise SpecError(Problem("", f"got {override!r}, expected path=value", position))
    return split(override.partition("=")[0].strip(), position)


def _apply_swaps(spec: Spec, overrides: Sequence[_Override]) -> tuple[Spec, list[str], list[_Override]]:
    """Applies all swaps, outermost first; if several swap the same slot, the last one counts."""
    notices: list[str] = []
    swaps: dict[Path, list[_Override]] = {}
    for override in overrides:
        named = isinstance(override.value, str) or (isinstance(override.value, Node) and "use" in override.value)
        if named and override.parts[0] in ("model", "data", "train", "evaluate"):
            swaps.setdefault(_get_slot_path(override), []).append(override)
    done: list[_Override] = []
    for path in sorted(swaps, key=len):
        place = _find_place(spec, path)
        if place is not None and place.shape.container is None:
            spec, dropped = _swap(spec, path, place, swaps[path][-1])
            notices += dropped
            done += swaps[path]
    return spec, notices, done


def _get_slot_path(override: _Override) -> Path:
    return override.parts[:-1] if override.parts[-1] == "use" else override.parts


def _swap(spec: Spec, path: Path, place: _Place, override: _Override) -> tuple[Spec, list[str]]:
    old = _get_value(spec.tree, path)
    if isinstance(override.value, Node):
        name, given = override.value.get("use"), override.value.params
    else:
        name, given = override.value, {}
    if not isinstance(name, str):
        raise SpecError(Problem(join(path), f"got use: {describe(name)}, expected a part's name", override.position))
    new = _read_declared(place.shape.kind, name, join(path), override.position)
    kept, dropped = _select_kept(old, place, new, name)
    value = Node({"use": name, **{key: kept[key] for key in kept if key not in given}, **given})
    notice = [f"swap {join(path)}: dropped {key} ({why})" for key, why in dropped.items() if key not in given]
    written = name if isinstance(override.value, str) and len(value) == 1 else value
    source = override.source
    if override.parts != path:
        source = Source(source.position, source.key, {"use": source})
    for key in value:
        before = spec.source.at((*path, key))
        if key in kept and key not in given and before is not spec.source.at(path):
            source = source.with_child((key,), before)
    return spec.with_value(join(path), written, source), notice


def _select_kept(
    old: Value, place: _Place, new: Mapping[str, Parameter], name: str
) -> tuple[dict[str, Value], dict[str, str]]:
    """Returns the parameters of the old node that the new part keeps, and why each other one is dropped."""
    if not isinstance(old, Node) or old.ref is not None:
        return {}, {}
    before = _read_known(place.shape.kind, _get_part(old, place))
    kept: dict[str, Value] = {}
    dropped: dict[str, str] = {}
    for key, value in old.params.items():
        if key not in new:
            dropped[key] = f"unknown to {name}"
        elif before is not None and key not in before:
            dropped[key] = f"unknown to {_get_part(old, place)}"
        elif (reason := _check_kept(value, new[key], None if before is None else before.get(key))) is not None:
            dropped[key] = f"{name}: {reason}"
        else:
            kept[key] = value
    return kept, dropped


def _check_kept(value: Value, new: Parameter, old: Parameter | None) -> str | None:
    """Returns why a parameter's value cannot be kept for the new part, or None if it can."""
    if new.slot is None:
        if old is not None and old.slot is not None:
            return f"it was a slot of {old.slot.kind} and is plain data now"
        return validate(value, new.annotation)
    if old is not None and (old.slot is None or old.slot.kind != new.slot.kind):
        was = "plain data" if old.slot is None else f"a slot of {old.slot.kind}"
        return f"it was {was} and is a slot of {new.slot.kind} now"
    if value is None:
        return None if new.slot.optional else "expected a part, got None"
    items: Iterable[Value] = (value,)
    if new.slot.container == "list":
        if not isinstance(value, tuple):
            return f"expected a list of parts, got {describe(value)}"
        items = value
    elif new.slot.container == "dict":
        if not isinstance(value, Node):
            return f"expected a mapping of parts, got {describe(value)}"
        items = value.values()
    for item in items:
        number = isinstance(item, (int, float)) and not isinstance(item, bool) and new.slot.number
        if not (number or isinstance(item, (str, Node))):
            return f"expected a part, got {describe(item)}"
    return None


def _find_place(spec: Spec, path: Path) -> _Place | None:
    """Returns what the slot at a path expects, or None if it is not a slot or is not known."""
    root = next((root for root in _ROOTS if path[: len(root)] == root), None)
    if root is None:
        return None
    place: _Place | None = _Place(SlotShape(_ROOTS[root]))
    value = _get_value(spec.tree, root)
    for part in path[len(root) :]:
        if place is None:
            return None
        place = _enter(place, value, part)
        value = _get_value(value, (part,))
    return place


def _enter(place: _Place, value: Value, part: str | int) -> _Place | None:
    """Returns what the slot at a name or index inside a place expects, or None if it is not a slot or is not known."""
    if place.shape.container is not None:
        fits = isinstance(part, int) if place.shape.container == "list" else isinstance(part, str)
        return _Place(replace(place.shape, container=None)) if fits else None
    if isinstance(value, Node) and value.ref is not None:
        return None
    parameter = _read_inside(value, place).get(part) if isinstance(part, str) else None
    return None if parameter is None else _make_place(parameter)


def _make_place(parameter: Parameter) -> _Place | None:
    if parameter.slot is None:
        return None
    default = parameter.default.name if isinstance(parameter.default, Default) else None
    return _Place(parameter.slot, default)


def _walk_slots(
    value: Value, place: _Place, path: Path, defaults: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[Path]:
    """Yields the paths of a slot and of all slots below it, including default parts, but no default inside itself."""
    yield path
    if isinstance(value, Node) and value.ref is not None:
        return
    if value is None and place.default is not None:
        default = (place.shape.kind, place.default)
        if default in defaults:
            return
        defaults |= {default}
    if place.shape.container is not None:
        inner = _Place(replace(place.shape, container=None))
        items: Iterable[tuple[str | int, Value]] = ()
        if isinstance(value, tuple):
            items = enumerate(value)
        elif isinstance(value, Node):
            items = value.items()
        for part, item in items:
            yield from _walk_slots(item, inner, (*path, part), defaults)
        return
    for key, parameter in _read_inside(value, place).items():
        below = _make_place(parameter)
        if below is not None:
            yield from _walk_slots(_get_value(value, (key,)), below, (*path, key), defaults)


def _get_part(value: Value, place: _Place) -> str | Part | None:
    """Returns the part that a slot's value stands for: its name, a class as a part, or None if there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, Node):
        if callable(value.use):
            return Local.wrap(place.shape.kind, value.use)
        return value.use or place.default
    return place.default if value is None else None


def _read_inside(value: Value, place: _Place) -> dict[str, Parameter]:
    """Returns what the part in a slot declares, with the defaults that hold there."""
    declared = _read_known(place.shape.kind, _get_part(value, place)) or {}
    return derive_defaults(declared, value if isinstance(value, Node) else Node({}))


def _read_known(kind: str, part: str | Part | None) -> dict[str, Parameter] | None:
    """Returns what a part declares, or None for an unknown part, on which the planner reports."""
    if part is None:
        return None
    try:
        return read_parameters(get_registry().find(kind, part) if isinstance(part, str) else part)
    except (ValueError, ImportError):
        return None


def _read_declared(kind: str, name: str, path: str, position: Position | None) -> dict[str, Parameter]:
    try:
        return read_parameters(get_registry().find(kind, name))
    except (ValueError, ImportError) as error:
        raise SpecError(Problem(path, str(error), position)) from error


def _get_value(tree: Value, path: Path) -> Value:
    """Returns the value at a path, or None if the path does not exist."""
    try:
        return get_value(tree, path)
    except SpecError:
        return None
