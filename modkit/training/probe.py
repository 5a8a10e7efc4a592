"""The probe of a model's samples: whether they depend on each other, or on draws that no seed decides.

Two samples are drawn together, again together, and the first by itself; by the rules of `modkit.rng` all three agree.
Each network computes once for inputs of a shape and then repeats its value, so that a sampler of any number of steps
costs one evaluation. The first module whose values differ is named. A part that differs in training only is not found,
nor is one that is reached after some hundred calls, as a decoder behind a long sampler is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modkit.kinds import BatchExtras, read_extras
from modkit.models.model import Model, evaluate_mode
from modkit.nn.units import find_networks
from modkit.rng import Rng
from modkit.samplers.sampling import Sampling
from modkit.types import Cond

__all__ = ["probe_samples"]

_MOST = 64  # calls of a network
_SAME = 1e-3  # of the largest value: more than sums in another order change in float32


class _EnoughError(Exception):
    """Ends a draw of many steps."""


def probe_samples(model: Model) -> str | None:
    """Finds what makes samples differ from draw to draw or with the size of a batch; None if nothing is found.

    Neither the model nor the state of torch's generators changes. Parts that declare that they look `across` a batch
    may do so.

    Args:
        model: The model. One that cannot be sampled yet is not probed.

    Examples:
        >>> from modkit import TensorType
        >>> from modkit.models import GAN
        >>> probe_samples(GAN(TensorType((2,)), generator="mlp", discriminator="mlp", z_dim=2)) is None
        True
    """
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            first, second, alone = (_draw(model, num) for num in (2, 2, 1))
        except Exception:  # a training that works must not fail here, and what cannot be sampled says so elsewhere
            return None
    if (name := _find_difference(first, second)) is not None:
        reason = "draws from a generator that no seed decides, so that neither samples nor trainings can be repeated"
    elif (name := _find_difference(first, alone)) is not None:
        reason = "looks across the rows of a batch, so that a sample depends on how many are drawn with it"
    else:
        return None
    owners = [module for path, module in model.named_modules() if f"{name}.".startswith(f"{path}.")]
    if any(read_extras(owner, BatchExtras).across for owner in owners):
        return None
    return f"{f'model.{name} ({type(owners[-1]).__name__})' if name else 'model: a part that samples'} {reason}"


def _draw(model: Model, num: int) -> dict[str, Tensor]:
    """Draws samples; returns the first values of each module, in the order in which they were made, and the samples."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, given: Any, value: object) -> None:
        if name not in seen and isinstance(value, Tensor) and value.is_floating_point() and value.shape[:1] == (num,):
            seen[name] = value.clone()

    hooks = [module.register_forward_hook(partial(keep, name)) for name, module in model.named_modules() if name]
    try:
        with evaluate_mode(model), _repeat(model):
            drawn = model.draw(num, {}, Cond(), Sampling(Rng("probe")))
            for level in drawn if isinstance(drawn, tuple) else (drawn,):
                keep("", model, (), level)
    except _EnoughError:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@contextmanager
def _repeat(model: Model) -> Iterator[None]:
    """Makes networks compute once for inputs of a shape within the context, and then repeat their values."""
    networks = find_networks(model)
    before = [vars(network).get("forward") for network in networks]
    for network in networks:
        network.forward = partial(_compute_once, network.forward, {}, Counter())
    try:
        yield
    finally:
        for network, forward in zip(networks, before, strict=True):
            del network.forward
            if forward is not None:
                network.forward = forward


def _compute_once(
    forward: Callable[..., Any], kept: dict[Hashable, Any], calls: Counter[str], *inputs: Any, **named: Any
) -> Any:
    calls["all"] += 1
    shapes = tuple(value.shape for value in inputs if isinstance(value, Tensor))
    if calls["all"] > _MOST or (shapes not in kept and len(kept) == 2):
        raise _EnoughError
    if shapes not in kept:
        kept[shapes] = forward(*inputs, **named)
    return kept[shapes]


def _find_difference(many: dict[str, Tensor], few: dict[str, Tensor]) -> str | None:
    """Finds the first module whose values for the first rows differ, or "" for only the samples."""
    for name in (name for name in many if name in few):
        a, b = many[name][: len(few[name])].double(), few[name].double()
        if a.shape != b.shape or (b.numel() and bool((a - b).abs().max() > _SAME * b.abs().max())):
            return name
    return None
