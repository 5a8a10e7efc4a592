r"""The exponential moving average of weights: what sampling uses.

    avg <- decay avg + (1 - decay) w        over parameters; buffers stay as they are

The decay is warmed up, min(decay, (1 + n) / (10 + n)) at update n, so that an average of few steps is not mostly the
initialisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """An average of the weights of some modules of a model.

    Args:
        model: The model.
        paths: Paths of the modules to average.
        decay: Share kept at each update, in [0, 1).
    """

    def __init__(self, model: nn.Module, paths: Iterable[str], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        modules = {path: model.get_submodule(path) for path in paths}
        self._live = _named(modules)
        self._average = {name: value.detach().clone() for name, value in self._live.items()}
        self._lists = list(self._average.values()), list(self._live.values())

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the weights as they are."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average, live = self._lists
        if live:
            torch._foreach_lerp_(average, live, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The averages by the parameters' names in the model."""
        return dict(self._average)

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Restores what `state` gave."""
        self.updates = updates
        for name, value in self._average.items():
            value.copy_(state[name])

    @torch.no_grad()
    def settle(self) -> None:
        """Makes the averages the weights."""
        for name, value in self._live.items():
            value.copy_(self._average[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages stand in for the weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in self._live.items():
            held = value.detach().clone()
            value.copy_(self._average[name])
            self._average[name].copy_(held)


def _named(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, module in modules.items():
        for name, value in module.named_parameters():
            if id(value) not in seen:
                seen.add(id(value))
                named[f"{path}.{name}"] = value
    return named
