"""Small games for the tests: tiny specs of digits of 8×8, steps, and training in this process with any local class."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from modkit import Spec, use
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.kinds import Engine
from modkit.models.model import Model
from modkit.models.step import StepContext
from modkit.progress import Progress, Silent
from modkit.rng import Rng
from modkit.runs.run import Run
from modkit.training.callbacks import Callbacks
from modkit.training.schedule import schedule_stages
from modkit.training.trainer import Trainer
from modkit.types import Batch

MLP = {"encoder": use("mlp", width=16, depth=1), "decoder": use("mlp", width=16, depth=1)}
VAE = use("autoencoder", **MLP)
SMALL = {"width": 8, "depth": 1}
GAN = use("gan", generator=use("mlp", **SMALL), discriminator=use("mlp", **SMALL))
LINEAR = {"encoder": use("mlp", depth=0), "decoder": use("mlp", depth=0)}  # the encoder has no parameters


def spec(model: Any, data: Any = None, **train: Any) -> Spec:
    """A spec of digits (or other data) that trains for 4 steps on the CPU and logs each."""
    data = data or use("digits", size=8)
    settings = {"device": "cpu", "batch_size": 8, "steps": 4, "log": {"every": 1}, "samples": {"num": 4}}
    return Spec(name="toy", data=data, model=model, train={**settings, **train})


def read_model(model: str) -> Spec:
    """The spec of a model written in YAML, which starts in line 3, for digits."""
    return Spec.from_yaml(f"name: toy\ndata: {{use: digits, size: 8}}\nmodel: {model}\n", "spec.yaml")


def digits(num: int, dtype: torch.dtype = torch.float32) -> Batch:
    """The first training digits with their labels."""
    batch = Site(plan(spec("gan")), meta=False).data.read("train", range(num), Rng(0))
    return Batch(batch.tensor.to(dtype), batch.fields)


def turn(*key: int | str, **options: Any) -> StepContext:
    """A turn at the first step of a stage."""
    return StepContext(Rng("turn", *key), **{"training": True, **options})


def trainer(
    spec: Spec, path: Path, loggers: Any = (), progress: Progress | None = None, engine: Engine | None = None
) -> Trainer:
    """What would train a spec, whose parts may be local classes, into a run at `path`, or go on with it."""
    site = Site(plan(spec), meta=False)
    data, settings = site.data, site.settings
    model: Model = site.build_model(data.x, data.fields)
    engine = engine or settings.engine(device=settings.device)
    site.check()
    begun = (path / "modkit.lock").exists()
    run = Run.open(path) if begun else Run.create(path, SimpleNamespace(to_yaml=lambda: "name: toy\n"), {})
    stages, callbacks = schedule_stages(model, settings), Callbacks(run, model, loggers)
    return Trainer(model, data, settings, stages, engine, run, callbacks, progress or Silent())


class Notes(Silent):
    """A `Progress` that keeps the notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def shake(module: Any, scale: float, seed: int = 0) -> Any:
    """The module, each parameter moved by noise: a new network's zeros hide much."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module


def state(model: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of parameters and buffers."""
    return {name: value.clone() for name, value in model.state_dict().items()}
