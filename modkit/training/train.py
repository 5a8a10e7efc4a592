"""Training: it turns a spec into a run, and evaluates the model at the end if the spec says so."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from modkit.building.builder import Origin, Site
from modkit.building.checker import Report as Checked
from modkit.building.checker import check, examine
from modkit.building.migration import find_due, load_current, read_spec
from modkit.building.plan import plan
from modkit.building.provenance import explain_failure, suggest_remedies, verify
from modkit.building.review import show_warnings
from modkit.building.session import Opened, load_run, restore_std
from modkit.data.loader import check_workers
from modkit.evaluation.evaluate_run import Options, make_watch, measure_run
from modkit.evaluation.report import Report, locate_report
from modkit.models.model import Model
from modkit.progress import Progress, Silent
from modkit.runs import checkpoint as store
from modkit.runs.run import Run
from modkit.specs.settings import Settings
from modkit.specs.spec import Spec
from modkit.training.callbacks import Callbacks
from modkit.training.players import check_trainable, schedule_stages
from modkit.training.trainer import Trainer

__all__ = ["execute", "open_before", "train"]

_NETWORKS = ("encoder", "decoder", "generator", "discriminator", "network")


def train(
    spec: Spec,
    out: str | PathLike[str] | None = None,
    *,
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
        steps: Maximum number of steps of every stage.
        resume: Whether to resume an existing run from its last good checkpoint, or from the start if it has none.
        overwrite: Whether to replace an existing run.
        evaluate: Whether to evaluate the model at the end, if the spec has `evaluate`.
        progress: Displays progress.
        locked: When resuming, whether to refuse versions of parts and of torch other than those in the run's lock.

    Returns:
        The run.

    Raises:
        SpecError: If the spec is wrong; nothing has been written.
        ValueError: If the directory holds a run already; or if the run cannot be resumed, since its spec differs or an
            older version of a plug-in made it and its optimizers cannot be migrated.
        modkit.training.trainer.TrainingError: If a loss is not finite.

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
    path = Path(out) if out is not None else Path("runs") / spec.name
    before = open_before(path, locked) if resume else None
    with explain_failure(before) if before else nullcontext():
        report = examine(spec) if before else check(spec)
    if before:
        report = replace(report, x=restore_std(report.x, before))
    return execute(
        report,
        lambda site: site.build_model(report.x, report.fields),
        path,
        before,
        steps=steps,
        overwrite=overwrite,
        evaluate=evaluate,
        progress=progress,
    )


def execute(
    report: Checked,
    make: Callable[[Site], Model],
    path: Path,
    before: Run | None,
    *,
    steps: int | None = None,
    overwrite: bool = False,
    evaluate: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Trains a checked model, and evaluates it if its spec has `evaluate`.

    Args:
        report: The result of the check.
        make: Makes the model.
        path: The run's directory.
        before: The run to resume, or None.
        steps: Maximum number of steps of every stage.
        overwrite: Whether to replace an existing run.
        evaluate: Whether to evaluate the model at the end, if the spec has `evaluate`.
        progress: Displays progress.

    Raises:
        SpecError: As `train`.
        ValueError: As `train`.
    """
    if report.data is None:
        raise ValueError("training expects a spec with `data`, got one without")
    site = Site(report.plan, meta=False)
    settings = _cap(site.make_settings(), steps)
    loggers = [logger() for logger in settings.loggers]
    evaluation = site.make_evaluation()
    site.check()
    check_workers(settings.workers)
    _check_memory(report, settings)
    show_warnings(report.findings, str(path))
    name = report.plan.data.part.name if report.plan.data else type(report.data).__name__
    opened = Opened(report.data, name, evaluation, site)
    watch = make_watch(opened, settings.seed) if evaluation else None
    if before:
        _check_same(before, report, settings.seed)
        site.weights = store.find_latest(before.checkpoints) is None
    engine = settings.engine(device=settings.device)
    model = make(site)
    site.check()
    for stage in schedule_stages(model, settings):
        check_trainable(model, stage)
    run = before or Run.create(path, report.plan.resolved, report.lock(), overwrite)
    model = model.to(engine.device)
    _tune(model, settings)
    callbacks = Callbacks(run, loggers)
    with run:
        Trainer(model, report.data, settings, engine, run, callbacks, progress or Silent(), watch).fit()
    if evaluate and evaluation and not _is_measured(run):
        named = None if report.plan.spec.local else ()
        measure_run(run, load_run(run, planned=report.plan), opened, Options(), named=named).save(run.path)
    return run


def open_before(path: Path, locked: bool = False) -> Run | None:
    """Opens the run at a path to resume it; returns None if there is none.

    Raises:
        ValueError: If the run cannot be resumed.
    """
    begun = all((path / name).exists() for name in ("modkit.lock", "spec.yaml"))  # else killed as it was made
    return _open_resumable(path, locked) if begun else None


def _is_measured(run: Run) -> bool:
    """Whether the run keeps a report of its last checkpoint."""
    path = locate_report(run.path)
    return path.exists() and Report.read(path).checkpoint == run.find_checkpoint_name()


def _cap(settings: Settings, steps: int | None) -> Settings:
    """Settings with every stage at most so long."""
    if steps is None:
        return settings
    if steps < 0:
        raise ValueError(f"steps expects at least 0, got {steps}")
    stages = [replace(s, steps=min(settings.steps if s.steps is None else s.steps, steps)) for s in settings.stages]
    return replace(settings, steps=min(settings.steps, steps), stages=stages)


def _check_memory(report: Checked, settings: Settings) -> None:
    """Refuses a model that does not fit into this machine's memory, before anything is written."""
    if not hasattr(os, "sysconf"):  # not on Windows
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    values = sum(map(math.prod, report.state.values())) + settings.batch_size * report.x.numel
    if 4 * values > memory:
        needed, there = 4 * values / 2**30, memory / 2**30
        raise ValueError(
            f"training expects weights and a batch to fit into memory: {report.parameters:,} parameters and "
            f"{settings.batch_size} samples of {report.x} need {needed:,.0f} GiB, this machine has {there:,.0f} GiB"
        )


def _open_resumable(path: Path, locked: bool) -> Run:
    """Opens the run at a path, if it can be resumed with the installed parts."""
    run = Run.open(path)
    if run.exported:
        raise ValueError(
            f"{path} cannot be resumed: it was exported, so it has no checkpoints; train a new run from its weights "
            "with `use: run`"
        )
    verify(run, locked=locked)
    if store.find_latest(run.checkpoints) and (migrations := find_due(run)):
        mine, weights = load_current(run), run.load_weights()
        same = mine.spec == read_spec(run) and mine.weights.keys() == weights.keys()
        if not same or not all(torch.equal(value, weights[key]) for key, value in mine.weights.items()):
            raise ValueError(
                f"{path} cannot be resumed: {migrations[0]}, changes it, and optimizer states cannot be migrated; "
                "install the former version, or train a new run from its weights with `use: run`"
            )
    return run


def _check_same(run: Run, report: Checked, seed: int) -> None:
    if run.lock.get("seed") != seed:
        raise ValueError(f"{run.path} was trained with the seed {run.lock.get('seed')}, got {seed}: a run has one seed")
    before = Spec.from_yaml(run.spec_text, str(run.path / "spec.yaml"))
    if not report.plan.spec.local:  # parts may have been renamed, or have more parameters by now
        with explain_failure(run):
            before = plan(before).resolved
    for key in ("data", "model"):
        if getattr(before, key) != getattr(report.plan.resolved, key):
            raise ValueError(
                f"{run.path} was trained with a different `{key}`: resume it with its own spec, or use --overwrite"
            )
    then, now = run.lock.get("state"), {key: list(shape) for key, shape in report.state.items()}
    if then is not None and then != now:
        changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        reasons = "; ".join(suggest_remedies(run, keys=changed))
        raise ValueError(f"{run.path} has weights that do not fit the model: {', '.join(changed[:8])}; {reasons}")


def _tune(model: nn.Module, settings: Settings) -> None:
    """Sets the memory format of a model, and compiles its networks."""
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.compile:
        for module in model.modules():
            origin = getattr(module, "origin", None)
            if isinstance(origin, Origin) and origin.kind in _NETWORKS:
                module.compile()
