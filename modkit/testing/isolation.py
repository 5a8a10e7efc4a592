"""The check that a part keeps to itself: building and calling it reaches no network, writes nothing, starts nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property

from modkit.cases.subject import Subject
from modkit.specs.node import Node
from modkit.testing.bench import Bench, Flaw

__all__ = ["Isolation"]

_WAIT = 300


class Isolation:
    """Plays parts in one process of their own, the first time that one is asked about.

    Args:
        subjects: The parts.
    """

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self._subjects = list(subjects)

    def __call__(self, bench: Bench) -> None:
        """Building and calling it reaches no network, writes no file and starts no process."""
        if seen := self._seen[self._subjects.index(bench.subject)]:
            raise Flaw(
                f"{bench.subject}: expected building and calling it to reach no network, write no file and start no "
                f"process, got {'; '.join(seen)}: let the user give what it needs as a file"
            )

    @cached_property
    def _seen(self) -> list[list[str]]:
        told = "".join(json.dumps(_describe(subject), default=_to_plain) + "\n" for subject in self._subjects)
        environment = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        done = subprocess.run(
            [sys.executable, "-m", "modkit.testing.isolated"],
            input=told,
            capture_output=True,
            text=True,
            timeout=_WAIT,
            env=environment,
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        if len(answers) != len(self._subjects):
            raise RuntimeError(f"expected {len(self._subjects)} answers, got {len(answers)}: {done.stderr[-2000:]}")
        return answers


def _describe(subject: Subject) -> dict[str, object]:
    part = subject.part
    return {
        "kind": part.kind,
        "name": part.name,
        "target": part.target,
        "summary": part.summary,
        "params": dict(subject.params),
    }


def _to_plain(value: object) -> object:
    if isinstance(value, Node):
        return dict(value)
    raise TypeError(f"expected plain data, got {value!r}")
