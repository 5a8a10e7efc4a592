"""The check that building and calling a part uses no network, starts no process and writes only to modkit's cache."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from functools import cached_property

from modkit.cases.subject import Subject
from modkit.child import write_command
from modkit.specs.node import Node
from modkit.testing.bench import Bench, Flaw

__all__ = ["Isolation"]

_WAIT = 300


class Isolation:
    """Checks parts in one separate process, which starts at the first check.

    Args:
        subjects: The parts.
    """

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self._subjects = list(subjects)

    def __call__(self, bench: Bench) -> None:
        """Building and calling the part uses no network, starts no process and writes only to modkit's cache."""
        if seen := self._seen[self._subjects.index(bench.subject)]:
            raise Flaw(
                f"{bench.subject}: expected building and calling it to use no network, start no process and write "
                f"only to modkit's cache, got {'; '.join(seen)}: let the user pass a file with what it needs"
            )

    @cached_property
    def _seen(self) -> list[list[str]]:
        lines = "".join(json.dumps(_describe(subject), default=_to_plain) + "\n" for subject in self._subjects)
        done = _watch(lines)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        if len(answers) != len(self._subjects):
            raise RuntimeError(f"expected {len(self._subjects)} answers, got {len(answers)}: {done.stderr[-2000:]}")
        return answers


def _watch(lines: str) -> subprocess.CompletedProcess[str]:
    """Runs `modkit.testing.isolated`, with these subjects, in a process of its own."""
    command = write_command("from modkit.testing.isolated import main; main()")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=_WAIT, env=environment)


def _describe(subject: Subject) -> dict[str, object]:
    declared = {name: getattr(subject.part, name) for name in ("kind", "name", "target", "summary")}
    data = subject.data and _describe(subject.data)
    return {**declared, "params": dict(subject.params), "data": data}


def _to_plain(value: object) -> object:
    if isinstance(value, Node):
        return dict(value)
    raise TypeError(f"expected plain data, got {value!r}")
