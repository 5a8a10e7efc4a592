"""The plan: a spec with every short form and default expanded and every keyword checked, before anything is built.

Here a spec's tree meets the signatures of the parts that it names. What comes out is a tree of calls, from which the
builder makes objects and the run writes its resolved spec; what goes wrong is collected, each problem at its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from modkit.building.call import LOCAL, Argument, Call, Given, Record, Ref, Trained, reroot, written_record
from modkit.errors import Problem, SpecError, join, split, suggest
from modkit.kinds import KINDS, Default
from modkit.part import Local, Part
from modkit.parts.registry import Entry, Registry, get_registry
from modkit.parts.signature import Parameter, SlotShape, list_given_types, read_parameters, read_signature
from modkit.parts.validation import validate
from modkit.specs.event import write_types
from modkit.specs.node import Node, Value, describe
from modkit.specs.references import resolve
from modkit.specs.settings import Evaluation, Settings
from modkit.specs.spec import Spec
from modkit.types import CondType, Event, TensorType

__all__ = ["MAX_PARTS", "Composition", "Plan", "plan", "plan_part", "run_folder", "run_node"]

MAX_PARTS = 1000
"""Most parts and references of a spec, defaults included."""


@dataclass(frozen=True)
class Plan:
    """A checked spec.

    Args:
        spec: As written, scalars resolved.
        data: The data set's call, or None.
        model: The model's call or, of a trained piece, its.
        settings: How it is trained.
        evaluation: How it is measured, or None.
        calls: Every call by path.
        entries: The registered parts used.
    """

    spec: Spec
    data: Call | None
    model: Call
    settings: Record
    evaluation: Record | None
    calls: Mapping[str, Call]
    entries: tuple[Entry, ...]

    @property
    def resolved(self) -> Spec:
        """The spec with every part and parameter written out."""
        return Spec(
            name=self.spec.name,
            data=self.data.node() if self.data else None,
            model=self.model.node(),
            train=Node(written_record(self.settings)),
            evaluate=Node(written_record(self.evaluation)) if self.evaluation else None,
            x=self.spec.x,
        )

    def lock(
        self, keys: Mapping[str, Sequence[int]], x: TensorType, fields: Mapping[str, TensorType]
    ) -> dict[str, Any]:
        """The lock of a run of this plan.

        Args:
            keys: The shapes of the model's state dict by key.
            x: The type of a sample.
            fields: The types of its fields.

        Raises:
            ValueError: If a part's target does not resolve.
        """
        from modkit.runs.lock import lock

        places: dict[tuple[str, str], list[str]] = {}
        for path, call in self.calls.items():
            places.setdefault((call.part.kind, call.part.name), []).append(path)
        seed = int(self.settings.arguments["seed"])  # type: ignore[arg-type]
        made = lock(self.entries, spec_text=self.resolved.to_yaml(), seed=seed, keys=keys, places=places)
        return {**made, "x": write_types(x, fields)}


class Composition(NamedTuple):
    """What a model was built from, kept on it as `.composition`.

    Args:
        plan: The plan.
        x: The type of one sample.
        cond: Conditions from outside.
        fields: The types of its fields.
    """

    plan: Plan
    x: Event
    cond: CondType
    fields: Mapping[str, TensorType]

    def __deepcopy__(self, memo: dict[int, Any]) -> Composition:
        return self


def plan(spec: Spec, *, typed: bool = False) -> Plan:
    """Checks a spec against the signatures of the parts that it names.

    Args:
        spec: The spec.
        typed: Whether the types of a sample are known otherwise, so that it needs neither `data` nor `x`.

    Raises:
        SpecError: With every problem found.
    """
    spec = resolve(spec)
    planner = _Planner(spec, get_registry())
    model = planner.part(spec.model, "model", "model", None)
    data, settings, evaluation = planner.surroundings()
    planner.check_refs()
    if (num := len(planner.calls) + len(planner.refs)) > MAX_PARTS:
        planner.report("model", f"got {num} parts with all defaults, expected at most {MAX_PARTS}")
    if spec.data is None and spec.x is None and not typed:
        planner.report("data", "missing, expected a data set, or `x` with the type of one sample")
    if planner.problems:
        raise SpecError(planner.problems)
    if not isinstance(model, Call):
        raise SpecError(Problem("model", "got a reference, expected a part"))
    return Plan(spec, data, model, settings, evaluation, planner.calls, tuple(planner.entries.values()))


def plan_training(planned: Plan, spec: Spec) -> Plan:
    """The plan of a model that was planned before, with another spec's name, data, training and evaluation.

    Args:
        planned: The model's plan.
        spec: The spec of the rest; its `model` is the plan's.

    Raises:
        SpecError: With every problem found.
    """
    spec = replace(spec, model=planned.spec.model)
    root = planned.model.path
    kept = {path: call for path, call in planned.calls.items() if path.startswith(root)}
    planner = _Planner(spec, get_registry(), calls=kept)
    data, settings, evaluation = planner.surroundings()
    if planner.problems:
        raise SpecError(planner.problems)
    entries = {(entry.part.kind, entry.part.name): entry for entry in planned.entries} | planner.entries
    return Plan(spec, data, planned.model, settings, evaluation, planner.calls, tuple(entries.values()))


def plan_part(kind: str, node: Value, *, seed: int = 0) -> Plan:
    """The plan of one part of a kind on its own, in the model's place: what a test builds.

    Args:
        kind: Its kind.
        node: What a spec would say of it.
        seed: Of its initialisation.

    Raises:
        SpecError: With every problem found.
    """
    spec = Spec(name=kind, model=Node({"use": "autoencoder"}), train=Node({"seed": seed}))
    planner = _Planner(spec, get_registry())
    part = planner.part(node, kind, kind, None)
    settings = planner.record(spec.train or Node({}), Settings, "train")
    planner.check_refs()
    if planner.problems or not isinstance(part, Call):
        raise SpecError(planner.problems or Problem(kind, "got a reference, expected a part"))
    return Plan(spec, None, part, settings, None, planner.calls, tuple(planner.entries.values()))


@dataclass
class _Planner:
    """Walks a spec's tree along the signatures."""

    spec: Spec
    registry: Registry
    problems: list[Problem] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)
    refs: list[tuple[Ref, str]] = field(default_factory=list)
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    given: dict[int, str] = field(default_factory=dict)

    def report(self, path: str, message: str, hint: str | None = None, *, key: bool = False) -> None:
        """Adds a problem."""
        self.problems.append(Problem(path, message, self.spec.find_position(path, key=key), hint))

    def surroundings(self) -> tuple[Call | None, Record, Record | None]:
        """What is around the model: data, training and evaluation."""
        spec = self.spec
        data = self.part(spec.data, "data", "data", None) if spec.data is not None else None
        settings = self.record(spec.train or Node({}), Settings, "train")
        evaluation = None if spec.evaluate is None else self.record(spec.evaluate, Evaluation, "evaluate")
        if isinstance(data, Ref):
            self.report("data", "got a reference, expected a part")
        if not re.fullmatch(r"(?!\.{1,2}$)[^/\\\0]{1,100}", spec.name):
            self.report("name", f"got {describe(spec.name)}, expected a plain name, as of a file")
        return data if isinstance(data, Call) else None, settings, evaluation

    def part(self, value: Value, kind: str, path: str, fallback: str | None) -> Call | Ref | None:
        """The call of a part, from its node or its bare name; None after a problem."""
        if isinstance(value, str):
            value = Node({"use": value})
        if not isinstance(value, Node):
            self.report(path, f"got {describe(value)}, expected a {kind}: its name, or a mapping with `use`")
            return None
        if value.ref is not None:
            ref = Ref(path, value.ref)
            self.refs.append((ref, kind))
            return ref
        if value.use == "run":
            return self._trained(value, kind, path)
        if isinstance(value.use, Given):
            return self._given(value.use, kind, path)
        part = self._find(value["use"] if "use" in value else fallback, kind, path)
        return self._call(part, value, path) if part else None

    def record(self, value: Value, type: type[Any], path: str) -> Record:
        """A group of settings, from its mapping."""
        if not isinstance(value, Node):
            self.report(path, f"got {describe(value)}, expected a mapping")
            value = Node({})
        declared = read_signature(type, (), path)
        return Record(type, self._arguments(value, declared, (), path))

    def check_refs(self) -> None:
        """Every reference must lead to a part of its slot's kind."""
        for ref, kind in self.refs:
            call = self.calls.get(ref.target)
            if call is None:
                self.report(
                    ref.path, f"got a ref to {ref.target}, expected the path of a part", suggest(ref.target, self.calls)
                )
            elif call.part.kind != kind:
                self.report(ref.path, f"got a ref to the {call.part.kind} at {ref.target}, expected a {kind}")

    def _find(self, use: Any, kind: str, path: str) -> Part | None:
        if use is None:
            names = ", ".join(entry.part.name for entry in self.registry.list_parts(kind))
            self.report(path, f"got no `use`, expected the name of a {kind}: {names}")
        elif callable(use):
            return Local.wrap(kind, use)
        elif not isinstance(use, str):
            self.report(path, f"got {describe(use)} as `use`, expected the name of a {kind}")
        elif use.startswith(LOCAL):
            local = use.removeprefix(LOCAL)
            self.report(path, f"got the local {local}, not reloadable by name, expected a registered {kind}")
        else:
            try:
                entry = self.registry.find_entry(kind, use)
            except ValueError as error:
                self.report(path, str(error))
            else:
                self.entries[kind, entry.part.name] = entry
                return entry.part
        return None

    def _call(self, part: Part, node: Node, path: str, trained: Trained | None = None) -> Call | None:
        try:
            declared, taken = read_parameters(part), frozenset(list_given_types(part))
        except Exception as error:  # a plug-in's target may fail to import in any way
            self.report(path, f"the {part} cannot be used: {type(error).__name__}: {error}")
            return None
        try:
            node = _expanded(part, node)
        except ValueError as error:
            self.report(path, f"the {part} cannot be used: {error}")
            return None
        given = KINDS[part.kind].given
        blank = frozenset(name for name, parameter in declared.items() if parameter.default is None)
        call = Call(path, part, self._arguments(node, declared, given, path, str(part)), taken, trained, blank)
        self.calls[path] = call
        return call

    def _arguments(
        self, node: Node, declared: Mapping[str, Parameter], given: tuple[str, ...], path: str, owner: str = ""
    ) -> dict[str, Argument]:
        for key in node.params if owner else node:
            if key in given:
                self.report(_under(path, key), f"got {key!r}, which the {owner} is told by its neighbours", key=True)
            elif key not in declared:
                names = ", ".join(declared) or "none"
                message = f"got an unknown key {key!r}, expected one of: {names}"
                self.report(_under(path, key), message, suggest(key, declared), key=True)
        arguments: dict[str, Argument] = {}
        for name, parameter in declared.items():
            place = _under(path, name)
            if name in node:
                arguments[name] = self._argument(node[name], parameter, place)
            elif parameter.default is MISSING:
                self.report(path, f"got no {name!r}, which the {owner} requires: {parameter.help}")
            else:
                arguments[name] = self._default(parameter, place)
        return arguments

    def _default(self, parameter: Parameter, path: str) -> Argument:
        default = parameter.default
        if isinstance(default, Default) and parameter.slot:
            return self.part(default.name, parameter.slot.kind, path, None)
        if parameter.record and not parameter.record.container:
            return self.record(Node({}), parameter.record.type, path)
        return default  # type: ignore[no-any-return]

    def _argument(self, value: Value, parameter: Parameter, path: str) -> Argument:
        if parameter.record:
            record = parameter.record.type
            return self._contained(value, parameter.record.container, path, lambda v, p: self.record(v, record, p))
        slot = parameter.slot
        if slot is None:
            if reason := validate(value, parameter.annotation):
                self.report(path, reason)
            return value
        if value is None and slot.optional:
            return None
        fallback = parameter.default.name if isinstance(parameter.default, Default) else None
        return self._contained(value, slot.container, path, lambda v, p: self._filled(v, slot, p, fallback))

    def _filled(self, value: Value, slot: SlotShape, path: str, fallback: str | None) -> Argument:
        if slot.number and isinstance(value, int | float) and not isinstance(value, bool):
            if reason := validate(value, float):
                self.report(path, reason)
            return value
        return self.part(value, slot.kind, path, fallback)

    def _contained(
        self, value: Value, container: str | None, path: str, make: Callable[[Value, str], Argument]
    ) -> Argument:
        if container == "list":
            if isinstance(value, tuple):
                return [make(item, f"{path}[{index}]") for index, item in enumerate(value)]
            self.report(path, f"got {describe(value)}, expected a list")
        elif container == "dict":
            if isinstance(value, Node):
                return {key: make(item, _under(path, key)) for key, item in value.items()}
            self.report(path, f"got {describe(value)}, expected a mapping")
        else:
            return make(value, path)
        return None

    def _given(self, given: Given, kind: str, path: str) -> Call | Ref:
        """The call of a built part, with those of what it was composed of; a reference where it stands already."""
        if id(given.value) in self.given:
            ref = Ref(path, self.given[id(given.value)])
            self.refs.append((ref, kind))
            return ref
        self.given[id(given.value)] = path
        composed: Plan | None = getattr(getattr(given.value, "composition", None), "plan", None)
        if composed is None:
            part = Local.wrap(kind, given)
            self.calls[path] = Call(path, part, {}, frozenset(), given=given)
        else:
            inner = [reroot(call, composed.model.path, path) for call in composed.calls.values()]
            self.calls.update({call.path: call for call in inner})
            self.calls[path] = replace(self.calls[path], given=given)
            self.entries.update({(entry.part.kind, entry.part.name): entry for entry in composed.entries})
        return self.calls[path]

    def _trained(self, node: Node, kind: str, path: str) -> Call | None:
        known = {"use": str, "path": str, "at": str, "train": bool, "part": Node}
        before = len(self.problems)
        for key, value in node.items():
            if key not in known:
                self.report(_under(path, key), f"got an unknown key {key!r}, expected path, at, train", key=True)
            elif not isinstance(value, known[key]):
                self.report(_under(path, key), f"got {describe(value)}, expected {known[key].__name__}")
        if "path" not in node:
            self.report(path, "got no `path`, expected the directory of a run")
        if len(self.problems) > before:
            return None
        trained = Trained(str(node["path"]), str(node.get("at", "model")), bool(node.get("train", False)))
        try:
            inner = node["part"] if "part" in node else run_node(run_folder(trained.path, self.spec), trained.at)
            inner = _moved(inner, trained.at, path)
        except (ValueError, OSError) as error:
            self.report(path, f"the run cannot be used: {error}")
            return None
        if not isinstance(inner, Node):
            self.report(path, f"got {describe(inner)} at {trained.at} of the run, expected a {kind}")
            return None
        part = self._find(inner.get("use"), kind, path)
        return self._call(part, inner, path, trained) if part else None


def _expanded(part: Part, node: Node) -> Node:
    """A node with the keywords that those written stand for, where its part says so."""
    expanded = getattr(part.load(), "expand_params", None)
    return (
        node if expanded is None else Node({**{k: v for k, v in node.items() if k == "use"}, **expanded(node.params)})
    )


def run_folder(path: str, spec: Spec) -> Path:
    """A run's directory: relative to the spec's file, then to the working directory."""
    beside = Path(spec.source.position.file).parent / path if spec.source.position else Path(path)
    return beside if beside.exists() else Path(path)


def run_node(folder: Path, at: str) -> Value:
    """A node of a run's resolved spec.

    Raises:
        ValueError: If there is no such run or node, or a part in it is missing here.
    """
    from modkit.building.migration import load_current_spec
    from modkit.building.provenance import find_missing
    from modkit.runs.run import Run

    run = Run.open(folder)
    if absent := find_missing(run, at):
        raise ValueError("; ".join(absent))
    return load_current_spec(run).at(at)


def _moved(value: Value, old: str, new: str) -> Value:
    """A node with its references led from the old root to the new."""
    if isinstance(value, Node):
        if value.ref is not None:
            if not (value.ref == old or value.ref.startswith(f"{old}.")):
                raise ValueError(f"it refers to {value.ref}, outside of {old}")
            return Node({"ref": new + value.ref[len(old) :]})
        return Node({key: _moved(item, old, new) for key, item in value.items()})
    return tuple(_moved(item, old, new) for item in value) if isinstance(value, tuple) else value


def _under(path: str, key: str) -> str:
    return join((*split(path), key))
