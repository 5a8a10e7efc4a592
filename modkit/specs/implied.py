"""Implied defaults: a part may state which parts fill the slots next to its own where a spec leaves these out.

    class EDM:
        implies = {"times": "log-normal", "parametrization": "edm", "sampler": "heun"}

So may the values of a parameter (`modkit.kinds.Implies`): the game `veegan` implies `adversarial: density-ratio`.

A slot that is written keeps what is written, and a mapping without `use` changes parameters of the implied part. Values
imply first, then parts that are named, then implied ones, then defaults, each in the order of the signature; the first
that implies a part for a slot determines it. References and parts of other runs imply nothing. In a run nothing is left
to imply, since a resolved spec names every part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from modkit.errors import suggest
from modkit.kinds import Default, ImpliedExtras, read_extras
from modkit.part import Local, Part
from modkit.parts.registry import get_registry
from modkit.parts.signature import Parameter, read_parameters
from modkit.specs.node import Node, describe

__all__ = ["derive_defaults", "list_implied"]


def derive_defaults(
    declared: Mapping[str, Parameter],
    node: Node,
    kind: str | None = None,
    report: Callable[[str, str], None] | None = None,
) -> dict[str, Parameter]:
    """Replaces the defaults of slots by the parts that values and other parts imply; leaves out what has no effect.

    Args:
        declared: The parameters of a part, as its signature declares them.
        node: The part as written.
        kind: Its kind, or None for a group of settings.
        report: Is called with the parameter that implies what cannot be, and the reason.

    Returns:
        The parameters that have an effect in this node (`Unless`), with the defaults that hold for it.

    Examples:
        >>> from modkit import find, use
        >>> found = derive_defaults(read_parameters(find("model", "diffusion")), use("diffusion", schedule="edm"))
        >>> found["times"].default.name, found["network"].default.name
        ('log-normal', 'unet')
    """
    derived = {name: parameter for name, parameter in declared.items() if node.get(parameter.unless) is None}
    waiting = [name for name, parameter in derived.items() if parameter.slot and not parameter.slot.container]
    implied: set[str] = set()

    def rank(name: str) -> int:
        value = node.get(name)
        named = isinstance(value, str) or (isinstance(value, Node) and "use" in value)
        return 0 if named else 1 if name in implied else 2

    def imply(name: str, owner: str, parts: Any) -> None:
        try:
            found = dict(_read_implied(parts, declared, kind))
        except ValueError as error:
            if report is not None:
                report(name, f"{owner} {error}")
            return
        for sibling, default in found.items():
            if sibling in waiting and sibling not in implied:
                derived[sibling] = replace(declared[sibling], default=default)
                implied.add(sibling)

    for name, parameter in derived.items():
        value = node.get(name, parameter.default)
        if isinstance(value, str) and value in parameter.implies.parts:
            imply(name, f"the value {value!r}", parameter.implies.parts[value])
    while waiting:
        name = min(waiting, key=rank)
        waiting.remove(name)
        part = _find_part(node, derived[name])
        if part is not None:
            imply(name, f"the {part}", _get_implied(part))
    return derived


def list_implied(declared: Mapping[str, Parameter]) -> Iterator[tuple[str, dict[str, Default]]]:
    """Yields what changes defaults of a part, a value or a registered part in one of its slots, with these defaults.

    Args:
        declared: The parameters of the part that has the slots.

    Examples:
        >>> from modkit import find
        >>> [name for name, _ in list_implied(read_parameters(find("model", "diffusion")))]
        ['schedule edm', 'schedule flow', 'schedule learned', 'schedule log-linear', 'parametrization eps',
         'parametrization eps-learned', 'parametrization x0']
        >>> [name for name, _ in list_implied(read_parameters(find("model", "bidirectional")))]
        ['game veegan']
    """
    for parameter in declared.values():
        for value, parts in parameter.implies.parts.items():
            yield f"{parameter.name} {value}", dict(_read_implied(parts, declared, None))
        for entry in get_registry().list_parts(parameter.slot.kind) if parameter.slot else ():
            try:
                found = dict(_read_implied(_get_implied(entry.part), declared, None))
            except Exception:  # a plug-in's target may fail to import in any way
                continue
            if found:
                yield str(entry.part), found


def _find_part(node: Node, parameter: Parameter) -> Part | None:
    """Returns the part in a slot, or None if there is none or the planner refuses it."""
    assert parameter.slot is not None
    value, default = node.get(parameter.name, Node({})), parameter.default
    if isinstance(value, Node) and value.ref is None:
        value = value.get("use", default.name if isinstance(default, Default) else None)
    try:
        part = get_registry().find(parameter.slot.kind, value) if isinstance(value, str) else None
        part = Local.wrap(parameter.slot.kind, value) if callable(value) else part
        if part is not None:
            part.load()
        return part
    except Exception:  # a plug-in's target may fail to import in any way
        return None


def _get_implied(part: Part) -> Any:
    return read_extras(part.load(), ImpliedExtras).implies


def _read_implied(implies: Any, declared: Mapping[str, Parameter], kind: str | None) -> Iterator[tuple[str, Default]]:
    """Yields the slots that implied parts fill if they are left out, with their defaults."""
    if not isinstance(implies, Mapping):
        raise ValueError(f"implies {describe(implies)}, expected a mapping from slots to parts")
    for name, value in implies.items():
        parameter = declared.get(name)
        if parameter is None:
            _check_slot(name, declared, kind)
        elif parameter.slot is None or parameter.slot.container:
            raise ValueError(f"implies a part for {name!r}, expected the name of a slot that holds one part")
        else:
            default = _make_default(name, value, parameter.slot.kind)
            if isinstance(parameter.default, Default) and not parameter.default.fixed:
                yield name, default


def _check_slot(name: str, declared: Mapping[str, Parameter], kind: str | None) -> None:
    """Checks that some part has a slot of this name, if the part at hand has none."""
    for entry in get_registry().list_parts(kind) if kind else ():
        try:
            if name in read_parameters(entry.part):
                return
        except Exception:  # a plug-in's target may fail to import in any way
            continue
    if kind:
        slots = [name for name, parameter in declared.items() if parameter.slot]
        hint = suggest(name, slots, "; ")
        raise ValueError(f"implies a part for {name!r}, expected the name of a slot, such as {', '.join(slots)}{hint}")


def _make_default(name: str, value: Any, kind: str) -> Default:
    node = value if isinstance(value, Mapping) else {"use": value}
    use, params = node.get("use"), {key: item for key, item in node.items() if key != "use"}
    if not isinstance(use, str):
        raise ValueError(f"implies {describe(value)} for {name!r}, expected a part's name, or a mapping with `use`")
    try:
        declared = read_parameters(get_registry().find(kind, use))
    except ValueError as error:
        raise ValueError(f"implies a part for {name!r} that does not exist: {error}") from error
    for key, item in params.items():
        if key not in declared:
            raise ValueError(
                f"implies {name!r} with an unknown key {key!r}, expected one of: {', '.join(declared) or 'none'}"
            )
        if declared[key].slot is None and (reason := declared[key].validate(item)):
            raise ValueError(f"implies {name!r} with {key!r}: {reason}")
    return Default(use, params)
