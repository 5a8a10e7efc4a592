"""Cases of the parts of diffusion models, from networks and schedules to samplers and guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from modkit.cases.case import TRAINED, Case, Emitted, Flow, emit, emit_all
from modkit.cases.probe import Probe
from modkit.cases.shapes import IMAGE, ODD, SIGNAL, VECTOR, VOLUME
from modkit.cases.subject import Subject
from modkit.diffusion.coefficients import send
from modkit.diffusion.gaussian import add_noise, snr
from modkit.diffusion.schedules import Cosine
from modkit.kinds import Denoise, GuidanceExtras, LossWeightExtras, NetworkExtras, ScheduleExtras, read_extras
from modkit.parts.registry import find
from modkit.rng import Rng
from modkit.samplers.loop import sample
from modkit.types import CondType, Denoised, TensorType

__all__ = ["CASES"]

_TIME = CondType(time=True)


def _play_network(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    x, cond = probe.draw_tensor("x", types["x"]), probe.draw_cond(types["cond"])
    out = part(x, cond)
    emitted = emit("out", out, types["out"])
    extras = read_extras(part, NetworkExtras)
    if extras.tap is None:
        return emitted
    told, maps = extras.tap(x, cond, list(extras.taps), {})
    if not part.training and not torch.equal(told, out):
        raise AssertionError("expected `tap` to return the output of a call, got another")
    return emitted | emit_all(dict(maps), extras.taps)


def _play_schedule(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    t = torch.linspace(0, 1, probe.num + 2, dtype=torch.float64)[1:-1]
    if part.num is not None:
        t = (t * part.num).round().clamp(1, part.num) / part.num
    alpha, sigma = part.scales(t)
    back = part.time(sigma / alpha)
    if not (sigma.diff() > 0).all() or not (alpha > 0).all() or not torch.allclose(back, t, rtol=1e-6, atol=1e-6):
        raise AssertionError(
            "expected alpha_t > 0, increasing sigma_t, and `time` to invert sigma_t / alpha_t, got at t = "
            f"{t.tolist()}: alpha {alpha.tolist()}, sigma {sigma.tolist()}, back {back.tolist()}"
        )
    exact = {"alpha": alpha, "sigma": sigma, "time": back}
    emitted = {name: _emit_exact(value.to(probe.device)) for name, value in exact.items()}
    extras, x_0 = read_extras(part, ScheduleExtras), probe.draw_tensor("x_0", types["x"])
    (sent,) = send((t,), x_0)
    if extras.learn:
        emitted |= {f"learned {name}": _emit_loss(value) for name, value in zip(exact, extras.learn(sent))}
    if extras.losses:
        denoising = probe.draw_tensor("denoising", TensorType(())).square().to(sent.dtype)
        losses = extras.losses(x_0, sent, denoising)
        emitted |= {f"loss {name}": _emit_loss(value) for name, value in losses.items()}
    return emitted


def _play_times(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    t = part(probe.num, probe.rng)
    if not ((t > 0) & (t <= 1)).all():
        raise AssertionError(f"expected times in (0, 1], got {t.tolist()}")
    return {"t": _emit_exact(t)}


def _play_coupling(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    x_0 = probe.draw_tensor("x_0", types["x"])
    fields = {name: probe.draw_tensor(name, type) for name, type in types["fields"].items()}
    return emit("eps", part(x_0, fields, probe.rng), replace(types["x"], range=None), learns=False)


def _play_alignment(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    h, x_0 = probe.draw_tensor("h", types["taps"][part.tap]), probe.draw_tensor("x_0", types["x"])
    fields = {name: probe.draw_tensor(name, type) for name, type in types["fields"].items()}
    return {"loss": _emit_loss(part(h, x_0, fields))}


def _play_parametrization(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    schedule = types["schedule"]
    t = _spread_times(probe, schedule)
    x_0, eps = probe.draw_tensor("x_0", IMAGE), probe.draw_tensor("eps", replace(IMAGE, range=None))
    scales = schedule.scales(t)
    x_t = probe.watch("x_t", add_noise(x_0, eps, scales).detach())
    computed = part.coefficients(t, scales)
    found = {f"coefficient {name}": _emit_exact(value) for name, value in computed.items()}
    coefficients = dict(zip(computed, send(tuple(computed.values()), x_t)))
    x_in, time = part.inputs(x_t, coefficients)
    out = probe.draw_tensor("out", replace(part.out(IMAGE), range=None))
    denoised = part.denoised(out, x_t, coefficients)
    found |= {"x_in": Emitted(x_in, replace(IMAGE, range=None), learns=False)}
    found |= {"time": Emitted(time, None, learns=False)}
    found |= emit("x_0", denoised.x_0, replace(IMAGE, range=None))
    losses: dict[str, Tensor] = part.losses(out, x_0, eps, x_t, coefficients)
    if "denoising" not in losses:
        raise AssertionError(f"expected the loss `denoising`, got {list(losses)}")
    found |= {f"loss {name}": Emitted(loss, TensorType(())) for name, loss in losses.items()}
    return found | {"error scale": _emit_exact(part.error_scale(computed))}


def _play_loss_weight(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    schedule = Cosine()
    scales = schedule.scales(_spread_times(probe, schedule))
    weight = part(snr(scales), probe.watch("error_scale", scales[1] ** 2))  # that of V
    if not (weight >= 0).all():
        raise AssertionError(f"expected weights of at least 0, got {weight.tolist()}")
    emitted = {"weight": _emit_exact(weight.to(probe.device))}
    if log_variance := read_extras(part, LossWeightExtras).log_variance:
        emitted["u"] = _emit_loss(log_variance(send((snr(scales).log(),), probe.draw_tensor("x", IMAGE))[0]))
    return emitted


def _play_grid(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    times = part(probe.num)
    if len(times) != probe.num + 1 or times[-1] != 0 or not (times.diff() < 0).all():
        raise AssertionError(f"expected {probe.num + 1} times that decrease to 0, got {times.tolist()}")
    return {"times": _emit_exact(times[:-1])}


def _play_sampler(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    times = part.times()
    if times.dtype != torch.float64 or times[-1] != 0 or not (times.diff() < 0).all():
        raise AssertionError(f"expected float64 times that decrease to 0, got {times.tolist()}")
    schedule, x = types["schedule"], types["x"]

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        """Returns the exact denoiser's prediction for N(0, I)."""
        alpha, sigma = (scale.to(x_t.dtype) for scale in schedule.scales(t))
        return Denoised(probe.watch(f"x_0 at {t:.3g}", x_t * alpha / (alpha**2 + sigma**2)))

    x_t = part.start(probe.draw_tensor("eps", replace(x, range=None)), times[0])
    x_0 = sample(_Watched(part, probe), denoise, x_t, rng=probe.rng)
    return {"x": Emitted(x_0, replace(x, range=None), learns=False)}


class _Watched:
    """A sampler of whose steps the probe watches the inputs."""

    def __init__(self, sampler: Any, probe: Probe) -> None:
        self._sampler, self._probe = sampler, probe

    def times(self) -> Tensor:
        """Returns the sampler's times."""
        return self._probe.watch("times", self._sampler.times())

    def start(self, eps: Tensor, t: Tensor) -> Tensor:
        """Returns the sampler's start."""
        return self._sampler.start(eps, t)

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        """Takes the sampler's step from a watched x_t."""
        return self._sampler.step(denoise, self._probe.watch(f"x_t at {t:.3g}", x_t), t, s, state, rng)


def _play_guidance(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    scales = {"cond": 0.5, "null": 0.25, "zero": 0.125, "perturbed": 0.375}
    scales |= dict.fromkeys(read_extras(part, GuidanceExtras).sides, 0.75)

    def ask(x_t: Tensor, t: Tensor, *names: str) -> tuple[Denoised, ...]:
        return tuple(Denoised(probe.watch(f"prediction {name}", x_t * scales[name])) for name in names)

    guided = part(ask)
    t = torch.tensor(0.5, dtype=torch.float64)
    return emit("x_0", guided(probe.draw_tensor("x_t", replace(IMAGE, range=None)), t).x_0, replace(IMAGE, range=None))


def _spread_times(probe: Probe, schedule: Any) -> Tensor:
    """Returns times between 0.2 and 0.9, each a function of its row; for a discrete schedule, times of its table."""
    t = 0.2 + 0.7 * (0.618 * torch.arange(probe.num, dtype=torch.float64) % 1)
    return probe.watch("t", t if schedule.num is None else (t * schedule.num).round() / schedule.num)


def _emit_exact(value: Tensor) -> Emitted:
    """Emits a float64 number per sample."""
    if value.dtype != torch.float64:
        raise AssertionError(f"expected float64, got {value.dtype}")
    return Emitted(value, TensorType(()), learns=False)


def _emit_loss(value: Tensor) -> Emitted:
    """Emits a number per sample, through which gradients flow to parameters."""
    return Emitted(value, TensorType(()))


def _build_part(kind: str, name: str, **types: Any) -> Any:
    return Subject(find(kind, name)).build(types)


def _make_schedule(name: str, x: TensorType = IMAGE) -> Mapping[str, Any]:
    return {"schedule": _build_part("schedule", name, x=x), "x": x}


def _make_guided(name: str) -> Mapping[str, Any]:
    return {**_make_schedule(name), "cond": CondType(), "fields": {}, "conditions": {}}


def _make_pairing(x: TensorType, **conditions: TensorType) -> dict[str, Any]:
    """Types under which noise is paired with data that bring noise of their own, given these conditions."""
    fields = {"labels": _LABELS, "noise": replace(x, range=None), **conditions}
    return {"x": x, "cond": CondType(), "fields": fields, "conditions": conditions}


_LABELS = TensorType((), classes=3)
_INPUTS: dict[str, tuple[TensorType, CondType]] = {
    "2-D": (IMAGE, _TIME),
    "odd": (ODD, _TIME),
    "1-D": (SIGNAL, _TIME),
    "3-D": (VOLUME, _TIME),
    "vector": (VECTOR, _TIME),
    "vector condition": (IMAGE, CondType(time=True, vector=4)),
    "label condition": (IMAGE, CondType(time=True, labels=3)),
    "context": (IMAGE, CondType(time=True, context=(3, 4))),
    "map beside": (IMAGE, CondType(time=True, concat=TensorType((2, 8, 8)))),
    "noise": (IMAGE, CondType(time=True, noise=4)),
    "two times": (IMAGE, CondType(time=2)),
}
_TAPS = {"blocks.0": TensorType((5, 4, 4)), "blocks.1": TensorType((6, 2, 2))}
_SCHEDULES = {name: partial(_make_schedule, name) for name in ("linear", "cosine", "edm", "flow")}


CASES = (
    Case(
        "network",
        {name: {"x": x, "out": replace(x, range=None), "cond": cond} for name, (x, cond) in _INPUTS.items()},
        _play_network,
        (*TRAINED, "compile"),
        (Flow("out", ("x",)), Flow("out", ("vector",)), Flow("out", ("context",))),
    ),
    Case("schedule", {"2-D": {"x": replace(IMAGE, std=1.0)}}, _play_schedule, ("modules", "gradients")),
    Case("times", _SCHEDULES, _play_times, ("independence",)),
    Case(
        "coupling",
        {
            "2-D": _make_pairing(IMAGE),
            "vector": _make_pairing(VECTOR),
            "label condition": _make_pairing(IMAGE, labels=_LABELS),
            "map beside": _make_pairing(IMAGE, map=IMAGE),
            "enclosing model": _make_pairing(IMAGE) | {"cond": CondType(vector=4)},
        },
        _play_coupling,
    ),
    Case(
        "alignment",
        {
            "features": {"x": IMAGE, "fields": {"features": TensorType((7, 3, 3)), "labels": _LABELS}, "taps": _TAPS},
            "vector of features": {"x": IMAGE, "fields": {"features": TensorType((7,))}, "taps": _TAPS},
            "1-D": {
                "x": SIGNAL,
                "fields": {"features": TensorType((7, 3))},
                "taps": {"blocks.0": TensorType((5, 6))},
            },
        },
        _play_alignment,
        TRAINED,
        (Flow("loss", ("h",)),),
    ),
    Case(
        "parametrization",
        _SCHEDULES,
        _play_parametrization,
        ("gradients", "independence"),
        (Flow("x_0", ("out",)), Flow("loss *", ("out",))),
    ),
    Case("loss-weight", {"cosine": {}}, _play_loss_weight, TRAINED),
    Case("grid", _SCHEDULES, _play_grid),
    Case(
        "sampler",
        {
            "linear, 2-D": partial(_make_schedule, "linear", x=IMAGE),
            "cosine, vector": partial(_make_schedule, "cosine", x=VECTOR),
            "edm, odd": partial(_make_schedule, "edm", x=ODD),
            "flow, 1-D": partial(_make_schedule, "flow", x=SIGNAL),
            "cosine, 3-D": partial(_make_schedule, "cosine", x=VOLUME),
        },
        _play_sampler,
        ("independence",),
    ),
    Case("guidance", {"2-D": partial(_make_guided, "cosine")}, _play_guidance, ("independence",)),
)
