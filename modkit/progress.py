"""Progress: reports how far training, sampling or an evaluation has come, in a terminal or a notebook.

Of nested calls the outermost is shown, and of several processes the first. Elsewhere nothing is: a script whose output
is a file stays silent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import timedelta
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

from modkit.escapes import escape_controls
from modkit.runs.ranks import find_rank

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

__all__ = ["LiveProgress", "NotebookProgress", "Progress", "Silent", "format_losses", "format_pace", "show_progress"]

_INTERVAL = 0.2  # seconds between two pictures of a bar in a notebook, at least
_shown: ContextVar[bool] = ContextVar("modkit_progress", default=False)


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


class LiveProgress(AbstractContextManager["LiveProgress"]):
    """Shows a progress bar in a terminal for each stage: players, steps, losses, speed and time left.

    Args:
        console: The terminal.
        brief: Whether the bars are removed at the end.
    """

    def __init__(self, console: Console, *, brief: bool = False) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}", markup=False),
            console=console,
            transient=brief,
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
        pace = format_pace(speed) if speed else ""
        self._bars.update(self._task, advance=1, losses=format_losses(losses), speed=pace)

    def note(self, text: str) -> None:
        """Prints a line above the bars."""
        self._bars.console.print(escape_controls(text), highlight=False, markup=False)


class NotebookProgress(AbstractContextManager["NotebookProgress"]):
    """Shows a progress bar in a notebook for each stage, with its losses, speed and time left; notes stand below.

    It needs no widgets: one output of the cell is written anew, and stays in the stored notebook.

    Args:
        display: `IPython.display.display`.
        brief: Whether the output is emptied at the end.
    """

    def __init__(self, display: Any, *, brief: bool = False) -> None:
        self._lines: list[str] = []
        self._notes: list[str] = []
        self._name = self._losses = ""
        self._done = self._steps = self._first = 0
        self._started = self._drawn = 0.0
        self._brief = brief
        self._handle = display(self, display_id=True)

    def __exit__(self, *error: object) -> None:
        if self._brief:
            self._lines, self._notes, self._steps = [], [], 0
        self._draw()

    def begin_stage(self, name: str, done: int, steps: int) -> None:
        """Adds a bar for a stage."""
        self._lines = self._list_bars()
        self._name, self._losses, self._done, self._first, self._steps = name, "", done, done, steps
        self._started = time.perf_counter()
        self._draw()

    def step(self, losses: Mapping[str, float] | None) -> None:
        """Advances the bar."""
        self._done += 1
        if losses is not None:
            self._losses = format_losses(losses)
        if time.perf_counter() - self._drawn > _INTERVAL:
            self._draw()

    def note(self, text: str) -> None:
        """Adds a line below the bars."""
        self._notes.append(f"<p>{escape(escape_controls(text))}</p>")
        self._draw()

    def __repr__(self) -> str:
        return f"{self._name} {self._done}/{self._steps}" if self._steps else ""

    def _repr_html_(self) -> str:
        return "\n".join(["<div>", *self._list_bars(), *self._notes, "</div>"])

    def _draw(self) -> None:
        self._drawn = time.perf_counter()
        self._handle.update(self)

    def _list_bars(self) -> list[str]:
        if not self._steps:
            return self._lines
        told = f"{self._done}/{self._steps}"
        if self._done > self._first:
            taken = (time.perf_counter() - self._started) / (self._done - self._first)
            left = timedelta(seconds=round((self._steps - self._done) * taken))
            told += f" &ensp; {format_pace(1 / max(taken, 1e-9))} &ensp; {left} left &ensp; {escape(self._losses)}"
        bar = f'<progress value="{self._done}" max="{self._steps}"></progress>'
        return [*self._lines, f"<div>{escape(escape_controls(self._name))} {bar} {told}</div>"]


@contextmanager
def show_progress(given: Progress | None = None, *, brief: bool = False) -> Iterator[Progress]:
    """Yields what shows the progress of the block: `given`, or a display in a notebook or in the terminal of stderr.

    Inside the block, and in all processes of a launcher but the first, other calls show nothing.

    Args:
        given: Displays the progress.
        brief: Whether a display vanishes at the end.
    """
    mute = _shown.get() or find_rank() > 0
    token = _shown.set(True)
    try:
        if given is not None or mute:
            yield Silent() if given is None else given
            return
        display = _choose_display(brief)
        with nullcontext() if isinstance(display, Silent) else display:
            yield display
    finally:
        _shown.reset(token)


def _choose_display(brief: bool) -> LiveProgress | NotebookProgress | Silent:
    """Chooses a display for where the program runs; a notebook's kernel has imported IPython."""
    ipython: Any = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        return NotebookProgress(ipython.display.display, brief=brief)
    if sys.stderr is not None and sys.stderr.isatty():
        from rich.console import Console

        return LiveProgress(Console(stderr=True, markup=False, emoji=False, highlight=False), brief=brief)
    return Silent()


def format_pace(rate: float) -> str:
    """Formats steps a second so that a slow training has a number as well."""
    return f"{rate:.0f} steps/s" if rate >= 10 else f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step"


def format_losses(losses: Mapping[str, float]) -> str:
    """Formats losses as words of one line."""
    return "  ".join(f"{escape_controls(name)} {value:.4g}" for name, value in losses.items())
