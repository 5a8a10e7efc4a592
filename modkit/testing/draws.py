"""The check that a part draws from its rng only: not in eval mode, in training, or in the backward pass from elsewhere.

Dropout is the one exception. In training it draws from torch's global generator, which the trainer seeds for each turn.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from modkit.cases.case import Example
from modkit.cases.probe import Probe
from modkit.testing.bench import Bench

__all__ = ["check_global_draws"]

_DROPOUT = frozenset(
    {
        *(f"{kind}dropout{end}" for kind in ("", "alpha_", "feature_", "feature_alpha_") for end in ("", "_")),
        *("dropout1d", "dropout2d", "dropout3d", "native_dropout", "rrelu", "rrelu_", "lstm", "gru", "rnn_tanh"),
        *("rnn_relu", "scaled_dot_product_attention", "multi_head_attention_forward"),
    }
)
"""The names of torch's functions that drop out, by themselves or by an argument."""


class _Dropout(TorchFunctionMode):
    """Moves torch's generator back after each function that drops out, so that only other draws move it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function of torch."""
        if getattr(func, "__name__", "") not in _DROPOUT:
            return func(*args, **(kwargs or {}))
        state = torch.get_rng_state()
        try:
            return func(*args, **(kwargs or {}))
        finally:
            torch.set_rng_state(state)


def check_global_draws(bench: Bench) -> None:
    """The part draws from its rng only, in eval mode, in training and backward, and only dropout from torch's own."""
    for example in bench.accepted:
        _check_draws(bench, example, "eval mode")
        with _Dropout():
            _check_draws(bench, example, "training")


def _check_draws(bench: Bench, example: Example, mode: str) -> None:
    """Calls the part, and differentiates what it returns in training."""
    train = mode == "training"
    types = example.types()
    part = bench.subject.build(types)
    if isinstance(part, torch.nn.Module):
        part.train(train)
    before = _get_states()
    found = bench.call(part, types, Probe(training=train, gradients=train), example)
    places = [(f"in {mode}", _get_states())]
    if train:
        bench.differentiate(found)
        places.append(("in the backward pass", _get_states()))
    for where, states in places:
        if moved := [name for name, state in states.items() if state != before[name]]:
            bench.fail(
                example,
                f"expected draws {where} from the rng that it receives, got some from {', '.join(moved)}: use "
                "`rng.normal(name, like)`, or `with rng.seed_torch():` around calls of libraries",
            )


def _get_states() -> dict[str, object]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "NumPy's generator": (kind, np.asarray(keys).tobytes(), *rest),
        "Python's generator": random.getstate(),
    }
