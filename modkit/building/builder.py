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
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn

from modkit.building.call import Argument, Call, Given, Record, Ref, Trained, extract, move, reroot
from modkit.building.composition import Composition, Origin
from modkit.building.exchange import drop_spare
from modkit.building.limit import limit_modules
from modkit.building.members import check_members, describe_lack
from modkit.building.pieces import find_run, read_piece
from modkit.building.plan import Plan
from modkit.building.weights import load_weights
from modkit.errors import Problem, SpecError, join, split
from modkit.kinds import KINDS, Data, ImpliedExtras, PretrainedExtras, Unfit, read_extras
from modkit.models.composing import Composing
from modkit.nn.trained import mark_trained
from modkit.parts.signature import is_required, is_tensor_only
from modkit.rng import Rng
from modkit.runs.files import expand_home
from modkit.specs.settings import Evaluation, Settings
from modkit.training.ownership import find_origins
from modkit.types import CondType, Event, TensorType, split_levels

__all__ = ["Built", "Factory", "Failed", "Site", "copy_to_meta"]

_ROOT = "model"  # path of a model in a spec
_SHOWN = 6  # entries of a mapping in a message, at most

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Built:
    """A part that has been built, and the types that it was built from."""

    call: Call
    value: Any
    types: Mapping[str, Any]


class Failed:
    """Stands in for a part that could not be built. All its attributes and results are `Failed` as well."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Failed()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns `Failed`."""
        return Failed()

    def __iter__(self) -> Iterator[Failed]:
        return iter((Failed(),))


class Site:
    """Builds the parts of one plan.

    Args:
        plan: The plan.
        meta: Whether modules are built on the meta device.
        weights: Whether pieces of other runs receive their weights; on the meta device, whether these would fit.
        seeded: Whether the plan's seed initialises parts; otherwise torch's global generator does.
    """

    def __init__(self, plan: Plan, *, meta: bool, weights: bool = True, seeded: bool = True) -> None:
        self.plan, self.meta, self.weights = plan, meta, weights
        self.problems: list[Problem] = []
        self.built: dict[str, Built] = {}
        self.sources: dict[str, str] = {}
        refs = [ref for call in plan.calls.values() for ref in _find_refs(call.arguments)]
        self._shared, self._borrowed = {ref.target for ref in refs}, {ref.path for ref in refs}
        self._copies: dict[int, Any] = {}
        self._rng = Rng(int(plan.settings.arguments["seed"]), "init") if seeded else None  # type: ignore[arg-type]
        self._begun: set[str] = set()
        self._origins: dict[nn.Module, Origin] = {}

    def make_data(self) -> Data | None:
        """Makes the data set, or returns None if the spec has none."""
        self._require("data")
        return Factory(self, self.plan.data)() if self.plan.data else None

    def make_settings(self) -> Settings:
        """Makes the settings of training."""
        self._require("train")
        return self._record(self.plan.settings)  # type: ignore[no-any-return]

    def make_evaluation(self) -> Evaluation | None:
        """Makes the settings of evaluation, or returns None if the spec has none."""
        self._require("evaluate")
        return self._record(self.plan.evaluation) if self.plan.evaluation else None

    def build_model(self, x: Event, fields: Mapping[str, TensorType], cond: CondType | None = None) -> Any:
        """Builds the model of samples of type `x`; returns `Failed` after a problem."""
        slot = Factory(self, self.plan.model)
        if self.plan.data:
            slot = slot.name_source(Factory(self, self.plan.data).where)
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

    def convert_argument(self, value: Argument) -> Any:
        """Converts an argument of a call to what the part receives: slots become factories, `~/` the home folder."""
        if isinstance(value, Call):
            return Factory(self, value)
        if isinstance(value, Ref):
            return Factory(self, self.plan.calls[value.target], value.path)
        if isinstance(value, Record):
            return self._record(value)
        if isinstance(value, list | tuple):
            return [self.convert_argument(item) for item in value]
        if isinstance(value, Mapping):
            return {key: self.convert_argument(item) for key, item in value.items()}
        return expand_home(value) if isinstance(value, str) else value

    def build(self, call: Call, types: Mapping[str, Any], path: str) -> Any:
        """Builds a part, or returns it if it is shared and has been built already."""
        if any(isinstance(value, Failed) for value in types.values()):
            return Failed()
        if path != call.path or call.path in self._shared:
            if (before := self.built.get(call.path)) is not None:
                if dict(before.types) != dict(types):
                    told = f"{_format_types(types)} here, {_format_types(before.types)} there"
                    self.fail(path, f"the part at {call.path} is shared under other types: {told}")
                    return Failed()
                return before.value
        known = len(self.problems)
        try:
            value = self._place(call, call.given, types) if call.given else self._make(call, types)
        except Unfit as error:
            if len(self.problems) == known:
                self.fail(f"{call.path}.{error.slot}", str(error))
            return Failed()
        except Exception as error:
            if len(self.problems) == known:  # otherwise a part inside it has failed, and this is what came of it
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                taken = {name: one for name, one in types.items() if name in call.takes or call.given}
                report = self.refuse if any(isinstance(t, TensorType | tuple) for t in taken.values()) else self.fail
                report(call.path, f"the {call.part} cannot be built from {_format_types(taken)}: {kind}{error}")
            return Failed()
        if not isinstance(value, Failed) and (lack := describe_lack(call.part.kind, value)):
            self.fail(call.path, lack)
            return Failed()
        self.built[call.path] = Built(call, value, types)
        return value

    def _require(self, key: str) -> None:
        if key in self.plan.left:
            raise ValueError(f"expected a plan with `{key}`, got one that leaves it out; load_run(needs=…) includes it")

    def _make(self, call: Call, types: Mapping[str, Any]) -> Any:
        if types.get("cond") and "cond" not in (*call.takes, *KINDS[call.part.kind].optional):
            raise ValueError(f"expected a part that takes conditions, got one without `cond` under {types['cond']}")
        if types.get("heads") and "heads" not in call.takes:
            raise ValueError(f"expected a part that takes heads, got one without `heads` under {list(types['heads'])}")
        takes = call.takes & types.keys()
        if missing := [name for name in call.takes - takes if is_required(call.part, name)]:
            names = ", ".join(f"`{name}`" for name in missing)
            raise ValueError(f"it requires {names}, which this slot does not provide")
        for name in takes:
            if isinstance(types[name], tuple) and is_tensor_only(call.part, name):
                raise ValueError(f"it expects one tensor as {name}, got a hierarchy of {len(types[name])} levels")
        target = call.part.load()
        given = {name: types[name] for name in takes}
        arguments = {name: self.convert_argument(value) for name, value in call.arguments.items()}
        make = target.assemble if isinstance(target, Composing) else target
        self._begun.add(call.path)
        with (
            self._seed(call.path),
            _use_device("meta" if self.meta and _makes_module(target) else "cpu"),
            limit_modules(),
        ):
            value = make(**given, **arguments)
        check_members(call.part.kind, value)
        if isinstance(value, nn.Module):
            self._mark(value, self._locate(call))
            if call.part.kind == "model" and call.path != self.plan.model.path and not self.meta:
                self._compose(value, call, types)
            weights = self.weights and not self.plan.is_in_piece(call)  # which has those of all parts inside it
            if call.trained:
                self._load_piece(call, call.trained, value, weights=weights)
            elif weights and not self.meta and (load := read_extras(value, PretrainedExtras).load_pretrained):
                load()
        return value

    def _compose(self, model: nn.Module, call: Call, types: Mapping[str, Any]) -> None:
        """Gives a Model its composition, as if it had been composed on its own: another model may be made of it."""
        inner, places = extract(call, self.plan.calls, {path: built.value for path, built in self.built.items()})
        x, cond, fields = types["x"], types.get("cond") or CondType(), dict(types.get("fields") or {})
        planned = self.plan.narrow(reroot(inner, call.path, _ROOT), x, fields)
        owners = {place: self._locate(replace(call, path=place)).owner for place in places.values()} | {call.path: ""}
        origins = {}
        for name, module in model.named_modules(remove_duplicate=False):
            if origin := self._origins.get(module):
                path = move(origin.path, places)
                owner = owners.get(path, move(origin.owner, places))
                path, owner = (move(one, {call.path: _ROOT}) for one in (path, owner))
                origins[name] = replace(origin, path=path, owner=owner)
        model.composition = Composition(planned, x, cond, fields, origins)  # type: ignore[assignment]

    def _place(self, call: Call, given: Given, types: Mapping[str, Any]) -> Any:
        """Puts a part given as an object into its slot; in a check, a copy of it on the meta device."""
        with self._seed(call.path):
            value = given(**types)
        if isinstance(given.value, Factory):
            return value
        check_members(call.part.kind, value)
        composed: Composition | None = getattr(value, "composition", None)
        if composed:
            _check_composed(value, composed, types)
        if self.meta and isinstance(value, nn.Module):
            value = copy_to_meta(value, self._copies)
        if isinstance(value, nn.Module):
            root = composed.plan.model.path if composed else ""
            for module, origin in find_origins(value).items() if composed else ():
                path, owner = (call.path + path.removeprefix(root) for path in (origin.path, origin.owner))
                if not any(f"{path}.".startswith(f"{one}.") for one in self._borrowed):  # else it has another place
                    self._mark(module, replace(origin, path=path, owner=owner))
            self._mark(value, self._locate(call))
        return value

    def _seed(self, path: str) -> AbstractContextManager[None]:
        """Seeds the initialisation of the part at a path, if the site has a seed."""
        return self._rng.at(path).seed_torch() if self._rng else nullcontext()

    def _mark(self, module: nn.Module, origin: Origin) -> None:
        """Stores where a module was built: on it, and for the composition."""
        self._origins[module] = module.origin = origin  # type: ignore[assignment]

    def _locate(self, call: Call) -> Origin:
        """Returns the place that a part is built at."""
        parts = split(call.path)
        while isinstance(parts[-1], int):  # an item of a slot, or one of a slot's `each`
            parts = parts[:-1]
        owners = (join(parts[:stop]) for stop in range(len(parts) - 1, 0, -1))
        owner = next((path for path in owners if path in self._begun or path in self.plan.calls), "")
        return Origin(call.path, call.part.kind, call.part.name, owner)

    def _load_piece(self, call: Call, piece: Trained, module: nn.Module, *, weights: bool) -> None:
        if not piece.train:
            module.requires_grad_(False)
            module.frozen = True  # type: ignore[assignment]
        if weights:
            read = read_piece(find_run(piece.path, self.plan.spec), piece.at, meta=self.meta)
            load_weights(module, drop_spare(read, self.plan, call.path), f"{piece.at} in {piece.path}")
        mark_trained(module)  # without weights as well: those of a checkpoint go on from the piece's

    def _record(self, record: Record) -> Any:
        return record.type(**{name: self.convert_argument(value) for name, value in record.arguments.items()})


class Factory:
    """A slot's factory: builds its part when it is called with types.

    Args:
        site: The building.
        call: The part and its arguments.
        path: Where it is wanted, if that is not where it is built.
    """

    def __init__(self, site: Site, call: Call, path: str | None = None) -> None:
        self._site, self._call, self._path = site, call, path or call.path

    @property
    def where(self) -> str:
        """Its path, name and position."""
        position = self._site.plan.spec.find_position(self._path)
        return f"{self._path} ({self._call.part.name}{f', {position}' if position else ''})"

    @property
    def implies(self) -> Mapping[str, Any]:
        """What its part implies, for an assembly that passes the slot on."""
        return read_extras(self._call.part.load(), ImpliedExtras).implies

    def __call__(self, **types: Any) -> Any:
        """Builds the part from the types that it declares."""
        return self._site.build(self._call, types, self._path)

    def accepts(self, event: Any) -> str | None:
        """Returns why a Model in this slot cannot model `event`, or None if it can."""
        slots = {
            name: self._site.convert_argument(value)
            for name, value in self._call.arguments.items()
            if isinstance(value, Call | Ref) or (isinstance(value, list) and value and isinstance(value[0], Call | Ref))
        }
        if self._call.given:
            model = self._call.given.value
            if lack := describe_lack(self._call.part.kind, model):
                return lack
            return (
                None if model.event == event else f"{type(model).__name__} was composed for {_format_type(model.event)}"
            )
        return self._call.part.load().accepts(event, **slots)  # type: ignore[attr-defined, no-any-return]

    def repeat(self, num: int) -> list[Factory]:
        """Repeats the slot: `num` factories of separate parts, part i at `PATH[i]`."""
        paths = [f"{self._path}[{index}]" for index in range(num)]
        return [Factory(self._site, reroot(self._call, self._path, path, refs=False)) for path in paths]

    def name_source(self, source: str) -> Factory:
        """Names the source of the slot's types, for messages about types that do not fit; returns the slot."""
        self._site.sources[self._path] = source
        return self


def _check_composed(model: Any, composed: Composition, types: Mapping[str, Any]) -> None:
    """Checks that a composed model was composed for the types of the slot that it is put into."""
    fields, read = types.get("fields") or {}, (*model.reads, *model.inputs)
    pairs: dict[str, tuple[Any, Any]] = {"x": (composed.x, types["x"]), "cond": (composed.cond, types["cond"])}
    pairs |= {f"the field {name} as": (composed.fields.get(name), fields.get(name)) for name in read}
    for name, (before, now) in pairs.items():
        if before != now:
            raise ValueError(f"it was composed for {name} {_format_type(before) or 'none'}")
    if _has_noise_levels(composed.plan):
        stds = [[level.std for level in split_levels(x)] for x in (composed.x, types["x"])]
        if stds[0] != stds[1]:
            raise ValueError(
                f"expected a model composed for x with std={stds[1][0]}, which scales its noise levels, got one with "
                f"std={stds[0][0]}: compose it for replace(x, std={stds[1][0]})"
            )


def _has_noise_levels(plan: Plan) -> bool:
    return any(call.part.kind == "schedule" for call in plan.calls.values())


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


def _find_refs(value: Any) -> list[Ref]:
    if isinstance(value, Ref):
        return [value]
    if isinstance(value, Call | Record):
        return _find_refs(value.arguments)
    if isinstance(value, Mapping):
        return [ref for item in value.values() for ref in _find_refs(item)]
    return [ref for item in value for ref in _find_refs(item)] if isinstance(value, list | tuple) else []


def _format_types(types: Mapping[str, Any]) -> str:
    shown = {name: text for name, value in types.items() if (text := _format_type(value))}
    return ", ".join(f"{name} {text}" for name, text in shown.items()) or "nothing"


def _format_type(value: Any) -> str:
    """A type, or the class of a part, in words; empty where there is nothing to say."""
    if isinstance(value, tuple):
        return f"({', '.join(map(str, value))})"
    if isinstance(value, CondType):
        return f"({value})" if value else ""
    if isinstance(value, Mapping):
        items = [f"{name} {_format_type(item)}" for name, item in value.items()]
        shown = items if len(items) <= _SHOWN else [*items[: _SHOWN - 2], "…", items[-1]]
        return f"({', '.join(shown)})" if items else ""
    return str(value) if isinstance(value, TensorType | str | int | float) else type(value).__name__
