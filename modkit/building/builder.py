"""The builder: makes the objects that a plan calls for.

An assembly receives factories; calling one with types builds the part at its place, with the types that it declares and
the user's keywords, initialised as a function of (seed, path). Parts that are modules may be built on the meta
device, to
be looked at before any weight exists. A part that fails becomes a problem at its place, and what hangs on it is passed
over, so that other branches are still looked at.
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

from modkit.building.call import Argument, Call, Given, Record, Ref, reroot
from modkit.building.plan import Composition, Plan, run_folder
from modkit.errors import Problem, SpecError, join, split
from modkit.kinds import Data, Unfit
from modkit.models.model import Composing
from modkit.parts.signature import is_tensor_only
from modkit.rng import Rng
from modkit.specs.settings import Evaluation, Settings
from modkit.types import CondType, Event, TensorType

__all__ = ["Built", "Factory", "Failed", "Origin", "Site", "copy_to_meta", "piece"]

M = TypeVar("M", bound=nn.Module)

MAX_REGISTRATIONS = 20_000
"""Most modules and parameters of a model; a large published one has a few thousand."""


@dataclass(frozen=True)
class Origin:
    """Where in a spec a module was built; kept on it as `.origin`.

    Args:
        path: Its path in the spec.
        kind: Its kind.
        name: The part's name.
        owner: The path of the part whose slot it fills; empty for the model itself.
    """

    path: str
    kind: str
    name: str
    owner: str


@dataclass(frozen=True)
class Built:
    """A part that was built: the object and the types that it was told."""

    call: Call
    value: Any
    types: Mapping[str, Any]


class Failed:
    """Stands for a part that could not be built; whatever is asked of it has failed too."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Failed()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Failed again."""
        return Failed()

    def __iter__(self) -> Iterator[Failed]:
        return iter((Failed(),))


class Site:
    """One building of a plan.

    Args:
        plan: The plan.
        meta: Whether modules are built on the meta device.
        weights: Whether trained pieces are given their weights.
        seeded: Whether parts are initialised by the plan's seed; otherwise by torch's global generator.
    """

    def __init__(self, plan: Plan, *, meta: bool, weights: bool = True, seeded: bool = True) -> None:
        self.plan, self.meta, self.weights = plan, meta, weights and not meta
        self.problems: list[Problem] = []
        self.built: dict[str, Built] = {}
        self.sources: dict[str, str] = {}
        self._shared = {ref.target for call in plan.calls.values() for ref in _refs(call.arguments)}
        self._rng = Rng(int(plan.settings.arguments["seed"]), "init") if seeded else None  # type: ignore[arg-type]
        self._begun: set[str] = set()

    def data(self) -> Data | None:
        """The data set, or None where the spec has none."""
        return Factory(self, self.plan.data)() if self.plan.data else None

    def settings(self) -> Settings:
        """How the model is trained."""
        return self._record(self.plan.settings)  # type: ignore[no-any-return]

    def evaluation(self) -> Evaluation | None:
        """How the model is measured, or None where the spec does not say."""
        return self._record(self.plan.evaluation) if self.plan.evaluation else None

    def model(self, x: Event, fields: Mapping[str, TensorType], cond: CondType | None = None) -> Any:
        """The model of `x`, or a `Failed`."""
        slot = Factory(self, self.plan.model)
        if self.plan.data:
            slot = slot.fed(Factory(self, self.plan.data).where)
        model = slot(x=x, cond=cond or CondType(), fields=dict(fields))
        if isinstance(model, nn.Module):
            model.composition = Composition(self.plan, x, cond or CondType(), dict(fields))  # type: ignore[assignment]
        return model

    def fail(self, path: str, message: str) -> None:
        """Adds a problem, once."""
        problem = Problem(path, message, self.plan.spec.find_position(path))
        if problem not in self.problems:
            self.problems.append(problem)

    def refuse(self, path: str, message: str) -> None:
        """Adds a problem with types, naming where they come from."""
        sources = [source for fed, source in self.sources.items() if f"{path}.".startswith(f"{fed}.")]
        self.fail(path, f"{message}; it is fed by {sources[-1]}" if sources else message)

    def check(self) -> None:
        """Raises what went wrong.

        Raises:
            SpecError: If anything did.
        """
        if self.problems:
            raise SpecError(self.problems)

    def argument(self, value: Argument) -> Any:
        """What a part is given for an argument of its call."""
        if isinstance(value, Call):
            return Factory(self, value)
        if isinstance(value, Ref):
            return Factory(self, self.plan.calls[value.target], value.path)
        if isinstance(value, Record):
            return self._record(value)
        if isinstance(value, list | tuple):
            return [self.argument(item) for item in value]
        if isinstance(value, Mapping):
            return {key: self.argument(item) for key, item in value.items()}
        return value

    def call(self, call: Call, types: Mapping[str, Any], path: str) -> Any:
        """Builds a part, or finds it if it is shared and built already."""
        if any(isinstance(value, Failed) for value in types.values()):
            return Failed()
        if path != call.path or call.path in self._shared:
            if (before := self.built.get(call.path)) is not None:
                if dict(before.types) != dict(types):
                    told = f"{_told(types)} here, {_told(before.types)} there"
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
                report = self.refuse if any(isinstance(t, TensorType | tuple) for t in types.values()) else self.fail
                report(call.path, f"the {call.part} cannot be built from {_told(types)}: {kind}{error}")
            return Failed()
        self.built[call.path] = Built(call, value, types)
        return value

    def _make(self, call: Call, types: Mapping[str, Any]) -> Any:
        if types.get("cond") and "cond" not in call.takes:
            raise ValueError(f"expected a part that takes conditions, got one without `cond` under {types['cond']}")
        if missing := [name for name in call.takes if name not in types]:
            names = ", ".join(f"`{name}`" for name in missing)
            raise ValueError(f"it requires {names}, which this slot does not provide")
        for name in call.takes:
            if isinstance(types[name], tuple) and is_tensor_only(call.part, name):
                raise ValueError(f"it expects one tensor as {name}, got a hierarchy of {len(types[name])} levels")
        target = call.part.load()
        given = {name: types[name] for name in call.takes}
        arguments = {name: self.argument(value) for name, value in call.arguments.items()}
        make = target.assemble if isinstance(target, Composing) else target
        device = torch.device("meta" if self.meta and _makes_module(target) else "cpu")
        self._begun.add(call.path)
        with self._seed(call.path), device, _Modules():
            value = make(**given, **arguments)
        if isinstance(value, nn.Module):
            self._mark(call, value)
            if call.trained:
                self._take_over(call, value)
            elif self.weights and (load := getattr(value, "load_pretrained", None)):
                load()
        return value

    def _place(self, call: Call, given: Given, types: Mapping[str, Any]) -> Any:
        """A part that Python gave, in its slot; where the model is checked, a copy of it on the meta device."""
        with self._seed(call.path):
            value = given(**types)
        if isinstance(given.value, Factory):
            return value
        composed: Composition | None = getattr(value, "composition", None)
        for name in ("x", "cond") if composed else ():
            if (before := getattr(composed, name)) != types[name]:
                raise ValueError(f"it was composed for {name} {_shown(before) or 'none'}")
        if self.meta and isinstance(value, nn.Module):
            value = copy_to_meta(value)
        if isinstance(value, nn.Module):
            if composed:
                _reroot_origins(value, call.path)
            self._mark(call, value)
        return value

    def _seed(self, path: str) -> AbstractContextManager[None]:
        """Initialises the part at a path as a function of the seed, where there is one."""
        return self._rng.at(path).seed_torch() if self._rng else nullcontext()

    def _mark(self, call: Call, module: nn.Module) -> None:
        """Keeps on a module where it was built."""
        parts = split(call.path)
        while isinstance(parts[-1], int):  # an item of a slot, or one of a slot's `each`
            parts = parts[:-1]
        owners = (join(parts[:stop]) for stop in range(len(parts) - 1, 0, -1))
        owner = next((path for path in owners if path in self._begun or path in self.plan.calls), "")
        module.origin = Origin(call.path, call.part.kind, call.part.name, owner)  # type: ignore[assignment]

    def _take_over(self, call: Call, module: nn.Module) -> None:
        if call.trained is None:
            return
        if not call.trained.train:
            module.requires_grad_(False)
            module.frozen = True  # type: ignore[assignment]
        if self.weights:
            folder = run_folder(call.trained.path, self.plan.spec)
            module.load_state_dict(piece(folder, call.trained.at))

    def _record(self, record: Record) -> Any:
        return record.type(**{name: self.argument(value) for name, value in record.arguments.items()})


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

    def __call__(self, **types: Any) -> Any:
        """Builds the part from the types that it declares."""
        return self._site.call(self._call, types, self._path)

    def accepts(self, event: Any) -> str | None:
        """Of a Model: why it cannot model `event`, or None."""
        slots = {
            name: self._site.argument(value)
            for name, value in self._call.arguments.items()
            if isinstance(value, Call | Ref) or (isinstance(value, list) and value and isinstance(value[0], Call | Ref))
        }
        if self._call.given:
            model = self._call.given.value
            return None if model.event == event else f"{type(model).__name__} was composed for {_shown(model.event)}"
        reason: str | None = self._call.part.load().accepts(event, **slots)  # type: ignore[attr-defined]
        return reason

    def each(self, num: int) -> list[Factory]:
        """This slot `num` times: part i is one of its own, at `PATH[i]`."""
        paths = [f"{self._path}[{index}]" for index in range(num)]
        return [Factory(self._site, reroot(self._call, self._path, path, refs=False)) for path in paths]

    def fed(self, source: str) -> Factory:
        """This slot, telling where its types come from when it or a part in it cannot take them."""
        self._site.sources[self._path] = source
        return self


class _Modules:
    """Bounds the number of modules and parameters that one part may make."""

    def __enter__(self) -> None:
        self._count = 0
        self._handles = (
            nn.modules.module.register_module_module_registration_hook(self._counted),
            nn.modules.module.register_module_parameter_registration_hook(self._counted),
        )

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _counted(self, *_: object) -> None:
        self._count += 1
        if self._count > MAX_REGISTRATIONS:
            raise ValueError(f"expected at most {MAX_REGISTRATIONS} modules and parameters in one part, got more")


def piece(folder: Any, at: str) -> dict[str, torch.Tensor]:
    """The weights of one piece of a run, by the names that they have in it."""
    from modkit.building.migration import load_current
    from modkit.runs.run import Run

    prefix = at.partition(".")[2]
    every = load_current(Run.open(folder)).weights
    return {
        name[len(prefix) + 1 :] if prefix else name: value
        for name, value in every.items()
        if not prefix or name.startswith(f"{prefix}.")
    }


def _reroot_origins(model: Any, path: str) -> None:
    """Has the modules of a model that was composed before say where they are now."""
    root = model.origin.path
    for module in model.modules():
        if (origin := getattr(module, "origin", None)) is not None:
            new = (path + old.removeprefix(root) for old in (origin.path, origin.owner))
            module.origin = replace(origin, path=next(new), owner=next(new))


def copy_to_meta(module: M) -> M:
    """A copy without values, made without copying any."""
    tensors = [*module.parameters(), *module.buffers()]
    memo: dict[int, Any] = {id(tensor): tensor.detach().to("meta") for tensor in tensors}
    memo |= {id(p): nn.Parameter(memo[id(p)], p.requires_grad) for p in module.parameters()}
    return copy.deepcopy(module, memo)


def _makes_module(target: Any) -> bool:
    made = target if isinstance(target, type) else inspect.signature(target, eval_str=True).return_annotation
    return isinstance(made, type) and issubclass(made, nn.Module)


def _refs(value: Any) -> list[Ref]:
    if isinstance(value, Ref):
        return [value]
    if isinstance(value, Call | Record):
        return _refs(value.arguments)
    if isinstance(value, Mapping):
        return [ref for item in value.values() for ref in _refs(item)]
    return [ref for item in value for ref in _refs(item)] if isinstance(value, list | tuple) else []


def _told(types: Mapping[str, Any]) -> str:
    shown = {name: text for name, value in types.items() if (text := _shown(value))}
    return ", ".join(f"{name} {text}" for name, text in shown.items()) or "nothing"


def _shown(value: Any) -> str:
    """A type, or the class of a part, in words; empty where there is nothing to say."""
    if isinstance(value, tuple):
        return f"({', '.join(map(str, value))})"
    if isinstance(value, CondType):
        return f"({value})" if value else ""
    if isinstance(value, Mapping):
        return f"({', '.join(f'{name} {_shown(item)}' for name, item in value.items())})" if value else ""
    return str(value) if isinstance(value, TensorType | str | int | float) else type(value).__name__
