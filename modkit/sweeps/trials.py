"""Trials: the specs of a sweep, all resolved and checked before any of them is trained.

An axis is `path=a,b,c`, with values as in overrides; commas inside brackets and quotes are part of a value. A trial
takes one value from each axis, and a sweep has one trial for each combination. Values in `evaluate`, or in a slot that
only sampling uses, do not affect the weights. Trials that differ only in these share one run, which keeps the sampler
of the spec, and are evaluated with overrides.

Whatever a trial shares its run with, it is the system that `modkit train SPEC VALUES` trains. The spec of a run names
every part, so that overrides on it imply nothing, and a swap keeps what the spec had left to defaults. Where the values
alone would make another system of the run, further overrides follow them: `sampler=ddim,sampler.steps=50`.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeAlias

from modkit.building.change import list_sampling
from modkit.building.checker import check
from modkit.building.difference import ABSENT, compare_trees
from modkit.building.pieces import find_run
from modkit.building.plan import Plan, plan
from modkit.errors import Position, Problem, SpecError, join, split, suggest
from modkit.runs.files import is_address, make_safe_name
from modkit.specs.node import Node, Path, Value, strip_parts, walk
from modkit.specs.overrides import apply, expand, require_list, split_values
from modkit.specs.spec import Spec
from modkit.specs.yaml import format_flow

__all__ = ["LONGEST", "MAX_TRIALS", "Trial", "complete_path", "freeze", "parse_axis"]

MAX_TRIALS = 1000
"""Maximum number of trials in a sweep."""

LONGEST = 100
"""Maximum number of characters of a trial's label in the name of its run."""

_SAMPLING = ("decoding", "guidance", "sampler")
_TOP = tuple(key.name for key in fields(Spec) if key.compare)
_SHORT = {"seed": "train.seed"}
_OVERRIDE = re.compile(r"<override ([0-9]+)>")
_logger = logging.getLogger(__name__)

_Choices: TypeAlias = "tuple[str, ...]"  # an override for each axis, in the order of their paths


@dataclass(frozen=True)
class Trial:
    """One combination of values.

    Args:
        label: Its values, for display.
        run: Name of the run that is evaluated for it.
        spec: The resolved spec of this run, YAML.
        sampling: Overrides with which the run is evaluated.
    """

    label: str
    run: str
    spec: str = field(repr=False)
    sampling: tuple[str, ...]


def freeze(spec: Spec, axes: Sequence[str]) -> tuple[Trial, ...]:
    """Resolves and checks the trials of a sweep; nothing is written.

    The order of the axes and of their values changes neither the trials nor the names of their runs.

    Args:
        spec: The spec that all trials start from.
        axes: `path=a,b,c`; `seed` stands for `train.seed`, and a slot that sampling uses may be given by its bare name.

    Raises:
        SpecError: With all problems of all axes and trials.
    """
    require_list(axes, "axes")
    spec.to_yaml()  # parts without a name cannot reach another process
    values, numbers = _parse_axes(spec, axes)
    checks = _Checks(spec, numbers)
    combinations = list(itertools.product(*values))
    plans = {choices: made for choices in combinations if (made := checks.plan(choices, choices))}
    slots = set().union(*map(_find_sampling_slots, plans.values()))
    trials = []
    for choices, whole in plans.items():
        training = tuple(
            choice for choice in choices if not _is_only_for_sampling(split(choice.partition("=")[0]), slots)
        )
        made = whole if training == choices else checks.plan(training, choices)
        if made and _list_weight_settings(made) != _list_weight_settings(
            whole
        ):  # `${…}` refers to a value that only sampling uses
            training, made = choices, whole
        if not made:
            continue
        frozen = _make_paths_absolute(made)
        sampling = _find_overrides(checks, tuple(choice for choice in choices if choice not in training), frozen, whole)
        if sampling is None:  # no override makes the trial's system of the run
            training, sampling, frozen = choices, (), _make_paths_absolute(whole)
        name = make_safe_name(",".join(training) or spec.name, LONGEST)
        trials.append(Trial(",".join(choices) or name, name, frozen.to_yaml(), sampling))
    checks.raise_problems(len(combinations))
    return tuple(trials)


def parse_axis(spec: Spec, axis: str) -> tuple[str, list[str]]:
    """Parses one axis: its full path and its values.

    Raises:
        SpecError: If it is malformed, or has a value twice.

    Examples:
        >>> parse_axis(Spec(model="diffusion"), "sampler=ddim,heun")
        ('model.sampler', ['ddim', 'heun'])
    """
    path, equals, text = axis.partition("=")
    if not equals:
        raise SpecError(Problem("", f"got {axis!r}, expected path=value,value,…"))
    path, values = complete_path(spec, path.strip()), split_values(text)
    for value in values:
        if not value:
            raise SpecError(Problem(path, f"got an empty value in {text!r}, expected values separated by commas"))
        if values.count(value) > 1:
            raise SpecError(Problem(path, f"got {value} twice, expected each value once"))
    return path, values


def complete_path(spec: Spec, path: str) -> str:
    """Completes the path of an axis: `seed` is `train.seed`, and a slot that sampling uses may have its bare name.

    Raises:
        SpecError: If it is the path of nothing in a spec.
    """
    parts = split(path)
    if parts[0] in _TOP:
        return join(parts)
    if path in _SHORT:
        return _SHORT[path]
    if parts[0] not in _SAMPLING:
        known = (*_TOP, *_SHORT, *_SAMPLING)
        message = f"got {path!r}, expected a path that starts with one of {', '.join(known)}"
        raise SpecError(Problem(path, message, hint=suggest(str(parts[0]), known)))
    return expand(spec, _SAMPLING, f"{path}=").removesuffix("=")


class _Checks:
    """Checks each spec once and collects their problems, each with the trials in which it occurs.

    Args:
        spec: The spec that all trials start from.
        axes: Numbers of the axes in the given order, from 1, by path.
    """

    def __init__(self, spec: Spec, axes: Mapping[str, int]) -> None:
        self._spec, self._axes = spec, axes
        self._plans: dict[Node, Plan] = {}
        self._problems: dict[Problem, dict[str, None]] = {}

    def plan(self, choices: _Choices, trial: _Choices) -> Plan | None:
        """Plans the spec with choices of a trial applied; returns None if there is a problem."""
        label = ",".join(trial)
        try:
            changed, notices = apply(self._spec, choices)
            made = self._plan(changed)
        except SpecError as error:
            for problem in error.problems:
                self._problems.setdefault(self._move_to_axis(problem, choices), {})[label] = None
            return None
        for notice in notices if choices == trial else ():
            _logger.warning("%s: %s", label, notice)
        return made

    def override(self, frozen: Spec, overrides: _Choices) -> Spec | None:
        """Resolves the spec of a run with overrides, as `modkit evaluate` applies them; None if they do not suit it."""
        try:
            return _make_paths_absolute(self._plan(apply(frozen, overrides)[0]))
        except SpecError:
            return None

    def _plan(self, spec: Spec) -> Plan:
        tree = _make_paths_absolute(plan(spec)).tree
        if tree not in self._plans:
            report = check(spec)
            report.raise_idle()
            made = report.plan  # without what its swaps left over
            if "data" not in made.parts:
                raise SpecError(Problem("data", "missing, expected a data set: the runs of a sweep are trained"))
            self._plans[tree] = made
        return self._plans[tree]

    def raise_problems(self, total: int) -> None:
        """Raises all problems, if there are any; a problem that not all trials have is listed with its trials."""
        problems = []
        for problem, labels in self._problems.items():
            if len(labels) < total:
                more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
                problem = replace(problem, message=f"{problem.message}; in {'; '.join(list(labels)[:3])}{more}")
            problems.append(problem)
        if problems:
            raise SpecError(problems)

    def _move_to_axis(self, problem: Problem, choices: _Choices) -> Problem:
        """Moves a problem from the override that was made of an axis to the axis itself."""
        match = _OVERRIDE.fullmatch(problem.position.file) if problem.position else None
        if not match:
            return problem
        path = choices[int(match[1]) - 1].partition("=")[0]
        return replace(problem, position=_locate(self._axes[path]))


def _locate(axis: int) -> Position:
    return Position(f"<axis {axis}>", 1, 1)


def _parse_axes(spec: Spec, axes: Sequence[str]) -> tuple[list[list[str]], dict[str, int]]:
    """Parses axes: the overrides of each axis, sorted by path, and the number of each axis by path."""
    problems: list[Problem] = []
    overrides: dict[str, list[str]] = {}
    numbers: dict[str, int] = {}
    for number, axis in enumerate(axes, 1):
        try:
            path, values = parse_axis(spec, axis)
            if path in numbers:
                raise SpecError(Problem(path, f"got this axis twice: <axis {numbers[path]}> and <axis {number}>"))
            overrides[path], numbers[path] = [f"{path}={value}" for value in values], number
        except SpecError as error:
            problems += [replace(problem, position=_locate(number)) for problem in error.problems]
    if (total := math.prod(map(len, overrides.values()))) > MAX_TRIALS:
        problems.append(Problem("", f"got {total} trials, expected at most {MAX_TRIALS}"))
    if problems:
        raise SpecError(problems)
    return [overrides[path] for path in sorted(overrides)], numbers


def _find_sampling_slots(made: Plan) -> set[Path]:
    """Finds the paths of what only sampling reads."""
    return set(map(split, list_sampling(made)))


def _find_overrides(checks: _Checks, choices: _Choices, frozen: Spec, whole: Plan) -> _Choices | None:
    """Finds the overrides that make a trial's system of its run.

    Args:
        checks: Resolves the spec of the run with overrides.
        choices: The choices of the trial that the run lacks.
        frozen: The resolved spec of the run.
        whole: The plan of the trial's system.

    Returns:
        No overrides if the run is the system as it is; otherwise the choices, and what else differs; None if there are
        none that make it.
    """
    slots, wanted = _find_sampling_slots(whole), _make_paths_absolute(whole)
    if not _list_differences(frozen, wanted, slots):
        return ()
    given, there = choices, checks.override(frozen, choices)
    if there is None:  # what a swap keeps of the run does not suit the new part
        given, there = (), frozen
    while differences := _list_differences(there, wanted, slots):
        if set(differences) <= set(given):
            return None
        given = (*given, *differences)
        if (there := checks.override(frozen, given)) is None:
            return None
    return given


def _list_differences(there: Spec, wanted: Spec, slots: Collection[Path]) -> _Choices:
    """Lists the overrides that one resolved spec lacks to sample and to be evaluated as another."""
    found = {strip_parts(wanted.tree, path): values[1] for path, values in compare_trees((there.tree, wanted.tree))}
    return tuple(
        f"{join(path)}={_format(value)}" for path, value in found.items() if _is_only_for_sampling(path, slots)
    )


def _format(value: Value) -> str:
    if value is ABSENT:
        return "null"
    return format_flow(value.use if isinstance(value, Node) and value.use and len(value) == 1 else value)


def _is_only_for_sampling(path: Path, slots: Collection[Path]) -> bool:
    """Tells whether a path is in one of these slots, or is an option of evaluation after training."""
    if path[0] == "evaluate":
        return path[:2] != ("evaluate", "watch")
    return any(path[:stop] in slots for stop in range(1, len(path) + 1))


def _list_weight_settings(made: Plan) -> dict[Path, str]:
    """Lists the values of the resolved spec that the weights depend on, by path."""
    slots, tree = _find_sampling_slots(made), made.resolved.tree
    found = {
        path: repr(value)
        for path, value in walk(tree)
        if not (value and isinstance(value, Node | tuple)) and not _is_only_for_sampling(strip_parts(tree, path), slots)
    }
    watched = ("evaluate", "watch", "every") in found  # then it selects the best weights
    return {path: value for path, value in found.items() if watched or path[0] != "evaluate"}


def _make_paths_absolute(made: Plan) -> Spec:
    """Returns the resolved spec with absolute paths to the runs that it loads, since its folder will change."""
    resolved = made.resolved
    for path, value in walk(resolved.tree):
        if isinstance(value, Node) and value.use == "run" and not is_address(str(value["path"])):
            folder = find_run(str(value["path"]), made.spec).resolve()
            resolved = resolved.with_value(join((*path, "path")), str(folder))
    return resolved
