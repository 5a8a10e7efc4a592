"""Cases of the parts of adversarial models: generators, discriminators, adversarial losses and regularizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modkit.cases.case import Case, Emitted, Example, emit, emit_scalar
from modkit.cases.probe import Probe
from modkit.cases.shapes import IMAGE, ODD, SIGNAL, VECTOR
from modkit.types import Cond, CondType, TensorType

__all__ = ["CASES"]

_NONE = CondType()


def _play_generator(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    return emit("x", part(probe.draw_tensor("z", types["z"]), probe.draw_cond(types["cond"])), types["x"])


def _play_discriminator(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    logits = part(probe.draw_tensor("x", types["x"]), probe.draw_cond(types["cond"]))
    patches = logits.ndim == len(types["x"].shape) + 1 and logits.shape[1:2] == (1,)
    if logits.ndim != 1 and not patches:
        raise AssertionError(f"expected logits `b` or, of patches, `b 1 h w`, got {tuple(logits.shape)}")
    return {"logits": Emitted(logits, TensorType(tuple(logits.shape[1:])))}


def _play_adversarial(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    found: dict[str, Emitted] = {}
    for name, type in (("logits", TensorType(())), ("patches", TensorType((1, 3, 3)))):
        real, fake = probe.draw_tensor(f"real {name}", type), probe.draw_tensor(f"fake {name}", type)
        found |= emit_scalar(f"generator of {name}", part.generator(fake), rows=False)
        found |= emit_scalar(f"discriminator of {name}", part.discriminator(real, fake), rows=False)
    return found


def _play_regularizer(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    weight = probe.feed("weight", torch.linspace(0.5, 1.5, IMAGE.numel, dtype=probe.dtype).reshape(IMAGE.shape))

    def critic(x: Tensor, cond: Cond) -> Tensor:
        return (weight * x.tanh()).flatten(1).sum(1)

    return {
        name: replace(one, learns=weight.requires_grad)
        for name, one in emit_scalar("penalty", part(critic, probe.draw_tensor("x", IMAGE), Cond()), rows=False).items()
    }


CASES = (
    Case(
        "generator",
        tuple(
            Example(name, lambda x=x, cond=cond: {"z": TensorType((5,)), "x": x, "cond": cond})  # type: ignore[misc]
            for name, x, cond in (
                ("2-D", IMAGE, _NONE),
                ("odd", ODD, _NONE),
                ("vector", VECTOR, _NONE),
                ("conditional", IMAGE, CondType(vector=4)),
            )
        ),
        _play_generator,
        ("modules", "gradients", "independence"),
    ),
    Case(
        "discriminator",
        tuple(
            Example(name, lambda x=x, cond=cond: {"x": x, "cond": cond})  # type: ignore[misc]
            for name, x, cond in (
                ("2-D", IMAGE, _NONE),
                ("larger", TensorType((1, 16, 16), range=(-1.0, 1.0)), _NONE),
                ("odd", ODD, _NONE),
                ("1-D", SIGNAL, _NONE),
                ("vector", VECTOR, _NONE),
                ("conditional", IMAGE, CondType(vector=4)),
                ("of two images and a time", IMAGE, CondType(concat=IMAGE, time=True)),
            )
        ),
        _play_discriminator,
        ("modules", "gradients", "independence"),
    ),
    Case("adversarial", (Example("logits", lambda: {}),), _play_adversarial, ()),
    Case("regularizer", (Example("2-D", lambda: {}),), _play_regularizer, ()),
)
