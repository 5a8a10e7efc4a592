"""Freezing by hand: a run may leave parameters alone that its spec trains, because they did not require gradients.

A spec does not say so. A run's lock lists all parameters that nothing trains, so that a model which is built from the
spec once more, to resume the run or in a branch of it, leaves the same ones alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modkit.models.model import Model
from modkit.runs.layout import LOCK
from modkit.runs.run import Run
from modkit.specs.settings import Settings
from modkit.training.ownership import find_untrained
from modkit.training.schedule import StageSchedule, schedule_stages

__all__ = ["describe_untrained", "find_frozen_by_hand", "freeze"]


def describe_untrained(model: Model, stages: Iterable[StageSchedule]) -> dict[str, Any]:
    """Describes what the lock of a new run keeps: the parameters that no player of its stages trains, if there are any.

    Args:
        model: The model.
        stages: All stages.
    """
    names = find_untrained(model, [player for stage in stages for player in stage.players])
    return {"untrained": sorted(names)} if names else {}


def find_frozen_by_hand(run: Run, model: Model, settings: Settings) -> list[str]:
    """Finds the parameters that a run left alone and that its spec trains; none in a run of an earlier version.

    Args:
        run: The run.
        model: A model built from the run's spec.
        settings: The settings of that spec.

    Raises:
        ValueError: If the run's lock holds something else in place of names.
    """
    kept = run.lock.get("untrained", [])
    if not isinstance(kept, list) or not all(type(name) is str for name in kept):
        raise ValueError(f"{run.path / LOCK}: expected `untrained` to hold names of parameters, got {kept!r}")
    if not kept:
        return []
    anew = describe_untrained(model, schedule_stages(model, settings)).get("untrained", ())
    there = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return sorted(there.intersection(kept).difference(anew))


def freeze(model: Model, names: Iterable[str]) -> None:
    """Lets parameters of a model, by their names, require no gradients."""
    for name in names:
        model.get_parameter(name).requires_grad_(False)
