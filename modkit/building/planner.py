"""The planner: compares a spec's tree with the signatures of the parts that it names.

The result is a tree of calls, from which the builder makes objects and a run writes its resolved spec. All problems are
collected, each with its position.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, replace
from typing import Any

from modkit.building.call import LOCAL, Argument, Call, Given, Record, Ref, Trained, list_calls, reroot, share
from modkit.building.pieces import find_run, move_refs, read_run_node
from modkit.errors import Problem, join, split, suggest
from modkit.kinds import KINDS, Default
from modkit.part import Local, Part, import_target
from modkit.parts.annotation import render
from modkit.parts.registry import Entry, Registry
from modkit.parts.signature import Parameter, RecordShape, SlotShape, list_given_types, read_parameters, read_signature
from modkit.parts.validation import validate
from modkit.specs.implied import derive_defaults
from modkit.specs.node import Node, Value, describe
from modkit.specs.places import expand_node
from modkit.specs.settings import Evaluation, Settings
from modkit.specs.spec import Spec

__all__ = ["Planner"]


@dataclass
class Planner:
    """Walks a spec's tree and compares it with signatures.

    Args:
        spec: The spec, with scalar references resolved.
        registry: Where parts are found.
        problems: The problems found so far.
        calls: The calls made so far, by path.
        refs: The references to parts, with the kinds of their slots.
        entries: The registered parts in use, by kind and name.
        given: Paths of the parts given as objects, by the identity of the object.
    """

    spec: Spec
    registry: Registry
    problems: list[Problem] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)
    refs: list[tuple[Ref, str]] = field(default_factory=list)
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    given: dict[int, str] = field(default_factory=dict)
    frozen: bool = False

    def report(
        self, path: str, message: str, hint: str | None = None, *, key: bool = False, at: str | None = None
    ) -> None:
        """Adds a problem of a path, written there or `at` a path inside."""
        self.problems.append(Problem(path, message, self.spec.find_position(at or path, key=key), hint))

    def plan_surroundings(self, left: Collection[str] = ()) -> tuple[Call | None, Record, Record | None]:
        """Plans everything but the model, and but for what is left out: data, training and evaluation.

        Where training is left out, its seed remains, from which a model is initialised.
        """
        spec, data, evaluation = self.spec, None, None
        if spec.data is not None and "data" not in left:
            data = self.plan_part(spec.data, "data", "data", None)
        settings = self.plan_record(spec.train or Node({}), Settings, "train", ("seed",) if "train" in left else None)
        if spec.evaluate is not None and "evaluate" not in left:
            evaluation = self.plan_record(spec.evaluate, Evaluation, "evaluate")
        if isinstance(data, Ref):
            self.report("data", "got a reference, expected a part")
        if not re.fullmatch(r"(?!\.{1,2}$)[^/\\\0]{1,100}", spec.name):
            self.report("name", f"got {describe(spec.name)}, expected a plain name, as of a file")
        return data if isinstance(data, Call) else None, settings, evaluation

    def plan_part(self, value: Value, kind: str, path: str, fallback: Default | None) -> Call | Ref | None:
        """Plans a part, given by its node or bare name; returns None after a problem."""
        if isinstance(value, str):
            value = Node({"use": value})
        if not isinstance(value, Node):
            self.report(
                path, f"got {describe(value)}, expected a part of kind {kind}: its name, or a mapping with `use`"
            )
            return None
        if value.ref is not None:
            ref = Ref(path, value.ref)
            self.refs.append((ref, kind))
            return ref
        if value.use == "run":
            return self._plan_trained(value, kind, path)
        if isinstance(value.use, Given):
            return self._plan_given(value, value.use, kind, path)
        if fallback and "use" not in value:
            value = Node({"use": fallback.name, **fallback.params, **value})
        part = self._find(value, kind, path)
        return self._make_call(part, value, path) if part else None

    def plan_record(self, value: Value, type: type[Any], path: str, names: Collection[str] | None = None) -> Record:
        """Plans a group of settings: all of them, or those of some names alone."""
        if not isinstance(value, Node):
            self.report(path, f"got {describe(value)}, expected a mapping")
            value = Node({})
        declared = read_signature(type, (), path)
        if names is not None:
            declared = {name: declared[name] for name in names}
            value = Node({name: value[name] for name in names if name in value})
        return Record(type, self._plan_arguments(value, declared, (), path))

    def check_refs(self) -> None:
        """Checks that every reference leads to a part of its slot's kind."""
        for ref, kind in self.refs:
            call = self.calls.get(ref.target)
            if call is None:
                self.report(
                    ref.path, f"got a ref to {ref.target}, expected the path of a part", suggest(ref.target, self.calls)
                )
            elif call.part.kind != kind:
                self.report(
                    ref.path, f"got a ref to the {call.part.kind} at {ref.target}, expected a part of kind {kind}"
                )

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
            self.report(path, message, at=written)
        else:
            try:
                entry = self.registry.find_entry(kind, use)
            except ValueError as error:
                self.report(path, str(error), at=written)
            else:
                self.entries[kind, entry.part.name] = entry
                return entry.part
        return None

    def _make_call(self, part: Part, node: Node, path: str, trained: Trained | None = None) -> Call | None:
        try:
            declared, taken = read_parameters(part), frozenset(list_given_types(part))
        except ImportError as error:
            self.report(path, str(error))
            return None
        except Exception as error:  # a plug-in's signature may fail to be read in any way
            names = ", ".join(entry.part.name for entry in self.registry.list_parts(part.kind))
            hint = f"parts of kind {part.kind} with a name: {names}" if isinstance(part, Local) else None
            self.report(path, f"the {part} cannot be used: {type(error).__name__}: {error}", hint)
            return None
        try:
            node = expand_node(part, node)
        except ValueError as error:
            self.report(path, f"the {part} cannot be used: {error}")
            return None
        given = KINDS[part.kind].given
        blank = frozenset(name for name, parameter in declared.items() if parameter.default is None) - set(part.earlier)
        call = Call(path, part, self._plan_arguments(node, declared, given, path, part), taken, trained, blank)
        self.calls[path] = call
        return call

    def _plan_arguments(
        self,
        node: Node,
        declared: Mapping[str, Parameter],
        given: tuple[str, ...],
        path: str,
        owner: Part | None = None,
    ) -> dict[str, Argument]:
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
        arguments: dict[str, Argument] = {}
        kind = owner.kind if owner else None
        derived = derive_defaults(declared, node, kind, lambda name, reason: self.report(_join(path, name), reason))
        for name in [name for name in declared if name in node and name not in derived]:
            self._check_unused(node, declared[name], path)
        for name, parameter in derived.items():
            place = _join(path, name)
            if name in node:
                arguments[name] = self._plan_argument(node[name], parameter, place)
            elif parameter.default is MISSING:
                self.report(path, f"got no {name!r}, which the {owner} requires: {parameter.help}")
            else:
                arguments[name] = self._plan_default(parameter, place)
        return arguments

    def _check_unused(self, node: Node, parameter: Parameter, path: str) -> None:
        """Refuses what is written beside the parameter that replaces it, but for its default: older runs have that."""
        place, other = _join(path, parameter.name), Planner(self.spec, self.registry)
        if other._plan_argument(node[parameter.name], parameter, place) != other._plan_default(parameter, place):
            message = f"got {parameter.name!r} beside {parameter.unless!r}, which replaces it, expected one of them"
            inner = _join(path, parameter.unless)
            self.report(place, message, f"change {inner}[0], …, or set {inner} to null", key=True)

    def _plan_default(self, parameter: Parameter, path: str) -> Argument:
        default = parameter.default
        if isinstance(default, Default) and parameter.slot:
            return self.plan_part(Node({}), parameter.slot.kind, path, default)
        if parameter.record and not parameter.record.container and parameter.record.plain is None:
            return self.plan_record(Node({}), parameter.record.type, path)
        return default  # type: ignore[no-any-return]

    def _plan_argument(self, value: Value, parameter: Parameter, path: str) -> Argument:
        if parameter.record:
            record = parameter.record
            if type(value) in (int, float) and (reason := parameter.refuse(value)):
                self.report(path, reason)
            return self._fill_container(value, record.container, path, lambda v, p: self._fill_record(v, record, p))
        slot = parameter.slot
        if slot is None:
            if reason := parameter.validate(value):
                self.report(path, reason)
            return value
        if slot.optional and (value is None or (self.frozen and KINDS[slot.kind].spare)):
            return None
        fallback = parameter.default if isinstance(parameter.default, Default) else None
        return self._fill_container(value, slot.container, path, lambda v, p: self._fill_slot(v, slot, p, fallback))

    def _fill_slot(self, value: Value, slot: SlotShape, path: str, fallback: Default | None) -> Argument:
        if slot.number and isinstance(value, int | float) and not isinstance(value, bool):
            if reason := validate(value, float):
                self.report(path, reason)
            return value
        return self.plan_part(value, slot.kind, path, fallback)

    def _fill_record(self, value: Value, record: RecordShape, path: str) -> Argument:
        if record.plain is None or isinstance(value, Node):
            return self.plan_record(value, record.type, path)
        if validate(value, record.plain):
            self.report(path, f"got {describe(value)}, expected {render(record.plain)} or a mapping")
        return value

    def _fill_container(
        self, value: Value, container: str | None, path: str, make: Callable[[Value, str], Argument]
    ) -> Argument:
        if container == "list":
            if isinstance(value, tuple):
                return [make(item, f"{path}[{index}]") for index, item in enumerate(value)]
            self.report(path, f"got {describe(value)}, expected a list")
        elif container == "dict":
            if isinstance(value, Node):
                return {key: make(item, _join(path, key)) for key, item in value.items()}
            self.report(path, f"got {describe(value)}, expected a mapping")
        else:
            return make(value, path)
        return None

    def _plan_given(self, node: Node, given: Given, kind: str, path: str) -> Call | Ref | None:
        """Plans a part given as an object, with the parts it was composed of; its second place is a reference."""
        for key in node.params:
            message = f"got {key!r} for the built {given.__name__}, expected no parameters: it is used as it is"
            self.report(_join(path, key), message, key=True)
        if id(given.value) in self.given:
            return self._share_given(given, kind, path)
        self.given[id(given.value)] = path
        composed: Any = getattr(getattr(given.value, "composition", None), "plan", None)  # a Plan
        if composed is None:
            part = Local.wrap(kind, given)
            self.calls[path] = Call(path, part, {}, frozenset(), given=given)
        else:
            self._enter(list_calls(reroot(composed.model, composed.model.path, path)))
            self.calls[path] = replace(self.calls[path], given=given)
            self.entries.update({(entry.part.kind, entry.part.name): entry for entry in composed.entries})
        return self.calls[path]

    def _share_given(self, given: Given, kind: str, path: str) -> Ref | None:
        """Refers to the part that an object is already; returns None after a problem."""
        target = self.given[id(given.value)]
        if (first := self.calls[target].part).kind != kind:
            message = f"got the built {given.__name__} that is the {first.kind} at {target}"
            self.report(path, f"{message}, expected another object: one can be a part of one kind only")
            return None
        ref = Ref(path, target)
        self.refs.append((ref, kind))
        return ref

    def _enter(self, calls: Iterable[Call]) -> None:
        """Enters the calls of a composed model, with references in place of objects that have their place outside."""
        calls, known, places = list(calls), dict(self.given), {}
        for call in calls:
            if call.given and id(call.given.value) not in known:
                self.given[id(call.given.value)] = call.path
            elif call.given and (ref := self._share_given(call.given, call.part.kind, call.path)):
                places[call.path] = ref.target
        for call in calls:
            if isinstance(shared := share(call, places), Call):
                self.calls[call.path] = shared

    def _plan_trained(self, node: Node, kind: str, path: str) -> Call | None:
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
        trained = Trained(str(node["path"]), str(node.get("at", "model")), bool(node.get("train", False)))
        try:
            inner = node.get("part") or move_refs(
                read_run_node(find_run(trained.path, self.spec), trained.at), trained.at, path
            )
        except (ValueError, OSError) as error:
            self.report(path, f"the run cannot be used: {error}")
            return None
        if not isinstance(inner, Node):
            self.report(path, f"got {describe(inner)} at {trained.at} of the run, expected a part of kind {kind}")
            return None
        part = self._find(inner, kind, path)
        outside, self.frozen = self.frozen, self.frozen or not trained.train  # what is frozen needs nothing of training
        try:
            return self._make_call(part, inner, path, trained) if part else None
        finally:
            self.frozen = outside


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
    return join((*split(path), key))
