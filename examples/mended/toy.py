"""Small specs of digits, with parts that are built in no time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

import modkit
from modkit import Spec, use
from modkit.models.step import StepContext
from modkit.progress import Silent
from modkit.rng import Rng
from modkit.types import Batch

__all__ = ["MLP", "SMALL", "draw_batch", "make_spec", "make_step", "train"]

SMALL = use("mlp", width=16, depth=1)
MLP = use("autoencoder", encoder=SMALL, decoder=SMALL)


def make_spec(model: Any, data: Any = None, **train: Any) -> Spec:
    """A spec of digits of 8×8, or of other data."""
    settings = {"device": "cpu", "samples": {"num": 4}, **train}
    return Spec(name="toy", data=data or use("digits", size=8), model=model, train=settings)


def train(spec: Spec) -> Any:
    """A Model of any class, trained in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        run = modkit.train(spec, Path(folder) / "run", evaluate=False, progress=Silent())
        return modkit.load(run)


def draw_batch(num: int, *shape: int) -> Batch:
    """Noise in place of data, and labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(num, *shape, generator=generator) * 2 - 1
    return Batch(x, {"labels": torch.arange(num) % 10})


def make_step() -> StepContext:
    """A turn in training."""
    return StepContext(Rng("figure"), training=True)
