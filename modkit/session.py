"""Sessions: training a spec into a run, and loading what a run made."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from modkit import checkpoint as store
from modkit.builder import Origin, Site, given_type
from modkit.checker import Report, check
from modkit.kinds import Data
from modkit.lock import lock
from modkit.model import Model
from modkit.plan import plan
from modkit.progress import Progress, Silent
from modkit.run import Run
from modkit.settings import Settings
from modkit.spec import Spec
from modkit.trainer import Trainer
from modkit.watchers import Watchers

__all__ = ["build", "load", "opened_data", "train"]

_logger = logging.getLogger(__name__)
_NETWORKS = ("encoder", "decoder", "generator", "discriminator", "network")


def build(spec: Spec) -> Model:
    """Checks a spec and builds its model, initialised by the spec's seed, on the CPU.

    Raises:
        SpecError: With every problem found, before any weight exists.
    """
    check(spec)
    site = Site(plan(spec), meta=False)
    data = site.data()
    x, fields = (data.x, data.fields) if data else (given_type(spec), {})
    model = site.model(x, fields)
    site.check()
    return model  # type: ignore[no-any-return]


def train(
    spec: Spec,
    out: str | PathLike[str] | None = None,
    *,
    steps: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Trains a spec into a run.

    Args:
        spec: The spec; it needs `data`.
        out: The run's directory; `runs/NAME` where not given.
        steps: Caps every stage at so many steps.
        resume: Go on from the last good checkpoint of the run that is there, or from the start.
        overwrite: Replace the run that is there.
        progress: Shows how far training is.

    Raises:
        SpecError: If the spec is wrong; nothing has been written then.
        ValueError: If the directory holds a run, or resuming asks for another system than the run's.
        modkit.trainer.TrainingError: If a loss is not finite.
    """
    report = check(spec)
    resolved = report.plan.resolved
    site = Site(plan(spec), meta=False)
    data = site.data()
    settings = _capped(site.settings(), steps)
    engine = settings.engine(device=settings.device)
    loggers = [logger() for logger in settings.loggers]
    site.check()
    if data is None:
        raise ValueError("training expects a spec with `data`, got one without")
    _check_memory(report, settings)
    path = Path(out) if out is not None else Path("runs") / spec.name
    if resume and all((path / name).exists() for name in ("modkit.lock", "spec.yaml")):  # else killed as it was made
        run = Run.open(path)
        _check_same(run, resolved, settings.seed)
        site.weights = store.latest(run.checkpoints) is None
    else:
        made_with = lock(report.plan.entries, spec_text=resolved.to_yaml(), seed=settings.seed, keys=report.state)
        run = Run.create(path, resolved, made_with, overwrite)
    model = site.model(data.x, data.fields)
    site.check()
    model = model.to(engine.device)
    _tune(model, settings)
    watchers = Watchers(run, loggers)
    with run:
        Trainer(model, data, settings, engine, run, watchers, progress or Silent()).fit()
    return run


def load(
    run: Run | str | PathLike[str], overrides: Sequence[str] = (), *, spec: Spec | None = None, device: str = "cpu"
) -> Model:
    """The model of a run, with the weights of its last good checkpoint: the averaged ones inside a stage.

    Args:
        run: The run, or its directory.
        overrides: Of the spec, for what has no weights: `model.prior.sampler=ddim`.
        spec: Stands in for the run's own where that has local parts, which no name reloads.
        device: Where to put it.

    Raises:
        ValueError: If the directory holds no run, or the run no whole checkpoint.
        SpecError: If an override is wrong.
    """
    from modkit.overrides import apply

    run = run if isinstance(run, Run) else Run.open(run)
    spec = spec or Spec.from_yaml(run.spec_text, str(run.path / "spec.yaml"))
    spec, notices = apply(spec, overrides)
    for notice in notices:
        _logger.warning("%s", notice)
    site = Site(plan(spec), meta=False, weights=False)
    data = site.data()
    site.check()
    if data is None:
        raise ValueError(f"{run.path}: expected a spec with `data`, got one without")
    model: Model = site.model(data.x, data.fields)
    site.check()
    model.load_state_dict(run.weights())
    return model.to(device).eval()


def opened_data(run: Run) -> tuple[Data, str]:
    """The data set of a run, and the name of its part.

    Raises:
        ValueError: If it has none.
    """
    made = plan(Spec.from_yaml(run.spec_text, str(run.path / "spec.yaml")))
    site = Site(made, meta=False, weights=False)
    data = site.data()
    site.check()
    if data is None or made.data is None:
        raise ValueError(f"{run.path}: expected a spec with `data`, got one without")
    return data, made.data.part.name


def _capped(settings: Settings, steps: int | None) -> Settings:
    """Settings with every stage at most so long."""
    if steps is None:
        return settings
    if steps < 0:
        raise ValueError(f"steps expects at least 0, got {steps}")
    stages = [replace(s, steps=min(settings.steps if s.steps is None else s.steps, steps)) for s in settings.stages]
    return replace(settings, steps=min(settings.steps, steps), stages=stages)


def _check_memory(report: Report, settings: Settings) -> None:
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


def _check_same(run: Run, spec: Spec, seed: int) -> None:
    before = Spec.from_yaml(run.spec_text, str(run.path / "spec.yaml"))
    if run.lock.get("seed") != seed:
        raise ValueError(f"{run.path} was trained from seed {run.lock.get('seed')}, got {seed}: a run has one seed")
    for key in ("data", "model"):
        if getattr(before, key) != getattr(spec, key):
            raise ValueError(
                f"{run.path} was trained from another `{key}`: resume with its own spec, or --overwrite it"
            )


def _tune(model: nn.Module, settings: Settings) -> None:
    """Memory format and compilation of the networks."""
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.compile:
        for module in model.modules():
            origin = getattr(module, "origin", None)
            if isinstance(origin, Origin) and origin.kind in _NETWORKS:
                module.compile()
