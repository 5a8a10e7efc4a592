"""Output in a terminal: progress bars and tables, or plain lines if the output is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from modkit.escapes import escape_controls

__all__ = ["LiveProgress", "PlainProgress", "make_table", "open_terminal", "show_progress"]


class LiveProgress(AbstractContextManager["LiveProgress"]):
    """Shows a progress bar for each stage: players, steps, losses, speed and time left."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}", markup=False),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> LiveProgress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def begin_stage(self, name: str, done: int, steps: int) -> None:
        """Adds a bar for a stage."""
        self._task = self._bars.add_task(escape_controls(name), total=steps, completed=done, speed="", losses="")

    def step(self, losses: Mapping[str, float] | None) -> None:
        """Advances the bar."""
        if self._task is None:
            return
        if losses is None:
            self._bars.advance(self._task)
            return
        speed = self._bars.tasks[self._task].speed
        pace = _format_pace(speed) if speed else ""
        self._bars.update(self._task, advance=1, losses=_format_losses(losses), speed=pace)

    def note(self, text: str) -> None:
        """Prints a line above the bars."""
        self._bars.console.print(escape_controls(text), highlight=False, markup=False)


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
            paced = f"{_format_losses(losses)}  {_format_pace(1 / max(taken, 1e-9))}"
            self.note(f"step {self._done}/{self._steps}  {paced}  {left} left")

    def note(self, text: str) -> None:
        """Prints a line."""
        self._console.print(escape_controls(text), highlight=False, markup=False, soft_wrap=True)


def show_progress(console: Console) -> LiveProgress | PlainProgress:
    """Shows progress as bars in a terminal and as lines elsewhere."""
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


def _format_pace(rate: float) -> str:
    """Formats steps a second so that a slow training has a number as well."""
    return f"{rate:.0f} steps/s" if rate >= 10 else f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step"


def _format_losses(losses: Mapping[str, float]) -> str:
    return "  ".join(f"{escape_controls(name)} {value:.4g}" for name, value in losses.items())
