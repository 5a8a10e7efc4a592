"""Candidates: the parts that fit into a slot whose part is refused by its types.

Each of modkit's own parts of the slot's kind is tried there, on the meta device. A candidate is named if it solves the
problem and adds no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from modkit.building.pieces import is_piece
from modkit.building.plan import Plan
from modkit.errors import Problem, SpecError
from modkit.parts.registry import get_registry
from modkit.specs.overrides import apply
from modkit.specs.spec import Spec

__all__ = ["suggest_candidates"]

_MOST = 3
"""Problems for which candidates are tried."""


def suggest_candidates(
    problems: Iterable[Problem], planned: Plan, find_problems: Callable[[Spec], Iterable[Problem]]
) -> list[Problem]:
    """Adds a hint to those problems of parts that other parts of modkit would solve.

    Args:
        problems: The problems of a spec, at the paths of its parts.
        planned: Its plan.
        find_problems: Finds the problems of a spec with another part; may raise SpecError in their place.
    """
    problems = list(problems)
    before = {problem.path for problem in problems}
    named = [", ".join(_find(problem, before, planned, find_problems)) for problem in problems[:_MOST]]
    hints = [f"what fits there: {names}" if names else None for names in named]
    told = [replace(one, hint=one.hint or hint) for one, hint in zip(problems, hints, strict=False)]
    return [*told, *problems[_MOST:]]


def _find(
    problem: Problem, before: set[str], planned: Plan, find_problems: Callable[[Spec], Iterable[Problem]]
) -> Iterator[str]:
    """Yields the names of the parts that solve a problem, unless its parameters are what is wrong."""

    def find_paths(name: str) -> set[str]:
        try:
            other = spec.with_value(problem.path, name) if name == own else apply(spec, [f"{problem.path}={name}"])[0]
            return {one.path for one in find_problems(other)}
        except SpecError as error:
            return {one.path for one in error.problems}

    spec, part = planned.spec, planned.parts.get(problem.path)
    if part is None or problem.path in planned.objects or is_piece(planned.nodes[problem.path]):
        return
    own = part.name
    if problem.path not in find_paths(own):
        return
    for entry in get_registry().list_parts(part.kind):
        name = entry.part.name
        if "/" not in name and name != own and find_paths(name) <= before - {problem.path}:
            yield name
