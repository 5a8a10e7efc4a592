"""Cells: the specs of a sweep, resolved, checked and frozen before any of them is trained.

An axis is `path=a,b,c`, each value as in an override, commas inside brackets and quotes being part of one. A cell takes
one value of each axis; the product of the axes gives them all. Values inside a slot of a kind that only sampling uses,
or in `evaluate`, touch no weight: cells that differ in nothing else are one run, whose spec keeps its own sampler, and
are evaluated with these values as overrides.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

from modkit.building.checker import check
from modkit.building.plan import Plan, plan, run_folder
from modkit.errors import Position, Problem, SpecError, join, nearest, split
from modkit.specs.node import Node, Value
from modkit.specs.overrides import apply, short
from modkit.specs.spec import Spec
from modkit.specs.tree import Path

__all__ = ["Cell", "Grid", "freeze"]

MAX_CELLS = 1000
"""Most cells of a sweep."""

_SAMPLING = ("decoding", "guidance", "sampler")
_TOP = tuple(key.name for key in fields(Spec) if key.compare)
_SHORT = {"seed": "train.seed"}
_QUOTED = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*'""", re.DOTALL)
_OVERRIDE = re.compile(r"<override ([0-9]+)>")
_UNSAFE = re.compile(r"[^A-Za-z0-9._=,+-]+")
_LONGEST = 100
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One point of a sweep.

    Args:
        label: Its values, as people read them.
        run: Name of the run that it is measured on.
        training: Overrides of the spec that this run is trained from.
        sampling: Overrides with which the run is evaluated.
    """

    label: str
    run: str
    training: tuple[str, ...]
    sampling: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """All that a sweep will do.

    Args:
        cells: The cells.
        specs: The resolved spec of each run by its name, YAML.
    """

    cells: tuple[Cell, ...]
    specs: Mapping[str, str]


@dataclass(frozen=True)
class _Choice:
    """A value of an axis, and the axis' number as it was given, from 1."""

    path: str
    text: str
    axis: int

    @property
    def override(self) -> str:
        return f"{self.path}={self.text}"


_Choices: TypeAlias = "tuple[_Choice, ...]"


def freeze(spec: Spec, axes: Sequence[str]) -> Grid:
    """The cells of a sweep, each resolved and checked; nothing is written.

    Neither the order of the axes nor that of their values changes what a cell is or what its run is called.

    Args:
        spec: The spec that all cells start from.
        axes: `path=a,b,c`; `seed` is `train.seed`, and a slot that sampling uses may go by its bare name.

    Raises:
        SpecError: With every problem of every axis and cell.
    """
    spec.to_yaml()  # parts without a name cannot reach another process
    cells = list(itertools.product(*_axes(spec, axes)))
    checks = _Checks(len(cells))
    plans = {choices: made for choices in cells if (made := checks.checked(spec, choices))}
    checks.raise_any()
    trained = _trained(spec, plans, checks)
    checks.raise_any()
    frozen = {training: _rooted(made) for training, made in trained.values()}
    names = {training: _name(_overrides(training), spec) for training in frozen}
    result = []
    for choices, (training, _) in trained.items():  # as they will be evaluated: values put into the run's own spec
        sampling = tuple(choice for choice in choices if choice not in training)
        made = checks.checked(frozen[training], sampling, choices)
        if made and _rooted(made).tree == frozen[training].tree:  # the values that the run has anyway
            sampling = ()
        label = ",".join(_overrides(choices)) or names[training]
        result.append(Cell(label, names[training], _overrides(training), _overrides(sampling)))
    checks.raise_any()
    return Grid(tuple(result), {name: frozen[training].to_yaml() for training, name in names.items()})


def _trained(spec: Spec, plans: Mapping[_Choices, Plan], checks: _Checks) -> dict[_Choices, tuple[_Choices, Plan]]:
    """For each cell the choices that its weights depend on, and the plan of what these train."""
    kinds = {path: call.part.kind for whole in plans.values() for path, call in whole.calls.items()}
    made, result = dict(plans), {}
    for choices, whole in plans.items():
        training = tuple(choice for choice in choices if not _samples(choice.path, kinds))
        if training not in made:
            alone = checks.checked(spec, training)
            if alone is None:
                continue
            made[training] = alone
        if _weighty(made[training]) != _weighty(whole):  # what samples also stands elsewhere, by `${…}`
            training = choices
        result[choices] = training, made[training]
    return result


class _Checks:
    """Checks specs, each once, and keeps their problems, each once, with the cells that have it.

    Args:
        total: Number of all cells.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._sound: set[Node] = set()
        self._problems: dict[Problem, list[str]] = {}

    def checked(self, spec: Spec, choices: _Choices, cell: _Choices | None = None) -> Plan | None:
        """The plan of a spec with choices applied, or None after a problem of a cell (of these choices, or of more)."""
        label = ",".join(_overrides(cell or choices))
        try:
            changed, notices = apply(spec, _overrides(choices))
            made = plan(changed)
            resolved = _rooted(made).tree
            if resolved not in self._sound:
                check(changed)
        except SpecError as error:
            for problem in error.problems:
                cells = self._problems.setdefault(_placed(problem, choices), [])
                cells += [] if label in cells else [label]
            return None
        self._sound.add(resolved)
        for notice in () if cell else notices:
            _logger.warning("%s: %s", label, notice)
        return made

    def raise_any(self) -> None:
        """Raises all problems, if there are any."""
        if self._problems:
            raise SpecError(self._told(problem, cells) for problem, cells in self._problems.items())

    def _told(self, problem: Problem, cells: list[str]) -> Problem:
        if len(cells) == self._total or not any(cells):
            return problem
        more = f" and {len(cells) - 3} more" if len(cells) > 3 else ""
        return replace(problem, message=f"{problem.message}; in {'; '.join(cells[:3])}{more}")


def _placed(problem: Problem, choices: _Choices) -> Problem:
    """A problem whose place is an axis as it was given, not an override that was made of it."""
    match = _OVERRIDE.fullmatch(problem.position.file) if problem.position else None
    return replace(problem, position=_place(choices[int(match[1]) - 1].axis)) if match else problem


def _place(axis: int) -> Position:
    return Position(f"<axis {axis}>", 1, 1)


def _overrides(choices: _Choices) -> tuple[str, ...]:
    return tuple(choice.override for choice in choices)


def _axes(spec: Spec, axes: Sequence[str]) -> list[list[_Choice]]:
    """The choices of each axis, the axes in the order of their paths, outer ones first."""
    problems: list[Problem] = []
    found: dict[str, list[_Choice]] = {}
    for number, axis in enumerate(axes, 1):
        try:
            choices = _axis(spec, axis, number)
            if choices[0].path in found:
                before = found[choices[0].path][0].axis
                raise SpecError(Problem(choices[0].path, f"got this axis twice: <axis {before}> and <axis {number}>"))
            found[choices[0].path] = choices
        except SpecError as error:
            problems += [replace(problem, position=_place(number)) for problem in error.problems]
    if (number := math.prod(map(len, found.values()))) > MAX_CELLS:
        problems.append(Problem("", f"got {number} cells, expected at most {MAX_CELLS}"))
    if problems:
        raise SpecError(problems)
    return [found[path] for path in sorted(found)]


def _axis(spec: Spec, axis: str, number: int) -> list[_Choice]:
    path, equals, text = axis.partition("=")
    if not equals:
        raise SpecError(Problem("", f"got {axis!r}, expected path=value,value,…"))
    path = _path(spec, path.strip())
    values = _values(text)
    for value in values:
        if not value:
            raise SpecError(Problem(path, f"got an empty value in {text!r}, expected values with commas between"))
        if values.count(value) > 1:
            raise SpecError(Problem(path, f"got {value} twice, expected each value once"))
    return [_Choice(path, value, number) for value in values]


def _path(spec: Spec, path: str) -> str:
    """An axis' path in full."""
    parts = split(path)
    if parts[0] in _TOP:
        return join(parts)
    if path in _SHORT:
        return _SHORT[path]
    if parts[0] not in _SAMPLING:
        known = (*_TOP, *_SHORT, *_SAMPLING)
        message = f"got {path!r}, expected a path that starts with one of {', '.join(known)}"
        raise SpecError(Problem(path, message, hint=nearest(str(parts[0]), known)))
    return short(spec, _SAMPLING, f"{path}=").removesuffix("=")


def _values(text: str) -> list[str]:
    """Values between commas that stand outside of brackets and quotes."""
    values, start, depth, at = [], 0, 0, 0
    while at < len(text):
        opened = text[start:at].rstrip()[-1:] in ("", "[", "{", ",", ":")  # else `'` is an apostrophe
        quoted = _QUOTED.match(text, at) if opened else None
        if quoted:
            at = quoted.end()
            continue
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(text[at], 0)
        if text[at] == "," and depth <= 0:
            values.append(text[start:at].strip())
            start = at + 1
        at += 1
    return [*values, text[start:].strip()]


def _samples(path: str, kinds: Mapping[str, str]) -> bool:
    """Whether a path is a slot that only sampling uses, or inside of one, or says how the model is measured."""
    parts = split(path)
    if parts[0] == "evaluate":
        return parts[:2] != ("evaluate", "watch")
    return any(kinds.get(join(parts[:stop])) in _SAMPLING for stop in range(1, len(parts) + 1))


def _weighty(made: Plan) -> Value:
    """The resolved spec without what only sampling and measuring uses: equal ones give equal weights."""

    def kept(value: Value, path: Path) -> Value:
        if isinstance(value, tuple):
            return tuple(kept(item, (*path, index)) for index, item in enumerate(value))
        if not isinstance(value, Node):
            return value
        inner = {key: (item, (*path, key)) for key, item in value.items() if (*path, key) not in sampling}
        return Node({key: kept(*item) for key, item in inner.items()})

    sampling = {split(path) for path, call in made.calls.items() if call.part.kind in _SAMPLING}
    tree = made.resolved.tree
    evaluation = tree.get("evaluate")
    watch = evaluation.get("watch") if isinstance(evaluation, Node) else None
    watched = {"evaluate": watch} if isinstance(watch, Node) and "every" in watch else {}  # it picks the best weights
    return kept(Node({**{key: value for key, value in tree.items() if key != "evaluate"}, **watched}), ())


def _rooted(made: Plan) -> Spec:
    """The resolved spec, the paths of runs that it starts from made absolute: it will stand in another folder."""

    def rooted(value: Value) -> Value:
        if isinstance(value, tuple):
            return tuple(map(rooted, value))
        if not isinstance(value, Node):
            return value
        inner = {key: rooted(item) for key, item in value.items()}
        if value.use == "run" and isinstance(value.get("path"), str):
            inner["path"] = str(run_folder(str(value["path"]), made.spec).resolve())
        return Node(inner)

    resolved = made.resolved
    return resolved.with_tree({key: rooted(value) for key, value in resolved.tree.items()})


def _name(training: Iterable[str], spec: Spec) -> str:
    """A folder's name that says the overrides, and differs where they do."""
    text = ",".join(training) or spec.name
    safe = _UNSAFE.sub("-", text).lstrip(".-") or "run"
    if safe == text and len(safe) <= _LONGEST:
        return safe
    return f"{safe[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
