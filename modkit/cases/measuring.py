"""Cases of the parts of evaluation: feature extractors and metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modkit.cases.case import Case, Emitted, emit_scalar
from modkit.cases.probe import Probe
from modkit.cases.shapes import IMAGE, ODD, VECTOR
from modkit.cases.subject import Subject
from modkit.evaluation.states import pack_state, unpack_state
from modkit.kinds import MetricExtras, read_extras
from modkit.parts.registry import find
from modkit.types import Batch, CondType, Modes, Score, TensorType

__all__ = ["CASES"]

_NUM = 64
_CLASSES = 3
_OF_SAMPLES = {"features", "points", "images", "logits", "labels", "pairs", "feature-pairs", "codes", "batch"}
_OF_SAMPLES |= {"latents", "posterior", "factors"}


def _play_features(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    if not isinstance(part.label, str) or not part.label:
        raise AssertionError(f"expected `label` to be its name in scores, got {part.label!r}")
    x = probe.draw_tensor("x", types["x"])
    part.prepare([Batch(Probe(_NUM).draw_tensor("x", types["x"]), {"labels": torch.arange(_NUM) % _CLASSES})])
    if not isinstance(part.key(), str):
        raise AssertionError(f"expected `key()` to be a hash, got {part.key()!r}")
    made = part(x)
    values = {"vector": made.vector, **{f"map {index}": one for index, one in enumerate(made.maps)}}
    values |= {} if made.logits is None else {"logits": made.logits}
    return {name: Emitted(one, TensorType(tuple(one.shape[1:]))) for name, one in values.items()}


def _play_metric(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    """Checks that two states of disjoint samples, when merged, stay the same and score like one state of all samples.

    Returns the scores.
    """
    whole, parts, model = part.init(), (part.init(), part.init()), None
    for offset, set in enumerate(part.sets):
        values, indices = _make_values(part, offset, model), torch.arange(_NUM)
        model = values.get("model")
        whole = part.update(whole, set, values, indices)
        halves = (slice(0, _NUM // 2), slice(_NUM // 2, _NUM))
        parts = tuple(
            part.update(state, set, {name: _select_rows(value, half) for name, value in values.items()}, indices[half])
            for state, half in zip(parts, halves)
        )
    if (place := read_extras(part, MetricExtras).place) is not None:
        whole = place(whole, torch.device("cpu"))
    scores: dict[str, Score] = part.result(whole, probe.rng)
    if not scores or not all(isinstance(score, Score) for score in scores.values()):
        raise AssertionError(f"expected scores by name, got {scores!r}")
    sent = [pack_state(state, model) for state in parts]
    other = unpack_state(sent[1], model)
    merged_state = part.merge(parts[0], other)
    if [pack_state(state, model) for state in (parts[0], other)] != sent:
        raise AssertionError("expected `merge` to change neither state, got one that has changed")
    merged = part.result(merged_state, probe.rng)
    if _OF_SAMPLES.intersection(part.needs) and _differ(scores, merged):
        raise AssertionError(f"expected two merged states to score like one state, got {merged} instead of {scores}")
    found: dict[str, Emitted] = {}
    for name, score in scores.items():
        found |= emit_scalar(name, torch.tensor(score.value, dtype=torch.float64), rows=False, learns=False)
    return found


def _make_values(part: Any, offset: int, model: Any = None) -> dict[str, Any]:
    """Makes the values of one set that a metric needs."""
    probe = Probe(_NUM, seed=offset)
    made: dict[str, Any] = {
        "features": lambda: probe.draw_tensor("features", VECTOR) + offset,
        "points": lambda: probe.draw_tensor("points", TensorType((2,))),
        "images": lambda: probe.draw_tensor("images", IMAGE),
        "logits": lambda: 3 * probe.draw_tensor("logits", TensorType((_CLASSES,))),
        "labels": lambda: probe.draw_tensor("labels", TensorType((), classes=_CLASSES)),
        "pairs": lambda: probe.draw_tensor("pairs", TensorType((2, *ODD.shape), range=ODD.range)),
        "feature-pairs": lambda: probe.draw_tensor("feature-pairs", TensorType((2, *VECTOR.shape))),
        "latents": lambda: probe.draw_tensor("latents", VECTOR),
        "posterior": lambda: probe.draw_tensor("posterior", TensorType((2, *VECTOR.shape))).exp(),
        "factors": lambda: probe.draw_tensor("factors", TensorType((3,), classes=_CLASSES)),
        "codes": lambda: probe.draw_tensor("codes", TensorType((5,), classes=9)),
        "batch": lambda: Batch(probe.draw_tensor("batch", IMAGE), {}),
        "levels": lambda: 256,
        "range": lambda: ODD.range,
        "truth": lambda: Modes(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 0.5),
        "model": lambda: model or _build_model(),
        "precision": lambda: "float32",
    }
    if unknown := [need for need in part.needs if need not in made]:
        raise AssertionError(f"expected `needs` among {', '.join(made)}, got {unknown}")
    return {need: made[need]() for need in part.needs}


def _build_model() -> Any:
    """Builds a model that has a bound, log p(x) and a source."""
    params = {"bijection": {"use": "coupling", "network": {"use": "mlp", "width": 8, "depth": 1}}}
    return Subject(find("model", "flow"), params).build({"x": IMAGE, "cond": CondType(), "fields": {}}).eval()


def _select_rows(value: Any, rows: slice) -> Any:
    if isinstance(value, Batch):
        return value.rows(rows)
    return value[rows] if isinstance(value, Tensor) else value


def _differ(a: Mapping[str, Score], b: Mapping[str, Score]) -> bool:
    return a.keys() != b.keys() or not all(
        math.isclose(a[name].value, b[name].value, rel_tol=1e-6, abs_tol=1e-9) for name in a
    )


CASES = (
    Case(
        "features",
        {"2-D": {"x": IMAGE}, "colour": {"x": TensorType((3, 16, 16), range=(-1.0, 1.0))}, "vector": {"x": VECTOR}},
        _play_features,
        ("independence",),
    ),
    Case("metric", {"64 samples": {}}, _play_metric),
)
