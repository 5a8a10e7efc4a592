"""Figures of games: what reaches the conditioner, how far conditions move a logit, statistics of averaged weights."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from examples.mended.figure import Value
from examples.mended.toy import SMALL, draw_batch, make_spec, make_step, train
from modkit import build, seeded, use
from modkit.models import GAN
from modkit.nn.mlp import MLPDiscriminator
from modkit.types import Cond, CondType, TensorType

__all__ = [
    "compare_statistics",
    "leave_norm_out",
    "move_logits",
    "reach_conditioner",
    "set_activation",
]

_GROWTH = 1000.0
_DCGAN = use("dcgan", channels=8)


def reach_conditioner() -> Value:
    """Norm of the gradient of `adversarial` to the conditioner, in the generator's turn, through its judge's input.

    The other way, through the generator's own input, is cut.
    """
    with seeded(0):
        model: Any = GAN(
            TensorType((1, 16, 16), (-1, 1)),
            fields={"labels": TensorType((), classes=10)},
            generator=_DCGAN,
            discriminator=_DCGAN,
            conditioner="label",
        )
    model.generator.register_forward_pre_hook(lambda module, inputs: (inputs[0], _detach(inputs[1])))
    model.losses("generator", draw_batch(64, 1, 16, 16), make_step())["adversarial"].backward()
    given = [parameter.grad for parameter in model.conditioner.parameters() if parameter.grad is not None]
    return float(torch.cat([gradient.flatten() for gradient in given]).norm()) if given else 0.0


def move_logits() -> Value:
    """By which factor labels move a logit under spectral norm once the weights that embed them are 1000-fold."""
    with seeded(0):
        critic = MLPDiscriminator(TensorType((8,)), CondType(labels=4), width=16, spectral_norm=True)
    x, labels = torch.linspace(-1, 1, 8).expand(4, 8), torch.arange(4)
    spans: list[float] = []
    for factor in (1.0, _GROWTH):
        with torch.no_grad():
            for parameter in critic.projection.embedding.parameters():
                parameter.mul_(factor)
            for _ in range(100):  # of power iteration
                logits = critic(x, Cond(labels=labels))
        spans.append(float(logits.max() - logits.min()))
    return spans[1] / spans[0]


def leave_norm_out() -> Value:
    """Critics without batch norm, which couples the samples that R1 takes one by one: `norm` is new."""
    for part in ("dcgan", "patch"):
        build(make_spec(use("gan", generator=SMALL, discriminator=use(part, channels=4, norm="none"))))
    return "accepted"


def set_activation() -> Value:
    """The paper's networks of D2GAN: `activation` and `init_std` of `mlp` are new."""
    mlp = use("mlp", width=16, depth=1, activation="relu", init_std=0.01)
    model: Any = build(make_spec(use("gan", generator=mlp, discriminator=mlp), "ring"))
    return f"accepted, {type(model.generator.hidden[1]).__name__}"


def compare_statistics() -> Value:
    """Mean of |log(stored variance / variance)| over the channels of batch norm, with averaged weights.

    A DCGAN of digits after 60 steps; the variance is that of 200 batches of noise.
    """
    model = train(make_spec(use("gan", generator=_DCGAN, discriminator=_DCGAN, z_dim=8), steps=60, ema=0.98))
    stored, oracle = model.generator, copy.deepcopy(model.generator).train()
    norms = [module for module in oracle.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all batches
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(200):
            oracle(torch.randn(64, 8, generator=generator), Cond())
    kept = [module for module in stored.modules() if isinstance(module, nn.BatchNorm2d)]
    logs = [(_get_variance(a) / _get_variance(b)).log().abs() for a, b in zip(kept, norms, strict=True)]
    return float(torch.cat(logs).mean())


def _get_variance(norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_var is not None
    return norm.running_var


def _detach(cond: Cond) -> Cond:
    """Conditions without their gradient; `Cond.map` is new."""
    values = {field.name: getattr(cond, field.name) for field in fields(cond)}
    changed: dict[str, Any] = {name: v.detach() if isinstance(v, Tensor) else v for name, v in values.items()}
    return Cond(**changed)
