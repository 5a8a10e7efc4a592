"""Composition from Python objects: calling a Model's class with types composes the parts in its slots.

    with modkit.seeded(0):
        model = Latent(data.x, autoencoder=Autoencoder, prior=partial(Diffusion, network="mlp"))

A slot takes a class or function, a `functools.partial` of one, a registered name, what a spec would hold there
(`use(…)`, or a number for a weight), or a built part: a module of one's own, or a model composed before. The arguments
become the tree of a spec, so objects and specs share one planner, one check on meta tensors and one builder.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from modkit.building.builder import Factory, Site
from modkit.building.composition import Composition
from modkit.building.exchange import exchange_weights
from modkit.building.local import Given
from modkit.building.mentions import find_unknown_weights
from modkit.building.plan import Plan, plan
from modkit.building.planner import map_items
from modkit.building.review import list_findings, show_warnings
from modkit.building.trial import try_model
from modkit.errors import Problem, SpecError, join_names, split
from modkit.kinds import KINDS, DataExtras, read_extras
from modkit.models.model import Model
from modkit.part import Local
from modkit.parts.registry import find_kind
from modkit.parts.signature import Parameter, read_parameters, read_signature
from modkit.specs.event import write_types
from modkit.specs.node import Node, describe, freeze, name_part, walk
from modkit.specs.places import keep_outermost
from modkit.specs.spec import Spec
from modkit.specs.yaml import Source
from modkit.types import CondType, NonNegativeInt, TensorType, checked

__all__ = [
    *("compose", "get_composition", "convert_data", "convert_part", "seeded", "spec_of", "convert_settings"),
    "swap_parts",
]

_seed: ContextVar[int | None] = ContextVar("modkit_seed", default=None)
_logger = logging.getLogger(__name__)
_SHOWN = 3  # names of parameters in a warning, at most
_GIVEN = KINDS["model"].given


@contextmanager
@checked
def seeded(seed: NonNegativeInt) -> Iterator[None]:
    """Initialises models composed inside the context as a function of the seed and the path of each slot.

    Equal compositions then have equal weights, whether they are written as objects or as a spec with this `train.seed`.
    Outside the context, torch's global generator initialises models, as it does any module.

    Args:
        seed: The seed, at least 0.

    Examples:
        >>> import modkit
        >>> from modkit.models import Autoencoder
        >>> with modkit.seeded(0):
        ...     model = Autoencoder(modkit.TensorType((1, 8, 8), (-1, 1)), encoder="mlp", decoder="mlp")
        >>> len(modkit.spec_of(model).model["encoder"])
        5

    Raises:
        ValueError: If the seed is negative.
    """
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


def compose(cls: type[Model], *types: Any, **arguments: Any) -> Model:
    """Composes a model: checks it on meta tensors, then builds it.

    Args:
        cls: The class of the model.
        *types: `x`, `cond` and `fields`, as far as the class declares them, in this order.
        **arguments: The keywords of the class; types may be given by name as well.

    Raises:
        SpecError: If an argument does not fit. The message names the slot, what was expected and what was received.
    """
    if "x" not in inspect.signature(cls).parameters:  # built from no types, so there is nothing to compose
        return cls.assemble(*types, **arguments)
    given, rest = _split_types(cls, types, arguments)
    x, cond, fields = given["x"], given.get("cond") or CondType(), dict(given.get("fields") or {})
    model = Node({"use": name_part(cls), **_convert_keywords(rest, read_parameters(Local.wrap("model", cls)), "model")})
    seed = _seed.get()
    train = None if seed is None else Node({"seed": seed})
    written = Node(write_types(x, fields)) if isinstance(x, TensorType) else None
    planned = plan(Spec(model=model, train=train, x=written), typed=True)
    with torch.random.fork_rng(devices=[]):
        check = Site(planned, meta=True)
        trial = try_model(check, x, fields, cond)
        check.check()
        if trial.complete and (unknown := [*find_unknown_weights(check, trial.model, trial.terms)]):
            raise SpecError(unknown)
    site = Site(planned, meta=False, seeded=seed is not None)
    composed: Model = site.build_model(x, fields, cond)
    site.check()
    return composed


def swap_parts(model: Model, parts: Mapping[str, Any]) -> Model:
    """Returns a model with other parts in slots that only sampling uses; see `Model.with_parts`.

    Args:
        model: The model, which stays as it is.
        parts: The parts, by the names of their slots or by their paths.

    Raises:
        SpecError: If a part does not fit.
        ValueError: If there is no such slot, or several, or training depends on it.
    """
    composed = get_composition(model)
    slots = [_find_slot(composed.plan, name) for name in parts]
    paths = [path for path, _ in slots]
    written = composed.plan.spec
    spec = before = replace(written, model=composed.plan.write_model(paths), source=Source())
    for (path, kind), value in zip(slots, parts.values()):
        spec = spec.with_value(path, convert_part(value, kind, path))
    site = Site(plan(spec, typed=True, leave=composed.plan.left), meta=False, weights=False)
    made: Model = site.build_model(composed.x, composed.fields, composed.cond)
    site.check()
    weights = exchange_weights(model.state_dict(keep_vars=True), made, before, site.plan)
    flags = [(one, one.requires_grad) for one in weights.values()]
    made.load_state_dict(weights, assign=True)  # it sets the flags of the shared parameters to those of a new model
    for tensor, flag in flags:
        tensor.requires_grad_(flag)
    swapped = tuple(f"{name}." for path in paths for name in get_composition(made).find_names(path))
    modules = dict(made.to(model.device).train(model.training).named_modules())
    for name, module in model.named_modules():
        if name not in modules or f"{name}.".startswith(swapped):
            continue
        modules[name].training = module.training
        if getattr(module, "trained", False):
            modules[name].trained = True
        for key in dict(modules[name].named_buffers(recurse=False)).keys() & module._buffers.keys():
            setattr(modules[name], key, module._buffers[key])  # those that no state dict has as well, in their dtype
    known = list_findings(model)
    show_warnings((finding for finding in list_findings(made) if finding not in known), "")
    return made


def _find_slot(planned: Plan, name: str) -> tuple[str, str]:
    """Finds the path and the kind of a slot that only sampling uses, by its path or by a name that only it has."""
    free = {path: part.kind for path, part in planned.parts.items() if find_kind(part.kind).phase == "sampling"}
    found = [name] if name in free else keep_outermost(path for path in free if split(path)[-1] == name)
    if len(found) != 1:
        several = f"{len(found)} slots have this name" if found else "no slot that only sampling uses has this name"
        raise ValueError(f"with_parts got {name!r}, but {several}; expected one of: {', '.join(free) or 'none'}")
    return found[0], free[found[0]]


def spec_of(model: Model) -> Spec:
    """Returns the spec of a composed model, with all parts and parameters written out. `print` shows it as YAML.

    The spec of a model composed from types has `x` in place of `data`. It holds neither the weights of models that were
    composed before nor what `requires_grad_(False)` froze: `modkit.build` initialises these, to be trained. A warning
    names them.

    Args:
        model: The model, composed from objects or built from a spec.

    Raises:
        SpecError: If a part was given as a built object or is not registered; the message names its slot.
        ValueError: If the model was not composed, or was composed for conditions from an enclosing Model.

    Examples:
        >>> import modkit
        >>> from modkit.models import GAN
        >>> spec = modkit.spec_of(GAN(modkit.TensorType((2,)), generator="mlp", discriminator="mlp", z_dim=3))
        >>> spec.at("model.z_dim"), spec.at("model.generator.use")
        (3, 'mlp')
    """
    composed = get_composition(model)
    planned = composed.plan
    if composed.cond:
        raise ValueError(
            f"a spec holds no conditions from an enclosing Model, got a model composed for {composed.cond}"
        )
    problems = [
        Problem(path, f"got {_describe(part)}, which no spec can hold; expected a registered part, by name or class")
        for path, part in planned.parts.items()
        if isinstance(part, Local)
    ]
    if problems:
        raise SpecError(problems)
    spec = replace(planned.resolved, train=planned.spec.train)
    given = planned.objects
    if outer := [path for path in given if not any(path.startswith(f"{one}.") for one in given)]:
        _logger.warning(
            "the spec holds no weights of %s, composed before: a model built from it initialises them", ", ".join(outer)
        )
    if names := _find_thawed(model, spec):
        _logger.warning(
            "the spec does not freeze %s: a model built from it trains these parameters", join_names(names, _SHOWN)
        )
    return spec


def _find_thawed(model: Model, spec: Spec) -> list[str]:
    """Finds the frozen parameters of a model, by name, that require gradients in one built from its spec."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if not frozen:
        return []
    composed = get_composition(model)
    site = Site(plan(spec, typed=True, leave=composed.plan.left), meta=True, weights=False)
    fresh = site.build_model(composed.x, composed.fields, composed.cond)
    site.check()
    trained = {name for name, parameter in fresh.named_parameters() if parameter.requires_grad}
    return [name for name in frozen if name in trained]


def get_composition(model: Model) -> Composition:
    """Returns what a model was composed of.

    Raises:
        ValueError: If it was not made by calling its class.
    """
    found = getattr(model, "composition", None)
    if not isinstance(found, Composition):
        raise ValueError(
            f"expected a composed model, got a {type(model).__name__} that was not made by calling its class"
        )
    return found


def convert_settings(arguments: Mapping[str, Any], record: type[Any], path: str) -> Node:
    """Converts the keywords of a group of settings, with objects in its slots, to a node of a spec."""
    return Node(_convert_keywords(arguments, read_signature(record, (), path), path))


def _split_types(
    cls: type[Model], types: tuple[Any, ...], arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits the arguments of a call into types and others."""
    declared = [name for name in inspect.signature(cls).parameters if name in _GIVEN]
    if len(types) > len(declared):
        names = ", ".join(declared) or "nothing"
        raise ValueError(f"{cls.__name__} expects {names} by position, got {len(types)} values: pass parts by keyword")
    given = dict(zip(declared, types))
    for name in arguments.keys() & set(_GIVEN):
        if name in given:
            raise ValueError(f"{cls.__name__} got {name!r} twice, by position and by keyword")
    given |= {name: value for name, value in arguments.items() if name in _GIVEN}
    x = given.get("x")
    if not isinstance(x, TensorType) and not (isinstance(x, tuple) and all(isinstance(one, TensorType) for one in x)):
        received = "nothing" if x is None else type(x).__name__
        raise ValueError(
            f"{cls.__name__} expects `x`, the TensorType of one sample (a data set's `.x`), got {received}"
        )
    if not isinstance(cond := given.get("cond", CondType()), CondType):
        slots = [name for name, one in read_signature(cls, _GIVEN, cls.__name__).items() if one.slot]
        named = f"pass parts by keyword ({join_names(slots, 4)})"
        raise ValueError(f"{cls.__name__} expects `cond`, a CondType, as its second argument, got {cond!r}: {named}")
    return given, {name: value for name, value in arguments.items() if name not in _GIVEN}


def _convert_keywords(arguments: Mapping[str, Any], declared: Mapping[str, Parameter], path: str) -> dict[str, Any]:
    """Converts the keywords of a part or a record to what a spec holds."""
    return {name: _convert_argument(value, declared.get(name), f"{path}.{name}") for name, value in arguments.items()}


def _convert_argument(value: Any, parameter: Parameter | None, path: str) -> Any:
    if value is None:
        return None
    if parameter is None:  # the planner knows former names, and reports a key that is unknown
        if isinstance(value, type) or inspect.isroutine(value):
            return Node({"use": name_part(value)})
        return _freeze(value, path) if isinstance(value, str | int | float | Mapping) else None
    shape = parameter.record or parameter.slot
    if shape is None:
        return _freeze(value, path)
    return map_items(value, shape, path, lambda item, place: _convert_item(item, parameter, place))


def _convert_item(value: Any, parameter: Parameter, path: str) -> Any:
    if parameter.slot:
        if parameter.slot.number and not (callable(value) or isinstance(value, str | int | float | Mapping)):
            message = f"got {describe(value)}, expected a number or a part of kind {parameter.slot.kind}"
            raise SpecError(Problem(path, message))
        return convert_part(value, parameter.slot.kind, path)
    if parameter.record and isinstance(value, Mapping):
        return _convert_keywords(value, read_signature(parameter.record.type, (), path), path)
    return _freeze(value, path)


def _freeze(value: Any, path: str) -> Any:
    """Makes plain data immutable; what is not plain is refused at its path."""
    try:
        return freeze(value, split(path))
    except SpecError as error:
        raise SpecError([replace(problem, hint=None) for problem in error.problems]) from None


def convert_data(data: Any) -> Node | None:
    """Converts training data to what a spec holds; None for an object that is not recorded or holds one."""
    if isinstance(data, str):
        return Node({"use": data})
    if (isinstance(data, Mapping) and "use" in data) or callable(data):
        return convert_part(data, "data", "data")
    made = _decompose(data)
    if made is data:
        return None
    node: Node = convert_part(made, "data", "data")
    return None if any(isinstance(value, Given) for _, value in walk(node)) else node


def _decompose(value: Any) -> Any:
    """Returns data that keep what they were made with as a partial of their class; any other value as it is."""
    arguments = read_extras(value, DataExtras).arguments
    if arguments is None:
        return value
    return partial(value.__class__, **{name: _decompose(one) for name, one in arguments.items()})


def convert_part(value: Any, kind: str, path: str) -> Any:
    """Converts an object in a slot to what a spec holds."""
    if value is None or isinstance(value, str | int | float | Mapping):
        return _freeze(value, path)
    if isinstance(value, partial):
        if value.args:
            message = f"got a partial with {len(value.args)} positional arguments, expected keywords"
            raise SpecError(Problem(path, message))
        if told := [name for name in value.keywords if name in find_kind(kind).given]:
            raise SpecError(Problem(path, f"got {told[0]!r} in a partial; leave it out, the slot provides it"))
        if adopted := find_kind(kind).write_class(value.func, value.keywords):
            return _freeze(adopted, path)
        try:
            declared = read_parameters(Local.wrap(kind, value.func))
        except ValueError:
            declared = {}  # the planner reports it, at its path
        return Node({"use": name_part(value.func), **_convert_keywords(value.keywords, declared, path)})
    if isinstance(value, Factory) or (inspect.isroutine(value) and _takes_all(value)):
        return Node({"use": Given(value, make=True)})
    if isinstance(value, type) or inspect.isroutine(value):
        return Node(find_kind(kind).write_class(value, {}) or {"use": name_part(value)})
    types = find_kind(kind).given
    if "parameters" in types or "optimizer" in types:  # each player and stage has its own
        given = " and ".join(f"`{name}`" for name in types)
        message = f"got a built {type(value).__name__}, expected a class, a function or a functools.partial"
        raise SpecError(Problem(path, f"{message}: for each player and stage it is called with {given}"))
    return Node({"use": Given(value)})


def _takes_all(function: Callable[..., Any]) -> bool:
    """Whether a function takes any keyword, and therefore all types that a slot provides."""
    return any(one.kind is one.VAR_KEYWORD for one in inspect.signature(function).parameters.values())


def _describe(part: Local) -> str:
    kind = "a built" if isinstance(part.object, Given) else "the local"
    return f"{kind} {part.target.replace(':', '.')}"
