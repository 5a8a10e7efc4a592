"""The plan: a spec with all short forms and defaults expanded and all keywords checked, before anything is built.

It holds the resolved tree, which `modkit.building.planner` makes. The builder makes objects of it, and a run writes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

from modkit.building.local import LOCAL, Given
from modkit.building.pieces import is_piece
from modkit.building.planner import Planner, move_inside
from modkit.errors import Problem, SpecError, join, split
from modkit.kinds import EngineExtras, read_extras
from modkit.part import Local, Part, format_target
from modkit.parts.entry import Entry
from modkit.parts.registry import get_registry
from modkit.runs.files import is_address
from modkit.specs.event import write_types
from modkit.specs.node import Node, Path, Value, find_value, open_piece, rebuild
from modkit.specs.references import list_refs, move, rebase, resolve
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
        tree: The resolved tree: parts, settings of training and evaluation with all that a run writes. Parts from
            Python are in their `use`.
        parts: All parts by path, each after those inside it.
        objects: Those of them that were given built, by path.
        entries: The registered parts in use.
        left: The keys of the spec that were left out. Their parts need not be installed, and are not in the tree; of
            the settings of training there is only the seed.
        root: The path of the model.
    """

    spec: Spec
    tree: Node
    parts: Mapping[str, Part]
    objects: Mapping[str, Given]
    entries: tuple[Entry, ...]
    left: frozenset[str] = frozenset()
    root: str = "model"

    @property
    def resolved(self) -> Spec:
        """The spec with all parts and parameters written out; what was left out is as in `spec`."""
        named = rebuild(self.tree, lambda _, value: f"{LOCAL}{format_target(value)}" if callable(value) else value)
        made = Spec(
            name=self.spec.name,
            data=named.get("data"),
            model=named[self.root],
            train=named["train"],
            evaluate=named.get("evaluate"),
            x=self.spec.x,
        )
        return replace(made, **{key: getattr(self.spec, key) for key in self.left})

    @property
    def seed(self) -> int:
        """The seed of training, from which a model is initialised."""
        return int(find_value(self.tree, ("train", "seed")))  # type: ignore[arg-type]

    @cached_property
    def refs(self) -> Mapping[str, str]:
        """The references inside parts by path, each with the path of the part that it shares."""
        return {path: goal for path, goal in list_refs(self.tree).items() if self._list_around(path)}

    def find(self, path: str) -> str:
        """Finds where the part at a path is written: what a slot repeats (`path[0]`, `path[1]`, …) is written once."""
        if path in self.parts:
            return path
        place: Path = ()
        for key in split(path):
            if not isinstance(key, int) or join(place) not in self.parts:
                place = (*place, key)
        return join(place)

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        """The nodes of all parts by path; a piece of another run has the part's own inside."""

        def enter(value: Any, key: str | int) -> Any:
            return open_piece(value)[key]  # type: ignore[index]

        return {path: reduce(enter, split(path), self.tree) for path in self.parts}

    def get_arguments(self, place: str) -> dict[str, Value]:
        """Returns the parameters of the part that is written at a place, without those that are null by default."""
        return open_piece(self.nodes[place]).params  # type: ignore[union-attr]

    def narrow(
        self, path: str, built: Mapping[str, Any], x: Event, fields: Mapping[str, TensorType]
    ) -> tuple[Plan, dict[str, str]]:
        """Returns the plan of a model in this one on its own.

        Where it refers to parts outside of it, it has these parts as objects.

        Args:
            path: The path of the model.
            built: The parts that have been built, by path.
            x: The type of one sample of it.
            fields: The types of the data's fields.

        Returns:
            The plan, and the paths of the parts outside, each with the path of its first reference, where it now is.
        """
        here, places = self.find(path), dict[str, str]()
        parts, objects = move_inside(self.parts, here, path), move_inside(self.objects, here, path)

        def take(at: Path, value: Value) -> Value:
            if not isinstance(value, Node) or value.ref is None or f"{value.ref}.".startswith(f"{path}."):
                return value
            if (goal := move(value.ref, places)) != value.ref:
                return Node({"ref": goal})
            place = places[value.ref] = join(at)
            parts.update(move_inside(self.parts, value.ref, place))
            objects.update(move_inside(self.objects, value.ref, place))
            if value.ref in built:
                objects[place] = Given(built[value.ref])
            return rebase(self.nodes[value.ref], {value.ref: place})

        model = rebase(rebuild(self.nodes[here], take, split(path)), {path: "model"})
        parts, objects = move_inside(parts, path, "model"), move_inside(objects, path, "model")
        names = {(part.kind, part.name) for part in parts.values()}
        entries = tuple(one for one in self.entries if (one.part.kind, one.part.name) in names)
        made = Plan(self.spec, Node({"model": model, "train": self.tree["train"]}), parts, objects, entries)
        return replace(made, spec=Spec(model=made.write_model())).replace_types(x, fields), places

    def write_model(self, due: Collection[str] = ()) -> Node:
        """Writes the model as Python gives it: with objects, except those that hold a `due` path or refer to one."""
        opened = {one for one in self.objects if any(path.startswith(f"{one}.") for path in due)}
        goals = [path for path, goal in self.refs.items() if any(f"{goal}.".startswith(f"{one}.") for one in opened)]
        opened |= {one for one in self.objects if any(path.startswith(f"{one}.") for path in goals)}

        def put(at: Path, value: Value) -> Value:
            place = join(at)
            return Node({"use": self.objects[place]}) if place in self.objects and place not in opened else value

        return rebuild(self.tree[self.root], put, (self.root,))

    def replace_types(self, x: Event, fields: Mapping[str, TensorType]) -> Plan:
        """The same plan with the types of a sample and of its fields in its spec, if a spec can hold them."""
        if not isinstance(x, TensorType):
            return self
        return replace(self, spec=replace(self.spec, x=Node(write_types(x, fields))))

    def describe_local(self) -> dict[str, dict[str, str]]:
        """Describes the local parts whose code can be read: their targets and hashes, by their paths."""
        from modkit.runs.sources import hash_local

        local = {path: part for path, part in self.parts.items() if isinstance(part, Local)}
        parts = {path: part.load() for path, part in local.items()}
        codes = {path: hash_local(one.value if isinstance(one, Given) else one) for path, one in parts.items()}
        return {path: {"target": local[path].target, "sha256": code} for path, code in codes.items() if code}

    def is_for_several(self) -> bool:
        """Whether the engine of training is for several processes."""
        engine = self.parts.get("train.engine")
        return engine is not None and read_extras(engine.load(), EngineExtras).several

    def is_in_piece(self, path: str) -> bool:
        """Whether a part is inside a piece of another run, among whose weights are the part's."""
        return any(map(is_piece, self._list_around(self.find(path))))

    def is_frozen(self, path: str) -> bool:
        """Whether a part is a piece of another run that is not trained further, or inside one."""
        around = (self.nodes[path], *self._list_around(path))
        return any(is_piece(one) and not one["train"] for one in around)

    def _list_around(self, place: str) -> list[Node]:
        """Lists the parts that what is written at a place is inside of."""
        parts = split(place)
        outer = (join(parts[:stop]) for stop in range(1, len(parts)))
        return [self.nodes[one] for one in outer if one in self.parts]

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
        for path, part in self.parts.items():
            places.setdefault((part.kind, part.name), []).append(path)
        made = make_lock(self.entries, spec_text=self.resolved.to_yaml(), seed=self.seed, keys=keys, places=places)
        local = self.describe_local()
        coded = {"local": local} if local else {}
        runs = {path: str(node["path"]) for path, node in self.nodes.items() if is_piece(node)}
        addresses = {path: run for path, run in runs.items() if is_address(run)}
        renamed = {"modules": {path: list(names) for path, names in modules.items()}} if modules else {}
        read = {"addresses": addresses} if addresses else {}
        return {**made, **renamed, **coded, **read, "x": write_types(x, fields)}


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
    left = frozenset(leave).difference(str(split(goal)[0]) for _, goal, _ in planner.refs)
    around = planner.plan_surroundings(left)
    planner.check_refs()
    if (num := len(planner.parts) + len(planner.refs)) > MAX_PARTS:
        planner.report("model", f"got {num} parts with all defaults, expected at most {MAX_PARTS}")
    if spec.data is None and spec.x is None and not typed:
        planner.report("data", "missing, expected a data set, or `x` with the type of one sample")
    if planner.problems:
        raise SpecError(planner.problems)
    if "model" not in planner.parts:
        raise SpecError(Problem("model", "got a reference, expected a part"))
    return _make_plan(planner, Node({"model": model, **around}), left)


def plan_training(planned: Plan, spec: Spec) -> Plan:
    """Plans the training of a model that has a plan already.

    Args:
        planned: The plan of the model.
        spec: The spec with the name, data, training and evaluation; its `model` is ignored.

    Raises:
        SpecError: With every problem found.
    """
    spec, root = replace(spec, model=planned.spec.model), planned.root
    kept = move_inside(planned.parts, root, root), move_inside(planned.objects, root, root)
    entries = {(entry.part.kind, entry.part.name): entry for entry in planned.entries}
    planner = Planner(spec, get_registry(), parts=kept[0], objects=kept[1], entries=entries)
    around = planner.plan_surroundings()
    if planner.problems:
        raise SpecError(planner.problems)
    return _make_plan(planner, Node({root: planned.tree[root], **around}), root=root)


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
    if planner.problems or kind not in planner.parts:
        raise SpecError(planner.problems or Problem(kind, "got a reference, expected a part"))
    return _make_plan(planner, Node({kind: part, "train": settings}), root=kind)


def _make_plan(planner: Planner, tree: Node, left: frozenset[str] = frozenset(), root: str = "model") -> Plan:
    entries = tuple(planner.entries.values())
    tree = rebase(tree, planner.moved) if planner.moved else tree
    return Plan(planner.spec, tree, planner.parts, planner.objects, entries, left, root)
