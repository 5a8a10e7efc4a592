"""Loggers for experiment trackers. Importing this imports neither torch nor any tracker."""

from __future__ import annotations

from modkit import Part, hookimpl

__all__ = ["modkit_parts"]


@hookimpl
def modkit_parts() -> list[Part]:
    """Returns the parts of this plug-in; modkit puts `trackers/` before their names."""
    return [
        Part("logger", "wandb", "modkit_trackers.wandb:WandB", "Losses, scores and samples for Weights & Biases"),
        Part("logger", "mlflow", "modkit_trackers.mlflow:MLflow", "Losses, scores and samples for MLflow"),
        Part("logger", "trackio", "modkit_trackers.trackio:Trackio", "Losses, scores and samples for trackio"),
    ]
