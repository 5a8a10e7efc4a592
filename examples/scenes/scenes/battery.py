"""How the battery tests layouts."""

from typing import Any

from modkit import Spec, TensorType
from modkit.testing import Case, Emitted, Host, Probe, emit, emit_scalar


def play(part: Any, types: Any, probe: Probe) -> dict[str, Emitted]:
    drawn, loss = part.draw(probe.num, probe.rng), part.loss(probe.draw_tensor("places", types["places"]))
    return emit("drawn", drawn, types["places"], learns=False) | emit_scalar("loss", loss, rows=False)


HOST = Host(Spec(name="scenes", data="scenes/blobs", model="scenes/stage", train={"steps": 2}), "model.layout")
CASE = Case("scenes/layout", {"two": {"places": TensorType((2, 2))}}, play, ("modules", "gradients"), hosts=(HOST,))
