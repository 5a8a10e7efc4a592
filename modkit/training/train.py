"""Training: a spec into a run, measured at the end where the spec says so."""

from __future__ import annotations

import math
import os
from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from modkit.building.builder import Origin, Site
from modkit.building.checker import Report as Checked
from modkit.building.checker import check
from modkit.building.migration import find_due, load_current
from modkit.building.plan import plan
from modkit.building.provenance import explain_failure, suggest_remedies, verify
from modkit.building.session import Opened, load_run
from modkit.evaluation.evaluate_run import measure_run, watched
from modkit.evaluation.report import Report, report_path
from modkit.progress import Progress, Silent
from modkit.runs import checkpoint as store
from modkit.runs.run import Run
from modkit.specs.settings import Settings
from modkit.specs.spec import Spec
from modkit.training.callbacks import Watchers
from modkit.training.trainer import Trainer

__all__ = ["train"]

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
    """Trains a spec into a run, and measures the model where the spec has `evaluate`.

    Args:
        spec: The spec; it needs `data`.
        out: The run's directory; `runs/NAME` where not given.
        steps: Caps every stage at so many steps.
        resume: Go on from the last good checkpoint of the run that is there, or from the start.
        overwrite: Replace the run that is there.
        evaluate: Measure the model at the end, where the spec has `evaluate`.
        progress: Shows how far training is.
        locked: Of a run to go on with: refuse parts and a torch that are not those of its lock.

    Raises:
        SpecError: If the spec is wrong; nothing has been written then.
        ValueError: If the directory holds a run, or resuming asks for another system than the run's, or for one that
            an older version of a plug-in made and its optimizers cannot follow.
        modkit.training.trainer.TrainingError: If a loss is not finite.
    """
    path = Path(out) if out is not None else Path("runs") / spec.name
    begun = resume and all(
        (path / name).exists() for name in ("modkit.lock", "spec.yaml")
    )  # else killed as it was made
    before = _resumable(path, locked) if begun else None
    with explain_failure(before) if before else nullcontext():
        report = check(spec)
    if report.data is None or report.plan.data is None:
        raise ValueError("training expects a spec with `data`, got one without")
    site = Site(report.plan, meta=False)
    settings = _cap(site.settings(), steps)
    loggers = [logger() for logger in settings.loggers]
    evaluation = site.evaluation()
    site.check()
    _check_memory(report, settings)
    opened = Opened(report.data, report.plan.data.part.name, evaluation)
    watch = watched(opened, settings.seed) if evaluation else None
    if before:
        _check_same(before, report, settings.seed)
        site.weights = store.latest(before.checkpoints) is None
    engine = settings.engine(device=settings.device)
    model = site.model(report.x, report.fields)
    site.check()
    run = before or Run.create(path, report.plan.resolved, report.lock(), overwrite)
    model = model.to(engine.device)
    _tune(model, settings)
    callbacks = Watchers(run, loggers)
    with run:
        Trainer(model, report.data, settings, engine, run, callbacks, progress or Silent(), watch).fit()
    if evaluate and evaluation and not _is_measured(run):
        made = load_run(run, planned=report.plan)
        measure_run(run, made, opened, named=None if spec.local else ()).save(run.path)
    return run


def _is_measured(run: Run) -> bool:
    """Whether the run keeps a report of its last checkpoint."""
    path = report_path(run.path)
    return path.exists() and Report.from_json(path.read_bytes()).checkpoint == run.checkpoint_name()


def _cap(settings: Settings, steps: int | None) -> Settings:
    """Settings with every stage at most so long."""
    if steps is None:
        return settings
    if steps < 0:
        raise ValueError(f"steps expects at least 0, got {steps}")
    stages = [replace(s, steps=min(settings.steps if s.steps is None else s.steps, steps)) for s in settings.stages]
    return replace(settings, steps=min(settings.steps, steps), stages=stages)


def _check_memory(report: Checked, settings: Settings) -> None:
    """A model that this machine cannot hold is refused before anything is written."""
    if not hasattr(os, "sysconf"):  # not on Windows
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    values = sum(map(math.prod, report.state.values())) + settings.batch_size * report.x.numel
    if 4 * values > memory:
        needed, there = 4 * values / 2**30, memory / 2**30
        raise ValueError(
            f"training expects weights and a batch to fit into memory: {report.parameters:,} parameters and "
            f"{settings.batch_size} samples of {report.x} take {needed:,.0f} GiB, this machine has {there:,.0f}"
        )


def _resumable(path: Path, locked: bool) -> Run:
    """The run at a path, if training can go on with the parts that are here."""
    run = Run.open(path)
    if run.exported:
        raise ValueError(
            f"{path} was exported, which leaves nothing to go on from: start from its weights by `use: run`"
        )
    verify(run, locked=locked)
    if store.latest(run.checkpoints) and (migrations := find_due(run)):
        mine, weights = load_current(run), run.weights()
        same = mine.spec == Spec.from_yaml(run.spec_text) and mine.weights.keys() == weights.keys()
        if not same or not all(torch.equal(value, weights[key]) for key, value in mine.weights.items()):
            raise ValueError(
                f"{path} cannot be gone on with: {migrations[0]}, changes it, and optimizers cannot follow; install "
                "the former version, or start from its weights by `use: run`"
            )
    return run


def _check_same(run: Run, report: Checked, seed: int) -> None:
    if run.lock.get("seed") != seed:
        raise ValueError(f"{run.path} was trained from seed {run.lock.get('seed')}, got {seed}: a run has one seed")
    before = Spec.from_yaml(run.spec_text, str(run.path / "spec.yaml"))
    if not report.plan.spec.local:  # parts may have been renamed, or have more parameters by now
        with explain_failure(run):
            before = plan(before).resolved
    for key in ("data", "model"):
        if getattr(before, key) != getattr(report.plan.resolved, key):
            raise ValueError(
                f"{run.path} was trained from another `{key}`: resume with its own spec, or --overwrite it"
            )
    then, now = run.lock.get("state"), {key: list(shape) for key, shape in report.state.items()}
    if then is not None and then != now:
        changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        reasons = "; ".join(suggest_remedies(run, keys=changed))
        raise ValueError(f"{run.path} has weights that no longer fit: {', '.join(changed[:8])}; {reasons}")


def _tune(model: nn.Module, settings: Settings) -> None:
    """Memory format and compilation of the networks."""
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.compile:
        for module in model.modules():
            origin = getattr(module, "origin", None)
            if isinstance(origin, Origin) and origin.kind in _NETWORKS:
                module.compile()
