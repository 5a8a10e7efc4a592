"""The case of bijections: both directions, and what they gain in volume."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from modkit.cases.case import TRAINED, Case, Emitted, Flow, emit, emit_scalar
from modkit.cases.probe import Probe
from modkit.cases.shapes import FEATURES, IMAGE, ODD, VECTOR
from modkit.kinds import BijectionExtras, read_extras
from modkit.types import Batch, CondType, TensorType

__all__ = ["CASES"]


def _play_bijection(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    x, cond = probe.draw_tensor("x", types["x"]), probe.draw_cond(types["cond"])
    y, log_det = part(x, cond)
    unbounded: TensorType = replace(types["x"], range=None)
    back = part.inverse(y.detach(), cond)
    if not back.is_meta and probe.dtype is torch.float64 and not torch.allclose(back, x, rtol=0, atol=1e-6):
        gap = float((back - x).abs().max())
        raise AssertionError(f"expected `inverse` to return x for the y of x, got a difference of {gap:.3g}")
    if probe.training:
        _learn_bijection(copy.deepcopy(part), types, probe)
    return {**emit("y", y, unbounded), **emit_scalar("log|det|", log_det), **emit("x", back, unbounded, learns=False)}


def _learn_bijection(part: Any, types: Mapping[str, Any], probe: Probe) -> None:
    """Prepares a bijection before a call, as in training."""
    x, cond = probe.draw_tensor("x", types["x"]), probe.draw_cond(types["cond"])
    if prepare := read_extras(part, BijectionExtras).prepare:
        prepare([Batch(x.detach(), {}, cond.map(torch.Tensor.detach))] * 2)
    part(x, cond)


_TYPES: dict[str, tuple[TensorType, CondType]] = {
    "vector": (VECTOR, CondType()),
    "features": (FEATURES, CondType()),
    "2-D": (IMAGE, CondType()),
    "odd": (ODD, CondType()),
    "under a vector": (VECTOR, CondType(vector=4)),
    "under a map": (FEATURES, CondType(concat=FEATURES)),
}


CASES = (
    Case(
        "bijection",
        {name: {"x": x, "cond": cond} for name, (x, cond) in _TYPES.items()},
        _play_bijection,
        TRAINED,
        (Flow("y", ("x",)),),
        _learn_bijection,
    ),
)
