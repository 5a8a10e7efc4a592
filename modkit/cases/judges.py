"""The case of judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modkit.cases.case import TRAINED, Case, Emitted, Flow, emit_scalar
from modkit.cases.probe import Probe
from modkit.cases.shapes import IMAGE, VECTOR
from modkit.kinds import JudgeExtras, Round, read_extras
from modkit.models.step import StepContext
from modkit.types import CondType, TensorType

__all__ = ["CASES"]

_STD = TensorType(VECTOR.shape, range=(0.5, 1.5))


def _play_judge(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    extras, given = read_extras(part, JudgeExtras), dict[str, Any]()
    if "fake" in extras.needs:
        given["fake"] = probe.draw_tensor("fake", types["x"])
    if {"z", "prior", "moments"} & set(extras.needs):
        z, prior, mean, std = (
            probe.draw_tensor(name, type)
            for name, type in (("z", VECTOR), ("prior", VECTOR), ("mean", VECTOR), ("std", _STD))
        )
        given |= {"z": z, "prior": lambda rng: prior, "moments": lambda: (mean, std)}
    round = Round(probe.draw_tensor("x", types["x"]), probe.draw_cond(types["cond"]), probe.rng, **given)
    step = probe.step or StepContext(probe.rng.at("step"))
    losses = dict(part.losses(round, step))
    if types["name"] not in losses:
        raise AssertionError(f"expected a loss {types['name']!r}, the judge's name, got {list(losses)}")
    found: dict[str, Emitted] = {}
    for name, loss in losses.items():
        found |= emit_scalar(f"loss {name}", loss, rows=False)
    for name, loss in extras.play(round, step).items() if extras.play else ():
        found |= emit_scalar(f"own {name}", loss, rows=False)
    return found


CASES = (
    Case(
        "judge",
        {"2-D": {"name": "judge", "x": IMAGE, "z": VECTOR, "cond": CondType()}},
        _play_judge,
        TRAINED,
        (Flow("loss *", ("fake", "z", "mean", "std")),),
    ),
)
