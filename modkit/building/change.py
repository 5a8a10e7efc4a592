"""Changes of a run's spec: which are free when its model is loaded or trained further, and which are refused.

    modkit evaluate RUN sampler=heun                 only sampling reads it
    modkit evaluate RUN model.parametrization=x0     refused: the weights were trained to predict something else

Only sampling reads the parts of some kinds (`Kind.phase`: samplers, grids, guidance, decodings) and the parameters
that are marked `Sampling`. All else in a model is what its weights were trained with, and `modkit branch` trains them
with another value. A model that is loaded may also lack the parts that are for training only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modkit.building.difference import ABSENT, compare_trees, format_value
from modkit.building.local import LOCAL, Given
from modkit.building.plan import Plan, plan
from modkit.errors import Problem, SpecError, is_inside, join, split
from modkit.part import Local
from modkit.parts.registry import find_kind
from modkit.parts.signature import Parameter, SlotShape, read_parameters
from modkit.specs.node import Node, Value, find_value, rebuild, strip_parts
from modkit.specs.spec import SURROUNDINGS, Spec

if TYPE_CHECKING:
    from modkit.runs.run import Run

__all__ = [
    *("Change", "check_model", "compare_specs", "list_empty", "list_sampling", "list_several", "refuse"),
    "restore_local",
    "write_out",
]

_PLAIN = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class Change:
    """A change of a run's spec.

    Args:
        path: The path.
        before: The value before, on one line.
        now: The value now.
    """

    path: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.path} was {self.before}, now {self.now}"


def list_sampling(planned: Plan) -> list[str]:
    """Lists the paths of what only sampling reads: slots, and marked parameters of other parts."""
    slots = [path for path, part in planned.parts.items() if find_kind(part.kind).phase == "sampling"]
    return [*slots, *(path for path, parameter, _ in _list_arguments(planned) if parameter.sampling)]


def list_empty(planned: Plan) -> list[str]:
    """Lists the empty slots for parts that are for training only."""
    return [path for path, _, value in _list_training(planned) if value is None]


def list_several(planned: Plan) -> list[str]:
    """Lists the slots for several parts that are for training only, any of which may be missing."""
    return [path for path, slot, value in _list_training(planned) if slot.container and value is not None]


def compare_specs(former: Spec, now: Spec) -> list[Change]:
    """Compares two resolved specs; a path leads through the pieces of other runs that are written out in them."""
    pairs = compare_trees((former.tree, now.tree))
    return [Change(join(strip_parts(now.tree, path)), *map(format_value, values)) for path, values in pairs]


def write_out(former: Spec, planned: Plan, leave: Collection[str] = ()) -> Spec:
    """Writes out the spec of a run by the parts of today, which may have other names or more parameters by now.

    Args:
        former: The spec.
        planned: A plan with the same local parts, which no name loads.
        leave: See `plan`.

    Raises:
        SpecError: If a part is not installed, or the plan has no such local part.
    """
    return plan(restore_local(former, planned), typed=True, leave=leave).resolved


def restore_local(former: Spec, planned: Plan) -> Spec:
    """Puts the local parts of a plan in place of their names in a run's spec."""

    def restore(path: tuple[str | int, ...], value: Value) -> Value:
        if not isinstance(value, Node) or not str(value.use).startswith(LOCAL):
            return value
        part = planned.parts.get(join(strip_parts(former.tree, path)))
        return Node({**value, "use": part.load()}) if part and value.use == f"{LOCAL}{part.target}" else value

    return former.with_tree(rebuild(former.tree, restore))


def check_model(run: Run, own: Spec, planned: Plan) -> None:
    """Checks that a plan changes nothing in the model of a run that its weights were trained with.

    Args:
        run: The run.
        own: Its resolved spec.
        planned: The plan of the model that is to have the run's weights.

    Raises:
        SpecError: If it changes something, with every such path.
    """
    try:
        former = write_out(own, planned, SURROUNDINGS)
    except SpecError:  # of a part that is not installed, which the plan may replace
        former = own
    stored, x = run.lock.get("x"), planned.spec.x
    then = None if x is None else Node(stored) if isinstance(stored, dict) else former.x
    changes = compare_specs(Spec(former.model, x=then), Spec(planned.resolved.model, x=x))
    free = [*list_sampling(planned), *list_empty(planned), *_list_moved(former, planned)]
    several = list_several(planned)
    gone = [one.path for one in changes if one.now == str(ABSENT)]
    free += [one for one in gone if is_inside(one, ("x.std", "x.fields")) or one.rpartition(".")[0] in several]
    refuse(run, planned, {one: "the same" for one in changes if not is_inside(one.path, free)})


def refuse(run: Run, planned: Plan, changes: Mapping[Change, str]) -> None:
    """Refuses changes of what a run was trained with, each with what was expected, unless there are none.

    Raises:
        SpecError: With all of them.
    """
    problems = [
        Problem(
            change.path,
            f"got {change.now} in a run that has trained with {change.before}, expected {expected}",
            planned.spec.find_position(change.path),
            None if planned.spec.local else _suggest_branch(run, change),  # no command loads local parts
        )
        for change, expected in changes.items()
    ]
    if problems:
        raise SpecError(problems)


def _suggest_branch(run: Run, change: Change) -> str:
    if run.exported:
        return f"a new run may begin with its weights: {{use: run, path: {run.path}, train: true}}"
    value = "null" if change.now == str(ABSENT) else change.now if _PLAIN.fullmatch(change.now) else "…"
    return f"modkit branch {run.path} {change.path}={value} --out DIR begins a new run from one of its checkpoints"


def _list_moved(former: Spec, planned: Plan) -> Iterator[str]:
    """Lists the parameters that name initial weights in another folder, of which an export keeps the name only."""
    for path, parameter, value in _list_arguments(planned):
        before = find_value(former.tree, split(path)) if parameter.initial else None
        if isinstance(before, str) and isinstance(value, str) and Path(before).name == Path(value).name:
            yield path


def _list_training(planned: Plan) -> Iterator[tuple[str, SlotShape, Value]]:
    """Lists the slots for parts that are for training only, each with what is in it."""
    every = ((path, one.slot, value) for path, one, value in _list_arguments(planned))
    yield from ((path, slot, value) for path, slot, value in every if slot and find_kind(slot.kind).phase == "training")


def _list_arguments(planned: Plan) -> Iterator[tuple[str, Parameter, Value]]:
    """Lists the parameters of all parts, each with its path and its argument."""
    for path, part in planned.parts.items():
        arguments = planned.get_arguments(path)
        declared = {} if isinstance(part, Local) and isinstance(part.object, Given) else read_parameters(part)
        yield from ((f"{path}.{name}", one, arguments.get(name)) for name, one in declared.items())
