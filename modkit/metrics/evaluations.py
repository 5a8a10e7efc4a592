"""Network evaluations: how often a model's networks are run to make one sample (NFE).

    NFE = sum over calls of (rows of the call) / (samples made)

Networks, generators and priors' networks count; where none of them runs, decoders do. A generator's sample costs 1, a
sampler of n steps n, guidance twice that whether it calls twice or doubles the batch, and a token from a cache 1. A
part inside another of those counts once, with the outer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Evaluations", "count_evaluations"]

_COUNTED = (("network", "generator", "prior-network"), ("decoder",))
_METHODS = {"prior-network": ("forward", "step")}  # else `forward` alone; a step makes a token from a cache


class Evaluations:
    """Rows at which a model's networks have been evaluated."""

    def __init__(self) -> None:
        self._rows = [0] * len(_COUNTED)
        self._running = [0] * len(_COUNTED)

    def per_sample(self, num: int) -> float | None:
        """Evaluations for each of `num` samples, or None where no part ran that counts."""
        return next((rows / num for rows in self._rows if rows), None)

    def count_calls(self, group: int, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, adding the rows of its calls to a group of kinds."""

        @wraps(method)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if not self._running[group]:
                self._rows[group] += _rows((*args, *kwargs.values()))
            self._running[group] += 1
            try:
                return method(*args, **kwargs)
            finally:
                self._running[group] -= 1

        return counted


@contextmanager
def count_evaluations(model: nn.Module) -> Iterator[Evaluations]:
    """Counts what runs within it, compiled modules uncompiled.

    What a part is it says itself: the modules that a spec builds carry their kind, as `.origin.kind`.
    """
    evaluations = Evaluations()
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for module in model.modules():
            kind = getattr(getattr(module, "origin", None), "kind", None)
            for group, kinds in enumerate(_COUNTED):
                for name in _METHODS.get(kind, ("forward",)) if kind in kinds else ():
                    counted = evaluations.count_calls(group, getattr(module, name))
                    stack.enter_context(_replace_method(module, name, counted))
        yield evaluations


@contextmanager
def _replace_method(module: nn.Module, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Puts a method in the place of a module's own; hooks would miss `step`, and calls of `forward` itself."""
    own = vars(module).get(name)
    setattr(module, name, method)
    try:
        yield
    finally:
        delattr(module, name)
        if own is not None:
            setattr(module, name, own)


def _rows(given: Iterable[Any]) -> int:
    """The rows of the first batch among what was given: x, z or codes; a cache has other leading sizes."""
    for value in given:
        level = value[0] if isinstance(value, tuple) and value else value
        if isinstance(level, Tensor) and level.ndim:
            return len(level)
    raise ValueError("Evaluations expects networks to be given a batch, got a call without any")
