"""Adoption: weights that were trained elsewhere become a finished run, which loads and samples as any other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from modkit.building.checker import check
from modkit.building.session import build
from modkit.runs import checkpoint as store
from modkit.runs.run import Run
from modkit.specs.spec import Spec
from modkit.training.trainer import Cursor

__all__ = ["adopt"]

_SHOWN = 8


def adopt(
    spec: Spec,
    weights: Mapping[str, Tensor],
    out: str | PathLike[str],
    *,
    overwrite: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> Run:
    """Writes a finished run of a spec's model with these weights; it holds no optimizer.

    Args:
        spec: The spec; without `data` it says `x`.
        weights: The model's state dict, every tensor of it and no other.
        out: The run's directory.
        overwrite: Replace the run that is there.
        notes: Where the weights are from, as JSON; kept in the checkpoint's state as `adopted`.

    Raises:
        SpecError: If the spec is wrong.
        ValueError: If keys are missing or unknown, shapes differ or values are not finite: one error with all of them;
            or if the directory holds a run. Nothing has been written then.
    """
    report = check(spec)
    _check_weights(weights, report.state)
    model = build(spec)
    model.load_state_dict(dict(weights))
    resolved = report.plan.resolved
    with Run.create(out, resolved, report.lock(), overwrite) as run:
        state = {"cursor": asdict(Cursor()), "metrics": run.mark(), "players": {}, "adopted": dict(notes or {})}
        store.save(run.checkpoints, "step-00000000", store.Checkpoint({"model": model.state_dict()}, state))
        run.finish()
    return run


def _check_weights(weights: Mapping[str, Tensor], state: Mapping[str, Sequence[int]]) -> None:
    """Holds weights against the keys and shapes of a model."""
    misshapen = [
        f"{key} {tuple(weights[key].shape)} for {tuple(shape)}"
        for key, shape in state.items()
        if key in weights and tuple(weights[key].shape) != tuple(shape)
    ]
    problems = {
        "missing": [key for key in state if key not in weights],
        "unknown": [key for key in weights if key not in state],
        "of another shape": misshapen,
        "not finite": [key for key, value in weights.items() if not torch.isfinite(value).all()],
    }
    found = [f"{len(keys)} {what}: {_listed(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise ValueError(f"the weights do not fit the model: {'; '.join(found)}")


def _listed(keys: Iterable[str]) -> str:
    every = list(keys)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
