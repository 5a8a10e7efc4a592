"""Imports weights that were trained elsewhere as a finished run, which loads and samples like any other run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from modkit.building.checker import examine
from modkit.building.review import show_warnings
from modkit.building.session import build_checked
from modkit.building.weights import find_misfits
from modkit.errors import join_names
from modkit.runs.checkpoint import Checkpoint
from modkit.runs.run import Run
from modkit.specs.spec import Spec
from modkit.training.cursor import Cursor

__all__ = ["import_weights"]


def import_weights(
    spec: Spec,
    weights: Mapping[str, Tensor],
    out: str | PathLike[str],
    *,
    overwrite: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> Run:
    """Writes a finished run of a spec's model with the given weights and without optimizer state.

    Args:
        spec: The spec; it needs `x` if it has no `data`.
        weights: The complete state dict of the model, without other tensors.
        out: The run's directory.
        overwrite: Whether to replace an existing run.
        notes: The origin of the weights, as JSON; stored in the checkpoint's state as `adopted`.

    Raises:
        SpecError: If the spec is invalid.
        ValueError: If keys are missing or unknown, shapes differ or values are not finite, with all of these in one
            message; or if the directory holds a run. Nothing is written in these cases.
    """
    report = examine(spec, weights=False)
    _check_weights(weights, report.state)
    report = replace(report, findings=tuple(replace(one, overrides=()) for one in report.findings))  # weights fix parts
    show_warnings(report.findings, str(out))
    model = build_checked(report)
    model.load_state_dict(dict(weights))
    resolved = report.plan.resolved
    with Run.create(out, resolved, {**report.lock(), "imported": True}, overwrite) as run:
        state = {"cursor": asdict(Cursor()), "players": {}, "adopted": dict(notes or {})}
        run.save("step-00000000", Checkpoint({"model": model.state_dict()}, state))
        run.finish()
    return run


def _check_weights(weights: Mapping[str, Tensor], state: Mapping[str, Sequence[int]]) -> None:
    """Checks weights against the keys and shapes of a model."""
    found = find_misfits(weights, state)
    if odd := [key for key, value in weights.items() if not torch.isfinite(value).all()]:
        found.append(f"{len(odd)} not finite: {join_names(odd)}")
    if found:
        raise ValueError(f"the weights do not fit the model: {'; '.join(found)}")
