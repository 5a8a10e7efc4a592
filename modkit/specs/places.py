"""Places: what the slots of a spec's tree expect, and which parts fill them, defaults included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from modkit.kinds import Default, PretrainedExtras, read_extras
from modkit.part import Local, Part
from modkit.parts.registry import get_registry
from modkit.parts.signature import Parameter, RecordShape, SlotShape, read_parameters, read_signature
from modkit.specs.implied import derive_defaults
from modkit.specs.node import Node, Path, Value, find_value, open_piece
from modkit.specs.settings import Evaluation, Settings
from modkit.specs.spec import Spec

__all__ = [
    "expand_node",
    "find_known",
    "find_place",
    "get_part",
    "keep_outermost",
    "list_named",
    "read_known",
    "rename",
    "walk_slots",
]


Place: TypeAlias = "SlotShape | RecordShape"
"""What a slot expects, with the name of its default part, or a group of settings."""

_TOPS: Mapping[str, Place] = {
    "model": SlotShape("model"),
    "data": SlotShape("data"),
    "train": RecordShape(Settings),
    "evaluate": RecordShape(Evaluation),
}


def find_place(spec: Spec, path: Path) -> SlotShape | None:
    """Returns what the slot at a path expects, or None if it is not a slot or is not known."""
    place, value = _TOPS.get(str(path[0])), find_value(spec.tree, path[:1])
    for part in path[1:]:
        if place is None:
            return None
        place = _enter(place, value, part)
        value = find_value(value, (part,))
    return place if isinstance(place, SlotShape) else None


def _enter(place: Place, value: Value, part: str | int) -> Place | None:
    """Returns what a name or index inside a place expects, or None if it holds no parts or is not known."""
    if (container := place.container) is not None:
        fits = isinstance(part, int) if container == "list" else isinstance(part, str)
        return _get_item(place) if fits else None
    return None if isinstance(value, Node) and value.ref is not None else _list_inside(value, place).get(part)


def _list_inside(value: Value, place: Place) -> dict[str | int, Place]:
    """Lists the slots and groups of settings inside a place by name or index, each with what it expects."""
    if place.container is not None:
        keys = range(len(value)) if isinstance(value, tuple) else value if isinstance(value, Node) else ()
        return {key: _get_item(place) for key in keys}
    inside = {key: _make_place(parameter) for key, parameter in _read_inside(value, place).items()}
    return {key: below for key, below in inside.items() if below is not None}


def _make_place(parameter: Parameter) -> Place | None:
    default = parameter.default.name if isinstance(parameter.default, Default) else None
    return replace(parameter.slot, default=default) if parameter.slot else parameter.record


def _get_item(place: Place) -> Place:
    """Returns what each item of a place for several expects."""
    one = replace(place, container=None)
    return replace(one, default=None) if isinstance(one, SlotShape) else one


def walk_slots(
    value: Value, place: Place, path: Path, defaults: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[tuple[Path, Place]]:
    """Yields the paths of a slot, or group of settings, and of all below it, each with what it expects.

    Those of default parts are included, but no default inside itself.
    """
    yield path, place
    if isinstance(value, Node) and value.ref is not None:
        return
    if isinstance(place, SlotShape) and value is None and place.default is not None:
        default = (place.kind, place.default)
        if default in defaults:
            return
        defaults |= {default}
    for key, below in _list_inside(value, place).items():
        yield from walk_slots(find_value(value, (key,)), below, (*path, key), defaults)


def list_named(spec: Spec, name: str) -> list[Path]:
    """Lists the paths of a spec whose last key is `name`, outer ones first: settings, and parameters of its parts.

    Examples:
        >>> list_named(Spec(model="diffusion"), "sampler"), list_named(Spec(model="diffusion"), "lr")
        ([('model', 'sampler')], [('train', 'optimizer', 'lr')])
    """
    found: list[Path] = []
    for top, root in _TOPS.items():
        for path, place in walk_slots(find_value(spec.tree, (top,)), root, (top,)):
            inside = {} if place.container else _read_inside(find_value(spec.tree, path), place)
            found += [(*path, name)] if name in inside else []
    return sorted(found, key=len)


def keep_outermost(paths: Iterable[str]) -> list[str]:
    """Keeps the slots of one name that lie in no part beside another of them: a guide's sampler is not the model's.

    Examples:
        >>> keep_outermost(["model.sampler", "model.guidance.guide.sampler"])
        ['model.sampler']
    """
    owners = {path: path.rpartition(".")[0] for path in paths}
    return [path for path in owners if not any(owners[path].startswith(f"{other}.") for other in owners.values())]


def get_part(value: Value, place: SlotShape) -> str | Part | None:
    """Returns the part that a slot's value stands for: its name, a class as a part, or None if there is none."""
    value = open_piece(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Node):
        if callable(value.use):
            return Local.wrap(place.kind, value.use)
        return value.use or place.default
    return place.default if value is None else None


def _read_inside(value: Value, place: Place) -> dict[str, Parameter]:
    """Returns what the part in a slot, or a group of settings, declares, with the defaults that hold there."""
    value = open_piece(value)
    if isinstance(place, SlotShape):
        declared = read_known(place.kind, get_part(value, place)) or {}
    else:
        declared = read_signature(place.type, (), "spec")
    return derive_defaults(declared, value if isinstance(value, Node) else Node({}))


def find_known(kind: str, part: str | Part | None) -> Part | None:
    """Returns a part by its name, or None for an unknown part, on which the planner reports."""
    try:
        return get_registry().find(kind, part) if isinstance(part, str) else part
    except ValueError:
        return None


def read_known(kind: str, part: str | Part | None) -> dict[str, Parameter] | None:
    """Returns what a part declares, or None for an unknown part or one that cannot be imported."""
    found = find_known(kind, part)
    try:
        return None if found is None else read_parameters(found)
    except (ValueError, ImportError):
        return None


def rename(part: Part | None, node: Node) -> Node:
    """Writes a node with its part's parameters under their names of today (`Part.renamed`), unless it has both."""
    names = {former: now for former, now in part.renamed.items() if now not in node} if part else {}
    return Node({names.get(key, key): value for key, value in node.items()})


def expand_node(part: Part, node: Node) -> Node:
    """Writes a node with its part's parameters of today (`Part.renamed`, `PretrainedExtras.expand_params`).

    Raises:
        ValueError: If the part refuses the parameters, or one has both its names.
    """
    for former, now in part.renamed.items():
        if {former, now} <= node.keys():
            raise ValueError(f"expected one of {now!r} and {former!r}, its former name, got both")
    node = rename(part, node)
    expand = read_extras(part.load(), PretrainedExtras).expand_params
    return node if expand is None else Node({**{k: v for k, v in node.items() if k == "use"}, **expand(node.params)})
