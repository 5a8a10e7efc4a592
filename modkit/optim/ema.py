r"""The exponential moving average of the weights, which sampling uses.

    avg <- decay avg + (1 - decay) w        over parameters; buffers are not averaged

The decay is warmed up: at update n it is min(decay, (1 + n) / (10 + n)). Otherwise, after few steps, the average would
be mostly the initialisation.
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
        decay: Share of the average that is kept at each update, in [0, 1).

    Examples:
        >>> model = nn.ModuleDict({"net": nn.Linear(1, 1, bias=False)})
        >>> average = Average(model, ["net"], decay=0.9)
        >>> weight = model["net"].weight.data.add_(1)
        >>> average.update()  # its decay is 2 / 11
        >>> round(float(weight - average.state_dict()["net.weight"]), 4)
        0.1818
    """

    def __init__(self, model: nn.Module, paths: Iterable[str], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        modules = {path: model.get_submodule(path) for path in paths}
        self._live = _name_parameters(modules)
        self._average = {name: value.detach().clone() for name, value in self._live.items()}
        self._lists = list(self._average.values()), list(self._live.values())

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average with the current weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average, live = self._lists
        if live:
            torch._foreach_lerp_(average, live, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, by the names of the parameters in the model."""
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Restores averages and the number of updates made so far."""
        self.updates = updates
        for name, value in self._average.items():
            value.copy_(state[name])

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Copies the averages into the model."""
        for name, value in self._live.items():
            value.copy_(self._average[name])

    @contextmanager
    def apply(self) -> Iterator[None]:
        """Replaces the weights by the averages within the context."""
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


def _name_parameters(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, module in modules.items():
        for name, value in module.named_parameters():
            if id(value) not in seen:
                seen.add(id(value))
                named[f"{path}.{name}"] = value
    return named
