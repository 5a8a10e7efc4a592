"""The hooks that a plug-in can implement, specified for pluggy.

A plug-in is a module (or an object) behind an entry point of the group `modkit`. It implements any of these hooks with
the decorator `@modkit.hookimpl`, and declares only the arguments that it uses; hooks may get further arguments later.
Plug-ins are called one at a time, so an exception in one affects neither the others nor the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.kinds import Kind
    from modkit.part import Part
    from modkit.runs.run import Run

__all__ = [
    "hookspec",
    "modkit_checkpoint_saved",
    "modkit_commands",
    "modkit_exporters",
    "modkit_kinds",
    "modkit_parts",
    "modkit_run_finished",
    "modkit_run_started",
    "modkit_samples_ready",
    "modkit_schemes",
    "modkit_scores_ready",
    "modkit_step_done",
]

hookspec = pluggy.HookspecMarker("modkit")


@hookspec
def modkit_parts() -> list[Part]:  # type: ignore[empty-body]
    """Returns the plug-in's parts.

    It is called at every start, also by `modkit list`, so the module that implements it must not import torch.

    Returns:
        Parts with names without a prefix; the registry adds the plug-in's name (`acme/fsq`).
    """


@hookspec
def modkit_kinds() -> list[Kind]:  # type: ignore[empty-body]
    """Returns the plug-in's kinds: rows with its own Protocols, for slots of its Models.

    It is called where `modkit_parts` is, and must not import torch either. Parts of any plug-in name the kind with its
    prefix: `Part("acme/layout", "grid", …)`.

    Returns:
        Kinds with names without a prefix; the registry adds the plug-in's name (`acme/layout`).
    """


@hookspec
def modkit_run_started(run: Run) -> None:
    """Called when a run starts, or resumes after an interruption.

    Args:
        run: The run, whose directory holds its resolved spec.
    """


@hookspec
def modkit_step_done(
    run: Run,
    stage: int,
    step: int,
    losses: Mapping[str, float],
    measures: Mapping[str, float],
    timing: Mapping[str, float],
) -> None:
    """Called after each training step that is logged.

    Args:
        run: The run.
        stage: Index of the stage.
        step: Number of steps since the start of the run.
        losses: The losses of the players trained in this step, by name.
        measures: The norm of each player's last gradient before it was clipped, `gradient_norm/player`, and its
            optimizer's learning rate at its last step, `learning_rate/player`.
        timing: `seconds` since this process began the stage, `steps_per_second` and `samples_per_second`.
    """


@hookspec
def modkit_samples_ready(run: Run, step: int, grid: Tensor) -> None:
    """Called when samples have been drawn during training.

    Args:
        run: The run.
        step: Number of steps since the start of the run.
        grid: The samples as one image, uint8 in [0, 255], `c h w` with 1 or 3 channels, on the CPU.
    """


@hookspec
def modkit_scores_ready(run: Run, step: int, scores: Mapping[str, float]) -> None:
    """Called when samples have been scored during training, as configured by `evaluate.watch`.

    Args:
        run: The run.
        step: Number of steps since the start of the run.
        scores: Scores by name.
    """


@hookspec
def modkit_checkpoint_saved(run: Run, path: Path) -> None:
    """Called when a checkpoint has been saved completely.

    Args:
        run: The run.
        path: The checkpoint's directory.
    """


@hookspec
def modkit_run_finished(run: Run, error: BaseException | None) -> None:
    """Called when a run ends.

    Args:
        run: The run.
        error: The exception that ended it, or None if it is complete.
    """


@hookspec
def modkit_commands(app: Any) -> None:
    """Adds commands to the `modkit` command line, under names that it does not have yet.

    Args:
        app: The click group of `modkit.cli.app`.
    """


@hookspec
def modkit_exporters() -> dict[str, str]:  # type: ignore[empty-body]
    """Returns the formats in which `modkit export RUN DIR --to FORMAT` can write a run.

    The target of a format is a function. It is imported when the format is requested:

        def export(run: Run, out: Path, *, checkpoint: str | None) -> None

    `out` is an empty folder, which becomes DIR when the function returns and is removed when it raises an exception.
    The function raises a ValueError if the format cannot represent the run's model.

    Returns:
        Targets by format: `{"diffusers": "acme.exporting:export"}`.
    """


@hookspec
def modkit_schemes() -> dict[str, str]:  # type: ignore[empty-body]
    """Returns the schemes whose addresses, `SCHEME://…`, stand for runs: in `modkit.load` and as `path` in a spec.

    The target of a scheme is a function. It is imported when an address of the scheme is met:

        def locate(address: str, *, download: bool) -> tuple[Path, str]

    It returns the run's folder on this machine, and an address that means these very files for ever. It raises a
    ValueError if there is no such run or, without `download`, if the run is not on this machine; this error names the
    command that downloads it.

    Returns:
        Targets by scheme: `{"acme": "acme.store:locate"}`.
    """
