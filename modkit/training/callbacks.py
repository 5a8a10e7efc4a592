"""Callbacks of a run: plug-ins are notified through the lifecycle hooks, loggers and callbacks through their methods.

A method is given the arguments that it names, or all of them if it has `**arguments`: the arguments of the plug-ins'
hook and `model`, the model in training. If a logger or callback fails, a warning is issued and it is not called again;
training continues.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from modkit.kinds import Engine, LoggerExtras, read_extras
from modkit.models.model import Model
from modkit.parts.registry import get_registry
from modkit.runs.run import Run
from modkit.types import Score

__all__ = ["Callbacks", "Muted", "Scorer", "check_callbacks"]


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
    """Notifies plug-ins, loggers and callbacks of the events of a run.

    Args:
        run: The run.
        model: The model in training.
        loggers: Loggers, see `modkit.kinds.Logger`, and callbacks, which have the same methods.
    """

    def __init__(self, run: Run, model: Model, loggers: Sequence[Any] = ()) -> None:
        self._run, self._model = run, model
        self._loggers = list(loggers)

    def run_started(self) -> None:
        """Training starts or is resumed."""
        self._notify("run_started")

    def step_done(
        self,
        stage: int,
        step: int,
        losses: Mapping[str, float],
        measures: Mapping[str, float],
        timing: Mapping[str, float],
    ) -> None:
        """A logged step is done."""
        self._notify("step_done", stage=stage, step=step, losses=losses, measures=measures, timing=timing)

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
                    method(**_select_arguments(method, {"run": self._run, "model": self._model, **arguments}))
            except Exception as error:
                self._loggers.remove(logger)
                name = type(logger).__name__
                warnings.warn(
                    f"{name} failed in {event} and is not called again: {type(error).__name__}: {error}",
                    stacklevel=3,
                )


class Muted(Callbacks):
    """Notifies nobody: of the processes of a training, one tells what happens."""

    def _notify(self, event: str, **arguments: Any) -> None:
        """Does nothing."""


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Checks that each logger and callback has a method that is called, and that its methods name known arguments.

    Raises:
        ValueError: If one has no such method, or a method requires an argument that there is not.

    Examples:
        >>> class Printer:
        ...     def scores_ready(self, step, score):
        ...         print(step, score)
        >>> check_callbacks([Printer()])
        Traceback (most recent call last):
        ...
        ValueError: Printer.scores_ready expects arguments among model, run, scores, step, got score
    """
    for callback in callbacks:
        methods = {event: one for event, one in vars(read_extras(callback, LoggerExtras)).items() if one}
        name = type(callback).__name__
        if not methods:
            events = ", ".join(vars(LoggerExtras()))
            raise ValueError(f"{name} expects one of the methods {events}, got an object without any")
        for event, method in methods.items():
            known = {*inspect.signature(getattr(Callbacks, event)).parameters, "run", "model"} - {"self"}
            named = inspect.signature(method).parameters.values()
            needed = {one.name for one in named if one.default is one.empty and one.kind is not one.VAR_KEYWORD}
            if unknown := ", ".join(sorted(needed - known)):
                raise ValueError(f"{name}.{event} expects arguments among {', '.join(sorted(known))}, got {unknown}")


def _select_arguments(method: Callable[..., None], given: Mapping[str, Any]) -> dict[str, Any]:
    """Selects the arguments that a method names, or all of them if it has `**arguments`."""
    named = inspect.signature(method).parameters
    every = any(one.kind is one.VAR_KEYWORD for one in named.values())
    return {name: value for name, value in given.items() if every or name in named}
