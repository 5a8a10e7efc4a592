"""Who watches a run: plug-ins through the lifecycle hooks, loggers, and what scores a model in training.

A watcher that fails is warned about once and left out from then on; it never stops training.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from modkit.models.model import Model
from modkit.parts.registry import get_registry
from modkit.runs.run import Run
from modkit.types import Score

__all__ = ["Watch", "Watchers"]


class Watch(Protocol):
    """Scores a model in training, as a function of its weights alone."""

    @property
    def every(self) -> int:
        """Each n-th step of the run."""
        ...

    def __call__(self, model: Model) -> Mapping[str, Score]:
        """Scores by name of a model that can be sampled; the first tells which checkpoint is the best."""
        ...


class Watchers:
    """Passes each event of a run on to every watcher.

    Args:
        run: The run.
        loggers: Objects with any of the methods below.
    """

    def __init__(self, run: Run, loggers: Sequence[Any] = ()) -> None:
        self._run = run
        self._loggers = list(loggers)

    def run_started(self) -> None:
        """The run begins, or goes on."""
        self._tell("run_started")

    def step_done(self, stage: int, step: int, losses: Mapping[str, float]) -> None:
        """A step that is logged is done."""
        self._tell("step_done", stage=stage, step=step, losses=losses)

    def samples_ready(self, step: int, grid: Tensor) -> None:
        """A picture, uint8 `c h w`, is there."""
        self._tell("samples_ready", step=step, grid=grid)

    def scores_ready(self, step: int, scores: Mapping[str, float]) -> None:
        """Samples were scored."""
        self._tell("scores_ready", step=step, scores=scores)

    def checkpoint_saved(self, path: Path) -> None:
        """A checkpoint is whole."""
        self._tell("checkpoint_saved", path=path)

    def run_finished(self, error: BaseException | None) -> None:
        """The run ends."""
        self._tell("run_finished", error=error)

    def _tell(self, event: str, **arguments: Any) -> None:
        get_registry().call(f"modkit_{event}", run=self._run, **arguments)
        for logger in tuple(self._loggers):
            try:
                if method := getattr(logger, event, None):
                    method(run=self._run, **arguments)
            except Exception as error:
                self._loggers.remove(logger)
                name = type(logger).__name__
                warnings.warn(
                    f"logger {name} failed in {event} and is left out: {type(error).__name__}: {error}", stacklevel=3
                )
