"""trackio (https://github.com/gradio-app/trackio)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from modkit import Run
from modkit_trackers.tracker import Picture, Tracker, check_installed, make_identifier

__all__ = ["Trackio"]


class Trackio(Tracker):
    """Logs losses, scores, grids of samples and the resolved spec to trackio.

    Without a `space`, records stay on this machine, in trackio's own folder, `TRACKIO_DIR`; `trackio show` displays
    them. A resumed run goes on with its trackio run.

    Args:
        project: Project of the trackio run.
        space: Hugging Face Space to log to, such as `user/name`; None is trackio's own setting, `TRACKIO_SPACE_ID`.
        every: Losses are logged at steps divisible by this number.

    Raises:
        ImportError: If the package `trackio` is missing.
        ValueError: If `every` is below 1.
    """

    name = "trackio"

    def __init__(self, *, project: str = "modkit", space: str | None = None, every: int = 1) -> None:
        super().__init__(every)
        check_installed("trackio", "Trackio")
        self._project, self._space = project, space
        self._trackio: Any = None
        self._run: Any = None

    def begin(self, run: Run, config: Mapping[str, Any], identifier: str | None) -> str:
        """Begins a trackio run, or goes on with one; its identifier is its name, like the run's."""
        self._trackio = importlib.import_module("trackio")
        identifier = identifier or make_identifier(run.path.resolve().name)
        with redirect_stdout(sys.stderr):
            self._run = self._trackio.init(
                project=self._project,
                name=identifier,
                space_id=self._space,
                config=dict(config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return identifier

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers of a step."""
        self._run.log(dict(values), step=step)

    def show(self, step: int, name: str, picture: Picture) -> None:
        """Logs a picture of a step."""
        self._run.log({name: self._trackio.Image(picture)}, step=step)

    def end(self, *, failed: bool) -> None:
        """Ends the trackio run; trackio keeps no record of a failure."""
        with redirect_stdout(sys.stderr):
            self._trackio.finish()
