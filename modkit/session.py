"""Sessions: training a spec into a run, and loading what a run made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from modkit import checkpoint as store
from modkit.builder import Origin, Site
from modkit.checker import check
from modkit.lock import lock
from modkit.model import Model
from modkit.plan import plan
from modkit.run import Run
from modkit.settings import Settings
from modkit.spec import Spec
from modkit.trainer import Progress, Silent, Trainer
from modkit.watchers import Watchers

__all__ = ["load", "train", "weights"]

_NETWORKS = ("encoder", "decoder", "generator", "discriminator", "network")


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
    site.check()
    if data is None:
        raise ValueError("training expects a spec with `data`, got one without")
    path = Path(out) if out is not None else Path("runs") / spec.name
    if resume and (path / "modkit.lock").exists():
        run = Run.open(path)
        _check_same(run, resolved)
        site.weights = False
    else:
        made_with = lock(report.plan.entries, spec_text=resolved.to_yaml(), seed=settings.seed, keys=report.state)
        run = Run.create(path, resolved, made_with, overwrite)
    model = site.model(data.x, data.fields)
    site.check()
    engine = settings.engine(device=settings.device)
    model = model.to(engine.device)
    _tune(model, settings)
    watchers = Watchers(run, [logger() for logger in settings.loggers])
    with run:
        Trainer(model, data, settings, engine, run, watchers, progress or Silent()).fit()
    return run


def load(run: Run | str | PathLike[str], overrides: Sequence[str] = (), *, device: str = "cpu") -> Model:
    """The model of a run, with the weights of its last good checkpoint: the averaged ones inside a stage.

    Args:
        run: The run, or its directory.
        overrides: Of the spec, for what has no weights: `model.prior.sampler=ddim`.
        device: Where to put it.

    Raises:
        ValueError: If the directory holds no run, or the run no whole checkpoint.
        SpecError: If an override is wrong.
    """
    from modkit.overrides import apply

    run = run if isinstance(run, Run) else Run.open(run)
    spec = Spec.from_yaml(run.spec_text, str(run.path / "spec.yaml"))
    if overrides:
        spec = apply(spec, overrides)[0]
    site = Site(plan(spec), meta=False, weights=False)
    data = site.data()
    site.check()
    if data is None:
        raise ValueError(f"{run.path}: expected a spec with `data`, got one without")
    model: Model = site.model(data.x, data.fields)
    site.check()
    model.load_state_dict(weights(run))
    return model.to(device).eval()


def weights(run: Run) -> dict[str, Tensor]:
    """The weights of a run's last good checkpoint: the averaged ones inside a stage.

    Raises:
        ValueError: If it has none.
    """
    path = store.latest(run.checkpoints)
    if path is None:
        raise ValueError(f"{run.path} holds no whole checkpoint")
    kept = store.load(path)
    return {**kept.tensors["model"], **kept.tensors.get("ema", {})}


def _capped(settings: Settings, steps: int | None) -> Settings:
    """Settings with every stage at most so long."""
    if steps is None:
        return settings
    if steps < 0:
        raise ValueError(f"steps expects at least 0, got {steps}")
    stages = [replace(s, steps=min(settings.steps if s.steps is None else s.steps, steps)) for s in settings.stages]
    return replace(settings, steps=min(settings.steps, steps), stages=stages)


def _check_same(run: Run, spec: Spec) -> None:
    before = Spec.from_yaml(run.spec_text, str(run.path / "spec.yaml"))
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
