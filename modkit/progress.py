"""Progress: reports how far training has come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Shows how far training has come."""

    def begin_stage(self, name: str, done: int, steps: int) -> None:
        """Begins a stage, or continues it after `done` of its `steps`."""
        ...

    def step(self, losses: Mapping[str, float] | None) -> None:
        """Counts a finished step.

        Args:
            losses: The losses of the step, or None if they are not logged at this step.
        """
        ...

    def note(self, text: str) -> None:
        """Shows a line of text."""
        ...


class Silent:
    """A `Progress` that shows nothing."""

    def begin_stage(self, name: str, done: int, steps: int) -> None:
        """Does nothing."""

    def step(self, losses: Mapping[str, float] | None) -> None:
        """Does nothing."""

    def note(self, text: str) -> None:
        """Does nothing."""
