"""Cases of the parts of autoencoders: encoders, bottlenecks, decoders and likelihoods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modkit.cases.case import Case, Emitted, Example, emit, emit_scalar
from modkit.cases.probe import Probe
from modkit.cases.shapes import (
    FEATURE_SIGNAL,
    FEATURE_VECTOR,
    FEATURES,
    HIERARCHY,
    IMAGE,
    ODD,
    SIGNAL,
    UNBOUNDED,
    VECTOR,
    VOLUME,
)
from modkit.types import Event, TensorType

__all__ = ["CASES"]

_SIZES = {"2-D": IMAGE, "odd": ODD, "1-D": SIGNAL, "3-D": VOLUME, "vector": VECTOR}


def _play_encoder(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    return emit("h", part(probe.draw_tensor("x", types["x"])), part.h)


def _play_bottleneck(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    values, kl, losses = part(probe.draw_value("h", types["h"]), probe.step)
    if list(values) != list(part.latents):
        raise AssertionError(f"expected latents {list(part.latents)}, as declared in `latents`, got {list(values)}")
    found: dict[str, Emitted] = {}
    for name, value in values.items():
        found |= emit(name, value, part.latents[name])
    last = list(part.latents)[-1]
    for name, value in values.items():
        found |= emit(f"to_z({name})", part.to_z(name, value), part.latents[last])
    if kl is not None:
        found |= emit_scalar("kl", kl)
    for name, loss in losses.items():
        found |= emit_scalar(name, loss, rows=False)
    return found


def _play_decoder(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    if part.last_layer is not None and part.last_layer not in dict(part.named_parameters()):
        raise AssertionError(f"expected `last_layer` to name a parameter or to be None, got {part.last_layer!r}")
    return emit("x", part(probe.draw_value("z", types["z"])), types["x"])


def _play_likelihood(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    x: TensorType = types["x"]
    out = probe.draw_tensor("out", replace(part.out(x), range=None))
    found = emit_scalar("nll", part.nll(out, probe.draw_tensor("x", x)))
    found |= emit("mean", part.mean(out), x)
    sample = emit("sample", part.sample(out.detach(), probe.rng), replace(x, range=None))
    return found | {name: replace(one, learns=False) for name, one in sample.items()}


def _make_types(z: Event, x: TensorType) -> Mapping[str, Any]:
    return {"z": z, "x": x}


CASES = (
    Case(
        "encoder",
        tuple(Example(name, lambda x=x: {"x": x}) for name, x in _SIZES.items()),  # type: ignore[misc]
        _play_encoder,
        ("modules", "gradients", "independence"),
    ),
    Case(
        "bottleneck",
        (
            Example("2-D", lambda: {"h": FEATURES}),
            Example("odd", lambda: {"h": TensorType((8, 5, 3))}),
            Example("1-D", lambda: {"h": FEATURE_SIGNAL}),
            Example("vector", lambda: {"h": FEATURE_VECTOR}),
            Example("hierarchy", lambda: {"h": HIERARCHY}),
        ),
        _play_bottleneck,
        ("modules", "gradients", "independence"),
    ),
    Case(
        "decoder",
        (
            Example("2-D", lambda: _make_types(TensorType((4, 4, 4)), IMAGE)),
            Example("odd", lambda: _make_types(TensorType((4, 4, 3)), ODD)),
            Example("1-D", lambda: _make_types(TensorType((4, 6)), SIGNAL)),
            Example("vector to image", lambda: _make_types(VECTOR, IMAGE)),
            Example("vector", lambda: _make_types(TensorType((3,)), VECTOR)),
            Example("hierarchy", lambda: _make_types((TensorType((4, 2, 2)), TensorType((4, 4, 4))), UNBOUNDED)),
        ),
        _play_decoder,
        ("modules", "gradients", "independence"),
    ),
    Case(
        "likelihood",
        (
            Example("2-D", lambda: {"x": IMAGE}),
            Example("unit range", lambda: {"x": ODD}),
            Example("vector", lambda: {"x": VECTOR}),
        ),
        _play_likelihood,
        ("independence",),
    ),
)
