"""Network evaluations: how often a model's networks run to draw one sample (NFE).

    NFE = sum over calls of (rows of the call) / (samples drawn)

Networks, generators and networks of priors count; if none of them runs, decoders do. A sample costs 1 with a generator,
n with a sampler of n steps, twice as many with guidance (whether it calls the network twice or doubles the batch), and
each token costs 1 with a cache. A part inside another part that counts is counted once, with the outer part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from torch import Tensor, nn

from modkit.nn.compiled import run_uncompiled

__all__ = ["Evaluations", "count_evaluations"]

_COUNTED = (("network", "generator", "prior-network"), ("decoder",))
_METHODS = {"prior-network": ("forward", "step")}  # else only `forward`; a step makes a token from a cache


class Evaluations:
    """Counts the rows on which a model's networks are evaluated."""

    def __init__(self) -> None:
        self._rows = [0] * len(_COUNTED)
        self._running = [0] * len(_COUNTED)

    def count_per_sample(self, num: int) -> float | None:
        """The evaluations per sample of `num` samples, or None if no part that counts has run."""
        return next((rows / num for rows in self._rows if rows), None)

    def count_calls(self, group: int, method: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a method so that the rows of its calls are added to a group of kinds."""

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
    """Counts the evaluations that run within the context; compiled modules run uncompiled.

    Modules that are built from a spec state their kind as `.origin.kind`.
    """
    evaluations = Evaluations()
    with ExitStack() as stack:
        stack.enter_context(run_uncompiled())
        for module in model.modules():
            kind = getattr(getattr(module, "origin", None), "kind", None)
            for group, kinds in enumerate(_COUNTED):
                for name in _METHODS.get(kind, ("forward",)) if kind in kinds else ():
                    counted = evaluations.count_calls(group, getattr(module, name))
                    stack.enter_context(_replace_method(module, name, counted))
        yield evaluations


@contextmanager
def _replace_method(module: nn.Module, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Replaces a module's method; hooks would miss `step` and direct calls of `forward`."""
    own = vars(module).get(name)
    setattr(module, name, method)
    try:
        yield
    finally:
        delattr(module, name)
        if own is not None:
            setattr(module, name, own)


def _rows(given: Iterable[Any]) -> int:
    """Counts the rows of the first batch among the arguments (x, z or codes); a cache has other leading sizes."""
    for value in given:
        level = value[0] if isinstance(value, tuple) and value else value
        if isinstance(level, Tensor) and level.ndim:
            return len(level)
    raise ValueError("Evaluations expects networks to be called with a batch, got a call without one")
