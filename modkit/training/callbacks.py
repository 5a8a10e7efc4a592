"""Callbacks of a run: plug-ins are notified through the lifecycle hooks, loggers through their methods.

If a logger fails, a warning is issued and it is not called again; training continues.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from modkit.kinds import Engine, LoggerExtras, read_extras
from modkit.models.model import Model
from modkit.parts.registry import get_registry
from modkit.runs.run import Run
from modkit.types import Score

__all__ = ["Callbacks", "Muted", "Scorer"]


class Scorer(Protocol):
    """Scores a model during training; the scores are a function of its weights."""

    @property
    def every(self) -> int:
        """Number of steps from one scoring to the next."""
        ...

    def __call__(self, model: Model, engine: Engine) -> Mapping[str, Score]:
        """Scores a model that can be sampled, in all processes; the first score decides which checkpoint is best."""
        ...


class Callbacks:
    """Notifies plug-ins and loggers of the events of a run.

    Args:
        run: The run.
        loggers: Loggers, see `modkit.kinds.Logger`.
    """

    def __init__(self, run: Run, loggers: Sequence[Any] = ()) -> None:
        self._run = run
        self._loggers = list(loggers)

    def run_started(self) -> None:
        """Training starts or is resumed."""
        self._notify("run_started")

    def step_done(self, stage: int, step: int, losses: Mapping[str, float]) -> None:
        """A logged step is done."""
        self._notify("step_done", stage=stage, step=step, losses=losses)

    def samples_ready(self, step: int, grid: Tensor) -> None:
        """A picture of samples is ready, uint8, `c h w`."""
        self._notify("samples_ready", step=step, grid=grid)

    def scores_ready(self, step: int, scores: Mapping[str, float]) -> None:
        """Samples have been scored."""
        self._notify("scores_ready", step=step, scores=scores)

    def checkpoint_saved(self, path: Path) -> None:
        """A checkpoint is complete."""
        self._notify("checkpoint_saved", path=path)

    def run_finished(self, error: BaseException | None) -> None:
        """Training has ended, with an error or None."""
        self._notify("run_finished", error=error)

    def _notify(self, event: str, **arguments: Any) -> None:
        get_registry().call(f"modkit_{event}", run=self._run, **arguments)
        for logger in tuple(self._loggers):
            try:
                if method := getattr(read_extras(logger, LoggerExtras), event):
                    method(run=self._run, **arguments)
            except Exception as error:
                self._loggers.remove(logger)
                name = type(logger).__name__
                warnings.warn(
                    f"logger {name} failed in {event} and is not called again: {type(error).__name__}: {error}",
                    stacklevel=3,
                )


class Muted(Callbacks):
    """Notifies nobody: of the processes of a training, one tells what happens."""

    def _notify(self, event: str, **arguments: Any) -> None:
        """Does nothing."""
