"""Cases of the parts of priors over codes: networks and decodings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modkit.cases.case import TRAINED, Case, Emitted, Flow, emit
from modkit.cases.probe import Probe
from modkit.cases.shapes import CODES
from modkit.types import CondType, TensorType

__all__ = ["CASES"]


def _play_prior_network(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    type: TensorType = types["codes"]
    codes, cond = probe.draw_tensor("codes", type), probe.draw_cond(types["cond"])
    logits = part(codes, cond)
    found = emit("logits", logits, TensorType((type.numel, type.classes or 0)))
    if types["causal"]:
        flat, cache, previous = codes.flatten(1), None, torch.zeros(probe.num, dtype=torch.int64)
        for i in range(type.numel):
            one, cache = part.step(previous, i, cond, cache)
            slack = max(torch.finfo(dtype).eps for dtype in (probe.dtype, logits.dtype)) ** 0.5  # autocast narrows
            if not torch.allclose(one.float(), logits[:, i].float(), atol=slack, rtol=slack):
                raise AssertionError(f"expected `step` to return the logits of a call on all codes, got others at {i}")
            previous = flat[:, i]
    return found


def _play_decoding(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    type: TensorType = types["codes"]
    classes = type.classes or 0

    def predict(codes: Tensor, i: int | None, known: int | None = None) -> Tensor:
        """Favours a class that depends on the position."""
        logits = torch.nn.functional.one_hot(torch.arange(type.numel) % classes, classes).float()
        all = logits.expand(len(codes), -1, -1)
        return all if i is None else all[:, i]

    return emit("codes", part(predict, probe.num, probe.rng), TensorType((type.numel,), classes=classes))


CASES = (
    Case(
        "prior-network",
        {
            "causal": {"codes": CODES, "cond": CondType(), "causal": True},
            "of masks": {"codes": CODES, "cond": CondType(), "causal": False},
            "vector condition": {"codes": CODES, "cond": CondType(vector=4), "causal": True},
            "context": {"codes": CODES, "cond": CondType(context=(3, 4)), "causal": True},
            "map beside": {"codes": CODES, "cond": CondType(concat=TensorType((2, 4, 4))), "causal": False},
        },
        _play_prior_network,
        TRAINED,
        (Flow("logits", ("vector",)), Flow("logits", ("context",))),
    ),
    Case("decoding", {"2-D": {"codes": CODES}}, _play_decoding, ("independence",)),
)
