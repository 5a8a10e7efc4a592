"""The plan: a spec with all short forms and defaults expanded and all keywords checked, before anything is built.

It holds a tree of calls, which `modkit.building.planner` makes, and from which the builder makes objects and a run
writes its resolved spec.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modkit.building.call import Call, Given, Record, list_calls, write_record
from modkit.building.planner import Planner
from modkit.errors import Problem, SpecError, join, split
from modkit.kinds import EngineExtras, read_extras
from modkit.part import Local
from modkit.parts.registry import Entry, get_registry
from modkit.specs.event import write_types
from modkit.specs.node import Node, Path, Value, rebuild, strip_parts
from modkit.specs.references import resolve
from modkit.specs.settings import Settings
from modkit.specs.spec import Spec
from modkit.types import Event, TensorType

__all__ = ["MAX_PARTS", "Plan", "plan", "plan_part"]

MAX_PARTS = 1000
"""Maximum number of parts and references in a spec, defaults included."""


@dataclass(frozen=True)
class Plan:
    """A checked spec.

    Args:
        spec: The spec as written, with scalar references resolved.
        data: The call of the data set, or None.
        model: The call of the model.
        settings: The settings of training.
        evaluation: The settings of evaluation, or None.
        calls: All calls by path.
        entries: The registered parts in use.
        left: The keys of the spec that were left out. Their parts need not be installed, and have no calls; of the
            settings of training there is the seed alone.
    """

    spec: Spec
    data: Call | None
    model: Call
    settings: Record
    evaluation: Record | None
    calls: Mapping[str, Call]
    entries: tuple[Entry, ...]
    left: frozenset[str] = frozenset()

    @property
    def resolved(self) -> Spec:
        """The spec with all parts and parameters written out; what was left out is as in `spec`."""
        made = Spec(
            name=self.spec.name,
            data=self.data.to_node() if self.data else None,
            model=self.model.to_node(),
            train=Node(write_record(self.settings)),
            evaluate=Node(write_record(self.evaluation)) if self.evaluation else None,
            x=self.spec.x,
        )
        return replace(made, **{key: getattr(self.spec, key) for key in self.left})

    def narrow(self, model: Call, x: Event, fields: Mapping[str, TensorType]) -> Plan:
        """The plan of a model in this one on its own.

        Args:
            model: Its call, moved to the root, where it refers to nothing outside.
            x: The type of one sample of it.
            fields: The types of the data's fields.
        """
        calls = {call.path: call for call in list_calls(model)}
        tree = Node({"model": model.to_node()})

        def change(path: Path, value: Value) -> Value:
            call = calls.get(join(strip_parts(tree, path))) if path else None
            if not isinstance(value, Node) or call is None:
                return value
            if call.given:
                return Node({"use": call.given})
            return Node({**value, "use": call.part.load()}) if isinstance(call.part, Local) else value

        written = Node(write_types(x, fields)) if isinstance(x, TensorType) else None
        spec = Spec(model=rebuild(tree, change)["model"], x=written)
        names = {(call.part.kind, call.part.name) for call in calls.values()}
        entries = tuple(one for one in self.entries if (one.part.kind, one.part.name) in names)
        return Plan(spec, None, model, self.settings, None, calls, entries)

    def replace_types(self, x: Event, fields: Mapping[str, TensorType]) -> Plan:
        """The same plan with the types of a sample and of its fields in its spec, if a spec can hold them."""
        if not isinstance(x, TensorType):
            return self
        return replace(self, spec=replace(self.spec, x=Node(write_types(x, fields))))

    def describe_local(self) -> dict[str, dict[str, str]]:
        """Describes the local parts whose code can be read: their targets and hashes, by their paths."""
        from modkit.runs.sources import hash_local

        local = {path: call.part for path, call in self.calls.items() if isinstance(call.part, Local)}
        parts = {path: part.load() for path, part in local.items()}
        codes = {path: hash_local(one.value if isinstance(one, Given) else one) for path, one in parts.items()}
        return {path: {"target": local[path].target, "sha256": code} for path, code in codes.items() if code}

    def is_for_several(self) -> bool:
        """Whether the engine of training is for several processes."""
        engine = self.calls.get("train.engine")
        return engine is not None and read_extras(engine.part.load(), EngineExtras).several

    def is_in_piece(self, call: Call) -> bool:
        """Whether a part is inside a piece of another run, among whose weights are the part's."""
        around = self._list_around(call.path)
        return any(one.trained not in (None, call.trained) for one in around)  # a repeated piece is in its slot

    def is_frozen(self, call: Call) -> bool:
        """Whether a part is a piece of another run that is not trained further, or inside one."""
        return any(one.trained and not one.trained.train for one in (call, *self._list_around(call.path)))

    def _list_around(self, path: str) -> list[Call]:
        """Lists the parts that the part at a path is inside of."""
        parts = split(path)
        outer = (join(parts[:stop]) for stop in range(1, len(parts)))
        return [self.calls[one] for one in outer if one in self.calls]

    def __str__(self) -> str:
        return str(self.resolved)

    def _repr_html_(self) -> str:
        """In a notebook: the resolved spec."""
        return self.resolved._repr_html_()

    def lock(
        self,
        keys: Mapping[str, Sequence[int]],
        modules: Mapping[str, Sequence[str]],
        x: TensorType,
        fields: Mapping[str, TensorType],
    ) -> dict[str, Any]:
        """The lock of a run of this plan.

        Args:
            keys: The shapes of the model's state dict by key.
            modules: Names of the parts' modules by their paths, where these are not the names.
            x: The type of a sample.
            fields: The types of its fields.

        Raises:
            ValueError: If a part's target does not resolve.
        """
        from modkit.runs.lock import make_lock

        places: dict[tuple[str, str], list[str]] = {}
        for path, call in self.calls.items():
            places.setdefault((call.part.kind, call.part.name), []).append(path)
        seed = int(self.settings.arguments["seed"])  # type: ignore[arg-type]
        made = make_lock(self.entries, spec_text=self.resolved.to_yaml(), seed=seed, keys=keys, places=places)
        local = self.describe_local()
        coded = {"local": local} if local else {}
        renamed = {"modules": {path: list(names) for path, names in modules.items()}} if modules else {}
        return {**made, **renamed, **coded, "x": write_types(x, fields)}


def plan(spec: Spec, *, typed: bool = False, leave: Collection[str] = ()) -> Plan:
    """Checks a spec against the signatures of the parts that it names.

    Args:
        spec: The spec.
        typed: Whether the type of a sample is known from elsewhere, so that the spec needs neither `data` nor `x`.
        leave: Which of `SURROUNDINGS` to leave out, unless the model refers to parts in them.

    Raises:
        SpecError: With every problem found.
    """
    spec = resolve(spec)
    planner = Planner(spec, get_registry())
    model = planner.plan_part(spec.model, "model", "model", None)
    left = frozenset(leave).difference(str(split(ref.target)[0]) for ref, _ in planner.refs)
    data, settings, evaluation = planner.plan_surroundings(left)
    planner.check_refs()
    if (num := len(planner.calls) + len(planner.refs)) > MAX_PARTS:
        planner.report("model", f"got {num} parts with all defaults, expected at most {MAX_PARTS}")
    if spec.data is None and spec.x is None and not typed:
        planner.report("data", "missing, expected a data set, or `x` with the type of one sample")
    if planner.problems:
        raise SpecError(planner.problems)
    if not isinstance(model, Call):
        raise SpecError(Problem("model", "got a reference, expected a part"))
    return Plan(spec, data, model, settings, evaluation, planner.calls, tuple(planner.entries.values()), left)


def plan_training(planned: Plan, spec: Spec) -> Plan:
    """Plans the training of a model that has a plan already.

    Args:
        planned: The plan of the model.
        spec: The spec with the name, data, training and evaluation; its `model` is ignored.

    Raises:
        SpecError: With every problem found.
    """
    spec = replace(spec, model=planned.spec.model)
    root = planned.model.path
    kept = {path: call for path, call in planned.calls.items() if path.startswith(root)}
    planner = Planner(spec, get_registry(), calls=kept)
    data, settings, evaluation = planner.plan_surroundings()
    if planner.problems:
        raise SpecError(planner.problems)
    entries = {(entry.part.kind, entry.part.name): entry for entry in planned.entries} | planner.entries
    return Plan(spec, data, planned.model, settings, evaluation, planner.calls, tuple(entries.values()))


def plan_part(kind: str, node: Value, *, seed: int = 0) -> Plan:
    """Plans a single part of any kind in place of a model, for tests.

    Args:
        kind: The kind of the part.
        node: The part's node, as in a spec.
        seed: Seed of its initialisation.

    Raises:
        SpecError: With every problem found.
    """
    spec = Spec(name=kind, model=Node({"use": "autoencoder"}), train=Node({"seed": seed}))
    planner = Planner(spec, get_registry())
    part = planner.plan_part(node, kind, kind, None)
    settings = planner.plan_record(spec.train or Node({}), Settings, "train")
    planner.check_refs()
    if planner.problems or not isinstance(part, Call):
        raise SpecError(planner.problems or Problem(kind, "got a reference, expected a part"))
    return Plan(spec, None, part, settings, None, planner.calls, tuple(planner.entries.values()))
