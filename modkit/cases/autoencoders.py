"""Cases of the parts of autoencoders: encoders, bottlenecks, decoders, likelihoods, objectives."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from modkit.cases import shapes
from modkit.cases.case import TRAINED, Case, Emitted, Flow, emit, emit_all, emit_scalar
from modkit.cases.probe import Probe
from modkit.cases.shapes import FEATURES, HIERARCHY, IMAGE, ODD, SIGNAL, VECTOR, VOLUME
from modkit.kinds import BottleneckExtras, Draw, read_extras
from modkit.models.given import call_given
from modkit.models.step import StepContext
from modkit.types import CondType, Event, TensorType, Value, split_levels

__all__ = ["CASES"]

_MANY = 16  # samples on which bottlenecks are prepared
_KL = {"small kl": 2.0, "large kl": 1000.0}  # below and above what an objective leaves free
_SIZES = {"2-D": IMAGE, "odd": ODD, "1-D": SIGNAL, "3-D": VOLUME, "vector": VECTOR}
_DECODED: dict[str, tuple[Event, TensorType]] = {
    "2-D": (TensorType((4, 4, 4)), IMAGE),
    "odd": (TensorType((4, 4, 3)), ODD),
    "1-D": (TensorType((4, 6)), SIGNAL),
    "vector to image": (VECTOR, IMAGE),
    "vector": (TensorType((3,)), VECTOR),
    "hierarchy": ((TensorType((4, 2, 2)), TensorType((4, 4, 4))), shapes.UNBOUNDED),
}


def _play_encoder(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    return emit("h", call_given(part, probe.draw_tensor("x", types["x"]), probe.draw_cond(types["cond"])), part.h)


def _play_bottleneck(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    values, kl, losses = part(probe.draw_value("h", types["h"]), probe.step)
    if list(values) != list(part.latents):
        raise AssertionError(f"expected latents {list(part.latents)}, as declared in `latents`, got {list(values)}")
    found = emit_all(values, part.latents)
    last = list(part.latents)[-1]
    for name, value in values.items():
        found |= emit(f"to_z({name})", part.to_z(name, value), part.latents[last])
    if kl is not None:
        groups = kl.shape[1:]
        if len(groups) > 1:
            raise AssertionError(f"expected `kl` of shape `b` or, by group, `b g`, got {tuple(kl.shape)}")
        found["kl"] = Emitted(kl, TensorType(tuple(groups)))
    for name, loss in losses.items():
        found |= emit_scalar(name, loss, rows=False)
    found |= _emit_draws(part, types, probe)
    if probe.training:
        _learn_bottleneck(copy.deepcopy(part), types, probe)
    return found


def _emit_draws(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    """Draws from the prior and the posteriors, where there are any."""
    extras, last = read_extras(part, BottleneckExtras), list(part.latents)[-1]
    found: dict[str, Emitted] = {}
    with suppress(ValueError):  # it has no prior
        found |= emit("sample", part.sample(probe.num, probe.rng), part.latents[last], learns=False)
    for name in part.latents if extras.posterior else ():
        with suppress(ValueError):  # the latent has no density
            value, log_density = extras.posterior(name, probe.draw_value("h", types["h"]), probe.rng)  # type: ignore[misc]
            found |= emit(f"posterior of {name}", value, part.latents[name], learns=False)
            found |= emit_scalar(f"log density of {name}", log_density, learns=False)
    if extras.condense and extras.expand and not probe.training:
        for name, event in part.latents.items():
            h = probe.draw_value("h", types["h"])
            value = extras.expand(name, extras.condense(name, h), probe.rng)
            found |= emit(f"expand of {name}", value, event, learns=False)
            _check_same(f"expand of {name}", value, part(h, StepContext(probe.rng)).values[name])
    return found


def _check_same(name: str, value: Value, expected: Value) -> None:
    for one, other in zip(_list_tensors(value), _list_tensors(expected)):
        rounding = torch.finfo(one.dtype).eps ** 0.5 if one.is_floating_point() else 0.0
        if not one.is_meta and bool(((one - other).abs() > rounding * other.abs().max()).any()):
            raise AssertionError(f"{name}: expected what a call gives with the same rng, got other values")


def _list_tensors(value: Value) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def _learn_bottleneck(part: Any, types: Mapping[str, Any], probe: Probe) -> None:
    """Prepares a bottleneck and updates it after a call, as in training."""
    extras, many = read_extras(part, BottleneckExtras), Probe(_MANY, dtype=probe.dtype, device=probe.device)
    if extras.prepare is not None:
        extras.prepare([many.draw_value("h", types["h"])] * 2, probe.rng.at("prepare"))
    part(probe.draw_value("h", types["h"]), probe.step)
    if extras.update is not None:
        extras.update(cast(StepContext, probe.step))


def _play_decoder(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    if part.last_layer is not None and part.last_layer not in dict(part.named_parameters()):
        raise AssertionError(f"expected `last_layer` to name a parameter or to be None, got {part.last_layer!r}")
    return emit("x", call_given(part, probe.draw_value("z", types["z"]), probe.draw_cond(types["cond"])), types["x"])


def _play_likelihood(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    x: TensorType = types["x"]
    out = probe.draw_tensor("out", replace(part.out(x), range=None))
    found = emit_scalar("nll", part.nll(out, probe.draw_tensor("x", x)))
    found |= emit("mean", part.mean(out), x)
    return found | emit("sample", part.sample(out.detach(), probe.rng), replace(x, range=None), learns=False)


class _Drawn(NamedTuple):
    """An `Evidence` of inputs of a probe."""

    probe: Probe
    groups: int
    size: str

    def draw(self) -> Draw:
        """Draws with a KL of the size."""
        kl = self.probe.draw_tensor(self.size, TensorType((self.groups,), range=(0.5, _KL[self.size])))
        return self._fill(nats={"nll": self.probe.draw_tensor("nll", TensorType(()))}, kl=kl)

    def weigh(self, num: int, *, hold: bool = False) -> Draw:
        """Draws one value, which is the logarithm of its weight."""
        latent = self.probe.draw_tensor("latent", TensorType((num,))).flatten()
        return self._fill(latent=latent, log_weights=latent.view(-1, num))

    def _fill(self, **members: Any) -> Draw:
        return Draw(torch.zeros(self.probe.num, 1), torch.zeros(self.probe.num, 1), **members)


def _play_objective(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    found: dict[str, Emitted] = {}
    for name in _KL:
        for index in (0, 1000):
            evidence = _Drawn(probe, len(split_levels(types["z"])), name)
            _, losses = part(evidence, StepContext(probe.rng.at("step", index), index))
            for term, loss in losses.items():
                found |= emit_scalar(f"{term} of {name} at step {index}", loss, rows=loss.ndim > 0)
    return found


CASES = (
    Case(
        "encoder",
        {
            **{name: {"x": x, "cond": CondType()} for name, x in _SIZES.items()},
            "conditional": {"x": IMAGE, "cond": CondType(vector=4)},
        },
        _play_encoder,
        TRAINED,
    ),
    Case(
        "bottleneck",
        {
            "2-D": {"h": FEATURES},
            "odd": {"h": TensorType((8, 5, 3))},
            "1-D": {"h": shapes.FEATURE_SIGNAL},
            "vector": {"h": shapes.FEATURE_VECTOR},
            "hierarchy": {"h": HIERARCHY},
        },
        _play_bottleneck,
        TRAINED,
        (Flow("to_z(*)", ("h",)),),
        _learn_bottleneck,
    ),
    Case(
        "decoder",
        {
            **{name: {"z": z, "x": x, "cond": CondType()} for name, (z, x) in _DECODED.items()},
            "conditional": {"z": TensorType((4, 4, 4)), "x": IMAGE, "cond": CondType(vector=4)},
            "vector under a condition": {"z": VECTOR, "x": IMAGE, "cond": CondType(vector=4)},
        },
        _play_decoder,
        TRAINED,
        (Flow("x", ("z",)),),
    ),
    Case(
        "likelihood",
        {"2-D": {"x": IMAGE}, "unit range": {"x": ODD}, "vector": {"x": VECTOR}},
        _play_likelihood,
        ("gradients", "independence"),
        (Flow("nll", ("out",)),),
    ),
    Case(
        "objective",
        {"2-D": {"z": TensorType((4, 4, 4))}, "hierarchy": {"z": HIERARCHY}},
        _play_objective,
        ("gradients",),
        (Flow("nll of *", ("nll",)), Flow("kl of *", ("small kl", "large kl")), Flow("bound of *", ("latent",))),
    ),
)
