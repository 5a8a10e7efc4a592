"""Swaps: another part in a slot, which keeps what fits of the former part's parameters.

Another model keeps its conditioner, which belongs to the data; all else was chosen for the former model's game, as were
the training settings that name its players. Those that the new model states for its own players are written out. Other
data do not keep features of an evaluation that the former data name as their own, such as those of `digits`.
Parameters that are marked as a part's own (`modkit.kinds.Own`), such as the learning rate of `sgd`, are never kept. A
reference or a piece of another run (`{use: run, …}`) replaces a part as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modkit.errors import Position, Problem, SpecError, join
from modkit.kinds import DataExtras, GameExtras, read_extras
from modkit.parts.registry import get_registry
from modkit.parts.signature import Parameter, SlotShape, read_parameters
from modkit.specs.node import Node, Path, Value, describe, find_value
from modkit.specs.places import find_known, find_place, get_part, read_known, rename
from modkit.specs.players import renew_settings
from modkit.specs.spec import Spec
from modkit.specs.yaml import Source

__all__ = ["swap"]

_FRESH = "a swap of a model starts from the new one's defaults"
_UNKNOWN = "unknown to {}"


def swap(spec: Spec, path: Path, place: SlotShape, value: Value, source: Source) -> tuple[Spec, list[str]]:
    """Puts another part into a slot.

    Args:
        spec: The spec.
        path: Path of the slot.
        place: What the slot expects.
        value: The part's name, or its node, whose parameters take precedence over kept ones; or a reference or a piece
            of another run.
        source: Where the value was written.

    Returns:
        The new spec, and a notice for each reason why parameters were dropped.

    Raises:
        SpecError: If no such part is known.
    """
    if _is_elsewhere(value):
        return spec.with_value(join(path), value, source), []
    name, given = (value.get("use"), value.params) if isinstance(value, Node) else (value, {})
    if not isinstance(name, str):
        raise SpecError(Problem(join(path), f"got use: {describe(name)}, expected a part's name", source.position))
    new = _read_declared(place.kind, name, join(path), source.position)
    given = rename(find_known(place.kind, name), Node(given)).params
    kept, dropped = _select_kept(find_value(spec.tree, path), place, new, name)
    node = Node({"use": name, **{key: kept[key] for key in kept if key not in given}, **given})
    reasons: dict[str, list[str]] = {}
    for key, why in dropped.items():
        if key not in given:
            reasons.setdefault(why, []).append(key)
    notices = [f"swap {join(path)}: dropped {', '.join(keys)} ({why})" for why, keys in reasons.items()]
    for key in _find_wrapped(find_value(spec.tree, path), place, reasons.get(_UNKNOWN.format(name), ())):
        inner = join((*path, key))
        notices.append(f"swap {join(path)}: the former part wrapped another one, which {inner}={name} swaps alone")
    for key in node:
        before = spec.source.at((*path, key))
        if key in kept and key not in given and before is not spec.source.at(path):
            source = source.with_child((key,), before)
    written = name if isinstance(value, str) and len(node) == 1 else node
    former, spec = find_value(spec.tree, path), spec.with_value(join(path), written, source)
    if place.kind not in ("model", "data") or not _is_other(former, place, name):
        return spec, notices
    parts = (find_known(place.kind, get_part(former, place)), find_known(place.kind, name))
    if place.kind == "data":
        spec, gone = _renew_features(
            spec, *(read_extras(part.load(), DataExtras).features if part else None for part in parts)
        )
        return spec, [*notices, *(f"swap {join(path)}: dropped {one}" for one in gone)]
    games = [read_extras(part.load() if part else None, GameExtras).optimizers for part in parts]
    spec, gone, come = renew_settings(spec, _find_scope(spec, path), *games)
    if gone:
        notices.append(f"swap {join(path)}: dropped {', '.join(f'train.{key}' for key in gone)} (the former model's)")
    if come:
        notices.append(
            f"swap {join(path)}: wrote {', '.join(f'train.{key}' for key in come)} (for the new model's game)"
        )
    return spec, notices


def _renew_features(spec: Spec, former: str | None, new: str | None) -> tuple[Spec, list[str]]:
    """Drops the features of an evaluation if they are those of the former data, so that those of the new ones count.

    Args:
        spec: The spec, in which the new data have their place.
        former: The features that suit the former data, by name (`modkit.kinds.DataExtras`), or None.
        new: Those that suit the new data.

    Returns:
        The new spec, and what was dropped, with the reason.
    """
    evaluate = spec.evaluate or Node({})
    written = evaluate.get("features")
    if former in (None, new) or not isinstance(written, Node) or not isinstance(written.use, str):
        return spec, []
    name, _, value = str(former).partition(":")  # the value of its first parameter
    first = next(iter(read_known("features", name) or ()), "")
    if find_known("features", written.use) != find_known("features", name) or written.get(first) != value:
        return spec, []
    rest = Node({key: kept for key, kept in evaluate.items() if key != "features"})
    reason = f"evaluate.features ({former} suits the former data; those that suit the new data are used)"
    return spec.with_tree({**spec.tree, "evaluate": rest}), [reason]


def _is_elsewhere(value: Value) -> bool:
    """Whether a value stands for a part that is described elsewhere: a reference, or a piece of another run."""
    return value == "run" or (isinstance(value, Node) and (value.ref is not None or value.use == "run"))


def _is_other(old: Value, place: SlotShape, name: str) -> bool:
    """Whether a name is another part's than the one in the slot."""
    kind = place.kind
    return find_known(kind, get_part(old, place)) != find_known(kind, name)


def _find_scope(spec: Spec, path: Path) -> str:
    """Returns what stands before the names of the players of the model at a path."""
    scope = ""
    for depth in range(1, len(path)):
        place = find_place(spec, path[:depth])
        outer = place and find_known(place.kind, get_part(find_value(spec.tree, path[:depth]), place))
        name = str(path[depth])
        scope += f"{read_extras(outer.load() if outer else None, GameExtras).prefixes.get(name, name)}/"
    return scope


def _select_kept(
    old: Value, place: SlotShape, new: Mapping[str, Parameter], name: str
) -> tuple[dict[str, Value], dict[str, str]]:
    """Returns the parameters of the old node that the new part keeps, and why each other one is dropped."""
    if not isinstance(old, Node) or _is_elsewhere(old):
        return {}, {}
    kind, part = place.kind, get_part(old, place)
    before = read_known(kind, part)
    other = _is_other(old, place, name)
    fresh = kind == "model" and other
    kept: dict[str, Value] = {}
    dropped: dict[str, str] = {}
    for key, value in rename(find_known(kind, part), old).params.items():
        former = None if before is None else before.get(key)
        if fresh and not (former and former.slot and former.slot.kind == "conditioner"):
            dropped[key] = _FRESH
        elif key not in new:
            dropped[key] = _UNKNOWN.format(name)
        elif before is not None and former is None:
            dropped[key] = _UNKNOWN.format(part)
        elif other and (new[key].own or (former and former.own)):
            dropped[key] = f"{name if new[key].own else part} has a scale of its own"
        elif (reason := _check_kept(value, new[key], former)) is not None:
            dropped[key] = f"{name}: {reason}"
        else:
            kept[key] = value
    return kept, dropped


def _find_wrapped(old: Value, place: SlotShape, dropped: Iterable[str]) -> Iterable[str]:
    """Finds the dropped parameters that hold a part of the slot's own kind, around which the former part is."""
    known = read_known(place.kind, get_part(old, place)) or {}
    return (key for key in dropped if key in known and (slot := known[key].slot) and slot.kind == place.kind)


def _check_kept(value: Value, new: Parameter, old: Parameter | None) -> str | None:
    """Returns why a parameter's value cannot be kept for the new part, or None if it can."""
    if new.slot is None:
        if old is not None and old.slot is not None:
            return f"it was a slot of {old.slot.kind} and is plain data now"
        return new.validate(value)
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


def _read_declared(kind: str, name: str, path: str, position: Position | None) -> dict[str, Parameter]:
    try:
        return read_parameters(get_registry().find(kind, name))
    except (ValueError, ImportError) as error:
        raise SpecError(Problem(path, str(error), position, reason=error)) from error
