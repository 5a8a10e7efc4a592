"""modkit: plug-in parts for deep generative models.

You choose parts, a spec says how they compose, and modkit checks, trains, samples and measures the whole. Importing
this package imports no torch: the names below resolve when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Batch": "types",
    "Cond": "types",
    "CondType": "types",
    "Denoised": "types",
    "Event": "types",
    "Features": "types",
    "Latents": "types",
    "Model": "model",
    "Part": "part",
    "Player": "model",
    "Rng": "rng",
    "Run": "run",
    "Score": "types",
    "Slot": "kinds",
    "Spec": "spec",
    "SpecError": "errors",
    "Step": "kinds",
    "TensorType": "types",
    "build": "session",
    "check": "checker",
    "compare": "comparison",
    "default": "kinds",
    "evaluate": "evaluation",
    "evaluate_run": "run_evaluation",
    "find": "registry",
    "hookimpl": "part",
    "load": "session",
    "load_spec": "spec",
    "sweep": "sweeping",
    "train": "training",
    "use": "spec",
}

__all__ = [*_HOME, "__version__"]  # noqa: PLE0604

if TYPE_CHECKING:
    from modkit.checker import check as check
    from modkit.comparison import compare as compare
    from modkit.errors import SpecError as SpecError
    from modkit.evaluation import evaluate as evaluate
    from modkit.kinds import Slot as Slot
    from modkit.kinds import Step as Step
    from modkit.kinds import default as default
    from modkit.model import Model as Model
    from modkit.model import Player as Player
    from modkit.part import Part as Part
    from modkit.part import hookimpl as hookimpl
    from modkit.registry import find as find
    from modkit.rng import Rng as Rng
    from modkit.run import Run as Run
    from modkit.run_evaluation import evaluate_run as evaluate_run
    from modkit.session import build as build
    from modkit.session import load as load
    from modkit.spec import Spec as Spec
    from modkit.spec import load_spec as load_spec
    from modkit.spec import use as use
    from modkit.sweeping import sweep as sweep
    from modkit.training import train as train
    from modkit.types import Batch as Batch
    from modkit.types import Cond as Cond
    from modkit.types import CondType as CondType
    from modkit.types import Denoised as Denoised
    from modkit.types import Event as Event
    from modkit.types import Features as Features
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
