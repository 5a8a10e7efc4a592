"""Progress: how far training is, as whoever shows it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Shows how far training is."""

    def stage(self, name: str, done: int, steps: int) -> None:
        """A stage of so many steps begins, or goes on."""
        ...

    def step(self, losses: Mapping[str, float] | None) -> None:
        """A step is done; its losses where they are logged."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


class Silent:
    """A `Progress` that shows nothing."""

    def stage(self, name: str, done: int, steps: int) -> None:
        """Nothing."""

    def step(self, losses: Mapping[str, float] | None) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
