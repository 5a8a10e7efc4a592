"""What a plug-in can implement: the hooks of modkit, in pluggy's manner.

A plug-in is a module (or an object) behind an entry point of the group `modkit`; it implements any of these under
`@modkit.hookimpl`, with the arguments that it needs. New arguments may join a hook later, so an implementation names
only those it uses. Hooks are called one plug-in at a time: an exception in one never reaches another, nor the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.part import Part
    from modkit.runs.run import Run

__all__ = [
    "hookspec",
    "modkit_checkpoint_saved",
    "modkit_commands",
    "modkit_exporters",
    "modkit_parts",
    "modkit_run_finished",
    "modkit_run_started",
    "modkit_samples_ready",
    "modkit_scores_ready",
    "modkit_step_done",
]

hookspec = pluggy.HookspecMarker("modkit")


@hookspec
def modkit_parts() -> list[Part]:  # type: ignore[empty-body]
    """The plug-in's parts.

    Called at every start, `modkit list` included: the module that implements it must not import torch.

    Returns:
        Parts with bare names; the plug-in's own name is put before them (`acme/fsq`).
    """


@hookspec
def modkit_run_started(run: Run) -> None:
    """A run begins, or goes on after an interruption.

    Args:
        run: The run, whose directory holds its resolved spec.
    """


@hookspec
def modkit_step_done(run: Run, stage: int, step: int, losses: Mapping[str, float]) -> None:
    """A step of training is done; called at those steps that are logged.

    Args:
        run: The run.
        stage: Index of the stage.
        step: Steps since the run's first.
        losses: The losses of the players that played, by name.
    """


@hookspec
def modkit_samples_ready(run: Run, step: int, grid: Tensor) -> None:
    """Samples were drawn in training.

    Args:
        run: The run.
        step: Steps since the run's first.
        grid: The picture of the samples, uint8 in [0, 255], `c h w` of 1 or 3 channels, on the CPU.
    """


@hookspec
def modkit_scores_ready(run: Run, step: int, scores: Mapping[str, float]) -> None:
    """Samples were scored in training, as `evaluate.watch` asks.

    Args:
        run: The run.
        step: Steps since the run's first.
        scores: Scores by name.
    """


@hookspec
def modkit_checkpoint_saved(run: Run, path: Path) -> None:
    """A checkpoint is whole and in its place.

    Args:
        run: The run.
        path: The checkpoint's directory.
    """


@hookspec
def modkit_run_finished(run: Run, error: BaseException | None) -> None:
    """A run ends.

    Args:
        run: The run.
        error: What ended it, or None where it is done.
    """


@hookspec
def modkit_commands(app: Any) -> None:
    """Adds commands to the `modkit` command line.

    Args:
        app: The command line's application, as `modkit.cli.app` makes it.
    """


@hookspec
def modkit_exporters() -> dict[str, str]:  # type: ignore[empty-body]
    """The layouts in which `modkit export RUN DIR --to FORMAT` can write a run.

    A format's target is a function, imported when it is asked for and called as `export(run, out, checkpoint=NAME)`:

        def export(run: Run, out: Path, *, checkpoint: str | None) -> None

    `out` is an empty folder, which becomes DIR when the function returns and is removed when it raises. What the
    format cannot hold is refused with a ValueError.

    Returns:
        Targets by format: `{"diffusers": "acme.exporting:export"}`.
    """
