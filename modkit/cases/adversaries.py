"""Cases of the parts of adversarial models: the networks, losses, augmentations and regularizers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modkit.cases.case import TRAINED, Case, Emitted, Flow, emit, emit_all, emit_scalar
from modkit.cases.probe import Probe
from modkit.cases.shapes import IMAGE, ODD, SIGNAL, VECTOR
from modkit.kinds import (
    AdversarialExtras,
    AugmentationExtras,
    DiscriminatorExtras,
    GeneratorExtras,
    RegularizerExtras,
    Round,
    read_extras,
)
from modkit.models.step import StepContext
from modkit.types import Cond, CondType, Judgement, TensorType

__all__ = ["CASES"]

_NONE = CondType()
_Z = TensorType((5,))
_LARGER = TensorType((1, 16, 16), range=(-1.0, 1.0))


def _play_generator(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    z, cond, extras = (
        probe.draw_tensor("z", types["z"]),
        probe.draw_cond(types["cond"]),
        read_extras(part, GeneratorExtras),
    )
    x, found = part(z, cond, *((probe.rng,) if extras.draws else ())), {}
    if extras.styles and extras.synthesis:
        w = extras.styles(z, cond)
        found = emit("w", w, extras.w) if extras.w else {}
        # in training, a part may mix styles
        if not part.training and not torch.equal(extras.synthesis(w, *((probe.rng,) if extras.draws else ())), x):
            raise AssertionError("expected `synthesis` of `styles` to return what a call does, got something else")
        if extras.map_layers:
            rng = probe.rng if extras.draws else None
            made = extras.synthesis(extras.map_layers(z, cond, rng), *((rng,) if extras.draws else ()))
            if not torch.equal(made, x):
                raise AssertionError(
                    "expected `synthesis` of `map_layers` to return what a call does, got something else"
                )
    return emit("x", x, types["x"]) | found


def _play_discriminator(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    x, cond = probe.draw_tensor("x", types["x"]), probe.draw_cond(types["cond"])
    logits = part(x, cond)
    patches = logits.ndim == len(types["x"].shape) + 1 and logits.shape[1:2] == (1,)
    if logits.ndim != 1 and not patches:
        raise AssertionError(f"expected logits `b` or, of patches, `b 1 h w`, got {tuple(logits.shape)}")
    if len(logits) < len(x):  # of packs of samples
        emitted = {"logits": Emitted(logits, TensorType(tuple(logits.shape)), rows=False)}
    else:
        emitted = {"logits": Emitted(logits, TensorType(tuple(logits.shape[1:])))}
    judge, heads = read_extras(part, DiscriminatorExtras).judge, types.get("heads", {})
    if judge is None:
        if heads:
            raise AssertionError("expected a discriminator that is told heads to have `judge`")
        return emitted
    told = judge(x, cond)
    # in training, spectral normalisation moves at each call
    if not part.training and not torch.equal(told.logits, logits):
        raise AssertionError("expected `judge` to return the logits of a call, got others")
    return emitted | emit_all(dict(told.heads), {name: TensorType((width,)) for name, width in heads.items()})


def _play_adversarial(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    found: dict[str, Emitted] = {}
    for name, type in (("logits", TensorType(())), ("patches", TensorType((1, 3, 3)))):
        real, fake = probe.draw_tensor(f"real {name}", type), probe.draw_tensor(f"fake {name}", type)
        given = (fake, real) if read_extras(part, AdversarialExtras).paired else (fake,)
        found |= emit_scalar(f"generator of {name}", part.generator(*given), rows=False)
        found |= emit_scalar(f"discriminator of {name}", part.discriminator(real, fake), rows=False)
    return found


def _play_augmentation(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    made = part(probe.draw_tensor("x", types["x"]), probe.rng)
    return emit("x", made, replace(types["x"], range=None))  # noise and brightness leave a range


def _learn_augmentation(part: Any, types: Mapping[str, Any], probe: Probe) -> None:
    """Shows an augmentation the logits of real samples and updates it after a call, as in training."""
    extras = read_extras(part, AugmentationExtras)
    part(probe.draw_tensor("x", types["x"]), probe.rng)
    if extras.observe:
        extras.observe(probe.draw_tensor("real logits", TensorType(())))
    if extras.update:
        extras.update(StepContext(probe.rng.at("update"), training=True))


def _play_regularizer(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    weight = probe.feed("weight", torch.linspace(0.5, 1.5, IMAGE.numel, dtype=probe.dtype).reshape(IMAGE.shape))

    critic = _Critic(weight)

    def encode(x: Tensor) -> Tensor:
        return (weight * x.tanh()).reshape(len(x), _Z.numel - 1, -1).sum(2)

    def decode(z: Any) -> Tensor:
        made: Tensor = z.tanh().repeat_interleave(IMAGE.numel // z.shape[1], dim=1)
        return weight * made.reshape(-1, *IMAGE.shape)

    x = probe.draw_tensor("x", IMAGE)
    z = encode(x)
    played = Round(x, Cond(), probe.rng, decode(z), z, critic, lambda z, cond: decode(z), encode, decode, probe.step)
    found = emit_scalar("penalty", part(played), rows=False, learns=weight.requires_grad)
    if probe.training and read_extras(part, RegularizerExtras).update:  # what it measures may be known after a turn
        part = copy.deepcopy(part)
        part.update(probe.step)
        found |= emit_scalar(
            "penalty after a turn", part(replace(played, rng=probe.rng)), rows=False, learns=weight.requires_grad
        )
    return found


class _Critic:
    """A critic with a weight, and one map of features."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        return (self.weight * x.tanh()).flatten(1).sum(1)

    def judge(self, x: Tensor, cond: Cond) -> Judgement:
        return Judgement(self(x, cond), (self.weight * x.tanh(),))


CASES = (
    Case(
        "generator",
        {
            "2-D": {"z": _Z, "x": IMAGE, "cond": _NONE},
            "odd": {"z": _Z, "x": ODD, "cond": _NONE},
            "vector": {"z": _Z, "x": VECTOR, "cond": _NONE},
            "conditional": {"z": _Z, "x": IMAGE, "cond": CondType(vector=4)},
        },
        _play_generator,
        TRAINED,
        (Flow("x", ("z",)), Flow("x", ("vector",))),
    ),
    Case(
        "discriminator",
        {
            "2-D": {"x": IMAGE, "cond": _NONE},
            "larger": {"x": _LARGER, "cond": _NONE},
            "odd": {"x": ODD, "cond": _NONE},
            "1-D": {"x": SIGNAL, "cond": _NONE},
            "vector": {"x": VECTOR, "cond": _NONE},
            "conditional": {"x": IMAGE, "cond": CondType(vector=4)},
            "of two images and a time": {"x": IMAGE, "cond": CondType(concat=IMAGE, time=True)},
            "with heads": {"x": IMAGE, "cond": _NONE, "heads": {"labels": 3}},
            "vector with heads": {"x": VECTOR, "cond": _NONE, "heads": {"labels": 3}},
        },
        _play_discriminator,
        TRAINED,
        (Flow("logits", ("x",)), Flow("logits", ("vector",))),
    ),
    Case(
        "adversarial",
        {"logits": {}},
        _play_adversarial,
        ("gradients",),
        tuple(
            Flow(f"{side} of {name}", (f"{given} {name}",))
            for name in ("logits", "patches")
            for side, given in (("generator", "fake"), ("discriminator", "real"), ("discriminator", "fake"))
        ),
    ),
    Case(
        "augmentation",
        {"2-D": {"x": IMAGE}, "odd": {"x": ODD}, "1-D": {"x": SIGNAL}, "vector": {"x": VECTOR}},
        _play_augmentation,
        ("modules", "gradients", "independence"),
        (Flow("x", ("x",)),),
        _learn_augmentation,
    ),
    Case("regularizer", {"2-D": {"x": IMAGE}}, _play_regularizer, ("gradients",), (Flow("penalty*", ("weight",)),)),
)
