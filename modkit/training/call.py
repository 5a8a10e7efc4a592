"""The call that began a run: its spec as it was written, and its overrides, which the run's lock keeps.

A call that is repeated, as by a launcher or a sweep that is started again, goes on with the run's own spec, in which
`modkit resume` may have changed something since.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from modkit.building.difference import ABSENT, compare_trees, format_value
from modkit.building.migration import load_current_spec
from modkit.errors import Problem, SpecError, join
from modkit.runs.layout import LOCK
from modkit.runs.run import Run
from modkit.specs.spec import Spec

__all__ = ["Call"]


@dataclass(frozen=True)
class Call:
    """A spec as it was written, YAML, and its overrides."""

    spec: str
    overrides: tuple[str, ...]

    @staticmethod
    def describe(spec: Spec, overrides: Sequence[str]) -> dict[str, Any]:
        """Describes a call for the lock of the run that it begins; a spec with local parts cannot be written."""
        return {"written": {"spec": None if spec.local else spec.to_yaml(), "overrides": list(overrides)}}

    @classmethod
    def read(cls, run: Run) -> Call | None:
        """Reads the call that began a run; None if the run does not keep it.

        Raises:
            ValueError: If the lock holds something else in its place.
        """
        kept = run.lock.get("written", {"spec": None, "overrides": []})
        spec, overrides = kept.get("spec"), kept.get("overrides")
        if not isinstance(spec, str | None) or not _is_texts(overrides):
            raise ValueError(f"{run.path / LOCK}: expected `written` to hold a spec and its overrides, got {kept!r}")
        return None if spec is None else cls(spec, tuple(overrides))

    def repeat(self, run: Run, spec: Spec, overrides: Sequence[str]) -> Spec:
        """Returns the spec with which a run goes on if a call is the one that began it, or gives the run's own spec.

        Raises:
            SpecError: If its spec, as it is read, or its overrides differ, with each difference.
        """
        own = load_current_spec(run)
        if spec.tree == own.tree and not overrides:
            return own
        former = Spec.from_yaml(self.spec, "the spec as it was written")
        problems, new = [], [one for one in overrides if one not in self.overrides]
        for path, values in compare_trees((former.tree, spec.tree)):
            place, (then, now) = join(path), map(format_value, values)
            told = f"got {now}, expected {then}, as in the call that began {run.path}"
            problems.append(Problem(place, told, spec.find_position(place)))
            new += [] if values[1] is ABSENT else [f"{place}={now}"]
        if tuple(overrides) != self.overrides:
            given, wanted = (" ".join(one) or "none" for one in (overrides, self.overrides))
            told = f"got the overrides {given}, expected {wanted}, as in the call that began {run.path}"
            problems.append(Problem("", told))
        if problems:
            command = shlex.join(["modkit", "resume", str(run.path), *new])
            hint = f"{command} changes what may change in the run; --overwrite begins it anew"
            raise SpecError([*problems[:-1], replace(problems[-1], hint=hint)])
        return own


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(type(one) is str for one in value)
