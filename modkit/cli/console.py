"""Output in a terminal: progress bars and tables, or plain lines if the output is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modkit.escapes import escape_controls
from modkit.progress import LiveProgress, format_losses, format_pace

__all__ = ["PlainProgress", "choose_display", "make_table", "open_terminal"]


class PlainProgress(AbstractContextManager["PlainProgress"]):
    """Shows progress as plain lines, one for each logged step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = self._done = self._first = 0
        self._started = 0.0

    def __exit__(self, *error: object) -> None:
        """Does nothing: lines are not taken back."""

    def begin_stage(self, name: str, done: int, steps: int) -> None:
        """Prints a line for a stage."""
        self._done = self._first = done
        self._steps, self._started = steps, time.perf_counter()
        self.note(f"stage: {name}, {steps} steps")

    def step(self, losses: Mapping[str, float] | None) -> None:
        """Prints a line if losses are logged at this step."""
        self._done += 1
        if losses is not None:
            taken = (time.perf_counter() - self._started) / (self._done - self._first)
            left = timedelta(seconds=round((self._steps - self._done) * taken))
            paced = f"{format_losses(losses)}  {format_pace(1 / max(taken, 1e-9))}"
            self.note(f"step {self._done}/{self._steps}  {paced}  {left} left")

    def note(self, text: str) -> None:
        """Prints a line."""
        self._console.print(escape_controls(text), highlight=False, markup=False, soft_wrap=True)


def choose_display(console: Console) -> LiveProgress | PlainProgress:
    """Chooses how progress is shown: as bars in a terminal and as lines elsewhere."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Makes a table without borders."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        result.add_column(Text(escape_controls(column)), overflow="fold")
    for row in rows:
        result.add_row(*(Text(escape_controls(cell)) for cell in row))  # no markup: `list[int]` is not a style
    return result


def open_terminal() -> Console:
    """Opens stdout, as wide as its terminal or, if it is not one, 200 characters wide."""
    wide = None if sys.stdout.isatty() else 200
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=not sys.stdout.isatty(), width=wide)
