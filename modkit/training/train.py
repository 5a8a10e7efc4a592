"""Training: it turns a spec into a run, and evaluates the model at the end if the spec says so.

A call with `resume` goes on if it is the one that began the run; `resume` itself changes what may change in a run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from modkit.building.checker import check, examine
from modkit.building.migration import (
    find_due,
    has_other_weights,
    load_current,
    load_current_spec,
    make_refusal,
    read_spec,
)
from modkit.building.provenance import explain_failure, verify
from modkit.building.session import Composed, restore_parts, restore_std
from modkit.engines.processes import choose_engine
from modkit.kinds import Data
from modkit.progress import Progress
from modkit.runs import checkpoint as store
from modkit.runs.ranks import check_restarts
from modkit.runs.run import Run
from modkit.specs.overrides import apply
from modkit.specs.spec import Spec, require_spec
from modkit.training.call import Call
from modkit.training.training import Training

__all__ = ["open_before", "resume", "train"]

_logger = logging.getLogger(__name__)


def train(
    spec: Spec,
    out: str | PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    steps: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    evaluate: bool = True,
    progress: Progress | None = None,
    locked: bool = False,
) -> Run:
    """Trains the model of a spec, and evaluates it if the spec has `evaluate`.

    Args:
        spec: The spec, which must have `data`.
        out: The run's directory, `runs/NAME` by default.
        overrides: Overrides of the spec, `path=value`.
        steps: Maximum number of steps of every stage.
        resume: Whether to resume an existing run from its last intact checkpoint, or from the start if it has none.
            Spec and overrides must be those that began it; `modkit.resume` changes what may change. A spec with local
            parts, which no run can keep, changes it itself.
        overwrite: Whether to replace an existing run.
        evaluate: Whether to evaluate the model at the end, if the spec has `evaluate`.
        progress: Displays progress; by default in a terminal or a notebook.
        locked: When resuming, whether to refuse versions of parts and of torch other than those in the run's lock.

    Returns:
        The run.

    Raises:
        SpecError: If the spec is wrong, or differs from the one that began the run; nothing has been written.
        ValueError: If the directory holds a run already; or if the run cannot be resumed, since an
            older version of a plug-in made it and its optimizers cannot be migrated; if none of its checkpoints is
            intact, or if another process writes to it; or if a launcher may start it again, and it is not resumed.
        OSError: If a file cannot be read or written, or the run's directory was removed or moved during training.
        modkit.training.trainer.TrainingError: If a loss is not finite, anything is refused after the first step, or the
            trained model cannot be evaluated. What fails before the first step is completed leaves no new run.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from modkit import use
        >>> from modkit.starters.model import Gaussian
        >>> data = use("ring", num=64, num_test=64)
        >>> spec = Spec(name="ring", data=data, model=use(Gaussian), train={"batch_size": 8})
        >>> with TemporaryDirectory() as folder:
        ...     train(spec, f"{folder}/run", steps=2).find_checkpoint_name()
        'step-00000002'
    """
    require_spec(spec, "train")
    check_restarts(resume)
    changed, notices = apply(spec, overrides)
    path = Path(out) if out is not None else Path("runs") / changed.name
    options: dict[str, Any] = {"steps": steps, "evaluate": evaluate, "progress": progress}
    if resume and (before := open_before(path, locked)):
        if (kept := Call.read(before)) and not spec.local:
            changed, notices = kept.repeat(before, spec, overrides), []
        return _train_further(before, changed, notices, **options)
    if resume:
        _logger.warning("%s holds no run yet: this starts one", path)
    _warn(notices)
    report = check(choose_engine(changed))
    origin = Call.describe(spec, overrides)
    return Training(report, path, origin=origin, overwrite=overwrite, **options).execute()


def resume(
    run: Run | str | PathLike[str],
    overrides: Sequence[str] = (),
    *,
    model: Composed | None = None,
    data: Any = None,
    steps: int | None = None,
    evaluate: bool = True,
    progress: Progress | None = None,
    locked: bool = False,
) -> Run:
    """Trains a run further by its own spec, from its last intact checkpoint, or from the start if it has none.

    Args:
        run: The run, or its directory.
        overrides: Overrides of the run's spec, `path=value`, of what may change: `modkit.training.changes`.
        model: A model composed like the run's, or a function that composes one, if the run has local parts, which
            cannot be loaded by name.
        data: The data that the run was trained on, as in `fit`, if its spec does not have them by name.
        steps: Maximum number of steps of every stage.
        evaluate: Whether to evaluate the model at the end, if the spec has `evaluate`.
        progress: Displays progress; by default in a terminal or a notebook.
        locked: Whether to refuse versions of parts and of torch other than those in the run's lock.

    Raises:
        SpecError: If an override changes what cannot change; nothing has been written.
        ValueError: If there is no run, or it cannot be resumed; see `train`.
        OSError: As `train`.
        modkit.training.trainer.TrainingError: As `train`.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from modkit import Spec
        >>> model = {"use": "autoencoder", "encoder": "mlp", "decoder": "mlp", "bottleneck": "identity"}
        >>> spec = Spec(name="ring", data="ring", model=model, train={"steps": 1})
        >>> with TemporaryDirectory() as folder:
        ...     run = train(spec, f"{folder}/run")
        ...     resume(run, ["train.steps=2"]).find_checkpoint_name()
        'step-00000002'
    """
    before = _open_resumable(Path(run.path if isinstance(run, Run) else run), locked)
    own, given = restore_parts(before, load_current_spec(before), model, data)
    options: dict[str, Any] = {"steps": steps, "evaluate": evaluate, "progress": progress}
    return _train_further(before, *apply(own, overrides), data=given, **options)


def _train_further(
    before: Run, changed: Spec, notices: Iterable[str], *, data: Data | None = None, **options: Any
) -> Run:
    """Trains a run further with a spec, on data if it has none; `options` go to `Training`."""
    _warn(notices)
    with explain_failure(before):
        report = examine(choose_engine(changed, again=True), weights=not before.kept, data=data)
    report = replace(report, x=restore_std(report.x, before))
    return Training(report, before.path, before, **options).execute()


def _warn(notices: Iterable[str]) -> None:
    for notice in notices:
        _logger.warning("%s", notice)


def open_before(path: Path, locked: bool = False) -> Run | None:
    """Opens the run at a path to resume it; returns None if there is none.

    Raises:
        ValueError: If the run cannot be resumed.
    """
    begun = all((path / name).exists() for name in ("modkit.lock", "spec.yaml"))  # else killed as it was made
    return _open_resumable(path, locked) if begun else None


def _open_resumable(path: Path, locked: bool) -> Run:
    """Opens the run at a path, if it can be resumed with the installed parts."""
    run = Run.open(path)
    if run.exported:
        raise ValueError(
            f"{path} cannot be resumed: it was exported, so it has no checkpoints; train a new run from its weights "
            "with `use: run`"
        )
    verify(run, locked=locked)
    if (migrations := find_due(run)) and store.list_names(run.checkpoints):
        mine = load_current(run)
        if has_other_weights(run, mine):
            raise make_refusal(path, "resumed", migrations[0])
        if mine.spec != read_spec(run):
            raise ValueError(
                f"{path} cannot be resumed: {migrations[0]}, changes its spec, though not its weights; go on from its "
                f"checkpoint in a new run: modkit branch {path} --out DIR"
            )
    return run
