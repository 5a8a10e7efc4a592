"""Evaluation mode: a model's modules in eval mode while one or more threads evaluate it.

A thread that leaves while others are inside leaves the modules in eval mode, and the last of these to leave puts them
back into train mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import nn

__all__ = ["evaluate_mode"]


class _Evaluation:
    """A model in eval mode, and the modules to put back into train mode afterwards."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.switched = [module for module in model.modules() if module.training]


_LOCK = Lock()
_OPEN: list[_Evaluation] = []


@contextmanager
def evaluate_mode(model: nn.Module) -> Iterator[None]:
    """Switches a model to eval mode without gradients, and restores the mode of each of its modules afterwards.

    Where several threads evaluate a module at once, the last of them restores its mode.

    Args:
        model: The model.

    Examples:
        >>> layer = nn.Dropout()
        >>> with evaluate_mode(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    with _LOCK:
        mine = _Evaluation(model)
        if mine.switched:
            model.eval()
        _OPEN.append(mine)
    try:
        with torch.no_grad():
            yield
    finally:
        with _LOCK:
            _close(mine)


def _close(mine: _Evaluation) -> None:
    """Restores modes, except of modules that evaluations begun later hold: these restore them when they end."""
    place = _OPEN.index(mine)
    later = _OPEN[place + 1 :]
    del _OPEN[place]
    left = mine.switched
    for other in later if left else ():
        held = set(other.model.modules())
        other.switched += [module for module in left if module in held]
        left = [module for module in left if module not in held]
    for module in left:
        module.training = True
