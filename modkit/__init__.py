"""modkit: plug-in parts for deep generative models.

You choose parts, a spec says how they compose, and modkit checks, trains, samples and measures the whole. Importing
this package imports no torch: the names below resolve when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modkit.version import __version__ as __version__

_HOME = {
    "Batch": "types",
    "Cond": "types",
    "CondType": "types",
    "Denoised": "types",
    "Event": "types",
    "Features": "types",
    "LatentBatch": "types",
    "Latents": "types",
    "Model": "models.model",
    "Part": "part",
    "Player": "models.player",
    "Rng": "rng",
    "Run": "runs.run",
    "Score": "types",
    "Slot": "kinds",
    "Spec": "specs.spec",
    "SpecError": "errors",
    "Step": "kinds",
    "StepContext": "models.step",
    "TensorType": "types",
    "branch": "training.branch",
    "build": "building.session",
    "check": "building.checker",
    "compare": "comparison.comparison",
    "default": "kinds",
    "draw_classes": "evaluation.class_grid",
    "evaluate": "evaluation.evaluate",
    "evaluate_run": "evaluation.evaluate_run",
    "find": "parts.registry",
    "fit": "training.fit",
    "hookimpl": "part",
    "list_runs": "comparison.listing",
    "load": "building.session",
    "load_spec": "specs.load",
    "players": "training.players",
    "rebuild_average": "publishing.average",
    "resume": "training.train",
    "sample": "samplers.loop",
    "sample_run": "publishing.samples",
    "seeded": "building.compose",
    "spec_of": "building.compose",
    "sweep": "sweeps.sweep",
    "train": "training.train",
    "use": "specs.spec",
}

__all__ = [*_HOME, "__version__"]  # noqa: PLE0604

if TYPE_CHECKING:
    from modkit.building.checker import check as check
    from modkit.building.compose import seeded as seeded
    from modkit.building.compose import spec_of as spec_of
    from modkit.building.session import build as build
    from modkit.building.session import load as load
    from modkit.comparison.comparison import compare as compare
    from modkit.comparison.listing import list_runs as list_runs
    from modkit.errors import SpecError as SpecError
    from modkit.evaluation.class_grid import draw_classes as draw_classes
    from modkit.evaluation.evaluate import evaluate as evaluate
    from modkit.evaluation.evaluate_run import evaluate_run as evaluate_run
    from modkit.kinds import Slot as Slot
    from modkit.kinds import Step as Step
    from modkit.kinds import default as default
    from modkit.models.model import Model as Model
    from modkit.models.player import Player as Player
    from modkit.models.step import StepContext as StepContext
    from modkit.part import Part as Part
    from modkit.part import hookimpl as hookimpl
    from modkit.parts.registry import find as find
    from modkit.publishing.average import rebuild_average as rebuild_average
    from modkit.publishing.samples import sample_run as sample_run
    from modkit.rng import Rng as Rng
    from modkit.runs.run import Run as Run
    from modkit.samplers.loop import sample as sample
    from modkit.specs.load import load_spec as load_spec
    from modkit.specs.spec import Spec as Spec
    from modkit.specs.spec import use as use
    from modkit.sweeps.sweep import sweep as sweep
    from modkit.training.branch import branch as branch
    from modkit.training.fit import fit as fit
    from modkit.training.players import players as players
    from modkit.training.train import resume as resume
    from modkit.training.train import train as train
    from modkit.types import Batch as Batch
    from modkit.types import Cond as Cond
    from modkit.types import CondType as CondType
    from modkit.types import Denoised as Denoised
    from modkit.types import Event as Event
    from modkit.types import Features as Features
    from modkit.types import LatentBatch as LatentBatch
    from modkit.types import Latents as Latents
    from modkit.types import Score as Score
    from modkit.types import TensorType as TensorType


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'modkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"modkit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
