"""The case of Models: the losses of their players in each stage, and their samples."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from modkit.cases.case import Case, Emitted, emit, emit_scalar
from modkit.cases.probe import Probe
from modkit.cases.shapes import CODES, FIELDS, HIERARCHY, IMAGE, VECTOR
from modkit.models import Autoencoder
from modkit.models.latent_coder import LatentCoder
from modkit.models.latent_scale import LatentScale
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, CondType, Event, TensorType, Value

__all__ = ["CASES"]

_MANY = 16  # samples on which players are prepared


def _play_model(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    batch, measured = (_draw_batch(one, types) for one in (probe, Probe(_MANY, dtype=probe.dtype)))
    players = part.players()
    names = [player.name for player in players]
    if stray := [pattern for stage in part.stages() for pattern in stage if not _match_any(names, pattern)]:
        raise AssertionError(f"expected the patterns of `stages` to match players among {names}, got {stray}")
    modules = dict(part.named_modules())
    found: dict[str, Emitted] = {}
    for stage in part.stages():
        for player in (player for player in players if any(fnmatchcase(player.name, pattern) for pattern in stage)):
            if missing := [path for path in player.modules if path not in modules]:
                raise AssertionError(f"player {player.name}: expected modules of the model, got {missing}")
            part.prepare(player.name, [measured, measured], Rng(0, "prepare", player.name))
            step = StepContext(probe.rng.at(player.name), training=True)
            for name, loss in part.losses(player.name, batch, step).items():
                found |= emit_scalar(f"{player.name}: {name}", loss, rows=False)
    for name in () if types["cond"] else part.sources:
        source = part.draw_source(probe.num, name, probe.rng.at("source"), fields=batch.fields)
        found |= emit(f"source {name}", source, part.sources[name], learns=False)
        found |= emit(
            f"decoded {name}", part.decode_source(source, name, fields=batch.fields), types["x"], learns=False
        )
    for name in () if types["cond"] else part.latents:
        latent = probe.draw_value(f"latent {name}", part.latents[name])
        found |= emit(f"x of {name}", part.decode(latent, name, fields=batch.fields), types["x"], learns=False)
    return found | emit("x", _draw(part, batch, probe), types["x"], learns=False)


def _draw_batch(probe: Probe, types: Mapping[str, Any]) -> Batch:
    x, fields = probe.draw_value("x", types["x"]), types["fields"]
    return Batch(x, {name: probe.draw_tensor(name, fields[name]) for name in fields}, probe.draw_cond(types["cond"]))


def _draw(part: Any, batch: Batch, probe: Probe) -> Value:
    """Draws samples, or reconstructs the batch if the Model has latents but no prior."""
    try:
        drawn: Value = part.draw(probe.num, {}, batch.cond, probe.rng.at("draw"))
    except ValueError:
        if not part.latents:
            raise
        drawn = part.reconstruct(batch.x)
    return drawn


def _match_any(names: list[str], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


_TYPES: dict[str, tuple[Event, CondType, Mapping[str, TensorType]]] = {
    "2-D": (IMAGE, CondType(), {"labels": FIELDS["labels"]}),
    "vector": (VECTOR, CondType(), {}),
    "codes": (CODES, CondType(), {}),
    "hierarchy": (HIERARCHY, CondType(), {}),
    "under a condition": (IMAGE, CondType(vector=4), {}),
}


def _make_latent_types() -> dict[str, Any]:
    """Makes what a `latent` gives its prior, with an autoencoder of its own."""
    with Rng(0, "coder").seed_torch():
        coder = Autoencoder(IMAGE, encoder="mlp", decoder="mlp")
    z = coder.latents["continuous"]
    scale = LatentScale(coder, z, 1.0)
    return {"x": z, "cond": CondType(), "fields": {}, "coder": LatentCoder(coder, "continuous", scale)}


CASES = (
    Case(
        "model",
        {
            **{name: {"x": x, "cond": cond, "fields": fields} for name, (x, cond, fields) in _TYPES.items()},
            "in a latent": _make_latent_types,
        },
        _play_model,
        ("modules",),
    ),
)
