"""The builder: makes the objects that a plan calls for.

An assembly receives factories; calling one with types builds the part at its place, with the types that it declares and
the user's keywords, initialised as a function of (seed, path). Parts that are modules may be built on the meta
device, to
be looked at before any weight exists. A part that fails becomes a problem at its place, and what hangs on it is passed
over, so that other branches are still looked at.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from modkit.building.call import Argument, Call, Record, Ref
from modkit.building.plan import Plan, run_folder
from modkit.errors import Problem, SpecError, join, nearest
from modkit.kinds import Data, Unfit
from modkit.parts.signature import takes_one
from modkit.parts.validation import misfit
from modkit.rng import Rng
from modkit.specs.node import Node, described
from modkit.specs.settings import Evaluation, Settings
from modkit.specs.spec import Spec
from modkit.types import CondType, TensorType

__all__ = ["GIVEN", "Built", "Factory", "Failed", "Origin", "Site", "piece"]

MAX_REGISTRATIONS = 20_000
"""Most modules and parameters of a model; a large published one has a few thousand."""
MAX_RANK = 8
"""Most sizes of the type that a spec says in `x`."""

GIVEN = {"shape": list[int], "range": tuple[float, float] | None, "classes": int | None}
"""The keys of `x`, with what each holds."""


@dataclass(frozen=True)
class Origin:
    """Where in a spec a module was built; kept on it as `.origin`.

    Args:
        path: Its path in the spec.
        kind: Its kind.
        name: The part's name.
        attribute: The path of the attribute that keeps it in the whole model.
    """

    path: str
    kind: str
    name: str
    attribute: str


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
    """

    def __init__(self, plan: Plan, *, meta: bool, weights: bool = True) -> None:
        self.plan, self.meta, self.weights = plan, meta, weights and not meta
        self.problems: list[Problem] = []
        self.built: dict[str, Built] = {}
        self.sources: dict[str, str] = {}
        self._shared = {ref.target for call in plan.calls.values() for ref in _refs(call.arguments)}
        self._rng = Rng(int(plan.settings.arguments["seed"]), "init")  # type: ignore[arg-type]

    def data(self) -> Data | None:
        """The data set, or None where the spec has none."""
        return Factory(self, self.plan.data)() if self.plan.data else None

    def settings(self) -> Settings:
        """How the model is trained."""
        return self._record(self.plan.settings)  # type: ignore[no-any-return]

    def evaluation(self) -> Evaluation | None:
        """How the model is measured, or None where the spec does not say."""
        return self._record(self.plan.evaluation) if self.plan.evaluation else None

    def model(self, x: TensorType, fields: Mapping[str, TensorType]) -> Any:
        """The model of `x`, or a `Failed`."""
        slot = Factory(self, self.plan.model)
        if self.plan.data:
            slot = slot.fed(Factory(self, self.plan.data).where)
        return slot(x=x, cond=CondType(), fields=dict(fields))

    def fail(self, path: str, message: str) -> None:
        """Adds a problem, once."""
        problem = Problem(path, message, self.plan.spec.position(path))
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
            value = self._make(call, types)
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
            raise ValueError(f"it declares {', '.join(missing)}, which nobody tells it here")
        for name in call.takes:
            if isinstance(types[name], tuple) and takes_one(call.part, name):
                raise ValueError(f"it expects one tensor as {name}, got a hierarchy of {len(types[name])} levels")
        target = call.part.load()
        given = {name: types[name] for name in call.takes}
        arguments = {name: self.argument(value) for name, value in call.arguments.items()}
        device = torch.device("meta" if self.meta and _makes_module(target) else "cpu")
        with self._rng.at(call.path).scope(), device, _Modules():
            value = target(**given, **arguments)
        if isinstance(value, nn.Module):
            value.origin = Origin(call.path, call.part.kind, call.part.name, call.path.partition(".")[2])  # type: ignore[assignment]
            if call.trained:
                self._take_over(call, value)
            elif self.weights and (load := getattr(value, "load_pretrained", None)):
                load()
        return value

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
        position = self._site.plan.spec.position(self._path)
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
        reason: str | None = self._call.part.load().accepts(event, **slots)  # type: ignore[attr-defined]
        return reason

    def each(self, num: int) -> list[Factory]:
        """This slot `num` times: part i is one of its own, at `PATH[i]`."""
        return [Factory(self._site, _moved(self._call, self._path, f"{self._path}[{i}]")) for i in range(num)]

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


def given_type(spec: Spec) -> TensorType:
    """The type that a spec without data says in `x`.

    Raises:
        SpecError: If it is none.
    """
    return _given(spec, spec.x or Node({}), "x", {**GIVEN, "fields": dict[str, Any]})


def given_fields(spec: Spec) -> dict[str, TensorType]:
    """The types of the fields beside a sample that a spec without data says in `x.fields`.

    Raises:
        SpecError: If one is none.
    """
    every: Any = (spec.x or Node({})).get("fields") or {}
    types = {}
    for name, node in every.items():
        path = join(("x", "fields", name))
        if not isinstance(node, Node):
            message = f"got {described(node)}, expected a mapping of {', '.join(GIVEN)}"
            raise SpecError(Problem(path, message, spec.position(path)))
        types[name] = _given(spec, node, path, GIVEN)
    return types


def _given(spec: Spec, node: Node, path: str, keys: Mapping[str, Any]) -> TensorType:
    for key, value in node.items():
        place = f"{path}.{join((key,))}"
        if key not in keys:
            message = f"got an unknown key, expected {', '.join(keys)}"
            raise SpecError(Problem(place, message, spec.position(place, key=True), nearest(key, keys)))
        if reason := misfit(value, keys[key]):
            raise SpecError(Problem(place, reason, spec.position(place)))
    shape: Any = node.get("shape")
    position = spec.position(path)
    if shape is None or len(shape) > MAX_RANK:
        raise SpecError(Problem(path, f"expected a shape of at most {MAX_RANK} sizes, and range or classes", position))
    try:
        return TensorType(shape, node.get("range"), node.get("classes"))  # type: ignore[arg-type]
    except ValueError as error:
        raise SpecError(Problem(path, str(error), position)) from None


def piece(folder: Any, at: str) -> dict[str, torch.Tensor]:
    """The weights of one piece of a run, by the names that they have in it."""
    from modkit.building.migration import current
    from modkit.runs.run import Run

    prefix = at.partition(".")[2]
    every = current(Run.open(folder)).weights
    return {
        name[len(prefix) + 1 :] if prefix else name: value
        for name, value in every.items()
        if not prefix or name.startswith(f"{prefix}.")
    }


def _moved(value: Any, old: str, new: str) -> Any:
    """A call, or what an argument holds, as it would be at another path; what it refers to stays where it is."""
    if isinstance(value, Call):
        arguments = {name: _moved(argument, old, new) for name, argument in value.arguments.items()}
        return replace(value, path=new + value.path.removeprefix(old), arguments=arguments)
    if isinstance(value, Ref):
        return replace(value, path=new + value.path.removeprefix(old))
    if isinstance(value, Mapping) and not isinstance(value, Node):
        return {key: _moved(item, old, new) for key, item in value.items()}
    return [_moved(item, old, new) for item in value] if isinstance(value, list) else value


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
