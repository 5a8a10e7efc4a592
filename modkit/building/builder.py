"""The builder: makes the objects of a plan.

An assembly receives a factory for each slot. Called with types, the factory builds the part of the slot from the types
that the part declares and the user's keywords, initialised as a function of the seed and the path. Modules can be built
on the meta device, to check a model before any weight exists. A part that cannot be built is recorded as a problem, and
parts that depend on it are skipped, so one check finds the problems of all independent branches.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import nn

from modkit.building.composition import Composition, Origin, check_types, format_type, format_types, locate
from modkit.building.exchange import drop_spare
from modkit.building.limit import limit_modules
from modkit.building.local import Given
from modkit.building.members import check_members, describe_lack, describe_unread
from modkit.building.pieces import find_run, is_piece, read_piece
from modkit.building.plan import Plan
from modkit.building.planner import map_items
from modkit.building.weights import load_weights
from modkit.errors import Problem, SpecError
from modkit.kinds import Data, ImpliedExtras, PretrainedExtras, Unfit, read_extras
from modkit.models.composing import Composing
from modkit.nn.trained import mark_trained
from modkit.part import Part
from modkit.parts.registry import find_kind
from modkit.parts.signature import (
    Parameter,
    is_required,
    is_tensor_only,
    list_given_types,
    read_parameters,
    read_signature,
)
from modkit.rng import Rng
from modkit.runs.files import expand_home
from modkit.specs.node import Node, Value, rebuild, thaw
from modkit.specs.references import move
from modkit.specs.settings import Evaluation, Settings
from modkit.training.ownership import find_origins
from modkit.types import CondType, Event, TensorType

__all__ = ["Built", "Factory", "Failed", "Site", "copy_to_meta"]

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Built:
    """A part that has been built, and the types that it was built from."""

    path: str
    part: Part
    value: Any
    types: Mapping[str, Any]


class Failed:
    """Stands in for a part that could not be built. All its attributes and results are `Failed` as well, and false."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Failed()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns `Failed`."""
        return Failed()

    def __iter__(self) -> Iterator[Failed]:
        return iter((Failed(),))

    def __bool__(self) -> bool:
        return False


class Site:
    """Builds the parts of one plan, its data and its settings once.

    Args:
        plan: The plan.
        meta: Whether modules are built on the meta device.
        weights: Whether pieces of other runs receive their weights; on the meta device, whether these would fit.
        seeded: Whether the plan's seed initialises parts; otherwise torch's global generator does.
    """

    def __init__(self, plan: Plan, *, meta: bool, weights: bool = True, seeded: bool = True) -> None:
        self.plan = plan
        self._rng = Rng(plan.seed, "init") if seeded else None
        self.renew(meta=meta, weights=weights)

    def renew(self, *, meta: bool = False, weights: bool = True) -> None:
        """Forgets the parts that were built: slots, in the settings as well, build anew, by default with values.

        The settings and the data stay.
        """
        self.meta, self.weights = meta, weights
        self.problems: list[Problem] = []
        self.built: dict[str, Built] = {}
        self.sources: dict[str, str] = {}
        self._copies: dict[int, Any] = {}
        self._origins: dict[nn.Module, Origin] = {}

    @cached_property
    def data(self) -> Data | None:
        """The data set, or None if the spec has none; one that no spec holds is assigned."""
        self._require("data")
        return Factory(self, "data")() if "data" in self.plan.parts else None

    @cached_property
    def settings(self) -> Settings:
        """The settings of training."""
        self._require("train")
        return self._make_record(Settings, self.plan.tree["train"], "train")

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The settings of evaluation, or None if the spec has none."""
        self._require("evaluate")
        written = self.plan.tree.get("evaluate")
        return None if written is None else self._make_record(Evaluation, written, "evaluate")

    def build_model(self, x: Event, fields: Mapping[str, TensorType], cond: CondType | None = None) -> Any:
        """Builds the model of samples of type `x`; returns `Failed` after a problem."""
        slot = Factory(self, self.plan.root)
        if "data" in self.plan.parts:
            slot = slot.name_source(Factory(self, "data").where)
        model = slot(x=x, cond=cond or CondType(), fields=dict(fields))
        if isinstance(model, nn.Module):
            named = model.named_modules(remove_duplicate=False)
            origins = {name: self._origins[one] for name, one in named if one in self._origins}
            model.composition = Composition(self.plan, x, cond or CondType(), dict(fields), origins)  # type: ignore[assignment]
        return model

    def fail(self, path: str, message: str) -> None:
        """Records a problem, once."""
        problem = Problem(path, message, self.plan.spec.find_position(path))
        if problem not in self.problems:
            self.problems.append(problem)

    def record(self, error: ValueError, path: str) -> None:
        """Records the problems of an error, which belong to a path unless they have their own."""
        for one in error.problems if isinstance(error, SpecError) else (Problem(path, str(error)),):
            self.fail(one.path, one.message)

    def refuse(self, path: str, message: str) -> None:
        """Records a problem with the types of a part, naming the part that they come from."""
        sources = [source for fed, source in self.sources.items() if f"{path}.".startswith(f"{fed}.")]
        self.fail(path, f"{message}; it is fed by {sources[-1]}" if sources else message)

    def check(self) -> None:
        """Raises the problems recorded so far.

        Raises:
            SpecError: If there are any.
        """
        if self.problems:
            raise SpecError(self.problems)

    def convert_argument(self, value: Value, parameter: Parameter, path: str) -> Any:
        """Converts an argument to what the part receives: slots become factories, `~/` the home folder."""

        def convert(item: Value, place: str) -> Any:
            if isinstance(item, Node) and parameter.slot:
                return Factory(self, item.ref or place, place)
            if isinstance(item, Node) and parameter.record:
                return self._make_record(parameter.record.type, item, place)
            return thaw(rebuild(item, lambda _, one: expand_home(one) if isinstance(one, str) else one))

        shape = parameter.slot or parameter.record
        return map_items(value, shape, path, convert) if shape and value is not None else convert(value, path)

    def _make_record(self, record: type[Any], node: Value, path: str) -> Any:
        return record(**self._convert_arguments(node, read_signature(record, (), path), path))

    def _convert_arguments(self, node: Any, declared: Mapping[str, Parameter], path: str) -> dict[str, Any]:
        return {name: self.convert_argument(node[name], declared[name], f"{path}.{name}") for name in node}

    def build(self, path: str, types: Mapping[str, Any], wanted: str | None = None) -> Any:
        """Builds the part at a path, or returns it if it is shared, or wanted at another path, and has been built."""
        place = self.plan.find(path)
        part, given = self.plan.parts[place], self.plan.objects.get(place)
        taken = types if given else types.keys() & list_given_types(part)
        if any(isinstance(types[name], Failed) for name in taken):
            return Failed()
        if wanted not in (None, path) or place in self.plan.refs.values():
            if (before := self.built.get(path)) is not None:
                if dict(before.types) != dict(types):
                    told = f"{format_types(types)} here, {format_types(before.types)} there"
                    self.fail(wanted or path, f"the part at {path} is shared under other types: {told}")
                    return Failed()
                return before.value
        known = len(self.problems)
        try:
            value = self._place(given, part, path, types) if given else self._make(part, path, types)
        except Unfit as error:
            if len(self.problems) == known:
                self.fail(f"{path}.{error.slot}", str(error))
            return Failed()
        except Exception as error:
            if len(self.problems) == known:  # otherwise a part inside it has failed, and this is what came of it
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                taken = types if given else {name: types[name] for name in types if name in list_given_types(part)}
                report = self.refuse if any(isinstance(t, TensorType | tuple) for t in taken.values()) else self.fail
                report(path, f"the {part} cannot be built from {format_types(taken)}: {kind}{error}")
            return Failed()
        failed = isinstance(value, Failed)
        if not failed and (lack := describe_lack(part.kind, value) or describe_unread(part, value, types)):
            self.fail(path, lack)
            return Failed()
        self.built[path] = Built(path, part, value, types)
        return value

    def _require(self, key: str) -> None:
        if key in self.plan.left:
            raise ValueError(f"expected a plan with `{key}`, got one that leaves it out; load_run(needs=…) includes it")

    def _make(self, part: Part, path: str, types: Mapping[str, Any]) -> Any:
        declared = list_given_types(part)
        if types.get("cond") and "cond" not in (*declared, *find_kind(part.kind).optional):
            raise ValueError(f"expected a part that takes conditions, got one without `cond` under {types['cond']}")
        if types.get("heads") and "heads" not in declared:
            raise ValueError(f"expected a part that takes heads, got one without `heads` under {list(types['heads'])}")
        takes = declared & types.keys()
        if missing := [name for name in declared - takes if is_required(part, name)]:
            names = ", ".join(f"`{name}`" for name in missing)
            raise ValueError(f"it expects a slot that provides {names}, got one that does not")
        for name in takes:
            if isinstance(types[name], tuple) and is_tensor_only(part, name):
                raise ValueError(f"it expects one tensor as {name}, got a hierarchy of {len(types[name])} levels")
        place, target = self.plan.find(path), part.load()
        given = {name: types[name] for name in takes}
        arguments = self._convert_arguments(self.plan.get_arguments(place), read_parameters(part), path)
        make = target.assemble if isinstance(target, Composing) else target
        with (
            self._seed(path),
            _use_device("meta" if self.meta and _makes_module(target) else "cpu"),
            limit_modules(),
        ):
            value = make(**given, **arguments)
        check_members(part.kind, value)
        if isinstance(value, nn.Module):
            self._mark(value, path)
            if part.kind == "model" and path != self.plan.root and not self.meta:
                self._compose(value, path, types)
            weights = self.weights and not self.plan.is_in_piece(path)  # which has those of all parts inside it
            if is_piece(node := self.plan.nodes[place]):
                self._load_piece(node, path, value, weights=weights)
            elif weights and not self.meta and (load := read_extras(value, PretrainedExtras).load_pretrained):
                load()
        return value

    def _compose(self, model: nn.Module, path: str, types: Mapping[str, Any]) -> None:
        """Gives a Model its composition, as if it had been composed on its own: another model may be made of it."""
        x, cond, fields = types["x"], types.get("cond") or CondType(), dict(types.get("fields") or {})
        built = {place: built.value for place, built in self.built.items()}
        planned, places = self.plan.narrow(path, built, x, fields)
        origins = {}
        for name, module in model.named_modules(remove_duplicate=False):
            if origin := self._origins.get(module):
                here = move(move(origin.path, places), {path: planned.root})
                origins[name] = locate(planned, here) if planned.find(here) in planned.parts else origin
        model.composition = Composition(planned, x, cond, fields, origins)  # type: ignore[assignment]

    def _place(self, given: Given, part: Part, path: str, types: Mapping[str, Any]) -> Any:
        """Puts a part given as an object into its slot; in a check, a copy of it on the meta device."""
        with self._seed(path):
            value = given(**types)
        if isinstance(given.value, Factory):
            return value
        check_members(part.kind, value)
        composed: Composition | None = getattr(value, "composition", None)
        root = composed.plan.root if composed else ""
        if composed:
            check_types(value, composed, types)
        if self.meta and isinstance(value, nn.Module):
            value = copy_to_meta(value, self._copies)
        if isinstance(value, nn.Module):
            for module, origin in find_origins(value).items() if composed else ():
                here = path + origin.path.removeprefix(root)
                if not any(f"{here}.".startswith(f"{one}.") for one in self.plan.refs):  # else it has another place
                    self._mark(module, here)
            self._mark(value, path)
        return value

    def _seed(self, path: str) -> AbstractContextManager[None]:
        """Seeds the initialisation of the part at a path, if the site has a seed."""
        return self._rng.at(path).seed_torch() if self._rng else nullcontext()

    def _mark(self, module: nn.Module, path: str) -> None:
        """Stores where a module was built: on it, and for the composition."""
        self._origins[module] = module.origin = locate(self.plan, path)  # type: ignore[assignment]

    def _load_piece(self, piece: Node, path: str, module: nn.Module, *, weights: bool) -> None:
        if not piece["train"]:
            module.requires_grad_(False)
            module.frozen = True  # type: ignore[assignment]
        if weights:
            run, at = str(piece["path"]), str(piece["at"])
            read = read_piece(find_run(run, self.plan.spec), at, meta=self.meta)
            load_weights(module, drop_spare(read, self.plan, path), f"{at} in {run}")
        mark_trained(module)  # without weights as well: those of a checkpoint go on from the piece's


class Factory:
    """A slot's factory: builds its part when it is called with types.

    Args:
        site: The building.
        path: Where its part is built.
        wanted: Where it is wanted, if that is elsewhere.
    """

    def __init__(self, site: Site, path: str, wanted: str | None = None) -> None:
        self._site, self._path, self._wanted = site, path, wanted or path
        self._place = site.plan.find(path)
        self._part = site.plan.parts[self._place]

    @property
    def where(self) -> str:
        """Its path, name and position."""
        position = self._site.plan.spec.find_position(self._wanted)
        return f"{self._wanted} ({self._part.name}{f', {position}' if position else ''})"

    @property
    def implies(self) -> Mapping[str, Any]:
        """What its part implies, for an assembly that passes the slot on."""
        return read_extras(self._part.load(), ImpliedExtras).implies

    def __call__(self, **types: Any) -> Any:
        """Builds the part from the types that it declares."""
        return self._site.build(self._path, types, self._wanted)

    def accepts(self, event: Any) -> str | None:
        """Returns why a Model in this slot cannot model `event`, or None if it can."""
        if given := self._site.plan.objects.get(self._place):
            model = given.value
            if lack := describe_lack(self._part.kind, model):
                return lack
            return (
                None if model.event == event else f"{type(model).__name__} was composed for {format_type(model.event)}"
            )
        arguments, declared = self._site.plan.get_arguments(self._place), read_parameters(self._part)
        parameters = {
            name: self._site.convert_argument(value, declared[name], f"{self._path}.{name}")
            if (slot := declared[name].slot) and value and isinstance(value, tuple if slot.container else Node)
            else value
            for name, value in arguments.items()
        }
        return self._part.load().accepts(event, **parameters)  # type: ignore[attr-defined]

    def repeat(self, num: int) -> list[Factory]:
        """Repeats the slot: `num` factories of separate parts, part i at `PATH[i]`."""
        paths = (f"[{index}]" for index in range(num))
        return [Factory(self._site, self._path + index, self._wanted + index) for index in paths]

    def name_source(self, source: str) -> Factory:
        """Names the source of the slot's types, for messages about types that do not fit; returns the slot."""
        self._site.sources[self._wanted] = source
        return self


def _use_device(name: str) -> AbstractContextManager[object]:
    """Makes tensors on a device; where they are made there already, nothing stands in the way of torch's functions."""
    return nullcontext() if torch.get_default_device().type == name else torch.device(name)


def copy_to_meta(module: M, copies: dict[int, Any] | None = None) -> M:
    """Copies a module to the meta device, without copying any values.

    Args:
        module: The module.
        copies: What has been copied before, by identity: a module inside several is one in their copies as well.
    """
    memo = {} if copies is None else copies
    new = [tensor for tensor in (*module.parameters(), *module.buffers()) if id(tensor) not in memo]
    memo |= {id(tensor): tensor.detach().to("meta") for tensor in new}
    memo |= {id(p): nn.Parameter(memo[id(p)], p.requires_grad) for p in new if isinstance(p, nn.Parameter)}
    return copy.deepcopy(module, memo)


def _makes_module(target: Any) -> bool:
    made = target if isinstance(target, type) else inspect.signature(target, eval_str=True).return_annotation
    return isinstance(made, type) and issubclass(made, nn.Module)
