"""The planner: compares a spec's tree with the signatures of the parts that it names.

The result is the resolved tree, which names all parts and writes out all their parameters, and tables of the parts and
objects in it by their paths. All problems are collected, each with its position.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, TypeVar

from modkit.building.local import LOCAL, Given
from modkit.building.pieces import pin_run, read_run_node
from modkit.errors import LocalPart, Problem, SpecError, join, split, suggest
from modkit.kinds import Default
from modkit.part import Local, Part, import_target
from modkit.parts.adapters import suggest_adapters
from modkit.parts.annotation import render
from modkit.parts.entry import Entry
from modkit.parts.registry import Registry, find_kind
from modkit.parts.signature import Parameter, RecordShape, SlotShape, read_parameters, read_signature
from modkit.parts.validation import validate
from modkit.specs.implied import derive_defaults
from modkit.specs.node import Node, Path, Value, describe, freeze, rebuild
from modkit.specs.places import expand_node
from modkit.specs.references import move, rebase
from modkit.specs.settings import Evaluation, Settings
from modkit.specs.spec import Spec

__all__ = ["Planner", "map_items", "move_inside"]

_Entry = TypeVar("_Entry")


@dataclass
class Planner:
    """Walks a spec's tree and compares it with signatures.

    Args:
        spec: The spec, with scalar references resolved.
        registry: Where parts are found.
        problems: The problems found so far.
        parts: The parts found so far, by path, each after those inside it.
        objects: Those that were given built, by path.
        refs: The references to parts: their paths, their goals and the kinds of their slots.
        entries: The registered parts in use, by kind and name.
        moved: Places that were written under a former name, each with its place of today.
        frozen: Whether a piece of another run around the part at hand is not trained further.
    """

    spec: Spec
    registry: Registry
    problems: list[Problem] = field(default_factory=list)
    parts: dict[str, Part] = field(default_factory=dict)
    objects: dict[str, Given] = field(default_factory=dict)
    refs: list[tuple[str, str, str]] = field(default_factory=list)
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    frozen: bool = False

    def report(
        self, path: str, problem: str | ValueError, hint: str | None = None, *, key: bool = False, at: str | None = None
    ) -> None:
        """Adds a problem of a path, written there or `at` a path inside."""
        reason = problem if isinstance(problem, ValueError) else None
        self.problems.append(Problem(path, str(problem), self.spec.find_position(at or path, key=key), hint, reason))

    def plan_surroundings(self, left: Collection[str] = ()) -> dict[str, Value]:
        """Plans data, training and evaluation, except for what is left out.

        Where training is left out, its seed remains, from which a model is initialised.
        """
        spec, made = self.spec, dict[str, Value]()
        if spec.data is not None and "data" not in left:
            made["data"] = self.plan_part(spec.data, "data", "data", None)
        train = spec.train or Node({})
        made["train"] = self.plan_record(train, Settings, "train", ("seed",) if "train" in left else None)
        if spec.evaluate is not None and "evaluate" not in left:
            made["evaluate"] = self.plan_record(spec.evaluate, Evaluation, "evaluate")
        if spec.data is not None and spec.data.ref is not None and "data" in made:
            self.report("data", "got a reference, expected a part")
        if not re.fullmatch(r"(?!\.{1,2}$)[^/\\\0]{1,100}", spec.name):
            self.report("name", f"got {describe(spec.name)}, expected a plain name, as of a file")
        return made

    def plan_part(self, value: Value, kind: str, path: str, fallback: Default | None) -> Node | None:
        """Plans a part, given by its node or bare name, and returns its resolved node; None after a problem."""
        if isinstance(value, str):
            value = Node({"use": value})
        if not isinstance(value, Node):
            self.report(
                path, f"got {describe(value)}, expected a part of kind {kind}: its name, or a mapping with `use`"
            )
            return None
        if value.ref is not None:
            self.refs.append((path, value.ref, kind))
            return value
        if value.use == "run":
            return self._plan_piece(value, kind, path)
        if isinstance(value.use, Given):
            return self._plan_given(value, value.use, kind, path)
        if fallback and "use" not in value:
            value = Node({"use": fallback.name, **fallback.params, **value})
        part = self._find(value, kind, path)
        return self._make_node(part, value, path) if part else None

    def plan_record(self, value: Value, type: type[Any], path: str, names: Collection[str] | None = None) -> Node:
        """Plans a group of settings: all of them, or only those of some names."""
        if not isinstance(value, Node):
            self.report(path, f"got {describe(value)}, expected a mapping")
            value = Node({})
        declared = read_signature(type, (), path)
        if names is not None:
            declared = {name: declared[name] for name in names}
            value = Node({name: value[name] for name in names if name in value})
        return Node(self._plan_arguments(value, declared, (), path))

    def check_refs(self) -> None:
        """Checks that every reference leads to a part of its slot's kind."""
        for path, goal, kind in self.refs:
            part = self.parts.get(goal := move(goal, self.moved))
            if part is None:
                self.report(path, f"got a ref to {goal}, expected the path of a part", suggest(goal, self.parts))
            elif part.kind != kind:
                self.report(path, f"got a ref to the {part.kind} at {goal}, expected a part of kind {kind}")

    def _find(self, node: Node, kind: str, path: str) -> Part | None:
        use, written = node.get("use"), _join(path, "use")
        if use is None:
            names = ", ".join(entry.part.name for entry in self.registry.list_parts(kind))
            message = f"got no `use`, expected a part of kind {kind}: {names}"
            self.report(path, message, _suggest_blank(node), at=written)
        elif callable(use):
            return Local.wrap(kind, use)
        elif not isinstance(use, str):
            self.report(path, f"got {describe(use)} as `use`, expected the name of a part of kind {kind}", at=written)
        elif use.startswith(LOCAL):
            local = use.removeprefix(LOCAL)
            message = f"got the local {local}, which cannot be loaded by name, expected a registered {kind}"
            self.report(path, LocalPart(message), at=written)
        else:
            try:
                entry = self.registry.find_entry(kind, use)
            except ValueError as error:
                self.report(path, error, suggest_adapters(self.registry, kind, use), at=written)
            else:
                self.entries[kind, entry.part.name] = entry
                return entry.part
        return None

    def _make_node(self, part: Part, node: Node, path: str) -> Node | None:
        try:
            declared = read_parameters(part)
        except ImportError as error:
            self.report(path, str(error))
            return None
        except Exception as error:  # a plug-in's signature may fail to be read in any way
            names = ", ".join(entry.part.name for entry in self.registry.list_parts(part.kind))
            hint = f"parts of kind {part.kind} with a name: {names}" if isinstance(part, Local) else None
            self.report(path, f"the {part} cannot be used: {type(error).__name__}: {error}", hint)
            return None
        self.moved |= {_join(path, key): _join(path, now) for key, now in part.renamed.items() if key in node}
        try:
            node = expand_node(part, node)
        except ValueError as error:
            self.report(path, f"the {part} cannot be used: {error}")
            return None
        arguments = self._plan_arguments(node, declared, find_kind(part.kind).given, path, part)
        self.parts[path] = part
        return Node({"use": part.load() if isinstance(part, Local) else part.name, **arguments})

    def _plan_arguments(
        self,
        node: Node,
        declared: Mapping[str, Parameter],
        given: tuple[str, ...],
        path: str,
        owner: Part | None = None,
    ) -> dict[str, Value]:
        """Plans the arguments of a part or group of settings; a null that a spec may leave out is left out."""
        for key in node.params if owner else node:
            if key in given:
                self.report(
                    _join(path, key), f"got {key!r}, which the slot of the {owner} provides; leave it out", key=True
                )
            elif key not in declared:
                message = f"got an unknown key {key!r}, expected one of: {', '.join(declared)}"
                if not declared:
                    message = f"got the key {key!r}, but the {owner} takes no parameters"
                renamed = _suggest_renamed(owner, key, node[key], declared) if owner else ""
                hint = _suggest_blank([key]) or renamed or suggest(key, declared)
                self.report(_join(path, key), message, hint, key=True)
        arguments: dict[str, Value] = {}
        kind = owner.kind if owner else None
        derived = derive_defaults(declared, node, kind, lambda name, reason: self.report(_join(path, name), reason))
        for name in [name for name in declared if name in node and name not in derived]:
            self._check_unused(node, declared[name], path)
        for name, parameter in derived.items():
            place = _join(path, name)
            if name in node:
                arguments[name] = self._plan_argument(node[name], parameter, place)
            elif parameter.default is MISSING:
                whose = f"which the {owner} requires" if owner else "which is required"
                self.report(path, f"got no {name!r}, {whose}: {parameter.help}")
            else:
                arguments[name] = self._plan_default(parameter, place)
            if arguments.get(name) is None and parameter.default is None and not (owner and name in owner.earlier):
                arguments.pop(name, None)
        return arguments

    def _check_unused(self, node: Node, parameter: Parameter, path: str) -> None:
        """Refuses what is written beside the parameter that replaces it, but for its default: older runs have that."""
        place, other = _join(path, parameter.name), Planner(self.spec, self.registry)
        if other._plan_argument(node[parameter.name], parameter, place) != other._plan_default(parameter, place):
            message = f"got {parameter.name!r} beside {parameter.unless!r}, which replaces it, expected one of them"
            inner = _join(path, parameter.unless)
            changed = f"{inner}[0], …," if isinstance(node[parameter.unless], list) else inner
            self.report(place, message, f"change {changed} or set {inner} to null", key=True)

    def _plan_default(self, parameter: Parameter, path: str) -> Value:
        default = parameter.default
        if isinstance(default, Default) and parameter.slot:
            return self.plan_part(Node({}), parameter.slot.kind, path, default)
        if parameter.record and not parameter.record.container and parameter.record.plain is None:
            return self.plan_record(Node({}), parameter.record.type, path)
        try:
            return freeze(default)
        except SpecError as error:  # no spec could hold it
            self.report(path, f"the default of the parameter cannot be written: {error.problems[0].message}")
            return None

    def _plan_argument(self, value: Value, parameter: Parameter, path: str) -> Value:
        shape, slot = parameter.record or parameter.slot, parameter.slot
        if parameter.record and type(value) in (int, float) and (reason := parameter.refuse(value)):
            self.report(path, reason)
        if shape is None:
            if reason := parameter.validate(value):
                self.report(path, reason)
            return value
        if slot and slot.optional and (value is None or (self.frozen and find_kind(slot.kind).phase == "training")):
            return None
        if slot and slot.container == "dict" and isinstance(value, Node):  # a null takes out what was written before
            value = Node({name: one for name, one in value.items() if one is not None})
        try:
            return freeze(map_items(value, shape, path, lambda item, place: self._plan_item(item, parameter, place)))
        except SpecError as error:
            for problem in error.problems:
                self.report(problem.path, problem.message)
            return None

    def _plan_item(self, value: Value, parameter: Parameter, path: str) -> Value:
        if record := parameter.record:
            if record.plain is None or isinstance(value, Node):
                return self.plan_record(value, record.type, path)
            if validate(value, record.plain):
                self.report(path, f"got {describe(value)}, expected {render(record.plain)} or a mapping")
            return value
        assert parameter.slot is not None
        if parameter.slot.number and isinstance(value, int | float) and not isinstance(value, bool):
            if reason := validate(value, float):
                self.report(path, reason)
            return value
        fallback = parameter.default if isinstance(parameter.default, Default) else None
        return self.plan_part(value, parameter.slot.kind, path, fallback)

    def _plan_given(self, node: Node, given: Given, kind: str, path: str) -> Node | None:
        """Plans a part given as an object, with the parts it was composed of; its second place is a reference."""
        for key in node.params:
            message = f"got {key!r} for the built {given.__name__}, expected no parameters: it is used as it is"
            self.report(_join(path, key), message, key=True)
        if (first := self._find_given(given)) is not None:
            return self._share_given(given, first, kind, path)
        composed: Any = getattr(getattr(given.value, "composition", None), "plan", None)  # a Plan
        made = Node({"use": given}) if composed is None else self._enter(composed, path)
        if composed is None:
            self.parts[path] = Local.wrap(kind, given)
        self.objects[path] = given
        return made

    def _find_given(self, given: Given) -> str | None:
        """Finds the place that an object has already."""
        return next((path for path, one in self.objects.items() if one.value is given.value), None)

    def _share_given(self, given: Given, first: str, kind: str, path: str) -> Node | None:
        """Refers to the first place of an object; returns None after a problem."""
        if (part := self.parts[first]).kind != kind:
            message = f"got the built {given.__name__} that is the {part.kind} at {first}"
            self.report(path, f"{message}, expected another object: one can be a part of one kind only")
            return None
        self.refs.append((path, first, kind))
        return Node({"ref": first})

    def _enter(self, composed: Any, path: str) -> Node:
        """Enters the parts of a composed model, with references in place of objects that have their place outside."""
        parts: dict[str, Part] = move_inside(composed.parts, composed.root, path)
        objects: dict[str, Given] = move_inside(composed.objects, composed.root, path)
        shared: dict[str, Node] = {}
        for place, given in objects.items():
            first = self._find_given(given)
            if first is not None and (ref := self._share_given(given, first, parts[place].kind, place)):
                shared[place] = ref
        places = {place: str(ref.ref) for place, ref in shared.items()}
        own = [place for place in parts if move(place, places) == place]
        self.parts.update({place: parts[place] for place in own})
        self.objects.update({place: objects[place] for place in own if place in objects})
        self.entries.update({(entry.part.kind, entry.part.name): entry for entry in composed.entries})

        def put(at: Path, value: Value) -> Value:
            return shared.get(join(at), value)

        moved_tree = rebase(composed.tree[composed.root], {composed.root: path})
        return rebase(rebuild(moved_tree, put, split(path)), places)

    def _plan_piece(self, node: Node, kind: str, path: str) -> Node | None:
        known = {"use": str, "path": str, "at": str, "train": bool, "part": Node}
        before = len(self.problems)
        for key, value in node.items():
            if key not in known:
                self.report(_join(path, key), f"got an unknown key {key!r}, expected path, at, train", key=True)
            elif not isinstance(value, known[key]):
                self.report(_join(path, key), f"got {describe(value)}, expected {known[key].__name__}")
        if "path" not in node:
            self.report(path, "got no `path`, expected the directory of a run")
        if len(self.problems) > before:
            return None
        run, at, train = str(node["path"]), str(node.get("at", "model")), bool(node.get("train", False))
        inner = node.get("part")
        try:
            if not inner:
                folder, run = pin_run(run, self.spec)
                inner = read_run_node(folder, at, path)
        except (ValueError, OSError) as error:
            self.report(path, f"the run cannot be used: {error}")
            return None
        if not isinstance(inner, Node):
            self.report(path, f"got {describe(inner)} at {at} of the run, expected a part of kind {kind}")
            return None
        part = self._find(inner, kind, path)
        outside, self.frozen = self.frozen, self.frozen or not train  # what is frozen needs nothing of training
        try:
            made = self._make_node(part, inner, path) if part else None
        finally:
            self.frozen = outside
        return made and Node({"use": "run", "path": run, "at": at, "train": train, "part": made})


def map_items(value: Any, shape: SlotShape | RecordShape, path: str, make: Callable[[Any, str], Any]) -> Any:
    """Returns what `make` makes of a value and its path, or of each item where a slot or record is for several.

    Raises:
        SpecError: If it is for several, and the value is not a list or mapping of them.
    """
    if shape.container is None:
        return make(value, path)
    if shape.container == "list" and isinstance(value, list | tuple):
        return [make(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if shape.container == "dict" and isinstance(value, Mapping):
        return {key: make(item, _join(path, key)) for key, item in value.items()}
    expected = {"list": "a list", "dict": "a mapping"}[shape.container]
    raise SpecError(Problem(path, f"got {describe(value)}, expected {expected}"))


def move_inside(table: Mapping[str, _Entry], old: str, new: str) -> dict[str, _Entry]:
    """Moves the entries of a table that are at a path, or inside it, to another path; leaves out all others."""
    return {new + path.removeprefix(old): one for path, one in table.items() if f"{path}.".startswith(f"{old}.")}


def _suggest_blank(keys: Iterable[str]) -> str:
    """Returns a hint where a key is one with its value, such as `width:8` in `{width:8}`."""
    parted = (key.partition(":") for key in keys)
    return next((f"write a blank after the colon: `{name}: {value}`" for name, _, value in parted if value), "")


def _suggest_renamed(part: Part, key: str, value: Value, declared: Mapping[str, Parameter]) -> str:
    """Returns a hint where the part's `migrate` gives a former parameter another name."""
    try:
        migrate = import_target(part.migrate, f"migrate of part {part}") if part.migrate else None
        found, _ = migrate({key: value}, {}, "0") if migrate else ({}, None)
    except Exception:  # a function for whole nodes may need more than one parameter
        return ""
    return next((f"{part} has {name!r} in its place" for name in found if name in declared), "")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if key.isidentifier() else join((*split(path), key))
